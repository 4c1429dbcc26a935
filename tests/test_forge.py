# SPDX-License-Identifier: Apache-2.0
"""The rules for a forged certificate (docs/forging.md), seen from outside: ktlsgate-forge is given
chains, and what it prints is read by other parsers and verified by OpenSSL's and GnuTLS's tools."""

import datetime
import os
import re
import stat
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID as EKU
from cryptography.x509.oid import NameOID, ObjectIdentifier

from harness.daemon import BUILD, ROOT
from harness.der import fields

FORGE = BUILD / "ktlsgate-forge"
NOW = int(time.time())  # the present, for certtool's sake, but one for all: given with --time
HOUR, DAY = 3600, 86400
SKEW = 300

UPN = ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
FASC_N = ObjectIdentifier("2.16.840.1.101.3.6.6")
SMARTCARD_LOGON = ObjectIdentifier("1.3.6.1.4.1.311.20.2.2")
PKINIT = ObjectIdentifier("1.3.6.1.5.2.3.4")
SID = ObjectIdentifier("1.3.6.1.4.1.311.25.2")
NTDS_OBJECT_SID = ObjectIdentifier("1.3.6.1.4.1.311.25.2.1")
UNKNOWN = ObjectIdentifier("1.3.6.1.4.1.99999.1")
SAN_OID = bytes.fromhex("551d11")

KEYS = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


# ---- certificates to forge from ----


def at(seconds):
    return datetime.datetime.utcfromtimestamp(seconds)


def seconds(naive):
    return int(naive.replace(tzinfo=datetime.timezone.utc).timestamp())


def name(cn):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])


def key_usage(*names):
    every = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{n: n in names for n in every})


def der_utf8(text):
    return bytes([0x0C, len(text.encode())]) + text.encode()


class Party:
    """A certificate and its key."""

    def __init__(self, cert, key):
        self.cert, self.key = cert, key


def issue(subject, extensions, issuer=None, key=None, kind="P-256", validity=None, digest=None):
    """extensions: (extension, critical) pairs, complete but for the key identifiers."""
    key = key or KEYS[kind]()
    signer = issuer.key if issuer else key
    not_before, not_after = validity or (NOW - 100 * DAY, NOW + 100 * DAY)
    builder = (x509.CertificateBuilder().subject_name(subject)
               .issuer_name(issuer.cert.subject if issuer else subject)
               .public_key(key.public_key()).serial_number(x509.random_serial_number())
               .not_valid_before(at(not_before)).not_valid_after(at(not_after))
               .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False))
    if issuer:
        skid = issuer.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(skid), False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    if not isinstance(signer, ed25519.Ed25519PrivateKey):
        digest = digest or hashes.SHA256()
    return Party(builder.sign(signer, digest), key)


def ca(cn, issuer=None, pathlen=None, extra=(), **options):
    subject = cn if isinstance(cn, x509.Name) else name(cn)
    return issue(subject, [(x509.BasicConstraints(True, pathlen), True),
                           (key_usage("key_cert_sign", "crl_sign"), True), *extra], issuer,
                 **options)


@pytest.fixture(scope="session")
def client_root():
    return ca("Client Root")


@pytest.fixture(scope="session")
def client_ca(client_root):
    return ca("Client CA", client_root, pathlen=0)


@pytest.fixture(scope="session")
def forge_ca():
    return ca("Forging CA")


CLIENT_AUTH = (x509.ExtendedKeyUsage([EKU.CLIENT_AUTH]), False)
END_ENTITY = (x509.BasicConstraints(False, None), True)
SIGNS = (key_usage("digital_signature"), True)


