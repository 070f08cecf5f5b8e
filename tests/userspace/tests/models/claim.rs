// SPDX-License-Identifier: GPL-2.0

//! The claim protocol's models, for loom.
//!
//! A page is a [`loom::cell::UnsafeCell`]: two accesses to one that are not ordered by the claim
//! protocol are a data race, and loom panics. The pages hold a little state on top, so that a page
//! initialised twice is found even where the two times are ordered.

use super::super::claim::{Claim, ClaimMap, Word};
use loom::{cell::UnsafeCell, model::Builder, thread};
use std::sync::Arc;

/// Nobody was here.
const RAW: u32 = 0;
/// Somebody was here and gave up.
const HALF: u32 = 1;
/// Initialised.
const READY: u32 = 2;
/// The canceller took it away.
const GONE: u32 = 3;

/// A range under initialisation: the map, and a page for each unit.
struct Range {
    map: ClaimMap<Vec<Word>>,
    units: Vec<usize>,
    pages: Vec<UnsafeCell<u32>>,
}

// SAFETY: It is not `Sync` for the pages' sake. Whether they are accessed one at a time is what
// loom is asked here; it panics before an access that races.
unsafe impl Sync for Range {}

/// The gate is closed.
#[derive(Debug)]
struct Closed;

impl Range {
    /// A range of as many words as there are numbers in `units`, the number being that of units to
    /// do in the word. The others of a word that is not the last are ready from the start, and no
    /// business of a model: loom has not that much time.
    fn new(units: &[usize]) -> Self {
        let nr_units = (units.len() - 1) * Word::UNITS + units[units.len() - 1];
        let words = units.iter().map(|_| Word::default()).collect();
        let range = Self {
            map: ClaimMap::new(words, nr_units).unwrap(),
            pages: (0..nr_units).map(|_| UnsafeCell::new(RAW)).collect(),
            units: units
                .iter()
                .enumerate()
                .flat_map(|(word, &nr)| (0..nr).map(move |bit| word * Word::UNITS + bit))
                .collect(),
        };

        {
            let inside = range.map.enter().unwrap();
            let todo: Vec<_> = units
                .iter()
                .enumerate()
                .map(|(word, &nr)| inside.claim_near(word, nr as u32))
                .collect();

            for word in 0..units.len() - 1 {
                let others = inside.claim_near(word, u32::MAX).unwrap();

                range.init(&others);
                others.publish();
            }
            drop(todo);
        }
        range
    }

    fn page(&self, unit: usize) -> &UnsafeCell<u32> {
        &self.pages[unit]
    }

    /// Reads a page that must be ready.
    fn read(&self, unit: usize) {
        // SAFETY: loom has checked that nobody writes.
        let state = self.page(unit).with(|p| unsafe { *p });

        assert_eq!(state, READY, "unit {unit} is read but not ready");
    }

    fn read_all(&self) {
        self.units.iter().for_each(|&unit| self.read(unit));
    }

    fn is_done(&self) -> bool {
        self.units.iter().all(|&unit| self.map.is_done(unit))
    }

    fn write(&self, unit: usize, to: u32) -> u32 {
        // SAFETY: loom has checked that nobody else reads or writes.
        self.page(unit)
            .with_mut(|p| unsafe { std::mem::replace(&mut *p, to) })
    }

    /// Initialises pages, or goes on with what somebody gave up.
    fn init(&self, claim: &Claim<'_, Vec<Word>>) {
        for unit in claim.units() {
            match self.write(unit, READY) {
                READY => panic!("unit {unit} is initialised twice"),
                GONE => panic!("unit {unit} is touched after the cancel"),
                _ => {}
            }
        }
    }

    /// Begins to initialise pages, then gives up.
    fn init_half(&self, claim: Claim<'_, Vec<Word>>) {
        for unit in claim.units() {
            assert_eq!(self.write(unit, HALF), RAW);
        }
    }

