# SPDX-License-Identifier: Apache-2.0
"""
The shield: sources that get no connection, or not so many, refused before there is a socket. All
in a namespace where every source address is local; what is refused must be counted.
"""

import pathlib
import subprocess

import pytest

from harness.daemon import ctl
# pylint: disable=unused-import  # fixtures
from harness.steering import ask, connect, dump, echo, gate, inside, vservers

pytestmark = [pytest.mark.usefixtures("bpf"), pytest.mark.datapath]

LISTEN = {"wide": "10.0.0.0/8:443 [2001:db8::]/32:443", "host": "192.0.2.1:8443",
          "open": "192.0.2.1:8444"}
OK, REFUSED = "connected", "ConnectionRefusedError"


def refused(gate):
    """What was counted: {vserver: {counter: n}} without zeros."""
    total = {}
    for entry in dump(gate.settings["bpf.dir"], "shield_stats"):
        for cpu in entry["values"]:
            value = dict(cpu["value"])
            name = value.pop("vserver")
            for counter, n in value.items():
                if n:
                    total.setdefault(name, {}).setdefault(counter, 0)
                    total[name][counter] += n
    return total


# The program sees no TCP flags, so a segment that comes late to a closed connection is looked up,
# and admitted or held against a limit, as a new one is. More than these there were never.
LATE = 4


def counted_as(gate, want):
    """Exactly so many denied, who have no connection to be late for, and LATE more admitted."""
    have = refused(gate)
    late = {name: counters.get("admitted", 0) - want[name].get("admitted", 0)
            for name, counters in have.items() if name in want}
    less = {name: {counter: n - (late.get(name, 0) if counter == "admitted" else 0)
                   for counter, n in counters.items()} for name, counters in have.items()}
    assert less == want and all(0 <= n <= LATE for n in late.values()), have
    return True


def over_limit(gate, outcomes):
    """What the limit of a prefix has counted, once nothing can come late any more."""
    assert gate.stat_reaches("flows_closed", gate.stats()["flows_accepted"])
    n = gate.stats()["shield_over_prefix_limit"]
    assert 0 <= n - outcomes.count(REFUSED) <= LATE, (n, outcomes)
    return n


def rules(gate, family=4):
    """{(address, length): rule}"""
    return {(tuple(e["key"]["address"]), e["key"]["prefixlen"]): e["value"]
            for e in dump(gate.settings["bpf.dir"], f"shield_rules{family}")}


def bpftool(gate, verb, family, key, *value):
    subprocess.run(["bpftool", "map", verb, "pinned",
                    pathlib.Path(gate.settings["bpf.dir"]) / f"shield_rules{family}", "key",
                    *map(str, key), *value], check=True)


def test_deny_list(gate, inside, pki, echo):
    """Of the configuration; the longest prefix decides, and a vserver may be without a shield."""
    g = gate(vservers(pki, LISTEN, echo), shield__deny="10.66.0.0/16 2001:db8:66::/48",
             vserver__open__shield="off")
    assert connect(inside, "10.1.1.1", 443, "10.66.1.1", 3) == [REFUSED] * 3
    assert connect(inside, "192.0.2.1", 8443, "10.66.255.255") == [REFUSED]
    assert connect(inside, "2001:db8::1", 443, "2001:db8:66::1") == [REFUSED]
    assert connect(inside, "10.1.1.1", 443, "10.67.0.1") == [OK]
    assert connect(inside, "2001:db8::1", 443, "2001:db8:67::1") == [OK]
    assert connect(inside, "192.0.2.1", 8443, "10.65.255.255") == [OK]
    assert connect(inside, "192.0.2.1", 8444, "10.66.1.1") == [OK]
    assert counted_as(g, {"wide": {"denied": 4, "admitted": 2},
                          "host": {"denied": 1, "admitted": 1}, "open": {"admitted": 1}})
    assert g.stat_reaches("flows_closed", 4)
    assert g.stats()["flows_accepted"] == 4, "a refused connection reached a socket"
    (rule,) = rules(g).values()
    assert (rule["action"], rule["origin"], rule["dropped"]) == ("SHIELD_DENY", "SHIELD_CONFIGURED",
                                                                4)


