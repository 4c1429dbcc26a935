# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all tests, a time-out for each, and the daemon's log with each failure."""

import os
import pathlib
import signal

import pytest

from harness import backend as backends
from harness import mounts
from harness.daemon import Ktlsgated, probe
from harness.peer import SCALE
from harness.pki import Pki
from harness.rig import Rig


def pytest_configure(config):
    config.addinivalue_line("markers", "datapath: also run in the guest with the ktls engine")
    config.addinivalue_line("markers", "slow: takes a minute; run once, natively")
    config.addinivalue_line("markers", "timeout(seconds): instead of 60; in a guest times four")
    mounts.mount_missing()  # before there are threads


# ---- no test may hang ----

ALARM = pytest.StashKey()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """One alarm for setup, call and teardown each: a fixture may hang too."""
    def expired(_signal, _frame):
        pytest.fail(f"timed out after {seconds} s", pytrace=True)

    marker = item.get_closest_marker("timeout")
    seconds = (marker.args[0] if marker else 60) * SCALE
    item.stash[ALARM] = seconds
    old = signal.signal(signal.SIGALRM, expired)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    signal.alarm(item.stash[ALARM])
    yield
    signal.alarm(0)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_call(item):
    signal.alarm(item.stash[ALARM])
    yield
    signal.alarm(0)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    signal.alarm(item.stash[ALARM])
    yield
    signal.alarm(0)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for gate in Ktlsgated.recent:
            report.sections.append((f"ktlsgated, {call.when}", gate.log()[-8000:]))


# ---- fixtures ----


@pytest.fixture(scope="session")
def engine():
    """The engine under test."""
    default = "ktls" if os.environ.get("KTLSGATE_GUEST") else "user"
    return os.environ.get("KTLSGATE_ENGINE", default)


@pytest.fixture(scope="session")
def can_rekey(engine):
    """KeyUpdate is within the power of our record layer, and of kernel TLS since Linux 6.14."""
    return engine == "user" or probe()["tls_rekey"][0] == "yes"


@pytest.fixture(scope="session")
def bpf():
    """For tests that need all of BPF: skipped, with what is missing, where the kernel lacks it."""
    answers = probe()
    for name in ("sk_reuseport", "cgroup_skb", "sock_ops", "cgroup2", "bpffs"):
        if answers[name][0] == "no":
            pytest.skip(f"no BPF here: {name}: {answers[name][1]}")


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def backend(pki):
    """That asks for a certificate of our forging CA's, and sends back what it is sent."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        yield b


@pytest.fixture(autouse=True)
def gates_are_well():
    """After each test: every gate still runs, and no sanitizer has spoken."""
    Ktlsgated.recent = [g for g in Ktlsgated.recent if g.running()]
    yield
    for gate in Ktlsgated.recent:
        gate.check()


@pytest.fixture
def pipe_pages():
    """pipe_pages(n): an unprivileged user gets n pages of pipe, as long as the test runs."""
    limit = pathlib.Path("/proc/sys/fs/pipe-user-pages-soft")
    default = limit.read_text()
    yield lambda pages: limit.write_text(str(pages))
    limit.write_text(default)


@pytest.fixture
def gate(pki, tmp_path, engine):
    """gate(settings) starts a gate; see harness.daemon.Ktlsgated. Stopped after the test."""
    yield from _gates(tmp_path, pki, engine)


@pytest.fixture(scope="module")
def module_gate(pki, tmp_path_factory, engine):
    """As gate, for all tests of a module."""
    yield from _gates(tmp_path_factory.mktemp("gate"), pki, engine)


@pytest.fixture(scope="module")
def rig(module_gate, pki, tmp_path_factory):
    made = Rig(module_gate, pki, tmp_path_factory.mktemp("rig"))
    yield made
    made.stop()


def _gates(directory, pki, engine):
    started = []

    def start(settings, **options):
        gate = Ktlsgated(directory / f"gate{len(started)}", pki, engine, settings, **options)
        started.append(gate)
        gate.start()
        return gate

    yield start
    for gate in started:
        gate.stop()
