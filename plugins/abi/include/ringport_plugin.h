/* SPDX-License-Identifier: Apache-2.0
 *
 * ringport_plugin.h: the contract between Ringport (the host) and a resolver plugin.
 *
 * A resolver answers one question for each request: which of the declared upstreams, or which
 * hosted repository, does it mean? It may answer a second one for each content that is about to
 * be stored: where, and for how long? The plugin decides; the host dials, streams, stores,
 * verifies. No byte of content, socket or file descriptor ever crosses this interface.
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
 *     (ringport_str and ringport_header alone have none; they will never change).
 *   - Fields are only ever appended, also those of the function tables. A reader copies at most
 *     min(size, its own sizeof) bytes and takes the rest as zero; zero means the older behaviour.
 *   - Unknown bits from plugin to host (`capabilities`, the masks and numbers of the emit
 *     functions) are refused. Unknown bits in `flags` and `features`, and unknown values of
 *     `kind`, `moment` and `ns_source` (host to plugin), are information to ignore.
 *   - A plugin that says minor 0 has none of the capabilities and functions marked 1.1. One that
 *     says 1 may count on them: no host that lacks them has accepted it.
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
 *   ringport_plugin_entry -> configure -> worker_start, once for each worker -> resolve and
 *   place, many times -> worker_stop, once for each worker that started -> destroy.
 *   - entry, configure, worker_start, worker_stop, refresh and destroy never run at the same time
 *     as one another within one instance, but may run on any thread. They may take their time,
 *     though the server is not ready before configure and worker_start have returned.
 *   - One file may be configured several times, by several entries or by a reload: instances must
 *     not share mutable state.
 *   - Reload and refresh make a successor: another instance beside the running one. Its workers
 *     are started; then each worker changes over between two requests, and its old state is
 *     stopped. The old instance is destroyed when its last worker has stopped. A successor that
 *     can't be made leaves the old one running.
 *   - The host loads a private copy of the file, so it may be replaced or overwritten at any
 *     time, and a reload finds the new code. Nothing can lie beside the file for it to open:
 *     link everything in that is not a library of the system.
 *   - A ringport_instance is shared by all workers and must be constant after configure.
 *   - A ringport_worker is used by one thread at a time and never re-entrantly, so it needs no
 *     lock. It may be made on one thread and used on another: no thread-locals.
 *   - resolve and place must not block, sleep, do I/O or take a lock shared between workers: they
 *     run on a thread that serves thousands of connections. Their budget is 20 microseconds at
 *     p99; the host measures every call and exports the figures for each plugin and worker.
 *     Slow knowledge (a file, a directory service) belongs into refresh.
 *   - A loaded file is never unloaded.
 *
 * FAILURE
 *   Nothing may unwind across this interface: no C++ exception, no Rust panic, no longjmp.
 *   RINGPORT_INTERNAL (and every status unknown to the host) fails that request closed and poisons
 *   that worker's instance: the host answers UNAVAILABLE in its place, without calling it, until
 *   a successor takes over (reload, refresh) or a restart. The Rust SDK turns a panic into
 *   RINGPORT_INTERNAL.
 *   RINGPORT_OK with an answer that breaks a rule (see the emit functions) fails that request
 *   closed, is counted and logged, and poisons nothing: a client's odd request must not be able
 *   to switch a plugin off.
 *
 * VERSION HISTORY, newest first
 *   1.1  place, refresh, `capabilities`; emit_candidate, emit_immutable, emit_cacheable,
 *        emit_placement, emit_remote, want_header, want_refresh, `features`; upstreams with
 *        credentials, pools and remote tiers at configure; requests with ns_source, ns,
 *        repository, principal and headers.
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
#define RINGPORT_ABI_MINOR 1

/* "RINGPORT" read as a little-endian number: the second word of every plugin table. */
#define RINGPORT_PLUGIN_MAGIC UINT64_C(0x54524f50474e4952)

/* sizeof(ringport_plugin) in 1.0: a table that says less is refused. */
#define RINGPORT_PLUGIN_SIZE_MIN 104

