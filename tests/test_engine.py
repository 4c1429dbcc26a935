# SPDX-License-Identifier: Apache-2.0
"""
Which engine carries a flow, and what happens where the kernel refuses: at the start, a cipher, a
socket, or keys in the middle of the hand-over.
"""

import errno
import re

import pytest

from harness import backend as backends
from harness import client as clients
from harness import daemon, peer
from harness.daemon import settings
from harness.fault import ALWAYS, CHACHA20, Fault
from harness.rig import second_vserver

pytestmark = pytest.mark.datapath

VERSION = pytest.mark.parametrize("version", peer.VERSIONS)
NO_KTLS = r"this kernel has no kernel TLS .*: bytes are relayed in user space"


@pytest.fixture(scope="module")
def has_ktls():
    return daemon.probe()["tls_ulp"][0] == "yes"


@pytest.fixture
def ktls(has_ktls):
    """For tests of what only a kernel with kernel TLS can refuse."""
    if not has_ktls:
        pytest.skip("this kernel has no kTLS")


@pytest.fixture
def fault(tmp_path):
    return Fault(tmp_path / "fault")


@pytest.fixture
def start(gate, pki, backend):
    """start(engine): a gate in front of backend, whatever engine the other tests run with."""
    def start(engine, backend=backend, **options):
        g = gate(settings(pki, backend.port, dataplane__engine=engine), **options)
        g.engine = engine
        return g
    return start


def exchange(g, pki, engine, because=None, port=None, **options):
    """One good flow: engine carries it, and that counter of user_because_* tells why."""
    g.engine, before = engine, g.stats()
    with g.ends_with("done"), g.carries(1), clients.connected(
            port or g.port, pki=pki, certkey=pki.client(), **options) as c:
        c.send(b"hello" * 10000)
        assert c.recv_exactly(50000) == b"hello" * 10000
        c.close_notify()
        assert c.recv() == b"" and c.ended == "close_notify"
    after = g.stats()
    grown = {n: after[n] - before[n] for n in after
             if n.startswith("user_because_") and after[n] != before[n]}
    assert grown == ({because: 1} if because else {})


def refused(g, pki, backend, reason, *, told=("internal_error", "internal_error"), **options):
    """One flow that is not handed over: its reason, and the alerts its peers saw."""
    n, before = len(backend.seen), g.stats()
    with g.ends_with(reason), clients.connect(
            g.port, pki=pki, certkey=pki.client(), **options) as c:
        assert not (c.handshake() and c.recv())
        assert c.ended == "alert " + told[0]
    assert backend.connection(n).wait().ended == (told[1] and "alert " + told[1] or "eof")
    after = g.stats()
    assert after["flows_established"] == before["flows_established"]


# ---- at the start ----


def test_auto(start, pki, has_ktls):
    """The kernel where it can, else the user engine: counted for each flow, and said once."""
    g = start("auto")
    for _ in range(2):
        if has_ktls:
            exchange(g, pki, "ktls")
        else:
            exchange(g, pki, "user", "user_because_no_ktls")
    assert len(re.findall(NO_KTLS, g.log())) == (0 if has_ktls else 1), g.log()
    assert g.log_contains("ready, .*engine " + ("ktls" if has_ktls else "user"))


def test_auto_without_ktls(start, pki, fault):
    """In guests too."""
    fault.arm("attach", errno.ENOENT, times=ALWAYS)
    g = start("auto", fault=fault)
    exchange(g, pki, "user", "user_because_no_ktls")
    assert len(re.findall(NO_KTLS, g.log())) == 1, g.log()


def test_user_as_configured(start, pki):
    g = start("user")
    exchange(g, pki, "user", "user_because_configured")
    assert "kernel TLS" not in g.log()


def test_ktls_without_ktls(pki, tmp_path, fault):
    """dataplane.engine = ktls: no start without it, and one line that says what to do."""
    fault.arm("attach", errno.ENOENT, times=ALWAYS)
    g = daemon.Ktlsgated(tmp_path / "gate", pki, "ktls", settings(pki, 9443), fault=fault)
    with pytest.raises(AssertionError, match="not ready"):
        g.start()
    assert g.process.wait(10) == 1
    assert re.search(r"error: dataplane\.engine = ktls, but .*No such file.*modprobe tls", g.log())
    g.process = None


# ---- a cipher ----


@pytest.mark.usefixtures("ktls")
def test_auto_without_a_cipher(start, pki, fault):
    """Flow by flow: the others stay in the kernel."""
    fault.arm("tx_keys", errno.ENOENT, cipher=CHACHA20, times=ALWAYS)
    g = start("auto", fault=fault)
    exchange(g, pki, "user", "user_because_cipher", version="1.2", cipher="CHACHA20")
    exchange(g, pki, "ktls", version="1.2", cipher="AES128-GCM")
    assert not re.search(NO_KTLS, g.log())


@pytest.mark.usefixtures("ktls")
def test_ktls_without_a_cipher(start, pki, backend, fault):
    fault.arm("tx_keys", errno.ENOENT, cipher=CHACHA20, times=ALWAYS)
    g = start("ktls", fault=fault)
    # As in test_failures.never_authenticated(): TLS 1.3 peers do not tell of user_canceled.
    refused(g, pki, backend, "engine_refused", told=("internal_error", None), version="1.2",
            cipher="CHACHA20")
    exchange(g, pki, "ktls", version="1.2", cipher="AES128-GCM")


