//! What a CI platform pulls through a mirror in four weeks, made up. The numbers in here are
//! assumptions; docs/EVICTION.md gives them, and tells what changes when they do.
//!
//! ```text
//! base images ──┐ shared by repositories (Zipf), rebuilt every two weeks or so
//! dependencies ─┤ of one repository, rebuilt with some pushes, and with a new base
//! application ──┘ of one tag; each push changes the layers from a random one upwards
//! waves         a push or a schedule starts jobs that pull the same image within minutes
//! one-offs      the image of a branch build, pulled once, on top of shared layers
//! ```

use crate::random::{Random, Zipf};
use crate::trace::{Image, Pull, Trace, TraceOptions};

const MINUTES_A_DAY: f64 = 24.0 * 60.0;
const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;

struct Base {
    layers: Vec<u32>,
    /// When it is rebuilt the next time, in minutes.
    rebuild_at: f64,
}

struct Repository {
    base: usize,
    base_layers: Vec<u32>,
    dependencies: Vec<u32>,
    application: Vec<u32>,
    push_every: f64,
    push_at: f64,
    /// Its images, the newest last.
    tags: Vec<u32>,
}

/// Repositories and their images, growing with time.
pub(crate) struct World {
    random: Random,
    popularity: Zipf,
    /// Which repository has which rank.
    ranks: Vec<usize>,
    drift: usize,
    drifted_days: u32,
    bases: Vec<Base>,
    repositories: Vec<Repository>,
    trace: Trace,
    timed: Vec<(f64, Pull)>,
}

impl World {
    pub(crate) fn new(options: &TraceOptions, mut random: Random) -> Self {
        let bases = 80;
        let base_popularity = Zipf::new(bases, 1.0);
        let repositories = (0..options.repositories).map(|_| {
            let push_every = random.log_normal(2.0, 1.2).max(0.05) * MINUTES_A_DAY;
            Repository {
                base: base_popularity.draw(&mut random),
                base_layers: Vec::new(),
                dependencies: vec![0; random.between(1, 12)],
                application: vec![0; random.between(1, 12)],
                push_every,
                push_at: 0.0,
                tags: Vec::new(),
            }
        });
        Self {
            repositories: repositories.collect(),
            popularity: Zipf::new(options.repositories, options.zipf),
            ranks: (0..options.repositories).collect(),
            drift: options.drift,
            drifted_days: 0,
            bases: (0..bases).map(|_| Base { layers: Vec::new(), rebuild_at: 0.0 }).collect(),
            trace: Trace::default(),
            timed: Vec::new(),
            random,
        }
    }

    /// When waves begin, which are one-offs, and of how many jobs they are; in the order of time.
    pub(crate) fn wave_starts(&mut self, options: &TraceOptions) -> Vec<(f64, bool, usize)> {
        let random = &mut self.random;
        let end = f64::from(options.days) * MINUTES_A_DAY;
        let mut starts = Vec::new();
        while starts.len() < options.waves_a_day * options.days as usize {
            let at = random.unit() * end;
            let hour_of_day = at / 60.0 % 24.0;
            let is_weekend = (at / MINUTES_A_DAY) as u32 % 7 >= 5;
            let is_office = (8.0..19.0).contains(&hour_of_day) && !is_weekend;
            if !random.chance(if is_office { 1.0 } else { 0.25 }) {
                continue;
            }
            let is_one_off = random.chance(options.one_offs);
            let many = !is_one_off && random.chance(options.waves);
            let jobs = if many { random.pareto(2.0, 1.2).min(300.0) as usize } else { 1 };
            starts.push((at, is_one_off, jobs));
        }
        starts.sort_by(|a, b| a.0.total_cmp(&b.0));
        starts
    }

    /// The jobs that begin with this wave.
    pub(crate) fn wave(&mut self, at: f64, is_one_off: bool, jobs: usize) {
        while f64::from(self.drifted_days) * MINUTES_A_DAY < at {
            self.drifted_days += 1;
            self.drift_a_day();
        }
        let rank = self.popularity.draw(&mut self.random);
        let repository = self.ranks[rank];
        self.push_until(repository, at);
        let image = if is_one_off { self.one_off(repository) } else { self.chosen_tag(repository) };
        for _ in 0..jobs {
            let begins = at + self.random.exponential(4.0);
            let has_base = self.random.chance(0.3);
            self.timed.push((begins, Pull { minute: begins as u32, image, has_base }));
        }
    }

    /// Repositories become popular, others are forgotten. The new rank is log-uniform: the head
    /// of the order changes as often as its tail.
    fn drift_a_day(&mut self) {
        for _ in 0..self.drift {
            let from = self.random.below(self.ranks.len());
            let to = (self.ranks.len() as f64).powf(self.random.unit()) as usize - 1;
            self.ranks.swap(from, to);
        }
    }

