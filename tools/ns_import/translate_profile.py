# SPDX-License-Identifier: Apache-2.0
"""SSL profiles and settings: versions, ciphers, groups, client authentication, forging."""

from . import model, translate_pki
from .common import Fault, printable
from .grammar import OPTIONS, RESUMPTION, UNKNOWN_GROUP, UNSPOKEN, VERSIONS
from .parts import Back, Front, Speech, Ssl
from .settings import has
from .values import ALPN, CIPHERS, CURVES, DEFAULT_PROFILES, SUITES, enabled, number


def ssl_of(t, entity, front):
    """What counts for it: its own settings, or those of a profile."""
    setting, enhanced = entity.ssl.get("sslProfile"), t.model.default_profile
    if not setting and not enhanced:
        model.judge_settings(entity.ssl, "ssl vserver")
        own = f"{entity.name}-{'front' if front else 'back'}"
        return Ssl(own, entity.ssl, binds=cipher_binds(entity))
    name = setting.value if setting else DEFAULT_PROFILES[front]
    profile = t.model.find("ssl profile", name)
    if not profile and name not in DEFAULT_PROFILES.values():
        raise Fault(f"there is no ssl profile '{printable(name)}'")
    for other, old in entity.ssl.items():
        if other != "sslProfile" and not OPTIONS["ssl vserver"][other].wants_nothing(old.value):
            old.refuse(other, f"ssl profile {printable(name)} counts instead")
    # Ciphers are bound to profiles of the enhanced kind only.
    own = cipher_binds(entity)
    for bind in own if enhanced else ():
        bind.command.leave_out_whole(f"ssl profile {printable(name)} counts instead")
    binds = (cipher_binds(profile) if profile else []) + ([] if enhanced else own)
    if profile:
        judge_profile(profile, front)
    return Ssl(name, profile.settings if profile else {}, profile, binds)


def judge_profile(profile, front):
    kind = profile.get("sslProfileType", "FrontEnd")
    if (kind.lower() == "frontend") != front and profile.added:
        raise Fault(f"ssl profile {printable(profile.name)} is of the type {printable(kind)}")
    model.judge_settings(profile.settings, "ssl profile")
    for bind in profile.ssl_binds:
        if translate_pki.is_certkey(bind) and (front or not bind.has("forgingCACertkey")):
            bind.command.leave_out_whole(
                "forging CAs are bound to profiles of the back end, and nothing else to a profile"
            )


def cipher_binds(entity):
    return [b for b in entity.ssl_binds if not translate_pki.is_certkey(b)]


def speech_of(t, ssl):
    ciphers, suites = ciphers_of(t, ssl.binds)
    old, new = enabled(ssl.settings, "tls12", "enabled"), enabled(ssl.settings, "tls13")
    if ciphers or suites:  # those of one version alone
        old, new = old and bool(ciphers), new and bool(suites)
    if not old and not new:
        raise Fault(
            "neither TLS 1.2 nor 1.3 is switched on for it, with a cipher that is " "spoken here"
        )
    if not has("profile.<name>.tls_min"):
        for name, wanted in (("tls12", old), ("tls13", new)):
            if name in ssl.settings and not wanted:
                ssl.settings[name].refuse(name, VERSIONS)
        return Speech()
    return Speech(
        "" if old else "1.3",
        "" if new else "1.2",
        " ".join(ciphers if old else []),
        " ".join(suites if new else []),
        " ".join(groups_of(ssl.binds)),
    )


def ciphers_of(t, binds):
    """What is bound, in its order; nothing if that cannot be said."""
    found, complete = [], has("profile.<name>.ciphers")
    for bind in by_priority(binds):
        group = t.model.find("ssl cipher", bind.target)
        for one in by_priority(group.binds) if group else [bind]:
            name = one.target.upper().replace("_", "-")
            single = name.startswith(("TLS1", "SSL3", "DTLS"))
            complete = complete and single
            found.append(name)
            if name not in CIPHERS and name not in SUITES:
                one.refuse("cipherName", UNSPOKEN if single else UNKNOWN_GROUP)
    found = list(dict.fromkeys(found)) if complete else []
    return [CIPHERS[n] for n in found if n in CIPHERS], [SUITES[n] for n in found if n in SUITES]


def by_priority(binds):
    def priority(bind):
        text = bind.options.get("cipherPriority", "")
        return int(text) if number(text, 0, 10**9) else 10**9

    return sorted((b for b in binds if b.has("cipherName")), key=priority)


def groups_of(binds):
    curves = [b for b in binds if b.has("eccCurveName") and b.target.upper() != "ALL"]
    found = [CURVES[b.target.upper()] for b in curves if b.target.upper() in CURVES]
    for bind in curves:
        if bind.target.upper() not in CURVES:
            bind.refuse("eccCurveName", "this curve is not spoken")
    everything = any(b.target.upper() == "ALL" for b in binds if b.has("eccCurveName"))
    return [] if everything or not has("profile.<name>.groups") else list(dict.fromkeys(found))


