# SPDX-License-Identifier: Apache-2.0
"""The raw bytes of a certificate's fields, never decoded and encoded again."""


def elements(der):
    """(tag, content, whole) of each element of a DER sequence's content."""
    at, out = 0, []
    while at < len(der):
        length, head = der[at + 1], 2
        if length & 0x80:
            head += length & 0x7F
            length = int.from_bytes(der[at + 2:at + head], "big")
        out.append((der[at], der[at + head:at + head + length], der[at:at + head + length]))
        at += head + length
    return out


def fields(der):
    """serial, issuer, subject, spki, extensions ({OID: (critical, value)}) of a certificate."""
    certificate = elements(der)[0][1]
    tbs = elements(elements(certificate)[0][1])
    if tbs[0][0] == 0xA0:  # version
        tbs = tbs[1:]
    serial, _, issuer, _, subject, spki = (e[2] for e in tbs[:6])
    extensions = {}
    for tag, content, _ in tbs[6:]:
        if tag != 0xA3:
            continue
        for _, extension, _ in elements(elements(content)[0][1]):
            parts = elements(extension)
            extensions[parts[0][1]] = (len(parts) == 3, parts[-1][1])
    return {"serial": serial, "issuer": issuer, "subject": subject, "spki": spki,
            "extensions": extensions}


SAN = b"\x55\x1d\x11"
