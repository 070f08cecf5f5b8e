#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Measure in QEMU how fast a base and a series kernel initialise struct pages,
alternately; print a table, write the figures and a picture.

Unlike demo.py this waits for all struct pages: what counts is the work, not
what has to wait for it.

With memmap_async=off the series has one worker for device memory: the task that binds,
which does it by the same function and without the engine.  With memmap_async=sync
all CPUs work, and the kernel has to say that it was two.
"""

import itertools
import sys

from matplotlib.figure import Figure

import measure
import report
from measure import CPUS, Job, boot_job, hotadd_job, init_job, kexec_job
from report import KINDS, at_least, at_most, binds, boots, median, ratio

PMEM = 64 << 30
KERNELS = ("base", "series")
BOOT_GIB = (4, 12, measure.MEMORY_GIB)
SMALL_BOOT = 512 << 20
# Boots whose instructions are counted, half or all of whose memory is early.
EARLY_BOOTS = {
    "128 MiB": (128 << 20, ""), "512 MiB": (SMALL_BOOT, ""), "4 GiB": (4 << 30, ""),
    "4 GiB, nothing deferred": (4 << 30, "early_page_ext"),
}
HOTADDS = (("dax", 64), ("virtio-mem", 64), ("virtio-mem", 256))
HOTADD_PARTS = {"add": "its sections", "init": "memmap init", "free": "pages freed",
                "contiguous": "zone->contiguous", "all": "all"}
MEMMAP_PARTS = ("init", "free")
# Millions of instructions that a boot takes less.
FEWER = {"128 MiB": 0, "512 MiB": 1.5, "4 GiB": 30, "4 GiB, nothing deferred": 25}
KEXECS = {False: "kexec", True: "kexec, KHO"}
# The least that a namespace on x86 can have.
SMALL_BIND = 16 << 20
# A round has several of these; there is one figure a boot.  Small ones take a
# second, of which little is the kernel's.
BOOTS = 3
SMALL_BOOTS = 10
BINDS = 1 + 5
ICOUNT_BINDS = 1 + 2


def small_boot_job(which, number, icount=False, size="512 MiB"):
    """Until init runs, from the moment the machine is switched on: what the
    kernel itself takes for its beginning comes after its first struct pages."""
    def read(lines):
        mhz = measure.matches(r"dmesg: .*tsc: Detected ([\d.]+) MHz", lines)[0][1]
        traced = measure.without_idle(lines) if icount else lines
        return {"ticks": measure.console_time(traced, "Run /init "), "mhz": float(mhz)}

    return Job(
        "small boot", which, number, f"boot with {size}", "measure_init", read,
        EARLY_BOOTS[size][0], {"size": size}, icount, append=EARLY_BOOTS[size][1],
        clock=measure.TSC_CLOCK + (",sched:sched_switch" if icount else ""),
    )


def jobs(args):
    """Several boots of a round have numbers of their own.  Instructions are counted
    once: they hardly differ from run to run."""
    for number in range(1, args.rounds + 1):
        for kind, which in itertools.product(KINDS, ("base", "off", "sync")):
            yield init_job(which, number, kind, PMEM, BINDS)
        for gib, boot, which in itertools.product(BOOT_GIB, range(BOOTS), KERNELS):
            yield boot_job(which, number + boot / 100, gib << 30)
        for boot, which in itertools.product(range(SMALL_BOOTS), KERNELS):
            yield small_boot_job(which, number + boot / 100)
        for (way, gib), which in itertools.product(HOTADDS, KERNELS):
            yield hotadd_job(which, number, way, gib)
        for kho, which in itertools.product(KEXECS, KERNELS):
            yield kexec_job(which, number, BOOT_GIB[-1] << 30, kho)
    for kind, which in itertools.product(KINDS, ("base", "sync")):
        yield init_job(which, 1, kind, PMEM, ICOUNT_BINDS, icount=True)
    for which in KERNELS:
        yield init_job(which, 1, "fsdax-mem", SMALL_BIND, BINDS, icount=True, what="small bind")
    for size, which in itertools.product(EARLY_BOOTS, KERNELS):
        yield small_boot_job(which, 1, True, size)
    for (way, gib), which in itertools.product(HOTADDS[:2], KERNELS):
        yield hotadd_job(which, 1, way, gib, icount=True)
    for kho, which in itertools.product(KEXECS, KERNELS):
        yield kexec_job(which, 1, BOOT_GIB[-1] << 30, kho, icount=True)
    for gib, which in itertools.product(BOOT_GIB, KERNELS):
        yield boot_job(which, 1, gib << 30, icount=True)


def small_binds(data, which):
    """Thousands of instructions."""
    return [bind["bind"] / 1e3 for run in report.runs(data, "small bind", which, True)
            for bind in run["binds"]]


def hotadds(data, which, way, gib, parts, icount=False):
    """Milliseconds, or instructions a page, of these parts together."""
    return [sum(run[part] for part in parts) / (run["pages"] if icount else 1e6)
            for run in report.runs(data, "hotadd", which, icount, way=way, gib=gib)]


def kexecs(data, which, kho, key, icount=False):
    """Milliseconds, or millions of instructions."""
    return [run[key] / (1e6 if icount else run["mhz"] * 1e3)
            for run in report.runs(data, "kexec", which, icount, kho=kho)]


def small_boots(data, which, icount=False, size="512 MiB"):
    """Milliseconds, or millions of instructions.  All boots had one clock, and
    each made its own guess how fast it is."""
    mhz = median([run["mhz"] for head in KERNELS for run in report.runs(data, "small boot", head)])
    return [run["ticks"] / (1e6 if icount else mhz * 1e3)
            for run in report.runs(data, "small boot", which, icount, size=size)]


def rows(data):
    """The columns, and (section, label, base's figures, the series')."""
    wall = f"wall, {data['accelerator']}, {CPUS} CPUs"
    a_page = "instructions a page (icount, 1 CPU)"
    parts = {"init": "memmap init", "bind": "whole bind"}
    found = [
        (f"{PMEM >> 30} GiB {name}, ms ({wall})", f"{label}, {workers}",
         *(binds(data, head, kind, key) for head in ("base", which)))
        for kind, name in KINDS.items() for key, label in parts.items()
        for which, workers in (("off", "1 worker (off)"), ("sync", "2 workers (sync)"))
    ]
    found += [(f"boot's deferred init, ms ({wall})", f"{gib} GiB of RAM",
               *(boots(data, head, gib) for head in KERNELS)) for gib in BOOT_GIB]
    found.append((f"boot until init runs, ms ({wall})", f"{SMALL_BOOT >> 20} MiB of RAM",
                  *(small_boots(data, head) for head in KERNELS)))
    found += [(a_page, f"{name}: {label}",
               *(binds(data, head, kind, key, True) for head in ("base", "sync")))
              for kind, name in KINDS.items() for key, label in parts.items()]
    found += [(a_page, f"{gib} GiB of RAM: deferred init",
               *(boots(data, head, gib, True) for head in KERNELS)) for gib in BOOT_GIB]
    found.append(("thousand instructions (icount, 1 CPU)",
                  f"bind of {SMALL_BIND >> 20} MiB, map=mem",
                  *(small_binds(data, head) for head in KERNELS)))
    found += [("boot until init runs, million instructions (icount, 1 CPU)", size,
               *(small_boots(data, head, True, size) for head in KERNELS)) for size in EARLY_BOOTS]
    found += [(f"{gib} GiB of RAM added by {way}, {unit}", label,
               *(hotadds(data, head, way, gib, [part], icount) for head in KERNELS))
              for icount, unit in ((False, f"ms ({wall})"), (True, a_page))
              for way, gib in HOTADDS[: 2 if icount else None]
              for part, label in HOTADD_PARTS.items()]
    found += [(f"{BOOT_GIB[-1]} GiB of RAM: from kexec until init runs, {unit}", f"{name}: {label}",
               *(kexecs(data, head, kho, key, icount) for head in KERNELS))
              for icount, unit in ((False, f"ms ({wall})"),
                                   (True, "million instructions (icount, 1 CPU)"))
              for kho, name in KEXECS.items()
              for key, label in (("all", "all"), ("deferred", "deferred memory"))]
    return KERNELS, found


def gain(data, which):
    """How many times as fast as base's one worker the memmap is initialised."""
    return ratio(binds(data, "base", "fsdax-mem", "init"), binds(data, which, "fsdax-mem", "init"))


