# SPDX-License-Identifier: GPL-2.0
"""What demo.py and bench.py share to measure: kernels boot in turn in QEMU, and what their
guests print becomes figures.

kprobe events bracket a bind and the initialisation of the memmap inside, in ns.  Where the
guest's clock counts instructions (icount), the same events give instructions: a ns is one.

The figures of each boot go into runs.jsonl beside the output as soon as it ends, with a
digest of what they depend on.  What is there already is not measured again.
"""

import argparse
import contextlib
import dataclasses
import datetime
import functools
import hashlib
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

import report

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAMS = TOP / "tests" / "guest"

# Of the guests.
CPUS = 2
MEMORY_GIB = 18
HOST_RESERVE = 2 << 30
SECTION_PAGES = 32768

# The drivers of all kinds are told by the same function.
BIND_PROBES = ("p:bind_in,bind_store", "r:bind_out,bind_store")
# In the base kernel memmap_init_range() initialises the pages that hold a map=dev
# memmap.  Both functions exist in every kernel; what is not called for device memory
# costs nothing here.
INIT_PROBES = (
    "p:init_in,memmap_init_zone_device,nr=%dx:u64",
    "r:init_out,memmap_init_zone_device",
    "p:altmap_in,memmap_init_range",
    "r:altmap_out,memmap_init_range",
)
# RAM that is added: its sections, the memmap's initialisation, the pages' way to the page
# allocator, and whether the zone is contiguous; all but the last two are in the order of time.
# What frees the pages is inlined, but what comes before and after it is not.
HOTADD_PROBES = (
    "p:add_in,arch_add_memory", "r:add_out,arch_add_memory",
    "p:init_in,memmap_init_range,nr=%di:u64", "r:init_out,memmap_init_range",
    "r:free_in,memory_notify", "p:free_out,undo_isolate_page_range",
    "p:contiguous_in,set_zone_contiguous", "r:contiguous_out,set_zone_contiguous",
    "p:online_in,online_pages", "r:online_out,online_pages",
)
# With icount the TSC counts instructions.  Every other clock goes by the timer
# interrupt until boot has chosen a clock source, and is wrong there by a
# factor of two.
TSC_CLOCK = "trace_clock=x86-tsc trace_event=printk:console"
WALL_CLOCK = "trace_clock=mono trace_event=memmap_async:memmap_async_end"
QUIET = "loglevel=4 kunit.enable=0"
DEFERRED = r"node \d+ deferred pages initiali[sz]ed"

TRACED = r"trace: +(?P<task>\S.*-\d+) +\[\d+\] \S+ +(?P<time>\d+(?:\.\d+)?): "
EVENT = re.compile(TRACED + r'(?P<event>\w+):.*?(?: dev="(?P<dev>[^"]*)")?(?: nr=(?P<nr>\d+))?$')
SWITCH = re.compile(r"sched_switch: .*\bprev_pid=(\d+) .*\bnext_pid=(\d+)\b")


class MeasureError(Exception):
    pass


def matches(pattern, lines):
    """All matches, of which there has to be one."""
    found = [match for match in map(re.compile(pattern).match, lines) if match]
    if not found:
        raise MeasureError(f"the guest did not print {pattern}")
    return found


def events(lines):
    """(task, ns, event, the match) of each traced event."""
    for match in filter(None, map(EVENT.match, lines)):
        text = match["time"]
        at = round(float(text) * 1e9) if "." in text else int(text)
        yield match["task"], at, match["event"], match


def traced_binds(lines):
    """The binds in the order of their ends."""
    running, found = {}, []
    for task, at, event, match in events(lines):
        if event == "bind_in":
            running[task] = {"dev": match["dev"], "start": at, "init": 0, "pages": 0, "workers": 0}
        elif bind := running.get(task):
            if event in ("init_in", "altmap_in"):
                bind["init"] -= at
                bind["pages"] += int(match["nr"] or 0)
            elif event in ("init_out", "altmap_out"):
                bind["init"] += at
            elif bind["init"] < 0 and "workqueue=memmap_async " in match.string:
                bind["workers"] += 1
            elif event == "bind_out":
                found.append({**running.pop(task), "bind": at - bind["start"]})
    return found


