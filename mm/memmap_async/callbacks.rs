// SPDX-License-Identifier: GPL-2.0

//! What initialises a range that C describes: the callbacks of a `struct memmap_async_desc`.

use super::job::{
    Initializer,
    Owned, //
};
use kernel::{
    bindings,
    ffi::{
        c_ulong,
        c_void, //
    },
    prelude::*, //
};

/// `init()`, `done()` and `arg` of a `struct memmap_async_desc`.
pub(crate) struct Callbacks {
    init: unsafe extern "C" fn(c_ulong, c_ulong, *mut c_void, bool) -> c_ulong,
    done: Option<unsafe extern "C" fn(*mut c_void)>,
    arg: *mut c_void,
    preemptible: bool,
}

// SAFETY: By the contract of `struct memmap_async_desc`, both may be called on any CPU.
unsafe impl Send for Callbacks {}
// SAFETY: By the contract of `struct memmap_async_desc`, `init` may be called on several CPUs at a
// time for pieces that do not overlap.
unsafe impl Sync for Callbacks {}

impl Callbacks {
    /// Copies what is needed of `desc`.
    ///
    /// # Safety
    ///
    /// The result initialises one job, that of the range in `desc`, and nothing else. Until this
    /// job's range is done or the job is cancelled, `desc.init` and `desc.done` may be called as
    /// `struct memmap_async_desc` says.
    pub(crate) unsafe fn new(desc: &bindings::memmap_async_desc) -> Result<Self> {
        Ok(Self {
            init: desc.init.ok_or(EINVAL)?,
            done: desc.done,
            arg: desc.arg,
            preemptible: desc.preemptible,
        })
    }
}

impl Initializer for Callbacks {
    fn init(&self, owned: Owned<'_>, can_sleep: bool) -> usize {
        let pfns = owned.pfns();

        // SAFETY: By the safety requirement of `new()` only our job calls this. By the type
        // invariants of `Owned` and `Claim`, nobody else has these pfns, they are not done, and
        // this is the only call for them, so that each pfn is initialised once. The claim counts in
        // what remains of the map, so the range is not done either. And its owner is inside the
        // gate, so that a cancelling task waits for it. Thus the promise of `new()` holds.
        unsafe { (self.init)(pfns.start(), pfns.end(), self.arg, can_sleep) }
    }

    fn done(&self) {
        if let Some(done) = self.done {
            // SAFETY: By the safety requirement of `new()` only our job calls this: once, when the
            // last claim is published, inside the gate, where a cancelling task waits for it, and
            // before it completes. Thus the promise of `new()` holds.
            unsafe { done(self.arg) }
        }
    }

    fn preemptible(&self) -> bool {
        self.preemptible
    }
}
