# SPDX-License-Identifier: Apache-2.0
"""
RFC 5280's demands on an end-entity certificate for client authentication, written out: what zlint
and pkilint check of such certificates, which Debian 12 does not have. On the DER: no library's
leniency, and nothing of ours, is between.
"""

import re

from .der import elements

INTEGER, BITS, OCTETS, OID, UTC, GENERALIZED, SEQUENCE = 0x02, 0x03, 0x04, 0x06, 0x17, 0x18, 0x30

SAN, BC, KU, EKU, SKI, AKI = "2.5.29.17", "2.5.29.19", "2.5.29.15", "2.5.29.37", "2.5.29.14", "2.5.29.35"
POLICIES, CRLDP, AIA = "2.5.29.32", "2.5.29.31", "1.3.6.1.5.5.7.1.1"
CLIENT_AUTH, ANY_EKU = "1.3.6.1.5.5.7.3.2", "2.5.29.37.0"
RSA, EC, P256 = "1.2.840.113549.1.1.1", "1.2.840.10045.2.1", "1.2.840.10045.3.1.7"
# 4.2.1: "Conforming CAs MUST mark this extension as" (non-)critical
NEVER_CRITICAL = {SKI: "4.2.1.2", AKI: "4.2.1.1", AIA: "4.2.2.1", CRLDP: "4.2.1.13 (SHOULD)"}
SIGNATURE_NULL = re.compile(r"1\.2\.840\.113549\.1\.1\.1[1-4]$")  # RFC 4055: parameters NULL
SIGNATURE_NONE = re.compile(r"1\.2\.840\.10045\.4\.3\.|1\.3\.101\.11[23]$")  # RFC 5758, 8410: absent


def oid(content):
    arcs, value = [], 0
    for byte in content:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, [first, arcs[0] - 40 * first, *arcs[1:]]))


