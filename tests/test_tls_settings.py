# SPDX-License-Identifier: Apache-2.0
"""Versions, ciphers and groups of a profile, on either side, and what is not negotiated later."""

import re
import struct

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings
from harness.ports import free_port

pytestmark = pytest.mark.datapath

P521, X25519 = 25, 29
SUITES = {"1.2": {0xc02b, 0xc02c, 0xc02f, 0xc030, 0xcca8, 0xcca9}, "1.3": {0x1301, 0x1302, 0x1303}}


def s_client(gate, pki, *args):
    with gate.carries(1):
        _, printed = clients.s_client(gate.port, b"hello\n", b"hello\n", pki=pki,
                                      certkey=pki.client(), args=args)
    return printed.decode()


@pytest.mark.parametrize("only", peer.VERSIONS)
def test_one_version(gate, pki, backend, only):
    g = gate(settings(pki, backend.port, profile__front__tls_min=only, profile__front__tls_max=only))
    assert f"New, TLSv{only}, Cipher is" in s_client(g, pki)
    other = {"1.2": "1.3", "1.3": "1.2"}[only]
    with g.ends_with("client_version"):
        with clients.connect(g.port, pki=pki, certkey=pki.client(), version=other) as c:
            assert not c.handshake()
            assert c.ended == "alert protocol_version"


def test_ciphers_of_the_front(gate, pki, backend):
    """In our order; a client that has none of them is told."""
    g = gate(settings(pki, backend.port,
                      profile__front__ciphers="ECDHE-ECDSA-CHACHA20-POLY1305 "
                                              "ecdhe-ecdsa-aes128-gcm-sha256",
                      profile__front__ciphersuites="TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384",
                      profile__front__groups="P-521 P-256"))
    printed = s_client(g, pki, "-tls1_2")
    assert "Cipher is ECDHE-ECDSA-CHACHA20-POLY1305" in printed
    assert re.search(r"Server Temp Key: ECDH, \S*, 521 bits", printed)
    assert "Cipher is TLS_AES_128_GCM_SHA256" in s_client(g, pki, "-tls1_3")
    for args in (("-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"),
                 ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"),
                 ("-groups", "X25519:P-384")):
        with g.ends_with("client_cipher"):
            done = clients.run(clients.s_client_argv(g.port, pki=pki, certkey=pki.client(),
                                                     args=args))
            assert b"alert handshake failure" in done.stderr, args


@pytest.mark.parametrize("alpn", ["off", "mirror"])
def test_hello_retry(gate, pki, backend, alpn):
    """The client's key share is for no group of ours: it is asked again, and the signer follows."""
    g = gate(settings(pki, backend.port, profile__front__groups="P-384", profile__front__alpn=alpn))
    backend.ctx.set_alpn_protocols(["one", "two"])
    printed = s_client(g, pki, "-tls1_3", "-groups", "X25519:P-384", "-alpn", "two", "-msg")
    assert printed.count("ClientHello") == 2 and "Server Temp Key: ECDH, secp384r1" in printed
    assert ("ALPN protocol: two" in printed) == (alpn == "mirror")


def hello_lists(hello):
    """Suites and groups of a ClientHello record."""
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    length, = struct.unpack_from(">H", hello, at)
    suites = struct.unpack_from(f">{length // 2}H", hello, at + 2)
    at += 2 + length
    at += 1 + hello[at]
    end = at + 2 + struct.unpack_from(">H", hello, at)[0]
    at += 2
    while at < end:
        kind, length = struct.unpack_from(">HH", hello, at)
        if kind == 10:
            groups = struct.unpack_from(f">{length // 2 - 1}H", hello, at + 6)
        at += 4 + length
    return set(suites) - {0xff}, groups  # less TLS_EMPTY_RENEGOTIATION_INFO_SCSV


@pytest.mark.parametrize("changes,suites,groups", [
    ({}, SUITES["1.2"] | SUITES["1.3"], (29, 23, 30, 25, 24)),
    ({"profile.back.tls_min": "1.3", "profile.back.ciphersuites": "TLS_AES_128_GCM_SHA256",
      "profile.back.groups": "P-521 X25519"}, {0x1301}, (P521, X25519)),
    ({"profile.back.tls_max": "1.2", "profile.back.ciphers": "ECDHE-RSA-AES256-GCM-SHA384"},
     {0xc030}, (29, 23, 30, 25, 24)),
])
def test_what_backends_are_offered(gate, pki, changes, suites, groups):
    hellos = []

    def script(_seen, sock):
        sock.settimeout(peer.TIMEOUT)
        hellos.append(sock.recv(65536))

    with backends.backend(tcp_script=script) as b:
        g = gate({**settings(pki, b.port), **changes})
        with clients.connect(g.port, pki=pki, certkey=pki.client()) as c:
            assert not (c.handshake() and c.recv())
    assert hello_lists(hellos[0]) == (suites, groups)


