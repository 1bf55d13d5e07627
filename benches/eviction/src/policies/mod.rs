//! The policies that are measured, behind one trait.

mod gdsf;
mod lru;
mod s3_fifo;
mod sampled;
mod sieve;

pub use sampled::Rule;
use sampled::Sampled;

use crate::eviction;
use crate::trace::Trace;
use gdsf::Gdsf;
use lru::Lru;
use s3_fifo::S3Fifo;
use sieve::Sieve;

/// A request, as a policy sees it.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The object's number.
    pub object: u32,
    /// Its size in bytes.
    pub size: u64,
    /// When, in minutes since the trace began.
    pub minute: u32,
    /// The number of the next request for it; only the offline yardstick may look.
    pub next_use: u32,
}

/// What to keep. The cache (see `replay`) knows what is resident and how full it is.
pub trait Policy {
    /// A resident object is asked for.
    fn hit(&mut self, request: Request);
    /// An object has been fetched and is resident now.
    fn insert(&mut self, request: Request);
    /// Which resident object goes; `None` when there is none. It is not resident afterwards.
    fn evict(&mut self, minute: u32) -> Option<u32>;
    /// The manifest naming these objects was asked for; only policies that spare them care.
    fn needed(&mut self, _objects: &[u32], _minute: u32) {}
}

/// The tables' rows.
pub const ROWS: [Kind; 20] = [
    Kind::Sampled(Rule::Random, 1),
    Kind::Lru,
    Kind::Sieve,
    Kind::S3Fifo,
    Kind::Gdsf(1.0),
    Kind::Gdsf(0.5),
    Kind::Sampled(Rule::Lru, 16),
    Kind::Sampled(Rule::Lru, 32),
    Kind::Sampled(Rule::Lru, 64),
    Kind::Sampled(Rule::Aged(0.0), 64),
    Kind::Sampled(Rule::Aged(0.25), 64),
    Kind::Sampled(Rule::Aged(0.5), 16),
    Kind::Sampled(Rule::Aged(0.5), 32),
    Kind::Sampled(Rule::Aged(0.5), 64),
    Kind::Sampled(Rule::Aged(0.5), 512),
    Kind::Sampled(Rule::Aged(1.0), 64),
    Kind::Sampled(Rule::Plain(0.5), 64),
    SHIPPED,
    Kind::Sampled(Rule::Offline(0.0), 64),
    Kind::Sampled(Rule::Offline(0.5), 64),
];

/// The row that the others are compared with.
pub const SHIPPED: Kind = Kind::Sampled(Rule::Shipped, eviction::SAMPLES);

/// A row of the tables.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// The least recently used goes.
    Lru,
    /// The one that a hand finds unused since it last came by goes.
    Sieve,
    /// A small queue for newcomers, and one for what was asked for again.
    S3Fifo,
    /// Exact, with this exponent of the size.
    Gdsf(f64),
    /// By this rule, from as many samples.
    Sampled(Rule, usize),
}

impl Kind {
    /// How the row is called.
    pub fn name(self) -> String {
        match self {
            Self::Lru => "LRU".to_owned(),
            Self::Sieve => "SIEVE".to_owned(),
            Self::S3Fifo => "S3-FIFO".to_owned(),
            Self::Gdsf(exponent) => format!("GDSF, size^{exponent}"),
            Self::Sampled(Rule::Random, _) => Rule::Random.name(),
            Self::Sampled(rule, samples) => format!("{}, N={samples}", rule.name()),
        }
    }

    /// Whether it keeps a queue over all that is resident.
    pub fn is_exact(self) -> bool {
        !matches!(self, Self::Sampled(..))
    }

    /// A fresh one for a cache of this many bytes.
    pub fn build(self, trace: &Trace, capacity: u64) -> Box<dyn Policy> {
        let objects = trace.sizes.len();
        match self {
            Self::Lru => Box::new(Lru::new(objects)),
            Self::Sieve => Box::new(Sieve::new(objects)),
            Self::S3Fifo => Box::new(S3Fifo::new(objects, capacity)),
            Self::Gdsf(exponent) => Box::new(Gdsf::new(objects, exponent)),
            Self::Sampled(rule, samples) => {
                Box::new(Sampled::new(trace.sizes.clone(), rule, samples))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u32 = 0;
    const B: u32 = 1;
    const C: u32 = 2;
    const D: u32 = 3;

    /// What goes, in order, after these were asked for (the first time is the arrival) and until
    /// nothing is left. Each is of one byte, in a cache of 20.
    fn victims(kind: Kind, requests: &[u32]) -> Vec<u32> {
        let trace = Trace { sizes: vec![1; 4], ..Trace::default() };
        let mut policy = kind.build(&trace, 20);
        let mut seen = Vec::new();
        for (minute, &object) in (0..).zip(requests) {
            let request = Request { object, size: 1, minute, next_use: u32::MAX };
            if seen.contains(&object) {
                policy.hit(request);
            } else {
                policy.insert(request);
                seen.push(object);
            }
        }
        std::iter::from_fn(|| policy.evict(100)).collect()
    }

    #[test]
    fn the_yardsticks_evict_in_their_order() {
        let requests = [A, B, C, A, D, A, C];
        for (kind, expected) in [
            (Kind::Lru, [B, D, A, C]),
            // The hand clears A, takes B, clears C, takes D, and begins anew.
            (Kind::Sieve, [B, D, A, C]),
            // Two bytes are the small queue's share: A with its two hits moves to main, B goes.
            // Then main gives A, whose hits the move has cleared, and the small queue the rest.
            (Kind::S3Fifo, [B, A, C, D]),
            // By hits: 1, 1, 2, 3.
            (Kind::Gdsf(1.0), [B, D, C, A]),
            (Kind::Sampled(Rule::Aged(0.5), 64), [B, D, A, C]),
        ] {
            assert_eq!(victims(kind, &requests), expected, "{}", kind.name());
        }
    }

    #[test]
    fn s3_fifo_takes_back_what_it_dropped_into_main() {
        let trace = Trace { sizes: vec![1; 4], ..Trace::default() };
        let mut policy = Kind::S3Fifo.build(&trace, 20);
        let request = |object| Request { object, size: 1, minute: 0, next_use: u32::MAX };
        policy.insert(request(A));
        assert_eq!(policy.evict(0), Some(A));
        policy.insert(request(A));
        for object in [B, C, D] {
            policy.insert(request(object));
        }
        assert_eq!(policy.evict(0), Some(B), "the small queue is over its share");
        assert_eq!(policy.evict(0), Some(A), "the oldest of main, once the small one is not");
    }
}
