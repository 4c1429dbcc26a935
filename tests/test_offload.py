# SPDX-License-Identifier: Apache-2.0
"""
ktlsgate-offload: devices as the kernel describes them, and the sockets of a flow.
"""

import re
import socket
import subprocess

import pytest

from harness import backend as backends
from harness import client as clients
from harness.daemon import program, settings
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
