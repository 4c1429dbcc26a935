# SPDX-License-Identifier: Apache-2.0
"""What an idle flow costs: memory and descriptors; printed, and held to loose bounds."""

import os
import pathlib
import re

import pytest

from harness.daemon import wait_until
from harness.peer import SCALE
from harness.traffic import Traffic

pytestmark = [pytest.mark.datapath, pytest.mark.timeout(120)]

FLOWS = int(os.environ.get("KTLSGATE_IDLE", "400" if SCALE > 1 else "2000"))
# KiB of Pss a flow, all of the gate's processes; a sanitizer's build costs what it likes.
BOUND = {"ktls": 4, "user": 16}


def cost(gate):
    """(KiB of Pss, descriptors) of all its processes."""
    pss = 0
    for pid in gate.processes():
        rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        pss += int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE).group(1))
    return pss, gate.descriptors()


def test_idle_flows(gate, pki, tmp_path, engine, record_property):
    """The difference between many and a quarter of them: caches and arenas are in both."""
    traffic = Traffic(gate, pki, tmp_path)
    g = traffic.gate
    costs = {}
    before = g.descriptors()
    for n in (FLOWS // 4, FLOWS):
        # Few handshakes at once: what malloc keeps of them is not the idle flows' cost.
        with traffic.held("--idle", n, "--bytes", "4k", "--concurrency", 8):
            assert g.stats()["flows_relaying_active"] == n
            assert g.stats()["pipes_active"] == 0, "an idle flow holds a pipe"
            costs[n] = cost(g)
        assert wait_until(lambda: g.stats()["flows_active"] == 0, 20 * SCALE)
    (memory, files), (more_memory, more_files) = costs.values()
    more = FLOWS - FLOWS // 4
    per_flow = (more_memory - memory) / more
    text = (f"{engine}: an idle flow costs {per_flow:.2f} KiB of Pss and "
            f"{(more_files - files) / more:.2f} descriptors ({FLOWS} flows)")
    print(text)
    record_property("idle", text)
    assert more_files - files <= 2 * more + 8, text
    assert g.sanitized() or per_flow < BOUND[engine], text
    # Pipes kept for later: 64 a worker, two descriptors each.
    kept = 128 * len(os.sched_getaffinity(0)) if engine == "ktls" else 0
    assert wait_until(lambda: g.descriptors() <= before + kept, 20 * SCALE), "descriptors leak"
