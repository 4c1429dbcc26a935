# SPDX-License-Identifier: Apache-2.0
"""One gate between scripted backends of either TLS version: what tests of the relay stand on."""

import contextlib

from . import client as clients
from . import peer
from .backend import Backend
from .daemon import settings
from .pki import BACK_NAME
from .ports import HOST, free_port


class Rig:
    """A vserver and a service for each TLS version a backend may speak; start as in fixture gate."""

    def __init__(self, start, pki, directory):
        self.pki, self.directory = pki, directory
        self.certkey = pki.client()
        self.backends = {
            v: Backend(certkey=pki.backend(), client_ca=pki.forging_root, version=v,
                       key_log=directory) for v in peer.VERSIONS}
        conf = settings(pki, self.backends["1.3"].port)
        conf.update(second_vserver("back12", self.backends["1.2"].port))
        self.gate = start(conf)

    def port(self, back):
        return self.gate.port_of({"1.3": "app", "1.2": "back12"}[back])

    @contextlib.contextmanager
    def flow(self, script, *, front="1.3", back="1.3", certkey=None, reason="done", **options):
        """
        A connected client whose backend runs script(seen, peer). Yields (client, seen): seen() is
        what the backend saw. Afterwards the flow must have ended with reason, in this engine.
        """
        b = self.backends[back]
        b.script, n = script, len(b.seen)
        ctx = peer.log_keys(peer.context(False, certkey or self.certkey, self.pki.server_ca,
                                         version=front, **options), self.directory)
        with self.gate.ends_with(reason), self.gate.carries(1):
            with clients.connected(self.port(back), pki=self.pki, ctx=ctx) as c:
                yield c, lambda: b.connection(n)
                seen = b.connection(n)
            assert seen.done.wait(peer.TIMEOUT), "the backend's connection was not closed"

    def stop(self):
        for b in self.backends.values():
            b.stop()


def second_vserver(name, backend_port, *, certkey="web", front="front", back="back"):
    """Settings of one more vserver and its service, both called name."""
    return {
        f"vserver.{name}.listen": f"{HOST}:{free_port()}",
        f"vserver.{name}.certkey": certkey,
        f"vserver.{name}.profile": front,
        f"vserver.{name}.service": name,
        f"service.{name}.address": f"{HOST}:{backend_port}",
        f"service.{name}.server_name": BACK_NAME,
        f"service.{name}.profile": back,
    }
