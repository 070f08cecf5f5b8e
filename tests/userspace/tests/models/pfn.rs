// SPDX-License-Identifier: GPL-2.0

//! The geometry of units, against what one would say of it on paper.
//!
//! Nothing in `pfn.rs` may panic, so each call here is a test of that as well: arithmetic that
//! wraps panics in this build.

use super::super::pfn::{PfnRange, Units};
use proptest::prelude::*;

/// More units than this are not looked at one by one.
const MANY: usize = 2000;

/// A pfn: anywhere, with a liking for both ends of the address space and for round numbers.
fn pfn() -> impl Strategy<Value = usize> {
    prop_oneof![
        0..10_000usize,
        (0..10_000usize).prop_map(|back| usize::MAX - back),
        (0..64u32, 0..3usize).prop_map(|(shift, off)| (1usize << shift).wrapping_add(off) - 1),
        any::<usize>(),
    ]
}

/// A range from `start` of at most `nr` pages, cut off where the address space ends.
fn range_at(start: usize, nr: usize) -> Option<PfnRange> {
    PfnRange::new(start, start.saturating_add(nr))
}

prop_compose! {
    /// A range of few units, of 1 to 4096 pages each.
    fn few_units()(
        start in pfn(),
        nr in 1..=8192usize,
        shift in 0..=12u32,
    ) -> Option<(PfnRange, Units, usize)> {
        let unit = 1 << shift;
        let range = range_at(start, nr.min(unit * (MANY - 2)))?;

        Some((range, Units::new(range, unit).unwrap(), unit))
    }
}

prop_compose! {
    /// Any range, in units of any size.
    fn any_units()(
        a in pfn(),
        b in pfn(),
        shift in 0..usize::BITS,
    ) -> Option<(PfnRange, Units, usize)> {
        let unit = 1 << shift;
        let range = PfnRange::new(a.min(b), a.max(b))?;

        Some((range, Units::new(range, unit).unwrap(), unit))
    }
}

/// The pfns of one unit.
fn pfns_of(units: &Units, unit: usize) -> Option<PfnRange> {
    units.pfns(unit..unit.checked_add(1)?)
}

