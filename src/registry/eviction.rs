//! Which content goes when the store is full: of a few dozen stored contents drawn at random, the
//! one that is worth least.
//!
//! ```text
//! worth = 2^priority × hits, halved for each day since the last use
//!         / (√size × minutes since the last use)
//! ```
//!
//! There is no queue to keep in order, to lock, or to save: all that is known of a content is what
//! the index holds beside its size, the minute of its last use and a count of its uses. So a
//! restart forgets nothing, and a hit writes one word at most once a minute. docs/EVICTION.md has
//! the measurements behind each part; `benches/eviction` runs this very file.
//!
//! May import: nothing. No I/O, no clock, no randomness: the caller draws and removes.
//!
//! **Invariant:** hosted content, pinned content that has not expired, and what a running pull or fill
//! leases is never chosen.
//! **Invariant:** expired content is chosen before all that has not expired.
//! **Invariant:** unless it has expired, content that a cached manifest of a fresh tag needs, or that
//! was used within this minute (a pull opens its blobs one after the other), is only chosen from
//! samples that hold nothing else to choose, and the caller is told, so that it can draw again first.

/// How many contents to draw for one victim. From 64 the choice is within half a point of hit ratio
/// of looking at all; with fewer it gets worse, with more only slower.
pub const SAMPLES: usize = 64;

/// How often to draw again before a [`Choice::Spared`] or [`Choice::Nothing`] is believed. Were one
/// content in a hundred free to go, then this many draws would miss it once in 170 times.
pub const ROUNDS_MAX: usize = 8;

/// The minutes in which a count of uses loses half its weight.
///
/// A day: what the nightly builds use every night stays, what last week's release used goes. With
/// one use counted a minute at most and halving at each day's end, a count stays below 2,881,
/// so that the 12 bits of the index never saturate.
pub const HALF_LIFE_MINUTES: u32 = 24 * 60;

/// No file frees less than a block, so that smaller ones aren't kept for being small.
const SIZE_BYTES_MIN: u64 = 4096;

/// What is known of a stored content that was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Its size in bytes.
    pub size: u64,
    /// When it was last used, in minutes since any epoch that the caller keeps to.
    pub last_use_minute: u32,
    /// How often it was used, as [`counted`] counts.
    pub hits: u32,
    /// Pushed to us: there is no upstream to fetch it from again.
    pub is_hosted: bool,
    /// Not to be evicted before it has expired.
    pub is_pinned: bool,
    /// Whoever placed it does without it by now.
    pub is_expired: bool,
    /// Each step doubles its worth.
    pub priority: i8,
    /// Being sent, filled or verified at this moment.
    pub is_leased: bool,
    /// Named by a cached manifest whose tag is fresh.
    pub is_needed: bool,
}

/// What [`choose`] found; the number is a position in its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// This one goes.
    Victim(usize),
    /// All that may go is still needed by a fresh tag or was just used; this one is worth least. To
    /// be removed only when [`ROUNDS_MAX`] rounds found nothing better.
    Spared(usize),
    /// No sample may go at all.
    Nothing,
}

impl Sample {
    /// What keeping it is worth, for comparing with others at the same `now_minute`; the more the
    /// better. It is the binary logarithm of the formula above, which cannot run out of range.
    ///
    /// The root of the size stands between the size itself, which gives the most hits but fetches
    /// the big layers over and over, and no size at all, which spends the room of a thousand
    /// configurations on one layer. A last use in the future, after the clock was set back, counts
    /// by its distance: it neither protects content for years nor condemns what was just used.
    pub fn worth(&self, now_minute: u32) -> f64 {
        let idle = f64::from(now_minute.abs_diff(self.last_use_minute));
        let hits = f64::from(self.hits.max(1)).log2() - idle / f64::from(HALF_LIFE_MINUTES);
        let size = self.size.max(SIZE_BYTES_MIN) as f64;
        hits - size.log2() / 2.0 - (idle + 1.0).log2() + f64::from(self.priority)
    }

