# SPDX-License-Identifier: Apache-2.0
"""What a process that an attacker has taken over can do to the others. See docs/security.md."""

import pathlib
import re

import pytest

from harness import client as clients
from harness.daemon import settings
from test_resolver import hosts, inside  # noqa: F401, a fixture

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
        supervisor, *others = g.processes()
        assert len(others) == 6 and shared_memory(supervisor) == SHARED["supervisor"]
        assert [shared_memory(pid) for pid in others] == 2 * [
            SHARED[role] for role in ("signer", "resolver", "data")]
