// SPDX-License-Identifier: GPL-2.0

//! What the files of the engine have to do, each as functions that panic if it is not done.
//!
//! They use the files next to this module, whichever these are: the tests in `..` have the kernel's
//! there, `../mutations/` one weakened copy after the other.

pub(crate) mod claim;
pub(crate) mod job;
pub(crate) mod pfn;
