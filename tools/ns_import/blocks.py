# SPDX-License-Identifier: Apache-2.0
"""What was translated becomes blocks of keys."""

import dataclasses
import shlex

from . import model, translate_pki
from .ours import Block, Names
from .parts import Back, Front
from .values import IDLE_DEFAULT, NO_RESPONDER, number


def make_blocks(t):
    services = {s.name: s for v in t.vservers for s in v.services}
    t.services_made = list(services.values())
    profiles = profile_names(
        [(v.front, v.entity.name) for v in t.vservers]
        + [(s.back, s.name) for s in services.values()]
    )
    fronts = {p: n for p, n in profiles.items() if isinstance(p, Front)}
    backs = {p: n for p, n in profiles.items() if isinstance(p, Back)}
    certkeys = {c for v in t.vservers for c in v.certkeys}
    certkeys |= {b.forging for b in backs if b.forging}
    t.names = {
        "certkey": Names(certkeys),
        "service": Names(services),
        "profile": Names(profiles.values()),
        "vserver": Names([v.entity.name for v in t.vservers]),
    }
    global_block(t)
    for name in sorted(certkeys):
        certkey_block(t, name)
    for front, name in fronts.items():
        front_block(t, front, name)
    for back, name in backs.items():
        back_block(t, back, name)
    for service in services.values():
        service_block(t, service, backs)
    for v in t.vservers:
        vserver_block(t, v, fronts)
    order = ["", "certkey", "profile", "service", "vserver"]
    t.blocks.sort(key=lambda b: (order.index(b.scope), b.name))


def profile_names(users):
    """
    {Front or Back: name}. A profile of NetScaler's keeps its name if all who use it agree; what
    is bound to a user of it (CAs) makes another one.
    """
    variants, found = {}, {}
    for profile, user in users:
        variants.setdefault(profile.source, {}).setdefault(profile, []).append(user)
    for source, profiles in sorted(variants.items()):
        for profile, of in profiles.items():
            name = source if len(profiles) == 1 else f"{source}_{min(of)}"
            while name in found.values():
                name += "_2"
            found[profile] = name
    return found


def new_block(t, scope, original):
    ours = t.names[scope].ours[original] if scope else ""
    block = Block(scope, ours, original)
    t.blocks.append(block)
    return block


def add_commands(block, commands):
    for command in commands:
        if not command.whole:
            command.used = True
            if command not in block.commands:
                block.commands.append(command)


def global_block(t):
    idle = {}
    for v in t.vservers:
        text = v.entity.get("cltTimeout", str(IDLE_DEFAULT))
        idle[v.entity.name] = int(text) if number(text, 0, 365 * 86400) else IDLE_DEFAULT
    if not idle:
        return
    block = new_block(t, "", "")
    longest = 0 if 0 in idle.values() else max(idle.values())
    block.keys.append(("timeout.idle", f"{longest}s" if longest else "0"))
    block.remarks.append(
        "The longest -cltTimeout of the vservers; where ns.conf has none it is 180."
    )
    for v in t.vservers:
        setting = v.entity.settings.get("cltTimeout")
        if setting and setting.value != str(longest):
            setting.refuse("cltTimeout", (f"timeout.idle is one for all: {longest or 'never'}"))


def certkey_block(t, name):
    entity = t.model.find("ssl certKey", name)
    block = new_block(t, "certkey", name)
    chain = translate_pki.chain_of(t, name)
    path, bundle = translate_pki.cert_file(t, chain, f"{block.name}-chain")
    key = translate_pki.file_of(
        t, translate_pki.path_of(t, entity.get("key")), entity, "private key"
    )
    block.keys += [("cert", path), ("key", key)]
    for link in chain:
        add_commands(block, t.model.find("ssl certKey", link).commands)
    if bundle:
        block.remarks.append(bundle_remark(bundle))
    judge_key(entity, key, block)


def judge_key(entity, key, block):
    for name in ("passcrypt", "password", "passplain"):
        if name in entity.settings:
            setting = entity.settings[name]
            setting.refuse(
                name,
                (
                    f"keys are read without a passphrase: openssl pkey -in {shlex.quote(key)} -out NEW, "
                    "then replace the file"
                ),
            )
            block.remarks.append("The key is to be stored without its passphrase.")
            return
    if entity.get("inform", "PEM").upper() == "DER":
        setting = entity.settings["inform"]
        setting.refuse(
            "inform",
            (
                "keys are read as PEM: openssl pkey -inform DER "
                f"-in {shlex.quote(key)} -out NEW, then replace the file"
            ),
        )


def bundle_remark(bundle):
    return (
        f"{bundle.path} holds the certificates of {', '.join(bundle.parts)}, in this order "
        "(--bundle makes it)."
    )


