#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: GPL-2.0
"""Measure in QEMU how soon an NVDIMM is of use with a base and a series kernel,
alternately; print a table, write the figures and a picture.

A user waits for the first bind of a boot.  So an NVDIMM with a namespace and a
filesystem is made beforehand, and each measured boot binds that.  What else a user
waits for is timed by the guest's own programs (tests/guest/measure_*), what
memmap_sync() waits by its tracepoint.

Without --base only a short first part is measured, where the series' own kernel with
memmap_async=off stands in for base.
"""

import argparse
import functools
import itertools
import re
import subprocess
import sys

import matplotlib
from matplotlib.figure import Figure

import measure
import report
from measure import Job, MeasureError, boot_job, init_job
from report import at_least, at_most, binds, boots, figures, median, ratio

MAPPINGS = ("mem", "dev")
# Other sizes than --pmem: a part of it, and a multiple.
SMALL, HUGE = 8, 8
TOUCHES = 48

# The probed device's name comes first in its struct, twice over.
PROBES = ("p:bind_in,nd_pmem_probe,dev=+0(+0(%di)):string", "r:bind_out,nd_pmem_probe",
          *measure.INIT_PROBES)
SYNC_WAIT = re.compile(r"trace: +measure-\d+ .* memmap_sync: .*\bwait_ns[=:] *(\d+)")
MAX_ACTIVE = "/sys/devices/virtual/workqueue/memmap_async_bg/max_active"


def numbers(line):
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line)}


def first_bind(lines):
    """Boot's bind, and all initialised by then or in the background, in ns.  The
    namespace itself and a spare pfn device are probed, too, in no time."""
    found = [bind for bind in measure.traced_binds(lines) if (bind["dev"] or "").startswith("pfn")]
    if not found:
        raise MeasureError("boot's bind was not traced")
    bind = max(found, key=lambda bind: bind["bind"])
    done = [at - bind["start"] for _, at, event, _ in measure.events(lines)
            if event == "memmap_async_end"]
    return {"bind": bind["bind"], "idle": max(done[-1:] + [bind["bind"]])}


def read_device(lines):
    """What tests/guest/measure_device printed, step by step; times in ns."""
    found = {"first": {}, "usable": [], "touches": {}, "waits": {}, "early": []}
    steps = {}
    for line in lines:
        kind, _, rest = line.partition(": ")
        if kind == "step":
            step = rest
        elif kind == "first":
            found["first"] = numbers(rest)
        elif kind in ("usable", "early"):
            found[kind].append(numbers(rest))
        elif kind == "touch":
            found["touches"].setdefault(step, []).append(numbers(rest))
        elif match := SYNC_WAIT.match(line):
            found["waits"].setdefault(step, []).append(int(match[1]))
        elif kind == "trace":
            steps.setdefault(step, []).append(line)
    if not (found["first"] and found["usable"]):
        raise MeasureError("the guest did not print how soon its NVDIMM was of use")
    found["first"] |= first_bind(steps.get("first", []))
    return found


def nvdimm(args, pmem, mapping, _kernel):
    """An NVDIMM as it is after a shutdown.  Guests write to copies of its pages."""
    path = measure.TOP / "build" / "demo" / "pmem" / f"{pmem >> 20}M-{mapping}"
    makers = [measure.PROGRAMS / name for name in ("measure_prepare", "common")]
    if not path.exists() or path.stat().st_mtime < max(maker.stat().st_mtime for maker in makers):
        measure.say(f"making a filesystem on {pmem >> 30} GiB map={mapping}")
        partial = path.with_name(f"{pmem >> 20}M-{mapping}-partial")
        lines = measure.guest(
            "--kernel", args.series, "--run", f"measure_prepare {mapping}", "--pmem", pmem,
            "--pmem-file", partial, "--memory", measure.memory_for_pmem(pmem, mapping),
            "--append", measure.QUIET)
        data = int(measure.matches(r"data: (\d+)", lines)[0][1])
        # Nothing needs this boot's memmap any more; the info block before it stays.
        if mapping == "dev":
            subprocess.run(["fallocate", "--punch-hole", "--offset", str(1 << 20), "--length",
                            str(data - (1 << 20)), partial], check=False)
        partial.rename(path)
    return ["--pmem-file", path]