def certtool_verify(root, chain, *options):
    """GnuTLS's opinion; its certtool knows no time but the present."""
    run = subprocess.run(["certtool", "--verify", "--load-ca-certificate", root, "--infile", chain,
                          *options], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


class Forge:
    """ktlsgate-forge with files of its own; what it printed, taken apart."""

    def __init__(self, path, client_root, client_ca, forge_ca):
        self.path = path
        self.client_root, self.client_ca, self.forge_ca = client_root, client_ca, forge_ca
        self.run = None

    def client(self, *extensions, subject=None, issuer=None, **options):
        """A client's certificate: extensions instead of the usual three, if any are given."""
        return issue(name("Alice Example") if subject is None else subject,
                     extensions or (END_ENTITY, SIGNS, CLIENT_AUTH), issuer or self.client_ca,
                     **options)

    def write(self, filename, *certs):
        file = self.path / filename
        file.write_bytes(b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certs))
        return file

    def __call__(self, client, *options, under=None, above=(), now=NOW, untrusted=None):
        under = under or self.forge_ca
        key_file = self.path / "forge.key"
        key_file.touch(mode=0o600)
        key_file.write_bytes(under.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption()))
        untrusted = [self.client_ca] if untrusted is None else untrusted
        self.run = subprocess.run(
            [FORGE, "--client-ca", self.write("client-ca.pem", self.client_root.cert),
             "--ca", self.write("forge.pem", under.cert, *(p.cert for p in above)),
             "--key", key_file, "--time", str(now), *map(str, options),
             self.write("chain.pem", client.cert, *(p.cert for p in untrusted))],
            capture_output=True, text=True, timeout=30, check=False)
        return self.run

    def forged(self, client, *options, **more):
        """The forged certificate, which must satisfy foreign verifiers."""
        run = self(client, *options, **more)
        assert run.returncode == 0, run.stderr
        assert run.stderr == ""
        cert = x509.load_pem_x509_certificate(run.stdout.encode())
        self.verify(cert, more.get("under") or self.forge_ca, more.get("now", NOW),
                    more.get("above", ()))
        return cert

    def openssl_verify(self, *args, now=NOW):
        return subprocess.run(
            ["openssl", "verify", "-purpose", "sslclient", "-attime", str(now), *args],
            capture_output=True, text=True, check=False)

    def verify(self, cert, under, now, above=()):
        leaf, root = self.write("forged.pem", cert), self.write("root.pem", under.cert)
        run = self.openssl_verify("-x509_strict", "-partial_chain", "-CAfile", root, leaf, now=now)
        assert run.returncode == 0, run.stderr
        if above:
            between = self.write("between.pem", under.cert, *(p.cert for p in above))
            run = self.openssl_verify("-partial_chain", "-untrusted", between, "-CAfile",
                                      self.write("top.pem", above[-1].cert), leaf, now=now)
            assert run.returncode == 0, run.stderr
        if now == NOW:
            certtool_verify(root, leaf, "--verify-purpose", EKU.CLIENT_AUTH.dotted_string)

    def refused(self, client, reason, **more):
        run = self(client, **more)
        assert (run.returncode, run.stdout) == (1, "")
        assert re.fullmatch(rf"refused: .*(?:{reason}).*\n", run.stderr), run.stderr


@pytest.fixture
def forge(tmp_path, client_root, client_ca, forge_ca):
    return Forge(tmp_path, client_root, client_ca, forge_ca)


def extension(cert, cls):
    return cert.extensions.get_extension_for_class(cls)


def oids(cert):
    return {e.oid.dotted_string for e in cert.extensions}


def raw(cert):
    return fields(cert.public_bytes(serialization.Encoding.DER))


# ---- rule 1: what is not forged ----

PURPOSE = "unsuitable certificate purpose"


def test_rule_1_expired(forge):
    client = forge.client(validity=(NOW - 10 * DAY, NOW - 1))
    forge.refused(client, r"certificate has expired \(depth 0, subject CN=Alice Example\)")
    forge.forged(client, now=NOW - 2)


def test_rule_1_not_yet_valid(forge):
    client = forge.client(validity=(NOW + 10, NOW + DAY))
    forge.refused(client, r"certificate is not yet valid \(depth 0,")
    forge.forged(client, now=NOW + 10)


def test_rule_1_expired_intermediate(forge, client_root):
    short = ca("Short CA", client_root, validity=(NOW - DAY, NOW - 1))
    forge.refused(forge.client(issuer=short),
                  r"certificate has expired \(depth 1, subject CN=Short CA", untrusted=[short])


def test_rule_1_unknown_issuer(forge):
    stranger = ca("Stranger")
    forge.refused(forge.client(issuer=stranger), "unable to get local issuer certificate")


def test_rule_1_intermediate_not_sent(forge):
    forge.refused(forge.client(), "unable to get local issuer certificate", untrusted=[])


def test_rule_1_intermediates_in_any_order(forge, client_root):
    upper = ca("Upper CA", client_root)
    lower = ca("Lower CA", upper)
    client = forge.client(issuer=lower)
    forge.forged(client, untrusted=[upper, lower])
    forge.forged(client, untrusted=[lower, upper])


def test_rule_1_signature(forge, client_ca):
    impostor = Party(client_ca.cert, KEYS["P-256"]())
    forge.refused(forge.client(issuer=impostor), "certificate signature failure")


def test_rule_1_client_as_issuer(forge):
    alice = forge.client()
    forge.refused(forge.client(issuer=alice), r"invalid CA certificate \(depth 1",
                  untrusted=[alice, forge.client_ca])


def test_rule_1_pathlen_of_client_ca(forge):
    below = ca("Below pathlen 0", forge.client_ca)
    forge.refused(forge.client(issuer=below), "path length constraint exceeded",
                  untrusted=[below, forge.client_ca])


def test_rule_1_name_constraints_of_client_ca(forge, client_root):
    bound = ca("Bound CA", client_root, extra=[
        (x509.NameConstraints([x509.RFC822Name("example.com")], None), True)])
    for domain, reason in (("example.com", None), ("example.org", "permitted subtree violation")):
        client = forge.client(END_ENTITY, SIGNS, (x509.SubjectAlternativeName(
            [x509.RFC822Name("alice@" + domain)]), False), issuer=bound)
        if reason:
            forge.refused(client, reason, untrusted=[bound])
        else:
            forge.forged(client, untrusted=[bound])