def test_edited_with_bpftool(gate, inside, pki, echo):
    """As docs/bpftool.md has it: a value of zeros denies, and a longer prefix may allow."""
    g = gate(vservers(pki, LISTEN, echo))
    denied, allowed = (16, 0, 0, 0, 10, 77, 0, 0), (24, 0, 0, 0, 10, 77, 1, 0)
    bpftool(g, "update", 4, denied, "value", *["0"] * 32)
    bpftool(g, "update", 4, allowed, "value", "1", *["0"] * 31)
    assert connect(inside, "10.1.1.1", 443, "10.77.2.1") == [REFUSED]
    assert connect(inside, "10.1.1.1", 443, "10.77.1.1") == [OK]
    assert rules(g)[((10, 77, 0, 0), 16)]["dropped"] == 1
    bpftool(g, "delete", 4, denied)
    assert connect(inside, "10.1.1.1", 443, "10.77.2.1") == [OK]
    assert counted_as(g, {"wide": {"denied": 1, "admitted": 2}})


def test_limit_of_a_prefix(gate, inside, pki, echo):
    """One bucket for all of it."""
    g = gate(vservers(pki, LISTEN, echo))
    limit = (2).to_bytes(4, "little") + bytes(4) + (1).to_bytes(4, "little") + (
        4).to_bytes(4, "little") + bytes(16)
    bpftool(g, "update", 4, (24, 0, 0, 0, 10, 78, 1, 0), "value", *map(str, limit))
    got = [connect(inside, "10.1.1.1", 443, f"10.78.1.{i}")[0] for i in range(1, 3)]
    got += connect(inside, "10.1.1.1", 443, "10.78.1.3", 6)
    assert got[:4] == [OK] * 4
    assert got.count(REFUSED) >= 2, got
    assert connect(inside, "10.1.1.1", 443, "10.78.2.1", 6) == [OK] * 6
    n = over_limit(g, got)
    (rule,) = rules(g).values()
    assert (rule["action"], rule["dropped"]) == ("SHIELD_LIMIT", n)
    assert refused(g)["wide"]["over_prefix_limit"] == n


def test_limit_of_each_source(gate, inside, pki, echo):
    """Each has its own bucket; what a source is the configuration says."""
    g = gate(vservers(pki, LISTEN, echo), shield__rate="1", shield__burst="3",
             shield__prefix4="24", shield__prefix6="64", vserver__open__shield="off")
    for address, sources in (
            ("10.1.1.1", ("10.1.5.1", "10.1.5.200", "10.1.6.1")),
            ("2001:db8::1", ("2001:db8:0:5::1", "2001:db8:0:5:ffff::1", "2001:db8:0:6::1"))):
        first = connect(inside, address, 443, sources[0], 8)
        assert first[:3] == [OK] * 3 and 4 <= first.count(REFUSED) <= 5, first
        assert REFUSED in connect(inside, address, 443, sources[1], 3), "not the same source"
        assert connect(inside, address, 443, sources[2], 3) == [OK] * 3
    assert connect(inside, "192.0.2.1", 8444, "10.1.5.1", 8) == [OK] * 8
    counted = refused(g)["wide"]
    dropped = [e["value"]["dropped"] for e in dump(g.settings["bpf.dir"], "shield_sources")]
    assert len(dropped) == 4 and sum(dropped) == counted["over_source_limit"]
    # At least: see counted_as().
    assert counted["over_source_limit"] + counted["admitted"] >= 2 * (8 + 3 + 3)


