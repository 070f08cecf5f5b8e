# SPDX-License-Identifier: GPL-2.0
"""What the figures of measure.py come to: a table, a picture, and a word on each
thing that the series has to show."""

import statistics

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first)

COLOURS = {"base": "#9aa5b1", "series": "#1f6feb"}
# How variants are called.
NAMES = {
    "base": "base",
    "base0": "base, init_on_alloc=0",
    "series": "series",
    "series0": "series, init_on_alloc=0",
    "sync": "series, memmap_async=sync",
    "off": "series, memmap_async=off",
}
MAPPINGS = ("mem", "dev")
# Other sizes than --pmem: a part of it, and a multiple.
SMALL, HUGE = 8, 8
# What a user can do, and since when.
FIRST = {
    "bind": "first bind of a boot",
    "idle": "  all initialised",
    "mounted": "  kernel's start until it is mounted",
}
USABLE = {
    "bound": "bind returns",
    "mounted": "filesystem mounted",
    "byte": "first byte written by mmap",
    "idle": "all initialised",
}


def device_runs(data, kernel, pmem, mapping, icount=False):
    return [
        run
        for run in data["runs"]
        if run["what"] == "device"
        and (run["kernel"], run["pmem_gib"], run["mapping"], run["icount"])
        == (kernel, pmem, mapping, icount)
    ]


def first(runs, key):
    return [run["first"][key] / 1e6 for run in runs]


def usable(runs, key):
    return [bind[key] / 1e6 for run in runs for bind in run["usable"]]


def touches(runs, during=False):
    """Milliseconds of the first touches, or of those that began during init."""
    return [
        touch["ns"] / 1e6
        for run in runs
        for touch in run["touches"].get("touch", [])
        if touch["active"] or not during
    ]


def waits(runs, step):
    return [wait / 1e6 for run in runs for wait in run["waits"].get(step, [])]


def early(runs):
    return [
        unbind["unbind"] / 1e6
        for run in runs
        for unbind in run["early"]
        if unbind["done"] < unbind["total"]
    ]


def boots(data, kernel, icount):
    return [
        run["instructions"] / run["pages"] if icount else float(run["ms"])
        for run in data["runs"]
        if run["what"] == "boot" and (run["kernel"], run["icount"]) == (kernel, icount)
    ]


def huge_runs(data):
    return [run for run in data["runs"] if run["what"] == "huge"]


def huge(data):
    return [bind["bound"] / 1e6 for run in huge_runs(data) for bind in run["bare"]]


def columns(data):
    """The series is the last, with what it is compared with before it."""
    measured = {run["kernel"] for run in data["runs"]}
    return ("off", "series") if "off" in measured else ("base", "base0", "series")


def counted(name, runs):
    """A section's name with the number of boots that its figures are from."""
    counts = {}
    for run in runs:
        counts[run["kernel"]] = counts.get(run["kernel"], 0) + 1
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{NAMES[which]} {count}" for which, count in counts.items())
    else:
        said = f"{max(counts.values(), default=0)} of each"
    return f"{name} (boots: {said})"


def rows(data):
    """(section, label, figures of each column): empty is what a kernel does not
    have, and a row without figures is left out."""
    found, heads = [], columns(data)

    def add(section, label, **figures):
        if any(figures.values()):
            found.append((section, label, *(figures.get(head, []) for head in heads)))

    for pmem in sizes(data):
        for mapping in MAPPINGS:
            runs = {which: device_runs(data, which, pmem, mapping) for which in NAMES}
            base, series = runs["base"], runs["series"]
            section = counted(f"{pmem} GiB map={mapping}, ms",
                              [run for found in runs.values() for run in found])
            for figures, labels in ((first, FIRST), (usable, USABLE)):
                for key, label in labels.items():
                    add(section, label, **{head: figures(runs[head], key) for head in heads})
                    if key in ("bind", "bound"):
                        add(section, "  series with init_on_alloc=0",
                            **{head: figures(runs[which], key) for head, which in
                               (("base0", "base0"), ("series", "series0")) if runs["series0"]})
            add(section, "  memmap_async=sync: bind returns", base=usable(base, "bound"),
                base0=usable(runs["base0"], "bound"), series=usable(runs["sync"], "bound"))
            if during := touches(series, during=True):
                add(section, "first touch of 2 MiB, while init runs", base=touches(base),
                    series=during)
            add(section, "wait in memmap_sync() for such touches", series=waits(series, "touch"))
            add(section, "  with the CPUs busy", series=waits(series, "busy"))
            add(section, "unbind",
                **{head: usable(runs[head], "unbind") for head in heads})
            add(section, "unbind, a quarter initialised", series=early(series))
    if runs := huge_runs(data):
        add(counted(f"{runs[0]['pmem_gib']} GiB map=dev, ms", runs), "bind returns, 1 worker",
            series=huge(data))
    memory = f"{data['memory_gib']:g} GiB of RAM"
    for icount, section in ((False, "boot, ms"), (True, "instructions a page, 1 CPU")):
        runs = [run for run in data["runs"] if run["icount"] == icount
                and (icount or run["what"] == "boot")]
        if not icount:
            add(counted(section, runs), f"{memory}: deferred init",
                **{which: boots(data, which, False) for which in ("base", "series")})
            continue
        for mapping in MAPPINGS:
            add(section, f"{sizes(data)[0]} GiB map={mapping}: memmap init, sync",
                **{head: [run["init"] / run["pages"] for run in device_runs(
                    data, which, sizes(data)[0], mapping, icount=True)]
                   for head, which in (("base", "base"), ("series", "sync"))})
        add(section, f"{memory}: deferred init",
            **{which: boots(data, which, True) for which in ("base", "series")})
    return found


