/* SPDX-License-Identifier: Apache-2.0
 *
 * A resolver in C: Docker Hub comes from the company's registry, one registry is denied, and all
 * else is somebody else's business. Put "standard" behind it in routing.resolvers.
 *
 *     cc -std=c11 -O2 -fPIC -shared -fvisibility=hidden -I../abi/include -o resolver.so resolver.c
 */
#define RINGPORT_PLUGIN_IMPLEMENTATION
#include "ringport_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STR(literal) ((ringport_str){literal, sizeof(literal) - 1})

struct ringport_instance { const ringport_host *host; };
struct ringport_worker { const ringport_host *host; };

static int equals(ringport_str s, ringport_str t) {
    return s.len == t.len && (s.len == 0 || memcmp(s.ptr, t.ptr, s.len) == 0);
}

static ringport_status configure(const ringport_host *host, const ringport_configure_args *args,
                                 ringport_ctx *ctx, ringport_instance **out) {
    for (size_t i = 0; i < args->upstream_count; i++) {
        if (!equals(args->upstreams[i]->canonical_name, STR("registry.corp"))) continue;
        if ((*out = malloc(sizeof **out)) == NULL) return RINGPORT_UNAVAILABLE;
        (*out)->host = host;
        return RINGPORT_OK;
    }
    host->emit_error(ctx, STR("declare [[upstream]] namespace = \"registry.corp\""));
    return RINGPORT_INVALID;
}

static ringport_status worker_start(const ringport_instance *instance, uint32_t number,
                                    ringport_ctx *ctx, ringport_worker **out) {
    (void)number, (void)ctx;
    if ((*out = malloc(sizeof **out)) == NULL) return RINGPORT_UNAVAILABLE;
    (*out)->host = instance->host;
    return RINGPORT_OK;
}

static ringport_status resolve(ringport_worker *worker, const ringport_resolve_request *request,
                               ringport_ctx *ctx) {
    const ringport_host *host = worker->host;
    if (equals(request->query_ns, STR("denied.example"))) {
        host->emit_error(ctx, STR("denied.example is not allowed here; ask the platform team"));
        return RINGPORT_DENIED;
    }
    if (!equals(request->query_ns, STR("docker.io"))) return RINGPORT_DECLINE;
    if (request->name.len > RINGPORT_REPOSITORY_BYTES_MAX) return RINGPORT_DECLINE;
    char repository[RINGPORT_REPOSITORY_BYTES_MAX + 8];
    int len = snprintf(repository, sizeof repository, "hub/%.*s", (int)request->name.len,
                       request->name.len ? request->name.ptr : "");
    host->emit_rule(ctx, STR("Docker Hub through registry.corp"));
    host->emit_upstream(ctx, STR("registry.corp"), (ringport_str){repository, (size_t)len});
    return RINGPORT_OK;
}

static void worker_stop(ringport_worker *worker) { free(worker); }

static void destroy(ringport_instance *instance) { free(instance); }

static const ringport_plugin plugin = {
    .size = sizeof(ringport_plugin),
    .magic = RINGPORT_PLUGIN_MAGIC,
    .abi_major = RINGPORT_ABI_MAJOR,
    .abi_minor = RINGPORT_ABI_MINOR,
    .name = {"example-c", 9},
    .version = {"1.0", 3},
    .configure = configure,
    .worker_start = worker_start,
    .resolve = resolve,
    .worker_stop = worker_stop,
    .destroy = destroy,
};

const ringport_plugin *ringport_plugin_entry(uint32_t host_major, uint32_t host_minor) {
    (void)host_major, (void)host_minor;
    return &plugin;
}
