#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measure a base and a series kernel in QEMU, alternately; write the figures, print a table, draw a picture.

A user waits for the first bind of a boot.  So an NVDIMM with a
namespace and a filesystem is made beforehand, and each measured boot binds that:
kprobe events bracket the driver's probe.  What else a user waits for is timed by
the guest's own programs (tests/guest/measure_*), what memmap_sync() waits by its
tracepoint.  Boot says itself how long its deferred pages took.  Instructions come
from the same events when the guest's clock counts instructions (icount): there, a
nanosecond is an instruction.

Without --base only a short first part is measured, where the series' own kernel with
memmap_async=off stands in for base.

The figures of each boot go into runs.jsonl beside the output as soon as it ends, with
what they depend on.  What is there already is not measured again.
"""

import argparse
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import itertools
import json
import os
import pathlib
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

sys.dont_write_bytecode = True
import report  # noqa: E402  (leaves no directory beside the scripts)

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
GUEST = TOP / "scripts" / "guest"
PROGRAMS = TOP / "tests" / "guest"
STATE = TOP / "build" / "demo"

# Kernel and parameters of each variant.
VARIANTS = {
    "base": ("base", ""),
    "base0": ("base", "init_on_alloc=0"),
    "series": ("series", ""),
    "series0": ("series", "init_on_alloc=0"),
    "sync": ("series", "memmap_async=sync"),
    "off": ("series", "memmap_async=off"),
}

# The probed device's name comes first in its struct, twice over.
# In the base kernel memmap_init_range() initialises the pages that hold a
# map=dev memmap.  Both functions exist in every kernel; what is not called for
# device memory costs nothing here.
PROBES = (
    "p:bind_in,nd_pmem_probe,dev=+0(+0(%di)):string",
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
CLOCK = {
    False: "trace_clock=mono trace_event=memmap_async:memmap_async_done",
    True: "trace_clock=x86-tsc trace_event=printk:console",
}
QUIET = "loglevel=4 kunit.enable=0"

EVENT = re.compile(
    r"trace: +(?P<task>\S.*-\d+) +\[\d+\] \S+ +(?P<time>\d+(?:\.\d+)?): (?P<event>\w+):"
    r'.*?(?: dev="(?P<dev>[^"]*)")?(?: nr=(?P<nr>\d+))?$'
)
SYNC_WAIT = re.compile(r"trace: +measure-\d+ .* memmap_sync: .*\bwait_ns[=:] *(\d+)")
CONSOLE = re.compile(r"trace: +\S.*-\d+ +\[\d+\] \S+ +(?P<time>\d+): console: (?P<text>.*)")
SECTION_PAGES = 32768
HOST_RESERVE = 2 << 30
TOUCHES = 48
# Of the guests, unless told otherwise.
CPUS = 2
MEMORY_GIB = 18


class MeasureError(Exception):
    pass


def parse_size(text):
    match = re.fullmatch(r"(\d+)([KMGT]?)", text, re.IGNORECASE)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 64G")
    return int(match[1]) << (10 * " KMGT".index(match[2].upper() or " "))


def seconds(text):
    return float(text) if "." in text else int(text) / 1e9


def probes(lines):
    """What bound, or tried to, in the order of the ends; times in seconds, or with
    icount in 10^9 instructions."""
    open_binds, found = {}, []
    for match in filter(None, map(EVENT.match, lines)):
        task, event, time = match["task"], match["event"], seconds(match["time"])
        if event == "bind_in":
            open_binds[task] = {"dev": match["dev"], "start": time, "init": 0.0, "pages": 0}
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
            found.append({**bind, "bind": time - bind["start"]})
    return found


def binds(lines):
    """The binds that initialised a memmap before they returned."""
    return [{key: bind[key] for key in ("bind", "init", "pages")}
            for bind in probes(lines) if bind["pages"]]


def first_bind(lines):
    """Boot's bind, and all initialised by then or in the background; in ns, and begun
    when.  The namespace itself and a spare pfn device are probed, too, in no time."""
    found = [bind for bind in probes(lines) if (bind["dev"] or "").startswith("pfn")]
    if not found:
        raise MeasureError("boot's bind was not traced")
    bind = max(found, key=lambda bind: bind["bind"])
    done = [seconds(match["time"]) - bind["start"] for match in map(EVENT.match, lines)
            if match and match["event"] == "memmap_async_done"]
    return {"start": round(bind["start"] * 1e9), "bind": round(bind["bind"] * 1e9),
            "idle": round(max(done[-1:] + [bind["bind"]]) * 1e9)}


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


def memory_for_pmem(pmem, mapping="mem"):
    """4 GiB do, and with map=mem a 64th of the NVDIMM goes into RAM."""
    return (4 << 30) + (pmem // 64 if mapping == "mem" else 0)


def say(text):
    print(f"[{datetime.datetime.now():%H:%M:%S}] {text}", flush=True)


def numbers(line):
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line)}


# --- boots, kept as they come -----------------------------------------------------


@dataclasses.dataclass
class Job:
    """A boot that yields figures."""

    text: str
    about: dict  # what it is: goes into the results
    run: str  # in the guest
    guest: list  # more for scripts/guest
    read: Callable  # from the console's lines to figures
    fitted: tuple = ()  # size and mapping of the NVDIMM that prepared() makes

    def kernel(self, args):
        return getattr(args, VARIANTS[self.about["kernel"]][0])


def parameters(which, icount, *more):
    """For scripts/guest.  RAM comes from the host before the guest starts: otherwise
    what a first bind shows is mostly the host's page faults."""
    append = " ".join(filter(None, (QUIET, *more, VARIANTS[which][1])))
    return [*(["--icount"] if icount else ["--prealloc"]), "--append", append]


