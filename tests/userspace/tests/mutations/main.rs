// SPDX-License-Identifier: GPL-2.0

//! A test of the tests: each weakened copy of a file of the engine must be found out by the models.
//!
//! `table.rs` says what is weakened, `build.rs` writes the copies. A model that goes red is run in
//! a process of its own, which ends at the first panic: unwinding would drop claims, and run on in
//! a model that is broken already.

// That is what this is about: the models are compiled for each copy.
#![allow(clippy::duplicate_mod)]

use std::{env, panic, process};

include!(concat!(env!("OUT_DIR"), "/mutants.rs"));

/// Set for the process that runs the model.
const CHILD: &str = "MEMMAP_ASYNC_MUTANT";

/// What that process returns if the model panics.
const RED: i32 = 42;

/// Asserts that `model` panics, with `red` in what it says. To be called by the test
/// `<mutation>::goes_red`.
fn goes_red(mutation: &str, model: fn(), red: &str) {
    if env::var_os(CHILD).is_some() {
        panic::set_hook(Box::new(|info| {
            eprintln!("{info}");
            process::exit(RED);
        }));
        return model();
    }

    let output = process::Command::new(env::current_exe().unwrap())
        .args([&format!("{mutation}::goes_red"), "--exact", "--nocapture"])
        .env(CHILD, "")
        .env_remove("LOOM_MAX_PREEMPTIONS")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);

    assert!(
        output.status.code() == Some(RED) && stderr.contains(red),
        "the model should say {red:?}, but: {}\n{stderr}",
        output.status
    );
}
