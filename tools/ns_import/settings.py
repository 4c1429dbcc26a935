# SPDX-License-Identifier: Apache-2.0
"""What the Makefile knows and writes here: the version, and the keys that this ktlsgated has."""

VERSION = "(not installed)"  # the Makefile's, in what is installed
KNOWN = None  # the keys that ktlsgated has, in what is installed; None: all that are written here


def has(key):
    """Whether ktlsgated has it; what needs one that it lacks is left out, with the reason."""
    return KNOWN is None or key in KNOWN
