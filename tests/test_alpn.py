# SPDX-License-Identifier: Apache-2.0
"""Application protocols (RFC 7301): a list of ours, or what the backend chooses, on both sides."""

import itertools
import threading

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings
from harness.ports import free_port
from harness.rig import second_vserver

pytestmark = pytest.mark.datapath

VERSIONS = pytest.mark.parametrize("front,back", list(itertools.product(peer.VERSIONS, repeat=2)))


@pytest.fixture(scope="module")
def backs(pki):
    """A backend by TLS version; its protocols are to be set by each test."""
    made = {v: backends.Backend(certkey=pki.backend(), client_ca=pki.forging_root, version=v)
            for v in peer.VERSIONS}
    yield made
    for b in made.values():
        b.stop()


@pytest.fixture(scope="module")
def alpn_gate(module_gate, pki, backs):
    """Vservers mirror-1.2, mirror-1.3, list-1.2 and list-1.3, by the backend's version."""
    conf = settings(pki, backs["1.3"].port, profile__mirror__alpn="mirror",
                    profile__list__alpn="h2  http/1.1")
    for kind, version in itertools.product(("mirror", "list"), peer.VERSIONS):
        conf[f"profile.{kind}.client_auth"] = "mandatory"
        conf[f"profile.{kind}.client_ca"] = pki.client_root.cert_file
        conf.update(second_vserver(f"{kind}-{version[-1]}", backs[version].port, front=kind))
    return module_gate(conf)


def protocols(b, names):
    b.ctx.set_alpn_protocols(names or [])


def offering(pki, names, version=None):
    return peer.context(False, pki.client(), pki.server_ca, version=version, alpn=names)


def check_flow(gate, pki, b, port, ctx, chosen, at_backend):
    n = len(b.seen)
    with gate.ends_with("done"), gate.carries(1):
        with clients.connected(port, pki=pki, ctx=ctx) as c:
            c.send(b"hello")
            assert c.recv_exactly(5) == b"hello"
            assert c.tls.selected_alpn_protocol() == chosen
            seen = b.connection(n)
            assert seen.peer.tls.selected_alpn_protocol() == at_backend
            assert seen.certificate
            assert [f["alpn"] for f in gate.flows() if f["stage"] == "relay"] == [chosen or ""]
            c.close_notify()
            assert c.recv() == b""
        assert seen.done.wait(peer.TIMEOUT)


@VERSIONS
@pytest.mark.parametrize("client,backend,chosen", [
    (["h2", "http/1.1"], ["http/1.1", "imap"], "http/1.1"),
    (["h2", "http/1.1"], ["h2", "http/1.1"], "h2"),
    (["x" * 255], ["x" * 255], "x" * 255),
    (["h2", "http/1.1"], [], None),  # it does not know ALPN
    (["h2"], ["imap"], None),  # what Python does without a common one
    ([], ["h2"], None),
])
def test_mirror(alpn_gate, pki, backs, front, back, client, backend, chosen):
    b = backs[back]
    protocols(b, backend)
    shown = chosen and chosen[:23]
    n = len(b.seen)
    with alpn_gate.ends_with("done"), alpn_gate.carries(1):
        with clients.connected(alpn_gate.port_of(f"mirror-{back[-1]}"), pki=pki,
                               ctx=offering(pki, client, front)) as c:
            c.send(b"hello")
            assert c.recv_exactly(5) == b"hello"
            seen = b.connection(n)
            assert c.tls.selected_alpn_protocol() == chosen
            assert seen.peer.tls.selected_alpn_protocol() == chosen
            assert seen.certificate
            assert [f["alpn"] for f in alpn_gate.flows() if f["stage"] == "relay"] == [shown or ""]
            c.close_notify()
            assert c.recv() == b""
    if chosen:
        assert alpn_gate.log_contains(f", alpn {shown}$")


@VERSIONS
@pytest.mark.parametrize("client,backend,chosen,at_backend", [
    (["http/1.1", "h2"], ["http/1.1", "h2"], "h2", "h2"),  # our order, and only that is offered
    (["http/1.1"], ["h2", "http/1.1"], "http/1.1", "http/1.1"),
    (["h2"], [], "h2", None),  # a backend that does not know ALPN
    ([], ["h2"], None, None),
])
def test_list(alpn_gate, pki, backs, front, back, client, backend, chosen, at_backend):
    b = backs[back]
    protocols(b, backend)
    check_flow(alpn_gate, pki, b, alpn_gate.port_of(f"list-{back[-1]}"),
               offering(pki, client, front), chosen, at_backend)


