# SPDX-License-Identifier: Apache-2.0
"""Many clients at once: established flows go first, handshakes begin one by one."""

import contextlib
import os
import select
import signal
import socket
import ssl
import time

import pytest

from harness import client as clients
from harness.daemon import settings, wait_until
from harness.peer import SCALE
from harness.pki import FRONT_NAME
from harness.ports import HOST
from harness.rig import second_vserver
from test_idle import cost

pytestmark = pytest.mark.datapath

MANY = 300


def client_hello():
    """As OpenSSL says it; nobody follows."""
    out = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname=FRONT_NAME)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


@contextlib.contextmanager
def stopped(g):
    os.kill(g.data_process(), signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(g.data_process(), signal.SIGCONT)


def connect_many(stack, port, say):
    there = [stack.enter_context(clients.tcp(port)) for _ in range(MANY)]
    for s in there:
        s.sendall(say)
    return there


def answered(there):
    return len(select.select(there, [], [], 0)[0])


@pytest.fixture
def mute():
    """A backend that is connected to, and no more; connections() counts them, once."""
    with socket.create_server((HOST, 0), backlog=2 * MANY) as listener:
        yield listener


def connections(listener):
    n = 0
    listener.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            n += 1
    return n


def test_established_flows_go_first(gate, pki, backend, mute):
    """Their messages go back and forth between the handshakes of all who come at once."""
    other = second_vserver("mute", mute.getsockname()[1])
    g = gate({**settings(pki, backend.port, dataplane__workers=1), **other})
    with clients.connected(g.port, pki=pki, certkey=pki.client()) as c, \
            contextlib.ExitStack() as stack:
        clients.ping(c)
        with stopped(g):
            there = connect_many(stack, g.port_of("mute"), client_hello())
        for _ in range(4):
            clients.ping(c)
        assert answered(there) < MANY // 2
        assert wait_until(lambda: answered(there) == MANY, 20 * SCALE)
        assert g.stats()["handshakes_waiting_active"] == 0


def test_who_leaves_while_waiting_costs_no_handshake(gate, pki, mute):
    """Nor the backend a connection."""
    g = gate(settings(pki, mute.getsockname()[1], dataplane__workers=1))
    with contextlib.ExitStack() as stack:
        with stopped(g):
            there = connect_many(stack, g.port, client_hello())
        assert wait_until(lambda: answered(there) or g.stats()["handshakes_waiting_active"], 20)
    assert g.stat_reaches("reason_client_gone", MANY)
    assert connections(mute) < MANY // 2


def test_whose_turn_does_not_come_is_told(gate, pki, mute):
    """It is not the client that was too slow."""
    reason = "overloaded"
    g = gate(settings(pki, mute.getsockname()[1], dataplane__workers=1, timeout__handshake="2s"))
    with contextlib.ExitStack() as stack:
        with stopped(g):
            there = connect_many(stack, g.port, client_hello())
        assert wait_until(lambda: g.stats()["handshakes_waiting_active"], 20)
        with stopped(g):
            time.sleep(2.5)
        assert wait_until(lambda: answered(there) == MANY, 20 * SCALE)
        answers = [s.recv(7) for s in there]
    internal_error = b"\x15\x03\x03\0\2\2\x50"
    assert answers.count(internal_error) == g.stats()[f"reason_{reason}"] > 0
    assert g.log_contains(rf"worker had no time for the client's handshake .*\({reason}\)")


def test_who_says_nothing_costs_no_handshake(gate, pki, backend):
    """An SSL object alone is 20 KiB."""
    g = gate(settings(pki, backend.port, dataplane__workers=1))
    with contextlib.ExitStack() as stack:
        costs = []
        for n in 1, 2:
            connect_many(stack, g.port, b"")
            assert g.stat_reaches("flows_active", n * MANY)
            costs.append(cost(g)[0])
    assert g.sanitized() or costs[1] - costs[0] < 6 * MANY, costs
