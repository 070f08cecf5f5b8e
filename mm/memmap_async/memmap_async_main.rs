// SPDX-License-Identifier: GPL-2.0

//! Initialisation of the memmap, the array of `struct page`: the engine.
//!
//! Boot and device memory call it through `include/linux/memmap_async.h`. What it has to initialise
//! and how is theirs to say; which CPU does which piece, and when, is decided here.
//!
//! - [`pfn`]: ranges of page frame numbers, cut into units
//! - [`claim`]: who may initialise which unit, which ones are ready
//! - [`job`]: a range on its way, the workers, and the callers who can't wait for them
//! - [`callbacks`]: how C initialises a piece of a range
//! - [`stamp`]: runs of alike struct pages
//!
//! This file holds what C calls, as the header documents it. What is better in C is in
//! `memmap_async.c`.

mod callbacks;
mod claim;
mod job;
mod pfn;
mod stamp;

use callbacks::Callbacks;
use job::Handle;
use kernel::{
    alloc::NumaNode,
    bindings,
    error::from_result,
    ffi::{
        c_int,
        c_ulong, //
    },
    prelude::*,
    types::ForeignOwnable,
    workqueue::Queue,
};
use pfn::{
    PfnRange,
    Units, //
};
use stamp::Plain;

/// How many words so many bytes of a `struct page` are.
const fn words(bytes: usize) -> usize {
    let words = bytes / size_of::<usize>();

    assert!(words * size_of::<usize>() == bytes);
    words
}

/// The words of a `struct page`.
const PAGE_WORDS: usize = words(size_of::<bindings::page>());

/// The first of the two words of `page->lru`.
const PAGE_LRU: usize = words(core::mem::offset_of!(
    bindings::page,
    __bindgen_anon_1.__bindgen_anon_1.__bindgen_anon_1.lru
));

type Foreign = KBox<Handle<Callbacks>>;

/// What C knows as `m`.
///
/// # Safety
///
/// `m` is from [`memmap_async_new()`], and is not freed before `'a` ends.
unsafe fn borrow<'a>(m: *const bindings::memmap_async) -> &'a Handle<Callbacks> {
    // SAFETY: By the safety requirement; `new` made it from a `Foreign`.
    unsafe { Foreign::borrow(m.cast_mut().cast()) }
}

/// Prepares what C describes.
///
/// `memmap_async_valid()` has looked at the range, and was stricter: for kernels without the engine
/// that is all. Here it is the constructors that establish what the types promise.
///
/// # Safety
///
/// `desc` keeps its promises until its range is done or the job is cancelled.
unsafe fn prepare(desc: &bindings::memmap_async_desc, queue: &'static Queue) -> Result<Foreign> {
    let range = PfnRange::new(desc.start_pfn, desc.end_pfn).ok_or(EINVAL)?;
    let units = Units::new(range, desc.unit_pages).ok_or(EINVAL)?;
    let nr_workers = desc.nr_workers as usize;
    let node = NumaNode::new(desc.nid).unwrap_or(NumaNode::NO_NODE);
    // SAFETY: By the safety requirement. What is made here initialises the job below.
    let init = unsafe { Callbacks::new(desc)? };
    let handle = Handle::new(init, units, nr_workers, node, queue)?;

    Ok(KBox::new(handle, GFP_KERNEL)?)
}

/// The part of `memmap_async_alloc()` that is not the same for all kernels.
///
/// # Safety
///
/// `desc` is valid and keeps its promises. `wq` is valid for good, and an unbound workqueue.
#[export]
pub unsafe extern "C" fn memmap_async_new(
    desc: *const bindings::memmap_async_desc,
    wq: *mut bindings::workqueue_struct,
) -> *mut bindings::memmap_async {
    // SAFETY: By the safety requirements.
    match unsafe { prepare(&*desc, Queue::from_raw(wq)) } {
        Ok(handle) => Foreign::into_foreign(handle).cast(),
        Err(err) => err.to_ptr(),
    }
}

