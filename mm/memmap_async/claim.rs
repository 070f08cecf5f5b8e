// SPDX-License-Identifier: GPL-2.0

//! Who may initialise which unit, and which units are ready.
//!
//! A [`ClaimMap`] has two bits for each unit. `todo` is set while the unit is not claimed;
//! `done` is set once it is initialised and may be read. Neither set means that it is claimed.
//! 64 units share a [`Word`].
//!
//! Claims are made by those [`Inside`] the map's gate only. [`ClaimMap::close()`] refuses all later
//! entries and claims; once [`ClaimMap::is_empty()`] says that the last one has left, nobody
//! touches the range any more. A unit that is neither `todo` nor `done` after that will never be
//! done, hence a caller who waits for one has to look at the gate as well.
//!
//! # Ordering
//!
//! - Publishing is a release and [`ClaimMap::is_done()`] an acquire: a reader of `done` sees all
//!   that the owner stored before.
//! - Dropping a claim is a release and claiming an acquire: the next owner continues where the
//!   previous one left off.
//! - Leaving the gate is a release and [`ClaimMap::is_empty()`] an acquire: a task that finds it
//!   empty sees all stores of those that were inside.
//!
//! Non-temporal stores are weaker than that and must be drained before a claim is published,
//! dropped or, at the latest, the gate is left.
//!
//! # Context
//!
//! Any context. Nothing here sleeps, takes a lock, allocates or panics.
//!
//! This file is also compiled in user space, where loom tries all interleavings of it.

use core::ops::{
    Deref,
    DerefMut,
    Range, //
};
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed, Release};

/// The state of 64 units.
///
/// A unit's bit is in `todo` or in `done` or in one [`Claim`], and in no two of them. The bits of
/// units that do not exist are in none.
pub(crate) struct Word {
    todo: Atomic<u64>,
    done: Atomic<u64>,
}

impl Word {
    /// How many units a word holds.
    pub(crate) const UNITS: usize = 64;

    /// The state in which the units of word number `index` begin, in a map of `nr_units`: all those
    /// that exist are up for claiming.
    fn new(index: usize, nr_units: usize) -> Self {
        let todo = match nr_units.saturating_sub(index.saturating_mul(Self::UNITS)) {
            0 => 0,
            nr @ 1..Self::UNITS => (1u64 << nr) - 1,
            _ => u64::MAX,
        };

        Self {
            todo: Atomic::new(todo),
            done: Atomic::new(0),
        }
    }
}

impl Default for Word {
    /// A word without units, of which a [`ClaimMap`] makes what it needs.
    fn default() -> Self {
        Self::new(0, 0)
    }
}

/// The lowest of the `bits` and those that follow it without a gap, but no more than `max`.
fn lowest_run(bits: u64, max: u32) -> u64 {
    let first = bits.trailing_zeros();
    let nr = bits
        .checked_shr(first)
        .map_or(0, u64::trailing_ones)
        .min(max);

    // A shift by all 64 is none: there are no bits, or none are wanted.
    u64::MAX
        .checked_shr(u64::BITS - nr)
        .map_or(0, |run| run << first)
}

/// Set in [`Counts::gate`] when it is closed.
const CLOSED: u64 = 1 << 63;

/// Alone on a cache line, as each owner of a claim writes to it: what is only read stays in the
/// caches of all CPUs.
#[repr(align(64))]
pub(crate) struct Alone<T>(pub(crate) T);

/// What is counted in a [`ClaimMap`]. It is together because an owner needs both.
struct Counts {
    /// Units that are not done yet.
    remaining: Atomic<u64>,
    /// [`CLOSED`], and how many are inside.
    gate: Atomic<u64>,
}

/// The units of a range: which are claimed, which are done. See the [module](self).
///
/// The storage is the caller's choice. That nothing remains to be done is no reason to free it: the
/// one who published the last unit is still inside.
///
/// # Invariants
///
/// - `words` are those of the units of the map and no others, as [`Word`] says.
/// - `remaining` counts all units but those that a [`Claim::publish()`] has counted off, which it
///   does after they are `done`. So one publish is the last, and no claim is left then, nor can one
///   be made.
pub(crate) struct ClaimMap<S> {
    words: S,
    counts: Alone<Counts>,
}

