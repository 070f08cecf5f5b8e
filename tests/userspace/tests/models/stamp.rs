// SPDX-License-Identifier: GPL-2.0

//! What `stamp()` has to do with random runs of struct pages, for proptest.
//!
//! Each is a function that panics if it does something else. They use the `stamp` next to this
//! module, whichever that is: `../stamp.rs` has the kernel's file there, `../mutations/` one
//! weakened copy of it after the other.

#[cfg(CONFIG_X86_64)]
use super::stamp::NonTemporal;
use super::stamp::{stamp, Plain, Store};
use proptest::{prelude::*, test_runner::TestRunner};
use std::array;

/// The words of the largest struct page.
const WORDS: usize = 12;

/// How many pages there are before a run, and beyond it.
const AROUND: usize = 6;

/// What is in all pages that are not initialised.
const CANARY: usize = 0x5a5a_5a5a_a5a5_a5a5_u64 as usize;

/// The words of the first page, and by how much each of them moves from page to page.
type Runs = BoxedStrategy<([usize; WORDS], [usize; WORDS])>;

/// A step: anything, with a liking for those of pointers into struct pages, and for none.
fn step() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(0),
        (7..=WORDS).prop_map(|words| words * size_of::<usize>()),
        any::<usize>(),
    ]
}

/// Runs of which the words in `moving` move.
fn runs(moving: impl Strategy<Value = Vec<usize>> + 'static) -> Runs {
    (
        any::<[usize; WORDS]>(),
        prop::array::uniform12(step()),
        moving,
    )
        .prop_map(|(first, steps, moving)| {
            let stays = |index| !moving.contains(&index);

            (
                first,
                array::from_fn(|index| if stays(index) { 0 } else { steps[index] }),
            )
        })
        .boxed()
}

/// The same, but two of the words are a list head that moves: both are alike.
fn with_list_head(runs: Runs) -> Runs {
    let step = prop_oneof![Just(64), 1..=usize::MAX];

    (runs, step)
        .prop_map(|((mut first, mut steps), step)| {
            first[2] = first[1];
            steps[1..=2].fill(step);
            (first, steps)
        })
        .boxed()
}

pub(crate) fn nothing_moves() {
    all_sizes(runs(Just(vec![])));
}

pub(crate) fn a_list_head_moves() {
    all_sizes(with_list_head(runs(Just(vec![]))));
}

pub(crate) fn a_list_head_and_a_word_move() {
    all_sizes(with_list_head(runs(
        (0..WORDS).prop_map(|index| vec![index]),
    )));
}

pub(crate) fn one_word_moves() {
    all_sizes(runs((0..WORDS).prop_map(|index| vec![index])));
}

/// Those of a list head, but it is none: their steps differ, or they do, but for one page maybe.
pub(crate) fn two_words_move() {
    let runs = (runs(Just(vec![1, 2])), 0..6usize, any::<bool>());

    all_sizes(
        runs.prop_map(|((mut first, mut steps), page, in_step)| {
            if in_step {
                steps[2] = steps[1];
            } else if page < 4 {
                let apart = steps[1].wrapping_sub(steps[2]);

                first[2] = first[1].wrapping_add(page.wrapping_mul(apart));
            }
            (first, steps)
        })
        .boxed(),
    );
}

pub(crate) fn anything_moves() {
    all_sizes(runs(Just((0..WORDS).collect())));
}

/// With all sizes that a struct page may have, and some that it does not.
fn all_sizes(runs: Runs) {
    all_stores::<7>(&runs);
    all_stores::<8>(&runs);
    all_stores::<9>(&runs);
    all_stores::<10>(&runs);
    all_stores::<12>(&runs);
}

fn all_stores<const N: usize>(runs: &Runs) {
    check::<N, Plain>("Plain", runs);
    #[cfg(CONFIG_X86_64)]
    check::<N, NonTemporal>("NonTemporal", runs);
}

/// Stamps runs of struct pages of `N` words, and looks at each word of them and of those around.
fn check<const N: usize, S: Store>(store: &str, runs: &Runs) {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };

    TestRunner::new(config)
        .run(&(runs, 0..=200usize), |((first, steps), nr_pages)| {
            let page = |n: usize| -> [usize; N] {
                array::from_fn(|index| first[index].wrapping_add(n.wrapping_mul(steps[index])))
            };
            let mut pages = vec![[CANARY; N]; AROUND + nr_pages + AROUND];
            let run = &mut pages[AROUND..];

            for (n, words) in run.iter_mut().enumerate().take(nr_pages.min(2)) {
                *words = page(n);
            }
            // SAFETY: There are more than `nr_pages`, and they are ours.
            unsafe { stamp::<N, 1, S>(run.as_mut_ptr(), nr_pages) };

            for (n, words) in pages.iter().enumerate() {
                match n.checked_sub(AROUND).filter(|&n| n < nr_pages) {
                    Some(n) => prop_assert_eq!(*words, page(n), "page {} is wrong", n),
                    None => prop_assert_eq!(*words, [CANARY; N], "a page outside was written"),
                }
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{N} words, {store}: {error}"));
}
