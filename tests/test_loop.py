# SPDX-License-Identifier: Apache-2.0
"""A service that leads back to the gate itself: refused, left out, or ended at its first turn."""

import contextlib
import re
import socket
import subprocess
import threading

import pytest

from harness import backend as backends
from harness import client as clients
from harness import netns, peer
from harness.daemon import program, settings, wait_until, write_config
from harness.ports import HOST, free_port
from test_health import services
from test_resolver import hello, hosts, start  # noqa: F401  # pylint: disable=unused-import


# Where a vserver listens, what is local beside loopback, a service's address; is it our own?
OWN = [
    ("127.0.0.1:8443", (), "127.0.0.1:8443", True),
    ("127.0.0.1:8443", (), "127.0.0.1:8444", False),
    ("127.0.0.1:8443", (), "127.0.0.2:8443", False),
    ("127.0.0.1:8443", (), "0.0.0.0:8443", True),
    ("127.0.0.1:8443 [::1]:9443", (), "[::1]:9443", True),
    ("[::1]:8443", (), "127.0.0.1:8443", False),
    ("0.0.0.0:8443", (), "127.0.0.9:8443", True),
    ("0.0.0.0:8443", (), "192.0.2.7:8443", False),
    ("0.0.0.0:8443", ("192.0.2.7",), "192.0.2.7:8443", True),
    ("0.0.0.0:8443", (), "[::1]:8443", False),
    ("[::]:8443", (), "[::1]:8443", True),
    ("[::]:8443", ("2001:db8::/64",), "[2001:db8::5]:8443", True),
    ("[::]:8443", (), "[2001:db8::5]:8443", False),
    ("192.0.2.0/24:8443", ("192.0.2.0/24",), "192.0.2.9:8443", True),
    ("192.0.2.0/24:8443", (), "192.0.2.9:8443", False),  # routed elsewhere
    ("192.0.2.0/24:8443", ("192.0.2.0/24", "198.51.100.1"), "198.51.100.1:8443", False),
    ("127.0.0.1:8000-9000", (), "127.0.0.1:8443", True),
    ("127.0.0.1:8000-9000", (), "127.0.0.1:9001", False),
]


@pytest.mark.parametrize("listen, local, address, own", OWN)
def test_own_addresses_are_refused(pki, tmp_path, listen, local, address, own):
    """By -t, with file, line, key and value; what only looks like it is not."""
    conf = settings(pki, 1, vserver__app__listen=listen, service__app1__address=address)
    file = tmp_path / "ktlsgate.conf"
    write_config(file, conf)
    with netns.private(*local) as inside:
        done = subprocess.run([*inside, program("ktlsgated"), "-t", "-c", file],
                              capture_output=True, text=True, timeout=60, check=False)
    line = list(conf).index("service.app1.address") + 1
    said = (f"{file}:{line}: service.app1.address = {address}: vserver.app listens there, so "
            "connections would come back to this gate; name the address of the backend itself")
    assert (said in done.stderr, bool(done.returncode)) == (own, own), done.stderr


def test_own_addresses_of_a_name(gate, pki, hosts):  # noqa: F811
    """Left out, warned of once and counted; a name that has no other is as good as unresolved."""
    port = free_port()
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, host="127.0.0.2",
                          port=port):
        hosts.write_text("127.0.0.1 backend.test\n")
        g = start(gate, pki, hosts, port, vserver__app__listen=f"{HOST}:{port}")
        assert g.log_contains(rf"service app1: backend\.test is 127\.0\.0\.1:{port}, where vserver "
                              "app of this gate listens: left out$", 5)
        with g.ends_with("backend_unresolved"):
            with clients.connect(g.port, pki=pki, certkey=pki.client()) as c:
                assert not (c.handshake() and c.recv())
        hosts.write_text("127.0.0.1 backend.test\n127.0.0.2 backend.test\n")
        assert wait_until(lambda: services(g)["app1"]["address"] == f"127.0.0.2:{port}", 8)
        assert hello(g, pki) == f"127.0.0.2:{port}"
        assert services(g)["app1"]["own_addresses"] >= 2
        assert len(re.findall("left out$", g.log(), re.MULTILINE)) == 1
        assert g.stats()["flows_accepted"] == 2


@contextlib.contextmanager
def forwarder(to):
    """What no address tells of: a port that leads to another, byte by byte."""
    with socket.create_server((HOST, 0), backlog=100) as listener:
        def copy(a, b):
            with contextlib.suppress(OSError):
                while data := a.recv(65536):
                    b.sendall(data)
            with contextlib.suppress(OSError):
                b.shutdown(socket.SHUT_WR)

        def accept():
            while True:
                try:
                    a = listener.accept()[0]
                    b = socket.create_connection((HOST, to))
                except OSError:
                    return
                for pair in ((a, b), (b, a)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("version", peer.VERSIONS)
@pytest.mark.parametrize("connect", ["early", "verified"])
def test_loop_that_no_address_tells_of(gate, pki, connect, version):
    """It ends when our own ClientHello comes in: one turn, with a reason that names the service."""
    port = free_port()
    with forwarder(port) as hidden:
        g = gate(settings(pki, hidden, port=port, service__app1__connect=connect,
                          profile__front__client_auth="off" if connect == "verified" else "mandatory",
                          profile__back__dynamic_client_cert="disabled",
                          profile__back__tls_max=version))
        with clients.connect(g.port, pki=pki, certkey=pki.client(), version=version) as c:
            assert not (c.handshake() and c.recv())
        assert g.stat_reaches("flows_closed", 2)
        stats = g.stats()
        reason = "loop"
        assert (stats["flows_accepted"], stats[f"reason_{reason}"]) == (2, 1)
        assert g.log_contains(r"a service leads back to it: service app1 \(loop\)$")
