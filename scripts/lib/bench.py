#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measure in QEMU how fast a base and a series kernel initialise struct pages,
alternately; print a table, write the figures and a picture.

Other than measure.py this waits for all struct pages: what counts is the
work, not who has to wait for it.  A bind is bracketed by kprobe events from the
write to the driver's "bind" to its end, the memmap initialisation inside as in
measure.py.

With memmap_async=off the series has one worker for device memory: the task that binds,
which does it by the same function and without the engine.  With memmap_async=sync
all CPUs work, and the kernel has to say that it was two.

Instructions are counted by icount, with one CPU.  Its clock jumps to the next
timer when there is nothing to do; such time is taken out.
"""

import functools
import itertools
import re
import sys

sys.dont_write_bytecode = True
import measure  # noqa: E402  (leaves no directory beside the scripts)
import report  # noqa: E402
from measure import CPUS, Job, MeasureError  # noqa: E402

PMEM = 64 << 30
KERNELS = ("base", "series")
KINDS = {
    "fsdax-mem": "fsdax map=mem",
    "fsdax-dev": "fsdax map=dev",
    "devdax-4K": "devdax 4K",
    "devdax-2M": "devdax 2M",
    "devdax-1G": "devdax 1G",
}
BOOT_GIB = (4, 12, measure.MEMORY_GIB)
SMALL_BOOT = 512 << 20
# A round has several of these; there is one figure a boot.  Small ones take a
# second, of which little is the kernel's.
BOOTS = 3
SMALL_BOOTS = 10
# All of an NVDIMM, and the least that a namespace on x86 can have.
SMALL_BIND = 16 << 20
# The first bind after a boot runs code that QEMU has yet to translate.
BINDS = 1 + 5
ICOUNT_BINDS = 1 + 2
SMALL_BINDS = 1 + 5

# Both drivers are told by the same function.
PROBES = ("p:bind_in,bind_store", "r:bind_out,bind_store", *measure.PROBES[2:])
TRACE = f"kprobe_event={';'.join(PROBES)}"
ICOUNT_CLOCK = "trace_clock=x86-tsc trace_event=printk:console,sched:sched_switch"

STAMP = re.compile(r"(trace: +\S.*-\d+ +\[\d+\] \S+ +)(\d+)(?=: )")
SWITCH = re.compile(r"sched_switch: .*\bprev_pid=(\d+) .*\bnext_pid=(\d+)\b")
WORKERS = re.compile(r"dmesg: .*memmap_async: pfns .* by (\d+) workers")
MHZ = re.compile(r"dmesg: .*tsc: Detected ([\d.]+) MHz")


def without_idle(lines):
    """The trace of one CPU as if its clock stood still while the CPU is idle."""
    found, idle, since = [], 0, None
    for line in lines:
        if stamp := STAMP.match(line):
            time = int(stamp[2])
            if switch := SWITCH.search(line):
                if switch[1] == "0" and since is not None:
                    idle += time - since
                    since = None
                if switch[2] == "0":
                    since = time
            line = f"{stamp[1]}{(time if since is None else since) - idle}{line[stamp.end():]}"
        found.append(line)
    return found


def check_workers(lines, which, icount, times):
    """That a figure is of as many workers as it is said to be."""
    said = [int(match[1]) for match in map(WORKERS.match, lines) if match]
    wanted = [CPUS] * times if which == "sync" and not icount else []
    if said != wanted:
        raise MeasureError(f"{which}: the kernel said that {said} workers initialised device "
                           f"memory, not {wanted}")


def read_binds(lines, which, icount, times):
    binds = measure.binds(without_idle(lines) if icount else lines)
    if len(binds) != times:
        traced = "\n".join(line for line in lines if line.startswith("trace: "))
        raise MeasureError(f"not {times} binds were traced:\n{traced}")
    check_workers(lines, which, icount, times)
    return {"binds": binds[1:]}


def named(what, which, icount):
    return f"{what}, {report.NAMES[which]}" + (" (instructions)" if icount else "")


def device_job(which, number, kind, icount=False, pmem=PMEM, times=BINDS, what="device"):
    clock = ICOUNT_CLOCK if icount else measure.CLOCK[False]
    size = f"{pmem >> 30} GiB" if pmem >> 30 else f"{pmem >> 20} MiB"
    return Job(
        named(f"{size} {KINDS[kind]}", which, icount),
        {"what": what, "kernel": which, "icount": icount, "kind": kind, "round": number},
        f"measure_init {kind} {times}",
        ["--pmem", pmem, "--pmem-discard", "--memory", measure.memory_for_pmem(pmem),
         *([] if icount else ["--cpus", CPUS]),
         *measure.parameters(which, icount, clock, TRACE)],
        functools.partial(read_binds, which=which, icount=icount, times=times),
    )


def read_small_boot(lines, icount):
    traced = filter(None, map(measure.CONSOLE.match, without_idle(lines) if icount else lines))
    ran = [int(match["time"]) for match in traced if match["text"].startswith("Run /init ")]
    mhz = [float(match[1]) for match in map(MHZ.match, lines) if match]
    if len(ran) != 1 or len(mhz) != 1:
        raise MeasureError("the kernel did not trace when init ran, or has no TSC")
    return {"ticks": ran[0], "mhz": mhz[0]}


def small_boot_job(which, number, icount=False):
    """Until init runs, from the moment the machine is switched on: what the
    kernel itself takes for its beginning comes after its first struct pages."""
    return Job(
        named(f"boot with {SMALL_BOOT >> 20} MiB", which, icount),
        {"what": "small boot", "kernel": which, "icount": icount, "round": number},
        "measure_init",
        ["--memory", SMALL_BOOT, *([] if icount else ["--cpus", CPUS]),
         *measure.parameters(which, icount, ICOUNT_CLOCK if icount else measure.CLOCK[True])],
        functools.partial(read_small_boot, icount=icount),
    )


def boot_job(which, number, gib, icount=False):
    return measure.boot_job(which, number, gib << 30, CPUS, icount)


def jobs(rounds):
    """Several boots of a round have numbers of their own.  Instructions are counted
    once: they hardly differ from run to run."""
    for number in range(1, rounds + 1):
        for kind, which in itertools.product(KINDS, ("base", "off", "sync")):
            yield device_job(which, number, kind)
        for gib, boot, which in itertools.product(BOOT_GIB, range(BOOTS), KERNELS):
            yield boot_job(which, number + boot / 100, gib)
        for boot, which in itertools.product(range(SMALL_BOOTS), KERNELS):
            yield small_boot_job(which, number + boot / 100)
    for kind, which in itertools.product(KINDS, ("base", "sync")):
        yield device_job(which, 1, kind, icount=True, times=ICOUNT_BINDS)
    for which in KERNELS:
        yield device_job(which, 1, "fsdax-mem", icount=True, pmem=SMALL_BIND, times=SMALL_BINDS,
                         what="small bind")
    for gib, which in itertools.product(BOOT_GIB, KERNELS):
        yield boot_job(which, 1, gib, icount=True)
    for which in KERNELS:
        yield small_boot_job(which, 1, icount=True)


# --- what it comes to ----------------------------------------------------------


def columns(_data):
    return KERNELS


def runs_of(data, what, kernel, icount, **more):
    found = [
        run for run in data["runs"]
        if (run["what"], run["kernel"], run["icount"]) == (what, kernel, icount)
        and all(run[key] == value for key, value in more.items())
    ]
    if not found:
        raise MeasureError(f"nothing was measured of {what}, {kernel}, {more}")
    return found


def milliseconds(data, kernel, kind, key):
    return [bind[key] * 1e3 for run in runs_of(data, "device", kernel, False, kind=kind)
            for bind in run["binds"]]


def instructions(data, kernel, kind, key):
    """A page."""
    return [bind[key] * 1e9 / bind["pages"]
            for run in runs_of(data, "device", kernel, True, kind=kind) for bind in run["binds"]]


def small_binds(data, kernel):
    """Thousands of instructions."""
    return [bind["bind"] * 1e6 for run in runs_of(data, "small bind", kernel, True)
            for bind in run["binds"]]


def boots(data, kernel, gib, icount):
    return [run["instructions"] / run["pages"] if icount else float(run["ms"])
            for run in runs_of(data, "boot", kernel, icount, memory_gib=gib)]


def small_boots(data, kernel, icount):
    """Milliseconds, or millions of instructions.  All boots had one clock, and
    each made its own guess how fast it is."""
    runs = runs_of(data, "small boot", kernel, icount)
    mhz = report.median([run["mhz"] for run in data["runs"]
                         if run["what"] == "small boot" and not run["icount"]])
    return [run["ticks"] / (1e6 if icount else mhz * 1e3) for run in runs]


def rows(data):
    """(section, label, base's figures, the series') as report.table() takes it."""
    wall = f"wall, {data['accelerator']}, {CPUS} CPUs"
    icount = "icount, 1 CPU"
    found = []
    for kind, name in KINDS.items():
        found += [
            (f"{PMEM >> 30} GiB {name}, ms ({wall})", f"{label}, {workers}",
             *(milliseconds(data, kernel, kind, key) for kernel in ("base", which)))
            for key, label in (("init", "memmap init"), ("bind", "whole bind"))
            for which, workers in (("off", "1 worker (off)"), ("sync", "2 workers (sync)"))
        ]
    found += [
        (f"boot's deferred init, ms ({wall})", f"{gib} GiB of RAM",
         *(boots(data, kernel, gib, False) for kernel in KERNELS))
        for gib in BOOT_GIB
    ]
    found.append((f"boot until init runs, ms ({wall})", f"{SMALL_BOOT >> 20} MiB of RAM",
                  *(small_boots(data, kernel, False) for kernel in KERNELS)))
    found += [
        (f"instructions a page ({icount})", f"{name}: {label}",
         *(instructions(data, kernel, kind, key) for kernel in ("base", "sync")))
        for kind, name in KINDS.items()
        for key, label in (("init", "memmap init"), ("bind", "whole bind"))
    ]
    found += [
        (f"instructions a page ({icount})", f"{gib} GiB of RAM: deferred init",
         *(boots(data, kernel, gib, True) for kernel in KERNELS))
        for gib in BOOT_GIB
    ]
    found.append((f"thousand instructions ({icount})", f"bind of {SMALL_BIND >> 20} MiB, map=mem",
                  *(small_binds(data, kernel) for kernel in KERNELS)))
    found.append((f"million instructions ({icount})",
                  f"boot with {SMALL_BOOT >> 20} MiB until init runs",
                  *(small_boots(data, kernel, True) for kernel in KERNELS)))
    return found


def targets(data):
    def gain(which):
        return (report.median(milliseconds(data, "base", "fsdax-mem", "init")) /
                report.median(milliseconds(data, which, "fsdax-mem", "init")))

    def ratio(figures, *more):
        """The series' part of base's."""
        base, series = (report.median(figures(data, kernel, *more))
                        for kernel in KERNELS)
        return series / base

    def inverse(value):
        return 1 / value if value else float("nan")

    large = BOOT_GIB[-1]
    name = f"{PMEM >> 30} GiB map=mem: "
    return [
        report.at_most(name + "whole bind, instructions", 15,
                       report.median(instructions(data, "sync", "fsdax-mem", "bind")), "a page"),
        report.at_least(name + "memmap init, 1 worker, as fast as base's", 2.5, gain("off")),
        report.at_least(name + "memmap init, 2 workers, as fast as base's", 4.8, gain("sync")),
        report.at_least(f"boot with {large} GiB: deferred init as fast as base's", 1.5,
                        inverse(ratio(boots, large, False))),
        report.at_most(f"boot with {large} GiB: deferred init, instructions", 0.5,
                       ratio(boots, large, True), "x", "<= 0.5 x base"),
        report.at_most(f"boot with {SMALL_BOOT >> 20} MiB: until init runs", 1.05,
                       ratio(small_boots, False), "x", "<= 1.05 x base"),
        report.at_most(f"bind of {SMALL_BIND >> 20} MiB: instructions", 1.02,
                       ratio(small_binds), "x", "<= 1.02 x base"),
    ]


def notes(data):
    if data["accelerator"] == "tcg":
        wall = ("Everything here is emulated, and nothing ran natively (tests/userspace has a "
                "benchmark that does):\nwall times are QEMU's TCG's")
    else:
        wall = f"Instructions are emulated, wall times are those of {data['accelerator']}"
    yield f"""{wall}; instructions are counted by icount, without idle time.
