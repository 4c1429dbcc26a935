#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Driver of `make check`: the native tests, then the data path in a guest for each kernel given.

The last line is "N passed, N failed, N skipped"; before it, each skip with its reason. The exit
status is 0 only if nothing failed and every suite ran at least one test to its end.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET

TESTS = pathlib.Path(__file__).resolve().parent
PYTEST = ["/usr/bin/python3", "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider",
          "-p", "no:xdist"]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", action="append", metavar="K",
                        help="kernel of a guest run; several (default: 6.1 and 7.3)")
    parser.add_argument("--no-guest", action="store_true", help="native tests only")
    parser.add_argument("--full", action="store_true",
                        help="in guests: as many flows as are to be seen without a difference "
                             "before a release, which takes hours")
    parser.add_argument("--no-native", action="store_true", help="guest runs only")
    parser.add_argument("pytest", nargs="*", help="further arguments of every pytest run")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="ktlsgate-check-") as scratch:
        out = pathlib.Path(scratch)
        suites = []
        if not options.no_native:
            suites.append(run("native", native(out, options.pytest), out / "native.xml"))
        for kernel in [] if options.no_guest else options.kernel or ["6.1", "7.3"]:
            report = out / f"guest-{kernel}.xml"
            suites.append(run(f"kernel {kernel}", guest(kernel, out, report, options), report))
        return summarise(suites)


def native(out, extra):
    return [*PYTEST, f"--junitxml={out}/native.xml", str(TESTS), *extra]


# --full: the number of flows of tests/test_relay.py, test_stress.py and test_stalled.py.
FULL = {"KTLSGATE_RELAY_FLOWS": "10000", "KTLSGATE_STRESS": "500", "KTLSGATE_STALLED": "2000"}


def guest(kernel, out, report, options):
    """Flows that are given in the environment stand, with --full too."""
    flows = {name: os.environ.get(name, number) for name, number in FULL.items()}
    given = [f"{name}={number}" for name, number in flows.items()] if options.full else []
    # TCP's memory, a sixteenth of all, must hold what 2000 stalled flows have in their sockets.
    memory, seconds = (8000, 4 * 3600) if options.full else (2048, 2400)
    return [str(TESTS / "guest/run"), "--kernel", kernel, "--memory", str(memory),
            "--timeout", str(seconds), "--out", str(out), "--", "env", "KTLSGATE_ENGINE=ktls",
            *given, *PYTEST, "-m", "datapath and not slow", f"--junitxml=/mnt/out/{report.name}",
            "tests", *options.pytest]


class Suite:
    """What one pytest run's JUnit file says; complete is false when there is none."""

    def __init__(self, name, status, report, seconds):
        self.name, self.status, self.seconds = name, status, seconds
        self.passed, self.failed, self.skipped = 0, [], []
        self.complete = report.exists() and report.stat().st_size > 0
        for case in ET.parse(report).iter("testcase") if self.complete else ():
            self._take(case)

    def _take(self, case):
        name = f"{case.get('classname')}::{case.get('name')}"
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            self.failed.append(name)
        elif skip is not None:
            self.skipped.append((name, skip.get("message")))
        else:
            self.passed += 1

    def trouble(self):
        """Why this suite is not good beyond its failed tests; None if it is."""
        if not self.complete:
            return f"ended with status {self.status} and left no report"
        if not self.passed:
            return "no test passed"
        if self.status and not self.failed:
            return f"ended with status {self.status}"
        return None


def run(name, argv, report):
    print(f"---- {name}: {' '.join(argv)}", flush=True)
    started = time.monotonic()
    status = subprocess.run(argv, cwd=TESTS.parent, env=os.environ, check=False).returncode
    return Suite(name, status, report, time.monotonic() - started)


def summarise(suites):
    print("----")
    troubles = 0
    for s in suites:
        for name, reason in s.skipped:
            print(f"skipped [{s.name}] {name}: {reason}")
        for name in s.failed:
            print(f"FAILED [{s.name}] {name}")
        if s.trouble():
            troubles += 1
            print(f"FAILED [{s.name}] {s.trouble()}")
        print(f"{s.name}: {s.passed} passed, {len(s.failed)} failed, {len(s.skipped)} skipped "
              f"in {s.seconds:.0f} s")
    failed = sum(len(s.failed) for s in suites) + troubles
    passed, skipped = sum(s.passed for s in suites), sum(len(s.skipped) for s in suites)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not suites else 0


if __name__ == "__main__":
    sys.exit(main())
