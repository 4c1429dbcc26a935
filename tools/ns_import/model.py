# SPDX-License-Identifier: Apache-2.0
"""The objects that commands make."""

import dataclasses
import re

from .commands import Command, FEATURES
from .common import Fault
from .grammar import HTTP, MONITOR, NOTHING, OCSP, OPTIONS
from .settings import has


@dataclasses.dataclass
class Setting:
    value: str
    command: Command

    def refuse(self, name, reason):
        self.command.leave_out(self.command.shown(name, self.value), reason)


@dataclasses.dataclass(eq=False)
class Bind:
    command: Command
    target: str  # what is bound
    options: dict  # name: value

    def has(self, name):
        return name in self.options

    def refuse(self, name, reason):
        self.command.leave_out(self.command.shown(name), reason)


class Entity:
    """An object of the appliance: its settings, what is bound to it, and the lines that say so."""

    def __init__(self, kind, name):
        self.kind, self.name = kind, name
        self.added = None  # Command
        self.commands = []
        self.settings = {}  # by option's name
        self.ssl = {}  # the same of "set ssl vserver" and the like
        self.binds = []
        self.ssl_binds = []
        self.monitors = []
        self.responders = []
        self.links = []
        self.failure = None  # why it is left out, once that is known

    def get(self, name, default=None):
        return self.settings[name].value if name in self.settings else default

    @property
    def lines(self):
        return sorted({c.number for c in self.commands})

    def place(self):
        return f"line {self.added.number}" if self.added else "nowhere"


