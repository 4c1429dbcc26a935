# SPDX-License-Identifier: Apache-2.0
"""Health checks, ejection, slow start and draining of services."""

import collections
import contextlib
import json
import re
import socket
import subprocess
import sys
import time

import pytest

from harness import backend as backends
from harness import client as clients
from harness import netns
from harness.daemon import settings, wait_until
from harness.pki import BACK_NAME
from harness.ports import HOST, free_port
from test_services import pool, several, who_serves  # noqa: F401  # pylint: disable=unused-import

FAST = {"check_interval": "1s", "check_timeout": "1s", "check_rise": "1", "check_fall": "1"}


def services(g):
    return {s["service"]: s for s in json.loads(g.ctl("services", "--json"))}


def state_is(g, service, state, timeout=5):
    return wait_until(lambda: services(g)[service]["state"] == state, timeout)


def refused(g, pki):
    with clients.connect(g.port, pki=pki, certkey=pki.client()) as c:
        assert not (c.handshake() and c.recv())
        return c.ended


# ---- checks ----


def test_all_down(gate, pki, tmp_path):
    """A reason of its own, a proper alert, no connection; then up again by its checks."""
    port = free_port()
    g = gate(several(pki, [port], each={**FAST, "check": "connect"}))
    assert state_is(g, "s0", "down")
    with g.ends_with("no_service"):
        assert refused(g, pki) == "alert internal_error"
    said = services(g)["s0"]
    assert said["connections"] == 0 and said["checks_failed"] >= 1
    assert said["last_error"] == "check: Connection refused"
    with backends.s_server(port, certkey=pki.backend(), client_ca=pki.forging_root,
                           log=tmp_path / "s_server.log"):
        assert state_is(g, "s0", "up")
        clients.s_client(g.port, b"abc\n", b"cba", pki=pki, certkey=pki.client())
    assert state_is(g, "s0", "down")
    lines = re.findall(r"(?:warning|info): service s0: (up$|down: .*)", g.log(), re.MULTILINE)
    assert lines == ["down: check: Connection refused", "up", "down: check: Connection refused"]


def test_rise_and_fall(gate, pki, pool):
    """Three bad checks in a row; the first one alone decides."""
    [b] = pool(1)
    g = gate(several(pki, [b.port], each={**FAST, "check": "connect", "check_fall": "3"}))
    assert wait_until(lambda: services(g)["s0"]["checks"] >= 1, 5)
    b.stop()
    assert state_is(g, "s0", "down", 8)
    assert services(g)["s0"]["checks_failed"] == 3


MONITORED = [(None, True), ("good", True), ("wrong_ca", False)]


