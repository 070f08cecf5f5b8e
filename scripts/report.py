#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Turn the raw figures of scripts/measure.py into a table, a picture, and a
few plain words about what a user gains."""

import argparse
import json
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first)

COLOURS = {"base": "#9aa5b1", "series": "#1f6feb"}


def select(data, kernel, icount, what):
    return [
        run
        for run in data["runs"]
        if (run["kernel"], run["icount"], run["what"]) == (kernel, icount, what)
    ]


def device_figures(runs, bind, part, scale):
    """Milliseconds of a part of the first bind or of the later ones, or with
    SCALE "page" its instructions a page."""
    chosen = [b for run in runs for b in ([run["first"]] if bind == "first" else run["again"])]
    if scale == "page":
        return [b[part] * 1e9 / b["pages"] for b in chosen]
    return [b[part] * 1e3 for b in chosen]


def rows(data):
    """(section, label, {kernel: figures}), for the table and the picture."""
    pmem, memory = f"{data['pmem_gib']:g} GiB", f"{data['memory_gib']:g} GiB"
    wall = f"wall time, {data['cpus']} CPUs, ms"
    instructions = "instructions a page, 1 CPU"
    result = []

    def add(section, label, figures):
        values = {kernel: figures(kernel) for kernel in ("base", "series")}
        if all(values.values()):
            result.append((section, label, values))

    def device(icount, mapping, bind, part):
        scale = "page" if icount else "ms"
        return lambda kernel: device_figures(
            select(data, kernel, icount, f"map={mapping}"), bind, part, scale
        )

    for mapping in ("mem", "dev"):
        prefix = f"{pmem} map={mapping}: "
        add(wall, prefix + "first bind", device(False, mapping, "first", "bind"))
        add(wall, prefix + "its memmap init", device(False, mapping, "first", "init"))
        add(wall, prefix + "rebind", device(False, mapping, "again", "bind"))
        add(wall, prefix + "its memmap init", device(False, mapping, "again", "init"))
    add(
        wall,
        f"{memory} RAM: boot's deferred init",
        lambda kernel: [float(run["ms"]) for run in select(data, kernel, False, "boot")],
    )
    for mapping in ("mem", "dev"):
        prefix = f"{pmem} map={mapping}: "
        add(instructions, prefix + "rebind", device(True, mapping, "again", "bind"))
        add(instructions, prefix + "its memmap init", device(True, mapping, "again", "init"))
    add(
        instructions,
        f"{memory} RAM: boot's deferred init",
        lambda kernel: [
            run["instructions"] / run["pages"] for run in select(data, kernel, True, "boot")
        ],
    )
    return result


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def ratio(values):
    base, series = (statistics.median(values[kernel]) for kernel in ("base", "series"))
    return base / series if series else float("inf")


def table(data):
    print(f"{'':44}{'base':^22}{'series':^22}")
    print(f"{'':44}{'median':>8}{'min':>7}{'max':>7}{'median':>8}{'min':>7}{'max':>7}{'gain':>8}")
    section = None
    for title, label, values in rows(data):
        if title != section:
            print(f"\n{title}")
            section = title
        cells = ""
        for kernel in ("base", "series"):
            figures = values[kernel]
            cells += f"{number(statistics.median(figures)):>8}"
            cells += f"{number(min(figures)):>7}{number(max(figures)):>7}"
        # "its" belongs to the row above
        label = "  " + label.split(": ")[1] if ": its" in label else label
        print(f"  {label:42}{cells}{ratio(values):>6.2f} x")


def about(data):
    machine = data["machine"]
    rounds = max(run["round"] for run in data["runs"] if not run["icount"])
    kernels = " and ".join(f"{which} {name}" for which, name in data["kernel"].items())
    return (
        f"{machine['cpus']} x {machine['cpu']}, {machine['memory_gib']:g} GiB, "
        f"{machine['system']}\n"
        f"QEMU {machine['qemu']}, accelerator {data['accelerator']} "
        f"(instructions: tcg with icount); {data['date']}\n"
        f"Linux {kernels}, same configuration, {rounds} rounds in turn"
    )


def words(data):
    found = {(section, label): values for section, label, values in rows(data)}
    wall, _ = (next(s for s, *_ in rows(data) if s.startswith(w)) for w in ("wall", "instr"))
    pmem, memory = f"{data['pmem_gib']:g} GiB", f"{data['memory_gib']:g} GiB"

    def line(text, label):
        values = found[wall, label]
        base, series = (statistics.median(values[kernel]) / 1e3 for kernel in ("base", "series"))
        gain = ratio(values)
        verdict = f"{gain:.1f} times as fast"
        if 0.95 < gain < 1.05:
            verdict = "no difference to speak of"
        elif gain <= 0.95:
            verdict = f"{1 / gain:.2f} times as SLOW"
        print(f"  {text}: {base:.2f} s -> {series:.2f} s ({verdict})")

    line(f"binding {pmem} of persistent memory, first time", f"{pmem} map=mem: first bind")
    line(f"binding {pmem} again", f"{pmem} map=mem: rebind")
    line("the same with the memmap on the device", f"{pmem} map=dev: rebind")
    line(f"booting with {memory}, struct pages", f"{memory} RAM: boot's deferred init")


def picture(data, path):
    sections = {}
    for section, label, values in rows(data):
        sections.setdefault(section, []).append((label, values))
    heights = [len(entries) for entries in sections.values()]
    figure, axes = plt.subplots(
        len(sections), 1, figsize=(9, 1.8 + 0.55 * sum(heights)),
        gridspec_kw={"height_ratios": heights}, squeeze=False,
    )
    for axis, (section, entries) in zip(axes[:, 0], sections.items(), strict=True):
        labels = []
        owner = ""
        for place, (label, values) in enumerate(entries):
            if ": its" in label:
                labels.append(f"memmap init in that {owner}")
            else:
                owner = label.split(": ")[1]
                labels.append(label)
            for offset, kernel in ((-0.19, "base"), (0.19, "series")):
                figures = values[kernel]
                middle = statistics.median(figures)
                spread = [[middle - min(figures)], [max(figures) - middle]]
                axis.barh(
                    place + offset, middle, height=0.36, color=COLOURS[kernel],
                    label=kernel if place == 0 else None, xerr=spread,
                    error_kw={"lw": 0.8, "capsize": 2, "ecolor": "#333333"},
                )
                text = number(middle)
                if kernel == "series":
                    text += f"   ({ratio(values):.2f} x)"
                axis.annotate(
                    text, (max(figures), place + offset), xytext=(5, 0),
                    textcoords="offset points", va="center", fontsize=8,
                )
        axis.set_yticks(range(len(entries)), labels, fontsize=9)
        axis.invert_yaxis()
        axis.set_title(section, loc="left", fontsize=10, fontweight="bold")
        axis.margins(x=0.16)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(loc="lower right", frameon=False)
    figure.suptitle("memmap initialisation, less is better: median, whiskers from min to max",
                    fontsize=11, x=0.02, ha="left")
    figure.text(0.02, 0.005, about(data), fontsize=7, color="#555555", va="bottom")
    figure.tight_layout(rect=(0, 0.045, 1, 0.99))
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=pathlib.Path, metavar="JSON")
    parser.add_argument("--png", type=pathlib.Path, metavar="FILE")
    args = parser.parse_args()
    if not args.results.is_file():
        parser.error(f"no results {args.results}: scripts/measure.py writes them")
    data = json.loads(args.results.read_text())
    table(data)
    print(f"\n{about(data)}")
    if data["host_load"] > 0.5:
        print(f"\nThe machine was busy (load {data['host_load']:.1f}) when this began: "
              "its wall times mean little.")
    print("\nWhat a user gains:")
    words(data)
    if args.png:
        picture(data, args.png)
    return 0


if __name__ == "__main__":
    sys.exit(main())
