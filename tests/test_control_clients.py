# SPDX-License-Identifier: Apache-2.0
"""The control socket's clients, and somebody of its group among them who keeps others waiting."""

import contextlib
import re
import socket
import threading
import time

import pytest

from harness import client as clients
from harness import user
from harness.daemon import settings, wait_until
from harness.peer import SCALE
from harness.ports import HOST
from harness.traffic import Traffic

PER_USER = 6  # CONTROL_PER_USER
KEPT, PLACES = 8, 32  # CONTROL_KEPT, CONTROL_CLIENTS
MANY_SERVICES = {f"service.s{n}.{key}": value for n in range(800) for key, value in (
    ("address", f"{HOST}:9"), ("server_name", "backend.example"), ("profile", "back"))}
OTHER = user.UID + 1


@pytest.fixture
def others(gate, pki, backend):
    """A gate whose control socket is for a group; with settings of its own."""
    user.need_root()

    def start(**changes):
        return gate({**settings(pki, backend.port, control__group=user.GROUP), **changes})
    return start


def connect(g):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20 * SCALE)
    s.connect(str(g.socket))
    return s


def read(s):
    """All that comes, to the end."""
    got = b""
    while data := s.recv(1 << 20):
        got += data
    return got


def ask(g, request):
    with connect(g) as s:
        s.sendall(request.encode())
        return read(s)


# ---- who holds connections ----


@pytest.mark.parametrize("n", [49, 500])
def test_silent_connections(others, n):
    """Of one user: those that are too many are told so, and nobody else waits."""
    g = others()
    with user.holding(g.socket, n) as told:
        assert "flows_active 0" in g.ctl("stats")
        status, out, err = user.ctl(g.socket, "stats", uid=OTHER)
        assert status == 0 and "flows_active 0" in out, err
        status, out, err = user.ctl(g.socket, "stats")
        why = f"error too many connections of uid {user.UID}: {PER_USER} at once\n"
        assert (status, out, err) == (1, "", f"ktlsgatectl: {why}")
        answers = told()
    assert answers[:PER_USER] == [("TimeoutError", b"")] * PER_USER
    assert answers[PER_USER:] == [("end", why.encode())] * (n - PER_USER)
    assert wait_until(lambda: user.ctl(g.socket, "stats")[0] == 0, 10 * SCALE)