@pytest.mark.parametrize("kind", ["nginx", "openssl", "gnutls"])
@pytest.mark.parametrize("version", backends.peer.VERSIONS)
def test_tls_check_of_real_backends(gate, pki, tmp_path, kind, version):
    """Without a certificate, with one that the backend takes, and with one that it refuses."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        options = {"certkey": pki.backend(), "client_ca": pki.client_root}
        if kind == "nginx":
            server = backends.Nginx(tmp_path / "nginx")
            port = server.server(version=version, **options)
            stack.enter_context(server.run())
        elif kind == "openssl":
            stack.enter_context(backends.s_server(
                port, log=tmp_path / "log", args=("-rev", "-tls" + version.replace(".", "_")),
                **options))
        else:
            stack.enter_context(backends.gnutls_serv(
                port, log=tmp_path / "log", priority=f"NORMAL:-VERS-ALL:+VERS-TLS{version}",
                **options))
        conf = several(pki, [port] * 3, each={**FAST, "check": "tls"})
        for i, (fault, _) in enumerate(MONITORED):
            if fault:
                ck = pki.client(fault=None if fault == "good" else fault)
                conf[f"certkey.monitor{i}.cert"] = ck.cert_file
                conf[f"certkey.monitor{i}.key"] = ck.key_file
                conf[f"service.s{i}.check_certkey"] = f"monitor{i}"
        g = gate(conf)
        for i, (_, good) in enumerate(MONITORED):
            good = good or kind == "nginx"  # it judges the certificate in HTTP, not in TLS
            assert wait_until(lambda n=i: services(g)[f"s{n}"]["checks"] >= 2, 8)
            said = services(g)[f"s{i}"]
            assert (said["state"], said["checks_failed"]) == (
                ("up", 0) if good else ("down", said["checks"])), (i, said, g.log())
        if kind != "nginx":
            assert "monitor certificate was refused" in services(g)["s2"]["last_error"]


@pytest.mark.parametrize("how, error", [
    ("fin", "backend left during the handshake"), ("mute", "no answer in time"),
    ("expired", "backend certificate expired"), ("not_tls", "backend does not speak TLS")])
def test_tls_check_of_bad_backends(gate, pki, how, error):
    def banner(_seen, sock):
        sock.sendall(b"220 mail.example ESMTP\r\n")
        sock.recv(4096)

    scripts = {"fin": backends.close_at_once, "mute": backends.silent, "not_tls": banner}
    options = {"tcp_script": scripts[how]} if how in scripts else {
        "certkey": pki.bad_backend(how), "client_ca": pki.forging_root}
    with backends.backend(**options) as b:
        g = gate(several(pki, [b.port], each={**FAST, "check": "tls"}))
        assert state_is(g, "s0", "down")
        assert error in services(g)["s0"]["last_error"]
        assert len(re.findall("service s0: down", g.log())) == 1


def test_checks_end_with_the_daemon(gate, pki):
    """At once, whatever they wait for."""
    with backends.unaccepting() as port, backends.backend(tcp_script=backends.silent) as mute:
        g = gate(several(pki, [port, mute.port], each={**FAST, "check_timeout": "60s",
                                                       "check": "tls"}))
        assert mute.connection(0)
        started = time.monotonic()
        g.stop()
        assert time.monotonic() - started < 5


# ---- ejection ----


def test_ejection(gate, pki, pool):
    """Out after three failures in a row, for one second, then two; back with a success."""
    port = free_port()
    g = gate(several(pki, [port, pool(1)[0].port],
                     each={"eject_after": "3", "eject_time": "1s", "eject_time_max": "2s"}))
    who_serves(g, pki, 7)
    assert services(g)["s0"]["state"] == "ejected"
    before = services(g)["s0"]["failures"]
    assert before == 3
    who_serves(g, pki, 4)
    assert services(g)["s0"]["failures"] == before
    assert g.stats()["retries_connect_refused"] == 3
    for seconds in (2, 2):  # a single failure is enough now
        assert state_is(g, "s0", "up")
        who_serves(g, pki, 2)
        assert services(g)["s0"]["state"] == "ejected"
        assert re.search(rf"s0: ejected for {seconds} s after ", g.log())
    assert services(g)["s0"]["ejections"] == 3
    with backends.s_server(port, certkey=pki.backend(), client_ca=pki.forging_root,
                           log=g.log_file.with_name("s_server")):
        assert state_is(g, "s0", "up")
        for _ in range(2):
            clients.s_client(g.port, b"abc\n", b"\n", pki=pki, certkey=pki.client())
        assert g.log_contains("service s0: answers again")


def test_ejected_is_better_than_none(gate, pki):
    g = gate(several(pki, [free_port()], each={"eject_after": "1", "eject_time": "1h"}))
    with g.ends_with("backend_connect_refused", 3):
        for _ in range(3):
            refused(g, pki)
    assert services(g)["s0"]["failures"] == 3 and services(g)["s0"]["ejections"] == 1


def test_clients_cannot_eject(gate, pki, pool):
    """What a client can cause is no failure of the service."""
    [b] = pool(1)
    g = gate(several(pki, [b.port], each={"eject_after": "1"}))
    for fault in ("expired", "wrong_ca"):
        with clients.connect(g.port, pki=pki, certkey=pki.client(fault=fault)) as c:
            assert not (c.handshake() and c.recv())
    with clients.tcp(g.port) as s:
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        s.recv(100)
    assert g.stat_reaches("flows_closed", 3)
    assert services(g)["s0"]["failures"] == 0


class Picky(backends.Backend):
    """Hangs up on a ClientHello with this name in it, and before its first word."""

    def _serve_tls(self, seen, sock):
        sock.settimeout(backends.TIMEOUT)
        if b"nobody.example" not in sock.recv(65536, socket.MSG_PEEK):
            super()._serve_tls(seen, sock)


@pytest.mark.parametrize("check", ["off", "connect"])
def test_names_cannot_eject(gate, pki, check):
    """
    sni = mirror, and a backend that hangs up on names that it does not know: a client that asks for
    these fails, and a check of the gate's own finds that the service is well.
    """
    b = Picky(certkey=pki.backend(), client_ca=pki.forging_root)
    with contextlib.closing(b.listener):
        g = gate(several(pki, [b.port], each={"eject_after": "2", "sni": "mirror", "check": check,
                                              "check_interval": "1s"}))
        with g.ends_with("backend_gone", 6):
            for _ in range(6):
                with clients.connect(g.port, pki=pki, certkey=pki.client(),
                                     name="nobody.example") as c:
                    assert not (c.handshake() and c.recv())
        assert wait_until(lambda: services(g)["s0"]["checks"] >= 1, 5)
        said = services(g)["s0"]
        assert (said["suspicions"], said["ejections"], said["state"]) == (6, 0, "up")
        assert said["checks_failed"] == 0
        assert len(re.findall("warning: service s0: ", g.log())) == 1, g.log()
        with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
            clients.ping(c)


@pytest.mark.parametrize("send_proxy", ["off", "on"])
@pytest.mark.parametrize("how", ["fin", "mute"])
def test_one_that_accepts_and_says_nothing_is_ejected(gate, pki, pool, how, send_proxy):
    """Without any check configured: the failures of clients make the gate look for itself."""
    script = {"fin": backends.close_at_once, "mute": backends.silent}[how]
    with backends.backend(tcp_script=script) as b:
        g = gate(several(pki, [b.port, pool(1)[0].port], service__s0__send_proxy=send_proxy,
                         each={"eject_after": "1", "check_timeout": "1s", "eject_time": "1h",
                               "eject_time_max": "1h"},
                         timeout__backend_handshake="1s"))
        assert who_serves(g, pki, 2) == [0, 0]  # the only one of the pool
        assert state_is(g, "s0", "ejected")
        said = services(g)["s0"]
        assert (said["failures"], said["checks"], said["checks_failed"]) == (1, 1, 1)
        assert re.search(r"s0: ejected for 3600 s after 1 failures in a row: check: ", g.log())


NO_PORTS = """
import socket, ssl, sys
gate, backend = map(int, sys.argv[1:])
listener = socket.create_server(("127.0.0.1", backend), backlog=100)
ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
held = []
for n in range(1, 9):
    hello = ssl.MemoryBIO()
    try:
        ctx.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="front.example").do_handshake()
    except ssl.SSLWantReadError:
        held.append(socket.create_connection(("127.0.0.1", gate),
                                             source_address=(f"127.0.0.{n}", 0)))
        held[-1].sendall(hello.read())
