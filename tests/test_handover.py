# SPDX-License-Identifier: Apache-2.0
"""
Data that is there before the relay is: sent by a client whose backend is not ready, by a backend
whose client is not, right behind a Finished. Not a byte of it may stay in a handshake.
"""

import contextlib
import os
import threading

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings

pytestmark = pytest.mark.datapath

FRONT = pytest.mark.parametrize("front", peer.VERSIONS)
BACK = pytest.mark.parametrize("back", peer.VERSIONS)
SIZES = pytest.mark.parametrize("size", [1, 300 << 10])


@pytest.fixture
def flow(gate, pki, tmp_path):
    """flow(...) starts a backend and a gate, and yields (client before its handshake, backend, gate)."""
    @contextlib.contextmanager
    def start(script, front, back, *, reason="done", **options):
        with backends.backend(script, certkey=pki.backend(), client_ca=pki.forging_root,
                              version=back, key_log=tmp_path, **options) as b:
            g = gate(settings(pki, b.port))
            ctx = peer.log_keys(peer.context(False, pki.client(), pki.server_ca, version=front),
                                tmp_path)
            with g.ends_with(reason), g.carries(1), clients.connect(g.port, pki=pki, ctx=ctx) as c:
                yield c, b, g
                assert b.connection().done.wait(peer.TIMEOUT)
    return start


def send_ahead(c, data):
    """
    The client's handshake with data in one segment with its Finished, or, in TLS 1.2, sent before
    the gate's, which has it wait for the backend (False Start).
    """
    if c.tls.context.maximum_version == peer.VERSIONS["1.3"]:
        assert c.handshake(send_with_finished=data), c.ended
        return

    def after_flight(p, n):
        if n == 1:
            p.write_ahead()
            p.send(data)

    assert c.handshake(after_flight=after_flight), c.ended


@FRONT
@BACK
@SIZES
@pytest.mark.parametrize("then", ["stays", "closes", "re-keys"])
def test_client_is_early(flow, can_rekey, front, back, size, then):
    """The backend does not even answer the ClientHello before all of it is on its way."""
    if then == "re-keys" and (not can_rekey or front == "1.2"):
        pytest.skip("TLS 1.2 has no KeyUpdate" if front == "1.2" else "this kernel cannot re-key")
    data, hold = os.urandom(size), threading.Event()
    # A TLS 1.2 client's handshake ends only with the backend's: let go while it waits.
    letting_go = threading.Timer(0.3 * peer.SCALE, hold.set)
    with flow(backends.echo, front, back, hold=hold) as (c, b, g):
        if front == "1.2":
            letting_go.start()
        send_ahead(c, data)
        if then == "re-keys":
            c.key_update()
        more = b"" if then == "closes" else b"and more"
        if more:
            c.send(more)
        else:
            c.close_notify()
            c.fin()
        assert front == "1.2" or g.stats()["flows_established"] == 0
        hold.set()
        assert c.recv_exactly(size + len(more)) == data + more
        if more:
            c.close_notify()
        assert c.recv() == b"" and c.ended == "close_notify"
        assert b.connection().wait().received == size + len(more)


@FRONT
@SIZES
def test_backend_is_early(flow, front, size):
    """
    TLS 1.3: data behind the backend's Finished, which needs nothing of the client's: here that has
    not even answered the gate's first flight.
    """
    data, sent = os.urandom(size), threading.Event()

    def after_flight(p, n):
        if n:
            return
        p.write_ahead()
        p.send(data[:1])
        sent.set()
        p.send(data[1:])

    with flow(backends.echo, front, "1.3", after_flight=after_flight, tickets=0) as (c, b, g):
        def before_flight():
            assert sent.wait(peer.TIMEOUT) and g.stats()["flows_established"] == 0

        assert c.handshake(before_flight), c.ended
        assert c.recv_exactly(size) == data
        c.send(b"answer")
        assert c.recv_exactly(6) == b"answer"
        c.close_notify()
        assert c.recv() == b"" and c.ended == "close_notify"
        assert b.connection().wait().received == 6


@FRONT
def test_both_are_early(flow, front):
    up, down, sent = os.urandom(100000), os.urandom(100000), threading.Event()

    def after_flight(p, n):
        if n == 0:
            p.write_ahead()
            p.send(down)
            sent.set()

    with flow(backends.echo, front, "1.3", after_flight=after_flight, tickets=0) as (c, b, _):
        send_ahead(c, up)
        assert sent.wait(peer.TIMEOUT)
        assert c.recv_exactly(200000) == down + up
        c.close_notify()
        assert c.recv() == b"" and c.ended == "close_notify"
        assert b.connection().wait().received == 100000