def digest(*paths):
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def prepared(args, pmem, mapping):
    """An NVDIMM as it is after a shutdown.  Guests write to copies of its pages."""
    made = digest(*(PROGRAMS / name for name in ("measure_prepare", "common")))
    path = STATE / "pmem" / f"{pmem >> 20}M-{mapping}-{made}"
    if path.exists():
        return path
    for old in path.parent.glob(f"{pmem >> 20}M-{mapping}-*"):
        old.unlink()
    say(f"making a filesystem on {pmem >> 30} GiB map={mapping}")
    partial = path.with_name(f"{pmem >> 20}M-{mapping}-partial")
    lines = guest(args.series, f"measure_prepare {mapping}", "--pmem", pmem, "--pmem-file",
                  partial, "--memory", memory_for_pmem(pmem, mapping), "--append", QUIET)
    data = next(int(line.split()[1]) for line in lines if line.startswith("data: "))
    # Nothing needs this boot's memmap any more; the info block before it stays.
    if mapping == "dev":
        subprocess.run(["fallocate", "--punch-hole", "--offset", str(1 << 20), "--length",
                        str(data - (1 << 20)), partial], check=False)
    return partial.rename(path)


def cpu_seconds():
    """What all CPUs have worked or been taken away for, and what of it was for us."""
    words = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    idle = int(words[3]) + int(words[4])
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ((sum(map(int, words)) - idle) / os.sysconf("SC_CLK_TCK"), own.ru_utime + own.ru_stime)


def perform(args, job):
    more = []
    if job.fitted:
        more = ["--pmem", job.fitted[0], "--pmem-file", prepared(args, *job.fitted)]
        more.append("--pmem-discard")
    begin, (all_before, own_before) = time.monotonic(), cpu_seconds()
    lines = guest(job.kernel(args), job.run, *job.guest, *more)
    took, (all_after, own_after) = time.monotonic() - begin, cpu_seconds()
    others = max(all_after - all_before - (own_after - own_before), 0) / took
    return {**job.about, **job.read(lines), "release": release(lines),
            "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
            "seconds": round(took, 1), "others": round(others, 2)}


