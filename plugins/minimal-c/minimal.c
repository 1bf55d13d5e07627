/* SPDX-License-Identifier: Apache-2.0
 * A resolver in C: ghcr.io comes from registry.corp, quay.io is denied, the rest is passed on. */
#define RINGPORT_PLUGIN_IMPLEMENTATION
#include "ringport_plugin.h"
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
    char name[RINGPORT_REPOSITORY_BYTES_MAX + sizeof "ghcr/"];
    worker->host->emit_cacheable(ctx, 0); /* only namespaces and name are looked at */
    if (equals(request->ns, STR("quay.io"))) {
        worker->host->emit_error(ctx, STR("quay.io is not allowed here; ask the platform team"));
        return RINGPORT_DENIED;
    }
    if (!equals(request->ns, STR("ghcr.io"))) return RINGPORT_DECLINE;
    size_t len = request->repository.len;
    if (len == 0 || len > RINGPORT_REPOSITORY_BYTES_MAX - 5) return RINGPORT_INVALID;
    memcpy(memcpy(name, "ghcr/", 5) + 5, request->repository.ptr, len);
    worker->host->emit_rule(ctx, STR("ghcr.io through registry.corp"));
    worker->host->emit_upstream(ctx, STR("registry.corp"), (ringport_str){name, len + 5});
    return RINGPORT_OK;
}
static void worker_stop(ringport_worker *worker) { free(worker); }
static void destroy(ringport_instance *instance) { free(instance); }
static const ringport_plugin plugin = {
    .size = sizeof plugin, .magic = RINGPORT_PLUGIN_MAGIC, .abi_major = RINGPORT_ABI_MAJOR,
    .abi_minor = RINGPORT_ABI_MINOR, .name = {"minimal-c", 9}, .version = {"1.0", 3},
    .configure = configure, .worker_start = worker_start, .resolve = resolve,
    .worker_stop = worker_stop, .destroy = destroy,
};
const ringport_plugin *ringport_plugin_entry(uint32_t host_major, uint32_t host_minor) {
    (void)host_major, (void)host_minor;
    return &plugin;
}