def targets(data):
    def part(figures_of, *more):
        """The series' part of base's."""
        base, series = (figures_of(data, head, *more) for head in KERNELS)
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
                 ratio(boots(data, "base", large), boots(data, "series", large))),
        at_most(f"boot with {large} GiB: deferred init, instructions", 0.5,
                part(boots, large, True), "x", " base"),
        at_most(f"boot with {SMALL_BOOT >> 20} MiB: until init runs", 1.05,
                part(small_boots), "x", " base"),
        *(at_least(f"{gib} GiB of RAM added by {way}: memmap's part, as fast", 2.5,
                   1 / part(hotadds, way, gib, MEMMAP_PARTS)) for way, gib in HOTADDS[:2]),
        *(report.target(f"boot with {size}: instructions", f">= {less:g} M fewer", fewer(size), "M",
                        fewer(size) >= less) for size, less in FEWER.items()),
        at_most(f"bind of {SMALL_BIND >> 20} MiB: instructions", 1.02,
                part(small_binds), "x", " base"),
    ]


def notes(data):
    yield f"""docs/benchmark.md says what the rows are.
Wall times are those of QEMU's {data['accelerator']}.
Whole bind: from the write to the driver's bind to its end.
Boots, and the bind of {SMALL_BIND >> 20} MiB, have no parameter of memmap_async: what a user gets.
Until init runs: since power-on, so with the firmware.
RAM that is added: its memmap's part is memmap init and pages freed."""


