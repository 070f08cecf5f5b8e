# SPDX-License-Identifier: GPL-2.0
"""What tests/guest/run and tests/distro/run share: both boot kernels and print TAP."""

import pathlib
import re
import subprocess
import sys
import tempfile

TESTS = pathlib.Path(__file__).resolve().parent
TOP = TESTS.parent
GUEST = TOP / "scripts" / "guest"
STATE = TOP / "build" / "guest"


def patterns(path):
    """The lines of a file, but for comments, as one regular expression."""
    lines = path.read_text().splitlines()
    return "|".join(line for line in lines if line and not line.startswith("#"))


TROUBLE = patterns(TESTS / "guest" / "trouble")


class Tap:
    def __init__(self):
        self.count = 0
        self.failed = 0
        self.skipped = 0

    def result(self, passed, name, why=""):
        self.count += 1
        self.failed += not passed
        print(f"{'ok' if passed else 'not ok'} {self.count} - {name}")
        if not passed and why:
            for line in str(why).splitlines():
                print(f"# {line}")
        sys.stdout.flush()

    def skip(self, name, why):
        self.count += 1
        self.skipped += 1
        print(f"ok {self.count} - {name} # SKIP {why}")

    def end(self):
        print(f"1..{self.count}")
        print(f"# of {self.count} {self.failed} failed, {self.skipped} were skipped")
        return 1 if self.failed else 0


# QEMU's threads race: a CPU can translate the int3 that stands in for an instruction while
# another one patches it away, and executes it later, when the kernel does not know it any
# more and panics.  So does base, once in 2,000 switches of all events of kmem (10.0.2).  What
# tells this from a jump to where there is no code: no int3 (cc) is before RIP.
GONE_INT3 = re.compile(r"Oops: int3(?:(?!\] Code: ).)*\] Code: [^<\n]*(?!cc)\w\w <", re.DOTALL)
TRIES = 3


def boot(kernel, arguments, timeout, heard=None):
    """(status, the console's lines and the tests') of one boot; heard() gets each
    line at once.  It starts anew, up to twice, when QEMU executed an int3 that is gone."""
    for left in reversed(range(TRIES)):
        status, lines = boot_once(kernel, arguments, timeout, heard)
        if not left or not GONE_INT3.search("\n".join(kernel_lines(lines))):
            return status, lines
        print("# repeated: QEMU executed an int3 that was patched away", flush=True)


def boot_once(kernel, arguments, timeout, heard):
    command = [GUEST, "--kernel", kernel, "--timeout", str(timeout), *arguments]
    lines = []
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as guest,
    ):
        for line in guest.stdout:
            lines.append(line.rstrip("\n"))
            if heard:
                heard(lines[-1])
        guest.wait()
        errors.seek(0)
        if error := errors.read().strip():
            lines.append(f"# {error}")
    return guest.returncode, lines


def kernel_lines(lines):
    return [line for line in lines if re.match(r"\[ *\d+\.\d+\] ", line)]


def say_trouble(tap, machine, lines):
    lines = kernel_lines(lines)
    bad = [number for number, line in enumerate(lines) if re.search(TROUBLE, line)]
    why = lines[max(0, bad[0] - 5) : bad[0] + 15] if bad else []
    tap.result(not bad, f"{machine}: no warning or worse on the console", "\n".join(why))


def guest_results(tap, machine, status, lines):
    """Pass on what the guest's own tests printed; how many there were."""
    count = 0
    for number, line in enumerate(lines):
        match = re.match(r"(not )?ok - (.*?)(?: # SKIP (.*))?$", line)
        if not match:
            continue
        count += 1
        name = f"{machine}: {match[2]}"
        if match[3] and not match[1]:
            tap.skip(name, match[3])
        else:
            why = lines[number + 1] if number + 1 < len(lines) else ""
            tap.result(not match[1], name, why.removeprefix("# "))
    tap.result(status in (0, 1), f"{machine}: runs to its end", "\n".join(lines[-8:]))
    return count