@pytest.mark.parametrize("usage", [(), ("key_cert_sign",)], ids=["signs", "issues"])
def test_rule_1_ca_original(forge, usage):
    client = forge.client((x509.BasicConstraints(True, None), True), CLIENT_AUTH,
                          (key_usage("digital_signature", *usage), True))
    forge.refused(client, "invalid non-CA certificate")


def test_rule_1_ca_original_below_unbound_ca(forge, client_root):
    """Without a path length above it nothing but rule 1 stands in its way."""
    client = issue(name("Rogue CA"), [(x509.BasicConstraints(True, None), True), CLIENT_AUTH,
                                      (key_usage("digital_signature", "key_cert_sign"), True)],
                   client_root)
    forge.refused(client, "invalid non-CA certificate", untrusted=[])


def test_rule_1_unknown_critical_extension(forge):
    extra = x509.UnrecognizedExtension(UNKNOWN, b"\x05\x00")
    forge.refused(forge.client(END_ENTITY, SIGNS, CLIENT_AUTH, (extra, True)),
                  "unhandled critical extension")
    assert UNKNOWN.dotted_string not in oids(
        forge.forged(forge.client(END_ENTITY, SIGNS, CLIENT_AUTH, (extra, False))))


def test_rule_1_key_that_may_not_sign(forge):
    forge.refused(forge.client(END_ENTITY, (key_usage("key_agreement"), True), CLIENT_AUTH),
                  PURPOSE)


def test_rule_1_weak_key(forge):
    weak = rsa.generate_private_key(65537, 1024)
    forge.refused(forge.client(key=weak), "EE certificate key too weak")


# ---- rule 2: subject ----

T61, BMP, UTF8, PRINTABLE = (_ASN1Type.T61String, _ASN1Type.BMPString, _ASN1Type.UTF8String,
                             _ASN1Type.PrintableString)
SUBJECTS = {
    "T61String": [[(NameOID.COMMON_NAME, "Alice", T61)]],
    "BMPString": [[(NameOID.COMMON_NAME, "Alice", BMP)]],
    "multi-valued RDN": [[(NameOID.COMMON_NAME, "Alice", UTF8), (NameOID.USER_ID, "alice", UTF8)],
                         [(NameOID.ORGANIZATION_NAME, "Example", PRINTABLE)]],
    "many OUs": [[(NameOID.ORGANIZATIONAL_UNIT_NAME, f"Unit {i}", UTF8)] for i in range(20)],
    "not ASCII": [[(NameOID.COMMON_NAME, "Åsa Ünïcode 漢字", UTF8)]],
    "invisible characters": [[(NameOID.COMMON_NAME, "Alice\u202e\u200b", UTF8)]],
    "unknown attribute": [[(ObjectIdentifier("1.3.6.1.4.1.99999.2"), "x", UTF8)]],
    "leading and trailing blanks": [[(NameOID.COMMON_NAME, "  ALICE  example ", UTF8)]],
}


@pytest.mark.parametrize("rdns", SUBJECTS.values(), ids=SUBJECTS.keys())
def test_rule_2_subject_der(forge, rdns):
    subject = x509.Name([x509.RelativeDistinguishedName([x509.NameAttribute(*a) for a in rdn])
                         for rdn in rdns])
    client = forge.client(subject=subject)
    assert raw(forge.forged(client))["subject"] == raw(client.cert)["subject"]


SAN = x509.SubjectAlternativeName([x509.RFC822Name("alice@example.com")])


def test_rule_2_empty_subject(forge):
    client = forge.client(END_ENTITY, SIGNS, (SAN, True), subject=x509.Name([]))
    cert = forge.forged(client)
    assert raw(cert)["subject"] == b"\x30\x00"
    assert extension(cert, x509.SubjectAlternativeName).critical
    forge.refused(forge.client(END_ENTITY, SIGNS, (SAN, False), subject=x509.Name([])),
                  "empty")
    forge.refused(forge.client(subject=x509.Name([])), "empty")


# ---- rule 3: the forging CA ----


def test_rule_3_issuer_der(forge):
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Exämple", BMP),
                         x509.NameAttribute(NameOID.COMMON_NAME, "Forging", PRINTABLE)])
    under = ca(subject)
    cert = forge.forged(forge.client(), under=under)
    assert raw(cert)["issuer"] == raw(under.cert)["subject"]
    assert cert.version == x509.Version.v3


CONSTRAINTS = {
    "permitted e-mail": ([x509.RFC822Name("example.com")], None, True),
    "permitted other e-mail": ([x509.RFC822Name("example.org")], None, False),
    "excluded e-mail": (None, [x509.RFC822Name("example.com")], False),
    "excluded other e-mail": (None, [x509.RFC822Name("example.org")], True),
    "permitted directory": ([x509.DirectoryName(name("Alice Example"))], None, True),
    "permitted other directory": ([x509.DirectoryName(name("Bob Example"))], None, False),
}


def constrained_to(permitted):
    """The name of a CA that satisfies the constraint itself."""
    names = [p.value for p in permitted or () if isinstance(p, x509.DirectoryName)]
    return names[0] if names else name("Forging CA")


