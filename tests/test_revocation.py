# SPDX-License-Identifier: Apache-2.0
"""Revoked certificates are refused, of clients and of backends, with the lists of a real CA."""

import concurrent.futures
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import BUILD, settings, wait_until
from harness.ports import free_port
from harness.revocation import Authority

VERSION = pytest.mark.parametrize("version", peer.VERSIONS)
MODE = pytest.mark.parametrize("mode", ["optional", "mandatory"])


@pytest.fixture
def authority(pki, tmp_path):
    return Authority(tmp_path, pki.client_intermediate)


@pytest.fixture
def root(pki, tmp_path):
    return Authority(tmp_path, pki.client_root)


@pytest.fixture
def server_authority(pki, tmp_path):
    return Authority(tmp_path, pki.server_ca)


def front(pki, port, mode, *crls, **more):
    return settings(pki, port, profile__front__client_crl=" ".join(map(str, crls)),
                    profile__front__client_crl_check=mode, **more)


def ping(g, pki, **options):
    with clients.connected(g.port, pki=pki, **options) as c:
        clients.ping(c)


def passes(g, pki, **options):
    with g.ends_with("client_truncated"):  # it does not close_notify
        ping(g, pki, **options)


def refused(g, pki, reason, alert, **options):
    with g.ends_with(reason):
        with clients.connect(g.port, pki=pki, **options) as c:
            assert not (c.handshake() and c.recv())
            assert c.ended == "alert " + alert


@pytest.mark.parametrize("der", [False, True], ids=["PEM", "DER"])
@MODE
@VERSION
def test_client_revoked(gate, pki, backend, authority, root, version, mode, der):
    alice, bob = pki.client("Alice"), pki.client("Bob")
    authority.revoke(alice)
    g = gate(front(pki, backend.port, mode, authority.crl(der=der), root.crl(der=der)))
    refused(g, pki, "client_cert_revoked", "certificate_revoked", certkey=alice, version=version)
    passes(g, pki, certkey=bob, version=version)


@MODE
def test_client_ca_revoked(gate, pki, backend, authority, root, mode):
    root.revoke(pki.client_intermediate)
    g = gate(front(pki, backend.port, mode, authority.crl(), root.crl()))
    refused(g, pki, "client_cert_revoked", "certificate_revoked", certkey=pki.client())
    assert g.stats()["forged"] == 0


@MODE
@pytest.mark.parametrize("reason", ["client_crl_missing", "client_crl_expired"])
def test_client_crl_tells_nothing(gate, pki, backend, authority, root, mode, reason):
    """Optional: what is not known does not hurt; what an old list says does."""
    alice = pki.client("Alice")
    lists = [root.crl()] if reason == "client_crl_missing" else [
        root.crl(), authority.crl(begin=-7200, end=-3600)]
    g = gate(front(pki, backend.port, mode, *lists))
    if mode == "optional":
        passes(g, pki, certkey=alice)
    else:
        refused(g, pki, reason, "certificate_unknown", certkey=alice)


@VERSION
def test_backend_revoked(gate, pki, server_authority, version):
    server_authority.revoke(pki.backend())
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root,
                          version=version) as b:
        g = gate(settings(pki, b.port, profile__back__server_crl=server_authority.crl(),
                          profile__back__server_crl_check="optional"))
        refused(g, pki, "backend_cert_revoked", "internal_error", certkey=pki.client())
        assert b.connection().wait().ended == "alert certificate_revoked"


@pytest.mark.parametrize("reason", ["backend_crl_missing", "backend_crl_expired"])
def test_backend_crl_tells_nothing(gate, pki, backend, server_authority, root, reason):
    crl = root.crl() if reason == "backend_crl_missing" else server_authority.crl(-7200, -3600)
    g = gate(settings(pki, backend.port, profile__back__server_crl=crl,
                      profile__back__server_crl_check="mandatory"))
    refused(g, pki, reason, "internal_error", certkey=pki.client())


def test_backend_good(gate, pki, backend, server_authority):
    g = gate(settings(pki, backend.port, profile__back__server_crl=server_authority.crl(),
                      profile__back__server_crl_check="mandatory"))
    passes(g, pki, certkey=pki.client())


# ---- what a configuration may say ----


