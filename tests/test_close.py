# SPDX-License-Identifier: Apache-2.0
"""
The ends of a flow: close_notify, half-close, fatal alerts, truncation and RST are different
things, and stay different on the other side, with every byte sent before them.
"""

import contextlib
import hashlib
import itertools
import os
import socket
import struct
import threading
import time

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings, wait_until
from harness.late import at_rest, in_parallel, slow_reader, take_little

pytestmark = pytest.mark.datapath

BLOB = os.urandom(1 << 20)
EITHER = pytest.mark.parametrize("by", ["client", "backend"])


@pytest.fixture(params=["1.2-1.2", "1.2-1.3", "1.3-1.2", "1.3-1.3"])
def versions(request):
    front, back = request.param.split("-")
    return {"front": front, "back": back}


def received(sender_data, p):
    got = p.recv_all()
    assert len(got) == len(sender_data) and got == sender_data


def test_close_notify_by_client(rig, versions):
    with rig.flow(backends.echo, **versions) as (c, seen):
        c.send(b"ping")
        assert c.recv_exactly(4) == b"ping"
        c.close_notify()
        assert c.recv() == b"" and c.ended == "close_notify"
        c.fin()
        assert c.tcp_end() == "fin"
        assert (seen().wait().ended, seen().tcp_end) == ("close_notify", "fin")


def test_close_notify_by_backend(rig, versions):
    def script(seen, p):
        p.send(BLOB)
        p.close_notify()
        p.fin()
        seen.take(p.recv_all())
        seen.tcp_end = p.tcp_end()

    with rig.flow(script, **versions) as (c, seen):
        received(BLOB, c)
        assert c.ended == "close_notify"
        c.close_notify()
        c.fin()
        assert c.tcp_end() == "fin"
        assert (seen().wait().ended, seen().tcp_end) == ("close_notify", "fin")


@pytest.mark.parametrize("reads", [True, False])
def test_close_in_tls12_meets_bytes(rig, reads):
    """
    TLS 1.2: who closes first has closed both ways, but what still comes is passed on. Bytes that
    it does not take are no orderly end.
    """
    size = 24 << 20

    def script(seen, p):
        assert p.recv() == b"" and p.ended == "close_notify"
        p.send(bytes(size))
        p.close_notify()
        p.fin()

    with rig.flow(script, front="1.2", back="1.2",
                  reason="done" if reads else "half_close_timeout") as (c, _):
        if not reads:
            c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            before = rig.gate.stats()["reason_half_close_timeout"]
        c.close_notify()
        if not reads:
            # 2 s after the last byte that the sockets had room for.
            assert rig.gate.stat_reaches("reason_half_close_timeout", before + 1, 10 * peer.SCALE)
        got = c.recv_all()
        assert c.ended == ("close_notify" if reads else "eof")
        assert len(got) == size if reads else len(got) < size


