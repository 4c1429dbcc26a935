# SPDX-License-Identifier: Apache-2.0
"""
Nothing is left behind: many flows with random aborts at every stage, then descriptors, pipes and
the heap are as after few. `make soak` runs 100,000; the suite a fiftieth of them.
"""

import functools
import os
import re

import pytest

from harness.daemon import HEAP_SLACK, settings, wait_until
from harness.peer import SCALE
from harness.ports import free_port
from harness.relay import given_up, relay
from harness.traffic import Traffic

# KTLSGATE_SOAK: flows, of which three in five go through the relay without faults, one in five
# with hard ones, and one in five are whole.
FLOWS = int(os.environ.get("KTLSGATE_SOAK", "2000"))
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
                    inside=ALONE)
    assert "heap: " in printed
    assert not faults or given_up(printed) > flows / 5


def test_whole_flows(gate, pki, tmp_path):
    """Two in three are aborted, many of those in one of their handshakes."""
    traffic = Traffic(functools.partial(gate, faults="off"), pki, tmp_path, forge__cache=4)
    refused = pki.client("Refused", fault="wrong_ca")
    for path in (refused.cert_file, refused.key_file):
        (traffic.certs / f"refused{path.suffix}").write_bytes(path.read_bytes())
    busy, flows = traffic.gate, FLOWS // 5
    before = busy.files_at_rest()
    printed = traffic.run("--flows", flows, "--concurrency", 100, "--bytes", "16k", "--tls", "mixed",
                          "--rekey", "--quits", 400, timeout=3500)
    assert wait_until(lambda: busy.stats()["flows_active"] == 0, 35 * SCALE)
    stats = busy.stats()
    assert stats["flows_relaying_active"] == stats["pipes_active"] == stats["drain_timeouts"] == 0
    assert wait_until(lambda: busy.open_files() == before, 5 * SCALE), (
        set(before) ^ set(busy.open_files()))
    assert int(re.search(r"^quits (\d+)$", printed, re.MULTILINE)[1]) > flows / 50
    assert stats["reason_client_gone"] and stats["reason_backend_gone"]
    assert stats["reason_client_cert_untrusted"]

    idle = gate(settings(pki, free_port()), faults="off")
    idle.stop()
    busy.stop()
    few, many = idle.heaps_at_the_end(), busy.heaps_at_the_end()
    print(f"heap at the end: after no flow {few}, after {flows} {many}")
    assert few.keys() == many.keys() == {"[data]", "[signer]", ""}
    assert all(many[name] <= few[name] + HEAP_SLACK for name in few), (few, many)
