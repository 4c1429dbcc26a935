# SPDX-License-Identifier: Apache-2.0
"""
Peers that do not read: everybody else is still served, and once they read no byte is missing. How
long the others wait meanwhile is measured by tools/bench/stalled.
"""

import contextlib
import hashlib
import os
import pwd
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings, wait_until
from harness.ports import HOST
from harness.rig import second_vserver

pytestmark = [pytest.mark.datapath, pytest.mark.timeout(240)]

# As many as the default limit has pipes, twice over. The guest is slow: fewer flows under
# a limit as much lower, unless told otherwise.
FLOWS = int(os.environ.get("KTLSGATE_STALLED", "150" if peer.SCALE > 1 else "2000"))
# The kernel's default of fs.pipe-user-pages-soft for 2000 flows.
PIPE_PAGES = 16384 * min(FLOWS, 2000) // 2000
BLOB = os.urandom(768 << 10)


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


def in_parallel(function, items, threads=8):
    """function(item) for each, their results; the first failure is raised."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can let the gate become another user")
def test_stalled_flows(gate, pki, pipe_pages):
    pipe_pages(PIPE_PAGES)

    def script(seen, p):
        subject = x509.load_der_x509_certificate(seen.certificate).subject
        if "quick" in subject.rfc4514_string():
            return backends.echo(seen, p)
        p.sock.settimeout(200 * peer.SCALE)
        p.send(BLOB)
        p.close_notify()
        return p.recv()

    with contextlib.ExitStack() as stack:
        b = stack.enter_context(backends.backend(
            script, certkey=pki.backend(), client_ca=pki.forging_root))
        g = gate(settings(pki, b.port, dataplane__user="nobody", timeout__handshake="5m",
                          timeout__backend_handshake="5m"))
        nobody = pwd.getpwnam("nobody").pw_uid
        owners = {os.stat(f"/proc/{pid}").st_uid for pid in g.processes()}
        assert nobody in owners
        ctx = peer.context(False, pki.client("slow"), pki.server_ca)
        stalled = in_parallel(lambda _: slow_reader(g.port, ctx), range(FLOWS))
        for c in stalled:
            stack.callback(c.close)
        assert g.stat_reaches("flows_relaying_active", FLOWS, 60 * peer.SCALE)
        assert at_rest(g) < FLOWS * len(BLOB), "nothing is stalled: the blob fits into the sockets"

        with clients.connected(g.port, pki=pki, certkey=pki.client("quick")) as quick:
            for n in range(20):
                quick.send(b"%05d" % n * 1000)
                assert quick.recv_exactly(5000) == b"%05d" % n * 1000

        def read_on(c):
            take_much(c)
            return c.recv_all() == BLOB, c.ended

        results = in_parallel(read_on, stalled)
        assert results == [(True, "close_notify")] * FLOWS


QUICK = 20
LATE = 50  # of each kind
SIZES = 20 << 10, 100 << 10, 200 << 10  # of those who close: their own kernel can hold it


class Late:
    """
    LATE clients and LATE backends that do not read before go is set. Who sends to them has half of
    the time closed by then, FIN and all, the rest goes on later. Both TLS versions at either end.
    """

    def __init__(self, stack, pki):
        self.pki, self.go, self.closed = pki, threading.Event(), threading.Semaphore(0)
        self.backends = [stack.enter_context(backends.backend(
            self.script, certkey=pki.backend(), client_ca=pki.forging_root, version=v))
            for v in peer.VERSIONS]
        for b in self.backends:
            take_little(b.listener)
        stack.callback(self.go.set)
        self.clients, self.senders = [], []

    def script(self, seen, p):
        """The client's name says what is to be done."""
        subject = x509.load_der_x509_certificate(seen.certificate).subject
        words = subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value.split()
        p.sock.settimeout(200 * peer.SCALE)
        if words[0] == "backend":
            assert self.go.wait(200 * peer.SCALE)
            take_much(p)
            backends.sink(seen, p)
        else:
            self.send(p, *words[1:])
            p.recv()

    def send(self, p, size, closes):
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

    def flow(self, n, ports):
        """Flow n of 2 * LATE, sending or not reading from now on."""
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
            t = threading.Thread(target=self.send, args=(c, size, closes), daemon=True)
            self.senders.append(t)
            t.start()
        else:
            self.clients.append(c)
        return c

    def finish(self, flows):
        """All read; what arrived everywhere must be what was sent."""
        self.go.set()

        def read_on(c):
            if c not in self.clients:
                return c.recv_all() == b"", c.ended
            take_much(c)
            got = c.recv_all()
            c.close_notify()
            c.fin()
            return got == c.want, c.ended

        assert in_parallel(read_on, flows, 2 * LATE) == [(True, "close_notify")] * 2 * LATE
        for t in self.senders:
            t.join(60 * peer.SCALE)
        seen = [s.wait(60 * peer.SCALE) for b in self.backends for s in b.seen]
        assert [s.ended for s in seen] == ["close_notify"] * 2 * LATE
        assert sorted((s.received, s.digest.digest()) for s in seen if s.received) == sorted(
            (len(c.want), hashlib.sha256(c.want).digest()) for c in flows if c not in self.clients)


def test_nobody_waits_for_peers_that_do_not_read(gate, pki):
    """
    No worker ever blocks: with 100 flows full of bytes that nobody takes, 20 others go on at once.
    """
    with contextlib.ExitStack() as stack:
        late = Late(stack, pki)
        b = stack.enter_context(backends.backend(certkey=pki.backend(), client_ca=pki.forging_root))
        conf = settings(pki, b.port)
        for n, slow in enumerate(late.backends):
            conf.update(second_vserver(f"slow{n}", slow.port))
        g = gate(conf)
        ports = [g.port_of("slow0"), g.port_of("slow1")]
        ctx = peer.context(False, pki.client("quick"), pki.server_ca)
        quick = [stack.enter_context(clients.connected(g.port, pki=pki, ctx=ctx))
                 for _ in range(QUICK)]
        with g.ends_with("done", 2 * LATE):
            flows = in_parallel(lambda n: late.flow(n, ports), range(2 * LATE))
            for c in flows:
                stack.callback(c.close)
            for _ in range(LATE):
                assert late.closed.acquire(timeout=60 * peer.SCALE)
            assert g.stat_reaches("flows_relaying_active", 2 * LATE + QUICK, 60 * peer.SCALE)
            moved = at_rest(g)
            assert 0 < moved < sum(len(c.want) for c in flows), "nothing is stalled"
            for n in range(20):
                for c in quick:
                    c.send(b"%064d" % n)
                    assert c.recv_exactly(64) == b"%064d" % n
            assert at_rest(g) == moved + 2 * 20 * 64 * QUICK
            late.finish(flows)
