# SPDX-License-Identifier: Apache-2.0
"""
The relay alone, between sockets whose keys the test chose: thousands of random flows, every byte
and every end compared. ktlsgate-relay-test draws them from a seed and plays both far ends with a
record layer of its own; tests/relay/schedule.h has the table of what must be seen.
"""

import os

import pytest

from harness import netns
from harness.daemon import probe
from harness.peer import SCALE
from harness.relay import held, reads_copied, relay, seconds

pytestmark = [pytest.mark.datapath]

# KTLSGATE_RELAY_FLOWS: make check-kernels says 10000, for each test then; a guest takes an hour.
GIVEN = int(os.environ.get("KTLSGATE_RELAY_FLOWS", 0))
FLOWS = GIVEN or (1000 if SCALE > 1 else 10000)
FEW = GIVEN or FLOWS // 20  # where a flow takes long
# docs/design.md, "Back-pressure": one read of the user engine and the answers among it.
HELD_MAX = (131072 + 18437) * 1.01 + 64 * 100


@pytest.mark.timeout(seconds(FLOWS) + 20)
def test_random_flows(engine):
    assert reads_copied(relay(engine, FLOWS)) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the kernel's limit")
@pytest.mark.timeout(seconds(FLOWS) + 20)
@pytest.mark.parametrize("pages", [1, 64])
def test_without_pipes(engine, pages, pipe_pages):
    """As the user that the daemon becomes: the kernel gives it no pipe at all, or too few."""
    if engine != "ktls":
        pytest.skip("only the ktls engine has pipes")
    pipe_pages(pages)
    unprivileged = ["setpriv", "--bounding-set=-sys_resource,-sys_admin"]
    printed = relay(engine, max(FLOWS // 5, 50), "--few-pipes", inside=unprivileged)
    assert reads_copied(printed) > 0


@pytest.mark.timeout(seconds(FLOWS) + 20)
def test_copy(engine):
    """dataplane.relay = copy"""
    if engine != "ktls":
        pytest.skip("the user engine knows no dataplane.relay")
    assert reads_copied(relay("copy", GIVEN or FLOWS // 2)) > 0


@pytest.mark.timeout(seconds(FEW) + 20)
def test_zero_windows(engine):
    """Each end stops reading once, most with more on its way than all buffers hold."""
    printed = relay(engine, FEW, "--stalls", 1000, "--least", "100k", "--bytes", "1m")
    assert 0 < held(printed) <= HELD_MAX


@pytest.mark.timeout(seconds(FEW) + 20)
def test_broken_with_little_room(engine):
    """Who breaks the protocol still gets what was sent to it before, however slowly, and an alert."""
    relay(engine, FEW, "--kind", "break", "--tiny", "--least", "16k")


@pytest.mark.timeout(seconds(FEW) + 20)
def test_loss_and_reordering(engine):
    """
    On a loopback of its own that loses, delays, doubles and reorders packets. Where the kernel
    misreads headers in segments that overlap, no write ends in one: the gate could not help it.
    """
    answer, why = probe()["overlapping_segments"]
    flawed = engine == "ktls" and answer == "no"
    if flawed:
        print(f"records are written whole, for {why}")
    with netns.lossy() as inside:
        relay(engine, FEW, "--bytes", "256k", "--concurrent", 64,
              *["--whole-writes"][:flawed], inside=inside)
