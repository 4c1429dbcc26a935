# SPDX-License-Identifier: Apache-2.0
"""Chains that are meant to be expensive, and handshakes cut small: refused, and others go on."""

import pathlib
import re
import subprocess
import types

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import BUILD, settings

# Within these a hostile chain took up to five seconds; what is taken now takes 10 ms.
CPU_MS = 500 * peer.SCALE

# What the peer is told, and what the log says.
CHAINS = {
    "policies-signed": ("illegal_parameter", "more than 32768 bytes of certificates"),
    "many-certificates": ("decode_error", "110 certificates, at most 64"),
    "purposes": ("certificate_unknown",
                 "5000 extended key usages, at most 64 (certificate 0: CN=mallory)"),
    "constraints-signed": ("certificate_unknown",
                           "1000 name constraints, at most 512 (certificate 1: CN=sub)"),
    "wide": ("decrypt_error", "certificate signature failure"),
    "explicit-curve-cas": ("bad_certificate",
                           "Certificate public key has explicit ECC parameters"),
}


@pytest.fixture(scope="module")
def chains(tmp_path_factory):
    """Of tools/bench/hostile.c. root.pem: whose names the chains have."""
    where = tmp_path_factory.mktemp("chains")
    subprocess.run([BUILD / "tools/bench/hostile", "-w", where], check=True, timeout=300)
    return where


def shown(chains, name):
    return types.SimpleNamespace(cert_file=chains / f"{name}.pem", key_file=chains / f"{name}.key")


def both_cas(chains, ours, tmp_path):
    together = tmp_path / "cas.pem"
    together.write_text(ours.cert_file.read_text() + (chains / "root.pem").read_text())
    return together


def cpu_ms(pid):
    """Of the processes below pid and of itself, all threads that are there."""
    tasks = pathlib.Path(f"/proc/{pid}/task")
    children = " ".join(c.read_text() for c in tasks.glob("*/children")).split()
    return (sum(cpu_ms(int(child)) for child in children) +
            sum(int(s.read_text().split()[0]) / 1e6 for s in tasks.glob("*/schedstat")))


@pytest.fixture
def client(pki):
    return pki.client("Somebody Else")


@pytest.fixture
def gate_of_chains(gate, pki, chains, backend, tmp_path):
    return gate(settings(pki, backend.port,
                         profile__front__client_ca=both_cas(chains, pki.client_root, tmp_path)))


@pytest.mark.parametrize("version", peer.VERSIONS)
@pytest.mark.parametrize("name", CHAINS)
def test_client(gate_of_chains, pki, client, chains, name, version):
    g, (alert, text) = gate_of_chains, CHAINS[name]
    with clients.connected(g.port, pki=pki, certkey=client) as other:
        clients.ping(other)
        spent = cpu_ms(g.process.pid)
        with g.ends_with("client_cert_invalid"):
            with clients.connect(g.port, pki=pki, version=version,
                                 certkey=shown(chains, name)) as c:
                assert not (c.handshake() and c.recv())
                assert c.ended == f"alert {alert}"
        assert cpu_ms(g.process.pid) - spent < CPU_MS
        assert g.log_contains(re.escape(f"{text} (client_cert_invalid)"))
        clients.ping(other)


def cut_small(c):
    """Handshake records of c that are not encrypted leave one byte each."""
    whole, encrypted = c._send, []

    def send(data):
        at, small = 0, b""
        while at < len(data):
            head, n = data[at:at + 3], int.from_bytes(data[at + 3:at + 5], "big")
            body = data[at + 5:at + 5 + n]
            if head[0] == peer.HANDSHAKE and not encrypted:
                small += b"".join(head + b"\0\1" + body[k:k + 1] for k in range(n))
            else:
                encrypted.append(head[0])
                small += data[at:at + 5 + n]
            at += 5 + n
        whole(small)

    c._send = send


@pytest.mark.parametrize("version", peer.VERSIONS)
def test_small_records(gate_of_chains, pki, client, chains, version):
    """
    Cut as small as it goes: what is served is served, and a long list of certificates costs in
    proportion to what is sent. In TLS 1.2, where it can be cut, limit.handshake_size ends that.
    """
    g = gate_of_chains
    reason, alert = {"1.2": ("client_handshake_size", "illegal_parameter"),
                     "1.3": ("client_cert_invalid", "decrypt_error")}[version]
    with g.ends_with("client_truncated"):
        with clients.connect(g.port, pki=pki, version=version, certkey=client) as c:
            cut_small(c)
            assert c.handshake(), c.ended
            clients.ping(c)
    spent = cpu_ms(g.process.pid)
    with g.ends_with(reason):
        with clients.connect(g.port, pki=pki, version=version, certkey=shown(chains, "wide")) as c:
            cut_small(c)
            assert not (c.handshake() and c.recv())
            assert c.ended == f"alert {alert}"
    assert cpu_ms(g.process.pid) - spent < CPU_MS


@pytest.mark.parametrize("version", peer.VERSIONS)
@pytest.mark.parametrize("name", ["many-certificates", "purposes"])
def test_backend(gate, pki, client, chains, tmp_path, name, version):
    """The same code judges who answers at a backend's address."""
    alert, text = CHAINS[name]
    with backends.backend(certkey=shown(chains, name), client_ca=pki.forging_root,
                          version=version) as b:
        g = gate(settings(pki, b.port,
                          profile__back__server_ca=both_cas(chains, pki.server_ca, tmp_path)))
        with g.ends_with("backend_cert_invalid"):
            with clients.connect(g.port, pki=pki, certkey=client) as c:
                assert not (c.handshake() and c.recv())
        assert b.connection(0).done.wait(peer.TIMEOUT)
        assert b.connection(0).ended == f"alert {alert}"
        assert g.log_contains(re.escape(text))
