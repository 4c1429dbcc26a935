# SPDX-License-Identifier: Apache-2.0
"""
Resumption is off on both sides, unless session_tickets (test_tickets.py) or session_reuse
(test_reuse.py) is set: each client proves who it is, each backend sees a certificate.
"""

import struct

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings

VERSION = pytest.mark.parametrize("version", peer.VERSIONS)
SESSION_TICKET, PRE_SHARED_KEY, EARLY_DATA, PSK_MODES = 35, 41, 42, 45


def exchange(c):
    c.send(b"hello")
    assert c.recv_exactly(5) == b"hello"


@VERSION
def test_no_session_for_clients(gate, pki, version):
    """No ticket; what a client keeps all the same is worth nothing."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        g = gate(settings(pki, b.port))
        ctx = peer.context(False, pki.client(), pki.server_ca, version=version)
        with clients.connected(g.port, pki=pki, ctx=ctx) as c:
            exchange(c)
            session = c.tls.session
            assert not session.has_ticket
            # In TLS 1.3 OpenSSL makes an id up for each ticket, and without one has none either.
            # In TLS 1.2 the id is where a fresh value stands, and names no session: clients that
            # offer it are in test_fresh.py.
            assert len(session.id) == (32 if version == "1.2" else 0)
        # And with a client that asks for its session again.
        _, printed = clients.s_client(
            g.port, b"abc\n", b"abc\n", pki=pki, certkey=pki.client(),
            args=("-tls" + version.replace(".", "_"), "-msg"))
        assert b"NewSessionTicket" not in printed and b"Reused" not in printed
        assert b"<<< TLS" in printed


@VERSION
def test_backend_sessions_are_not_kept(gate, pki, version):
    """A backend that hands out tickets and session ids gets a full handshake each time."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, version=version) as b:
        g = gate(settings(pki, b.port))
        certkey = pki.client()
        for n in range(3):
            with clients.connected(g.port, pki=pki, certkey=certkey) as c:
                exchange(c)
                seen = b.connection(n)
                assert seen.certificate and not seen.peer.tls.session_reused
                c.close_notify()
                assert c.recv() == b""
        assert g.stats()["forge_cache_hits"] == 2  # nor is that resumption
        assert b.ctx.session_stats()["hits"] == 0
        if version == "1.3":
            assert g.stats()["tickets_dropped"] == 6


def extensions(hello):
    """Types of the extensions of a ClientHello record."""
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + struct.unpack_from(">H", hello, at)[0]
    at += 1 + hello[at]
    end = at + 2 + struct.unpack_from(">H", hello, at)[0]
    at, types = at + 2, []
    while at < end:
        kind, length = struct.unpack_from(">HH", hello, at)
        types.append(kind)
        at += 4 + length
    assert at == end == len(hello)
    return types


def test_backends_are_offered_no_session(gate, pki):
    """The ClientHello holds neither a ticket nor the offer to take one (RFC 5077)."""
    hellos = []

    def script(_seen, sock):
        sock.settimeout(peer.TIMEOUT)
        hellos.append(sock.recv(65536))

    with backends.backend(tcp_script=script) as b:
        g = gate(settings(pki, b.port))
        for _ in range(2):
            with clients.connect(g.port, pki=pki, certkey=pki.client()) as c:
                assert not (c.handshake() and c.recv())
    assert len(hellos) == 2
    for hello in hellos:
        assert not {SESSION_TICKET, PRE_SHARED_KEY, EARLY_DATA} & set(extensions(hello))
