//! The header's constants, under their names without the prefix.

/// `RINGPORT_ABI_MAJOR`
pub const ABI_MAJOR: u32 = 1;
/// `RINGPORT_ABI_MINOR`
pub const ABI_MINOR: u32 = 1;
/// `RINGPORT_PLUGIN_MAGIC`: "RINGPORT", read as a little-endian number.
pub const PLUGIN_MAGIC: u64 = u64::from_le_bytes(*b"RINGPORT");
/// `RINGPORT_PLUGIN_SIZE_MIN`: the size of [`Plugin`](crate::Plugin) in ABI 1.0.
pub const PLUGIN_SIZE_MIN: usize = 104;
/// The name of the one exported symbol, of type [`EntryFn`](crate::EntryFn).
pub const ENTRY_SYMBOL: &str = "ringport_plugin_entry";

/// `RINGPORT_NAME_BYTES_MAX`
pub const NAME_BYTES_MAX: usize = 32;
/// `RINGPORT_VERSION_BYTES_MAX`
pub const VERSION_BYTES_MAX: usize = 64;
/// `RINGPORT_CANDIDATES_MAX`
pub const CANDIDATES_MAX: usize = 16;
/// `RINGPORT_REPOSITORY_BYTES_MAX`
pub const REPOSITORY_BYTES_MAX: usize = 255;
/// `RINGPORT_RULE_BYTES_MAX`
pub const RULE_BYTES_MAX: usize = 256;
/// `RINGPORT_ERROR_BYTES_MAX`
pub const ERROR_BYTES_MAX: usize = 1024;
/// `RINGPORT_FRESHNESS_MS_MAX`: 366 days.
pub const FRESHNESS_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;
/// `RINGPORT_HEADERS_MAX`
pub const HEADERS_MAX: usize = 8;
/// `RINGPORT_HEADER_NAME_BYTES_MAX`
pub const HEADER_NAME_BYTES_MAX: usize = 64;
/// `RINGPORT_HEADER_VALUE_BYTES_MAX`
pub const HEADER_VALUE_BYTES_MAX: usize = 1024;
/// `RINGPORT_REFRESH_MS_MIN`: 1 second.
pub const REFRESH_MS_MIN: u64 = 1000;
/// `RINGPORT_REFRESH_MS_MAX`: 1 day.
pub const REFRESH_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// `RINGPORT_PRIORITY_MAX`
pub const PRIORITY_MAX: i32 = 10;
/// `RINGPORT_REMOTES_MAX`
pub const REMOTES_MAX: usize = 4;
/// `RINGPORT_REMOTE_HEADERS_MAX`
pub const REMOTE_HEADERS_MAX: usize = 16;
/// `RINGPORT_STRING_BYTES_MAX`
pub const STRING_BYTES_MAX: usize = 1 << 20;
/// `RINGPORT_REMOTE_BYTES_MAX`
pub const REMOTE_BYTES_MAX: usize = 8192;
/// `RINGPORT_MS_UNSET`: leave this bound as configured.
pub const MS_UNSET: u64 = u64::MAX;

/// `ringport_status`: an integer, since a foreign plugin may return any.
pub type Status = i32;
/// `RINGPORT_OK`
pub const OK: Status = 0;
/// `RINGPORT_DECLINE`
pub const DECLINE: Status = 1;
/// `RINGPORT_NOT_FOUND`
pub const NOT_FOUND: Status = 2;
/// `RINGPORT_DENIED`
pub const DENIED: Status = 3;
/// `RINGPORT_UNAVAILABLE`
pub const UNAVAILABLE: Status = 4;
/// `RINGPORT_INVALID`
pub const INVALID: Status = 5;
/// `RINGPORT_INTERNAL`
pub const INTERNAL: Status = 6;

/// `RINGPORT_CAN_PLACE`
pub const CAN_PLACE: u64 = 1;
/// `RINGPORT_CAN_REFRESH`
pub const CAN_REFRESH: u64 = 2;

/// `RINGPORT_HOST_REMOTE_TIER`
pub const HOST_REMOTE_TIER: u64 = 1;

/// `RINGPORT_KIND_MANIFEST`
pub const KIND_MANIFEST: u32 = 1;
/// `RINGPORT_KIND_BLOB`
pub const KIND_BLOB: u32 = 2;
/// `RINGPORT_KIND_TAGS`
pub const KIND_TAGS: u32 = 3;
/// `RINGPORT_KIND_REFERRERS`
pub const KIND_REFERRERS: u32 = 4;

/// `RINGPORT_NS_NONE`
pub const NS_NONE: u32 = 0;
/// `RINGPORT_NS_QUERY`
pub const NS_QUERY: u32 = 1;
/// `RINGPORT_NS_HEADER`
pub const NS_HEADER: u32 = 2;
/// `RINGPORT_NS_PATH`
pub const NS_PATH: u32 = 3;

/// `RINGPORT_BY_KIND`
pub const BY_KIND: u64 = 1;
/// `RINGPORT_BY_METHOD`
pub const BY_METHOD: u64 = 2;
/// `RINGPORT_BY_REFERENCE`
pub const BY_REFERENCE: u64 = 4;
/// `RINGPORT_BY_CLIENT`
pub const BY_CLIENT: u64 = 8;
/// `RINGPORT_BY_PRINCIPAL`
pub const BY_PRINCIPAL: u64 = 16;
/// `RINGPORT_BY_HEADERS`
pub const BY_HEADERS: u64 = 32;

/// `RINGPORT_MOMENT_STORE`
pub const MOMENT_STORE: u32 = 1;
/// `RINGPORT_MOMENT_STORED`
pub const MOMENT_STORED: u32 = 2;
/// `RINGPORT_BYTES_UNKNOWN`
pub const BYTES_UNKNOWN: u64 = u64::MAX;

/// `RINGPORT_CLASS_CACHE`
pub const CLASS_CACHE: u32 = 0;
/// `RINGPORT_CLASS_PINNED`
pub const CLASS_PINNED: u32 = 1;
/// `RINGPORT_CLASS_PASS_THROUGH`
pub const CLASS_PASS_THROUGH: u32 = 2;

/// `RINGPORT_REMOTE_READ`
pub const REMOTE_READ: u32 = 1;
/// `RINGPORT_REMOTE_WRITE`
pub const REMOTE_WRITE: u32 = 2;

/// `RINGPORT_UPSTREAM_FORWARD_NS`
pub const UPSTREAM_FORWARD_NS: u32 = 1;
/// `RINGPORT_UPSTREAM_PLAIN_HTTP`
pub const UPSTREAM_PLAIN_HTTP: u32 = 2;
