//! Which bytes of a blob are there.

use std::ops::Range;

/// Extents of bytes, sorted, none of them empty, with a gap between each two: what touches is one
/// extent. Never more of them than were inserted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extents {
    all: Vec<Range<u64>>,
}

impl Extents {
    /// Adds the bytes from `first` to before `end`; those that are there already are fine.
    pub(super) fn insert(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        // All that overlap or touch the new one become one with it.
        let from = self.all.partition_point(|extent| extent.end < first);
        let until = self.all.partition_point(|extent| extent.start <= end);
        let met = self.all.get(from..until).unwrap_or_default();
        let start = met.first().map_or(first, |extent| extent.start.min(first));
        let stop = met.last().map_or(end, |extent| extent.end.max(end));
        self.all.splice(from..until, std::iter::once(start..stop));
    }

    /// Up to where, from `at`, all bytes are there; `at` itself when that one is not.
    pub(super) fn end_from(&self, at: u64) -> u64 {
        let index = self.all.partition_point(|extent| extent.end <= at);
        match self.all.get(index) {
            Some(extent) if extent.start <= at => extent.end,
            _ => at,
        }
    }

    /// Where, behind `at`, the next bytes begin that are there.
    pub(super) fn next_start(&self, at: u64) -> Option<u64> {
        let index = self.all.partition_point(|extent| extent.start <= at);
        self.all.get(index).map(|extent| extent.start)
    }

    /// Whether all bytes from `first` to before `end` are there.
    pub(super) fn covers(&self, first: u64, end: u64) -> bool {
        self.end_from(first) >= end
    }

    /// Whether any byte from `first` to before `end` is there.
    pub(super) fn touches(&self, first: u64, end: u64) -> bool {
        self.gaps(first, end).next() != (first < end).then_some(first..end)
    }

    /// What is not there from `first` to before `end`, in order.
    pub(super) fn gaps(&self, first: u64, end: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut at = first;
        std::iter::from_fn(move || {
            let start = self.end_from(at);
            if start >= end {
                return None;
            }
            at = self.next_start(start).map_or(end, |next| next.min(end));
            Some(start..at)
        })
    }

    /// How many extents there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    fn of(extents: &[Range<u64>]) -> Extents {
        let mut all = Extents::default();
        extents.iter().for_each(|extent| all.insert(extent.start, extent.end));
        all
    }

    #[test]
    fn what_touches_becomes_one() {
        type Given<'a> = &'a [Range<u64>];
        let cases: [(Given<'_>, Given<'_>); 8] = [
            (&[], &[]),
            (&[5..5], &[]),
            (&[5..9, 20..30], &[5..9, 20..30]),
            (&[20..30, 5..9], &[5..9, 20..30]),
            (&[5..9, 9..12], &[5..12]),
            (&[9..12, 5..9], &[5..12]),
            (&[5..9, 20..30, 7..25], &[5..30]),
            (&[5..9, 20..30, 0..40], &[0..40]),
        ];
        for (inserted, expected) in cases {
            assert_eq!(of(inserted).all, expected, "{inserted:?}");
        }
    }

    #[test]
    fn gaps_are_what_lacks() {
        let extents = of(&[10..20, 30..40]);
        let gaps = |first, end| extents.gaps(first, end).collect::<Vec<_>>();
        assert_eq!(gaps(0, 50), [0..10, 20..30, 40..50]);
        assert_eq!(gaps(10, 20), []);
        assert_eq!(gaps(15, 35), [20..30]);
        assert_eq!(gaps(22, 25), [22..25]);
        assert_eq!(gaps(25, 25), []);
        assert_eq!((extents.end_from(9), extents.end_from(10), extents.end_from(20)), (9, 20, 20));
        assert_eq!((extents.next_start(9), extents.next_start(10)), (Some(10), Some(30)));
        assert_eq!(extents.next_start(30), None);
        assert!(extents.covers(30, 40) && !extents.covers(30, 41) && extents.covers(5, 5));
        assert!(extents.touches(19, 25) && !extents.touches(20, 30) && !extents.touches(15, 15));
    }

    /// Against the plainest model there is: a flag for each byte.
    #[test]
    fn random_insertions_are_as_in_a_table_of_bytes() {
        const SIZE: usize = 96;
        for seed in 0..3_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut extents, mut model) = (Extents::default(), [false; SIZE]);
            for step in 0..random.usize(1..20) {
                let first = random.usize(0..SIZE);
                let end = random.usize(first..=SIZE);
                extents.insert(first as u64, end as u64);
                model.iter_mut().take(end).skip(first).for_each(|byte| *byte = true);
                let what = format!("seed {seed}, step {step}: {extents:?}");
                let sound = |pair: &[Range<u64>]| pair[0].end < pair[1].start;
                assert!(extents.all.windows(2).all(sound), "{what}");
                assert!(extents.all.iter().all(|extent| extent.start < extent.end), "{what}");
                for (at, &is_there) in model.iter().enumerate() {
                    let run = model.iter().skip(at).take_while(|is_there| **is_there).count();
                    assert_eq!(extents.end_from(at as u64), (at + run) as u64, "{what} at {at}");
                    assert_eq!(extents.covers(at as u64, at as u64 + 1), is_there, "{what}");
                }
                let mut lacking = [false; SIZE];
                for gap in extents.gaps(0, SIZE as u64) {
                    assert!(!extents.touches(gap.start, gap.end), "{what}");
                    gap.for_each(|byte| lacking[byte as usize] = true);
                }
                assert!(lacking.iter().zip(&model).all(|(lacks, there)| lacks != there), "{what}");
            }
        }
    }
}
