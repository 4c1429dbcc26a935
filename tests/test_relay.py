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

from harness.daemon import program
from harness.peer import SCALE

pytestmark = [pytest.mark.datapath]

# KTLSGATE_RELAY_FLOWS: make check-kernels says 10000, which takes a guest a quarter of an hour.
FLOWS = int(os.environ.get("KTLSGATE_RELAY_FLOWS", "1000" if SCALE > 1 else "10000"))
NETEM = "delay 1ms 2ms loss 1% reorder 20% duplicate 1%"
SKIPPED = 77


def relay(engine, flows, *args, inside=(), timeout):
    """Runs the tool; KTLSGATE_SEED repeats a run, and each run prints its seed."""
    argv = [*inside, program("tests/ktlsgate-relay-test"), "--engine", engine, "--flows", flows,
            "--patience", 2 * SCALE, *args]
    if "KTLSGATE_SEED" in os.environ:
        argv += ["--seed", os.environ["KTLSGATE_SEED"]]
    run = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True, timeout=timeout, check=False)
    if run.returncode == SKIPPED:
        pytest.skip(run.stdout.splitlines()[-1])
    print(run.stdout)
    assert run.returncode == 0, run.stdout[-12000:]
    found = re.search(r"^flows (\d+), ok (\d+), wrong 0, seed \d+$", run.stdout, re.MULTILINE)
    assert found and int(found[1]) == int(found[2]) == flows, run.stdout[-2000:]
    return int(re.search(r"^reads copied (\d+)$", run.stdout, re.MULTILINE)[1])


@pytest.mark.timeout(400)
def test_random_flows(engine):
    assert relay(engine, FLOWS, timeout=390 * SCALE) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the kernel's limit")
@pytest.mark.timeout(200)
@pytest.mark.parametrize("pages", [1, 64])
def test_without_pipes(engine, pages, pipe_pages):
    """As the user that the daemon becomes: the kernel gives it no pipe at all, or too few."""
    if engine != "ktls":
        pytest.skip("only the ktls engine has pipes")
    pipe_pages(pages)
    unprivileged = ["setpriv", "--bounding-set=-sys_resource,-sys_admin"]
    copied = relay(engine, max(FLOWS // 5, 50), "--few-pipes", inside=unprivileged, timeout=190 * SCALE)
    assert copied > 0


@pytest.mark.timeout(200)
def test_copy(engine):
    """dataplane.relay = copy"""
    if engine != "ktls":
        pytest.skip("the user engine knows no dataplane.relay")
    assert relay("copy", FLOWS // 2, timeout=190 * SCALE) > 0


@pytest.mark.timeout(200)
def test_zero_windows(engine):
    """Each end stops reading once, most with more on its way than all buffers hold."""
    relay(engine, max(FLOWS // 20, 50), "--stalls", 1000, "--bytes", "1m", timeout=190 * SCALE)


@pytest.mark.timeout(200)
def test_loss_and_reordering(engine):
    """On a loopback of its own that loses, delays, doubles and reorders packets."""
    lossy = ["unshare", "--net", "sh", "-c",
             f'ip link set lo up && tc qdisc add dev lo root netem {NETEM} && exec "$@"', "sh"]
    probe = subprocess.run([*lossy, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no netem here: {probe.stderr.strip()}")
    relay(engine, max(FLOWS // 20, 50), "--bytes", "256k", "--concurrent", 64, inside=lossy,
          timeout=190 * SCALE)
