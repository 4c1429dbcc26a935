# SPDX-License-Identifier: Apache-2.0
"""The command that the words of a line are."""

import dataclasses
import re
import textwrap

from .common import Fault, printable
from .grammar import (
    GROUPS,
    HTTP,
    KINDS,
    NOTHING,
    OPTIONS,
    OTHER_KINDS,
    OUR_VERBS,
    QUIET_VERBS,
    SECONDS,
    SECRET,
    SINGLE_KINDS,
    SYSTEM,
    VERBS,
    choose,
)
from .words import split_words


@dataclasses.dataclass
class Command:
    number: int  # of its line
    verb: str = ""
    kind: str = ""
    name: str = ""
    args: list = dataclasses.field(default_factory=list)  # texts, behind the name
    options: dict = dataclasses.field(default_factory=dict)  # Option: value
    known: list = dataclasses.field(
        default_factory=list
    )  # its first words, those that are no secret
    faults: list = dataclasses.field(default_factory=list)  # (words, reason)
    whole: str = None  # why all of it is left out
    used: bool = False  # something of it is in the output, or holds without

    def leave_out(self, words, reason):
        if (words, reason) not in self.faults:
            self.faults.append((words, reason))

    def leave_out_whole(self, reason):
        self.whole = self.whole or reason

    def option(self, name):
        return next((value for o, value in self.options.items() if o.name == name), None)

    def shown(self, name, value=None):
        """An option as it stands in the line (or could: its default counts), unless it is a secret."""
        value = self.option(name) or "" if value is None else value
        if SECRET.search(name):
            return f"-{name} (not shown)"
        return printable(f"-{name} {textwrap.shorten(value, 60, placeholder=' ...')}".strip())

    def title(self):
        return printable(" ".join(self.known))

    def parts_left_out(self):
        """What of it, and why; options with one reason together."""
        together = {}
        for words, reason in self.faults:
            together.setdefault(reason, []).append(words)
        return [
            ": ".join(filter(None, (" ".join(words), reason))) for reason, words in together.items()
        ]

    def report(self):
        """What stands on standard error about it, or None."""
        reasons = self.whole or "; ".join(self.parts_left_out())
        return ": ".join(filter(None, [self.title(), reasons])) if reasons else None


def parse_kind(command, words):
    """Takes the words that say what it is about; a Fault names why that is not translated."""
    first = words[0].text if words else ""
    reasons = {
        w: reason
        for reason, group in (*GROUPS.items(), *((r, k.split()) for r, k in SINGLE_KINDS.items()))
        for w in group
    }
    group = choose(first, [*KINDS, *reasons], "kind of object", KINDS)
    command.known.append(group)
    if group not in KINDS:
        if len(words) > 1 and words[1].text.lower() in SECONDS:
            command.known.append(words[1].text)
        raise Fault(reasons[group])
    if not KINDS[group]:
        command.kind = group
        return words[1:]
    seconds = [*KINDS[group].split(), *OTHER_KINDS.get(group, "").split()]
    second = choose(
        words[1].text if len(words) > 1 else "",
        seconds,
        f"kind of {group} object",
        KINDS[group].split(),
    )
    command.kind = f"{group} {second}"
    command.known.append(second)
    if second not in KINDS[group].split():
        raise Fault(OTHER_REASONS.get(command.kind, OTHER_REASONS.get(group, NOTHING)))
    return words[2:]


OTHER_REASONS = {
    "ns": SYSTEM,
    "lb policy": HTTP,
    "lb policylabel": HTTP,
    "lb action": HTTP,
    "ssl policy": HTTP,
    "ssl policylabel": HTTP,
    "ssl action": HTTP,
    "ssl global": HTTP,
    "ssl dtlsProfile": "DTLS is not spoken",
    "ssl fipsKey": "keys are read from PEM files",
    "ssl hsmKey": "keys are read from PEM files",
    "ssl fips": "keys are read from PEM files",
}
NAMELESS = {"ssl parameter", "ns feature"}
FLAGS = {"CA", "SNICert", "skipCAName", "forgingCACertkey"}  # options without a value
SETTERS = {"add", "set", "bind", "update"}
FEATURES = {"lb", "loadbalancing", "ssl"}  # what ktlsgate is


def parse_options(command, words):
    """An option's values are all words up to the next option; unknown ones are left out by name."""
    table = OPTIONS[command.kind]
    while words:
        name = words[0].text.lstrip("-")
        count = next((i for i, w in enumerate(words[1:], 1) if w.is_option), len(words))
        values = [w.text for w in words[1:count]]
        words = words[count:]
        try:
            ours = {n for n, o in table.items() if o.quiet is None}
            found = table[choose(name, table, f"option of {command.kind} is known", ours)]
        except Fault as fault:
            command.leave_out(
                f"-{printable(name)}" if re.fullmatch(r"\w{1,40}", name) else "an option",
                str(fault),
            )
            continue
        if (
            not values
            and found.quiet is None
            and found.name not in FLAGS
            and command.verb in SETTERS
        ):
            command.leave_out(f"-{found.name}", "its value is missing")
            continue
        command.options[found] = " ".join(values)


def parse_command(number, line):
    """The command of a line, with its faults; None for an empty line or a comment."""
    if not line.strip() or line.lstrip().startswith("#"):
        return None
    command = Command(number)
    try:
        words = split_words(line)
        command.verb = choose(words[0].text, VERBS, "verb", OUR_VERBS)
        command.known.append(command.verb)
        if command.verb in QUIET_VERBS:
            command.used = True
            return command
        rest = parse_kind(command, words[1:])
        if command.kind not in NAMELESS:
            if not rest or rest[0].is_option:
                raise Fault("the name is missing")
            command.name = rest[0].text
            command.known.append(command.name)
            rest = rest[1:]
            if re.search(r"\[\d+-\d+\]", command.name):
                raise Fault("ranges of names are not expanded")
        split = next((i for i, w in enumerate(rest) if w.is_option), len(rest))
        command.args = [w.text for w in rest[:split]]
        parse_options(command, rest[split:])
    except Fault as fault:
        if not command.known:
            fault = f"this is no command of NetScaler's: {fault}"
        command.leave_out_whole(str(fault))
    return command
