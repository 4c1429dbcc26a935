# SPDX-License-Identifier: Apache-2.0
"""Records that are not data inside a flow: tickets, KeyUpdate, empty records, HelloRequest."""

import contextlib
import os
import socket
import time

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings, wait_until
from harness.late import slow_reader

pytestmark = pytest.mark.datapath

EITHER = pytest.mark.parametrize("by", ["client", "backend"])


def exchange(c, n=3):
    for i in range(n):
        c.send(b"ping%d" % i)
        assert c.recv_exactly(5) == b"ping%d" % i


def close(c):
    c.close_notify()
    assert c.recv() == b"" and c.ended == "close_notify"
    c.fin()


def test_tickets_of_the_backend_are_taken_out(rig):
    before = rig.gate.stats()["tickets_dropped"]
    with rig.flow(backends.echo) as (c, _):
        exchange(c)
        close(c)
    assert rig.gate.stats()["tickets_dropped"] == before + 2


@EITHER
@pytest.mark.parametrize("count", [1, 3])
def test_key_update(rig, can_rekey, by, count):
    """Goes on under the next keys, or ends at once with the reason where the kernel cannot."""
    def script(seen, p):
        if by == "backend":
            for _ in range(count):
                p.send(b"before")
                p.key_update()
            p.send(b"after!")
        backends.echo(seen, p)

    before = rig.gate.stats()["key_updates"]
    with rig.flow(script, reason="done" if can_rekey else "rekey_unsupported") as (c, seen):
        if by == "client":
            for _ in range(count):
                c.send(b"before")
                c.key_update()
            c.send(b"after!")
        if can_rekey:
            want = b"before" * count + b"after!"
            assert c.recv_exactly(len(want)) == want
            exchange(c)
            close(c)
            seen().wait()
            assert rig.gate.stats()["key_updates"] == before + count
        else:
            c.recv_all()
            assert c.ended == "alert internal_error"
            assert seen().wait().ended == "alert internal_error"


@EITHER
def test_key_update_requested(rig, can_rekey, by):
    """update_requested: the gate answers with a KeyUpdate, which OpenSSL as a peer then follows."""
    if not can_rekey:
        pytest.skip("this kernel cannot re-key: see test_key_update")

    def script(seen, p):
        if by == "backend":
            p.send(b"before")
            p.key_update(request=True)
            p.send(b"after!")
        backends.echo(seen, p)

    with rig.flow(script) as (c, _):
        if by == "client":
            c.send(b"before")
            c.key_update(request=True)
            c.send(b"after!")
        assert c.recv_exactly(12) == b"beforeafter!"
        exchange(c)
        close(c)


@pytest.mark.parametrize("version", peer.VERSIONS)
def test_key_limit(gate, pki, can_rekey, version):
    """
    dataplane.key_limit: the gate's own KeyUpdates, which OpenSSL follows; TLS 1.2 is only counted;
    a kernel that cannot re-key ends the flow, and not as if all had been sent.
    """
    blob = os.urandom(7 << 19)
    with backends.backend(backends.echo, certkey=pki.backend(), client_ca=pki.forging_root,
                          version=version) as b:
        g = gate(settings(pki, b.port, dataplane__key_limit=1))
        can = version == "1.2" or can_rekey
        with g.ends_with("done" if can else "key_limit"), \
                clients.connected(g.port, pki=pki, certkey=pki.client(), version=version) as c:
            got = bytearray()
            if can:
                c.duplex([blob], got.extend)
                assert got == blob and c.ended == "close_notify"
            else:
                c.send(blob)
                got += c.recv_all()
                # No close_notify; user_canceled is no end to OpenSSL in TLS 1.3.
                assert c.ended in ("eof", "rst")
                assert blob.startswith(got) and len(got) < len(blob)
        stats = g.stats()
        counter = "key_limits_passed" if version == "1.2" else "key_updates_sent"
        # Two or three in each direction: it is looked at now and then.
        assert stats[counter] in (range(4, 7) if can else [0])


