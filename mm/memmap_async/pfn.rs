// SPDX-License-Identifier: GPL-2.0

//! Ranges of page frame numbers, and how a range is cut into units.
//!
//! A unit is initialised by one CPU, in one go; so can be several next to each other. Units are
//! aligned to their own size in pfn space, so that whatever must not be torn apart (a compound
//! page, a buddy of the highest order, a pageblock) is inside one unit if it is no larger and as
//! well aligned. The first and the last unit of a range can be partial.
//!
//! Nothing here panics: a caller may have interrupts off.

use core::ops::Range;

/// A range of page frame numbers that is neither empty nor inverted.
///
/// # Invariants
///
/// `start < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PfnRange {
    start: usize,
    end: usize,
}

impl PfnRange {
    /// The pfns from `start` up to but not including `end`; [`None`] if there are none.
    pub(crate) const fn new(start: usize, end: usize) -> Option<Self> {
        if start < end {
            // INVARIANT: Just checked.
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// The first pfn.
    pub(crate) const fn start(self) -> usize {
        self.start
    }

    /// The pfn after the last one.
    pub(crate) const fn end(self) -> usize {
        self.end
    }

    /// How many pages: at least one.
    pub(crate) const fn nr_pages(self) -> usize {
        // Cannot wrap, by the type invariant.
        self.end - self.start
    }

    /// What both ranges hold, if anything.
    pub(crate) fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }
}

/// A range, cut into units.
///
/// # Invariants
///
/// `shift < usize::BITS`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Units {
    range: PfnRange,
    /// log2 of the pages in a whole unit.
    shift: u32,
}

impl Units {
    /// Cuts `range` into units of `unit_pages`, which must be a power of two.
    pub(crate) fn new(range: PfnRange, unit_pages: usize) -> Option<Self> {
        // INVARIANT: A power of two has a bit that is set.
        unit_pages.is_power_of_two().then(|| Self {
            range,
            shift: unit_pages.trailing_zeros(),
        })
    }

    /// The number of units: at least one.
    pub(crate) fn count(&self) -> usize {
        // By the type invariants no shift is too far, and a `PfnRange` has a last pfn, which is not
        // before the first one.
        ((self.range.end - 1) >> self.shift) - (self.range.start >> self.shift) + 1
    }

    /// The pfns of those `units` that exist; [`None`] if none does.
    pub(crate) fn pfns(&self, units: Range<usize>) -> Option<PfnRange> {
        let first = self.range.start >> self.shift;
        let start = first
            .checked_add(units.start)?
            .checked_mul(1 << self.shift)?;
        // The unit after the last one of the address space has no start.
        let end = first
            .saturating_add(units.end)
            .saturating_mul(1 << self.shift);

        PfnRange::new(start, end)?.intersection(self.range)
    }

    /// How many units, none of them partial, `nr_pages` can hold.
    pub(crate) fn whole_in(&self, nr_pages: usize) -> usize {
        nr_pages >> self.shift
    }

    /// The units that hold a pfn of `pfns`; [`None`] unless all of `pfns` is in the range.
    pub(crate) fn covering(&self, pfns: PfnRange) -> Option<Range<usize>> {
        if self.range.intersection(pfns)? != pfns {
            return None;
        }
        let first = self.range.start >> self.shift;

        Some((pfns.start >> self.shift) - first..((pfns.end - 1) >> self.shift) - first + 1)
    }
}

#[cfg(CONFIG_MEMMAP_ASYNC_KUNIT_TEST)]
#[kernel::macros::kunit_tests(memmap_async_pfn)]
mod tests {
    use super::*;

    fn units(start: usize, end: usize, unit_pages: usize) -> Units {
        Units::new(PfnRange::new(start, end).unwrap(), unit_pages).unwrap()
    }

    #[test]
    fn ranges_are_never_empty() {
        assert!(PfnRange::new(0, 0).is_none());
        assert!(PfnRange::new(7, 7).is_none());
        assert!(PfnRange::new(8, 7).is_none());
        assert!(PfnRange::new(usize::MAX, 0).is_none());
        assert_eq!(PfnRange::new(0, usize::MAX).unwrap().nr_pages(), usize::MAX);
    }

    #[test]
    fn units_are_a_power_of_two() {
        let range = PfnRange::new(0, 4096).unwrap();

        assert!(Units::new(range, 0).is_none());
        assert!(Units::new(range, 513).is_none());
        assert_eq!(Units::new(range, 512).unwrap().count(), 8);
        assert_eq!(Units::new(range, 1).unwrap().count(), 4096);
    }

    #[test]
    fn partial_units_at_both_ends() {
        let u = units(1000, 2049, 512);

        assert_eq!(u.count(), 4);
        assert_eq!(u.pfns(0..1), PfnRange::new(1000, 1024));
        assert_eq!(u.pfns(1..2), PfnRange::new(1024, 1536));
        assert_eq!(u.pfns(2..3), PfnRange::new(1536, 2048));
        assert_eq!(u.pfns(3..4), PfnRange::new(2048, 2049));
        assert_eq!(u.pfns(4..5), None);
        assert_eq!(u.pfns(usize::MAX - 1..usize::MAX), None);

        assert_eq!(u.pfns(0..4), PfnRange::new(1000, 2049));
        assert_eq!(u.pfns(1..3), PfnRange::new(1024, 2048));
        assert_eq!(u.pfns(3..usize::MAX), PfnRange::new(2048, 2049));
        assert_eq!(u.pfns(2..2), None);
        assert_eq!(u.whole_in(511), 0);
        assert_eq!(u.whole_in(2047), 3);
    }

    #[test]
    fn a_range_inside_one_unit() {
        let u = units(513, 514, 512);

        assert_eq!(u.count(), 1);
        assert_eq!(u.pfns(0..1), PfnRange::new(513, 514));
    }

    #[test]
    fn the_end_of_the_address_space() {
        let u = units(usize::MAX - 1023, usize::MAX, 512);

        assert_eq!(u.count(), 2);
        assert_eq!(u.pfns(1..2), PfnRange::new(usize::MAX - 511, usize::MAX));
        assert_eq!(u.pfns(2..3), None);
    }

    #[test]
    fn units_that_cover() {
        let u = units(1000, 2049, 512);
        let covering = |start, end| u.covering(PfnRange::new(start, end).unwrap());

        assert_eq!(covering(1000, 1001), Some(0..1));
        assert_eq!(covering(1000, 2049), Some(0..4));
        assert_eq!(covering(1023, 1025), Some(0..2));
        assert_eq!(covering(1024, 1536), Some(1..2));
        assert_eq!(covering(2048, 2049), Some(3..4));
        assert_eq!(covering(999, 1001), None);
        assert_eq!(covering(2048, 2050), None);
        assert_eq!(covering(0, 10), None);
    }
}
