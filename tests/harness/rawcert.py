# SPDX-License-Identifier: Apache-2.0
"""Certificates and CRLs written byte by byte, so that any field can be wrong. Only the signature is
made by a library."""

import base64
import datetime
import functools

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa

NOW = 1800000000  # 2027-01-15
DAY = 86400


# ---- DER ----


def tlv(tag, *content):
    body = b"".join(content)
    n = len(body)
    if n < 0x80:
        return bytes([tag, n]) + body
    size = n.to_bytes((n.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + body


def seq(*content):
    return tlv(0x30, *content)


def set_of(*content):
    return tlv(0x31, *content)


def integer(n):
    return tlv(2, n.to_bytes(n.bit_length() // 8 + 1, "big", signed=True))


def boolean(value):
    return tlv(1, b"\xff" if value else b"\0")


def octets(content):
    return tlv(4, content)


def bits(content, unused=0):
    return tlv(3, bytes([unused]) + content)


@functools.lru_cache(maxsize=None)
def oid(text):
    first, second, *rest = (int(n) for n in text.split("."))
    body = b""
    for n in (40 * first + second, *rest):
        part = bytes([n & 0x7F])
        while n > 0x7F:
            n >>= 7
            part = bytes([0x80 | n & 0x7F]) + part
        body += part
    return tlv(6, body)


def when(t):
    """seconds since the epoch as RFC 5280 wants it; bytes are taken as they are."""
    if isinstance(t, bytes):
        return t
    d = datetime.datetime.utcfromtimestamp(t)
    if 1950 <= d.year < 2050:
        return tlv(0x17, d.strftime("%y%m%d%H%M%SZ").encode())
    return general(t)


def general(t):
    d = datetime.datetime.utcfromtimestamp(t)
    return tlv(0x18, f"{d.year:04d}{d:%m%d%H%M%S}Z".encode())


# ---- names ----

CN, O, OU, C, EMAIL = "2.5.4.3", "2.5.4.10", "2.5.4.11", "2.5.4.6", "1.2.840.113549.1.9.1"


def rdn(kind, text, tag=0x0C):
    return set_of(seq(oid(kind), tlv(tag, text.encode())))


def dn(*parts, tag=0x0C):
    """Each part is a common name or a (kind, text[, tag])."""
    return seq(*(rdn(*p) if isinstance(p, tuple) else rdn(CN, p, tag) for p in parts))


def general_names(*names):
    return seq(*names)


def email(text):
    return tlv(0x81, text.encode())


def dns(text):
    return tlv(0x82, text.encode())


def directory(name):
    return tlv(0xA4, name)


def uri(text):
    return tlv(0x86, text.encode())


def ip(*octet):
    return tlv(0x87, bytes(octet))


def registered_id(text):
    return tlv(0x88, oid(text)[2:])


def other_name(kind, value):
    return tlv(0xA0, oid(kind), tlv(0xA0, value))


UPN = "1.3.6.1.4.1.311.20.2.3"


# ---- keys ----


@functools.lru_cache(maxsize=None)
def key(name, kind="P-256"):
    """The same name always has the same key."""
    del name
    if kind.startswith("RSA-"):
        size, _, exponent = kind[4:].partition("/")
        return rsa.generate_private_key(int(exponent or 65537), int(size))
    if kind == "DSA":
        return dsa.generate_private_key(2048)
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    curves = {"P-192": ec.SECP192R1, "P-224": ec.SECP224R1, "P-256": ec.SECP256R1,
              "P-384": ec.SECP384R1, "P-521": ec.SECP521R1, "brainpool": ec.BrainpoolP256R1}
    return ec.generate_private_key(curves[kind]())


def spki(private):
    return private.public_key().public_bytes(serialization.Encoding.DER,
                                             serialization.PublicFormat.SubjectPublicKeyInfo)


def key_id(private):
    digest = hashes.Hash(hashes.SHA1())
    digest.update(spki(private))
    return digest.finalize()


NULL = b"\x05\x00"
RSA_OIDS = {"md5": "1.2.840.113549.1.1.4", "sha1": "1.2.840.113549.1.1.5",
            "sha224": "1.2.840.113549.1.1.14", "sha256": "1.2.840.113549.1.1.11",
            "sha384": "1.2.840.113549.1.1.12", "sha512": "1.2.840.113549.1.1.13"}
EC_OIDS = {"sha1": "1.2.840.10045.4.1", "sha224": "1.2.840.10045.4.3.1",
           "sha256": "1.2.840.10045.4.3.2", "sha384": "1.2.840.10045.4.3.3",
           "sha512": "1.2.840.10045.4.3.4"}


def digest_of(name):
    return getattr(hashes, name.upper())()


def algorithm(private, digest):
    if isinstance(private, rsa.RSAPrivateKey):
        return seq(oid(RSA_OIDS[digest]), NULL)
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return seq(oid(EC_OIDS[digest]))
    if isinstance(private, dsa.DSAPrivateKey):
        return seq(oid("2.16.840.1.101.3.4.3.2"))
    return seq(oid("1.3.101.112"))


def sign(private, digest, data):
    if isinstance(private, rsa.RSAPrivateKey):
        return private.sign(data, padding.PKCS1v15(), digest_of(digest))
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return private.sign(data, ec.ECDSA(digest_of(digest)))
    if isinstance(private, dsa.DSAPrivateKey):
        return private.sign(data, digest_of(digest))
    return private.sign(data)


def signed(private, digest, tbs, outer=None, damage=False):
    signature = bytearray(sign(private, digest, tbs))
    if damage:
        tbs = tbs[:-1] + bytes([tbs[-1] ^ 1])
    return seq(tbs, outer or algorithm(private, digest), bits(bytes(signature)))


# ---- extensions ----


def ext(kind, value, critical=False):
    return seq(oid(kind), *([boolean(True)] if critical else []), octets(value))


BC, KU, EKU, SAN, NC = "2.5.29.19", "2.5.29.15", "2.5.29.37", "2.5.29.17", "2.5.29.30"
SKI, AKI = "2.5.29.14", "2.5.29.35"
CP, PM, PC, IAP = "2.5.29.32", "2.5.29.33", "2.5.29.36", "2.5.29.54"
CDP, IDP, DELTA, CRL_NUMBER, REASON = "2.5.29.31", "2.5.29.28", "2.5.29.27", "2.5.29.20", "2.5.29.21"
CLIENT_AUTH, SERVER_AUTH = "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"
ANY_EKU, OCSP_SIGNING, ANY_POLICY = "2.5.29.37.0", "1.3.6.1.5.5.7.3.9", "2.5.29.32.0"
USAGES = ("digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment",
          "keyAgreement", "keyCertSign", "cRLSign", "encipherOnly", "decipherOnly")


def basic_constraints(ca=True, pathlen=None, critical=True):
    return ext(BC, seq(*([boolean(True)] if ca else []),
                       *([integer(pathlen)] if pathlen is not None else [])), critical)


def key_usage(*names, critical=True):
    value = sum(1 << 15 - USAGES.index(n) for n in names).to_bytes(2, "big").rstrip(b"\0")
    unused = (value[-1] & -value[-1]).bit_length() - 1 if value else 0
    return ext(KU, bits(value, unused), critical)


def eku(*kinds, critical=False):
    return ext(EKU, seq(*(oid(k) for k in kinds)), critical)


def san(*names, critical=False):
    return ext(SAN, seq(*names), critical)


def constraints(permitted=(), excluded=(), critical=True):
    def trees(tag, names):
        return tlv(tag, *(seq(n) for n in names)) if names else b""
    return ext(NC, seq(trees(0xA0, permitted), trees(0xA1, excluded)), critical)


def policies(*kinds, critical=False):
    return ext(CP, seq(*(seq(oid(k)) for k in kinds)), critical)


def mappings(*pairs, critical=True):
    return ext(PM, seq(*(seq(oid(a), oid(b)) for a, b in pairs)), critical)


def policy_constraints(explicit=None, inhibit=None, critical=True):
    def skip(tag, n):
        return b"" if n is None else tlv(tag, bytes([n]))
    return ext(PC, seq(skip(0x80, explicit), skip(0x81, inhibit)), critical)


def inhibit_any(n, critical=True):
    return ext(IAP, integer(n), critical)


# ---- certificates ----


class Cert:
    """
    A certificate and its private key. exts: all extensions but the key identifiers; None: those of
    a CA or, with ca False, of a client. Any other field can be given as raw DER.
    """

    serials = 100

    def __init__(self, subject, issuer=None, *, ca=True, exts=None, more=(), private=None,
                 signer=None, kind="P-256", digest="sha256", serial=None, version=2,
                 not_before=NOW - 30 * DAY, not_after=NOW + 30 * DAY, ski=True, aki=True,
                 issuer_name=None, uids=b"", outer=None, inner=None, damage=False, public=None,
                 pathlen=None, key_name=None):
        Cert.serials += 1
        self.name = subject if isinstance(subject, bytes) else dn(subject)
        self.key = private or key(key_name or self.name, kind)
        signer = signer or (issuer.key if issuer else self.key)
        self.issuer_name = issuer_name or (issuer.name if issuer else self.name)
        self.serial = Cert.serials if serial is None else serial
        if exts is None:
            exts = ([basic_constraints(True, pathlen), key_usage("keyCertSign", "cRLSign")] if ca
                    else [basic_constraints(False), key_usage("digitalSignature"),
                          eku(CLIENT_AUTH)])
        exts = [*exts, *more]
        if ski:
            exts.append(ext(SKI, octets(key_id(self.key))) if ski is True else ski)
        if aki and (issuer or aki is not True):
            exts.append(ext(AKI, seq(tlv(0x80, key_id(signer)))) if aki is True else aki)
        self.tbs = seq(
            tlv(0xA0, integer(version)) if version else b"",
            integer(self.serial) if isinstance(self.serial, int) else self.serial,
            inner or algorithm(signer, digest), self.issuer_name,
            seq(when(not_before), when(not_after)), self.name, public or spki(self.key), uids,
            tlv(0xA3, seq(*exts)) if exts else b"")
        self.der = signed(signer, digest, self.tbs, outer, damage)

    @property
    def pem(self):
        return pem("CERTIFICATE", self.der)


def pem(label, der):
    return (f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}"
            f"-----END {label}-----\n")


def crl(issuer, revoked=(), *, this=NOW - DAY, until=NOW + DAY, exts=(), signer=None,
        digest="sha256", version=1, name=None, damage=False, number=True):
    """
    A CRL's DER. revoked: Certs, serial numbers, or (serial number, extensions).
    until None: no nextUpdate.
    """
    def entry(r):
        serial, more = r if isinstance(r, tuple) else (r, ())
        serial = serial.serial if isinstance(serial, Cert) else serial
        return seq(integer(serial), when(NOW - 2 * DAY), seq(*more) if more else b"")

    private = signer or issuer.key
    listed = [entry(r) for r in revoked]
    exts = [*exts, ext(AKI, seq(tlv(0x80, key_id(private))))]
    if number:
        exts.append(ext(CRL_NUMBER, integer(7)))
    tbs = seq(integer(version) if version else b"", algorithm(private, digest),
              name or issuer.name, when(this), b"" if until is None else when(until),
              seq(*listed) if listed else b"", tlv(0xA0, seq(*exts)) if version else b"")
    return signed(private, digest, tbs, damage=damage)
