//! What of a blob is there, who brings more of it, who waits for what, and what to fetch next.
//! Pure: no I/O, and the time is given.
//!
//! What a reader asked for is fetched first, each byte by one stream; only then the rest, in
//! pieces. A byte that a stream is about to bring is waited for, unless a request of its own would
//! bring it sooner.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use super::extents::Extents;
use crate::limits::{SPARSE_EXTENTS_MAX, SPARSE_STREAMS_MAX};

/// Bytes fetched at once that nobody asked for: so much, at most, comes twice or in vain when a
/// reader asks for something in the middle of them, or the last one leaves.
const BACKGROUND_BYTES: u64 = 2 * 1024 * 1024;
/// What is there already is fetched again rather than by-passed with a request of its own: up to
/// so many bytes, in all at most a 32nd of what is fetched.
const REPEATED_BYTES: u64 = 16 * 1024;
const REPEATED_PART: u64 = 32;
/// A stream that meets bytes which came another way reads over so many of them rather than end.
const SKIP_BYTES: u64 = 256 * 1024;
/// A stream that is so near is waited for, however slow it is.
pub(super) const NEAR_BYTES: u64 = 256 * 1024;
/// The same for who reads on to the end of the blob: one stream for many such readers.
const NEAR_TO_END_BYTES: u64 = 64 * 1024 * 1024;

/// The plan of one blob.
#[derive(Debug)]
pub(super) struct Plan {
    size: u64,
    /// Written: may be read.
    there: Extents,
    /// Written or being written: nobody else writes it.
    taken: Extents,
    /// At most [`SPARSE_STREAMS_MAX`].
    streams: Vec<Stream>,
    /// In the order of their arrival.
    wants: BTreeMap<u64, Want>,
    last_id: u64,
    /// Whether what nobody asks for is fetched, too.
    is_all_wanted: bool,
    /// Whether the upstream sends everything, whatever is asked for.
    ignores_ranges: bool,
}

/// What a reader waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Want {
    /// The next byte it needs.
    pub(super) at: u64,
    /// The one behind its last.
    pub(super) end: u64,
    /// Whether it reads on to the end of the blob, unless it leaves before.
    pub(super) is_to_end: bool,
}

/// Bytes on their way.
#[derive(Debug)]
struct Stream {
    id: u64,
    start: u64,
    at: u64,
    end: u64,
    asked: Instant,
    answered: Option<Instant>,
}

/// What to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Of its stream.
    pub(super) id: u64,
    pub(super) first: u64,
    /// The byte behind its last.
    pub(super) end: u64,
}

/// What a reader found of what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// All of it is there.
    All,
    /// Some of it is there; of the rest, what comes first is or is not being fetched already.
    Some {
        /// Whether it is being fetched for somebody else.
        is_shared: bool,
    },
    /// None of it is there.
    None {
        /// Whether it is being fetched for somebody else.
        is_shared: bool,
    },
}

impl Plan {
    /// Nothing of `size` bytes is there.
    pub(super) fn new(size: u64, is_all_wanted: bool) -> Self {
        Self {
            size,
            there: Extents::default(),
            taken: Extents::default(),
            streams: Vec::new(),
            wants: BTreeMap::new(),
            last_id: 0,
            is_all_wanted,
            ignores_ranges: false,
        }
    }

    /// The size of the blob in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    // ---- readers ----

    /// A reader waits for this; `None` when so much has been read here and there that there is no
    /// keeping track of more.
    pub(super) fn want(&mut self, want: Want) -> Option<u64> {
        // Who reads to the end leaves no holes.
        let is_easy = want.is_to_end || self.there.covers(want.at, want.end);
        if !is_easy && self.there.count() >= SPARSE_EXTENTS_MAX {
            return None;
        }
        let id = self.new_id();
        self.wants.insert(id, want);
        Some(id)
    }

    /// The reader has come to `at`. Returns up to where it may go on, and whether somebody has to
    /// see to it that there is more.
    pub(super) fn reached(&mut self, id: u64, at: u64, now: Instant) -> (u64, bool) {
        let until = self.there.end_from(at);
        let Some(want) = self.wants.get_mut(&id) else { return (until, false) };
        want.at = at;
        let want = *want;
        let lacks = until == at && at < want.end;
        (until.min(want.end), lacks && !self.is_on_its_way(at, &want, now))
    }

    /// The reader has left.
    pub(super) fn leave(&mut self, id: u64) {
        self.wants.remove(&id);
    }

    /// What there is of what somebody wants.
    pub(super) fn found(&self, want: &Want, now: Instant) -> Found {
        let lacks_from = self.there.end_from(want.at);
        let is_shared = self.is_on_its_way(lacks_from, want, now);
        match (lacks_from >= want.end, self.there.touches(want.at, want.end)) {
            (true, _) => Found::All,
            (false, true) => Found::Some { is_shared },
            (false, false) => Found::None { is_shared },
        }
    }

    /// Somebody wants all of it, and goes on wanting it when he has left.
    pub(super) fn want_all(&mut self) {
        self.is_all_wanted = true;
    }

    /// Whether what nobody asks for is fetched, too: who reads to the end gets the last bytes of it
    /// when all of it is there.
    pub(super) fn is_all_wanted(&self) -> bool {
        self.is_all_wanted || self.wants.values().any(|want| want.is_to_end)
    }

    // ---- what to fetch ----

