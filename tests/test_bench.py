# SPDX-License-Identifier: Apache-2.0
"""tools/bench, in small: what it prints and writes, and that it notices what is wrong."""

import json
import os
import signal
import subprocess

import pytest

from harness.daemon import ROOT, wait_until
from harness.peer import SCALE
from harness.traffic import Traffic

pytestmark = pytest.mark.timeout(60)

SMALL = ("--repeats", "2", "--bytes", "2000000", "--pings", "20", "--connections", "20",
         "--clients", "3", "--first-bytes", "3", "--gates", "user")


def bench(directory, *args):
    done = subprocess.run([ROOT / "tools/bench/bench", *SMALL, "--json", directory / "out.json",
                           *args], capture_output=True, text=True, timeout=50 * SCALE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((directory / "out.json").read_text())


def test_figures(tmp_path):
    names = ["bytes-1", "bytes-64", "ping", "connect-cached", "connect-new", "first-byte"]
    text, found = bench(tmp_path, *names)
    assert [f["name"] for f in found["figures"]] == names
    for figure in found["figures"]:
        assert f"\n{figure['name']}: " in text
        for column in figure["rows"]["user"].values():
            assert len(column["values"]) == 2
            assert column["low"] <= column["median"] <= column["high"]
    # The gate's own CPU time: it cannot be nothing.
    for figure in found["figures"][:5]:
        assert figure["rows"]["user"]["gate"]["low"] > 0, figure
    ping, first = found["figures"][2], found["figures"][5]
    assert 0 < ping["rows"]["user"]["p50"]["low"] <= ping["rows"]["user"]["p99"]["high"]
    assert 0 < first["rows"]["user"]["p50"]["low"]


def test_signer(tmp_path):
    """It answers each request with a certificate, or the figure fails."""
    _, found = bench(tmp_path, "signer", "--requests", "20", "--repeats", "1")
    for kind in ("P-256", "RSA-2048"):
        row = found["figures"][0]["rows"][kind]
        assert row["warm/s"]["low"] > row["cold RSA/s"]["low"] > 0
        assert 0 < row["half p50 ms"]["low"] <= row["half p99 ms"]["high"]


def test_generator_notices_a_wrong_subject(gate, pki, tmp_path):
    """A backend that is shown the client's own subject where another was asked for."""
    argv = Traffic(gate, pki, tmp_path).argv("--flows", 1, "--schedule", "quick", "--shown",
                                             pki.static_client().cert_file)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=50, check=False,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "another client's subject" in done.stdout


def test_flows_begin_on_their_own(gate, pki, tmp_path):
    """At their rate, though none of those before has been answered; from the address given."""
    traffic = Traffic(gate, pki, tmp_path)
    g = traffic.gate
    argv = traffic.argv("--flows", 20, "--schedule", "quick", "--may-fail", "--concurrency", 2,
                        "--source", "127.5.6.7", "--every", 10_000)
    signer = g.signer()
    os.kill(signer, signal.SIGSTOP)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True,
                          stdin=subprocess.DEVNULL) as process:
        assert wait_until(lambda: g.stats()["flows_active"] == 20, 10 * SCALE)
        os.kill(signer, signal.SIGCONT)
        said = process.stdout.read()
    assert process.returncode == 0 and "\nmet 20, in time 0\n" in said, said
    assert g.log().count("127.5.6.7:") == 20