@pytest.mark.parametrize("where", ["CA", "above"])
@pytest.mark.parametrize("permitted,excluded,good", CONSTRAINTS.values(), ids=CONSTRAINTS.keys())
def test_rule_3_name_constraints(forge, permitted, excluded, good, where):
    constraint = (x509.NameConstraints(permitted, excluded), True)
    under, above = ca(constrained_to(permitted), extra=[constraint]), []
    if where == "above":
        above = [ca("Forging Root", extra=[constraint])]
        under = ca(constrained_to(permitted), above[0])
    client = forge.client(END_ENTITY, SIGNS, CLIENT_AUTH, (SAN, False))
    if good:
        forge.forged(client, under=under, above=above)
    else:
        forge.refused(client, "the forging CA may not issue such a certificate", under=under,
                      above=above)


def test_rule_3_pathlen_0_is_enough(forge):
    root = ca("Forging Root", pathlen=1)
    forge.forged(forge.client(), under=ca("Forging pathlen 0", root, pathlen=0), above=[root])


ONLY_BOB = x509.NameConstraints([x509.DirectoryName(name("Bob"))], None)
UNFIT_ROOTS = {
    "pathlen:0": ({"pathlen": 0}, "has a path length too short", 25),
    "serverAuth": ({"extra": [(x509.ExtendedKeyUsage([EKU.SERVER_AUTH]), False)]},
                   "is no CA for clients", 26),
    "name constraints": ({"extra": [(ONLY_BOB, True)]}, "has name constraints", 47),
}


@pytest.mark.parametrize("options,why,error", UNFIT_ROOTS.values(), ids=UNFIT_ROOTS.keys())
def test_rule_3_unfit_root(forge, options, why, error):
    """What OpenSSL would say of each certificate is said of the file."""
    root = ca("Forging Root", **options)
    under = ca("Forging CA", root)
    run = forge(forge.client(), under=under, above=[root])
    assert (run.returncode, run.stdout) == (3, "")
    assert f"forge.pem: certificate 2 {why}" in run.stderr
    leaf = issue(name("Alice Example"), [END_ENTITY, SIGNS, CLIENT_AUTH], under)
    verified = forge.openssl_verify(
        "-CAfile", forge.write("root.pem", root.cert),
        "-untrusted", forge.write("ca.pem", under.cert), forge.write("leaf.pem", leaf.cert))
    assert f"error {error} at " in verified.stdout + verified.stderr


def test_rule_3_old_root(forge):
    """Not as RFC 5280 wants a root, but as backends have them."""
    root = issue(name("Forging Root"), [(x509.BasicConstraints(True, None), False)])
    under = ca("Forging CA", root)
    forge.forged(forge.client(), under=under, above=[root])


@pytest.mark.parametrize("where", ["CA", "above"])
def test_rule_3_usages_of_the_cas_bind(forge, where):
    root = ca("Forging Root", extra=[CLIENT_AUTH])
    under, above = (ca("Forging CA", root), [root]) if where == "above" else (root, [])
    client = forge.client(END_ENTITY, SIGNS,
                          (x509.ExtendedKeyUsage([EKU.CLIENT_AUTH, SMARTCARD_LOGON]), False))
    cert = forge.forged(client, under=under, above=above)
    assert list(extension(cert, x509.ExtendedKeyUsage).value) == [EKU.CLIENT_AUTH]


ISSUES = (key_usage("key_cert_sign"), True)
UNFIT = {
    "CA:FALSE": ([END_ENTITY, ISSUES], "is no CA certificate"),
    "no basicConstraints": ([ISSUES], "is no CA certificate"),
    "no keyCertSign": ([(x509.BasicConstraints(True, None), True), SIGNS], "keyCertSign"),
    "serverAuth": ([(x509.BasicConstraints(True, None), True), ISSUES,
                    (x509.ExtendedKeyUsage([EKU.SERVER_AUTH]), False)], "clientAuth"),
    "unknown critical": ([(x509.BasicConstraints(True, None), True), ISSUES,
                          (x509.UnrecognizedExtension(UNKNOWN, b"\x05\x00"), True)],
                         "unknown critical"),
}


@pytest.mark.parametrize("extensions,why", UNFIT.values(), ids=UNFIT.keys())
def test_rule_3_unfit_ca(forge, extensions, why):
    run = forge(forge.client(), under=issue(name("Unfit"), extensions))
    assert (run.returncode, run.stdout) == (3, "")
    assert "forge.pem: " in run.stderr and why in run.stderr


@pytest.mark.parametrize("kind,signature", [
    ("P-256", hashes.SHA256), ("P-384", hashes.SHA384), ("P-521", hashes.SHA512),
    ("RSA", hashes.SHA256), ("Ed25519", None)])
def test_rule_3_keys_of_the_ca(forge, kind, signature):
    cert = forge.forged(forge.client(), under=ca("Forging " + kind, kind=kind))
    digest = cert.signature_hash_algorithm
    assert digest is None if signature is None else isinstance(digest, signature)


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_the_original(forge, kind):
    client = forge.client(kind=kind)
    cert = forge.forged(client)
    assert isinstance(cert.public_key().curve, ec.SECP256R1)
    assert raw(cert)["spki"] != raw(client.cert)["spki"]


