# SPDX-License-Identifier: Apache-2.0
"""How many connections there may be, and how many lines are logged about them."""

import contextlib
import json
import re
import socket
import time

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import ctl, settings, wait_until
from harness.pki import FRONT_NAME
from harness.ports import HOST
from harness.rig import second_vserver


def connected(g, pki, port=None, **options):
    return clients.connected(port or g.port, pki=pki, certkey=pki.client(), **options)


def refused(g, port=None, source=None):
    """The connection is reset before a word was said."""
    try:
        with socket.create_connection((HOST, port or g.port), timeout=10,
                                      source_address=source and (source, 0)) as s:
            return s.recv(1) == b"" and "closed"
    except ConnectionResetError:
        return "reset"


LIMITS = pytest.mark.parametrize("key, reason", [
    ("limit.flows", "limit_flows"),
    ("vserver.app.max_flows", "limit_vserver"),
    ("limit.flows_per_source", "limit_source"),
])


@LIMITS
def test_limit(gate, pki, backend, key, reason):
    """Two connections and no third; with one gone there is room again. Counted, and logged once each."""
    g = gate({**settings(pki, backend.port), key: 2})
    with connected(g, pki) as first, contextlib.ExitStack() as stack:
        clients.ping(first)
        second = stack.enter_context(connected(g, pki))
        clients.ping(second)
        assert refused(g) == refused(g) == "reset"
        assert g.stats()[f"reason_{reason}"] == 2
        assert g.log_contains(rf"vserver app: client 127\.0\.0\.1:\d+: refused: .*\({reason}\)$")
        clients.ping(first)
        second.close_notify()
        assert second.recv() == b""
        second.fin()
        assert g.stat_reaches("flows_closed", 1)
        with connected(g, pki) as third:
            clients.ping(third)


def test_limit_of_handshakes(gate, pki, backend):
    """Connections that say nothing take the places; established flows take none."""
    g = gate(settings(pki, backend.port, limit__handshakes=2))
    with connected(g, pki) as c:
        clients.ping(c)
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(socket.create_connection((HOST, g.port)))
            assert wait_until(lambda: g.stats()["flows_active"] == 3, 10)
            assert refused(g) == "reset"
            reason = "limit_handshakes"
            assert g.stats()[f"reason_{reason}"] == 1
            clients.ping(c)
        assert g.stat_reaches("flows_closed", 2)
        with connected(g, pki) as d:
            clients.ping(d)


def test_limit_of_handshakes_from_one_source(gate, pki, backend):
    """One host that says nothing leaves places for others; what it has established is not counted."""
    g = gate(settings(pki, backend.port, limit__handshakes=4, limit__handshakes_per_source=2))
    with connected(g, pki) as c, contextlib.ExitStack() as stack:
        clients.ping(c)
        for _ in range(2):
            stack.enter_context(socket.create_connection((HOST, g.port)))
        assert wait_until(lambda: g.stats()["flows_active"] == 3, 10)
        assert refused(g) == "reset"
        reason = "limit_source_handshakes"
        assert g.stats()[f"reason_{reason}"] == 1
        with connected(g, pki, source="127.0.0.9") as other:
            clients.ping(other)
        stack.close()
        assert g.stat_reaches("flows_closed", 3)
        with connected(g, pki) as d:
            clients.ping(d)


def test_sources_are_prefixes(gate, pki, backend):
    """127.0.0.0/24 is one, 127.0.1.0/24 another."""
    g = gate(settings(pki, backend.port, limit__flows_per_source=1, limit__source_prefix4=24))
    with socket.create_connection((HOST, g.port), source_address=("127.0.0.9", 0)):
        assert g.stat_reaches("flows_active", 1)
        assert refused(g, source="127.0.0.77") == "reset"
        with socket.create_connection((HOST, g.port), source_address=("127.0.1.9", 0)):
            assert wait_until(lambda: g.stats()["flows_active"] == 2, 10)
    assert g.stat_reaches("flows_closed", 2)
    assert g.stats()["reason_limit_source"] == 1


def test_limits_are_each_vservers_own(gate, pki, backend):
    more = second_vserver("more", backend.port)
    g = gate({**settings(pki, backend.port, vserver__app__max_flows=1), **more})
    with socket.create_connection((HOST, g.port)):
        assert g.stat_reaches("flows_active", 1)
        assert refused(g) == "reset"
        with connected(g, pki, g.port_of("more")) as c:
            clients.ping(c)


