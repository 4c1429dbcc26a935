# SPDX-License-Identifier: Apache-2.0
"""ktlsgate-peer around a gate: a vserver for backends of each TLS version, and its verdict."""

import contextlib
import os
import re
import subprocess

from .daemon import program, settings
from .peer import SCALE
from .ports import HOST, free_port
from .rig import second_vserver

VSERVERS = {"1.3": "app", "1.2": "back12"}  # by the TLS version of their backends
CLIENTS = 8  # identities that flows take turns with


def seed():
    """KTLSGATE_SEED repeats a run; the tool prints the one it used."""
    return ["--seed", os.environ["KTLSGATE_SEED"]] if "KTLSGATE_SEED" in os.environ else []


class Traffic:
    """
    A gate started with start (fixture gate), and the files of both ends below directory. inside:
    see netns.py.
    """

    def __init__(self, start, pki, directory, clients=CLIENTS, inside=(), **changes):
        self.pki, self.certs, self.inside = pki, directory / "clients", inside
        self.back = {version: free_port() for version in VSERVERS}
        self.certs.mkdir()
        for n in range(clients):
            certkey = pki.client(f"Client {n}")
            for path in (certkey.cert_file, certkey.key_file):
                (self.certs / f"{n}{path.suffix}").write_bytes(path.read_bytes())
        conf = settings(pki, self.back["1.3"], **changes)
        conf.update(second_vserver(VSERVERS["1.2"], self.back["1.2"]))
        self.gate = start(conf, inside=inside)

    def argv(self, *args, backends=None):
        """backends: their TLS versions; by default both if args say "mixed", else 1.3."""
        backends = backends or ("1.3", "1.2")[:1 + ("mixed" in args)]
        front = [f"{HOST}:{self.gate.port_of(VSERVERS[version])}" for version in backends]
        back = [f"{HOST}:{self.back[version]}" for version in backends]
        backend = self.pki.backend()
        return [*self.inside, program("tests/ktlsgate-peer"),
                "--connect", ",".join(front), "--listen", ",".join(back),
                "--ca", self.pki.server_ca.cert_file, "--cert", self.certs,
                "--backend-cert", backend.cert_file, "--backend-key", backend.key_file,
                "--backend-ca", self.pki.forging_root.cert_file, "--patience", str(30 * SCALE),
                *map(str, args), *seed()]

    def run(self, *args, timeout=50, backends=None):
        """What it printed; fails unless every flow was right."""
        done = subprocess.run(self.argv(*args, backends=backends), capture_output=True, text=True,
                              check=False, timeout=timeout * SCALE, stdin=subprocess.DEVNULL)
        print(done.stdout[-4000:])
        verdict = re.search(r"^flows (\d+), ok (\d+), wrong (\d+), ", done.stdout, re.MULTILINE)
        assert verdict, done.stdout + done.stderr
        flows, ok, wrong = map(int, verdict.groups())
        assert (wrong, ok, done.returncode) == (0, flows, 0), done.stdout
        return done.stdout

    @contextlib.contextmanager
    def held(self, *args):
        """
        Runs with --idle or --stall: yields (process, lines) once it has come to rest, lines being
        what it printed. Afterwards it goes on to its end, and every flow must have been right.
        """
        with subprocess.Popen(self.argv(*args), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as process:
            lines = []
            try:
                for line in process.stdout:
                    lines.append(line.rstrip())
                    if re.match(r"(idle|stalled) \d", line):
                        break
                assert lines and re.match("idle|stalled", lines[-1]), lines
                yield process, lines
                process.stdin.write("go on\n")
                process.stdin.close()
                rest = process.stdout.read()
                assert re.search(r"^flows (\d+), ok \1, wrong 0, ", rest, re.MULTILINE), rest
                assert process.wait(60 * SCALE) == 0
            finally:
                process.kill()
