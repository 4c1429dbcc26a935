# SPDX-License-Identifier: Apache-2.0
"""Revoked certificates are refused, of clients and of backends, with the lists of a real CA."""

import subprocess

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import BUILD, settings
from harness.revocation import Authority

VERSION = pytest.mark.parametrize("version", peer.VERSIONS)
MODE = pytest.mark.parametrize("mode", ["optional", "mandatory"])


@pytest.fixture
def backend(pki):
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        yield b


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


def passes(g, pki, **options):
    with clients.connected(g.port, pki=pki, **options) as c:
        c.send(b"ping")
        assert c.recv_exactly(4) == b"ping"


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
