# SPDX-License-Identifier: Apache-2.0
"""
Certificate chains and the verdict on each, fixed here before any verifier has seen it. The sections
4.x are those of NIST's PKITS, whose situations they repeat; the rest is RFC 5280, RFC 4158, and
docs/verify.md.
"""

import itertools
import random

from harness.rawcert import *  # noqa: F403 pylint: disable=wildcard-import,unused-wildcard-import


class Case:
    """verdict: "ok", or "refused", with the number of the error where it is the point."""

    def __init__(self, name, rule, verdict, anchors, chain, *, error=None, purpose="client",
                 now=NOW, depth=10, partial=False, crls=(), crl_check=0):
        self.name, self.rule, self.verdict, self.error = name, rule, verdict, error
        self.anchors, self.chain = anchors, chain
        self.purpose, self.now, self.depth, self.partial = purpose, now, depth, partial
        self.crls, self.crl_check = crls, crl_check


# X509_V_ERR_*, and those of daemon/pki/verify.h
NO_ISSUER, SIGNATURE, NOT_YET, EXPIRED, BAD_NOT_BEFORE, BAD_NOT_AFTER = 20, 7, 9, 10, 13, 14
SELF_SIGNED_LEAF, SELF_SIGNED, TOO_LONG, INVALID_CA, PATHLEN, PURPOSE = 18, 19, 22, 79, 25, 26
UNHANDLED, INVALID_NON_CA, INVALID_EXTENSION, EXPLICIT_POLICY = 34, 37, 41, 43
PERMITTED, EXCLUDED, CONSTRAINT_TYPE, NAME_SYNTAX = 47, 48, 51, 53
EE_KEY, CA_KEY, CA_MD, EE_MD = 66, 67, 68, 68
KEY, SERIAL, BUDGET, CRL_MISSING, CRL_EXPIRED = range(0x1000, 0x1005)
REVOKED, OPTIONAL, MANDATORY, CRL_INVALID = 23, 1, 2, 0x1012
OK, REFUSED, UNFIT = "ok", "refused", "unfit"

ROOT = Cert("Root")
CA_ = Cert("CA", ROOT)
NO_HELP = ext(AKI, seq(tlv(0x80, b"another" * 3)))  # identifies none of the issuers
BASE = [basic_constraints(False), key_usage("digitalSignature"), eku(CLIENT_AUTH)]
CA_BASE = [basic_constraints(True), key_usage("keyCertSign", "cRLSign")]


def client(issuer=CA_, subject="Alice", **options):
    return Cert(subject, issuer, ca=False, **options)


def below(*cas, **options):
    """What a client below the last of cas sends: its certificate, and the CAs above."""
    return [client(cas[-1], **options), *reversed(cas)]


def cases():
    return [c for family in (signatures, validity, chaining, self_issued, constraints_basic,
                             path_lengths, usages, policy_cases, name_constraints, extensions,
                             fields, keys, building, hostile, servers, meshes,
                             revocation)
            for c in family()]


# ---- 4.1 signatures ----


def signatures():
    yield Case("signature-valid", "4.1.1", OK, [ROOT], below(CA_))
    yield Case("signature-ca-damaged", "4.1.2", REFUSED, [ROOT],
               below(Cert("CA", ROOT, damage=True)), error=SIGNATURE)
    yield Case("signature-leaf-damaged", "4.1.3", REFUSED, [ROOT], below(CA_, damage=True),
               error=SIGNATURE)
    yield Case("signature-other-key", "4.1.3", REFUSED, [ROOT],
               below(CA_, signer=key("stranger")), error=SIGNATURE)
    for kind, digest in itertools.product(("RSA-2048", "P-256", "P-384", "P-521", "brainpool"),
                                          ("sha1", "sha224", "sha256", "sha384", "sha512")):
        root = Cert("Root " + kind, kind=kind, digest="sha256")
        ca = Cert("CA " + kind, root, kind=kind)
        weak = digest == "sha1"
        yield Case(f"signature-{kind}-{digest}-leaf", "policy", REFUSED if weak else OK, [root],
                   below(ca, digest=digest), error=CA_MD if weak else None)
        yield Case(f"signature-{kind}-{digest}-ca", "policy", REFUSED if weak else OK, [root],
                   below(Cert("CA " + kind, root, kind=kind, digest=digest)),
                   error=CA_MD if weak else None)
        # nobody verifies an anchor's own signature
        yield Case(f"signature-{kind}-{digest}-root", "RFC 5280 6.1.1 (d)", OK,
                   [Cert("Root " + kind, kind=kind, digest=digest)], below(ca))
    for where in ("leaf", "ca"):
        root = Cert("Root RSA-2048", kind="RSA-2048")
        ca = Cert("CA RSA-2048", root, kind="RSA-2048", digest="md5" if where == "ca" else "sha256")
        yield Case(f"signature-md5-{where}", "policy", REFUSED, [root],
                   below(ca, digest="md5" if where == "leaf" else "sha256"))
    yield Case("signature-ed25519", "RFC 8410", OK, [Cert("Root Ed", kind="Ed25519")],
               below(Cert("CA Ed", Cert("Root Ed", kind="Ed25519"), kind="Ed25519"),
                     kind="Ed25519"))
    inconsistent = algorithm(key("x", "RSA-2048"), "sha256")
    yield Case("signature-algorithms-differ", "RFC 5280 4.1.1.2", REFUSED, [ROOT],
               below(CA_, inner=inconsistent))
    yield Case("signature-outer-differs", "RFC 5280 4.1.1.2", REFUSED, [ROOT],
               below(CA_, outer=inconsistent))
    root = Cert("Root DSA", kind="DSA")
    yield Case("signature-dsa-ca", "policy", REFUSED, [root], below(root)[:1], error=KEY)
    yield Case("signature-dsa-leaf", "policy", REFUSED, [ROOT], below(CA_, kind="DSA"), error=KEY)


# ---- 4.2 validity ----


def validity():
    past, future = NOW - 9 * DAY, NOW + 9 * DAY
    for section, field, error, value in (("4.2.1", "not_before", NOT_YET, future),
                                         ("4.2.5", "not_after", EXPIRED, past)):
        yield Case(f"validity-ca-{field}", section, REFUSED, [ROOT],
                   below(Cert("CA", ROOT, **{field: value})), error=error)
        yield Case(f"validity-leaf-{field}", section, REFUSED, [ROOT], below(CA_, **{field: value}),
                   error=error)
        yield Case(f"validity-root-{field}", "policy", REFUSED, [Cert("Root", **{field: value})],
                   below(CA_), error=error)
    old = tlv(0x17, b"500101120100Z")  # 1950, not 2050
    forms = {
        "utc-1950": (OK, "not_before", old), "general-before": (OK, "not_before", general(past)),
        "general-after": (OK, "not_after", tlv(0x18, b"20500101120100Z")),
        "general-early-after": (OK, "not_after", general(future)),
        "no-end": (OK, "not_after", tlv(0x18, b"99991231235959Z")),
        "utc-past": (REFUSED, "not_after", old),
        "general-past": (REFUSED, "not_after", general(past)),
        "no-seconds": (REFUSED, "not_after", tlv(0x17, b"3001011201Z")),
        "offset": (REFUSED, "not_after", tlv(0x17, b"300101120100+0100")),
        "fraction": (REFUSED, "not_after", tlv(0x18, b"20300101120100.5Z")),
        "local": (REFUSED, "not_after", tlv(0x18, b"20300101120100")),
        "no-date": (REFUSED, "not_after", tlv(0x17, b"309901120100Z")),
        "letters": (REFUSED, "not_after", tlv(0x17, b"30010112010OZ")),
        "empty": (REFUSED, "not_after", tlv(0x17, b"")),
        "before-no-seconds": (REFUSED, "not_before", tlv(0x17, b"2001011201Z")),
    }
    for name, (verdict, field, value) in forms.items():
        yield Case(f"validity-{name}", "4.2.3", verdict, [ROOT], below(CA_, **{field: value}))
        yield Case(f"validity-ca-{name}", "4.2.3", verdict, [ROOT],
                   below(Cert("CA", ROOT, **{field: value})))
    yield Case("validity-first-second", "RFC 5280 4.1.2.5", OK, [ROOT], below(CA_, not_before=NOW))
    # RFC 5280 includes notAfter itself; OpenSSL does not, and nothing is forged in the last second
    yield Case("validity-last-second", "docs/verify.md", REFUSED, [ROOT],
               below(CA_, not_after=NOW), error=EXPIRED)
    yield Case("validity-second-to-last", "RFC 5280 4.1.2.5", OK, [ROOT],
               below(CA_, not_after=NOW + 1))
    yield Case("validity-a-second-late", "RFC 5280 4.1.2.5", REFUSED, [ROOT],
               below(CA_, not_after=NOW - 1), error=EXPIRED)


# ---- 4.3 names chain ----


