# SPDX-License-Identifier: Apache-2.0
"""
What profile.<n>.forge.* changes in a forged certificate, by ktlsgate-forge --set, whose settings are
the daemon's; each result passes RFC 5280's demands, and several libraries' verifiers.
"""

import re
import shutil
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import AuthorityInformationAccessOID as AIA
from cryptography.x509.oid import ExtendedKeyUsageOID as EKU
from cryptography.x509.oid import ObjectIdentifier

from harness.daemon import ROOT
from harness.der import fields
from harness.lint5280 import lint
# pylint: disable=unused-import  # fixtures
from test_forge import (CLIENT_AUTH, DROPPED, END_ENTITY, FORGE, NOW, PKINIT, SAN, SID, SIGNS,
                        SMARTCARD_LOGON, NTDS_OBJECT_SID, UPN, ca, client_ca, client_root, der_utf8,
                        extension, forge, forge_ca, key_usage, name, oids, seconds)

OWN = ObjectIdentifier("1.3.6.1.4.1.99999.1")
OTHER = ObjectIdentifier("1.3.6.1.4.1.99999.2")
POLICY = ObjectIdentifier("1.3.6.1.4.1.99999.10")
POLICY_2 = ObjectIdentifier("1.3.6.1.4.1.99999.11")
OURS = ObjectIdentifier("1.3.6.1.4.1.99999.20")
VALUE = der_utf8("department 7")
SID_VALUE = bytes.fromhex("3019a017060a2b060104018237190201a00904075 32d312d352d31".replace(" ", ""))


def sets(**settings):
    return [x for k, v in settings.items() for x in ("--set", f"{k}={v}")]


@pytest.fixture
def forged(forge):
    """forged(client, setting=value, ...): linted, too."""
    def run(client, *options, **settings):
        more = {k: settings.pop(k) for k in ("under", "above", "untrusted", "now") if k in settings}
        cert = forge.forged(client, *sets(**settings), *options, **more)
        issuer = (more.get("under") or forge.forge_ca).cert
        assert lint(der(cert), der(issuer)) == []
        return cert
    return run


def der(cert):
    return cert.public_bytes(serialization.Encoding.DER)


def original(forge, *extra, **options):
    return forge.client(END_ENTITY, SIGNS, CLIENT_AUTH, *extra, **options)


def unrecognized(oid, value=VALUE):
    return x509.UnrecognizedExtension(oid, value)


def value_of(cert, oid):
    return cert.extensions.get_extension_for_oid(oid).value.value


# ---- rule 5 ----


@pytest.mark.parametrize("start", ["now", "original"])
def test_start(forge, forged, start):
    cert = forged(forge.client(validity=(NOW - 5000, NOW + 5000)), start=start)
    assert seconds(cert.not_valid_before) == NOW - (300 if start == "now" else 5000)


def test_start_original_is_bound_by_the_ca(forge, forged):
    under = ca("Young CA", validity=(NOW - 1000, NOW + 5000))
    cert = forged(forge.client(validity=(NOW - 5000, NOW + 5000)), start="original", under=under)
    assert seconds(cert.not_valid_before) == NOW - 1000


# ---- rules 6 to 8 ----


def test_drop_san(forge, forged):
    cert = forged(original(forge, (SAN, False)), drop="subjectAltName")
    assert "2.5.29.17" not in oids(cert)
    client = original(forge, (SAN, True), subject=x509.Name([]))
    run = forge(client, *sets(drop="subjectAltName"))
    assert run.returncode == 1 and "empty subject" in run.stderr


def uris(*texts):
    return (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(t) for t in texts]), False)


