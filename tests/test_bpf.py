# SPDX-License-Identifier: Apache-2.0
"""steer and count: the C program's own checks, and what an operator sees with bpftool."""

import json
import os
import pathlib
import re
import signal
import subprocess

import pytest

from harness.daemon import BUILD, ROOT

PROGRAM = BUILD / "unit" / "test_bpf"
BPFFS = pathlib.Path("/sys/fs/bpf")
PAYLOAD, ANSWER = 100_000, 5  # what `test_bpf hold` transfers

pytestmark = [
    pytest.mark.usefixtures("bpf"),
    pytest.mark.datapath,  # every kernel has its own verifier
]


def cgroup2():
    """Where cgroup2 is mounted, and our own cgroup there."""
    mounts = (line.split() for line in open("/proc/self/mounts"))
    mount = next(m[1] for m in mounts if m[2] == "cgroup2")
    place = next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))
    return pathlib.Path(mount + place)


class Hold:
    """`test_bpf hold`: steer and count open, one connection, until closed or killed."""

    def __init__(self, name):
        self.dir = BPFFS / name
        self.cgroup = cgroup2() / name
        self.process = subprocess.Popen(
            [PROGRAM, "hold", self.dir, name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("ready "), self.process.communicate()[1]
        self.port = int(line.split()[1])

    def dump(self, name):
        """The map's entries with named fields, as bpftool prints them."""
        out = subprocess.run(["bpftool", "-j", "map", "dump", "pinned", self.dir / name],
                             check=True, capture_output=True, text=True).stdout
        return [entry["formatted"] for entry in json.loads(out)]

    def flow(self, side):
        (flow,) = [e["value"] for e in self.dump("flows") if e["value"]["side"] == side]
        return flow

    def close(self):
        self.process.communicate()
        return self.process.returncode

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def hold():
    """A function that starts a Hold; all are closed at the end and must leave nothing behind."""
    started = []

    def start(name="a"):
        started.append(Hold(f"ktlsgate-test-{os.getpid()}-{name}"))
        return started[-1]

    yield start
    for h in started:
        h.close()
    for h in started:
        assert not h.dir.exists()
        assert not h.cgroup.exists()


@pytest.mark.timeout(180)
def test_program():
    """All checks of tests/unit/test_bpf.c; here too, for the guests."""
    done = subprocess.run([PROGRAM], capture_output=True, text=True, timeout=700, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_flows_are_readable(hold):
    h = hold()
    client, backend = h.flow("FLOW_CLIENT"), h.flow("FLOW_BACKEND")
    assert client["family"] == "FLOW_IPV4"
    assert client["state"] == "FLOW_ESTABLISHED"
    assert client["local_address"] == client["remote_address"] == "127.0.0.1"
    assert client["local_port"] == backend["remote_port"] == h.port
    assert client["remote_port"] == backend["local_port"]
    assert client["bytes_tx"] == backend["bytes_rx"] == ANSWER
    assert client["bytes_rx"] >= PAYLOAD and backend["bytes_tx"] >= PAYLOAD
    if not backend["retransmits"]:
        assert client["bytes_rx"] == backend["bytes_tx"] == PAYLOAD
    assert 0 < client["packets_rx"] < 100
    assert backend["srtt_us"] > 0
    assert client["established_ns"] > 0


def test_flow_info_is_readable(hold):
    h = hold()
    (info,) = h.dump("flow_info")
    assert info["value"] == {
        "flow_id": 42,
        "engine": "FLOW_ENGINE_KTLS",
        "records": "FLOW_RECORDS_DEVICE_TX",
        "vserver": "app",
        "service": "app1",
        "tls_version": "TLSv1.3",
        "client_identity": "0123456789abcdef",
    }
    assert info["key"] in [flow["key"] for flow in h.dump("flows")]


def test_totals_are_readable(hold):
    h = hold()
    for entry in h.dump("totals"):
        cpus = [per_cpu["value"] for per_cpu in entry["values"]]
        assert sum(cpu["flows_opened"] for cpu in cpus) == 1
        assert sum(cpu["flows_closed"] for cpu in cpus) == 0
        assert sum(cpu["flow_insert_failed"] for cpu in cpus) == 0


def test_steer_maps_are_readable(hold):
    h = hold()
    (listener,) = h.dump("steer_listeners")
    assert listener["key"]["port"] == h.port
    assert listener["value"] == {
        "group": 0, "base": 0, "workers": 1, "listen": f"127.0.0.1:{h.port}"}
    (stats,) = h.dump("steer_stats")
    assert sum(cpu["value"]["selected"] for cpu in stats["values"]) == 1
    (config,) = h.dump("steer_config")
    assert config["value"] == {"mode": "STEER_BY_CPU", "active": 1}


def test_close_removes_everything(hold):
    h = hold()
    assert (h.dir / "flows").exists()
    assert str(h.process.pid) in (h.cgroup / "cgroup.procs").read_text().split()
    assert h.close() == 0
    assert not h.dir.exists()
    assert not h.cgroup.exists()


def test_killed_predecessor_is_replaced(hold):
    first = hold()
    first.kill()
    assert (first.dir / "flows").exists() and first.cgroup.exists()
    second = hold()
    assert second.port != first.port
    assert second.flow("FLOW_CLIENT")["local_port"] == second.port
    (listener,) = second.dump("steer_listeners")
    assert listener["key"]["port"] == second.port


def test_two_daemons(hold):
    a, b = hold("a"), hold("b")
    for h in a, b:
        assert len(h.dump("flows")) == 2
        assert h.flow("FLOW_CLIENT")["local_port"] == h.port
    assert a.close() == 0
    assert b.flow("FLOW_CLIENT")["bytes_tx"] == ANSWER
    assert b.cgroup.exists()


def test_cgroup_in_use_is_refused(hold):
    h = hold()
    other = subprocess.run([PROGRAM, "hold", f"{h.dir}-other", h.dir.name], timeout=30,
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "processes live in the cgroup" in other.stderr
    assert h.flow("FLOW_CLIENT")["bytes_tx"] == ANSWER
    assert not pathlib.Path(f"{h.dir}-other").exists()


def test_every_map_is_documented():
    """With a dump of it in docs/bpftool.md."""
    maps = re.findall(r'^#define MAP_\w+\s+"(\w+)"', (ROOT / "bpf/maps.h").read_text(), re.MULTILINE)
    text = (ROOT / "docs/bpftool.md").read_text()
    headings = " ".join(re.findall("^### (.*)$", text, re.MULTILINE))
    assert len(maps) > 15 and [m for m in maps if not re.search(rf"\b{m}\b", headings)] == []
