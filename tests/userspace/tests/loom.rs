// SPDX-License-Identifier: GPL-2.0

//! The claim protocol in all interleavings: see `models/mod.rs`.

// The tests use less of it than the kernel does.
#[allow(dead_code)]
#[path = "../../../mm/memmap_async/claim.rs"]
mod claim;
mod models;

macro_rules! tests {
    ($($model:ident,)*) => {
        $(
            #[test]
            fn $model() {
                models::$model();
            }
        )*
    };
}

tests! {
    two_workers_and_a_sync,
    two_workers_and_a_wait,
    the_last_publisher_has_seen_all,
    several_at_a_time_and_a_sync,
    several_are_given_up,
    syncs_of_one_unit,
    a_worker_takes_over,
    a_sync_takes_over,
    cancel_takes_what_is_not_done,
    cancel_waits_for_those_inside,
    nobody_claims_after_close,
}
