# SPDX-License-Identifier: Apache-2.0
"""Options of sockets and the CPUs of workers, as ss and /proc show them."""

import errno
import os
import pathlib
import re
import subprocess

import pytest

from harness import backend as backends
from harness import client as clients
from harness.daemon import ctl, settings
from harness.fault import Fault
from harness.peer import SCALE

pytestmark = pytest.mark.datapath

AVAILABLE, ALLOWED, (DEFAULT,) = [
    pathlib.Path(f"/proc/sys/net/ipv4/tcp_{name}").read_text().split()
    for name in ("available_congestion_control", "allowed_congestion_control",
                 "congestion_control")]
OTHER = next(name for name in ALLOWED if name != DEFAULT)


@pytest.fixture(scope="module")
def backend(pki):
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        yield b


def sockets(state, where):
    """What ss knows of TCP sockets: congestion control, and buffers as socket(7) tells them."""
    text = subprocess.run(["ss", "-HOtnim", "state", state, where], capture_output=True, text=True,
                          check=True).stdout
    return [{"cc": next(word for word in line.split("skmem:")[1].split() if word in AVAILABLE),
             "rcvbuf": int(re.search(r"skmem:\(r\d+,rb(\d+)", line)[1]),
             "sndbuf": int(re.search(r",tb(\d+)", line)[1]),
             "scale": re.search(r"wscale:\d+,(\d+)", line)}
            for line in text.splitlines()]


def sides(g, backend, pki):
    """The gate's sockets of a flow."""
    with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
        clients.ping(c)
        (client,) = sockets("established", f"( sport = :{g.port} )")
        (back,) = sockets("established", f"( dport = :{backend.port} )")
    return client, back


def test_sockets_are_as_configured(gate, pki, backend):
    """Each side by its own keys; those of the client's by a socket that listens, so in its window."""
    g = gate(settings(pki, backend.port, socket__client__rcvbuf="200K", socket__client__sndbuf="64K",
                      socket__client__congestion_control=OTHER, socket__backend__rcvbuf="100000",
                      socket__backend__sndbuf="128k"))
    client, back = sides(g, backend, pki)
    assert (client["rcvbuf"], client["sndbuf"], client["cc"]) == (409600, 131072, OTHER)
    assert (back["rcvbuf"], back["sndbuf"], back["cc"]) == (200000, 262144, DEFAULT)
    # Of 200 KiB: 16 bits and the scale; a size set later would not have been in the handshake.
    assert int(client["scale"][1]) <= 3
    assert g.stats()["socket_options_refused"] == 0
    assert g.ctl("-n", "socket.client.rcvbuf") == "200K\n"
    assert g.ctl("-n", "socket.backend.rcvbuf") == "100000\n"


def test_changed_by_a_reload(gate, pki, backend):
    """New connections to the sockets that listened before; then all is the kernel's again."""
    g = gate(settings(pki, backend.port))
    before = sides(g, backend, pki)
    assert [s["cc"] for s in before] == [DEFAULT, DEFAULT]
    g.reload(socket__client__rcvbuf="160K", socket__client__congestion_control=OTHER,
             socket__backend__congestion_control=OTHER, socket__backlog=7)
    client, back = sides(g, backend, pki)
    assert (client["rcvbuf"], client["cc"], back["cc"]) == (327680, OTHER, OTHER)
    assert backlogs(g) == {7}
    g.reload(socket__client__rcvbuf="auto", socket__client__congestion_control=None,
             socket__backend__congestion_control=None, socket__backlog=None)
    assert [s["cc"] for s in sides(g, backend, pki)] == [DEFAULT, DEFAULT]
    (listening, *_) = sockets("listening", f"( sport = :{g.port} )")
    assert listening["rcvbuf"] < 327680


@pytest.mark.skipif(SCALE > 1, reason="in emulation bytes come too slowly for a buffer to grow")
def test_not_locked_behind_a_reload(gate, pki, backend):
    """A size that is set ends the kernel's tuning of it; taken away, a buffer grows with what comes."""
    g = gate(settings(pki, backend.port, socket__client__rcvbuf="128K"))
    g.reload(socket__client__rcvbuf="auto")
    with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
        clients.ping(c)
        (start,) = sockets("established", f"( sport = :{g.port} )")
        for _ in range(64):
            c.send(b"x" * 65536)
            c.recv_exactly(65536)
        (grown,) = sockets("established", f"( sport = :{g.port} )")
    assert grown["rcvbuf"] > start["rcvbuf"]


def test_refused_later(gate, pki, backend, tmp_path):
    """A sysctl has changed since: the flow goes on as the kernel likes, and it is counted."""
    fault = Fault(tmp_path / "fault")
    g = gate(settings(pki, backend.port, socket__backend__congestion_control=OTHER), fault=fault)
    fault.arm("congestion", errno.EPERM)
    assert [s["cc"] for s in sides(g, backend, pki)] == [DEFAULT, DEFAULT]
    assert fault.left() == 0
    assert g.stats()["socket_options_refused"] == 1
    assert [s["cc"] for s in sides(g, backend, pki)] == [DEFAULT, OTHER]


