# SPDX-License-Identifier: Apache-2.0
"""
Every failure of a handshake: counted under its reason, logged once, told to the client by the
right alert, and the backend never sees a completed handshake that it should not.
"""

import contextlib
import os
import re
import socket
import struct
import threading
import time

import pytest

from harness import backend as backends
from harness import client as clients
from harness import daemon, peer
from harness.daemon import settings
from harness.pki import BACK_NAME, FRONT_NAME
from harness.ports import HOST, free_port

VERSION = pytest.mark.parametrize("version", peer.VERSIONS)
# Guests are slow: there, with the ULP attached, each phase that an alert can come in once.
IN_GUESTS = pytest.mark.datapath
NO_CERTIFICATE = {"1.2": "alert handshake_failure", "1.3": "alert certificate_required"}


def refused(port, pki, **options):
    """How the gate ended a handshake that must not succeed."""
    with clients.connect(port, pki=pki, **options) as c:
        assert not (c.handshake() and c.recv())  # TLS 1.3: the verdict comes after our Finished
        return c.ended


def never_authenticated(b, told="alert handshake_failure"):
    """No handshake with the backend was completed, and it was told so."""
    seen = b.connection().wait()
    assert not seen.handshake and seen.certificate is None
    # OpenSSL does not tell of user_canceled in TLS 1.3: it waits for what follows, our FIN.
    assert seen.ended == ("eof" if told == "alert user_canceled" else told)


# ---- the client's certificate ----


@IN_GUESTS
@VERSION
@pytest.mark.parametrize("auth, reason", [("mandatory", "client_cert_required"),
                                          ("optional", "client_cert_absent")])
def test_no_client_certificate(gate, pki, backend, version, auth, reason):
    g = gate(settings(pki, backend.port, profile__front__client_auth=auth))
    with g.ends_with(reason):
        assert refused(g.port, pki, version=version) == NO_CERTIFICATE[version]
    never_authenticated(backend)


@VERSION
@pytest.mark.parametrize("fault, reason, alert", [
    ("wrong_ca", "client_cert_untrusted", "unknown_ca"),
    ("no_intermediate", "client_cert_untrusted", "unknown_ca"),
    ("expired", "client_cert_expired", "certificate_expired"),
    ("not_yet_valid", "client_cert_not_yet_valid", "bad_certificate"),
    ("wrong_purpose", "client_cert_purpose", "unsupported_certificate"),
    ("is_ca", "client_cert_invalid", "certificate_unknown"),
    pytest.param("privileged_san", "forge_rule", "unsupported_certificate", marks=IN_GUESTS),
    ("unknown_critical", "client_cert_invalid", "certificate_unknown"),
])
@pytest.mark.parametrize("auth", ["mandatory", "optional"])
def test_bad_client_certificate(gate, pki, backend, version, fault, reason, alert, auth):
    g = gate(settings(pki, backend.port, profile__front__client_auth=auth))
    with g.ends_with(reason):
        assert refused(g.port, pki, version=version,
                       certkey=pki.client(fault=fault)) == "alert " + alert
    never_authenticated(backend)


@IN_GUESTS
@VERSION
def test_client_without_the_key(gate, pki, backend, version):
    """Its certificate is good, but the signature in CertificateVerify is not of that key."""
    g = gate(settings(pki, backend.port))
    with g.ends_with("client_cert_proof"):
        assert refused(g.port, pki, version=version,
                       certkey=pki.client().with_wrong_key()) == "alert decrypt_error"
    never_authenticated(backend)
    assert g.stats()["forge_cache_misses"] == 0  # the signer was not even asked


@VERSION
def test_signatures_that_are_asked_for(gate, pki, backend, version):
    """
    Only what the signer accepts: OpenSSL's defaults have SHA-224 and DSA, and a client that chose
    one of those would be refused by the signer, after its handshake.
    """
    g = gate(settings(pki, backend.port))
    _, printed = clients.s_client(g.port, b"abc\n", b"abc\n", pki=pki, certkey=pki.client(),
                                  args=(clients.tls_option(version),))
    asked = re.search(r"^Requested Signature Algorithms: (\S+)", printed.decode(), re.MULTILINE)[1]
    hashes = {"SHA256", "SHA384", "SHA512"}
    assert set(asked.split(":")) == (
        {f"{key}+{h}" for key in ("ECDSA", "RSA", "RSA-PSS") for h in hashes}
        | {f"rsa_pss_pss_{h.lower()}" for h in hashes} | {"ed25519", "ed448"})


