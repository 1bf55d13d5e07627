/* SPDX-License-Identifier: Apache-2.0
 *
 * A small plugin that keeps every rule of the plugin guide, and one specimen for each way to break
 * one: FAULT picks it. `ringport plugin check` must find the right rule, and must find none when
 * FAULT is 0; tests/plugin_check.rs compiles this file once for each. Never install it.
 *
 * Wrong tables, and what a host survives, are in faulty.c.
 */
/* handshake and versions */
#define NO_ENTRY 1
#define ENTRY_IS_DATA 2
#define EXTRA_SYMBOL 3
#define SYMBOL_OF_HOST 4
#define CRASHES_AT_LOAD 5
#define BIT_WITHOUT_HOOK 6
#define CONFIGURE_REFUSES 7
#define REFUSES_NEWER_HOST 8
#define SAYS_TOO_OLD_A_MINOR 9
#define WANTS_EXACT_SIZE 10
#define UNKNOWN_BITS 11
#define NO_STRUCT_SIZE 12
/* data */
#define READS_TO_NUL 13
#define GARBAGE_LENGTH 14
#define NAME_NOT_UTF8 15
#define READS_EMPTY_STRING 16
#define FIXED_BUFFER 17
/* ownership */
#define KEEPS_ARGUMENTS 18
#define WRITES_LATER 19
#define ENDS_NULL_BADLY 20
#define FREES_TWICE 21
#define USES_FREED 22
#define LEAKS_A_CALL 23
#define LEAKS_A_LIFE 24
#define LEAKS_DESCRIPTORS 25
#define SUCCESSOR_POINTS_BACK 26
/* life and threads */
#define GLOBAL_STATE 27
#define COUNTS 28
#define THREAD_LOCAL 29
#define OTHER_THREAD 30
#define REMEMBERED_TOO_WIDELY 31
#define SLEEPS 32
#define SPINS 33
#define HANGS 34
#define HANGS_IN_CONFIGURE 35
/* answers */
#define UNDECLARED_UPSTREAM 36
#define UNDECLARED_CREDENTIAL 37
#define BAD_REPOSITORY 38
#define TWO_ROUTES 39
#define FRESH_FOR_EVER 40
#define UNDECLARED_POOL 41
#define PASSES_HOSTED_THROUGH 42
#define HEADER_OF_SECRETS 43
#define OK_WITHOUT_ROUTE 44
#define NEVER_DECIDES 45
#define INTERNAL 46
#define PLACE_UNKNOWN_STATUS 47
/* failure */
#define EXITS 48
#define ABORTS 49
#define UNWINDS 50
/* found later */
#define UNDECLARED_POOL_BY_DIGEST 52
#define EXITS_BESIDE_A_CHILD 53
/* no fault, but fifty lives of it take 2.5 seconds */
#define SLOW_TO_CONFIGURE 51

#define _GNU_SOURCE
#if FAULT == ENTRY_IS_DATA
#define ringport_plugin_entry ringport_plugin_declared
#elif FAULT != NO_ENTRY /* then -fvisibility=hidden hides it */
#define RINGPORT_PLUGIN_IMPLEMENTATION
#endif
#include "ringport_plugin.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <unwind.h>


#define IS(fault) (FAULT == (fault))
#define STR(literal) ((ringport_str){literal, sizeof(literal) - 1})

struct ringport_instance {
    const ringport_host *host;
    ringport_str borrowed;
    char *own, *of_predecessor;
    struct ringport_worker *last_worker;
};

struct ringport_worker {
    const ringport_instance *instance;
    char *written;
    uint64_t calls;
    int *target; /* behind the bytes that free() itself writes into */
};

static int instances;
static int target = 1;
static _Thread_local int started_here;

#if FAULT == EXTRA_SYMBOL
__attribute__((visibility("default"))) int ringport_extra(void);
int ringport_extra(void) { return 1; }
#endif
extern int ringport_of_the_host(void) __attribute__((weak));

__attribute__((constructor)) static void at_load(void) {
    if (IS(CRASHES_AT_LOAD)) abort();
}

static int equals(ringport_str s, ringport_str t) {
    return s.len == t.len && (s.len == 0 || memcmp(s.ptr, t.ptr, s.len) == 0);
}

static ringport_instance *new_instance(const ringport_host *host) {
    ringport_instance *instance = calloc(1, sizeof *instance);
    if (instance == NULL) return NULL;
    instance->host = host;
    instance->own = calloc(1, 256);
    return instance;
}

static ringport_status configure(const ringport_host *host, const ringport_configure_args *args,
                                 ringport_ctx *ctx, ringport_instance **out) {
    if (IS(HANGS_IN_CONFIGURE)) for (;;) sleep(1);
    if (IS(SLOW_TO_CONFIGURE)) nanosleep(&(struct timespec){0, 50000000}, NULL);
    if (IS(CONFIGURE_REFUSES)) {
        host->emit_error(ctx, STR("key `target`: missing"));
        return RINGPORT_INVALID;
    }
    if (IS(HEADER_OF_SECRETS)) host->want_header(ctx, STR("authorization"));
    ringport_instance *instance = new_instance(host);
    if (instance == NULL) return RINGPORT_UNAVAILABLE;
    instance->borrowed = args->name;
    instances++;
    *out = instance;
    return RINGPORT_OK;
}