def front_of(t, v, ssl, remarks):
    settings, speech = ssl.settings, speech_of(t, ssl)
    alpn = alpn_of(v, settings)
    if not enabled(settings, "clientAuth"):
        return Front(ssl.source, speech, "off", alpn, ticket_lifetime=ticket_lifetime_of(settings))
    # Without -clientCert it is mandatory.
    rule = settings["clientCert"].value if "clientCert" in settings else "Mandatory"
    if rule.lower() not in ("mandatory", "optional"):
        raise Fault(f"-clientCert {printable(rule)}: it is Mandatory or Optional")
    if rule.lower() == "optional":
        remarks.append(
            "-clientCert Optional: NetScaler also goes on with a client whose "
            "certificate is invalid; ktlsgate refuses it."
        )
    trust = translate_pki.trust_of(t, v, "client")
    if not trust.cas:
        raise Fault("clients must have a certificate, but no CA (-CA) is bound to verify them with")
    return Front(
        ssl.source,
        speech,
        rule.lower(),
        alpn,
        trust,
        announces_ca_names(v),
        ticket_lifetime_of(settings),
    )


def ticket_lifetime_of(settings, usable=True):
    """How long session tickets are good for, if there are any."""
    if not enabled(settings, "sessionTicket"):
        return ""
    if not usable or not has("profile.<name>.session_tickets"):
        settings["sessionTicket"].refuse("sessionTicket", RESUMPTION)
        return ""
    seconds = (
        settings["sessionTicketLifeTime"].value if "sessionTicketLifeTime" in settings else "300"
    )
    if not number(seconds, 1, 7 * 86400):
        settings["sessionTicketLifeTime"].refuse("sessionTicketLifeTime", "made 300 s, the default")
        seconds = "300"
    return f"{seconds}s"


def alpn_of(v, settings):
    """NetScaler's counts for SSL_TCP only: of HTTP it knows the protocol."""
    setting = settings.get("alpnProtocol")
    protocol = setting.value.lower() if setting else "none"
    if protocol == "none" or v.added.args[0].lower() != "ssl_tcp":
        return ""
    if has("profile.<name>.alpn") and protocol in ALPN:
        return ALPN[protocol]
    setting.refuse("alpnProtocol", "there is no such ALPN")
    return ""


def announces_ca_names(v):
    binds = [b for b in v.ssl_binds if b.has("CA")]
    skipping = [b for b in binds if b.has("skipCAName")]
    if skipping and len(skipping) == len(binds) and has("profile.<name>.announce_ca_names"):
        return False
    for bind in skipping:
        bind.refuse(
            "skipCAName",
            (
                "the names of all CAs are sent, or of none (announce_ca_names = off)"
                if has("profile.<name>.announce_ca_names")
                else "the names of all CAs are sent"
            ),
        )
    return True


def back_of(t, entity, ssl, remarks):
    speech = speech_of(t, ssl)
    ticket_lifetime_of(ssl.settings, usable=False)
    dynamic = enabled(ssl.settings, "dynamicClientCert")
    forging = forging_ca_of(t, ssl.profile) if ssl.profile else None
    if dynamic and not forging:
        setting = ssl.settings["dynamicClientCert"]
        setting.refuse("dynamicClientCert", "no usable CA is bound with -forgingCACertkey")
        raise Fault("it is to forge client certificates, and has no CA for that")
    trust = translate_pki.trust_of(t, entity, "server")
    for bind in entity.ssl_binds:
        if translate_pki.is_certkey(bind) and not bind.has("CA"):
            bind.command.leave_out_whole(
                "backends are shown forged client certificates only, not a fixed one"
            )
    if not trust.cas:
        path = translate_pki.default_server_ca(t)
        entity.added.leave_out(
            "",
            (
                "NetScaler does not verify this backend (no CA is bound to it), ktlsgate does: put "
                f"the CA of its certificate into {path}"
            ),
        )
        remarks.append(f"The backend's CA is not in ns.conf: it is to be in {path}.")
    return Back(ssl.source, speech, dynamic, forging if dynamic else None, trust)


def forging_ca_of(t, profile):
    """The forging CA; the last one that is bound counts."""
    found = None
    for bind in profile.ssl_binds:
        if not bind.has("forgingCACertkey"):
            continue
        try:
            translate_pki.certkey_with_key(t, bind.target)
        except Fault as fault:
            bind.command.leave_out_whole(str(fault))
            continue
        if found:
            found.command.leave_out_whole(f"line {bind.command.number} binds another forging CA")
        found = bind
    return found.target if found else None
