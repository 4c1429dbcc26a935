# SPDX-License-Identifier: Apache-2.0
"""What a process that an attacker has taken over can do to the others. See docs/security.md."""

import contextlib
import os
import pathlib
import random
import re
import signal

import pytest

from harness import client as clients
from harness.captured import Captured
from harness.daemon import settings, wait_until
from harness.peer import SCALE
from test_resolver import hosts, inside, resolved_to  # noqa: F401, a fixture

# Memory that each process shares with another one, and whether it may write it.
SHARED = {
    "supervisor": {"ktlsgate-counters": "r", "ktlsgate-flows": "rw"},
    "signer": {"ktlsgate-replay": "rw", "ktlsgate-fresh": "rw"},
    "resolver": {"ktlsgate-resolved": "rw"},
    "data": {"ktlsgate-counters": "rw", "ktlsgate-flows": "r", "ktlsgate-resolved": "r",
             "ktlsgate-fresh": "r", "[io_uring]": "rw"},
}


def shared_memory(pid):
    """{name: "r" or "rw"} of its shared mappings."""
    found = {}
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        _, mode, *_, name = line.split(maxsplit=5)
        if mode[3] != "s":
            continue
        name = re.sub(r"^/memfd:|^anon_inode:| \(deleted\)$", "", name)
        found[name] = max(found.get(name, ""), mode[:2].replace("-", ""))
    return found


def by_role(g):
    """They are started in this order."""
    return dict(zip(("supervisor", "signer", "resolver", "data"), g.processes(), strict=True))


def test_memory_is_shared_with_whom_it_is_for(gate, pki, backend, hosts):
    """Also with another generation there."""
    hosts.write_text("127.0.0.1 backend.test\n")
    g = gate(settings(pki, 1, service__app1__address=f"backend.test:{backend.port}"),
             inside=inside(hosts))
    if g.sanitized():
        pytest.skip("a sanitizer has shared memory of its own")
    assert {role: shared_memory(pid) for role, pid in by_role(g).items()} == SHARED
    with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
        clients.ping(c)
        g.reload()
        clients.ping(c)
        # The retired one has no handshake left: its signer and its resolver end.
        assert wait_until(lambda: len(g.processes()) == 5, 10)
        supervisor, *others = g.processes()
        assert shared_memory(supervisor) == SHARED["supervisor"]
        assert [shared_memory(pid) for pid in others] == [
            SHARED[role] for role in ("data", "signer", "resolver", "data")]


def seed():
    """Of everything that a captured process does; printed with a failure."""
    number = int(os.environ.get("KTLSGATE_SEED", random.getrandbits(32)))
    print(f"KTLSGATE_SEED={number}")
    return number


@pytest.fixture
def captured(tmp_path):
    return Captured(tmp_path / "captured")


def data_pid(g, generation=None):
    """Of the newest generation, or of one; waits while it is started again."""
    def look():
        found = [x for x in g.generations() if generation in (None, int(x["generation"]))]
        return found and int(found[0]["data_pid"])

    pid = wait_until(look, 10 * SCALE)
    assert pid, g.ctl("status")
    return pid


def signer_pid(g, generation):
    return int(next(x["signer_pid"] for x in g.generations()
                    if int(x["generation"]) == generation))


def serve(g, pki):
    with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
        clients.ping(c)


def end(g, pid, how):
    """Kills what does not end by itself; another one runs."""
    if how in ("not", "spin", "half"):
        with contextlib.suppress(ProcessLookupError):  # a thread may have fallen over what was done
            os.kill(pid, signal.SIGKILL)
    assert g.log_contains(rf"\(pid {pid}\) died", 10 * SCALE)


def answers(g):
    """Each request comes back, with numbers that are numbers."""
    stats = g.stats()
    assert "ktlsgate_flows_active " in g.ctl("metrics")
    assert g.ctl("status") and g.ctl("services")
    return stats


ENDS = ("exit", "crash", "forbidden", "spin", "not")


@pytest.mark.timeout(90)
def test_captured_data_process(gate, pki, backend, captured):
    """
    It ends, and nothing else does: another generation's flow, the signers, the supervisor. Its
    signer begins anew if the sockets to it are of no use any more.
    """
    g = gate(settings(pki, backend.port), captured=captured)
    first = seed()
    with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
        clients.ping(c)
        g.reload()
        for n, how in enumerate(ENDS):
            pid = data_pid(g)
            done = captured.act(pid, first + n, 20 * SCALE, end=how)
            assert done["memory"] and done["messages"] and done["calls"]
            end(g, pid, how)
            assert data_pid(g) != pid
            serve(g, pki)
            renewed = g.log().count("sockets to the signer: both begin anew")
            assert len(re.findall(r"signer \(pid \d+\) died", g.log())) == renewed
            clients.ping(c)
            assert answers(g)["flows_active"] < 10
        # As long as it lives, too. It accepts connections until it is killed, whatever it is told.
        pid = data_pid(g)
        captured.act(pid, first + len(ENDS), 20 * SCALE, end="spin")
        assert g.ctl("reload") is not None
        clients.ping(c)
        answers(g)
        end(g, pid, "spin")
        serve(g, pki)
        clients.ping(c)
        assert not signer_pid(g, 1)  # the last handshake of that one has ended


