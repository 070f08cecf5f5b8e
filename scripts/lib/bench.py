#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Measure in QEMU how fast a base and a series kernel initialise struct pages,
alternately; print a table, write the figures and a picture.

Unlike demo.py this waits for all struct pages: what counts is the work, not
what has to wait for it.

With memmap_async=off the series has one worker for device memory: the task that binds,
which does it by the same function and without the engine.  With memmap_async=sync
all CPUs work, and two work items have to be seen in the trace.
"""

import functools
import os
import sys
from itertools import product

from matplotlib.figure import Figure

import measure
import report
from measure import CPUS, Job, boot_job, hotadd_job, init_job, kexec_job
from report import KINDS, at_least, at_most, binds, boots, figures, median, ratio

PMEM = 64 << 30
KERNELS = ("base", "series")
# Without memmap_async=sync boot goes on meanwhile.
BOOT_WAITS = ("base", "sync")
WORKERS = {"off": "1 worker", "sync": "2 workers"}
BIND_PARTS = {"init": "memmap init", "bind": "whole bind"}
BOOT_GIB = (4, 12, measure.MEMORY_GIB)
SMALL_BOOT = "512 MiB"
# Boots half or all of whose memory is early: its size, parameters, and how many millions of
# instructions fewer they are to take.
EARLY_BOOTS = {
    "128 MiB": (128 << 20, "", 0), SMALL_BOOT: (512 << 20, "", 1.5), "4 GiB": (4 << 30, "", 30),
    "4 GiB, nothing deferred": (4 << 30, "early_page_ext", 25),
}
HOTADDS = (("dax", 64), ("virtio-mem", 64), ("dax", 256), ("virtio-mem", 256))
HOTADD_PARTS = {"add": "its sections", "init": "memmap init", "free": "pages freed",
                "contiguous": "zone->contiguous", "all": "all"}
MEMMAP_PARTS = ("add", "init", "free")
KEXECS = {False: "kexec", True: "kexec, KHO"}
KEXEC_PARTS = {"all": "all", "deferred": "deferred memory"}
# The least that a namespace on x86 can have.
SMALL_BIND = 16 << 20
# A round has several of these; there is one figure a boot.  Small ones take a
# second, of which little is the kernel's.
BOOTS = 3
SMALL_BOOTS = 10
# In all: what is looked for is a tenth of what they take, and they vary by as much.
LARGE_BOOTS = 60
BINDS = 1 + 5
ICOUNT_BINDS = 1 + 2


def small_boot_job(which, number, icount=False, size=SMALL_BOOT):
    """Until init runs, from the moment the machine is switched on: what the
    kernel itself takes for its beginning comes after its first struct pages."""
    memory, append, _fewer = EARLY_BOOTS[size]
    return Job("small boot", which, number, f"boot with {size}", "measure_init",
               measure.until_init, memory, {"size": size}, icount, append=append,
               clock=measure.tsc_clock(icount))


@functools.cache
def kept_ram():
    """A file in RAM, as long as this program runs.  If each guest took 18 GiB anew, a host
    that is a guest itself would have to get them anew as well, and would stop meanwhile: for
    50 ms at a time, which is more than these boots differ by."""
    return f"/proc/{os.getpid()}/fd/{os.memfd_create('ram')}"


def large_boot_job(which, number):
    """Until init runs, from when all CPUs are up: before that no memory is deferred."""
    memory = BOOT_GIB[-1] << 30
    return Job("large boot", which, number, f"boot with {BOOT_GIB[-1]} GiB until init runs",
               "measure_init", measure.until_init, memory, clock=measure.TSC_CLOCK,
               prepare=lambda kernel: ["--ram", kept_ram()])


def jobs(args):
    """Several boots of a round have numbers of their own.  Instructions are counted
    once: they hardly differ from run to run."""
    for number, icount in (*((number + 1, False) for number in range(args.rounds)), (1, True)):
        whiches, times = (("base", "sync"), ICOUNT_BINDS) if icount else (("base", *WORKERS), BINDS)
        for kind, which in product(KINDS, whiches):
            yield init_job(which, number, kind, PMEM, times, icount)
        for gib, boot, which in product(BOOT_GIB, range(1 if icount else BOOTS), BOOT_WAITS):
            yield boot_job(which, number + boot / 100, gib << 30, icount)
        for boot, which in product(range(0 if icount else SMALL_BOOTS), KERNELS):
            yield small_boot_job(which, number + boot / 100)
        for (way, gib), which in product(HOTADDS[: 2 if icount else None], KERNELS):
            yield hotadd_job(which, number, way, gib, icount)
        for kho, which in product(KEXECS, KERNELS):
            yield kexec_job(which, number, BOOT_GIB[-1] << 30, kho, icount)
    for which in KERNELS:
        yield init_job(which, 1, "fsdax-mem", SMALL_BIND, BINDS, icount=True, what="small bind")
    for size, which in product(EARLY_BOOTS, KERNELS):
        yield small_boot_job(which, 1, True, size)
    # Last, as their RAM is kept.
    for boot, which in product(range(LARGE_BOOTS), (*KERNELS, "sync")):
        yield large_boot_job(which, 1 + boot / 100)


def small_binds(data, which):
    """Thousands of instructions."""
    return figures(data, lambda run: [bind["bind"] / 1e3 for bind in run["binds"]],
                   "small bind", which, True)


def hotadds(data, which, way, gib, parts, icount=False):
    """Milliseconds, or instructions a page, of these parts together."""
    return figures(data, lambda run: [sum(run[part] for part in parts)
                                      / (run["pages"] if icount else 1e6)],
                   "hotadd", which, icount, way=way, gib=gib)


def kexecs(data, which, kho, key, icount=False):
    """Milliseconds, or millions of instructions."""
    return figures(data, lambda run: [run[key] / (1e6 if icount else run["mhz"] * 1e3)],
                   "kexec", which, icount, kho=kho)


def small_boots(data, which, icount=False, size=SMALL_BOOT):
    """Milliseconds, or millions of instructions.  All boots had one clock, and
    each made its own guess how fast it is."""
    mhz = median([found for head in KERNELS
                  for found in figures(data, lambda run: [run["mhz"]], "small boot", head)])
    return figures(data, lambda run: [run["ticks"] / (1e6 if icount else mhz * 1e3)],
                   "small boot", which, icount, size=size)


def large_boots(data, which):
    return figures(data, lambda run: [run["ticks_smp"] / run["mhz"] / 1e3], "large boot", which)


def hidden(data):
    """By how much init runs earlier, for a millisecond that base's boot waits.  Boots are
    compared with those after or before them: the host is not as fast at all times."""
    earlier = [base - series for base, series
               in zip(*(large_boots(data, head) for head in KERNELS), strict=False)]
    return median(earlier) / median(boots(data, "base", BOOT_GIB[-1]))


def rows(data):
    """The columns, and (section, label, base's figures, the series')."""
    found = []

    def add(section, label, of, *more, heads=KERNELS):
        found.append((section, label, *(of(data, head, *more) for head in heads)))

    ms = f"ms (wall, {data['accelerator']}, {CPUS} CPUs)"
    a_page = "instructions a page (icount, 1 CPU)"
    millions = "million instructions (icount, 1 CPU)"
    every_bind = list(product(KINDS.items(), BIND_PARTS.items()))
    for ((kind, name), (key, label)), which in product(every_bind, WORKERS):
        add(f"{PMEM >> 30} GiB {name}, {ms}", f"{label}, {WORKERS[which]} ({which})",
            binds, kind, key, heads=("base", which))
    for gib in BOOT_GIB:
        add(f"boot's deferred init, {ms}", f"{gib} GiB of RAM", boots, gib, heads=BOOT_WAITS)
    add(f"boot until init runs, {ms}", f"{SMALL_BOOT} of RAM", small_boots)
    for heads, label in ((KERNELS, ""), (BOOT_WAITS, ", memmap_async=sync")):
        add(f"boot until init runs, since all CPUs are up, {ms}",
            f"{BOOT_GIB[-1]} GiB of RAM{label}", large_boots, heads=heads)
    for (kind, name), (key, label) in every_bind:
        add(a_page, f"{name}: {label}", binds, kind, key, True, heads=("base", "sync"))
    for gib in BOOT_GIB:
        add(a_page, f"{gib} GiB of RAM: deferred init", boots, gib, True, heads=BOOT_WAITS)
    add("thousand instructions (icount, 1 CPU)", f"bind of {SMALL_BIND >> 20} MiB, map=mem",
        small_binds)
    for size in EARLY_BOOTS:
        add(f"boot until init runs, {millions}", size, small_boots, True, size)
    for icount, (way, gib), part in product((False, True), HOTADDS, HOTADD_PARTS):
        add(f"{gib} GiB of RAM added by {way}, {a_page if icount else ms}", HOTADD_PARTS[part],
            hotadds, way, gib, [part], icount)
    for icount, kho, key in product((False, True), KEXECS, KEXEC_PARTS):
        add(f"{BOOT_GIB[-1]} GiB of RAM: from kexec until init runs, {millions if icount else ms}",
            f"{KEXECS[kho]}: {KEXEC_PARTS[key]}", kexecs, kho, key, icount)
    return KERNELS, found


def gain(data, which):
    """How many times as fast as base's one worker the memmap is initialised."""
    return ratio(binds(data, "base", "fsdax-mem", "init"), binds(data, which, "fsdax-mem", "init"))