def check(tmp_path, conf):
    path = tmp_path / "conf"
    path.write_text("".join(f"{key} = {value}\n" for key, value in conf.items()))
    run = subprocess.run([BUILD / "ktlsgated", "-t", "-c", path], capture_output=True, text=True,
                         timeout=60, check=False)
    return run.returncode, run.stderr


@pytest.mark.parametrize("content, why", [
    (None, "cannot be opened: No such file or directory"),
    ("text\n", "CRL 1 of the file is malformed"),
    ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "holds no CRL"),
])
def test_files_that_are_no_crl(pki, tmp_path, root, content, why):
    path = tmp_path / "bad.crl"
    if content:
        path.write_text(content)
    code, said = check(tmp_path, front(pki, 9443, "optional", root.crl(), path))
    assert code and f"bad.crl: {why}" in said and said.count("\n") == 1


def test_lists_and_checks_go_together(pki, tmp_path, root):
    conf = front(pki, 9443, "mandatory", root.crl())
    del conf["profile.front.client_crl"]
    code, said = check(tmp_path, conf)
    assert code and "profile.front.client_crl_check = mandatory: there is no CRL to look at; " \
        "set profile.front.client_crl" in said
    conf = front(pki, 9443, "mandatory", root.crl())
    del conf["profile.front.client_crl_check"]
    code, said = check(tmp_path, conf)
    assert code and "nobody looks at it; set profile.front.client_crl_check" in said
    conf["profile.front.client_crl_check"] = "off"  # said, so meant
    assert check(tmp_path, conf) == (0, "")


def test_offline(pki, tmp_path, authority, root):
    """ktlsgate-forge --crl: as the daemon with mandatory."""
    alice, bob = pki.client("Alice"), pki.client("Bob")
    authority.revoke(alice)

    def forge(client, *crls):
        argv = [BUILD / "ktlsgate-forge", "--client-ca", pki.client_root.cert_file, "--ca",
                pki.forge().cert_file, "--key", pki.forge().key_file]
        argv += [arg for crl in crls for arg in ("--crl", crl)]
        run = subprocess.run([*argv, client.cert_file], capture_output=True, text=True, timeout=60,
                             check=False)
        return run.returncode, run.stderr

    lists = [authority.crl(), root.crl()]
    assert forge(bob, *lists) == (0, "")
    code, said = forge(alice, *lists)
    assert code == 1 and said.startswith("refused: certificate revoked (depth 0, subject ")
    assert forge(alice) == (0, "")
    code, said = forge(bob, lists[0])
    assert code == 1 and said.startswith("refused: no valid CRL of the issuer (depth 1, subject ")
    assert forge(bob, tmp_path / "none")[0] == 3


# ---- OCSP ----


def asking(pki, port, responder, mode="mandatory", **more):
    return settings(pki, port, profile__front__client_ocsp=mode,
                    profile__front__ocsp_responder=f"http://127.0.0.1:{responder}/ocsp", **more)


@VERSION
def test_ocsp(gate, pki, backend, authority, version):
    """OpenSSL's responder, with the CA's own key; both answers, and the second time without asking."""
    alice, bob = pki.client("Alice"), pki.client("Bob")
    authority.knows(bob)
    authority.revoke(alice)
    with authority.openssl_responder(pki.client_intermediate) as port:
        g = gate(asking(pki, backend.port, port, dataplane__workers="1"))
        passes(g, pki, certkey=bob, version=version)
        refused(g, pki, "client_cert_revoked", "certificate_revoked", certkey=alice,
                version=version)
        assert g.log_contains("says the OCSP responder")
    passes(g, pki, certkey=bob, version=version)
    refused(g, pki, "client_cert_revoked", "certificate_revoked", certkey=alice, version=version)
    stats = g.stats()
    assert stats["ocsp_requests"] == 2 and stats["ocsp_failures"] == 0
    assert stats["ocsp_cache_hits"] == 2 and stats["forged"] == 1


def garbage(_request, _answer):
    return b"garbage"


def no_http(_request, _answer):
    return (b"SSH-2.0-OpenSSH_9.2\r\n",)


