# SPDX-License-Identifier: Apache-2.0
"""
Nothing is left behind: many flows with random aborts at every stage, then descriptors, pipes and
the heap are as after few. `make soak` runs 100,000 and more; the suite a hundredth of them.
"""

import functools
import os
import re

import pytest

from harness.daemon import wait_until
from harness.peer import SCALE
from harness.relay import given_up, relay
from harness.traffic import Traffic

# KTLSGATE_SOAK: flows, of which three in five go through the relay without faults, one in five
# with hard ones, and one in five are whole.
FLOWS = int(os.environ.get("KTLSGATE_SOAK", "3000"))
WARM_UP = 150
HEAP_SLACK = 4096  # bytes
# A namespace of its own: the kernel answers a reset inside the window with a challenge at most
# every half second, and a reset that is not challenged is lost.
ALONE = ["unshare", "--net", "sh", "-c", "ip link set lo up && "
         'sysctl -qw net.ipv4.tcp_invalid_ratelimit=0 && exec "$@"', "sh"]

pytestmark = [pytest.mark.timeout(3600),
              pytest.mark.skipif(os.geteuid() != 0, reason="only root has a network namespace")]


@pytest.mark.parametrize("faults", [[], ["--faults", "hard"]], ids=["aborts", "faults"])
def test_relay(engine, faults):
    """The heap is measured by the tool itself, behind the first 1000 flows."""
    flows = FLOWS // 5 if faults else FLOWS * 3 // 5
    printed = relay(engine, max(flows, 1200), "--soak", "--bytes", "16k", "--concurrent", 128, *faults,
                    inside=ALONE, timeout=3500)
    assert "heap: " in printed
    assert not faults or given_up(printed) > flows / 5


def heaps_at_the_end(gate):
    """By process, "" being the supervisor. Everything is given back by then."""
    found = re.findall(r" ktlsgated(\S*) info: heap at the end: (\d+)$", gate.log(), re.MULTILINE)
    return {name: int(n) for name, n in found}


def run_whole(start, pki, directory, flows):
    """Flows of which four in ten are aborted in one of their handshakes, in a gate of their own."""
    directory.mkdir()
    traffic = Traffic(functools.partial(start, faults="off"), pki, directory, forge__cache=4)
    gate = traffic.gate
    before = gate.descriptors()
    printed = traffic.run("--flows", flows, "--concurrency", 100, "--bytes", "16k", "--tls", "mixed",
                          "--rekey", "--quits", 250, timeout=3500)
    assert wait_until(lambda: gate.stats()["flows_active"] == 0, 35 * SCALE)
    stats = gate.stats()
    assert stats["flows_relaying_active"] == stats["pipes_active"] == stats["drain_timeouts"] == 0
    assert wait_until(lambda: gate.descriptors() == before, 5 * SCALE), (
        before, gate.descriptors())
    assert int(re.search(r"^quits (\d+)$", printed, re.MULTILINE)[1]) > flows / 20
    assert stats["reason_client_gone"] and stats["reason_backend_gone"]
    gate.stop()
    return heaps_at_the_end(gate)


def test_whole_flows(gate, pki, tmp_path):
    few = run_whole(gate, pki, tmp_path / "few", WARM_UP)
    many = run_whole(gate, pki, tmp_path / "many", FLOWS // 5)
    print("heaps at the end:", few, many)
    assert few.keys() == many.keys() == {"[data]", "[signer]", ""}
    assert all(many[name] <= few[name] + HEAP_SLACK for name in few), (few, many)