@pytest.mark.usefixtures("ktls")
def test_backends_cipher_is_missing(start, pki, fault):
    """The client's side alone could stay in the kernel; half a flow never does."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, version="1.2",
                          cipher="CHACHA20") as b:
        fault.arm("tx_keys", errno.ENOENT, cipher=CHACHA20, times=ALWAYS)
        g = start("auto", fault=fault, backend=b)
        exchange(g, pki, "user", "user_because_cipher", version="1.3")
        g = start("ktls", fault=fault, backend=b)
        refused(g, pki, b, "engine_refused", told=("internal_error", "user_canceled"), version="1.3")


@pytest.mark.usefixtures("ktls")
@pytest.mark.parametrize("front, back", [("1.2", "1.3"), ("1.3", "1.2"), ("1.3", "1.3")])
def test_version_is_missing(start, pki, fault, front, back):
    """On either side, or both; flows without it stay in the kernel."""
    # The start tries three ciphers of TLS 1.2, then those of TLS 1.3.
    options = {"certkey": pki.backend(), "client_ca": pki.forging_root}
    with backends.backend(**options, version=back) as b, \
            backends.backend(**options, version="1.2") as old:
        fault.arm("tx_keys", errno.EINVAL, skip=3, times=3)
        g = start("auto", fault=fault, backend=b,
                  **second_vserver("old", old.port))
        assert not fault.left()
        exchange(g, pki, "user", "user_because_cipher", version=front)
        exchange(g, pki, "ktls", port=g.port_of("old"), version="1.2")


# ---- a socket ----


@pytest.mark.usefixtures("ktls")
@pytest.mark.parametrize("side", [0, 1], ids=["client", "backend"])
def test_socket_without_ulp(start, pki, backend, fault, side):
    g = start("auto", fault=fault)
    fault.arm("attach", errno.ENOMEM, skip=side)
    exchange(g, pki, "user", "user_because_install")
    assert not fault.left()
    exchange(g, pki, "ktls")
    g = start("ktls", fault=fault)
    fault.arm("attach", errno.ENOMEM, skip=side)
    refused(g, pki, backend, "engine_refused", told=("internal_error", None))
    exchange(g, pki, "ktls")


# ---- keys ----


@pytest.mark.usefixtures("ktls")
@VERSION
def test_keys_refused_before_any_is_there(start, pki, backend, fault, version):
    """The kernel itself says no: the socket is none the worse, and the user engine takes it."""
    g = start("auto", fault=fault)
    fault.arm("tx_keys")
    exchange(g, pki, "user", "user_because_install", version=version)
    assert not fault.left() and g.log_contains("the kernel took no keys .*: relayed in user space")
    exchange(g, pki, "ktls", version=version)
    g = start("ktls", fault=fault)
    fault.arm("tx_keys")
    refused(g, pki, backend, "engine_failed", version=version)


@pytest.mark.usefixtures("ktls")
@pytest.mark.parametrize("call, skip", [("rx_keys", 0), ("tx_keys", 1), ("rx_keys", 1)],
                         ids=["client rx", "backend tx", "backend rx"])
@VERSION
def test_keys_refused_in_between(gate, pki, fault, version, call, skip):
    """Too late for another engine; both are told, by the kernel where it has the key."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, version=version) as b:
        g = gate(settings(pki, b.port, dataplane__engine="auto"), fault=fault)
        fault.arm(call, skip=skip)
        refused(g, pki, b, "engine_failed", version=version)
        assert not fault.left()


# ---- a socket in the relay ----


@pytest.mark.parametrize("error, reason", [(errno.EIO, "io_error"), (errno.ENOBUFS, "no_memory")])
@VERSION
def test_read_fails(gate, pki, fault, error, reason, version):
    """Neither peer's fault, and no clean end for either."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, version=version) as b:
        g = gate(settings(pki, b.port), fault=fault)
        with g.ends_with(reason), g.carries(1), clients.connected(
                g.port, pki=pki, certkey=pki.client(), version=version) as c:
            c.send(b"hello")
            assert c.recv_exactly(5) == b"hello"
            fault.arm("read", error)
            c.send(b"hello")
            assert c.recv() == b"" and c.ended == "alert internal_error"
        assert b.connection().wait().ended == "alert internal_error"
        assert not fault.left()


@VERSION
def test_copy(ktls, gate, pki, backend, version):
    """dataplane.relay = copy: the kernel's record layer, and plaintext that comes to user space."""
    blob = bytes(range(256)) * 4096 * 3
    with backends.backend(backends.echo, certkey=pki.backend(), client_ca=pki.forging_root,
                          version=version) as b:
        g = gate(settings(pki, b.port, dataplane__relay="copy"))
        with g.ends_with("done"), g.carries(1), clients.connected(
                g.port, pki=pki, certkey=pki.client(), version=version) as c:
            got = bytearray()
            c.duplex([blob[i:i + 50000] for i in range(0, len(blob), 50000)], got.extend)
            assert got == blob and c.ended == "close_notify"
        assert g.stats()["reads_copied"] > 0
        assert g.stats()["pipes_active"] == 0