    /// What a work item does: comes in, claims and initialises units, `max` of them at a time, and
    /// leaves, and this so many times. Returns whether it was the last to publish.
    fn slice(&self, hint: usize, max: u32, times: usize) -> Result<bool, Closed> {
        let mut last = false;

        for _ in 0..times {
            let inside = self.map.enter().ok_or(Closed)?;
            let Some(claim) = inside.claim_near(hint, max) else {
                break;
            };

            assert!(!last, "there was one after the last");
            self.init(&claim);
            last = claim.publish();
        }
        Ok(last)
    }

    /// Slices until everything is ready.
    fn work(&self, hint: usize) -> bool {
        let mut last = false;

        loop {
            last |= self.slice(hint, 1, usize::MAX).unwrap();
            if self.is_done() {
                return last;
            }
            thread::yield_now();
        }
    }

    /// What `memmap_sync()` does for one unit. Returns whether it was the last to publish.
    fn sync(&self, unit: usize) -> Result<bool, Closed> {
        loop {
            if self.map.is_closed() {
                return Err(Closed);
            }
            if self.map.is_done(unit) {
                return Ok(false);
            }
            if self.map.is_todo(unit) {
                let inside = self.map.enter().ok_or(Closed)?;

                if let Some(claim) = inside.claim(unit) {
                    self.init(&claim);
                    return Ok(claim.publish());
                };
            }
            thread::yield_now();
        }
    }

    /// What cancel does: closes the gate, and waits until nobody is inside.
    fn cancel(&self) {
        self.map.close();
        while !self.map.is_empty() {
            thread::yield_now();
        }
    }
}

/// Runs `model` with a range as in [`Range::new()`] in all interleavings with at most so many
/// preemptions, unless `LOOM_MAX_PREEMPTIONS` says something else.
///
/// Each one more takes ten to thirty times as long. What is to be found is found with two; those
/// that are quick have three.
///
/// A model must not have two who spin for a third: loom would let them take turns for ever.
fn check(units: &'static [usize], preemptions: usize, model: fn(Arc<Range>)) {
    let mut builder = Builder::new();

    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(move || model(Arc::new(Range::new(units))));
}

/// Starts a thread on `range`.
fn spawn<T: 'static>(
    range: &Arc<Range>,
    f: impl FnOnce(&Range) -> T + 'static,
) -> thread::JoinHandle<T> {
    let range = range.clone();

    thread::spawn(move || f(&range))
}

/// Two owners of a unit each. One of them is the last to publish, and it has seen the other's.
pub(crate) fn the_last_publisher_has_seen_all() {
    check(&[3], 3, |range| {
        fn publish(range: &Range, unit: usize) -> usize {
            let inside = range.map.enter().unwrap();
            let claim = inside.claim(unit).unwrap();

            range.init(&claim);
            if !claim.publish() {
                return 0;
            }
            range.read_all();
            assert!(range.is_done(), "nothing remains, but not all is done");
            1
        }

        let others = [1, 2].map(|unit| spawn(&range, move |range| publish(range, unit)));
        let lasts = publish(&range, 0) + others.map(|o| o.join().unwrap()).iter().sum::<usize>();

        assert_eq!(lasts, 1, "so many were the last");
    });
}

/// Two workers that take what they can get, and somebody who needs a unit in the middle of it.
///
/// Each unit is one's only, and ready for all when it is for one. The one before and the one behind
/// the middle are not taken together unless the middle is.
pub(crate) fn several_at_a_time_and_a_sync() {
    check(&[3], 2, |range| {
        let workers = [2, 3].map(|max| spawn(&range, move |range| range.slice(0, max, 1).unwrap()));
        let mut last = range.sync(1).unwrap();

        range.read(1);
        // What is left: a worker that found nothing to do has gone home.
        last |= range.slice(0, 3, 2).unwrap();

        let lasts = workers.map(|worker| worker.join().unwrap());

        assert_eq!(
            usize::from(last) + lasts.map(usize::from).iter().sum::<usize>(),
            1,
            "so many were the last"
        );
        assert!(range.is_done(), "something remains");
        range.read_all();
    });
}

