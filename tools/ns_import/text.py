# SPDX-License-Identifier: Apache-2.0
"""The text of the result."""

import textwrap

from .common import PROGRAM, printable


HEADS = {
    "certkey": "certificates and keys",
    "profile": "how TLS is spoken",
    "service": "backends",
    "vserver": "what clients connect to",
}


def comment(text):
    return (
        textwrap.fill(
            printable(text),
            98,
            initial_indent="# ",
            subsequent_indent="#   ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        + "\n"
    )


def numbers(commands):
    return ", ".join(str(n) for n in sorted({c.number for c in commands}))


def block_text(block, source, told):
    title = f"{block.scope} {block.name}" if block.scope else "for all"
    if block.original != block.name:
        title += f' ("{block.original}" in {source})'
    if block.commands:
        title += f": {source}:{numbers(block.commands)}"
    text = comment(title)
    for remark in block.remarks:
        text += comment(remark)
    for command in sorted(block.commands, key=lambda c: c.number):
        if command.whole or command.number in told:
            continue
        told.add(command.number)
        for what in command.parts_left_out():
            text += comment(f"NOT TRANSLATED {source}:{command.number}: {what}.")
    prefix = f"{block.scope}.{block.name}." if block.scope else ""
    return text + "".join(f"{prefix}{key} = {value}\n" for key, value in block.keys)


def config_text(blocks, source):
    text = comment(
        f"Made by {PROGRAM} from {source}. Numbers are lines of that file. What could not be "
        "translated is marked here where it belongs to an object, and listed in full on the "
        "program's standard error."
    )
    text += comment(
        "dataplane.user is nothing that NetScaler knows; an unprivileged user is recommended:"
    )
    text += "#dataplane.user = ktlsgate\n"
    if any(("tls_max", "1.2") in block.keys for block in blocks):
        text += comment(
            "tls_max = 1.2 is NetScaler's default: delete it where TLS 1.3 may be spoken."
        )
    scope, told = "", set()
    for block in blocks:
        if block.scope != scope:
            scope = block.scope
            text += f"\n# ---- {HEADS[scope]} ----\n"
        text += "\n" + block_text(block, source, told)
    return text
