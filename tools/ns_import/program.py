# SPDX-License-Identifier: Apache-2.0
"""ktlsgate-ns-import: a NetScaler configuration (ns.conf) in, one of ours out. What cannot be
translated is named on standard error, each line once, with its reason.

In the order of the flow: words of a line (words), the command they are (grammar, commands), the
objects that commands make (model), their translation into keys (translation, translate_*, blocks),
and the text of those (text). It knows ktlsgate's keys (docs/ns-import.md has the table) but not how
their values are checked: `ktlsgated -t` does that (--check).

Secrets: what is printed of a line is chosen, never what is left out. Only words that the tables
know are printed; an unknown command, an unknown option's value or a line that is no command may
hold a password.
"""

import argparse
import base64
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from .commands import parse_command
from .common import ALL_TRANSLATED, BUNDLES, ERROR, Fault, LEFT_OUT, NS_PKI, PROGRAM
from .model import Model
from .settings import VERSION
from .text import HEADS, config_text
from .translation import Translation


CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def certificates(path):
    """The PEM certificates of a file, and nothing else of it: there may be a key in it."""
    data = pathlib.Path(path).read_bytes()
    if data.startswith(b"\x30"):  # a DER SEQUENCE
        text = base64.encodebytes(data).replace(b"\n", b"")
        lines = [text[i : i + 64] for i in range(0, len(text), 64)]
        return [b"\n".join([b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----"])]
    found = CERTIFICATE.findall(data)
    if not found:
        raise Fault(f"{path} holds no certificate")
    return found


def write_bundle(bundle):
    parts = [b"# Made by ktlsgate-ns-import of " + os.fsencode(", ".join(bundle.parts))]
    for path in bundle.parts:
        parts += certificates(path)
    os.makedirs(os.path.dirname(bundle.path), mode=0o755, exist_ok=True)
    write_file(bundle.path, b"\n".join(parts) + b"\n", 0o644)


def write_file(path, data, mode):
    """All of it or nothing."""
    directory = os.path.dirname(path) or "."
    fd, name = tempfile.mkstemp(prefix=".ns-import.", dir=directory)
    try:
        with os.fdopen(fd, "wb") as out:
            out.write(data)
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def read_lines(path):
    """No byte of a file is refused: those that are not UTF-8 are kept as they are."""
    if path == "-":
        data = sys.stdin.buffer.read()
    else:
        data = pathlib.Path(path).read_bytes()
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    return [line.rstrip("\r") for line in text.split("\n")]


def report(out, path, model, translator, files_missing):
    for command in model.commands:
        text = command.report()
        if text:
            out.write(f"{path}:{command.number}: {text}\n")
    for file, what in files_missing:
        out.write(f"{PROGRAM}: {file} is not there yet: {what}\n")
    whole = sum(c.whole is not None for c in model.commands)
    part = sum(c.whole is None and bool(c.faults) for c in model.commands)
    made = {scope: sum(b.scope == scope for b in translator.blocks) for scope in HEADS}
    translated = len(model.commands) - whole - part
    out.write(
        f"{PROGRAM}: {len(model.commands)} commands: {translated} translated, {part} in part, {whole} left out; made "
        + ", ".join(f"{n} {scope}{'' if n == 1 else 's'}" for scope, n in made.items())
        + "\n"
    )
    return whole + part


def find_daemon():
    """On the PATH, beside us, or where packages put it."""
    here = os.path.dirname(os.path.realpath(sys.argv[0]))
    places = [
        os.environ.get("PATH", ""),
        here,
        os.path.join(here, "../sbin"),
        "/usr/local/sbin",
        "/usr/sbin",
    ]
    found = shutil.which("ktlsgated", path=os.pathsep.join(places))
    if not found:
        raise Fault("ktlsgated is not found; --check needs it")
    return found


def check(daemon, text, output):
    """ktlsgated -t, which says itself what is wrong."""
    with tempfile.NamedTemporaryFile(prefix="ns-import.", suffix=".conf") as file:
        file.write(text)
        file.flush()
        done = subprocess.run(
            [daemon, "-t", "-c", output or file.name], check=False, stdout=sys.stderr
        )
    return done.returncode == 0


def translate(lines, pki_dir):
    model = Model()
    for number, line in enumerate(lines, 1):
        command = parse_command(number, line)
        if command:
            model.apply(command)
    translator = Translation(model, pki_dir)
    translator.run()
    return model, translator


def run(args):
    daemon = find_daemon() if args.check else None
    model, translator = translate(read_lines(args.conf), args.pki_dir)
    source = "standard input" if args.conf == "-" else os.path.basename(args.conf)
    text = config_text(translator.blocks, source).encode("utf-8", "surrogateescape")
    for bundle in translator.bundles if args.bundle else ():
        write_bundle(bundle)
    if args.output:
        write_file(args.output, text, 0o644)
    else:
        sys.stdout.buffer.write(text)
        sys.stdout.flush()
    files = sorted(translator.files.items())
    files += [(b.path, "made of others with --bundle") for b in translator.bundles]
    missing = [(path, what) for path, what in files if not os.path.exists(path)]
    left = report(sys.stderr, args.conf, model, translator, missing)
    sys.stderr.flush()
    if daemon and not check(daemon, text, args.output):
        raise Fault("ktlsgated -t does not take the result")
    return LEFT_OUT if left else ALL_TRANSLATED


def main():
    sys.stderr.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        add_help=False,
        usage=f"{PROGRAM} [OPTION]... NS.CONF",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Turn a NetScaler configuration (ns.conf; - is standard input) into ktlsgate's.",
        epilog="What cannot be translated is named on standard error, each line once, with its\n"
        "reason. Passwords and passphrases are never printed.\n"
        "Exit status: 0 all translated, 1 something left out, 2 error.",
    )
    parser._optionals.title = "options"
    parser.add_argument("conf", metavar="NS.CONF", help=argparse.SUPPRESS)
    parser.add_argument(
        "-o", dest="output", metavar="FILE", help="write there, not to standard output"
    )
    parser.add_argument(
        "--pki-dir",
        metavar="DIR",
        default="/etc/ktlsgate/pki",
        help=f"where the files of {NS_PKI} are (default %(default)s)",
    )
    parser.add_argument(
        "--bundle",
        action="store_true",
        help="make the PEM files that hold several certificates, in DIR/" + BUNDLES,
    )
    parser.add_argument("--check", action="store_true", help="then have ktlsgated test the result")
    parser.add_argument("-h", "--help", action="help", help="show this help")
    parser.add_argument(
        "-V", "--version", action="version", version=f"{PROGRAM} {VERSION}", help="show the version"
    )
    args = parser.parse_args()
    try:
        return run(args)
    except (Fault, OSError) as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return ERROR
