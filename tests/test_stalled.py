# SPDX-License-Identifier: Apache-2.0
"""
Thousands of flows stalled in mid-transfer, run as an unprivileged user under the limits that such
a user has: everybody else is still served, and once the stall ends no byte is missing.
"""

import contextlib
import os
import pwd
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings, wait_until
from harness.ports import HOST

pytestmark = [pytest.mark.datapath, pytest.mark.timeout(240)]

# As many as the default limit has pipes, twice over. The guest is slow: fewer flows under
# a limit as much lower, unless told otherwise.
FLOWS = int(os.environ.get("KTLSGATE_STALLED", "150" if peer.SCALE > 1 else "2000"))
# The kernel's default of fs.pipe-user-pages-soft for 2000 flows.
PIPE_PAGES = 16384 * min(FLOWS, 2000) // 2000
BLOB = os.urandom(768 << 10)


def slow_reader(port, pki, ctx):
    """
    A connected client that does not read. With loopback's segments of 64 KiB the kernel would give
    the gate megabytes to send into for each.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
    sock.settimeout(60 * peer.SCALE)
    sock.connect((HOST, port))
    c = peer.Peer(sock, ctx, name=clients.FRONT_NAME, timeout=60 * peer.SCALE)
    assert c.handshake(), c.ended
    return c


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
        stalled = in_parallel(lambda _: slow_reader(g.port, pki, ctx), range(FLOWS))
        for c in stalled:
            stack.callback(c.close)
        assert g.stat_reaches("flows_relaying_active", FLOWS, 60 * peer.SCALE)
        # Bytes of all of them have stopped moving: in sockets, and in pipes or buffers of the gate.
        moved = []
        wait_until(lambda: moved.append(g.stats()["bytes_from_backend"]) or (
            len(moved) > 20 and moved[-1] == moved[-20]), 60 * peer.SCALE)
        assert moved[-1] < FLOWS * len(BLOB), "nothing is stalled: the blob fits into the sockets"

        with clients.connected(g.port, pki=pki, certkey=pki.client("quick")) as quick:
            for n in range(20):
                quick.send(b"%05d" % n * 1000)
                assert quick.recv_exactly(5000) == b"%05d" % n * 1000

        def read_on(c):
            c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            return c.recv_all() == BLOB, c.ended

        results = in_parallel(read_on, stalled)
        assert results == [(True, "close_notify")] * FLOWS
