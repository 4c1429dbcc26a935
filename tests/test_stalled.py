# SPDX-License-Identifier: Apache-2.0
"""
Peers that do not read: everybody else is still served, and once they read no byte is missing. How
long the others wait meanwhile is measured by tools/bench/stalled.py.
"""

import contextlib
import os
import pwd

import pytest
from cryptography import x509

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings
from harness.late import BLOB, LATE, Late, at_rest, in_parallel, slow_reader, take_much

pytestmark = [pytest.mark.datapath, pytest.mark.timeout(240)]

# As many as the default limit has pipes, twice over. The guest is slow: fewer flows under
# a limit as much lower, unless told otherwise.
FLOWS = int(os.environ.get("KTLSGATE_STALLED", "150" if peer.SCALE > 1 else "2000"))
# The kernel's default of fs.pipe-user-pages-soft for 2000 flows.
PIPE_PAGES = 16384 * min(FLOWS, 2000) // 2000
QUICK = 20


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


def test_nobody_waits_for_peers_that_do_not_read(gate, pki):
    """
    No worker ever blocks: with 100 flows full of bytes that nobody takes, 20 others go on at once.
    """
    with contextlib.ExitStack() as stack:
        late = Late(stack, pki)
        b = stack.enter_context(backends.backend(certkey=pki.backend(), client_ca=pki.forging_root))
        g = gate({**settings(pki, b.port), **late.settings()})
        ctx = peer.context(False, pki.client("quick"), pki.server_ca)
        quick = [stack.enter_context(clients.connected(g.port, pki=pki, ctx=ctx))
                 for _ in range(QUICK)]
        with g.ends_with("done", 2 * LATE):
            moved = late.start(g, stack)
            for n in range(20):
                for c in quick:
                    c.send(b"%064d" % n)
                    assert c.recv_exactly(64) == b"%064d" % n
            assert at_rest(g) == moved + 2 * 20 * 64 * QUICK
            late.finish()
