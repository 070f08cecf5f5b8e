// SPDX-License-Identifier: GPL-2.0

//! What is weakened, one place of `claim.rs` or `stamp.rs` at a time, and which model finds it.
//!
//! Not here, because nothing that `claim.rs` promises depends on them, neither in C11 nor in LKMM:
//!
//! - The acquire of `enter()`. Threads inside have to be ordered against the canceller only, and
//!   that is done on leaving. A thread that enters relies on nothing that another did inside.
//! - The release of a refused `enter()`: it did nothing inside, and as a read-modify-write it does
//!   not end the release sequences of threads that did.
//! - The full ordering of `close()`: the acquire that counts is that of `is_empty()`. The canceller
//!   may have other reasons; they are not in this file.
//!
//! Nor `drain()` of a non-temporal store: what it orders, only another CPU can see, and seldom.

/// The kind of panic that a data race is.
const RACE: &str = "Causality violation";
/// The kind of panic that an endless loop is.
const ENDLESS: &str = "Model exceeded maximum number of branches";

/// What is said of a struct page in the run that is not what it should be.
const WRONG: &str = "is wrong";
/// What is said of one beyond the run, or before it, that is not what it was.
const OUTSIDE: &str = "a page outside was written";

/// A name, what is in the source exactly once, what to write instead, the model that must then
/// panic, and what it must say.
pub(crate) type Mutation = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

#[rustfmt::skip]
pub(crate) const CLAIM: &[Mutation] = &[
    // Orderings.
    ("publish_is_relaxed",
        "done.fetch_or(self.bits, Release)", "done.fetch_or(self.bits, Relaxed)",
        "two_workers_and_a_sync", RACE),
    ("is_done_is_relaxed",
        "done.load(Acquire)", "done.load(Relaxed)",
        "two_workers_and_a_sync", RACE),
    ("dropping_a_claim_is_relaxed",
        "todo.fetch_or(self.bits, Release)", "todo.fetch_or(self.bits, Relaxed)",
        "a_worker_takes_over", RACE),
    ("claiming_is_relaxed",
        "cmpxchg(todo, todo & !bits, Acquire)", "cmpxchg(todo, todo & !bits, Relaxed)",
        "a_worker_takes_over", RACE),
    ("the_countdown_is_relaxed",
        "remaining.fetch_sub(nr_units, Full)", "remaining.fetch_sub(nr_units, Relaxed)",
        "the_last_publisher_has_seen_all", RACE),
    ("the_countdown_is_release",
        "remaining.fetch_sub(nr_units, Full)", "remaining.fetch_sub(nr_units, Release)",
        "the_last_publisher_has_seen_all", RACE),
    ("the_countdown_is_acquire",
        "remaining.fetch_sub(nr_units, Full)", "remaining.fetch_sub(nr_units, Acquire)",
        "the_last_publisher_has_seen_all", RACE),
    ("remaining_is_relaxed",
        "remaining.load(Acquire)", "remaining.load(Relaxed)",
        "two_workers_and_a_wait", RACE),
    ("leaving_is_relaxed",
        "self.map.gate.fetch_sub(1, Release)", "self.map.gate.fetch_sub(1, Relaxed)",
        "cancel_waits_for_those_inside", RACE),
    ("is_empty_is_relaxed",
        "gate.load(Acquire) == CLOSED", "gate.load(Relaxed) == CLOSED",
        "cancel_waits_for_those_inside", RACE),

    // The protocol.
    ("claiming_does_not_exclude",
        "cmpxchg(todo, todo & !bits, Acquire)", "cmpxchg(todo, todo, Acquire)",
        "two_workers_and_a_wait", "is initialised twice"),
    ("a_published_claim_comes_back",
        "core::mem::forget(self);", "",
        "a_worker_takes_over", "is initialised twice"),
    ("a_dropped_claim_is_lost",
        "todo.fetch_or(self.bits, Release)", "todo.fetch_or(0, Release)",
        "a_sync_takes_over", ENDLESS),
    ("nobody_is_the_last",
        "remaining.fetch_sub(nr_units, Full) == nr_units", "remaining.fetch_sub(nr_units, Full) == 0",
        "the_last_publisher_has_seen_all", "so many were the last"),
    ("the_countdown_is_early",
        "self.word.done.fetch_or(self.bits, Release);",
        "self.map.remaining.fetch_sub(nr_units, Full);
         self.word.done.fetch_or(self.bits, Release);
         self.map.remaining.fetch_add(nr_units, Relaxed);",
        "two_workers_and_a_wait", "nothing remains, but unit"),
    ("one_of_several_is_published",
        "done.fetch_or(self.bits, Release)", "done.fetch_or(1 << (self.first % Word::UNITS), Release)",
        "several_at_a_time_and_a_sync", ENDLESS),
    ("one_of_several_is_counted",
        "let nr_units = u64::from(self.nr_units());", "let nr_units = 1;",
        "several_at_a_time_and_a_sync", "so many were the last"),
    ("one_of_several_is_given_back",
        "todo.fetch_or(self.bits, Release)",
        "todo.fetch_or(1 << (self.first % Word::UNITS), Release)",
        "several_are_given_up", ENDLESS),
    ("several_are_taken_across_a_gap",
        ".map_or(0, u64::trailing_ones)", ".map_or(0, u64::count_ones)",
        "several_at_a_time_and_a_sync", "is initialised twice"),
    ("one_more_is_taken",
        "first..self.first + self.nr_units() as usize",
        "first..self.first + self.nr_units() as usize + 1",
        "several_at_a_time_and_a_sync", "is initialised twice"),
    ("who_is_beaten_takes_what_he_saw",
        "Err(now) => todo = now", "Err(_) => todo = todo",
        "several_at_a_time_and_a_sync", ENDLESS),
    ("looking_for_a_unit_does_not_wrap",
        "(hint..nr_words).chain(0..hint)", "hint..nr_words",
        "a_worker_takes_over", ENDLESS),
    ("claim_does_not_mind_the_gate",
        "        if self.map.is_closed() {\n            return None;\n        }\n        self", "        self",
        "nobody_claims_after_close", "claimed after close"),
    ("claim_near_does_not_mind_the_gate",
        "            if self.map.is_closed() {\n                return None;\n            }\n            if", "            if",
        "nobody_claims_after_close", "claimed after close"),
    ("enter_does_not_mind_the_gate",
        "self.gate.fetch_add(1, Acquire) & CLOSED != 0",
        "self.gate.fetch_add(1, Acquire) == u64::MAX",
        "cancel_takes_what_is_not_done", "came in by a closed gate"),
    ("who_is_refused_stays_inside",
        "            self.gate.fetch_sub(1, Release);\n", "",
        "cancel_takes_what_is_not_done", "is still inside"),
    ("leaving_is_forgotten",
        "self.map.gate.fetch_sub(1, Release)", "self.map.gate.fetch_sub(0, Release)",
        "cancel_waits_for_those_inside", ENDLESS),
    ("cancel_does_not_wait",
        "gate.load(Acquire) == CLOSED", "gate.load(Acquire) & CLOSED != 0",
        "cancel_waits_for_those_inside", RACE),
    ("what_is_to_do_is_overlooked",
        "word.todo.load(Relaxed) & (1 << (unit % Word::UNITS)) != 0",
        "word.todo.load(Relaxed) & (1 << (unit % Word::UNITS)) != 0 && false",
        "a_sync_takes_over", ENDLESS),
    ("close_does_not_close",
        "gate.fetch_or(CLOSED, Full)", "gate.fetch_or(0, Full)",
        "cancel_waits_for_those_inside", ENDLESS),
];

