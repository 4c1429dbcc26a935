# SPDX-License-Identifier: Apache-2.0
"""Peers that do not read until they are told, and what they must have received then."""

import contextlib
import hashlib
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from cryptography import x509
from cryptography.x509.oid import NameOID

from . import backend as backends
from . import client as clients
from . import peer
from .daemon import wait_until
from .ports import HOST
from .rig import second_vserver

BLOB = os.urandom(768 << 10)
SIZES = 20 << 10, 100 << 10, 200 << 10  # of those who close: their own kernel can hold it


def take_little(sock):
    """With loopback's segments of 64 KiB the kernel would give the gate megabytes to send into."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)


def slow_reader(port, ctx):
    """A connected client that does not read."""
    sock = socket.socket()
    take_little(sock)
    sock.settimeout(60 * peer.SCALE)
    sock.connect((HOST, port))
    c = peer.Peer(sock, ctx, name=clients.FRONT_NAME, timeout=60 * peer.SCALE)
    assert c.handshake(), c.ended
    return c


def take_much(p):
    p.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)


def at_rest(g):
    """Waits until bytes have stopped moving, in sockets and in pipes or buffers of the gate; how many."""
    moved = []

    def look():
        stats = g.stats()
        moved.append(stats["bytes_from_client"] + stats["bytes_from_backend"])
        return len(moved) > 20 and moved[-1] == moved[-20]

    wait_until(look, 60 * peer.SCALE)
    return moved[-1]


def in_parallel(function, *items, threads=8):
    """function(item, ...) for each, their results; the first failure is raised."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, *items))


class Late:
    """
    As many clients as backends, of_each, that do not read before go is set. Who sends to them has
    half of the time closed by then, FIN and all, the rest goes on later. Both TLS versions at
    either end.
    """

    def __init__(self, stack, pki, of_each=50):
        self.of_each, self.count = of_each, 2 * of_each
        self.pki, self.go, self.closed = pki, threading.Event(), threading.Semaphore(0)
        self.backends = [stack.enter_context(backends.backend(
            self._script, certkey=pki.backend(), client_ca=pki.forging_root, version=v))
            for v in peer.VERSIONS]
        for b in self.backends:
            take_little(b.listener)
        stack.callback(self.go.set)
        self.senders, self.flows, self.vservers = {}, [], []

    def settings(self, name="late"):
        """What a gate needs for them. In TLS 1.2 a flow's end begins soon after one end has closed."""
        self.vservers = [f"{name}{n}" for n in range(len(self.backends))]
        return {"timeout.drain": "10m"} | {
            k: v for name, b in zip(self.vservers, self.backends)
            for k, v in second_vserver(name, b.port).items()}

    def _script(self, seen, p):
        """The client's name says what is to be done."""
        subject = x509.load_der_x509_certificate(seen.certificate).subject
        words = subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value.split()
        p.sock.settimeout(200 * peer.SCALE)
        if words[0] == "backend":
            assert self.go.wait(200 * peer.SCALE)
            take_much(p)
            while data := p.recv():
                seen.take(data)
            p.close_notify()
            with contextlib.suppress(OSError):  # TLS 1.2: the gate may have closed long ago
                p.fin()
        else:
            self._send(p, *words[1:])
            p.recv()

    def _send(self, p, size, closes):
        p.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        p.send(BLOB[:int(size)])
        if closes == "closes":
            p.close_notify()
            p.fin()
            self.closed.release()
            return
        assert self.go.wait(200 * peer.SCALE)
        p.send(BLOB[:1000])
        p.close_notify()
        p.fin()

    def start(self, g, stack):
        """All flows, up to where nothing moves any more; returns how many bytes have by then."""
        before, moved = g.stats()["flows_established"], at_rest(g)
        ports = [g.port_of(name) for name in self.vservers]
        self.flows = in_parallel(lambda n: self._flow(n, ports), range(self.count))
        for c in self.flows:
            stack.callback(c.close)
        for _ in range(self.of_each):
            assert self.closed.acquire(timeout=60 * peer.SCALE)
        assert g.stat_reaches("flows_established", before + self.count, 60 * peer.SCALE)
        after = at_rest(g)
        assert after - moved < sum(len(c.want) for c in self.flows), "nothing is stalled"
        return after

    def _flow(self, n, ports):
        who = "client backend".split()[n % 2]
        closes = "closes" if n // 2 % 2 else "stays"
        size = SIZES[n // 4 % 3] if closes == "closes" else len(BLOB)
        version = list(peer.VERSIONS)[n // 8 % 2]
        ctx = peer.context(False, self.pki.client(f"{who} {size} {closes}"), self.pki.server_ca,
                           version=version)
        c = slow_reader(ports[n // 16 % 2], ctx)
        c.want = BLOB[:size] + (b"" if closes == "closes" else BLOB[:1000])
        if who == "backend":
            c.sock.settimeout(200 * peer.SCALE)
            self.senders[c] = threading.Thread(target=self._send, args=(c, size, closes), daemon=True)
            self.senders[c].start()
        return c

    def finish(self):
        """All read; what arrived everywhere must be what was sent."""
        self.go.set()

        def read_on(c):
            if c in self.senders:
                self.senders[c].join(60 * peer.SCALE)
                return c.recv_all() == b"", c.ended
            take_much(c)
            got = c.recv_all()
            c.close_notify()
            with contextlib.suppress(OSError):
                c.fin()
            return got == c.want, c.ended

        results = in_parallel(read_on, self.flows, threads=self.count)
        assert results == [(True, "close_notify")] * self.count
        seen = [s.wait(60 * peer.SCALE) for b in self.backends for s in b.seen]
        assert [s.ended for s in seen] == ["close_notify"] * self.count
        assert sorted((s.received, s.digest.digest()) for s in seen if s.received) == sorted(
            (len(c.want), hashlib.sha256(c.want).digest()) for c in self.senders)
