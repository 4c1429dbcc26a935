# SPDX-License-Identifier: Apache-2.0
"""Several services of a vserver: who gets a connection, and what happens when one does not answer."""

import collections
import contextlib
import re
import socket
import time

import pytest

from harness import backend as backends
from harness import client as clients
from harness.daemon import settings
from harness.pki import BACK_NAME
from harness.ports import HOST, free_port


@pytest.fixture
def pool(pki):
    """pool(n) starts n backends that say which one they are."""
    with contextlib.ExitStack() as stack:
        def start(n, **options):
            def named(i):
                def script(seen, p):
                    p.send(b"%d" % i)
                    backends.echo(seen, p)
                return script
            return [stack.enter_context(backends.backend(
                named(i), certkey=pki.backend(), client_ca=pki.forging_root, **options))
                for i in range(n)]
        yield start


def several(pki, ports, *, each=None, **changes):
    """Settings of a vserver with a service s0, s1, ... for each port, or address; each: more of them."""
    conf = settings(pki, 1, **changes)
    for key in [key for key in conf if key.startswith("service.app1.")]:
        del conf[key]
    conf["vserver.app.service"] = " ".join(f"s{i}" for i in range(len(ports)))
    for i, port in enumerate(ports):
        conf[f"service.s{i}.address"] = port if isinstance(port, str) else f"{HOST}:{port}"
        conf[f"service.s{i}.server_name"] = BACK_NAME
        conf[f"service.s{i}.profile"] = "back"
        for key, value in (each or {}).items():
            conf[f"service.s{i}.{key}"] = value
    conf["dataplane.workers"] = 1  # each worker has turns of its own
    return conf


@contextlib.contextmanager
def served(g, pki, **options):
    """A connection, and the number of the backend that has it."""
    with clients.connected(g.port, pki=pki, certkey=pki.client(), **options) as c:
        yield int(c.recv_exactly(1))


def who_serves(g, pki, n):
    """The backend of each of n connections, one after the other."""
    found = []
    for _ in range(n):
        with served(g, pki) as who:
            found.append(who)
    return found


# ---- balancing ----


def test_turns_by_weight(gate, pki, pool):
    g = gate(several(pki, [b.port for b in pool(3)], service__s0__weight=3))
    assert collections.Counter(who_serves(g, pki, 10)) == {0: 6, 1: 2, 2: 2}
    assert g.ctl("vserver.app.service") == "vserver.app.service = s0 s1 s2\n"


def test_least_connections(gate, pki, pool):
    g = gate(several(pki, [b.port for b in pool(3)], vserver__app__balance="least-connections"))
    with contextlib.ExitStack() as stack:
        open_now = [stack.enter_context(contextlib.ExitStack()) for _ in range(6)]
        who = [s.enter_context(served(g, pki)) for s in open_now]
        assert collections.Counter(who) == {0: 2, 1: 2, 2: 2}
        before = g.stats()["flows_closed"]
        for s, w in zip(open_now, who):
            if w == 1:
                s.close()
        assert g.stat_reaches("flows_closed", before + 2)
        with served(g, pki) as a, served(g, pki) as b:
            assert (a, b) == (1, 1)


def test_source_hash(gate, pki, pool):
    """One client, one service; when that one is gone, one other."""
    some = pool(3)
    g = gate(several(pki, [b.port for b in some], vserver__app__balance="source-hash"))
    home = who_serves(g, pki, 4)
    assert len(set(home)) == 1
    some[home[0]].stop()
    refuge = who_serves(g, pki, 4)
    assert len(set(refuge)) == 1 and refuge[0] != home[0]


def test_backup(gate, pki, pool):
    some = pool(3)
    g = gate(several(pki, [b.port for b in some], service__s0__backup="on"))
    assert collections.Counter(who_serves(g, pki, 4)) == {1: 2, 2: 2}
    some[1].stop()
    assert set(who_serves(g, pki, 4)) == {2}
    some[2].stop()
    assert set(who_serves(g, pki, 2)) == {0}


# ---- a service that does not answer ----


def reset_at_once(_seen, sock):
    backends.peer.linger_zero(sock)


@contextlib.contextmanager
def out_of_order(how):
    """The address of a service that fails so."""
    if how == "refused":
        yield free_port()
    elif how == "unreachable":  # as in test_failures.py: not a packet leaves
        yield "255.255.255.255:443"
    elif how == "no_answer":
        with backends.unaccepting() as port:
            yield port
    else:
        script = {"fin": backends.close_at_once, "rst": reset_at_once,
                  "fin_behind_hello": backends.close_in_handshake, "mute": backends.silent}[how]
        with backends.backend(tcp_script=script) as b:
            yield b.port


@pytest.mark.parametrize("connect", ["early", "verified"])
@pytest.mark.parametrize("how, counter", [
    ("refused", "connect_refused"), ("unreachable", "connect_failed"),
    ("no_answer", "connect_timeout"), ("fin", "gone"), ("rst", "gone"),
    ("fin_behind_hello", "gone"), ("mute", "timeout")])
def test_failed_connect_goes_elsewhere(gate, pki, pool, how, counter, connect):
    """The client notices nothing; it is counted by reason and logged once."""
    with out_of_order(how) as broken:
        g = gate(several(pki, [broken, pool(1)[0].port], each={"connect": connect},
                         timeout__connect="1s", timeout__backend_handshake="1s"))
        with g.ends_with("done", 2):
            for _ in range(2):  # whose turn it is, is known
                with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
                    assert c.recv_exactly(1) == b"0"
                    c.send(b"hello")
                    assert c.recv_exactly(5) == b"hello"
                    c.close_notify()
                    c.fin()
                    assert not c.recv()
        stats = g.stats()
        assert {n: v for n, v in stats.items() if n.startswith("retries_") and v} == {
            f"retries_{counter}": 1}
        assert len(re.findall(r"warning: service s0: ", g.log())) == 1, g.log()


def test_all_refuse(gate, pki):
    """As many as vserver.retries allows are tried, then the client is told."""
    for retries, tried in ((0, 1), (1, 2), (9, 4)):
        g = gate(several(pki, [free_port() for _ in range(4)], vserver__app__retries=retries))
        with g.ends_with("backend_connect_refused"):
            with clients.connect(g.port, pki=pki, certkey=pki.client()) as c:
                assert not (c.handshake() and c.recv())
                assert c.ended == "alert internal_error"
        assert g.stats()["retries_connect_refused"] == tried - 1
        assert len(re.findall(r"warning: service s\d: ", g.log())) == tried


def test_client_leaves_while_services_are_tried(gate, pki):
    """No completion comes to a flow that is no more."""
    with backends.unaccepting() as one, backends.backend(tcp_script=backends.silent) as other:
        g = gate(several(pki, [one, other.port, one], timeout__connect="1s",
                         timeout__backend_handshake="1s", vserver__app__retries=9))
        started = time.monotonic()
        for delay in (0.99, 1.0, 1.01, 1.99, 2.0, 2.01):
            with socket.create_connection((HOST, g.port)) as s:
                ctx = backends.peer.context(False, pki.client(), pki.server_ca)
                p = backends.peer.Peer(s, ctx, name="front.example", timeout=delay)
                with contextlib.suppress(TimeoutError):
                    p.handshake()
        assert time.monotonic() - started < 20
        assert g.stat_reaches("flows_closed", 6, 10)
        assert g.stats()["flows_active"] == 0