@pytest.mark.parametrize("texts, good", [
    (["spiffe://example.org/ns/prod/sa/web"], True),
    (["spiffe://second.example/x"], True),
    (["spiffe://example.com/x"], False),
    (["spiffe://sub.example.org/x"], False),
    (["spiffe://example.org"], False),
    (["spiffe://example.org/"], False),
    (["spiffe://example.org/a//b"], False),
    (["spiffe://example.org/a/../b"], False),
    (["spiffe://example.org/a%2fb"], False),
    (["spiffe://example.org/a?b"], False),
    (["spiffe://example.org:443/a"], False),
    (["SPIFFE://example.org/a"], False),
    (["spiffe://example.org/a", "https://example.org/"], False),
    (["spiffe://example.org/a", "spiffe://example.org/b"], False),
    (["https://example.org/", "https://example.net/"], True),
])
def test_trust_domains(forge, forged, texts, good):
    client = original(forge, uris(*texts))
    domains = "example.org second.example"
    if good:
        cert = forged(client, trust_domains=domains)
        names = extension(cert, x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == texts
    else:
        run = forge(client, *sets(trust_domains=domains))
        assert run.returncode == 1 and "holds a privilege" in run.stderr


def test_sid_only_from_named_issuers(forge, forged, client_ca, client_root):
    stranger = ca("Other Client CA", client_root, pathlen=0)
    san = x509.SubjectAlternativeName([x509.OtherName(NTDS_OBJECT_SID, b"\x04\x05S-1-5"),
                                       x509.RFC822Name("alice@example.com")])
    file = forge.write("issuers.pem", client_ca.cert, ca("Unrelated").cert)
    for issuer, trusted in ((client_ca, True), (stranger, False)):
        client = original(forge, (unrecognized(SID, SID_VALUE), False), issuer=issuer)
        cert = forged(client, untrusted=[issuer], sid_issuers=file)
        assert (SID.dotted_string in oids(cert)) == trusted
        if trusted:
            assert value_of(cert, SID) == SID_VALUE
        client = original(forge, (san, False), issuer=issuer)
        if trusted:
            forged(client, untrusted=[issuer], sid_issuers=file)
        else:
            run = forge(client, *sets(sid_issuers=file), untrusted=[issuer])
            assert run.returncode == 1 and "holds a privilege" in run.stderr


def test_sid_issuer_of_the_same_name(forge, client_root):
    """A name is not enough: the key must be the named issuer's."""
    real, twin = ca("AD CA", client_root), ca("AD CA", client_root)
    client = original(forge, (unrecognized(SID, SID_VALUE), False), issuer=twin)
    cert = forge.forged(client, *sets(sid_issuers=forge.write("issuers.pem", real.cert)),
                        untrusted=[twin])
    assert SID.dotted_string not in oids(cert)


# ---- rule 9 ----


@pytest.mark.parametrize("allowed, want", [
    (None, [EKU.CLIENT_AUTH, SMARTCARD_LOGON, PKINIT]),
    ("clientAuth", [EKU.CLIENT_AUTH]),
    ("pkInitClientAuth emailProtection 1.3.6.1.4.1.99999.1",
     [EKU.CLIENT_AUTH, PKINIT, EKU.EMAIL_PROTECTION, OWN]),
    ("serverAuth", [EKU.CLIENT_AUTH, EKU.SERVER_AUTH]),
])
def test_eku(forge, forged, allowed, want):
    usages = [EKU.EMAIL_PROTECTION, PKINIT, SMARTCARD_LOGON, EKU.CLIENT_AUTH, EKU.SERVER_AUTH, OWN]
    client = forge.client(END_ENTITY, SIGNS, (x509.ExtendedKeyUsage(usages), False))
    cert = forged(client, **({"eku": allowed} if allowed else {}))
    assert list(extension(cert, x509.ExtendedKeyUsage).value) == want


# ---- rule 13 ----

QUALIFIED = x509.CertificatePolicies([
    x509.PolicyInformation(POLICY, ["https://cps.client.example/"]),
    x509.PolicyInformation(POLICY_2, None)])


@pytest.mark.parametrize("setting, want", [
    ("drop", None),
    ("copy", list(QUALIFIED)),
    (f"{POLICY.dotted_string}={OURS.dotted_string}", [x509.PolicyInformation(OURS, None)]),
    (f"{POLICY.dotted_string}={OURS.dotted_string} {POLICY_2.dotted_string}={OURS.dotted_string}",
     [x509.PolicyInformation(OURS, None)]),
    (f"{OWN.dotted_string}={OURS.dotted_string}", None),
])
def test_policies(forge, forged, setting, want):
    cert = forged(original(forge, (QUALIFIED, False)), policies=setting)
    if want is None:
        assert "2.5.29.32" not in oids(cert)
    else:
        assert list(extension(cert, x509.CertificatePolicies).value) == want


# ---- rule 14 ----


def test_urls_of_the_forging_ca(forge, forged):
    client = original(forge, (DROPPED["AIA"], False))
    cert = forged(client, ocsp="http://ocsp.forge.example/ http://ocsp2.forge.example/",
                  ca_issuers="http://pki.forge.example/ca.cer",
                  crl="http://pki.forge.example/a.crl ldap://ldap.forge.example/cn=a?crl?base")
    access = [(d.access_method, d.access_location.value)
              for d in extension(cert, x509.AuthorityInformationAccess).value]
    assert access == [(AIA.OCSP, "http://ocsp.forge.example/"),
                      (AIA.OCSP, "http://ocsp2.forge.example/"),
                      (AIA.CA_ISSUERS, "http://pki.forge.example/ca.cer")]
    point, = extension(cert, x509.CRLDistributionPoints).value
    assert [n.value for n in point.full_name] == [
        "http://pki.forge.example/a.crl", "ldap://ldap.forge.example/cn=a?crl?base"]
    assert not {e.oid.dotted_string for e in cert.extensions if e.critical} - {
        "2.5.29.15", "2.5.29.19"}


# ---- rule 15 ----


def test_copy_map_add(forge, forged):
    client = original(forge, (unrecognized(OWN), False), (unrecognized(OTHER, b"\x05\x00"), False))
    assert not {OWN.dotted_string, OTHER.dotted_string} & oids(forged(client))
    cert = forged(client, copy=OWN.dotted_string)
    assert value_of(cert, OWN) == VALUE and OTHER.dotted_string not in oids(cert)
    cert = forged(client, map=f"{OWN.dotted_string}={OURS.dotted_string}", copy=OTHER.dotted_string,
                  add="1.3.6.1.4.1.99999.30=utf8:gate-1 1.3.6.1.4.1.99999.31=hex:3003020105")
    assert OWN.dotted_string not in oids(cert)
    assert value_of(cert, OURS) == VALUE and value_of(cert, OTHER) == b"\x05\x00"
    assert value_of(cert, ObjectIdentifier("1.3.6.1.4.1.99999.30")) == der_utf8("gate-1")
    assert value_of(cert, ObjectIdentifier("1.3.6.1.4.1.99999.31")) == b"\x30\x03\x02\x01\x05"
    # What is not in the original is not in the forged one either.
    assert OWN.dotted_string not in oids(forged(original(forge), copy=OWN.dotted_string))


def test_critical_extension_dropped_on_purpose(forge, forged):
    client = original(forge, (x509.InhibitAnyPolicy(0), True))
    run = forge(client)
    assert run.returncode == 1 and "unknown critical" in run.stderr
    assert "2.5.29.54" not in oids(forged(client, drop="inhibitAnyPolicy"))


def test_provenance(forge, forged):
    client = original(forge, (SAN, False))
    cert = forged(client, provenance=OURS.dotted_string)
    raw = fields(der(client.cert))
    digest = x509.load_der_x509_certificate(der(client.cert)).fingerprint(
        client.cert.signature_hash_algorithm)
    assert client.cert.signature_hash_algorithm.name == "sha256"
    body = b"\x04\x20" + digest + raw["issuer"] + raw["serial"]
    value = value_of(cert, OURS)
    assert value.endswith(body) and value[0] == 0x30 and len(value) - len(body) in (2, 3)
    # In no name: that would be one to its readers.
    assert fields(der(cert))["extensions"][b"\x55\x1d\x11"] == raw["extensions"][b"\x55\x1d\x11"]


# ---- rule 16 ----


def test_rsa_key(forge, forged):
    cert = forged(forge.client(END_ENTITY, (key_usage("digital_signature", "key_encipherment"), True),
                               CLIENT_AUTH), key="rsa-2048")
    assert cert.public_key().key_size == 2048
    usage = extension(cert, x509.KeyUsage).value
    assert usage.digital_signature and usage.key_encipherment


# ---- bad settings ----


@pytest.mark.parametrize("setting, why", [
    ("copy=subjectAltName", "rule 6 decides about; it is copied unless forge.drop names it"),
    ("copy=basicConstraints", "never a CA"),
    ("map=1.2.3.4=keyUsage", "rule 10"),
    ("map=1.2.3.4", "write OID=OID"),
    ("add=1.3.6.1.4.1.311.25.2=hex:0500", "set forge.sid_issuers"),
    ("add=1.2.3.4=hex:05", "not one DER value"),
    ("add=1.2.3.4=hex:050000", "not one DER value"),
    ("add=1.2.3.4=x", "write OID=utf8:TEXT or OID=hex:DER"),
    ("copy=1.2.3.4 1.2.3.4", "twice"),
    ("copy=nonsense", "'nonsense' is no OID"),
    ("copy=", "is empty"),
    ("eku=1.2=3", "list OIDs only"),
    ("trust_domains=Example.org", "no trust domain"),
    ("provenance=1.2.3.4 1.2.3.5", "at most 1"),
    ("policies=keep", "is no OID"),
    ("start=tomorrow", "use now or original"),
    ("nothing=1", "no such rule"),
    ("copy", "NAME=VALUE"),
])
def test_bad_settings(forge, setting, why):
    run = forge(forge.client(), "--set", setting)
    assert run.returncode == 2 and why in run.stderr, run.stderr


def test_two_settings_for_one_extension(forge):
    run = forge(forge.client(), *sets(copy="1.2.3.4", add="1.2.3.4=utf8:x"))
    assert run.returncode == 3 and "keep one" in run.stderr


# ---- the table, and the explanation that comes from it ----


def test_table_is_documented():
    """docs/forging.md has the same rules, and names each setting."""
    lines = subprocess.run([FORGE, "--rules"], capture_output=True, text=True, check=True).stdout
    table = [line.split("\t") for line in lines.splitlines()]
    assert [int(row[0]) for row in table] == list(range(1, 19))
    text = (ROOT / "docs/forging.md").read_text()
    documented = {int(n): row for n, row in re.findall(r"^\| (\d+) \| (.*)$", text, re.MULTILINE)}
    assert sorted(documented) == list(range(1, 19))
    for number, _, _, settings in table:
        for setting in re.findall(r"forge\.\w+", settings):
            assert setting in documented[int(number)], (number, setting)


def test_explain_without_the_key(forge):
    client = original(forge, (unrecognized(OWN), False), (unrecognized(OTHER), False))
    run = subprocess.run(
        [FORGE, "--client-ca", forge.write("client-ca.pem", forge.client_root.cert), "--ca",
         forge.write("forge.pem", forge.forge_ca.cert), "--explain", "--time", str(NOW),
         *sets(map=f"{OWN.dotted_string}={OURS.dotted_string}"),
         forge.write("chain.pem", client.cert, forge.client_ca.cert)],
        capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "BEGIN CERTIFICATE" not in run.stdout
    blocks = dict(re.findall(r"^(\S.*)\n    original  (.*\n    forged    .*\n    rule .*)$",
                             run.stdout, re.MULTILINE))
    # Under its new name, with the value that it had under the old one.
    mapped = blocks[OURS.dotted_string].split("\n")
    assert "department 7" in mapped[0] and "department 7" in mapped[1]
    assert OWN.dotted_string not in blocks
    assert "(dropped)" in blocks[OTHER.dotted_string]
    assert "[forge.copy, forge.map" in blocks[OTHER.dotted_string]
    assert "CN=Forging CA" in blocks["Issuer"]


# ---- the opinions of others ----

JAVA = """
import java.io.*; import java.security.cert.*; import java.util.*;
public class Verify {
    public static void main(String[] a) throws Exception {
        CertificateFactory f = CertificateFactory.getInstance("X.509");
        X509Certificate root, leaf;
        try (InputStream in = new FileInputStream(a[0])) { root = (X509Certificate) f.generateCertificate(in); }
        try (InputStream in = new FileInputStream(a[1])) { leaf = (X509Certificate) f.generateCertificate(in); }
        PKIXParameters p = new PKIXParameters(Set.of(new TrustAnchor(root, null)));
        p.setRevocationEnabled(false);
        CertPathValidator.getInstance("PKIX").validate(f.generateCertPath(List.of(leaf)), p);
        if (!leaf.getExtendedKeyUsage().contains("1.3.6.1.5.5.7.3.2")) throw new Exception("no clientAuth");
        System.out.println("good " + leaf.getSubjectX500Principal());
    }
}
"""

GO = """
package main
import ("crypto/x509"; "encoding/pem"; "fmt"; "os")
func load(path string) *x509.Certificate {
	text, _ := os.ReadFile(path)
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil { fmt.Println(err); os.Exit(1) }
	return cert
}
func main() {
	roots := x509.NewCertPool()
	roots.AddCert(load(os.Args[1]))
	_, err := load(os.Args[2]).Verify(x509.VerifyOptions{Roots: roots,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil { fmt.Println(err); os.Exit(1) }
	fmt.Println("good")
}
"""


def verify_java(path, root, leaf):
    (path / "Verify.java").write_text(JAVA)
    return ["java", path / "Verify.java", root, leaf]


def verify_go(path, root, leaf):
    (path / "verify.go").write_text(GO)
    return ["go", "run", path / "verify.go", root, leaf]


def verify_nss(path, root, leaf):
    """A data base of its own; usage C: SSL client."""
    base = f"sql:{path}"
    for args in (["-N", "--empty-password"], ["-A", "-n", "root", "-t", "T,,", "-a", "-i", root],
                 ["-A", "-n", "leaf", "-t", ",,", "-a", "-i", leaf]):
        subprocess.run(["certutil", "-d", base, *args], check=True)
    return ["certutil", "-d", base, "-V", "-n", "leaf", "-u", "C", "-e"]


VERIFIERS = {"certutil": verify_nss, "java": verify_java, "go": verify_go}


@pytest.mark.parametrize("program, key", [("certutil", "p-256"), ("certutil", "rsa-2048"),
                                          ("java", "rsa-2048"), ("go", "p-256")])
def test_others_agree(forge, forged, tmp_path, program, key):
    """Beside OpenSSL's and GnuTLS's programs, which look at every certificate here."""
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed (libnss3-tools, default-jdk-headless, golang-go): "
                    "a verifier less, not needed to run ktlsgate")
    names = x509.SubjectAlternativeName([x509.OtherName(UPN, der_utf8("alice@corp.example")),
                                         x509.RFC822Name("alice@example.com")])
    client = original(forge, (names, False), (QUALIFIED, False), (unrecognized(OWN), False),
                      (unrecognized(SID, SID_VALUE), False))
    under = ca("Forging CA", kind="RSA" if key == "rsa-2048" else "P-256")
    settings = {"policies": "copy", "copy": OWN.dotted_string, "provenance": OURS.dotted_string,
                "ocsp": "http://ocsp.forge.example/", "crl": "http://pki.forge.example/a.crl",
                "sid_issuers": forge.write("issuers.pem", forge.client_ca.cert), "key": key}
    run = forge(client, *sets(**settings), under=under)
    assert run.returncode == 0, run.stderr
    cert = x509.load_pem_x509_certificate(run.stdout.encode())
    assert lint(der(cert), der(under.cert)) == []
    leaf, root = forge.write("leaf.pem", cert), forge.write("root.pem", under.cert)
    argv = VERIFIERS[program](tmp_path, root, leaf)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # And the same program refuses what another CA of that name has issued.
    twin = ca("Forging CA", kind="RSA" if key == "rsa-2048" else "P-256")
    other = tmp_path / "other"
    other.mkdir()
    argv = VERIFIERS[program](other, forge.write("twin.pem", twin.cert), leaf)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode != 0


def test_lint_finds_faults(forge, forge_ca):
    """The linter itself: certificates of another library, right but for one thing."""
    good = original(forge, issuer=forge_ca)
    assert lint(der(good.cert), der(forge_ca.cert)) == []
    agree = (key_usage("digital_signature", "key_encipherment"), True)
    for extensions, finding in (
            ((END_ENTITY, agree, CLIENT_AUTH), "RFC 5480 3"),
            ((END_ENTITY, (key_usage("digital_signature", "key_cert_sign"), True), CLIENT_AUTH),
             "4.2.1.9 keyCertSign"),
            (((x509.BasicConstraints(True, None), True), SIGNS, CLIENT_AUTH), "4.2.1.9 not CA:FALSE"),
            ((END_ENTITY, SIGNS, (x509.ExtendedKeyUsage([EKU.SERVER_AUTH]), False)), "no clientAuth"),
            ((END_ENTITY, SIGNS, CLIENT_AUTH, (DROPPED["AIA"], True)), "4.2.2.1"),
            ((SIGNS, CLIENT_AUTH), "4.2.1.9 2.5.29.19 is missing")):
        found = lint(der(forge.client(*extensions, issuer=forge_ca).cert), der(forge_ca.cert))
        assert len(found) == 1 and finding in found[0], found
    assert "4.1.2.4 issuer" in lint(der(good.cert), der(ca("Forging CA 2").cert))[0]