/* Limits. The host refuses what goes beyond (NAME, VERSION: at the handshake; the others: as a
 * broken answer), and cuts longer rule and error texts at a character's end. */
#define RINGPORT_NAME_BYTES_MAX 32       /* ringport_plugin.name */
#define RINGPORT_VERSION_BYTES_MAX 64    /* ringport_plugin.version */
#define RINGPORT_STRING_BYTES_MAX 1048576 /* any string of an emit function; longer ones are */
                                          /* taken for garbage and not read */
#define RINGPORT_CANDIDATES_MAX 16       /* different upstream candidates of one answer */
#define RINGPORT_REPOSITORY_BYTES_MAX 255 /* a repository name */
#define RINGPORT_RULE_BYTES_MAX 256      /* emit_rule */
#define RINGPORT_ERROR_BYTES_MAX 1024    /* emit_error */
#define RINGPORT_FRESHNESS_MS_MAX UINT64_C(31622400000) /* 366 days */
#define RINGPORT_HEADERS_MAX 8           /* want_header */
#define RINGPORT_HEADER_NAME_BYTES_MAX 64
#define RINGPORT_HEADER_VALUE_BYTES_MAX 1024
#define RINGPORT_REFRESH_MS_MIN UINT64_C(1000)     /* want_refresh: 1 second */
#define RINGPORT_REFRESH_MS_MAX UINT64_C(86400000) /* 1 day */
#define RINGPORT_PRIORITY_MAX 10         /* ringport_placement.priority, and minus this */
#define RINGPORT_REMOTES_MAX 4           /* emit_remote, in one call of place */
#define RINGPORT_REMOTE_HEADERS_MAX 16   /* headers of one remote-tier request */
#define RINGPORT_REMOTE_BYTES_MAX 8192   /* its URL, and its headers together */

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

/* ringport_plugin.capabilities. A bit needs its hook; a hook without its bit is not called. 1.1 */
#define RINGPORT_CAN_PLACE UINT64_C(1)
#define RINGPORT_CAN_REFRESH UINT64_C(2)

/* ringport_host.features: what this host does with answers that it merely accepts otherwise. 1.1 */
#define RINGPORT_HOST_REMOTE_TIER UINT64_C(1) /* requests of emit_remote are performed */

/* ringport_resolve_request.kind. Later versions add kinds; a route seldom depends on them. */
#define RINGPORT_KIND_MANIFEST 1
#define RINGPORT_KIND_BLOB 2
#define RINGPORT_KIND_TAGS 3
#define RINGPORT_KIND_REFERRERS 4

/* ringport_resolve_request.ns_source: what names the registry. 1.1 */
#define RINGPORT_NS_NONE 0   /* nothing does */
#define RINGPORT_NS_QUERY 1  /* the `ns` query parameter */
#define RINGPORT_NS_HEADER 2 /* X-Dragonfly-Registry; goes before `ns` */
#define RINGPORT_NS_PATH 3   /* the path's first segment looks like a host, and no other does */

/* emit_cacheable: what an answer depends on besides namespaces and name. 1.1 */
#define RINGPORT_BY_KIND UINT64_C(1)
#define RINGPORT_BY_METHOD UINT64_C(2)
#define RINGPORT_BY_REFERENCE UINT64_C(4)
#define RINGPORT_BY_CLIENT UINT64_C(8)
#define RINGPORT_BY_PRINCIPAL UINT64_C(16)
#define RINGPORT_BY_HEADERS UINT64_C(32)

/* ringport_place_request.moment. 1.1 */
#define RINGPORT_MOMENT_STORE 1  /* it is not stored and about to be fetched or received */
#define RINGPORT_MOMENT_STORED 2 /* it is verified and stored: only emit_remote has an effect */

/* ringport_place_request.content_bytes: not known before the content is there. 1.1 */
#define RINGPORT_BYTES_UNKNOWN UINT64_MAX

/* ringport_placement.storage_class. 1.1 */
#define RINGPORT_CLASS_CACHE 0        /* kept as long as it is worth its room */
#define RINGPORT_CLASS_PINNED 1       /* not evicted to make room before its ttl is over */
#define RINGPORT_CLASS_PASS_THROUGH 2 /* streamed to who asks, not stored */