def device_job(args, which, number, pmem, mapping, touches=0):
    return Job(
        "device", which, number, f"{pmem >> 30} GiB map={mapping}",
        f"measure_device {args.binds} {touches}", read_device,
        measure.memory_for_pmem(pmem, mapping), {"pmem_gib": pmem >> 30, "mapping": mapping},
        cpus=args.cpus, clock=measure.WALL_CLOCK, probes=PROBES,
        options=measure.with_pmem(pmem), prepare=functools.partial(nvdimm, args, pmem, mapping),
    )


def huge_job(args, number):
    """One worker, and each bind is followed by an unbind at once, so that little of the memmap
    is written: the host has to find memory for that."""
    pmem = HUGE * args.pmem
    return Job(
        "huge", "series", number, f"{pmem >> 30} GiB map=dev",
        f"echo 1 >{MAX_ACTIVE} && measure_init fsdax-dev {1 + args.binds}",
        # The first one is left out: QEMU has yet to translate its code.
        lambda lines: {"bare": [{"bound": bind["bind"]}
                                for bind in measure.traced_binds(lines)[1:]]},
        4 << 30, {"pmem_gib": pmem >> 30, "mapping": "dev"}, cpus=args.cpus,
        clock=measure.WALL_CLOCK, probes=measure.BIND_PROBES, options=measure.with_pmem(pmem))


def jobs(args):
    small, large = args.pmem // SMALL, args.pmem
    if not args.base:
        yield from (device_job(args, which, 0, large, "mem") for which in ("off", "series"))
        return
    memory = min(measure.MEMORY_GIB, args.limit >> 30) << 30
    for number in range(1, args.rounds + 1):
        for pmem, mapping in itertools.product((small, large), MAPPINGS):
            for which in ("base", "series", "base0", "series0", "sync"):
                yield device_job(args, which, number, pmem, mapping,
                                 touches=TOUCHES if which in ("base", "series") else 0)
        yield huge_job(args, number)
        for which in ("base", "series", "sync"):
            yield boot_job(which, number, memory, cpus=args.cpus)
    for mapping, which in itertools.product(MAPPINGS, ("base", "sync")):
        yield init_job(which, 1, f"fsdax-{mapping}", small, 2, icount=True)
    for which in ("base", "series"):
        yield boot_job(which, 1, memory, icount=True)


def size(text):
    match = re.fullmatch(r"(\d+)G", text)
    if not match or not int(match[1]) or int(match[1]) % SMALL:
        raise argparse.ArgumentTypeError(f"{text!r} is not a multiple of {SMALL}G, such as 512G")
    return int(match[1]) << 30


def first(key):
    """Milliseconds, as all figures of a run below."""
    return lambda run: [run["first"][key] / 1e6]


def usable(key):
    return lambda run: [bind[key] / 1e6 for bind in run["usable"]]


def waits(step):
    return lambda run: [wait / 1e6 for wait in run["waits"].get(step, [])]


def touches(run):
    """Those that began while init ran; base's init is over before its first touch."""
    return [touch["ns"] / 1e6 for touch in run["touches"].get("touch", [])
            if touch["active"] or run["kernel"] == "base"]


def early(run):
    return [unbind["unbind"] / 1e6 for unbind in run["early"] if unbind["done"] < unbind["total"]]


def devices(data, which, of, pmem, mapping):
    return figures(data, of, "device", which, pmem_gib=pmem, mapping=mapping)


def huges(data, which):
    return figures(data, lambda run: [bind["bound"] / 1e6 for bind in run["bare"]], "huge", which)


def columns(data):
    """The series is the last, with what it is compared with before it."""
    measured = {run["kernel"] for run in data["runs"]}
    return ("off", "series") if "off" in measured else ("base", "base0", "series")