    /// Most jobs pull the newest tag, some are pinned to an older one.
    fn chosen_tag(&mut self, repository: usize) -> u32 {
        let tags = &self.repositories[repository].tags;
        let mut back = 0;
        if self.random.chance(0.25) {
            back = 1;
            while back + 1 < tags.len() && !self.random.chance(0.3) {
                back += 1;
            }
        }
        tags[tags.len().saturating_sub(1 + back)]
    }

    /// Makes all pushes of the repository up to this time.
    fn push_until(&mut self, repository: usize, at: f64) {
        while self.repositories[repository].push_at <= at {
            let every = self.repositories[repository].push_every;
            let pushed_at = self.repositories[repository].push_at;
            self.repositories[repository].push_at += self.random.exponential(every).max(5.0);
            self.push(repository, pushed_at);
        }
    }

    fn push(&mut self, repository: usize, at: f64) {
        let is_first = self.repositories[repository].tags.is_empty();
        let rebuilds = is_first || self.random.chance(0.2);
        if rebuilds {
            let base = self.rebuilt_base(self.repositories[repository].base, at);
            self.repositories[repository].base_layers = base;
            let count = self.repositories[repository].dependencies.len();
            self.repositories[repository].dependencies =
                (0..count).map(|_| self.object(2.0 * MIB, 2.0)).collect();
        }
        let count = self.repositories[repository].application.len();
        let from = if rebuilds { 0 } else { self.random.below(count) };
        for layer in from..count {
            let made = self.object(MIB, 2.0);
            self.repositories[repository].application[layer] = made;
        }
        let image = self.image(repository);
        self.repositories[repository].tags.push(image);
    }

    /// The base's layers as they are at this time.
    fn rebuilt_base(&mut self, base: usize, at: f64) -> Vec<u32> {
        if self.bases[base].rebuild_at <= at {
            let count = match self.bases[base].layers.len() {
                0 => self.random.between(1, 6),
                count => count,
            };
            let layers = (0..count).map(|_| self.object(20.0 * MIB, 1.0)).collect();
            let rebuild_at = at + self.random.exponential(14.0 * MINUTES_A_DAY);
            self.bases[base] = Base { layers, rebuild_at };
        }
        self.bases[base].layers.clone()
    }

    /// A branch build: the newest tag with the last layers made anew.
    fn one_off(&mut self, repository: usize) -> u32 {
        let kept = self.repositories[repository].application.clone();
        let from = self.random.below(kept.len());
        for layer in from..kept.len() {
            let made = self.object(MIB, 2.0);
            self.repositories[repository].application[layer] = made;
        }
        let image = self.image(repository);
        self.repositories[repository].application = kept;
        image
    }

    /// An image of the repository's layers as they are now; between 5 and 30 of them.
    fn image(&mut self, repository: usize) -> u32 {
        let mut objects = vec![self.object(2.0 * KIB, 0.5), self.object(6.0 * KIB, 0.6)];
        let own = &self.repositories[repository];
        objects.extend(&own.base_layers);
        let base_end = objects.len();
        objects.extend(&own.dependencies);
        objects.extend(&own.application);
        while objects.len() < 2 + 5 {
            let made = self.object(MIB, 2.0);
            objects.push(made);
        }
        self.trace.images.push(Image { objects, base_end });
        self.trace.images.len() as u32 - 1
    }

    fn object(&mut self, median: f64, sigma: f64) -> u32 {
        let size = self.random.log_normal(median, sigma).clamp(200.0, 8.0 * KIB * MIB);
        self.trace.sizes.push(size as u64);
        self.trace.sizes.len() as u32 - 1
    }

    /// Puts the pulls in the order of time, and drops what was pushed but never pulled: the
    /// mirror doesn't know of it.
    pub(crate) fn into_trace(mut self) -> Trace {
        self.timed.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut trace = self.trace;
        trace.pulls = self.timed.into_iter().map(|(_, pull)| pull).collect();
        let uses = trace.uses();
        let mut numbers = vec![u32::MAX; uses.len()];
        let mut sizes = Vec::new();
        for object in (0..uses.len()).filter(|&object| uses[object] > 0) {
            numbers[object] = sizes.len() as u32;
            sizes.push(trace.sizes[object]);
        }
        trace.sizes = sizes;
        for image in &mut trace.images {
            // A base that every pull of this image skips may be unknown: it goes with the rest.
            let known = |object: &&u32| numbers[**object as usize] != u32::MAX;
            let base_end = image.objects[..image.base_end].iter().filter(known).count();
            image.objects.retain(|object| numbers[*object as usize] != u32::MAX);
            image.objects.iter_mut().for_each(|object| *object = numbers[*object as usize]);
            image.base_end = base_end;
        }
        trace
    }
}
