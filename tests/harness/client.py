# SPDX-License-Identifier: Apache-2.0
"""Clients: curl, openssl s_client, gnutls-cli, and Peer connected to a port; raw TCP too."""

import contextlib
import socket
import subprocess
import threading

from . import peer
from .pki import FRONT_NAME
from .ports import HOST

TIMEOUT = peer.TIMEOUT


def run(argv, stdin=b"", timeout=TIMEOUT):
    """The finished process, stdout and stderr captured as bytes."""
    return subprocess.run([str(a) for a in argv], input=stdin, capture_output=True,
                          timeout=timeout, check=False)


def talk(argv, say, expect, timeout=TIMEOUT):
    """Runs argv, writes say to it, closes its stdin once it has printed expect; all it printed."""
    with subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
        giving_up = threading.Timer(timeout, process.kill)
        giving_up.start()
        process.stdin.write(say)
        process.stdin.flush()
        printed = b""
        while expect not in printed and (got := process.stdout.read1(65536)):
            printed += got
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        printed += process.stdout.read()
        giving_up.cancel()
    assert expect in printed, printed.decode(errors="replace")
    return process.returncode, printed


def curl(port, path="/", *, pki, certkey=None, version=None, cipher=None, name=FRONT_NAME, args=()):
    argv = ["curl", "-sS", "--max-time", TIMEOUT, "--resolve", f"{name}:{port}:{HOST}",
            "--cacert", pki.server_ca.cert_file]
    if certkey:
        argv += ["--cert", certkey.cert_file, "--key", certkey.key_file]
    if version:
        argv += [f"--tlsv{version}", "--tls-max", version]
    if cipher:
        argv += ["--tls13-ciphers", peer.TLS13_SUITES[cipher], "--ciphers",
                 peer.tls12_names(cipher)]
    return run([*argv, *args, f"https://{name}:{port}{path}"], timeout=TIMEOUT + 5)


def s_client_argv(port, *, pki, certkey=None, args=(), name=FRONT_NAME):
    """openssl s_client, verifying."""
    argv = ["openssl", "s_client", "-connect", f"{HOST}:{port}", "-servername", name,
            "-verify_hostname", name, "-CAfile", pki.server_ca.cert_file, "-verify_return_error"]
    if certkey:
        argv += ["-cert", certkey.cert_file, "-key", certkey.key_file,
                 "-cert_chain", certkey.cert_file]
    return [*argv, *args]


def tls_option(version):
    """Of openssl s_client and s_server."""
    return "-tls" + version.replace(".", "_")


def s_client(port, say, expect, *, args=(), **options):
    """As talk()."""
    return talk(s_client_argv(port, args=("-nocommands", *args), **options), say, expect)


def gnutls_cli_argv(port, *, pki, certkey=None, priority="NORMAL", args=(), name=FRONT_NAME):
    """gnutls-cli, verifying."""
    argv = ["gnutls-cli", "--port", port, "--sni-hostname", name, "--verify-hostname", name,
            "--x509cafile", pki.server_ca.cert_file, "--priority", priority]
    if certkey:
        argv += ["--x509certfile", certkey.cert_file, "--x509keyfile", certkey.key_file]
    return [*argv, *args, HOST]


def gnutls_cli(port, say, expect, **options):
    """As talk()."""
    return talk(gnutls_cli_argv(port, **options), say, expect)


def tcp(port, timeout=TIMEOUT, source=None):
    """source: an address of ours, any of 127.0.0.0/8."""
    return socket.create_connection((HOST, port), timeout=timeout,
                                    source_address=source and (source, 0))


@contextlib.contextmanager
def connect(port, *, pki, certkey=None, ctx=None, name=FRONT_NAME, timeout=TIMEOUT, source=None,
            **options):
    """A Peer on a new connection, before its handshake. options as for peer.context()."""
    ctx = ctx or peer.context(False, certkey, pki.server_ca, **options)
    with tcp(port, timeout, source) as sock:
        yield peer.Peer(sock, ctx, name=name, timeout=timeout)


@contextlib.contextmanager
def connected(port, **options):
    """As connect(), with the handshake complete on the client's side."""
    with connect(port, **options) as client:
        assert client.handshake(), client.ended
        yield client


def ping(c, text=b"ping"):
    """A word there and back, by a backend that echoes."""
    c.send(text)
    assert c.recv_exactly(len(text)) == text