def not_found(_request, _answer):
    return (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",)


def endless(_request, _answer):
    return (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 9000,)


def cut(_request, answer):
    return (b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer[:-1],)


def silent(_request, _answer):
    return None


def try_later(_request, _answer):
    return bytes.fromhex("30030a0103")


BAD_ANSWERS = {
    "garbage": (garbage, "the OCSP response is malformed"),
    "no_http": (no_http, "the OCSP responder did not answer with a response"),
    "not_found": (not_found, "the OCSP responder did not answer with a response"),
    "endless": (endless, "the OCSP responder did not answer with a response"),
    "cut": (cut, "the OCSP responder did not answer with a response"),
    "silent": (silent, "the OCSP responder did not answer in time"),
    "try_later": (try_later, "the OCSP response is an error"),
}


@pytest.mark.parametrize("how, why", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
def test_ocsp_bad_answers(gate, pki, backend, authority, how, why):
    bob = pki.client("Bob")
    authority.knows(bob)
    with authority.responder(pki.ocsp_signer(pki.client_intermediate), "-nmin", 5, how=how) as server:
        g = gate(asking(pki, backend.port, server.port, profile__front__ocsp_timeout="1s"))
        refused(g, pki, "client_ocsp_unknown", "certificate_unknown", certkey=bob)
        assert g.log_contains(why) and g.stats()["ocsp_failures"] == 1
        assert g.stats()["forged"] == 0


@pytest.mark.parametrize("fault, args, why", [
    ("wrong_ca", (), "is signed by somebody else"),
    ("wrong_purpose", (), "is signed with a certificate that is not for OCSP"),
    ("expired", (), "is signed with a certificate that has expired or is not yet valid"),
    (None, ("-badsig",), "has a wrong signature"),
    (None, ("-rmd", "sha1"), "is signed with MD5 or SHA-1"),
    (None, ("-resp_no_certs",), "names a responder whose certificate is not there"),
])
def test_ocsp_answers_of_nobody(gate, pki, backend, authority, fault, args, why):
    bob = pki.client("Bob")
    authority.knows(bob)
    signer = pki.ocsp_signer(pki.client_intermediate, fault)
    with authority.responder(signer, "-nmin", 5, *args) as server:
        g = gate(asking(pki, backend.port, server.port))
        refused(g, pki, "client_ocsp_unknown", "certificate_unknown", certkey=bob)
        assert g.log_contains(f"the OCSP response {why}")


def test_ocsp_old_answer(gate, pki, backend, authority):
    """One for another certificate, which was good: it is about that one."""
    alice, bob = pki.client("Alice"), pki.client("Bob")
    authority.knows(bob)
    authority.revoke(alice)
    kept = []

    def first(_request, answer):
        kept.append(answer)
        return kept[0]

    with authority.responder(pki.ocsp_signer(pki.client_intermediate), "-nmin", 5, how=first) as server:
        g = gate(asking(pki, backend.port, server.port))
        passes(g, pki, certkey=bob)
        refused(g, pki, "client_ocsp_unknown", "certificate_unknown", certkey=alice)
        assert g.log_contains("the OCSP response is about another certificate")


def test_ocsp_unknown(gate, pki, backend, authority):
    with authority.responder(pki.ocsp_signer(pki.client_intermediate), "-nmin", 5) as server:
        g = gate(asking(pki, backend.port, server.port))
        refused(g, pki, "client_ocsp_unknown", "certificate_unknown", certkey=pki.client())
        assert g.log_contains("the OCSP response says that the certificate is unknown")


def test_ocsp_optional(gate, pki, backend, authority):
    """Without an answer the client passes; with a bad one it does not."""
    alice = pki.client("Alice")
    g = gate(asking(pki, backend.port, free_port(), "optional"))
    passes(g, pki, certkey=alice)
    assert g.stats()["ocsp_failures"] == 1
    authority.revoke(alice)
    with authority.responder(pki.ocsp_signer(pki.client_intermediate), "-nmin", 5) as server:
        g = gate(asking(pki, backend.port, server.port, "optional"))
        refused(g, pki, "client_cert_revoked", "certificate_revoked", certkey=alice)


def test_ocsp_is_asked_once(gate, pki, backend, authority):
    """Many connections of one client at once: one request, and all of them wait for its answer."""
    bob = pki.client("Bob")
    authority.knows(bob)

    def slow(_request, answer):
        time.sleep(1)
        return answer

    with authority.responder(pki.ocsp_signer(pki.client_intermediate), "-nmin", 5, how=slow) as server:
        g = gate(asking(pki, backend.port, server.port, dataplane__workers="1"))
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda _: ping(g, pki, certkey=bob), range(20)))
        assert len(server.asked) == 1
        assert g.stats()["ocsp_requests"] == 1 and g.stats()["flows_established"] == 20