class Model:
    """Commands applied in their order."""

    def __init__(self):
        self.commands = []
        self.entities = {}  # (kind, name)
        self.default_profile = False

    # Where the settings of these kinds go.
    HOLDERS = {
        "ssl vserver": "lb vserver",
        "ssl service": "service",
        "ssl serviceGroup": "serviceGroup",
    }

    def of(self, kind):
        """In the order of their names."""
        return [e for (k, _), e in sorted(self.entities.items()) if k == kind]

    def find(self, kind, name):
        return self.entities.get((kind, name))

    def entity(self, command):
        key = self.HOLDERS.get(command.kind, command.kind), command.name
        if key not in self.entities:
            self.entities[key] = Entity(*key)
        self.entities[key].commands.append(command)
        return self.entities[key]

    def apply(self, command):
        self.commands.append(command)
        if command.whole or command.used:
            return
        if command.kind == "ns feature":
            self._features(command)
            return
        for kind, key, reason in (
            ("lb monitor", "service.<name>.check", MONITOR),
            ("ssl ocspResponder", "profile.<name>.client_ocsp", OCSP),
        ):
            if command.kind == kind and not has(key):
                command.leave_out_whole(reason)
                return
        handler = getattr(self, f"verb_{command.verb}", None)
        if not handler:
            command.leave_out_whole(f"'{command.verb}' is not translated")
            return
        try:
            handler(command)
        except Fault as fault:
            command.leave_out_whole(str(fault))

    # ---- verbs ----

    def verb_add(self, command):
        entity = self.find(command.kind, command.name)
        if command.kind.startswith("ssl ") and command.kind in (*self.HOLDERS, "ssl parameter"):
            raise Fault("'add' has no meaning here")
        if entity and entity.added:
            raise Fault(f"added already on line {entity.added.number}")
        entity = self.entity(command)
        entity.added = command
        self._settings(entity, command)

    def verb_set(self, command):
        if command.kind == "ssl parameter":
            self._ssl_parameter(command)
            return
        entity = self.entity(command)
        if command.kind == "serviceGroup" and command.args:
            raise Fault("settings of one member are not translated")
        self._settings(entity, command)

    verb_update = verb_set

    def verb_unset(self, command):
        entity = self.entity(command)
        where = entity.ssl if command.kind in self.HOLDERS else entity.settings
        for option in command.options:
            where.pop(option.name, None)

    def verb_bind(self, command):
        self._bind(command, self.entity(command))

    def verb_unbind(self, command):
        entity = self.entity(command)
        gone, where = self._bindings(command, entity)
        names = {bind.target for bind in gone}
        where[:] = [
            b
            for b in where
            if b.target not in names
            or any(
                g.has(flag) != b.has(flag)
                for g in gone
                if g.target == b.target
                for flag in ("CA", "SNICert")
            )
        ]

    def verb_link(self, command):
        if command.kind != "ssl certKey" or len(command.args) != 1:
            raise Fault("only 'link ssl certKey NAME CA' is translated")
        self.entity(command).links = [Bind(command, command.args[0], {})]

    def verb_unlink(self, command):
        self.entity(command).links = []

    def verb_rm(self, command):
        key = command.kind, command.name
        if key not in self.entities:
            raise Fault("there is none of this name before this line")
        del self.entities[key]
        for entity in self.entities.values():
            for binds in (
                entity.binds,
                entity.ssl_binds,
                entity.links,
                entity.monitors,
                entity.responders,
            ):
                binds[:] = [b for b in binds if b.target != command.name]

    def verb_enable(self, command):
        self._state(command, "ENABLED")

    def verb_disable(self, command):
        self._state(command, "DISABLED")

    # ---- what they have in common ----

    def _settings(self, entity, command):
        where = entity.ssl if command.kind in self.HOLDERS else entity.settings
        for option, value in command.options.items():
            where[option.name] = Setting(value, command)
        if command.kind == "service" and "IPAddress" in where and entity.added:
            entity.added.args[:1] = [where.pop("IPAddress").value]

    def _ssl_parameter(self, command):
        for option, value in command.options.items():
            if option.name == "defaultProfile":
                self.default_profile = value.lower() in ("enabled", "yes")
                command.used = True

    @staticmethod
    def _features(command):
        others = [f for f in command.args if f.lower() not in FEATURES]
        if command.verb == "enable" and others:
            command.leave_out(
                " ".join(f for f in others if re.fullmatch("[A-Za-z]{1,24}", f)), NOTHING
            )
        command.used = True

    def _state(self, command, state):
        if "state" not in OPTIONS[command.kind]:
            raise Fault(f"'{command.verb}' has no meaning here")
        entity = self.entity(command)
        if not command.args or command.kind == "service":  # what follows is a delay
            entity.settings["state"] = Setting(state, command)
        elif command.kind == "serviceGroup" and len(command.args) == 2:
            for bind in entity.binds:
                if bind.target == " ".join(command.args):
                    bind.options["state"] = state
        else:
            raise Fault(f"'{command.verb}' of this form is not translated")

    def _bindings(self, command, entity):
        """What a bind command binds, and the list of its entity where that belongs."""
        values = {o.name: value for o, value in command.options.items()}
        if command.kind in ("ssl profile", *self.HOLDERS):
            # "-forgingCACertkey NAME" or, as a flag, behind "-certkeyName NAME"
            certkey = values.get("certkeyName") or values.get("forgingCACertkey")
            found = [
                Bind(command, values[name], values)
                for name in ("cipherName", "eccCurveName")
                if name in values
            ]
            found += [Bind(command, certkey, values)] if certkey else []
            return found, entity.ssl_binds
        if "monitorName" in values:
            return [Bind(command, values["monitorName"], values)], entity.monitors
        if command.kind == "ssl cipher":
            return [Bind(command, values.get("cipherName", ""), values)], entity.binds
        return [Bind(command, " ".join(command.args), values)], entity.binds

    def _bind(self, command, entity):
        responder = command.option("ocspResponder")
        if command.kind == "ssl certKey" and responder and has("profile.<name>.client_ocsp"):
            entity.responders.append(Bind(command, responder, {}))
            return
        if command.kind in ("ssl certKey", "server", "lb monitor", "ssl ocspResponder"):
            for option in command.options:
                command.leave_out(
                    command.shown(option.name), OCSP if responder else option.reason or NOTHING
                )
            return
        found, where = self._bindings(command, entity)
        monitor = command.option("monitorName")
        if monitor is not None and not has("service.<name>.check"):
            command.leave_out_whole(MONITOR)
        elif command.option("policyName") is not None:
            command.leave_out_whole(HTTP)
        elif found and found[0].target:
            where.extend(found)
            if command.kind == "serviceGroup" and monitor is None and len(command.args) != 2:
                where.pop()
                raise Fault("a member has an address (or a server's name) and a port")
        elif not command.faults and not any(o.reason for o in command.options):
            raise Fault("nothing is bound that ktlsgate knows")
        else:
            self._judge(command)

    @staticmethod
    def _judge(command):
        for option, value in command.options.items():
            if option.quiet is not None and not option.wants_nothing(value):
                command.leave_out(command.shown(option.name), option.reason)


def judge_settings(settings, kind):
    """Settings that the table alone decides."""
    for name, setting in settings.items():
        option = OPTIONS[kind][name]
        if option.quiet is not None and not option.wants_nothing(setting.value):
            setting.refuse(name, option.reason)
