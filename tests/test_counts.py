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