def front_block(t, front, name):
    block = new_block(t, "profile", name)
    block.keys += speech_keys(front.speech)
    block.keys.append(("client_auth", front.client_auth))
    users = [v for v in t.vservers if v.front == front]
    add_profile_lines(t, block, front.source)
    for v in users:
        add_commands(block, [c for c in v.entity.commands if c.kind == "ssl vserver"])
        add_cipher_lines(t, block, v.entity)
    if front.trust.cas:
        add_trust_keys(t, block, "client", front.trust)
    if not front.announce_ca_names:
        block.keys.append(("announce_ca_names", "off"))
    if front.ticket_lifetime:
        block.keys += [("session_tickets", "on"), ("ticket_lifetime", front.ticket_lifetime)]
    if front.alpn:
        block.keys.append(("alpn", front.alpn))
    for v in users:
        block.remarks += [r for r in v.remarks if r not in block.remarks]


def back_block(t, back, name):
    block = new_block(t, "profile", name)
    add_profile_lines(t, block, back.source)
    for service in t.services_made:
        if service.back == back:
            add_commands(block, [c for c in service.commands if c.kind.startswith("ssl ")])
    block.keys += speech_keys(back.speech)
    if back.dynamic:
        block.keys.append(("dynamic_client_cert", "enabled"))
        block.keys.append(("forging_certkey", t.names["certkey"].ours[back.forging]))
    if back.trust.cas:
        add_trust_keys(t, block, "server", back.trust)
    else:
        path = translate_pki.default_server_ca(t)
        t.files.setdefault(path, "the CA of backends for which ns.conf binds none")
        block.keys.append(("server_ca", path))


def speech_keys(speech):
    return [(key, value) for key, value in dataclasses.asdict(speech).items() if value]


def add_profile_lines(t, block, source):
    profile = t.model.find("ssl profile", source)
    if profile:
        add_commands(block, profile.commands)
        add_cipher_lines(t, block, profile)


def add_cipher_lines(t, block, entity):
    for bind in entity.ssl_binds:
        group = t.model.find("ssl cipher", bind.target) if bind.has("cipherName") else None
        if group:
            add_commands(block, group.commands)


def add_trust_keys(t, block, side, trust):
    path, bundle = translate_pki.cert_file(t, trust.cas, f"{block.name}-{side}-ca")
    block.keys.append((f"{side}_ca", path))
    for ca in trust.cas:
        add_commands(block, t.model.find("ssl certKey", ca).commands)
    if bundle:
        block.remarks.append(bundle_remark(bundle))
    if trust.partial_chain:
        block.keys.append(("verify.partial_chain", "on"))
    if trust.crls:
        block.keys += [
            (
                f"{side}_crl",
                " ".join(translate_pki.crl_file(t, block, name) for name in trust.crls),
            ),
            (f"{side}_crl_check", trust.crl_check),
        ]
    if trust.ocsp != "off":
        add_ocsp_keys(t, block, side, trust)


def add_ocsp_keys(t, block, side, trust):
    block.keys += [
        (f"{side}_ocsp", trust.ocsp),
        ("ocsp_responder", translate_pki.responder_url(t, trust.responder) or NO_RESPONDER),
    ]
    responder = t.model.find("ssl ocspResponder", trust.responder)
    if not responder:
        block.remarks.append("The OCSP responder is to be named by a numeric address.")
        return
    add_commands(block, responder.commands)
    model.judge_settings(responder.settings, "ssl ocspResponder")
    wait = responder.get("respTimeout", "2000")
    seconds = max(1, round(int(wait) / 1000)) if number(wait, 1, 60000) else 5
    block.keys.append(("ocsp_timeout", f"{seconds}s"))


def service_block(t, service, backs):
    block = new_block(t, "service", service.name)
    block.keys += [
        ("address", service.address),
        ("server_name", service.server_name),
        ("profile", t.names["profile"].ours[backs[service.back]]),
    ]
    if service.weight not in (None, "1"):
        block.keys.append(("weight", service.weight))
    block.keys += service.check
    block.remarks += service.remarks
    add_commands(block, service.commands)


def vserver_block(t, v, fronts):
    block = new_block(t, "vserver", v.entity.name)
    block.keys += [
        ("listen", v.listen),
        ("certkey", " ".join(t.names["certkey"].ours[c] for c in v.certkeys)),
        ("profile", t.names["profile"].ours[fronts[v.front]]),
        ("service", " ".join(t.names["service"].ours[s.name] for s in v.services)),
    ]
    if v.balance:
        block.keys.append(("balance", v.balance))
    if not v.allow_unknown_sni:
        block.keys.append(("allow_unknown_sni", "off"))
    add_commands(
        block, [c for c in v.entity.commands if c.kind != "ssl vserver" or c.verb == "bind"]
    )
