// SPDX-License-Identifier: GPL-2.0

//! Stands in for the `kernel` crate where `mm/memmap_async/` is compiled in user space.
//!
//! It has what those files use and nothing else, over [`loom`], so that a model is run with all
//! interleavings and all values that a load may return. What must not be done in a section without
//! preemption panics there.
//!
//! # What it cannot cover
//!
//! - The memory model is C11 as loom has it, not LKMM. C11 has no dependencies, and loom lets no
//!   load return a value that is stored later. So loom neither relies on a dependency nor finds
//!   what only load buffering shows.
//! - Mixed-size accesses, and accesses from C.
//! - Non-temporal stores, and the fence that they need before a release.
//! - Interrupts: there are threads only, and none runs on top of another. Preemption only as far as
//!   [`preempt::when_enabled()`] goes.
//! - Freezing, RCU, priorities, memory that is short.
//!
//! With the feature `native` the standard library takes loom's place, so that it runs as fast as
//! the machine can, and is no model.

#![expect(missing_docs, reason = "the kernel crate has them")]

#[cfg(feature = "native")]
extern crate std as loom;

pub mod workqueue;

pub mod alloc {
    use crate::prelude::*;
    use std::ops::{Deref, DerefMut};

    #[derive(Clone, Copy)]
    pub struct NumaNode;

    pub struct Flags;

    /// Both `KVec` and `KVVec`.
    pub struct KVec<T>(Vec<T>);

    impl<T> KVec<T> {
        pub fn with_capacity(capacity: usize, _: Flags) -> Result<Self> {
            Ok(Self(Vec::with_capacity(capacity)))
        }

        pub fn push(&mut self, value: T, _: Flags) -> Result {
            self.0.push(value);
            Ok(())
        }
    }

    impl<T> Deref for KVec<T> {
        type Target = [T];

        fn deref(&self) -> &[T] {
            &self.0
        }
    }

    impl<T> DerefMut for KVec<T> {
        fn deref_mut(&mut self) -> &mut [T] {
            &mut self.0
        }
    }

    impl<'a, T> IntoIterator for &'a KVec<T> {
        type Item = &'a T;
        type IntoIter = std::slice::Iter<'a, T>;

        fn into_iter(self) -> Self::IntoIter {
            self.0.iter()
        }
    }
}

pub mod prelude {
    pub use crate::{
        alloc::{KVec, KVec as KVVec},
        pin_init,
    };
    pub use macros::pin_data;

    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Error(&'static str);

    pub type Result<T = (), E = Error> = std::result::Result<T, E>;

    pub const EINVAL: Error = Error("EINVAL");
    pub const ENXIO: Error = Error("ENXIO");
    pub const GFP_KERNEL: crate::alloc::Flags = crate::alloc::Flags;
}

/// Nothing is pinned here: see [`macros::pin_data`].
#[macro_export]
macro_rules! pin_init {
    (@ $t:ident { $($done:tt)* }) => {
        $t { $($done)* }
    };
    (@ $t:ident { $($done:tt)* } $field:ident <- $value:expr, $($rest:tt)*) => {
        $crate::pin_init!(@ $t { $($done)* $field: $value, } $($rest)*)
    };
    (@ $t:ident { $($done:tt)* } $field:ident $(: $value:expr)?, $($rest:tt)*) => {
        $crate::pin_init!(@ $t { $($done)* $field $(: $value)?, } $($rest)*)
    };
    ($t:ident { $($fields:tt)* }) => {
        $crate::pin_init!(@ $t {} $($fields)*)
    };
}

pub mod preempt {
    use std::cell::{Cell, RefCell};

    loom::thread_local! {
        static DISABLED: Cell<u32> = Cell::new(0);
        static WHEN_ENABLED: RefCell<Option<Box<dyn FnOnce()>>> = RefCell::new(None);
    }

    pub struct PreemptDisabled(());

    pub fn preempt_disable() -> PreemptDisabled {
        DISABLED.with(|nr| nr.set(nr.get() + 1));
        PreemptDisabled(())
    }

    impl Drop for PreemptDisabled {
        fn drop(&mut self) {
            DISABLED.with(|nr| nr.set(nr.get() - 1));
            if !is_disabled() {
                if let Some(f) = WHEN_ENABLED.with(|f| f.borrow_mut().take()) {
                    f();
                }
            }
        }
    }

