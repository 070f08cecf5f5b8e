// SPDX-License-Identifier: GPL-2.0

//! Preemption control.
//!
//! C header: [`include/linux/preempt.h`](srctree/include/linux/preempt.h)

use crate::types::NotThreadSafe;

/// A guard that represents that preemption is off on this CPU.
///
/// It stays off until the last such guard is dropped. Its owner must not sleep, and should not hold
/// it for more than some microseconds.
///
/// # Invariants
///
/// `preempt_disable()` was called for this object, and `preempt_enable()` was not.
///
/// # Examples
///
/// ```
/// use kernel::preempt::PreemptDisabled;
///
/// let outer = PreemptDisabled::new();
/// {
///     // They nest.
///     let _inner = PreemptDisabled::new();
/// }
/// drop(outer);
/// ```
#[must_use = "preemption is on again when this is dropped"]
pub struct PreemptDisabled(NotThreadSafe);

impl PreemptDisabled {
    /// Turns preemption off.
    ///
    /// Callable from any context.
    #[doc(alias = "preempt_disable")]
    #[inline]
    #[allow(clippy::new_without_default, reason = "this has an effect")]
    pub fn new() -> Self {
        // SAFETY: It is always safe to call `preempt_disable()`.
        unsafe { bindings::preempt_disable() };

        // INVARIANT: Just called.
        Self(NotThreadSafe)
    }
}

impl Drop for PreemptDisabled {
    #[doc(alias = "preempt_enable")]
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant, this is the counterpart of a `preempt_disable()`, and the
        // same task calls it since `Self` is not `Send`.
        unsafe { bindings::preempt_enable() };
    }
}

#[macros::kunit_tests(rust_preempt)]
mod tests {
    use super::*;

    #[test]
    fn guards_nest() {
        // SAFETY: `preempt_count()` only reads, and can be called from anywhere.
        let count = || unsafe { bindings::preempt_count() };
        let on = count();

        let outer = PreemptDisabled::new();
        let off = count();
        let inner = PreemptDisabled::new();
        drop(outer);
        assert_eq!(off, count());
        drop(inner);
        assert_eq!(on, count());

        if cfg!(CONFIG_PREEMPT_COUNT) {
            assert!(off > on);
        }
    }
}
