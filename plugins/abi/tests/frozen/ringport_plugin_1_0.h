/* SPDX-License-Identifier: Apache-2.0
 *
 * ringport_plugin.h: the contract between Ringport (the host) and a resolver plugin.
 *
 * A resolver answers one question for each request: which of the declared upstreams, or which
 * hosted repository, does it mean? The plugin decides; the host dials, streams, stores, verifies.
 * No byte of content, socket or file descriptor ever crosses this interface.
 *
 * This file is normative and written by hand. plugins/abi/src/lib.rs is its Rust twin, compared
 * with it size by size, offset by offset and constant by constant by plugins/abi/tests/layout.rs.
 *
 * TRUST
 *   A plugin is native code inside the server's process, with all of the server's powers. Nothing
 *   here is a sandbox. The host checks every answer (so that a mistake fails one request), but it
 *   can't survive a wild pointer, a plugin that never returns, or one that calls exit(). Load
 *   only what you would also run as the server's user. The host loads a file only by its absolute
 *   path in the configuration, only if root or the server's own user owns it and nobody else may
 *   write to it, and, with a `sha256` pin, only if its bytes match.
 *
 * VERSIONS
 *   The ABI has its own version, apart from the product's. Major: something was removed,
 *   reordered or redefined. Minor: something was appended. A host speaks one major with all its
 *   minors up to its own. It refuses, never warns, when the plugin's major differs or the
 *   plugin's minor is newer. A plugin built for an older minor keeps working.
 *   - Every struct that crosses begins with `uint32_t size`: what sizeof() gave its writer
 *     (ringport_str alone has none; it will never change).
 *   - Fields are only ever appended, also those of the function tables. A reader copies at most
 *     min(size, its own sizeof) bytes and takes the rest as zero; zero means the older behaviour.
 *   - Unknown bits in `capabilities` (plugin to host) are refused. Unknown bits in `flags`, and
 *     unknown values of `kind` (host to plugin), are information to ignore.
 *   - The first 24 bytes of ringport_plugin (size, reserved, magic, major, minor) are the same
 *     in every major.
 *
 * DATA
 *   64-bit platforms only. Integers have fixed widths, lengths are size_t, enums are integer
 *   constants, there is no implicit padding: fields named `reserved` are zero.
 *   A ringport_str is a pointer and a length, not terminated by a NUL. Take its bytes as they
 *   come: the host sends UTF-8, but a reader must not crash on anything else. {NULL, 0} is the
 *   empty string and legal everywhere; a plugin must also accept a non-null pointer with len 0.
 *   Namespaces come normalised: lower case, default port removed, no scheme.
 *
 * OWNERSHIP: three phrases, used below with exactly these meanings
 *   "borrowed for the call"       valid until this call returns; copy what you want to keep.
 *   "borrowed until destroy"      valid until the plugin's `destroy` returns.
 *   "given to host, released by X"  the plugin made it, the host keeps it, and calls X once.
 *   Nobody ever frees the other's memory. Answers of variable length are written through
 *   the host's emit functions, which copy.
 *
 * LIFE AND THREADS
 *   ringport_plugin_entry -> configure -> worker_start, once for each worker -> resolve, many
 *   times -> worker_stop, once for each worker that started -> destroy.
 *   - entry, configure, worker_start, worker_stop and destroy never run at the same time as one
 *     another within one instance, but may run on any thread. They may take their time, though
 *     the server is not ready before configure and worker_start have returned.
 *   - One file may be configured several times: instances must not share mutable state.
 *   - A ringport_instance is shared by all workers and must be constant after configure.
 *   - A ringport_worker is used by one thread at a time and never re-entrantly, so it needs no
 *     lock. It may be made on one thread and used on another: no thread-locals.
 *   - resolve must not block, sleep, do I/O or take a lock shared between workers: it runs on a
 *     thread that serves thousands of connections. Its budget is 20 microseconds at p99; the
 *     host measures every call and exports the figures for each plugin and worker.
 *   - A loaded file is never unloaded.
 *
 * FAILURE
 *   Nothing may unwind across this interface: no C++ exception, no Rust panic, no longjmp.
 *   RINGPORT_INTERNAL (and every status unknown to the host) fails that request closed and poisons
 *   that worker's instance: the host answers UNAVAILABLE in its place, without calling it, until
 *   a restart. The Rust SDK turns a panic into RINGPORT_INTERNAL.
 *   RINGPORT_OK with an answer that breaks a rule (see the emit functions) fails that request
 *   closed, is counted and logged, and poisons nothing: a client's odd request must not be able
 *   to switch a plugin off.
 *
 * VERSION HISTORY, newest first
 *   1.0  entry, configure, worker_start, resolve, worker_stop, destroy; emit_upstream,
 *        emit_hosted, emit_rule, emit_error, emit_freshness.
 */
