# SPDX-License-Identifier: Apache-2.0
"""
Sessions with backends (session_reuse): a backend that resumes goes by the certificate of the first
handshake, so it must be that of the client who is there now, and of nobody else.
"""

import contextlib
import datetime
import re
import ssl
import threading
import time

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.client import ping
from harness.daemon import settings
from harness.ports import free_port
from harness.revocation import Authority
from harness.rig import second_vserver

VERSION = pytest.mark.parametrize("version", peer.VERSIONS)


def reusing(pki, port, **changes):
    return settings(pki, port, profile__back__session_reuse="on", service__app1__connect="verified",
                    **changes)


@contextlib.contextmanager
def backend(pki, **options):
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, **options) as b:
        yield b


def connect(g, b, pki, certkey, *, port=None, reason="done", **options):
    """A flow with a word in it; what the backend saw: (it resumed, the client's subject)."""
    n = len(b.seen)
    with g.ends_with(reason), g.carries(1):
        with clients.connected(port or g.port, pki=pki, certkey=certkey, **options) as c:
            ping(c)
            seen = b.connection(n)
            resumed, cert = seen.peer.tls.session_reused, seen.peer.tls.getpeercert()
            c.close_notify()
            assert c.recv() == b""
    return resumed, cert and dict(x[0] for x in cert["subject"])["commonName"]


@pytest.mark.datapath
@VERSION
def test_resumed(gate, pki, version):
    """Again and again, and each time the backend knows who it is, though it asks no more."""
    who = pki.client("Alice")
    with backend(pki, version=version) as b:
        g = gate(reusing(pki, b.port, profile__back__require_certificate_request="on"))
        seen = [connect(g, b, pki, who) for _ in range(4)]
        assert seen == [(False, "Alice")] + [(True, "Alice")] * 3
        assert len({b.connection(n).certificate for n in range(4)}) == 1
        stats = g.stats()
        assert (stats["forged"], stats["forge_cache_hits"], stats["backend_resumptions"],
                stats["backend_session_misses"], stats["backend_session_refusals"],
                stats["backend_sessions"], stats["backend_sessions_kept"],
                stats["backend_no_request"]) == (1, 0, 3, 1, 0, 4, 1, 0)
        assert len(re.findall(r"forged certificate, resumed\), engine", g.log())) == 3


@pytest.mark.datapath
@VERSION
def test_never_of_another_client(gate, pki, version):
    """Each has its own, whatever the order; and one of the same name is somebody else."""
    alice, bob = pki.client("Alice"), pki.client("Bob")
    twin = pki.client("Alice", "rsa")
    with backend(pki, version=version) as b:
        g = gate(reusing(pki, b.port))
        order = [alice, bob, twin, bob, alice, twin, bob, alice]
        seen = [connect(g, b, pki, who) for who in order]
        assert seen == [(n > 2, "Bob" if who is bob else "Alice") for n, who in enumerate(order)]
        certificates = [b.connection(n).certificate for n in range(len(order))]
        for one, certificate in zip(order, certificates):
            for other, its in zip(order, certificates):
                assert (one is other) == (certificate == its)


@VERSION
def test_never_of_another_place(gate, pki, version):
    """Another vserver, service, server name or protocol: a handshake of its own."""
    who = pki.client()
    with backend(pki, version=version) as b:
        b.ctx.set_alpn_protocols(["h2", "http/1.1"])
        b.ctx.sni_callback = lambda *_: None
        g = gate({**reusing(pki, b.port, service__app1__sni="mirror",
                            profile__front__alpn="h2 http/1.1"),
                  **second_vserver("b", b.port), "service.b.connect": "verified",
                  "service.b.sni": "mirror"})
        other = {"certkey": None, "ctx": peer.context(False, who, pki.server_ca, alpn=["h2"])}
        kinds = [
            {"certkey": who},
            {"certkey": who, "port": g.port_of("b")},
            {"certkey": who, "name": "other.example"},
            other,
        ]
        for kind in kinds:
            assert not connect(g, b, pki, **kind)[0]
        for kind in kinds:
            assert connect(g, b, pki, **kind)[0]


