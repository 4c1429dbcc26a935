# SPDX-License-Identifier: Apache-2.0
"""Certificates, CAs, revocation lists and OCSP responders."""

import posixpath
import re

from . import blocks, model
from .common import BUNDLES, Fault, NS_PKI, printable
from .grammar import OCSP
from .ours import Bundle
from .parts import Trust
from .settings import has
from .values import NO_RESPONDER, address, port_text


def trust_of(t, entity, side):
    """Of a vserver in its clients, of a service in its backend."""
    binds = [b for b in entity.ssl_binds if b.has("CA") and is_usable_ca(t, entity, b.target)]
    cas = tuple(sorted({b.target for b in binds}))
    ocsp, responder = ocsp_of(t, binds, side)
    return Trust(
        cas, needs_partial_chain(t, binds, cas), *revocation_of(t, binds, side), ocsp, responder
    )


def needs_partial_chain(t, binds, cas):
    """Whether CAs are bound that are no roots: NetScaler's trust ends at them."""
    found = False
    for bind in binds:
        above = chain_of(t, bind.target)[1:]
        if not above or above[-1] in cas:
            continue
        found = True
        if not has("profile.<name>.verify.partial_chain"):
            bind.refuse(
                "certkeyName",
                (
                    f"it is no root (linked to {printable(above[-1])}): ktlsgate trusts roots only, "
                    f"and would refuse what it issued; add {printable(above[-1])} if all that it "
                    "stands for may be trusted"
                ),
            )
    return found and has("profile.<name>.verify.partial_chain")


def revocation_of(t, binds, side):
    """(…_crl_check, CRLs). Without a word NetScaler looks at a CRL that it has of the CA."""
    checks, crls = {}, set()
    for bind in binds:
        if bind.has("ocspCheck"):
            continue  # NetScaler does either
        if not has(f"profile.<name>.{side}_crl"):
            if bind.has("crlCheck"):
                bind.refuse("crlCheck", "CRLs are not looked at: revoked certificates pass")
        else:
            of = crls_of(t, bind)
            checks.update({bind: bind.options.get("crlCheck", "Optional").lower()} if of else {})
            crls.update(of)
    strictest = "mandatory" if "mandatory" in checks.values() else "optional"
    for bind, check in checks.items():
        if check != strictest:
            bind.refuse(
                "crlCheck",
                (
                    f"the check is one for all CAs of a profile, and that of another CA is {strictest}"
                ),
            )
    return (strictest if crls else "off"), tuple(sorted(crls))


def ocsp_of(t, binds, side):
    """(the side's ocsp, the responder). One for all CAs; what is mandatory stays so, come what may."""
    asked = [b for b in binds if b.has("ocspCheck")]
    if not has(f"profile.<name>.{side}_ocsp"):
        for bind in asked:
            bind.refuse("ocspCheck", OCSP)
        return "off", ""
    checks = {b: b.options["ocspCheck"].lower() for b in asked}
    for bind, check in checks.items():
        if check not in ("mandatory", "optional"):
            raise Fault(f"-ocspCheck {printable(check)}: it is Mandatory or Optional")
    strictest = "mandatory" if "mandatory" in checks.values() else "optional"
    found = ""
    for bind, check in checks.items():
        responders = [r.target for r in t.model.find("ssl certKey", bind.target).responders]
        found = found or next(iter(responders), "")
        if check != strictest or found and found not in responders:
            bind.refuse(
                "ocspCheck",
                f"the check ({strictest}) and the responder"
                f"{' ' + printable(found) if found else ''} are one for all CAs of a profile",
            )
    if found and responder_url(t, found):
        return strictest, found
    for bind, check in checks.items():
        bind.refuse(
            "ocspCheck",
            "there is no responder with an http URL and a numeric address: "
            + (
                f"replace ocsp_responder = {NO_RESPONDER}, where nobody answers"
                if strictest == "mandatory"
                else "revoked certificates pass"
            ),
        )
    return ("mandatory" if checks and strictest == "mandatory" else "off"), ""


def responder_url(t, name):
    """As our key wants it; None: with a host's name, https or a port that is none."""
    responder = t.model.find("ssl ocspResponder", name)
    match = re.fullmatch(
        r"(?i)http://(\[[0-9a-f:.]+\]|[0-9.]+)(:\d+)?(/[!-~]*)?",
        responder.get("url", "") if responder and responder.added else "",
    )
    try:
        ip = address(match[1].strip("[]"))
        port = f":{port_text(match[2][1:])}" if match[2] else ""
    except (Fault, TypeError):
        return None
    host = f"[{ip}]" if ip.version == 6 else ip
    return f"http://{host}{port}{match[3] or '/'}"


def crls_of(t, bind):
    """The names of the CRLs of a CA."""
    found = {c.name for c in t.model.of("ssl crl") if c.added and c.get("CAcert") == bind.target}
    check = bind.options.get("crlCheck", "Optional").lower()
    if check not in ("mandatory", "optional"):
        raise Fault(f"-crlCheck {printable(check)}: it is Mandatory or Optional")
    if check == "mandatory" and not found:
        raise Fault(
            f"-crlCheck is Mandatory for {printable(bind.target)}, for which there is no "
            "'add ssl crl -CAcert'"
        )
    for name in found:
        crl_path(t, name)
    return found


