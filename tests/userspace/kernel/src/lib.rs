// SPDX-License-Identifier: GPL-2.0

//! Stands in for the `kernel` crate where `mm/memmap_async/` is compiled in user space.
//!
//! It has what those files use and nothing else: [`sync::atomic`], over [`loom`]'s atomics, so that
//! a model is run with all interleavings and all values that a load may return.
//!
//! # What it cannot cover
//!
//! - The memory model is C11 as loom has it, not LKMM. C11 has no dependencies, and loom lets no
//!   load return a value that is stored later. So loom neither relies on a dependency nor finds
//!   what only load buffering shows.
//! - Mixed-size accesses, and accesses from C.
//! - Non-temporal stores, and the fence that they need before a release.
//! - Interrupts and preemption: there are threads only, and none runs on top of another.
//! - Workqueues, freezing, sleeping, RCU.

#[allow(missing_docs)]
pub mod sync {
    pub mod atomic;
}
