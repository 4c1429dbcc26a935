# SPDX-License-Identifier: Apache-2.0
"""The words of a line."""

import dataclasses
import re

from .common import Fault


ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "b": "\b", "v": "\v"}
ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|[0-7]{3}|.)", re.DOTALL)
# After a q that begins a word. Others that Citrix names (- . : _) stand in names.
Q_DELIMITERS = "/{<[|~$^+=&%@`?#!*;,\"'"
Q_CLOSED_BY = {"{": "}", "<": ">", "[": "]"}
Q_IN_NAMES = "#=@"  # q@x may be a name: it is one if no second @ follows


@dataclasses.dataclass(frozen=True)
class Word:
    text: str
    quoted: bool = False  # from its first character on

    @property
    def is_option(self):
        return not self.quoted and re.match(r"--?[A-Za-z]", self.text) is not None


def unescape(text):
    def one(match):
        code = match[1]
        if code[0] == "x" and len(code) == 3:
            return chr(int(code[1:], 16))
        if len(code) == 3:
            return chr(int(code, 8) & 255)
        return ESCAPES.get(code, code)

    return ESCAPE.sub(one, text)


def read_quoted(line, at):
    """(text, the place behind it) of a string whose quote is at line[at]."""
    end = at + 1
    while end < len(line) and line[end] != line[at]:
        end += 2 if line[end] == "\\" else 1
    if end >= len(line):
        raise Fault("a quote is not closed")
    return unescape(line[at + 1 : end]), end + 1


def read_q(line, at):
    """As read_quoted(), of q/text/, in which nothing is special; or None: a word that begins with q."""
    if line[at : at + 1] != "q" or line[at + 1 : at + 2] not in tuple(Q_DELIMITERS):
        return None
    end = line.find(Q_CLOSED_BY.get(line[at + 1], line[at + 1]), at + 2)
    if end < 0 and line[at + 1] in Q_IN_NAMES:
        return None
    if end < 0:
        raise Fault(f"q{line[at + 1]} is not closed")
    return line[at + 2 : end], end + 1


def read_word(line, at):
    """A word may be quoted in parts: ab"c d"e."""
    parts, quoted, start = [], False, at
    while at < len(line) and line[at] not in " \t":
        if line[at] in "\"'":
            piece = read_quoted(line, at)
        else:
            piece = read_q(line, at) if at == start else None
        if piece:
            quoted |= at == start
            text, at = piece
        elif match := ESCAPE.match(line, at):
            text, at = unescape(match[0]), match.end()
        else:
            text, at = line[at], at + 1
        parts.append(text)
    return Word("".join(parts), quoted), at


def split_words(line):
    words, at = [], 0
    while at < len(line):
        if line[at] in " \t":
            at += 1
            continue
        word, at = read_word(line, at)
        words.append(word)
    return words
