# SPDX-License-Identifier: Apache-2.0
"""
A new configuration in a running daemon: by SIGHUP, `ktlsgatectl reload`, -w and -p. New
connections see all of it or nothing, established flows go on.
"""

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import threading

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import ctl, settings, wait_until
from harness.ports import HOST, free_port
from harness.rig import second_vserver


@pytest.fixture
def other(pki):
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        yield b


def connected(g, pki, port=None, **options):
    return clients.connected(port or g.port, pki=pki, certkey=pki.client(), **options)


def close(c):
    c.close_notify()
    assert c.recv() == b""
    c.fin()


def alone(g):
    """The newest generation is the only one."""
    return wait_until(lambda: len(g.generations()) == 1, 10)


def test_established_flows_go_on(gate, pki, backend, other):
    """The old configuration's process lives as long as its flows; counters are the sum of both."""
    g = gate(settings(pki, backend.port))
    with connected(g, pki) as old:
        clients.ping(old)
        before = g.data_process()
        g.reload(service__app1__address=f"{HOST}:{other.port}", dataplane__key_limit="1000")
        with connected(g, pki) as new:
            clients.ping(new)
            clients.ping(old)
            assert len(backend.seen) == len(other.seen) == 1
            current, retired = g.generations()
            assert (current["generation"], current["state"], current["flows"]) == (
                "2", "current", "1")
            assert (retired["generation"], retired["state"], retired["flows"]) == (
                "1", "retired", "1")
            assert int(retired["data_pid"]) == before
            # Flows of both, and no two of the same id.
            flows = g.flows()
            assert {f["backend"] for f in flows} == {
                f"{HOST}:{backend.port}", f"{HOST}:{other.port}"}
            assert len({f["id"] for f in flows}) == 2
            stats = g.stats()
            assert (stats["flows_established"], stats["flows_active"]) == (2, 2)
            assert (stats["generations"], stats["generation"]) == (2, 2)
            assert g.ctl("dataplane.key_limit") == "dataplane.key_limit = 1000\n"
            close(new)
        close(old)
    assert alone(g)
    assert g.log_contains(r"generation 1 has ended")
    assert not os.path.exists(f"/proc/{before}")
    assert len(g.processes()) == 3
    stats = g.stats()
    assert (stats["flows_established"], stats["flows_closed"], stats["reason_done"]) == (2, 2, 2)
    assert (stats["flows_active"], stats["generations"]) == (0, 1)


# ---- the signer of a retired configuration ----


def gone(pid):
    return not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("version", peer.VERSIONS)
def test_signer_ends_with_the_last_handshake(gate, pki, backend, version):
    """It serves who is in a handshake when the configuration changes, and no established flow."""
    g = gate(settings(pki, backend.port))
    signer, data = g.signer(), g.data_process()
    with connected(g, pki, version=version) as old, \
            clients.connect(g.port, pki=pki, certkey=pki.client("Slow"), version=version) as slow:
        clients.ping(old)

        def reload():
            """The server's flight is there; ours is not yet sent."""
            g.reload()
            assert not gone(signer)

        assert slow.handshake(before_flight=reload)
        clients.ping(slow)
        assert g.stats()["forged"] == 2
        assert wait_until(lambda: gone(signer), 10)
        assert not gone(data)
        current, retired = g.generations()
        assert (retired["state"], retired["flows"], retired["signer_pid"]) == ("retired", "2", "0")
        for c in (old, slow):
            clients.ping(c)
            close(c)
    assert alone(g) and gone(data)
    assert not re.search("died|error", g.log()), g.log()


def test_signer_ends_though_nobody_says_so(gate, pki, backend):
    """A data process that says nothing, as a captured one might, does not keep a forging key alive."""
    g = gate(settings(pki, backend.port, timeout__handshake="1s", timeout__connect="1s",
                      timeout__backend_handshake="1s", vserver__app__retries="0"))
    signer, data = g.signer(), g.data_process()
    with connected(g, pki) as c:
        clients.ping(c)
        os.kill(data, signal.SIGSTOP)
        g.process.send_signal(signal.SIGHUP)
        assert g.log_contains("reloaded: generation 2", 20)
        assert wait_until(lambda: gone(signer), 20)
        os.kill(data, signal.SIGCONT)
        clients.ping(c)
        close(c)
    assert alone(g)


@pytest.mark.datapath
def test_bulk_goes_on_through_a_reload(rig):
    """In either engine: bytes in flight while the configuration changes twice."""
    with rig.flow(backends.sink) as (c, seen):
        chunk = os.urandom(65536)
        for i in range(30):
            if i in (10, 20):
                rig.gate.reload(timeout__idle=f"{i}m")
            c.send(chunk)
        c.close_notify()
        assert c.recv() == b"" and c.ended == "close_notify"
        c.fin()
        assert seen().wait().digest.digest() == hashlib.sha256(chunk * 30).digest()
    assert alone(rig.gate)