class Lint:
    """findings: what is wrong, each with its section. issuer: the issuing CA's DER."""

    def __init__(self, der, issuer):
        self.findings = []
        (tag, content, whole), = elements(der)
        self.expect(tag == SEQUENCE and whole == der, "4.1 trailing bytes")
        self.minimal(der)
        tbs, algorithm, signature = elements(content)
        self.tbs = elements(tbs[1])
        self.expect(self.tbs[0][2] == b"\xa0\x03\x02\x01\x02", "4.1.2.1 version is not v3")
        serial, inner, name, validity, subject, spki, *rest = self.tbs[1:]
        self.expect([t[0] for t in rest] == [0xA3], "4.1.2.8 unique identifiers, or no extensions")
        self.serial(serial[1])
        self.algorithm(inner, algorithm)
        self.expect(signature[0] == BITS and signature[1][0] == 0, "4.1.1.3 signature has unused bits")
        self.expect(name[1] != b"", "4.1.2.4 empty issuer")
        self.validity(elements(validity[1]))
        self.key(spki)
        self.extensions = self.read_extensions(elements(rest[0][1])[0])
        self.empty_subject = subject[1] == b""
        self.issuer_matches(name[2], issuer)
        for number, (critical, value) in self.extensions.items():
            self.expect(not critical or number not in NEVER_CRITICAL,
                        f"{NEVER_CRITICAL.get(number)} {number} is critical")
            check = self.CHECKS.get(number)
            if check:
                check(self, critical, value)
        for number, section in ((BC, "4.2.1.9"), (KU, "4.2.1.3"), (SKI, "4.2.1.2"), (AKI, "4.2.1.1"),
                                (EKU, "4.2.1.12")):
            self.expect(number in self.extensions, f"{section} {number} is missing")
        self.expect(not self.empty_subject or SAN in self.extensions, "4.1.2.6 no name at all")

    def expect(self, good, what):
        if not good:
            self.findings.append(what)

    def minimal(self, der):
        """DER: lengths and integers in as few bytes as can be, no indefinite lengths."""
        at = 0
        while at < len(der):
            tag, length, head = der[at], der[at + 1], 2
            self.expect(tag & 0x1F != 0x1F, "X.690 long tag")
            self.expect(length != 0x80, "X.690 8.1.3.6 indefinite length")
            if length & 0x80:
                n = length & 0x7F
                length = int.from_bytes(der[at + 2:at + 2 + n], "big")
                self.expect(length > 0x7F and der[at + 2], "X.690 10.1 length is not minimal")
                head += n
            content = der[at + head:at + head + length]
            if tag == INTEGER:
                self.expect(content and not (len(content) > 1 and (
                    (content[0] == 0 and content[1] < 0x80) or
                    (content[0] == 0xFF and content[1] >= 0x80))), "X.690 8.3.2 integer is not minimal")
            if tag == 0x01:
                self.expect(content == b"\xff", "X.690 11.1, 11.5 a BOOLEAN that is FALSE, or not FF")
            if tag & 0x20:
                self.minimal(content)
            at += head + length
        self.expect(at == len(der), "X.690 element is cut short")

    def serial(self, content):
        self.expect(len(content) <= 20, "4.1.2.2 serial number longer than 20 octets")
        self.expect(content[0] < 0x80 and any(content), "4.1.2.2 serial number is not positive")
        self.expect(len(content) >= 8, "CA/B BR 7.1 serial number of less than 64 bits")

    def algorithm(self, inner, outer):
        self.expect(inner[2] == outer[2], "4.1.1.2 signature algorithms differ")
        number, *parameters = elements(inner[1])
        name = oid(number[1])
        if SIGNATURE_NULL.match(name):
            self.expect([p[2] for p in parameters] == [b"\x05\x00"], "RFC 4055 5 parameters not NULL")
        elif SIGNATURE_NONE.match(name):
            self.expect(not parameters, "RFC 5758 3.2 parameters are not absent")
        else:
            self.findings.append(f"signature algorithm {name} is not modern")

    def validity(self, times):
        values = []
        for tag, content, _ in times:
            text = content.decode("ascii")
            if tag == UTC:
                self.expect(re.fullmatch(r"\d{12}Z", text), "4.1.2.5.1 UTCTime without seconds or Z")
                values.append(("20" if text[0] < "5" else "19") + text)
            else:
                self.expect(tag == GENERALIZED and re.fullmatch(r"\d{14}Z", text),
                            "4.1.2.5.2 GeneralizedTime with fractions or without Z")
                self.expect(text >= "2050", "4.1.2.5 GeneralizedTime before 2050")
                values.append(text)
        self.expect(values[0] <= values[1], "4.1.2.5 ends before it begins")

    def key(self, spki):
        algorithm, bits = elements(spki[1])
        number, *parameters = elements(algorithm[1])
        self.key_type = oid(number[1])
        if self.key_type == RSA:
            self.expect([p[2] for p in parameters] == [b"\x05\x00"], "RFC 3279 2.3.1 not NULL")
            modulus, exponent = elements(elements(bits[1][1:])[0][1])
            e = int.from_bytes(exponent[1], "big")
            self.expect(int.from_bytes(modulus[1], "big").bit_length() >= 2048, "RSA key too short")
            self.expect(e >= 3 and e % 2, "RFC 8017 3.1 exponent")
        else:
            self.expect(self.key_type == EC and oid(parameters[0][1]) == P256 and
                        parameters[0][0] == OID, "RFC 5480 2.1.1 no named curve")
            self.expect(bits[1][:2] == b"\0\x04" and len(bits[1]) == 66, "RFC 5480 2.2 point")

    def read_extensions(self, sequence):
        found = {}
        for _, content, _ in elements(sequence[1]):
            number, *more = elements(content)
            name = oid(number[1])
            self.expect(name not in found, f"4.2 {name} twice")
            self.expect(more[-1][0] == OCTETS and len(more) <= 2, f"4.1 {name} is no Extension")
            found[name] = (len(more) == 2, more[-1][1])
        return found

    def issuer_matches(self, name, issuer):
        tbs = elements(elements(elements(issuer)[0][1])[0][1])
        self.expect(tbs[5][2] == name, "4.1.2.4 issuer is not the CA's subject")
        theirs = self.read_extensions(elements(tbs[-1][1])[0])
        keyid = self.extensions.get(AKI, (0, b""))[1]
        self.expect(SKI in theirs and elements(theirs[SKI][1])[0][1] in keyid,
                    "4.2.1.1 authority key identifier is not the CA's subject key identifier")

    def basic_constraints(self, _critical, value):
        self.expect(value == b"\x30\x00", "4.2.1.9 not CA:FALSE as DER has it, or a path length")

    def key_usage(self, critical, value):
        self.expect(critical, "4.2.1.3 (SHOULD) not critical")
        _, bits, _ = elements(value)[0]
        unused, byte = bits[0], bits[1] if len(bits) > 1 else 0
        self.expect(byte, "4.2.1.3 no bit is set")
        self.expect(len(bits) == 2 and not byte & ((1 << unused) - 1) and byte & 1 << unused,
                    "X.690 11.2.2 trailing zero bits")
        self.expect(byte & 0x80, "no digitalSignature: no use in TLS")
        self.expect(not byte & 0x06, "4.2.1.9 keyCertSign or cRLSign without CA")
        self.expect(self.key_type == RSA or not byte & 0x30, "RFC 5480 3 encipherment by an EC key")

    def extended_key_usage(self, critical, value):
        purposes = [oid(p[1]) for p in elements(elements(value)[0][1])]
        self.expect(purposes and len(set(purposes)) == len(purposes), "4.2.1.12 empty, or one twice")
        self.expect(not critical or ANY_EKU not in purposes, "4.2.1.12 any purpose, and critical")
        self.expect(CLIENT_AUTH in purposes, "no clientAuth")

    def subject_alt_name(self, critical, value):
        names = elements(elements(value)[0][1])
        self.expect(names, "4.2.1.6 empty")
        self.expect(critical or not self.empty_subject, "4.1.2.6 not critical beside an empty subject")
        self.expect(not critical or not self.empty_subject or names, "4.2.1.6")
        for tag, content, _ in names:
            self.expect(content, "4.2.1.6 an empty name")
            if tag in (0x81, 0x82, 0x86):
                self.expect(all(0x20 < b < 0x7F for b in content), "4.2.1.6 not IA5, or a blank")
            if tag == 0x81:
                self.expect(re.fullmatch(rb"[^@<>]+@[^@<>]+", content), "4.2.1.6 no Mailbox")
            if tag == 0x86:
                self.expect(re.match(rb"[A-Za-z][A-Za-z0-9+.-]*:.", content), "4.2.1.6 relative URI")
            if tag == 0x87:
                self.expect(len(content) in (4, 16), "4.2.1.6 address length")

    def policies(self, _critical, value):
        found = [elements(p[1])[0][1] for p in elements(elements(value)[0][1])]
        self.expect(found and len(set(found)) == len(found), "4.2.1.4 empty, or one twice")

    def crl_points(self, _critical, value):
        points = elements(elements(value)[0][1])
        self.expect(points, "4.2.1.13 empty")
        for _, content, _ in points:
            fields = {tag: body for tag, body, _ in elements(content)}
            self.expect(0xA0 in fields, "4.2.1.13 neither distributionPoint nor cRLIssuer")
            full = elements(fields[0xA0])[0]
            uris = [c for tag, c, _ in elements(full[1]) if tag == 0x86]
            self.expect(full[0] == 0xA0 and uris and
                        all(re.match(rb"(http|ldap)s?://", u) for u in uris), "4.2.1.13 no URI")

    def authority_info(self, _critical, value):
        descriptions = elements(elements(value)[0][1])
        self.expect(descriptions, "4.2.2.1 empty")
        for _, content, _ in descriptions:
            method, location = elements(content)
            self.expect(oid(method[1]) in ("1.3.6.1.5.5.7.48.1", "1.3.6.1.5.5.7.48.2"),
                        "4.2.2.1 method")
            self.expect(location[0] == 0x86, "4.2.2.1 location is no URI")

    CHECKS = {BC: basic_constraints, KU: key_usage, EKU: extended_key_usage, SAN: subject_alt_name,
              POLICIES: policies, CRLDP: crl_points, AIA: authority_info}


def lint(der, issuer):
    return Lint(der, issuer).findings