def test_edited_at_run_time(gate, inside, pki, echo):
    """By ktlsgatectl; a reload keeps an operator's rules, and the counters."""
    g = gate(vservers(pki, LISTEN, echo), shield__deny="10.66.0.0/16")
    g.ctl("shield", "deny", "10.79.0.0/16")
    g.ctl("shield", "allow", "10.79.1.1")
    g.ctl("shield", "limit", "10.80.0.0/16", "1", "2")

    def outcomes():
        return [connect(inside, "10.1.1.1", 443, source)[0]
                for source in ("10.66.1.1", "10.79.1.2", "10.79.1.1")]

    assert outcomes() == [REFUSED, REFUSED, OK]
    limited = connect(inside, "10.1.1.1", 443, "10.80.1.1", 5)
    assert limited[:2] == [OK, OK] and REFUSED in limited
    n = over_limit(g, limited)
    assert g.stats()["shield_denied"] == 2
    assert f"ktlsgate_shield_over_prefix_limit_total {n}\n" in g.ctl("metrics")
    g.ctl("-w", "shield.deny=10.67.0.0/16")
    assert outcomes() == [OK, REFUSED, OK]
    assert connect(inside, "10.1.1.1", 443, "10.67.1.1") == [REFUSED]
    g.ctl("shield", "reset", "10.79.0.0/16")
    assert outcomes() == [OK, OK, OK]
    shown = g.ctl("shield", "show").splitlines()
    assert set(shown) >= {
        "source limit none", "rule 10.67.0.0/16 deny configured dropped 1",
        "rule 10.79.1.1/32 allow run-time dropped 0",
        f"rule 10.80.0.0/16 limit 1/s burst 2 run-time dropped {n}"}
    (wide,) = [x for x in shown if x.startswith("vserver wide ")]
    assert f" denied 4 over_prefix_limit {n} over_source_limit 0" in wide
    assert g.stats()["shield_denied"] == 4
    sample = 'ktlsgate_shield_connections_total{{vserver="{}",outcome="{}"}} {}'
    metrics = g.ctl("metrics").splitlines()
    assert sample.format("wide", "denied", 4) in metrics
    assert sample.format("wide", "over_prefix_limit", n) in metrics
    assert sample.format("host", "denied", 0) in metrics
    done = ctl("-s", g.socket, "shield", "deny", "10.79.0.0/8")
    assert done.returncode == 1 and "use 10.0.0.0/8" in done.stderr


def test_a_refused_reload_changes_nothing(gate, inside, pki, echo, tmp_path):
    """Neither who is led where nor who is denied."""
    g = gate(vservers(pki, {"wide": LISTEN["wide"]}, echo), shield__deny="10.66.0.0/16")
    done = ctl("-s", g.socket, "-w", "shield.deny=10.67.0.0/16", "vserver.wide.listen=10.9.0.0/16:443",
               "vserver.other.listen=198.51.100.1:443", "vserver.other.certkey=web",
               "vserver.other.profile=front", "vserver.other.service=app1")
    assert done.returncode == 1 and "vserver.other.listen: " in done.stderr, done.stderr
    assert connect(inside, "10.1.1.1", 443, "10.66.1.1") == [REFUSED]
    assert connect(inside, "10.1.1.1", 443, "10.67.1.1") == [OK]
    ask(inside, pki, "10.1.1.1", 443)
    g.ctl("-w", "vserver.wide.listen=10.9.0.0/16:443")
    assert connect(inside, "10.1.1.1", 443) == [REFUSED]
    ask(inside, pki, "10.9.1.1", 443)


def test_forwards_behind_it(gate, inside, pki, echo):
    g = gate(vservers(pki, LISTEN, echo), shield__rate="1000", shield__burst="100")
    ask(inside, pki, "10.9.9.9", 443)
    ask(inside, pki, "192.0.2.1", 8443)
    assert refused(g) == {"wide": {"admitted": 1}, "host": {"admitted": 1}}


def test_without_bpf(gate, inside, pki, echo):
    """Said once; the gate goes on."""
    g = gate(vservers(pki, {"host": LISTEN["host"]}, echo), bpf__dir="off", shield__rate="1",
             shield__burst="1")
    assert g.log().count("shield.*: not in force without BPF") == 1
    assert connect(inside, "192.0.2.1", 8443, "10.1.5.1", 5) == [OK] * 5