# ---- rule 4: serial number ----


def test_rule_4_serial(forge):
    client = forge.client()
    ders = [raw(forge.forged(client))["serial"] for _ in range(8)]
    assert len(set(ders)) == len(ders)  # each for a new key
    for der in ders:
        assert der[:2] == b"\x02\x14"  # INTEGER of 20 octets
        assert der[2] >> 6 == 1  # positive, and no octet less
    assert raw(client.cert)["serial"] not in ders


# ---- rule 5: validity ----


def validity(cert):
    return seconds(cert.not_valid_before), seconds(cert.not_valid_after)


def test_rule_5_skew_and_lifespan(forge):
    client = forge.client()
    assert validity(forge.forged(client)) == (NOW - SKEW, NOW + DAY)
    assert validity(forge.forged(client, "--lifespan", HOUR)) == (NOW - SKEW, NOW + HOUR)


def test_rule_5_within_the_original(forge):
    client = forge.client(validity=(NOW - 10, NOW + HOUR))
    assert validity(forge.forged(client)) == (NOW - 10, NOW + HOUR)


def test_rule_5_within_the_chain(forge, client_root):
    short = ca("Short CA", client_root, validity=(NOW - 5, NOW + HOUR))
    cert = forge.forged(forge.client(issuer=short), untrusted=[short])
    assert validity(cert) == (NOW - SKEW, NOW + HOUR)


def test_rule_5_within_the_anchor(forge):
    end = NOW + 100 * DAY  # of the client root; its CA and the client would live on
    forge.client_ca = ca("Long CA", forge.client_root, validity=(NOW, end + 50 * DAY))
    client = forge.client(validity=(NOW, end + 20 * DAY))
    under = ca("Long Forging CA", validity=(NOW - DAY, end + 900 * DAY))
    assert validity(forge.forged(client, "--lifespan", 500 * DAY, under=under))[1] == end


def test_rule_5_within_the_forging_ca(forge):
    under = ca("Short Forging CA", validity=(NOW - 7, NOW + HOUR))
    assert validity(forge.forged(forge.client(), under=under)) == (NOW - 7, NOW + HOUR)


def test_rule_5_within_the_cas_above(forge):
    root = ca("Short Forging Root", validity=(NOW - 7, NOW + HOUR))
    under = ca("Forging CA", root)
    assert validity(forge.forged(forge.client(), under=under, above=[root])) == (
        NOW - 7, NOW + HOUR)


@pytest.mark.parametrize("window", [(NOW - DAY, NOW - 1), (NOW + 1, NOW + DAY)],
                         ids=["expired", "not yet valid"])
def test_rule_5_forging_ca_out_of_date(forge, window):
    forge.refused(forge.client(), "nothing is left of the validity",
                  under=ca("Forging CA", validity=window))


def test_rule_5_no_lifespan(forge):
    forge(forge.client(), "--lifespan", 0)
    assert forge.run.returncode == 1
    assert "nothing is left of the validity" in forge.run.stderr


def test_rule_5_after_2049(forge):
    """UTCTime ends there; GeneralizedTime must take over (RFC 5280 section 4.1.2.5)."""
    far = 2_524_607_000  # 2049-12-31 23:43:20
    forge.client_root = ca("Far Root", validity=(NOW, far + 9 * DAY))
    forge.client_ca = ca("Far CA", forge.client_root, validity=(NOW, far + 9 * DAY))
    under = ca("Far Forging CA", validity=(NOW, far + 9 * DAY))
    client = forge.client(validity=(NOW, far + 9 * DAY))
    cert = forge.forged(client, under=under, now=far)
    assert validity(cert) == (far - SKEW, far + DAY)
    der = cert.public_bytes(serialization.Encoding.DER)
    assert b"\x17\x0d491231233820Z\x18\x0f20500101234320Z" in der


# ---- rule 6: subject alternative name ----

SANS = {
    "e-mail": [x509.RFC822Name("alice@example.com")],
    "UPN": [x509.OtherName(UPN, der_utf8("alice@corp.example"))],
    "PIV": [x509.OtherName(FASC_N, b"\x04\x19" + bytes(range(0x80, 0x99))),
            x509.UniformResourceIdentifier("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6")],
    "everything": [x509.OtherName(UPN, der_utf8("Ålice@corp.example")),
                   x509.RFC822Name("alice@example.com"), x509.DNSName("alice.example"),
                   x509.DirectoryName(name("Alice")), x509.RegisteredID(UNKNOWN),
                   x509.UniformResourceIdentifier("https://alice.example/me?a=b")],
}


@pytest.mark.parametrize("critical", [False, True], ids=["", "critical"])
@pytest.mark.parametrize("names", SANS.values(), ids=SANS.keys())
def test_rule_6_san_der(forge, names, critical):
    client = forge.client(END_ENTITY, SIGNS, CLIENT_AUTH,
                          (x509.SubjectAlternativeName(names), critical))
    cert = forge.forged(client)
    assert raw(cert)["extensions"][SAN_OID] == raw(client.cert)["extensions"][SAN_OID]
    assert extension(cert, x509.SubjectAlternativeName).critical == critical