def test_ocsp_client_leaves(gate, pki, backend, authority):
    """While it waits for the answer: nothing is left behind, and others get theirs."""
    bob = pki.client("Bob")
    authority.knows(bob)
    with authority.responder(pki.ocsp_signer(pki.client_intermediate), "-nmin", 5, how=silent) as server:
        g = gate(asking(pki, backend.port, server.port, timeout__handshake="1s",
                        profile__front__ocsp_timeout="3s"))
        with g.ends_with("client_timeout", 2):
            for _ in range(2):
                with clients.connect(g.port, pki=pki, certkey=bob) as c:
                    c.handshake()
                    c.recv()


def test_ocsp_and_crl(gate, pki, backend, authority, root):
    """Both are asked, and either can refuse."""
    alice, bob = pki.client("Alice"), pki.client("Bob")
    authority.knows(alice, bob)
    lists = [authority.crl(), root.crl()]
    with authority.responder(pki.ocsp_signer(pki.client_intermediate), "-nmin", 5) as server:
        conf = asking(pki, backend.port, server.port,
                      profile__front__client_crl=" ".join(map(str, lists)),
                      profile__front__client_crl_check="mandatory")
        g = gate(conf)
        passes(g, pki, certkey=bob)
        authority.index.write_text("")
        authority.knows(bob)
        authority.revoke(alice)  # after the lists were made
        refused(g, pki, "client_cert_revoked", "certificate_revoked", certkey=alice)
        conf["profile.front.client_crl"] = f"{authority.crl()} {lists[1]}"
        authority.index.write_text("")
        authority.knows(alice, bob)
        conf["vserver.app.listen"] = f"127.0.0.1:{free_port()}"
        g = gate(conf)
        refused(g, pki, "client_cert_revoked", "certificate_revoked", certkey=alice)
        assert g.stats()["ocsp_requests"] == 0


# ---- OCSP about backends ----


def asking_about_backend(pki, port, responder=None, mode="mandatory", **more):
    if responder:
        more["profile__back__ocsp_responder"] = f"http://127.0.0.1:{responder}/"
    return settings(pki, port, profile__back__server_ocsp=mode, dataplane__workers="1", **more)


# Its certificate is judged at its CertificateRequest, or, if it makes none, at the handshake's end.
ASKS = pytest.mark.parametrize("asks", [True, False], ids=["asks", "does_not_ask"])


@ASKS
@VERSION
def test_backend_ocsp_good(gate, pki, server_authority, version, asks):
    """The second time without asking: the responder is gone."""
    server_authority.knows(pki.backend())
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root if asks else None,
                          version=version) as b:
        with server_authority.openssl_responder(pki.server_ca) as port:
            g = gate(asking_about_backend(pki, b.port, port))
            passes(g, pki, certkey=pki.client(), version=version)
        passes(g, pki, certkey=pki.client(), version=version)
    stats = g.stats()
    assert stats["ocsp_requests"] == stats["ocsp_cache_hits"] == 1 and not stats["ocsp_failures"]


@ASKS
@VERSION
def test_backend_ocsp_revoked(gate, pki, server_authority, version, asks):
    """It is shown no certificate and gets no byte, though the client is through before the answer."""
    server_authority.revoke(pki.backend())

    def later(_request, answer):
        time.sleep(1)
        return answer

    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root if asks else None,
                          version=version) as b:
        with server_authority.responder(pki.server_ca, "-nmin", 5, how=later) as server:
            g = gate(asking_about_backend(pki, b.port, server.port, "optional"))
            with g.ends_with("backend_cert_revoked"):
                with clients.connect(g.port, pki=pki, certkey=pki.client(), version=version) as c:
                    assert not (c.handshake(lambda: wait_until(lambda: server.asked, 10)) and c.recv())
                    assert c.ended == "alert internal_error"
        seen = b.connection().wait()
        assert seen.ended == "alert certificate_revoked"
        assert not seen.certificate and not seen.received
    assert g.log_contains("says the OCSP responder") and g.stats()["forged"] == 0


