//! Every cap and budget of the house, in one place, with the relations between them asserted.
//!
//! What it is: plain constants. Names end in their unit (`_BYTES`, `_TIMEOUT`, `_MAX`), so a number
//! is never guessed at where it is used. It imports nothing and any layer may import it.
//!
//! **Invariant:** whatever a peer, a file or a plugin can make grow has a constant here (or a
//! configured value whose default stands here), and going over it has an answer, not a stall.
//! **Invariant:** relations that other code relies on are `const` assertions at the end of this
//! file, so breaking one breaks the build.
//! Deliberately absent: anything an operator sets per upstream; that is `config`.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

// ---- the request head ----------------------------------------------------------------------

/// Largest request head (request line, header lines and the empty line), in bytes. Over it: 431.
/// It also bounds the work of parsing again from byte 0 each time more of a head arrives.
pub const HEAD_BYTES_MAX: usize = 16 * KIB;
/// Most header lines in one head. Over it: 431.
pub const HEADERS_MAX: usize = 64;
/// Longest request target, in bytes. Over it: 414.
pub const TARGET_BYTES_MAX: usize = 4 * KIB;
/// Largest `Content-Length` that is believed: the integers every JSON reader represents exactly.
pub const CONTENT_LENGTH_MAX: u64 = 1 << 53;

/// Size of the buffers that heads are read into first, and ciphertext, in bytes. A larger head makes
/// its buffer grow to [`HEAD_BYTES_MAX`]; that one is not kept.
pub const HEAD_BYTES_FIRST: usize = 4 * KIB;
/// Buffers of that size that a worker keeps while nobody needs them.
pub const HEAD_BUFFERS_MAX: usize = 256;
/// Memory for the state of one request under way, in bytes.
pub const REQUEST_BLOCK_BYTES: usize = 8 * KIB;
/// Blocks of that size that a worker keeps while nobody needs them.
pub const REQUEST_BLOCKS_MAX: usize = 128;
/// Buffers of answers that a worker keeps while nobody needs them.
pub const ANSWER_BUFFERS_MAX: usize = 64;
/// One that is larger, in bytes, is freed, but for one of up to `2 * PENDING_BYTES_MAX`.
pub const ANSWER_BUFFER_BYTES_MAX: usize = 8 * KIB;
/// What a worker keeps for its connections at most, in bytes: buffers and blocks.
pub const KEPT_BYTES_MAX: usize = HEAD_BUFFERS_MAX * HEAD_BYTES_FIRST
    + REQUEST_BLOCKS_MAX * REQUEST_BLOCK_BYTES
    + ANSWER_BUFFERS_MAX * ANSWER_BUFFER_BYTES_MAX;

// ---- the chunked body ----------------------------------------------------------------------

/// Most hexadecimal digits in a chunk size: 48 bits, so the sum can't overflow a `u64`.
pub const CHUNK_SIZE_DIGITS_MAX: usize = 12;
/// Longest extension of one chunk, in bytes.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 128;
/// Sum of all chunk extensions of one message, in bytes.
pub const CHUNK_EXTENSIONS_BYTES_MAX: usize = 4 * KIB;
/// Whole trailer section of one message, in bytes. Trailers are checked and dropped.
pub const TRAILER_BYTES_MAX: usize = 4 * KIB;

// ---- the connection ------------------------------------------------------------------------

/// Answers to pipelined requests that are sent together, in bytes; the last may go beyond it.
pub const PENDING_BYTES_MAX: usize = 64 * KIB;
/// Memory of request heads that a worker keeps for the next ones: how many, and how large each.
pub const SPARE_HEADS_MAX: usize = 64;
/// A head that has more, in bytes, is freed.
pub const SPARE_HEAD_BYTES_MAX: usize = 4 * KIB;

/// An unread request body of at most this many bytes is drained so that the connection can be
/// used again; a larger one closes it.
pub const DRAIN_BYTES_MAX: u64 = 64 * KIB as u64;
/// Bytes of bodies that a worker moves before it looks at what its ring brings: what delays a small
/// request most. Two windows; fewer cost throughput, more only add to the delay.
pub const BULK_BYTES_PER_POLL: u64 = 4 * 1024 * KIB as u64;
/// Files of stored content that each worker keeps open between two hits.
pub const OPEN_FILES_MAX: usize = 512;
/// From accept (or from the end of the previous response, once a byte came) to the end of a head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may stand idle between two requests.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Requests answered on one connection before it is closed, so that load spreads again.
pub const REQUESTS_PER_CONNECTION_MAX: u32 = 1000;
/// Slowest body, in either direction, in bytes per second, averaged over [`BODY_RATE_WINDOW`].
pub const BODY_RATE_FLOOR_BYTES_PER_SECOND: u64 = KIB as u64;
/// The time over which [`BODY_RATE_FLOOR_BYTES_PER_SECOND`] is measured.
pub const BODY_RATE_WINDOW: Duration = Duration::from_secs(30);

// ---- names and documents -------------------------------------------------------------------

