# SPDX-License-Identifier: Apache-2.0
"""
Random flows in both directions at once, a few dozen at a time: odd writes, pauses, tiny buffers,
stalls, padding, and every way to end. ktlsgate-peer draws them from a seed, plays both ends and
compares every byte and every end; tests/peer/plan.h has the table of what must be seen.
"""

import os

import pytest

from harness import netns
from harness.daemon import wait_until
from harness.peer import SCALE
from harness.traffic import Traffic

pytestmark = [pytest.mark.datapath, pytest.mark.timeout(120)]

# KTLSGATE_STRESS: make check-kernels says 500, for each test then.
GIVEN = int(os.environ.get("KTLSGATE_STRESS", 0))
FLOWS = GIVEN or (150 if SCALE > 1 else 2000)
FEW = GIVEN or (24 if SCALE > 1 else 100)  # where a flow takes long
# Most bytes in one direction of a flow.
BYTES = "64k" if SCALE > 1 else "256k"
ABORTS = ("rst-client", "rst-backend", "early-client", "early-backend", "alert-client",
          "alert-backend", "fin-client", "fin-backend")


@pytest.fixture
def traffic(gate, pki, tmp_path):
    return Traffic(gate, pki, tmp_path)


def test_random_flows(traffic, engine, can_rekey):
    rekey = ["--rekey"] if can_rekey else []
    traffic.run("--flows", FLOWS, "--concurrency", 200, "--bytes", BYTES, "--tls", "mixed", *rekey,
                "--tls", "mixed", timeout=100)
    stats = traffic.gate.stats()
    other = {"user": "ktls", "ktls": "user"}[engine]
    assert stats[f"engine_{engine}_flows"] >= FLOWS * 0.9
    assert stats[f"engine_{other}_flows"] == 0


def test_zero_windows(traffic):
    """Each reader stops once, with more on its way than its buffer holds, and is slow later too."""
    traffic.run("--flows", FEW, "--concurrency", 200, "--schedule", "stall", "--bytes", "256k",
                "--tls", "mixed", timeout=100)


def test_loss_and_reordering(gate, pki, tmp_path, can_rekey):
    """Gate and peers on a loopback that loses, delays, doubles and reorders packets."""
    rekey = ["--rekey"] if can_rekey else []
    with netns.lossy() as inside:
        traffic = Traffic(gate, pki, tmp_path, inside=inside)
        traffic.run("--flows", FEW, "--bytes", BYTES, "--tls", "mixed", *rekey, timeout=100)
        traffic.gate.stop()


def test_many_at_once(traffic):
    """Hundreds of handshakes under way: completions come late, and in any order."""
    for _ in range(2):
        traffic.run("--flows", FLOWS, "--concurrency", 400, "--bytes", 256, "--schedule", "close",
                    "--tls", "mixed", backends=["1.3"])


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_bulk(traffic, tls):
    """One flow, both directions as fast as they can."""
    printed = traffic.run("--bulk", "8M" if SCALE > 1 else "128M", "--tls", tls)
    assert "sha256 equal" in printed


def test_aborted_flows_leave_nothing_behind(traffic):
    """Descriptors, pipes and flows are given back, however rude the ends were."""
    traffic.run("--flows", 20, "--bytes", "64k", "--tls", "mixed")
    gate = traffic.gate
    wait_until(lambda: gate.stats()["flows_active"] == 0, 30 * SCALE)
    before = gate.descriptors()
    for kind in ABORTS:
        traffic.run("--flows", FLOWS // len(ABORTS), "--schedule", kind, "--bytes", "64k",
                    "--tls", "mixed")
    assert wait_until(lambda: gate.stats()["flows_active"] == 0, 30 * SCALE)
    assert gate.stats()["flows_relaying_active"] == 0
    assert gate.stats()["pipes_active"] == 0
    # Pipes kept for later are no leak: 64 a worker, two descriptors each.
    kept = 128 * len(os.sched_getaffinity(0)) if gate.engine == "ktls" else 0
    assert wait_until(lambda: gate.descriptors() <= before + kept, 5 * SCALE), (
        before, gate.descriptors())
