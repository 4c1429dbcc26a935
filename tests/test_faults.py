# SPDX-License-Identifier: Apache-2.0
"""
What the kernel may do to any call and what it does when it is out of something, drawn from a seed
by tests/fault. Soft faults (short reads and writes, EINTR, EAGAIN, no pipe) must not be seen at
all; a hard one ends its flow with a reason, and neither end sees a wrong byte or a close_notify
that was not due. The far ends are as ever: only the gate's threads have faults.
"""

import functools
import os
import random

import pytest

from harness.daemon import HEAP_SLACK, settings, wait_until
from harness.peer import SCALE
from harness.ports import free_port
from harness.relay import faults, given_up, relay
from harness.traffic import Traffic

pytestmark = [pytest.mark.datapath, pytest.mark.timeout(120)]

RELAYED = 80 if SCALE > 1 else 2000
WHOLE, BYTES = (16, "4k") if SCALE > 1 else (400, "16k")
# Calls that move bytes or hold something, by engine.
SOFT = {"user": {"send", "recv", "ring-poll"},
        "ktls": {"splice-in", "splice-out", "sendmsg", "recvmsg", "ring-poll"}}
HARD = {"user": {"send", "recv", "malloc", "calloc", "ioctl", "ring-poll"},
        "ktls": {"splice-in", "splice-out", "sendmsg", "recvmsg", "set-tx", "set-rx", "getsockopt",
                 "calloc", "ioctl", "ring-poll"}}
# No end has done such a thing.
BLAME = [f"{who}_{what}" for who in ("client", "backend")
         for what in ("protocol", "not_tls", "bad_record", "illegal", "flood")]
WHOLE_HARD = {"malloc", "calloc", "realloc", "ring-recv", "ring-send", "ring-poll", "ring-connect"}


def seed():
    return os.environ.get("KTLSGATE_SEED", str(random.getrandbits(32)))


def test_soft_faults_in_the_relay(engine):
    done = faults(relay(engine, RELAYED, "--faults", "soft", "--bytes", "64k"))
    assert {site for site, (soft, _) in done.items() if soft} >= SOFT[engine]


def test_hard_faults_in_the_relay(engine):
    printed = relay(engine, RELAYED, "--faults", "hard", "--bytes", "64k")
    done = faults(printed)
    missed = HARD[engine] - {site for site, (_, hard) in done.items() if hard}
    assert len(missed) <= (len(HARD[engine]) // 2 if SCALE > 1 else 0), missed  # few flows there
    assert RELAYED * 0.2 < given_up(printed) < RELAYED * 0.8


@pytest.fixture
def faulty(gate, pki, tmp_path):
    """faulty("soft") starts a daemon with faults. One certificate is cached: most are forged."""
    def start(mode):
        traffic = Traffic(functools.partial(gate, faults=f"{mode} {seed()}"), pki, tmp_path,
                          forge__cache=1)
        traffic.before = traffic.gate.files_at_rest()
        # For comparison, one that carries no flow.
        traffic.idle = gate(settings(pki, free_port()), faults="off")
        traffic.idle.stop()
        return traffic
    return start


def stop(traffic):
    """Every flow is over, for a reason that was counted, and nothing is left. The faults' report."""
    gate = traffic.gate
    assert wait_until(lambda: gate.stats()["flows_active"] == 0, 35 * SCALE), gate.flows()
    stats = gate.stats()
    assert stats["flows_relaying_active"] == stats["pipes_active"] == stats["drain_timeouts"] == 0
    assert sum(n for name, n in stats.items() if name.startswith("reason_")) == (
        stats["flows_accepted"])
    # Pipes kept for later are no leak: 64 a worker, two descriptors each.
    kept = 128 * len(os.sched_getaffinity(0)) if gate.engine == "ktls" else 0
    new = lambda: set(gate.open_files()) - set(traffic.before)
    assert wait_until(lambda: len(new()) <= kept, 5 * SCALE), new()
    gate.stop()
    idle = traffic.idle.heaps_at_the_end()
    assert all(n <= idle[name] + HEAP_SLACK for name, n in gate.heaps_at_the_end().items()), (
        idle, gate.heaps_at_the_end())
    return faults(gate.log())


def test_soft_faults_in_a_daemon(faulty):
    traffic = faulty("soft")
    traffic.run("--flows", WHOLE, "--concurrency", 50, "--bytes", BYTES, "--tls", "mixed")
    assert traffic.gate.stats()["flows_established"] >= WHOLE * 0.9
    assert all(not hard for _, hard in stop(traffic).values())


def test_hard_faults_in_a_daemon(faulty):
    """Each worker has one after the other, in handshakes and in the relay."""
    traffic = faulty("hard")
    traffic.run("--flows", 2 * WHOLE, "--concurrency", 50, "--bytes", BYTES, "--tls", "mixed",
                "--may-fail", timeout=60)
    stats = traffic.gate.stats()
    assert stats["reason_no_memory"] and stats["flows_established"]
    blamed = [name for name in BLAME if stats[f"reason_{name}"]]
    assert not blamed, traffic.gate.log()[-8000:]
    hard = {site for site, (_, hard) in stop(traffic).items() if hard}
    assert SCALE > 1 or hard >= WHOLE_HARD