def traced_hotadd(lines):
    """How long each part of HOTADD_PROBES took; all: from the first section's addition until
    the last one is online.  There is one at a time."""
    found, since = {"pages": 0}, {}
    for _task, at, event, match in events(lines):
        part, _, way = event.partition("_")
        if way == "in":
            since[part] = at
            since.setdefault("all", at)
            found["pages"] += int(match["nr"] or 0)
        elif part in since:
            found[part] = found.get(part, 0) + at - since.pop(part)
            found["all"] = at - since["all"]
    return found


def without_idle(lines):
    """The trace of one CPU as if its clock stood still while the CPU is idle: icount's
    jumps to the next timer then."""
    found, idle, since = [], 0, None
    for line in lines:
        if traced := re.match(TRACED, line):
            at = int(traced["time"])
            if switch := SWITCH.search(line):
                if switch[1] == "0" and since is not None:
                    idle += at - since
                    since = None
                if switch[2] == "0":
                    since = at
            at = (at if since is None else since) - idle
            line = f"{line[:traced.start('time')]}{at}{line[traced.end('time'):]}"
        found.append(line)
    return found


def tsc_clock(icount):
    """With icount, also what without_idle() goes by."""
    return TSC_CLOCK + (",sched:sched_switch" if icount else "")


def console_time(lines, text):
    """When the kernel said that, by TSC_CLOCK."""
    return int(matches(f"{TRACED}console: {text}", lines)[-1]["time"])


def cpus_up(lines):
    """When the line before that of deferred memory was said."""
    return console_time(lines, r"smpboot: Total of \d+ processors")


def until_init(lines):
    """Ticks of TSC_CLOCK, since power-on and with all CPUs, and how many are a microsecond."""
    ticks = console_time(lines, "Run /init ")
    return {"ticks": ticks, "ticks_smp": ticks - cpus_up(lines),
            "mhz": float(matches(r"dmesg: .*tsc: Detected ([\d.]+) MHz", lines)[0][1])}


def waited_us(lines):
    """What boot waited for deferred pages before init, if it went on meanwhile."""
    found = filter(None, map(re.compile(r"dmesg: .*\] boot waited (\d+) us for").match, lines))
    return next((int(line[1]) for line in found), None)


def deferred(lines):
    return console_time(lines, DEFERRED) - cpus_up(lines)


@dataclasses.dataclass
class Job:
    """A boot that yields figures."""

    what: str
    which: str  # of report.VARIANTS
    number: float  # of its round
    text: str
    run: str  # in the guest
    read: Callable  # from the guest's lines to figures
    memory: int
    more: dict = dataclasses.field(default_factory=dict)  # of what it is, for the results
    icount: bool = False
    cpus: int = CPUS
    clock: str = ""
    append: str = ""
    probes: tuple = ()
    options: tuple = ()  # more of scripts/guest
    prepare: Callable = lambda kernel: []  # what has to be done first; returns more of these

    def __post_init__(self):
        self.image, parameter = report.VARIANTS[self.which]
        self.text += f", {report.NAMES[self.which]}" + (" (instructions)" if self.icount else "")
        probes = f"kprobe_event={';'.join(self.probes)}" if self.probes else ""
        append = " ".join(filter(None, (QUIET, self.clock, probes, parameter, self.append)))
        self.guest = ["--memory", self.memory, "--append", append, "--run", self.run]
        # RAM comes from the host before the guest starts: otherwise what a first bind
        # shows is mostly the host's page faults.
        self.guest += ["--icount"] if self.icount else ["--prealloc", "--cpus", self.cpus]
        self.guest += self.options

    def about(self):
        return {"what": self.what, "kernel": self.which, "icount": self.icount, **self.more,
                "round": self.number}


def with_pmem(pmem):
    return ("--pmem", pmem, "--pmem-discard")


