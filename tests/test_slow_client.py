# SPDX-License-Identifier: Apache-2.0
"""
A client that takes long over its certificate (a person types a smart card's PIN) while the backend
gives up: the backend is connected anew, and neither side notices.
"""

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings

pytestmark = pytest.mark.datapath


def type_pin(gate, pki, *, client_takes, backend_waits, front="1.3", back="1.3", reset=False):
    certkey = pki.client()
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, version=back,
                          handshake_timeout=backend_waits, reset_on_timeout=reset) as b:
        g = gate(settings(pki, b.port))
        with g.ends_with("done"), g.carries(1), clients.connect(
                g.port, pki=pki, certkey=certkey, version=front,
                timeout=client_takes + peer.TIMEOUT) as c:
            assert c.handshake(before_flight=lambda: peer.time.sleep(client_takes)), c.ended
            c.send(b"hello")
            assert c.recv_exactly(5) == b"hello"
            c.close_notify()
            assert c.recv() == b"" and c.ended == "close_notify"
        reconnects = g.stats()["backend_reconnects"]
        assert reconnects == len(b.seen) - 1 >= 1
        assert [s.ended for s in b.seen[:-1]] == ["timeout"] * reconnects
        last = b.seen[-1].wait()
        assert last.handshake and last.received == 5


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("back", peer.VERSIONS)
@pytest.mark.parametrize("front", peer.VERSIONS)
def test_backend_gives_up_meanwhile(gate, pki, front, back, reset):
    type_pin(gate, pki, client_takes=3, backend_waits=1, front=front, back=back, reset=reset)


def test_backend_does_not_ask_again(gate, pki):
    """What the lost connection asked for does not count for the one that there is."""
    def gives_up():
        b.connection().wait()
        b.ctx.verify_mode = peer.ssl.CERT_NONE

    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root,
                          handshake_timeout=0.3) as b:
        g = gate(settings(pki, b.port, profile__back__require_certificate_request="on"))
        with g.ends_with("backend_no_certificate_request"), clients.connect(
                g.port, pki=pki, certkey=pki.client()) as c:
            assert not (c.handshake(before_flight=gives_up) and c.recv())
            assert c.ended == "alert handshake_failure"
        assert g.stats()["backend_reconnects"] == 1


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_minute(gate, pki):
    """Full length: 60 s against 10 s."""
    type_pin(gate, pki, client_takes=60, backend_waits=10)


def test_backend_does_not_come_back(gate, pki):
    """Given up and gone: the client is told when it is ready."""
    b = backends.Backend(certkey=pki.backend(), client_ca=pki.forging_root, handshake_timeout=0.3)
    g = gate(settings(pki, b.port))

    def backend_goes():
        b.connection()
        b.stop()
        b.connection().wait()

    with g.ends_with("backend_connect_refused"), clients.connect(
            g.port, pki=pki, certkey=pki.client()) as c:
        assert not (c.handshake(before_flight=backend_goes) and c.recv())
        assert c.ended == "alert internal_error"