#[rustfmt::skip]
pub(crate) const STAMP: &[Mutation] = &[
    // What the first two pages tell.
    ("the_image_is_the_second_page",
        "*word = word.wrapping_add(*step);", "",
        "a_list_head_moves", WRONG),
    ("steps_go_backwards",
        "word.wrapping_sub(*first)", "first.wrapping_sub(*word)",
        "a_list_head_moves", WRONG),
    ("steps_are_32_bits",
        "word.wrapping_sub(*first)", "word.wrapping_sub(*first) as u32 as usize",
        "anything_moves", WRONG),
    ("nothing_is_thought_to_move",
        "if self.steps == [0; N] {", "if true {",
        "a_list_head_moves", WRONG),
    ("what_moves_is_thought_to_be_a_list_head",
        "} else if self.is_list_head() {", "} else if true {",
        "one_word_moves", WRONG),
    ("a_list_head_points_to_two_places",
        "&& self.words[next] == self.words[prev]", "",
        "two_words_move", WRONG),
    ("a_list_head_moves_by_two_steps",
        "&& self.steps[next] == self.steps[prev]", "",
        "two_words_move", WRONG),
    ("nothing_moves_beside_a_list_head",
        "(0..N).all(", "(0..N - 1).all(",
        "a_list_head_and_a_word_move", WRONG),

    // The loops.
    ("a_list_head_stays",
        "head = head.wrapping_add(step);", "",
        "a_list_head_moves", WRONG),
    ("the_last_word_is_left_out",
        "for index in 0..N {\n                let", "for index in 0..N - 1 {\n                let",
        "nothing_moves", WRONG),
    ("the_last_word_of_any_is_left_out",
        "for index in 0..N {\n            //", "for index in 0..N - 1 {\n            //",
        "anything_moves", WRONG),
    ("other_words_stay",
        "self.words[index] = self.words[index].wrapping_add(self.steps[index]);", "",
        "one_word_moves", WRONG),
    ("the_unrolled_loop_stands",
        "page = page.wrapping_add(UNROLL);", "",
        "a_list_head_moves", WRONG),
    ("the_rest_is_left_out",
        "while page < end {", "while false {",
        "nothing_moves", WRONG),
    ("the_rest_is_rounded_up",
        "nr_pages / UNROLL", "nr_pages.div_ceil(UNROLL)",
        "nothing_moves", OUTSIDE),
    ("one_page_too_many",
        "while page < end {", "while page <= end {",
        "nothing_moves", OUTSIDE),

    // The run.
    ("the_first_two_are_not_counted",
        "nr_pages - 2)", "nr_pages)",
        "nothing_moves", OUTSIDE),
    ("three_are_no_run",
        "if nr_pages > 2 {", "if nr_pages > 3 {",
        "nothing_moves", WRONG),
    ("the_run_starts_a_page_late",
        "image.write(page.wrapping_add(2),", "image.write(page.wrapping_add(3),",
        "nothing_moves", WRONG),
];
