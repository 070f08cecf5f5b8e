# SPDX-License-Identifier: GPL-2.0
"""What demo.py and bench.py share to show figures: a table, targets, pictures.

Each of them is a view: rows(), targets(), notes() and picture() of the results.
"""

import statistics

# Kernel and parameters of each variant, and how it is called.
VARIANTS = {
    "base": ("base", ""),
    "base0": ("base", "init_on_alloc=0"),
    "series": ("series", ""),
    "series0": ("series", "init_on_alloc=0"),
    "sync": ("series", "memmap_async=sync"),
    "off": ("series", "memmap_async=off"),
}
NAMES = {which: ", ".join(filter(None, words)) for which, words in VARIANTS.items()}
KINDS = {kind: kind.replace("fsdax-", "fsdax map=").replace("-", " ")
         for kind in ("fsdax-mem", "fsdax-dev", "devdax-4K", "devdax-2M", "devdax-1G")}
COLOURS = {"base": "#9aa5b1", "series": "#1f6feb", "sync": "#1f6feb", "off": "#8cb8f5"}
GREY = "#555555"


def figures(data, of, what, kernel, icount=False, **more):
    """Those that `of` finds in each such run; none if all such boots are lost."""
    wanted = {"what": what, "kernel": kernel, "icount": icount, **more}
    return [figure for run in data["runs"] if wanted.items() <= run.items() for figure in of(run)]


def binds(data, kernel, kind, key, icount=False):
    """Milliseconds of each bind, or instructions a page."""
    return figures(data, lambda run: [bind[key] / (bind["pages"] if icount else 1e6)
                                      for bind in run["binds"]], "init", kernel, icount, kind=kind)


def boots(data, kernel, gib, icount=False):
    """The same of boot's deferred struct pages."""
    def of(run):
        return [run["instructions"] / run["pages"] if icount else float(run["ms"])]

    return figures(data, of, "boot", kernel, icount, memory_gib=gib)


def median(found):
    return statistics.median(found) if found else float("nan")


def ratio(found, others):
    """Of the medians.  Nothing is no number: whole jiffies can be none at all."""
    return median(found) / (median(others) or float("nan"))


def number(value):
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.3f}"


def target(what, wanted, value, unit, met):
    """What is wanted, what was measured, whether that will do: no number never does."""
    return what, wanted, f"{value:.3g} {unit}" if value == value else "nothing", met


def at_least(what, wanted, value):
    return target(what, f">= {wanted:g} x", value, "x", value >= wanted)


def at_most(what, wanted, value, unit, of=""):
    return target(what, f"<= {wanted:.3g} {unit}{of}", value, unit, value <= wanted)


def table(heads, rows):
    """Median, least and greatest; and how many times the last column's median the
    others' are."""
    gains = ("gain",) if len(heads) == 2 else ("on", "off")
    over = "" if len(heads) == 2 else f"  {'gain, init_on_alloc':>18}"
    print((f"{'':40}" + "".join(f"  {NAMES[head]:^24}" for head in heads) + over).rstrip())
    print(f"{'':40}" + f"  {'median':>8}{'min':>8}{'max':>8}" * len(heads)
          + "".join(f"{gain:>10}" for gain in gains))
    section = None
    for title, label, *columns in rows:
        # Not measured, or lost.
        if not any(columns):
            continue
        if title != section:
            print(f"\n{title}")
            section = title
        cells = ""
        for found in columns:
            three = (median(found), min(found), max(found)) if found else ()
            cells += "  " + "".join(f"{number(value):>8}" for value in three).ljust(24)
        for found in columns[:-1]:
            gain = ratio(found, columns[-1])
            cells += f"{gain:>8.{0 if gain >= 100 else 2}f} x" if gain == gain else " " * 10
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


def show(view, data, png):
    print()
    table(*view.rows(data))
    if targets := view.targets(data):
        print("\nWhat the series has to show:")
        for what, wanted, measured, met in targets:
            print(f"  {what:58}{wanted:>15}{measured:>12}  {'met' if met else 'MISSED'}")
    for note in view.notes(data):
        print(f"\n{note}")
    print(f"\n{about(data)}")
    if data["lost"]:
        print(f"\nFailed twice, and missing: {'; '.join(data['lost'])}")
    if (busy := median([run["others"] for run in data["runs"]])) > 0.1:
        print(f"\nThe machine was busy: other work took {busy:.2f} of its CPUs in the median boot."
              "\nThe wall times mean little.")
    if png and (drawn := view.picture(data)):
        figure, title, subtitle = drawn
        inch = 1 / figure.get_figheight()
        figure.text(0.01, 1 - 0.15 * inch, title, fontsize=14, fontweight="bold", va="top")
        figure.text(0.01, 1 - 0.5 * inch, subtitle, fontsize=10, color=GREY, va="top")
        figure.text(0.01, 0.06 * inch, about(data), fontsize=7, color=GREY, va="bottom")
        figure.savefig(png, dpi=120)


def bars(axis, groups, series, title, unit):
    """Medians, lines from the least to the greatest, and the median behind its line."""
    height = 0.84 / len(series)
    for nr, (label, colour, columns) in enumerate(series):
        for place, found in enumerate(columns):
            if not found:
                continue
            at = place - 0.42 + (nr + 0.5) * height
            axis.barh(at, median(found), height * 0.92, color=colour,
                      label=None if place else label)
            axis.plot((min(found), max(found)), (at, at), color=GREY, lw=1)
            axis.annotate(number(median(found)), (max(found), at), xytext=(4, 0),
                          textcoords="offset points", va="center", fontsize=7.5)
    axis.set_yticks(range(len(groups)), groups, fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, axis.get_xlim()[1] * 1.08)
    axis.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axis.set_xlabel(unit, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