def test_rule_6_no_san(forge):
    assert "2.5.29.17" not in oids(forge.forged(forge.client()))


# The first two are refused when the chain is verified, with no matter what is forged.
BAD_SANS = {
    "trailing octet": (bytes.fromhex("3003820161") + b"\x00",
                       "invalid or inconsistent certificate extension"),
    "NUL in a DNS name": (bytes.fromhex("30058203610062"), "unsupported or invalid name syntax"),
    "blank in a URI": (b"\x30\x0e\x86\x0chttp://a b/c",
                       "the subject alternative name is malformed or holds a privilege"),
}


@pytest.mark.parametrize("value, why", BAD_SANS.values(), ids=BAD_SANS.keys())
def test_rule_6_malformed_san(forge, value, why):
    san = x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.17"), value)
    forge.refused(forge.client(END_ENTITY, SIGNS, CLIENT_AUTH, (san, False)), why)


# ---- rules 7 and 8: privileges are denied without configuration ----

PRIVILEGED = {
    "SPIFFE": [x509.UniformResourceIdentifier("spiffe://example.org/alice")],
    "SPIFFE among others": [x509.RFC822Name("alice@example.com"),
                            x509.UniformResourceIdentifier("SPIFFE://example.org/alice")],
    "SID URI": [x509.UniformResourceIdentifier("tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-500")],
    "SID other name": [x509.OtherName(NTDS_OBJECT_SID, b"\x04\x0cS-1-5-21-500")],
}


@pytest.mark.parametrize("names", PRIVILEGED.values(), ids=PRIVILEGED.keys())
def test_rules_7_and_8_privileged_san(forge, names):
    forge.refused(forge.client(END_ENTITY, SIGNS, CLIENT_AUTH,
                               (x509.SubjectAlternativeName(names), False)),
                  "the subject alternative name is malformed or holds a privilege")


def test_rule_8_sid_extension_dropped(forge):
    sid = x509.UnrecognizedExtension(SID, bytes.fromhex(
        "301da01b060a2b060104018237190201a00d040b532d312d352d32312d3530"))
    cert = forge.forged(forge.client(END_ENTITY, SIGNS, CLIENT_AUTH, (sid, False)))
    assert SID.dotted_string not in oids(cert)
    assert b"S-1-5-21" not in cert.public_bytes(serialization.Encoding.DER)


# ---- rule 9: extended key usage ----

USAGES = {
    "clientAuth": ([EKU.CLIENT_AUTH], [EKU.CLIENT_AUTH]),
    "smart card": ([SMARTCARD_LOGON, EKU.CLIENT_AUTH, PKINIT],
                   [EKU.CLIENT_AUTH, SMARTCARD_LOGON, PKINIT]),
    "the rest": ([EKU.CLIENT_AUTH, EKU.SERVER_AUTH, EKU.CODE_SIGNING, EKU.EMAIL_PROTECTION,
                  EKU.ANY_EXTENDED_KEY_USAGE, UNKNOWN], [EKU.CLIENT_AUTH]),
}


@pytest.mark.parametrize("original,want", USAGES.values(), ids=USAGES.keys())
def test_rule_9_usages(forge, original, want):
    cert = forge.forged(forge.client(END_ENTITY, SIGNS, (x509.ExtendedKeyUsage(original), False)))
    assert list(extension(cert, x509.ExtendedKeyUsage).value) == want


def test_rule_9_no_extension(forge):
    cert = forge.forged(forge.client(END_ENTITY, SIGNS))
    assert list(extension(cert, x509.ExtendedKeyUsage).value) == [EKU.CLIENT_AUTH]


@pytest.mark.parametrize("usage", [EKU.SERVER_AUTH, EKU.ANY_EXTENDED_KEY_USAGE, SMARTCARD_LOGON],
                         ids=["serverAuth", "any", "smart card only"])
def test_rule_9_client_auth_required(forge, usage):
    forge.refused(forge.client(END_ENTITY, SIGNS, (x509.ExtendedKeyUsage([usage]), False)),
                  PURPOSE)


# ---- rules 10 to 12: from the new key ----


def test_rule_10_key_usage(forge):
    usage = key_usage("digital_signature", "key_encipherment", "content_commitment")
    ext = extension(forge.forged(forge.client(END_ENTITY, CLIENT_AUTH, (usage, True), kind="RSA")),
                    x509.KeyUsage)
    assert ext.critical and ext.value == key_usage("digital_signature")
    ext = extension(forge.forged(forge.client(END_ENTITY, CLIENT_AUTH)), x509.KeyUsage)
    assert ext.critical and ext.value == key_usage("digital_signature")


@pytest.mark.parametrize("extensions", [(END_ENTITY, SIGNS), (SIGNS,)], ids=["written", "absent"])
def test_rule_11_basic_constraints(forge, extensions):
    ext = extension(forge.forged(forge.client(*extensions)), x509.BasicConstraints)
    assert ext.critical and not ext.value.ca and ext.value.path_length is None