print("done", flush=True)
sys.stdin.read()
"""


def test_a_lack_of_ports_is_not_the_services_fault(gate, pki):
    """As many connections to it as there are local ports: more fail, and nobody is blamed."""
    with netns.private() as inside:
        subprocess.run([*inside, "sysctl", "-qw", "net.ipv4.ip_local_port_range=50000 50003"],
                       check=True)
        port = free_port()
        g = gate(several(pki, [port], each={"eject_after": "1"}), inside=inside)
        with subprocess.Popen([*inside, sys.executable, "-c", NO_PORTS, str(g.port), str(port)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as clients_there:
            assert clients_there.stdout.readline() == b"done\n"
            reason = "backend_connect_local"
            assert g.stat_reaches(f"reason_{reason}", 4)
            said = services(g)["s0"]
            assert (said["failures"], said["ejections"], said["state"]) == (0, 0, "up")
            clients_there.stdin.close()


# ---- slow start, draining ----


def test_slow_start(gate, pki, pool):
    """Back from being down, it has a tenth of its share, not half."""
    some, port = pool(1), free_port()
    g = gate(several(pki, [some[0].port, port],
                     each={**FAST, "check": "connect", "slow_start": "1h"}))
    assert state_is(g, "s1", "down")
    assert who_serves(g, pki, 4) == [0] * 4
    with backends.backend(backends.echo, certkey=pki.backend(), client_ca=pki.forging_root,
                          port=port):
        assert state_is(g, "s1", "up")
        for _ in range(22):
            with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
                c.send(b"x")
                c.recv_exactly(1)
        assert services(g)["s1"]["connections"] == 2


@pytest.mark.parametrize("balance", ["round-robin", "least-connections", "source-hash"])
def test_drain(gate, pki, pool, balance):
    """No new connection; the old one goes on."""
    g = gate(several(pki, [b.port for b in pool(2)], service__s1__drain="on",
                     vserver__app__balance=balance))
    with clients.connected(g.port, pki=pki, certkey=pki.client()) as old:
        assert old.recv_exactly(1) == b"0"
        g.ctl("services", "undrain", "s1")
        g.ctl("services", "drain", "s0")
        assert set(who_serves(g, pki, 4)) == {1}
        assert {n: s["state"] for n, s in services(g).items()} == {"s0": "draining", "s1": "up"}
        assert services(g)["s0"]["flows"] == 1
        old.send(b"still here")
        assert old.recv_exactly(10) == b"still here"
        g.ctl("services", "drain", "s1")
        with g.ends_with("no_service"):
            assert refused(g, pki) == "alert internal_error"
    g.ctl("services", "undrain", "s0")
    assert set(who_serves(g, pki, 2)) == {0}
    assert len(re.findall(r"service s0: draining", g.log())) == 1


def test_drained_while_the_client_takes_its_time(gate, pki, pool):
    """connect = verified: what was chosen at the ClientHello may be out of use by then."""
    g = gate(several(pki, [b.port for b in pool(2)], each={"connect": "verified"}))
    with clients.connect(g.port, pki=pki, certkey=pki.client()) as c:
        def drained():
            g.ctl("services", "drain", "s0")
        assert c.handshake(before_flight=drained)
        assert c.recv_exactly(1) == b"1"


# ---- what is shown ----


def test_metrics(gate, pki, pool):
    g = gate(several(pki, [pool(1)[0].port, free_port()], each={**FAST, "check": "connect"}))
    assert state_is(g, "s1", "down")
    who_serves(g, pki, 3)
    shown = dict(re.findall(r'^(ktlsgate_service_\w+\{service="s\d"\}) (\d+)$', g.ctl("metrics"),
                            re.MULTILINE))
    counted = collections.Counter({k: int(v) for k, v in shown.items()})
    assert counted['ktlsgate_service_usable{service="s0"}'] == 1
    assert counted['ktlsgate_service_usable{service="s1"}'] == 0
    assert counted['ktlsgate_service_connections_total{service="s0"}'] == 3
    assert counted['ktlsgate_service_checks_failed_total{service="s1"}'] >= 1
    assert counted['ktlsgate_service_checks_failed_total{service="s0"}'] == 0


def test_table(gate, pki):
    g = gate(settings(pki, free_port()))
    head, row = g.ctl("services").splitlines()
    assert head.split() == ["service", "address", "state", "weight", "flows", "connections",
                            "early", "early_waits", "failures", "suspicions", "ejections", "checks",
                            "checks_failed", "resolve_failures", "own_addresses",
                            "last_error"]
    assert row.split()[:3] == ["app1", g.settings["service.app1.address"], "up"]
    assert f"{HOST}:" in row and BACK_NAME not in row
