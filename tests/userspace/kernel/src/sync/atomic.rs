// SPDX-License-Identifier: GPL-2.0

//! Stands in for `kernel::sync::atomic`.
//!
//! The orderings are types and limit what an operation takes, as in the kernel: what compiles here
//! compiles there. There is one generic `impl` of [`Atomic`], also as there, so that the type of a
//! literal is inferred in the same way.

use loom::sync::atomic::{fence, AtomicU64};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::Ordering as Std;

pub use ordering::{Acquire, Full, Relaxed, Release};

/// Memory orderings.
pub mod ordering {
    use std::sync::atomic::Ordering as Std;

    /// Orders nothing.
    pub struct Relaxed;

    /// Orders the load before all that follows.
    pub struct Acquire;

    /// Orders all that precedes before the store.
    pub struct Release;

    /// Orders all that precedes before the operation, and that before all that follows.
    pub struct Full;

    mod internal {
        pub trait Sealed {}

        impl Sealed for super::Relaxed {}
        impl Sealed for super::Acquire {}
        impl Sealed for super::Release {}
        impl Sealed for super::Full {}
    }

    /// Any ordering.
    pub trait Ordering: internal::Sealed {
        /// What it is called here; [`None`] for [`Full`], which C11 does not have.
        const STD: Option<Std>;
    }

    impl Ordering for Relaxed {
        const STD: Option<Std> = Some(Std::Relaxed);
    }

    impl Ordering for Acquire {
        const STD: Option<Std> = Some(Std::Acquire);
    }

    impl Ordering for Release {
        const STD: Option<Std> = Some(Std::Release);
    }

    impl Ordering for Full {
        const STD: Option<Std> = None;
    }

    /// What a load takes.
    pub trait AcquireOrRelaxed: Ordering {}

    impl AcquireOrRelaxed for Acquire {}
    impl AcquireOrRelaxed for Relaxed {}

    /// What a store takes.
    pub trait ReleaseOrRelaxed: Ordering {}

    impl ReleaseOrRelaxed for Release {}
    impl ReleaseOrRelaxed for Relaxed {}
}

loom::thread_local! {
    static LOADS: Cell<usize> = Cell::new(0);
}

/// How many times this thread has called [`Atomic::load()`].
pub fn loads() -> usize {
    LOADS.with(|nr| nr.get())
}

/// Types that an [`Atomic`] can hold.
pub trait AtomicType: Copy {
    /// To what is stored.
    fn into_repr(self) -> u64;
    /// And back.
    fn from_repr(repr: u64) -> Self;
}

macro_rules! impl_atomic_type {
    ($($t:ty)*) => {$(
        impl AtomicType for $t {
            fn into_repr(self) -> u64 {
                self as u64
            }

            fn from_repr(repr: u64) -> Self {
                repr as $t
            }
        }
    )*};
}

impl_atomic_type! { u32 u64 usize }

/// An atomic `T`.
pub struct Atomic<T: AtomicType>(AtomicU64, PhantomData<T>);

impl<T: AtomicType> Atomic<T> {
    /// An atomic that holds `v`. Not `const`: loom has to see it come into being.
    #[track_caller]
    pub fn new(v: T) -> Self {
        Self(AtomicU64::new(v.into_repr()), PhantomData)
    }

    /// Loads the value.
    #[track_caller]
    pub fn load<Ordering: ordering::AcquireOrRelaxed>(&self, _: Ordering) -> T {
        #[cfg(not(feature = "native"))]
        LOADS.with(|nr| nr.set(nr.get() + 1));
        // Neither of the two orderings is `Full`.
        T::from_repr(self.0.load(Ordering::STD.unwrap()))
    }

    /// Stores `v`.
    #[track_caller]
    pub fn store<Ordering: ordering::ReleaseOrRelaxed>(&self, v: T, _: Ordering) {
        // Neither of the two orderings is `Full`.
        self.0.store(v.into_repr(), Ordering::STD.unwrap());
    }

    /// Adds `v`, wrapping, and returns what was there before.
    #[track_caller]
    pub fn fetch_add<Ordering: ordering::Ordering>(&self, v: T, _: Ordering) -> T {
        self.rmw::<Ordering>(|a, order| a.fetch_add(v.into_repr(), order))
    }

    /// Subtracts `v`, wrapping, and returns what was there before.
    #[track_caller]
    pub fn fetch_sub<Ordering: ordering::Ordering>(&self, v: T, _: Ordering) -> T {
        self.rmw::<Ordering>(|a, order| a.fetch_sub(v.into_repr(), order))
    }

    /// Stores `new` if `old` is there. Returns what was there before, as an error if that is not
    /// `old`; nothing is ordered then.
    #[track_caller]
    pub fn cmpxchg<Ordering: ordering::Ordering>(
        &self,
        old: T,
        new: T,
        _: Ordering,
    ) -> Result<T, T> {
        let mut result = Err(old);

        self.rmw::<Ordering>(|a, order| {
            let ret = a.compare_exchange(old.into_repr(), new.into_repr(), order, Std::Relaxed);

            result = ret.map(T::from_repr).map_err(T::from_repr);
            ret.unwrap_or_else(|now| now)
        });
        result
    }

    /// Does `op` with the ordering asked for.
    ///
    /// [`Full`] is made of fences: they are what LKMM's full barriers are, and loom takes a
    /// sequentially consistent access to be no more than acquire and release.
    #[track_caller]
    fn rmw<Ordering: ordering::Ordering>(&self, op: impl FnOnce(&AtomicU64, Std) -> u64) -> T {
        let repr = match Ordering::STD {
            Some(order) => op(&self.0, order),
            // What x86 does; a fence of its own would be another instruction.
            None if cfg!(feature = "native") => op(&self.0, Std::SeqCst),
            None => {
                fence(Std::SeqCst);
                let repr = op(&self.0, Std::Relaxed);
                fence(Std::SeqCst);
                repr
            }
        };

        T::from_repr(repr)
    }
}