def crl_path(t, name):
    args = t.model.find("ssl crl", name).added.args
    if not args:
        raise Fault(f"ssl crl {printable(name)} has no file")
    path = path_of(t, args[0])
    if re.search(r"\s", path):  # it stands in a list
        raise Fault(f"the file of ssl crl {printable(name)} has blanks in its name; rename it")
    return path


def is_usable_ca(t, entity, name):
    """Whether the certkey can serve as a CA; if not, the lines that bind it are left out."""
    try:
        cert_parts(t, name)
        return True
    except Fault as fault:
        for bind in entity.ssl_binds:
            if bind.target == name:
                bind.command.leave_out_whole(str(fault))
        return False


def is_certkey(bind):
    return bind.target == (bind.options.get("certkeyName") or bind.options.get("forgingCACertkey"))


def certkey_with_key(t, name):
    """A certkey with a private key, or a Fault."""
    cert_parts(t, name)
    entity = t.model.find("ssl certKey", name)
    if entity.failure:
        raise Fault(f"certKey {printable(name)} ({entity.place()}): {entity.failure}")
    for unreadable in ("fipsKey", "hsmKey"):
        if unreadable in entity.settings:
            t.fail(entity, "its key is in a module; keys are read from PEM files")
    if not entity.failure and "key" not in entity.settings:
        t.fail(entity, "it has no private key (-key)")
    if not entity.failure:
        path_of(t, entity.get("key"))
    if entity.failure:
        raise Fault(f"certKey {printable(name)} ({entity.place()}): {entity.failure}")
    return entity


def chain_of(t, name):
    """The certkey and those it is linked to, nearest first, as far as they can be read."""
    found = []
    while name not in found:
        found.append(name)
        link = next(iter(t.model.find("ssl certKey", name).links), None)
        if not link:
            break
        try:
            cert_parts(t, link.target)
        except Fault as fault:
            link.command.leave_out_whole(str(fault))
            break
        name = link.target
    return found


def cert_parts(t, name):
    """[(path, whether it takes a bundle to read it)] of a certkey's certificate alone."""
    entity = t.model.find("ssl certKey", name)
    if not entity or not entity.added:
        raise Fault(f"there is no certKey '{printable(name)}'")
    inform = entity.get("inform", "PEM").upper()
    try:
        if "cert" not in entity.settings:
            raise Fault("it has no certificate (-cert)")
        if inform not in ("PEM", "DER"):
            raise Fault(f"its format is {printable(inform)}: make PEM files of it (openssl pkcs12)")
        # What is to be a file of certificates in PEM, and is not: ours hold no key beside them.
        apart = inform == "DER" or entity.get("key") == entity.get("cert")
        return [(path_of(t, entity.get("cert")), apart)]
    except Fault as fault:
        t.fail(entity, str(fault))
        raise Fault(f"certKey {printable(name)} ({entity.place()}): {fault}") from None


def path_of(t, file):
    """Where a file of the appliance is looked for."""
    path = posixpath.normpath(posixpath.join(NS_PKI, file))
    for root in (NS_PKI, "/flash" + NS_PKI):
        if path.startswith(root + "/"):
            path = posixpath.relpath(path, root)
            break
    else:
        path = posixpath.basename(path)
    if not path or re.search(r"\s[#;]|[\x00-\x1f\x7f]|^\s|\s$", path):
        raise Fault("a file of this name cannot be named in ktlsgate.conf; rename it")
    return posixpath.join(t.pki_dir, path)


def default_server_ca(t):
    return posixpath.join(t.pki_dir, "server-ca.pem")


def file_of(t, path, entity, what):
    t.files.setdefault(
        path, f"{what} of {entity.kind} {printable(entity.name)}, " f"line {entity.added.number}"
    )
    return path


def cert_file(t, names, bundle_name):
    """One PEM file with the certificates of these certkeys; commands that name them are used."""
    parts = []
    for name in names:
        entity = t.model.find("ssl certKey", name)
        parts += cert_parts(t, name)
        file_of(t, parts[-1][0], entity, "certificate")
    if len(parts) == 1 and not parts[0][1]:
        return parts[0][0], None
    bundle = Bundle(
        posixpath.join(t.pki_dir, BUNDLES, bundle_name + ".pem"), tuple(p for p, _ in parts)
    )
    if bundle not in t.bundles:
        t.bundles.append(bundle)
    return bundle.path, bundle


def crl_file(t, block, name):
    """The file of a CRL; that it is fetched from time to time is not ours."""
    crl = t.model.find("ssl crl", name)
    blocks.add_commands(block, crl.commands)
    model.judge_settings(crl.settings, "ssl crl")
    return file_of(t, crl_path(t, name), crl, "revocation list")
