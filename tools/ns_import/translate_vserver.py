# SPDX-License-Identifier: Apache-2.0
"""A vserver of NetScaler's: where it listens, its certificates, how it balances."""

import ipaddress

from . import model, translate_pki, translate_profile, translate_service
from .common import Fault, printable
from .grammar import PERSISTENCE
from .parts import Vserver
from .values import (
    METHODS,
    TLS_TYPES,
    address,
    address_text,
    enabled,
    mask_network,
    number,
    port_text,
)


def translate_vserver(t, v):
    if not v.added:
        raise Fault(
            f"no 'add lb vserver {printable(v.name)}' in this file (vservers of other "
            "kinds are not translated)"
        )
    if len(v.added.args) < 1:
        raise Fault("its type is missing")
    kind, *where = v.added.args
    if kind.lower() not in TLS_TYPES:
        raise Fault(
            f"its type is {printable(kind)}: only vservers that end TLS are translated "
            "(SSL, SSL_TCP)"
        )
    if v.get("state", "ENABLED").lower() == "disabled":
        raise Fault("it is DISABLED")
    listen = listen_of(v, where)
    remarks = []
    ssl = translate_profile.ssl_of(t, v, True)
    front = translate_profile.front_of(t, v, ssl, remarks)
    certkeys, allow_unknown = server_certkeys(t, v, ssl.settings)
    services = translate_service.bound_services(t, v)
    for service in services:
        if service.back.dynamic and front.client_auth == "off":
            raise Fault(
                "its service forges client certificates, but -clientAuth is not " "ENABLED for it"
            )
    model.judge_settings(v.settings, "lb vserver")
    return Vserver(
        v, listen, certkeys, allow_unknown, front, services, balance_of(v, services), remarks
    )


def listen_of(v, where):
    """Its address and port; or a range of addresses, as prefixes."""
    pattern, (mask, *port) = v.get("IPPattern"), v.get("IPMask", "-").split()
    if pattern and len(port) == 1:
        return address_text(mask_network(pattern, mask), port_text(port[0]))
    if pattern or len(where) != 2 or where[0] == "*" or not where[1].strip("0*"):
        raise Fault("it has no address and port of its own")
    first, port = address(where[0]), port_text(where[1])
    if first.is_unspecified:
        raise Fault("it has no address and port of its own")
    count = v.get("range", "1")
    if not number(count, 1, 254):
        raise Fault(f"-range {printable(count)}: it is 1 to 254")
    try:
        networks = list(ipaddress.summarize_address_range(first, first + (int(count) - 1)))
    except ipaddress.AddressValueError:
        raise Fault(f"-range {printable(count)} ends behind the last address") from None
    return " ".join(address_text(n, port) for n in networks)


def balance_of(v, services):
    """How its services share the connections: "" for one that has them all."""
    several = len(services) > 1
    method, persistence = v.settings.get("lbMethod"), v.settings.get("persistenceType")
    by_source = persistence is not None and persistence.value.lower() == "sourceip"
    if persistence and persistence.value.lower() != "none" and several and not by_source:
        persistence.refuse("persistenceType", PERSISTENCE)
    wanted = method.value.lower() if method else "leastconnection"
    found = "source-hash" if by_source else METHODS.get(wanted)
    if method and not found and several:
        found = "least-connections"
        method.refuse(
            "lbMethod",
            (
                "balance = round-robin, least-connections or source-hash; made the second, which is "
                "NetScaler's default"
            ),
        )
    return found if several else ""


def server_certkeys(t, v, settings):
    """Those that are shown to clients: the default first, then those for SNI."""
    own = [b for b in v.ssl_binds if translate_pki.is_certkey(b) and not b.has("CA")]
    by_name = enabled(settings, "SNIEnable")
    usable = []
    for bind in sorted(own, key=lambda b: b.has("SNICert")):
        try:
            translate_pki.certkey_with_key(t, bind.target)
            if bind.has("SNICert") and not by_name:
                raise Fault("-SNIEnable is not ENABLED for it, so NetScaler does not use this one")
        except Fault as fault:
            bind.command.leave_out_whole(str(fault))
            continue
        usable.append(bind)
    if not usable:
        raise Fault("no certificate is bound that could be shown to clients")
    unknown = settings.get("allowUnknownSNI")
    default = not usable[0].has("SNICert")
    if unknown and by_name and default and not enabled(settings, "allowUnknownSNI"):
        unknown.refuse(
            "allowUnknownSNI",
            (
                "clients that name an unknown host get the default certificate; "
                "allow_unknown_sni = off would also refuse those that name none"
            ),
        )
    # Who named no host gets a certificate on NetScaler if one is bound that is not for SNI.
    return tuple(dict.fromkeys(b.target for b in usable)), default