/// The rest of a test for those that are something.
macro_rules! some {
    ($option:expr) => {
        match $option {
            Some(x) => x,
            None => return Err(TestCaseError::reject("nothing there")),
        }
    };
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

pub(crate) fn a_range_has_a_page() {
    proptest!(config(), |(start in pfn(), end in pfn())| {
        match PfnRange::new(start, end) {
            Some(range) => {
                prop_assert!(start < end);
                prop_assert_eq!((range.start(), range.end()), (start, end));
                prop_assert_eq!(range.nr_pages(), end - start);
            }
            None => prop_assert!(start >= end),
        }
        prop_assert_eq!(PfnRange::new(start, start), None);
    });
}

pub(crate) fn an_intersection_holds_what_both_hold() {
    proptest!(config(), |(a in pfn(), b in pfn(), c in pfn(), d in pfn())| {
        let one = some!(PfnRange::new(a.min(b), a.max(b)));
        let two = some!(PfnRange::new(c.min(d), c.max(d)));
        let both = one.intersection(two);
        let within = |range: PfnRange, pfn| range.start() <= pfn && pfn < range.end();

        prop_assert_eq!(both, two.intersection(one));
        prop_assert_eq!(one.intersection(one), Some(one));
        // All that can make a difference are the borders, and the pfns on both sides of them.
        let around = |x: usize| [x.saturating_sub(1), x, x.saturating_add(1)];

        for pfn in [a, b, c, d].into_iter().flat_map(around) {
            prop_assert_eq!(
                both.is_some_and(|both| within(both, pfn)),
                within(one, pfn) && within(two, pfn)
            );
        }
    });
}

pub(crate) fn a_unit_is_a_power_of_two() {
    proptest!(config(), |(start in pfn(), end in pfn(), unit_pages in pfn())| {
        let range = some!(PfnRange::new(start.min(end), start.max(end)));

        prop_assert_eq!(Units::new(range, unit_pages).is_some(), unit_pages.is_power_of_two());
        prop_assert!(Units::new(range, 0).is_none());
    });
}

pub(crate) fn units_partition_the_range() {
    proptest!(config(), |(units in few_units(), beyond in pfn())| {
        let (range, units, unit) = some!(units);
        let mut next = range.start();

        prop_assert!(units.count() <= MANY);
        for n in 0..units.count() {
            let pfns = pfns_of(&units, n).unwrap();

            prop_assert_eq!(pfns.start(), next);
            prop_assert!(pfns.nr_pages() <= unit);
            prop_assert!(n == 0 || pfns.start() % unit == 0);
            prop_assert!(n == units.count() - 1 || pfns.end() % unit == 0);
            next = pfns.end();
        }
        prop_assert_eq!(next, range.end());
        prop_assert_eq!(pfns_of(&units, units.count()), None);
        prop_assert_eq!(pfns_of(&units, units.count().saturating_add(beyond)), None);
    });
}

pub(crate) fn several_units_are_what_each_of_them_is() {
    proptest!(config(), |(
            units in few_units(),
            from in any::<prop::sample::Index>(),
            to in any::<prop::sample::Index>(),
            beyond in prop_oneof![4 => Just(0), 1 => pfn()],
    )| {
            let (_, units, unit) = some!(units);
            let (from, to) = (from.index(units.count()), to.index(units.count()));
            let (from, to) = (from.min(to), from.max(to));
            let pfns = units.pfns(from..(to + 1).saturating_add(beyond)).unwrap();
            let last = if beyond == 0 { to } else { (to.saturating_add(beyond)).min(units.count() - 1) };

            prop_assert_eq!(pfns.start(), pfns_of(&units, from).unwrap().start());
            prop_assert_eq!(pfns.end(), pfns_of(&units, last).unwrap().end());
            prop_assert_eq!(units.pfns(from..from), None);
            prop_assert!(units.whole_in(pfns.nr_pages()) <= last + 1 - from);
            prop_assert_eq!(units.whole_in(unit * 7), 7);
        prop_assert_eq!(units.whole_in(unit * 8 - 1), 7);
        });
}

pub(crate) fn what_covers_is_what_intersects() {
    proptest!(config(), |(
            units in few_units(),
            from in any::<prop::sample::Index>(),
            to in any::<prop::sample::Index>(),
    )| {
            let (range, units, _) = some!(units);
            let (from, to) = (from.index(range.nr_pages()), to.index(range.nr_pages()));
            let pfns = range_at(range.start() + from.min(to), from.abs_diff(to) + 1).unwrap();
            let naive: Vec<_> = (0..units.count())
                .filter(|&n| pfns_of(&units, n).unwrap().intersection(pfns).is_some())
                .collect();

            prop_assert_eq!(units.covering(pfns).unwrap().collect::<Vec<_>>(), naive);
        });
}

pub(crate) fn nothing_outside_is_covered() {
    proptest!(config(), |(units in any_units(), start in pfn(), nr in pfn())| {
        let (range, units, _) = some!(units);

        for start in [start, range.start().saturating_sub(1), range.end() - 1, range.end()] {
            for nr in [nr, 1, 2, range.nr_pages()] {
                let pfns = some!(range_at(start, nr.max(1)));
                let inside = range.start() <= pfns.start() && pfns.end() <= range.end();

                prop_assert_eq!(units.covering(pfns).is_some(), inside);
            }
        }
    });
}

/// As above, for ranges and units of all sizes: the first units, the last ones, and one in
/// between.
pub(crate) fn units_of_any_size() {
    proptest!(config(), |(units in any_units(), some in any::<prop::sample::Index>())| {
        let (range, units, unit) = some!(units);
        let last = units.count() - 1;

        // In numbers that cannot wrap.
        let wide = |n: usize| n as u128;
        let count = wide(range.end()).div_ceil(wide(unit)) - wide(range.start()) / wide(unit);
        prop_assert_eq!(wide(units.count()), count);

        prop_assert_eq!(units.covering(range), Some(0..units.count()));
        prop_assert_eq!(pfns_of(&units, 0).unwrap().start(), range.start());
        prop_assert_eq!(pfns_of(&units, last).unwrap().end(), range.end());
        prop_assert_eq!(pfns_of(&units, last.saturating_add(1)).filter(|_| last < usize::MAX), None);
        prop_assert_eq!(pfns_of(&units, usize::MAX), None);

        for n in [0, 1, some.index(units.count()), last.saturating_sub(1), last] {
            let Some(pfns) = pfns_of(&units, n) else {
                prop_assert!(n > last);
                continue;
            };

            prop_assert!(pfns.nr_pages() <= unit);
            prop_assert_eq!(pfns.intersection(range), Some(pfns));
            prop_assert_eq!(units.covering(pfns), Some(n..n + 1));
            if n < last {
                prop_assert_eq!(pfns.end() % unit, 0);
                prop_assert_eq!(pfns_of(&units, n + 1).unwrap().start(), pfns.end());
            }
        }
    });
}