def chaining():
    def named(ca_name, issuer_name):
        ca = Cert(ca_name, ROOT)
        return [client(ca, issuer_name=issuer_name), ca]

    org = (O, "Test Certificates 2011")
    name = dn(org, "Good CA")
    yield Case("names-other", "4.3.1", REFUSED, [ROOT], named(name, dn(org, "Bad CA")),
               error=NO_ISSUER)
    yield Case("names-order", "4.3.2", REFUSED, [ROOT], named(name, dn("Good CA", org)))
    same = {
        "blanks": dn((O, "Test  Certificates 2011"), "Good   CA"),
        "outer-blanks": dn((O, " Test Certificates 2011 "), "Good CA "),
        "capitals": dn((O, "TEST certificates 2011"), "good CA"),
        "printable": dn((O, "Test Certificates 2011", 0x13), (CN, "Good CA", 0x13)),
        "mixed": dn((O, "Test Certificates 2011", 0x13), "GOOD  ca"),
    }
    for form, issuer_name in same.items():
        yield Case(f"names-{form}", "4.3.3-11", OK, [ROOT], named(name, issuer_name))
    yield Case("names-prefix", "4.3.1", REFUSED, [ROOT], named(name, dn(org, "Good CA 2")))
    yield Case("names-empty-issuer", "RFC 5280 4.1.2.4", REFUSED, [ROOT],
               [client(issuer_name=dn()), CA_])
    nameless = Cert(dn(), ROOT)
    yield Case("names-empty-ca", "RFC 5280 4.1.2.6", REFUSED, [ROOT], below(nameless))
    yield Case("names-uids", "4.3.6", OK, [ROOT],
               below(CA_, uids=tlv(0x81, b"\0\1") + tlv(0x82, b"\0\2")))
    yield Case("names-uids-version-1", "RFC 5280 4.1.2.8", REFUSED, [ROOT],
               below(CA_, uids=tlv(0x81, b"\0\1"), version=0, exts=[], ski=False, aki=False))


# ---- 4.5 self-issued certificates: new keys under the old name ----


def self_issued():
    old = Cert("Rolling CA", ROOT, key_name="old")
    new_with_old = Cert("Rolling CA", old, key_name="new")
    old_with_new = Cert("Rolling CA", Cert("Rolling CA", ROOT, key_name="new"), key_name="old")
    new = Cert("Rolling CA", ROOT, key_name="new")
    for ids in (True, False):
        suffix = "" if ids else "-no-ids"
        leaf_of_new = client(new_with_old, aki=ids or NO_HELP)
        leaf_of_old = client(old, aki=ids or NO_HELP)
        for order in itertools.permutations((new_with_old, old)):
            n = "".join("no"[c is old] for c in order)
            yield Case(f"rollover-new-with-old-{n}{suffix}", "4.5.3", OK, [ROOT],
                       [leaf_of_new, *order])
        yield Case(f"rollover-old-with-new{suffix}", "4.5.1", OK, [ROOT],
                   [leaf_of_old, old_with_new, new])
        yield Case(f"rollover-all{suffix}", "4.5.1", OK, [ROOT],
                   [leaf_of_old, new_with_old, new, old_with_new, old])
    root_new = Cert("Root", ROOT, key_name="new root")
    yield Case("rollover-of-the-root", "4.5.3", OK, [ROOT],
               [client(Cert("CA", root_new)), Cert("CA", root_new), root_new])
    no_sign = Cert("Rolling CA", old, key_name="new",
                   exts=[basic_constraints(), key_usage("cRLSign")])
    yield Case("rollover-crl-key", "4.5.7", REFUSED, [ROOT], [client(no_sign), no_sign, old],
               error=INVALID_CA)


# ---- 4.6.1-4 basic constraints ----


def constraints_basic():
    usage = key_usage("keyCertSign", "cRLSign")
    bad = {
        "missing": [usage], "false-critical": [basic_constraints(False), usage],
        "false": [basic_constraints(False, critical=False), usage],
        "version-1": None,
        "none-at-all": [],
    }
    for name, exts in bad.items():
        options = {"exts": exts} if exts is not None else {
            "exts": [], "version": 0, "ski": False, "aki": False}
        ca = Cert("CA", ROOT, **options)
        yield Case(f"basic-{name}", "4.6.1", REFUSED, [ROOT], below(ca))
    yield Case("basic-not-critical", "RFC 5280 4.2.1.9", REFUSED, [ROOT],
               below(Cert("CA", ROOT, exts=[basic_constraints(critical=False), usage])))
    yield Case("basic-pathlen-negative", "RFC 5280 4.2.1.9", REFUSED, [ROOT],
               below(Cert("CA", ROOT, pathlen=-1)))
    yield Case("basic-pathlen-without-ca", "RFC 5280 4.2.1.9", REFUSED, [ROOT],
               below(CA_, exts=[basic_constraints(False, 0), *BASE[1:]]))
    yield Case("basic-leaf-without", "RFC 5280 4.2.1.9", OK, [ROOT], below(CA_, exts=BASE[1:]))
    yield Case("basic-leaf-is-ca", "docs/verify.md", REFUSED, [ROOT],
               below(CA_, exts=[basic_constraints(), key_usage("keyCertSign", "digitalSignature"),
                                eku(CLIENT_AUTH)]), error=INVALID_NON_CA)
    yield Case("basic-leaf-signs-certificates", "RFC 5280 4.2.1.9", REFUSED, [ROOT],
               below(CA_, exts=[basic_constraints(False), key_usage("keyCertSign",
                                                                    "digitalSignature")]))
    alice = client()
    yield Case("basic-issued-by-a-leaf", "4.6.2", REFUSED, [ROOT],
               [client(alice, subject="Bob"), alice, CA_], error=INVALID_CA)


# ---- 4.6.5-17 path lengths ----


def path_lengths():
    def line(*lengths, self_issued_at=()):
        cas = [Cert("PL 0", ROOT, pathlen=lengths[0])]
        for i, n in enumerate(lengths[1:], 1):
            same = i in self_issued_at
            cas.append(Cert(cas[-1].name if same else f"PL {i}", cas[-1], pathlen=n,
                            key_name=f"pathlen key {i}"))
        return cas

    situations = {  # PKITS: verdict, pathLenConstraint of each CA, which are self-issued
        "4.6.5": (REFUSED, (0, None), ()), "4.6.7": (OK, (0,), ()),
        "4.6.8": (OK, (1, None), ()),
        "4.6.9": (REFUSED, (6, 0, 0, None), ()), "4.6.11": (REFUSED, (6, 1, 1, 0, None), ()),
        "4.6.13": (OK, (6, 4, 1, None), ()), "4.6.13b": (OK, (6, 4, 1), ()),
        "4.6.15": (OK, (0, None), (1,)), "4.6.16": (REFUSED, (0, None, None), (1,)),
        "4.6.17": (OK, (1, None, None, None), (1, 3)),
        "4.6.17b": (REFUSED, (1, None, None, None), (1,)),
        "wide": (OK, (9, 8, 7, 6, 5, 4, 3, 2, 1, 0), ()),
        "grows": (REFUSED, (0, 9), ()), "last": (REFUSED, (None, None, 0, None), ()),
    }
    for section, (verdict, lengths, same) in situations.items():
        yield Case(f"pathlen-{section}", section, verdict, [ROOT],
                   below(*line(*lengths, self_issued_at=same)),
                   error=PATHLEN if verdict == REFUSED else None)
    yield Case("pathlen-root-0", "4.6.5", REFUSED, [Cert("Root", pathlen=0)], below(CA_),
               error=PATHLEN)
    yield Case("pathlen-root-1", "4.6.5", OK, [Cert("Root", pathlen=1)], below(CA_))
    for depth, verdict in ((2, REFUSED), (3, OK), (16, OK)):
        yield Case(f"depth-{depth}-of-3", "docs/verify.md", verdict, [ROOT],
                   below(*line(None, None, None)), depth=depth,
                   error=TOO_LONG if verdict == REFUSED else None)
    yield Case("depth-0", "docs/verify.md", OK, [ROOT], below(ROOT)[:1], depth=0)
    yield Case("depth-0-of-1", "docs/verify.md", REFUSED, [ROOT], below(CA_), depth=0,
               error=TOO_LONG)
    yield Case("depth-16", "docs/verify.md", OK, [ROOT], below(*line(*[None] * 16)), depth=16)
    yield Case("depth-17", "docs/verify.md", REFUSED, [ROOT], below(*line(*[None] * 17)), depth=16)
    yield Case("unordered", "RFC 8446 4.4.2", OK, [ROOT],
               [below(*line(*[None] * 6))[0], *line(*[None] * 6)])


# ---- 4.7 key usage, and purposes ----