@VERSION
def test_connect_verified_spares_the_backend(gate, pki, backend, version):
    """service.connect = verified: a client without a good certificate costs no connection."""
    g = gate(settings(pki, backend.port, service__app1__connect="verified"))
    with g.ends_with("client_cert_untrusted"):
        refused(g.port, pki, version=version, certkey=pki.client(fault="wrong_ca"))
    assert not backend.seen
    with clients.connected(g.port, pki=pki, certkey=pki.client(), version=version) as c:
        c.send(b"hello")
        assert c.recv_exactly(5) == b"hello"
    assert len(backend.seen) == 1


# ---- the client's TLS ----


def raw_alert(sock):
    """The plaintext alert the gate sent, as (level, description); then its FIN."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while got := sock.recv(4096):
            data += got
    kind, version, length = struct.unpack(">BHH", data[:5])
    assert (kind, version >> 8, length, len(data)) == (21, 3, 2, 7), data
    return tuple(data[5:])


@pytest.mark.parametrize("data", [
    pytest.param(b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n", marks=IN_GUESTS),
    b"SSH-2.0-OpenSSH_9.2\r\n", b"\0" * 100,
    b"\x80\x2e\x01\x00\x02" + b"x" * 46,
], ids=["http", "ssh", "zeros", "sslv2"])
def test_not_tls(gate, pki, backend, data):
    g = gate(settings(pki, backend.port))
    with g.ends_with("client_not_tls"), clients.tcp(g.port) as s:
        s.sendall(data)
        assert raw_alert(s) == (2, 10)


def test_first_record_is_no_handshake(gate, pki, backend):
    g = gate(settings(pki, backend.port))
    with g.ends_with("client_protocol"), clients.tcp(g.port) as s:
        s.sendall(b"\x17\x03\x03\0\x10" + b"x" * 16)
        assert raw_alert(s) == (2, 10)


def test_garbage_in_a_handshake_record(gate, pki, backend):
    g = gate(settings(pki, backend.port))
    with g.ends_with("client_protocol"), clients.tcp(g.port) as s:
        s.sendall(b"\x16\x03\x01\x02\x00\xff" + os.urandom(511))  # 1: a ClientHello, and a long one
        assert raw_alert(s)[0] == 2
    assert not backend.seen  # no ClientHello, no connection


@pytest.mark.parametrize("part", [0, 3, 40], ids=["nothing", "half a header", "half a record"])
@pytest.mark.parametrize("end, reason", [("silence", "client_timeout"), ("fin", "client_gone"),
                                         ("rst", "client_gone")])
def test_unfinished_client_hello(gate, pki, backend, part, end, reason):
    g = gate(settings(pki, backend.port, timeout__handshake="1s"))
    with g.ends_with(reason), clients.tcp(g.port) as s:
        s.sendall((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100)[:part])
        if end == "silence":
            started = time.monotonic()
            assert raw_alert(s) == (2, 90)
            assert 0.9 < time.monotonic() - started < 3 * peer.SCALE
        elif end == "fin":
            s.shutdown(socket.SHUT_WR)
            while s.recv(100):
                pass
        else:
            peer.linger_zero(s)
    assert not backend.seen


@IN_GUESTS
@VERSION
def test_silence_after_the_client_hello(gate, pki, backend, version):
    """The client stalls with its certificate: timed out, and the backend is let go."""
    g = gate(settings(pki, backend.port, timeout__handshake="1s"))
    with g.ends_with("client_timeout"), clients.connect(
            g.port, pki=pki, certkey=pki.client(), version=version) as c:
        assert not (c.handshake(before_flight=lambda: time.sleep(2)) and c.recv())
        # As in never_authenticated(); the alert may also come under keys that OpenSSL has left.
        assert c.ended == ("alert user_canceled" if version == "1.2" else "eof")
    never_authenticated(backend, "alert user_canceled")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_old_tls_versions_only(gate, pki, backend):
    g = gate(settings(pki, backend.port))
    ctx = peer.context(False, pki.client(), pki.server_ca)
    ctx.set_ciphers("ALL:@SECLEVEL=0")
    ctx.minimum_version = ctx.maximum_version = peer.ssl.TLSVersion.TLSv1_1
    with g.ends_with("client_version"):
        assert refused(g.port, pki, ctx=ctx) == "alert protocol_version"


@pytest.mark.parametrize("ciphers", [
    pytest.param("ECDHE-ECDSA-AES128-SHA256", marks=IN_GUESTS), "AES128-GCM-SHA256",
    "DHE-RSA-AES256-GCM-SHA384"], ids=["CBC", "RSA", "DHE"])
def test_no_common_cipher(gate, pki, backend, ciphers):
    """AEAD with ephemeral elliptic curve keys or nothing."""
    g = gate(settings(pki, backend.port))
    ctx = peer.context(False, pki.client(), pki.server_ca, version="1.2")
    ctx.set_ciphers(ciphers)
    with g.ends_with("client_cipher"):
        assert refused(g.port, pki, ctx=ctx) == "alert handshake_failure"


@IN_GUESTS
@VERSION
def test_client_refuses_the_gates_certificate(gate, pki, backend, version):
    g = gate(settings(pki, backend.port))
    ctx = peer.context(False, pki.client(), pki.other_ca, version=version)
    with g.ends_with("client_refused"), clients.connect(g.port, pki=pki, ctx=ctx) as c:
        assert not c.handshake() and c.ended == "error CERTIFICATE_VERIFY_FAILED"
    never_authenticated(backend, "alert user_canceled")
    assert g.log_contains("unknown_ca")


@VERSION
@pytest.mark.parametrize("end", ["fin", "rst"])
def test_client_leaves_in_the_handshake(gate, pki, backend, version, end):
    """At the moment it should send its certificate."""
    class Left(Exception):
        pass

    def leave():
        getattr(c, end)()
        raise Left

    g = gate(settings(pki, backend.port))
    with g.ends_with("client_gone"), clients.connect(
            g.port, pki=pki, certkey=pki.client(), version=version) as c:
        with pytest.raises(Left):
            c.handshake(before_flight=leave)
    never_authenticated(backend, "alert user_canceled")


def test_200_connections_that_die(gate, pki, backend):
    """Half of them after a ClientHello; no descriptor stays behind, and the gate still serves."""
    g = gate(settings(pki, backend.port, log__rate=0))
    hello = client_hello(pki)
    with clients.connected(g.port, pki=pki, certkey=pki.client()):
        pass  # what is made once is made now
    g.stat_reaches("flows_closed", 1)
    before = g.descriptors()
    with g.ends_with("client_gone", 200):
        socks = [clients.tcp(g.port) for _ in range(200)]
        for s in socks[::2]:
            s.sendall(hello)
        time.sleep(0.2)
        for n, s in enumerate(socks):
            if n % 3 == 0:
                peer.linger_zero(s)
            s.close()
    assert daemon.wait_until(lambda: g.descriptors() <= before, 10 * peer.SCALE), g.descriptors()
    assert g.stats()["flows_active"] == 0
    with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
        c.send(b"hello")
        assert c.recv_exactly(5) == b"hello"


def client_hello(pki):
    """A ClientHello as OpenSSL makes it."""
    out = peer.ssl.MemoryBIO()
    tls = peer.context(False, ca=pki.server_ca).wrap_bio(peer.ssl.MemoryBIO(), out,
                                                         server_hostname=FRONT_NAME)
    with pytest.raises(peer.ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


# ---- the backend ----


def fails(gate, pki, port, reason, alert, version="1.3", **changes):
    """A good client, a backend that fails: reason and alert. The gate, for more questions."""
    g = gate(settings(pki, port, **changes))
    with g.ends_with(reason):
        assert refused(g.port, pki, certkey=pki.client(), version=version) == "alert " + alert
    return g


@VERSION
@pytest.mark.parametrize("fault, reason, told", [
    pytest.param("wrong_ca", "backend_cert_untrusted", "unknown_ca", marks=IN_GUESTS),
    ("wrong_name", "backend_cert_name", "bad_certificate"),
    ("expired", "backend_cert_expired", "certificate_expired"),
    ("wrong_purpose", "backend_cert_invalid", "unsupported_certificate"),
    ("wrong_key", "backend_protocol", "decrypt_error"),
])
def test_bad_backend_certificate(gate, pki, version, fault, reason, told):
    with backends.backend(certkey=pki.bad_backend(fault), client_ca=pki.forging_root,
                          version=version) as b:
        fails(gate, pki, b.port, reason, "internal_error", version)
        seen = b.connection().wait()
        assert not seen.handshake and seen.ended == "alert " + told


@VERSION
def test_backend_refuses_the_connection(gate, pki, version):
    fails(gate, pki, free_port(), "backend_connect_refused", "internal_error", version)


@VERSION
def test_backend_is_unreachable(gate, pki, version):
    """No route: TCP does not connect to a broadcast address, and not a packet leaves."""
    g = fails(gate, pki, 9443, "backend_connect_failed", "internal_error", version,
              service__app1__address="255.255.255.255:9443")
    assert g.log_contains("backend is unreachable: Network is unreachable")


def test_backend_does_not_answer_the_connection(gate, pki):
    started = time.monotonic()
    with backends.unaccepting() as port:
        fails(gate, pki, port, "backend_connect_timeout", "internal_error", timeout__connect="1s")
    assert time.monotonic() - started < 5 * peer.SCALE


@pytest.mark.parametrize("script, reason", [
    (backends.close_at_once, "backend_gone"), (backends.close_in_handshake, "backend_gone"),
    (backends.silent, "backend_timeout"),
])
def test_backend_breaks_off(gate, pki, script, reason):
    with backends.backend(tcp_script=script) as b:
        fails(gate, pki, b.port, reason, "internal_error", timeout__backend_handshake="1s")


def test_backend_does_not_speak_tls(gate, pki):
    def http(_seen, sock):
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        sock.recv(65536)

    with backends.backend(tcp_script=http) as b:
        fails(gate, pki, b.port, "backend_not_tls", "internal_error")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_backend_with_old_tls_versions_only(gate, pki):
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        b.ctx.set_ciphers("ALL:@SECLEVEL=0")
        b.ctx.minimum_version = b.ctx.maximum_version = peer.ssl.TLSVersion.TLSv1_1
        fails(gate, pki, b.port, "backend_version", "internal_error")
        assert b.connection().wait().ended == "error UNSUPPORTED_PROTOCOL"


def server_hello(version):
    """A record with a ServerHello of that version, ECDHE-ECDSA-AES128-GCM-SHA256, no extensions."""
    body = struct.pack(">H32sBHB", version, os.urandom(32), 0, 0xC02B, 0)
    return struct.pack(">BHHB3s", 22, version, len(body) + 4, 2,
                       len(body).to_bytes(3, "big")) + body


@pytest.mark.parametrize("answer, reason, told", [
    (server_hello(0x0301), "backend_version", 70),  # protocol_version
    (server_hello(0x0303)[:-3] + b"\xff\xff\0", "backend_protocol", 47),  # illegal_parameter
    (b"\x16\x03\x03\0\x08" + b"\x08\0\0\4xxxx", "backend_protocol", 10),  # unexpected_message
    (b"\x17\x03\x03\0\x10" + b"x" * 16, "backend_protocol", 10),
], ids=["TLS 1.0", "unknown cipher", "other message", "data"])
def test_backend_answers_nonsense(gate, pki, answer, reason, told):
    alerts = []

    def script(_seen, sock):
        sock.settimeout(peer.TIMEOUT)
        sock.recv(65536)
        sock.sendall(answer)
        alerts.append(raw_alert(sock))

    with backends.backend(tcp_script=script) as b:
        fails(gate, pki, b.port, reason, "internal_error")
        b.connection().wait()
    assert alerts == [(2, told)]


@pytest.mark.parametrize("version, limit", [
    ("1.2", lambda ctx: ctx.set_ciphers("ECDHE-ECDSA-AES128-SHA256")),
    ("1.3", lambda ctx: ctx.set_ecdh_curve("secp256k1")),
], ids=["CBC", "group"])
def test_backend_shares_no_cipher(gate, pki, version, limit):
    """handshake_failure in place of a ServerHello."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, version=version) as b:
        limit(b.ctx)
        g = fails(gate, pki, b.port, "backend_cipher", "internal_error")
        assert b.connection().wait().ended.startswith("error NO_S")
        assert g.log_contains(r"no cipher, .*: handshake_failure \(backend_cipher\)")