@ASKS
@pytest.mark.parametrize("mode", ["optional", "mandatory"])
def test_backend_ocsp_tells_nothing(gate, pki, mode, asks):
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root if asks else None) as b:
        g = gate(asking_about_backend(pki, b.port, free_port(), mode))
        if mode == "optional":
            passes(g, pki, certkey=pki.client())
        else:
            refused(g, pki, "backend_ocsp_unknown", "internal_error", certkey=pki.client())
            assert b.connection().wait().ended == "alert bad_certificate_status_response"
            assert g.log_contains("the OCSP responder is unreachable")
    assert g.stats()["ocsp_failures"] == 1


def test_backend_ocsp_is_asked_once(gate, pki, server_authority):
    """Many flows to one backend: one request; the backend gives up meanwhile, and is connected anew."""
    server_authority.knows(pki.backend())

    def slow(_request, answer):
        time.sleep(3)
        return answer

    with server_authority.responder(pki.server_ca, "-nmin", 5, how=slow) as server, \
            backends.backend(certkey=pki.backend(), client_ca=pki.forging_root,
                             handshake_timeout=2) as b:
        g = gate(asking_about_backend(pki, b.port, server.port))
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda _: ping(g, pki, certkey=pki.client()), range(5)))
        stats = g.stats()
        assert len(server.asked) == stats["ocsp_requests"] == 1 and stats["flows_established"] == 5
        assert stats["backend_reconnects"] == 5


def test_backend_ocsp_after_reconnect(gate, pki, server_authority):
    """While a person types a PIN the backend gives up: the next connection is another backend's, perhaps."""
    server_authority.knows(pki.backend())
    with server_authority.openssl_responder(pki.server_ca) as port, backends.backend(
            certkey=pki.backend(), client_ca=pki.forging_root, handshake_timeout=1) as b:
        g = gate(asking_about_backend(pki, b.port, port))
        with g.carries(), clients.connect(g.port, pki=pki, certkey=pki.client()) as c:
            assert c.handshake(before_flight=lambda: time.sleep(2))
            clients.ping(c)
        stats = g.stats()
        assert stats["backend_reconnects"] == stats["ocsp_requests"] == stats["ocsp_cache_hits"] == 1


def test_backend_ocsp_takes_too_long(gate, pki, server_authority):
    """Longer than the client has: it is not the client's fault."""
    with server_authority.responder(pki.server_ca, "-nmin", 5, how=silent) as server, \
            backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        g = gate(asking_about_backend(pki, b.port, server.port, timeout__handshake="1s",
                                      profile__back__ocsp_timeout="5s"))
        refused(g, pki, "backend_ocsp_unknown", "internal_error", certkey=pki.client())


STAPLES = {
    "good": ({}, None, None, "ocsp_staples"),
    "revoked": ({"status": "revoked"}, "backend_cert_revoked", 44, "ocsp_staples"),
    "out_of_date": ({"since": -3, "until": -2}, "backend_ocsp_unknown", 113, "ocsp_staples_refused"),
    "about_another": ({"about": "web"}, "backend_ocsp_unknown", 113, "ocsp_staples_refused"),
    "of_nobody": ({"signer": "other_ca"}, "backend_ocsp_unknown", 113, "ocsp_staples_refused"),
    "none": (None, "backend_ocsp_unknown", 113, None),
}


@pytest.mark.parametrize("what, reason, alert, counter", STAPLES.values(), ids=STAPLES.keys())
@VERSION
def test_backend_staples(gate, pki, tmp_path, version, what, reason, alert, counter):
    """Without a responder: what the backend has stapled is all there is."""
    port, log, args = free_port(), tmp_path / "s_server.log", ["-rev", clients.tls_option(version)]
    if what is not None:
        what = dict(what)
        about = getattr(pki, what.pop("about", "backend"))()
        if "signer" in what:
            what["signer"] = getattr(pki, what["signer"])
        args += ["-status_file", pki.ocsp_response(about, **what)]
    with backends.s_server(port, certkey=pki.backend(), client_ca=pki.forging_root, log=log,
                           args=args):
        g = gate(asking_about_backend(pki, port))
        if not reason:
            with g.carries(), clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
                c.send(b"abc\n")
                assert c.recv_exactly(4) == b"cba\n"
        else:
            refused(g, pki, reason, "internal_error", certkey=pki.client(), version=version)
            assert wait_until(lambda: f"SSL alert number {alert}" in log.read_text(), 10)
        stats = g.stats()
        assert [stats[n] for n in ("ocsp_staples", "ocsp_staples_refused", "ocsp_requests")] == [
            int(counter == "ocsp_staples"), int(counter == "ocsp_staples_refused"), 0]