def usages():
    for critical in (True, False):
        for where in ("ca", "root"):
            exts = [basic_constraints(), key_usage("digitalSignature", "cRLSign", critical=critical)]
            root = Cert("Root", exts=exts) if where == "root" else ROOT
            ca = Cert("CA", ROOT, exts=exts) if where == "ca" else CA_
            yield Case(f"usage-{where}-cannot-sign-{critical}", "4.7.1", REFUSED, [root], below(ca),
                       error=INVALID_CA)
    yield Case("usage-ca-not-critical", "4.7.3", OK, [ROOT],
               below(Cert("CA", ROOT, exts=[basic_constraints(), key_usage("keyCertSign",
                                                                           critical=False)])))
    yield Case("usage-ca-without", "X509_V_FLAG_X509_STRICT", REFUSED, [ROOT],
               below(Cert("CA", ROOT, exts=[basic_constraints()])))
    leaf = {
        "signs": (OK, key_usage("digitalSignature")), "none": (OK, None),
        "encipher-too": (OK, key_usage("digitalSignature", "keyEncipherment")),
        "encipher": (REFUSED, key_usage("keyEncipherment")),
        "agree": (REFUSED, key_usage("keyAgreement")),
        "non-repudiation": (REFUSED, key_usage("nonRepudiation")),
        "decipher-only": (REFUSED, key_usage("decipherOnly")),
        "empty": (REFUSED, ext(KU, bits(b""), True)),
        "zero": (REFUSED, ext(KU, bits(b"\0", 7), True)),
    }
    for name, (verdict, usage) in leaf.items():
        yield Case(f"usage-leaf-{name}", "RFC 5280 4.2.1.3", verdict, [ROOT],
                   below(CA_, exts=[BASE[0], *([usage] if usage else []), BASE[2]]))
    purposes = {
        "client": (OK, OK, (CLIENT_AUTH,)), "both": (OK, OK, (SERVER_AUTH, CLIENT_AUTH)),
        "server": (REFUSED, REFUSED, (SERVER_AUTH,)),
        "ocsp": (REFUSED, REFUSED, (OCSP_SIGNING,)),
        "any": (REFUSED, OK, (ANY_EKU,)), "any-too": (OK, OK, (ANY_EKU, CLIENT_AUTH)),
        "unknown-too": (OK, OK, ("1.3.6.1.4.1.99999.7", CLIENT_AUTH)),
        "unknown": (REFUSED, REFUSED, ("1.3.6.1.4.1.99999.7",)),
        "empty": (REFUSED, REFUSED, ()),
    }
    for (name, (leaf_verdict, ca_verdict, kinds)), critical in itertools.product(
            purposes.items(), (False, True)):
        purpose = eku(*kinds, critical=critical)
        suffix = "-critical" if critical else ""
        yield Case(f"purpose-leaf-{name}{suffix}", "RFC 5280 4.2.1.12", leaf_verdict, [ROOT],
                   below(CA_, exts=[*BASE[:2], purpose]))
        yield Case(f"purpose-ca-{name}{suffix}", "RFC 5280 4.2.1.12", ca_verdict, [ROOT],
                   below(Cert("CA", ROOT, more=[purpose])))
    yield Case("purpose-root-server", "docs/verify.md", REFUSED,
               [Cert("Root", more=[eku(SERVER_AUTH)])], below(CA_), error=PURPOSE)
    yield Case("purpose-none", "RFC 5280 4.2.1.12", OK, [ROOT], below(CA_, exts=BASE[:2]))


# ---- 4.8 to 4.12 policies, with any policy acceptable at first ----


def policy_cases():
    p1, p2 = "2.16.840.1.101.3.2.1.48.1", "2.16.840.1.101.3.2.1.48.2"

    def chain(*cas, leaf=()):
        made = []
        for i, more in enumerate(cas):
            made.append(Cert(f"Policy CA {i}", made[-1] if made else ROOT, more=more))
        return below(*made, exts=[*BASE, *leaf])

    situations = {
        "none": ("4.8.2", OK, chain([], [])),
        "same": ("4.8.1", OK, chain([policies(p1)], [policies(p1)], leaf=[policies(p1)])),
        "differ": ("4.8.3", OK, chain([policies(p1)], [policies(p2)], leaf=[policies(p1)])),
        "any": ("4.8.14", OK, chain([policies(ANY_POLICY)], leaf=[policies(p1)])),
        "explicit-none": ("4.9.3", REFUSED, chain([policy_constraints(0)], [])),
        "explicit-same": ("4.9.2", OK, chain([policies(p1), policy_constraints(0)], [policies(p1)],
                                             leaf=[policies(p1)])),
        "explicit-differ": ("4.8.3", REFUSED, chain([policies(p1), policy_constraints(0)],
                                                    [policies(p2)], leaf=[policies(p1)])),
        "explicit-leaf-lacks": ("4.9.3", REFUSED, chain([policies(p1), policy_constraints(0)],
                                                        [policies(p1)])),
        "explicit-later": ("4.9.1", OK, chain([policies(p1), policy_constraints(10)],
                                              [policies(p1)])),
        "explicit-2": ("4.9.5", REFUSED, chain([policies(p1), policy_constraints(2)],
                                               [policies(p1)], [policies(p1)])),
        "explicit-shrinks": ("4.9.5", REFUSED, chain([policies(p1), policy_constraints(7)],
                                                     [policies(p1), policy_constraints(0)])),
        "explicit-cannot-grow": ("4.9.7", REFUSED, chain([policies(p1), policy_constraints(0)],
                                                         [policies(p1), policy_constraints(9)])),
        "explicit-any": ("4.8.15", OK, chain([policies(ANY_POLICY), policy_constraints(0)],
                                             leaf=[policies(ANY_POLICY)])),
        "explicit-leaf-any": ("4.8.17", OK, chain([policies(p1), policy_constraints(0)],
                                                  leaf=[policies(ANY_POLICY)])),
        "inhibit-any-0": ("4.12.1", REFUSED,
                          chain([policies(p1), policy_constraints(0), inhibit_any(0)],
                                leaf=[policies(ANY_POLICY)])),
        "inhibit-any-0-named": ("4.12.2", OK,
                                chain([policies(p1), policy_constraints(0), inhibit_any(0)],
                                      leaf=[policies(p1)])),
        "inhibit-any-1": ("4.12.3", OK,
                          chain([policies(p1), policy_constraints(0), inhibit_any(1)],
                                [policies(ANY_POLICY)], leaf=[policies(p1)])),
        "inhibit-any-1-twice": ("4.12.5", REFUSED,
                                chain([policies(p1), policy_constraints(0), inhibit_any(1)],
                                      [policies(ANY_POLICY)], leaf=[policies(ANY_POLICY)])),
        "mapped": ("4.10.1", OK, chain([policies(p1), policy_constraints(0), mappings((p1, p2))],
                                       leaf=[policies(p2)])),
        "mapped-away": ("4.10.1", REFUSED,
                        chain([policies(p1), policy_constraints(0), mappings((p1, p2))],
                              leaf=[policies(p1)])),
        "mapping-inhibited": ("4.11.1", REFUSED,
                              chain([policies(p1), policy_constraints(0, 0)],
                                    [policies(p1), mappings((p1, p2))], leaf=[policies(p2)])),
        "mapping-inhibited-later": ("4.11.4", OK,
                                    chain([policies(p1), policy_constraints(0, 1)],
                                          [policies(p1), mappings((p1, p2))],
                                          leaf=[policies(p2)])),
        "mapping-from-any": ("4.10.7", REFUSED,
                             chain([policies(p1), policy_constraints(0),
                                    mappings((ANY_POLICY, p1))], leaf=[policies(p1)])),
        "mapping-to-any": ("4.10.8", REFUSED,
                           chain([policies(p1), policy_constraints(0), mappings((p1, ANY_POLICY))],
                                 leaf=[policies(p1)])),
        "critical": ("4.8.20", OK, chain([policies(p1, critical=True)],
                                         leaf=[policies(p1, critical=True)])),
        "repeated": ("RFC 5280 4.2.1.4", REFUSED, chain([policies(p1)], leaf=[policies(p1, p1)])),
        "malformed": ("RFC 5280 4.2.1.4", REFUSED, chain([policies(p1)], leaf=[ext(CP, b"\5\0")])),
        "constraints-empty": ("RFC 5280 4.2.1.11", REFUSED, chain([ext(PC, seq(), True)])),
    }
    for name, (section, verdict, certs) in situations.items():
        yield Case(f"policy-{name}", section, verdict, [ROOT], certs)


# ---- 4.13 name constraints ----