class Store:
    """Runs by what they depend on, a JSON line each."""

    def __init__(self, args):
        self.path = args.output.parent / "runs.jsonl"
        self.runs, self.took = {}, {}
        self.same = {"qemu": machine()["qemu"], "accelerator": args.accelerator,
                     "programs": digest(*sorted(PROGRAMS.glob("measure*")),
                                        *(PROGRAMS / name for name in ("init", "common")))}
        self.images = {name: digest(path) for name in ("base", "series")
                       if (path := getattr(args, name))}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+") as file:
            file.seek(0)
            text = file.read()
            # The last line of a full disk may be half of one.
            if text and not text.endswith("\n"):
                file.write("\n")
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError):
                found = json.loads(line)
                self.add(found["key"], found["run"])

    def key(self, job):
        image = self.images[VARIANTS[job.about["kernel"]][0]]
        words = " ".join(map(str, [job.run, *job.guest]))
        return {"about": job.about, **self.same, "image": image, "guest": words}

    @staticmethod
    def kind(about):
        return json.dumps({**about, "round": None}, sort_keys=True)

    def add(self, key, run):
        self.runs[json.dumps(key, sort_keys=True)] = run
        # How long it took says something even if the kernel was another one.
        self.took.setdefault(self.kind(key["about"]), []).append(run["seconds"])

    def find(self, job):
        return self.runs.get(json.dumps(self.key(job), sort_keys=True))

    def keep(self, job, run):
        entry = {"key": self.key(job), "run": run}
        with open(self.path, "a") as file:
            file.write(f"{json.dumps(entry)}\n")
        self.add(**entry)

    def left(self, jobs):
        """A guess from what such boots took so far, others what all took."""
        took = {kind: statistics.median(found[-3:]) for kind, found in self.took.items()}
        if not took:
            return ""
        usual = statistics.mean(took.values())
        left = sum(took.get(self.kind(job.about), usual) for job in jobs if not self.find(job))
        return f", about {left / 60:.0f} min left" if left > 90 else f", about {left:.0f} s left"


def perform_all(args, jobs):
    """The runs of those that succeeded; each is tried twice."""
    store = Store(args)
    if there := sum(1 for job in jobs if store.find(job)):
        say(f"{there} of {len(jobs)} are in {os.path.relpath(store.path)} already")
    found = []
    for number, job in enumerate(jobs, 1):
        for failed in ("fails, once more", "is lost"):
            if store.find(job):
                break
            say(f"{number} of {len(jobs)}{store.left(jobs[number - 1:])}: {job.text}")
            try:
                store.keep(job, perform(args, job))
            except MeasureError as error:
                print(f"warning: this boot {failed}: {error}", file=sys.stderr)
        if run := store.find(job):
            found.append(run)
    if not found:
        raise MeasureError("no boot succeeded")
    return found


# --- what is measured ---------------------------------------------------------------


def device_figures(lines):
    """What tests/guest/measure_device printed; times in ns."""
    found = {"first": {}, "usable": [], "touches": {}, "waits": {}, "early": []}
    step = None
    for line in lines:
        kind, _, rest = line.partition(": ")
        if kind == "step":
            step = rest
        elif kind == "first":
            found["first"] = numbers(rest)
        elif kind == "usable":
            found["usable"].append(numbers(rest))
        elif kind == "touch":
            found["touches"].setdefault(step, []).append(numbers(rest))
        elif kind == "early":
            found["early"].append(numbers(rest))
        elif match := SYNC_WAIT.match(line):
            found["waits"].setdefault(step, []).append(int(match[1]))
    return found


def read_device(lines):
    figures = device_figures(lines)
    second = next(index for index, line in enumerate(lines) if line == "step: usable")
    figures["first"] |= first_bind(lines[:second])
    return figures


def read_instructions(lines):
    """Of the last bind: all of its code has been run before."""
    found = binds(lines)
    if not found:
        raise MeasureError("no bind was traced")
    return {"init": round(found[-1]["init"] * 1e9), "pages": found[-1]["pages"]}


