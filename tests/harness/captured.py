# SPDX-License-Identifier: Apache-2.0
"""A gate whose data process or resolver turns against the others, from tests/captured."""

import mmap
import os
import struct

from .daemon import wait_until

KINDS = ("memory", "messages", "maps", "calls", "rings")
ALWAYS = ("memory", "messages", "calls", "rings")  # without maps bpf(2) kills, too
ENDS = ("not", "exit", "crash", "forbidden", "spin", "shut", "half")
ORDER = struct.Struct("=IIQII")  # struct order of tests/captured/captured.c
RESULT = struct.Struct("=8III")


class Captured:
    """Pass to the fixture gate; command() after its start."""

    def __init__(self, path):
        path.write_bytes(bytes(mmap.PAGESIZE))
        with open(path, "r+b") as file:
            self._shared = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.env = {"KTLSGATE_CAPTURED": str(path)}

    def command(self, pid, seed, *, steps=2000, kinds=ALWAYS, end="not"):
        """Process pid does all of this, steps of each kind, with no word when it is through."""
        bits = sum(1 << KINDS.index(kind) for kind in kinds)
        self._shared[:] = bytes(mmap.PAGESIZE)
        self._shared[:ORDER.size] = ORDER.pack(0, steps, seed, bits, ENDS.index(end))
        self._shared[:4] = struct.pack("=I", pid)

    def result(self):
        """({kind: steps done}, refusals that were none, whether it came to the end)"""
        *done, opened, finished = RESULT.unpack_from(self._shared, ORDER.size)
        return dict(zip(KINDS, done)), opened, bool(finished)

    def act(self, pid, seed, timeout, **options):
        """command(), and until it is through or dead. The steps done by kind."""
        self.command(pid, seed, **options)
        assert wait_until(lambda: self.result()[2] or not os.path.exists(f"/proc/{pid}/stat"),
                          timeout), self.result()
        done, opened, _ = self.result()
        assert not opened
        return done
