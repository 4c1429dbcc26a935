# SPDX-License-Identifier: Apache-2.0
"""The objects of the result, and their names."""

import dataclasses
import hashlib
import re

from .common import NAME_MAX


@dataclasses.dataclass
class Block:
    """One object of ours."""

    scope: str
    name: str
    original: str
    keys: list = dataclasses.field(default_factory=list)  # (key, value)
    commands: list = dataclasses.field(default_factory=list)
    remarks: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A PEM file that holds the certificates of others."""

    path: str
    parts: tuple


class Names:
    """NetScaler's names as ours: letters, digits, _ and -; those that fit keep theirs."""

    def __init__(self, originals):
        self.ours = {}
        taken = {n for n in originals if self.fits(n)}
        for name in sorted(set(originals)):
            ours = name if self.fits(name) else self._other(name, taken)
            taken.add(ours)
            self.ours[name] = ours

    @staticmethod
    def fits(name):
        return re.fullmatch(rf"[A-Za-z0-9_-]{{1,{NAME_MAX}}}", name) is not None

    @staticmethod
    def _other(name, taken):
        plain = re.sub("[^A-Za-z0-9_-]", "_", name) or "_"
        ours, digest = plain[:NAME_MAX], hashlib.sha256(name.encode(errors="surrogateescape"))
        if ours in taken or ours != plain:
            ours = f"{plain[:NAME_MAX - 9]}-{digest.hexdigest()[:8]}"
        while ours in taken:  # somebody made it on purpose
            digest.update(b"again")
            ours = f"{plain[:NAME_MAX - 9]}-{digest.hexdigest()[:8]}"
        return ours
