// SPDX-License-Identifier: GPL-2.0

//! All ways to initialise the struct pages of a unit.

#[cfg(CONFIG_X86_64)]
use crate::stamp::NonTemporal;
use crate::stamp::{stamp, Plain, Store};
use std::mem::offset_of;

/// How many struct pages a call initialises: those of 2 MiB, as in the kernel.
pub(crate) const UNIT: usize = 512;

/// `struct page`, as it is on 64 bits, with its largest alignment: that of a cache line.
#[derive(Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Page {
    flags: usize,
    /// `pgmap` and `zone_device_data` of device pages.
    lru: [usize; 2],
    mapping: usize,
    index: usize,
    private: usize,
    mapcount: i32,
    refcount: i32,
    memcg_data: usize,
}

/// Its words.
const WORDS: usize = 8;

const LRU: usize = offset_of!(Page, lru) / size_of::<usize>();

const _: () = assert!(size_of::<Page>() == WORDS * size_of::<usize>());

const POISON: Page = Page {
    flags: usize::MAX,
    lru: [usize::MAX; 2],
    mapping: usize::MAX,
    index: usize::MAX,
    private: usize::MAX,
    mapcount: 0,
    refcount: 77,
    memcg_data: usize::MAX,
};

/// `enum memory_type`.
const MEMORY_DEVICE_PRIVATE: u32 = 1;
const MEMORY_DEVICE_COHERENT: u32 = 2;
const MEMORY_DEVICE_FS_DAX: u32 = 3;
const MEMORY_DEVICE_PCI_P2PDMA: u32 = 5;

/// What counts of `struct dev_pagemap`.
pub(crate) struct Pgmap {
    memory_type: u32,
}

/// What a caller knows, and the compiler does not: it comes out of a black box for each unit.
pub(crate) struct Inputs {
    zone: usize,
    nid: usize,
    pgmap: Box<Pgmap>,
    /// A unit of device pages, to be copied.
    image: Vec<Page>,
}

impl Inputs {
    pub(crate) fn new() -> Self {
        let mut inputs = Self {
            zone: 3,
            nid: 0,
            pgmap: Box::new(Pgmap {
                memory_type: MEMORY_DEVICE_FS_DAX,
            }),
            image: vec![],
        };
        let mut image = vec![POISON; UNIT];

        // SAFETY: There are so many, and they are ours.
        unsafe { device_one_by_one(image.as_mut_ptr(), &inputs) };
        inputs.image = image;
        inputs
    }
}

/// What the pages are to be.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Of device memory: all alike.
    Device,
    /// Of RAM: each has a list head, which points to itself.
    ListHead,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Role {
    /// What the others are compared with.
    OneByOne,
    /// What `stamp.rs` is in the kernel, by one of its stores.
    Candidate,
    /// Something else that the kernel could do.
    Other,
    /// With vector registers, which the kernel does not have at hand: what the machine can do.
    Limit,
    /// Zeroes, which initialises nothing: what the machine can do.
    Fill,
}

/// A way to initialise the `UNIT` pages there.
///
/// # Safety
///
/// They are valid for writes, and no other thread accesses them.
type Unit = unsafe fn(*mut Page, &Inputs);

pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) role: Role,
    pub(crate) unit: Unit,
}