def test_rule_12_key_identifiers(forge, forge_ca):
    client = forge.client()
    cert = forge.forged(client)
    point = cert.public_key().public_bytes(serialization.Encoding.X962,
                                           serialization.PublicFormat.UncompressedPoint)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(point)
    skid = extension(cert, x509.SubjectKeyIdentifier)
    assert not skid.critical
    assert skid.value.digest == digest.finalize()[:20]  # RFC 7093 section 2, method 1
    akid = extension(cert, x509.AuthorityKeyIdentifier)
    assert not akid.critical
    assert akid.value.key_identifier == extension(
        forge_ca.cert, x509.SubjectKeyIdentifier).value.digest
    assert akid.value.authority_cert_serial_number is None


# ---- rules 13 to 15: dropped ----

URL = [x509.UniformResourceIdentifier("http://ca.example/x")]
DROPPED = {
    "policies": x509.CertificatePolicies([x509.PolicyInformation(UNKNOWN, None)]),
    "AIA": x509.AuthorityInformationAccess(
        [x509.AccessDescription(x509.oid.AuthorityInformationAccessOID.OCSP, URL[0])]),
    "CRL": x509.CRLDistributionPoints([x509.DistributionPoint(URL, None, None, None)]),
    "freshest CRL": x509.FreshestCRL([x509.DistributionPoint(URL, None, None, None)]),
    "must-staple": x509.TLSFeature([x509.TLSFeatureType.status_request]),
    "SCTs": x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2"),
                                       b"\x04\x02\x00\x00"),
    "OCSP no check": x509.OCSPNoCheck(),
    "certificate template": x509.UnrecognizedExtension(
        ObjectIdentifier("1.3.6.1.4.1.311.21.7"), b"\x30\x00"),
    "custom": x509.UnrecognizedExtension(UNKNOWN, b"\x05\x00"),
}


def test_rules_13_to_15_dropped(forge):
    client = forge.client(END_ENTITY, SIGNS, CLIENT_AUTH, (SAN, False),
                          *((e, False) for e in DROPPED.values()))
    cert = forge.forged(client)
    assert oids(client.cert) >= {e.oid.dotted_string for e in DROPPED.values()}
    assert oids(cert) == {"2.5.29.14", "2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.35",
                          "2.5.29.37"}


def test_rule_13_critical_policies_are_no_obstacle(forge):
    client = forge.client(END_ENTITY, SIGNS, CLIENT_AUTH, (DROPPED["policies"], True))
    assert "2.5.29.32" not in oids(forge.forged(client))


# ---- rule 18: the forging CA's chain ----


def test_rule_18_chain(forge):
    root = ca("Forging Root")
    upper = ca("Forging Upper", root)
    under = ca("Forging", upper)
    forge(forge.client(), "--chain", under=under, above=[upper])
    assert forge.run.returncode == 0, forge.run.stderr
    certs = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n",
                       forge.run.stdout, re.S)
    assert [x509.load_pem_x509_certificate(c.encode()).subject for c in certs] == [
        name("Alice Example"), name("Forging"), name("Forging Upper")]
    chain = forge.path / "sent.pem"
    chain.write_text(forge.run.stdout, encoding="ascii")
    certtool_verify(forge.write("top.pem", root.cert), chain)


def test_rule_18_chain_out_of_order(forge):
    root = ca("Forging Root")
    upper = ca("Forging Upper", root)
    run = forge(forge.client(), under=ca("Forging", upper), above=[root, upper])
    assert run.returncode == 3
    assert "forge.pem: certificate 2 did not issue the one before it" in run.stderr


# ---- the program ----


def test_explain(forge):
    sid = x509.UnrecognizedExtension(SID, b"\x30\x00")
    san = x509.SubjectAlternativeName([x509.OtherName(UPN, der_utf8("eve\u202e@example.com"))])
    client = forge.client(END_ENTITY, SIGNS, CLIENT_AUTH, (san, False), (sid, False),
                          (DROPPED["AIA"], False), subject=name("Eve\u202e"))
    cert = forge.forged(client, "--explain")
    text = forge.run.stdout
    blocks = dict(re.findall(
        r"^(\S.*)\n    original  (.*\n    forged    .*\n    rule .*)$", text, re.M))
    assert blocks["Subject"].endswith("    rule 2    the original's DER, never re-encoded")
    assert "\n    forged    CN=Forging CA\n    rule 3 " in blocks["Issuer"]
    assert f"\n    forged    {cert.serial_number:X}\n    rule 4 " in blocks["Serial number"]
    assert "\n    rule 5 " in blocks["Not before"] and "\n    rule 5 " in blocks["Not after"]
    assert "\n    rule 6 " in blocks["X509v3 Subject Alternative Name"]
    assert "eve\\xE2\\x80\\xAE@example.com" in blocks["X509v3 Subject Alternative Name"]
    assert "\n    forged    (dropped)\n    rule 8 " in blocks[SID.dotted_string]
    assert "\n    forged    (dropped)\n    rule 14 " in blocks["Authority Information Access"]
    assert text.isascii()
    assert "PRIVATE KEY" not in text


