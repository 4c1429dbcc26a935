# SPDX-License-Identifier: Apache-2.0
"""Free loopback ports, below the ephemeral range so that no outgoing connection takes one meanwhile."""

import random
import socket
import time

HOST = "127.0.0.1"
_given = set()


def free_port():
    """A port nothing listens on, never given before in this run."""
    while True:
        port = random.randrange(10000, 32000)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as s:
            try:
                s.bind((HOST, port))
            except OSError:
                continue
        return port


def wait_listening(port, process=None, timeout=20):
    """Returns when a connection to port succeeds; fails when process ends before."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if process is not None and process.poll() is not None:
            raise AssertionError(f"{process.args[0]} ended with {process.returncode}")
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise AssertionError(f"nothing listens on {HOST}:{port} after {timeout} s")