/// All that this machine can do.
pub(crate) fn all() -> Vec<Way> {
    let mut ways = vec![];

    for kind in [Kind::Device, Kind::ListHead] {
        let mut add = |name, role, device: Unit, list_head: Option<Unit>| {
            let unit = match kind {
                Kind::Device => Some(device),
                Kind::ListHead => list_head,
            };

            ways.extend(unit.map(|unit| Way {
                name,
                kind,
                role,
                unit,
            }));
        };

        add(
            "one by one, as C does",
            Role::OneByOne,
            device_one_by_one,
            Some(list_head_one_by_one),
        );
        add(
            "stamp, Plain",
            Role::Candidate,
            device_stamp::<Plain>,
            Some(list_head_stamp::<Plain>),
        );
        add(
            "stamp, Plain by words",
            Role::Candidate,
            device_stamp::<Word>,
            Some(list_head_stamp::<Word>),
        );
        #[cfg(CONFIG_X86_64)]
        {
            add(
                "stamp, NonTemporal",
                Role::Candidate,
                device_stamp::<NonTemporal>,
                Some(list_head_stamp::<NonTemporal>),
            );
            add(
                "rep movsb, 4 KiB each",
                Role::Other,
                x86::rep_movsb_page,
                None,
            );
            add(
                "rep movsb, a unit each",
                Role::Other,
                x86::rep_movsb_unit,
                None,
            );
        }
        #[cfg(CONFIG_X86_64)]
        if is_x86_feature_detected!("avx2") {
            add(
                "AVX",
                Role::Limit,
                x86::device_avx::<false>,
                Some(x86::list_head_avx::<false>),
            );
            add(
                "AVX, non-temporal",
                Role::Limit,
                x86::device_avx::<true>,
                Some(x86::list_head_avx::<true>),
            );
        }
        add("memset", Role::Fill, memset, None);
        #[cfg(CONFIG_X86_64)]
        add("rep stosb", Role::Fill, x86::rep_stosb, None);
    }
    ways
}

/// Panics if what should initialise pages does not.
pub(crate) fn check(ways: &[Way]) {
    let inputs = Inputs::new();
    let mut pages = vec![POISON; 1 + UNIT + 1];
    let mut want = vec![];

    for way in ways {
        pages.fill(POISON);
        // SAFETY: There are so many, and they are ours.
        unsafe { (way.unit)(pages[1..].as_mut_ptr(), &inputs) };

        let name = way.name;
        match way.role {
            Role::OneByOne => want = pages.clone(),
            Role::Fill => continue,
            _ => assert!(pages == want, "{name} does not initialise pages as C does"),
        }
        assert!(
            pages[0] == POISON && pages[1 + UNIT] == POISON,
            "{name} writes too much"
        );
    }
}

// --- one by one ------------------------------------------------------------------------------------

/// A store, of all that C has left of the stores in `__init_single_page()` and after it: those that
/// others overwrite at once are gone there, but it keeps the order of the rest, and has no vector
/// registers to write two fields at a time.
///
/// # Safety
///
/// `to` is valid for writes.
#[inline(always)]
unsafe fn set<T>(to: *mut T, value: T) {
    // SAFETY: By the safety requirement.
    unsafe { to.write_volatile(value) };
}

/// `__init_single_page()`.
///
/// # Safety
///
/// `page` is valid for writes.
#[inline(always)]
unsafe fn init_single_page(page: *mut Page, zone: usize, nid: usize) {
    // SAFETY: By the safety requirement.
    unsafe {
        set(&raw mut (*page).mapping, 0);
        set(&raw mut (*page).index, 0);
        set(&raw mut (*page).private, 0);
        set(&raw mut (*page).memcg_data, 0);
        set(&raw mut (*page).flags, (zone & 3) << 56 | nid << 58);
        set(&raw mut (*page).refcount, 1);
        set(&raw mut (*page).mapcount, -1);
        let lru = &raw mut (*page).lru;
        set(&raw mut (*lru)[0], lru.addr());
        set(&raw mut (*lru)[1], lru.addr());
    }
}

/// The same as a function, which it is in C: nothing of it can be done for many pages at once.
///
/// # Safety
///
/// `page` is valid for writes.
#[inline(never)]
unsafe fn init_ram_page(page: *mut Page, zone: usize, nid: usize) {
    // SAFETY: By the safety requirement.
    unsafe { init_single_page(page, zone, nid) };
}

