# SPDX-License-Identifier: Apache-2.0
"""
Peers that do not read: everybody else is still served, and once they read no byte is missing. How
long the others wait meanwhile is measured by tools/bench/stalled.py.
"""

import contextlib
import os
import pwd
import socket

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings, wait_until
from harness.late import Late, at_rest, slow_reader
from harness.rig import second_vserver
from harness.traffic import Traffic

pytestmark = [pytest.mark.datapath, pytest.mark.timeout(240)]

# KTLSGATE_STALLED: make check-kernels says 2000, twice as many as the default limit has pipes.
FLOWS = int(os.environ.get("KTLSGATE_STALLED", "150" if peer.SCALE > 1 else "2000"))
LATE = 50 if FLOWS >= 500 else 12  # clients, and as many backends
BYTES = 512 << 10  # to each; some 200 KiB of it are in the sockets when it has stalled
# Of fs.pipe-user-pages-soft: the kernel's default with 2000 flows, with fewer flows as much less.
PIPE_PAGES = 16384 * min(FLOWS, 2000) // 2000
OTHERS = 40
PIPE_PLENTY = 256  # daemon/conn/relay_splice.c
BLOB = os.urandom(BYTES)
QUICK = 20


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can let the gate become another user")
def test_stalled_flows(gate, pki, tmp_path, pipe_pages, engine):
    """
    So many clients that stop reading in mid-transfer, and a gate that is an ordinary user: others
    are served meanwhile, and once the clients read on, all of it arrives.
    """
    pipe_pages(PIPE_PAGES)
    traffic = Traffic(gate, pki, tmp_path, dataplane__user="nobody")
    g = traffic.gate
    with traffic.held("--stall", FLOWS, "--bytes", BYTES, "--concurrency", 64):
        data = os.stat(f"/proc/{g.data_process()}").st_uid
        assert data == pwd.getpwnam("nobody").pw_uid
        stalled, stats = at_rest(g), g.stats()
        assert stalled < FLOWS * BYTES * 0.9, "nothing is stalled"
        assert stats["flows_relaying_active"] == stats[f"engine_{engine}_flows"] == FLOWS
        print(f"{FLOWS} flows stalled with {stalled >> 10} KiB of {FLOWS * BYTES >> 10}, "
              f"{stats['pipes_active']} pipes, {stats['reads_copied']} reads copied")
        assert engine != "ktls" or 0 < stats["pipes_active"] <= PIPE_PAGES // 16
        traffic.run("--flows", OTHERS, "--bytes", "64k", "--tls", "1.2", backends=["1.2"])
        assert g.stats()["flows_relaying_active"] == FLOWS
    assert wait_until(lambda: g.stats()["flows_active"] == 0, 20 * peer.SCALE)
    assert g.stats()["pipes_active"] == 0
    assert g.stats()["bytes_from_backend"] > FLOWS * BYTES


def test_nobody_waits_for_peers_that_do_not_read(gate, pki):
    """
    No worker ever blocks: with flows full of bytes that nobody takes, others go on at once.
    """
    with contextlib.ExitStack() as stack:
        late = Late(stack, pki, LATE)
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


def test_truncation_with_few_pipes_left(gate, pki, tmp_path):
    """
    With many pipes borrowed nothing is taken for a client without room. When such a one has closed
    in TLS 1.2 and the gate has waited in vain, what was not taken counts as what is stuck: the
    client is not told that it has all.
    """
    def script(_seen, p):
        p.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        p.send(BLOB)
        p.fin()

    with contextlib.ExitStack() as stack:
        b = stack.enter_context(backends.held(pki, script))
        traffic = Traffic(gate, pki, tmp_path, dataplane__workers=1,
                          **second_vserver("cut", b.port))
        g = traffic.gate
        with traffic.held("--stall", PIPE_PLENTY + 20, "--bytes", BYTES, "--concurrency", 64):
            stats = at_rest(g) and g.stats()
            assert stats["engine_ktls_flows"] == 0 or stats["pipes_active"] > PIPE_PLENTY
            ctx = peer.context(False, pki.client(), pki.server_ca, version="1.2")
            c = stack.enter_context(contextlib.closing(slow_reader(g.port_of("cut"), ctx)))
            at_rest(g)
            c.close_notify()
            assert g.stat_reaches("reason_half_close_timeout", 1, 10 * peer.SCALE)
            got = c.recv_all()
            assert c.ended == "eof" and len(got) < len(BLOB) and got == BLOB[:len(got)]