def targets(data):
    def part(figures_of, *more, heads=KERNELS):
        """The series' part of base's."""
        base, series = (figures_of(data, head, *more) for head in heads)
        return ratio(series, base)

    def fewer(size):
        base, series = (median(small_boots(data, head, True, size)) for head in KERNELS)
        return base - series

    large = BOOT_GIB[-1]
    name = f"{PMEM >> 30} GiB map=mem: "
    return [
        at_most(name + "whole bind, instructions", 15,
                median(binds(data, "sync", "fsdax-mem", "bind", True)), "a page"),
        at_least(name + "memmap init, 1 worker, as fast as base's", 2.5, gain(data, "off")),
        at_least(name + "memmap init, 2 workers, as fast as base's", 4.8, gain(data, "sync")),
        at_least(f"boot with {large} GiB: deferred init as fast as base's", 1.5,
                 1 / part(boots, large, heads=BOOT_WAITS)),
        at_most(f"boot with {large} GiB: deferred init, instructions", 0.5,
                part(boots, large, True, heads=BOOT_WAITS), "x", " base"),
        at_least(f"boot with {large} GiB: init runs earlier, of base's deferred init", 0.6,
                 hidden(data)),
        at_most(f"boot with {SMALL_BOOT}: until init runs", 1.05,
                part(small_boots), "x", " base"),
        *(at_least(f"{gib} GiB of RAM added by {way}: memmap's part, as fast", 2.5,
                   1 / part(hotadds, way, gib, MEMMAP_PARTS)) for way, gib in HOTADDS),
        *(report.target(f"boot with {size}: instructions", f">= {less:g} M fewer", fewer(size), "M",
                        fewer(size) >= less) for size, (*_, less) in EARLY_BOOTS.items()),
        at_most(f"bind of {SMALL_BIND >> 20} MiB: instructions", 1.02,
                part(small_binds), "x", " base"),
    ]


