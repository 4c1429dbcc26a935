# SPDX-License-Identifier: Apache-2.0
"""A program that is talked to line by line: openssl s_client and s_server, gnutls-cli and -serv."""

import contextlib
import os
import selectors
import subprocess
import time

from .peer import TIMEOUT
from .ports import wait_listening


class Dialog:
    """Runs argv; what it prints, standard error too, is in .printed."""

    def __init__(self, argv):
        self.printed, self._read = b"", 0
        self.process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def say(self, line):
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def expect(self, text, timeout=TIMEOUT):
        """Waits for text behind what was last expected."""
        end = time.monotonic() + timeout
        while (at := self.printed.find(text, self._read)) < 0:
            if not self._more(end - time.monotonic()):
                raise AssertionError(f"{text!r} was not printed, but:\n"
                                     f"{self.printed[self._read:].decode(errors='replace')}")
        self._read = at + len(text)

    def ends(self, timeout=TIMEOUT):
        """All it printed until it ended by itself."""
        end = time.monotonic() + timeout
        while self._more(end - time.monotonic()):
            pass
        assert self.process.wait(max(end - time.monotonic(), 1)) is not None
        return self.printed

    def _more(self, seconds):
        with selectors.DefaultSelector() as sel:
            sel.register(self.process.stdout, selectors.EVENT_READ)
            if seconds <= 0 or not sel.select(seconds):
                return False
        got = os.read(self.process.stdout.fileno(), 65536)
        self.printed += got
        return bool(got)

    def close_stdin(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.close_stdin()
        self.process.stdout.close()


@contextlib.contextmanager
def dialog(argv, port=None):
    """A Dialog; of a server with its port, once it listens there."""
    d = Dialog(argv)
    try:
        if port:
            wait_listening(port, d.process)
        yield d
    finally:
        d.stop()
        print(f"---- {argv[0]}:", d.printed[-4000:].decode(errors="replace"), sep="\n")
