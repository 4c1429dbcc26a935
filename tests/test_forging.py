# SPDX-License-Identifier: Apache-2.0
"""
Forging in a running gate: the key and the CA that a backend's CertificateRequest asks for, flows of
one client that wait for one certificate, and the profile's rules on the way to the backend.
"""

import contextlib
import os
import signal
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import ctl, settings
from harness.lint5280 import lint
from harness.pki import der
from harness.ports import free_port

VERSION = pytest.mark.parametrize("version", peer.VERSIONS)
ONLY_RSA = ("-client_sigalgs", "rsa_pss_rsae_sha256")


@contextlib.contextmanager
def s_server(pki, log, *args, trusted=None):
    """It names the CAs it trusts, which Python's does not."""
    port = free_port()
    with backends.s_server(port, certkey=pki.backend("rsa"), client_ca=trusted or pki.forging_root,
                           log=log, args=("-rev", *args)):
        yield port


def ask(g, pki, **options):
    with clients.connected(g.port, pki=pki, **options) as c:
        c.send(b"abc\n")
        assert c.recv_exactly(4) == b"cba\n"


def presented(seen, under):
    """The certificate that a scripted backend saw, which is what RFC 5280 wants."""
    assert lint(seen.certificate, der(under.cert)) == []
    return x509.load_der_x509_certificate(seen.certificate)


@pytest.fixture(scope="module")
def second_forge(pki):
    """A forging CA with a root of its own, and that root."""
    root = pki._ca("second-forging-root")  # pylint: disable=protected-access
    return pki._ca("second-forge", "rsa", root, chain=[root.cert]), root  # pylint: disable=protected-access


# ---- rule 16: the key ----


@VERSION
def test_rsa_for_backends_that_want_it(gate, pki, tmp_path, version):
    """Made by a thread of its own: the first flow waits for it, then there are some ready."""
    with s_server(pki, tmp_path / "log", *ONLY_RSA, clients.tls_option(version)) as port:
        g = gate(settings(pki, port, forge__rsa_keys=2))
        assert g.stats()["forge_keys_ready"] == 0  # nobody has wanted one
        known = pki.client("One")
        ask(g, pki, certkey=known)
        ask(g, pki, certkey=known)
        assert g.stat_reaches("forge_keys_ready", 2)
        ask(g, pki, certkey=pki.client("Two"))
        stats = g.stats()
        assert (stats["forged"], stats["forge_cache_hits"], stats["forge_key_waits"]) == (2, 1, 1)
    assert "depth=0" in (tmp_path / "log").read_text()  # s_server has verified it


