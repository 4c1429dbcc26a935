# SPDX-License-Identifier: Apache-2.0
"""ktlsgate-relay-test, and what it says: both far ends of random flows through the relay alone."""

import os
import re
import subprocess

import pytest

from .daemon import program
from .peer import SCALE

SKIPPED = 77


def seconds(flows):
    """A limit, not what it takes."""
    return 180 + flows // 40


def relay(engine, flows, *args, inside=()):
    """What it printed. KTLSGATE_SEED repeats a run, and each run prints its seed."""
    argv = [*inside, program("tests/ktlsgate-relay-test"), "--engine", engine, "--flows", flows,
            "--patience", 2 * SCALE, *args]
    if "KTLSGATE_SEED" in os.environ:
        argv += ["--seed", os.environ["KTLSGATE_SEED"]]
    run = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True, timeout=seconds(flows) * SCALE, check=False)
    if run.returncode == SKIPPED:
        pytest.skip(run.stdout.splitlines()[-1])
    print(run.stdout)
    assert run.returncode == 0, run.stdout[-12000:]
    found = re.search(r"^flows (\d+), ok (\d+), wrong 0, seed \d+$", run.stdout, re.MULTILINE)
    assert found and int(found[1]) == int(found[2]) == flows, run.stdout[-2000:]
    return run.stdout


def reads_copied(printed):
    return int(re.search(r"^reads copied (\d+)$", printed, re.MULTILINE)[1])


def held(printed):
    """Most bytes that the gate held for one receiver."""
    return max(map(int, re.findall(r"^held (\d+) bytes", printed, re.MULTILINE)))


def faults(text):
    """{site: (soft, hard)} in a report of the injector, tests/fault."""
    report = re.search(r"faults(?:, seed \d+)?:(.*)", text)
    assert report, text[-2000:]
    return {name: (int(soft), int(hard))
            for name, soft, hard in re.findall(r" ([\w-]+) (\d+)\+(\d+)", report[1])}


def given_up(printed):
    """Flows that a hard fault ended."""
    return int(re.search(r"flows given up (\d+)$", printed, re.MULTILINE)[1])
