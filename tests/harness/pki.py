# SPDX-License-Identifier: Apache-2.0
"""A test PKI: client CAs, server CAs, forging CAs, and client certificates with every fault."""

import base64
import datetime
import functools
import itertools
import re

from cryptography import x509
from cryptography.x509 import ocsp
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

FRONT_NAME = "app.example"  # what clients connect to
BACK_NAME = "backend.example"  # what the backends are
UPN = ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
SMARTCARD_LOGON = ObjectIdentifier("1.3.6.1.4.1.311.20.2.2")
DAY = datetime.timedelta(days=1)
KEY_TYPES = ("rsa", "ec")


def new_key(kind):
    if kind == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, 2048)


def common_name(cn):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])


def person_name(cn):
    """A subject whose re-encoding would show: mixed string types, a multi-valued RDN, non-ASCII."""
    attribute, rdn = x509.NameAttribute, x509.RelativeDistinguishedName
    return x509.Name([
        rdn([attribute(NameOID.COUNTRY_NAME, "DE")]),
        rdn([attribute(NameOID.ORGANIZATION_NAME, "Prüfstelle", _ASN1Type.UTF8String)]),
        rdn([attribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Lab", _ASN1Type.T61String)]),
        rdn([attribute(NameOID.COMMON_NAME, cn, _ASN1Type.PrintableString),
             attribute(NameOID.USER_ID, "u-" + cn.replace(" ", "-"), _ASN1Type.UTF8String)]),
        rdn([attribute(NameOID.EMAIL_ADDRESS, "someone@client.example", _ASN1Type.IA5String)]),
    ])


def key_usage(ca=False, encipher=False):
    return x509.KeyUsage(digital_signature=True, content_commitment=False,
                         key_encipherment=encipher, data_encipherment=False, key_agreement=False,
                         key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False)


class CertKey:
    """A certificate, its private key and the chain sent with it; as objects and as PEM files."""

    def __init__(self, path, key, cert, chain=()):
        self.key, self.cert, self.chain = key, cert, list(chain)
        self.cert_file, self.key_file = path.with_suffix(".pem"), path.with_suffix(".key")
        self.cert_file.write_bytes(b"".join(pem(c) for c in [cert, *self.chain]))
        self.key_file.write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption()))
        self.key_file.chmod(0o600)

    @property
    def der(self):
        return der(self.cert)

    def with_wrong_key(self):
        """
        Its key file holds another scalar beside the right public point: OpenSSL takes the pair for
        a match and signs what nobody can verify. EC only.
        """
        size = self.key.key_size // 8
        formats = serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL
        good, other = (key.private_bytes(*formats, serialization.NoEncryption())
                       for key in (self.key, new_key("ec")))
        at = good.index(b"\x04" + bytes([size])) + 2  # OCTET STRING privateKey, RFC 5915
        wrong = base64.encodebytes(good[:at] + other[at:at + size] + good[at + size:])
        self.key_file.write_bytes(b"-----BEGIN EC PRIVATE KEY-----\n" + wrong +
                                  b"-----END EC PRIVATE KEY-----\n")
        return self


def pem(cert):
    return cert.public_bytes(serialization.Encoding.PEM)


def der(cert):
    return cert.public_bytes(serialization.Encoding.DER)


