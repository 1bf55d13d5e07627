//! Chance that can be replayed: everything random in a test comes from one printed number.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// splitmix64: good enough to choose with, and any number is a seed.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The same choices for the same seed.
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// The seed of a run: what the variable says, otherwise the clock. Print it.
    pub fn seed_from(variable: &str) -> u64 {
        let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
        super::number_from(variable, u64::from(nanoseconds))
    }

    /// Independent choices for a part of the test, the same whatever other parts do.
    pub fn part(&self, number: u64) -> Chance {
        let mut part = Chance(self.0 ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        part.next();
        part
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True in `percent` of 100 cases.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// A time between two, in milliseconds.
    pub fn milliseconds(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis((from + self.below(to - from + 1)) as u64)
    }
}
