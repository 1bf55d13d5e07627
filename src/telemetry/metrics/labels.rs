//! The closed sets that label values come from. Each has a fixed number for its place in an array.

/// What kind of request it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// `GET /v2/`
    Base,
    /// A manifest by tag or digest.
    Manifest,
    /// A blob.
    Blob,
    /// `tags/list`
    Tags,
    /// Referrers of a manifest.
    Referrers,
    /// Everything else: not the API, refused before it was known, or not supported.
    Other,
}

impl RouteKind {
    pub(super) const ALL: [RouteKind; 6] = [
        RouteKind::Base,
        RouteKind::Manifest,
        RouteKind::Blob,
        RouteKind::Tags,
        RouteKind::Referrers,
        RouteKind::Other,
    ];

    /// The word in metrics and the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            RouteKind::Base => "base",
            RouteKind::Manifest => "manifest",
            RouteKind::Blob => "blob",
            RouteKind::Tags => "tags",
            RouteKind::Referrers => "referrers",
            RouteKind::Other => "other",
        }
    }
}

/// Where the answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheResult {
    /// From the store, the upstream was not asked.
    Hit,
    /// From the upstream, or from a fill under way.
    Miss,
    /// From the store although its time was over: the upstream failed.
    Stale,
    /// From the store although its time was over, within what the configuration allows: the
    /// upstream is asked behind the answer.
    Updating,
    /// From the store after the upstream said it is still the same.
    Revalidated,
    /// The cache had no part in it.
    None,
}

impl CacheResult {
    pub(super) const ALL: [CacheResult; 6] = [
        CacheResult::Hit,
        CacheResult::Miss,
        CacheResult::Stale,
        CacheResult::Updating,
        CacheResult::Revalidated,
        CacheResult::None,
    ];

    /// The word in metrics and the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            CacheResult::Hit => "hit",
            CacheResult::Miss => "miss",
            CacheResult::Stale => "stale",
            CacheResult::Updating => "updating",
            CacheResult::Revalidated => "revalidated",
            CacheResult::None => "none",
        }
    }
}

/// How a fill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FillOutcome {
    /// Verified and committed.
    Stored,
    /// Complete, but not the content that was asked for.
    DigestMismatch,
    /// Refused for its type, length, encoding or form.
    Rejected,
    /// The upstream could not be asked, refused, or broke once too often.
    UpstreamFailed,
    /// Our disk or catalog failed.
    StorageFailed,
    /// Sparse, and not read any more before it was whole.
    Dropped,
    /// Ended by a shutdown or a panic.
    Abandoned,
}

impl FillOutcome {
    pub(super) const ALL: [FillOutcome; 7] = [
        FillOutcome::Stored,
        FillOutcome::DigestMismatch,
        FillOutcome::Rejected,
        FillOutcome::UpstreamFailed,
        FillOutcome::StorageFailed,
        FillOutcome::Dropped,
        FillOutcome::Abandoned,
    ];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            FillOutcome::Stored => "stored",
            FillOutcome::DigestMismatch => "digest_mismatch",
            FillOutcome::Rejected => "rejected",
            FillOutcome::UpstreamFailed => "upstream_failed",
            FillOutcome::StorageFailed => "storage_failed",
            FillOutcome::Dropped => "dropped",
            FillOutcome::Abandoned => "abandoned",
        }
    }
}

/// What came of asking whether a stored tag or list still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Revalidation {
    /// It does.
    Confirmed,
    /// There is another one now.
    Changed,
    /// There is none any more.
    Gone,
    /// The upstream failed, or refused us.
    Failed,
    /// The upstream was not asked: it had just failed, its rate limit is spared, or too much was
    /// asked for already.
    PutOff,
}

impl Revalidation {
    pub(super) const ALL: [Revalidation; 5] = [
        Revalidation::Confirmed,
        Revalidation::Changed,
        Revalidation::Gone,
        Revalidation::Failed,
        Revalidation::PutOff,
    ];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Revalidation::Confirmed => "confirmed",
            Revalidation::Changed => "changed",
            Revalidation::Gone => "gone",
            Revalidation::Failed => "failed",
            Revalidation::PutOff => "put_off",
        }
    }
}

/// The status codes that are counted one by one, in order; any other is counted as "other".
pub(super) const STATUSES: [(u16, &str); 33] = [
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (204, "204"),
    (206, "206"),
    (301, "301"),
    (302, "302"),
    (303, "303"),
    (304, "304"),
    (307, "307"),
    (308, "308"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (406, "406"),
    (408, "408"),
    (410, "410"),
    (412, "412"),
    (413, "413"),
    (414, "414"),
    (416, "416"),
    (429, "429"),
    (431, "431"),
    (500, "500"),
    (501, "501"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
    (505, "505"),
    (507, "507"),
    (508, "508"),
];

/// Places for the statuses above, for "other", and for "no answer at all".
pub(super) const STATUS_COUNT: usize = STATUSES.len() + 2;
const STATUS_OTHER: usize = STATUSES.len();
pub(super) const STATUS_NONE: usize = STATUSES.len() + 1;

/// The place of each status: a table, since a search among the words would touch line after line of them
/// with each request.
static PLACES: [u8; 600] = {
    let mut places = [STATUS_OTHER as u8; 600];
    let mut at = 0;
    while at < STATUSES.len() {
        places[STATUSES[at].0 as usize] = at as u8;
        at += 1;
    }
    places
};

/// The place of `status`.
pub(super) fn status_index(status: u16) -> usize {
    PLACES.get(usize::from(status)).map_or(STATUS_OTHER, |place| usize::from(*place))
}

/// The word for the place `index`.
pub(super) fn status_word(index: usize) -> &'static str {
    match STATUSES.get(index) {
        Some((_, word)) => word,
        None if index == STATUS_NONE => "none",
        None => "other",
    }
}
