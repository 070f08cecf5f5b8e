// SPDX-License-Identifier: GPL-2.0

//! Preemption control.
//!
//! C header: [`include/linux/preempt.h`](srctree/include/linux/preempt.h)

use crate::types::NotThreadSafe;

/// A token that represents that preemption is off on this CPU.
///
/// It stays off until the last such token is dropped. Its owner must not sleep, and should not hold
/// it for more than some microseconds.
///
/// # Invariants
///
/// `preempt_disable()` was called for this object, and `preempt_enable()` was not.
#[must_use = "preemption is on again when this is dropped"]
pub struct PreemptDisabled(NotThreadSafe);

/// Turns preemption off.
///
/// Callable from any context.
///
/// # Examples
///
/// ```
/// use kernel::preempt::preempt_disable;
///
/// let outer = preempt_disable();
/// {
///     // They nest.
///     let _inner = preempt_disable();
/// }
/// drop(outer);
/// ```
#[inline]
pub fn preempt_disable() -> PreemptDisabled {
    // SAFETY: It is always safe to call `preempt_disable()`.
    unsafe { bindings::preempt_disable() };

    // INVARIANT: Just called.
    PreemptDisabled(NotThreadSafe)
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

#[cfg(CONFIG_RUST_PREEMPT_KUNIT_TEST)]
#[macros::kunit_tests(rust_preempt)]
mod tests {
    use super::*;

    #[test]
    fn tokens_nest() {
        // SAFETY: `preempt_count()` only reads, and can be called from anywhere.
        let count = || unsafe { bindings::preempt_count() };
        let on = count();

        let outer = preempt_disable();
        let off = count();
        let inner = preempt_disable();
        drop(outer);
        assert_eq!(off, count());
        drop(inner);
        assert_eq!(on, count());

        if cfg!(CONFIG_PREEMPT_COUNT) {
            assert!(off > on);
        }
    }
}