def notes(data):
    yield f"""docs/benchmark.md says what the rows are.
Wall times are those of QEMU's {data['accelerator']}.
Whole bind: from the write to the driver's bind to its end.
Boots, and the bind of {SMALL_BIND >> 20} MiB, have no parameter of memmap_async: what a user gets.
Until init runs: since power-on, so with the firmware.
RAM that is added: its memmap's part is its sections, memmap init, and pages freed."""


def picture(data):
    figure = Figure(figsize=(11, 14))
    axes = iter(figure.subplots(3, 2).flat)

    def panel(title, unit, groups, heads=KERNELS):
        """Of each group: what it is called, how its figures are found."""
        report.bars(next(axes), [name for name, *_ in groups], [
            (f"series, {WORKERS[head]}" if head in WORKERS else head, report.COLOURS[head],
             [of(data, head, *more) for _name, of, *more in groups]) for head in heads
        ], title, unit)

    def waits(head):
        return {"series": "sync"}.get(head, head)

    def whole_bind(data, head, kind):
        return binds(data, waits(head), kind, "bind", True)

    def boot(data, head, *more):
        return boots(data, waits(head), *more)

    kinds = {kind: name.replace(" ", "\n", 1) for kind, name in KINDS.items()}
    for key, what in (("init", "the memmap's initialisation"), ("bind", "the whole bind")):
        panel(f"{PMEM >> 30} GiB of device memory: {what}", "ms",
              [(name, binds, kind, key) for kind, name in kinds.items()], ("base", *WORKERS))
    panel("boot's deferred struct pages", "ms",
          [(f"boot\n{gib} GiB", boot, gib) for gib in BOOT_GIB])
    panel("whole bind, boot's deferred struct pages", "instructions a struct page",
          [(name, whole_bind, kind) for kind, name in kinds.items()]
          + [(f"boot\n{gib} GiB", boot, gib, True) for gib in BOOT_GIB])
    panel(f"{HOTADDS[0][1]} GiB of RAM that is added", "ms",
          [(f"{way}: {HOTADD_PARTS[part]}", hotadds, way, gib, [part])
           for (way, gib), part in product(HOTADDS[:2], MEMMAP_PARTS)])
    panel(f"from kexec until init runs, {BOOT_GIB[-1]} GiB", "ms",
          [(f"{name}: {key}", kexecs, kho, key)
           for (kho, name), key in product(KEXECS.items(), KEXEC_PARTS)])
    figure.tight_layout(rect=(0, 0.04, 1, 0.95))
    return (figure, f"Struct pages of {PMEM >> 30} GiB: initialised {gain(data, 'off'):.1f} times "
            f"as fast by 1 worker, {gain(data, 'sync'):.1f} times by 2", "fsdax map=mem, against "
            "base's 1 thread; bars are medians, lines go from the least to the greatest")


if __name__ == "__main__":
    parser = measure.parser(__doc__, cpus=CPUS, pmem=PMEM)
    sys.exit(measure.main(sys.modules[__name__], parser, BOOT_GIB[-1] << 30))