impl<S: DerefMut<Target = [Word]>> ClaimMap<S> {
    /// A map of `nr_units`, all to do. [`None`] unless `words` are
    /// [`nr_words()`](Self::nr_words) of them; what they hold does not matter.
    pub(crate) fn new(mut words: S, nr_units: usize) -> Option<Self> {
        if words.len() != Self::nr_words(nr_units) {
            return None;
        }
        for (index, word) in words.iter_mut().enumerate() {
            *word = Word::new(index, nr_units);
        }

        // INVARIANT: There are enough words for all units, each of which is to be claimed in one of
        // them, and no claim yet.
        Some(Self {
            words,
            counts: Alone(Counts {
                remaining: Atomic::new(nr_units as u64),
                gate: Atomic::new(0),
            }),
        })
    }
}

impl<S: Deref<Target = [Word]>> ClaimMap<S> {
    /// The words that a map of `nr_units` needs.
    pub(crate) fn nr_words(nr_units: usize) -> usize {
        nr_units.div_ceil(Word::UNITS)
    }

    /// Comes in to claim units; [`None`] if the gate is closed.
    pub(crate) fn enter(&self) -> Option<Inside<'_, S>> {
        if self.counts.0.gate.fetch_add(1, Acquire) & CLOSED != 0 {
            self.counts.0.gate.fetch_sub(1, Release);
            return None;
        }
        Some(Inside { map: self })
    }

    /// Refuses all entries and claims from now on. Those who hold a claim finish it.
    pub(crate) fn close(&self) {
        let mut gate = self.counts.0.gate.load(Relaxed);

        while let Err(now) = self.counts.0.gate.cmpxchg(gate, gate | CLOSED, Full) {
            gate = now;
        }
    }

    /// Whether [`close()`](Self::close) was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.counts.0.gate.load(Relaxed) & CLOSED != 0
    }

    /// Whether the gate is closed and nobody is left inside.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.0.gate.load(Acquire) == CLOSED
    }

    /// Whether `unit` is initialised and may be read. A unit that does not exist never is.
    pub(crate) fn is_done(&self, unit: usize) -> bool {
        self.words
            .get(unit / Word::UNITS)
            .is_some_and(|word| word.done.load(Acquire) & (1 << (unit % Word::UNITS)) != 0)
    }

    /// Whether `unit` is not claimed yet. Only a hint: by now it can be claimed, or have been given
    /// back. Other than an attempt to claim it, this leaves the gate and its owner alone.
    pub(crate) fn is_todo(&self, unit: usize) -> bool {
        self.words
            .get(unit / Word::UNITS)
            .is_some_and(|word| word.todo.load(Relaxed) & (1 << (unit % Word::UNITS)) != 0)
    }
}

/// The right to claim: had by [`ClaimMap::enter()`], which is left when this is dropped.
///
/// Forgetting one is safe, but then the gate is never empty again.
pub(crate) struct Inside<'a, S: Deref<Target = [Word]>> {
    map: &'a ClaimMap<S>,
}

impl<S: Deref<Target = [Word]>> Inside<'_, S> {
    /// Claims `unit`; [`None`] if it is claimed, if there is no such one, or if the gate is closed.
    pub(crate) fn claim(&self, unit: usize) -> Option<Claim<'_, S>> {
        if self.map.is_closed() {
            return None;
        }
        self.claim_of(unit / Word::UNITS, |todo| {
            todo & (1 << (unit % Word::UNITS))
        })
    }

    /// Claims up to `max_units` that are next to each other, of word number `hint` if it has some,
    /// else of the next that has, round and round; [`None`] if there is nothing to claim at the
    /// moment, or if the gate is closed.
    ///
    /// That is not the end: a claim can be dropped. The end is what [`Claim::publish()`] says.
    pub(crate) fn claim_near(&self, hint: usize, max_units: u32) -> Option<Claim<'_, S>> {
        let nr_words = self.map.words.len();
        let hint = hint.min(nr_words);

        for index in (hint..nr_words).chain(0..hint) {
            if self.map.is_closed() {
                return None;
            }
            if let Some(claim) = self.claim_of(index, |todo| lowest_run(todo, max_units)) {
                return Some(claim);
            }
        }
        None
    }

    /// Claims those units of word number `index` that `pick` picks of what is to do there, all of
    /// them or none. They must be next to each other.
    fn claim_of(&self, index: usize, pick: impl Fn(u64) -> u64) -> Option<Claim<'_, S>> {
        let word = self.map.words.get(index)?;
        let mut todo = word.todo.load(Relaxed);

        loop {
            let bits = pick(todo);

            // A task that tries again and again must not take the word from the owner each time.
            if bits == 0 {
                return None;
            }
            match word.todo.cmpxchg(todo, todo & !bits, Acquire) {
                Ok(_) => {
                    // INVARIANT: The bits were in `todo`, and we are the one who took them out. The
                    // caller sees to it that they are next to each other.
                    return Some(Claim {
                        map: self.map,
                        word,
                        bits,
                        first: index * Word::UNITS + bits.trailing_zeros() as usize,
                    });
                }
                Err(now) => todo = now,
            }
        }
    }
}