/// Longest namespace (`host[:port]`), in bytes.
pub const NAMESPACE_BYTES_MAX: usize = 255;
/// Longest repository name, in bytes. The spec leaves it open; clients stop at 255 with the host.
pub const REPOSITORY_NAME_BYTES_MAX: usize = 255;
/// Longest name as it stands in a path: `proxy/` + namespace + `/` + repository name, in bytes.
pub const PATH_NAME_BYTES_MAX: usize = 6 + NAMESPACE_BYTES_MAX + 1 + REPOSITORY_NAME_BYTES_MAX;
/// Longest tag, in bytes (distribution-spec, "Pulling manifests").
pub const TAG_BYTES_MAX: usize = 128;
/// Longest `last=` or `artifactType=` query value, in bytes after decoding.
pub const QUERY_VALUE_BYTES_MAX: usize = 255;
/// Largest page of `tags/list` and `_catalog`; a larger `n` is lowered to it.
pub const PAGE_ENTRIES_MAX: u32 = 1000;
/// Most tags that one push of a manifest by digest binds; the spec asks for at least 10.
pub const PUSH_TAGS_MAX: usize = 32;
/// Largest manifest, in bytes. The spec asks a registry to support at least 4 MiB.
pub const MANIFEST_BYTES_MAX: usize = 4 * MIB;
/// Manifests of more than [`FRAME_BYTES_MAX`] that a worker receives at a time. One more: 503.
pub const LARGE_MANIFESTS_MAX: usize = 64;
/// Largest relayed `tags/list` or referrers document, in bytes.
pub const RELAY_BYTES_MAX: usize = 4 * MIB;
/// Largest answer of a token server, in bytes.
pub const TOKEN_BYTES_MAX: usize = 64 * KIB;
/// Sum of all `Warning` header values in one response, in bytes (distribution-spec, "Warnings").
pub const WARNING_BYTES_MAX: usize = 4 * KIB;

// ---- fills and upstreams -------------------------------------------------------------------

/// Bytes at the end of an unverified body that followers are not given until the digest matches.
pub const HOLD_BACK_BYTES: u64 = 64 * KIB as u64;
/// Content from a remote tier that has at most so many bytes is shown to nobody before it is
/// verified: longer content is streamed, and a tier that has it wrong costs a pull.
pub const TIER_HELD_BYTES_MAX: u64 = 8 * MIB as u64;
/// Largest piece of an upstream body handed on at once, in bytes.
pub const FRAME_BYTES_MAX: usize = 256 * KIB;
/// Memory for pieces of content, each as large as a frame, that a worker keeps for the next one: to
/// have it from the system each time costs as much as writing whole pieces saves.
pub const SPARE_PIECES_MAX: usize = 8;
/// How long bytes of content are gathered for a whole piece before they are written, for the followers
/// of a fill and for whoever resumes a push: at 50 MB a second a piece is whole by then.
pub const GATHERED_FOR: Duration = Duration::from_millis(5);
/// Mirrors and proxies that a request may have come through before it is taken for a loop.
pub const VIA_HOPS_MAX: usize = 8;
/// Redirects followed for one upstream exchange.
pub const REDIRECTS_MAX: usize = 5;
/// Tries of one fill: the first request and the resumptions that brought no new byte.
pub const FILL_TRIES_MAX: u32 = 5;
/// The first byte of our response head leaves within this time, whatever the upstream does:
/// containerd >= 2.3 gives up after 30 s without headers.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(25);

/// Blobs that are filled by ranges at a time: each is an open file of full size. Ranges of others
/// are passed through.
pub const SPARSE_FILLS_MAX: usize = 512;
/// Ranges of one of them that are fetched at a time.
pub const SPARSE_STREAMS_MAX: usize = 8;
/// Separate extents of one of them; a range that would make more is passed through.
pub const SPARSE_EXTENTS_MAX: usize = 4096;
/// Ranges fetched at a time, over all of them, that nobody waits for.
pub const SPARSE_REST_STREAMS_MAX: usize = 4;

// ---- pushes --------------------------------------------------------------------------------

/// Upload sessions open at a time. Each is some hundred bytes in memory, and a file.
pub const UPLOADS_MAX: usize = 8192;
/// The same of one client, and of all clients that nobody knows.
pub const UPLOADS_PER_OWNER_MAX: usize = 1024;

// ---- plugins -------------------------------------------------------------------------------

/// What 99 of 100 calls of a plugin should take at most, unless its `budget` says otherwise; what
/// the ABI promises plugin authors.
pub const PLUGIN_BUDGET: Duration = Duration::from_micros(20);

const _: () = {
    assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX, "a legal target leaves room for headers");
    assert!(HEAD_BYTES_MAX <= u16::MAX as usize, "a head is addressed by 16-bit offsets");
    assert!(HEADERS_MAX * 4 < HEAD_BYTES_MAX, "the header cap must be reachable");
    assert!(PATH_NAME_BYTES_MAX * 3 + 512 < TARGET_BYTES_MAX, "an encoded name fits a target");
    assert!(CHUNK_SIZE_DIGITS_MAX * 4 <= 48, "a chunk size stays far below u64::MAX");
    assert!(CHUNK_EXTENSION_BYTES_MAX <= CHUNK_EXTENSIONS_BYTES_MAX);
    assert!(MANIFEST_BYTES_MAX >= 4 * MIB, "the spec's lower bound");
    assert!(HOLD_BACK_BYTES <= FRAME_BYTES_MAX as u64, "a held tail fits one frame");
    assert!(UPLOADS_PER_OWNER_MAX < UPLOADS_MAX, "one client leaves room for others");
    assert!(HEAD_BYTES_FIRST < HEAD_BYTES_MAX);
    assert!(KEPT_BYTES_MAX == 5 * MIB / 2, "docs/OPERATIONS.md says so");
    assert!(HEAD_TIMEOUT.as_secs() < IDLE_TIMEOUT.as_secs());
    assert!(FIRST_BYTE_TIMEOUT.as_secs() < 30, "containerd's response-header timeout");
};
