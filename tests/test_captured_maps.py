# SPDX-License-Identifier: Apache-2.0
"""What a captured data process can do to the BPF maps: nothing but describe flows."""

import pytest

from harness.captured import Captured
from harness.daemon import wait_until
from harness.peer import SCALE
# pylint: disable=unused-import  # fixtures
from harness.steering import ask, dump, echo, gate, inside, vservers
from test_captured import end, seed

pytestmark = pytest.mark.usefixtures("bpf")

# All but those that it is for: flow_info, which it writes, and steer_load, which it has as memory.
MAPS = ("totals", "steer_listeners", "steer_config", "steer_workers", "steer_cpus", "lookup_addr4",
        "lookup_addr6", "lookup_ports", "shield_rules4", "shield_rules6", "shield_config",
        "shield_stats")


def keys(g, name):
    return {entry["key"] for entry in dump(g.settings["bpf.dir"], name)}


def test_captured_data_process(gate, inside, pki, echo, tmp_path):
    """Neither does shield.deny go, nor does a rule, an address or a counter come or change."""
    captured = Captured(tmp_path / "captured")
    g = gate(vservers(pki, {"wide": "10.0.0.0/8:443 [2001:db8::]/32:443"}, echo), captured=captured,
             shield__deny="10.66.0.0/16 2001:db8:66::/48")
    ask(inside, pki, "10.1.1.1", 443)
    assert g.stat_reaches("flows_closed", 1)
    first = seed()
    before = {name: dump(g.settings["bpf.dir"], name) for name in MAPS}
    for n in range(2):
        pid = g.data_process()
        done = captured.act(pid, first + n, 20 * SCALE, steps=20000, kinds=("maps",), end="exit")
        assert done["maps"] == 20000
        end(g, pid, "exit")
        assert wait_until(g.data_process, 10 * SCALE)
        assert {name: dump(g.settings["bpf.dir"], name) for name in MAPS} == before
        assert keys(g, "flow_info") <= keys(g, "flows")
    ask(inside, pki, "10.1.1.1", 443)