/// Somebody gives up several units half-way. Whoever is next continues with all of them.
pub(crate) fn several_are_given_up() {
    check(&[3], 3, |range| {
        let dropper = spawn(&range, |range| {
            let inside = range.map.enter().unwrap();

            if let Some(claim) = inside.claim_near(0, 2) {
                range.init_half(claim);
            };
        });

        assert!(range.work(0), "there was no last");
        range.read_all();
        dropper.join().unwrap();
    });
}

/// Begins with unit 0 if it is still there, gives it up half-way, and does not come back.
fn give_up(range: &Range) {
    if let Some(inside) = range.map.enter() {
        if let Some(claim) = inside.claim(0) {
            range.init_half(claim);
        };
    }
}

/// Somebody gives up half-way. A worker takes the unit over, sees how far it was, and finds it
/// though he looks elsewhere first.
pub(crate) fn a_worker_takes_over() {
    check(&[1, 1], 3, |range| {
        let dropper = spawn(&range, give_up);

        assert!(range.work(1), "there was no last");
        range.read_all();
        dropper.join().unwrap();
    });
}

/// Somebody gives up half-way. A sync does not wait in vain, worker or no worker.
pub(crate) fn a_sync_takes_over() {
    check(&[1], 2, |range| {
        let dropper = spawn(&range, give_up);
        let worker = spawn(&range, |range| range.slice(0, 1, 1).unwrap());
        let last = range.sync(0).unwrap();

        range.read(0);
        dropper.join().unwrap();
        assert!(last != worker.join().unwrap(), "none or both were the last");
    });
}

/// A cancel that takes everything away, also what is done, with one about that gives up half-way,
/// and one that works and reads.
pub(crate) fn cancel_waits_for_those_inside() {
    check(&[1, 1], 3, |range| {
        let dropper = spawn(&range, give_up);
        let reader = spawn(&range, |range| {
            if let Some(inside) = range.map.enter() {
                if let Some(claim) = inside.claim_near(1, 1) {
                    range.init(&claim);
                    claim.publish();
                }
                if range.map.is_done(Word::UNITS) {
                    range.read(Word::UNITS);
                }
            }
        });

        range.cancel();
        for &unit in &range.units {
            range.write(unit, GONE);
        }
        dropper.join().unwrap();
        reader.join().unwrap();
    });
}

/// A cancel that takes away what is done, while a reader is inside: it waits for that one as well,
/// who claims nothing.
pub(crate) fn cancel_waits_for_a_reader() {
    check(&[1], 3, |range| {
        assert!(range.work(0));

        let reader = spawn(&range, |range| {
            if let Some(_inside) = range.map.enter() {
                range.read(0);
            }
        });

        range.cancel();
        range.write(0, GONE);
        reader.join().unwrap();
    });
}

/// A claim, dropped or published about the time when the gate is closed.
///
/// Nobody claims it again who can know that, and looking for one comes to an end.
pub(crate) fn nobody_claims_after_close() {
    check(&[2], 3, |range| {
        let other = spawn(&range, |range| {
            let Some(inside) = range.map.enter() else {
                return;
            };

            drop(inside.claim(0));
            if range.map.is_closed() {
                assert!(inside.claim(0).is_none(), "claimed after close");
            }
            drop(inside.claim_near(1, 1));
        });
        let inside = range.map.enter().unwrap();
        let claim = inside.claim(1).unwrap();

        range.map.close();
        drop(claim);
        assert!(range.map.enter().is_none(), "came in by a closed gate");
        assert!(inside.claim(1).is_none(), "claimed after close");
        assert!(inside.claim_near(0, 1).is_none(), "claimed after close");
        assert!(!range.map.is_empty());
        drop(inside);
        other.join().unwrap();
        assert!(
            range.map.is_empty(),
            "somebody was refused and is still inside"
        );
    });
}