def picture(data):
    figure = Figure(figsize=(11, 14))
    axes = figure.subplots(3, 2)
    kinds = [name.replace(" ", "\n", 1) for name in KINDS.values()]
    sizes = [f"boot\n{gib} GiB" for gib in BOOT_GIB]
    grey, one, two = (report.COLOURS[which] for which in ("base", "off", "series"))
    for axis, key, what in ((axes[0][0], "init", "the memmap's initialisation"),
                            (axes[0][1], "bind", "the whole bind")):
        report.bars(axis, kinds, [
            (label, colour, [binds(data, which, kind, key) for kind in KINDS])
            for label, colour, which in (("base", grey, "base"), ("series, 1 worker", one, "off"),
                                         ("series, 2 workers", two, "sync"))
        ], f"{PMEM >> 30} GiB of device memory: {what}", "ms")
    report.bars(axes[1][0], sizes, [
        (head, report.COLOURS[head], [boots(data, head, gib) for gib in BOOT_GIB])
        for head in KERNELS
    ], "boot's deferred struct pages", "ms")
    report.bars(axes[1][1], [*kinds, *sizes], [
        (label, report.COLOURS[label], [*(binds(data, which, kind, "bind", True) for kind in KINDS),
                                        *(boots(data, label, gib, True) for gib in BOOT_GIB)])
        for label, which in (("base", "base"), ("series", "sync"))
    ], "whole bind, boot's deferred struct pages", "instructions a struct page")
    added = [(way, gib, parts) for way, gib in HOTADDS[:2] for parts in ("add", "init", "free")]
    report.bars(axes[2][0], [f"{way}: {HOTADD_PARTS[part]}" for way, _gib, part in added], [
        (head, report.COLOURS[head], [hotadds(data, head, way, gib, [part])
                                      for way, gib, part in added])
        for head in KERNELS
    ], f"{HOTADDS[0][1]} GiB of RAM that is added", "ms")
    parts = [(kho, key) for kho in KEXECS for key in ("all", "deferred")]
    report.bars(axes[2][1], [f"{KEXECS[kho]}: {key}" for kho, key in parts], [
        (head, report.COLOURS[head], [kexecs(data, head, kho, key) for kho, key in parts])
        for head in KERNELS
    ], f"from kexec until init runs, {BOOT_GIB[-1]} GiB", "ms")
    figure.tight_layout(rect=(0, 0.04, 1, 0.95))
    return (figure, f"Struct pages of {PMEM >> 30} GiB: initialised {gain(data, 'off'):.1f} times "
            f"as fast by 1 worker, {gain(data, 'sync'):.1f} times by 2", "fsdax map=mem, against "
            "base's 1 thread; bars are medians, lines go from the least to the greatest")


if __name__ == "__main__":
    parser = measure.parser(__doc__, cpus=CPUS, pmem=PMEM)
    sys.exit(measure.main(sys.modules[__name__], parser, BOOT_GIB[-1] << 30))
