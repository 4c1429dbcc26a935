# SPDX-License-Identifier: Apache-2.0
"""tests/guest/run, on which all guest suites stand: what it promises, with one boot."""

import os
import subprocess

import pytest

from harness.daemon import ROOT

RUN = [ROOT / "tests/guest/run", "--kernel", "6.1"]
NOTE = "two  words; $HOME `id` 'and \"quotes\"'"
GUEST = """
set -e
printf 'note %s\\n' "$KTLSGATE_NOTE"
printf 'kernel %s %s\\n' "$KTLSGATE_GUEST" "$(uname -r)"
printf 'in %s\\n' "$PWD"
echo to stderr >&2
cat "$1/precious"
echo overwritten >"$1/precious"
touch "$1/new" /new-in-root
cat "$1/precious"
echo from the guest >"$KTLSGATE_OUT/result"
exit 7
"""


@pytest.fixture(scope="module")
def kernel():
    """The kernel's directory; the first call on a machine downloads it, and QEMU."""
    done = subprocess.run([*RUN, "--fetch-only"], capture_output=True, text=True, check=False)
    if done.returncode == 126:
        pytest.skip(f"no guest kernel to be had: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def no_mirror(tmp_path):
    """An environment in which apt reaches no mirror."""
    config = tmp_path / "apt.conf"
    config.write_text("".join(f'Acquire::{scheme}::Proxy "http://127.0.0.1:1";\n'
                              for scheme in ("http", "https")))
    return {**os.environ, "APT_CONFIG": str(config)}


def console_log(done):
    """Kept when the status is not 0, and named in the last line."""
    return done.stderr.rsplit("guest: console log: ", 1)[1].strip()


@pytest.mark.timeout(600)
def test_guest(kernel, no_mirror, tmp_path):
    """Exit status, output, KTLSGATE_*, --out; this machine is not written to, nothing downloaded."""
    kept, out = tmp_path / "kept", tmp_path / "out"
    kept.mkdir()
    out.mkdir()
    (kept / "precious").write_text("as it was\n")
    done = subprocess.run(
        [*RUN, "--timeout", "120", "--keep", kept, "--out", out, "--", "sh", "-c", GUEST, "sh", kept],
        env={**no_mirror, "KTLSGATE_NOTE": NOTE}, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL)
    release = os.path.basename(kernel)
    assert (done.returncode, done.stdout.splitlines()) == (7, [
        f"note {NOTE}", f"kernel {release} {release}", f"in {ROOT}", "to stderr", "as it was",
        "overwritten"]), done.stderr
    assert (out / "result").read_text() == "from the guest\n"
    assert (kept / "precious").read_text() == "as it was\n"
    assert not (kept / "new").exists() and not os.path.exists("/new-in-root")
    assert "fetching" not in done.stderr
    os.unlink(console_log(done))


def test_guest_out_of_time(kernel):
    done = subprocess.run([*RUN, "--timeout", "1", "--", "true"], capture_output=True, text=True,
                          check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 125 and "time is up" in done.stderr
    os.unlink(console_log(done))


def test_kernel_cannot_be_had(no_mirror, tmp_path):
    """And thereby: an unreachable mirror is what test_guest had."""
    done = subprocess.run([*RUN, "--fetch-only"], capture_output=True, text=True, check=False,
                          env={**no_mirror, "KTLSGATE_CACHE": str(tmp_path / "cache")})
    assert done.returncode == 126 and done.stdout == ""
    assert "guest: fetching kernel 6.1" in done.stderr and "127.0.0.1" in done.stderr
