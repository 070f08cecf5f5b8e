#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Draw what the benchmark of stamp.rs has measured."""

import argparse
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first)

KINDS = {
    "device": "device pages: no word moves",
    "list_head": "pages of RAM: the list head moves",
}
ROLES = {
    "one_by_one": ("#57606a", "as C does"),
    "candidate": ("#1f6feb", "stamp.rs in the kernel"),
    "other": ("#d4a72c", "other ways that the kernel has"),
    "limit": ("#c0c7cf", "by vector registers"),
    "fill": ("#dfe4e9", "zeroes only"),
}


def threads_in(data):
    return sorted({way["threads"] for way in data["ways"]})


def draw(axis, ways, end):
    """Bars, and lines from the least to the greatest, which may leave the picture at `end`."""
    for place, way in enumerate(ways):
        colour, _ = ROLES[way["role"]]
        axis.barh(place, way["median"], height=0.72, color=colour)
        axis.plot([way["min"], min(way["max"], end)], [place, place], color="#24292f", lw=1)
        beyond = f", up to {way['max']:.1f}" if way["max"] > end else ""
        axis.annotate(
            f"{way['median']:.2f}  ({way['gain']:.2f} x){beyond}", (min(way["max"], end), place),
            xytext=(5, 0), textcoords="offset points", va="center", fontsize=8,
        )
    axis.set_yticks(range(len(ways)), [way["way"] for way in ways], fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def about(data):
    machine = data["machine"]
    busy = f"; the machine was busy (load {machine['load']:.1f})" if machine["load"] > 0.5 else ""
    return (
        f"{machine['cpus']} x {machine['cpu']}, Linux {machine['kernel']}; {machine['date']}{busy}\n"
        f"{data['mib']} MiB of struct pages, {data['huge_mib']} MiB of it in huge pages; "
        f"median of {data['rounds']} rounds in turn, the lines go from the least to the greatest"
    )


def result(data):
    """Of one thread, the best of our stores for device pages."""
    best = next(verdict for verdict in data["verdicts"]
                if (verdict["kind"], verdict["threads"], verdict["best"]) == ("device", 1, True))
    way = next(way for way in data["ways"] if way["way"] == best["candidate"]
               and (way["kind"], way["threads"]) == ("device", 1))
    return (f"{way['way']}: {way['median']:.2f} ns a struct page, {way['gain']:.2f} times as fast "
            f"as one by one\n{best['ratio']:.2f} times the time of the fastest way to initialise "
            f"({best['fastest']}), {best['fill_ratio']:.2f} times {best['fill']}'s "
            "(device pages, 1 thread)")


def picture(data, path):
    threads = threads_in(data)
    rows = {kind: [way for way in data["ways"] if way["kind"] == kind] for kind in KINDS}
    heights = [len(ways) / len(threads) for ways in rows.values()]
    figure, axes = plt.subplots(
        len(KINDS), len(threads), figsize=(5.5 * max(2, len(threads)), 2.6 + 0.32 * sum(heights)),
        sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights},
    )
    end = 1.6 * max(way["median"] for way in data["ways"])
    for row, (kind, ways) in zip(axes, rows.items(), strict=True):
        for axis, nr in zip(row, threads, strict=True):
            draw(axis, [way for way in ways if way["threads"] == nr], end)
            axis.invert_yaxis()
            axis.set_title(f"{KINDS[kind]}, {nr} thread{'' if nr == 1 else 's'}", loc="left",
                           fontsize=10, fontweight="bold")
            if axis is not row[0]:
                axis.set_yticklabels([])
    for axis in axes[-1]:
        axis.set_xlim(0, 1.5 * end)
        axis.set_xlabel("ns a struct page (and how many times as fast as one by one)", fontsize=9)
    title, _, subtitle = result(data).partition("\n")
    figure.text(0.02, 0.975, title, fontsize=13, fontweight="bold", va="top")
    figure.text(0.02, 0.935, subtitle, fontsize=9, color="#555555", va="top")
    figure.legend(
        [plt.Rectangle((0, 0), 1, 1, color=colour) for colour, _ in ROLES.values()],
        [label for _, label in ROLES.values()],
        loc="upper right", bbox_to_anchor=(1, 0.91), ncols=len(ROLES), fontsize=8, frameon=False,
    )
    figure.text(0.02, 0.01, about(data), fontsize=7, color="#555555", va="bottom")
    figure.tight_layout(rect=(0, 0.06, 1, 0.88))
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=pathlib.Path, metavar="JSON")
    parser.add_argument("png", type=pathlib.Path, metavar="PNG")
    args = parser.parse_args()
    if not args.results.is_file():
        parser.error(f"no results {args.results}: cargo bench writes them")
    picture(json.loads(args.results.read_text()), args.png)
    return 0


if __name__ == "__main__":
    sys.exit(main())
