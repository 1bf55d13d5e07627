//! The trace: which image each job pulls when, and what a pull asks for.

use crate::random::Random;
use crate::world::World;

/// What can be set on the command line.
#[derive(Debug, Clone)]
pub(crate) struct TraceOptions {
    /// Exponent of the repositories' popularity.
    pub(crate) zipf: f64,
    /// Share of waves that are a one-off image.
    pub(crate) one_offs: f64,
    /// Share of the other waves that have more than one job.
    pub(crate) waves: f64,
    /// How many repositories a day change place in the order of popularity.
    pub(crate) drift: usize,
    pub(crate) days: u32,
    pub(crate) waves_a_day: usize,
    pub(crate) repositories: usize,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self {
            zipf: 1.0,
            one_offs: 0.06,
            waves: 0.45,
            drift: 4,
            days: 28,
            waves_a_day: 1200,
            repositories: 800,
        }
    }
}

/// One image: its manifest, its configuration, its layers from the base upwards.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    pub(crate) objects: Vec<u32>,
    /// Where the base's layers end in `objects`; they begin at 2.
    pub(crate) base_end: usize,
}

/// One job's pull of one image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pull {
    /// Minutes since the trace began.
    pub(crate) minute: u32,
    pub(crate) image: u32,
    /// Whether the node has the base's layers already.
    pub(crate) has_base: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// Bytes of each object.
    pub(crate) sizes: Vec<u64>,
    pub(crate) images: Vec<Image>,
    /// In the order of time.
    pub(crate) pulls: Vec<Pull>,
}

impl Trace {
    /// The trace named by `seed`.
    pub(crate) fn generate(options: &TraceOptions, seed: u64) -> Self {
        let mut world = World::new(options, Random::new(seed));
        for (at, is_one_off, jobs) in world.wave_starts(options) {
            world.wave(at, is_one_off, jobs);
        }
        world.into_trace()
    }

    /// What a pull asks for, in order.
    pub(crate) fn requests(&self, pull: Pull) -> impl Iterator<Item = u32> {
        let image = &self.images[pull.image as usize];
        let skipped = if pull.has_base { 2..image.base_end } else { 0..0 };
        let objects = image.objects.iter().copied().enumerate();
        objects.filter(move |(at, _)| !skipped.contains(at)).map(|(_, object)| object)
    }

    /// How often each object is asked for.
    pub(crate) fn uses(&self) -> Vec<u32> {
        let mut uses = vec![0; self.sizes.len()];
        for object in self.pulls.iter().flat_map(|&pull| self.requests(pull)) {
            uses[object as usize] += 1;
        }
        uses
    }

    /// For each request, the number of the next one for the same object; `u32::MAX` for none.
    pub(crate) fn next_uses(&self) -> Vec<u32> {
        let order: Vec<u32> = self.pulls.iter().flat_map(|&pull| self.requests(pull)).collect();
        let mut next = vec![u32::MAX; self.sizes.len()];
        let mut found = vec![u32::MAX; order.len()];
        for (at, &object) in order.iter().enumerate().rev() {
            found[at] = std::mem::replace(&mut next[object as usize], at as u32);
        }
        found
    }
}