def sizes(data):
    return sorted({run["pmem_gib"] for run in data["runs"] if run["what"] == "device"})


def median(figures):
    return statistics.median(figures) if figures else float("nan")


# A target: what, what is wanted, what was measured, whether that will do.  A figure
# that is missing is no number, and no number will do.
def measured(value, unit):
    return f"{value:.3g} {unit}" if value == value else "nothing"


def at_least(what, wanted, value):
    return what, f">= {wanted:g} x", measured(value, "x"), value >= wanted


def at_most(what, wanted, value, unit, said=None):
    return what, said or f"<= {wanted:.3g} {unit}", measured(value, unit), value <= wanted


def targets(data):
    if "base" not in columns(data):
        return []
    found = []
    small, large = sizes(data)[0], sizes(data)[-1]
    for mapping, gain in (("mem", 100), ("dev", 50)):
        runs = {which: device_runs(data, which, large, mapping) for which in NAMES}
        series = runs["series"]
        name = f"map={mapping}: "
        bind = median(usable(series, "bound"))
        during = touches(series, during=True)
        old = {"": "base"}
        if mapping == "mem":
            old = {", init_on_alloc": "base", ", init_on_alloc=0": "base0"}
        found += [at_least(f"{name}bind as fast as base's{label}", gain,
                           median(usable(runs[which], "bound")) / bind)
                  for label, which in old.items()]
        if mapping == "mem":
            found += [at_least(f"{name}first bind as fast as base's{label}", gain,
                               median(first(runs[which], "bind")) / median(first(series, "bind")))
                      for label, which in old.items()]
        found += [at_least(f"{name}first byte as soon as base's{label}", 50,
                           median(usable(runs[which], "byte")) / median(usable(series, "byte")))
                  for label, which in old.items()]
        if mapping == "mem":
            found.append(at_most(name + "bind, against the same with init_on_alloc=0", 1.15,
                                 bind / median(usable(runs["series0"], "bound")), "x"))
        found += [
            at_most(
                name + f"bind of {large} GiB against {small} GiB", 1.5,
                bind / median(usable(device_runs(data, "series", small, mapping), "bound")), "x",
            ),
            *([at_most(name + f"bind of {HUGE * large} GiB against {large} GiB", 2.5,
                       median(huge(data)) / bind, "x")] if mapping == "dev" else []),
            at_most(name + f"first touch while init runs ({len(during)}), p50", 1.25,
                    median(during) / median(touches(runs["base"])), "x", "<= 1.25 x base"),
            at_most(name + "first touch while init runs, max",
                    max(touches(runs["base"]), default=float("nan")) + 5,
                    max(during, default=float("nan")), "ms"),
            *(at_most(name + f"wait in memmap_sync(){label}, p50", 100,
                      median(waits(series, step)) * 1e3, "us")
              for step, label in (("touch", ""), ("busy", ", CPUs busy"))),
            at_most(name + "all initialised, against the synchronous engine", 1.1,
                    median(usable(series, "idle")) / median(usable(runs["sync"], "idle")), "x"),
            at_most(name + "unbind while init runs, against a bind", 2,
                    median(early(series)) / bind, "x"),
        ]
    return found


def summary(found_rows, found_targets, heads):
    """For the JSON: what the table shows, and what was to be shown."""
    def three(figures):
        return dict(zip(("min", "median", "max"),
                        (min(figures), median(figures), max(figures)), strict=True))

    return {
        "figures": [
            {"section": section, "what": label.strip(),
             **{head: three(column)
                for head, column in zip(heads, figures, strict=True) if column}}
            for section, label, *figures in found_rows
        ],
        "targets": [
            dict(zip(("what", "wanted", "measured", "met"), target, strict=True))
            for target in found_targets
        ],
    }


def number(value):
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.3f}"


def table(found, heads):
    """Median, least and greatest; and how many times the last column's median the
    others' are."""
    gains = ("gain",) if len(heads) == 2 else ("on", "off")
    over = "" if len(heads) == 2 else f"  {'gain, init_on_alloc':>18}"
    print((f"{'':40}" + "".join(f"  {NAMES[head]:^24}" for head in heads) + over).rstrip())
    print(f"{'':40}" + f"  {'median':>8}{'min':>8}{'max':>8}" * len(heads)
          + "".join(f"{gain:>10}" for gain in gains))
    section = None
    for title, label, *columns_ in found:
        if title != section:
            print(f"\n{title}")
            section = title
        cells = ""
        for figures in columns_:
            three = (median(figures), min(figures), max(figures)) if figures else ()
            cells += "  " + "".join(f"{number(value):>8}" for value in three).ljust(24)
        for figures in columns_[:-1]:
            ratio = median(figures) / (median(columns_[-1]) or float("nan"))
            cells += f"{ratio:>8.{0 if ratio >= 100 else 2}f} x" if ratio == ratio else " " * 10
        print(f"  {label:38}{cells}".rstrip())