def test_older_configurations_count(gate, pki, backend):
    g = gate(settings(pki, backend.port, limit__flows=1))
    with connected(g, pki) as c:
        clients.ping(c)
        g.reload(timeout__idle="5m")
        assert refused(g) == "reset"


def test_queue(gate, pki, backend):
    """What is beyond the limit waits, unharmed, until there is room; one worker, so it is exact."""
    g = gate(settings(pki, backend.port, limit__flows=1, limit__when_full="queue",
                      dataplane__workers=1))
    with contextlib.ExitStack() as stack:
        with connected(g, pki) as c:
            clients.ping(c)
            assert g.stat_reaches("accept_pauses", 1)
            waiting = [stack.enter_context(socket.create_connection((HOST, g.port)))
                       for _ in range(3)]
            time.sleep(0.3)
            assert g.stats()["flows_accepted"] == 1
        for n, s in enumerate(waiting):
            assert g.stat_reaches("flows_accepted", 2 + n)
            s.close()
    assert g.stat_reaches("flows_closed", 4)
    stats = g.stats()
    assert stats["reason_limit_flows"] == 0
    with connected(g, pki) as c:
        clients.ping(c)


def close_idle(**more):
    """At two flows; of one worker, which knows only its own."""
    return {"limit__flows": 2, "limit__when_full": "close_idle", "dataplane__workers": 1, **more}


# OpenSSL does not tell of user_canceled in TLS 1.3: it waits for what follows, our FIN.
@pytest.mark.parametrize("version, told", [("1.2", "alert user_canceled"), ("1.3", "eof")])
@pytest.mark.datapath
def test_close_idle(gate, pki, version, told):
    """
    The flow that is idle the longest, not the oldest, makes room: both its ends are told by an
    alert; it is counted and logged.
    """
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root,
                          version=version) as b:
        g = gate(settings(pki, b.port, **close_idle(limit__idle_at_least="1s")))
        with contextlib.ExitStack() as stack:
            old, idle = (stack.enter_context(connected(g, pki, version=version)) for _ in "12")
            clients.ping(old)
            clients.ping(idle)
            time.sleep(1.2)
            clients.ping(old)
            time.sleep(1.2)
            with g.ends_with("closed_idle"):
                clients.ping(stack.enter_context(connected(g, pki, version=version)))
                assert idle.recv() == b"" and idle.ended == told
                idle.close()
                assert b.connection(1).wait().ended == told
                clients.ping(old)
            assert g.stats()["reason_limit_flows"] == 0


@pytest.mark.datapath
def test_close_idle_spares_the_busy(gate, pki, backend):
    """Nobody is idle for long enough: refused, and nobody ended."""
    g = gate(settings(pki, backend.port, **close_idle(limit__idle_at_least="1h")))
    with connected(g, pki) as first, connected(g, pki) as second:
        clients.ping(first)
        clients.ping(second)
        assert refused(g) == "reset"
        clients.ping(first)
        clients.ping(second)
        stats = g.stats()
        assert stats["reason_limit_flows"] == 1 and stats["reason_closed_idle"] == 0


def test_close_idle_is_for_who_may_come(gate, pki, backend):
    """A connection that another limit refuses ends nobody's; nor does one in the handshake."""
    g = gate(settings(pki, backend.port, limit__handshakes=1,
                      **close_idle(limit__idle_at_least="1s")))
    with connected(g, pki) as idle:
        clients.ping(idle)
        with socket.create_connection((HOST, g.port)):
            assert wait_until(lambda: g.stats()["flows_active"] == 2, 10)
            time.sleep(1.2)
            assert refused(g) == "reset"
            assert g.stats()["reason_limit_handshakes"] == 1
            clients.ping(idle)
    assert g.stats()["reason_closed_idle"] == 0


HALF_HELLO = b"\x16\x03\x01\x10\x00\x01\x00\x20\x00" + bytes(4092)  # 4 of 8 KiB


def half_sent(g, stack):
    """A connection that has sent enough of a ClientHello to be listened to: it costs some 40 KiB."""
    s = stack.enter_context(socket.socket())
    with contextlib.suppress(ConnectionError):  # refused already
        s.connect((HOST, g.port))
        s.sendall(HALF_HELLO)
    return s