@pytest.mark.parametrize("version", peer.VERSIONS)
def test_key_limit_of_a_slow_reader(gate, pki, can_rekey, version):
    """One for whom the gate always has more than its kernel takes: nothing but a moment between."""
    blob = os.urandom(7 << 19)
    with backends.backend(backends.source(blob), certkey=pki.backend(),
                          client_ca=pki.forging_root) as b:
        g = gate(settings(pki, b.port, dataplane__key_limit=1, socket__client__sndbuf="16K"))
        can = version == "1.2" or can_rekey
        ctx = peer.context(False, pki.client(), pki.server_ca, version=version)
        with contextlib.closing(slow_reader(g.port, ctx)) as c:
            got = c.recv_all()
            assert can or c.ended in ("eof", "rst")
            assert blob.startswith(got) and (len(got) == len(blob)) is can
        stats = g.stats()
        counter = "key_limits_passed" if version == "1.2" else "key_updates_sent"
        assert stats[counter] == (3 if can else 0)
        assert can or g.stat_reaches("reason_key_limit", 1)


def test_answers_to_who_does_not_read(rig, can_rekey):
    """It asks for KeyUpdates and reads nothing: the answers that wait are limited, not its flow."""
    if not can_rekey:
        pytest.skip("this kernel cannot re-key: see test_key_update")
    blob = os.urandom(16 << 20)

    def script(seen, p):
        p.send(blob)
        p.close_notify()
        seen.stream = p.recv_all()

    gate = rig.gate
    with rig.flow(script) as (c, seen):
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        moved = []
        wait_until(lambda: moved.append(gate.stats()["bytes_from_backend"]) or (
            len(moved) > 60 and moved[-1] == moved[-60]), 20 * peer.SCALE)
        assert moved[-1] < len(blob), "nothing is stalled: the blob fits into the sockets"
        for n in range(250):
            c.key_update(request=True)
            if n > 50:  # no more than ten a second, or it is a flood
                time.sleep(0.12)
            if n > 64 and gate.stats()["answers_withheld"]:
                break
        assert gate.stats()["answers_withheld"] > 0
        c.send(b"still there")
        assert c.recv_all() == blob and c.ended == "close_notify"
        c.close_notify()
        assert seen().wait().stream == b"still there"


@EITHER
def test_flood_of_key_updates(rig, can_rekey, by):
    """Hundreds in a row, with each the keys change: the sender is told, as the other side is."""
    if not can_rekey:
        pytest.skip("this kernel cannot re-key: see test_key_update")

    def flood(p):
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(300):
                p.key_update()

    def script(_seen, p):
        if by == "backend":
            flood(p)
        p.recv_all()

    before = rig.gate.stats()["key_updates"]
    with rig.flow(script, reason=f"{by}_flood") as (c, seen):
        c.send(b"before")
        if by == "client":
            flood(c)
        c.recv_all()
        assert (c.ended, seen().wait().ended) == ("alert internal_error",) * 2
    # A burst is borne, and one more for each tenth of a second.
    assert 40 < rig.gate.stats()["key_updates"] - before < 300


TICKET = bytes([4, 0, 0, 30]) + bytes(30)
UPDATE = bytes([24, 0, 0, 1, 0])


@pytest.mark.parametrize("records", [
    [TICKET * 20],  # all in one record
    [TICKET[:1], TICKET[1:5], TICKET[5:]],
    [TICKET + TICKET[:3], TICKET[3:] + TICKET],
    [TICKET] * 20,
], ids=["coalesced", "split", "both", "twenty"])
def test_tickets_between_data(rig, records):
    """However its messages are cut into records, none of them reaches the client, and all data does."""
    count = len(b"".join(records)) // len(TICKET)
    before = rig.gate.stats()["tickets_dropped"]

    def script(seen, p):
        p.send(b"before")
        for r in records:
            p.send_record(peer.HANDSHAKE, r)
        p.send(b"after!")
        backends.echo(seen, p)

    with rig.flow(script) as (c, _):
        assert c.recv_exactly(12) == b"beforeafter!"
        exchange(c)
        close(c)
    # Two more are OpenSSL's own.
    assert rig.gate.stats()["tickets_dropped"] == before + 2 + count


def test_ticket_and_key_update_in_one_record(rig, can_rekey):
    """The kernel looks at the first message only; the keys change behind the second."""
    if not can_rekey:
        pytest.skip("this kernel cannot re-key: see test_key_update")

    def script(seen, p):
        p.send(b"before")
        p.send_record(peer.HANDSHAKE, TICKET + UPDATE, renew=True)
        p.send(b"after!")
        backends.echo(seen, p)

    before = rig.gate.stats()["key_updates"]
    with rig.flow(script) as (c, _):
        assert c.recv_exactly(12) == b"beforeafter!"
        exchange(c)
        close(c)
    assert rig.gate.stats()["key_updates"] == before + 1