def about(data):
    machine = data["machine"]
    kernels = " and ".join(f"{which} {name}" for which, name in data["kernel"].items())
    rounds = f"{data['rounds']} rounds" if data["rounds"] > 1 else "1 round"
    return (
        f"{machine['cpus']} x {machine['cpu']}, {machine['memory_gib']:g} GiB, "
        f"{machine['system']}\n"
        f"QEMU {machine['qemu']}, {data['cpus']} CPUs, accelerator {data['accelerator']} "
        f"(instructions: tcg with icount); {data['date']}\n"
        f"Linux {kernels}, same configuration, {rounds} in turn"
    )


def show_targets(found):
    for what, wanted, measured, met in found:
        print(f"  {what:58}{wanted:>15}{measured:>12}  {'met' if met else 'MISSED'}")


def notes(data):
    """What has to be known of the figures."""
    large = sizes(data)[-1]
    if targets(data) and (sizes(data)[0], large) != (64, 512):
        yield "What the series has to show is meant for 64 and 512 GiB."
    if "off" in columns(data):
        yield ("A first result: the series' own kernel with memmap_async=off stands in for base. "
               "It flatters\nbase, since that kernel, too, leaves the memmap's memory unzeroed and "
               "writes struct pages faster;\nit lacks the parallel and the background work only.")
    on, off = (median(usable(device_runs(data, which, large, "mem"), "bound"))
               for which in ("base", "base0"))
    if on > off:
        yield ("Distributions set init_on_alloc; with map=mem base then zeroes a memmap before it "
               "initialises it."
               + (f"\nThe emulated CPU does that at {large / 64 / (on - off) * 1e3:.1f} GB/s, real "
                  "ones many times as fast: what base loses by it is overstated\nhere, and what it "
                  "takes with init_on_alloc=0 is the lower bound."
                  if data["accelerator"] == "tcg" else ""))
    if device_runs(data, "series", large, "dev"):
        yield ("First binds with map=dev: the host provides the NVDIMM's memory page by page, also "
               "what base's\nmemmap takes of it before the bind returns.  Guests' RAM is there in "
               "advance.")


def warn_lost(data):
    if data["lost"]:
        print(f"\n{data['lost']} boots failed twice: what they would have shown is missing.")


def warn_busy(data):
    others = data["others"]
    if others["median"] > 0.1:
        print(f"\nThe machine was busy: other work took {others['median']:.2f} of its CPUs in the "
              f"median boot, {others['max']:.2f} at most.\nThe wall times mean little.")


def duration(seconds):
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"


def picture(data, path):
    """The first bind of a boot: from when on the memory is of use."""
    large = sizes(data)[-1]
    runs = {which: device_runs(data, which, large, "mem") for which in ("base", "base0", "series")}
    base, base0, series = (median(first(found, "bind")) / 1e3 for found in runs.values())
    done = median(first(runs["series"], "idle")) / 1e3
    end = 1.02 * max(base, base0, done)
    plt.rcParams["hatch.linewidth"] = 1.5
    figure = plt.figure(figsize=(10, 3.2))
    axis = figure.add_axes((0.12, 0.17, 0.86, 0.58))
    axis.barh(1, base, color="#cfd6dd")
    axis.barh(1, base0, color=COLOURS["base"])
    axis.barh(0, series, color=COLOURS["base"])
    axis.barh(0, end - series, left=series, color=COLOURS["series"])
    axis.barh(0, done - series, left=series, color=COLOURS["series"], hatch="//",
              edgecolor="white", linewidth=0)
    for place, bar, colour, text in (
        (0, 1, "black", f"{duration(base0)}, init_on_alloc=0"),
        (base0, 1, "black", f"{duration(base)}, init_on_alloc as in distributions"),
        (done, 0, "white", f"usable after {duration(series)}; hatched: the rest of the struct "
         "pages, in the background"),
    ):
        axis.text(place + end / 100, bar, text, color=colour, va="center", fontsize=11)
    axis.set_yticks((1, 0), (f"Linux {data['kernel']['base']}", "the series"), fontsize=12)
    axis.set_xlim(0, end)
    axis.set_xlabel("seconds since the bind began", fontsize=10)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    figure.text(0.01, 0.95, f"{large} GiB of persistent memory: usable after {duration(series)}, "
                f"not after {duration(base0)} to {duration(base)}", fontsize=14,
                fontweight="bold", va="top")
    figure.text(0.01, 0.84, f"first bind of a boot, map=mem; {data['cpus']} CPUs, "
                + ("emulated, which overstates what init_on_alloc costs"
                   if data["accelerator"] == "tcg" else data["accelerator"]),
                fontsize=10, color="#555555", va="top")
    figure.savefig(path, dpi=120)