def name_constraints():
    org = (O, "Corp")
    good_dn, other_dn = dn(org, (OU, "In"), "Alice"), dn((O, "Else"), "Alice")

    kinds = {
        "directory": (directory(dn(org)), None, None, good_dn, other_dn),
        "email-host": (email("corp.example"), [email("a@corp.example")],
                       [email("a@else.example"), email("a@sub.corp.example"),
                        email("a@corp.example.else")], None, None),
        "email-domain": (email(".corp.example"), [email("a@x.corp.example")],
                         [email("a@corp.example")], None, None),
        "email-mailbox": (email("a@corp.example"), [email("a@corp.example")],
                          [email("b@corp.example")], None, None),
        "dns": (dns("corp.example"), [dns("corp.example"), dns("a.b.corp.example"),
                                      dns("A.CORP.example")],
                [dns("else.example"), dns("notcorp.example"), dns("corp.example.else")], None, None),
        "uri": (uri(".corp.example"), [uri("https://a.corp.example/x"),
                                       uri("https://a.corp.example:444/")],
                [uri("https://else.example/"), uri("https://corp.example/")], None, None),
        "uri-host": (uri("corp.example"), [uri("https://corp.example/x")],
                     [uri("https://a.corp.example/")], None, None),
        "ip": (ip(192, 0, 2, 0, 255, 255, 255, 0), [ip(192, 0, 2, 7)], [ip(192, 0, 3, 7)],
               None, None),
        "ip6": (ip(*[0x20, 1, 0x0d, 0xb8] + [0] * 12 + [255] * 4 + [0] * 12),
                [ip(*[0x20, 1, 0x0d, 0xb8] + [7] * 12)], [ip(*[0x20, 1, 0x0d, 0xb9] + [7] * 12)],
                None, None),
    }
    for kind, (base, inside, outside, dn_in, dn_out) in kinds.items():
        names = ([(OK, san(n), None) for n in inside or ()] +
                 [(REFUSED, san(n), None) for n in outside or ()])
        if dn_in:
            names = [(OK, None, dn_in), (REFUSED, None, dn_out),
                     (OK, san(directory(dn_in)), dn_in), (REFUSED, san(directory(dn_out)), dn_in)]
        for i, (verdict, more, subject) in enumerate(names):
            for permitted in (True, False):
                side = "permitted" if permitted else "excluded"
                expected = verdict if permitted else {OK: REFUSED, REFUSED: OK}[verdict]
                # one certificate's two names, one inside and one outside: refused either way
                if more and subject and verdict == REFUSED:
                    expected = REFUSED
                rule = constraints(*((base,), ()) if permitted else ((), (base,)))
                error = (PERMITTED if permitted else EXCLUDED) if expected == REFUSED else None
                for where in ("ca", "above"):
                    ca_name = dn(org, "Issuing") if dn_in and permitted else dn("Issuing")
                    top = Cert("Constrained", ROOT, more=[rule]) if where == "above" else ROOT
                    ca = Cert(ca_name, top, more=[] if where == "above" else [rule])
                    chain = [Cert(subject or dn("Alice"), ca, ca=False,
                                  more=[more] if more else []), ca]
                    if where == "above":
                        chain.append(top)
                    yield Case(f"constraint-{kind}-{i}-{side}-{where}", "4.13", expected, [ROOT],
                               chain, error=error)

    def under(rules, *names, subject="Alice", more=()):
        ca = Cert("CA", ROOT, more=[rules])
        return [Cert(dn(*subject) if isinstance(subject, tuple) else subject, ca, ca=False,
                     more=[*([san(*names)] if names else []), *more]), ca]

    corp = constraints((dns("corp.example"),))
    yield Case("constraint-other-form", "4.13.21", OK, [ROOT], under(corp, email("a@else.example")))
    yield Case("constraint-no-names", "4.13.30", OK, [ROOT], under(corp))
    yield Case("constraint-one-of-two", "4.13.33", REFUSED, [ROOT],
               under(corp, dns("a.corp.example"), dns("a.else.example")), error=PERMITTED)
    yield Case("constraint-cn-is-no-dns-name", "RFC 9525 2", OK, [ROOT],
               under(corp, subject="john.doe"))
    yield Case("constraint-cn-looks-like-one", "RFC 9525 2", OK, [ROOT],
               under(corp, subject="a.else.example"))
    mail = constraints((email("corp.example"),))
    yield Case("constraint-email-in-subject", "4.13.22", OK, [ROOT],
               under(mail, subject=((EMAIL, "a@corp.example", 0x16), "Alice")))
    yield Case("constraint-email-in-subject-else", "4.13.23", REFUSED, [ROOT],
               under(mail, subject=((EMAIL, "a@else.example", 0x16), "Alice")), error=PERMITTED)
    upn = other_name(UPN, tlv(0x0C, b"a@corp.example"))
    yield Case("constraint-unknown-form", "RFC 5280 4.2.1.10", REFUSED, [ROOT],
               under(constraints((other_name(UPN, tlv(0x0C, b"corp.example")),)), upn))
    yield Case("constraint-unknown-form-absent", "RFC 5280 4.2.1.10", OK, [ROOT],
               under(constraints((other_name(UPN, tlv(0x0C, b"corp.example")),)),
                     email("a@corp.example")))
    yield Case("constraint-upn-not-meant", "RFC 5280 4.2.1.10", OK, [ROOT], under(mail, upn))
    rid = registered_id("1.2.3.4")
    yield Case("constraint-registered-id", "RFC 5280 4.2.1.10", REFUSED, [ROOT],
               under(constraints((rid,)), rid))
    yield Case("constraint-excluded-registered-id", "RFC 5280 4.2.1.10", REFUSED, [ROOT],
               under(constraints((), (rid,)), registered_id("1.2.3.5")))
    yield Case("constraint-empty", "RFC 5280 4.2.1.10", REFUSED, [ROOT], under(ext(NC, seq(), True)))
    yield Case("constraint-minimum", "RFC 5280 4.2.1.10", REFUSED, [ROOT],
               under(ext(NC, seq(tlv(0xA0, seq(dns("corp.example"), tlv(0x80, b"\1")))), True),
                     dns("a.corp.example")))
    yield Case("constraint-maximum", "RFC 5280 4.2.1.10", REFUSED, [ROOT],
               under(ext(NC, seq(tlv(0xA0, seq(dns("corp.example"), tlv(0x81, b"\5")))), True),
                     dns("a.corp.example")))
    yield Case("constraint-short-address", "RFC 5280 4.2.1.10", REFUSED, [ROOT],
               under(constraints((ip(192, 0, 2, 0),)), ip(192, 0, 2, 1)))
    uris = constraints((uri(".corp.example"),))
    no_uris = constraints((), (uri(".else.example"),))
    yield Case("constraint-uri-userinfo", "RFC 5280 4.2.1.10", REFUSED, [ROOT],
               under(uris, uri("https://x.corp.example:y@else.example/")))
    yield Case("constraint-uri-userinfo-excluded", "RFC 5280 4.2.1.10", REFUSED, [ROOT],
               under(no_uris, uri("https://x@a.else.example/")))
    yield Case("constraint-uri-address", "RFC 5280 4.2.1.10", REFUSED, [ROOT],
               under(no_uris, uri("https://192.0.2.1/")))
    yield Case("constraint-uri-no-host", "RFC 5280 4.2.1.10", REFUSED, [ROOT],
               under(no_uris, uri("urn:uuid:1")))
    yield Case("constraint-uri-query", "RFC 5280 4.2.1.10", REFUSED, [ROOT],
               under(uris, uri("https://else.example?.corp.example")))
    yield Case("uri-unconstrained", "RFC 5280 4.2.1.6", OK, [ROOT],
               below(CA_, more=[san(uri("urn:uuid:1"), uri("https://u@192.0.2.1/"))]))
    # a self-issued CA need not have a name under the constraint, the last one must
    rule = constraints((directory(dn(org)),))
    named = Cert(dn(org, "CA"), ROOT)
    rolled = Cert(dn(org, "CA"), named, key_name="rolled", more=[rule])
    yield Case("constraint-self-issued", "4.13.19", OK, [ROOT],
               [Cert(good_dn, rolled, ca=False), rolled, named])
    outside = Cert("CA", ROOT, more=[rule])
    again = Cert("CA", outside, key_name="again")
    yield Case("constraint-self-issued-outside", "4.13.19", OK, [ROOT],
               [Cert(good_dn, again, ca=False), again, outside])
    yield Case("constraint-self-issued-last", "4.13.20", REFUSED, [ROOT],
               [Cert("CA", outside, ca=False, key_name="leaf"), outside], error=PERMITTED)
    narrow = Cert(dn(org, "Narrow"), Cert(dn(org, "Wide"), ROOT, more=[constraints(
        (email("corp.example"), email(".corp.example")))]), more=[constraints((
            email("x.corp.example"),))])
    wide = Cert(dn(org, "Wide"), ROOT, more=[constraints((email("corp.example"),
                                                          email(".corp.example")))])
    for address, verdict in (("a@x.corp.example", OK), ("a@corp.example", REFUSED),
                             ("a@y.corp.example", REFUSED)):
        yield Case(f"constraint-narrowed-{address}", "4.13.24", verdict, [ROOT],
                   [client(narrow, more=[san(email(address))]), narrow, wide])
    yield Case("constraint-of-the-root", "RFC 5280 6.1.1", REFUSED,
               [Cert("Root", more=[corp])], below(CA_, more=[san(dns("else.example"))]))


# ---- 4.16 unknown extensions; form of extensions ----


