//! One cache, one policy, one trace: what share of the requests, of the bytes, and of whole pulls
//! needed no upstream.

use crate::policies::{Kind, Policy, Request};
use crate::trace::Trace;

/// Shares in percent, after the warm-up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ratios {
    /// Requests that were answered from the cache.
    pub objects: f64,
    /// Bytes that were.
    pub bytes: f64,
    /// Pulls of which every object was there.
    pub pulls: f64,
}

/// The first part of the trace fills the cache and isn't counted.
const WARM_UP: f64 = 0.25;

/// Hits and all, in some unit.
#[derive(Default)]
struct Share {
    hits: u64,
    all: u64,
}

impl Share {
    fn count(&mut self, amount: u64, is_hit: bool) {
        self.all += amount;
        self.hits += if is_hit { amount } else { 0 };
    }

    fn percent(&self) -> f64 {
        100.0 * self.hits as f64 / self.all.max(1) as f64
    }
}

/// The cache's bytes: once there would be more than `high`, it is emptied to `low`.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// The most there may be.
    pub high: u64,
    /// What it is emptied to when there would be more.
    pub low: u64,
}

/// A cache under one policy.
pub struct Cache {
    policy: Box<dyn Policy>,
    room: Room,
    is_resident: Vec<bool>,
    sizes: Vec<u64>,
    used: u64,
}

impl Cache {
    /// An empty one for the objects of this trace.
    pub fn new(trace: &Trace, kind: Kind, room: Room) -> Self {
        let (is_resident, sizes) = (vec![false; trace.sizes.len()], trace.sizes.clone());
        Self { policy: kind.build(trace, room.high), room, is_resident, sizes, used: 0 }
    }

    /// A manifest that names these objects was asked for.
    pub fn needed(&mut self, objects: &[u32], minute: u32) {
        self.policy.needed(objects, minute);
    }

    /// Whether the object is there; if not, it is fetched and kept, and others make room.
    pub fn ask(&mut self, request: Request) -> bool {
        let Request { object, size, minute, .. } = request;
        if self.is_resident[object as usize] {
            self.policy.hit(request);
            return true;
        }
        if size > self.room.low {
            return false;
        }
        let most = if self.used + size > self.room.high { self.room.low } else { self.room.high };
        while self.used + size > most {
            let Some(victim) = self.policy.evict(minute) else { break };
            debug_assert!(self.is_resident[victim as usize], "evicted what is not there");
            self.is_resident[victim as usize] = false;
            self.used -= self.sizes[victim as usize];
        }
        self.is_resident[object as usize] = true;
        self.used += size;
        self.policy.insert(request);
        debug_assert!(self.used <= self.room.high, "kept more than there is room for");
        false
    }
}

/// Plays the trace through a cache of this room.
pub fn replay(trace: &Trace, next_uses: &[u32], kind: Kind, room: Room) -> Ratios {
    let (mut objects, mut bytes, mut pulls) =
        (Share::default(), Share::default(), Share::default());
    let mut cache = Cache::new(trace, kind, room);
    let mut number = 0;
    let counted_from = (trace.pulls.len() as f64 * WARM_UP) as usize;
    for (at, &pull) in trace.pulls.iter().enumerate() {
        let is_counted = at >= counted_from;
        let mut is_whole = true;
        cache.needed(&trace.images[pull.image as usize].objects, pull.minute);
        for object in trace.requests(pull) {
            let size = trace.sizes[object as usize];
            let next_use = next_uses[number];
            number += 1;
            let is_hit = cache.ask(Request { object, size, minute: pull.minute, next_use });
            is_whole &= is_hit;
            if is_counted {
                objects.count(1, is_hit);
                bytes.count(size, is_hit);
            }
        }
        if is_counted {
            pulls.count(1, is_whole);
        }
    }
    Ratios { objects: objects.percent(), bytes: bytes.percent(), pulls: pulls.percent() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::ROWS;
    use crate::trace::TraceOptions;

    /// Each row's ratios for a short trace, with this share of the room that it needs.
    fn ratios(share: f64) -> Vec<Ratios> {
        let options = TraceOptions { days: 3, waves_a_day: 150, ..TraceOptions::default() };
        let trace = Trace::generate(&options, 1);
        let next_uses = trace.next_uses();
        let high = (trace.sizes.iter().sum::<u64>() as f64 * share) as u64;
        let room = Room { high, low: high / 10 * 9 };
        let row = |kind: crate::policies::Kind| replay(&trace, &next_uses, kind, room);
        ROWS.into_iter().map(row).collect()
    }

    #[test]
    fn all_policies_are_equal_where_all_fits() {
        let found = ratios(1.2);
        let is_equal =
            |one: &Ratios| one.objects == found[0].objects && one.pulls == found[0].pulls;
        assert!(found.iter().all(is_equal), "{found:?}");
    }

    #[test]
    fn no_policy_loses_track_of_what_is_there() {
        // The assertions of `replay` are the test; the ratios only have to be possible.
        for share in [0.0, 0.01, 0.1] {
            for (kind, found) in ROWS.iter().zip(ratios(share)) {
                assert!((0.0..100.0).contains(&found.objects), "{}: {found:?}", kind.name());
            }
        }
    }
}
