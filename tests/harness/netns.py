# SPDX-License-Identifier: Apache-2.0
"""A network namespace of its own whose loopback loses, delays, doubles and reorders packets."""

import contextlib
import subprocess

import pytest

NETEM = "delay 1ms 2ms loss 1% reorder 20% duplicate 1%"


@contextlib.contextmanager
def lossy():
    """Yields what is put in front of a command to run it there. Skips where there is no netem."""
    script = f"ip link set lo up && tc qdisc add dev lo root netem {NETEM} && echo ready && cat"
    with subprocess.Popen(["unshare", "--net", "sh", "-c", script], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as holder:
        said = holder.stdout.readline().strip()
        if said != "ready":
            pytest.skip(f"no netem here: {said}")
        yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
        holder.stdin.close()


@contextlib.contextmanager
def private(*addresses):
    """
    A namespace in which these prefixes are local and nothing else is but loopback; what is put in
    front of a command to run it there.
    """
    routes = "".join(f" && ip {'-6' if ':' in a else ''} route add local {a} dev lo"
                     for a in addresses)
    with subprocess.Popen(["unshare", "--net", "sh", "-c",
                           f"ip link set lo up{routes} && echo ready && cat"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as holder:
        said = holder.stdout.readline().strip()
        assert said == "ready", said
        yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
        holder.stdin.close()
