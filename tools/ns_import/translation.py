# SPDX-License-Identifier: Apache-2.0
"""One translation: its state, the order of its steps, and a reason for each line that is left out."""

from . import blocks, translate_vserver
from .common import Fault, printable
from .model import Model


class Translation:
    def __init__(self, model, pki_dir):
        self.model, self.pki_dir = model, pki_dir
        self.vservers = []
        self.services = {}  # (kind, name): [Service]
        self.member_names = {}  # of groups' members: whose they are
        self.files = {}  # path: where it comes from
        self.bundles = []
        self.blocks = []
        self.services_made = []  # those that vservers use

    def run(self):
        """The blocks of the result, sorted."""
        for entity in self.model.of("lb vserver"):
            try:
                self.vservers.append(translate_vserver.translate_vserver(self, entity))
            except Fault as fault:
                self.fail(entity, str(fault))
        self.refuse_shared_keys()
        self.refuse_same_addresses()
        blocks.make_blocks(self)
        self.explain_leftovers()
        return self.blocks

    def fail(self, entity, reason):
        entity.failure = entity.failure or reason

    def drop(self, refused):
        for v, reason in refused:
            self.fail(v.entity, reason)
        gone = [v for v, _ in refused]
        self.vservers = [v for v in self.vservers if v not in gone]

    def refuse_shared_keys(self):
        """Forging keys stay in the signer: none of them may serve clients too."""
        forging = {s.back.forging for v in self.vservers for s in v.services}
        self.drop(
            [
                (
                    v,
                    f"its certificate {printable(min(both))} is also a forging CA; that needs a "
                    "key of its own",
                )
                for v in self.vservers
                if (both := forging.intersection(v.certkeys))
            ]
        )

    def refuse_same_addresses(self):
        first, refused = {}, []
        for v in sorted(self.vservers, key=lambda v: v.entity.added.number):
            other = first.setdefault(v.listen, v)
            if other is not v:
                refused.append(
                    (
                        v,
                        f"lb vserver {printable(other.entity.name)} listens on {v.listen} "
                        "already",
                    )
                )
        self.drop(refused)

    def explain_leftovers(self):
        """Every line that neither went into a block nor holds without has a reason."""
        for entity in self.model.entities.values():
            for command in entity.commands:
                self.explain_leftover(entity, command)
        for command in self.model.commands:
            if command.kind == "ssl parameter" and not command.whole:
                Model._judge(command)

    def explain_leftover(self, entity, command):
        if entity.failure:
            command.faults, command.whole = [], command.whole or entity.failure
            return
        if command.whole or command.used:
            return
        if command.verb in ("unset", "unbind", "unlink") and not command.faults:
            command.used = True
        elif not entity.added and entity.kind != "ssl profile":
            command.whole = f"there is no 'add {entity.kind} {printable(entity.name)}' in this file"
        elif entity.kind != "lb vserver":
            command.faults, command.whole = [], "nothing that is translated uses it"
        elif not command.faults:
            command.used = True
