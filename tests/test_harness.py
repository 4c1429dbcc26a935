# SPDX-License-Identifier: Apache-2.0
"""The harness against itself, no gate between: what its peers claim to see, they see."""

import os
import threading

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.pki import BACK_NAME


@pytest.fixture(params=["1.2", "1.3"])
def version(request):
    return request.param


def direct(pki, port, **options):
    options.setdefault("certkey", pki.client())
    return clients.connected(port, pki=pki, name=BACK_NAME, **options)


def server(pki, script=backends.echo, **options):
    return backends.backend(script, certkey=pki.backend(), client_ca=pki.client_root, **options)


def test_echo_and_close_notify(pki, version):
    certkey = pki.client()
    with server(pki) as b, direct(pki, b.port, certkey=certkey, version=version) as c:
        c.send(b"hello" * 10000)
        assert c.recv_exactly(50000) == b"hello" * 10000
        c.close_notify()
        assert c.recv() == b"" and c.ended == "close_notify"
        c.fin()
        seen = b.connection().wait()
    assert seen.certificate == certkey.der and seen.version == f"TLSv{version}"
    assert seen.chain == [certkey.der, pki.client_intermediate.der]
    assert (seen.ended, seen.received) == ("close_notify", 50000)


def test_half_close(pki):
    """TLS 1.3: data still flows against a close_notify."""
    def late(seen, p):
        backends_data = p.recv_all()
        p.send(backends_data * 2)
        p.close_notify()
    with server(pki, late) as b, direct(pki, b.port, version="1.3") as c:
        c.send(b"question")
        c.close_notify()
        assert c.recv_all() == b"questionquestion" and c.ended == "close_notify"


def test_eof_and_reset_are_told_apart(pki, version):
    for end, expected in ((lambda c: c.fin(), "eof"), (lambda c: c.rst(), "rst")):
        with server(pki) as b, direct(pki, b.port, version=version) as c:
            c.send(b"x")
            assert c.recv_exactly(1) == b"x"
            end(c)
            assert b.connection().wait().ended == expected


def test_alert_in_the_handshake_is_seen(pki, version):
    with server(pki) as b, clients.connect(b.port, pki=pki, certkey=pki.client(fault="wrong_ca"),
                                           name=BACK_NAME, version=version) as c:
        assert not (c.handshake() and c.recv())
        assert c.ended == "alert unknown_ca"


@pytest.mark.parametrize("version, cipher", [("1.3", None), *(("1.2", c) for c in peer.CIPHERS)])
def test_records_of_our_own(pki, version, cipher, tmp_path):
    """Data, then a fatal alert, sealed by the test; from either side."""

    def script(seen, p):
        seen.take(p.recv_exactly(8))
        p.send_record(peer.DATA, b"from our own sealing")
        p.send(b" twice")
        seen.take(p.recv())

    ctx = peer.log_keys(peer.context(False, pki.client(), pki.server_ca, version=version,
                                     cipher=cipher), tmp_path)
    with server(pki, script, key_log=tmp_path) as b, direct(pki, b.port, ctx=ctx) as c:
        c.send(b"openssl!")
        assert c.recv_exactly(26) == b"from our own sealing twice"
        if version == "1.3":
            c.key_update()
        c.alert(80)
        seen = b.connection().wait()
    assert (seen.received, seen.ended) == (8, "alert internal_error")


def test_duplex(pki, version):
    size = 16 << 20
    data = os.urandom(1 << 20)

    def script(seen, p):
        p.duplex([data] * (size >> 20), seen.take)
    got = backends.Seen()
    with server(pki, script) as b, direct(pki, b.port, version=version) as c:
        c.duplex([data] * (size >> 20), got.take)
        seen = b.connection().wait()
    assert got.received == seen.received == size
    assert got.digest.digest() == seen.digest.digest()
    assert got.ended is None and c.ended == seen.ended == "close_notify"


def test_stall_between_flights(pki, version):
    stalled = threading.Event()
    with server(pki, handshake_timeout=0.5) as b, clients.connect(
            b.port, pki=pki, certkey=pki.client(), name=BACK_NAME, version=version) as c:
        assert not (c.handshake(before_flight=lambda: (stalled.set(), b.connection().wait()))
                    and c.recv())
        assert stalled.is_set() and b.connection().ended == "timeout"
        assert c.ended in ("eof", "rst")


def test_unaccepting_port():
    with backends.unaccepting() as port, pytest.raises(TimeoutError):
        clients.tcp(port, timeout=0.3)


def test_programs(pki, tmp_path):
    """nginx, openssl and gnutls serve and take a client certificate from every client."""
    certkey = pki.client()
    nginx = backends.Nginx(tmp_path / "nginx")
    port = nginx.server(certkey=pki.backend(), client_ca=pki.client_root, version="1.3",
                        cipher="CHACHA20")
    with nginx.run():
        r = clients.curl(port, "/cert", pki=pki, certkey=certkey, name=BACK_NAME)
        page = backends.parse_cert_page(r.stdout.decode())
        assert page["verify"] == "SUCCESS" and page["cipher"] == "TLS_CHACHA20_POLY1305_SHA256"
    port = backends.free_port()
    with backends.s_server(port, certkey=pki.backend(), client_ca=pki.client_root,
                           log=tmp_path / "s_server.log"):
        clients.s_client(port, b"abc\n", b"cba\n", pki=pki, certkey=certkey, name=BACK_NAME)
    port = backends.free_port()
    with backends.gnutls_serv(port, certkey=pki.backend(), client_ca=pki.client_root,
                              log=tmp_path / "gnutls.log"):
        status, _ = clients.gnutls_cli(port, b"abc\n", b"abc\n", pki=pki, certkey=certkey,
                                       name=BACK_NAME)
        assert status == 0