static ringport_status worker_start(const ringport_instance *instance, uint32_t number,
                                    ringport_ctx *ctx, ringport_worker **out) {
    (void)number, (void)ctx;
    started_here = 1;
    ringport_worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL) return RINGPORT_UNAVAILABLE;
    worker->instance = instance;
    worker->target = &target;
    if (IS(USES_FREED)) ((ringport_instance *)instance)->last_worker = worker;
    if (IS(LEAKS_DESCRIPTORS) && dup(0) < 0) return RINGPORT_UNAVAILABLE;
    *out = worker;
    return RINGPORT_OK;
}

static void *emit_elsewhere(void *call) {
    void **of = call;
    ((const ringport_host *)of[0])->emit_rule(of[1], STR("elsewhere"));
    return NULL;
}

static void spin(long nanoseconds) {
    struct timespec now, begun;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    do clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - begun.tv_sec) * 1000000000L + now.tv_nsec - begun.tv_nsec < nanoseconds);
}

static struct _Unwind_Exception exception;

/* What fails a request before anything else is looked at. */
static ringport_status fail(ringport_worker *worker, const ringport_resolve_request *request,
                            ringport_ctx *ctx) {
    const ringport_host *host = worker->instance->host;
    void *call[2] = {(void *)host, ctx};
    pthread_t thread;
    char buffer[64];
    switch (FAULT) {
    case WANTS_EXACT_SIZE: return request->size == sizeof *request ? -1 : RINGPORT_INVALID;
    case UNKNOWN_BITS: host->emit_cacheable(ctx, UINT64_C(1) << 60); break;
    case NO_STRUCT_SIZE:
        host->emit_candidate(ctx, &(ringport_candidate){.upstream = STR("docker.io")});
        return RINGPORT_OK;
    case READS_TO_NUL:
        host->emit_hosted(ctx, (ringport_str){request->name.ptr, strlen(request->name.ptr)});
        return RINGPORT_OK;
    case GARBAGE_LENGTH: host->emit_hosted(ctx, (ringport_str){"a", (size_t)1 << 40}); break;
    case NAME_NOT_UTF8: host->emit_hosted(ctx, (ringport_str){"a\xff", 2}); return RINGPORT_OK;
    case READS_EMPTY_STRING:
        if (request->header_ns.ptr && *(volatile const char *)request->header_ns.ptr == 'x')
            return RINGPORT_DENIED;
        break;
    case FIXED_BUFFER:
        if (request->name.len) memcpy(buffer, request->name.ptr, request->name.len);
        __asm__ volatile("" : : "r"(buffer) : "memory");
        break;
    case KEEPS_ARGUMENTS:
        if (*(volatile const char *)worker->instance->borrowed.ptr != 'c') return RINGPORT_DENIED;
        break;
    case WRITES_LATER:
        if (worker->written) *worker->written = '!';
        worker->written = request->name.len ? (char *)request->name.ptr : NULL;
        return RINGPORT_DECLINE;
    case LEAKS_A_CALL: *(char *volatile *)&worker->written = malloc(24); break;
    case SUCCESSOR_POINTS_BACK:
        if (worker->instance->of_predecessor && *worker->instance->of_predecessor)
            return RINGPORT_INTERNAL;
        break;
    case GLOBAL_STATE: if (instances != 1) return RINGPORT_DENIED; break;
    case COUNTS: if (++worker->calls % 7 == 0) return RINGPORT_DENIED; break;
    case THREAD_LOCAL: if (!started_here) return RINGPORT_DENIED; break;
    case OTHER_THREAD:
        if (pthread_create(&thread, NULL, emit_elsewhere, call) == 0) pthread_join(thread, NULL);
        break;
    case REMEMBERED_TOO_WIDELY:
        host->emit_cacheable(ctx, 0);
        if (request->kind == RINGPORT_KIND_BLOB) return RINGPORT_DENIED;
        break;
    case SLEEPS: nanosleep(&(struct timespec){0, 50000}, NULL); break;
    case SPINS: spin(300000); break;
    case HANGS: for (;;) sleep(1);
    case UNDECLARED_UPSTREAM: host->emit_upstream(ctx, STR("evil.example"), STR("a")); break;
    case UNDECLARED_CREDENTIAL:
        host->emit_candidate(ctx, &(ringport_candidate){
            .size = sizeof(ringport_candidate), .upstream = STR("docker.io"),
            .repository = STR("a"), .credential = STR("root")});
        break;
    case BAD_REPOSITORY: host->emit_hosted(ctx, STR("../../etc")); break;
    case TWO_ROUTES: host->emit_upstream(ctx, STR("docker.io"), STR("a")); break;
    case FRESH_FOR_EVER: host->emit_freshness(ctx, UINT64_MAX - 1, 0); break;
    case OK_WITHOUT_ROUTE: return RINGPORT_OK;
    case NEVER_DECIDES: return RINGPORT_UNAVAILABLE;
    case INTERNAL: host->emit_error(ctx, STR("lost its table")); return RINGPORT_INTERNAL;
    case EXITS: exit(0);
    case EXITS_BESIDE_A_CHILD: /* which keeps the descriptors open for longer than the patience */
        if (fork() == 0) sleep(15), _exit(0);
        exit(0);
    case ABORTS: abort();
    case UNWINDS: _Unwind_RaiseException(&exception); abort(); /* as the C++ runtime does */
    }
    return -1;
}