    fn may_go(&self) -> bool {
        !self.is_hosted && !self.is_leased && (!self.is_pinned || self.is_expired)
    }

    fn is_spared(&self, now_minute: u32) -> bool {
        self.is_needed || self.last_use_minute == now_minute
    }
}

/// Chooses among samples drawn at random, each stored content as likely as any other.
pub fn choose(samples: &[Sample], now_minute: u32) -> Choice {
    let free = samples.iter().enumerate().filter(|(_, sample)| sample.may_go());
    let ranked = free.map(|(position, sample)| {
        let rank = (!sample.is_expired, sample.is_spared(now_minute));
        (rank, sample.worth(now_minute), position)
    });
    match ranked.min_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))) {
        Some(((true, true), _, position)) => Choice::Spared(position),
        Some((_, _, position)) => Choice::Victim(position),
        None => Choice::Nothing,
    }
}

/// What a count of uses becomes with a use in this minute.
///
/// Uses within a minute count once: a wave of a hundred jobs says less about tomorrow than two jobs
/// an hour apart, and most hits of a wave then need not write. Each day's end that was passed since
/// the last use halves what was counted before.
pub fn counted(hits: u32, last_use_minute: u32, now_minute: u32) -> u32 {
    if now_minute == last_use_minute {
        return hits.max(1);
    }
    let days = (now_minute / HALF_LIFE_MINUTES).abs_diff(last_use_minute / HALF_LIFE_MINUTES);
    hits.checked_shr(days).unwrap_or(0).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u32 = 500_000;
    const MIB: u64 = 1 << 20;

    fn sample(size: u64, idle: u32, hits: u32) -> Sample {
        let last_use_minute = NOW - idle;
        Sample {
            size,
            last_use_minute,
            hits,
            is_hosted: false,
            is_pinned: false,
            is_expired: false,
            priority: 0,
            is_leased: false,
            is_needed: false,
        }
    }

    fn up(priority: i8, sample: Sample) -> Sample {
        Sample { priority, ..sample }
    }

    #[test]
    fn the_larger_the_older_and_the_less_used_goes() {
        for (case, keep, victim) in [
            ("size", sample(MIB, 60, 3), sample(2 * MIB, 60, 3)),
            ("age", sample(MIB, 60, 3), sample(MIB, 61, 3)),
            ("hits", sample(MIB, 60, 3), sample(MIB, 60, 2)),
            ("four times the size is twice the age", sample(MIB, 28, 1), sample(4 * MIB, 14, 1)),
            ("and not four times", sample(4 * MIB, 9, 1), sample(MIB, 24, 1)),
            ("a running wave over an old favourite", sample(MIB, 0, 1), sample(MIB, 2880, 2000)),
            ("a nightly over a one-off", sample(MIB, 1440, 20), sample(MIB, 720, 1)),
            ("a tiny file takes a block all the same", sample(4096, 9, 2), sample(32, 10, 2)),
            ("priority", sample(MIB, 60, 3), Sample { priority: -1, ..sample(MIB, 60, 3) }),
            ("a step up is twice the uses", up(1, sample(MIB, 60, 3)), sample(MIB, 60, 5)),
            ("and not more", sample(MIB, 60, 7), up(1, sample(MIB, 60, 3))),
            ("ten are a thousand", up(10, sample(MIB, 60, 1)), sample(MIB, 60, 1000)),
            ("a day's rest halves, four nearly end", sample(MIB, 1439, 1), sample(MIB, 5759, 5)),
        ] {
            assert_eq!(choose(&[keep, victim], NOW), Choice::Victim(1), "{case}");
            assert_eq!(choose(&[victim, keep], NOW), Choice::Victim(0), "{case}, turned round");
        }
    }

    #[test]
    fn what_must_stay_stays() {
        let free = sample(1, 1, 4095);
        let worst = sample(u64::MAX, NOW, 0);
        let just_used = Sample { last_use_minute: NOW, ..worst };
        let hosted = Sample { is_hosted: true, ..worst };
        let leased = Sample { is_leased: true, ..worst };
        let needed = Sample { is_needed: true, ..worst };
        let pinned = Sample { is_pinned: true, ..worst };
        let expired = Sample { is_expired: true, priority: 10, ..free };
        let expired_pinned = Sample { is_pinned: true, ..expired };
        let expired_needed = Sample { is_needed: true, last_use_minute: NOW, ..expired };
        let expired_hosted = Sample { is_hosted: true, ..expired };
        let expired_leased = Sample { is_leased: true, ..expired };
        let needed_and_hosted = Sample { is_needed: true, ..hosted };
        let needed_but_dear = Sample { is_needed: true, ..free };
        for (case, samples, expected) in [
            ("no sample", &[][..], Choice::Nothing),
            ("never hosted or leased", &[hosted, leased, free], Choice::Victim(2)),
            ("not even alone", &[hosted, leased, needed_and_hosted], Choice::Nothing),
            ("never pinned", &[pinned, free], Choice::Victim(1)),
            ("not even alone", &[pinned, hosted], Choice::Nothing),
            ("expired goes first, whatever it is worth", &[worst, expired], Choice::Victim(1)),
            ("so it does if it was pinned", &[worst, expired_pinned], Choice::Victim(1)),
            ("or is needed", &[worst, expired_needed], Choice::Victim(1)),
            ("but after what is not", &[expired_needed, expired], Choice::Victim(1)),
            ("no hosted or leased", &[expired_hosted, expired_leased], Choice::Nothing),
            ("needed goes last, whatever it is worth", &[needed, free], Choice::Victim(1)),
            ("so does what was just used", &[just_used, free], Choice::Victim(1)),
            ("the worst of the spared", &[needed_but_dear, leased, needed], Choice::Spared(2)),
            ("be they needed or just used", &[needed_but_dear, just_used], Choice::Spared(1)),
        ] {
            assert_eq!(choose(samples, NOW), expected, "{case}");
        }
    }

    #[test]
    fn no_value_of_the_index_can_upset_it() {
        let extremes = [0, 1, 4095, u32::MAX];
        for now in [0, 1, NOW, (1 << 20) - 1, u32::MAX] {
            for size in [0, 1, MIB, u64::MAX] {
                for (last_use_minute, hits) in
                    extremes.iter().flat_map(|&a| extremes.iter().map(move |&b| (a, b)))
                {
                    for priority in [i8::MIN, i8::MAX] {
                        let sample =
                            up(priority, Sample { size, last_use_minute, hits, ..sample(0, 0, 0) });
                        assert!(sample.worth(now).is_finite(), "{sample:?} at {now}");
                    }
                    assert!(counted(hits, last_use_minute, now) > 0, "{hits} at {now}");
                }
            }
        }
    }

    #[test]
    fn a_clock_set_back_an_hour_keeps_what_is_hot() {
        let hot = Sample { last_use_minute: NOW + 60, ..sample(MIB, 0, 300) };
        assert_eq!(choose(&[hot, sample(MIB, 600, 2)], NOW), Choice::Victim(1));
        let from_2036 = Sample { last_use_minute: NOW + 5_000_000, ..hot };
        assert_eq!(choose(&[sample(MIB, 600, 2), from_2036], NOW), Choice::Victim(1));
    }

    #[test]
    fn uses_count_once_a_minute_and_halve_at_midnight() {
        let day = HALF_LIFE_MINUTES;
        for (case, hits, last, now, expected) in [
            ("a fresh slot", 0, 0, 0, 1),
            ("the same minute", 7, day + 3, day + 3, 7),
            ("the next one", 7, day + 3, day + 4, 8),
            ("over midnight", 8, day - 1, day, 5),
            ("three days later", 80, 5, 3 * day, 11),
            ("years later", 4095, 5, 1000 * day, 1),
        ] {
            assert_eq!(counted(hits, last, now), expected, "{case}");
        }
        let busiest = (0..60 * day).fold((0, 0), |(hits, most), now| {
            let hits = counted(hits, now.saturating_sub(1), now);
            (hits, most.max(hits))
        });
        assert!((2800..2881).contains(&busiest.1), "{}", busiest.1);
    }

    // ---- against other policies, on a small trace ------------------------------------------

    /// Sizes of the contents, and which one is used in which minute.
    struct Trace {
        sizes: Vec<u64>,
        uses: Vec<(u32, usize)>,
    }

    /// Numbers as good as random for this, always the same.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((self.0 >> 33) as usize) % end
        }

        fn unit(&mut self) -> f64 {
            self.below(1 << 24) as f64 / f64::from(1 << 24)
        }
    }

    /// 600 contents between 4 KiB and 64 MiB, popular by Zipf's law, in waves of three; one use in
    /// five is of a content that is never seen again.
    fn trace() -> Trace {
        let mut numbers = Numbers(7);
        let size = |numbers: &mut Numbers| 4096 << numbers.below(15);
        let mut sizes: Vec<u64> = (0..600).map(|_| size(&mut numbers)).collect();
        let mut uses = Vec::new();
        for minute in (0..20_000).step_by(2) {
            if numbers.below(5) == 0 {
                uses.push((minute, sizes.len()));
                sizes.push(size(&mut numbers));
            } else {
                let wanted = (600_f64.powf(numbers.unit()) - 1.0) as usize;
                uses.extend([(minute, wanted), (minute + 1, wanted), (minute + 1, wanted)]);
            }
        }
        Trace { sizes, uses }
    }

    /// The share of uses, and of bytes, that were found in a store of a tenth of all bytes, which
    /// is emptied by what `victim` says of the residents.
    fn hit_ratios(trace: &Trace, mut victim: impl FnMut(&[Sample], u32) -> usize) -> (f64, f64) {
        let room = trace.sizes.iter().sum::<u64>() / 10;
        let mut stored: Vec<(usize, Sample)> = Vec::new();
        let (mut hits, mut hit_bytes, mut bytes) = (0, 0, 0);
        for &(now, wanted) in &trace.uses {
            let size = trace.sizes[wanted];
            bytes += size;
            if let Some(at) = stored.iter().position(|(content, _)| *content == wanted) {
                // The end of the list is the most recently used, for the LRU.
                let (_, mut known) = stored.remove(at);
                known.hits = counted(known.hits, known.last_use_minute, now);
                known.last_use_minute = now;
                stored.push((wanted, known));
                (hits, hit_bytes) = (hits + 1, hit_bytes + size);
                continue;
            }
            while stored.iter().map(|(_, known)| known.size).sum::<u64>() + size > room {
                let samples: Vec<Sample> = stored.iter().map(|(_, known)| *known).collect();
                stored.remove(victim(&samples, now));
            }
            stored.push((wanted, Sample { last_use_minute: now, ..sample(size, 0, 1) }));
        }
        (hits as f64 / trace.uses.len() as f64, hit_bytes as f64 / bytes as f64)
    }

    #[test]
    fn it_beats_random_and_lru_in_hits_and_in_bytes() {
        let trace = trace();
        let mut numbers = Numbers(1);
        let random = hit_ratios(&trace, |stored, _| numbers.below(stored.len()));
        let lru = hit_ratios(&trace, |_, _| 0);
        let ours = hit_ratios(&trace, |stored, now| {
            let drawn: Vec<usize> = (0..SAMPLES).map(|_| numbers.below(stored.len())).collect();
            let samples: Vec<Sample> = drawn.iter().map(|&at| stored[at]).collect();
            match choose(&samples, now) {
                Choice::Victim(position) => drawn[position],
                other => panic!("{other:?} among content that may all go"),
            }
        });
        let all = format!("hits, bytes: random {random:.3?}, LRU {lru:.3?}, ours {ours:.3?}");
        assert!(ours.0 > lru.0 + 0.03 && ours.0 > random.0 + 0.03, "{all}");
        assert!(ours.1 > lru.1 + 0.01 && ours.1 > random.1 + 0.01, "{all}");
    }
}
