// SPDX-License-Identifier: GPL-2.0

//! Runs of alike struct pages, written after the example of their first two.
//!
//! From one struct page of such a run to the next, each word stays what it is or moves by the same
//! step: that of a list head, say, which points to itself. So the first two tell all there is to
//! know about the others. They are initialised by the helpers that the kernel has for that, in C,
//! which remain the only ones to know what a struct page holds.
//!
//! Some code that goes by pfn reads a struct page before it is ready, `read_page_owner()` and
//! `is_free_buddy_page()`, and copes with what it finds. No other code may. So this is no data
//! race as long as words are read and written one by one, by volatile accesses, as by `READ_ONCE()`
//! and `WRITE_ONCE()`.
//!
//! Non-temporal stores are drained before [`stamp()`] returns: to publish the run takes no more
//! than the usual release.
//!
//! Nothing here sleeps, allocates or panics: a caller may have interrupts off.
//!
//! This file is also compiled in user space, where it is measured.

use core::array::from_fn;

/// How a word of a struct page gets to memory.
pub(crate) trait Store {
    /// Stores `word`, at once as far as others can see.
    ///
    /// # Safety
    ///
    /// `to` is aligned and valid for volatile writes.
    unsafe fn store(to: *mut usize, word: usize);

    /// Has all that was stored ordered before what this CPU stores from now on.
    fn drain();
}

/// By way of the caches, as usual.
pub(crate) struct Plain;

impl Store for Plain {
    #[inline(always)]
    unsafe fn store(to: *mut usize, word: usize) {
        // SAFETY: By the safety requirement.
        unsafe { to.write_volatile(word) };
    }

    fn drain() {}
}

/// Non-temporal stores, for memory that is not read soon: lines are written without being read
/// first, and what is cached stays.
#[cfg(CONFIG_X86_64)]
pub(crate) struct NonTemporal;

#[cfg(CONFIG_X86_64)]
impl Store for NonTemporal {
    #[inline(always)]
    unsafe fn store(to: *mut usize, word: usize) {
        // C has this in asm/string_64.h of x86. There is no such place for Rust, and a helper in C
        // would be a call for each word.
        //
        // SAFETY: By the safety requirement; this writes a word there and does nothing else.
        unsafe {
            core::arch::asm!(
                "movnti [{to}], {word}",
                to = in(reg) to,
                word = in(reg) word,
                options(nostack, preserves_flags)
            )
        };
    }

    fn drain() {
        // SAFETY: A barrier, which any code may use.
        unsafe { core::arch::asm!("sfence", options(nostack, preserves_flags)) };
    }
}

/// How many struct pages are written in one turn of the loop: of what that takes, there is little
/// left for each then.
const UNROLL: usize = 4;

/// A struct page of `N` words, and how each of them moves from page to page.
///
/// Word `LRU` and the next are `page->lru`, which all but device pages have: both point to the list
/// head itself.
pub(crate) struct PageImage<const N: usize, const LRU: usize> {
    words: [usize; N],
    steps: [usize; N],
}

impl<const N: usize, const LRU: usize> PageImage<N, LRU> {
    /// The image of the page after `second`, where `first` is the one before that.
    pub(crate) fn after(first: &[usize; N], second: &[usize; N]) -> Self {
        let steps: [usize; N] = from_fn(|index| second[index].wrapping_sub(first[index]));
        let words = from_fn(|index| second[index].wrapping_add(steps[index]));

        Self { words, steps }
    }

    /// Writes the `nr_pages` struct pages at `page`.
    ///
    /// # Safety
    ///
    /// They are aligned and valid for volatile writes. Nobody else writes to them, nor reads them
    /// other than word by word.
    pub(crate) unsafe fn write<S: Store>(mut self, page: *mut [usize; N], nr_pages: usize) {
        // SAFETY: By the safety requirement, for each page.
        unsafe {
            if self.steps == [0; N] {
                self.write_alike::<S, false>(page, nr_pages);
            } else if self.is_list_head() {
                self.write_alike::<S, true>(page, nr_pages);
            } else {
                (0..nr_pages).for_each(|n| self.write_next::<S>(page.wrapping_add(n)));
            }
        }
    }

    /// Whether nothing but a list head moves.
    fn is_list_head(&self) -> bool {
        const { assert!(LRU + 1 < N) };

        self.words[LRU] == self.words[LRU + 1]
            && self.steps[LRU] == self.steps[LRU + 1]
            && (0..N).all(|index| self.steps[index] == 0 || (LRU..LRU + 2).contains(&index))
    }