def fill_memory(g, stack, full):
    """Such connections until full(); those that were let in."""
    if g.sanitized():
        pytest.skip("a sanitizer's malloc does not tell how much is allocated")
    held = []
    while not full():
        held.append(half_sent(g, stack))
        assert len(held) < 2000
    return held


@pytest.mark.datapath
def test_limit_of_memory(gate, pki, backend):
    """
    What half-sent handshakes hold reaches it: new connections are refused, established flows go on.
    There must be an eighth less before the next one is let in.
    """
    limit = 16
    g = gate(settings(pki, backend.port, limit__memory=limit, limit__handshakes="off",
                      timeout__client_hello="5m", timeout__handshake="5m"))
    with contextlib.ExitStack() as stack:
        c = stack.enter_context(connected(g, pki))
        clients.ping(c)
        reason = "limit_memory"
        held = fill_memory(g, stack, lambda: g.stats()[f"reason_{reason}"])
        assert g.stats()["memory_bytes"] >= limit << 20
        assert g.log_contains(r"vserver app: client 127\.0\.0\.1:\d+: refused: .*\(limit_memory\)$")
        clients.ping(c)
        while g.stats()["memory_bytes"] > (limit << 20) - (256 << 10):
            held.pop(0).close()
        assert g.stats()["memory_bytes"] > (limit << 20) * 7 // 8
        time.sleep(0.3)
        assert refused(g) == "reset"
        clients.ping(c)
        for s in held:
            s.close()
        assert wait_until(lambda: g.stats()["memory_bytes"] < limit << 19, 10)
        time.sleep(0.3)
        with connected(g, pki) as d:
            clients.ping(d)
        clients.ping(c)


def test_queue_at_the_limit_of_memory(gate, pki, backend):
    """Nobody is refused; who comes too late is let in when there is memory again."""
    g = gate(settings(pki, backend.port, limit__memory=16, limit__handshakes="off",
                      timeout__client_hello="5m", timeout__handshake="5m",
                      limit__when_full="queue", dataplane__workers=1))
    with contextlib.ExitStack() as stack:
        held = fill_memory(g, stack, lambda: g.stats()["accept_pauses"])
        accepted = g.stats()["flows_accepted"]
        late = half_sent(g, stack)
        time.sleep(0.3)
        assert g.stats()["flows_accepted"] == accepted
        for s in held:
            s.close()
        assert g.stat_reaches("flows_closed", len(held))
        with connected(g, pki) as c:
            clients.ping(c)
        late.close()
    assert g.stats()["reason_limit_memory"] == 0


def test_memory_that_nobody_would_come_in_with(gate, pki, backend):
    """Less than what is allocated before the first flow: the configuration is refused."""
    g = gate(settings(pki, backend.port))
    if g.sanitized():
        pytest.skip("a sanitizer's malloc does not tell how much is allocated")
    g.reconfigure(limit__memory=1)
    done = ctl("-s", g.socket, "reload")
    assert done.returncode and "did not start" in done.stderr
    assert g.log_contains(r"limit\.memory = 1: \d+ KiB are allocated before the first flow")
    with connected(g, pki) as c:
        clients.ping(c)


def test_log_rate(gate, pki, backend):
    """Of a flood of one kind a few lines are logged, and how many were left out; others go on."""
    g = gate(settings(pki, backend.port, log__rate=3, dataplane__workers=1))
    for _ in range(40):
        with socket.create_connection((HOST, g.port)) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while s.recv(4096):
                    pass
    with connected(g, pki) as c:
        clients.ping(c)
    assert g.log_contains(r"flow \d+: app .* -> service app1")
    assert g.stat_reaches("reason_client_not_tls", 40)
    left_out = g.stats()["log_lines_left_out"]
    logged = len(re.findall(r"\(client_not_tls\)$", g.log(), re.MULTILINE))
    assert logged + left_out == 40 and left_out > 0

    def told():
        return sum(map(int, re.findall(r"(\d+) lines about flows left out by log.rate: "
                                       r"client_not_tls$", g.log(), re.MULTILINE)))
    assert wait_until(lambda: told() == left_out, 5)


# ---- connections to a service before it is known for whom ----


def says_hello(g, pki, stack):
    """A connection with a whole ClientHello, and nothing behind it."""
    s = stack.enter_context(socket.create_connection((HOST, g.port)))
    p = peer.Peer(s, peer.context(False, pki.client(), pki.server_ca), name=FRONT_NAME)
    p.hello()
    return p


