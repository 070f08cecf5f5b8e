// SPDX-License-Identifier: GPL-2.0

//! The memory that stands for a memmap: much more than the caches hold, and there already.

use crate::ways::{Page, UNIT};
use std::{fs, io, mem, ops::Range, ptr, thread};

const MIB: usize = 1 << 20;
const HUGE: usize = 2 * MIB;

/// Struct pages, mapped by huge pages if the system has them to give, as the kernel's memmap is.
pub(crate) struct Memmap {
    pages: *mut Page,
    nr_pages: usize,
    mapping: *mut libc::c_void,
    len: usize,
    /// How much of it is in huge pages.
    pub(crate) huge_mib: usize,
}

// SAFETY: It has no state but memory, and gives out only raw pointers to that.
unsafe impl Sync for Memmap {}

// SAFETY: Any thread can unmap it.
unsafe impl Send for Memmap {}

impl Memmap {
    /// `mib` of memory, faulted in by so many threads, each the part that it is going to write.
    pub(crate) fn new(mib: usize, threads: usize) -> Self {
        let len = mib * MIB + HUGE;
        // SAFETY: A new mapping, at an address of the system's choice.
        let mapping = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert!(
            mapping != libc::MAP_FAILED,
            "cannot map {mib} MiB: {}",
            io::Error::last_os_error()
        );

        // Refused where there are no huge pages; then `huge_mib` says that.
        //
        // SAFETY: It is our mapping, and this does not change what is in it.
        unsafe { libc::madvise(mapping, len, libc::MADV_HUGEPAGE) };

        let mut memmap = Self {
            pages: mapping.map_addr(|addr| addr.next_multiple_of(HUGE)).cast(),
            nr_pages: mib * MIB / size_of::<Page>(),
            mapping,
            len,
            huge_mib: 0,
        };

        thread::scope(|scope| {
            for thread in 0..threads {
                let memmap = &memmap;

                scope.spawn(move || {
                    bind(thread, threads);
                    for unit in memmap.part(thread, threads) {
                        // SAFETY: There are so many, and they are ours.
                        unsafe { memmap.unit(unit).write_bytes(0xff, UNIT) };
                    }
                });
            }
        });
        memmap.huge_mib = huge_mib(mapping.addr()..mapping.addr() + len);
        memmap
    }

    pub(crate) fn nr_units(&self) -> usize {
        self.nr_pages / UNIT
    }

    /// The units of one of so many threads.
    pub(crate) fn part(&self, thread: usize, threads: usize) -> Range<usize> {
        let border = |thread| self.nr_units() * thread / threads;

        border(thread)..border(thread + 1)
    }

    /// The first page of a unit.
    pub(crate) fn unit(&self, unit: usize) -> *mut Page {
        assert!(unit < self.nr_units());
        self.pages.wrapping_add(unit * UNIT)
    }
}

impl Drop for Memmap {
    fn drop(&mut self) {
        // SAFETY: It is our mapping, and no pointer into it is used any more.
        unsafe { libc::munmap(self.mapping, self.len) };
    }
}

/// Has the calling thread, one of so many, run on a CPU of its own, so that no two wait for each
/// other, and that on a machine with several nodes it gets its memory from where it writes it. One
/// thread alone may run anywhere.
pub(crate) fn bind(thread: usize, threads: usize) {
    let size = size_of::<libc::cpu_set_t>();

    if threads == 1 {
        return;
    }
    // SAFETY: A set of CPUs is an array of bits, and these functions read or write no more than the
    // one that they are given. Should they fail, the scheduler decides.
    unsafe {
        let mut allowed: libc::cpu_set_t = mem::zeroed();
        let mut one: libc::cpu_set_t = mem::zeroed();

        if libc::sched_getaffinity(0, size, &mut allowed) == 0 {
            let cpu = (0..8 * size)
                .filter(|&cpu| libc::CPU_ISSET(cpu, &allowed))
                .nth(thread);

            if let Some(cpu) = cpu {
                libc::CPU_SET(cpu, &mut one);
                libc::sched_setaffinity(0, size, &one);
            }
        }
    }
}

/// `AnonHugePages` of what is mapped there.
fn huge_mib(addrs: Range<usize>) -> usize {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let mut inside = false;
    let mut kib = 0;

    for line in smaps.lines() {
        // A mapping begins with its addresses, all else with a name and a colon.
        let start = line
            .split_once('-')
            .and_then(|(start, _)| usize::from_str_radix(start, 16).ok());

        if let Some(start) = start {
            // The system may have made one mapping of it and a neighbour, so that it ends there.
            inside = addrs.contains(&start) || inside && start < addrs.end;
        } else if let Some(value) = line.strip_prefix("AnonHugePages:").filter(|_| inside) {
            kib += number(value);
        }
    }
    kib / 1024
}

/// Memory that is free, or would be.
pub(crate) fn available_mib() -> usize {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));

    available.map_or(4096, |value| number(value) / 1024)
}

/// The number in ` 123 kB`.
fn number(value: &str) -> usize {
    value
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}
