# SPDX-License-Identifier: Apache-2.0
"""What the BPF programs count for each flow is what both its peers' TCP has sent and received."""

import json
import os
import pathlib
import re
import subprocess

import pytest

from harness import backend as backends
from harness import client as clients
from harness.daemon import settings, wait_until
from harness.peer import SCALE
from harness.rig import second_vserver
from harness.traffic import Traffic

pytestmark = [
    pytest.mark.usefixtures("bpf"),
    pytest.mark.datapath,
    pytest.mark.timeout(90),
]

FLOWS = 40 if SCALE > 1 else 100
LINE = re.compile(r"flow (\d+)" + "".join(
    rf" {end} (?P<{end}>\d+) gate (?P<{end}_gate>\d+) sent (?P<{end}_sent>\d+)"
    rf" resent \d+ received (?P<{end}_received>\d+)" for end in ("client", "backend")))


def dump(directory, name):
    """The map's entries with named fields, as bpftool prints them."""
    out = subprocess.run(["bpftool", "-j", "map", "dump", "pinned", directory / name],
                         check=True, capture_output=True, text=True).stdout
    return {e["formatted"]["key"]: e["formatted"]["value"] for e in json.loads(out)}


def test_counts_are_what_the_peers_say(gate, pki, tmp_path, engine):
    pinned = pathlib.Path(f"/sys/fs/bpf/ktlsgate-test-counts-{os.getpid()}")
    traffic = Traffic(gate, pki, tmp_path, bpf__dir=pinned)
    with traffic.held("--idle", FLOWS, "--counts", "--bytes", "200k",
                      "--tls", "mixed") as (_, lines):
        flows, info = dump(pinned, "flows"), dump(pinned, "flow_info")
        said = [m.groupdict() for m in map(LINE.fullmatch, lines) if m]
        assert len(said) == FLOWS
        equal = 0
        for s in said:
            ids = set()
            for end in ("client", "backend"):
                ports = int(s[end]), int(s[f"{end}_gate"])
                (key,) = [k for k, v in flows.items()
                          if v["side"] == f"FLOW_{end.upper()}"
                          and (v["remote_port"], v["local_port"]) == ports]
                counted = flows[key]
                ids.add(info[key]["flow_id"])
                assert re.fullmatch("[0-9a-f]{16}", info[key]["client_identity"])
                assert info[key]["engine"] == f"FLOW_ENGINE_{engine.upper()}"
                assert counted["state"] == "FLOW_ESTABLISHED"
                # The peer's figure has its retransmissions in it, as ours does.
                assert counted["bytes_rx"] == int(s[f"{end}_sent"]), (s, counted)
                # What we sent twice it has received once.
                assert counted["bytes_tx"] >= int(s[f"{end}_received"]), (s, counted)
                if not counted["retransmits"]:
                    assert counted["bytes_tx"] == int(s[f"{end}_received"]), (s, counted)
                    equal += 1
            assert len(ids) == 1, "the two sides of a flow have different flow_ids"
        assert equal > FLOWS, f"only {equal} of {2 * FLOWS} sides were free of retransmissions"
    assert wait_until(lambda: not dump(pinned, "flows"), 20 * SCALE), "closed flows stay"


def test_client_without_a_certificate_has_no_identity(gate, pki):
    pinned = pathlib.Path(f"/sys/fs/bpf/ktlsgate-test-identity-{os.getpid()}")
    with backends.backend(certkey=pki.backend()) as b:
        g = gate(settings(pki, b.port, bpf__dir=pinned, profile__front__client_auth="off",
                          profile__back__dynamic_client_cert="off"))
        if not (pinned / "flows").exists():
            pytest.skip("no BPF here: " + g.log())
        with clients.connected(g.port, pki=pki) as c:
            c.send(b"hello")
            assert c.recv_exactly(5) == b"hello"
            assert [v["client_identity"] for v in dump(pinned, "flow_info").values()] == ["", ""]


def totals(directory, name):
    """{name: {counter: sum over the CPUs}}"""
    out = subprocess.run(["bpftool", "-j", "map", "dump", "pinned", directory / name],
                         check=True, capture_output=True, text=True).stdout
    found = {}
    for entry in (e["formatted"] for e in json.loads(out)):
        cpus = [cpu["value"] for cpu in entry["values"]]
        found[entry["key"]["name"]] = {field: sum(c[field] for c in cpus) for field in cpus[0]}
    return found


def test_totals_by_vserver_and_service(gate, pki):
    """What crossed the wire, by the names of the configuration; a reload does not end them."""
    pinned = pathlib.Path(f"/sys/fs/bpf/ktlsgate-test-totals-{os.getpid()}")
    long_name = "v" * 63
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        g = gate({**settings(pki, b.port, bpf__dir=pinned),
                  **second_vserver(long_name, b.port)})
        if not (pinned / "flows").exists():
            pytest.skip("no BPF here: " + g.log())

        def transfer(port, n):
            with clients.connected(port, pki=pki, certkey=pki.client()) as c:
                c.send(b"x" * n)
                assert c.recv_exactly(n) == b"x" * n
                c.close_notify()
                c.recv()

        transfer(g.port, 10_000)
        transfer(g.port, 20_000)
        transfer(g.port_of(long_name), 5_000)
        with clients.connect(g.port, pki=pki) as c:  # ends in the handshake
            c.handshake()
        assert g.stat_reaches("flows_closed", 4)

        def settled():
            by_vserver = totals(pinned, "vserver_totals")
            return by_vserver if sum(t["connections"] for t in by_vserver.values()) == 3 else None

        by_vserver = wait_until(settled, 10 * SCALE)
        assert by_vserver.keys() == {"app", long_name}
        assert by_vserver["app"]["connections"] == 2
        # On the wire: with handshakes, records' heads, and what a slow guest sent again.
        assert 30_000 < by_vserver["app"]["bytes_rx"] < 100_000
        assert 30_000 < by_vserver["app"]["bytes_tx"] < 100_000
        assert 5_000 < by_vserver[long_name]["bytes_rx"] < 30_000
        assert by_vserver["app"]["packets_rx"] > 10
        by_service = wait_until(lambda: (lambda t: t if sum(
            s["connections"] for s in t.values()) == 3 else None)(
                totals(pinned, "service_totals")), 10 * SCALE)
        assert {n: t["connections"] for n, t in by_service.items()} == {"app1": 2, long_name: 1}
        g.ctl("reload")
        transfer(g.port, 1_000)
        assert wait_until(lambda: totals(pinned, "vserver_totals")["app"]["connections"] == 3,
                          10 * SCALE)