def service(g):
    return json.loads(g.ctl("services", "--json"))[0]


def test_early_connects(gate, pki):
    """
    Clients that only say hello get two connections to the backend and no more. Nobody fails: those
    who are verified are connected then, and when the others have left there is room again.
    """
    with backends.held(pki, backends.echo) as b:
        g = gate(settings(pki, b.port, service__app1__early_connects=2, dataplane__workers=1))
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                says_hello(g, pki, stack)
            assert wait_until(lambda: service(g)["early_waits"] == 3, 5)
            assert (service(g)["early"], service(g)["connections"]) == (2, 2)
            for _ in range(2):
                with connected(g, pki) as c:
                    clients.ping(c)
            assert (service(g)["early"], service(g)["connections"]) == (2, 4)
            assert len(b.seen) == 4
        assert wait_until(lambda: service(g)["early"] == 0, 10)
        with contextlib.ExitStack() as stack:
            says_hello(g, pki, stack)
            assert wait_until(lambda: service(g)["early"] == 1, 5)


@pytest.mark.parametrize("version", peer.VERSIONS)
def test_early_connects_and_a_client_that_waits_for_its_protocol(gate, pki, version):
    """
    alpn = mirror: it cannot be verified first, so it takes the place of the one that has taken its
    time the longest. That one goes on all the same.
    """
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root,
                          version=version) as b:
        g = gate(settings(pki, b.port, service__app1__early_connects=1, dataplane__workers=1,
                          profile__front__alpn="mirror"))
        with connect_alpn(g, pki) as slow:
            def quick():
                with connect_alpn(g, pki) as c:
                    assert c.handshake()
                    clients.ping(c)
            assert slow.handshake(before_flight=once(quick))
            clients.ping(slow)
        assert g.stats()["early_given_up"] == 1
        assert service(g)["early_waits"] == 1 and service(g)["early"] == 0


def test_no_early_connect_to_be_had(gate, pki):
    """The backend says nothing, so no connection can be given up: the next client is told in the end."""
    with backends.backend(tcp_script=backends.silent) as b:
        g = gate(settings(pki, b.port, service__app1__early_connects=1, dataplane__workers=1,
                          profile__front__alpn="mirror", timeout__handshake="2s"))
        with connect_alpn(g, pki) as first, connect_alpn(g, pki) as second:
            first.hello()
            assert wait_until(lambda: service(g)["early"] == 1, 5)
            assert not second.handshake() and second.ended == "alert internal_error"
        assert g.stat_reaches("flows_closed", 2)
        ends = {"client_timeout": 1, "no_early_connect": 1}
        assert {r: g.stats()[f"reason_{r}"] for r in ends} == ends


def connect_alpn(g, pki):
    return clients.connect(g.port, pki=pki, certkey=pki.client(), alpn=["h2"])


def once(run):
    """run, the first time that it is called."""
    left = [run]
    return lambda: left and left.pop()()


# ---- what a client may take before it has said who it is ----


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_client_hello_timeout(gate, pki, backend, said):
    """Silence, or a ClientHello that never ends: not for as long as somebody may type a PIN."""
    g = gate(settings(pki, backend.port, timeout__client_hello="1s"))
    with g.ends_with("client_hello_timeout"), socket.create_connection((HOST, g.port)) as s:
        s.sendall(said)
        assert s.recv(100) == b"\x15\x03\x03\x00\x02\x02\x5a"  # user_canceled
    with clients.connect(g.port, pki=pki, certkey=pki.client()) as c:
        assert c.handshake(before_flight=lambda: time.sleep(2))  # the PIN
        clients.ping(c)


TOO_LONG = b"\x15\x03\x03\x00\x02\x02\x2f"  # illegal_parameter
# A ClientHello of 128 KiB is announced.
CLAIM = b"\x16\x03\x01\x10\x00\x01\x02\x00\x00" + bytes(4092)


