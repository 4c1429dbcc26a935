# SPDX-License-Identifier: Apache-2.0
"""Prefixes and ranges of ports, found by sk_lookup: in a namespace of its own, by real clients."""

import pathlib
import subprocess

import pytest

from harness.daemon import ctl, program
# pylint: disable=unused-import  # fixtures
from harness.steering import ask, connect, dump, echo, gate, inside, vservers

pytestmark = [pytest.mark.usefixtures("bpf"), pytest.mark.datapath]

REFUSED = ["ConnectionRefusedError"]
LISTEN = {
    "wide": "10.0.0.0/8:443-450 [2001:db8::]/32:443",
    "net": "10.1.0.0/16:443",
    "host": "10.1.2.3:443 192.0.2.1:8443",
}


def test_each_address_finds_its_vserver(gate, inside, pki, echo):
    g = gate(vservers(pki, LISTEN, echo), dataplane__workers="2")
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
        assert connect(inside, address, port) == REFUSED, (address, port)
    # Each group has a socket per worker, and the worker was chosen for all of them.
    directory = g.settings["bpf.dir"]
    assert len(dump(directory, "steer_sockets")) == 2 * len(dump(directory, "steer_listeners"))
    chosen = [cpu["value"] for e in dump(directory, "steer_stats") for cpu in e["values"]]
    assert sum(c["selected"] for c in chosen) == len(expect)
    assert sum(c["fallback"] for c in chosen) == 0


def test_only_through_sk_lookup(gate, inside, pki, echo):
    """The sockets behind prefixes are at addresses that no connection reaches."""
    g = gate(vservers(pki, {"wide": LISTEN["wide"]}, echo))
    listening = [line.split()[3] for line in subprocess.run(
        [*inside, "ss", "-Hltn"], capture_output=True, text=True, check=True).stdout.splitlines()]
    ours = {x for x in listening if not x.endswith(":9443")}
    assert {x.rsplit(":", 1)[0] for x in ours} == {"192.0.0.8", "[100::1]"}
    for where in ours:
        host, port = where.rsplit(":", 1)
        for address in (host.strip("[]"), "127.0.0.1", "::1", "10.0.0.1", "2001:db8::1"):
            assert connect(inside, address, port) != ["connected"], (address, port)


def test_ends_with_the_daemon(gate, inside, pki, echo):
    g = gate(vservers(pki, {"wide": LISTEN["wide"]}, echo))
    assert connect(inside, "10.0.0.1", 443) == ["connected"]
    g.stop()
    assert connect(inside, "10.0.0.1", 443) == REFUSED
    assert not pathlib.Path(g.settings["bpf.dir"]).exists()


@pytest.mark.parametrize("bpf_dir, why", [
    ("off", "switched off by bpf.dir = off"),
    ("/tmp/no-bpf-here", "not to be had, see above"),
])
def test_without_bpf(gate, inside, pki, echo, bpf_dir, why):
    """A prefix is an error, with its line; plain addresses go on."""
    g = gate(vservers(pki, LISTEN, echo), started=False, bpf__dir=bpf_dir)
    line = list(g.settings).index("vserver.wide.listen") + 1
    done = subprocess.run([*inside, program("ktlsgated"), "-c", g.conf_file], capture_output=True,
                          text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert (f"{g.conf_file}:{line}: vserver.wide.listen: a prefix or a range of ports needs BPF "
            f"(sk_lookup), which is {why}") in done.stderr
    plain = gate(vservers(pki, {"host": LISTEN["host"]}, echo), bpf__dir=bpf_dir)
    ask(inside, pki, "10.1.2.3", 443)
    ask(inside, pki, "192.0.2.1", 8443)


SEGMENTS = """
import socket, struct, sys
FROM, TO = "10.3.3.3", sys.argv[1]
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as s:
    s.bind((FROM, 0))
    for flags in map(int, sys.argv[2:]):
        header = struct.pack("!HHIIBBH", 40000, 443, 7, 7, 5 << 4, flags, 1024)
        pseudo = socket.inet_aton(FROM) + socket.inet_aton(TO) + struct.pack("!HH", 6, 20)
        total = sum(struct.unpack("!14H", pseudo + header))
        total = (total & 0xffff) + (total >> 16)
        s.sendto(header + struct.pack("!HH", ~(total + (total >> 16)) & 0xffff, 0), (TO, 0))
"""


def test_only_a_syn_is_counted(gate, inside, pki, echo):
    """What comes late to a connection that is gone is looked up as well."""
    g = gate(vservers(pki, {"wide": LISTEN["wide"]}, echo))
    syn, ack, rst = 0x02, 0x10, 0x04

    def counted(*flags):
        subprocess.run([*inside, "/usr/bin/python3", "-c", SEGMENTS, "10.1.1.1", *map(str, flags)],
                       timeout=20, check=True)
        return sum(cpu["value"]["selected"] for e in dump(g.settings["bpf.dir"], "steer_stats")
                   for cpu in e["values"])

    assert counted(ack, ack, ack) == 0
    assert counted(syn, rst) == 1
    assert sum(cpu["value"]["admitted"] for e in dump(g.settings["bpf.dir"], "shield_stats")
               for cpu in e["values"]) >= 4, "they did not come here"


def test_a_worker_drained(gate, inside, pki, echo):
    """No new connection for it, whatever the CPU; the flow that it has goes on."""
    g = gate(vservers(pki, {"wide": LISTEN["wide"]}, echo), dataplane__workers="3")

    def chosen():
        return [sum(cpu["value"]["selected"] for cpu in e["values"])
                for e in dump(g.settings["bpf.dir"], "steer_stats")]

    assert connect(inside, "10.1.1.1", 443, times=6) == ["connected"] * 6
    first = chosen()
    for worker in 0, 1:
        g.ctl("drain", "worker", str(worker))
    assert connect(inside, "10.1.1.1", 443, times=6) == ["connected"] * 6
    assert chosen() == [first[0], first[1], first[2] + 6]
    ask(inside, pki, "10.1.1.1", 443)
    g.ctl("reload")
    assert connect(inside, "10.1.1.1", 443, times=6) == ["connected"] * 6
    assert chosen() == [0, 0, 6], "a reload forgets who is drained"
    for args, why in (("drain", "worker", "2"), "is the last"), (("drain", "worker", "3"), "0 to 2"), (
            ("undrain", "worker", "x"), "want undrain worker N"):
        done = ctl("-s", g.socket, *args)
        assert done.returncode == 1 and why in done.stderr, done.stderr
    g.ctl("undrain", "worker", "0")
    g.ctl("undrain", "worker", "1")
    assert connect(inside, "10.1.1.1", 443, times=6) == ["connected"] * 6
    assert sum(chosen()[:2]) > 0
