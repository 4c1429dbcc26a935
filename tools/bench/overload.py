#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What becomes of others when the signer is asked for five times what it can do.

Its capacity is measured first: new identities, as many at once as it takes. Then connections of
identities that have a forged certificate already come at a fixed rate, first alone, then beside new
identities from four client networks. These come at fixed rates too, whatever becomes of them: one
network offers 3.5 times the capacity, each of the others half of it, which is twice a fair share.

The forging key is RSA-7680, so that the signer and not the generator is what is too slow; it stands
for a token or a smartcard. Prints connections that came through per second. Build first: make all
testprogs.
"""

import argparse
import contextlib
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools/bench")]

# pylint: disable=wrong-import-position
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import gates
from harness.daemon import Ktlsgated, program, settings
from harness.pki import FRONT_NAME, Pki
from harness.ports import HOST, free_port

BITS = 7680
NETWORKS = {"greedy": 3.5, "b": 0.5, "c": 0.5, "d": 0.5}  # times the capacity, which each offers
CACHED = "cached"
CACHED_CLIENTS = 20


class Clients:
    """Directories of so many new identities, all with one key: nobody looks whose it is."""

    def __init__(self, pki, directory):
        self.pki, self.directory, self.n = pki, directory, 0

    def new(self, count):
        made = self.directory / f"clients-{self.n}"
        made.mkdir()
        for i in range(count):
            certkey = self.pki.client(f"Client {self.n} {i}")
            for path in (certkey.cert_file, certkey.key_file):
                path.rename(made / f"{i:05d}{path.suffix}")
        self.n += 1
        return made


class Peer:
    """ktlsgate-peer as the clients of one network, and as their backend."""

    def __init__(self, gate, pki, name, clients, *args):
        number = list(gate.backs).index(name)
        self.process = subprocess.Popen(
            list(map(str, [
                program("tests/ktlsgate-peer"), "--connect", f"{HOST}:{gate.port_of(name)}",
                "--listen", f"{HOST}:{gate.backs[name]}", "--source", f"127.1.{number}.1",
                "--name", FRONT_NAME, "--ca", pki.server_ca.cert_file, "--cert", clients,
                "--backend-cert", pki.backend("ec").cert_file,
                "--backend-key", pki.backend("ec").key_file,
                "--backend-ca", pki.forging_root.cert_file, "--schedule", "quick", "--may-fail",
                "--steps", "--patience", 60, *args])),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.wait("ready")

    def wait(self, word):
        said = ""
        for line in self.process.stdout:
            if line.startswith(word):
                return line
            said += line
        raise AssertionError(said)

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self):
        """(seconds it took, how many came through, how many of them in time, p50 and p99 in ms)"""
        done = self.wait("done")
        self.go()
        rest = self.process.stdout.read()
        assert self.process.wait(60) == 0, rest
        met, in_time = map(int, re.search(r"^met (\d+), in time (\d+)", rest, re.M).groups())
        took = re.search(r" p50 (\d+) p99 (\d+)", rest)
        return (int(done.split()[1]) / 1e9, met, in_time,
                *(int(ns) / 1e6 for ns in (took.groups() if took else (0, 0))))


def forging_ca(pki, key_file):
    """The same below the same CAs, but with a slow key."""
    key = (serialization.load_pem_private_key(key_file.read_bytes(), None) if key_file else
           rsa.generate_private_key(65537, BITS))
    pki._rsa_keys["forge-rsa"] = key  # pylint: disable=protected-access
    return pki.forge("rsa")


def start_gate(pki, directory, options):
    """A vserver, a service and a backend's port for each network, all with the same profiles."""
    forge = forging_ca(pki, options.forge_key)
    conf = settings(pki, 1, certkey__forge__cert=forge.cert_file,
                    certkey__forge__key=forge.key_file, dataplane__workers=1)
    backs = {name: free_port() for name in (CACHED, *NETWORKS)}
    for kind, example in (("vserver", "app"), ("service", "app1")):
        rows = {key.split(".")[2]: conf.pop(key) for key in list(conf)
                if key.startswith(f"{kind}.{example}.")}
        for name, port in backs.items():
            own = {"vserver": {"listen": f"{HOST}:{free_port()}", "service": name},
                   "service": {"address": f"{HOST}:{port}"}}[kind]
            conf.update({f"{kind}.{name}.{key}": value for key, value in {**rows, **own}.items()})
    gate = Ktlsgated(directory / "gate", pki, "user", conf)
    gate.backs = backs
    gate.start()
    return gate