@EITHER
@pytest.mark.parametrize("version", peer.VERSIONS)
@pytest.mark.parametrize("kind", [24, 99])
def test_unknown_record_type(rig, engine, version, by, kind):
    """TLS 1.2 shows it in the header, which our own record layer looks at first."""
    fault = "bad_record" if (engine, version) == ("user", "1.2") else "illegal"

    def script(seen, p):
        if by == "backend":
            p.send(b"before")
            p.send_record(kind, b"what is this?")
        seen.take(p.recv_all())

    with rig.flow(script, front=version, back=version, reason=f"{by}_{fault}") as (c, seen):
        if by == "client":
            c.send(b"before")
            c.send_record(kind, b"what is this?")
            c.recv_all()
            assert seen().wait().received == 6
        else:
            assert c.recv_all() == b"before"
        ends = c.ended, seen().wait().ended
        expected = "alert unexpected_message", "alert internal_error"
        assert ends == (expected if by == "client" else expected[::-1])


@EITHER
@pytest.mark.parametrize("version, alert", [("1.3", 90), ("1.2", 90), ("1.2", 41)],
                         ids=["1.3 user_canceled", "1.2 user_canceled", "1.2 no_certificate"])
def test_warning_alert(rig, version, alert, by):
    """Ends nothing and is not passed on."""
    def script(seen, p):
        if by == "backend":
            p.send(b"before")
            p.alert(alert, level=1)
            p.send(b"after!")
        backends.echo(seen, p)

    with rig.flow(script, front=version, back=version) as (c, _):
        if by == "client":
            c.send(b"before")
            c.alert(alert, level=1)
            c.send(b"after!")
        assert c.recv_exactly(12) == b"beforeafter!"
        exchange(c)
        close(c)


@EITHER
@pytest.mark.parametrize("version", peer.VERSIONS)
def test_corrupt_control_record(rig, version, by):
    """A close_notify with a bit turned is none; what came before it arrives."""
    def script(seen, p):
        if by == "backend":
            p.send(b"before")
            p.send_record(peer.ALERT, b"\1\0", damage=True)
        seen.take(p.recv_all())

    with rig.flow(script, front=version, back=version, reason=f"{by}_bad_record") as (c, seen):
        if by == "client":
            c.send(b"before")
            c.send_record(peer.ALERT, b"\1\0", damage=True)
            c.recv_all()
            assert seen().wait().received == 6
        else:
            assert c.recv_all() == b"before"
        ends = c.ended, seen().wait().ended
        expected = "alert bad_record_mac", "alert internal_error"
        assert ends == (expected if by == "client" else expected[::-1])


@EITHER
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_empty_records(rig, version, by):
    """An empty record is neither data nor an end."""
    def script(seen, p):
        if by == "backend":
            p.send(b"before")
            for _ in range(5):
                p.send_record(peer.DATA, b"")
            p.send(b"after!")
        backends.echo(seen, p)

    with rig.flow(script, front=version, back=version) as (c, _):
        if by == "client":
            c.send(b"before")
            for _ in range(5):
                c.send_record(peer.DATA, b"")
            c.send(b"after!")
        assert c.recv_exactly(12) == b"beforeafter!"
        exchange(c)
        close(c)


@EITHER
@pytest.mark.parametrize("version", peer.VERSIONS)
def test_flood_of_empty_records(rig, version, by):
    """More than a burst of them: an attack on the CPU, and its sender is told as the other side is."""
    def script(_seen, p):
        if by == "backend":
            flood(p)
        p.recv_all()

    def flood(p):
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(300):
                p.send_record(peer.DATA, b"")

    with rig.flow(script, front=version, back=version, reason=f"{by}_flood") as (c, seen):
        if by == "client":
            flood(c)
        c.recv_all()
        assert (c.ended, seen().wait().ended) == ("alert internal_error",) * 2