impl<S: Deref<Target = [Word]>> Drop for Inside<'_, S> {
    fn drop(&mut self) {
        self.map.counts.0.gate.fetch_sub(1, Release);
    }
}

/// The right, and the duty, to initialise a unit, or some that are next to each other.
///
/// It ends with [`publish()`](Self::publish). A claim that is dropped instead makes its units
/// available again; forgetting one is safe, but then its units are never done.
///
/// # Invariants
///
/// - `word` is the word of `map` that holds unit `first`. `bits` are those of at least one unit of
///   it, of `first` and of those that follow without a gap.
/// - The units are no other claim's, are neither to be claimed nor done, and count in
///   `remaining` of `map`.
/// - The owner is [`Inside`] the gate of `map`: a claim cannot outlive that.
#[must_use = "a claim that is dropped puts its units back"]
pub(crate) struct Claim<'a, S: Deref<Target = [Word]>> {
    map: &'a ClaimMap<S>,
    word: &'a Word,
    bits: u64,
    first: usize,
}

impl<S: Deref<Target = [Word]>> Claim<'_, S> {
    /// The numbers of the units.
    pub(crate) fn units(&self) -> Range<usize> {
        self.first..self.first + self.bits.count_ones() as usize
    }

    /// Says that the units are initialised. Returns whether they were the last ones of the map.
    pub(crate) fn publish(self) -> bool {
        let nr_units = self.units().len() as u64;

        // INVARIANT: The units go over from this claim, which ends here, to `done`; then they are
        // no longer counted. None of their bits is in `done` yet, so to add them sets them.
        self.word.done.fetch_add(self.bits, Release);
        // Full: the last one to come here has seen all the others' units.
        let last = self.map.counts.0.remaining.fetch_sub(nr_units, Full) == nr_units;

        core::mem::forget(self);
        last
    }
}

impl<S: Deref<Target = [Word]>> Drop for Claim<'_, S> {
    fn drop(&mut self) {
        // INVARIANT: The units go back from this claim, which ends here, to `todo`. None of their
        // bits is there, so to add them sets them.
        self.word.todo.fetch_add(self.bits, Release);
    }
}

#[cfg(CONFIG_MEMMAP_ASYNC_KUNIT_TEST)]
#[kernel::macros::kunit_tests(memmap_async_claim)]
mod tests {
    use super::*;
    use kernel::prelude::*;

    fn map(nr_units: usize) -> ClaimMap<KVec<Word>> {
        let nr_words = ClaimMap::<KVec<Word>>::nr_words(nr_units);

        ClaimMap::new(words(nr_words), nr_units).unwrap()
    }

    fn remaining(map: &ClaimMap<KVec<Word>>) -> u64 {
        map.counts.0.remaining.load(Relaxed)
    }

    fn words(nr_words: usize) -> KVec<Word> {
        let mut words = KVec::with_capacity(nr_words, GFP_KERNEL).unwrap();

        for _ in 0..nr_words {
            // Rubbish, which a map must not rely on.
            words.push(Word::new(0, 7), GFP_KERNEL).unwrap();
        }
        words
    }

    #[test]
    fn words_that_do_not_fit() {
        assert!(ClaimMap::new(words(0), 1).is_none());
        assert!(ClaimMap::new(words(1), 65).is_none());
        assert!(ClaimMap::new(words(2), 64).is_none());
        assert!(ClaimMap::new(words(0), 0).is_some());
    }

    #[test]
    fn what_is_to_do() {
        let map = map(65);
        let inside = map.enter().unwrap();
        let claim = inside.claim(64).unwrap();

        assert!(map.is_todo(63) && !map.is_todo(64));
        drop(claim);
        assert!(map.is_todo(64));
        assert!(!inside.claim(64).unwrap().publish());
        assert!(!map.is_todo(64));
        assert!(!map.is_todo(65) && !map.is_todo(128) && !map.is_todo(usize::MAX));
    }

