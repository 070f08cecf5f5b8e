// SPDX-License-Identifier: GPL-2.0

//! The geometry of units with any input, the claim protocol and the job in all interleavings: see
//! `models/`.

#[path = "../../../mm/memmap_async/claim.rs"]
mod claim;
#[path = "../../../mm/memmap_async/job.rs"]
mod job;
mod models;
#[path = "../../../mm/memmap_async/pfn.rs"]
mod pfn;

macro_rules! tests {
    ($($file:ident { $($model:ident,)* })*) => {
        mod tests {
            $(
                mod $file {
                    $(
                        #[test]
                        fn $model() {
                            crate::models::$file::$model();
                        }
                    )*
                }
            )*
        }
    };
}

tests! {
    claim {
        the_last_publisher_has_seen_all,
        several_at_a_time_and_a_sync,
        several_are_given_up,
        a_worker_takes_over,
        a_sync_takes_over,
        cancel_waits_for_those_inside,
        cancel_waits_for_a_reader,
        nobody_claims_after_close,
    }
    job {
        a_worker_and_a_sync,
        two_workers_and_a_wait,
        two_syncs_of_one_page,
        two_syncs_of_all,
        grow_and_a_worker,
        grow_and_a_worker_that_can_be_preempted,
        wait_takes_part,
        cancel_and_a_sync,
        cancel_and_a_worker,
        cancel_and_a_worker_and_a_sync,
        cancel_ends_a_wait,
        a_preempted_worker,
        started_twice,
        nothing_else,
        grow_takes_what_it_needs,
        grow_goes_on,
        who_might_sleep_says_so,
        how_much_at_a_time,
        where_workers_begin,
        how_many_workers,
        others_get_their_turn,
    }
    pfn {
        a_range_has_a_page,
        an_intersection_holds_what_both_hold,
        a_unit_is_a_power_of_two,
        units_partition_the_range,
        several_units_are_what_each_of_them_is,
        what_covers_is_what_intersects,
        nothing_outside_is_covered,
        units_of_any_size,
    }
}