@pytest.mark.parametrize("back, reads", [("1.2", "at once"), ("1.3", "late")])
def test_late_answer_in_tls12(rig, back, reads):
    """
    A backend that takes its time to answer, or even to read, has two seconds for its own end when
    it has got the client's, though the gate has given its answer long before.
    """
    errors, size = [], 200000  # more than what the backend's kernel takes unread

    def script(seen, p):
        if reads == "at once":
            seen.take(p.recv_all())
        assert wait_until(lambda: not rig.gate.stats()["flows_relaying_active"], 10 * peer.SCALE)
        if reads == "late":
            time.sleep(2.2)
            seen.take(p.recv_all())
            time.sleep(0.3)
        assert p.tcp_end() == "fin"
        p.close_notify()
        time.sleep(0.2)
        errors.append(p.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        p.fin()

    with rig.flow(script, front="1.2", back=back) as (c, seen):
        c.send(BLOB[:size])
        c.close_notify()
        c.fin()
        assert c.recv() == b"" and c.ended == "close_notify"
        assert (seen().wait().ended, seen().received) == ("close_notify", size)
    assert errors == [0], "reset behind the FIN"


def test_half_close_by_client(rig):
    """TLS 1.3: the answer comes after the client has closed its direction, FIN and all."""
    for fin in (False, True):
        def script(seen, p):
            seen.take(p.recv_all())
            time.sleep(0.2)
            p.send(BLOB)
            p.close_notify()
            p.fin()

        with rig.flow(script) as (c, seen):
            c.send(b"the question")
            c.close_notify()
            if fin:
                c.fin()
            received(BLOB, c)
            assert c.ended == "close_notify"
            assert (seen().wait().ended, seen().received) == ("close_notify", 12)
    assert rig.gate.stats()["half_closes"] >= 2


def test_half_close_by_backend(rig):
    """TLS 1.3: the backend has closed its direction and still receives."""
    for fin in (False, True):
        def script(seen, p):
            p.send(b"the question")
            p.close_notify()
            if fin:
                p.fin()
            while data := p.recv():
                seen.take(data)

        with rig.flow(script) as (c, seen):
            assert c.recv_all() == b"the question" and c.ended == "close_notify"
            time.sleep(0.2)
            c.send(BLOB)
            c.close_notify()
            c.fin()
            assert (seen().wait().ended, seen().received) == ("close_notify", len(BLOB))


def test_truncation_by_client(rig, versions):
    with rig.flow(backends.sink, reason="client_truncated", **versions) as (c, seen):
        c.send(BLOB)
        c.fin()
        assert c.recv() == b"" and c.ended != "close_notify"
        assert (seen().wait().ended, seen().received) == ("eof", len(BLOB))


def test_truncation_by_backend(rig, versions):
    def script(_seen, p):
        p.send(BLOB)
        p.fin()
        p.recv()

    with rig.flow(script, reason="backend_truncated", **versions) as (c, _):
        received(BLOB, c)
        assert c.ended == "eof"


@EITHER
def test_truncation_inside_a_record(rig, versions, by):
    """A FIN in the middle of a record: what came before arrives, and no close_notify."""
    half_record = struct.pack(">BHH", 23, 0x0303, 1000) + b"x" * 500

    def cut(p):
        p.send(b"whole")
        p.sock.sendall(half_record)
        p.fin()

    def script(seen, p):
        if by == "backend":
            cut(p)
        while data := p.recv():
            seen.take(data)

    with rig.flow(script, reason=f"{by}_truncated", **versions) as (c, seen):
        if by == "client":
            cut(c)
            assert (seen().wait().ended, seen().received) == ("eof", 5)
        else:
            assert c.recv_all() == b"whole" and c.ended == "eof"


def test_late_answer_with_little_time_to_drain(gate, pki, tmp_path):
    """timeout.drain is for bytes that nobody takes, not for a peer's own end when it has them all."""
    def script(_seen, p):
        p.send(b"last words")
        p.alert(80)

    with backends.backend(script, certkey=pki.backend(), client_ca=pki.forging_root,
                          key_log=tmp_path) as b:
        g = gate(settings(pki, b.port, timeout__drain="1s"))
        with g.ends_with("backend_alert"), clients.connected(
                g.port, pki=pki, certkey=pki.client()) as c:
            assert c.recv_all() == b"last words" and c.ended == "alert internal_error"
            assert c.tcp_end() == "fin"
            time.sleep(1.5)
            c.close_notify()
            time.sleep(0.2)
            assert c.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0, "reset"
            c.fin()
        assert g.stats()["drain_timeouts"] == 0


@EITHER
def test_reset(rig, versions, by):
    def script(seen, p):
        seen.take(p.recv_exactly(4))
        p.send(b"pong")
        if by == "backend":
            p.recv_exactly(4)
            p.rst()
        p.recv()

    with rig.flow(script, reason=f"{by}_reset", **versions) as (c, seen):
        c.send(b"ping")
        assert c.recv_exactly(4) == b"pong"
        if by == "client":
            c.rst()
            assert seen().wait().ended == "rst"
        else:
            c.send(b"now!")
            assert c.recv() == b"" and c.ended == "rst"


@EITHER
@pytest.mark.parametrize("alert, name", [(80, "internal_error"), (49, "access_denied"),
                                         (20, "bad_record_mac")])
def test_fatal_alert(rig, versions, by, alert, name):
    """The other side gets the same alert, after the data that came before it."""
    def script(seen, p):
        if by == "backend":
            p.send(b"last words")
            p.alert(alert)
        while data := p.recv():
            seen.take(data)

    with rig.flow(script, reason=f"{by}_alert", **versions) as (c, seen):
        if by == "client":
            c.send(b"last words")
            c.alert(alert)
            assert (seen().wait().ended, seen().received) == ("alert " + name, 10)
        else:
            assert c.recv_all() == b"last words" and c.ended == "alert " + name


def corrupt_record():
    return struct.pack(">BHH", 23, 0x0303, 100) + os.urandom(100)


@EITHER
def test_corrupt_record(rig, versions, by):
    """bad_record_mac to its sender, internal_error to the other side."""
    def script(_seen, p):
        if by == "backend":
            p.sock.sendall(corrupt_record())
        p.recv_all()

    with rig.flow(script, reason=f"{by}_bad_record", **versions) as (c, seen):
        if by == "client":
            c.sock.sendall(corrupt_record())
        assert c.recv_all() == b""
        ends = c.ended, seen().wait().ended
        mac, internal = "alert bad_record_mac", "alert internal_error"
        assert ends == ((mac, internal) if by == "client" else (internal, mac))


@EITHER
def test_corrupt_record_of_who_does_not_read(gate, pki, by):
    """The gate has records for it that its kernel cannot send yet: they arrive, and then the alert."""
    go = threading.Event()

    def spoil(p):
        p.sock.sendall(corrupt_record())
        time.sleep(1)
        return p.recv_all()

    def script(seen, p):
        if by == "backend":
            assert go.wait(60 * peer.SCALE)
            seen.take(spoil(p))
        else:
            p.send(BLOB)
            p.recv_all()

    with backends.backend(script, certkey=pki.backend(), client_ca=pki.forging_root) as b:
        take_little(b.listener)
        # A record does not go into the kernel's buffer as a whole.
        g = gate(settings(pki, b.port, **{f"socket__{by}__sndbuf": "16K"}))
        with g.ends_with(f"{by}_bad_record"), g.carries(1):
            ctx = peer.context(False, pki.client(), pki.server_ca)
            with contextlib.closing(slow_reader(g.port, ctx)) as c:
                sender = threading.Thread(target=c.send, args=(BLOB,))
                if by == "backend":
                    sender.start()
                at_rest(g)
                if by == "backend":
                    go.set()
                    seen = b.connection().wait()
                    sender.join()
                    got, digest, ended = seen.received, seen.digest.digest(), seen.ended
                else:
                    data = spoil(c)
                    got, digest, ended = len(data), hashlib.sha256(data).digest(), c.ended
    assert ended == "alert bad_record_mac"
    assert 16384 <= got < len(BLOB) and digest == hashlib.sha256(BLOB[:got]).digest()


@contextlib.contextmanager
def filling(gate, pki, by, version=None):
    """
    Flows of which the one end, by, does not read, with more for it from each to the next: (gate,
    senders, readers). In some the kernel has all the gate had to send, a record of which is with
    TCP in part. Which sizes that takes depends on the kernel, so many are tried.
    """
    with contextlib.ExitStack() as stack:
        b = stack.enter_context(backends.held(pki))
        take_little(b.listener)
        g = gate(settings(pki, b.port, **{f"socket__{by}__sndbuf": "16K"}))
        ctx = peer.context(False, pki.client(), pki.server_ca, version=version)
        senders, readers = [], []
        for i, size in enumerate(range(14 << 10, 40 << 10, 1 << 10)):
            client = stack.enter_context(contextlib.closing(slow_reader(g.port, ctx)))
            seen = b.connection(i)
            assert seen.ready.wait(60 * peer.SCALE)
            sender, reader = (seen.peer, client) if by == "client" else (client, seen.peer)
            sender.send(BLOB[:size])
            senders.append(sender)
            readers.append(reader)
        at_rest(g)
        yield g, senders, readers


def read_on(readers, end, before=lambda _reader: None, which=itertools.repeat(True)):
    """How many bytes in all, each flow's the first of BLOB, and then the end; which: with before()."""
    def receive(reader, chosen):
        if chosen:
            before(reader)
        data = reader.recv_all()
        return data == BLOB[:len(data)], reader.ended, len(data)

    got = in_parallel(receive, readers, which, threads=len(readers))
    assert [x[:2] for x in got] == [(True, end)] * len(readers)
    return sum(x[2] for x in got)


@EITHER
def test_corrupt_record_after_the_other_end_has_left(gate, pki, by):
    """The gate only closes by then."""
    def spoil(reader):
        reader.sock.sendall(corrupt_record())
        time.sleep(0.5 * peer.SCALE)  # closing looks ten times a second

    sender = "backend" if by == "client" else "client"
    with filling(gate, pki, by) as (g, senders, readers):
        with g.ends_with(f"{sender}_reset", len(senders)):
            for p in senders:
                p.rst()
            wait_until(lambda: g.stats()["flows_relaying_active"] == 0, 2)
            n = len(senders) - g.stats()["flows_relaying_active"]
            assert n, "none whose gate has given all to its kernel"
            received = read_on(readers, "rst", spoil, [i < n for i in range(len(readers))])
        assert received == g.stats()[f"bytes_from_{sender}"]


def test_truncation_behind_close_notify_in_tls12(gate, pki):
    """
    A client that has closed and reads late, when the gate has given up waiting for more: what the
    backend's FIN has cut off never looks whole.
    """
    with filling(gate, pki, "client", "1.2") as (g, senders, readers):
        for c in readers:
            c.close_notify()
        for p in senders:
            p.fin()
        assert wait_until(lambda: g.stats()["flows_relaying_active"] == 0, 10 * peer.SCALE)
        assert 0 < g.stats()["reason_half_close_timeout"]
        read_on(readers, "eof")


@EITHER
@pytest.mark.parametrize("stalled", ["one", "both"])
def test_both_reset(gate, pki, by, stalled):
    """With bytes stuck on the way to at least one, and nobody left that could take or send any."""
    def fill(p):
        p.sock.settimeout(1 * peer.SCALE)
        with contextlib.suppress(TimeoutError):
            p.send(BLOB)

    with contextlib.ExitStack() as stack:
        b = stack.enter_context(backends.held(pki))
        take_little(b.listener)
        g = gate(settings(pki, b.port, timeout__idle="0"))
        c = stack.enter_context(contextlib.closing(
            slow_reader(g.port, peer.context(False, pki.client(), pki.server_ca))))
        seen = b.connection()
        assert seen.ready.wait(60 * peer.SCALE)
        first, last = (c, seen.peer) if by == "client" else (seen.peer, c)
        for p in (first, last) if stalled == "both" else (first,):
            fill(p)
        at_rest(g)
        first.rst()
        time.sleep(0.2 * peer.SCALE)
        if stalled == "one":
            last.send(b"is anybody there?")
            time.sleep(0.2 * peer.SCALE)
        last.rst()
        assert g.stat_reaches("flows_closed", 1, 10 * peer.SCALE), g.ctl("flows")
        stats = g.stats()
        assert stats["reason_client_reset"] + stats["reason_backend_reset"] == 1


@EITHER
@pytest.mark.parametrize("size", [1, 24 << 10, 1 << 20])
def test_last_bytes_before_close_are_not_lost(rig, versions, by, size):
    """Data, close_notify and FIN at once, to a side that reads late: the buffers are full then."""
    def finish(p):
        p.send(BLOB[:size])
        p.close_notify()
        p.fin()

    def script(seen, p):
        if by == "backend":
            finish(p)
        else:
            time.sleep(0.2)
        while data := p.recv():
            seen.take(data)
        if by == "client":
            p.close_notify()
            p.fin()

    with rig.flow(script, **versions) as (c, seen):
        if by == "client":
            finish(c)
            c.recv()
            assert (seen().wait().ended, seen().received) == ("close_notify", size)
        else:
            time.sleep(0.2)
            received(BLOB[:size], c)
            assert c.ended == "close_notify"
            c.close_notify()


def test_both_close_at_once(rig, versions):
    def script(seen, p):
        seen.take(p.recv_exactly(4))
        p.close_notify()
        p.recv()
        p.fin()

    with rig.flow(script, **versions) as (c, seen):
        c.send(b"ping")
        c.close_notify()
        assert c.recv() == b"" and c.ended == "close_notify"
        c.fin()
        assert (seen().wait().ended, seen().received) == ("close_notify", 4)


def test_idle_flow_is_ended(gate, pki):
    """timeout.idle: user_canceled is told to both, then close_notify or FIN."""
    with backends.backend(backends.sink, certkey=pki.backend(), client_ca=pki.forging_root) as b:
        g = gate(settings(pki, b.port, timeout__idle="1s"))
        with g.ends_with("idle_timeout"), clients.connected(
                g.port, pki=pki, certkey=pki.client()) as c:
            started = time.monotonic()
            assert c.recv() == b"" and c.ended
            assert 0.8 < time.monotonic() - started < 4 * peer.SCALE
            assert b.connection().wait().ended