/// `__init_zone_device_page()`, also a function in C.
///
/// # Safety
///
/// `page` is valid for writes, and was so for reads.
#[inline(never)]
unsafe fn init_zone_device_page(page: *mut Page, zone: usize, nid: usize, pgmap: *const Pgmap) {
    // SAFETY: By the safety requirement.
    unsafe {
        init_single_page(page, zone, nid);

        // __SetPageReserved()
        let flags = &raw mut (*page).flags;
        set(flags, flags.read_volatile() | 1 << 13);

        // page_folio(page)->pgmap: a tail's bit is clear, since the list head was just written.
        let info = (&raw const (*page).lru[0]).read_volatile();
        let mask = info | (info & 1).wrapping_sub(1);
        let folio = page.map_addr(|addr| addr & mask);
        set(&raw mut (*folio).lru[0], pgmap.addr());
        set(&raw mut (*page).lru[1], 0);

        match (&raw const (*pgmap).memory_type).read_volatile() {
            MEMORY_DEVICE_FS_DAX
            | MEMORY_DEVICE_PRIVATE
            | MEMORY_DEVICE_COHERENT
            | MEMORY_DEVICE_PCI_P2PDMA => set(&raw mut (*page).refcount, 0),
            _ => {}
        }
    }
}

/// # Safety
///
/// As for [`Unit`], with `nr_pages`.
#[inline(always)]
unsafe fn device_pages(page: *mut Page, inputs: &Inputs, nr_pages: usize) {
    for n in 0..nr_pages {
        // SAFETY: By the safety requirement.
        unsafe {
            init_zone_device_page(
                page.wrapping_add(n),
                inputs.zone,
                inputs.nid,
                &*inputs.pgmap,
            )
        };
    }
}

/// # Safety
///
/// As for [`Unit`], with `nr_pages`.
#[inline(always)]
unsafe fn list_head_pages(page: *mut Page, inputs: &Inputs, nr_pages: usize) {
    for n in 0..nr_pages {
        // SAFETY: By the safety requirement.
        unsafe { init_ram_page(page.wrapping_add(n), inputs.zone, inputs.nid) };
    }
}

/// # Safety
///
/// As for [`Unit`].
unsafe fn device_one_by_one(page: *mut Page, inputs: &Inputs) {
    // SAFETY: By the safety requirement.
    unsafe { device_pages(page, inputs, UNIT) };
}

/// # Safety
///
/// As for [`Unit`].
unsafe fn list_head_one_by_one(page: *mut Page, inputs: &Inputs) {
    // SAFETY: By the safety requirement.
    unsafe { list_head_pages(page, inputs, UNIT) };
}

// --- stamp.rs --------------------------------------------------------------------------------------

/// [`Plain`] as it is in the kernel for sure: a store for each word. There the compiler has no
/// vector registers; here it has some, and might make one store of two words.
struct Word;

impl Store for Word {
    #[inline(always)]
    unsafe fn store(to: *mut usize, word: usize) {
        // SAFETY: By the safety requirement.
        unsafe { set(to, word) };
    }

    fn drain() {}
}

/// # Safety
///
/// As for [`Unit`].
unsafe fn device_stamp<S: Store>(page: *mut Page, inputs: &Inputs) {
    // SAFETY: By the safety requirement, and the first two are initialised.
    unsafe {
        device_pages(page, inputs, 2);
        stamp::<WORDS, LRU, S>(page.cast(), UNIT);
    }
}

/// # Safety
///
/// As for [`Unit`].
unsafe fn list_head_stamp<S: Store>(page: *mut Page, inputs: &Inputs) {
    // SAFETY: By the safety requirement, and the first two are initialised.
    unsafe {
        list_head_pages(page, inputs, 2);
        stamp::<WORDS, LRU, S>(page.cast(), UNIT);
    }
}

// --- others ----------------------------------------------------------------------------------------

/// # Safety
///
/// As for [`Unit`].
unsafe fn memset(page: *mut Page, _: &Inputs) {
    // SAFETY: By the safety requirement.
    unsafe { page.write_bytes(0, UNIT) };
}

#[cfg(CONFIG_X86_64)]
mod x86 {
    use super::{device_pages, list_head_pages, stamp, Inputs, Page, Word, LRU, UNIT, WORDS};
    use std::arch::{asm, x86_64::*};

