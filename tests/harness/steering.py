# SPDX-License-Identifier: Apache-2.0
"""Gates in a network namespace whose addresses are all ours, and what connections there come to."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess

import pytest

from . import client as clients
from . import netns
from .daemon import Ktlsgated, settings, wait_until

LOCAL = ("10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32")


def vservers(pki, listen, backend_port):
    """settings() with these vservers, {name: listen}, instead of its one, all to one service."""
    conf = settings(pki, backend_port)
    for key in [k for k in conf if k.startswith("vserver.app.")]:
        value = conf.pop(key)
        if not key.endswith(".listen"):
            conf.update({key.replace(".app.", f".{name}."): value for name in listen})
    return {**conf, **{f"vserver.{name}.listen": text for name, text in listen.items()}}


# ---- fixtures, for the modules that import them ----


@pytest.fixture(scope="module")
def inside():
    """What is put in front of a command to run it in there."""
    with netns.private(*LOCAL) as prefix:
        yield prefix


@pytest.fixture(scope="module")
def echo(inside, pki):
    """The port of openssl s_server in there: it answers each line backwards."""
    ck = pki.backend()
    with subprocess.Popen(
            [*inside, "openssl", "s_server", "-accept", "127.0.0.1:9443", "-cert", ck.cert_file,
             "-key", ck.key_file, "-Verify", "3", "-CAfile", pki.forging_root.cert_file, "-rev",
             "-quiet"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL) as process:
        assert wait_until(lambda: connect(inside, "127.0.0.1", 9443) == ["connected"], 20)
        yield 9443
        process.terminate()


@pytest.fixture
def gate(inside, pki, tmp_path, engine):
    """
    gate(conf, **changes) makes a gate for in there, with BPF, and starts it unless started=False.
    """
    made = []

    def start(conf, *, started=True, captured=None, **changes):
        name = f"gate{len(made)}"
        conf = {"bpf.dir": f"/sys/fs/bpf/ktlsgate-test-{os.getpid()}-{name}", **conf,
                **{key.replace("__", "."): value for key, value in changes.items()}}
        made.append(Ktlsgated(tmp_path / name, pki, engine, conf, inside=inside,
                              captured=captured))
        if started:
            made[-1].start()
        return made[-1]

    yield start
    for g in made:
        g.stop()


# ---- connections ----

CONNECT = """
import socket, sys
address, port, source, times = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
IPV6_FREEBIND = 78  # a route makes an IPv6 address local, but not one's own
family = socket.AF_INET6 if ":" in address else socket.AF_INET
made = [socket.socket(family) for _ in range(times)]  # what is closed early may take tokens late
for s in made:
    try:
        s.settimeout(2)
        if source and family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        if source:
            s.bind((source, 0))
        s.connect((address, port))
    except OSError as e:
        print(type(e).__name__)
    else:
        print("connected")
for s in made:
    s.close()
"""


def connect(inside, address, port, source="", times=1):
    """What TCP connections in there come to."""
    return subprocess.run([*inside, "/usr/bin/python3", "-c", CONNECT, address, str(port), source,
                           str(times)], capture_output=True, text=True, timeout=20,
                          check=False).stdout.split()


SEND_SOCKET = """
import socket, sys
fd, source, address, port = int(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4])
IPV6_FREEBIND = 78
with socket.socket(socket.AF_INET6) as s, socket.socket(fileno=fd) as out:
    s.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    s.bind((source, 0))
    s.connect((address, port))
    socket.send_fds(out, [b"s"], [s.fileno()])
"""


@contextlib.contextmanager
def connected_from(inside, source, address, port):
    """A socket of in there, of IPv6 and connected, for use out here."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run([*inside, "/usr/bin/python3", "-c", SEND_SOCKET, str(theirs.fileno()), source,
                        address, str(port)], pass_fds=[theirs.fileno()], timeout=20, check=True)
        [fd] = socket.recv_fds(ours, 1, 1)[1]
    with socket.socket(fileno=fd) as s:
        s.settimeout(10)
        yield s


def ask(inside, pki, address, port):
    """A line back and forth, by openssl s_client with a client certificate."""
    argv = clients.s_client_argv(port, pki=pki, certkey=pki.client(),
                                 args=("-quiet", "-nocommands", "-no_ign_eof"))
    argv[argv.index("-connect") + 1] = (f"[{address}]:{port}" if ":" in address else
                                        f"{address}:{port}")
    clients.talk([*inside, *argv], b"hello\n", b"olleh")


def dump(directory, name):
    """The map's entries with named fields where it has any, as bpftool prints them."""
    out = subprocess.run(["bpftool", "-j", "map", "dump", "pinned", pathlib.Path(directory) / name],
                         check=True, capture_output=True, text=True).stdout
    return [entry.get("formatted", entry) for entry in json.loads(out)]