#ifndef RINGPORT_PLUGIN_H
#define RINGPORT_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RINGPORT_ABI_MAJOR 1
#define RINGPORT_ABI_MINOR 0

/* "RINGPORT" read as a little-endian number: the second word of every plugin table. */
#define RINGPORT_PLUGIN_MAGIC UINT64_C(0x54524f50474e4952)

/* sizeof(ringport_plugin) in 1.0: a table that says less is refused. */
#define RINGPORT_PLUGIN_SIZE_MIN 104

/* Limits. The host refuses what goes beyond (NAME, VERSION: at the handshake; the others: as a
 * broken answer), and cuts longer rule and error texts at a character's end. */
#define RINGPORT_NAME_BYTES_MAX 32       /* ringport_plugin.name */
#define RINGPORT_VERSION_BYTES_MAX 64    /* ringport_plugin.version */
#define RINGPORT_CANDIDATES_MAX 16       /* different upstream candidates of one answer */
#define RINGPORT_REPOSITORY_BYTES_MAX 255 /* a repository name */
#define RINGPORT_RULE_BYTES_MAX 256      /* emit_rule */
#define RINGPORT_ERROR_BYTES_MAX 1024    /* emit_error */
#define RINGPORT_FRESHNESS_MS_MAX UINT64_C(31622400000) /* 366 days */

/* "This bound is not mine to set": what the upstream's configuration says goes on to hold. */
#define RINGPORT_MS_UNSET UINT64_MAX

/* What a hook returns, and what the client sees of it. */
typedef int32_t ringport_status;
#define RINGPORT_OK 0          /* the answer was emitted */
#define RINGPORT_DECLINE 1     /* not mine: the next resolver in `routing.resolvers` is asked */
#define RINGPORT_NOT_FOUND 2   /* 404 NAME_UNKNOWN: nothing of that name is served here */
#define RINGPORT_DENIED 3      /* 403 DENIED: policy says no */
#define RINGPORT_UNAVAILABLE 4 /* 503 with Retry-After: can't be decided at the moment */
#define RINGPORT_INVALID 5     /* 400 NAME_INVALID: the request contradicts itself */
#define RINGPORT_INTERNAL 6    /* 500: the plugin is broken; see FAILURE */

/* ringport_resolve_request.kind. Later versions add kinds; a route seldom depends on them. */
#define RINGPORT_KIND_MANIFEST 1
#define RINGPORT_KIND_BLOB 2
#define RINGPORT_KIND_TAGS 3
#define RINGPORT_KIND_REFERRERS 4

/* ringport_upstream.flags */
#define RINGPORT_UPSTREAM_FORWARD_NS UINT32_C(1) /* the endpoint is a namespace-aware proxy */
#define RINGPORT_UPSTREAM_PLAIN_HTTP UINT32_C(2) /* every endpoint of it is http:// */

typedef struct ringport_str {
    const char *ptr;
    size_t len; /* bytes */
} ringport_str;

/* Opaque. The plugin defines ringport_instance and ringport_worker, the host ringport_ctx. */
typedef struct ringport_instance ringport_instance;
typedef struct ringport_worker ringport_worker;
typedef struct ringport_ctx ringport_ctx;