# ---- not later ----


def test_client_renegotiates(gate, pki, backend):
    """TLS 1.2: s_client asks for it (R), gets no_renegotiation, and leaves."""
    g = gate(settings(pki, backend.port))
    argv = clients.s_client_argv(g.port, pki=pki, certkey=pki.client(), args=("-tls1_2",))
    _, printed = clients.talk(argv, b"R\n", b"no renegotiation")
    assert b"RENEGOTIATING" in printed
    assert g.stat_reaches("renegotiations_refused", 1)


def test_backend_asks_late(gate, pki, tmp_path):
    """
    TLS 1.3 post-handshake authentication: we have not offered it, so a server must not ask. One
    that does gets unexpected_message (RFC 8446 section 4.6.2).
    """
    late = b"\x0d\x00\x00\x12\x01a\x00\x0e\x00\x0d\x00\x0a\x00\x08\x04\x03\x08\x04\x04\x01\x08\x05"

    def script(seen, p):
        p.send_record(peer.HANDSHAKE, late)
        seen.take(p.recv_all())

    with backends.backend(script, certkey=pki.backend(), client_ca=pki.forging_root, version="1.3",
                          key_log=tmp_path) as b:
        g = gate(settings(pki, b.port))
        with g.ends_with("backend_late_request"):
            with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
                c.recv_all()
                assert c.ended == "alert internal_error"
        assert b.connection(0).wait().ended == "alert unexpected_message"


# ---- the fallback certificate ----


@pytest.fixture(scope="module")
def fallback(pki):
    return pki.client("Nobody")


@pytest.mark.parametrize("back", peer.VERSIONS)
@pytest.mark.parametrize("front", peer.VERSIONS)
def test_fallback(gate, pki, fallback, front, back):
    """For a client without a certificate; one with it is forged as ever."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.client_root, version=back) as b:
        peer_ca = b.ctx
        peer_ca.load_verify_locations(pki.forging_root.cert_file)
        g = gate(with_fallback(pki, b.port, fallback))
        for n, (who, sent) in enumerate(((None, fallback.der), (pki.client(), None))):
            with g.carries(1), clients.connected(g.port, pki=pki, certkey=who, version=front) as c:
                c.send(b"hello")
                assert c.recv_exactly(5) == b"hello"
                seen = b.connection(n)
                assert seen.certificate == sent or (who and seen.certificate != fallback.der)
                forged = [f["forged"] for f in g.flows() if f["stage"] == "relay"]
                assert forged == ["yes" if who else "fallback"]
                if not who:
                    assert seen.chain == [fallback.der, pki.client_intermediate.der]
                c.close_notify()
                assert c.recv() == b""
        assert g.stats()["backend_fallback"] == 1
    assert re.search(r"fallback certificate\), engine", g.log())


def with_fallback(pki, port, fallback, **changes):
    return settings(pki, port, profile__front__client_auth="optional",
                    certkey__nobody__cert=fallback.cert_file,
                    certkey__nobody__key=fallback.key_file,
                    profile__back__fallback_certkey="nobody", **changes)


@pytest.mark.parametrize("back", peer.VERSIONS)
def test_fallback_is_refused(gate, pki, fallback, back):
    """By a backend that trusts the forging CA only: it is not the client whom it refused."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, version=back) as b:
        g = gate(with_fallback(pki, b.port, fallback))
        with g.ends_with("backend_refused_fallback"):
            with clients.connect(g.port, pki=pki) as c:
                assert not (c.handshake() and c.recv())


def test_fallback_of_a_kind_not_asked_for(gate, pki, fallback, tmp_path):
    port = free_port()
    with backends.s_server(port, log=tmp_path / "log", certkey=pki.backend("rsa"),
                           client_ca=pki.forging_root,
                           args=("-rev", "-client_sigalgs", "rsa_pss_rsae_sha256:RSA+SHA256")):
        g = gate(with_fallback(pki, port, fallback))
        with g.ends_with("backend_key_type"):
            with clients.connect(g.port, pki=pki) as c:
                assert not (c.handshake() and c.recv())