    /// What to fetch next of what readers wait for, if anything: it counts as being fetched from
    /// now on.
    pub(super) fn next(&mut self, now: Instant) -> Option<Piece> {
        // Another answer would begin at the first byte again.
        let may_ask = !self.ignores_ranges || self.streams.is_empty();
        if !may_ask || self.streams.len() >= SPARSE_STREAMS_MAX {
            return None;
        }
        let (first, limit) = self.wants.values().find_map(|want| {
            let first = self.there.end_from(want.at);
            let lacks = first < want.end && !self.is_on_its_way(first, want, now);
            lacks.then_some((first, want.end))
        })?;
        Some(self.begin(first, self.end_of_piece(first, limit), now))
    }

    /// Whether it is time for what nobody waits for.
    pub(super) fn has_time_for_rest(&self) -> bool {
        self.is_all_wanted() && self.streams.is_empty() && !self.is_whole()
    }

    /// The next piece of that.
    pub(super) fn next_of_rest(&mut self, now: Instant) -> Option<Piece> {
        let gap = self.there.gaps(0, self.size).next().filter(|_| self.has_time_for_rest())?;
        let limit = gap.start.saturating_add(BACKGROUND_BYTES).min(self.size);
        Some(self.begin(gap.start, self.end_of_piece(gap.start, limit), now))
    }

    /// A stream that brings the bytes from `first` to before `end`.
    pub(super) fn begin(&mut self, first: u64, end: u64, now: Instant) -> Piece {
        let id = self.new_id();
        let stream = Stream { id, start: first, at: first, end, asked: now, answered: None };
        self.streams.push(stream);
        Piece { id, first, end }
    }

    /// How far a request from `first`, which is not there, goes: to the next bytes that are there or
    /// on their way, but over a few that are there, and to `limit` at most.
    fn end_of_piece(&self, first: u64, limit: u64) -> u64 {
        let begun = self.streams.iter().map(|stream| stream.at).filter(|&at| at > first);
        let mut gaps = self.there.gaps(first, begun.fold(limit, u64::min));
        let mut end = gaps.next().map_or(first, |gap| gap.end);
        let mut repeated = 0;
        for gap in gaps {
            repeated += gap.start - end;
            let is_much = repeated > (gap.end - first) / REPEATED_PART;
            if gap.start - end > REPEATED_BYTES || is_much {
                break;
            }
            end = gap.end;
        }
        end
    }

    fn is_on_its_way(&self, at: u64, want: &Want, now: Instant) -> bool {
        let brings = |stream: &Stream| {
            (stream.at..stream.end).contains(&at)
                && (self.ignores_ranges || stream.is_sooner_there(at, want, now))
        };
        self.streams.iter().any(brings)
    }

    // ---- streams ----

    /// Nothing is wanted any more: streams end with what they have in hand.
    pub(super) fn close(&mut self) {
        self.streams.clear();
    }

    /// The head of a stream's answer is there. The upstream that `ignores_ranges` sends everything.
    pub(super) fn answered(&mut self, id: u64, ignores_ranges: bool, now: Instant) {
        self.ignores_ranges = ignores_ranges;
        let size = self.size;
        if let Some(stream) = self.stream(id) {
            stream.answered = Some(now);
            if ignores_ranges {
                (stream.start, stream.at, stream.end) = (0, 0, size);
            }
        }
    }

    /// The next `length` bytes of a stream are in hand: where the first of them belongs, and which
    /// are to be written.
    pub(super) fn take(&mut self, id: u64, length: u64) -> (u64, Vec<Range<u64>>) {
        let Some(stream) = self.stream(id) else { return (0, Vec::new()) };
        let first = stream.at;
        let end = first.saturating_add(length).min(stream.end);
        let parts: Vec<_> = self.taken.gaps(first, end).collect();
        self.taken.insert(first, end);
        (first, parts)
    }

    /// These have been written.
    pub(super) fn wrote(&mut self, piece: &Range<u64>) {
        self.there.insert(piece.start, piece.end);
    }

    /// The stream has dealt with `length` bytes. Returns whether it goes on. Of the `readers` some
    /// may not have said yet what they want.
    pub(super) fn advance(&mut self, id: u64, length: u64, readers: usize) -> bool {
        let Some(stream) = self.stream(id) else { return false };
        stream.at = stream.at.saturating_add(length).min(stream.end);
        let (at, end) = (stream.at, stream.end);
        let known = self.taken.end_from(at);
        if at >= end || known >= end || (known - at > SKIP_BYTES && !self.ignores_ranges) {
            return false;
        }
        let is_wanted = |want: &Want| want.at < end && at < want.end;
        self.is_all_wanted()
            || end - at <= BACKGROUND_BYTES
            || readers > self.wants.len()
            || self.wants.values().any(is_wanted)
    }

    /// The stream has ended; returns how many bytes it came on.
    pub(super) fn end(&mut self, id: u64) -> u64 {
        let brought = self.stream(id).map_or(0, |stream| stream.at - stream.start);
        self.streams.retain(|stream| stream.id != id);
        brought
    }

    /// Whether every byte is there. Nobody is writing then.
    pub(super) fn is_whole(&self) -> bool {
        self.there.covers(0, self.size)
    }

    /// Whether bytes are on their way.
    pub(super) fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    fn stream(&mut self, id: u64) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.id == id)
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl Stream {
    /// Whether waiting for this stream to come to `at`, which it will, is better than asking: it
    /// is near, or will be there before another request was answered.
    fn is_sooner_there(&self, at: u64, want: &Want, now: Instant) -> bool {
        let distance = at - self.at;
        if distance <= if want.is_to_end { NEAR_TO_END_BYTES } else { NEAR_BYTES } {
            return true;
        }
        let Some(answered) = self.answered else { return false };
        let answer = answered.saturating_duration_since(self.asked).as_micros();
        let elapsed = now.saturating_duration_since(answered).as_micros();
        let brought = u128::from(self.at - self.start);
        brought > 0 && u128::from(distance) * elapsed <= answer * brought
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
