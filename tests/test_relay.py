# SPDX-License-Identifier: Apache-2.0
"""
The relay alone, between sockets whose keys the test chose: thousands of random flows, every byte
and every end compared. ktlsgate-relay-test draws them from a seed and plays both far ends with a
record layer of its own; tests/relay/schedule.h has the table of what must be seen.
"""

import os
import re
import subprocess

import pytest

from harness import netns
from harness.daemon import program
from harness.peer import SCALE

pytestmark = [pytest.mark.datapath]

# KTLSGATE_RELAY_FLOWS: make check-kernels says 10000, for each test then; a guest takes an hour.
GIVEN = int(os.environ.get("KTLSGATE_RELAY_FLOWS", 0))
FLOWS = GIVEN or (1000 if SCALE > 1 else 10000)
FEW = GIVEN or FLOWS // 20  # where a flow takes long
SKIPPED = 77


def seconds(flows):
    """A limit, not what it takes."""
    return 180 + flows // 40


def relay(engine, flows, *args, inside=()):
    """Runs the tool; KTLSGATE_SEED repeats a run, and each run prints its seed."""
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
    return int(re.search(r"^records copied (\d+)$", run.stdout, re.MULTILINE)[1])


@pytest.mark.timeout(seconds(FLOWS) + 20)
def test_random_flows(engine):
    assert relay(engine, FLOWS) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the kernel's limit")
@pytest.mark.timeout(seconds(FLOWS) + 20)
@pytest.mark.parametrize("pages", [1, 64])
def test_without_pipes(engine, pages, pipe_pages):
    """As the user that the daemon becomes: the kernel gives it no pipe at all, or too few."""
    if engine != "ktls":
        pytest.skip("only the ktls engine has pipes")
    pipe_pages(pages)
    unprivileged = ["setpriv", "--bounding-set=-sys_resource,-sys_admin"]
    assert relay(engine, max(FLOWS // 5, 50), "--few-pipes", inside=unprivileged) > 0


@pytest.mark.timeout(seconds(FEW) + 20)
def test_zero_windows(engine):
    """Each end stops reading once, most with more on its way than all buffers hold."""
    relay(engine, FEW, "--stalls", 1000, "--bytes", "1m")


@pytest.mark.timeout(seconds(FEW) + 20)
def test_loss_and_reordering(engine):
    """On a loopback of its own that loses, delays, doubles and reorders packets."""
    with netns.lossy() as inside:
        relay(engine, FEW, "--bytes", "256k", "--concurrent", 64, inside=inside)
