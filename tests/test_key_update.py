# SPDX-License-Identifier: Apache-2.0
"""
KeyUpdates made by the programs of OpenSSL and GnuTLS at either end, with data in both directions
before and behind them; and tickets of openssl s_server. What those cannot send is in test_control.
"""

import contextlib

import pytest

from harness import backend as backends
from harness import client as clients
from harness.daemon import settings
from harness.dialog import dialog
from harness.ports import free_port

pytestmark = pytest.mark.datapath

# Client, the line it is told, what it then prints; requested: it wants one in return.
BY_CLIENT = {
    "s_client k": ("s_client", b"k", b"KEYUPDATE", False),
    "s_client K": ("s_client", b"K", b"KEYUPDATE", True),
    "gnutls-cli ^rekey1^": ("gnutls-cli", b"^rekey1^", b"Rekey was completed", False),
    "gnutls-cli ^rekey^": ("gnutls-cli", b"^rekey^", b"Rekey was completed", True),
}


class Ends:
    """A client and a backend program that have exchanged a line in each direction."""

    def __init__(self, client, server, echoes):
        self.client, self.server, self.echoes = client, server, echoes

    def exchange(self, n):
        """A line to the backend and one to the client."""
        up, down = b"line %d up" % n, b"line %d down" % n
        self.client.say(up)
        if self.echoes:
            down = up
        else:
            self.server.expect(up)
            self.server.say(down)
        self.client.expect(down)


@pytest.fixture
def ends(gate, pki, tmp_path):
    """ends(client, server): a gate between both programs, and a flow that works."""
    with contextlib.ExitStack() as stack:
        def start(client, server, args=()):
            port, certkey = free_port(), pki.client()
            options = {"certkey": pki.backend(), "client_ca": pki.forging_root}
            if server == "s_server":
                argv = backends.s_server_argv(port, args=("-tls1_3", *args), **options)
            else:
                argv = backends.gnutls_serv_argv(port, **options)
            s = stack.enter_context(dialog(argv, port))
            g = gate(settings(pki, port))
            if client == "s_client":
                argv = clients.s_client_argv(g.port, pki=pki, certkey=certkey, args=("-tls1_3",))
            else:
                argv = clients.gnutls_cli_argv(g.port, pki=pki, certkey=certkey,
                                               args=("--inline-commands",))
            c = stack.enter_context(dialog(argv))
            made = Ends(c, s, server == "gnutls-serv")
            made.gate = g
            made.exchange(0)
            return made

        yield start


def refused(e, update):
    """Without re-keying: both programs are told, at once."""
    before = e.gate.stats()["key_updates"]
    with e.gate.ends_with("rekey_unsupported"):
        update()
        assert b"internal error" in e.client.ends().lower()
        e.server.expect(b"alert")
    assert e.gate.stats()["key_updates"] == before + 1


@pytest.mark.parametrize("server", ["s_server", "gnutls-serv"])
@pytest.mark.parametrize("how", BY_CLIENT)
def test_by_client(ends, can_rekey, how, server):
    client, line, said, requested = BY_CLIENT[how]
    e = ends(client, server)

    def update():
        e.client.say(line)
        e.client.expect(said)

    def update_and_go_on():
        update()
        with contextlib.suppress(BrokenPipeError):  # it may have been told already, and ended
            e.client.say(b"more")

    if not can_rekey:
        refused(e, update_and_go_on)
        return
    for n in (1, 2, 3):
        update()
        e.exchange(2 * n - 1)
        e.exchange(2 * n)
    stats = e.gate.stats()
    assert (stats["key_updates"], stats["key_updates_sent"]) == (3, 3 if requested else 0)
    with e.gate.ends_with("done"):
        e.client.close_stdin()
        e.client.ends()


@pytest.mark.parametrize("client", ["s_client", "gnutls-cli"])
@pytest.mark.parametrize("line", [b"k", b"K"])
def test_by_s_server(ends, can_rekey, line, client):
    e = ends(client, "s_server")
    if not can_rekey:
        refused(e, lambda: e.server.say(line))
        return
    for n in (1, 2, 3):
        e.server.say(line)
        # What it prints may stay in its buffer; and two lines at once would be data.
        assert e.gate.stat_reaches("key_updates", n)
        e.exchange(2 * n - 1)
        e.exchange(2 * n)
    stats = e.gate.stats()
    assert (stats["key_updates"], stats["key_updates_sent"]) == (3, 3 if line == b"K" else 0)


@pytest.mark.parametrize("client", ["s_client", "gnutls-cli"])
def test_by_gnutls_serv(ends, can_rekey, client):
    """Told to by a line of the client's; in TLS 1.3 that is a KeyUpdate that wants one in return."""
    e = ends(client, "gnutls-serv")
    if not can_rekey:
        refused(e, lambda: e.client.say(b"**REHANDSHAKE**"))
        return
    for n in (1, 2, 3):
        e.client.say(b"**REHANDSHAKE**")
        e.client.expect(b"Successfully executed command")
        e.exchange(n)
    stats = e.gate.stats()
    assert (stats["key_updates"], stats["key_updates_sent"]) == (3, 3)


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_tickets_of_s_server(ends, count):
    """None of them reaches the client, and data passes between and behind them."""
    e = ends("s_client", "s_server", args=("-num_tickets", count))
    e.exchange(1)
    assert e.gate.stats()["tickets_dropped"] == count
    assert b"TLSv1.3 ticket" not in e.client.printed
    with e.gate.ends_with("done"):
        e.client.close_stdin()
        e.client.ends()
