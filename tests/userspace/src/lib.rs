// SPDX-License-Identifier: GPL-2.0

#![doc = include_str!("../README.md")]
// All there is are the tests in `tests/`; Cargo wants a target besides them.
