# SPDX-License-Identifier: Apache-2.0
"""What is compared: ktlsgate with each engine, nginx, HAProxy, the floor, and no gate at all."""

import contextlib
import pathlib
import re
import resource
import shutil
import signal
import subprocess

from harness.daemon import BUILD, Ktlsgated, settings, wait_until
from harness.peer import SCALE
from harness.pki import BACK_NAME, FRONT_NAME
from harness.ports import free_port, wait_listening

HERE = pathlib.Path(__file__).resolve().parent


def descriptors():
    """As many as 20,000 flows need, or as this machine lets us have."""
    wanted, hard = 60000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError):  # CAP_SYS_RESOURCE is missing
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(wanted, hard)


FILES = descriptors()
FLOWS_MAX = FILES // 2 - 500


class Identities:
    """The certificates of one run, all keys of one kind: "ec" (P-256) or "rsa" (2048)."""

    def __init__(self, pki, kind, directory, clients):
        self.pki, self.kind = pki, kind
        self.web, self.backend = pki.web(kind), pki.backend(kind)
        self.shown = pki.static_client(kind)
        self.clients = directory / f"clients-{kind}"
        self.clients.mkdir()
        for n in range(clients):
            certkey = pki.client(f"Client {n}", kind)
            for path in (certkey.cert_file, certkey.key_file):
                shutil.copy(path, self.clients / f"{n:05d}{path.suffix}")

    def one_client(self, directory):
        """A directory with the first of them alone."""
        one = directory / f"one-{self.kind}"
        one.mkdir(exist_ok=True)
        for suffix in (".pem", ".key"):
            shutil.copy(self.clients / f"00000{suffix}", one)
        return one


class Gate:
    """name; pids: of its first process, once started; port: where clients connect."""

    shows_static = True  # the backend sees the same certificate, whoever the client is
    server_name = FRONT_NAME

    def __init__(self, name, identities, directory, back, **changes):
        self.name, self.ids, self.back, self.changes = name, identities, back, changes
        self.directory = directory / f"{name.partition('@')[0]}-{free_port()}"
        self.process, self.port = None, free_port()

    @property
    def pids(self):
        return [self.process.pid]

    def spawn(self, *command):
        with open(f"{self.directory}.log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        self.wait()

    def wait(self):
        try:
            wait_listening(self.port, self.process)
        except AssertionError as failed:
            log = pathlib.Path(f"{self.directory}.log").read_text()
            raise AssertionError(f"{failed}\n{log}") from None

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)

    @property
    def backend_ca(self):
        return self.ids.pki.forging_root.cert_file

    def fill_in(self, template, **values):
        """The configuration of the tree with its @NAMES@ replaced; the file's path."""
        ids = self.ids
        values = {"DIR": self.directory, "FRONT": self.port, "BACK": self.back, "FILES": FILES,
                  "WEB_CERT": ids.web.cert_file, "WEB_KEY": ids.web.key_file,
                  "SHOWN_CERT": ids.shown.cert_file, "SHOWN_KEY": ids.shown.key_file,
                  "CLIENT_CA": ids.pki.client_root.cert_file,
                  "SERVER_CA": ids.pki.server_ca.cert_file, "BACK_NAME": BACK_NAME,
                  **values, **self.changes}
        self.directory.mkdir()
        path = self.directory / template
        path.write_text(re.sub("@([A-Z_]+)@", lambda m: str(values.get(m[1], m[0])),
                               (HERE / template).read_text()))
        return path


class Direct(Gate):
    """The client connects to the backend: what the generator and one connection cost."""

    server_name = BACK_NAME
    shows_static = False
    pids = []

    def start(self):
        self.port = self.back

    def stop(self):
        pass

    @property
    def backend_ca(self):
        return self.ids.pki.client_root.cert_file


class Nginx(Gate):
    def start(self):
        conf = self.fill_in("nginx.conf", REUSE="off", BUFFER="64k")
        self.spawn("nginx", "-p", self.directory, "-c", conf)


class Haproxy(Gate):
    def start(self):
        conf = self.fill_in("haproxy.cfg", REUSE="no-ssl-reuse", BUFFER=65536,
                            CONNECTIONS=FLOWS_MAX + 300, WEB_PEM=self.directory / "web.pem",
                            SHOWN_PEM=self.directory / "shown.pem")
        for name in ("web", "shown"):
            certkey = getattr(self.ids, name)
            (self.directory / f"{name}.pem").write_bytes(
                certkey.cert_file.read_bytes() + certkey.key_file.read_bytes())
        self.spawn("haproxy", "-db", "-f", conf)


class Ktlsgate(Gate):
    """
    engine: user or ktls. build: where its programs are. Further settings by keyword, "." spelled
    "__".
    """

    shows_static = False

    def __init__(self, name, identities, directory, back, engine, *, build=BUILD, **changes):
        super().__init__(name, identities, directory, back, **changes)
        self.engine, self.build = engine, build

    def configure(self):
        """Its configuration is written, and nothing started."""
        ids, pki = self.ids, self.ids.pki
        forge = pki.forge(ids.kind)
        conf = settings(pki, self.back, port=self.port, **{
            "certkey__web__cert": ids.web.cert_file, "certkey__web__key": ids.web.key_file,
            "certkey__forge__cert": forge.cert_file, "certkey__forge__key": forge.key_file,
            "dataplane__workers": 1, **self.changes})
        self.gate = Ktlsgated(self.directory, pki, self.engine, conf, build=self.build)

    def start(self):
        self.configure()
        self.gate.start()
        self.process = self.gate.process

    def stop(self):
        self.gate.stop()

    def carried(self):
        """Flows so far, by the engine that was asked for."""
        return self.gate.stats()[f"engine_{self.engine}_flows"]


class Floor(Gate):
    """Two kernel AES-GCM passes, receive and send: tools/bench/floor.c."""

    def start(self):
        ids = self.ids
        self.spawn(BUILD / "tools/bench/floor", str(self.port), str(self.back), ids.web.cert_file,
                   ids.web.key_file, ids.pki.client_root.cert_file, ids.shown.cert_file,
                   ids.shown.key_file, ids.pki.server_ca.cert_file)

    def wait(self):
        """It serves one connection after another: one that asks whether it is there would stay."""
        log = pathlib.Path(f"{self.directory}.log")
        assert wait_until(lambda: "ready" in log.read_text(), 20 * SCALE), log.read_text()