    pub fn is_disabled() -> bool {
        DISABLED.with(|nr| nr.get()) != 0
    }

    /// What this thread does when next its preemption is on again: here others can make it wait,
    /// as a scheduler can.
    pub fn when_enabled(f: impl FnOnce() + 'static) {
        WHEN_ENABLED.with(|when| *when.borrow_mut() = Some(Box::new(f)));
    }
}

pub mod processor {
    pub fn cpu_relax() {
        // A section without preemption should take microseconds, so there is no waiting in it.
        assert!(!crate::preempt::is_disabled(), "spins without preemption");
        loom::thread::yield_now();
    }
}

pub mod sync {
    use crate::{alloc::Flags, prelude::*, task::might_sleep};
    use loom::sync::{Condvar, Mutex};
    use std::ops::Deref;

    pub mod atomic;

    /// loom says if one is never freed.
    pub struct Arc<T>(loom::sync::Arc<T>);

    impl<T> Arc<T> {
        pub fn pin_init(value: T, _: Flags) -> Result<Self> {
            Ok(Self(loom::sync::Arc::new(value)))
        }
    }

    impl<T> Clone for Arc<T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    impl<T> Deref for Arc<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    pub struct Completion {
        done: Mutex<bool>,
        waiters: Condvar,
    }

    impl Completion {
        #[expect(clippy::new_without_default)]
        pub fn new() -> Self {
            Self {
                done: Mutex::new(false),
                waiters: Condvar::new(),
            }
        }

        pub fn complete_all(&self) {
            *self.done.lock().unwrap() = true;
            self.waiters.notify_all();
        }

        pub fn wait_for_completion(&self) {
            might_sleep();
            let mut done = self.done.lock().unwrap();

            while !*done {
                done = self.waiters.wait(done).unwrap();
            }
        }
    }
}

pub mod task {
    use std::cell::Cell;

    loom::thread_local! {
        static SCHEDULED: Cell<usize> = Cell::new(0);
        static MIGHT_SLEEP: Cell<usize> = Cell::new(0);
    }

    #[track_caller]
    pub fn might_sleep() {
        MIGHT_SLEEP.with(|nr| nr.set(nr.get() + 1));
        assert!(!crate::preempt::is_disabled(), "sleeps without preemption");
    }

    pub fn schedule() {
        might_sleep();
        SCHEDULED.with(|nr| nr.set(nr.get() + 1));
        loom::thread::yield_now();
    }

    /// How often this thread has called [`schedule()`].
    pub fn scheduled() -> usize {
        SCHEDULED.with(|nr| nr.get())
    }

    /// How often this thread was where it might sleep.
    pub fn might_have_slept() -> usize {
        MIGHT_SLEEP.with(|nr| nr.get())
    }
}

pub mod time {
    use std::{cell::Cell, marker::PhantomData};

    loom::thread_local! {
        static NOW: Cell<i64> = Cell::new(0);
    }

    /// Time passes in this thread, and in no other way.
    pub fn pass(nanos: i64) {
        NOW.with(|now| now.set(now.get() + nanos));
    }

    pub struct Monotonic;

    pub struct Instant<C>(i64, PhantomData<C>);

    impl<C> Instant<C> {
        #[cfg(not(feature = "native"))]
        pub fn now() -> Self {
            Self(NOW.with(|now| now.get()), PhantomData)
        }

        #[cfg(feature = "native")]
        pub fn now() -> Self {
            static START: std::sync::LazyLock<std::time::Instant> =
                std::sync::LazyLock::new(std::time::Instant::now);

            Self(START.elapsed().as_nanos() as i64, PhantomData)
        }

        pub fn elapsed(&self) -> Delta {
            Delta(Self::now().0 - self.0)
        }
    }

    pub struct Delta(i64);

    impl Delta {
        pub fn from_micros(micros: i64) -> Self {
            Self(micros * 1000)
        }

        pub fn as_nanos(&self) -> i64 {
            self.0
        }
    }

    pub mod delay {
        pub fn fsleep(_: super::Delta) {
            crate::task::might_sleep();
            loom::thread::yield_now();
        }
    }
}