    #[test]
    fn every_unit_once() {
        for nr_units in [1, 63, 64, 65, 128, 1000] {
            let map = map(nr_units);
            let inside = map.enter().unwrap();
            let mut last = false;

            for n in 0..nr_units {
                assert!(!last);
                assert_eq!(remaining(&map), (nr_units - n) as u64);
                let claim = inside.claim_near(n * 7, 1).unwrap();
                let units = claim.units();

                assert_eq!(units.len(), 1);
                assert!(!map.is_done(units.start));
                last = claim.publish();
                assert!(map.is_done(units.start));
            }
            assert!(last);
            assert!(inside.claim_near(0, 1).is_none());
            assert_eq!(remaining(&map), 0);
        }
    }

    #[test]
    fn several_at_a_time() {
        let map = map(200);
        let inside = map.enter().unwrap();
        let units = |hint, max| inside.claim_near(hint, max).map(|claim| claim.units());

        assert_eq!(units(0, 0), None);
        assert_eq!(units(0, 1), Some(0..1));
        assert_eq!(units(0, 7), Some(0..7));
        assert_eq!(units(0, 64), Some(0..64));
        assert_eq!(units(1, u32::MAX), Some(64..128));
        assert_eq!(units(3, 64), Some(192..200));

        // Neither across a unit that is gone nor out of a word.
        let gone = inside.claim(66).unwrap();

        assert_eq!(units(1, 64), Some(64..66));
        let before = inside.claim_near(1, 64).unwrap();
        assert_eq!(units(1, 4), Some(67..71));
        let behind = inside.claim_near(1, 64).unwrap();
        assert_eq!(behind.units(), 67..128);

        assert!(!before.publish());
        assert!(map.is_done(64) && map.is_done(65) && !map.is_done(66));
        assert_eq!(remaining(&map), 198);
        drop(behind);
        assert_eq!(remaining(&map), 198);
        assert!(!gone.publish());
        assert_eq!(units(1, 2), Some(67..69));

        // The last word is no exception: not all of its bits are units.
        assert!(!inside.claim_near(3, 64).unwrap().publish());
        assert!(!inside.claim_near(0, 64).unwrap().publish());
        assert!(!inside.claim_near(2, 64).unwrap().publish());
        assert!(inside.claim_near(1, 64).unwrap().publish());
        assert_eq!(remaining(&map), 0);
    }

    #[test]
    fn a_claim_excludes() {
        let map = map(3);
        let inside = map.enter().unwrap();
        let claim = inside.claim(1).unwrap();

        assert!(inside.claim(1).is_none());
        assert!(!map.is_done(1));
        assert!(!claim.publish());
        assert!(inside.claim(1).is_none());
        assert!(map.is_done(1));
    }

    #[test]
    fn a_dropped_claim_comes_back() {
        let map = map(65);
        let inside = map.enter().unwrap();

        drop(inside.claim(64).unwrap());
        assert!(!map.is_done(64));
        assert_eq!(remaining(&map), 65);
        assert_eq!(inside.claim_near(1, 1).unwrap().units(), 64..65);
    }

    #[test]
    fn units_that_do_not_exist() {
        let map = map(65);
        let inside = map.enter().unwrap();

        assert!(inside.claim(65).is_none());
        assert!(inside.claim(127).is_none());
        assert!(inside.claim(128).is_none());
        assert!(inside.claim(usize::MAX).is_none());
        assert!(!map.is_done(65));
        assert!(!map.is_done(usize::MAX));
        assert!(inside.claim_near(usize::MAX, 1).is_some());
    }

    #[test]
    fn a_closed_gate_stays_closed() {
        let map = map(2);
        let inside = map.enter().unwrap();
        let claim = inside.claim(0).unwrap();

        assert!(!map.is_empty());
        map.close();
        map.close();
        assert!(map.is_closed());
        assert!(!map.is_empty());
        assert!(map.enter().is_none());
        assert!(inside.claim(1).is_none());
        assert!(inside.claim_near(0, 1).is_none());

        // What was claimed before is finished, or put back, but not claimed again.
        drop(claim);
        assert!(inside.claim(0).is_none());
        assert!(inside.claim_near(0, 1).is_none());
        drop(inside);
        assert!(map.is_empty());
        assert!(!map.is_done(0));
        assert_eq!(remaining(&map), 2);
    }
}
