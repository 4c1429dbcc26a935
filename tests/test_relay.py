# SPDX-License-Identifier: Apache-2.0
"""
The relay alone, between sockets whose keys the test chose: thousands of random flows, every byte
and every end compared. ktlsgate-relay-test draws them from a seed and plays both far ends with a
record layer of its own; tests/relay/schedule.h has the table of what must be seen.
"""

import os
import subprocess

import pytest

from harness.peer import SCALE
from harness.relay import held, reads_copied, relay

pytestmark = [pytest.mark.datapath]

# KTLSGATE_RELAY_FLOWS: make check-kernels says 10000, which takes a guest a quarter of an hour.
FLOWS = int(os.environ.get("KTLSGATE_RELAY_FLOWS", "1000" if SCALE > 1 else "10000"))
NETEM = "delay 1ms 2ms loss 1% reorder 20% duplicate 1%"
# docs/design.md, "Back-pressure": one read of the user engine and the answers among it.
HELD_MAX = (65536 + 18437) * 1.01 + 64 * 100


@pytest.mark.timeout(400)
def test_random_flows(engine):
    assert reads_copied(relay(engine, FLOWS, timeout=390 * SCALE)) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the kernel's limit")
@pytest.mark.timeout(200)
@pytest.mark.parametrize("pages", [1, 64])
def test_without_pipes(engine, pages, pipe_pages):
    """As the user that the daemon becomes: the kernel gives it no pipe at all, or too few."""
    if engine != "ktls":
        pytest.skip("only the ktls engine has pipes")
    pipe_pages(pages)
    unprivileged = ["setpriv", "--bounding-set=-sys_resource,-sys_admin"]
    printed = relay(engine, max(FLOWS // 5, 50), "--few-pipes", inside=unprivileged,
                    timeout=190 * SCALE)
    assert reads_copied(printed) > 0


@pytest.mark.timeout(200)
def test_copy(engine):
    """dataplane.relay = copy"""
    if engine != "ktls":
        pytest.skip("the user engine knows no dataplane.relay")
    assert reads_copied(relay("copy", FLOWS // 2, timeout=190 * SCALE)) > 0


@pytest.mark.timeout(200)
def test_zero_windows(engine):
    """Each end stops reading once, most with more on its way than all buffers hold."""
    printed = relay(engine, max(FLOWS // 20, 50), "--stalls", 1000, "--bytes", "1m",
                    timeout=190 * SCALE)
    assert 0 < held(printed) <= HELD_MAX


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
