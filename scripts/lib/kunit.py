#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Judge the console of one boot: complaints, and KUnit's results.

Usage: kunit.py TREE LIST SUITE CONSOLE LOG KEY...

TREE has the parser, LIST is as tests/suites (empty: not compared), SUITE the only one
that ran (empty: all), LOG gets what kunit.py prints, the KEYs say what applies of LIST.
Each line printed is "ok", "FAIL" or "skip", how many, and what.  What LIST has otherwise
is added to it under the last KEY: it fails once only, and LIST can become the new one.
"""

import pathlib
import re
import sys

sys.dont_write_bytecode = True
tree, known, only, console, log, *keys = sys.argv[1:]
sys.path[:0] = [f"{tree}/tools/testing/kunit", f"{pathlib.Path(__file__).parents[2]}/tests"]
import kunit_parser  # noqa: E402
from harness import TROUBLE  # noqa: E402
from kunit_printer import Printer  # noqa: E402


def with_whole_heads(lines):
    """Without what another CPU says between the two lines of a suite's head: the parser takes
    what follows it for a suite with no name, which has all the others in it."""
    head = False
    for line in lines:
        if not head or re.search(r"# Subtest: |\b1\.\.\d+$", line):
            yield line
            head = bool(re.search(r"\bKTAP version \d+$", line))


def cases(test, suite=""):
    """(suite, case, status); a parameter is a case."""
    for sub in test.subtests:
        if sub.subtests:
            yield from cases(sub, suite or sub.name)
        else:
            yield suite or sub.name, sub.name, sub.status.name


def compare(found):
    """The numbers of cases and of skipped ones with LIST, where the last word counts."""
    lines = [line.split(" ", 3) for line in pathlib.Path(known).read_text().splitlines()]
    want, have = {}, {}
    for key in keys:
        want |= {line[0]: (int(line[1]), int(line[2])) for line in lines if line[3:] == [key]}
    for suite, _, status in found:
        count, skipped = have.get(suite, (0, 0))
        have[suite] = count + 1, skipped + (status == "SKIPPED")
    for suite in sorted(have | want):
        now, before = have.get(suite, (0, 0)), want.get(suite, (0, 0))
        if now != before and only in ("", suite):
            print("FAIL 1", f"{suite}: (cases, skipped) are {now}; tests/suites has {before}")
            with open(known, "a", encoding="utf-8") as file:
                print(suite, *now, keys[-1], file=file)


lines = pathlib.Path(console).read_text(errors="replace").splitlines()
for line in [line for line in lines if re.search(TROUBLE, line)][:3]:
    print("FAIL 1 the kernel complains:", line)
with open(log, "w", encoding="utf-8") as output:
    result = kunit_parser.parse_run_tests(with_whole_heads(lines), Printer(output=output))
results = list(cases(result))
good = [suite for suite, _, status in results if status == "SUCCESS"]
for suite, case, status in results:
    if status != "SUCCESS":
        print("skip 1 KUnit" if status == "SKIPPED" else f"FAIL 1 {status}", suite, case)
if result.status.name != "SUCCESS" or result.counts.errors:
    print(f"FAIL 1 kunit.py is not content (log: {log})")
if known:
    compare(results)
else:
    print("skip 1 the number of KUnit cases, since another kernel has others")
print("ok", len(good), f"{len(good)} KUnit cases in {len(set(good))} suites")