/* ringport_remote.purpose. 1.1 */
#define RINGPORT_REMOTE_READ 1  /* before the upstream is asked; at MOMENT_STORE */
#define RINGPORT_REMOTE_WRITE 2 /* after the commit; at MOMENT_STORED */

/* ringport_upstream.flags */
#define RINGPORT_UPSTREAM_FORWARD_NS UINT32_C(1) /* the endpoint is a namespace-aware proxy */
#define RINGPORT_UPSTREAM_PLAIN_HTTP UINT32_C(2) /* every endpoint of it is http:// */

typedef struct ringport_str {
    const char *ptr;
    size_t len; /* bytes */
} ringport_str;

typedef struct ringport_header {
    ringport_str name;
    ringport_str value;
} ringport_header;

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
    /* 1.1 */
    const ringport_str *credentials; /* names of its [[upstream.credential]]s, for candidates; */
    size_t credential_count;         /* the secrets themselves never cross */
} ringport_upstream;

/* Borrowed for the call, with everything it points at. */
typedef struct ringport_configure_args {
    uint32_t size;
    uint32_t worker_count;        /* workers the server runs: >= 1 */
    ringport_str name;            /* the [[plugin]] entry's `name`, for messages */
    ringport_str config;          /* [plugin.config] as TOML text; empty when there is none */
    const ringport_upstream *const *upstreams; /* in the order of the configuration; pointers, */
    size_t upstream_count;                     /* so that ringport_upstream may grow */
    /* 1.1 */
    const ringport_str *pools;        /* names of the storage pools, for placements */
    size_t pool_count;
    const ringport_str *remote_tiers; /* origins ("https://bucket.example") for emit_remote */
    size_t remote_tier_count;
} ringport_configure_args;

/* One request. Borrowed for the call. */
typedef struct ringport_resolve_request {
    uint32_t size;
    uint32_t kind;                /* RINGPORT_KIND_* */
    ringport_str method;          /* "GET", "HEAD"; of pushes "PUT", "POST", "PATCH", "DELETE" */
    ringport_str query_ns;        /* the `ns` query parameter, normalised; empty: none was sent */
    ringport_str header_ns;       /* X-Dragonfly-Registry, normalised; empty: none was sent */
    ringport_str name;            /* the repository as it stands in the path, with the host */
                                  /* prefix if the client wrote one: "ghcr.io/org/app" */
    ringport_str reference;       /* tag or digest; empty for KIND_TAGS */
    uint8_t client_address[16];   /* network byte order; IPv4 in the first four bytes */
    uint32_t client_address_len;  /* 4, 16, or 0: not known */
    uint32_t reserved;
    /* 1.1 */
    uint32_t ns_source;           /* RINGPORT_NS_*: which of the above names the registry; two */
                                  /* that contradict each other are for "standard" to refuse */
    uint32_t header_count;        /* as many as configure asked for */
    ringport_str ns;              /* the namespace from there, normalised; empty: NS_NONE. It may */
                                  /* be an alias, or of an upstream that nobody declared */
    ringport_str repository;      /* `name` without its host prefix (and `proxy/`), if `ns` comes */
                                  /* from there or means the same upstream; else `name` */
    ringport_str principal;       /* who asks, as authenticated by the host; empty: nobody, */
                                  /* and always on hosts without authentication */
    const ringport_str *headers;  /* values in the order of want_header. {NULL, 0}: not sent; an */
                                  /* empty value has a pointer. The host refuses a request whose */
                                  /* value is too long, not UTF-8, or sent twice: with 400 */
} ringport_resolve_request;

/* One candidate. Borrowed for the call. 1.1 */
typedef struct ringport_candidate {
    uint32_t size;
    uint32_t reserved;            /* 0 */
    ringport_str upstream;        /* as emit_upstream takes them */
    ringport_str repository;
    ringport_str credential;      /* one of its `credentials`; empty: by configuration, if any. */
                                  /* What was learnt with one is never served to a route with */
                                  /* another: names are kept apart */
    ringport_str forward_ns;      /* a declared namespace, sent along as `ns=`; the upstream must */
                                  /* have UPSTREAM_FORWARD_NS. Empty: as configured. Kept apart */
                                  /* likewise */
} ringport_candidate;