1 worker: memmap_async=off, same guest: the task that binds does it all, without the engine.
2 workers: memmap_async=sync, and the kernel said each time that there were two.
With icount's one CPU, sync does for device memory what off does.
Boots, and the bind of {SMALL_BIND >> 20} MiB, have no parameter of memmap_async: what a user gets.
Whole bind: from the write to the driver's bind to its end; a boot's first is left out.
Deferred init is what boot says itself, in whole jiffies.
Until init runs: since power-on, so with the firmware."""


def bars(axis, groups, series, title, unit):
    """Medians side by side, whiskers from the least to the greatest."""
    width = 0.8 / len(series)
    for number, (label, colour, figures) in enumerate(series):
        middle = [report.median(values) for values in figures]
        whiskers = [[m - min(values) for m, values in zip(middle, figures, strict=True)],
                    [max(values) - m for m, values in zip(middle, figures, strict=True)]]
        places = [place + (number - (len(series) - 1) / 2) * width
                  for place in range(len(groups))]
        drawn = axis.bar(places, middle, width * 0.95, color=colour, label=label, yerr=whiskers,
                         error_kw={"lw": 0.8, "ecolor": "#555555"})
        axis.bar_label(drawn, [report.number(value) for value in middle], fontsize=7, padding=2)
    axis.set_xticks(range(len(groups)), groups, fontsize=9)
    axis.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axis.set_ylabel(unit, fontsize=9)
    axis.margins(y=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False)


def picture(data, path):
    figure, axes = report.plt.subplots(2, 2, figsize=(11, 8.2))
    names = [name.replace(" ", "\n", 1) for name in KINDS.values()]
    sizes = [f"{gib} GiB" for gib in BOOT_GIB]
    one, two = "#8cb8f5", report.COLOURS["series"]
    grey = report.COLOURS["base"]
    for axis, key, what in zip(axes[0], ("init", "bind"), ("memmap init", "whole bind"),
                               strict=True):
        bars(axis, names, [
            (label, colour, [milliseconds(data, kernel, kind, key) for kind in KINDS])
            for label, colour, kernel in (("base", grey, "base"), ("series, 1 worker", one, "off"),
                                          ("series, 2 workers", two, "sync"))
        ], f"{PMEM >> 30} GiB of device memory: {what}", "ms")
    bars(axes[1][0], sizes, [
        (kernel, report.COLOURS[kernel], [boots(data, kernel, gib, False) for gib in BOOT_GIB])
        for kernel in KERNELS
    ], "boot's deferred init", "ms")
    bars(axes[1][1], [*names, *(f"boot\n{size}" for size in sizes)], [
        (label, report.COLOURS[label],
         [*(instructions(data, kernel, kind, "bind") for kind in KINDS),
          *(boots(data, label, gib, True) for gib in BOOT_GIB)])
        for label, kernel in (("base", "base"), ("series", "sync"))
    ], "instructions: whole bind, deferred init", "a page")
    axes[1][1].tick_params(axis="x", labelsize=7)
    figure.suptitle("How long it takes, and how many instructions, to initialise all struct "
                    "pages", fontsize=12, x=0.02, ha="left")
    figure.text(0.02, 0.005, report.about(data), fontsize=7, color="#555555", va="bottom")
    figure.tight_layout(rect=(0, 0.05, 1, 0.99))
    figure.savefig(path, dpi=120)


def arguments():
    parser = measure.parser(__doc__, 5)
    args = parser.parse_args()
    measure.check(parser, args, max(BOOT_GIB[-1] << 30, measure.memory_for_pmem(PMEM)))
    return args


def measure_all(args):
    measure.carry_out(args, list(jobs(args.rounds)), {"cpus": CPUS}, sys.modules[__name__])


def main():
    return measure.ended_by(arguments(), measure_all)


if __name__ == "__main__":
    sys.exit(main())
