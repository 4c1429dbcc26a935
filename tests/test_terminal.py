# SPDX-License-Identifier: Apache-2.0
"""Nothing that a peer chose, or a daemon that was broken into says, can speak to a terminal."""

import contextlib
import json
import re
import socket
import threading

import pytest

from harness import backend as backends
from harness import client as clients
from harness import daemon, peer
from harness.daemon import settings, wait_until
from harness.pki import FRONT_NAME, common_name

EVIL = b"\x1b]0;pwned\x07\x1b[2J\x9b31m\xc2\x9b\r\x08\x7f\xe2\x80\xae"
SPEAKS = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80\xae")
LINES = {
    b"stats": b"flows_" + EVIL + b" 1\nflows_active 1" + EVIL + b"\n",
    b"config": b"certkey.a.cert = /" + EVIL + b"\nlog." + EVIL + b" = info\n",
    b"origins": b"/etc/x" + EVIL + b":1: log.level = info\n",
}
COMMANDS = (["stats"], ["--json", "stats"], ["flows"], ["--json", "flows"], ["metrics"], ["status"],
            ["services"], ["--json", "services"], ["requests", "app1"], ["reload"], ["kill", "1"],
            ["shield", "show"], ["-a"], ["--json", "-a"], ["-n", "log.level"], ["-T"],
            ["-w", "log.level=info"], ["explain", "app1", "/dev/null"], ["forged", "1234"],
            ["drain", "worker", "0"])


@contextlib.contextmanager
def fake_daemon(path, answer):
    """Says answer(request line) to everybody."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as s:
                        s.sendall(answer(s.makefile("rb").readline().strip()))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def run(path, words):
    done = daemon.ctl("-s", path, *words, encoding="latin-1")
    return done.returncode, (done.stdout + done.stderr).encode("latin-1")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_answers_of_a_broken_daemon(tmp_path, words):
    """In a value, a name, a field of a table, behind a NUL, in an error: none comes through."""
    line = b"id=7" + EVIL + b"\tclient=a" + EVIL + b"\0b" + EVIL + b"\tna" + EVIL + b"me=x\n"
    answers = (lambda request: b"ok\n" + LINES.get(request.split(b" ")[0], line),
               lambda request: b"error " + EVIL + b"\n" + line,
               lambda request: EVIL + b"\n")
    for n, answer in enumerate(answers):
        with fake_daemon(tmp_path / f"socket{n}", answer) as path:
            status, printed = run(path, words)
        assert not SPEAKS.search(printed), printed
        assert n == 0 or (status == 1 and rb"\x1b]0;pwned\x07" in printed)
        if n == 0 and words[0] == "--json" and words[1] != "stats":
            assert rb"\\x1b]0;pwned" in printed and json.loads(printed)


@pytest.mark.parametrize("answer", [b"", b"ok\nflows_active 1", b"ok", b"error no"])
def test_answer_cut_short(tmp_path, answer):
    """Never taken for a whole one."""
    with fake_daemon(tmp_path / "socket", lambda _request: answer) as path:
        status, printed = run(path, ["stats"])
    assert status == 1
    assert b"the answer is cut short" in printed if answer else b"no answer" in printed
    assert b"flows_active" not in printed


def test_audit_log(tmp_path):
    """A file that somebody else may have written to."""
    (tmp_path / "audit").write_bytes(b'{"forged":{"serial":"AB"},"x":"' + EVIL + b'"}\n')
    done = daemon.ctl("-f", tmp_path / "audit", "forged", "ab", encoding="latin-1")
    assert done.returncode == 0 and not SPEAKS.search(done.stdout.encode("latin-1"))


def test_utf8_is_shown(tmp_path):
    text = "log.file = /var/log/Müller €\n".encode()
    with fake_daemon(tmp_path / "socket", lambda _request: b"ok\n" + text) as path:
        assert run(path, ["-a"]) == (0, text)


def test_protocol_name(gate, pki, engine, tmp_path):
    """A client and a backend may agree on any bytes: not a field more in the table, log or JSON."""
    name = "x\x1b[2J\tengine=no\n\x7f"
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        b.ctx.set_alpn_protocols([name])
        g = gate(settings(pki, b.port, profile__front__alpn="mirror",
                          log__flows=tmp_path / "flows"))
        ctx = peer.context(False, pki.client(), pki.server_ca, alpn=[name])
        with clients.connected(g.port, pki=pki, ctx=ctx) as c:
            clients.ping(c)
            (flow,) = g.flows()
            printed = g.ctl("flows").encode()
            c.close_notify()
            c.recv()
    assert flow["engine"] == engine and len(printed.splitlines()) == 2
    assert wait_until(lambda: (tmp_path / "flows").read_bytes(), 10 * peer.SCALE)
    line = (tmp_path / "flows").read_bytes()
    assert json.loads(line)["engine"] == engine and line.count(b"\n") == 1
    for text in (printed, line, g.log_file.read_bytes()):
        assert b"[2J" in text and not SPEAKS.search(text)


def test_names_of_a_client(gate, pki, backend):
    """Its certificate's subject; one with control characters is refused, see test_names.py."""
    g = gate(settings(pki, backend.port))
    with clients.connect(g.port, pki=pki, certkey=pki.client(subject=common_name("eve\u202e"))) as c:
        if c.handshake():
            c.send(b"x")
            c.recv()
        assert wait_until(lambda: b"eve" in g.log_file.read_bytes(), 10 * peer.SCALE)
        printed = g.ctl("flows").encode()
    assert not SPEAKS.search(printed + g.log_file.read_bytes())


def client_hello(pki):
    out = peer.ssl.MemoryBIO()
    tls = peer.context(False, ca=pki.server_ca).wrap_bio(peer.ssl.MemoryBIO(), out,
                                                         server_hostname=FRONT_NAME)
    with pytest.raises(peer.ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


def test_server_name(gate, pki, backend):
    """Also one that is no name at all."""
    g = gate(settings(pki, backend.port))
    evil = (b"\x1b[2J\x9b" + FRONT_NAME.encode())[:len(FRONT_NAME)]
    hello = client_hello(pki)
    assert hello.count(FRONT_NAME.encode()) == 1
    with clients.tcp(g.port) as s:
        s.sendall(hello.replace(FRONT_NAME.encode(), evil))
        s.shutdown(socket.SHUT_WR)
        while s.recv(65536):
            pass
    assert g.stat_reaches("flows_closed", 1)
    assert not SPEAKS.search(g.log_file.read_bytes())


def test_backend_text(gate, pki, tmp_path):
    """What a backend says instead of TLS is in no log line, and its failure in the table of services."""
    def say(_seen, sock):
        sock.recv(65536)
        sock.sendall(EVIL * 20)

    with backends.backend(tcp_script=say) as b:
        g = gate(settings(pki, b.port))
        with clients.connect(g.port, pki=pki, certkey=pki.client()) as c:
            assert not c.handshake() or not c.recv()
        assert g.stat_reaches("flows_closed", 1)
        assert not SPEAKS.search(g.log_file.read_bytes() + g.ctl("services").encode())
