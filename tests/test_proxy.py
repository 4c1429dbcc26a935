# SPDX-License-Identifier: Apache-2.0
"""PROXY protocol version 2, received and sent; UNIX socket and IPv6 backends."""

import contextlib
import pathlib
import re
import socket
import struct
import subprocess
import threading
import time

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings
from harness.pki import BACK_NAME, FRONT_NAME
from harness.ports import HOST, free_port, wait_listening
from test_services import several

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.9") + struct.pack(">HH", 1234, 443)
V6 = (socket.inet_pton(socket.AF_INET6, "2001:db8::7")
      + socket.inet_pton(socket.AF_INET6, "2001:db8::9") + struct.pack(">HH", 1234, 443))
MAPPED = (b"\0" * 10 + b"\xff\xff" + V4[:4] + b"\0" * 10 + b"\xff\xff" + V4[4:8] + V4[8:])
TRUSTED = {"vserver__app__accept_proxy": "on", "vserver__app__proxy_from": "127.0.0.0/8 ::1"}


def header(body, *, family, command=1, version=2, length=None):
    return SIGNATURE + struct.pack(">BBH", version << 4 | command, family,
                                   len(body) if length is None else length) + body


@contextlib.contextmanager
def behind(port, pki, first):
    """A client's connection that begins with these bytes, in pieces."""
    with clients.tcp(port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in first:
            sock.sendall(piece)
            if len(first) > 1:
                time.sleep(0.01)
        ctx = peer.context(False, pki.client(), pki.server_ca)
        yield peer.Peer(sock, ctx, name=FRONT_NAME, timeout=peer.TIMEOUT)


TLV = b"\x04" + struct.pack(">H", 900) + bytes(900)


@pytest.mark.parametrize("first, client", [
    (header(V4, family=0x11), "192.0.2.7:1234"),
    (header(V6, family=0x21), "[2001:db8::7]:1234"),
    (header(MAPPED, family=0x21), "192.0.2.7:1234"),
    (header(V4 + TLV, family=0x11), "192.0.2.7:1234"),
    (header(b"", family=0, command=0), f"{HOST}:"),
    (header(bytes(216), family=0x31), f"{HOST}:"),
], ids=["v4", "v6", "mapped", "tlv", "local", "unix"])
@pytest.mark.parametrize("cut", ["whole", "pieces"])
def test_accepted(gate, pki, backend, first, client, cut):
    """The address is the header's, and not a byte of the ClientHello is lost."""
    g = gate(settings(pki, backend.port, **TRUSTED))
    step = len(first) if cut == "whole" else 13
    with behind(g.port, pki, [first[i:i + step] for i in range(0, len(first), step)]) as c:
        assert c.handshake(), c.ended
        c.send(b"hello")
        assert c.recv_exactly(5) == b"hello"
        [flow] = g.flows()
        assert flow["client"].startswith(client)
        assert g.log_contains(re.escape(f"app {client}"))


@pytest.mark.parametrize("first, reason", [
    (b"", "proxy_absent"),
    (b"PROXY TCP4 192.0.2.7 198.51.100.9 1234 443\r\n", "proxy_version"),
    (header(V4, family=0x11, version=1), "proxy_malformed"),
    (header(V4, family=0x11, command=7), "proxy_malformed"),
    (header(V4[:11], family=0x11), "proxy_malformed"),
    (header(V4, family=0x21), "proxy_malformed"),
    (header(V4, family=0x11, length=5000), "proxy_malformed"),
    (SIGNATURE[:5] + b"x", "proxy_absent"),
], ids=["absent", "v1", "version", "command", "short", "family", "long", "signature"])
def test_refused(gate, pki, backend, first, reason):
    g = gate(settings(pki, backend.port, **TRUSTED))
    with g.ends_with(reason):
        with behind(g.port, pki, [first]) as c:
            with contextlib.suppress(ConnectionError):
                assert not c.handshake()
    assert not backend.seen


@pytest.mark.parametrize("first", [b"", header(V4, family=0x11)[:7], header(V4, family=0x11)[:20]])
def test_header_cut_short(gate, pki, backend, first):
    """By the client's end, or by the time it has."""
    g = gate(settings(pki, backend.port, **TRUSTED, timeout__handshake="1s"))
    with g.ends_with("client_gone"):
        with clients.tcp(g.port) as s:
            s.sendall(first)
    with g.ends_with("client_timeout"):
        with clients.tcp(g.port) as s:
            s.sendall(first)
            while s.recv(100):
                pass


def test_strangers_are_clients(gate, pki, backend):
    """Not in proxy_from: no header is expected of them, and theirs is not believed."""
    g = gate(settings(pki, backend.port, vserver__app__accept_proxy="on",
                      vserver__app__proxy_from="192.0.2.0/24 2001:db8::/32"))
    with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
        c.send(b"hello")
        assert c.recv_exactly(5) == b"hello"
    assert g.stat_reaches("flows_closed", 1)
    with g.ends_with("client_not_tls"):
        with behind(g.port, pki, [header(V4, family=0x11)]) as c:
            assert not c.handshake()


# ---- sent ----


class Front:
    """What a backend is told, and then a TLS backend behind it."""

    def __init__(self, pki):
        self.header, self.pki = None, pki
        self.told = threading.Event()

    def __call__(self, seen, sock):
        sock.settimeout(peer.TIMEOUT)
        head = sock.recv(16, socket.MSG_WAITALL)
        body = sock.recv(struct.unpack(">H", head[14:])[0], socket.MSG_WAITALL)
        self.header = head + body
        self.told.set()
        p = peer.Peer(sock, peer.context(True, self.pki.backend(), self.pki.forging_root),
                      server=True, timeout=peer.TIMEOUT)
        if p.handshake():
            backends.echo(seen, p)


def tlvs(data):
    found = {}
    while data:
        kind, length = struct.unpack(">BH", data[:3])
        found[kind] = data[3:3 + length]
        data = data[3 + length:]
    return found


@pytest.mark.parametrize("version", peer.VERSIONS)
def test_sent_with_tls(gate, pki, version):
    told = Front(pki)
    with backends.backend(tcp_script=told) as b:
        g = gate(settings(pki, b.port, service__app1__send_proxy="tls",
                          service__app1__connect="verified"))
        with clients.connected(g.port, pki=pki, certkey=pki.client(), version=version) as c:
            c.send(b"hello")
            assert c.recv_exactly(5) == b"hello"
            local = c.sock.getsockname()
            cipher = c.cipher
    head, body = told.header[:16], told.header[16:]
    assert head[:14] == SIGNATURE + b"\x21\x11"
    assert body[:12] == socket.inet_aton(HOST) * 2 + struct.pack(">HH", local[1], g.port)
    found = tlvs(body[12:])
    assert found[2] == FRONT_NAME.encode()
    client, verify = struct.unpack(">BI", found[0x20][:5])
    assert (client & 3, verify) == (3, 0)
    tls = tlvs(found[0x20][5:])
    assert tls[0x21] == b"TLSv" + version.encode()
    assert tls[0x22] == b"Erika Mustermann"
    assert tls[0x23] and cipher


def test_sent_where_another_service_was_out_of_reach(gate, pki):
    """The one that is tried next is told who the client is, too: it waits for that to be known."""
    told = Front(pki)
    with backends.backend(tcp_script=told) as b:
        g = gate(several(pki, [free_port(), b.port], service__s1__send_proxy="tls",
                         service__s1__connect="verified"))
        with clients.connect(g.port, pki=pki, certkey=pki.client()) as c:
            assert c.handshake(
                before_flight=lambda: g.stat_reaches("retries_connect_refused", 1)), c.ended
            c.send(b"hello")
            assert c.recv_exactly(5) == b"hello"
    tls = tlvs(tlvs(told.header[28:])[0x20][5:])
    assert tls[0x22] == b"Erika Mustermann"


def test_passed_on(gate, pki):
    """What a proxy in front told, the backend is told."""
    told = Front(pki)
    with backends.backend(tcp_script=told) as b:
        g = gate(settings(pki, b.port, **TRUSTED, service__app1__send_proxy="on"))
        with behind(g.port, pki, [header(V6, family=0x21)]) as c:
            assert c.handshake(), c.ended
            c.send(b"hello")
            assert c.recv_exactly(5) == b"hello"
    assert told.header[12:16 + 36] == b"\x21\x21" + told.header[14:16] + V6
    assert 0x20 not in tlvs(told.header[16 + 36:])


def test_check_says_local(gate, pki):
    told = Front(pki)
    with backends.backend(tcp_script=told) as b:
        g = gate(settings(pki, b.port, service__app1__send_proxy="on", service__app1__check="tls"))
        assert told.told.wait(5)
        assert told.header == SIGNATURE + b"\x20\0\0\0"
        assert g.stat_reaches("flows_active", 0)


def test_backend_leaves_before_the_header(gate, pki, backend):
    """It is another one's turn."""
    def reset(_seen, sock):
        peer.linger_zero(sock)

    with backends.backend(tcp_script=reset) as broken:
        conf = settings(pki, broken.port, service__app1__send_proxy="on")
        conf.update({"vserver.app.service": "app1 app2", "dataplane.workers": 1,
                     "service.app2.address": f"{HOST}:{backend.port}",
                     "service.app2.server_name": BACK_NAME, "service.app2.profile": "back"})
        g = gate(conf)
        for _ in range(4):
            with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
                c.send(b"hello")
                assert c.recv_exactly(5) == b"hello"


HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen front
    bind 127.0.0.1:{front}
    server gate 127.0.0.1:{gate} send-proxy-v2
frontend back
    mode http
    log stdout format raw local0
    bind 127.0.0.1:{back} accept-proxy ssl crt {pem} ca-file {ca} verify required
    http-request return status 200 content-type text/plain lf-string "%[src] %[fc_pp_authority] %[ssl_c_s_dn(cn)]"
"""


def test_haproxy_on_both_sides(gate, pki, tmp_path):
    """HAProxy tells us, and is told by us."""
    front, back, port = free_port(), free_port(), free_port()
    pem, conf = tmp_path / "back.pem", tmp_path / "haproxy.cfg"
    ck = pki.backend()
    pem.write_bytes(open(ck.cert_file, "rb").read() + open(ck.key_file, "rb").read())
    conf.write_text(HAPROXY.format(front=front, back=back, gate=port, pem=pem,
                                   ca=pki.forging_root.cert_file))
    with backends.program(["haproxy", "-f", conf, "-db"], front, tmp_path / "haproxy.log"):
        wait_listening(back)
        g = gate(settings(pki, back, port=port, **TRUSTED, service__app1__send_proxy="tls",
                          service__app1__connect="verified"))
        done = clients.curl(front, pki=pki, certkey=pki.client(), args=["-v", "-k", "--interface",
                                                                         "127.0.0.5"])
    assert done.stdout.decode() == f"127.0.0.5 {FRONT_NAME} Erika Mustermann", (done, g.log())
    assert g.log_contains(r"app 127\.0\.0\.5:\d+ ")


# ---- UNIX sockets, IPv6 ----


@contextlib.contextmanager
def s_server_unix(path, pki, log):
    argv = ["openssl", "s_server", "-unix", path, "-unlink", "-cert", pki.backend().cert_file,
            "-key", pki.backend().key_file, "-CAfile", pki.forging_root.cert_file, "-Verify", "5",
            "-verify_return_error", "-rev"]
    with open(log, "wb") as out, subprocess.Popen(
            list(map(str, argv)), stdin=subprocess.PIPE, stdout=out, stderr=out) as process:
        end = time.monotonic() + 10
        while not path.is_socket() and time.monotonic() < end:
            time.sleep(0.01)
        try:
            yield
        finally:
            process.kill()


def test_unix_backend(gate, pki, tmp_path):
    """By the user engine, and counted so; checks and retries as ever."""
    path = pathlib.Path(f"/tmp/kg-{free_port()}.sock")  # openssl 3.0 takes no path above 31 bytes
    with s_server_unix(path, pki, tmp_path / "log"):
        path.chmod(0o777)
        g = gate(settings(pki, 1, service__app1__address=f"unix:{path}",
                          service__app1__check="tls"), **{"dataplane.engine": "auto"})
        _, printed = clients.s_client(g.port, b"hello\n", b"olleh", pki=pki, certkey=pki.client())
        assert b"olleh" in printed
        assert g.log_contains(re.escape(f"service app1 unix:{path} "))
        stats = g.stats()
        assert stats["engine_user_flows"] == 1
        assert stats["user_because_unix"] + stats["user_because_no_ktls"] == 1
        assert f"unix:{path}" in g.ctl("services")
    path.unlink(missing_ok=True)
    with g.ends_with("backend_connect_failed"):
        with clients.connect(g.port, pki=pki, certkey=pki.client()) as c:
            assert not (c.handshake() and c.recv())


def test_unix_backend_of_many_bytes(gate, pki, tmp_path):
    """More than fits into any buffer, both ways, to an orderly end."""
    path = tmp_path / "backend.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    path.chmod(0o777)
    seen = backends.Seen()

    def serve():
        sock = listener.accept()[0]
        with sock:
            p = peer.Peer(sock, peer.context(True, pki.backend(), pki.forging_root), server=True,
                          timeout=peer.TIMEOUT)
            if p.handshake():
                backends.echo(seen, p)
        seen.ended = p.ended

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    g = gate(settings(pki, 1, service__app1__address=f"unix:{path}"),
             **{"dataplane.engine": "auto"})
    data = bytes(range(256)) * 8192
    with g.ends_with("done"):
        with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
            for start in range(0, len(data), 65536):
                c.send(data[start:start + 65536])
                assert c.recv_exactly(65536) == data[start:start + 65536]
            c.close_notify()
            c.fin()
            assert not c.recv() and c.ended == "close_notify"
    thread.join(5)
    assert (seen.received, seen.ended) == (len(data), "close_notify")
    listener.close()


def test_ipv6_on_both_sides(gate, pki):
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root, host="::1") as b:
        port = free_port()
        g = gate(settings(pki, 1, vserver__app__listen=f"[::1]:{port}",
                          service__app1__address=f"[::1]:{b.port}"))
        with socket.create_connection(("::1", port)) as s:
            p = peer.Peer(s, peer.context(False, pki.client(), pki.server_ca), name=FRONT_NAME,
                          timeout=peer.TIMEOUT)
            assert p.handshake()
            p.send(b"hello")
            assert p.recv_exactly(5) == b"hello"
            [flow] = g.flows()
            assert flow["client"].startswith("[::1]:") and flow["backend"] == f"[::1]:{b.port}"
    assert "ffff" not in g.log()
