/* SPDX-License-Identifier: Apache-2.0
 *
 * A plugin of ABI 1.0, as it was built when there was nothing newer. It and the header beside it
 * never change: a host of every later minor must load it and serve it. tests/plugin_versions.rs
 */
#define RINGPORT_PLUGIN_IMPLEMENTATION
#include "ringport_plugin_1_0.h"

#include <stdlib.h>
#include <string.h>

#define STR(literal) ((ringport_str){literal, sizeof(literal) - 1})

_Static_assert(sizeof(ringport_plugin) == 104, "1.0");
_Static_assert(sizeof(ringport_host) == 72, "1.0");
_Static_assert(sizeof(ringport_resolve_request) == 112, "1.0");

struct ringport_instance { const ringport_host *host; };
struct ringport_worker { const ringport_host *host; };

static int equals(ringport_str s, ringport_str t) {
    return s.len == t.len && (s.len == 0 || memcmp(s.ptr, t.ptr, s.len) == 0);
}

static ringport_status configure(const ringport_host *host, const ringport_configure_args *args,
                                 ringport_ctx *ctx, ringport_instance **out) {
    if (args->upstream_count == 0 || !equals(args->upstreams[0]->canonical_name, STR("docker.io"))) {
        host->emit_error(ctx, STR("the first upstream must be docker.io"));
        return RINGPORT_INVALID;
    }
    if ((*out = malloc(sizeof **out)) == NULL) return RINGPORT_UNAVAILABLE;
    (*out)->host = host;
    return RINGPORT_OK;
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
    if (equals(request->name, STR("denied"))) {
        host->emit_error(ctx, STR("not by 1.0"));
        return RINGPORT_DENIED;
    }
    if (equals(request->name, STR("ours"))) {
        host->emit_hosted(ctx, STR("team/ours"));
        return RINGPORT_OK;
    }
    if (!equals(request->name, STR("library/alpine"))) return RINGPORT_DECLINE;
    host->emit_rule(ctx, STR("of 1.0"));
    host->emit_freshness(ctx, 1500, RINGPORT_MS_UNSET);
    host->emit_upstream(ctx, STR("docker.io"), request->name);
    return RINGPORT_OK;
}

static void worker_stop(ringport_worker *worker) { free(worker); }

static void destroy(ringport_instance *instance) { free(instance); }

static const ringport_plugin plugin = {
    .size = sizeof(ringport_plugin),
    .magic = RINGPORT_PLUGIN_MAGIC,
    .abi_major = 1,
    .abi_minor = 0,
    .name = {"frozen", 6},
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