def test_backend_staple_is_bad_and_responder_good(gate, pki, server_authority, tmp_path):
    server_authority.knows(pki.backend())
    port = free_port()
    with server_authority.openssl_responder(pki.server_ca) as responder, backends.s_server(
            port, certkey=pki.backend(), client_ca=pki.forging_root, log=tmp_path / "log",
            args=["-rev", "-status_file", pki.ocsp_response(pki.backend(), since=-3, until=-2)]):
        g = gate(asking_about_backend(pki, port, responder))
        with g.carries(), clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
            c.send(b"abc\n")
            assert c.recv_exactly(4) == b"cba\n"
        stats = g.stats()
        assert stats["ocsp_staples_refused"] == stats["ocsp_requests"] == 1


@pytest.mark.parametrize("url, ok", [
    ("http://127.0.0.1", True), ("http://127.0.0.1:8080", True), ("http://[::1]/ocsp", True),
    ("http://[::1]:81/a?b", True), ("https://127.0.0.1/", False), ("http://ocsp.example/", False),
    ("http://127.0.0.1:0/", False), ("http://user@127.0.0.1/", False), ("127.0.0.1:80", False),
])
def test_ocsp_responder_urls(pki, tmp_path, url, ok):
    conf = asking(pki, 9443, 80)
    conf["profile.front.ocsp_responder"] = url
    code, said = check(tmp_path, conf)
    assert (code, said) == (0, "") if ok else (
        code and "is no http URL with a numeric address; use http://IPv4[:PORT][/PATH]" in said)


def by_aia(pki, port, hosts, **more):
    return settings(pki, port, profile__front__client_ocsp="mandatory", profile__front__ocsp_aia=hosts,
                    **more)


def test_aia(gate, pki, backend, authority):
    """The certificates name http://ocsp.client.example/; the request goes where the configuration says."""
    alice, bob = pki.client("Alice"), pki.client("Bob")
    authority.knows(bob)
    authority.revoke(alice)
    with authority.responder(pki.client_intermediate, "-nmin", 5) as server:
        g = gate(by_aia(pki, backend.port,
                        f"other.example=127.0.0.1:1 OCSP.client.example=127.0.0.1:{server.port}"))
        passes(g, pki, certkey=bob)
        refused(g, pki, "client_cert_revoked", "certificate_revoked", certkey=alice)
        assert server.urls == ["ocsp.client.example/"] * 2


@pytest.mark.parametrize("responder", [False, True])
def test_aia_of_another_host(gate, pki, backend, authority, responder):
    """Is not asked, whatever the certificate says; the configured one is, if there is one."""
    bob, more = pki.client("Bob"), {}
    authority.knows(bob)
    with authority.responder(pki.client_intermediate, "-nmin", 5) as server:
        address = f"127.0.0.1:{server.port}"
        if responder:
            more["profile__front__ocsp_responder"] = f"http://{address}/configured"
        g = gate(by_aia(pki, backend.port, " ".join(
            f"{host}={address}" for host in ("client.example", "ocsp.client.example.evil.example",
                                             "ocsp.client.example:8080", "127.0.0.1")), **more))
        if responder:
            passes(g, pki, certkey=bob)
            assert server.urls == [f"{address}/configured"]
        else:
            refused(g, pki, "client_ocsp_unknown", "certificate_unknown", certkey=bob)
            assert g.log_contains("there is no OCSP response, and no responder to ask")
            assert server.urls == []


def test_aia_of_a_stranger(gate, pki, backend, authority):
    """Nobody is asked about a certificate of no CA of ours."""
    with authority.responder(pki.client_intermediate, "-nmin", 5) as server:
        g = gate(by_aia(pki, backend.port, f"ocsp.client.example=127.0.0.1:{server.port}"))
        refused(g, pki, "client_cert_untrusted", "unknown_ca",
                certkey=pki.client(fault="wrong_ca"))
        assert server.urls == [] and g.stats()["ocsp_requests"] == 0