/* One declared [[upstream]]. Borrowed for the call. */
typedef struct ringport_upstream {
    uint32_t size;
    uint32_t flags;               /* RINGPORT_UPSTREAM_* */
    ringport_str canonical_name;  /* the canonical namespace: one cache, one set of credentials */
    const ringport_str *aliases;  /* other namespaces that mean the same upstream: those of the */
    size_t alias_count;           /* configuration and those the host knows (Docker Hub's names; */
                                  /* `host:80` beside `host` for a PLAIN_HTTP upstream) */
} ringport_upstream;

/* Borrowed for the call, with everything it points at. */
typedef struct ringport_configure_args {
    uint32_t size;
    uint32_t worker_count;        /* workers the server runs: >= 1 */
    ringport_str name;            /* the [[plugin]] entry's `name`, for messages */
    ringport_str config;          /* [plugin.config] as TOML text; empty when there is none */
    const ringport_upstream *const *upstreams; /* in the order of the configuration; pointers, */
    size_t upstream_count;                     /* so that ringport_upstream may grow */
} ringport_configure_args;

/* One request. Borrowed for the call. */
typedef struct ringport_resolve_request {
    uint32_t size;
    uint32_t kind;                /* RINGPORT_KIND_* */
    ringport_str method;          /* "GET", "HEAD" */
    ringport_str query_ns;        /* the `ns` query parameter, normalised; empty: none was sent */
    ringport_str header_ns;       /* X-Dragonfly-Registry, normalised; empty: none was sent */
    ringport_str name;            /* the repository as it stands in the path, with the host */
                                  /* prefix if the client wrote one: "ghcr.io/org/app" */
    ringport_str reference;       /* tag or digest; empty for KIND_TAGS */
    uint8_t client_address[16];   /* network byte order; IPv4 in the first four bytes */
    uint32_t client_address_len;  /* 4, 16, or 0: not known */
    uint32_t reserved;
} ringport_resolve_request;

/* What the host offers. The table is borrowed until destroy.
 *
 * The emit functions: `ctx` is the one this call was handed, used before the call returns and on
 * the same thread; a null or finished ctx gets RINGPORT_INVALID. Strings are borrowed for the
 * call and copied. None blocks, none calls back into the plugin. They return RINGPORT_OK, or
 * RINGPORT_INVALID when the host refuses what was emitted. A refusal sticks: if the hook goes on
 * to return RINGPORT_OK, the request fails with 500 and a text that names the plugin and the
 * broken rule, so a plugin may ignore what the emit functions return. All since 1.0. */
typedef struct ringport_host {
    uint32_t size;
    uint32_t reserved;
    uint32_t abi_major;           /* equal to the plugin's */
    uint32_t abi_minor;           /* equal to the plugin's or newer */
    ringport_str product;         /* "ringport/0.1.0", for logs; never decide by it */

    /* Appends a candidate, in order of preference. In resolve only. `upstream` is the canonical
     * name or an alias of a *declared* upstream, exactly as configure was told; anything else is
     * refused (the closed world: a plugin can't make the server dial a host that is not in the
     * configuration). `repository` is the name to ask that upstream for, by the grammar of the
     * OCI distribution specification. A repeated candidate is ignored. Refused together with
     * emit_hosted and beyond RINGPORT_CANDIDATES_MAX. */
    ringport_status (*emit_upstream)(ringport_ctx *ctx, ringport_str upstream,
                                     ringport_str repository);

    /* Says that the request means a repository of our own, called `repository`. In resolve only,
     * once, never together with emit_upstream. */
    ringport_status (*emit_hosted)(ringport_ctx *ctx, ringport_str repository);

    /* Says in a few words which of the plugin's rules decided, for `ringport explain` and the
     * log: "ns", "hosted pattern team/\*". Optional; the last one counts. */
    ringport_status (*emit_rule)(ringport_ctx *ctx, ringport_str text);

    /* Says why, with a status other than OK and DECLINE: one sentence for the client that names
     * what was asked for and the way out. Allowed in configure and worker_start too, where the
     * operator reads it. Optional; the last one counts; ignored when the hook returns OK. */
    ringport_status (*emit_error)(ringport_ctx *ctx, ringport_str text);

    /* How long the tag's answer stays fresh, and how long beyond that it may be served while the
     * upstream fails, in milliseconds. RINGPORT_MS_UNSET leaves either as configured; 0 means
     * revalidate always, or never serve stale. In resolve only; the last one counts; refused
     * above RINGPORT_FRESHNESS_MS_MAX. Without effect on digests, which never go stale. */
    ringport_status (*emit_freshness)(ringport_ctx *ctx, uint64_t tag_ttl_ms,
                                      uint64_t stale_max_ms);
} ringport_host;

