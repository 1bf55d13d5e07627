//! Greedy-dual size frequency (Cherkasova, 1998), exactly: the priority is the clock, plus hits
//! over size to some power. The clock is the priority of the last victim, which ages the rest.

use std::collections::BTreeSet;

use super::{Policy, Request};

#[derive(Debug)]
pub(super) struct Gdsf {
    exponent: f64,
    clock: f64,
    hits: Vec<u32>,
    /// Bits of the priority, which is never negative: their order is that of the numbers.
    priorities: Vec<u64>,
    order: BTreeSet<(u64, u32)>,
}

impl Gdsf {
    pub(super) fn new(objects: usize, exponent: f64) -> Self {
        Self {
            exponent,
            clock: 0.0,
            hits: vec![0; objects],
            priorities: vec![0; objects],
            order: BTreeSet::new(),
        }
    }

    fn put(&mut self, request: Request) {
        let object = request.object as usize;
        let value = f64::from(self.hits[object]) / (request.size as f64).powf(self.exponent);
        self.priorities[object] = (self.clock + value).to_bits();
        self.order.insert((self.priorities[object], request.object));
    }
}

impl Policy for Gdsf {
    fn hit(&mut self, request: Request) {
        let object = request.object as usize;
        self.order.remove(&(self.priorities[object], request.object));
        self.hits[object] += 1;
        self.put(request);
    }

    fn insert(&mut self, request: Request) {
        self.hits[request.object as usize] = 1;
        self.put(request);
    }

    fn evict(&mut self, _minute: u32) -> Option<u32> {
        let (priority, victim) = self.order.pop_first()?;
        self.clock = f64::from_bits(priority);
        Some(victim)
    }
}