@pytest.mark.parametrize("hosts, why", [
    ("ocsp.example=192.0.2.7 [2001:db8::1]:81=[2001:db8::2]:82", None),
    ("ocsp.example", "has no host of a URL in front of a ="),
    ("http://ocsp.example=192.0.2.7", "has no host of a URL in front of a ="),
    ("=192.0.2.7", "has no host of a URL in front of a ="),
    ("ocsp.example= 192.0.2.7", "has no numeric address behind a ="),
    ("ocsp.example=ocsp.example", "has no numeric address behind a ="),
    ("ocsp.example=192.0.2.7:0", "has no numeric address behind a ="),
    ("ocsp.example=192.0.2.7/x", "has no numeric address behind a ="),
])
def test_aia_hosts(pki, tmp_path, hosts, why):
    code, said = check(tmp_path, by_aia(pki, 9443, hosts))
    assert (code, said) == (0, "") if not why else (
        code and f"{why}; use HOST[:PORT]=ADDRESS[:PORT], separated by blanks" in said)


def test_ocsp_needs_a_responder(pki, tmp_path):
    conf = asking(pki, 9443, 80)
    del conf["profile.front.ocsp_responder"]
    code, said = check(tmp_path, conf)
    assert code and "profile.front.client_ocsp = mandatory: nobody is there to be asked; " \
        "set profile.front.ocsp_responder" in said


# ---- lists that change ----


def replace(new, path):
    """As one should: there is always a whole file."""
    shutil.copy(new, f"{path}.new")
    os.replace(f"{path}.new", path)


def test_crl_changes(gate, pki, backend, authority, root, tmp_path):
    """A new list comes into force by itself; flows go on; one that cannot be used changes nothing."""
    alice, path = pki.client("Alice"), tmp_path / "the.crl"
    replace(authority.crl(), path)
    g = gate(front(pki, backend.port, "mandatory", path, root.crl(), config__watch="1s"))
    with clients.connected(g.port, pki=pki, certkey=alice) as old:
        old.send(b"ping")
        assert old.recv_exactly(4) == b"ping"
        path.write_text("no CRL")
        assert wait_until(lambda: g.log_contains("configuration refused, nothing has changed"), 10)
        authority.revoke(alice)
        replace(authority.crl(), path)
        assert wait_until(lambda: g.log_contains("reloaded: generation 2"), 10)
        assert g.log_contains(f"{path} has changed")
        with clients.connect(g.port, pki=pki, certkey=alice) as c:
            assert not (c.handshake() and c.recv()) and c.ended == "alert certificate_revoked"
        old.send(b"pong")
        assert old.recv_exactly(4) == b"pong"
    time.sleep(2.5)  # two looks more
    assert not g.log_contains("generation 3") and g.log().count("nothing has changed") == 1


def known_ca(pki, port, mode, *crls, **more):
    """The intermediate CA is in client_ca, so that its lists can be verified at once."""
    bundle = pki.directory / "root-and-intermediate.pem"
    bundle.write_bytes(pki.client_root.cert_file.read_bytes() +
                       pki.client_intermediate.cert_file.read_bytes())
    return front(pki, port, mode, *crls, profile__front__client_ca=bundle, **more)


def forged(pki, directory, ca):
    """A list in ca's name, newer than all others, that somebody else has signed."""
    stranger = pki._issue("stranger", ca.cert.subject, pki._key("ec", "stranger"), ca=True)
    where = directory / "stranger"
    where.mkdir()
    return Authority(where, stranger).crl(begin=-1)


NOT_SIGNED = "the CRL of CN=ktlsgate test client-intermediate is not signed by the CA of that name"
BACK = "the CRL of CN=ktlsgate test client-intermediate "