@VERSION
def test_never_of_another_path(gate, pki, version):
    """The client's CA was renewed: the certificate may be good for another time now."""
    before = pki.client("Alice")
    after = pki.below_a_renewed_ca(before)
    with backend(pki, version=version) as b:
        g = gate(reusing(pki, b.port))
        seen = [connect(g, b, pki, who)[0] for who in (before, after, before, after)]
        assert seen == [False, False, True, True]
        assert g.stats()["forged"] == 2


@VERSION
def test_one_use_at_a_time(gate, pki, version):
    """Two connections at once, one session: RFC 8446 C.4. TLS 1.2 is treated alike."""
    who, hold = pki.client(), threading.Event()
    hold.set()
    with backend(pki, version=version, hold=hold) as b:
        g = gate(reusing(pki, b.port))
        connect(g, b, pki, who)
        hold.clear()
        with contextlib.ExitStack() as stack:
            both = [stack.enter_context(clients.connect(g.port, pki=pki, certkey=who, version="1.3"))
                    for _ in range(2)]
            for c in both:
                assert c.handshake()
            b.connection(2)
            hold.set()
            for c in both:
                ping(c)
            assert sorted(b.connection(n).peer.tls.session_reused for n in (1, 2)) == [False, True]
        assert g.stats()["backend_session_misses"] == 2


@VERSION
def test_refused(gate, pki, version):
    """The backend has been started again and knows nothing: it is shown the certificate."""
    alice, bob = pki.client("Alice"), pki.client("Bob")
    port = free_port()
    with backend(pki, version=version, port=port) as b:
        g = gate(reusing(pki, port))
        assert [connect(g, b, pki, who) for who in (alice, bob)] == [(False, "Alice"), (False, "Bob")]
    with backend(pki, version=version, port=port) as b:
        assert [connect(g, b, pki, who) for who in (alice, bob, alice)] == [
            (False, "Alice"), (False, "Bob"), (True, "Alice")]
    stats = g.stats()
    assert (stats["backend_session_refusals"], stats["backend_resumptions"]) == (2, 1)
    assert (stats["forged"], stats["forge_cache_hits"]) == (2, 2)


@VERSION
def test_failed_on(gate, pki, version):
    """A backend that cannot resume what it has handed out is connected anew, without."""
    hellos, who = [], pki.client("Alice")

    def refuse_second(*_):
        hellos.append(1)
        return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR if len(hellos) == 2 else None

    with backend(pki, version=version) as b:
        b.ctx.sni_callback = refuse_second
        g = gate(reusing(pki, b.port))
        with g.ends_with("done", 2):
            for n in (0, 2):
                with clients.connected(g.port, pki=pki, certkey=who) as c:
                    ping(c)
                    seen = b.connection(n)
                    assert seen.certificate and not seen.peer.tls.session_reused
                    c.close_notify()
                    assert c.recv() == b""
        stats = g.stats()
        assert (stats["backend_session_refusals"], stats["backend_reconnects"]) == (1, 1)


@VERSION
def test_lifetime(gate, pki, version):
    """Resuming does not lengthen it."""
    who = pki.client()
    with backend(pki, version=version) as b:
        g = gate(reusing(pki, b.port, profile__back__ticket_lifetime="3s"))
        start = time.monotonic()
        assert [connect(g, b, pki, who)[0] for _ in range(2)] == [False, True]
        time.sleep(max(0, start + 1.5 - time.monotonic()))
        assert connect(g, b, pki, who)[0]
        time.sleep(max(0, start + 3.5 - time.monotonic()))
        assert [connect(g, b, pki, who)[0] for _ in range(2)] == [False, True]


@VERSION
def test_certificate_that_expired(gate, pki, version):
    """Its session with the backend is of no use to a client that is refused."""
    end = datetime.datetime.utcnow() + datetime.timedelta(seconds=4)
    who = pki.client("Alice", not_after=end)
    with backend(pki, version=version) as b:
        g = gate(reusing(pki, b.port))
        assert [connect(g, b, pki, who)[0] for _ in range(2)] == [False, True]
        time.sleep(max(0, (end - datetime.datetime.utcnow()).total_seconds() + 1.2))
        with g.ends_with("client_cert_expired"):
            with clients.connect(g.port, pki=pki, certkey=who) as c:
                assert not (c.handshake() and c.recv())
        assert len(b.seen) == 2