def test_no_connection_is_lost(gate, pki, backend):
    """Clients that come all the time notice nothing of five reloads."""
    g = gate(settings(pki, backend.port))
    failed, done, end = [], [], threading.Event()

    def visit():
        while not end.is_set():
            try:
                with connected(g, pki) as c:
                    clients.ping(c)
                    close(c)
                done.append(1)
            except Exception as e:  # noqa: whatever it is, it is told below
                failed.append(repr(e))

    visitors = [threading.Thread(target=visit) for _ in range(4)]
    for v in visitors:
        v.start()
    try:
        for i in range(5):
            g.reload(timeout__idle=f"{i + 1}h")
    finally:
        end.set()
        for v in visitors:
            v.join()
    assert not failed and len(done) > 5
    assert alone(g)
    assert g.stats()["reason_done"] == len(done)


def listens(port):
    with socket.socket() as s:
        return s.connect_ex((HOST, port)) == 0


def test_vservers_come_and_go(gate, pki, backend, other):
    """An address that is named no more refuses connections, though the process that had it lives."""
    g = gate(settings(pki, backend.port))
    more = second_vserver("more", other.port)
    port = int(more["vserver.more.listen"].rsplit(":", 1)[1])
    g.reload(**{k.replace(".", "__"): v for k, v in more.items()})
    with connected(g, pki, port) as c:
        clients.ping(c)
        assert len(other.seen) == 1
        g.reload(**{k.replace(".", "__"): None for k in more})
        assert wait_until(lambda: not listens(port), 5)
        clients.ping(c)
        with connected(g, pki) as d:
            clients.ping(d)
        close(c)
    assert alone(g)


@pytest.mark.parametrize("how", ["signal", "ctl"])
def test_bad_configuration_changes_nothing(gate, pki, backend, how):
    g = gate(settings(pki, backend.port))
    pids = g.processes()
    g.reconfigure(timeout__idle="7m", service__app1__profile="nowhere", timeout__connect="9d")
    if how == "signal":
        g.process.send_signal(signal.SIGHUP)
    else:
        done = ctl("-s", g.socket, "reload")
        assert done.returncode == 1
        assert f"{g.conf_file}:" in done.stderr and "nothing has changed" in done.stderr
    assert g.log_contains("configuration refused, nothing has changed", 10)
    # Each error with file, line, key and value, in the log too.
    lines = g.conf_file.read_text().splitlines()
    for key, value in (("service.app1.profile", "nowhere"), ("timeout.connect", "9d")):
        line = lines.index(f"{key} = {value}") + 1
        assert g.log_contains(re.escape(f"{g.conf_file}:{line}: {key} = {value}: "), 5)
    assert g.processes() == pids
    assert g.ctl("timeout.idle") == "timeout.idle = 1h\n"
    with connected(g, pki) as c:
        clients.ping(c)
    assert g.stats()["generation"] == 1


@pytest.mark.parametrize("key, value", [
    ("dataplane.workers", "3"), ("dataplane.cpus", "0"), ("bpf.dir", "/sys/fs/bpf/elsewhere"),
    ("control.socket", "/tmp/elsewhere.sock")])
def test_what_takes_a_restart(gate, pki, backend, key, value):
    g = gate(settings(pki, backend.port))
    done = ctl("-s", g.socket, "-w", f"{key}={value}")
    assert done.returncode == 1
    assert f"-w:1: {key} = {value}: cannot change while the daemon runs; it is " in done.stderr
    assert g.stats()["generation"] == 1


def test_address_in_use(gate, pki, backend):
    """A new address that cannot be had: the other new one is given back, too."""
    g = gate(settings(pki, backend.port))
    free = free_port()
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        more = second_vserver("good", backend.port)
        more["vserver.good.listen"] = f"{HOST}:{free}"
        bad = second_vserver("bad", backend.port)
        bad["vserver.bad.listen"] = f"{HOST}:{port}"
        g.reconfigure(**{k.replace(".", "__"): v for k, v in {**more, **bad}.items()})
        done = ctl("-s", g.socket, "reload")
    assert done.returncode == 1 and "vserver.bad.listen: Address already in use" in done.stderr
    assert not listens(free)
    with connected(g, pki) as c:
        clients.ping(c)