# Which variant a column shows.
ITSELF = {head: head for head in ("base", "base0", "off", "series")}
WITHOUT = {"base0": "base0", "series": "series0"}
SYNC = {"base": "base", "base0": "base0", "series": "sync"}
DEVICE_ROWS = (
    ("first bind of a boot", first("bind"), ITSELF),
    ("  series with init_on_alloc=0", first("bind"), WITHOUT),
    ("  all initialised", first("idle"), ITSELF),
    ("  kernel's start until it is mounted", first("mounted"), ITSELF),
    ("bind returns", usable("bound"), ITSELF),
    ("  series with init_on_alloc=0", usable("bound"), WITHOUT),
    ("filesystem mounted", usable("mounted"), ITSELF),
    ("first byte written by mmap", usable("byte"), ITSELF),
    ("all initialised", usable("idle"), ITSELF),
    ("  memmap_async=sync: bind returns", usable("bound"), SYNC),
    ("first touch of 2 MiB, while init runs", touches, ITSELF),
    ("wait in memmap_sync() for such touches", waits("touch"), ITSELF),
    ("  with the CPUs busy", waits("busy"), ITSELF),
    ("unbind", usable("unbind"), ITSELF),
    ("unbind, a quarter initialised", early, ITSELF),
)


def rows(data):
    """The columns, and (section, label, figures of each): empty is what a kernel does
    not have."""
    heads, found = columns(data), []

    def add(section, label, of, shown, *more):
        found.append((section, label, *(of(data, shown.get(head), *more) for head in heads)))

    small, large = data["pmem_gib"] // SMALL, data["pmem_gib"]
    for pmem, mapping in itertools.product((small, large), MAPPINGS):
        for label, of, shown in DEVICE_ROWS:
            add(f"{pmem} GiB map={mapping}, ms", label, devices, shown, of, pmem, mapping)
    add(f"{HUGE * large} GiB map=dev, ms", "bind returns, 1 worker", huges, ITSELF)
    memory = {run["memory_gib"] for run in data["runs"] if run["what"] == "boot"}
    for gib in memory:
        add("boot, ms", f"{gib:g} GiB of RAM: wait for deferred init", boots, ITSELF, gib)
        add("boot, ms", "  memmap_async=sync", boots, SYNC, gib)
    for mapping in MAPPINGS:
        add("instructions a page, 1 CPU", f"{small} GiB map={mapping}: memmap init, sync", binds,
            SYNC, f"fsdax-{mapping}", "init", True)
    for gib in memory:
        add("instructions a page, 1 CPU", f"{gib:g} GiB of RAM: deferred init", boots, ITSELF, gib,
            True)
    return heads, found


def targets(data):
    if "base" not in columns(data):
        return []
    return [target for mapping, gain in (("mem", 100), ("dev", 50))
            for target in device_targets(data, mapping, gain)]


def device_targets(data, mapping, gain):
    small, large = data["pmem_gib"] // SMALL, data["pmem_gib"]
    name = f"map={mapping}: "

    def of(what, which="series", pmem=large):
        return devices(data, which, what, pmem, mapping)

    bound = of(usable("bound"))
    # With map=dev the memmap's memory does not come from the allocator.
    bases = {"": "base"}
    if mapping == "mem":
        bases = {", init_on_alloc": "base", ", init_on_alloc=0": "base0"}
    for text, what, wanted in (("bind as fast", usable("bound"), gain),
                               ("first bind as fast", first("bind"), gain),
                               ("first byte as soon", usable("byte"), 50)):
        if mapping == "mem" or text != "first bind as fast":
            for label, base in bases.items():
                yield at_least(f"{name}{text} as base's{label}", wanted,
                               ratio(of(what, base), of(what)))
    if mapping == "mem":
        yield at_most(name + "bind, against the same with init_on_alloc=0", 1.15,
                      ratio(bound, of(usable("bound"), "series0")), "x")
    yield at_most(f"{name}bind of {large} GiB against {small} GiB", 1.5,
                  ratio(bound, of(usable("bound"), pmem=small)), "x")
    if mapping == "dev":
        yield at_most(f"{name}bind of {HUGE * large} GiB against {large} GiB", 2.5,
                      ratio(huges(data, "series"), bound), "x")
    during, base = of(touches), of(touches, "base")
    yield at_most(f"{name}first touch while init runs ({len(during)}), p50", 1.25,
                  ratio(during, base), "x", " base")
    yield at_most(name + "first touch while init runs, max", max(base, default=float("nan")) + 5,
                  max(during, default=float("nan")), "ms")
    for step, label in (("touch", ""), ("busy", ", CPUs busy")):
        yield at_most(f"{name}wait in memmap_sync(){label}, p50", 100,
                      median(of(waits(step))) * 1e3, "us")
    yield at_most(name + "all initialised, against the synchronous engine", 1.1,
                  ratio(of(usable("idle")), of(usable("idle"), "sync")), "x")
    yield at_most(name + "unbind while init runs, against a bind", 2, ratio(of(early), bound), "x")


