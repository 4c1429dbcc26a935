# SPDX-License-Identifier: Apache-2.0
"""What the service manager is told: readiness, state, the end, and a watchdog that means it."""

import contextlib
import os
import signal
import socket
import time

import pytest

from harness import user
from harness.daemon import SCALE, settings, wait_until

WATCHDOG_US = int(450_000 * SCALE)


class Manager:
    """The socket of NOTIFY_SOCKET, and all that came to it."""

    def __init__(self, address):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address)
        self.lines = []

    def read(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                self.lines += self.sock.recv(4096, socket.MSG_DONTWAIT).decode().split("\n")
        return self.lines

    def hears(self, line, timeout=10 * SCALE):
        return wait_until(lambda: line in self.read(), timeout)

    def fed(self, seconds):
        """How often in so many seconds from now."""
        self.read()
        before = self.lines.count("WATCHDOG=1")
        time.sleep(seconds)
        return self.read().count("WATCHDOG=1") - before


@pytest.fixture
def manager(request, tmp_path, monkeypatch):
    name = getattr(request, "param", f"{tmp_path}/notify")
    m = Manager(name.replace("@", "\0"))
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    yield m
    m.sock.close()


@pytest.mark.parametrize("manager", [f"@ktlsgate-test-{os.getpid()}"], indirect=True)
def test_abstract_address(gate, pki, manager):
    gate(settings(pki, 9443))
    assert manager.hears("READY=1")


def test_ready_state_and_end(gate, pki, manager):
    g = gate(settings(pki, 9443, timeout__drain="7s"))
    assert manager.hears("READY=1")
    state = f"STATUS=1 vserver, {g.ctl('-n', 'dataplane.workers').strip()} worker"
    assert [x.startswith(state) and x.endswith(f", engine {g.engine}")
            for x in manager.lines if x != "READY=1"] == [True]
    os.kill(g.signer(), signal.SIGKILL)
    assert manager.hears("STATUS=signer died: killed by signal 9 (Killed); starting it again")
    assert wait_until(lambda: manager.read()[-1].startswith(state), 10 * SCALE)
    g.stop()
    assert manager.hears("STOPPING=1")
    # Twice timeout.drain, 5 s for each process, 1 s: the manager waits longer than we do.
    assert "EXTEND_TIMEOUT_USEC=25000000" in manager.lines
    assert "WATCHDOG=1" not in manager.lines


def test_watchdog(gate, pki, manager, monkeypatch):
    """Fed while the workers answer, not while they do not, and again when they do."""
    monkeypatch.setenv("WATCHDOG_USEC", str(WATCHDOG_US))
    period = WATCHDOG_US / 1e6
    g = gate(settings(pki, 9443))
    assert manager.hears("WATCHDOG=1")
    assert manager.fed(2 * period) >= 3
    os.kill(g.data_process(), signal.SIGSTOP)
    try:
        time.sleep(period / 2)
        assert manager.fed(2 * period) == 0
        assert g.log().count("watchdog: the workers did not answer for 150 ms") == (SCALE == 1)
    finally:
        os.kill(g.data_process(), signal.SIGCONT)
    assert manager.fed(2 * period) >= 2
    assert g.log_contains("watchdog: the workers answer again")


def test_watchdog_beside_clients(gate, pki, backend, manager, monkeypatch):
    """Whatever the control socket's clients do: silent ones, and such as do not read."""
    monkeypatch.setenv("WATCHDOG_USEC", str(WATCHDOG_US))
    many = {f"service.s{n}.{key}": value for n in range(800) for key, value in (
        ("address", "127.0.0.1:9"), ("server_name", "backend.example"), ("profile", "back"))}
    user.need_root()
    g = gate({**settings(pki, backend.port, control__group=user.GROUP), **many})
    assert manager.hears("WATCHDOG=1")
    with user.holding(g.socket, 500), user.holding(g.socket, 50, "origins\n", uid=user.UID + 1):
        assert manager.fed(3 * WATCHDOG_US / 1e6) >= 5
    assert "watchdog" not in g.log() or SCALE > 1


def test_watchdog_after_a_reload(gate, pki, manager, monkeypatch):
    """The new data process is asked, and one that takes the place of a dead one."""
    monkeypatch.setenv("WATCHDOG_USEC", str(WATCHDOG_US))
    g = gate(settings(pki, 9443))
    assert manager.hears("WATCHDOG=1")
    g.reload(log__level="debug")
    assert manager.fed(2 * WATCHDOG_US / 1e6) >= 3
    os.kill(g.data_process(), signal.SIGSTOP)
    manager.fed(WATCHDOG_US / 2e6)
    assert manager.fed(WATCHDOG_US / 1e6) == 0
    os.kill(g.data_process(), signal.SIGKILL)
    assert wait_until(lambda: manager.fed(0.3) >= 1, 10 * SCALE)


def test_watchdog_of_somebody_else(gate, pki, manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    gate(settings(pki, 9443))
    assert manager.hears("READY=1")
    assert manager.fed(0.3) == 0


def test_no_watchdog_without_a_signer(gate, pki, manager, monkeypatch):
    """The data process answers; without a signer that is not enough."""
    monkeypatch.setenv("WATCHDOG_USEC", str(WATCHDOG_US))
    conf = settings(pki, 9443)
    g = gate(conf)
    assert manager.hears("WATCHDOG=1")
    key = conf["certkey.forge.key"]
    os.rename(key, f"{key}.away")
    try:
        os.kill(g.signer(), signal.SIGKILL)
        assert g.log_contains(r"signer .* did not start", 5 * SCALE)
        manager.read()
        assert manager.fed(WATCHDOG_US / 1e6) == 0
    finally:
        os.rename(f"{key}.away", key)
    assert wait_until(lambda: manager.fed(0.3) >= 1, 10 * SCALE)
