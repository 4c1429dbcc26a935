# SPDX-License-Identifier: Apache-2.0
"""tools/bench, in small: what it prints and writes, and that it notices what is wrong."""

import json
import os
import re
import signal
import subprocess

import pytest

from harness import netns
from harness.daemon import ROOT, wait_until
from harness.peer import SCALE
from harness.traffic import Traffic

pytestmark = pytest.mark.timeout(60)

SMALL = ("--repeats", "2", "--bytes", "2000000", "--pings", "20", "--connections", "20",
         "--clients", "3", "--first-bytes", "3", "--gates", "user")


def run_bench(directory, *args):
    return subprocess.run([ROOT / "tools/bench/bench", *SMALL, "--json", directory / "out.json",
                           *args], capture_output=True, text=True, timeout=50 * SCALE, check=False)


def bench(directory, *args):
    done = run_bench(directory, *args)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((directory / "out.json").read_text())


@pytest.mark.parametrize("names", [("bytes-1", "bytes-64"), ("ping",),
                                   ("connect-cached", "connect-new", "first-byte")])
def test_figures(tmp_path, names):
    text, found = bench(tmp_path, *names)
    assert [f["name"] for f in found["figures"]] == list(names)
    for figure in found["figures"]:
        assert f"\n{figure['name']}: " in text
        row = figure["rows"]["user"]
        for column in row.values():
            assert len(column["values"]) == 2
            assert column["low"] <= column["median"] <= column["high"]
        # The gate's own CPU time, and clients that wait: it cannot be nothing.
        assert all(row[column]["low"] > 0 for column in ("gate", "p50", "p99") if column in row)
        assert "gate" in row or figure["name"] == "first-byte"
        if figure["name"] in ("ping", "first-byte"):
            assert row["p50"]["low"] <= row["p99"]["high"]


def test_overload(tmp_path):
    text, found = bench(tmp_path, "--seconds", "5", "--pinging", "2", "--busy", "0", "--repeats", "1",
                        "overload")
    (figure,) = found["figures"]
    assert "\noverload: 5 s with " in text
    row = figure["rows"]["user"]
    assert row.pop("flows stalled")["high"] == 0
    assert all(column["low"] > 0 for column in row.values()), figure


def test_a_failure_does_not_take_the_others_away(tmp_path):
    done = run_bench(tmp_path, "--gates", "no-such-engine", "ping", "first-byte")
    found = json.loads((tmp_path / "out.json").read_text())
    assert done.returncode == 1
    assert list(found["failures"]) == ["ping", "first-byte"]
    assert "\nping: FAILED: " in done.stdout


def test_first_byte_with_delay(tmp_path):
    """TCP's, the two handshakes' and the answer's round trips, all of 2 x 20 ms."""
    with netns.lossy():  # or there is no netem here
        pass
    _, found = bench(tmp_path, "--delay", "20", "first-byte")
    assert found["figures"][0]["rows"]["user"]["p50"]["low"] >= 3 * 2 * 20


@pytest.mark.parametrize("room, wrong", [(3, False), (1, True)])
def test_overload_spares_who_is_there(gate, pki, tmp_path, room, wrong):
    """Who arrives may be refused, but not a flow that is to be there all the time."""
    # One worker: two that accept at the same time may each see room for one more.
    traffic = Traffic(gate, pki, tmp_path, limit__flows=room, dataplane__workers=1)
    argv = traffic.argv("--rate", 1, "--every", 500, "--may-fail", "--pinging", 2)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=50 * SCALE, check=False,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == wrong, done.stdout
    took, pinged = (int(re.search(rf"^{word} n (\d+)", done.stdout, re.MULTILINE)[1])
                    for word in ("took", "pinged"))
    assert (pinged > 0) != wrong
    if not wrong:
        # One at a time, of more than can be done in the second.
        assert took > 0
        assert traffic.gate.stats()["reason_limit_flows"] > 0


def test_signer(tmp_path):
    """It answers each request with a certificate, or the figure fails."""
    _, found = bench(tmp_path, "signer", "--requests", "20", "--repeats", "1")
    for kind in ("P-256", "RSA-2048"):
        row = found["figures"][0]["rows"][kind]
        assert row["P-256/s"]["low"] > row["cold RSA/s"]["low"] > 0
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