/// Lets the workers begin.
///
/// # Safety
///
/// `m` is from [`memmap_async_new()`] and not freed.
#[export]
pub unsafe extern "C" fn memmap_async_start(m: *mut bindings::memmap_async) {
    // SAFETY: By the safety requirement.
    unsafe { borrow(m) }.start();
}

/// Has some struct pages initialised now.
///
/// # Safety
///
/// `m` is from [`memmap_async_new()`] and not freed.
#[export]
pub unsafe extern "C" fn memmap_async_sync(
    m: *mut bindings::memmap_async,
    start_pfn: c_ulong,
    end_pfn: c_ulong,
) -> c_int {
    // SAFETY: By the safety requirement.
    let job = unsafe { borrow(m) }.job();

    from_result(|| {
        job.sync(PfnRange::new(start_pfn, end_pfn).ok_or(EINVAL)?)?;
        Ok(0)
    })
}

/// Initialises units that are not claimed yet.
///
/// # Safety
///
/// `m` is from [`memmap_async_new()`] and not freed.
#[export]
pub unsafe extern "C" fn memmap_async_grow(
    m: *mut bindings::memmap_async,
    nr_pages: c_ulong,
) -> c_ulong {
    // SAFETY: By the safety requirement.
    unsafe { borrow(m) }.job().grow(nr_pages)
}

/// Waits until all of the range is initialised.
///
/// # Safety
///
/// `m` is from [`memmap_async_new()`], started, and not freed.
#[export]
pub unsafe extern "C" fn memmap_async_wait(m: *mut bindings::memmap_async) {
    // SAFETY: By the safety requirement.
    unsafe { borrow(m) }.job().wait();
}

/// Stops: when this returns, the range is left alone.
///
/// # Safety
///
/// `m` is from [`memmap_async_new()`] and not freed.
#[export]
pub unsafe extern "C" fn memmap_async_cancel(m: *mut bindings::memmap_async) {
    // SAFETY: By the safety requirement.
    unsafe { borrow(m) }.job().cancel();
}

/// Cancels what is still to do, and frees it.
///
/// # Safety
///
/// `m` is from [`memmap_async_new()`], and is not used any more.
#[export]
pub unsafe extern "C" fn memmap_async_free(m: *mut bindings::memmap_async) {
    // SAFETY: By the safety requirement this is the last use of what `new` made from a `Foreign`.
    let handle = unsafe { Foreign::from_foreign(m.cast()) };

    // A worker can still be about to find out that nothing is left to do; it has its reference.
    handle.job().cancel();
}

/// Returns the pages that became available so far.
///
/// # Safety
///
/// `m` is from [`memmap_async_new()`] and not freed.
#[export]
pub unsafe extern "C" fn memmap_async_nr_pages(m: *const bindings::memmap_async) -> c_ulong {
    // SAFETY: By the safety requirement.
    unsafe { borrow(m) }.job().nr_pages()
}

/// Initialises a run of struct pages after the example of two.
///
/// # Safety
///
/// As `memmap_stamp()` in the header says.
#[export]
pub unsafe extern "C" fn memmap_stamp(page: *mut bindings::page, nr_pages: c_ulong) {
    // SAFETY: By the safety requirement. A `struct page` consists of words.
    unsafe { stamp::stamp::<PAGE_WORDS, PAGE_LRU, Plain>(page.cast(), nr_pages) };
}

/// As `memmap_stamp()`, by non-temporal stores.
///
/// # Safety
///
/// As `memmap_stamp()` in the header says.
#[cfg(CONFIG_X86_64)]
#[export]
pub unsafe extern "C" fn memmap_stamp_nontemporal(page: *mut bindings::page, nr_pages: c_ulong) {
    // SAFETY: By the safety requirement. A `struct page` consists of words.
    unsafe { stamp::stamp::<PAGE_WORDS, PAGE_LRU, stamp::NonTemporal>(page.cast(), nr_pages) };
}