def device_job(args, which, number, pmem, mapping, icount=False, touches=0):
    return Job(
        f"{pmem >> 30} GiB map={mapping}, {report.NAMES[which]}"
        + (" (instructions)" if icount else ""),
        {"what": "device", "kernel": which, "icount": icount, "pmem_gib": pmem >> 30,
         "mapping": mapping, "round": number},
        f"measure_device {1 if icount else args.binds} {touches}",
        ["--memory", memory_for_pmem(pmem, mapping), *([] if icount else ["--cpus", args.cpus]),
         *parameters(which, icount, CLOCK[icount], TRACE)],
        read_instructions if icount else read_device,
        (pmem, mapping),
    )


def huge_job(args, number):
    """One worker, so that little of the memmap is written before it is unbound: the host
    has to find memory for that."""
    pmem = report.HUGE * args.pmem
    return Job(
        f"{pmem >> 30} GiB map=dev, {report.NAMES['series']}",
        {"what": "huge", "kernel": "series", "icount": False, "pmem_gib": pmem >> 30,
         "mapping": "dev", "round": number},
        f"measure_huge {args.binds}",
        ["--memory", 4 << 30, "--cpus", args.cpus, "--pmem", pmem, "--pmem-discard",
         *parameters("series", False, "memmap_async.max_workers=1")],
        lambda lines: {"bare": [numbers(line) for line in lines if line.startswith("bare: ")]},
    )


def boot_job(which, number, memory, cpus, icount):
    return Job(
        f"boot with {memory >> 30} GiB, {report.NAMES[which]}"
        + (" (instructions)" if icount else ""),
        {"what": "boot", "kernel": which, "icount": icount, "memory_gib": memory / (1 << 30),
         "round": number},
        "measure_init",
        ["--memory", memory, *([] if icount else ["--cpus", cpus]),
         *parameters(which, icount, CLOCK[icount])],
        functools.partial(deferred, icount=icount),
    )


def jobs(args):
    small, large = args.pmem // report.SMALL, args.pmem
    if not args.base:
        return [device_job(args, which, 0, large, "mem") for which in ("off", "series")]
    found = []
    for number in range(1, args.rounds + 1):
        for pmem, mapping in itertools.product((small, large), report.MAPPINGS):
            found += [
                device_job(args, which, number, pmem, mapping,
                           touches=TOUCHES if which in ("base", "series") else 0)
                for which in ("base", "series", "base0", "series0", "sync")
            ]
        found.append(huge_job(args, number))
        found += [boot_job(which, number, args.memory, args.cpus, False)
                  for which in ("base", "series")]
    found += [device_job(args, which, 1, small, mapping, icount=True)
              for mapping, which in itertools.product(report.MAPPINGS, ("base", "sync"))]
    found += [boot_job(which, 1, args.memory, args.cpus, True) for which in ("base", "series")]
    return found


def available_memory():
    text = pathlib.Path("/proc/meminfo").read_text()
    return int(re.search(r"MemAvailable: +(\d+)", text)[1]) << 10


def machine():
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    meminfo = pathlib.Path("/proc/meminfo").read_text()
    version = subprocess.run(
        [GUEST, "--show-qemu"], capture_output=True, text=True, check=True
    )
    return {
        "cpu": model[1] if model else platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gib": round(int(re.search(r"MemTotal: +(\d+)", meminfo)[1]) / (1 << 20), 1),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "qemu": version.stdout.strip(),
    }


def about(args, runs):
    """What the figures are of."""
    return {
        "others": {"median": statistics.median(run["others"] for run in runs),
                   "max": max(run["others"] for run in runs)},
        "date": max(run["date"] for run in runs),
        "machine": machine(),
        "accelerator": args.accelerator,
        "kernel": {VARIANTS[run["kernel"]][0]: run["release"] for run in runs},
        "rounds": max(1, *(int(run["round"]) for run in runs)),
        "runs": runs,
    }