@pytest.mark.parametrize("said", [
    pytest.param(CLAIM, id="announced"),
    pytest.param(b"\x16\x03\x01\x00\x02\x01\x02" + b"\x16\x03\x01\x00\x02\x00\x00", id="announced-in-pieces"),
    pytest.param(b"\x16\x03\x01\x00\x04\x01\x00\x40\x00" + 4 * (b"\x16\x03\x01\x10\x00" + bytes(4096)),
                 id="sent"),
    pytest.param(b"\x16\x03\x01\x00\x04\x01\x00\x3f\x00" + 4000 * b"\x16\x03\x01\x00\x01\x00",
                 id="sent-byte-by-byte"),
])
def test_handshake_size(gate, pki, backend, said):
    """Nobody is listened to for longer than that, nor is room made for what is only announced."""
    g = gate(settings(pki, backend.port, limit__handshake_size=16))
    with g.ends_with("client_handshake_size"), socket.create_connection((HOST, g.port)) as s:
        s.sendall(said)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while more := s.recv(100):
                got += more
        assert got == TOO_LONG
    with connected(g, pki) as c:
        clients.ping(c)


@pytest.mark.parametrize("version", peer.VERSIONS)
def test_handshake_size_of_the_certificate(gate, pki, backend, version):
    """A chain counts, too: here one that is padded with the same certificate."""
    g = gate(settings(pki, backend.port, limit__handshake_size=16))
    ck = pki.client()
    chain = pki.directory / "long-chain.pem"
    chain.write_bytes(ck.cert_file.read_bytes() + 60 * pki.client_root.cert_file.read_bytes())
    ctx = peer.context(False, None, pki.server_ca, version=version)
    ctx.load_cert_chain(chain, ck.key_file)
    with g.ends_with("client_handshake_size"):
        with clients.connect(g.port, pki=pki, ctx=ctx) as c:
            assert not (c.handshake() and c.recv())
            assert c.ended == "alert illegal_parameter"


@pytest.mark.parametrize("version", peer.VERSIONS)
def test_handshake_longer_than_the_signer_reads(gate, pki, backend, version):
    """With a higher limit than the signer's 64 KiB the reason says so, and nothing is forged."""
    g = gate(settings(pki, backend.port, limit__handshake_size="200"))
    ctx = peer.context(False, pki.client(), pki.server_ca, version=version,
                       alpn=[f"{n:0250}" for n in range(255)])
    with g.ends_with("forge_failed"), clients.connect(g.port, pki=pki, ctx=ctx) as c:
        assert not (c.handshake() and c.recv())
        assert c.ended == "alert internal_error"
    assert g.log_contains(r"handshake too long \(forge_failed\)")
    assert g.stats()["forged"] == 0


@pytest.mark.parametrize("said, most", [(b"", 4), (b"\x16\x03\x01\x02", 4), (b"\x16\x03\x01\x40\x00\x01", 4),
                                        (CLAIM, 4), ("hello", 128)],
                         ids=["silent", "part", "much-announced", "more-announced", "hello"])
def test_memory_of_a_client_that_is_not_verified(gate, pki, said, most):
    """KiB each, as docs/design.md has it; with its connection to the backend."""
    n = 50
    with backends.held(pki) as b:
        g = gate(settings(pki, b.port, dataplane__workers=1))
        if g.sanitized():
            pytest.skip("a sanitizer's malloc does not tell how much is allocated")
        before = g.stats()["memory_bytes"]
        with contextlib.ExitStack() as stack:
            for _ in range(n):
                if said == "hello":
                    says_hello(g, pki, stack)
                else:
                    stack.enter_context(socket.create_connection((HOST, g.port))).sendall(said)
            assert g.stat_reaches("flows_accepted", n)
            if said == "hello":
                assert len([b.connection(i) for i in range(n)]) == n
            time.sleep(0.5)
            assert (g.stats()["memory_bytes"] - before) / n / 1024 < most


def test_defaults(gate, pki, backend):
    """They are derived from the machine, said at the start, and shown; off is off."""
    g = gate(settings(pki, backend.port))
    said = re.search(r"limits: limit\.flows = (\d+), limit\.handshakes = (\d+), limit\.memory = (\d+) "
                     r"\(MiB\)$", g.log(), re.MULTILINE)
    assert said and all(int(n) > 0 for n in said.groups())
    keys = ("limit.flows", "limit.handshakes", "limit.memory")
    assert [g.ctl(key).split(" = ")[1].strip() for key in keys] == list(said.groups())
    g.reload(limit__flows="off", limit__handshakes="0", limit__memory="77")
    assert g.log_contains(r"limits: limit\.flows = off, limit\.handshakes = off, limit\.memory = 77 ")
    assert g.ctl("limit.flows") == "limit.flows = off\n"
