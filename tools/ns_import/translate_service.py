# SPDX-License-Identifier: Apache-2.0
"""Services, groups of them, and their health checks."""

import ipaddress

from . import model, translate_profile
from .common import Fault, UNKNOWN_NAME, printable
from .grammar import MONITOR
from .parts import Service
from .settings import has
from .values import TLS_TYPES, address, address_text, enabled, is_hostname, number, port_text


def bound_services(t, v):
    found = []
    for bind in v.binds:
        entity = next(
            filter(None, (t.model.find(kind, bind.target) for kind in ("service", "serviceGroup"))),
            None,
        )
        try:
            if not entity or not entity.added:
                raise Fault(f"there is no service or serviceGroup '{printable(bind.target)}'")
            services = services_of(t, entity)
            must_agree([service for _, service in found], services)
        except Fault as fault:
            bind.command.leave_out_whole(str(fault))
            continue
        if entity.kind == "service":
            take_weight(bind, services[0])
        elif bind.options.get("weight", "1") != "1":
            bind.refuse("weight", "the members of a group have weights of their own")
        names = {service.name for _, service in found}  # bound twice is bound once
        found += {s.name: (bind, s) for s in services if s.name not in names}.values()
    if not found:
        raise Fault("no service of it can be translated")
    if not has("vserver.<name>.balance"):
        keep_only_first(found)
    return [service for _, service in found]


def keep_only_first(found):
    first, kept = found[0]
    for bind, service in found[1:]:
        (service.commands[-1] if bind is first else bind.command).leave_out_whole(
            f"a vserver has one service: {printable(kept.name)}"
        )
    del found[1:]


def must_agree(found, services):
    """Which service a forged certificate is for, the signer does not know."""
    if found and (found[0].back.dynamic, found[0].back.forging) != (
        services[0].back.dynamic,
        services[0].back.forging,
    ):
        raise Fault(
            f"it does not forge as service {printable(found[0].name)} does; all services "
            "of a vserver must agree in that"
        )


def take_weight(bind, service):
    """Ours are the service's; NetScaler's are those of a binding."""
    weight = bind.options.get("weight", "1")
    if not number(weight, 1, 256):
        bind.refuse("weight", "it is 1 to 100")
    elif not has("service.<name>.weight"):
        if weight != "1":
            bind.refuse("weight", "services have no weights")
    elif service.weight not in (None, weight):
        bind.refuse(
            "weight",
            (f"service {printable(service.name)} has the weight {service.weight} elsewhere"),
        )
    else:
        service.weight = weight


def services_of(t, entity):
    key = entity.kind, entity.name
    if key not in t.services and not entity.failure:
        try:
            t.services[key] = make_services(t, entity)
        except Fault as fault:
            t.fail(entity, str(fault))
    if entity.failure:
        raise Fault(f"{entity.kind} {printable(entity.name)} ({entity.place()}): {entity.failure}")
    return t.services[key]


def make_services(t, entity):
    group = entity.kind == "serviceGroup"
    args = entity.added.args
    if len(args) < (1 if group else 3):
        raise Fault("its address, type or port is missing")
    kind = args[0] if group else args[1]
    if kind.lower() not in TLS_TYPES:
        raise Fault(f"its type is {printable(kind)}: backends must speak TLS (SSL, SSL_TCP)")
    if entity.get("state", "ENABLED").lower() == "disabled":
        raise Fault("it is DISABLED")
    made = (
        members_of(t, entity) if group else [make_service(t, entity, args[0], args[2], entity.name)]
    )
    if not made:
        raise Fault("no member of it can be translated")
    check = health_check_of(t, entity, made)
    for service in made:
        service.check = check
    model.judge_settings(entity.settings, entity.kind)
    if entity.get("cltTimeout", "180") != "180":
        refuse_idle(entity.settings["cltTimeout"], "cltTimeout")
    if entity.get("svrTimeout", "360") != "360":
        refuse_idle(entity.settings["svrTimeout"], "svrTimeout")
    return made


def refuse_idle(setting, name):
    setting.refuse(name, "timeout.idle is one for all, made of the vservers' -cltTimeout")


