// SPDX-License-Identifier: GPL-2.0

//! A claim map in one thread, against a naive one: what it says after any sequence of calls.
//!
//! The atomics are loom's, so each case is a loom model of a single thread.

#[path = "../../../mm/memmap_async/claim.rs"]
mod claim;

use claim::{Claim, ClaimMap, Word};
use proptest::{prelude::*, sample::Index};
use std::ops::Range;

/// A call.
#[derive(Clone, Debug)]
enum Call {
    Enter,
    Claim(usize),
    /// So many units at most.
    ClaimNear(usize, u32),
    /// Of one of the claims held.
    Publish(Index),
    /// Of one of the claims held.
    Drop(Index),
    Close,
}

/// A unit, or a little more than there are.
fn number(nr: usize) -> impl Strategy<Value = usize> {
    prop_oneof![20 => 0..nr, 2 => nr..nr + 130, 1 => Just(usize::MAX)]
}

/// How many units to claim at a time.
fn max_units() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(1), 4 => 2..10u32, 1 => 60..70u32, 1 => Just(0), 1 => Just(u32::MAX)]
}

fn call(nr_units: usize) -> impl Strategy<Value = Call> {
    prop_oneof![
        20 => Just(Call::Enter),
        120 => number(nr_units).prop_map(Call::Claim),
        120 => (number(nr_units.div_ceil(Word::UNITS)), max_units())
            .prop_map(|(hint, max)| Call::ClaimNear(hint, max)),
        80 => any::<Index>().prop_map(Call::Publish),
        40 => any::<Index>().prop_map(Call::Drop),
        1 => Just(Call::Close),
    ]
}

/// The number of units of a map, and what is done with it.
fn calls() -> impl Strategy<Value = (usize, Vec<Call>)> {
    prop_oneof![1..10usize, 60..70usize, 120..200usize]
        .prop_flat_map(|nr| (Just(nr), prop::collection::vec(call(nr), 0..200)))
}

/// What is known of a unit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Todo,
    Claimed,
    Done,
}

/// The naive map.
struct Naive {
    units: Vec<State>,
    closed: bool,
}

impl Naive {
    fn claim(&mut self, unit: usize) -> Option<Range<usize>> {
        if self.closed || *self.units.get(unit)? != State::Todo {
            return None;
        }
        self.units[unit] = State::Claimed;
        Some(unit..unit + 1)
    }

    fn claim_near(&mut self, hint: usize, max: u32) -> Option<Range<usize>> {
        if max == 0 {
            return None;
        }
        let words = self.units.len().div_ceil(Word::UNITS);
        let first = if hint < words { hint * Word::UNITS } else { 0 };
        let nr = self.units.len();
        let unit = (first..first + nr)
            .map(|n| n % nr)
            .find(|&n| self.units[n] == State::Todo)?;

        let mut units = self.claim(unit)?;

        // What follows, up to the end of the word.
        while units.len() < max as usize
            && units.end % Word::UNITS != 0
            && self.claim(units.end).is_some()
        {
            units.end += 1;
        }
        Some(units)
    }

    fn set(&mut self, units: Range<usize>, state: State) {
        self.units[units].fill(state);
    }

    fn remaining(&self) -> usize {
        self.units.iter().filter(|&&s| s != State::Done).count()
    }
}

fn map(nr_units: usize) -> ClaimMap<Vec<Word>> {
    let nr_words = ClaimMap::<Vec<Word>>::nr_words(nr_units);

    ClaimMap::new(words(nr_words), nr_units).unwrap()
}

fn words(nr_words: usize) -> Vec<Word> {
    (0..nr_words).map(|_| Word::default()).collect()
}

fn run(nr_units: usize, calls: &[Call]) {
    let map = map(nr_units);
    let mut naive = Naive {
        units: vec![State::Todo; nr_units],
        closed: false,
    };
    let inside = map.enter().unwrap();
    let mut claims: Vec<Claim<'_, Vec<Word>>> = Vec::new();
    let mut lasts = 0;

    for call in calls {
        match call {
            Call::Enter => assert_eq!(map.enter().is_none(), naive.closed),
            Call::Claim(_) | Call::ClaimNear(..) => {
                let (claim, expected) = match *call {
                    Call::Claim(unit) => (inside.claim(unit), naive.claim(unit)),
                    Call::ClaimNear(hint, max) => {
                        (inside.claim_near(hint, max), naive.claim_near(hint, max))
                    }
                    _ => unreachable!(),
                };

                assert_eq!(claim.as_ref().map(Claim::units), expected);
                claims.extend(claim);
            }
            Call::Publish(index) if !claims.is_empty() => {
                let claim = claims.swap_remove(index.index(claims.len()));
                let units = claim.units();

                assert!(!units.clone().any(|unit| map.is_done(unit)));
                naive.set(units.clone(), State::Done);
                assert_eq!(claim.publish(), naive.remaining() == 0);
                assert!(units.clone().all(|unit| map.is_done(unit)));
                lasts += usize::from(naive.remaining() == 0);
            }
            Call::Drop(index) if !claims.is_empty() => {
                let claim = claims.swap_remove(index.index(claims.len()));

                naive.set(claim.units(), State::Todo);
            }
            Call::Publish(_) | Call::Drop(_) => {}
            Call::Close => {
                map.close();
                naive.closed = true;
            }
        }
        assert_eq!(map.is_closed(), naive.closed);
        assert!(!map.is_empty());
    }

    for unit in (0..nr_units + 70).chain([usize::MAX]) {
        let state = naive.units.get(unit);

        assert_eq!(map.is_done(unit), state == Some(&State::Done));
        assert_eq!(map.is_todo(unit), state == Some(&State::Todo));
    }
    assert_eq!(lasts, usize::from(naive.remaining() == 0));

    // What is left can be had, to the last one; or none of it, if it is closed.
    drop(claims);
    while let Some(claim) = inside.claim_near(0, 3) {
        lasts += usize::from(claim.publish());
    }
    if !naive.closed {
        assert_eq!(lasts, 1);
        assert!((0..nr_units).all(|unit| map.is_done(unit)));
    }

    drop(inside);
    assert_eq!(map.is_empty(), naive.closed);
    map.close();
    assert!(map.is_empty());
    assert!(map.enter().is_none());
    assert!(map.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn it_says_what_the_naive_one_says((nr_units, calls) in calls()) {
        let mut builder = loom::model::Builder::new();

        builder.max_branches = 10_000;
        builder.check(move || run(nr_units, &calls));
    }

    #[test]
    fn the_words_hold_each_unit_once(nr_units in 0..1000usize) {
        let nr_words = ClaimMap::<Vec<Word>>::nr_words(nr_units);

        loom::model::Builder::new().check(move || {
            // No more of them, and no fewer.
            assert!(ClaimMap::new(words(nr_words + 1), nr_units).is_none());
            assert!(nr_words == 0 || ClaimMap::new(words(nr_words - 1), nr_units).is_none());

            let map = map(nr_units);
            let inside = map.enter().unwrap();

            for unit in (0..nr_units).rev().take(70) {
                inside.claim(unit).unwrap().publish();
            }
            assert!(inside.claim(nr_units).is_none());
            assert!(inside.claim(nr_words * Word::UNITS).is_none());
        });
    }
}
