# SPDX-License-Identifier: Apache-2.0
"""Backends by name: resolved by a process of its own, again and again; several addresses."""

import os
import pathlib
import re
import signal

import pytest

from harness import backend as backends
from harness import client as clients
from harness import dns
from harness.daemon import settings, wait_until
from test_health import services

NAME_SERVER = "127.0.0.77"


@pytest.fixture
def hosts(tmp_path):
    """hosts.write_text(...): what /etc/hosts says to a gate run inside; no DNS, unless changed."""
    file = tmp_path / "hosts"
    file.write_text("")
    file.with_name("nsswitch.conf").write_text("hosts: files\npasswd: files\n")
    file.with_name("resolv.conf").write_text(f"nameserver {NAME_SERVER}\n")
    return file


def inside(hosts):
    script = "".join(f"mount --bind {hosts.with_name(name)} /etc/{name} && "
                     for name in ("hosts", "nsswitch.conf", "resolv.conf")) + 'exec "$@"'
    return ["unshare", "-m", "sh", "-c", script, "sh"]


def start(gate, pki, hosts, port, **changes):
    return gate(settings(pki, 1, service__app1__address=f"backend.test:{port}",
                         service__app1__resolve_interval="1s", **changes), inside=inside(hosts))


def hello(g, pki):
    with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
        c.send(b"hello")
        assert c.recv_exactly(5) == b"hello"
        [flow] = [f for f in g.flows() if f["stage"] == "relay"]
        return flow["backend"]


def resolved_to(g, address):
    return wait_until(lambda: services(g)["app1"]["address"] == address, 8)


@pytest.fixture
def backend(pki):
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, host="127.0.0.1") as b:
        yield b


def test_name(gate, pki, hosts, backend):
    """Unresolved at first; then found; a failure keeps what was found; then another address."""
    g = start(gate, pki, hosts, backend.port)
    assert services(g)["app1"]["address"] == "unresolved"
    with g.ends_with("backend_unresolved"):
        with clients.connect(g.port, pki=pki, certkey=pki.client()) as c:
            assert not (c.handshake() and c.recv())
            assert c.ended == "alert internal_error"
    hosts.write_text("127.0.0.1 backend.test\n")
    assert resolved_to(g, f"127.0.0.1:{backend.port}")
    assert hello(g, pki) == f"127.0.0.1:{backend.port}"
    hosts.write_text("# nothing\n")
    assert g.log_contains("is not resolved: .*; it keeps its last addresses", 8)
    assert hello(g, pki) == f"127.0.0.1:{backend.port}"
    assert services(g)["app1"]["resolve_failures"] > 1
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, host="127.0.0.2",
                          port=backend.port):
        hosts.write_text("127.0.0.2 backend.test\n")
        assert resolved_to(g, f"127.0.0.2:{backend.port}")
        assert hello(g, pki) == f"127.0.0.2:{backend.port}"
    lines = re.findall(r"\[resolver\] \w+: service app1: backend.test is (.*)", g.log())
    assert lines[1:] and lines[0].startswith("not resolved") and lines.count(
        f"127.0.0.2:{backend.port}") == 1
    assert len([x for x in lines if "keeps" in x]) == 1


def test_dns(gate, pki, hosts, backend):
    """
    By a library that is loaded for it (hesiod, which knows nothing), files, and a name server, over
    UDP and, since that cuts its answers short, TCP. What the filter of system calls leaves does.
    """
    hosts.with_name("nsswitch.conf").write_text("hosts: hesiod files dns\npasswd: files\n")
    with dns.server(NAME_SERVER, {"backend.test": ["127.0.0.1", "::1"]}) as asked:
        g = start(gate, pki, hosts, backend.port)
        assert g.log_contains("backend.test is .* and others", 8)
        assert {"udp", "tcp"} <= set(asked)
        assert hello(g, pki) == f"127.0.0.1:{backend.port}"
        resolver = pathlib.Path(f"/proc/{g.processes()[2]}")
        assert "libnss_hesiod" in (resolver / "maps").read_text()
        assert g.sanitized() or "Seccomp:\t2\n" in (resolver / "status").read_text()
    assert "died" not in g.log()


def test_sessions_stay_at_their_address(gate, pki, hosts):
    """session_reuse: at another one may be another backend, though this is the same."""
    hosts.write_text("127.0.0.1 backend.test\n")
    who = pki.client()
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, host="0.0.0.0") as b:
        g = start(gate, pki, hosts, b.port, profile__back__session_reuse="on",
                  service__app1__connect="verified")
        for n, address in enumerate(["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2"]):
            hosts.write_text(f"{address} backend.test\n")
            assert resolved_to(g, f"{address}:{b.port}")
            with g.ends_with("done"), clients.connected(g.port, pki=pki, certkey=who) as c:
                clients.ping(c)
                assert b.connection(n).peer.tls.session_reused == (n % 2 == 1)
                c.close_notify()
                assert c.recv() == b""


def test_addresses_are_tried_in_turn(gate, pki, hosts, backend):
    """Of IPv6 and IPv4, only the last one answers; the client notices nothing."""
    hosts.write_text("::1 backend.test\n127.0.0.9 backend.test\n127.0.0.1 backend.test\n")
    g = start(gate, pki, hosts, backend.port)
    assert g.log_contains("backend.test is .* and others", 5)
    assert hello(g, pki) == f"127.0.0.1:{backend.port}"
    assert sum(v for n, v in g.stats().items() if n.startswith("retries_")) == 0


def test_ipv6_only(gate, pki, hosts):
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, host="::1") as b:
        hosts.write_text("::1 backend.test\n")
        g = start(gate, pki, hosts, b.port)
        assert resolved_to(g, f"[::1]:{b.port}")
        assert hello(g, pki) == f"[::1]:{b.port}"


def test_a_dead_resolver_is_started_again(gate, pki, hosts, backend):
    hosts.write_text("127.0.0.1 backend.test\n")
    g = start(gate, pki, hosts, backend.port)
    assert resolved_to(g, f"127.0.0.1:{backend.port}")
    pid = g.processes()[2]  # they are started in this order: signer, resolver, data process
    os.kill(pid, signal.SIGKILL)
    assert g.log_contains("resolver .* died: .*; starting it again", 5)
    assert hello(g, pki) == f"127.0.0.1:{backend.port}"
    assert wait_until(lambda: len(g.processes()) == 4, 5)


def test_no_resolver_without_names(gate, pki, backend):
    g = gate(settings(pki, backend.port))
    assert len(g.processes()) == 3
