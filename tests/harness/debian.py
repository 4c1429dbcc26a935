# SPDX-License-Identifier: Apache-2.0
"""A program of a Debian package that is nobody's to install for a test: prometheus starts a server."""

import pathlib
import shutil
import sys

from .daemon import ROOT

sys.path.insert(0, str(ROOT / "tests/guest"))

# pylint: disable=wrong-import-position
import debs

SUITES = ("bookworm", "bookworm-updates", "bookworm-security")


def program(package, name):
    """Its path: the one installed, or unpacked into the cache. debs.Unavailable: it cannot be had."""
    installed = shutil.which(name)
    if installed:
        return installed
    with debs.lock(package):
        top = debs.cached(package, r"\d.*") or _fetch(package, name)
    return str(pathlib.Path(top) / "usr/bin" / name)


def _fetch(package, name):
    with debs.fetching(package, SUITES) as (apt, new, publish):
        apt.download([package])
        (deb,) = apt.unpack(new)
        debs.seal(new, [f"usr/bin/{name}"])
        return publish(deb.split("_")[1])
