# SPDX-License-Identifier: Apache-2.0
"""ktlsgated as a process under test: its configuration, its log, its counters, its end."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import time

from .peer import SCALE
from .pki import BACK_NAME
from .ports import HOST, free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("KTLSGATE_BUILD", ROOT / "build")).resolve()
START_TIMEOUT = 10 * SCALE
STOP_TIMEOUT = 10 * SCALE
HEAP_SLACK = 16384  # bytes, between two gates at their end: what libraries set up with a first flow
SANITIZER = re.compile(r"(Address|Leak|Thread|UndefinedBehavior)Sanitizer|runtime error:")
# Reason names and the texts of their log lines, from the only place where they are written.
REASONS = dict(re.findall(r'X\((\w+), ALERT_[^"]*"([^"]*)"\)',
                          (ROOT / "daemon/conn/reason.h").read_text()))


def program(name):
    return BUILD / name


def settings(pki, backend_port, *, port=None, **changes):
    """
    The design's example as a dict: one vserver "app", one service "app1". changes replace or add
    keys, "." spelled "__"; None removes one.
    """
    conf = {
        "certkey.web.cert": pki.web().cert_file,
        "certkey.web.key": pki.web().key_file,
        "certkey.forge.cert": pki.forge().cert_file,
        "certkey.forge.key": pki.forge().key_file,
        "profile.front.client_auth": "mandatory",
        "profile.front.client_ca": pki.client_root.cert_file,
        "profile.back.dynamic_client_cert": "enabled",
        "profile.back.forging_certkey": "forge",
        "profile.back.server_ca": pki.server_ca.cert_file,
        "vserver.app.listen": f"{HOST}:{port or free_port()}",
        "vserver.app.certkey": "web",
        "vserver.app.profile": "front",
        "vserver.app.service": "app1",
        "service.app1.address": f"{HOST}:{backend_port}",
        "service.app1.server_name": BACK_NAME,
        "service.app1.profile": "back",
    }
    if SCALE > 1:  # hundreds of handshakes at once take Python backends minutes in a guest
        conf.update({"timeout.handshake": "5m", "timeout.backend_handshake": "5m"})
    conf.update({key.replace("__", "."): value for key, value in changes.items()})
    return {key: value for key, value in conf.items() if value is not None}


class Ktlsgated:
    """
    conf: see settings(); engine, workers and the control socket are added here. fault: a Fault,
    preloaded. faults: of the injector, tests/fault, for a gate built with it: "soft SEED",
    "hard SEED [SITE]" or "off". captured: a Captured, for a gate whose processes it can take over.
    inside: what is put in front of the command to run it elsewhere; see netns.py.
    """

    recent = []  # gates started since the last test began, and those still running

    def __init__(self, directory, pki, engine, conf, *, fault=None, faults=None, captured=None,
                 inside=(), build=BUILD, **options):
        directory.mkdir()
        self.build = build
        self.inside = inside
        self.env = {**os.environ, **(fault.env if fault else {}),
                    **(captured.env if captured else {})}
        self.pki, self.engine, self.faults, self.captured = pki, engine, faults, captured
        self.log_file = directory / "ktlsgated.log"
        self.conf_file = directory / "ktlsgate.conf"
        # Short whatever the directory: a UNIX socket's path has 107 bytes at most.
        self.socket = pathlib.Path(f"/tmp/ktlsgate-test-{os.getpid()}-{free_port()}.sock")
        self.settings = {"dataplane.engine": engine, "control.socket": self.socket,
                         "bpf.dir": "off", **conf, **options}
        write_config(self.conf_file, self.settings)
        self.process = None

    @property
    def port(self):
        return self.port_of("app")

    def port_of(self, vserver):
        return int(str(self.settings[f"vserver.{vserver}.listen"]).rsplit(":", 1)[1])

    # ---- life ----

    def start(self):
        Ktlsgated.recent.append(self)
        name, env = "ktlsgated", self.env
        if self.faults:
            # What a thread keeps for its next malloc() would be counted as in use.
            name, env = "tests/ktlsgated-faults", {
                **self.env, "KTLSGATE_FAULTS": self.faults,
                "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
        if self.captured:
            name = "tests/ktlsgated-captured"
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen([*self.inside, self.build / name, "-c",
                                             self.conf_file],
                                            env=env, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        assert self.log_contains(r"ktlsgated: ready|: ready$", START_TIMEOUT), (
            f"ktlsgated is not ready after {START_TIMEOUT} s:\n{self.log()}")

    def stop(self):
        """SIGTERM; the exit status must be 0, and the log clean."""
        if not self.running():
            self.check()
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"SIGTERM did not end ktlsgated:\n{self.log()}") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                self.socket.unlink()
        self.process = None
        assert status == 0, f"ktlsgated ended with {status}:\n{self.log()}"
        assert not SANITIZER.search(self.log()), self.log()

    def running(self):
        return self.process is not None and self.process.poll() is None

    def check(self):
        """It lives and no sanitizer has spoken."""
        assert not SANITIZER.search(self.log()), self.log()
        assert self.process is None or self.process.poll() is None, (
            f"ktlsgated ended with {self.process.returncode}:\n{self.log()}")

    def reconfigure(self, **changes):
        """Changes its file, "." spelled "__", None removes; nobody is told."""
        self.settings.update({key.replace("__", "."): value for key, value in changes.items()})
        write_config(self.conf_file, {k: v for k, v in self.settings.items() if v is not None})

    def reload(self, **changes):
        """reconfigure(), SIGHUP, and until it has taken effect."""
        before = self.stats()["generation"]
        self.reconfigure(**changes)
        self.process.send_signal(signal.SIGHUP)
        assert self.log_contains(rf"reloaded: generation {before + 1}\b", START_TIMEOUT), self.log()

    def generations(self):
        """What `status` shows, the newest first."""
        return [dict(f.split("=", 1) for f in line.split("\t"))
                for line in self.ctl("status").splitlines()]

    # ---- what it says ----

    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_contains(self, pattern, timeout=0):
        """Whether a line matches pattern now or within timeout seconds."""
        return wait_until(lambda: re.search(pattern, self.log(), re.MULTILINE), timeout,
                          lambda: self.running())

    def sanitized(self):
        """Built so: it then uses as much memory as it likes."""
        maps = pathlib.Path(f"/proc/{self.process.pid}/maps").read_text()
        return any(name in maps for name in ("libasan", "libubsan", "libtsan"))

    def descriptors(self):
        """Open descriptors of all its processes."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.processes())

    def files_at_rest(self):
        """As open_files(), once they no longer change: its threads start after it is ready."""
        seen = [self.open_files()]
        wait_until(lambda: seen.append(self.open_files()) or (
            len(seen) > 20 and len(set(map(tuple, seen[-20:]))) == 1), 5 * SCALE)
        return seen[-1]

    def open_files(self):
        """Descriptors of all its processes, and what they are."""
        found = []
        for pid in self.processes():
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    found.append(f"{pid}: {fd} {os.readlink(f'/proc/{pid}/fd/{fd}')}")
        return sorted(found)

    def processes(self):
        """Its process ids, the supervisor's first."""
        found = [self.process.pid]
        for pid in found:
            for task in _tasks(pid):
                with contextlib.suppress(OSError):  # it has just ended
                    children = pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text()
                    found += map(int, children.split())
        return found

    def role(self, name):
        """
        The process id of the signer, resolver or data process, the oldest if there are several;
        None when there is none.
        """
        return next((pid for pid in self.processes()[1:] if _role_of(pid) == name), None)

    def signer(self):
        """Its process id. Waits while it is being started again."""
        return wait_until(lambda: self.role("signer"), 5 * SCALE)

    def data_process(self):
        return wait_until(lambda: self.role("data"), 5 * SCALE)

    def heaps_at_the_end(self):
        """
        Bytes in use by process, "" being the supervisor, when everything should be given back.
        Only of a gate built with the injector.
        """
        found = re.findall(r" ktlsgated(\S*) info: heap at the end: (\d+)$", self.log(),
                           re.MULTILINE)
        return {name: int(n) for name, n in found}

    def ctl(self, *args):
        """ktlsgatectl's standard output."""
        done = ctl("-s", self.socket, *args)
        assert done.returncode == 0, f"ktlsgatectl {args}: {done.stderr}"
        return done.stdout

    def stats(self):
        return {name: int(value) for name, value in
                (line.split() for line in self.ctl("stats").splitlines())}

    def flows(self):
        return json.loads(self.ctl("flows", "--json"))

    def stat_reaches(self, name, value, timeout=5 * SCALE):
        """Counters of a flow are final when it is closed, a moment after its peers know."""
        return wait_until(lambda: self.stats()[name] >= value, timeout)

    @contextlib.contextmanager
    def carries(self, flows=1):
        """In this block exactly so many flows are handed over, all to the engine under test."""
        before = self.stats()
        yield
        self.stat_reaches("flows_established", before["flows_established"] + flows)
        after = self.stats()
        grown = {e: after[f"engine_{e}_flows"] - before[f"engine_{e}_flows"]
                 for e in ("user", "ktls")}
        other = {"user": "ktls", "ktls": "user"}[self.engine]
        assert grown == {self.engine: flows, other: 0}, self.log()

    @contextlib.contextmanager
    def ends_with(self, reason, flows=1):
        """
        In this block so many flows end for this reason and none for another; one line is logged
        for each, but for those that are done.
        """
        before, logged = self.stats(), self._end_lines()
        yield
        self.stat_reaches("flows_closed", before["flows_closed"] + flows)
        after = self.stats()
        grown = {name: after[name] - before[name] for name in after
                 if name.startswith("reason_") and after[name] != before[name]}
        assert grown == {f"reason_{reason}": flows}, self.log()
        lines = self._end_lines()[len(logged):]
        assert len(lines) == (0 if reason == "done" else flows), lines
        assert all(REASONS[reason] in line and f"({reason})" in line for line in lines), lines

    def _end_lines(self):
        return [x for x in self.log().splitlines() if re.search(r"\((\w+)\)$", x)
                and x.rsplit("(", 1)[1][:-1] in REASONS]


