//! The trace: which image each job pulls when, and what a pull asks for.

use crate::random::Random;
use crate::world::World;

/// What can be set on the command line.
#[derive(Debug, Clone)]
pub struct TraceOptions {
    /// Exponent of the repositories' popularity.
    pub zipf: f64,
    /// Share of waves that are a one-off image.
    pub one_offs: f64,
    /// Share of the other waves that have more than one job.
    pub waves: f64,
    /// How many repositories a day change place in the order of popularity.
    pub drift: usize,
    /// How long the trace is.
    pub days: u32,
    /// How many waves, of one job or of many, begin in a day.
    pub waves_a_day: usize,
    /// How many repositories there are.
    pub repositories: usize,
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
pub struct Image {
    /// Their numbers.
    pub objects: Vec<u32>,
    /// Where the base's layers end in `objects`; they begin at 2.
    pub base_end: usize,
}

/// One job's pull of one image.
#[derive(Debug, Clone, Copy)]
pub struct Pull {
    /// Minutes since the trace began.
    pub minute: u32,
    /// Its number.
    pub image: u32,
    /// Whether the node has the base's layers already.
    pub has_base: bool,
}

/// Which objects there are, and which job pulls which image when.
#[derive(Debug, Default)]
pub struct Trace {
    /// Bytes of each object.
    pub sizes: Vec<u64>,
    /// What they make up.
    pub images: Vec<Image>,
    /// In the order of time.
    pub pulls: Vec<Pull>,
}

impl Trace {
    /// The trace named by `seed`.
    pub fn generate(options: &TraceOptions, seed: u64) -> Self {
        let mut world = World::new(options, Random::new(seed));
        for (at, is_one_off, jobs) in world.wave_starts(options) {
            world.wave(at, is_one_off, jobs);
        }
        world.into_trace()
    }

    /// What a pull asks for, in order.
    pub fn requests(&self, pull: Pull) -> impl Iterator<Item = u32> {
        let image = &self.images[pull.image as usize];
        let skipped = if pull.has_base { 2..image.base_end } else { 0..0 };
        let objects = image.objects.iter().copied().enumerate();
        objects.filter(move |(at, _)| !skipped.contains(at)).map(|(_, object)| object)
    }

    /// How often each object is asked for.
    pub fn uses(&self) -> Vec<u32> {
        let mut uses = vec![0; self.sizes.len()];
        for object in self.pulls.iter().flat_map(|&pull| self.requests(pull)) {
            uses[object as usize] += 1;
        }
        uses
    }

    /// For each request, the number of the next one for the same object; `u32::MAX` for none.
    pub fn next_uses(&self) -> Vec<u32> {
        let order: Vec<u32> = self.pulls.iter().flat_map(|&pull| self.requests(pull)).collect();
        let mut next = vec![u32::MAX; self.sizes.len()];
        let mut found = vec![u32::MAX; order.len()];
        for (at, &object) in order.iter().enumerate().rev() {
            found[at] = std::mem::replace(&mut next[object as usize], at as u32);
        }
        found
    }
}