@pytest.mark.parametrize("where", ["subject", "upn"])
def test_control_characters_are_refused(forge, where):
    """And the refusal does not show them."""
    evil = "eve\x1b[2J"
    san = x509.SubjectAlternativeName([x509.OtherName(UPN, der_utf8(evil))])
    client = (forge.client(subject=name(evil)) if where == "subject" else
              forge.client(END_ENTITY, SIGNS, CLIENT_AUTH, (san, False)))
    run = forge(client, "--explain")
    assert run.returncode == 1 and "unsupported or invalid name syntax" in run.stderr
    assert "\x1b" not in run.stdout + run.stderr


def test_explain_a_refusal(forge):
    constraint = x509.NameConstraints(None, [x509.RFC822Name("example.com")])
    under = ca("Bound", extra=[(constraint, True)])
    run = forge(forge.client(END_ENTITY, SIGNS, (SAN, False)), "--explain", under=under)
    assert run.returncode == 1
    assert "The forging CA may not issue this: excluded subtree violation\n" in run.stdout
    assert "BEGIN CERTIFICATE" not in run.stdout


def test_key_out(forge):
    key_file = forge.path / "new.key"
    cert = forge.forged(forge.client(), "--key-out", key_file)
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    assert key.public_key().public_numbers() == cert.public_key().public_numbers()
    assert stat.S_IMODE(os.stat(key_file).st_mode) == 0o600
    assert "PRIVATE KEY" not in forge.run.stdout
    before = key_file.read_bytes()
    run = forge(forge.client(), "--key-out", key_file)
    assert (run.returncode, run.stdout) == (3, "")
    assert "new.key: File exists" in run.stderr
    assert key_file.read_bytes() == before


def test_key_of_another_ca(forge, forge_ca):
    run = forge(forge.client(), under=Party(forge_ca.cert, KEYS["P-256"]()))
    assert (run.returncode, run.stdout) == (3, "")
    assert "forge.key: is not the key of the forging CA's certificate" in run.stderr


def run_forge(*args):
    return subprocess.run([FORGE, *args], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("args,why", [
    ([], "--client-ca, --ca and --key are needed"),
    (["--client-ca", "a", "--ca", "b", "--key", "c"], "exactly one CHAIN.pem"),
    (["--client-ca", "a", "--ca", "b", "--key", "c", "d", "e"], "exactly one CHAIN.pem"),
    (["--time", "noon"], "--time noon: not a number of seconds"),
    (["--lifespan", "-1"], "--lifespan -1: not a number of seconds"),
    (["--lifespan", "9" * 30], "not a number of seconds"),
    (["--frobnicate"], "frobnicate"),
])
def test_usage(args, why):
    run = run_forge(*args)
    assert (run.returncode, run.stdout) == (2, "")
    assert why in run.stderr


def test_help_and_version():
    assert run_forge("--help").stdout.startswith("Usage: ktlsgate-forge ")
    assert re.fullmatch(r"ktlsgate-forge \d+\.\d+\.\d+\n", run_forge("-V").stdout)


def test_file_missing(tmp_path):
    run = run_forge("--client-ca", tmp_path / "absent.pem", "--ca", "b", "--key", "c", "d")
    assert (run.returncode, run.stdout) == (3, "")
    assert "absent.pem: " in run.stderr and "No such file" in run.stderr


# ---- tools/mkpki.sh ----


@pytest.mark.parametrize("options", [[], ["--rsa"]], ids=["P-256", "RSA"])
def test_mkpki(tmp_path, options):
    pki = tmp_path / "pki"
    subprocess.run([ROOT / "tools/mkpki.sh", *options, pki], check=True)
    for key in pki.glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    for root, untrusted, purpose, leaf in (
            ("client-ca", "client-chain", "sslclient", "client"),
            ("server-ca", "web", "sslserver", "web"),
            ("server-ca", "backend", "sslserver", "backend")):
        subprocess.run(["openssl", "verify", "-x509_strict", "-purpose", purpose,
                        "-CAfile", f"{root}.pem", "-untrusted", f"{untrusted}.pem", f"{leaf}.pem"],
                       cwd=pki, check=True, stdout=subprocess.DEVNULL)
    run = run_forge("--client-ca", pki / "client-ca.pem", "--ca", pki / "forge-ca.pem",
                    "--key", pki / "forge-ca.key", pki / "client-chain.pem")
    assert run.returncode == 0, run.stderr
    (pki / "forged.pem").write_text(run.stdout, encoding="ascii")
    subprocess.run(["openssl", "verify", "-x509_strict", "-purpose", "sslclient",
                    "-CAfile", "forge-root.pem", "-untrusted", "forge-ca.pem", "forged.pem"],
                   cwd=pki, check=True, stdout=subprocess.DEVNULL)


def test_mkpki_overwrites_nothing(tmp_path):
    (tmp_path / "web.key").write_text("precious", encoding="ascii")
    run = subprocess.run([ROOT / "tools/mkpki.sh", tmp_path], capture_output=True, text=True,
                         check=False)
    assert run.returncode == 1 and "is not empty" in run.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["web.key"]