def notes(data):
    """What has to be known of the figures."""
    if "off" in columns(data):
        yield ("A first result: the series' own kernel with memmap_async=off stands in for base. "
               "It flatters\nbase, since that kernel, too, leaves the memmap's memory unzeroed and "
               "writes struct pages faster;\nit lacks the parallel and the background work only.")
        return
    if data["accelerator"] == "tcg":
        yield ("Emulated CPUs zero memory many times slower than real ones: what base loses by "
               "init_on_alloc is\noverstated, and what it takes with init_on_alloc=0 is the lower "
               "bound.")
    yield ("docs/demo.md says what the rows are, and what is not to be taken from them.\n"
           "What the series has to show is meant for 64 and 512 GiB.")


def picture(data):
    """The first bind of a boot: from when on the memory is of use.  With its titles."""
    large = data["pmem_gib"]

    def seconds(which, key="bind"):
        return median(devices(data, which, first(key), large, "mem")) / 1e3

    def said(value):
        return f"{value:.1f} s" if value >= 1 else f"{value * 1e3:.0f} ms"

    base, base0, series = map(seconds, ("base", "base0", "series"))
    done = seconds("series", "idle")
    if any(value != value for value in (base, base0, series, done)):
        return None  # boots are lost
    end = 1.02 * max(base, base0, done)
    grey, blue = report.COLOURS["base"], report.COLOURS["series"]
    matplotlib.rc("hatch", linewidth=1.5)
    figure = Figure(figsize=(10, 3.6))
    axis = figure.add_axes((0.12, 0.27, 0.86, 0.5))
    axis.barh(1, base, color="#cfd6dd")
    axis.barh(1, base0, color=grey)
    axis.barh(0, series, color=grey)
    axis.barh(0, end - series, left=series, color=blue)
    axis.barh(0, done - series, left=series, color=blue, hatch="//", edgecolor="white",
              linewidth=0)
    for place, bar, colour, text in (
        (0, 1, "black", f"{said(base0)}, init_on_alloc=0"),
        (base0, 1, "black", f"{said(base)}, init_on_alloc as in distributions"),
        (done, 0, "white", f"usable after {said(series)}; hatched: the rest of the struct "
         "pages, in the background"),
    ):
        axis.text(place + end / 100, bar, text, color=colour, va="center", fontsize=11)
    axis.set_yticks((1, 0), (f"Linux {data['kernel'].get('base')}", "the series"), fontsize=12)
    axis.set_xlim(0, end)
    axis.set_xlabel("seconds since the bind began", fontsize=10)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    how = data["accelerator"]
    if how == "tcg":
        how = "emulated, which overstates what init_on_alloc costs"
    return (figure, f"{large} GiB of persistent memory: usable after {said(series)}, not after "
            f"{said(base0)} to {said(base)}",
            f"first bind of a boot, map=mem; {data['cpus']} CPUs, {how}")


if __name__ == "__main__":
    parser = measure.parser(__doc__)
    parser.add_argument("--pmem", type=size, default="512G", metavar="SIZE",
                        help=f"of the NVDIMM; others have 1/{SMALL} and {HUGE} times as much")
    parser.add_argument("--cpus", type=int, default=measure.CPUS)
    parser.add_argument("--binds", type=int, default=3, help="in each boot, after the first")
    sys.exit(measure.main(sys.modules[__name__], parser))