def extensions():
    unknown = "1.3.6.1.4.1.99999.1"
    for critical, verdict in ((False, OK), (True, REFUSED)):
        more = [ext(unknown, b"\5\0", critical)]
        error = UNHANDLED if critical else None
        yield Case(f"unknown-leaf-{critical}", "4.16.1", verdict, [ROOT], below(CA_, more=more),
                   error=error)
        yield Case(f"unknown-ca-{critical}", "4.16.2", verdict, [ROOT],
                   below(Cert("CA", ROOT, more=more)), error=error)
    known = {
        "basic": basic_constraints(False), "usage": key_usage("digitalSignature"),
        "purpose": eku(CLIENT_AUTH), "san": san(email("a@b.example")),
        "policies": policies("1.2.3.4"), "aia": ext("1.3.6.1.5.5.7.1.1", seq()),
        "unknown": ext(unknown, b"\5\0"), "ski": ext(SKI, octets(b"x" * 20)),
    }
    for name, extension in known.items():
        yield Case(f"twice-{name}", "RFC 5280 4.2", REFUSED, [ROOT],
                   below(CA_, exts=BASE, more=[extension] * 2))
    for name, extension in {
            "basic": basic_constraints(), "policies": policies("1.2.3.4"),
            "constraints": constraints((), (dns("x.example"),)),
            "policy-constraints": policy_constraints(5), "unknown": ext(unknown, b"")}.items():
        n = 1 if name == "basic" else 2
        yield Case(f"twice-ca-{name}", "RFC 5280 4.2", REFUSED, [ROOT],
                   below(Cert("CA", ROOT, more=[extension] * n)))
    junk = {
        "basic": ext(BC, seq() + b"\5\0", True), "usage": ext(KU, bits(b"\x80", 7) + b"\0", True),
        "purpose": ext(EKU, seq(oid(CLIENT_AUTH)) + b"\0"),
        "san": ext(SAN, seq(email("a@b.example")) + b"\0"),
        "san-list": ext(SAN, email("a@b.example")), "purpose-type": ext(EKU, octets(b"x")),
        "basic-type": ext(BC, boolean(True), True), "san-truncated": ext(SAN, b"\x30\x0a\x81\x01a"),
    }
    for name, extension in junk.items():
        replaced = {"basic": 0, "usage": 1, "purpos": 2}.get(name[:6].split("-")[0])
        exts = [e for i, e in enumerate(BASE) if i != replaced]
        yield Case(f"malformed-{name}", "RFC 5280 4.2", REFUSED, [ROOT],
                   below(CA_, exts=[*exts, extension]))
    ca_junk = {
        "basic": [ext(BC, seq(boolean(True)) + b"\0", True), CA_BASE[1]],
        "usage": [CA_BASE[0], ext(KU, bits(b"\x04", 2) + b"\0", True)],
        "constraints": [*CA_BASE, ext(NC, constraints((dns("x"),))[-3:], True)],
        "constraints-trail": [*CA_BASE, ext(NC, seq(tlv(0xA1, seq(dns("x.example")))) + b"\0", True)],
    }
    for name, exts in ca_junk.items():
        yield Case(f"malformed-ca-{name}", "RFC 5280 4.2", REFUSED, [ROOT],
                   below(Cert("CA", ROOT, exts=exts)))
    sans = {
        "empty": (REFUSED, san()), "empty-dns": (REFUSED, san(dns(""))),
        "nul": (REFUSED, san(dns("a\0b"))), "empty-email": (REFUSED, san(email(""))),
        "high": (REFUSED, san(tlv(0x81, b"\xe4@b.example"))), "short-ip": (REFUSED, san(ip(1, 2, 3))),
        "long-ip": (REFUSED, san(ip(*range(8)))), "control": (REFUSED, san(uri("http://a\r\nb"))),
        "many": (OK, san(*(email(f"u{i}@b.example") for i in range(200)))),
        "upn": (OK, san(other_name(UPN, tlv(0x0C, "ü@b.example".encode())))),
        "registered-id": (OK, san(registered_id("1.2.3"))), "directory": (OK, san(directory(dn("A")))),
    }
    for name, (verdict, names) in sans.items():
        yield Case(f"san-{name}", "RFC 5280 4.2.1.6", verdict, [ROOT], below(CA_, more=[names]))
    for critical, verdict in ((True, OK), (False, REFUSED)):
        yield Case(f"san-only-{critical}", "RFC 5280 4.1.2.6", verdict, [ROOT],
                   [Cert(dn(), CA_, ca=False, more=[san(email("a@b.example"), critical=critical)]),
                    CA_])
    yield Case("no-name-at-all", "RFC 5280 4.1.2.6", REFUSED, [ROOT],
               [Cert(dn(), CA_, ca=False), CA_])
    yield Case("proxy", "RFC 3820", REFUSED, [ROOT],
               [client(client(), subject=dn("Alice", "proxy"), more=[
                   ext("1.3.6.1.5.5.7.1.14", seq(seq(oid("1.3.6.1.5.5.7.21.1"))), True)]),
                client(), CA_])
    yield Case("aki-critical", "RFC 5280 4.2.1.1", REFUSED, [ROOT],
               below(CA_, aki=ext(AKI, seq(tlv(0x80, key_id(CA_.key))), True)))
    yield Case("ski-critical", "RFC 5280 4.2.1.2", REFUSED, [ROOT],
               below(CA_, ski=ext(SKI, octets(b"1"), True)))
    yield Case("aki-empty", "X509_V_FLAG_X509_STRICT", REFUSED, [ROOT], below(CA_, aki=ext(AKI, seq())))
    yield Case("aki-missing", "X509_V_FLAG_X509_STRICT", REFUSED, [ROOT], below(CA_, aki=False))
    yield Case("ski-missing-ca", "X509_V_FLAG_X509_STRICT", REFUSED, [ROOT],
               below(Cert("CA", ROOT, ski=False)))
    yield Case("ski-missing-leaf", "RFC 5280 4.2.1.2", OK, [ROOT], below(CA_, ski=False))


# ---- 4.4.14-17 serial numbers, versions, public keys ----


# Tag and content of a common name.
UNREADABLE = {
    "nul": (0x0C, b"admin\0.guest-users.example"),
    "nul-printable": (0x13, b"admin\0x"),
    "nul-ia5": (0x16, b"admin\0x"),
    "nul-bmp": (0x1E, b"\0a\0\0\0x"),
    "nul-universal": (0x1C, b"\0\0\0a\0\0\0\0"),
    "newline": (0x0C, b"a\nb"),
    "escape": (0x14, b"\x1b[2J"),
    "del": (0x0C, b"a\x7f"),
    "c1": (0x0C, b"a\xc2\x9b2J"),
    "c1-latin-1": (0x14, b"a\x9b2J"),
    "ia5-eight-bits": (0x16, b"a\xe4"),
    "printable-eight-bits": (0x13, b"a\xe4"),
}
# OpenSSL reads no certificate that has this in a subject.
MALFORMED = {
    "utf8-cut": (0x0C, b"a\xc3"),
    "utf8-overlong-nul": (0x0C, b"admin\xc0\x80x"),
    "utf8-surrogate": (0x0C, b"a\xed\xa0\x80"),
    "bmp-odd": (0x1E, b"\0a\0"),
    "universal-odd": (0x1C, b"\0\0\0a\0"),
    "universal-beyond": (0x1C, b"\0\x11\0\0"),
}
READABLE = {
    "utf8": (0x0C, "Prüfer\u00a0Ω".encode()),
    "latin-1": (0x14, b"Pr\xfcfer"),
    "bmp": (0x1E, b"\0P\0r\x20\xac"),
    "universal": (0x1C, b"\0\x01\xf6\0"),
    "bits": (0x03, b"\0\0\1"),  # no text: an x500UniqueIdentifier, say
}


def fields():
    serials = {"negative": (OK, -1), "zero": (OK, 0), "20-octets": (OK, 2**159 - 1),
               "20-octets-high": (OK, 2**160 - 1), "21-octets": (REFUSED, 2**161),
               "200-octets": (REFUSED, 2**1599)}
    for name, (verdict, serial) in serials.items():
        error = SERIAL if verdict == REFUSED else None
        yield Case(f"serial-{name}", "4.4.14", verdict, [ROOT], below(CA_, serial=serial),
                   error=error)
        yield Case(f"serial-ca-{name}", "4.4.14", verdict, [ROOT],
                   below(Cert("CA", ROOT, serial=serial)), error=error)
    for version, verdict in ((0, REFUSED), (1, REFUSED), (2, OK), (3, REFUSED), (9, REFUSED)):
        yield Case(f"version-{version + 1}", "RFC 5280 4.1.2.1", verdict, [ROOT],
                   below(CA_, version=version))
    for version in (0, 1):
        yield Case(f"version-{version + 1}-bare", "RFC 5280 4.1.2.1", OK, [ROOT],
                   below(CA_, version=version, exts=[], ski=False, aki=False))
    # Who reads names as C strings, or as Latin-1, must read what the CA has meant.
    for what, (tag, value) in UNREADABLE.items():
        name = seq(set_of(seq(oid("2.5.4.3"), tlv(tag, value))))
        yield Case(f"subject-{what}", "names", REFUSED, [ROOT], below(CA_, subject=name),
                   error=NAME_SYNTAX)
        yield Case(f"subject-ca-{what}", "names", REFUSED, [ROOT], below(Cert(name, ROOT)),
                   error=NAME_SYNTAX)
        yield Case(f"san-dir-{what}", "names", REFUSED, [ROOT],
                   below(CA_, more=[san(directory(name))]), error=NAME_SYNTAX)
    for what, (tag, value) in {**UNREADABLE, **MALFORMED}.items():
        upn = other_name("1.3.6.1.4.1.311.20.2.3", tlv(tag, value))
        yield Case(f"san-upn-{what}", "names", REFUSED, [ROOT], below(CA_, more=[san(upn)]),
                   error=NAME_SYNTAX if what in UNREADABLE else None)
    for what, (tag, value) in READABLE.items():
        name = seq(set_of(seq(oid("2.5.4.3"), tlv(tag, value))))
        yield Case(f"subject-{what}", "names", OK, [ROOT], below(CA_, subject=name))


