# SPDX-License-Identifier: Apache-2.0
"""Somebody else on this machine, who may connect to a control socket. Needs root."""

import contextlib
import os
import subprocess
import sys

import pytest

GROUP = "adm"
UID = 61001  # nobody's
TIMEOUT = 20

# Opens N connections, says TEXT on each, prints a line, and holds them until a line comes on stdin;
# then prints what each was told, as it can be read without waiting long, in hexadecimal.
HOLD = """
import socket, sys
path, n, text = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
held = []
for _ in range(n):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    try:
        s.sendall(text)
    except BrokenPipeError:
        pass
    held.append(s)
print("held", flush=True)
sys.stdin.readline()
for s in held:
    s.settimeout(float(sys.argv[4]))
    got = b""
    try:
        while data := s.recv(1 << 20):
            got += data
        end = "end"
    except OSError as e:
        end = type(e).__name__
    print(end, got.hex(), flush=True)
"""


def need_root():
    if os.geteuid():
        pytest.skip("not root: cannot be somebody else")


def gid():
    import grp  # pylint: disable=import-outside-toplevel
    return grp.getgrnam(GROUP).gr_gid


def popen(argv, uid=UID, **options):
    need_root()
    return subprocess.Popen([*map(str, argv)], user=uid, group=gid(), extra_groups=[], cwd="/",
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


def ctl(path, *words, uid=UID):
    """ktlsgatectl of this user: exit status, standard output, standard error."""
    from .daemon import program  # pylint: disable=import-outside-toplevel
    with open(program("ktlsgatectl"), "rb") as tool:  # below a directory that may be root's alone
        with popen([f"/proc/self/fd/{tool.fileno()}", "-s", path, *words], uid,
                   stderr=subprocess.PIPE, pass_fds=[tool.fileno()]) as process:
            out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, out, err


@contextlib.contextmanager
def holding(path, n, text="", uid=UID, patience=0.2):
    """n connections, held until the block ends or told() is called: (how it ended, bytes) of each."""
    with popen([sys.executable, "-c", HOLD, path, n, text, patience], uid) as process:
        try:
            assert process.stdout.readline() == "held\n"

            def told():
                process.stdin.write("\n")
                process.stdin.flush()
                lines = [process.stdout.readline().split() for _ in range(n)]
                return [(line[0], bytes.fromhex("".join(line[1:]))) for line in lines]

            yield told
        finally:
            process.kill()
