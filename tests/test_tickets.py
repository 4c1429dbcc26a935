# SPDX-License-Identifier: Apache-2.0
"""
Clients that resume: no certificate is shown again and no CertificateVerify, so what was proved is
looked at anew, by the gate and by the signer.
"""

import datetime
import re
import time

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings
from harness.revocation import Authority

VERSION = pytest.mark.parametrize("version", peer.VERSIONS)


def tickets(pki, backend, **changes):
    return settings(pki, backend.port, profile__front__session_tickets="on", **changes)


class Client:
    """openssl s_client that keeps its session in a file."""

    def __init__(self, gate, pki, version, directory, certkey, *args):
        self.gate, self.pki, self.certkey = gate, pki, certkey
        self.file, self.args = directory / f"session-{id(self)}", (clients.tls_option(version), *args)

    def connect(self, *, resume=True, certkey=None):
        """What it printed; a line went through the gate and back."""
        args = self.args + ("-sess_out", self.file)
        if resume and self.file.exists():
            args += ("-sess_in", self.file)
        with self.gate.ends_with("done"), self.gate.carries(1):
            _, printed = clients.s_client(self.gate.port, b"hello\n", b"hello\n", pki=self.pki,
                                          certkey=certkey or self.certkey, args=args)
        return re.search(rb"^(New|Reused), TLSv1\.. ?", printed, re.MULTILINE)[1].decode()


@pytest.mark.datapath
@VERSION
def test_resumed(gate, pki, backend, tmp_path, version):
    """Again and again, and each time the backend sees the client's forged certificate."""
    g, who, n = gate(tickets(pki, backend)), pki.client(), len(backend.seen)
    c = Client(g, pki, version, tmp_path, who)
    assert [c.connect() for _ in range(4)] == ["New"] + ["Reused"] * 3
    seen = {backend.connection(n + i).wait().certificate for i in range(4)}
    assert len(seen) == 1
    stats = g.stats()
    assert stats["client_resumptions"] == 3 and stats["forged"] == 1
    assert stats["client_tickets"] == (4 if version == "1.3" else 0)
    assert c.connect(resume=False) == "New"


@VERSION
def test_signer_takes_the_token(gate, pki, backend, tmp_path, version):
    """The certificate is no longer in the cache: the signer issues another one for the token."""
    g, n = gate(tickets(pki, backend, forge__cache=1)), len(backend.seen)
    c = Client(g, pki, version, tmp_path, pki.client("One"))
    other = Client(g, pki, version, tmp_path, pki.client("Other"))
    assert [c.connect(), other.connect(), c.connect()] == ["New", "New", "Reused"]
    assert g.stats()["forged"] == 3
    one, _, again = (backend.connection(n + i).wait().certificate for i in range(3))
    assert one != again
    # What it gave for the token is good for nothing younger: the next one resumes as before.
    assert c.connect() == "Reused"


@VERSION
def test_signer_that_was_started_again(gate, pki, backend, tmp_path, version):
    """Its successor knows the tokens."""
    g = gate(tickets(pki, backend, forge__cache=1))
    c = Client(g, pki, version, tmp_path, pki.client("One"))
    other = Client(g, pki, version, tmp_path, pki.client("Other"))
    assert c.connect() == "New"
    clients.run(["kill", "-9", g.signer()])
    assert g.log_contains("signer.*starting it again", 5)
    time.sleep(1.5)
    assert [other.connect(), c.connect()] == ["New", "Reused"]


@VERSION
def test_lifetime(gate, pki, backend, tmp_path, version):
    """Resuming does not lengthen it."""
    g = gate(tickets(pki, backend, profile__front__ticket_lifetime="3s"))
    c = Client(g, pki, version, tmp_path, pki.client())
    start = time.monotonic()
    assert [c.connect(), c.connect()] == ["New", "Reused"]
    time.sleep(max(0, start + 1.5 - time.monotonic()))
    assert c.connect() == "Reused"
    time.sleep(max(0, start + 3.5 - time.monotonic()))
    assert c.connect() == "New"
    assert c.connect() == "Reused"


@VERSION
def test_certificate_that_expired(gate, pki, backend, tmp_path, version):
    """Looked at again: the client has to show it, and is told."""
    g = gate(tickets(pki, backend))
    end = datetime.datetime.utcnow() + datetime.timedelta(seconds=4)
    who = pki.client(not_after=end)
    c = Client(g, pki, version, tmp_path, who)
    assert [c.connect(), c.connect()] == ["New", "Reused"]
    time.sleep(max(0, (end - datetime.datetime.utcnow()).total_seconds() + 1.2))
    with g.ends_with("client_cert_expired"):
        done = clients.run(clients.s_client_argv(g.port, pki=pki, certkey=who, args=(
            "-sess_in", c.file, "-ign_eof", clients.tls_option(version))))
    assert b"alert certificate expired" in done.stderr


