/* SPDX-License-Identifier: Apache-2.0
 *
 * Wrong tables and wrong answers that the Rust SDK can't give. FAULT picks one; the server's tests
 * compile this file once for each. Never install it.
 */
#define RINGPORT_PLUGIN_IMPLEMENTATION
#include "ringport_plugin.h"

#define BAD_MAGIC 1
#define SHORT_TABLE 2
#define OTHER_MAJOR 3
#define NEWER_MINOR 4
#define UNKNOWN_CAPABILITY 5
#define BAD_NAME 6
#define NAME_LENGTH 7
#define NULL_NAME 8
#define BAD_VERSION 9
#define NULL_RESOLVE 10
#define NULL_DESTROY 11
#define REFUSES_HOST 12
#define NO_INSTANCE 13
#define NO_WORKER 14
#define UNKNOWN_STATUS 15
#define NULL_STRING 16
#define BAD_UTF8 17
#define ROUTE_IN_CONFIGURE 18
#define LATE_EMIT 19
#define LARGER_TABLE 20
#define EMIT_TO_CONFIGURE 21
#define UNKNOWN_DEPENDENCE 22
#define WANTS_REFRESHES 23

#define WHEN(fault, wrong, right) (FAULT == (fault) ? (wrong) : (right))

/* Something to point at; nothing is ever read from it. */
static max_align_t anchor;
static const ringport_host *host;
static ringport_ctx *kept;
static int is_destroyed;
static ringport_status late_status = -1;

static ringport_status configure(const ringport_host *h, const ringport_configure_args *args,
                                 ringport_ctx *ctx, ringport_instance **out) {
    (void)args;
    host = h;
    if (FAULT == ROUTE_IN_CONFIGURE && !is_destroyed) h->emit_hosted(ctx, (ringport_str){"a", 1});
    /* Without the capability. */
    if (FAULT == WANTS_REFRESHES && h->want_refresh(ctx, 60000) != RINGPORT_OK) {
        h->emit_error(ctx, (ringport_str){"told at once", 12});
        return RINGPORT_INVALID;
    }
    if (FAULT == EMIT_TO_CONFIGURE) kept = ctx;
    if (FAULT != NO_INSTANCE) *out = (ringport_instance *)&anchor;
    return RINGPORT_OK;
}

static ringport_status worker_start(const ringport_instance *instance, uint32_t number,
                                    ringport_ctx *ctx, ringport_worker **out) {
    (void)instance, (void)number, (void)ctx;
    if (FAULT != NO_WORKER) *out = (ringport_worker *)&anchor;
    return RINGPORT_OK;
}

static ringport_status resolve(ringport_worker *worker, const ringport_resolve_request *request,
                               ringport_ctx *ctx) {
    (void)worker, (void)request;
    switch (FAULT) {
    case UNKNOWN_STATUS:
        return -77;
    case NULL_STRING:
        host->emit_hosted(ctx, (ringport_str){NULL, 5});
        return RINGPORT_OK;
    case BAD_UTF8:
        host->emit_error(ctx, (ringport_str){"a\xff\nb", 4});
        return RINGPORT_DENIED;
    case LATE_EMIT:
        /* worker_stop uses the ctx after its call; the next life tells what came of it. */
        kept = ctx;
        if (late_status == RINGPORT_INVALID) host->emit_rule(ctx, (ringport_str){"refused", 7});
        host->emit_hosted(ctx, (ringport_str){"a", 1});
        return RINGPORT_OK;
    case UNKNOWN_DEPENDENCE:
        host->emit_cacheable(ctx, 0);
        host->emit_cacheable(ctx, UINT64_C(1) << 60);
        host->emit_cacheable(ctx, 0);
        return RINGPORT_DENIED;
    case EMIT_TO_CONFIGURE:
        /* While another call runs: its own answer must not be mistaken for configure's. */
        late_status = host->emit_rule(kept, (ringport_str){"late", 4});
        if (late_status == RINGPORT_INVALID) host->emit_hosted(ctx, (ringport_str){"a", 1});
        return RINGPORT_OK;
    default:
        return RINGPORT_DECLINE;
    }
}

static void worker_stop(ringport_worker *worker) {
    (void)worker;
    if (kept) late_status = host->emit_rule(kept, (ringport_str){"late", 4});
}

static void destroy(ringport_instance *instance) { is_destroyed = instance != NULL; }

/* A plugin of a later minor that can do with 1.0: its table goes on behind ours. */
static const struct {
    ringport_plugin known;
    uint64_t later[8];
} plugin = {
    .known = {
        .size = WHEN(SHORT_TABLE, 96, WHEN(LARGER_TABLE, sizeof plugin, sizeof(ringport_plugin))),
        .magic = WHEN(BAD_MAGIC, UINT64_C(0x1122334455667788), RINGPORT_PLUGIN_MAGIC),
        .abi_major = WHEN(OTHER_MAJOR, 2, RINGPORT_ABI_MAJOR),
        .abi_minor = WHEN(NEWER_MINOR, 9, RINGPORT_ABI_MINOR),
        .capabilities = WHEN(UNKNOWN_CAPABILITY, 0x80, 0),
        .name = {WHEN(NULL_NAME, NULL, WHEN(BAD_NAME, "Bad Name", "faulty-c")),
                 WHEN(NAME_LENGTH, SIZE_MAX, 8)},
        .version = {WHEN(BAD_VERSION, "1.0\n", "1.00"), 4},
        .configure = configure,
        .worker_start = worker_start,
        .resolve = WHEN(NULL_RESOLVE, NULL, resolve),
        .worker_stop = worker_stop,
        .destroy = WHEN(NULL_DESTROY, NULL, destroy),
    },
    .later = {1, 2, 3, 4, 5, 6, 7, 8},
};

const ringport_plugin *ringport_plugin_entry(uint32_t host_major, uint32_t host_minor) {
    (void)host_major, (void)host_minor;
    return WHEN(REFUSES_HOST, NULL, &plugin.known);
}