def _tasks(pid):
    """Thread ids; none when it has ended."""
    with contextlib.suppress(OSError):
        return os.listdir(f"/proc/{pid}/task")
    return []


def _role_of(pid):
    """What ktlsgated has executed itself as; None: it is the supervisor, or has ended."""
    with contextlib.suppress(OSError):
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        return words[words.index("--role") + 1] if "--role" in words else None
    return None


def ctl(*args, **options):
    """The finished process of ktlsgatectl."""
    return subprocess.run([program("ktlsgatectl"), *map(str, args)], capture_output=True,
                          text=True, timeout=10 * SCALE, check=False, **options)


def probe():
    """What ktlsgate-probe answers: {feature: ("yes" or "no", the rest of the line)}."""
    done = subprocess.run([program("ktlsgate-probe")], capture_output=True, text=True,
                          timeout=60 * SCALE, check=True)
    lines = [re.fullmatch(r"(\w+)=(yes|no) ?(.*)", line) for line in done.stdout.splitlines()]
    return {line[1]: (line[2], line[3]) for line in lines}


def write_config(path, conf):
    path.write_text("".join(f"{key} = {value}\n" for key, value in conf.items()))


def wait_until(condition, timeout, alive=lambda: True):
    """Polls until condition() is true; its last value."""
    end = time.monotonic() + timeout
    while not (value := condition()) and time.monotonic() < end and alive():
        time.sleep(0.01)
    return value