@VERSION
def test_certificate_that_was_revoked(gate, pki, tmp_path, version):
    """Says OCSP, which is asked before the backend: no connection, whatever session there is."""
    alice, ca, state = pki.client("Alice"), pki.client_intermediate, {"status": "good"}

    def answer(_request, _answer):
        made = pki.ocsp_response(alice, issuer=ca, signer=ca, until=3 / 86400, **state)
        return made.read_bytes()

    authority = Authority(tmp_path, ca)
    with backend(pki, version=version) as b, \
            authority.responder(pki.ocsp_signer(ca), how=answer) as responder:
        g = gate(reusing(pki, b.port, profile__front__client_ocsp="mandatory",
                         profile__front__ocsp_responder=f"http://127.0.0.1:{responder.port}/"))
        assert [connect(g, b, pki, alice)[0] for _ in range(2)] == [False, True]
        state["status"] = "revoked"
        time.sleep(3.5)  # for so long an answer is kept
        with g.ends_with("client_cert_revoked"):
            with clients.connect(g.port, pki=pki, certkey=alice) as c:
                assert not (c.handshake() and c.recv())
        assert len(b.seen) == 2 and g.stats()["backend_sessions_kept"] == 1


@VERSION
def test_reload(gate, pki, version):
    """Who verified the backend, and the client, is gone, and the sessions with it."""
    who = pki.client()
    with backend(pki, version=version) as b:
        g = gate(reusing(pki, b.port))
        assert [connect(g, b, pki, who)[0] for _ in range(2)] == [False, True]
        g.reload()
        assert g.stats()["backend_sessions_kept"] == 0
        assert [connect(g, b, pki, who)[0] for _ in range(2)] == [False, True]


@pytest.mark.parametrize("extended", [True, False])
def test_extended_master_secret(gate, pki, tmp_path, extended):
    """TLS 1.2 without it (RFC 7627) is never resumed."""
    port, certkey = free_port(), pki.client()
    priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2" + ("" if extended else ":%NO_SESSION_HASH")
    with backends.gnutls_serv(port, certkey=pki.backend(), client_ca=pki.forging_root,
                              priority=priority, log=tmp_path / "log"):
        g = gate(reusing(pki, port))
        for _ in range(2):
            with clients.connected(g.port, pki=pki, certkey=certkey) as c:
                ping(c, b"line\n")
        stats = g.stats()
        assert stats["backend_sessions"] == (2 if extended else 0)
        assert stats["backend_resumptions"] == int(extended)
        assert stats["backend_session_misses"] == (1 if extended else 2)


@pytest.mark.datapath
@VERSION
@pytest.mark.parametrize("program", ["openssl", "gnutls", "nginx"])
def test_programs(gate, pki, tmp_path, program, version):
    who = pki.client("Alice")
    options = {"certkey": pki.backend(), "client_ca": pki.forging_root}
    with contextlib.ExitStack() as stack:
        if program == "nginx":
            nginx = backends.Nginx(tmp_path / "nginx", tickets="on")
            port = nginx.server(version=version, **options)
            stack.enter_context(nginx.run())
        elif program == "openssl":
            port = free_port()
            stack.enter_context(backends.s_server(
                port, log=tmp_path / "log", args=("-www", "-tls" + version.replace(".", "_")),
                **options))
        else:
            port = free_port()
            stack.enter_context(backends.gnutls_serv(
                port, priority=f"NORMAL:-VERS-ALL:+VERS-TLS{version}", log=tmp_path / "log",
                **options))
        g = gate(reusing(pki, port))
        for n in range(3):
            with g.carries(1):
                if program == "gnutls":
                    with clients.connected(g.port, pki=pki, certkey=who) as c:
                        ping(c, b"line\n")
                    continue
                done = clients.curl(g.port, "/cert", pki=pki, certkey=who, args=("--http0.9",))
            page = done.stdout.decode()
            if program == "nginx":
                page = backends.parse_cert_page(page)
                assert page["reused"] == ("r" if n else ".") and page["verify"] == "SUCCESS"
                assert "CN=Alice" in page["subject"]
            else:
                assert ("Reused, TLSv" if n else "New, TLSv") in page
                assert re.search(r"Subject:.*CN ?= ?Alice", page)
        stats = g.stats()
        assert (stats["backend_resumptions"], stats["backend_session_misses"]) == (2, 1)