def health_check_of(t, entity, services):
    """The keys of its health check. Without a monitor NetScaler connects (tcp-default)."""
    if not has("service.<name>.check"):
        return ()
    on = entity.get("healthMonitor", "YES").lower() == "yes"
    binds = [
        b for b in entity.monitors if b.options.get("monState", "ENABLED").lower() != "disabled"
    ]
    found = {}
    for bind in binds if on else ():
        try:
            found[bind] = probe_of(t, bind.target)
        except Fault as fault:
            bind.command.leave_out_whole(str(fault))
    first = min(found, key=lambda b: found[b] != "tls") if found else None
    for service in services:
        service.commands[:0] = [b.command for b in entity.monitors]
    for bind in found:
        if bind is not first:
            bind.command.leave_out_whole(f"a service has one check: {printable(first.target)}")
    if not on or binds and not found:
        return ()
    monitor = t.model.find("lb monitor", first.target) if first else None
    for service in services if monitor else ():
        service.commands += monitor.commands
    settings = monitor.settings if monitor else {}
    model.judge_settings(settings, "lb monitor")
    return (
        ("check", found[first] if first else "connect"),
        *(
            (key, probe_time(settings, name, default))
            for key, name, default in (
                ("check_interval", "interval", 5),
                ("check_timeout", "resptimeout", 2),
            )
        ),
        *(
            (key, probe_count(settings, name, default))
            for key, name, default in (
                ("check_rise", "successRetries", "1"),
                ("check_fall", "retries", "3"),
            )
        ),
    )


def probe_of(t, name):
    """How a monitor of NetScaler's tries a service; those that come with it are not in the file."""
    monitor = t.model.find("lb monitor", name)
    kind = monitor.added.args[0] if monitor and monitor.added and monitor.added.args else name
    kind = kind.lower().removesuffix("-default").removesuffix("-ecv")
    secure = monitor is not None and enabled(monitor.settings, "secure")
    if kind in ("https", "tcps") or secure and kind in ("http", "tcp"):
        return "tls"
    if kind in ("http", "tcp"):
        return "connect"
    raise Fault(f"monitor {printable(name)}: {MONITOR}")


def probe_count(settings, name, default):
    value = settings[name].value if name in settings else default
    if number(value, 1, 100):
        return value
    settings[name].refuse(name, f"it is 1 to 100; made {default}")
    return default


def probe_time(settings, name, default):
    """Whole seconds, one at least; the unit may be said."""
    if name not in settings:
        return f"{default}s"
    count, unit = (settings[name].value.lower().split() + ["sec"])[:2]
    scale = {"sec": 1, "min": 60, "msec": 0.001}.get(unit)
    seconds = max(1, round(int(count) * scale)) if scale and number(count, 1, 10**6) else 0
    if not 1 <= seconds <= 3600:
        settings[name].refuse(name, f"it is a time of at most an hour; made {default} s")
        seconds = default
    return f"{seconds}s"


def members_of(t, group):
    made = []
    for bind in group.binds:
        host, _, port = bind.target.rpartition(" ")
        name = member_name(t, group, host, port)
        try:
            if bind.options.get("state", "ENABLED").lower() == "disabled":
                raise Fault("it is DISABLED")
            service = make_service(t, group, host, port, name)
        except Fault as fault:
            bind.command.leave_out_whole(str(fault))
            continue
        take_weight(bind, service)
        service.commands.append(bind.command)
        made.append(service)
    return made


def member_name(t, group, host, port):
    """A name that no other service has."""
    name = group.name if len(group.binds) == 1 else f"{group.name}_{host}_{port}"
    while t.member_names.setdefault(name, (group, host, port)) != (
        group,
        host,
        port,
    ) or t.model.find("service", name):
        name += "_2"
    return name


def make_service(t, entity, host, port, name):
    commands = [c for c in entity.commands if c.verb != "bind" or c.kind != "serviceGroup"]
    server = t.model.find("server", host)
    domain = None
    if server and server.added:
        model.judge_settings(server.settings, "server")
        if server.get("state", "ENABLED").lower() == "disabled":
            raise Fault(f"server {printable(host)} ({server.place()}) is DISABLED")
        commands = server.commands + commands
        host = server.added.args[0] if server.added.args else ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        domain = host
    if domain:
        raise Fault(
            f"its backend is known by the name '{printable(domain)}' only; ktlsgate "
            "needs an address"
        )
    ssl, remarks = translate_profile.ssl_of(t, entity, False), []
    back = translate_profile.back_of(t, entity, ssl, remarks)
    return Service(
        name,
        address_text(address(host), port_text(port)),
        server_name_of(entity, ssl.settings, remarks),
        back,
        commands,
        remarks,
    )


def server_name_of(entity, settings, remarks):
    """What the backend's certificate must be for; NetScaler need not know."""
    if "commonName" in settings:
        name = settings["commonName"].value
        if is_hostname(name):
            return name
        settings["commonName"].refuse(
            "commonName", f"it is no DNS name; server_name is {UNKNOWN_NAME}"
        )
        return UNKNOWN_NAME
    entity.added.leave_out(
        "",
        (
            "NetScaler does not check this backend's name (no -commonName), ktlsgate does: replace "
            f"server_name = {UNKNOWN_NAME}, which no certificate has"
        ),
    )
    remarks.append(
        "The name in the backend's certificate is not in ns.conf: replace " f"{UNKNOWN_NAME}."
    )
    return UNKNOWN_NAME