@VERSION
def test_backend_refuses_the_handshake(gate, pki, version):
    """An alert that is not about the certificate: its name is in the log."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, version=version) as b:
        b.ctx.sni_callback = lambda *_: peer.ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        g = fails(gate, pki, b.port, "backend_refused", "handshake_failure")
        assert not b.connection().wait().handshake
        assert g.log_contains("refused the handshake with an alert: internal_error")


@IN_GUESTS
@VERSION
def test_backend_asks_for_no_certificate(gate, pki, version):
    """Goes on without one, counted; or fails, by configuration."""
    with backends.backend(certkey=pki.backend(), version=version) as b:
        fails(gate, pki, b.port, "backend_no_certificate_request", "handshake_failure", version,
              profile__back__require_certificate_request="on")
        g = gate(settings(pki, b.port))
        with clients.connected(g.port, pki=pki, certkey=pki.client(), version=version) as c:
            c.send(b"hello")
            assert c.recv_exactly(5) == b"hello"
        stats = g.stats()
        assert stats["backend_no_request"] == 1 and stats["forged"] == 0
        assert stats["backend_no_certificate"] == 0


@VERSION
def test_backend_asks_in_vain(gate, pki, backend, version):
    """Nothing is forged for it: the gate goes on without a certificate, counted."""
    backend.ctx.verify_mode = peer.ssl.CERT_OPTIONAL
    g = gate(settings(pki, backend.port, profile__back__dynamic_client_cert="off"))
    with clients.connected(g.port, pki=pki, certkey=pki.client(), version=version) as c:
        c.send(b"hello")
        assert c.recv_exactly(5) == b"hello"
    seen = backend.connection().wait()
    assert seen.handshake and seen.certificate is None
    stats = g.stats()
    assert (stats["backend_no_certificate"], stats["backend_no_request"]) == (1, 0)


@VERSION
def test_backend_insists_on_a_certificate(gate, pki, version):
    """As above, but it takes no for an answer as an end; in TLS 1.3 when the handshake is over."""
    alert = NO_CERTIFICATE[version].split()[1]
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, version=version) as b:
        g = fails(gate, pki, b.port, "backend_wants_certificate", alert,
                  profile__back__dynamic_client_cert="off")
        assert g.stats()["backend_no_certificate"] == 1


@IN_GUESTS
@pytest.mark.parametrize("front", peer.VERSIONS)
@pytest.mark.parametrize("back", peer.VERSIONS)
def test_backend_refuses_the_forged_certificate(gate, pki, front, back):
    """In TLS 1.3 its alert comes when the keys may be in the kernel already."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.other_ca, version=back) as b:
        g = fails(gate, pki, b.port, "backend_refused_certificate", "unknown_ca", front)
        assert not b.connection().wait().handshake
        assert g.log_contains(r"service app1.* refused the forged certificate: unknown_ca")


