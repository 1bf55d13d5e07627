//! Policies without a queue: N random residents are looked at, the worst of them goes. All they
//! know of an object is what the mapped index keeps: its size, the minute of its last use (20
//! bits) and a count of its uses (12 bits).

use super::{Policy, Request};
use crate::eviction::{self, Choice, Sample};
use crate::random::Random;

/// Largest count of uses.
const HITS_MAX: u32 = (1 << 12) - 1;
/// For how long after a pull a tag is fresh: the default `tag_ttl`.
const FRESH_MINUTES: u32 = 5;

/// How the samples are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Any goes.
    Random,
    /// The least recently used goes.
    Lru,
    /// The least uses / (size^exponent × minutes since the last use) goes. Every use counts, for
    /// as long as the object stays.
    Plain(f64),
    /// The same, with uses counted once a minute and halved each day.
    Aged(f64),
    /// What the server does, by its own code, and with its reluctance to take what a fresh tag
    /// needs.
    Shipped,
    /// The one goes that is wanted last, the size counting as above. It sees the future.
    Offline(f64),
}

impl Rule {
    pub(super) fn name(self) -> String {
        match self {
            Self::Random => "random".to_owned(),
            Self::Lru => "sampled LRU".to_owned(),
            Self::Plain(exponent) => format!("sampled, size^{exponent}, plain count"),
            Self::Aged(exponent) => format!("sampled, size^{exponent}"),
            Self::Shipped => "**as shipped**".to_owned(),
            Self::Offline(exponent) => format!("offline, size^{exponent}"),
        }
    }
}

/// What is kept of an object beside its size.
#[derive(Debug, Clone, Copy, Default)]
struct Access {
    minute: u32,
    hits: u32,
    /// For the offline rule only.
    next_use: u32,
    /// Until when a fresh tag needs it.
    needed_until: u32,
}

#[derive(Debug)]
pub(super) struct Sampled {
    rule: Rule,
    samples: usize,
    sizes: Vec<u64>,
    accesses: Vec<Access>,
    residents: Vec<u32>,
    random: Random,
    requests: u32,
    /// Room for the samples and where they were drawn, used again each time.
    drawn: Vec<Sample>,
    positions: Vec<usize>,
}

impl Sampled {
    pub(super) fn new(sizes: Vec<u64>, rule: Rule, samples: usize) -> Self {
        Self {
            rule,
            samples,
            accesses: vec![Access::default(); sizes.len()],
            sizes,
            residents: Vec::new(),
            random: Random::new(samples as u64),
            requests: 0,
            drawn: Vec::new(),
            positions: Vec::new(),
        }
    }

    /// What keeping this object is worth.
    fn worth(&self, object: u32, minute: u32) -> f64 {
        let access = self.accesses[object as usize];
        let sample = self.sample(object, minute);
        let size = sample.size as f64;
        let age = f64::from(minute - access.minute) + 1.0;
        match self.rule {
            Rule::Random => 0.0,
            Rule::Lru => f64::from(access.minute),
            Rule::Plain(exponent) => f64::from(access.hits) / (size.powf(exponent) * age),
            Rule::Aged(exponent) => sample.worth(minute) + (0.5 - exponent) * size.log2(),
            Rule::Shipped => sample.worth(minute),
            Rule::Offline(exponent) => {
                let wait = f64::from(access.next_use) - f64::from(self.requests);
                1.0 / (size.powf(exponent) * wait.max(1.0))
            }
        }
    }

    fn sample(&self, object: u32, minute: u32) -> Sample {
        let access = self.accesses[object as usize];
        Sample {
            size: self.sizes[object as usize],
            last_use_minute: access.minute,
            hits: access.hits,
            is_hosted: false,
            is_pinned: false,
            is_expired: false,
            priority: 0,
            is_leased: false,
            is_needed: access.needed_until > minute,
        }
    }

    /// The victim's place among the residents, as the server finds it.
    fn shipped(&mut self, minute: u32) -> Option<usize> {
        let mut spared = None;
        for _ in 0..eviction::ROUNDS_MAX {
            self.drawn.clear();
            self.positions.clear();
            for _ in 0..self.samples.min(self.residents.len()) {
                let at = self.random.below(self.residents.len());
                self.positions.push(at);
                self.drawn.push(self.sample(self.residents[at], minute));
            }
            match eviction::choose(&self.drawn, minute) {
                Choice::Victim(at) => return Some(self.positions[at]),
                Choice::Spared(at) => spared = Some(self.positions[at]),
                Choice::Nothing => {}
            }
        }
        spared
    }
}

impl Policy for Sampled {
    fn hit(&mut self, request: Request) {
        self.requests += 1;
        let access = &mut self.accesses[request.object as usize];
        access.next_use = request.next_use;
        access.hits = match self.rule {
            Rule::Plain(_) => access.hits + 1,
            _ => eviction::counted(access.hits, access.minute, request.minute),
        };
        access.hits = access.hits.min(HITS_MAX);
        access.minute = request.minute;
    }

    fn insert(&mut self, request: Request) {
        self.requests += 1;
        self.residents.push(request.object);
        let access = &mut self.accesses[request.object as usize];
        access.minute = request.minute;
        access.hits = 1;
        access.next_use = request.next_use;
    }

    fn evict(&mut self, minute: u32) -> Option<u32> {
        if self.rule == Rule::Shipped {
            return self.shipped(minute).map(|at| self.residents.swap_remove(at));
        }
        let mut worst: Option<(f64, usize)> = None;
        for _ in 0..self.samples.min(self.residents.len()) {
            let at = self.random.below(self.residents.len());
            let worth = self.worth(self.residents[at], minute);
            if worst.is_none_or(|(least, _)| worth < least) {
                worst = Some((worth, at));
            }
        }
        worst.map(|(_, at)| self.residents.swap_remove(at))
    }

    fn needed(&mut self, objects: &[u32], minute: u32) {
        if self.rule == Rule::Shipped {
            for &object in objects {
                self.accesses[object as usize].needed_until = minute + FRESH_MINUTES;
            }
        }
    }
}