def test_many_users(others):
    """All places but those that are kept for root."""
    g = others()
    with contextlib.ExitStack() as stack:
        for n in range(-(-(PLACES - KEPT) // PER_USER)):
            stack.enter_context(user.holding(g.socket, PER_USER, uid=OTHER + n))
        assert user.ctl(g.socket, "stats") == (
            1, "", "ktlsgatectl: error too many connections: try again\n")
        assert "flows_active 0" in g.ctl("stats")


def test_silence_has_its_time(others):
    """Also half a request."""
    g = others()
    for text in ("", "sta"):
        with user.holding(g.socket, PER_USER, text, patience=20 * SCALE) as told:
            assert told() == [("end", b"error no request in time\n")] * PER_USER
        assert user.ctl(g.socket, "stats")[0] == 0


# ---- who does not read ----


def test_unread_answers(others):
    """Nobody waits for who does not read; that one is left, and can tell that it was."""
    g = others(**MANY_SERVICES)
    assert len(ask(g, "origins\n")) > 500_000  # more than a socket holds
    fds = g.descriptors()
    with contextlib.ExitStack() as stack:
        tolds = [stack.enter_context(user.holding(g.socket, PER_USER, "origins\n", uid=OTHER + n,
                                                  patience=20 * SCALE)) for n in range(3)]
        for _ in range(20):
            began = time.monotonic()
            assert "flows_active 0" in g.ctl("stats")
            assert time.monotonic() - began < 4 * SCALE  # a reader's patience is 5 s
        assert user.ctl(g.socket, "stats", uid=OTHER + 10)[0] == 0
        assert wait_until(lambda: g.descriptors() <= fds, 20 * SCALE)
        for told in tolds:
            for end, got in told():
                assert end == "end" and got.startswith(b"ok\n") and not got.endswith(b"\n")


def test_slow_reader(others):
    """Who goes on reading is given all of it."""
    g = others(**MANY_SERVICES)
    whole = ask(g, "origins\n")
    with connect(g) as s:
        s.sendall(b"origins\n")
        got = b""
        while data := s.recv(100_000):
            got += data
            time.sleep(0.05)
    assert got == whole


def test_answer_of_the_supervisor_is_whole(others):
    """A refused configuration says why for each line, more than a socket holds."""
    g = others()
    body = "".join(f"no.such.key{n}.{'x' * 200} = 1\n" for n in range(3000))
    answer = ask(g, f"set many {len(body)}\n{body}")
    assert answer.startswith(b"error refused") and answer.endswith(b"\n")
    assert answer.count(b"no.such.key") >= 3000 and len(answer) > 500_000


def test_client_that_leaves(others):
    """With an answer under way or not read at all, again and again: nothing stays behind."""
    g = others(**MANY_SERVICES)
    fds = g.descriptors()
    for n in range(100):
        with connect(g) as s:
            s.sendall((b"origins\n", b"flows\n", b"stats\n", b"status\n")[n % 4])
            if n % 8 < 4:
                s.recv(10)
    assert "flows_active 0" in g.ctl("stats")
    assert wait_until(lambda: g.descriptors() <= fds, 10 * SCALE)


# ---- what is asked, and how often ----


def test_rate(others):
    """A hundred requests at once, then twenty a second: others are not slowed down by them."""
    g = others()
    done = threading.Event()
    asked = []

    def hurry():
        script = ("import socket, sys\n"
                  "for n in range(160):\n"
                  "    s = socket.socket(socket.AF_UNIX)\n"
                  "    s.connect(sys.argv[1])\n"
                  "    s.sendall(b'services\\n')\n"
                  "    print(s.makefile().read().startswith('ok'))\n")
        with user.popen([user.sys.executable, "-c", script, g.socket]) as process:
            asked.append(process.communicate(timeout=50 * SCALE)[0].split())
        done.set()

    began = time.monotonic()
    thread = threading.Thread(target=hurry)
    thread.start()
    n = 0
    while not done.is_set():
        assert "flows_active 0" in g.ctl("stats")
        n += 1
    took = time.monotonic() - began
    thread.join()
    assert asked == [["True"] * 160] and 50 / 20 <= took
    assert n > 30  # root has no such limit


def test_requests_of_any_form(others):
    g = others()
    assert ask(g, "x" * 600) == b"error the request is too long\n"
    assert ask(g, f"set many {(1 << 20) + 1}\n").startswith(b"error want set NAME LENGTH")
    assert ask(g, "stats\r\n").startswith(b"ok\n")
    assert ask(g, "stats\nstats\n").startswith(b"ok\n")
    with connect(g) as s:  # by and by
        for c in b"stats\n":
            s.sendall(bytes([c]))
        assert read(s).startswith(b"ok\n")
    with connect(g) as s:  # nothing more to say, but to hear
        s.sendall(b"stats\n")
        s.shutdown(socket.SHUT_WR)
        assert read(s).endswith(b"\n")
    with connect(g) as s:  # no line
        s.sendall(b"stats")
        s.shutdown(socket.SHUT_WR)
        assert read(s) == b""


def test_changes_are_for_root_only(others):
    """And a body that would be refused is not waited for."""
    g = others()
    for words in (["reload"], ["kill", "1"], ["-w", "log.level=debug"], ["shield", "deny", "::/0"],
                  ["services", "drain", "app1"], ["drain", "worker", "0"]):
        assert user.ctl(g.socket, *words) == (1, "", "ktlsgatectl: error this is for root only\n")
    with user.holding(g.socket, 1, "set x 1048576\n", patience=20 * SCALE) as told:
        assert told() == [("end", b"error this is for root only\n")]


# ---- flows ----


@pytest.mark.timeout(120)
def test_flows_while_they_come_and_go(gate, pki, tmp_path):
    """Each that is there all the time is shown once in each list, whatever happens around it."""
    traffic = Traffic(gate, pki, tmp_path)
    g = traffic.gate
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            with contextlib.suppress(OSError), clients.tcp(g.port) as s:
                s.sendall(b"\x16")

    threads = [threading.Thread(target=come_and_go) for _ in range(2)]
    with traffic.held("--idle", 400, "--bytes", "1k", "--concurrency", 8):
        there = {flow["id"] for flow in g.flows()}
        assert len(there) == 400
        for thread in threads:
            thread.start()
        try:
            for _ in range(30):
                ids = [flow["id"] for flow in g.flows()]
                assert len(ids) == len(set(ids)) and there <= set(ids)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        # While all of them end: whole lines, to the end.
        answers = []
        unread = [connect(g) for _ in range(4)]
        for s in unread:
            s.sendall(b"flows\n")
    for s in unread:
        answers.append(read(s))
        s.close()
    for answer in answers:
        head, *lines = answer.decode().split("\n")
        assert head == "ok" and lines.pop() == ""
        assert all(re.fullmatch(r"id=\d+\tstage=.*\tbytes_from_backend=\d+", line)
                   for line in lines)
        assert len(lines) == len(set(lines))