@VERSION
def test_backend_accepts_only_rsa_keys(gate, pki, tmp_path, version):
    """No key that fits is no empty Certificate: the flow fails (with RSA: test_forging.py)."""
    port = free_port()
    args = ("-rev", "-client_sigalgs", "rsa_pss_rsae_sha256", "-tls" + version.replace(".", "_"))
    with backends.s_server(port, certkey=pki.backend("rsa"), client_ca=pki.forging_root,
                           log=tmp_path / "log", args=args):
        fails(gate, pki, port, "backend_key_type", "handshake_failure",
              profile__back__forge__key="p-256")


@VERSION
def test_server_name_is_sent_as_sni(gate, pki, backend, version):
    names = []
    backend.ctx.sni_callback = lambda _tls, name, _ctx: names.append(name)
    g = gate(settings(pki, backend.port))
    with clients.connected(g.port, pki=pki, certkey=pki.client(), version=version) as c:
        c.send(b"hello")
        assert c.recv_exactly(5) == b"hello"
    assert names == [BACK_NAME]


def test_failures_do_not_disturb_good_flows(gate, pki, backend):
    """Bad clients in parallel with a good one."""
    g = gate(settings(pki, backend.port))
    bad = pki.client(fault="expired")
    with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
        with g.ends_with("client_cert_expired", 20):
            threads = [threading.Thread(target=refused, args=(g.port, pki),
                                        kwargs={"certkey": bad}) for _ in range(20)]
            for t in threads:
                t.start()
            for n in range(50):
                c.send(b"%04d" % n)
                assert c.recv_exactly(4) == b"%04d" % n
            for t in threads:
                t.join()


def test_listening_port_in_use(pki, backend, engine, tmp_path):
    """The gate does not start, and says which listener it is."""
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        g = daemon.Ktlsgated(tmp_path / "gate", pki, engine,
                             settings(pki, backend.port, port=port))
        with pytest.raises(AssertionError):
            g.start()
        assert g.process.wait(10) != 0
        assert "vserver.app.listen" in g.log() and "ddress already in use" in g.log()
        g.process = None
