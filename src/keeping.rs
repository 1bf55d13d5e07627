//! On which terms cached content is kept: for how long, and before what else it makes room.
//!
//! May import: nothing. Decided when content is committed, written down by the catalog, held at hand
//! by the index, and acted upon where room is made.

/// The terms of one stored content. The default is what holds when nobody sets any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Keeping {
    /// It never makes room, until it expires.
    pub is_pinned: bool,
    /// From -[`PRIORITY_MAX`] to [`PRIORITY_MAX`]: each step doubles what keeping it is worth.
    pub priority: i8,
    /// From when on it makes room before all that has not expired, pinned or not; Unix seconds,
    /// `None` for never. It is not dropped for it, and served for as long as it is there.
    pub expires_at: Option<u64>,
}

/// The highest priority, and with a minus the lowest.
pub const PRIORITY_MAX: i8 = 10;

impl Keeping {
    /// Whether it has expired at `now` (Unix seconds).
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether it may not make room at `now` (Unix seconds).
    pub fn must_stay(&self, now: u64) -> bool {
        self.is_pinned && !self.is_expired(now)
    }
}
