#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measure a base and a series kernel in QEMU, alternately; write the figures.

What a user waits for is timed by the guest's own programs (tests/guest/
measure_*), what memmap_sync() waits by its tracepoint.  The memmap
initialisation inside a bind is bracketed by kprobe events, and boot says itself
how long its deferred pages took.  Instructions come from the same events when
the guest's clock counts instructions (icount): there, a nanosecond is an
instruction.

The series is measured as it is, and as "sync" with memmap_async=sync: that bind
does not return before all workers together are done.
"""

import argparse
import datetime
import itertools
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

sys.dont_write_bytecode = True
import report  # noqa: E402  (leaves no directory beside the scripts)

TOP = pathlib.Path(__file__).resolve().parent.parent
GUEST = TOP / "scripts" / "guest"

# In the base kernel memmap_init_range() initialises the pages that hold a
# map=dev memmap.  Both functions exist in every kernel; what is not called for
# device memory costs nothing here.
PROBES = (
    "p:bind_in,nd_pmem_probe",
    "r:bind_out,nd_pmem_probe",
    "p:init_in,memmap_init_zone_device,nr=%dx:u64",
    "r:init_out,memmap_init_zone_device",
    "p:altmap_in,memmap_init_range",
    "r:altmap_out,memmap_init_range",
)
TRACE = f"kprobe_event={';'.join(PROBES)}"
# With icount the TSC counts instructions.  Every other clock goes by the timer
# interrupt until boot has chosen a clock source, and is wrong there by a
# factor of two.
CLOCK = {False: "trace_clock=mono", True: "trace_clock=x86-tsc trace_event=printk:console"}
QUIET = "loglevel=4 kunit.enable=0"

EVENT = re.compile(
    r"trace: +(?P<task>\S.*-\d+) +\[\d+\] \S+ +(?P<time>\d+(?:\.\d+)?): (?P<event>\w+):"
    r".*?(?: nr=(?P<nr>\d+))?$"
)
SYNC_WAIT = re.compile(r"trace: +measure_touch-\d+ .* memmap_sync: .*\bwait_ns[=:] *(\d+)")
CONSOLE = re.compile(r"trace: +\S.*-\d+ +\[\d+\] \S+ +(?P<time>\d+): console: (?P<text>.*)")
SECTION_PAGES = 32768
HOST_RESERVE = 2 << 30
TOUCHES = 48


class MeasureError(Exception):
    pass


def parse_size(text):
    match = re.fullmatch(r"(\d+)([KMGT]?)", text, re.IGNORECASE)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 64G")
    return int(match[1]) << (10 * " KMGT".index(match[2].upper() or " "))


def seconds(text):
    return float(text) if "." in text else int(text) / 1e9


def binds(lines):
    """The binds that initialised a memmap, in order; times in seconds, or with
    icount in 10^9 instructions."""
    open_binds, found = {}, []
    for match in filter(None, map(EVENT.match, lines)):
        task, event, time = match["task"], match["event"], seconds(match["time"])
        if event == "bind_in":
            open_binds[task] = {"start": time, "init": 0.0, "pages": 0}
            continue
        bind = open_binds.get(task)
        if bind is None:
            continue
        if event in ("init_in", "altmap_in"):
            bind["since"] = time
            bind["pages"] += int(match["nr"] or 0)
        elif event in ("init_out", "altmap_out"):
            bind["init"] += time - bind.pop("since")
        elif event == "bind_out":
            del open_binds[task]
            if bind["pages"]:
                found.append(
                    {
                        "bind": time - bind["start"],
                        "init": bind["init"],
                        "pages": bind["pages"],
                    }
                )
    return found


def deferred(lines, icount):
    """Boot's own milliseconds for its deferred pages, and with icount the
    instructions from the line before (the CPUs are up) to that line."""
    milliseconds = [
        int(match[1])
        for match in (
            re.match(r"dmesg: .*\] node \d+ deferred pages initiali[sz]ed in (\d+)ms", line)
            for line in lines
        )
        if match
    ]
    pages = sum(
        int(match[1]) - SECTION_PAGES
        for match in (re.match(r"zone \d+ Normal present (\d+)", line) for line in lines)
        if match
    )
    if not milliseconds or pages <= 0:
        raise MeasureError("the kernel did not say how long its deferred pages took")
    result = {"ms": max(milliseconds), "pages": pages}
    if icount:
        up = done = None
        for match in filter(None, map(CONSOLE.match, lines)):
            if re.match(r"smpboot: Total of \d+ processors", match["text"]):
                up = int(match["time"])
            if re.match(r"node \d+ deferred pages initiali[sz]ed", match["text"]):
                done = int(match["time"])
        if up is None or done is None:
            raise MeasureError("boot's deferred pages are not in the trace")
        result["instructions"] = done - up
    return result


def variants(args):
    """Kernel and parameters by name, in the order in which they take turns."""
    return {
        "base": (args.base, ""),
        "series": (args.series, ""),
        "sync": (args.series, "memmap_async=sync"),
    }


def guest(kernel, run, *arguments, timeout=900):
    command = [GUEST, "--kernel", kernel, "--timeout", str(timeout), "--run", run, *arguments]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise MeasureError(
            f"scripts/guest ended with {done.returncode} for {kernel}:\n{tail}\n{done.stderr}"
        )
    return done.stdout.splitlines()


def release(lines):
    return next(line.split()[1] for line in lines if line.startswith("release: "))


def memory_for_pmem(pmem):
    """4 GiB do, and with map=mem a 64th of the NVDIMM goes into RAM."""
    return (4 << 30) + pmem // 64


def say(text):
    print(f"[{datetime.datetime.now():%H:%M:%S}] {text}", flush=True)


def numbers(line):
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line)}


def device_figures(lines):
    """What tests/guest/measure_device printed; times in ns."""
    found = {"usable": [], "touches": {}, "waits": {}, "early": []}
    step = None
    for line in lines:
        kind, _, rest = line.partition(": ")
        if kind == "step":
            step = rest
        elif kind == "usable":
            found["usable"].append({**numbers(rest), "samples": []})
        elif kind == "sample":
            sample = numbers(rest)
            found["usable"][-1]["samples"].append([sample["time"], sample["done"]])
        elif kind == "touch":
            found["touches"].setdefault(step, []).append(numbers(rest))
        elif kind == "early":
            found["early"].append(numbers(rest))
        elif match := SYNC_WAIT.match(line):
            found["waits"].setdefault(step, []).append(int(match[1]))
    return found


def device_run(args, which, pmem, mapping, icount):
    kernel, append = variants(args)[which]
    times = 1 if icount else args.binds
    touches = 0 if icount or which == "sync" else TOUCHES
    lines = guest(
        kernel, f"measure_device {mapping} {times} {touches}",
        *("--pmem", pmem, "--pmem-discard", "--memory", memory_for_pmem(pmem)),
        *(["--icount"] if icount else ["--cpus", args.cpus]),
        *("--append", f"{QUIET} {CLOCK[icount]} {TRACE} {append}"),
    )
    figures = device_figures(lines)
    if which != "series":
        figures["binds"] = binds(lines)
        if len(figures["binds"]) != times:
            traced = "\n".join(line for line in lines if line.startswith("trace: "))
            raise MeasureError(f"not {times} binds of map={mapping} were traced:\n{traced}")
    return {"what": "device", "kernel": which, "icount": icount, "pmem_gib": pmem >> 30,
            "mapping": mapping, **figures, "release": release(lines)}


def boot_run(args, which, icount):
    arguments = ["--icount"] if icount else ["--cpus", args.cpus]
    lines = guest(variants(args)[which][0], "measure_boot", "--memory", args.memory, *arguments,
                  "--append", f"{QUIET} {CLOCK[icount]}")
    return {"what": "boot", "kernel": which, "icount": icount, **deferred(lines, icount),
            "release": release(lines)}


def available_memory():
    text = pathlib.Path("/proc/meminfo").read_text()
    return int(re.search(r"MemAvailable: +(\d+)", text)[1]) << 10


def machine():
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    meminfo = pathlib.Path("/proc/meminfo").read_text()
    version = subprocess.run(
        ["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True
    )
    return {
        "cpu": model[1] if model else platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gib": round(int(re.search(r"MemTotal: +(\d+)", meminfo)[1]) / (1 << 20), 1),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "qemu": version.stdout.splitlines()[0].removeprefix("QEMU emulator version "),
    }


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=pathlib.Path, required=True, metavar="BZIMAGE")
    parser.add_argument("--series", type=pathlib.Path, required=True, metavar="BZIMAGE")
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="JSON")
    parser.add_argument("--pmem", type=parse_size, default=parse_size("512G"), metavar="SIZE",
                        help="of the NVDIMM; another is an eighth of it")
    parser.add_argument("--memory", type=parse_size, default=parse_size("18G"), metavar="SIZE")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--binds", type=int, default=3, help="in each round")
    parser.add_argument("--icount-rounds", type=int, default=1)
    args = parser.parse_args()
    if min(args.rounds, args.binds, args.icount_rounds, args.cpus) < 1:
        parser.error("at least one of everything")
    limit = available_memory() - HOST_RESERVE
    if memory_for_pmem(args.pmem) > limit:
        parser.error(f"{memory_for_pmem(args.pmem) >> 30} GiB of free memory are needed for "
                     f"an NVDIMM of {args.pmem >> 30} GiB, {limit >> 30} are there: "
                     "try a smaller --pmem")
    if args.memory > limit:
        args.memory = max(limit >> 30, 4) << 30
        print(f"warning: not so much memory is available here; boot is measured with "
              f"{args.memory >> 30} GiB", file=sys.stderr)
    return args


def measure(args):
    runs = []
    small, large = args.pmem // 8, args.pmem
    for number in range(1, args.rounds + 1):
        found = []
        for pmem, mapping in itertools.product((small, large), ("mem", "dev")):
            for which in variants(args):
                say(f"round {number}: {pmem >> 30} GiB map={mapping}, {which}")
                found.append(device_run(args, which, pmem, mapping, icount=False))
        say(f"round {number}: boot")
        found += [boot_run(args, which, icount=False) for which in ("base", "series")]
        runs += [{"round": number, **run} for run in found]
    for number in range(1, args.icount_rounds + 1):
        say(f"instructions, round {number}")
        found = [
            device_run(args, which, small, mapping, icount=True)
            for mapping, which in itertools.product(("mem", "dev"), ("base", "sync"))
        ]
        found += [boot_run(args, which, icount=True) for which in ("base", "series")]
        runs += [{"round": number, **run} for run in found]
    return runs


def write(output, path):
    """A run a line: nobody reads the single figures."""
    runs = ",\n".join(f"  {json.dumps(run)}" for run in output["runs"])
    text = json.dumps({**output, "runs": []}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace('"runs": []', f'"runs": [\n{runs}\n ]') + "\n")


def main():
    args = arguments()
    try:
        accel = subprocess.run(
            [GUEST, "--kernel", args.base, "--show-accel"], capture_output=True, text=True,
            check=True,
        ).stdout.strip()
        busy = os.getloadavg()[0]
        runs = measure(args)
    except MeasureError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"error: {error}\n{error.stderr}", file=sys.stderr)
        return 1
    output = {
        "host_load": busy,
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "machine": machine(),
        "accelerator": accel,
        "kernel": {run["kernel"]: run["release"] for run in runs if run["kernel"] != "sync"},
        "pmem_gib": args.pmem >> 30,
        "memory_gib": args.memory / (1 << 30),
        "cpus": args.cpus,
        "rounds": args.rounds,
        "runs": runs,
    }
    output = {**report.summary(report.rows(output), report.targets(output)), **output}
    write(output, args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