@pytest.mark.parametrize("how", ["shut", "half"])
def test_what_was_shut_down_is_opened_again(gate, pki, backend, captured, how):
    """The listening sockets and those to the signer, which does not go round in circles meanwhile."""
    g = gate(settings(pki, backend.port), captured=captured)
    pid = data_pid(g)
    captured.act(pid, seed(), 20 * SCALE, kinds=(), end=how)
    if how == "half":
        assert g.log_contains("worker 0 closed its socket to the signer", 10 * SCALE)
    end(g, pid, how)
    serve(g, pki)
    assert "nothing issued" not in g.log()
    assert g.log_contains("sockets to the signer: both begin anew")
    assert how == "half" or g.log_contains(f":{g.port}: .* shut down [0-9]+ listening sockets")


def test_captured_retired_data_process(gate, pki, backend, captured):
    """What it counts keeps nobody out: limit.flows counts no more of its flows than it had."""
    g = gate(settings(pki, backend.port, limit__flows=5), captured=captured)
    first = seed()
    with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
        clients.ping(c)
        g.reload()
        captured.act(data_pid(g, 1), first, 20 * SCALE, kinds=("memory",), end="spin")
        for _ in range(10):
            serve(g, pki)
            answers(g)
        captured.act(data_pid(g), first + 1, 20 * SCALE, kinds=("memory",), end="crash")
        serve(g, pki)
        end(g, data_pid(g, 1), "spin")
    assert g.stat_reaches("generations", 1)
    serve(g, pki)


@pytest.mark.timeout(90)
def test_captured_resolver(gate, pki, backend, captured, hosts):
    """It chooses addresses. What it cannot do is refused, and the next one finds the right one."""
    hosts.write_text("127.0.0.1 backend.test\n")
    g = gate(settings(pki, 1, service__app1__address=f"backend.test:{backend.port}",
                      service__app1__resolve_interval="1s"), inside=inside(hosts),
             captured=captured)
    assert resolved_to(g, f"127.0.0.1:{backend.port}")
    first = seed()
    data = data_pid(g)
    for n, how in enumerate(ENDS):
        pid = wait_until(lambda: g.role("resolver"), 10 * SCALE)
        done = captured.act(pid, first + n, 20 * SCALE, end=how)
        assert done["memory"] and done["messages"] and done["calls"]
        answers(g)
        end(g, pid, "not" if how == "forbidden" else how)  # refused, in a resolver
    assert wait_until(lambda: len(g.processes()) == 4, 10 * SCALE)
    assert resolved_to(g, f"127.0.0.1:{backend.port}")
    serve(g, pki)
    assert data_pid(g) == data


# ---- the forging key ----


def holds(pid, needles):
    """Whether any of these bytes are in a process's memory."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            area, mode, *_ = line.split(maxsplit=5)
            start, stop = (int(x, 16) for x in area.split("-"))
            if mode[0] != "r" or "[vvar" in line or "io_uring" in line:
                continue
            memory.seek(start)
            with contextlib.suppress(OSError):  # [vsyscall], a device
                content = memory.read(stop - start)
                if any(needle in content for needle in needles):
                    return True
    return False


def private_bytes(certkey):
    """The secret number as OpenSSL has it, both ways round, and a line of its file."""
    number = certkey.key.private_numbers().private_value
    return [number.to_bytes(32, "big"), number.to_bytes(32, "little"),
            certkey.key_file.read_bytes().splitlines()[1][:40]]


def test_the_forging_key_is_the_signers(gate, pki, backend, hosts):
    hosts.write_text("127.0.0.1 backend.test\n")
    g = gate(settings(pki, 1, service__app1__address=f"backend.test:{backend.port}"),
             inside=inside(hosts))
    assert resolved_to(g, f"127.0.0.1:{backend.port}")
    serve(g, pki)
    g.reload()
    serve(g, pki)
    assert wait_until(lambda: len(g.processes()) == 4, 10 * SCALE)
    needles = private_bytes(pki.forge())
    assert {role: holds(pid, needles) for role, pid in by_role(g).items()} == {
        "supervisor": False, "signer": True, "resolver": False, "data": False}