def test_flows_wait_for_keys(gate, pki, tmp_path):
    """More identities at once than there are keys: each gets one of its own."""
    with s_server(pki, tmp_path / "log", *ONLY_RSA) as port:
        g = gate(settings(pki, port, forge__rsa_keys=1))
        threads = [threading.Thread(target=ask, args=(g, pki),
                                    kwargs={"certkey": pki.client(f"Client {n}")}) for n in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert g.stats()["forged"] == 4 and g.stats()["forge_key_waits"] >= 1


@pytest.mark.parametrize("wanted, kind", [("auto", ec.EllipticCurvePublicKey),
                                          ("p-256", ec.EllipticCurvePublicKey),
                                          ("rsa-2048", rsa.RSAPublicKey)])
def test_key_as_configured(gate, pki, wanted, kind):
    """For a backend that takes either."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        g = gate(settings(pki, b.port, profile__back__forge__key=wanted))
        if wanted == "rsa-2048":  # from the start
            assert g.stat_reaches("forge_keys_ready", 1)
        with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
            c.send(b"ping")
            assert c.recv_exactly(4) == b"ping"
        assert isinstance(presented(b.connection().wait(), pki.forge()).public_key(), kind)


# ---- rule 17: the CA ----


def two_cas(pki, port, second, **changes):
    return settings(pki, port, **{
        "certkey.second.cert": second.cert_file, "certkey.second.key": second.key_file,
        "profile.back.forging_certkey": "forge second", **changes})


@VERSION
@pytest.mark.parametrize("which", [0, 1])
def test_backend_chooses_the_ca(gate, pki, tmp_path, second_forge, version, which):
    """By its CA names; with the intermediates that it needs, or it would not verify."""
    second, root = second_forge
    trusted = root if which else pki.forging_root
    with s_server(pki, tmp_path / "log", clients.tls_option(version), trusted=trusted) as port:
        g = gate(two_cas(pki, port, second, profile__back__forge__no_matching_ca="fail"))
        ask(g, pki, certkey=pki.client())


@VERSION
@pytest.mark.parametrize("setting, reason, alert", [
    ("fail", "backend_ca_names", "handshake_failure"),
    ("send", "backend_refused_certificate", "unknown_ca")])
def test_backend_names_other_cas(gate, pki, tmp_path, second_forge, version, setting, reason, alert):
    with s_server(pki, tmp_path / "log", clients.tls_option(version), trusted=pki.other_ca) as port:
        g = gate(two_cas(pki, port, second_forge[0],
                         **{"profile.back.forge.no_matching_ca": setting}))
        with g.ends_with(reason), clients.connect(g.port, pki=pki, certkey=pki.client()) as c:
            assert not (c.handshake() and c.recv())
            assert c.ended == "alert " + alert


def test_backend_that_names_no_ca(gate, pki, second_forge):
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        g = gate(two_cas(pki, b.port, second_forge[0],
                         **{"profile.back.forge.no_matching_ca": "fail"}))
        with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
            c.send(b"ping")
            assert c.recv_exactly(4) == b"ping"
        assert presented(b.connection().wait(), pki.forge()).issuer == pki.forge().cert.subject


@VERSION
def test_last_request(gate, pki, tmp_path, version):
    """What the backend asked for is remembered, for people."""
    with s_server(pki, tmp_path / "log", *ONLY_RSA, clients.tls_option(version)) as port:
        g = gate(settings(pki, port))
        assert g.ctl("requests", "app1") == "none\n"
        ask(g, pki, certkey=pki.client())
        said = dict(line.split("=", 1) for line in g.ctl("requests", "app1").splitlines())
        assert said["version"] == "TLSv" + version
        assert said["sigalgs"] == "0804"
        assert said["ca_names"] == "1" and said["ca_name"] == "CN=ktlsgate test forging-root"
        assert int(said["age_ms"]) < 60000
        assert ("1" in said["key_types"].split()) == (version == "1.2")
        failed = ctl("-s", g.socket, "requests", "nope")
        assert failed.returncode == 1 and 'no service "nope"' in failed.stderr


# ---- many flows of one client ----


def test_flows_of_one_client_ask_once(gate, pki):
    """As long as the signer has not answered, others of the same identity wait with the first."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        g = gate(settings(pki, b.port, dataplane__workers=1, timeout__backend_handshake="2s"))
        certkey, signer = pki.client(), g.signer()
        os.kill(signer, signal.SIGSTOP)
        with contextlib.ExitStack() as stack:
            stack.callback(os.kill, signer, signal.SIGCONT)
            opened = []
            for n in range(8):
                c = stack.enter_context(clients.connect(g.port, pki=pki, certkey=certkey))
                assert c.handshake()
                opened.append(c)
                if not n:
                    time.sleep(1)
            assert g.stat_reaches("forge_coalesced", 7)
            assert g.stats()["forge_cache_misses"] == 1
            # The one that asked is out of time: another asks in its place.
            assert not opened.pop(0).recv()
            assert g.stat_reaches("forge_cache_misses", 2)
            os.kill(signer, signal.SIGCONT)
            for c in opened:
                c.send(b"ping")
                assert c.recv_exactly(4) == b"ping"
        stats = g.stats()
        assert (stats["forged"], stats["forge_cache_misses"]) == (1, 2)
        assert len({s.wait().certificate for s in b.seen if s.handshake}) == 1


# ---- the profile's rules ----


def test_rules_of_the_profile(gate, pki, tmp_path):
    """From the configuration to the backend, for two services with rules of their own."""
    own = "1.3.6.1.4.1.99999.5"
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        g = gate(settings(pki, b.port, **{
            "profile.back.forge.lifespan": "5m", "profile.back.forge.start": "original",
            "profile.back.forge.add": f"{own}=utf8:gate",
            "profile.back.forge.eku": "clientAuth",
            "certkey.forge.crl": "http://pki.forge.example/a.crl",
            "certkey.forge.ocsp": "http://ocsp.forge.example/"}))
        certkey = pki.client()
        with clients.connected(g.port, pki=pki, certkey=certkey) as c:
            c.send(b"ping")
            assert c.recv_exactly(4) == b"ping"
        cert = presented(b.connection().wait(), pki.forge())
    assert cert.not_valid_before == max(certkey.cert.not_valid_before,
                                        pki.forge().cert.not_valid_before,
                                        pki.forging_intermediate.cert.not_valid_before)
    extensions = {e.oid.dotted_string: e.value for e in cert.extensions}
    assert extensions[own].value == b"\x0c\x04gate"
    assert len(list(extensions["2.5.29.37"])) == 1
    assert extensions["2.5.29.31"][0].full_name[0].value == "http://pki.forge.example/a.crl"
    assert extensions["1.3.6.1.5.5.7.1.1"][0].access_location.value == "http://ocsp.forge.example/"