@VERSION
def test_certificate_that_was_revoked(gate, pki, backend, tmp_path, version):
    """Each client that resumes is asked about again, as soon as the answer is too old."""
    ca, who = pki.client_intermediate, pki.client()
    authority, status = Authority(tmp_path, ca), ["good"]
    authority.knows(who)

    def short(_request, _answer):
        return pki.ocsp_response(who, status=status[0], signer=ca, issuer=ca, until=2 / 86400).read_bytes()

    with authority.responder(ca, how=short) as server:
        g = gate(tickets(pki, backend, profile__front__client_ocsp="mandatory",
                         profile__front__ocsp_responder=f"http://127.0.0.1:{server.port}/"))
        c = Client(g, pki, version, tmp_path, who)
        assert [c.connect(), c.connect()] == ["New", "Reused"]
        status[0] = "revoked"
        time.sleep(3)
        with g.ends_with("client_cert_revoked"):
            done = clients.run(clients.s_client_argv(g.port, pki=pki, certkey=who, args=(
                "-sess_in", c.file, "-ign_eof", clients.tls_option(version))))
        assert b"alert certificate revoked" in done.stderr
        assert g.stats()["client_resumptions"] == 2


@VERSION
def test_certificate_that_was_put_on_a_list(gate, pki, backend, tmp_path, version):
    """The reload that brings the list ends the sessions: the certificate is shown, and refused."""
    authority, who = Authority(tmp_path, pki.client_intermediate), pki.client()
    g = gate(tickets(pki, backend, profile__front__client_crl=authority.crl(),
                     profile__front__client_crl_check="optional"))
    c = Client(g, pki, version, tmp_path, who)
    assert [c.connect(), c.connect()] == ["New", "Reused"]
    authority.revoke(who)
    g.reload(profile__front__client_crl=authority.crl())
    with g.ends_with("client_cert_revoked"):
        clients.run(clients.s_client_argv(g.port, pki=pki, certkey=who, args=(
            "-sess_in", c.file, "-ign_eof", clients.tls_option(version))))


@VERSION
@pytest.mark.parametrize("forges", ["enabled", "disabled"])
def test_without_certificate(gate, pki, tmp_path, version, forges):
    """One that need not have a certificate resumes without one; where that is nothing, it is nothing."""
    with backends.backend(certkey=pki.backend()) as b:
        g = gate(settings(pki, b.port, profile__front__session_tickets="on",
                          profile__front__client_auth="optional",
                          profile__back__dynamic_client_cert=forges))
        c = Client(g, pki, version, tmp_path, None)
        if forges == "disabled":
            assert [c.connect(), c.connect()] == ["New", "Reused"]
            return
        with g.ends_with("client_cert_absent", 1):
            clients.run(clients.s_client_argv(g.port, pki=pki, args=(clients.tls_option(version),)))


@pytest.mark.parametrize("retry", [False, True])
def test_other_context_and_hello_retry(gate, pki, backend, tmp_path, retry):
    """The server name leads to another SSL_CTX; the client is asked for another key share."""
    shop = pki.server("ec", "shop.example")
    g = gate(tickets(pki, backend, certkey__shop__cert=shop.cert_file,
                     certkey__shop__key=shop.key_file, vserver__app__certkey="web shop",
                     profile__front__groups="P-384" if retry else "X25519 P-384"))
    c = Client(g, pki, "1.3", tmp_path, pki.client(), "-servername", "shop.example",
               "-verify_hostname", "shop.example", "-groups", "X25519:P-384")
    assert [c.connect(), c.connect()] == ["New", "Reused"]


@pytest.mark.parametrize("extended", [True, False])
def test_extended_master_secret(gate, pki, backend, extended):
    """TLS 1.2 without it (RFC 7627) is never resumed."""
    g = gate(tickets(pki, backend))
    priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2" + ("" if extended else ":%NO_SESSION_HASH")
    argv = clients.gnutls_cli_argv(g.port, pki=pki, certkey=pki.client(), priority=priority,
                                   args=("--resume", "--waitresumption"))
    _, printed = clients.talk(argv, b"abc\n", b"abc\n")
    assert (b"*** This is a resumed session" in printed) == extended
    assert g.stats()["client_resumptions"] == int(extended)


def test_ticket_of_another_vserver(gate, pki, backend, tmp_path):
    from harness.rig import second_vserver  # pylint: disable=import-outside-toplevel
    g = gate({**tickets(pki, backend), **second_vserver("b", backend.port)})
    c = Client(g, pki, "1.3", tmp_path, pki.client())
    assert c.connect() == "New"
    with g.carries(1):
        _, printed = clients.s_client(g.port_of("b"), b"hello\n", b"hello\n", pki=pki,
                                      certkey=c.certkey, args=("-sess_in", c.file))
    assert b"New, TLSv1.3" in printed
