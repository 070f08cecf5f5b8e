#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measure a base and a series kernel in QEMU, alternately; write raw figures.

Wall time comes from kprobe events that bracket a bind (nd_pmem_probe) and the
memmap initialisation inside it, and from boot's own line about deferred pages.
Instructions come from the same events when the guest's clock counts
instructions (icount): there, a nanosecond is an instruction.
"""

import argparse
import datetime
import itertools
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
GUEST = TOP / "scripts" / "guest"
REBIND = TOP / "tests" / "guest" / "rebind"

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
CONSOLE = re.compile(r"trace: +\S.*-\d+ +\[\d+\] \S+ +(?P<time>\d+): console: (?P<text>.*)")
SECTION_PAGES = 32768
HOST_RESERVE = 2 << 30


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


def prepare(args, mapping):
    """The NVDIMM's file with one fsdax namespace on it, made once."""
    path = args.state / f"pmem-{args.pmem >> 20}M-{mapping}"
    if path.exists():
        return path
    need = 2 << 30
    if mapping == "dev":
        need += args.pmem // 64
    free = shutil.disk_usage(args.state).free
    if free < need:
        raise MeasureError(f"{free >> 30} GiB free in {args.state}, {need >> 30} GiB are needed")
    say(f"making the namespace for map={mapping}")
    partial = path.with_suffix(".new")
    partial.unlink(missing_ok=True)
    guest(
        args.base,
        f"ndctl create-namespace -f -e namespace0.0 -m fsdax -M {mapping}",
        *("--pmem", args.pmem, "--pmem-file", partial, "--memory", memory_for_pmem(args)),
        *("--cpus", args.cpus, "--append", QUIET),
    )
    partial.rename(path)
    return path


def memory_for_pmem(args):
    """4 GiB do for 64 GiB: with map=mem a 64th of the NVDIMM goes into RAM."""
    return (3 << 30) + args.pmem // 64


def say(text):
    print(f"[{datetime.datetime.now():%H:%M:%S}] {text}", flush=True)


def device_run(args, kernel, mapping, file, rebinds, icount):
    arguments = ["--pmem", args.pmem, "--pmem-file", file, "--memory", memory_for_pmem(args)]
    arguments += ["--pmem-discard"]
    arguments += ["--icount"] if icount else ["--cpus", args.cpus]
    lines = guest(kernel, f"rebind {rebinds}", *arguments, "--append", f"{QUIET} {CLOCK[icount]} {TRACE}")
    found = binds(lines)
    if len(found) != rebinds + 1:
        raise MeasureError(
            f"traced {len(found)} binds of map={mapping}, not 1 at boot and {rebinds} later:\n"
            + "\n".join(line for line in lines if line.startswith("trace: "))
        )
    return {"first": found[0], "again": found[1:], "release": release(lines)}


def boot_run(args, kernel, icount):
    arguments = ["--icount"] if icount else ["--cpus", args.cpus]
    lines = guest(kernel, "rebind 0", "--memory", args.memory, *arguments,
                  "--append", f"{QUIET} {CLOCK[icount]}")
    return {**deferred(lines, icount), "release": release(lines)}


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
    parser.add_argument(
        "--state", type=pathlib.Path, required=True, metavar="DIR", help="keeps the NVDIMM files"
    )
    parser.add_argument("--pmem", type=parse_size, default=parse_size("64G"), metavar="SIZE")
    parser.add_argument("--memory", type=parse_size, default=parse_size("18G"), metavar="SIZE")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rebinds", type=int, default=3, help="in each round")
    parser.add_argument("--icount-rounds", type=int, default=1)
    args = parser.parse_args()
    if min(args.rounds, args.rebinds, args.icount_rounds, args.cpus) < 1:
        parser.error("at least one of everything")
    limit = available_memory() - HOST_RESERVE
    if args.memory > limit:
        args.memory = max(limit >> 30, 4) << 30
        print(f"warning: not so much memory is available here; boot is measured with "
              f"{args.memory >> 30} GiB", file=sys.stderr)
    return args


def measure(args):
    files = {mapping: prepare(args, mapping) for mapping in ("mem", "dev")}
    kernels = {"base": args.base, "series": args.series}
    runs = []

    def record(icount, number, which, what, result):
        runs.append(
            {"round": number, "kernel": which, "icount": icount, "what": what, **result}
        )

    plan = [(False, number) for number in range(1, args.rounds + 1)]
    plan += [(True, number) for number in range(1, args.icount_rounds + 1)]
    for (icount, number), which in itertools.product(plan, kernels):
        kernel = kernels[which]
        how = "instructions" if icount else f"wall time, {args.cpus} CPUs"
        say(f"{how}, round {number}: {which}")
        rebinds = 1 if icount else args.rebinds
        for mapping, file in files.items():
            record(icount, number, which, f"map={mapping}",
                   device_run(args, kernel, mapping, file, rebinds, icount))
        record(icount, number, which, "boot", boot_run(args, kernel, icount))
    return runs


def main():
    args = arguments()
    args.state.mkdir(parents=True, exist_ok=True)
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
        "kernel": {run["kernel"]: run["release"] for run in runs},
        "pmem_gib": args.pmem / (1 << 30),
        "memory_gib": args.memory / (1 << 30),
        "cpus": args.cpus,
        "runs": runs,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(output, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