def accelerator(args):
    done = subprocess.run([GUEST, "--kernel", args.series, "--show-accel"],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise MeasureError(done.stderr.strip().removeprefix("error: "))
    return done.stdout.strip()


def write(output, path):
    """A run, a figure, a target a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({key: f"@{key}" if isinstance(value, list) else value
                       for key, value in output.items()}, indent=1)
    for key, value in output.items():
        if isinstance(value, list):
            lines = ",\n".join(f"  {json.dumps(each)}" for each in value)
            text = text.replace(f'"@{key}"', f"[\n{lines}\n ]")
    path.write_text(text + "\n")


def ended_by(args, work):
    """The exit status of a script whose work that is."""
    try:
        if not args.check:
            work(args)
    except MeasureError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the next time it goes on from here", file=sys.stderr)
        return 130
    return 0


def parser(description, rounds):
    """What scripts/demo and scripts/bench pass on alike."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option, metavar in (("base", "BZIMAGE"), ("series", "BZIMAGE"), ("output", "JSON"),
                            ("png", "FILE")):
        found.add_argument(f"--{option}", type=pathlib.Path, metavar=metavar)
    found.add_argument("--rounds", type=int, default=rounds)
    found.add_argument("--check", action="store_true", help="the arguments, and nothing else")
    return found


def check(parser, args, needed, hint=""):
    """That kernels and memory are there; how much memory."""
    if args.rounds < 1:
        parser.error("at least one round")
    for kernel in filter(None, (args.base, args.series)):
        if not kernel.is_file():
            parser.error(f"no kernel {kernel}")
    if not args.check and not (args.series and args.output):
        parser.error("--series and --output are needed")
    limit = available_memory() - HOST_RESERVE
    if needed > limit:
        parser.error(f"{needed >> 30} GiB of free memory are needed, {limit >> 30} are there{hint}")
    return limit


def carry_out(args, wanted, more, view):
    """Measure; write and show what it comes to in the way of view, a module such as report."""
    args.accelerator = accelerator(args)
    runs = perform_all(args, wanted)
    output = {**more, **about(args, runs), "lost": len(wanted) - len(runs)}
    found, shown, heads = view.rows(output), view.targets(output), view.columns(output)
    write({**report.summary(found, shown, heads), **output}, args.output)
    print()
    report.table(found, heads)
    if shown:
        print("\nWhat the series has to show:")
        report.show_targets(shown)
    for note in view.notes(output):
        print(f"\n{note}")
    print(f"\n{report.about(output)}")
    report.warn_lost(output)
    report.warn_busy(output)
    if args.png:
        view.picture(output, args.png)


def arguments():
    found = parser(__doc__, 3)
    found.add_argument("--pmem", type=parse_size, default=parse_size("512G"), metavar="SIZE",
                       help=f"of the NVDIMM; others have 1/{report.SMALL} and {report.HUGE} "
                       "times as much")
    found.add_argument("--memory", type=parse_size, default=MEMORY_GIB << 30, metavar="SIZE")
    found.add_argument("--cpus", type=int, default=CPUS)
    found.add_argument("--binds", type=int, default=3, help="in each boot, after the first")
    args = found.parse_args()
    if min(args.binds, args.cpus) < 1:
        found.error("--binds and --cpus have to be 1 or more")
    if args.pmem < report.SMALL << 30 or args.pmem % (report.SMALL << 30):
        found.error(f"--pmem has to be a multiple of {report.SMALL}G")
    limit = check(found, args, memory_for_pmem(args.pmem), ": try a smaller --pmem")
    if args.memory > limit:
        args.memory = max(limit >> 30, 4) << 30
        print(f"warning: not so much memory is available here; boot is measured with "
              f"{args.memory >> 30} GiB", file=sys.stderr)
    return args


def measure(args):
    carry_out(args, jobs(args), {
        "pmem_gib": args.pmem >> 30,
        "memory_gib": args.memory / (1 << 30),
        "cpus": args.cpus,
    }, report)


def main():
    args = arguments()
    return ended_by(args, measure)


if __name__ == "__main__":
    sys.exit(main())
