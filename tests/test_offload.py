# SPDX-License-Identifier: Apache-2.0
"""
Who seals and opens records. ktlsgate-offload: devices as the kernel describes them, and the sockets of a flow.
"""

import json
import os
import re
import socket
import subprocess

import pytest

from harness import backend as backends
from harness import client as clients
from harness.daemon import SCALE, program, settings, wait_until
from harness.fault import Fault
from harness.steering import dump
from harness.ports import HOST

pytestmark = pytest.mark.datapath

FIXED = "tx=off,fixed rx=off,fixed record=off,fixed"


def run(*args):
    return subprocess.run([program("ktlsgate-offload"), *args], capture_output=True, text=True,
                          timeout=20, check=False)


def test_every_device_once():
    lines = run().stdout.splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(n for _, n in socket.if_nameindex())
    assert all(re.fullmatch(r"\S+( (tx|rx|record)=(on|off)(,fixed)?){3}", x) for x in lines), lines
    assert f"lo {FIXED}" in lines
    assert run("lo").stdout == f"lo {FIXED}\n"


@pytest.mark.parametrize("args, status, text", [
    (["lo", "tx", "on"], 1, "ktlsgate-offload: lo: tx cannot be changed on this device\n"),
    (["lo", "record", "on"], 1, "ktlsgate-offload: lo: record cannot be changed on this device\n"),
    (["no-such-device"], 1, "ktlsgate-offload: no-such-device: No such device\n"),
    (["lo", "tx"], 2, "usage: "),
    (["lo", "all", "on"], 2, "usage: "),
    (["lo", "tx", "maybe"], 2, "usage: "),
    (["-s", "lo"], 2, "usage: "),
])
def test_errors(args, status, text):
    done = run(*args)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(text), done.stderr


def test_as_it_is_needs_no_change():
    assert run("lo", "rx", "off").stdout == f"lo {FIXED}\n"


def test_sockets(gate, pki, engine):
    """Both of a flow in engine ktls, neither in engine user."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        g = gate(settings(pki, b.port))
        with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
            c.send(b"hello")
            assert c.recv_exactly(5) == b"hello"
            done = run("--sockets")
            peer = f"{HOST}:{g.port} {HOST}:{c.sock.getsockname()[1]}"
            mine = [x for x in done.stdout.splitlines()
                    if x.startswith(peer + " ") or x.split()[1] == f"{HOST}:{b.port}"]
    assert done.returncode == 0 and done.stderr == ""
    assert len(mine) == (2 if engine == "ktls" else 0), done.stdout
    assert all(re.search(r" TLSv1\.[23] (aes_\d+_gcm|chacha20_poly1305) tx=software rx=software$", x)
               for x in mine), mine


# ---- by flow ----

RECORDS = ("client_records", "backend_records")


@pytest.fixture(scope="module")
def backend(pki):
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        yield b


def shown(g, pki, path, directory, name):
    """What a flow says of its records once it says name: shown, in the BPF map, logged at its end."""
    def of_map():
        return [v["value"]["records"].removeprefix("FLOW_RECORDS_").lower().replace("_", "-")
                for v in dump(directory, "flow_info")]

    with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
        clients.ping(c)
        wait_until(lambda: [g.flows()[0][key] for key in RECORDS] == 2 * [name] == of_map(),
                   5 * SCALE)
        (flow,) = g.flows()
        found = [[flow[key] for key in RECORDS], of_map()]
        assert wait_until(lambda: g.flows() and c.close_notify() is None, 5)
        c.recv()
    assert wait_until(lambda: path.exists() and path.read_text(), 10 * SCALE)
    line = json.loads(path.read_text())
    os.truncate(path, 0)
    return [*found, [line[key] for key in RECORDS]]


def test_nobody_is_asked(gate, pki, backend, bpf, engine, tmp_path):
    """Without a device: known at once."""
    directory = f"/sys/fs/bpf/ktlsgate-test-offload-{os.getpid()}"
    g = gate(settings(pki, backend.port, bpf__dir=directory, log__flows=tmp_path / "flows"))
    name = {"user": "user", "ktls": "software"}[engine]
    assert shown(g, pki, tmp_path / "flows", directory, name) == 3 * [2 * [name]]


def test_handshake_has_none(gate, pki, backend, tmp_path):
    path = tmp_path / "flows"
    g = gate(settings(pki, backend.port, log__flows=path))
    with clients.connect(g.port, pki=pki) as c:  # has no certificate
        wait_until(g.flows, 5 * SCALE)
        assert [g.flows()[0][key] for key in RECORDS] == ["none", "none"]
        c.handshake()
        c.recv()
    assert wait_until(lambda: path.exists() and path.read_text(), 10 * SCALE)
    assert [json.loads(path.read_text())[key] for key in RECORDS] == ["none", "none"]


@pytest.mark.parametrize("bits, name", enumerate(
    ["software", "device-tx", "device-rx", "device"]))
def test_asked_where_a_device_may(gate, pki, backend, bpf, engine, tmp_path, bits, name):
    """
    A device has had keys, says the preloaded library in /proc/net/tls_stat's place, and in
    sock_diag's answer which direction of this socket it does. Engine user asks nobody.
    """
    directory = f"/sys/fs/bpf/ktlsgate-test-offload-{os.getpid()}"
    fault = Fault(tmp_path / "fault")
    g = gate(settings(pki, backend.port, bpf__dir=directory, log__flows=tmp_path / "flows"),
             fault=fault)
    fault.arm("device", bits)
    want = name if engine == "ktls" else "user"
    assert shown(g, pki, tmp_path / "flows", directory, want) == 3 * [2 * [want]]
