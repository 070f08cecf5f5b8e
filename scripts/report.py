#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Turn the figures of scripts/measure.py into a table, a picture, and a word
on each thing that the series has to show."""

import argparse
import json
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first)

COLOURS = {"base": "#9aa5b1", "series": "#1f6feb"}
MAPPINGS = ("mem", "dev")
# What a user can do, and since when.
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


def rows(data):
    """(section, label, base's figures, the series'): empty is what a kernel
    does not have, and a row without figures is left out."""
    found = []

    def add(section, label, base, series):
        if base or series:
            found.append((section, label, base, series))

    for pmem in sizes(data):
        for mapping in MAPPINGS:
            section = f"{pmem} GiB map={mapping}, ms"
            base, series, sync = (
                device_runs(data, kernel, pmem, mapping) for kernel in ("base", "series", "sync")
            )
            for key, label in USABLE.items():
                add(section, label, usable(base, key), usable(series, key))
            add(section, "  by memmap_async=sync: bind returns",
                usable(base, "bound"), usable(sync, "bound"))
            add(section, "    its memmap init",
                *([bind["init"] * 1e3 for run in runs for bind in run["binds"]]
                  for runs in (base, sync)))
            if during := touches(series, during=True):
                add(section, "first touch of 2 MiB, while init runs", touches(base), during)
            add(section, "wait in memmap_sync() for such touches", [], waits(series, "touch"))
            add(section, "  with the CPUs busy", [], waits(series, "busy"))
            add(section, "unbind", usable(base, "unbind"), usable(series, "unbind"))
            add(section, "unbind, a quarter initialised", [], early(series))
    section = f"{data['memory_gib']:g} GiB of RAM, ms"
    add(section, "boot's deferred init", boots(data, "base", False), boots(data, "series", False))
    section = "instructions a page, 1 CPU"
    for mapping in MAPPINGS:
        add(section, f"{sizes(data)[0]} GiB map={mapping}: memmap init, sync",
            *([bind["init"] * 1e9 / bind["pages"] for run in runs for bind in run["binds"]]
              for runs in (device_runs(data, kernel, sizes(data)[0], mapping, icount=True)
                           for kernel in ("base", "sync"))))
    add(section, f"{data['memory_gib']:g} GiB of RAM: boot's deferred init",
        boots(data, "base", True), boots(data, "series", True))
    return found


def sizes(data):
    return sorted({run["pmem_gib"] for run in data["runs"] if run["what"] == "device"})


def median(figures):
    return statistics.median(figures) if figures else float("nan")


# A target: what, what is wanted, what was measured, whether that will do.  A figure
# that is missing is no number, and no number will do.
def at_least(what, wanted, value):
    return what, f">= {wanted:g} x", f"{value:.3g} x", value >= wanted


def at_most(what, wanted, value, unit, said=None):
    return what, said or f"<= {wanted:.3g} {unit}", f"{value:.3g} {unit}", value <= wanted


def targets(data):
    found = []
    small, large = sizes(data)[0], sizes(data)[-1]
    for mapping, gain in (("mem", 100), ("dev", 50)):
        base, series, sync = (
            device_runs(data, kernel, large, mapping) for kernel in ("base", "series", "sync")
        )
        name = f"map={mapping}: "
        bind = median(usable(series, "bound"))
        during = touches(series, during=True)
        found += [
            at_least(name + "bind as fast as base's", gain, median(usable(base, "bound")) / bind),
            at_most(
                name + f"bind of {large} GiB against {small} GiB", 2,
                bind / median(usable(device_runs(data, "series", small, mapping), "bound")), "x",
            ),
            at_least(name + "first byte as fast as base's", 50,
                     median(usable(base, "byte")) / median(usable(series, "byte"))),
            at_most(name + f"first touch while init runs ({len(during)}), p50", 1.25,
                    median(during) / median(touches(base)), "x", "<= 1.25 x base"),
            at_most(name + "first touch while init runs, max",
                    max(touches(base), default=float("nan")) + 5,
                    max(during, default=float("nan")), "ms"),
            *(at_most(name + f"wait in memmap_sync(){label}, p50", 100,
                      median(waits(series, step)) * 1e3, "us")
              for step, label in (("touch", ""), ("busy", ", CPUs busy"))),
            at_most(name + "all initialised, against the synchronous engine", 1.1,
                    median(usable(series, "idle")) / median(usable(sync, "idle")), "x"),
            at_most(name + "unbind while init runs, against a bind", 2,
                    median(early(series)) / bind, "x"),
        ]
    return found


def summary(found_rows, found_targets):
    """For the JSON: what the table shows, and what was to be shown."""
    def three(figures):
        return dict(zip(("min", "median", "max"),
                        (min(figures), median(figures), max(figures)), strict=True))

    return {
        "figures": [
            {"section": section, "what": label.strip(),
             **{kernel: three(figures)
                for kernel, figures in (("base", base), ("series", series)) if figures}}
            for section, label, base, series in found_rows
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


def table(found):
    print(f"{'':40}{'base':^24}{'series':^24}")
    print(f"{'':40}{'median':>8}{'min':>8}{'max':>8}{'median':>8}{'min':>8}{'max':>8}{'gain':>9}")
    section = None
    for title, label, base, series in found:
        if title != section:
            print(f"\n{title}")
            section = title
        cells = ""
        for figures in (base, series):
            three = (median(figures), min(figures), max(figures)) if figures else ()
            cells += "".join(f"{number(value):>8}" for value in three).ljust(24)
        gain = ""
        if base and series and median(series):
            ratio = median(base) / median(series)
            gain = f"{ratio:>7.0f} x" if ratio >= 100 else f"{ratio:>7.2f} x"
        print(f"  {label:38}{cells}{gain}".rstrip())


def about(data):
    machine = data["machine"]
    kernels = " and ".join(f"{which} {name}" for which, name in data["kernel"].items())
    return (
        f"{machine['cpus']} x {machine['cpu']}, {machine['memory_gib']:g} GiB, "
        f"{machine['system']}\n"
        f"QEMU {machine['qemu']}, {data['cpus']} CPUs, accelerator {data['accelerator']} "
        f"(instructions: tcg with icount); {data['date']}\n"
        f"Linux {kernels}, same configuration, {data['rounds']} rounds in turn"
    )


def show_targets(found):
    for what, wanted, measured, met in found:
        print(f"  {what:58}{wanted:>15}{measured:>12}  {'met' if met else 'MISSED'}")


def must_show(data):
    small, large = sizes(data)[0], sizes(data)[-1]
    print(f"What the series has to show, with {large} GiB:")
    show_targets(targets(data))
    if (small, large) != (64, 512):
        print("  (meant for 64 and 512 GiB)")


def warn_busy(data):
    if data["host_load"] > 0.5:
        print(f"\nThe machine was busy (load {data['host_load']:.1f}) when this began: "
              "its wall times mean little.")


def typical(runs, key):
    """The bind in the middle of all, as one of them."""
    found = sorted((bind for run in runs for bind in run["usable"]), key=lambda bind: bind[key])
    return found[(len(found) - 1) // 2]


def progress(bind):
    """Seconds and per cent.  Without samples only the two ends are known."""
    if not bind["samples"]:
        return [0, bind["bound"] / 1e9], [0, 100]
    points = [(0, 0), *((time, done) for time, done in bind["samples"] if time < bind["idle"]),
              (bind["idle"], bind["total"])]
    return [time / 1e9 for time, _ in points], [100 * done / bind["total"] for _, done in points]


def duration(nanoseconds):
    return f"{nanoseconds / 1e9:.2f} s" if nanoseconds >= 1e9 else f"{nanoseconds / 1e6:.0f} ms"


def picture(data, path):
    large = sizes(data)[-1]
    binds = {
        (kernel, mapping): typical(device_runs(data, kernel, large, mapping), "idle")
        for kernel in COLOURS for mapping in MAPPINGS
    }
    end = 1.3 * max(bind["idle"] for bind in binds.values()) / 1e9
    figure, axes = plt.subplots(
        4, 2, figsize=(11, 8.2), sharex=True, sharey="row",
        gridspec_kw={"height_ratios": (3, 1.5, 3, 1.5)},
    )
    for (kernel, mapping), bind in binds.items():
        column = list(COLOURS).index(kernel)
        row = 2 * MAPPINGS.index(mapping)
        colour = COLOURS[kernel]
        curve, can = axes[row][column], axes[row + 1][column]
        times, done = progress(bind)
        curve.plot(times, done, color=colour, lw=2, ls="-" if bind["samples"] else "--")
        curve.plot([times[-1], end], [100, 100], color=colour, lw=2)
        curve.fill_between([*times, end], [*done, 100], color=colour, alpha=0.15)
        curve.set_title(f"{kernel}, map={mapping}", loc="left", fontsize=10, fontweight="bold")
        curve.set_ylabel("memmap initialised, %" if column == 0 else "", fontsize=9)
        curve.set_ylim(0, 105)
        curve.annotate(f"all after {duration(bind['idle'])}", (times[-1], 100), xytext=(6, -6),
                       textcoords="offset points", va="top", fontsize=9)
        if not bind["samples"]:
            curve.annotate("(a line between the two\nmoments that are known)",
                           (0.5, 0.06), xycoords="axes fraction", fontsize=7, color="#555555")
        labels = {"bound": "bound", "mounted": "mounted", "byte": "mmap written"}
        for place, key in enumerate(labels):
            since = bind[key] / 1e9
            can.barh(place, end - since, left=since, height=0.7, color=colour)
            room = since > end / 2
            can.annotate(
                f"after {duration(bind[key])}", (since, place), xytext=(-5 if room else 5, 0),
                textcoords="offset points", ha="right" if room else "left", va="center",
                fontsize=8, color="black" if room else "white",
            )
        can.set_yticks(range(len(labels)), labels.values(), fontsize=9)
        can.invert_yaxis() if column == 0 else None
        can.set_xlim(0, end)
        for axis in (curve, can):
            axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("seconds since the bind began", fontsize=9)
    figure.suptitle(f"{large} GiB of persistent memory, bound again: how much of its memmap is "
                    "initialised, and what a user can do", fontsize=12, x=0.02, ha="left")
    figure.text(0.02, 0.005, about(data), fontsize=7, color="#555555", va="bottom")
    figure.tight_layout(rect=(0, 0.05, 1, 0.99))
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=pathlib.Path, metavar="JSON")
    parser.add_argument("--png", type=pathlib.Path, metavar="FILE")
    args = parser.parse_args()
    if not args.results.is_file():
        parser.error(f"no results {args.results}: scripts/measure.py writes them")
    data = json.loads(args.results.read_text())
    table(rows(data))
    print()
    must_show(data)
    print(f"\n{about(data)}")
    warn_busy(data)
    if args.png:
        picture(data, args.png)
    return 0


if __name__ == "__main__":
    sys.exit(main())
