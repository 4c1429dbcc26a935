#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What hostile certificate chains cost, and how long others wait for a gate that is sent them.

First tools/bench/hostile.c: CPU time for each chain, without a gate. Then a gate with one worker, which
two clients send the same chain as fast as they can, while established flows exchange 64 bytes with
an echoing backend, one after the other. Build first: make all testprogs. --build measures another
build's gate, --program another build's chains (its hostile, which was linked with its library).
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools/bench")]

# pylint: disable=wrong-import-position
from harness import client as clients
from harness import peer
from harness.daemon import BUILD, Ktlsgated, settings
from harness.pki import Pki
from stalled import echo_process, ping_pong, say

ATTACKERS = 2


def attack(port, case, stop, count):
    """Until stop: a handshake with that chain, to its end."""
    os.setpriority(os.PRIO_PROCESS, 0, 0)
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
    ctx.load_cert_chain(case, case.with_suffix(".key"))
    while not stop.is_set():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as sock:
            sock.settimeout(60)
            with ctx.wrap_socket(sock) as tls:
                tls.recv(1)
        with count.get_lock():
            count.value += 1


@contextlib.contextmanager
def attacked(port, case):
    """Yields a function that says how many hostile handshakes there have been."""
    stop, count = multiprocessing.Event(), multiprocessing.Value("i", 0)
    running = [multiprocessing.Process(target=attack, args=(port, case, stop, count))
               for _ in range(ATTACKERS if case else 0)]
    for p in running:
        p.start()
    try:
        yield lambda: count.value
    finally:
        stop.set()
        for p in running:
            p.join()


def cpu_ms(pid):
    """Of all threads of the processes below pid."""
    total = 0
    for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        total += sum(cpu_ms(int(child)) for child in children.read_text().split())
    for stat in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            total += int(stat.read_text().split()[0]) / 1e6
    return total


def ping_for(flows, seconds):
    until, took = time.monotonic() + seconds, []
    while time.monotonic() < until:
        took += ping_pong(flows, len(flows))
    return sorted(took)


def live(options, chains, directory):
    pki = Pki(directory)
    both = directory / "client-cas.pem"
    both.write_text(pki.client_root.cert_file.read_text() + (chains / "root.pem").read_text())
    with contextlib.ExitStack() as stack:
        g = Ktlsgated(directory / "gate", pki, options.engine,
                      settings(pki, echo_process(pki, stack), profile__front__client_ca=both),
                      build=options.build.resolve(), **{"dataplane.workers": 1})
        g.start()
        stack.callback(g.stop)
        ctx = peer.context(False, pki.client("quick"), pki.server_ca)
        flows = [stack.enter_context(clients.connected(g.port, pki=pki, ctx=ctx, timeout=600))
                 for _ in range(options.flows)]
        ping_for(flows, 0.5)
        say(f"\n{ATTACKERS} clients, one worker, engine {options.engine}, {options.flows} flows:\n"
            f"{'case':26} {'handshakes':>10} {'CPU, ms each':>12}   others' pings, ms: p50    p99    max")
        worst = 0
        for case in [None, *sorted(p for p in chains.glob("*.pem")
                                   if p.with_suffix(".key").stat().st_size and p.stem != "root")]:
            with attacked(g.port, case) as count:
                time.sleep(0.3)
                had, spent = count(), cpu_ms(g.process.pid)
                time.sleep(options.seconds / 2)  # what pings cost is not asked
                had, spent = count() - had, cpu_ms(g.process.pid) - spent
                took = ping_for(flows, options.seconds)
            each = f"{spent / had:12.2f}" if had else " " * 12
            worst = max(worst, took[-1] if case else 0)
            say(f"{case.stem if case else 'nobody':26} {had:10} {each} {'':20}"
                f"{took[len(took) // 2] / 1000:6.2f} {took[len(took) * 99 // 100] / 1000:6.2f} "
                f"{took[-1] / 1000:6.2f}")
        say(f"longest stall of an established flow: {worst / 1000:.1f} ms")


def go_first():
    """All but the attackers: what else the machine does is no stall."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=BUILD)
    parser.add_argument("--program", type=pathlib.Path)
    parser.add_argument("--engine", choices=("user", "ktls", "auto"), default="user")
    parser.add_argument("--flows", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each case; 0: no gate")
    options = parser.parse_args()
    go_first()
    with tempfile.TemporaryDirectory(prefix="ktlsgate-bench-") as directory:
        chains = pathlib.Path(directory) / "chains"
        chains.mkdir()
        program = options.program or options.build / "tools/bench/hostile"
        subprocess.run([program.resolve(), chains], check=True)
        if options.seconds:
            with contextlib.redirect_stdout(io.StringIO()):
                live(options, chains, pathlib.Path(directory))


if __name__ == "__main__":
    main()
