#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""How long others wait for a gate while 100 peers do not read.

64 bytes go to an echoing backend and back, one flow after the other; first alone, then beside 50
clients and 50 backends that refuse to read in mid-transfer, half of whose senders have closed by
then. What those must receive is compared in the end. Repeats alternate, and their pings are taken
together: what else the machine does comes and goes. Build first: make all.

A guest counts instructions instead of time, the same each run (tests/guest/run --icount).
"""

import argparse
import contextlib
import io
import os
import pathlib
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

# pylint: disable=wrong-import-position
from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import Ktlsgated, settings, wait_until
from harness.late import Late
from harness.pki import Pki

REST = 0.5  # seconds; what the stalled flows' beginning and end cost is not asked


def echo_process(pki, stack):
    """The port of a backend with a Python of its own, so that it waits for nobody here."""
    certkey, client_ca = pki.backend(), pki.forging_root  # made here, for both
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        peer.TIMEOUT = backends.TIMEOUT = 3600
        b = backends.Backend(certkey=certkey, client_ca=client_ca)
        os.write(writer, str(b.port).encode())
        time.sleep(3600)
        os._exit(0)
    stack.callback(lambda: (os.kill(pid, 9), os.waitpid(pid, 0)))
    return int(os.read(reader, 10))


def ping_pong(flows, pings):
    """Times of so many, in microseconds."""
    took = []
    for n in range(pings):
        c, message = flows[n % len(flows)], b"%064d" % n
        began = time.perf_counter_ns()
        c.send(message)
        got = c.recv_exactly(64)
        took.append((time.perf_counter_ns() - began) / 1000)
        assert got == message, c.ended
    return took


def say(text):
    """Past what the harness prints for a test that failed."""
    print(text, file=sys.__stdout__, flush=True)


def percentiles(took):
    took = sorted(took)
    return took[len(took) // 2], took[len(took) * 99 // 100]


def measure(options, directory):
    pki = Pki(directory)
    with contextlib.ExitStack() as stack:
        port = echo_process(pki, stack)
        late = [Late(stack, pki) for _ in range(options.repeats)]
        # One gate, each repeat with backends of its own.
        ports = {}
        for n, one in enumerate(late):
            ports.update(one.settings(f"repeat{n}-"))
        g = Ktlsgated(directory / "gate", pki, options.engine,
                      {**settings(pki, port), **ports})
        g.start()
        stack.callback(g.stop)
        ctx = peer.context(False, pki.client("quick"), pki.server_ca)
        flows = [stack.enter_context(clients.connected(g.port, pki=pki, ctx=ctx, timeout=600))
                 for _ in range(options.flows)]
        ping_pong(flows, options.pings // 5)
        alone, beside = [], []
        for one in late:
            time.sleep(REST)
            alone += ping_pong(flows, options.pings)
            one.start(g, stack)
            time.sleep(REST)
            beside += ping_pong(flows, options.pings)
            one.finish()
            wait_until(lambda: g.stats()["flows_active"] == len(flows), 60 * peer.SCALE)
        a50, a99 = percentiles(alone)
        b50, b99 = percentiles(beside)
        say(f"engine {options.engine}, Linux {os.uname().release}, {options.repeats} x "
            f"{options.pings} pings over {options.flows} flows, us: alone p50 {a50:.0f} p99 "
            f"{a99:.0f}, beside stalled p50 {b50:.0f} p99 {b99:.0f}: p50 x {b50 / a50:.3f}, "
            f"p99 x {b99 / a99:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("user", "ktls", "auto"), default="auto")
    parser.add_argument("--flows", type=int, default=20)
    parser.add_argument("--pings", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ktlsgate-bench-") as directory, \
            contextlib.redirect_stdout(io.StringIO()):
        measure(options, pathlib.Path(directory))


if __name__ == "__main__":
    main()