    /// Writes pages of which nothing moves, or with `HEAD` a list head does.
    ///
    /// # Safety
    ///
    /// As for [`write()`](Self::write).
    #[expect(
        clippy::needless_range_loop,
        reason = "what stays is kept in registers, and the compiler does not unroll iterators"
    )]
    unsafe fn write_alike<S: Store, const HEAD: bool>(
        &self,
        page: *mut [usize; N],
        nr_pages: usize,
    ) {
        let mut head = if HEAD { self.words[LRU] } else { 0 };
        let step = if HEAD { self.steps[LRU] } else { 0 };
        let words = self.words;
        let end = page.wrapping_add(nr_pages);
        let mut page = page;

        let mut write_next = |page: *mut [usize; N]| {
            for index in 0..N {
                let word = if HEAD && (LRU..LRU + 2).contains(&index) {
                    head
                } else {
                    words[index]
                };

                // SAFETY: `index` is less than `N`, and `page` is one of those before `end`.
                unsafe { S::store(page.cast::<usize>().wrapping_add(index), word) };
            }
            head = head.wrapping_add(step);
        };

        for _ in 0..nr_pages / UNROLL {
            for n in 0..UNROLL {
                write_next(page.wrapping_add(n));
            }
            page = page.wrapping_add(UNROLL);
        }
        while page < end {
            write_next(page);
            page = page.wrapping_add(1);
        }
    }

    /// Writes one page, and goes on to the next.
    ///
    /// # Safety
    ///
    /// As for [`write()`](Self::write), for the one at `page`.
    unsafe fn write_next<S: Store>(&mut self, page: *mut [usize; N]) {
        for index in 0..N {
            // SAFETY: `index` is less than `N`.
            unsafe { S::store(page.cast::<usize>().wrapping_add(index), self.words[index]) };
            self.words[index] = self.words[index].wrapping_add(self.steps[index]);
        }
    }
}

/// Reads a struct page word by word, since a reference to it would say that nobody else can get at
/// it.
///
/// # Safety
///
/// `page` is aligned, valid for volatile reads, and initialised.
unsafe fn read<const N: usize>(page: *const [usize; N]) -> [usize; N] {
    from_fn(|index| {
        // SAFETY: By the safety requirement; `index` is less than `N`.
        unsafe { page.cast::<usize>().wrapping_add(index).read_volatile() }
    })
}

/// Writes all but the first two of the `nr_pages` struct pages at `page`, after their example.
///
/// # Safety
///
/// All of them are aligned and valid for volatile reads and writes. Nobody else writes to them, nor
/// reads them other than word by word. The first two, if there are so many, are initialised, each
/// word of them: the helpers that do so begin by zeroing all of the struct page.
pub(crate) unsafe fn stamp<const N: usize, const LRU: usize, S: Store>(
    page: *mut [usize; N],
    nr_pages: usize,
) {
    if nr_pages > 2 {
        // SAFETY: There are more than two, and these are initialised.
        let [first, second] = unsafe { [read(page), read(page.wrapping_add(1))] };
        let image = PageImage::<N, LRU>::after(&first, &second);

        // SAFETY: These are the others.
        unsafe { image.write::<S>(page.wrapping_add(2), nr_pages - 2) };
        S::drain();
    }
}

#[cfg(CONFIG_MEMMAP_ASYNC_KUNIT_TEST)]
#[kernel::macros::kunit_tests(memmap_async_stamp)]
mod tests {
    use super::*;
    use kernel::prelude::*;

    /// What nobody is to write.
    const CANARY: usize = 0x5a5a_5a5a;

    /// Stamps runs of all lengths up to some, in struct pages of `N` words that move by `steps`.
    fn check_with<const N: usize, S: Store>(steps: [usize; N]) {
        let words: [usize; N] = core::array::from_fn(|index| (!index).rotate_left(17));
        let page = |n: usize| -> [usize; N] {
            core::array::from_fn(|index| words[index].wrapping_add(n.wrapping_mul(steps[index])))
        };

        for nr_pages in 0..19 {
            let mut run = KVec::from_elem([CANARY; N], 20, GFP_KERNEL).unwrap();

            for n in 0..nr_pages.min(2) {
                run[n] = page(n);
            }
            // SAFETY: There are 20, and they are ours.
            unsafe { stamp::<N, 1, S>(run.as_mut_ptr(), nr_pages) };

            for n in 0..20 {
                let want = if n < nr_pages { page(n) } else { [CANARY; N] };

                assert!(run[n] == want);
            }
        }
    }

    fn check<const N: usize>(steps: [usize; N]) {
        check_with::<N, Plain>(steps);
        #[cfg(CONFIG_X86_64)]
        check_with::<N, NonTemporal>(steps);
    }

    #[test]
    fn nothing_moves() {
        check([0; 7]);
        check([0; 8]);
        check([0; 12]);
    }

    #[test]
    fn a_list_head_moves() {
        check([0, 56, 56, 0, 0, 0, 0]);
        check([0, 64, 64, 0, 0, 0, 0, 0]);
        check([0, 0, 80, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn anything_moves() {
        check([64, 0, 0, 0, 0, 0, 0, 0]);
        check([0, 64, 64, 0, 0, 0, 0, 4096]);
        check([1, usize::MAX, 1 << 63, 3, 0, 0x1000, 7, 9, 11]);
    }
}
