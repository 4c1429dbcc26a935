# SPDX-License-Identifier: Apache-2.0
"""Names and limits that all parts use."""

PROGRAM = "ktlsgate-ns-import"
NS_PKI = "/nsconfig/ssl"
BUNDLES = "ns-import"  # directory below --pki-dir
NAME_MAX = 63  # CFG_NAME_MAX
LINE_MAX = 4096  # CONFIG_LINE_MAX
UNKNOWN_NAME = "unknown.invalid"  # RFC 6761: no certificate has it, so it fails closed
ALL_TRANSLATED, LEFT_OUT, ERROR = 0, 1, 2


class Fault(Exception):
    """Why something is left out."""


def printable(text):
    return "".join(
        c
        if c.isprintable()
        else f"\\x{ord(c) & 255:02x}"
        if c < "\u0100" or "\udc80" <= c <= "\udcff"
        else f"\\u{ord(c):04x}"
        for c in text
    )