static ringport_status resolve(ringport_worker *worker, const ringport_resolve_request *request,
                               ringport_ctx *ctx) {
    const ringport_host *host = worker->instance->host;
    ringport_status failed = fail(worker, request, ctx);
    if (failed >= 0) return failed;
    if (equals(request->query_ns, STR("quay.io"))) return RINGPORT_DECLINE;
    if (IS(SAYS_TOO_OLD_A_MINOR)) host->emit_cacheable(ctx, 0);
    host->emit_rule(ctx, STR("all else is ours"));
    host->emit_hosted(ctx, STR("a"));
    return RINGPORT_OK;
}

static ringport_status place(ringport_worker *worker, const ringport_place_request *request,
                             ringport_ctx *ctx) {
    ringport_placement placement = {.size = sizeof placement, .pool = STR("fast")};
    if (IS(PLACE_UNKNOWN_STATUS)) return 1000;
    if (IS(UNDECLARED_POOL)) placement.pool = STR("/etc");
    /* As the host asks about nearly every blob. */
    if (IS(UNDECLARED_POOL_BY_DIGEST) && request->moment == RINGPORT_MOMENT_STORE
        && request->digest.len > 0 && request->media_type.len == 0)
        placement.pool = STR("/etc");
    if (IS(PASSES_HOSTED_THROUGH) && request->upstream.len == 0)
        placement.storage_class = RINGPORT_CLASS_PASS_THROUGH;
    worker->instance->host->emit_placement(ctx, &placement);
    return RINGPORT_OK;
}

static ringport_status refresh(const ringport_instance *instance, const ringport_host *host,
                               ringport_ctx *ctx, ringport_instance **out) {
    (void)ctx;
    if ((*out = new_instance(host)) == NULL) return RINGPORT_UNAVAILABLE;
    (*out)->borrowed = instance->borrowed;
    /* Zero, until it is freed. */
    (*out)->of_predecessor = instance->own + 128;
    return RINGPORT_OK;
}

static void worker_stop(ringport_worker *worker) {
    if (IS(ENDS_NULL_BADLY) && *(volatile uint64_t *)&worker->calls == 7) return;
    if (worker == NULL) return;
    void *volatile again = worker;
    free(worker);
    if (IS(FREES_TWICE)) free(again);
}

static void destroy(ringport_instance *instance) {
    if (instance == NULL || IS(LEAKS_A_LIFE)) return;
    if (instance->last_worker && *instance->last_worker->target != 1) abort();
    instances--;
    free(instance->own);
    free(instance);
}

static const ringport_plugin plugin = {
    .size = sizeof(ringport_plugin),
    .magic = RINGPORT_PLUGIN_MAGIC,
    .abi_major = RINGPORT_ABI_MAJOR,
    .abi_minor = IS(SAYS_TOO_OLD_A_MINOR) ? 0 : RINGPORT_ABI_MINOR,
    .capabilities = (IS(SAYS_TOO_OLD_A_MINOR) ? 0 : RINGPORT_CAN_PLACE)
        | (IS(SAYS_TOO_OLD_A_MINOR) || IS(GLOBAL_STATE) ? 0 : RINGPORT_CAN_REFRESH),
    .name = {"specimen", 8},
    .version = {"1.0", 3},
    .configure = configure,
    .worker_start = worker_start,
    .resolve = resolve,
    .worker_stop = worker_stop,
    .destroy = destroy,
    .place = IS(BIT_WITHOUT_HOOK) ? NULL : place,
    .refresh = refresh,
};

#if FAULT == ENTRY_IS_DATA
#undef ringport_plugin_entry
__attribute__((visibility("default"))) const uint64_t ringport_plugin_entry = 1;
#define ringport_plugin_entry ringport_plugin_declared
#endif

const ringport_plugin *ringport_plugin_entry(uint32_t host_major, uint32_t host_minor) {
    (void)host_major;
    if (IS(SYMBOL_OF_HOST) && ringport_of_the_host) ringport_of_the_host();
    return IS(REFUSES_NEWER_HOST) && host_minor > RINGPORT_ABI_MINOR ? NULL : &plugin;
}