def memory_for_pmem(pmem, mapping="mem"):
    """4 GiB do, and with map=mem a 64th of the NVDIMM goes into RAM."""
    return (4 << 30) + (pmem // 64 if mapping == "mem" else 0)


def init_job(which, number, kind, pmem, times, icount=False, what="init"):
    """Binds that initialise all of an NVDIMM before they return.  The first bind after a
    boot is left out: it runs code that QEMU has yet to translate."""
    def read(lines):
        binds = [{key: bind[key] for key in ("bind", "init", "pages")}
                 for bind in traced_binds(lines) if bind["pages"]]
        if len(binds) != times:
            raise MeasureError(f"{len(binds)} binds were traced, not {times}")
        started = {bind["workers"] for bind in traced_binds(lines) if bind["pages"]}
        if not icount and started != {CPUS if which == "sync" else 0}:
            raise MeasureError(f"{which}: binds began with {started} workers")
        return {"binds": binds[1:]}

    size = f"{pmem >> 30} GiB" if pmem >> 30 else f"{pmem >> 20} MiB"
    return Job(
        what, which, number, f"{size} {report.KINDS[kind]}", f"measure_init {kind} {times}", read,
        memory_for_pmem(pmem), {"kind": kind}, icount, options=with_pmem(pmem),
        probes=(*BIND_PROBES, *INIT_PROBES),
        clock=tsc_clock(icount) if icount else WALL_CLOCK + ",workqueue:workqueue_queue_work",
    )


def boot_job(which, number, memory, icount=False, cpus=CPUS):
    """Boot's own milliseconds for its deferred pages, or those that it waits for them if it
    goes on meanwhile; with icount the instructions."""
    def read(lines):
        waited = waited_us(lines)
        found = {
            "ms": waited / 1e3 if waited is not None else
                  max(int(took[1]) for took in matches(rf"dmesg: .*\] {DEFERRED} in (\d+)ms", lines)),
            "pages": sum(int(present[1]) - SECTION_PAGES
                         for present in matches(r"zone \d+ Normal present (\d+)", lines)),
        }
        return found | ({"instructions": deferred(lines)} if icount else {})

    return Job("boot", which, number, f"boot with {memory >> 30} GiB", "measure_init", read, memory,
               {"memory_gib": memory / (1 << 30)}, icount, cpus,
               TSC_CLOCK if icount else WALL_CLOCK)


def hotadd_job(which, number, way, gib, icount=False):  # way: as in measure_hotadd
    def read(lines):
        found = traced_hotadd(lines)
        if found["pages"] < gib << 30 - 12 - 1 or "add" not in found:
            raise MeasureError(f"{found['pages']} struct pages were traced")
        return found

    return Job(
        "hotadd", which, number, f"{gib} GiB added by {way}", f"measure_hotadd {way} {gib}", read,
        memory_for_pmem(gib << 30), {"way": way, "gib": gib}, icount, probes=HOTADD_PROBES,
        # An event of boot's own makes the buffer larger than a page or two.
        clock=tsc_clock(icount) if icount else "trace_clock=mono trace_event=printk:console",
        append="trace_buf_size=8M memhp_default_state=online_movable",
        options=with_pmem(gib << 30) if way == "dax" else ("--virtio-mem", gib << 30),
    )


def kexec_job(which, number, memory, kho, icount=False):
    """From the old kernel's last moment until the new one runs init, and what of that is
    its deferred memory's; by one clock."""
    def read(lines):
        started = int(matches(r"kexec: (\d+)", lines)[-1][1])
        found = until_init(lines)
        waited = waited_us(lines)
        part = deferred(lines) if waited is None else waited * found["mhz"]
        return {"all": found["ticks"] - started, "deferred": part, "mhz": found["mhz"]}

    return Job("kexec", which, number, f"kexec with {memory >> 30} GiB" + (", KHO" if kho else ""),
               "measure_init kexec", read, memory, {"kho": kho}, icount, clock=tsc_clock(icount),
               append="kho=on" if kho else "", prepare=lambda kernel: ["--share", kernel])


def say(text):
    print(f"[{datetime.datetime.now():%H:%M:%S}] {text}", flush=True)


def guest(*arguments):
    """What scripts/guest prints."""
    command = [TOP / "scripts" / "guest", "--timeout", "900", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        words = " ".join(map(str, command))
        raise MeasureError(f"{done.returncode} from {words}:\n{tail}\n{done.stderr}")
    return done.stdout.splitlines()


@functools.cache
def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def cpu_seconds():
    """What all CPUs have worked or been taken away for, less what of it was for us."""
    user, nice, system, _idle, _iowait, *rest = map(int, proc("stat", "cpu")[1].split()[:8])
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK") - sum(own[:2])


def perform(args, job):
    kernel = getattr(args, job.image)
    more = job.prepare(kernel)
    begin, others = time.monotonic(), cpu_seconds()
    lines = guest("--kernel", kernel, *job.guest, *more)
    took = time.monotonic() - begin
    read = job.read(without_idle(lines) if job.icount else lines)
    return {**job.about(), **read, "release": matches(r"release: (\S+)", lines)[0][1],
            "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
            "seconds": round(took, 1),
            "others": round(max(cpu_seconds() - others, 0) / took, 2)}


def perform_all(args, jobs):
    """The runs of those that succeeded; each is tried twice."""
    path = args.output.parent / "runs.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    kept = {}
    for line in path.read_text().splitlines():
        # Half a line from a full disk, or a line of before.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            run = json.loads(line)
            kept[run["key"]] = run
    programs = [*sorted(PROGRAMS.glob("measure*")),
                *(PROGRAMS / name for name in ("init", "common", "guest.h"))]
    same = [args.machine["qemu"], args.accelerator, *map(digest, programs)]
    for job in jobs:
        words = json.dumps([job.about(), job.guest, digest(getattr(args, job.image)), same])
        job.key = hashlib.sha256(words.encode()).hexdigest()[:16]
    if there := sum(job.key in kept for job in jobs):
        say(f"{there} of {len(jobs)} are in {os.path.relpath(path)} already")

    def left(later):
        """A guess from what such boots took so far, others what all took."""
        if not kept:
            return ""
        seconds = {run["text"]: run["seconds"] for run in kept.values()}
        usual = statistics.mean(seconds.values())
        total = sum(seconds.get(job.text, usual) for job in later if job.key not in kept)
        return f", about {total / 60:.1f} min left"

    for number, job in enumerate(jobs, 1):
        for failed in ("fails, once more", "is lost"):
            if job.key in kept:
                break
            say(f"{number} of {len(jobs)}{left(jobs[number - 1:])}: {job.text}")
            try:
                run = {**perform(args, job), "text": job.text, "key": job.key}
            except MeasureError as error:
                print(f"warning: this boot {failed}: {error}", file=sys.stderr)
                continue
            # The newline comes first: the line before may be half of one.
            with open(path, "a") as file:
                file.write(f"\n{json.dumps(run)}")
            kept[job.key] = run
    return [kept[job.key] for job in jobs if job.key in kept]


def proc(file, field):
    return re.search(rf"(?m)^{field}[ \t:]+(.*)", pathlib.Path("/proc", file).read_text())


def memory(field):
    return int(proc("meminfo", field)[1].split()[0]) << 10


def machine(qemu):
    model = proc("cpuinfo", "model name")
    return {
        "cpu": model[1] if model else platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gib": round(memory("MemTotal") / (1 << 30), 1),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "qemu": qemu,
    }


def measure(args, jobs):
    qemu, args.accelerator = guest("--show")
    args.machine = machine(qemu)
    runs = perform_all(args, jobs)
    if not runs:
        raise MeasureError("no boot succeeded")
    there = {run["key"] for run in runs}
    output = {
        "pmem_gib": args.pmem >> 30,
        "cpus": args.cpus,
        "date": max(run["date"] for run in runs),
        "machine": args.machine,
        "accelerator": args.accelerator,
        "kernel": {report.VARIANTS[run["kernel"]][0]: run["release"] for run in runs},
        "rounds": args.rounds if args.base else 1,
        "lost": [job.text for job in jobs if job.key not in there],
        "runs": runs,
    }
    # A run a line.
    args.output.write_text(json.dumps(output).replace('{"what": ', '\n{"what": ') + "\n")


def parser(description, **defaults):
    """The command line that demo.py and bench.py share."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Measures into --output and shows it; without --series only shows it, without "
        "--output only checks the arguments.",
    )
    for option, metavar in (("base", "BZIMAGE"), ("series", "BZIMAGE"), ("output", "JSON"),
                            ("png", "FILE")):
        found.add_argument(f"--{option}", type=pathlib.Path, metavar=metavar)
    found.add_argument("--rounds", type=int, default=1)
    found.set_defaults(**defaults)
    return found


def main(view, parser, needed=0):
    """Measure, and show what it comes to in the way of view.  Guests need so many bytes,
    or what their NVDIMM's memmap takes."""
    args = parser.parse_args()
    for kernel in filter(None, (args.base, args.series)):
        if not kernel.is_file():
            parser.error(f"no kernel {kernel}")
    args.limit = memory("MemAvailable") - HOST_RESERVE
    needed = max(needed, memory_for_pmem(args.pmem))
    if needed > args.limit and (args.series or not args.output):
        parser.error(f"{needed >> 30} GiB of free memory are needed, {args.limit >> 30} are there")
    try:
        if args.series and args.output:
            measure(args, list(view.jobs(args)))
        if args.output:
            report.show(view, json.loads(args.output.read_text()), args.png)
    except MeasureError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the next time it goes on from here", file=sys.stderr)
        return 130
    return 0
