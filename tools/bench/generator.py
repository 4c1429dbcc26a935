# SPDX-License-Identifier: Apache-2.0
"""ktlsgate-peer as a load: one run of it, measured from step to step, and its verdict."""

import os
import re
import subprocess
import time

import meter
from harness.daemon import program
from harness.ports import HOST

REST_SECONDS = 3
STALLED = re.compile(r"^wrong: flow (\d+), schedule ping, .* nothing happened for too long",
                     re.MULTILINE)


class Wrong(Exception):
    """What came through was not what was sent, or something else than what is measured."""


class Generator:
    """
    gate: to be connected to. one: all connections are of one client. patience: seconds without
    progress until an end gives up.
    """

    def __init__(self, gate, directory, back, args, one, patience=60):
        ids = gate.ids
        clients = ids.one_client(directory) if one else ids.clients
        self.gate, self.said = gate, ""
        self.argv = [program("tests/ktlsgate-peer"), "--connect", f"{HOST}:{gate.port}",
                     "--listen", f"{HOST}:{back}", "--name", gate.server_name,
                     "--ca", ids.pki.server_ca.cert_file, "--cert", clients,
                     "--backend-cert", ids.backend.cert_file,
                     "--backend-key", ids.backend.key_file, "--backend-ca", gate.backend_ca,
                     # One suite everywhere; AES-GCM is what all of them do best.
                     "--cipher", "TLS_AES_256_GCM_SHA384", "--seed", "1", "--patience", str(patience),
                     *(["--shown", ids.shown.cert_file, "--any-end"] if gate.shows_static else []),
                     *map(str, args)]

    def run(self):
        """Seconds by what they were used for, and how long clients waited ("took", ns)."""
        carried = self._carried()
        with self._process("--steps") as process:
            groups = {"gate": self.gate.pids, "generator": [process.pid], "bench": [os.getpid()]}
            self._wait(process, "ready")
            before = meter.Snapshot(groups)
            self._go(process)
            self._wait(process, "done")
            after = meter.Snapshot(groups)
            self._go(process)
            rest = self._judge(process)[0]
        if carried is not None and self._carried() == carried:
            raise Wrong(f"{self.gate.name}: another engine carried the flows")
        cost = meter.between(before, after)
        cost["processes"]["gate"] = cost["processes"].get("gate", 0)
        # This process has only waited, but for what it took to look.
        cost["took"] = self._samples("took", rest)
        return cost

    def idle(self, pids=()):
        """Bytes and CPU while all flows are idle."""
        before = meter.memory()
        gate_before = meter.pss(pids)
        with self._process() as process:
            self._wait(process, "idle")
            time.sleep(1)
            groups = {"gate": pids}
            at = meter.Snapshot(groups)
            time.sleep(REST_SECONDS)
            rest = meter.between(at, meter.Snapshot(groups))["processes"]["gate"]
            now = meter.memory()
            found = {"used": now["used"] - before["used"], "slab": now["slab"] - before["slab"],
                     "gate": meter.pss(pids) - gate_before, "generator": meter.pss([process.pid]),
                     "rest_ms": rest * 1000 / REST_SECONDS}
            self._judge(process)
        return found

    def rate(self, cpu):
        """
        Of a run with --rate, on that CPU: {"took": connections that were answered in time, "pinged":
        messages}, each with "n" and ns, and "stalled": established flows that made no progress for
        as long as the patience is, which is a result and nothing wrong.
        """
        with self._process() as process:
            os.sched_setaffinity(process.pid, {cpu})
            rest, stalled = self._judge(process, may_stall=True)
        return {"stalled": stalled,
                **{name: self._samples(name, rest) for name in ("took", "pinged")}}

    def _carried(self):
        return self.gate.carried() if hasattr(self.gate, "carried") else None

    def _process(self, *more):
        return subprocess.Popen([*map(str, self.argv), *more], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True)

    @staticmethod
    def _samples(name, text):
        found = re.search(rf"^{name} n (\d+)(?: p50 (\d+) p99 (\d+) max (\d+))?", text,
                          re.MULTILINE)
        return {what: int(value or 0) for what, value in
                zip(("n", "p50", "p99", "max"), found.groups())}

    def _wait(self, process, word):
        for line in process.stdout:
            if line.startswith(word):
                return
            self.said += line
        raise Wrong(f"{self.gate.name}: {self.said[-2000:]}")

    @staticmethod
    def _go(process):
        process.stdin.write("\n")
        process.stdin.flush()

    def _judge(self, process, may_stall=False):
        """
        The rest of what it prints; every byte and every end must have been right, but of as many
        flows as stalled, which may_stall allows.
        """
        process.stdin.close()
        rest = process.stdout.read()
        process.wait(60)
        stalled = len(set(STALLED.findall(rest))) if may_stall else 0
        found = re.search(r"^flows (\d+), ok (\d+), wrong (\d+), ", rest, re.MULTILINE)
        flows, ok, wrong = map(int, found.groups()) if found else (0, 0, 1)
        if process.returncode != bool(stalled) or wrong != stalled or ok + wrong != flows:
            raise Wrong(f"{self.gate.name}: {(self.said + rest)[-2000:]}")
        return rest, stalled
