# SPDX-License-Identifier: Apache-2.0
"""
A reader that has stopped holds at most a bounded amount in the gate's memory (docs/design.md). What
the ktls engine holds is in pipes, counted in test_stalled.py.
"""

import pathlib
import re

import pytest

from harness.traffic import Traffic

pytestmark = pytest.mark.timeout(120)

STALLED = 20
# docs/design.md, "Back-pressure": one direction of a flow, and what the allocator adds.
BOUND = 192 << 10
# Of the C library and the kernel, whatever the number of flows.
FIXED = 512 << 10


def resident(gate):
    """Bytes of memory of its own that the gate's processes use."""
    status = [pathlib.Path(f"/proc/{pid}/status").read_text() for pid in gate.processes()]
    return sum(int(re.search(r"^RssAnon:\s+(\d+) kB$", s, re.MULTILINE)[1]) << 10 for s in status)


def test_stalled_readers(gate, pki, tmp_path):
    """As many flows at rest, then with megabytes behind clients that do not read."""
    traffic = Traffic(gate, pki, tmp_path)
    if traffic.gate.sanitized():
        pytest.skip("a sanitizer keeps memory that was freed")
    with traffic.held("--idle", STALLED):
        idle = resident(traffic.gate)
    with traffic.held("--stall", STALLED, "--bytes", "16M") as (_, lines):
        stalled, sent = resident(traffic.gate), int(lines[-1].rsplit(" ", 1)[1])
    assert sent < STALLED * (16 << 20), "nothing is stalled"
    print(f"{(stalled - idle) / STALLED:.0f} bytes for each stalled flow, {sent / STALLED:.0f} sent")
    assert stalled - idle <= STALLED * BOUND + FIXED, (idle, stalled)