def test_hello_request_is_refused(rig):
    """TLS 1.2: no_renegotiation, and the flow goes on; OpenSSL as the backend then leaves."""
    before = rig.gate.stats()["renegotiations_refused"]

    def script(seen, p):
        p.send_record(peer.HANDSHAKE, b"\0\0\0\0")
        p.send(b"still here")
        seen.take(p.recv_all())

    with rig.flow(script, back="1.2", reason="backend_truncated") as (c, seen):
        assert c.recv_exactly(10) == b"still here"
        assert seen().wait().ended == "error NO_RENEGOTIATION"
    assert rig.gate.stats()["renegotiations_refused"] == before + 1


@pytest.mark.parametrize("size", [512, 4096])
@pytest.mark.parametrize("version", peer.VERSIONS)
def test_max_fragment_length(gate, pki, version, size):
    """RFC 6066 4: OpenSSL grants it, so no record to the client is longer, or the client ends."""
    pieces = [os.urandom(n).hex().encode() for n in (1, 255, 256, 257, 8192, 40000)]
    whole = b"".join(pieces) + b"\n"

    def script(_seen, p):
        p.recv()
        for data in pieces:
            p.send(data)
        p.send(b"\n")
        p.recv()

    with backends.backend(script, certkey=pki.backend(), client_ca=pki.forging_root) as b:
        g = gate(settings(pki, b.port))
        with g.carries(1):
            clients.talk(clients.s_client_argv(
                g.port, pki=pki, certkey=pki.client(), args=(
                    "-quiet", "-nocommands", "-no_ign_eof", clients.tls_option(version),
                    "-maxfraglen", str(size))), b"go\n", whole)


def test_flood_in_one_record(rig):
    """It has room for thousands of messages that want an answer each."""
    before = rig.gate.stats()["renegotiations_refused"]
    with rig.flow(backends.echo, front="1.2", reason="client_flood") as (c, seen):
        exchange(c)
        c.send_record(peer.HANDSHAKE, b"\1\0\0\0" * 4096)
        assert seen().wait().ended == "alert internal_error"
        c.recv_all()
    assert 0 < rig.gate.stats()["renegotiations_refused"] - before < 64


def test_message_cut_before_a_24(rig, can_rekey, engine):
    """
    TLS 1.2: kernels that can re-key take the second part of this ClientHello for a KeyUpdate, want
    new keys behind it and refuse them; then the flow ends, and not as if all had been sent.
    """
    ends = engine == "ktls" and can_rekey
    before = rig.gate.stats()["renegotiations_refused"]
    with rig.flow(backends.echo, front="1.2",
                  reason="taken_for_key_update" if ends else "client_truncated") as (c, seen):
        exchange(c)
        c.send_record(peer.HANDSHAKE, b"\1\0\0\4")
        c.send_record(peer.HANDSHAKE, b"\x18" * 4)
        c.recv_all()
        assert c.ended == "error NO_RENEGOTIATION"
        if ends:
            assert seen().wait().ended == "alert internal_error"
    assert rig.gate.stats()["renegotiations_refused"] == before + 1


@EITHER
def test_illegal_record(rig, by):
    """A handshake message that may not come here: unexpected_message to its sender."""
    def script(_seen, p):
        if by == "backend":
            p.send_record(peer.HANDSHAKE, bytes([1, 0, 0, 4]) + os.urandom(4))
        p.recv_all()

    with rig.flow(script, reason=f"{by}_illegal") as (c, seen):
        if by == "client":
            c.send_record(peer.HANDSHAKE, bytes([1, 0, 0, 4]) + os.urandom(4))
        c.recv_all()
        ends = c.ended, seen().wait().ended
        expected = "alert unexpected_message", "alert internal_error"
        assert ends == (expected if by == "client" else expected[::-1])


@EITHER
def test_small_and_large_records(rig, by):
    """Every size class of a record, padded by nobody, in one stream."""
    sizes = [1, 2, 15, 16, 17, 255, 256, 4095, 4096, 4097, 16383, 16384, 1]
    data = [os.urandom(n) for n in sizes]

    def script(seen, p):
        if by == "backend":
            for d in data:
                p.send_record(peer.DATA, d)
        backends.echo(seen, p)

    with rig.flow(script) as (c, _):
        if by == "client":
            for d in data:
                c.send_record(peer.DATA, d)
        want = b"".join(data)
        assert c.recv_exactly(len(want)) == want
        close(c)
