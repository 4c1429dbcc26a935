# SPDX-License-Identifier: Apache-2.0
"""Prefixes and ranges of ports, found by sk_lookup: in a namespace of its own, by real clients."""

import json
import os
import pathlib
import subprocess

import pytest

from harness import client as clients
from harness import netns
from harness.daemon import Ktlsgated, settings, program, wait_until

pytestmark = [pytest.mark.usefixtures("bpf"), pytest.mark.datapath]

LOCAL = ("10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32")
LISTEN = {
    "wide": "10.0.0.0/8:443-450 [2001:db8::]/32:443",
    "net": "10.1.0.0/16:443",
    "host": "10.1.2.3:443 192.0.2.1:8443",
}


def vservers(pki, listen, backend_port):
    """settings() with these vservers instead of its one, all to one service."""
    conf = settings(pki, backend_port)
    for key in [k for k in conf if k.startswith("vserver.app.")]:
        value = conf.pop(key)
        if not key.endswith(".listen"):
            conf.update({key.replace(".app.", f".{name}."): value for name in listen})
    return {**conf, **{f"vserver.{name}.listen": text for name, text in listen.items()}}


@pytest.fixture(scope="module")
def inside():
    with netns.private(*LOCAL) as prefix:
        yield prefix


@pytest.fixture(scope="module")
def echo(inside, pki):
    """openssl s_server, in there: answers each line backwards."""
    ck = pki.backend()
    with subprocess.Popen(
            [*inside, "openssl", "s_server", "-accept", "127.0.0.1:9443", "-cert", ck.cert_file,
             "-key", ck.key_file, "-Verify", "3", "-CAfile", pki.forging_root.cert_file, "-rev",
             "-quiet"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: connect(inside, "127.0.0.1", 9443) == "connected", 10)
        yield 9443
        process.terminate()


@pytest.fixture
def gate(inside, pki, tmp_path, engine):
    started = []

    def start(conf, **options):
        name = f"gate{len(started)}"
        options.setdefault("bpf__dir", f"/sys/fs/bpf/ktlsgate-test-{os.getpid()}-{name}")
        conf = {**conf, **{key.replace("__", "."): value for key, value in options.items()}}
        g = Ktlsgated(tmp_path / name, pki, engine, conf, inside=inside)
        started.append(g)
        return g

    yield start
    for g in started:
        g.stop()


def connect(inside, address, port):
    """What a TCP connection in there comes to."""
    code = ("import socket,sys\n"
            "try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()\n"
            "except OSError as e: print(type(e).__name__)\n"
            "else: print('connected')")
    return subprocess.run([*inside, "/usr/bin/python3", "-c", code, address, str(port)],
                          capture_output=True, text=True, timeout=20, check=False).stdout.strip()


def ask(inside, pki, address, port):
    """A line back and forth, by openssl s_client with a client certificate."""
    argv = clients.s_client_argv(port, pki=pki, certkey=pki.client(),
                                 args=("-quiet", "-nocommands", "-no_ign_eof"))
    argv[argv.index("-connect") + 1] = (f"[{address}]:{port}" if ":" in address else
                                        f"{address}:{port}")
    clients.talk([*inside, *argv], b"hello\n", b"olleh")


def dump(directory, name):
    out = subprocess.run(["bpftool", "-j", "map", "dump", "pinned", pathlib.Path(directory) / name],
                         check=True, capture_output=True, text=True).stdout
    return [entry.get("formatted", entry) for entry in json.loads(out)]


def test_each_address_finds_its_vserver(gate, inside, pki, echo):
    g = gate(vservers(pki, LISTEN, echo), dataplane__workers="2")
    g.start()
    expect = [
        ("10.9.9.9", 443, "wide"), ("10.9.9.9", 450, "wide"), ("10.255.255.255", 446, "wide"),
        ("2001:db8:ffff::1", 443, "wide"), ("10.1.9.9", 443, "net"), ("10.1.9.9", 444, "wide"),
        ("10.1.2.3", 443, "host"), ("10.1.2.3", 445, "wide"), ("192.0.2.1", 8443, "host"),
    ]
    for address, port, vserver in expect:
        before = g.log().count(f": {vserver} ")
        ask(inside, pki, address, port)
        assert g.log().count(f": {vserver} ") > before, (address, port, vserver, g.log())
    for address, port in (("10.9.9.9", 442), ("10.9.9.9", 451), ("192.0.2.2", 8443),
                          ("2001:db8::1", 444), ("127.0.0.1", 443)):
        assert connect(inside, address, port) == "ConnectionRefusedError", (address, port)
    # Each group has a socket per worker, and the worker was chosen for all of them.
    directory = g.settings["bpf.dir"]
    assert len(dump(directory, "steer_sockets")) == 2 * len(dump(directory, "steer_listeners"))
    chosen = [cpu["value"] for e in dump(directory, "steer_stats") for cpu in e["values"]]
    assert sum(c["selected"] for c in chosen) == len(expect)
    assert sum(c["fallback"] for c in chosen) == 0


def test_only_through_sk_lookup(gate, inside, pki, echo):
    """The sockets behind prefixes are at addresses that no connection reaches."""
    g = gate(vservers(pki, {"wide": LISTEN["wide"]}, echo))
    g.start()
    listening = [line.split()[3] for line in subprocess.run(
        [*inside, "ss", "-Hltn"], capture_output=True, text=True, check=True).stdout.splitlines()]
    ours = {x for x in listening if not x.endswith(":9443")}
    assert {x.rsplit(":", 1)[0] for x in ours} == {"192.0.0.8", "[100::1]"}
    for where in ours:
        host, port = where.rsplit(":", 1)
        for address in (host.strip("[]"), "127.0.0.1", "::1", "10.0.0.1", "2001:db8::1"):
            assert connect(inside, address, port) != "connected", (address, port)


def test_ends_with_the_daemon(gate, inside, pki, echo):
    g = gate(vservers(pki, {"wide": LISTEN["wide"]}, echo))
    g.start()
    assert connect(inside, "10.0.0.1", 443) == "connected"
    g.stop()
    assert connect(inside, "10.0.0.1", 443) == "ConnectionRefusedError"
    assert not pathlib.Path(g.settings["bpf.dir"]).exists()


@pytest.mark.parametrize("bpf_dir, why", [
    ("off", "switched off by bpf.dir = off"),
    ("/tmp/no-bpf-here", "not to be had, see above"),
])
def test_without_bpf(gate, inside, pki, echo, bpf_dir, why):
    """A prefix is an error, with its line; plain addresses go on."""
    g = gate(vservers(pki, LISTEN, echo), bpf__dir=bpf_dir)
    line = list(g.settings).index("vserver.wide.listen") + 1
    done = subprocess.run([*inside, program("ktlsgated"), "-c", g.conf_file], capture_output=True,
                          text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert (f"{g.conf_file}:{line}: vserver.wide.listen: a prefix or a range of ports needs BPF "
            f"(sk_lookup), which is {why}") in done.stderr
    plain = gate(vservers(pki, {"host": LISTEN["host"]}, echo), bpf__dir=bpf_dir)
    plain.start()
    ask(inside, pki, "10.1.2.3", 443)
    ask(inside, pki, "192.0.2.1", 8443)
