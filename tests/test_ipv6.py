# SPDX-License-Identifier: Apache-2.0
"""
IPv6 where addresses matter: sources, backends and what is shown of them, in a namespace of its own.
Prefixes to listen on and the shield have theirs in test_lookup.py and test_shield.py.
"""

import contextlib
import json
import socket
import struct
import subprocess

import pytest

from harness import peer
from harness.daemon import settings, wait_until
from harness.pki import FRONT_NAME
# pylint: disable=unused-import  # fixtures
from harness.steering import connected_from, connect, gate, inside
from test_health import services

PORT, TO, BACKEND = 8443, "2001:db8:a::1", "2001:db8:b::1"


@pytest.fixture(scope="module")
def backend_port(inside, pki):
    """Of openssl s_server in there: it answers each line backwards, one client at a time."""
    ck, port = pki.backend(), 9444
    with subprocess.Popen(
            [*inside, "openssl", "s_server", "-6", "-accept", str(port), "-cert", ck.cert_file,
             "-key", ck.key_file, "-Verify", "3", "-CAfile", pki.forging_root.cert_file, "-rev",
             "-quiet"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL) as process:
        assert wait_until(lambda: connect(inside, BACKEND, port) == ["connected"], 20)
        yield port
        process.terminate()


def conf(pki, port, **changes):
    return settings(pki, 1, vserver__app__listen=f"[::]:{PORT}",
                    service__app1__address=f"[{BACKEND}]:{port}",
                    **{"bpf__dir": "off", **changes})


@contextlib.contextmanager
def flow_from(inside, pki, source, first=b""):
    """A Peer of a client at source, behind what it says first, when a line has come back."""
    with connected_from(inside, source, TO, PORT) as sock:
        sock.sendall(first)
        p = peer.Peer(sock, peer.context(False, pki.client(), pki.server_ca), name=FRONT_NAME)
        assert p.handshake(), p.ended
        p.send(b"hello\n")
        assert p.recv_exactly(6) == b"olleh\n"
        yield p


def ended(sock):
    try:
        return sock.recv(1) == b"" and "closed"
    except ConnectionResetError:
        return "reset"


def test_client_out_of_reach(gate, inside, pki, backend_port):
    """
    The gate's bytes come no further, and TCP gives up for a reason of the network's own: still it is
    the client that is gone, and no call of the gate's that failed.
    """
    source = "2001:db8:66::1"
    g = gate(conf(pki, backend_port))
    subprocess.run([*inside, "sysctl", "-qw", "net.ipv4.tcp_retries2=2"], check=True)
    with g.ends_with("client_reset"), flow_from(inside, pki, source) as p:
        subprocess.run([*inside, "ip", "-6", "route", "add", "prohibit", source, "table", "local"],
                       check=True)
        p.send(b"are you still there?\n")
        assert g.stat_reaches("flows_closed", 1, 20 * peer.SCALE)


def test_shown(gate, inside, pki, backend_port, tmp_path):
    """In `flows` and its filters, in the log and the flow log: with brackets, both sides."""
    path = tmp_path / "flows"
    g = gate(conf(pki, backend_port, log__flows=path))
    with flow_from(inside, pki, "2001:db8:7::1") as p:
        client = f"[2001:db8:7::1]:{p.sock.getsockname()[1]}"
        backend = f"[{BACKEND}]:{backend_port}"
        [flow] = g.flows()
        assert (flow["client"], flow["backend"]) == (client, backend)
        [same] = json.loads(g.ctl("flows", "--json", "client=*2001:db8:7:*"))
        assert same["id"] == flow["id"]
        assert json.loads(g.ctl("flows", "--json", "client=*2001:db8:8:*")) == []
        assert g.log_contains(rf"app {client.replace('[', '.').replace(']', '.')} \(TLSv1.3.* -> "
                              rf"service app1 .{BACKEND}.:{backend_port} ")
        p.close_notify()
        p.recv()
    assert wait_until(lambda: path.read_text().endswith("\n"), 10)
    line = json.loads(path.read_text())
    assert (line["client"], line["backend"], line["reason"]) == (client, backend, "done")


@pytest.mark.parametrize("length, same, other", [
    (None, "2001:db8:7:1:ffff::2", "2001:db8:7:2::1"),  # 64 by default
    (48, "2001:db8:7:2::1", "2001:db8:8:1::1"),
])
def test_sources_are_prefixes(gate, inside, pki, length, same, other):
    """One connection each, whatever the rest of the address."""
    more = {"limit__source_prefix6": length} if length else {}
    g = gate(conf(pki, 1, limit__flows_per_source=1, **more))
    with connected_from(inside, "2001:db8:7:1::1", TO, PORT):
        assert g.stat_reaches("flows_active", 1)
        with connected_from(inside, same, TO, PORT) as sock:
            assert ended(sock) == "reset"
        with connected_from(inside, other, TO, PORT):
            assert wait_until(lambda: g.stats()["flows_active"] == 2, 10)
        assert g.stats()["reason_limit_source"] == 1
    assert g.log_contains(rf"client \[{same}\]:\d+: refused: .*\(limit_source\)$")


def proxy_header(source):
    """Version 2, PROXY, TCP over IPv6."""
    addresses = (socket.inet_pton(socket.AF_INET6, source)
                 + socket.inet_pton(socket.AF_INET6, "2001:db8::9") + struct.pack(">HH", 1234, 443))
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x21" + struct.pack(">H", len(addresses)) + addresses


def test_proxies_by_prefix(gate, inside, pki, backend_port):
    """One of proxy_from is believed; another one's header is no ClientHello."""
    g = gate(conf(pki, backend_port, vserver__app__accept_proxy="on",
                  vserver__app__proxy_from="2001:db8:cc::/48"))
    with g.ends_with("client_not_tls"):
        with connected_from(inside, "2001:db8:cd::1", TO, PORT) as sock:
            sock.sendall(proxy_header("2001:db8:99::1"))
            while sock.recv(100):
                pass
    with flow_from(inside, pki, "2001:db8:cc:1::1", proxy_header("2001:db8:99::1")):
        assert [f["client"] for f in g.flows()] == ["[2001:db8:99::1]:1234"]


def two_services(port):
    return {"service.app1.address": f"[{BACKEND}]:{port}",
            "service.app2.address": f"[2001:db8:b::2]:{port}",
            "service.app2.server_name": "backend.example", "service.app2.profile": "back",
            "vserver.app.service": "app1 app2"}


def test_balanced_by_source(gate, inside, pki, backend_port):
    """By its /64, so that a host that changes the rest of its address stays where it was."""
    g = gate({**conf(pki, backend_port), **two_services(backend_port),
              "vserver.app.balance": "source-hash"})

    def service_of(source):
        with flow_from(inside, pki, source) as p:
            [flow] = [f for f in g.flows() if f["stage"] == "relay"]
            p.close_notify()
            p.recv()
            return flow["service"]

    chosen = [service_of(f"2001:db8:7:{n}::1") for n in range(12)]
    assert set(chosen) == {"app1", "app2"}
    assert chosen == [service_of(f"2001:db8:7:{n}:abcd::{n}") for n in range(12)]


@pytest.mark.parametrize("check", ["connect", "tls"])
def test_checked(gate, inside, pki, backend_port, check):
    """A check reaches the one that listens, and not the one that does not."""
    there = {f"service.{s}.{k}": v for s in ("app1", "app2")
             for k, v in (("check", check), ("check_interval", "1s"))}
    g = gate({**conf(pki, backend_port), **two_services(backend_port), **there,
              "service.app2.address": f"[{BACKEND}]:9"})
    assert wait_until(lambda: [s["state"] for s in services(g).values()] == ["up", "down"], 10)
    assert services(g)["app2"]["address"] == f"[{BACKEND}]:9"
    with flow_from(inside, pki, "2001:db8:7::1"):
        assert [f["service"] for f in g.flows()] == ["app1"]