@pytest.mark.datapath
def test_no_tickets(gate, pki):
    """Those that never come are not waited for, and the flow does not notice."""
    who = pki.client()
    with backend(pki, version="1.3", tickets=0) as b:
        g = gate(reusing(pki, b.port))
        for _ in range(2):
            assert not connect(g, b, pki, who)[0]
        with g.ends_with("done"), clients.connected(g.port, pki=pki, certkey=who) as c:
            ping(c)
            time.sleep(3.5)
            ping(c)
            c.close_notify()
            assert c.recv() == b""
        stats = g.stats()
        assert (stats["backend_sessions"], stats["backend_session_misses"]) == (0, 3)


@VERSION
def test_without_identity(gate, pki, version):
    """Clients without a certificate share the fallback's sessions, and nothing with the others."""
    fallback = pki.static_client()
    with backends.backend(certkey=pki.backend(), version=version,
                          client_ca=pki.forging_root) as b:
        b.ctx.load_verify_locations(pki.client_root.cert_file)
        g = gate(reusing(pki, b.port, profile__front__client_auth="optional",
                         certkey__known__cert=fallback.cert_file,
                         certkey__known__key=fallback.key_file,
                         profile__back__fallback_certkey="known"))
        alice = pki.client("Alice")
        seen = [connect(g, b, pki, who) for who in (None, alice, None, alice)]
        assert [resumed for resumed, _ in seen] == [False, False, True, True]
        assert seen[0][1] == seen[2][1] != "Alice" and seen[1][1] == seen[3][1] == "Alice"
        assert g.stats()["backend_fallback"] == 1
        assert g.log_contains(r"fallback certificate, resumed\)")


@VERSION
def test_nothing_forged(gate, pki, version):
    """A backend that knows nobody."""
    with backends.backend(certkey=pki.backend(), version=version) as b:
        g = gate(reusing(pki, b.port, profile__back__dynamic_client_cert="disabled",
                         profile__front__client_auth="off", profile__front__client_ca=None))
        assert [connect(g, b, pki, None) for _ in range(2)] == [(False, None), (True, None)]
        assert g.stats()["backend_no_request"] == 2


@VERSION
def test_both_sides(gate, pki, version):
    """A client that resumes as well gets tickets as before, with the token it had."""
    with backend(pki, version=version) as b:
        g = gate(reusing(pki, b.port, profile__front__session_tickets="on"))
        ctx, session = peer.context(False, pki.client("Alice"), pki.server_ca, version="1.3"), None
        for n in range(4):
            with clients.tcp(g.port) as sock:
                c = peer.Peer(sock, ctx, name="app.example")
                if session:
                    c.tls.session = session
                assert c.handshake()
                ping(c)
                session = c.tls.session
                assert session.has_ticket
                assert c.tls.session_reused == b.connection(n).peer.tls.session_reused == (n > 0)
                assert b.connection(n).certificate == b.connection(0).certificate
        stats = g.stats()
        assert (stats["client_tickets"], stats["client_resumptions"], stats["backend_resumptions"],
                stats["forged"]) == (4, 3, 3, 1)


@pytest.mark.datapath
def test_refused_after_the_handshake(gate, pki, tmp_path):
    """A backend that has come to know better: as if it had just been shown the certificate."""
    def script(seen, p):
        if p.tls.session_reused:
            p.alert(49)
        else:
            backends.echo(seen, p)

    with backend(pki, version="1.3", script=script, key_log=tmp_path) as b:
        g = gate(reusing(pki, b.port))
        who = pki.client()
        connect(g, b, pki, who)
        with g.ends_with("backend_refused_certificate"):
            with clients.connected(g.port, pki=pki, certkey=who) as c:
                assert c.recv() == b"" and c.ended.startswith("alert")
        assert g.log_contains("access_denied")


def test_evictions(gate, pki):
    """Room for one: the older one goes."""
    alice, bob = pki.client("Alice"), pki.client("Bob")
    with backend(pki) as b:
        g = gate(reusing(pki, b.port, dataplane__session_cache=1))
        seen = [connect(g, b, pki, who)[0] for who in (alice, bob, bob, alice)]
        assert seen == [False, False, True, False]
        stats = g.stats()
        assert (stats["backend_session_evictions"], stats["backend_sessions_kept"]) == (2, 1)