class Pki:
    """Everything is made on first use and written below directory."""

    def __init__(self, directory):
        self.directory = directory
        self._rsa_keys = {}
        self._numbers = itertools.count()

    # ---- issuing ----

    def _key(self, kind, role):
        """RSA keys are slow to make: one for each role, EC keys are always new."""
        if kind == "ec":
            return new_key("ec")
        if role not in self._rsa_keys:
            self._rsa_keys[role] = new_key("rsa")
        return self._rsa_keys[role]

    def _issue(self, name, subject, key, issuer=None, *, ca=False, extensions=(), not_before=None,
               not_after=None, usage=None, chain=()):
        now = datetime.datetime.utcnow()
        signer = issuer.key if issuer else key
        authority = issuer.key.public_key() if issuer else key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.cert.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before or now - DAY)
            .not_valid_after(not_after or now + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(usage or key_usage(ca), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), False))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        path = self.directory / f"{next(self._numbers):04d}-{name}"
        return CertKey(path, key, builder.sign(signer, hashes.SHA256()), chain)

    def _ca(self, name, kind="ec", issuer=None, chain=()):
        return self._issue(name, common_name(f"ktlsgate test {name}"), self._key(kind, name), issuer,
                           ca=True, chain=chain)

    def _server(self, name, kind, dns, issuer, purpose=ExtendedKeyUsageOID.SERVER_AUTH, **validity):
        names = [dns] if isinstance(dns, str) else dns
        return self._issue(
            name, common_name(names[0]), self._key(kind, name), issuer,
            usage=key_usage(encipher=kind == "rsa"),
            extensions=[(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False),
                        (x509.ExtendedKeyUsage([purpose]), False)],
            **validity)

    # ---- authorities ----

    @functools.cached_property
    def client_root(self):
        return self._ca("client-root")

    @functools.cached_property
    def client_intermediate(self):
        return self._ca("client-intermediate", "rsa", self.client_root)

    @functools.cached_property
    def server_ca(self):
        return self._ca("server-ca")

    @functools.cached_property
    def other_ca(self):
        """Trusted by nobody."""
        return self._ca("other-ca")

    @functools.cached_property
    def forging_root(self):
        """What backends trust; the two authorities below it must be sent."""
        return self._ca("forging-root")

    @functools.cached_property
    def forging_intermediate(self):
        return self._ca("forging-intermediate", "ec", self.forging_root)

    @functools.lru_cache(maxsize=None)
    def forge(self, kind="ec"):
        return self._ca(f"forge-{kind}", kind, self.forging_intermediate,
                        chain=[self.forging_intermediate.cert])

    # ---- servers ----

    @functools.lru_cache(maxsize=None)
    def web(self, kind="ec"):
        return self._server(f"web-{kind}", kind, FRONT_NAME, self.server_ca)

    def server(self, kind, names):
        """A new server certificate for the DNS names, with its issuer behind it."""
        return self._server("server", kind, names, self.server_ca, chain=[self.server_ca.cert])

    def ocsp_response(self, certkey, *, status="good", signer=None, since=-1, until=1, issuer=None):
        """
        A file with a response about a server's certificate; since and until: in days from now, None:
        no nextUpdate. signer: a CertKey, if not its issuer.
        """
        now = datetime.datetime.utcnow()
        signer, revoked = signer or self.server_ca, status == "revoked"
        response = ocsp.OCSPResponseBuilder().add_response(
            cert=certkey.cert, issuer=(issuer or self.server_ca).cert, algorithm=hashes.SHA1(),
            cert_status=ocsp.OCSPCertStatus[status.upper()], this_update=now + since * DAY,
            next_update=None if until is None else now + until * DAY,
            revocation_time=now - DAY if revoked else None, revocation_reason=None,
        ).responder_id(ocsp.OCSPResponderEncoding.HASH, signer.cert).certificates(
            [signer.cert]).sign(signer.key, hashes.SHA256())
        path = self.directory / f"{next(self._numbers):04d}-ocsp.der"
        path.write_bytes(response.public_bytes(serialization.Encoding.DER))
        return path

    def responder(self, purpose=ExtendedKeyUsageOID.OCSP_SIGNING):
        """Appointed by the servers' issuer."""
        return self._server("responder", "ec", "ocsp.example", self.server_ca, purpose)

    @functools.lru_cache(maxsize=None)
    def backend(self, kind="ec"):
        return self._server(f"backend-{kind}", kind, BACK_NAME, self.server_ca)

    def bad_backend(self, fault):
        """fault: wrong_ca, wrong_name, wrong_purpose, wrong_key, expired"""
        if fault == "wrong_ca":
            return self._server("backend-wrong-ca", "ec", BACK_NAME, self.other_ca)
        if fault == "wrong_name":
            return self._server("backend-wrong-name", "ec", "elsewhere.example", self.server_ca)
        if fault == "wrong_purpose":
            return self._server("backend-wrong-purpose", "ec", BACK_NAME, self.server_ca,
                                ExtendedKeyUsageOID.CLIENT_AUTH)
        if fault == "wrong_key":
            return self._server("backend-wrong-key", "ec", BACK_NAME,
                                self.server_ca).with_wrong_key()
        assert fault == "expired"
        now = datetime.datetime.utcnow()
        return self._server("backend-expired", "ec", BACK_NAME, self.server_ca,
                            not_before=now - 9 * DAY, not_after=now - DAY)

    def ocsp_signer(self, ca, fault=None):
        """A responder that ca has appointed. fault: wrong_ca, wrong_purpose, expired"""
        purpose = (ExtendedKeyUsageOID.SERVER_AUTH if fault == "wrong_purpose" else
                   ExtendedKeyUsageOID.OCSP_SIGNING)
        now = datetime.datetime.utcnow()
        validity = {"not_before": now - 9 * DAY, "not_after": now - DAY} if fault == "expired" else {}
        return self._issue("ocsp-signer", common_name("responder"), self._key("ec", "ocsp"),
                           self.other_ca if fault == "wrong_ca" else ca,
                           extensions=[(x509.ExtendedKeyUsage([purpose]), False)], **validity)

    # ---- clients ----

    @functools.lru_cache(maxsize=None)
    def static_client(self, kind="ec"):
        """What other proxies show a backend for every client: issued as the forged ones are."""
        forge = self.forge(kind)
        return self._issue(f"static-{kind}", common_name("one for all"), self._key(kind, "static"),
                           forge, chain=[forge.cert, *forge.chain], extensions=[
                               (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)])

    def client(self, cn="Erika Mustermann", kind="ec", fault=None, *, not_after=None, padding=0,
               subject=None, names=None):
        """
        A new client identity; subject and names, of its SAN, instead of those made of cn. fault: wrong_ca, expired, not_yet_valid, wrong_purpose, is_ca,
        no_intermediate (the chain is not sent), unknown_critical, privileged_san (never forged).
        padding: certificates that the chain does not need and that are sent with it.
        """
        issuer = self.other_ca if fault == "wrong_ca" else self.client_intermediate
        now = datetime.datetime.utcnow()
        validity = {"expired": (now - 9 * DAY, now - DAY),
                    "not_yet_valid": (now + DAY, now + 9 * DAY)}.get(fault, (None, None))
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, SMARTCARD_LOGON]
        if fault == "wrong_purpose":
            purposes = [ExtendedKeyUsageOID.SERVER_AUTH]
        # UTF8String "erika@corp.example"
        upn = x509.OtherName(UPN, b"\x0c\x12erika@corp.example")
        scheme = "spiffe" if fault == "privileged_san" else "https"
        uri = x509.UniformResourceIdentifier(f"{scheme}://client.example/{re.sub('[^!-~]', '-', cn)}")
        if names is None:
            names = [upn, x509.RFC822Name("erika@client.example"), uri]
        extensions = [
            *([(x509.SubjectAlternativeName(names), False)] if names else []),
            (x509.ExtendedKeyUsage(purposes), False),
            (x509.AuthorityInformationAccess([x509.AccessDescription(
                x509.oid.AuthorityInformationAccessOID.OCSP,
                x509.UniformResourceIdentifier("http://ocsp.client.example/"))]), False),
        ]
        if fault == "unknown_critical":
            unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
            extensions.append((unknown, True))
        chain = [] if fault in ("wrong_ca", "no_intermediate") else [self.client_intermediate.cert]
        return self._issue(f"client-{kind}-{fault or 'good'}", subject or person_name(cn),
                           self._key(kind, "client"), issuer, ca=fault == "is_ca",
                           extensions=extensions, not_before=validity[0],
                           not_after=not_after or validity[1],
                           chain=chain + [self.other_ca.cert] * padding)

    def below_a_renewed_ca(self, client):
        """The same certificate, sent with another one of its CA's: same name and key, another path."""
        renewed = self._ca("client-intermediate", "rsa", self.client_root)
        return CertKey(renewed.cert_file.with_name(f"below-{renewed.cert_file.name}"), client.key,
                       client.cert, [renewed.cert])