@pytest.mark.parametrize("version", peer.VERSIONS)
def test_list_without_a_common_one(alpn_gate, pki, backs, version):
    """The client is told, and no backend is connected for it."""
    n = len(backs["1.3"].seen)
    with alpn_gate.ends_with("client_alpn"):
        with clients.connect(alpn_gate.port_of("list-3"), pki=pki,
                             ctx=offering(pki, ["imap", "pop3"], version)) as c:
            assert not c.handshake()
            assert c.ended == "alert no_application_protocol"
    assert alpn_gate.log_contains(r": imap pop3 \(client_alpn\)$")
    assert len(backs["1.3"].seen) == n


@pytest.mark.parametrize("version", peer.VERSIONS)
def test_mirror_without_a_common_one(gate, pki, tmp_path, version):
    """OpenSSL's server refuses then; its alert is the client's, inside its handshake."""
    port = free_port()
    with backends.s_server(port, log=tmp_path / "log", certkey=pki.backend(),
                           client_ca=pki.forging_root, args=("-rev", "-alpn", "h2")):
        g = gate(settings(pki, port, profile__front__alpn="mirror"))
        with g.ends_with("backend_alpn"):
            with clients.connect(g.port, pki=pki, ctx=offering(pki, ["imap"], version)) as c:
                assert not c.handshake()
                assert c.ended == "alert no_application_protocol"


@pytest.mark.parametrize("version", peer.VERSIONS)
def test_mirror_without_a_backend(gate, pki, version):
    """The client waits at its ClientHello; it hears of the failure there."""
    g = gate(settings(pki, free_port(), profile__front__alpn="mirror"))
    with g.ends_with("backend_connect_refused"):
        with clients.connect(g.port, pki=pki, ctx=offering(pki, ["h2"], version)) as c:
            assert not c.handshake()
            assert c.ended == "alert internal_error"


@pytest.mark.parametrize("again,reason", [(["h2"], "done"), (["http/1.1"], "backend_alpn"),
                                          ([], "backend_alpn")])
def test_backend_changes_its_mind(gate, pki, again, reason):
    """
    It gives up while the client looks for its PIN, and is connected anew: the client was told a
    protocol by then, and no other will do.
    """
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root,
                          handshake_timeout=0.7) as b:
        protocols(b, ["h2", "http/1.1"])
        g = gate(settings(pki, b.port, profile__front__alpn="mirror"))
        waited = threading.Event()

        def wait_for_backend():
            if not waited.is_set():
                assert b.connection(0).done.wait(peer.TIMEOUT)
                b.handshake_timeout = peer.TIMEOUT
                protocols(b, again)
                waited.set()

        with g.ends_with(reason):
            with clients.connect(g.port, pki=pki, ctx=offering(pki, ["h2", "http/1.1"])) as c:
                assert c.handshake(wait_for_backend)
                c.send(b"hello")
                if reason == "done":
                    assert c.recv_exactly(5) == b"hello"
                    c.close_notify()
                assert c.recv() == b""
        assert b.connection(1).certificate if reason == "done" else c.ended == (
            "alert no_application_protocol")


def test_curl_and_nginx(gate, pki, tmp_path):
    """HTTP/2 end to end: nginx chooses, curl is told."""
    server = backends.Nginx(tmp_path / "nginx")
    port = server.server(certkey=pki.backend(), client_ca=pki.forging_root, http2=True)
    with server.run():
        g = gate(settings(pki, port, profile__front__alpn="mirror"))
        with g.carries(1):
            r = clients.curl(g.port, "/cert", pki=pki, certkey=pki.client(), args=("-v", "--http2"))
        assert b"HTTP/2 200" in r.stderr, r.stderr.decode()
        assert b"verify: SUCCESS" in r.stdout
        with g.carries(1):
            r = clients.curl(g.port, "/cert", pki=pki, certkey=pki.client(),
                             args=("-v", "--http1.1"))
        assert b"HTTP/1.1 200" in r.stderr and b"verify: SUCCESS" in r.stdout