    /// # Safety
    ///
    /// `from` is valid for reads of so many pages, and `to` for writes.
    #[inline(always)]
    unsafe fn rep_movsb(to: *mut Page, from: *const Page, nr_pages: usize) {
        // SAFETY: By the safety requirement; the direction flag is clear, as everywhere.
        unsafe {
            asm!(
                "rep movsb",
                inout("rcx") nr_pages * size_of::<Page>() => _,
                inout("rdi") to => _,
                inout("rsi") from => _,
                options(nostack, preserves_flags)
            )
        };
    }

    /// Copies the first 4 KiB of the pages to the others.
    ///
    /// # Safety
    ///
    /// As for [`Unit`](super::Unit).
    pub(super) unsafe fn rep_movsb_page(page: *mut Page, inputs: &Inputs) {
        const PAGES: usize = 4096 / size_of::<Page>();

        // SAFETY: By the safety requirement, and the first two are initialised.
        unsafe {
            device_pages(page, inputs, 2);
            stamp::<WORDS, LRU, Word>(page.cast(), PAGES);
        }
        for n in 1..UNIT / PAGES {
            // SAFETY: The first ones are initialised, and these are others.
            unsafe { rep_movsb(page.wrapping_add(n * PAGES), page, PAGES) };
        }
    }

    /// Copies a unit that was initialised some time ago.
    ///
    /// # Safety
    ///
    /// As for [`Unit`](super::Unit).
    pub(super) unsafe fn rep_movsb_unit(page: *mut Page, inputs: &Inputs) {
        // SAFETY: By the safety requirement, and the image is of so many.
        unsafe { rep_movsb(page, inputs.image.as_ptr(), UNIT) };
    }

    /// # Safety
    ///
    /// As for [`Unit`](super::Unit).
    pub(super) unsafe fn rep_stosb(page: *mut Page, _: &Inputs) {
        // SAFETY: By the safety requirement; the direction flag is clear, as everywhere.
        unsafe {
            asm!(
                "rep stosb",
                inout("rcx") UNIT * size_of::<Page>() => _,
                inout("rdi") page => _,
                in("al") 0u8,
                options(nostack, preserves_flags)
            )
        };
    }

    /// # Safety
    ///
    /// As for [`Unit`](super::Unit), and the CPU has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn device_avx<const NON_TEMPORAL: bool>(page: *mut Page, inputs: &Inputs) {
        // SAFETY: By the safety requirement, and the first two are initialised.
        unsafe {
            device_pages(page, inputs, 2);
            stamp_avx::<NON_TEMPORAL, false>(page);
        }
    }

    /// # Safety
    ///
    /// As for [`Unit`](super::Unit), and the CPU has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn list_head_avx<const NON_TEMPORAL: bool>(page: *mut Page, inputs: &Inputs) {
        // SAFETY: By the safety requirement, and the first two are initialised.
        unsafe {
            list_head_pages(page, inputs, 2);
            stamp_avx::<NON_TEMPORAL, true>(page);
        }
    }

    /// What `stamp()` does, by stores of four words.
    ///
    /// # Safety
    ///
    /// As for [`Unit`](super::Unit), the first two are initialised, and the CPU has AVX2.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn stamp_avx<const NON_TEMPORAL: bool, const MOVES: bool>(page: *mut Page) {
        let to: *mut __m256i = page.cast();

        // SAFETY: By the safety requirement; a page has two of these, which are aligned.
        unsafe {
            let mut words = [to.wrapping_add(2).read(), to.wrapping_add(3).read()];
            let steps = [
                _mm256_sub_epi64(words[0], to.read()),
                _mm256_sub_epi64(words[1], to.wrapping_add(1).read()),
            ];

            for n in 2..UNIT {
                for half in 0..2 {
                    let to = to.wrapping_add(2 * n + half);

                    if MOVES {
                        words[half] = _mm256_add_epi64(words[half], steps[half]);
                    }
                    if NON_TEMPORAL {
                        _mm256_stream_si256(to, words[half]);
                    } else {
                        _mm256_store_si256(to, words[half]);
                    }
                }
            }
            if NON_TEMPORAL {
                _mm_sfence();
            }
        }
    }
}