@pytest.mark.parametrize("bad, how, why", [
    ("forged", "watch", NOT_SIGNED),
    ("older", "reload", BACK + r"is of \S+Z, and that in force of \S+Z"),
    ("number", "reload", BACK + r"has the number 02, and that in force 04"),
    ("gone", "reload", "there is no CRL of CN=ktlsgate test client-intermediate any more"),
])
def test_crl_does_not_go_back(gate, pki, backend, authority, root, tmp_path, how, bad, why):
    """What would make a revoked client a good one again is refused; the list in force stays it."""
    alice, bob, path = pki.client("Alice"), pki.client("Bob"), tmp_path / "the.crl"
    older, second = authority.crl(begin=-7200), authority.crl(begin=-10)
    authority.revoke(alice)
    third, fourth = authority.crl(begin=-60), authority.crl(begin=-60)
    assert third
    replace(fourth, path)
    g = gate(known_ca(pki, backend.port, "optional", path, root.crl(),
                      config__watch="1s" if how == "watch" else "0"))
    refused(g, pki, "client_cert_revoked", "certificate_revoked", certkey=alice)
    replace({"forged": forged(pki, tmp_path, pki.client_intermediate), "older": older,
             "number": second, "gone": root.crl()}[bad], path)
    if how == "reload":
        g.process.send_signal(signal.SIGHUP)
    assert wait_until(lambda: g.log_contains("configuration refused, nothing has changed"), 10)
    assert g.log_contains(rf"profile\.front\.client_crl = .*: {why}"), g.log()
    assert g.stats()["reloads_refused"] == 1 and g.stats()["generation"] == 1
    refused(g, pki, "client_cert_revoked", "certificate_revoked", certkey=alice)
    passes(g, pki, certkey=bob)
    # the next one that is as it should be comes into force
    replace(authority.crl(begin=-1), path)
    if how == "reload":
        g.process.send_signal(signal.SIGHUP)
    assert wait_until(lambda: g.log_contains("reloaded: generation 2"), 10), g.log()
    refused(g, pki, "client_cert_revoked", "certificate_revoked", certkey=alice)


def test_crl_that_is_not_wanted_any_more(gate, pki, backend, authority, root):
    """Whoever changes the setting means it."""
    alice = pki.client("Alice")
    authority.revoke(alice)
    g = gate(known_ca(pki, backend.port, "optional", authority.crl(), root.crl()))
    refused(g, pki, "client_cert_revoked", "certificate_revoked", certkey=alice)
    g.reload(profile__front__client_crl=root.crl())
    passes(g, pki, certkey=alice)


@MODE
def test_forged_crl_of_a_ca_that_only_clients_have(gate, pki, backend, authority, root, tmp_path,
                                                   mode):
    """Nobody can verify it when it is loaded: it makes nobody a good client all the same."""
    alice, path = pki.client("Alice"), tmp_path / "the.crl"
    authority.revoke(alice)
    replace(authority.crl(), path)
    g = gate(front(pki, backend.port, mode, path, root.crl()))
    assert g.log_contains("the CRL of CN=ktlsgate test client-intermediate cannot be verified "
                          "before a peer shows that CA; add its certificate to client_ca")
    refused(g, pki, "client_cert_revoked", "certificate_revoked", certkey=alice)
    g.stop()
    g = gate(front(pki, backend.port, mode, forged(pki, tmp_path, pki.client_intermediate),
                   root.crl()))
    refused(g, pki, "client_crl_missing", "certificate_unknown", certkey=alice)


def test_forged_crl_is_an_error_of_the_configuration(pki, tmp_path, authority, root):
    conf = known_ca(pki, 9443, "optional", authority.crl(), root.crl())
    assert check(tmp_path, conf) == (0, "")
    conf["profile.front.client_crl"] = forged(pki, tmp_path, pki.client_intermediate)
    code, said = check(tmp_path, conf)
    assert code and NOT_SIGNED in said and f"{tmp_path}/conf:" in said and said.count("\n") == 1


def test_crl_expires(gate, pki, backend, authority, root):
    """It is said before, and when it has happened; a list that has been replaced does not matter."""
    begin = time.time()
    ending, old = authority.crl(begin=-3600, end=5), root.crl(begin=-7200, end=-3600)
    g = gate(front(pki, backend.port, "optional", ending, old, root.crl()))
    soon = r"warning: profile\.front\.client_crl: the CRL of CN=ktlsgate test client-intermediate "
    assert g.log_contains(soon + r"expires in [1-5] s\n")
    assert begin + 4 <= g.stats()["crl_next_update"] <= time.time() + 5
    assert g.log_contains(soon + r"has expired\n", 10) and time.time() >= begin + 4
    assert len(re.findall(r"the CRL of .* (expires in|has expired)", g.log())) == 2


def test_crl_next_update_without_lists(gate, pki, backend):
    assert gate(settings(pki, backend.port)).stats()["crl_next_update"] == 0
