# SPDX-License-Identifier: Apache-2.0
"""
Situations of the kernel's own tests of kernel TLS (tools/testing/selftests/net/tls.c) that no other
test here has; docs/testing.md maps them all.
"""

import os
import pathlib
import socket
import time

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import probe, settings
from harness.ports import free_port
from harness.segments import repeat_last

pytestmark = pytest.mark.datapath

EITHER = pytest.mark.parametrize("by", ["client", "backend"])
VERSION = pytest.mark.parametrize("version", peer.VERSIONS)


def finish(c):
    c.close_notify()
    assert c.recv() == b"" and c.ended == "close_notify"


# ---- IPv6 ----


@VERSION
def test_ipv6(gate, pki, tmp_path, version):
    """On both sides, with records in both directions and all that a relay asks of its sockets."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, version=version,
                          host="::1") as b:
        port = free_port()
        g = gate(settings(pki, b.port, vserver__app__listen=f"[::1]:{port}",
                          service__app1__address=f"[::1]:{b.port}"))
        with g.carries(1), g.ends_with("done"), socket.create_connection(
                ("::1", port), timeout=peer.TIMEOUT) as sock:
            ctx = peer.log_keys(peer.context(False, pki.client(), pki.server_ca, version=version),
                                tmp_path)
            c = peer.Peer(sock, ctx, name=clients.FRONT_NAME)
            assert c.handshake(), c.ended
            blob = os.urandom(300000)
            c.send(blob)
            assert c.recv_exactly(len(blob)) == blob
            c.send_record(peer.DATA, b"")
            c.send(b"more")
            assert c.recv_exactly(4) == b"more"
            finish(c)
            c.fin()
            assert c.tcp_end() == "fin"


# ---- records in pieces ----


def cpu_seconds(pid):
    """Of all its threads, user and system."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@EITHER
@VERSION
def test_half_a_record_waits(rig, by, version):
    """
    Nothing to be read, but something that is there: a loop which asks again and again whether
    there is would spin (on 6.1 poll says so). Then the rest comes.
    """
    def halve(p):
        record = p.seal(peer.DATA, b"in two parts" * 100)
        p.sock.sendall(record[:700])
        time.sleep(0.2)
        spent = cpu_seconds(rig.gate.data_process())
        time.sleep(0.6)
        assert cpu_seconds(rig.gate.data_process()) - spent < 0.3
        p.sock.sendall(record[700:])

    def script(seen, p):
        if by == "backend":
            halve(p)
        backends.echo(seen, p)

    with rig.flow(script, front=version, back=version) as (c, _):
        if by == "client":
            halve(c)
        assert c.recv_exactly(1200) == b"in two parts" * 100
        finish(c)


@EITHER
@VERSION
def test_record_in_many_segments(rig, by, version):
    """A byte each, and then a full record of more segments than a pipe has slots."""
    small, large = os.urandom(100), os.urandom(16384)

    def dribble(p):
        for record, step in ((p.seal(peer.DATA, small), 1), (p.seal(peer.DATA, large), 100)):
            for at in range(0, len(record), step):
                p.sock.sendall(record[at:at + step])

    def script(seen, p):
        if by == "backend":
            dribble(p)
        backends.echo(seen, p)

    with rig.flow(script, front=version, back=version) as (c, _):
        if by == "client":
            dribble(c)
        assert c.recv_exactly(len(small) + len(large)) == small + large
        finish(c)


@pytest.mark.parametrize("first", [1, 2, 3, 4, 5, 20])
@VERSION
def test_segments_that_overlap(rig, engine, version, first):
    """A record's first bytes come alone, and again with the others."""
    answer, why = probe()["overlapping_segments"]
    flawed = engine == "ktls" and answer == "no" and first < 5
    reason = {3: "client_truncated"}.get(first, "client_bad_record") if flawed else "done"
    with rig.flow(backends.echo, front=version, reason=reason) as (c, seen):
        record = c.seal(peer.DATA, b"once, not twice")
        c.sock.sendall(record[:first])
        c.sock = repeat_last(c.sock, first)
        c.sock.sendall(record)
        if not flawed:
            assert c.recv_exactly(15) == b"once, not twice"
            finish(c)
        c.fin()
        if flawed:
            # Nothing of what the kernel took for a record, and no clean close.
            assert seen().wait().ended != "close_notify", why
            assert not seen().received


def test_an_overlap_that_is_misread_is_told_at_the_start(gate, pki, backend, engine):
    if engine != "ktls" or probe()["overlapping_segments"][0] == "yes":
        pytest.skip("nothing is misread here")
    g = gate(settings(pki, backend.port))
    assert g.log_contains("warning: this kernel's TLS misreads a record header")


# ---- records without content ----


@EITHER
@VERSION
def test_empty_records_in_front_of_others(rig, by, version):
    """Data, a warning and the end, two empty records in front of each."""
    def send(p):
        for kind, payload in ((peer.DATA, b"data"), (peer.ALERT, b"\1\x5a"), (peer.DATA, b"more"),
                              (peer.ALERT, b"\1\0")):
            p.send_record(peer.DATA, b"")
            p.send_record(peer.DATA, b"")
            p.send_record(kind, payload)

    def script(seen, p):
        if by == "backend":
            send(p)
        while data := p.recv():
            seen.take(data)
        if by == "client":
            p.close_notify()
        p.fin()

    with rig.flow(script, front=version, back=version) as (c, seen):
        if by == "client":
            send(c)
            assert c.recv() == b"" and c.ended == "close_notify"
            assert (seen().wait().received, seen().ended) == (8, "close_notify")
        else:
            assert c.recv_all() == b"datamore" and c.ended == "close_notify"
            c.close_notify()
            c.fin()


# ---- urgent data ----


@EITHER
@VERSION
def test_urgent_bytes(rig, by, version):
    """MSG_OOB between the records and in them: no byte of the stream is lost to it."""
    blob = os.urandom(40000)

    def send(p):
        record = p.seal(peer.DATA, blob[:1000])
        p.sock.send(record[:500], socket.MSG_OOB)
        p.sock.sendall(record[500:-1])
        p.sock.send(record[-1:], socket.MSG_OOB)
        p.send(blob[1000:30000])
        time.sleep(0.1)
        # With nothing behind it: whoever reads has two reads to do, and is told once.
        p.sock.send(p.seal(peer.DATA, blob[30000:40000]), socket.MSG_OOB)

    def script(seen, p):
        if by == "backend":
            send(p)
        backends.echo(seen, p)

    with rig.flow(script, front=version, back=version) as (c, _):
        if by == "client":
            send(c)
        assert c.recv_exactly(len(blob)) == blob
        finish(c)


class Urgent:
    """A socket all of whose sends end with an urgent byte."""

    def __init__(self, sock):
        self.sock = sock

    def __getattr__(self, name):
        return getattr(self.sock, name)

    def sendall(self, data):
        while data:
            data = data[self.sock.send(data, socket.MSG_OOB):]


@VERSION
def test_everything_is_urgent(rig, pki, version):
    """From the ClientHello on."""
    b = rig.backends[version]
    b.script = backends.echo
    with rig.gate.ends_with("done"), rig.gate.carries(1), clients.connect(
            rig.port(version), pki=pki, certkey=rig.certkey, version=version) as c:
        c.sock = Urgent(c.sock)
        assert c.handshake(), c.ended
        for size in (1, 1000, 100000):
            blob = os.urandom(size)
            c.send(blob)
            assert c.recv_exactly(size) == blob
        finish(c)
