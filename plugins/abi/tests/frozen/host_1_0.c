/* SPDX-License-Identifier: Apache-2.0
 *
 * A host of ABI 1.0, with the handshake and the structs of its day. It and the header beside it
 * never change. It loads the plugin it is given, asks it for the repository it is given, and
 * prints what came of it; exit status 3 when it refuses. tests/plugin_versions.rs
 */
#include "ringport_plugin_1_0.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STR(literal) ((ringport_str){literal, sizeof(literal) - 1})

struct ringport_ctx { int is_open; };

static int refuse(const char *what, unsigned long expected, unsigned long found) {
    printf("refused: %s: expected %lu, found %lu\n", what, expected, found);
    return 3;
}

static ringport_status show(ringport_ctx *ctx, const char *what, ringport_str one,
                            ringport_str two) {
    if (ctx == NULL || !ctx->is_open) return RINGPORT_INVALID;
    printf("%s: %.*s %.*s\n", what, (int)one.len, one.len ? one.ptr : "", (int)two.len,
           two.len ? two.ptr : "");
    return RINGPORT_OK;
}

static ringport_status emit_upstream(ringport_ctx *ctx, ringport_str name, ringport_str repo) {
    return show(ctx, "upstream", name, repo);
}
static ringport_status emit_hosted(ringport_ctx *ctx, ringport_str repository) {
    return show(ctx, "hosted", repository, STR(""));
}
static ringport_status emit_rule(ringport_ctx *ctx, ringport_str text) {
    return show(ctx, "rule", text, STR(""));
}
static ringport_status emit_error(ringport_ctx *ctx, ringport_str text) {
    return show(ctx, "error", text, STR(""));
}
static ringport_status emit_freshness(ringport_ctx *ctx, uint64_t ttl_ms, uint64_t stale_ms) {
    (void)ctx, (void)stale_ms;
    printf("ttl: %lu\n", (unsigned long)ttl_ms);
    return RINGPORT_OK;
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    void *file = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    if (file == NULL) return 2;
    const ringport_plugin *(*entry)(uint32_t, uint32_t);
    *(void **)&entry = dlsym(file, "ringport_plugin_entry");
    if (entry == NULL) return 2;
    const ringport_plugin *plugin = entry(1, 0);
    if (plugin == NULL) return refuse("the plugin refuses this host", 1, 0);
    if (plugin->magic != RINGPORT_PLUGIN_MAGIC) return refuse("magic", 1, 0);
    if (plugin->abi_major != 1) return refuse("ABI major", 1, plugin->abi_major);
    if (plugin->size < sizeof *plugin) return refuse("size", sizeof *plugin, plugin->size);
    if (plugin->abi_minor > 0) return refuse("ABI minor or older", 0, plugin->abi_minor);
    if (plugin->capabilities != 0) return refuse("capabilities", 0, plugin->capabilities);

    static const ringport_host host = {
        .size = sizeof host, .abi_major = 1, .abi_minor = 0, .product = {"frozen/1.0", 10},
        .emit_upstream = emit_upstream, .emit_hosted = emit_hosted, .emit_rule = emit_rule,
        .emit_error = emit_error, .emit_freshness = emit_freshness,
    };
    ringport_upstream hub = {.size = sizeof hub, .canonical_name = STR("docker.io")};
    const ringport_upstream *upstreams[] = {&hub};
    ringport_configure_args args = {
        .size = sizeof args, .worker_count = 1, .name = STR("p"),
        .upstreams = upstreams, .upstream_count = 1,
    };
    ringport_ctx ctx = {1};
    ringport_instance *instance = NULL;
    ringport_worker *worker = NULL;
    if (plugin->configure(&host, &args, &ctx, &instance) != RINGPORT_OK) return 1;
    if (plugin->worker_start(instance, 0, &ctx, &worker) != RINGPORT_OK) return 1;
    ringport_resolve_request request = {
        .size = sizeof request, .kind = RINGPORT_KIND_MANIFEST, .method = STR("GET"),
        .name = {arguments[2], strlen(arguments[2])}, .reference = STR("latest"),
    };
    printf("status: %d\n", plugin->resolve(worker, &request, &ctx));
    plugin->worker_stop(worker);
    plugin->destroy(instance);
    return 0;
}