def test_write(gate, pki, backend, other):
    """-w: several at once, shown; all or none; gone with the next reload of the files."""
    g = gate(settings(pki, backend.port))
    assert g.ctl("-w", f"service.app1.address={HOST}:{other.port}", "timeout.idle = 90s") == (
        f"service.app1.address = {HOST}:{other.port}\ntimeout.idle = 90s\n")
    with connected(g, pki) as c:
        clients.ping(c)
    assert len(other.seen) == 1
    done = ctl("-s", g.socket, "-w", "timeout.idle=5m", "timeout.connect=never")
    assert done.returncode == 1 and "-w:2: timeout.connect = never: " in done.stderr
    assert g.ctl("-n", "timeout.idle") == "90s\n"
    # What was edited meanwhile is not what runs.
    g.reconfigure(timeout__drain="11s")
    g.ctl("-w", "timeout.connect=4s")
    assert g.ctl("-n", "timeout.idle", "timeout.drain", "timeout.connect") == "90s\n30s\n4s\n"
    g.ctl("reload")
    assert g.ctl("-n", "timeout.idle", "timeout.drain", "timeout.connect") == "1h\n11s\n5s\n"
    assert ctl("-s", g.socket, "-w", "timeout.idle").returncode == 2


def test_load_and_origins(gate, pki, backend, other, tmp_path):
    """-p: new objects too; -T says where each value came from."""
    g = gate(settings(pki, backend.port))
    more = second_vserver("more", other.port)
    extra = tmp_path / "more.conf"
    extra.write_text("# one more\n" + "".join(f"{k} = {v}\n" for k, v in more.items()))
    g.ctl("-p", extra)
    with connected(g, pki, g_port(more)) as c:
        clients.ping(c)
    assert len(other.seen) == 1
    origins = dict(line.rsplit(" # ", 1) for line in g.ctl("-T").splitlines())
    name = "vserver.more.listen"
    assert origins[f"{name} = {more[name]}"] == f"{extra}:2"
    line = g.conf_file.read_text().splitlines().index("vserver.app.service = app1") + 1
    assert origins["vserver.app.service = app1"] == f"{g.conf_file}:{line}"
    assert origins["timeout.drain = 30s"] == "default"
    assert set(g.ctl("-a").splitlines()) == set(origins)
    extra.write_text("vserver.more.service = nobody\n")
    done = ctl("-s", g.socket, "-p", extra)
    assert done.returncode == 1 and f"{extra}:1: vserver.more.service = nobody: " in done.stderr
    assert ctl("-s", g.socket, "-p", tmp_path / "none").returncode == 1


def g_port(conf):
    return int(conf["vserver.more.listen"].rsplit(":", 1)[1])


def test_directory(gate, pki, backend):
    """FILE, then FILE's directory by the bytes of the names; the last assignment counts."""
    g = gate(settings(pki, backend.port))
    more = g.conf_file.with_suffix(".d")
    more.mkdir()
    (more / "10-a.conf").write_text("timeout.idle = 10m\ntimeout.drain = 10s\n")
    (more / "9-b.conf").write_text("timeout.idle = 9m\n")
    (more / "20-c.conf.bak").write_text("nonsense\n")
    (more / ".hidden.conf").write_text("nonsense\n")
    g.reload()
    assert g.ctl("-n", "timeout.idle", "timeout.drain") == "9m\n10s\n"
    assert f"timeout.idle = 9m # {more}/9-b.conf:1\n" in g.ctl("-T")
    (more / "z.conf").write_text("\ntimeout.idle = soon\n")
    done = ctl("-s", g.socket, "reload")
    assert f"{more}/z.conf:2: timeout.idle = soon: " in done.stderr


@pytest.mark.datapath
def test_kill(gate, pki, backend):
    """Also a flow of a configuration that runs no more."""
    g = gate(settings(pki, backend.port))
    with connected(g, pki, version="1.2") as old, contextlib.ExitStack() as stack:
        clients.ping(old)
        g.reload(timeout__idle="5m")
        new = stack.enter_context(connected(g, pki, version="1.2"))
        clients.ping(new)
        ids = [f["id"] for f in g.flows()]
        with g.ends_with("killed", flows=2):
            g.ctl("kill", *ids)
            for c in (old, new):
                assert c.recv() == b"" and c.ended == "alert user_canceled"
    assert alone(g)
    done = ctl("-s", g.socket, "kill", ids[0], "x")
    assert done.returncode == 1
    assert f"there is no flow {ids[0]}" in done.stderr and "there is no flow x" in done.stderr


def test_flows_that_match(gate, pki, backend):
    g = gate(settings(pki, backend.port))
    with connected(g, pki) as c:
        clients.ping(c)
        assert len(g.ctl("flows", "vserver=app", "client=127.*").splitlines()) == 2
        assert g.ctl("flows", "vserver=app", "service=other*") == ""
        assert ctl("-s", g.socket, "flows", "app").returncode == 2