/* Content that place is asked about. Borrowed for the call. 1.1 */
typedef struct ringport_place_request {
    uint32_t size;
    uint32_t kind;                /* RINGPORT_KIND_MANIFEST or RINGPORT_KIND_BLOB */
    uint32_t moment;              /* RINGPORT_MOMENT_* */
    uint32_t reserved;
    ringport_str upstream;        /* canonical name; empty: hosted */
    ringport_str repository;      /* as it is called there, or here if hosted */
    ringport_str digest;          /* "sha256:..."; empty: not known yet */
    ringport_str media_type;      /* empty: not known, or a blob */
    uint64_t content_bytes;       /* its size, or RINGPORT_BYTES_UNKNOWN */
} ringport_place_request;

/* Where content goes, and for how long. All zero: as if nobody had been asked. What is said when
 * content is committed holds for as long as it is stored; stored content is not asked about. 1.1 */
typedef struct ringport_placement {
    uint32_t size;
    uint32_t storage_class;       /* RINGPORT_CLASS_*; refused: PASS_THROUGH of hosted content */
    ringport_str pool;            /* one of configure's `pools`; empty: the host's choice */
    uint64_t ttl_ms;              /* that long after its commit it makes room first of all, */
                                  /* pinned or not; until then it is served. 0: no such bound */
    int32_t priority;             /* each step doubles what keeping it is worth; 0: normal; from */
                                  /* -RINGPORT_PRIORITY_MAX to +RINGPORT_PRIORITY_MAX */
    uint32_t reserved;            /* 0 */
} ringport_placement;

/* One request to a remote tier, ready to be sent as it stands: signed. 1.1 */
typedef struct ringport_remote {
    uint32_t size;
    uint32_t purpose;             /* RINGPORT_REMOTE_* */
    ringport_str method;          /* READ: "GET"; WRITE: "PUT" or "POST" */
    ringport_str url;             /* begins with one of configure's `remote_tiers` and "/" */
    const ringport_header *headers; /* besides Host, Content-Length and those of framing, which */
    size_t header_count;            /* are the host's and refused here */
    uint64_t expires_unix_ms;     /* not sent after this; 0: never expires */
} ringport_remote;