/* What the plugin offers. The table, and the strings in it, live as long as the process. All
 * hooks of 1.0 are required. */
typedef struct ringport_plugin {
    uint32_t size;                /* sizeof(ringport_plugin) */
    uint32_t reserved;            /* 0 */
    uint64_t magic;               /* RINGPORT_PLUGIN_MAGIC */
    uint32_t abi_major;           /* RINGPORT_ABI_MAJOR */
    uint32_t abi_minor;           /* RINGPORT_ABI_MINOR, or the oldest minor that will do */
    uint64_t capabilities;        /* 0: no bit is defined in 1.0 */
    ringport_str name;            /* [a-z][a-z0-9_-]*: what the plugin is */
    ringport_str version;         /* the plugin's own, printable ASCII, not empty */

    /* When: once for each [[plugin]] entry, before any worker starts, and at a reload.
     * Thread: any, alone. May block: yes. Since 1.0.
     * host: borrowed until destroy. args: borrowed for the call. ctx: for emit_error.
     * Returns OK with *out set, non-null: given to host, released by destroy. Any other status
     * refuses the plugin (the server doesn't start, a reload keeps the old set), and *out is not
     * looked at. INVALID is the one for a bad configuration: emit_error names the key. */
    ringport_status (*configure)(const ringport_host *host, const ringport_configure_args *args,
                                 ringport_ctx *ctx, ringport_instance **out);

    /* When: once for each worker, numbered from 0. Thread: any, one worker at a time.
     * May block: briefly. Since 1.0.
     * instance: shared, constant. ctx: for emit_error.
     * Returns OK with *out set, non-null: given to host, released by worker_stop. Any other
     * status: that worker, and so the server, doesn't start. */
    ringport_status (*worker_start)(const ringport_instance *instance, uint32_t worker,
                                    ringport_ctx *ctx, ringport_worker **out);

    /* When: for each request. Thread: the worker's own. May block: NO (see LIFE AND THREADS).
     * Since 1.0. worker: as worker_start made it. request: borrowed for the call.
     * The same request must get the same answer while the configuration is the same.
     * Returns OK after one emit_hosted or at least one emit_upstream; OK without either is a
     * broken answer. DECLINE: what was emitted is forgotten, the next resolver is asked; when all
     * decline the client gets 404 NAME_UNKNOWN. The others: see ringport_status. */
    ringport_status (*resolve)(ringport_worker *worker, const ringport_resolve_request *request,
                               ringport_ctx *ctx);

    /* When: after the worker's last resolve. Thread: any, one at a time. May block: briefly.
     * Since 1.0. Accepts null. Afterwards the worker is not used again. Also called for a
     * poisoned worker. */
    void (*worker_stop)(ringport_worker *worker);

    /* When: after the last worker_stop. Thread: any, alone. May block: yes. Since 1.0.
     * Accepts null. Afterwards neither the instance nor the host table is used again. */
    void (*destroy)(ringport_instance *instance);
} ringport_plugin;

/* The one exported symbol. Called once for each [[plugin]] entry; borrowed until the process
 * ends, so return the address of a static table. Return it whatever the host's version is: the
 * host compares and says what is wrong. Null is allowed and refuses the host. Must not block.
 * With RINGPORT_PLUGIN_IMPLEMENTATION defined before the #include it is exported even under
 * -fvisibility=hidden, which is how to export nothing else. */
#if defined(RINGPORT_PLUGIN_IMPLEMENTATION)
__attribute__((visibility("default")))
#endif
const ringport_plugin *ringport_plugin_entry(uint32_t host_major, uint32_t host_minor);

#ifdef __cplusplus
}
#endif
#endif /* RINGPORT_PLUGIN_H */