def test_retired_process_dies(gate, pki, backend):
    """Its flows end, it is not started again, and its signer goes with it."""
    g = gate(settings(pki, backend.port))
    with connected(g, pki) as c:
        clients.ping(c)
        old = g.data_process()
        g.reload(timeout__idle="5m")
        os.kill(old, signal.SIGKILL)
        assert c.recv() == b"" and c.ended in ("eof", "rst")
    assert alone(g) and wait_until(lambda: len(g.processes()) == 3, 5)
    assert g.log_contains(rf"data process \(pid {old}\) died: killed by signal 9 \(Killed\)$")
    assert g.stats()["flows_active"] == 0


def test_more_generations_than_there_may_be(gate, pki, backend):
    """The oldest one's flows are ended, and no others."""
    g = gate(settings(pki, backend.port, timeout__drain="1s", dataplane__workers=1))
    with contextlib.ExitStack() as stack:
        flows = []
        for i in range(17):
            flows.append(stack.enter_context(connected(g, pki, version="1.2")))
            clients.ping(flows[-1])
            if i < 16:
                g.reload(timeout__idle=f"{i + 1}m")
        assert g.log_contains("the flows of the oldest, generation 1, are ended")
        assert flows[0].recv() == b"" and flows[0].ended == "alert user_canceled"
        for c in flows[1:]:
            clients.ping(c)
        assert g.stats()["generations"] == 16
        with connected(g, pki) as c:
            clients.ping(c)


def test_for_root_only(gate, pki, backend):
    g = gate(settings(pki, backend.port))
    os.chmod(g.socket, 0o666)
    for args in (["-w", "timeout.idle=5m"], ["reload"], ["kill", "1"]):
        done = ctl("-s", g.socket, *args, user="nobody")
        assert done.returncode == 1 and "for root only" in done.stderr, args
    assert ctl("-s", g.socket, "stats", user="nobody").returncode == 0
    assert g.stats()["generation"] == 1


def test_requests_of_any_kind(gate, pki, backend):
    """What no ktlsgatectl would send; a client that waits keeps nobody else waiting."""
    g = gate(settings(pki, backend.port))

    def say(data, shut=True):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(g.socket))
            s.sendall(data)
            if shut:
                s.shutdown(socket.SHUT_WR)
            return s.makefile("rb").read()

    assert say(b"nonsense\n", shut=False).startswith(b'error unknown request "nonsense": want ')
    assert say(b"x" * 600, shut=False) == b"error the request is too long\n"
    for bad in (b"set\n", b"set x\n", b"set x y\n", b"set x -1\n", b"set x 9999999\n"):
        assert say(bad, shut=False).startswith(b"error"), bad
    assert say(b"set x 10\nhalf") == b""
    assert say(b"sta") == b""
    assert say(b"set x 3\na\0b", shut=False).startswith(b"error refused")
    with contextlib.ExitStack() as stack:
        for _ in range(31):
            s = stack.enter_context(socket.socket(socket.AF_UNIX))
            s.connect(str(g.socket))
            s.sendall(b"st")
        assert g.stats()["generation"] == 1


def test_steered_through_a_reload(gate, bpf, pki, backend, other):
    """The sockets that stay and the new ones are steered by the new programs, whose maps are pinned."""
    directory = f"/sys/fs/bpf/ktlsgate-test-reload-{os.getpid()}"

    def dump(name):
        return json.loads(subprocess.run(
            ["bpftool", "-j", "map", "dump", "pinned", f"{directory}/{name}"],
            capture_output=True, text=True, check=True).stdout)

    def listeners():
        return {entry["formatted"]["value"]["listen"] for entry in dump("steer_listeners")}

    def selected():
        return sum(v["value"]["selected"] for entry in dump("steer_stats")
                   for v in entry["formatted"]["values"])

    g = gate(settings(pki, backend.port, bpf__dir=directory))
    address, more = g.settings["vserver.app.listen"], second_vserver("more", other.port)
    assert listeners() == {address}
    for _ in range(2):
        g.reload(**{k.replace(".", "__"): v for k, v in more.items()})
        assert listeners() == {address, more["vserver.more.listen"]}
        assert selected() == 0  # counted anew
        for port in (g.port, g_port(more)):
            with connected(g, pki, port) as c:
                clients.ping(c)
        assert selected() == 2
    # One that cannot start takes nothing away from the one that runs.
    with socket.create_server((HOST, 0)) as taken:
        done = ctl("-s", g.socket, "-w", f"vserver.app.listen={HOST}:{taken.getsockname()[1]}")
    assert done.returncode == 1
    with connected(g, pki) as c:
        clients.ping(c)
    assert selected() == 3
    g.reload(**{k.replace(".", "__"): None for k in more})
    assert listeners() == {address}
    with connected(g, pki) as c:
        clients.ping(c)
    assert selected() == 1