def backlogs(g):
    """What ss shows as Send-Q of sockets that listen."""
    text = subprocess.run(["ss", "-Htln", f"( sport = :{g.port} )"], capture_output=True, text=True,
                          check=True).stdout
    return {int(line.split()[2]) for line in text.splitlines()}


def test_backlog(gate, pki, backend):
    g = gate(settings(pki, backend.port, socket__backlog=99))
    assert backlogs(g) == {99}


def limit(name):
    return int(pathlib.Path(f"/proc/sys/net/core/{name}").read_text())


@pytest.mark.parametrize("key, value, said", [
    ("socket.client.congestion_control", "nonesuch",
     "is no congestion control of this kernel; use one of {allowed}, or load its module"),
    ("socket.backend.congestion_control", "nonesuch",
     "is no congestion control of this kernel; use one of {allowed}, or load its module"),
    ("socket.client.rcvbuf", "512M", "is more than the kernel gives a socket; raise the sysctl "
     "net.core.rmem_max, or use auto or {rmem_max} at most"),
    ("socket.backend.sndbuf", "512M", "is more than the kernel gives a socket; raise the sysctl "
     "net.core.wmem_max, or use auto or {wmem_max} at most"),
    ("socket.backlog", "65535", "is more than the kernel lets wait; raise the sysctl "
     "net.core.somaxconn, or use {somaxconn} at most"),
])
def test_what_the_kernel_would_not_take(gate, pki, backend, key, value, said):
    """Refused, with the reason, when it is changed; at start and by -t: tests/test_config.py."""
    g = gate(settings(pki, backend.port))
    done = ctl("-s", g.socket, "-w", f"{key}={value}")
    limits = {name: limit(name) for name in ("rmem_max", "wmem_max", "somaxconn")}
    assert done.returncode == 1
    assert (f"-w:1: {key} = {value}: " + said.format(allowed=" ".join(ALLOWED), **limits)
            in done.stderr), done.stderr
    assert g.stats()["generation"] == 1


def test_a_restricted_congestion_control(gate, pki, backend):
    """Root might use it, the processes that serve connections may not."""
    restricted = next((name for name in AVAILABLE if name not in ALLOWED), None)
    if not restricted:
        pytest.skip("all congestion controls here are for everybody")
    g = gate(settings(pki, backend.port))
    for side in ("client", "backend"):
        done = ctl("-s", g.socket, "-w", f"socket.{side}.congestion_control={restricted}")
        assert done.returncode == 1
        assert (f"{restricted}: is not for processes without privileges, which serve the "
                f"connections; use one of {' '.join(ALLOWED)}, or add it to the sysctl "
                "net.ipv4.tcp_allowed_congestion_control" in done.stderr), done.stderr


# ---- the CPUs of workers ----


def cpus_of_workers(g):
    """The CPUs that a thread of the data process may run on, of those that are pinned to one."""
    allowed = [re.search(r"^Cpus_allowed_list:\t(.*)$", path.read_text(), re.MULTILINE)[1]
               for path in pathlib.Path(f"/proc/{g.data_process()}/task").glob("*/status")]
    return sorted(int(a) for a in allowed if a.isdigit())


def worker_of(flow):
    return int(flow["id"]) >> 48 & 0xff


def test_not_pinned(gate, pki, backend):
    g = gate(settings(pki, backend.port, dataplane__cpus="any"))
    assert cpus_of_workers(g) == []
    assert g.stats()["workers"] == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("order", [1, -1], ids=["upwards", "downwards"])
def test_a_flow_stays_on_its_cpu(gate, pki, backend, bpf, order):
    """A worker for each CPU of the list, which has the flows that come in there."""
    cpus = sorted(os.sched_getaffinity(0))[:2][::order]
    assert len(cpus) == 2, "this test needs two CPUs"
    directory = f"/sys/fs/bpf/ktlsgate-test-cpus-{os.getpid()}"
    g = gate(settings(pki, backend.port, bpf__dir=directory,
                      dataplane__cpus=",".join(map(str, cpus))))
    assert g.ctl("-n", "dataplane.workers") == "2\n" and g.stats()["workers"] == 2
    assert g.ctl("-n", "dataplane.cpus") == (f"{cpus[0]}-{cpus[1]}\n" if cpus[1] == cpus[0] + 1
                                             else f"{cpus[0]},{cpus[1]}\n")
    assert cpus_of_workers(g) == sorted(cpus)
    allowed = os.sched_getaffinity(0)
    try:
        for cpu in 2 * cpus:
            os.sched_setaffinity(0, {cpu})  # loopback delivers where it is sent
            with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
                clients.ping(c)
                (flow,) = [f for f in g.flows() if f["client"].endswith(
                    f":{c.sock.getsockname()[1]}")]
            assert worker_of(flow) == cpus.index(cpu), cpus
    finally:
        os.sched_setaffinity(0, allowed)


def test_one_cpu_only(gate, pki, backend):
    cpu = max(os.sched_getaffinity(0))
    g = gate(settings(pki, backend.port, dataplane__cpus=cpu))
    assert cpus_of_workers(g) == [cpu] and g.stats()["workers"] == 1
    with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
        clients.ping(c)