def keys():
    def weak(kind):
        return REFUSED if kind in ("RSA-1024", "RSA-2047", "P-192", "P-224", "RSA-2048/3x") else OK

    for kind in ("RSA-1024", "RSA-2047", "RSA-2048", "RSA-3072", "RSA-2048/3", "P-192", "P-224",
                 "P-256", "P-384", "P-521", "brainpool"):
        error = None if weak(kind) == OK else EE_KEY
        yield Case(f"key-leaf-{kind.replace('/', '-e')}", "policy", weak(kind), [ROOT],
                   below(CA_, kind=kind), error=error)
        if "/" in kind:
            continue
        ca = Cert("CA " + kind, ROOT, kind=kind)
        yield Case(f"key-ca-{kind}", "policy", weak(kind), [ROOT], below(ca),
                   error=CA_KEY if error else None)
        root = Cert("Root " + kind, kind=kind)
        yield Case(f"key-root-{kind}", "policy", weak(kind), [root], below(Cert("CA", root)),
                   error=CA_KEY if error else None)
    n = key("modulus", "RSA-2048").public_key().public_numbers().n

    def rsa_spki(modulus, exponent):
        return seq(seq(oid("1.2.840.113549.1.1.1"), NULL), bits(seq(integer(modulus),
                                                                    integer(exponent))))

    for name, public in {"exponent-1": rsa_spki(n, 1), "exponent-even": rsa_spki(n, 65536),
                         "exponent-huge": rsa_spki(n, 2**2000 + 1),
                         "modulus-huge": rsa_spki(2**16383 + 1, 65537)}.items():
        yield Case(f"key-rsa-{name}", "docs/verify.md", REFUSED, [ROOT], below(CA_, public=public),
                   error=KEY)
    p256 = key("explicit").public_key()
    p = 2**256 - 2**224 + 2**192 + 2**96 - 1
    b = 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b
    g = bytes.fromhex("046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
                      "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")
    order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551
    point = p256.public_bytes(serialization.Encoding.X962,
                              serialization.PublicFormat.UncompressedPoint)
    explicit = seq(seq(oid("1.2.840.10045.2.1"), seq(
        integer(1), seq(oid("1.2.840.10045.1.1"), integer(p)),
        seq(octets((p - 3).to_bytes(32, "big")), octets(b.to_bytes(32, "big"))), octets(g),
        integer(order), integer(1))), bits(point))
    yield Case("key-explicit-curve", "RFC 5480 2.1.1", REFUSED, [ROOT],
               below(CA_, public=explicit), error=94)
    ca = Cert("CA", ROOT, public=explicit, private=key("explicit"))
    yield Case("key-explicit-curve-ca", "RFC 5480 2.1.1", REFUSED, [ROOT], below(ca), error=94)
    off_curve = seq(seq(oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7")),
                    bits(b"\4" + b"\1" * 64))
    yield Case("key-not-on-the-curve", "RFC 5480", REFUSED, [ROOT], below(CA_, public=off_curve))
    x25519 = seq(seq(oid("1.3.101.110")), bits(b"\x09" + b"\0" * 31))
    yield Case("key-x25519", "docs/verify.md", REFUSED, [ROOT], below(CA_, public=x25519),
               error=KEY)


# ---- path building, RFC 4158 ----


def building():
    """What OpenSSL alone fails: it takes the first issuer of the right name and never goes back."""
    other = Cert("Other Root")
    by_other = Cert("CA", other)  # the same CA, signed by another
    expired = Cert("CA", ROOT, not_after=NOW - DAY)
    weak = Cert("CA", ROOT, digest="sha1")
    leaf = client()
    bad = {
        "expired": expired, "not-yet": Cert("CA", ROOT, not_before=NOW + DAY), "weak": weak,
        "untrusted": by_other, "damaged": Cert("CA", ROOT, damage=True),
        "cannot-sign": Cert("CA", ROOT, exts=[basic_constraints(), key_usage("cRLSign")]),
        "no-ca": Cert("CA", ROOT, exts=[basic_constraints(False), key_usage("digitalSignature")]),
        "constrained": Cert("CA", ROOT, more=[constraints((directory(dn((O, "Corp"))),))]),
        "server": Cert("CA", ROOT, more=[eku(SERVER_AUTH)]),
        "unknown": Cert("CA", ROOT, more=[ext("1.3.6.1.4.1.99999.1", b"", True)]),
        "pathlen": Cert("CA", Cert("Short", ROOT, pathlen=0)),
        "other-key": Cert("CA", ROOT, key_name="other key"),
        "other-key-same-ids": Cert("CA", ROOT, key_name="other key",
                                   ski=ext(SKI, octets(key_id(CA_.key)))),
    }
    for name, cert in bad.items():
        extra = [Cert("Short", ROOT, pathlen=0)] if name == "pathlen" else []
        for order, chain in (("before", [leaf, cert, CA_, *extra]),
                             ("behind", [leaf, CA_, cert, *extra])):
            yield Case(f"cross-{name}-{order}", "RFC 4158", OK, [ROOT], chain)
        yield Case(f"cross-{name}-alone", "RFC 4158", REFUSED, [ROOT], [leaf, cert, *extra])
        if name != "untrusted":
            yield Case(f"cross-{name}-other-root", "RFC 4158", OK, [ROOT, other],
                       [leaf, cert, by_other, *extra])
    everything = [leaf, *bad.values(), Cert("Short", ROOT, pathlen=0)]
    yield Case("cross-all-faults", "RFC 4158", REFUSED, [ROOT], everything)
    yield Case("cross-all-faults-but-one", "RFC 4158", OK, [ROOT], [*everything, CA_])
    # A root that is also cross-signed by an old one, which is gone
    cross_root = Cert("Root", Cert("Old Root"))
    yield Case("cross-root-untrusted", "RFC 4158", OK, [ROOT], [leaf, CA_, cross_root])
    yield Case("cross-root-expired", "RFC 4158", OK, [ROOT],
               [leaf, CA_, Cert("Root", Cert("Old Root"), not_after=NOW - DAY), Cert("Old Root")])
    yield Case("cross-root-is-the-way", "RFC 4158", OK, [Cert("Old Root")], [leaf, CA_, cross_root])
    yield Case("root-expired-and-new", "RFC 4158", OK,
               [Cert("Root", not_after=NOW - DAY), Cert("Root")], [leaf, CA_])
    yield Case("root-twice", "RFC 4158", OK, [ROOT, Cert("Root", serial=7)], [leaf, CA_])
    yield Case("root-name-twice", "RFC 4158", OK, [Cert("Root", key_name="another root"), ROOT],
               [leaf, CA_])
    yield Case("root-expired", "RFC 4158", REFUSED, [Cert("Root", not_after=NOW - DAY)],
               [leaf, CA_], error=EXPIRED)
    no_id = {"wrong": NO_HELP,
             "serial": ext(AKI, seq(tlv(0x80, key_id(CA_.key)), tlv(0xA1, directory(ROOT.name)),
                                    tlv(0x82, b"\x77")))}
    for name, aki in no_id.items():
        yield Case(f"identifier-{name}", "RFC 4158 3.5.12", OK, [ROOT], [client(aki=aki), CA_])
        yield Case(f"identifier-{name}-crossed", "RFC 4158 3.5.12", OK, [ROOT],
                   [client(aki=aki), expired, Cert("CA", ROOT, key_name="other key"), CA_])
    # two CAs that certify each other, and one way out
    a_root = Cert("A", ROOT)
    a_b, b_a = Cert("A", Cert("B"), ), Cert("B", Cert("A"))
    leaf_b = client(Cert("B"))
    yield Case("loop-with-a-way-out", "RFC 4158 2.4.2", OK, [ROOT], [leaf_b, b_a, a_b, a_root])
    yield Case("loop-with-a-way-out-last", "RFC 4158 2.4.2", OK, [ROOT],
               [leaf_b, a_b, b_a, Cert("B", Cert("C")), Cert("C", Cert("B")), a_root])
    yield Case("loop", "RFC 4158 2.4.2", REFUSED, [ROOT], [leaf_b, b_a, a_b], error=NO_ISSUER)
    # a bridge: two PKIs meet, and one has to go through
    bridge = Cert("Bridge")
    yield Case("bridge", "RFC 4158 1.5", OK, [ROOT],
               [client(Cert("P1")), Cert("P1", bridge), Cert("Bridge", Cert("P2")),
                Cert("Bridge", Cert("P3")), Cert("P2", Cert("P3")), Cert("P3", Cert("P2")),
                Cert("P3", ROOT)])
    yield Case("anchor-in-the-middle", "RFC 4158", OK, [ROOT, CA_], [leaf, CA_])
    middle = Cert("Middle", ROOT)
    for partial in (False, True):
        yield Case(f"partial-{partial}", "docs/verify.md", OK if partial else REFUSED, [middle],
                   [client(middle), middle], partial=partial)
    yield Case("partial-below", "docs/verify.md", OK, [middle],
               [client(Cert("CA", middle)), Cert("CA", middle)], partial=True)
    yield Case("partial-leaf", "docs/verify.md", OK, [leaf], [leaf], partial=True)
    yield Case("partial-expired", "docs/verify.md", REFUSED,
               [Cert("Middle", ROOT, not_after=NOW - DAY)], [client(middle)], partial=True,
               error=EXPIRED)
    yield Case("ca-known-here", "docs/verify.md", OK, [ROOT, CA_], [leaf])
    yield Case("ca-unknown", "docs/verify.md", REFUSED, [ROOT], [leaf], error=NO_ISSUER)
    alone = Cert("Alone", ca=False, more=[])
    yield Case("self-signed-trusted", "docs/verify.md", OK, [alone], [alone])
    yield Case("self-signed", "docs/verify.md", REFUSED, [ROOT], [alone], error=SELF_SIGNED_LEAF)
    yield Case("self-signed-root", "docs/verify.md", REFUSED, [Cert("Else")], [leaf, CA_, ROOT],
               error=SELF_SIGNED)
    yield Case("self-signed-same-name", "docs/verify.md", REFUSED, [alone],
               [Cert("Alone", ca=False, key_name="impostor")])
    yield Case("sent-twice", "RFC 8446 4.4.2", OK, [ROOT], [leaf, leaf, CA_, CA_, ROOT, ROOT])
    yield Case("sent-strangers", "RFC 8446 4.4.2", OK, [ROOT],
               [leaf, *(Cert(f"Stranger {i}") for i in range(20)), CA_])
    for n in (2, 6, 12):
        impostors = [Cert("CA", ROOT, key_name=f"impostor {i}") for i in range(n)]
        yield Case(f"same-name-{n}", "RFC 4158", OK, [ROOT],
                   [client(aki=NO_HELP), *impostors, CA_])
    # the nearest candidate's error is told
    yield Case("error-leaf-before-ca", "docs/verify.md", REFUSED, [ROOT],
               [client(not_after=NOW - DAY), expired, CA_], error=EXPIRED)
    yield Case("error-purpose-not-date", "docs/verify.md", REFUSED, [ROOT],
               [client(exts=[*BASE[:2], eku(SERVER_AUTH)]), expired, CA_], error=PURPOSE)
    yield Case("error-date-not-signature", "docs/verify.md", REFUSED, [ROOT],
               [leaf, Cert("CA", ROOT, key_name="other key"), expired], error=EXPIRED)


# ---- chains made to cost time ----


def hostile():
    leaf = client(aki=NO_HELP)
    clones = [Cert("CA", ROOT, serial=5000 + i, digest="sha1") for i in range(60)]
    yield Case("hostile-60-clones", "docs/verify.md", REFUSED, [ROOT], [leaf, *clones])
    mutual = [Cert(f"M{i}", Cert(f"M{j}")) for i in range(8) for j in range(8) if i != j]
    yield Case("hostile-mesh", "docs/verify.md", REFUSED, [ROOT], [client(Cert("M0")), *mutual],
               error=NO_ISSUER)
    ladders = [Cert(f"L{i + 1}" if i < 9 else "CA", Cert(f"L{i}") if i else ROOT,
                    serial=9000 + 10 * i + j, digest="sha1") for i in range(10) for j in range(6)]
    yield Case("hostile-ladder", "docs/verify.md", REFUSED, [ROOT], [leaf, *ladders])
    unsigned = [Cert(f"L{i + 1}" if i < 9 else "CA", Cert(f"L{i}") if i else ROOT,
                     serial=9000 + 10 * i + j, damage=True) for i in range(10) for j in range(6)]
    yield Case("hostile-unsigned-ladder", "docs/verify.md", REFUSED, [ROOT], [leaf, *unsigned])
    rolls = [Cert("CA", Cert("CA", key_name=f"roll {i}"), key_name=f"roll {j}")
             for i in range(8) for j in range(8) if i != j]
    yield Case("hostile-rollover", "docs/verify.md", REFUSED, [ROOT],
               [client(Cert("CA", key_name="roll 0")), *rolls])
    yield Case("hostile-mesh-with-a-way-out", "docs/verify.md", OK, [ROOT],
               [client(Cert("M0")), *mutual[:40], Cert("M7", ROOT), Cert("M0", Cert("M7"))])


# ---- backends' certificates ----


def servers():
    usage = [basic_constraints(False), key_usage("digitalSignature")]
    for name, verdict, exts in (("server", OK, [*usage, eku(SERVER_AUTH)]),
                                ("client", REFUSED, [*usage, eku(CLIENT_AUTH)]),
                                ("any", REFUSED, [*usage, eku(ANY_EKU)]), ("none", OK, usage)):
        yield Case(f"server-purpose-{name}", "RFC 5280 4.2.1.12", verdict, [ROOT],
                   below(CA_, exts=exts), purpose="server")
    alone = Cert("Backend", more=[san(dns("backend.example"))],
                 exts=[basic_constraints(), key_usage("keyCertSign", "digitalSignature")])
    yield Case("server-self-signed-trusted", "docs/verify.md", OK, [alone], [alone],
               purpose="server")


# ---- random meshes of CAs, the verdict by trying every path of what is known to be good ----


def meshes(count=150, seed=5280):
    rnd = random.Random(seed)
    faults = {
        None: {}, "expired": {"not_after": NOW - DAY}, "early": {"not_before": NOW + DAY},
        "damaged": {"damage": True}, "no-ca": {"exts": [basic_constraints(False),
                                                        key_usage("digitalSignature")]},
        "cannot-sign": {"exts": [basic_constraints(), key_usage("cRLSign")]},
        "critical": {"more": [ext("1.3.6.1.4.1.99999.1", b"", True)]},
        "server": {"more": [eku(SERVER_AUTH)]},
        "sha1": {"digest": "sha1"},
        "other-key": {"signer": key("nobody's")},
    }
    for number in range(count):
        n = rnd.randint(3, 7)
        names = [f"mesh {number} {i}" for i in range(n)]
        keyed = [Cert(name, key_name=f"mesh key {i}") for i, name in enumerate(names)]
        edges, certs = [], []
        for _ in range(rnd.randint(n, 3 * n)):
            child, parent = rnd.sample(range(n), 2)
            fault = rnd.choice(list(faults)) if rnd.random() < 0.5 else None
            certs.append(Cert(names[child], keyed[parent], key_name=f"mesh key {child}",
                              **faults[fault]))
            if not fault:
                edges.append((child, parent))
        start = rnd.randrange(n)
        anchors = rnd.sample(range(n), rnd.randint(1, 2))

        def leads(node, seen, edges=edges, anchors=anchors):
            return node in anchors or any(
                child == node and parent not in seen and leads(parent, seen | {parent})
                for child, parent in edges)

        rnd.shuffle(certs)
        yield Case(f"mesh-{number}", "RFC 4158", OK if leads(start, {start}) else REFUSED,
                   [keyed[a] for a in anchors],
                   [client(keyed[start], subject=f"mesh {number} client"), *certs])


# ---- 4.4 and 4.14 revocation lists ----


def revocation():
    alice = client()
    chain = [alice, CA_]
    of_root, of_ca = crl(ROOT), crl(CA_)

    def both(name, rule, optional, mandatory, crls, certs=None, error=None, anchors=None):
        """error: of mandatory, and of optional if that is refused too"""
        for word, mode, verdict in (("optional", OPTIONAL, optional),
                                    ("mandatory", MANDATORY, mandatory)):
            yield Case(f"crl-{name}-{word}", rule, verdict, anchors or [ROOT], certs or chain,
                       crls=crls, crl_check=mode, error=error if verdict == REFUSED else None)

    yield from both("good", "4.4", OK, OK, [of_root, of_ca])
    yield from both("leaf-revoked", "4.4.3", REFUSED, REFUSED, [of_root, crl(CA_, [alice])],
                    error=REVOKED)
    yield from both("ca-revoked", "4.4.2", REFUSED, REFUSED, [crl(ROOT, [CA_]), of_ca],
                    error=REVOKED)
    yield from both("both-revoked", "4.4.2", REFUSED, REFUSED, [crl(ROOT, [CA_]), crl(CA_, [alice])],
                    error=REVOKED)
    yield from both("others-revoked", "4.4", OK, OK,
                    [of_root, crl(CA_, [alice.serial + 1, alice.serial - 1, 2**159 - 1])])
    yield from both("root-revokes-itself", "RFC 5280 6.1.1 (d)", OK, OK, [crl(ROOT, [ROOT]), of_ca])
    yield from both("none", "4.4.1", OK, REFUSED, [crl(Cert("Else"))], error=CRL_MISSING)
    yield from both("none-of-the-ca", "4.4.1", OK, REFUSED, [of_root], error=CRL_MISSING)
    yield from both("none-of-the-root", "4.4.1", OK, REFUSED, [of_ca], error=CRL_MISSING)
    yield from both("wrong-issuer-name", "4.4.5", OK, REFUSED,
                    [of_root, crl(CA_, [alice], name=dn("Other CA"))], error=CRL_MISSING)
    # a list that stands in the place of the CA's must not be as good as none
    yield from both("damaged", "4.4.4", REFUSED, REFUSED, [of_root, crl(CA_, damage=True)],
                    error=CRL_INVALID)
    yield from both("other-key", "4.4.4", REFUSED, REFUSED,
                    [of_root, crl(CA_, signer=key("no one"))], error=CRL_INVALID)
    yield from both("not-yet", "4.4.11", REFUSED, REFUSED,
                    [of_root, crl(CA_, this=NOW + DAY, until=NOW + 2 * DAY)], error=CRL_INVALID)
    yield from both("expired", "4.4.11", OK, REFUSED,
                    [of_root, crl(CA_, this=NOW - 9 * DAY, until=NOW - DAY)], error=CRL_EXPIRED)
    yield from both("expired-general", "4.4.12", OK, REFUSED,
                    [of_root, crl(CA_, until=tlv(0x18, b"20260101000000Z"))], error=CRL_EXPIRED)
    yield from both("until-2050", "4.4.13", OK, OK,
                    [of_root, crl(CA_, until=tlv(0x18, b"20500101000000Z"))])
    yield from both("expired-and-revoked", "docs/verify.md", REFUSED, REFUSED,
                    [of_root, crl(CA_, [alice], this=NOW - 9 * DAY, until=NOW - DAY)], error=REVOKED)
    yield from both("expired-and-newer", "docs/verify.md", OK, OK,
                    [of_root, crl(CA_, this=NOW - 9 * DAY, until=NOW - 2 * DAY), of_ca])
    yield from both("newest-counts-revoked", "docs/verify.md", REFUSED, REFUSED,
                    [of_root, crl(CA_, this=NOW - 2 * DAY), crl(CA_, [alice], this=NOW - 3600)],
                    error=REVOKED)
    yield from both("newest-counts-released", "docs/verify.md", OK, OK,
                    [of_root, crl(CA_, [alice], this=NOW - 2 * DAY), crl(CA_, this=NOW - 3600)])
    yield from both("newest-is-forged", "docs/verify.md", REFUSED, REFUSED,
                    [of_root, crl(CA_, [alice]), crl(CA_, this=NOW - 60, signer=key("no one"))],
                    error=REVOKED)
    mute = Cert("CA", ROOT, exts=[basic_constraints(), key_usage("keyCertSign")])
    yield from both("ca-may-not-sign-crls", "4.7.4", REFUSED, REFUSED, [of_root, of_ca],
                    [client(mute), mute], error=CRL_INVALID)
    rsa_root = Cert("Root R", kind="RSA-2048")
    below_rsa = Cert("CA", rsa_root)
    yield from both("signed-with-rsa", "4.4", REFUSED, REFUSED, [crl(rsa_root, [below_rsa]), of_ca],
                    [alice, below_rsa], anchors=[rsa_root], error=REVOKED)
    for name, serial in (("negative", -77), ("zero", 0), ("long", 2**159 - 1)):
        odd = client(serial=serial)
        yield from both(f"serial-{name}", "4.4.14", OK, OK, [of_root, crl(CA_, [serial + 1])],
                        [odd, CA_])
        yield from both(f"serial-{name}-revoked", "4.4.15", REFUSED, REFUSED,
                        [of_root, crl(CA_, [5, serial, 7])], [odd, CA_], error=REVOKED)
    yield from both("unknown-entry-extension", "4.4.8", OK, OK,
                    [of_root, crl(CA_, [(5, [ext("1.3.6.1.4.1.99999.1", b"\5\0")])])])
    for name, value in (("compromise", b"\x0a\1\1"), ("hold", b"\x0a\1\6")):
        yield from both(f"reason-{name}", "RFC 5280 5.3.1", REFUSED, REFUSED,
                        [of_root, crl(CA_, [(alice, [ext(REASON, value)])])], error=REVOKED)
    yield from both("removed", "RFC 5280 5.3.1", OK, OK,
                    [of_root, crl(CA_, [(alice, [ext(REASON, b"\x0a\1\x08")])])])
    yield from both("version-1", "4.4", REFUSED, REFUSED, [of_root, crl(CA_, [alice], version=0)],
                    error=REVOKED)
    # another way up whose CA has not been revoked
    crossed = Cert("CA", ROOT)
    yield from both("cross-signed-other-revoked", "docs/verify.md", OK, OK,
                    [crl(ROOT, [CA_]), of_ca], [alice, CA_, crossed])
    yield from both("cross-signed-all-revoked", "docs/verify.md", REFUSED, REFUSED,
                    [crl(ROOT, [CA_, crossed]), of_ca], [alice, CA_, crossed], error=REVOKED)

    # 4.14: scopes
    def idp(*parts):
        return ext(IDP, seq(*parts), True)

    def point(*names):
        return tlv(0xA0, tlv(0xA0, *names))

    only_user, only_ca = tlv(0x81, b"\xff"), tlv(0x82, b"\xff")
    yield from both("only-users", "4.14.10", OK, OK, [of_root, crl(CA_, exts=[idp(only_user)])])
    yield from both("only-users-revoked", "4.14.10", REFUSED, REFUSED,
                    [of_root, crl(CA_, [alice], exts=[idp(only_user)])], error=REVOKED)
    yield from both("only-users-for-a-ca", "4.14.10", OK, REFUSED,
                    [crl(ROOT, exts=[idp(only_user)]), of_ca], error=CRL_MISSING)
    yield from both("only-cas", "4.14.13", OK, OK, [crl(ROOT, exts=[idp(only_ca)]), of_ca])
    yield from both("only-cas-for-a-user", "4.14.11", OK, REFUSED,
                    [of_root, crl(CA_, [alice], exts=[idp(only_ca)])], error=CRL_MISSING)
    yield from both("users-and-cas-apart", "4.14.13", OK, OK,
                    [of_root, crl(CA_, exts=[idp(only_ca)]), crl(CA_, exts=[idp(only_user)])])
    one, two = uri("http://crl.example/1"), uri("http://crl.example/2")
    here = client(more=[ext(CDP, seq(seq(point(one))))])
    several = client(more=[ext(CDP, seq(seq(point(two)), seq(point(dns("x"), one))))])
    for name, leaf, verdict in (("same", here, OK), ("several", several, OK),
                                ("none", alice, REFUSED)):
        yield from both(f"point-{name}", "4.14.1", OK, verdict,
                        [of_root, crl(CA_, exts=[idp(point(one))])], [leaf, CA_], error=CRL_MISSING)
    yield from both("point-other", "4.14.3", OK, REFUSED,
                    [of_root, crl(CA_, exts=[idp(point(two))])], [here, CA_], error=CRL_MISSING)
    yield from both("point-revoked", "4.14.2", REFUSED, REFUSED,
                    [of_root, crl(CA_, exts=[idp(point(two))]),
                     crl(CA_, [here], exts=[idp(point(one))])], [here, CA_], error=REVOKED)
    relative = seq(oid(CN), tlv(0x0C, b"CRL1"))
    by_name = client(more=[ext(CDP, seq(seq(tlv(0xA0, tlv(0xA1, relative)))))])
    whole = directory(dn("CA", "CRL1"))
    yield from both("point-relative", "4.14.5", OK, OK,
                    [of_root, crl(CA_, exts=[idp(point(whole))])], [by_name, CA_])
    # what is not served is told when the file is read
    unfit = {
        "delta": {"exts": [ext(DELTA, integer(1), True)]},
        "indirect": {"exts": [idp(tlv(0x84, b"\xff"))]},
        "some-reasons": {"exts": [idp(tlv(0x83, b"\1\x60"))]},
        "attributes": {"exts": [idp(tlv(0x85, b"\xff"))]},
        "unknown-critical": {"exts": [ext("1.3.6.1.4.1.99999.1", b"\5\0", True)]},
        "unknown-critical-entry": {"revoked": [(5, [ext("1.3.6.1.4.1.99999.1", b"\5\0", True)])]},
        "no-end": {"until": None}, "scope-twice": {"exts": [idp(only_user), idp(only_ca)]},
        "sha1": {"digest": "sha1"}, "users-and-cas": {"exts": [idp(only_user, only_ca)]},
        "malformed-date": {"until": tlv(0x17, b"3001011201Z")},
    }
    for name, options in unfit.items():
        yield Case(f"crl-unfit-{name}", "4.4.9", UNFIT, [ROOT], chain, crls=[crl(CA_, **options)],
                   crl_check=OPTIONAL)
