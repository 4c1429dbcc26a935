# SPDX-License-Identifier: Apache-2.0
"""System calls of a gate that fail on demand, through a preloaded library."""

import mmap
import os
import struct

from .daemon import program

CALLS = ("none", "attach", "tx_keys", "rx_keys", "read", "congestion",
         "device")  # enum call of tests/fault/fault.c
CHACHA20 = 54  # TLS_CIPHER_CHACHA20_POLY1305, linux/tls.h
ALWAYS = 1 << 30
LAYOUT = struct.Struct("=5i")


class Fault:
    """Pass to the fixture gate, arm() before or after the start."""

    def __init__(self, path):
        path.write_bytes(bytes(LAYOUT.size))
        with open(path, "r+b") as file:
            self._shared = mmap.mmap(file.fileno(), LAYOUT.size)
        # A sanitizer's runtime wants to be loaded first, else it refuses to start.
        options = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        self.env = {"LD_PRELOAD": str(program("tests/fault.so")), "KTLSGATE_FAULT": str(path),
                    "ASAN_OPTIONS": options}

    def arm(self, call, error=0, *, cipher=0, skip=0, times=1):
        """
        From now on skip such calls pass, then times fail with error; 0: the kernel itself refuses
        what it is given.
        """
        self._shared[:] = LAYOUT.pack(0, cipher, skip, times, error)
        self._shared[:] = LAYOUT.pack(CALLS.index(call), cipher, skip, times, error)

    def left(self):
        """How many are still to fail."""
        return LAYOUT.unpack(self._shared)[3]