/* What the host offers. The table is borrowed until destroy.
 *
 * The emit functions: `ctx` is the one this call was handed, used before the call returns and on
 * the same thread. A null ctx gets RINGPORT_INVALID, and so does one whose call is over, as long
 * as what it belongs to lives: that of configure or refresh to the instance that the call made,
 * the others to their worker, whose calls may all be handed the same one. After destroy or
 * worker_stop, and after a call that made nothing, it points to nothing.
 * Strings are borrowed for the call and copied. None blocks, none calls back into the plugin. They
 * return RINGPORT_OK, or RINGPORT_INVALID when the host refuses what was emitted. A refusal sticks:
 * if the hook goes on to return RINGPORT_OK, the request fails with 500 and a text that names the
 * plugin and the broken rule, so a plugin may ignore what the emit functions return. All since
 * 1.0. */
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

    /* All that follows: since 1.1. */
    uint64_t features;            /* RINGPORT_HOST_* */

    /* emit_upstream with all that a candidate can say; may be mixed with it. In resolve only.
     * Repeated means: equal in every field. */
    ringport_status (*emit_candidate)(ringport_ctx *ctx, const ringport_candidate *candidate);

    /* Says that the tag asked for never changes: once stored, it is answered without asking the
     * upstream again, however old. In resolve only; goes before tag_ttl. Without effect on
     * digests. */
    ringport_status (*emit_immutable)(ringport_ctx *ctx);

    /* Says that this answer (OK, DECLINE, NOT_FOUND, DENIED or INVALID, with all that was emitted)
     * holds for every request of the same query_ns, header_ns and name, as long as it is the same
     * in `depends_on` (RINGPORT_BY_* bits, none is fine) too, until a successor takes over. The
     * host may remember it for each worker and answer without a call; a bit that is missing gives
     * one client another's answer. In resolve only; a second call adds its bits. Without it the
     * answer is not remembered, nor when the host refused something in the same call. Ignored with
     * other statuses. */
    ringport_status (*emit_cacheable)(ringport_ctx *ctx, uint64_t depends_on);

    /* Answers a call of place. In place only; the last one counts. */
    ringport_status (*emit_placement)(ringport_ctx *ctx, const ringport_placement *placement);

    /* Adds a request to a remote tier, in order of preference. In place only, with
     * RINGPORT_CLASS_CACHE or _PINNED. The closed world holds here too. The host sends it as it
     * stands, without following redirects, and takes from it only content of the digest that it
     * wants: READ one after the other until one brings it, then the upstream; WRITE each, some
     * time after the commit, perhaps twice or never. What was read from a tier is not written.
     * `ringport explain` shows neither query nor header values. A host without
     * RINGPORT_HOST_REMOTE_TIER in `features` checks and shows it, and sends nothing: a plugin
     * that is useless then should refuse to be configured. */
    ringport_status (*emit_remote)(ringport_ctx *ctx, const ringport_remote *remote);

    /* Asks for the value of a request header in each resolve. In configure only, each name once,
     * at most RINGPORT_HEADERS_MAX. `name`: a token of RFC 9110, case makes no difference. Refused:
     * Authorization, Cookie and Proxy-Authorization. */
    ringport_status (*want_header)(ringport_ctx *ctx, ringport_str name);

    /* Asks for a call of refresh this long after configure and after the end of each refresh. In
     * configure only; the last one counts; refused without RINGPORT_CAN_REFRESH and outside
     * RINGPORT_REFRESH_MS_MIN..MAX. Without it refresh is never called. */
    ringport_status (*want_refresh)(ringport_ctx *ctx, uint64_t interval_ms);
} ringport_host;

/* What the plugin offers. The table, and the strings in it, live as long as the process. All
 * hooks of 1.0 are required, those of 1.1 optional. */
typedef struct ringport_plugin {
    uint32_t size;                /* sizeof(ringport_plugin) */
    uint32_t reserved;            /* 0 */
    uint64_t magic;               /* RINGPORT_PLUGIN_MAGIC */
    uint32_t abi_major;           /* RINGPORT_ABI_MAJOR */
    uint32_t abi_minor;           /* RINGPORT_ABI_MINOR, or the oldest minor that will do */
    uint64_t capabilities;        /* RINGPORT_CAN_*; 0 in 1.0 */
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

    /* When: content is not stored and about to be (MOMENT_STORE), or has just been stored
     * (MOMENT_STORED). Thread: the worker's own, never during its resolve. May block: NO. Since
     * 1.1, with RINGPORT_CAN_PLACE. worker: as for resolve. request: borrowed for the call.
     * Returns OK with or without emits (without: the host's defaults). DECLINE: what was emitted
     * is forgotten, the next resolver with this hook is asked; when all decline, the defaults.
     * Any other status, and a broken answer: what was to be stored is passed through instead, and
     * a push fails; INTERNAL poisons the worker as in resolve.
     * It need not be this instance that routed the request: after a reload or refresh the new one
     * is asked about what is under way, as long as it knows the upstream. */
    ringport_status (*place)(ringport_worker *worker, const ringport_place_request *request,
                             ringport_ctx *ctx);

    /* When: as want_refresh asked. Thread: a helper of the host, while the workers go on to use
     * `instance`. May block: yes, though the refreshes of other plugins wait for it. Since 1.1,
     * with RINGPORT_CAN_REFRESH.
     * instance: the running one, constant. host: as in configure. ctx: for emit_error only.
     * Returns OK with *out set: a successor, given to host, released by destroy; it keeps the
     * headers and the interval of its predecessor and must not point into it. OK with *out left
     * null: nothing has changed. Any other status: logged and counted, the running instance goes
     * on, and the next refresh comes in its time. */
    ringport_status (*refresh)(const ringport_instance *instance, const ringport_host *host,
                               ringport_ctx *ctx, ringport_instance **out);
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
