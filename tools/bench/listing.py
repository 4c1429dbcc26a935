#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""How long established flows wait while all flows are listed, again and again.

So many idle flows are held, and 64 bytes go to an echoing backend and back over a few more, alone and
beside a client of the control socket that asks for FLOWS all the time (--ask: for something else).
Repeats alternate, and their pings are taken together. On a machine that others use the longest waits
are theirs, so there is a second figure that they do not change: the CPU time of the main thread and
of the workers for one answer. A flow waits for as much of a worker's as that spends at a time: 64 flows.
Build first: make all testprogs.
"""

import argparse
import contextlib
import io
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools/bench")]

# pylint: disable=wrong-import-position
from harness import client as clients
from harness import peer
from harness.daemon import Ktlsgated
from harness.pki import Pki
from harness.traffic import Traffic
from harness.rig import second_vserver
from stalled import echo_process, ping_pong, say

ASK = """
import socket, sys, time
buf, n, end, bytes_read = bytearray(1 << 20), 0, time.monotonic() + float(sys.argv[3]), 0
while time.monotonic() < end:
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    s.sendall(sys.argv[2].encode() + b"\\n")
    while got := s.recv_into(buf):
        bytes_read += got
    n += 1
print(n, bytes_read)
"""


def threads(pid):
    """CPU time of each, ns."""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        found[task.name] = int((task / "schedstat").read_text().split()[0])
    return found


def percentiles(took):
    took = sorted(took)
    return took[len(took) // 2], took[len(took) * 99 // 100], took[-1]


def asking(g, request, seconds):
    return subprocess.Popen([sys.executable, "-c", ASK, str(g.socket), request, str(seconds)],
                            stdout=subprocess.PIPE, text=True)


def cost(g, request, seconds):
    """Nobody pings: how many answers, bytes of one, CPU us for one of the main thread and workers."""
    pid = g.data_process()
    before = threads(pid)
    with asking(g, request, seconds) as process:
        n, size = map(int, process.communicate()[0].split())
    after = threads(pid)
    spent = {t: (after[t] - before[t]) / n / 1000 for t in before}
    return n, size // n, spent.pop(str(pid)), sorted(spent.values(), reverse=True)


def measure(options, directory):
    pki = Pki(directory / "pki")
    (directory / "pki").mkdir()
    with contextlib.ExitStack() as stack:
        echo = echo_process(pki, stack)

        def start(conf, **_options):
            conf.update(second_vserver("echo", echo))
            gate = Ktlsgated(directory / "gate", pki, options.engine, conf)
            gate.start()
            stack.callback(gate.stop)
            return gate

        traffic = Traffic(start, pki, directory, limit__flows=0)
        g = traffic.gate
        stack.enter_context(traffic.held("--idle", options.idle, "--bytes", "1k",
                                         "--concurrency", 8))
        ctx = peer.context(False, pki.client("quick"), pki.server_ca)
        flows = [stack.enter_context(clients.connected(g.port_of("echo"), pki=pki, ctx=ctx,
                                                       timeout=600))
                 for _ in range(options.flows)]
        ping_pong(flows, options.pings // 5)
        alone, beside, answers = [], [], 0
        for _ in range(options.repeats):
            alone += ping_pong(flows, options.pings)
            with asking(g, options.ask, options.seconds) as process:
                end = time.monotonic() + options.seconds
                while time.monotonic() < end:
                    beside += ping_pong(flows, 50)
                answers += int(process.communicate()[0].split()[0])
        for name, took in (("alone", alone), (f"beside {answers} x {options.ask}", beside)):
            p50, p99, most = percentiles(took)
            say(f"{name}: {len(took)} pings, us: p50 {p50:.0f} p99 {p99:.0f} max {most:.0f}")
        n, size, own, workers = cost(g, options.ask, options.seconds)
        say(f"{n} answers of {size} bytes; CPU us for one: main thread {own:.0f}, workers "
            f"{', '.join(f'{us:.0f}' for us in workers[:2])}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("user", "ktls", "auto"), default="user")
    parser.add_argument("--idle", type=int, default=9500)
    parser.add_argument("--flows", type=int, default=10)
    parser.add_argument("--pings", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ask", default="flows")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ktlsgate-bench-") as directory, \
            contextlib.redirect_stdout(io.StringIO()):
        measure(options, pathlib.Path(directory))


if __name__ == "__main__":
    main()