def every(rate):
    return "--every", round(1e6 / rate)


def measure_capacity(gate, pki, clients, options):
    count = options.warm_up
    peer = Peer(gate, pki, CACHED, clients.new(count), "--flows", count, "--concurrency", 16)
    peer.go()
    took, met, *_ = peer.finish()
    assert met == count, f"{met} of {count} came through"
    return met / took


def steady(gate, pki, directory, options):
    """Not begun yet: at a fixed rate, of identities that are in the cache."""
    return Peer(gate, pki, CACHED, directory, "--flows", round(options.rate * options.seconds),
                *every(options.rate))


def show_steady(name, options, result):
    _, met, in_time, p50, p99 = result
    offered = round(options.rate * options.seconds)
    print(f"{name:24} {in_time / options.seconds:7.1f}/s of {options.rate}/s offered, "
          f"{met} of {offered} in the end; p50 {p50:.0f} ms, p99 {p99:.0f} ms", flush=True)
    return in_time


def waited(pid):
    """Seconds that its threads were kept waiting for a CPU."""
    return sum(int(path.read_text().split()[1]) for path in
               pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def measure(options, directory):
    pki = Pki(directory / "pki")
    (directory / "pki").mkdir()
    clients = Clients(pki, directory)
    with contextlib.ExitStack() as stack:
        gate = start_gate(pki, directory, options)
        stack.callback(gate.stop)
        capacity = measure_capacity(gate, pki, clients, options)
        print(f"capacity: {capacity:.1f} new identities/s", flush=True)

        known = clients.new(CACHED_CLIENTS)
        warm = Peer(gate, pki, CACHED, known, "--flows", CACHED_CLIENTS, "--concurrency", 4)
        warm.go()
        assert warm.finish()[1] == CACHED_CLIENTS
        alone = steady(gate, pki, known, options)
        alone.go()
        before = show_steady("cached, alone", options, alone.finish())

        seconds = options.seconds + 2 * options.lead
        peers = {}
        for name, times in NETWORKS.items():
            count = round(times * capacity * seconds)
            peers[name] = Peer(gate, pki, name, clients.new(count), "--flows", count,
                               *every(times * capacity))
        beside = steady(gate, pki, known, options)
        for peer in peers.values():
            peer.go()
        time.sleep(options.lead)  # until it is busy
        delay, began = waited(gate.data_process()), time.monotonic()
        beside.go()
        after = show_steady("cached, beside overload", options, beside.finish())
        delay = (waited(gate.data_process()) - delay) / (time.monotonic() - began)
        results = {name: peer.finish() for name, peer in peers.items()}
        total = sum(result[2] for result in results.values())
        for name, (_, met, in_time, p50, p99) in results.items():
            print(f"network {name:16} {in_time / seconds:7.1f}/s of "
                  f"{NETWORKS[name] * capacity:.1f}/s offered, {in_time / max(1, total):.0%} of "
                  f"what was forged; {met} in the end; p50 {p50:.0f} ms, p99 {p99:.0f} ms")
        print(f"forged {total / seconds:.1f}/s, {total / seconds / capacity:.0%} of the capacity; "
              f"cached {after / max(1, before):.0%} of their rate alone")
        print(f"meanwhile the data process waited for a CPU {delay:.0%} of the time: above a few "
              "percent this machine is too busy to tell")
        print({name: n for name, n in gate.stats().items() if n and name.startswith("forge")})


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--lead", type=float, default=5, metavar="SECONDS",
                        help="how long there is overload before and after")
    parser.add_argument("--rate", type=float, default=50, help="of the cached, per second")
    parser.add_argument("--warm-up", type=int, default=200, help="new identities")
    parser.add_argument("--forge-key", type=pathlib.Path,
                        help=f"a PEM file, in place of a new key of {BITS} bits (half a minute)")
    options = parser.parse_args()
    gates.descriptors()
    with tempfile.TemporaryDirectory(prefix="ktlsgate-bench-") as directory:
        measure(options, pathlib.Path(directory))


if __name__ == "__main__":
    main()
