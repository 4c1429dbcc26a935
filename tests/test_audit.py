# SPDX-License-Identifier: Apache-2.0
"""The audit log: what stands in it, when it is written, and what survives a signer that is killed."""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from harness import backend as backends
from harness import client as clients
from harness.daemon import Ktlsgated, ctl, program, settings, wait_until


@pytest.fixture
def log(tmp_path):
    return tmp_path / "audit.jsonl"


def entries(log):
    """Every line is whole JSON."""
    text = log.read_text()
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def serve(g, pki, **options):
    with clients.connected(g.port, pki=pki, **options) as c:
        clients.ping(c)
        return c.sock.getsockname()


def test_a_line_for_each_certificate(gate, pki, backend, log):
    """And none for what comes from the cache. It says what the backend saw, and of whom."""
    g = gate(settings(pki, backend.port, audit__log=log))
    certkey = pki.client('Eva "quoted"')
    peer = serve(g, pki, certkey=certkey)
    serve(g, pki, certkey=certkey)
    entry, = entries(log)
    assert oct(log.stat().st_mode & 0o777) == "0o600"
    seen = x509.load_der_x509_certificate(backend.connection().wait().certificate)
    forged, original = entry["forged"], entry["original"]
    assert int(forged["serial"], 16) == seen.serial_number
    assert forged["fingerprint"] == seen.fingerprint(hashes.SHA256()).hex()
    assert forged["not_before"] == seen.not_valid_before.isoformat() + "Z"
    assert forged["not_after"] == seen.not_valid_after.isoformat() + "Z"
    assert int(original["serial"], 16) == certkey.cert.serial_number
    assert original["fingerprint"] == certkey.cert.fingerprint(hashes.SHA256()).hex()
    assert original["issuer"] == "CN=ktlsgate test client-intermediate"
    assert 'CN=Eva \\"quoted\\"' in original["subject"] and "OU=Lab" in original["subject"]
    assert original["names"] == ["upn:erika@corp.example", "email:erika@client.example",
                                 'uri:https://client.example/Eva-"quoted"']
    assert (entry["vserver"], entry["service"], entry["ca"]) == ("app", "app1", "forge")
    assert entry["peer"] == "{}:{}".format(*peer)
    assert re.search(rf"flow {entry['flow']}: app {re.escape(entry['peer'])} ", g.log())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"])

    # From what a backend shows to whom it was: openssl and nginx print it so.
    serial = forged["serial"]
    pairs = ":".join(re.findall("..", serial.lower()))
    for way in (serial, "0x" + serial.lower(), pairs, "00" + serial):
        assert json.loads(g.ctl("forged", way)) == entry
    assert json.loads(ctl("-f", log, "forged", serial).stdout) == entry
    for way, why in (("1234", "no certificate with serial number"), ("xyz", "not a serial number")):
        failed = ctl("-s", g.socket, "forged", way)
        assert failed.returncode == 1 and why in failed.stderr


def test_nothing_refused_is_in_it(gate, pki, backend, log):
    g = gate(settings(pki, backend.port, audit__log=log, audit__sync="each"))
    with g.ends_with("forge_rule"), clients.connect(
            g.port, pki=pki, certkey=pki.client(fault="privileged_san")) as c:
        assert not (c.handshake() and c.recv())
    assert entries(log) == []
    serve(g, pki, certkey=pki.client())
    assert len(entries(log)) == 1


def limit_files(pid, size):
    """What the process may make of a file: then write(2) is cut short, as on a full disk."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_full_disk_issues_nothing(gate, pki, backend, log):
    """What cannot be written down is not handed out; when there is room again, lines are whole."""
    g = gate(settings(pki, backend.port, audit__log=log))
    serve(g, pki, certkey=pki.client("Before"))
    limit_files(g.signer(), log.stat().st_size + 100)  # in the middle of the next line
    reason = "forge_audit"
    for n in range(2):
        with clients.connect(g.port, pki=pki, certkey=pki.client(f"Client {n}")) as c:
            assert not (c.handshake() and c.recv())
            assert c.ended == "alert internal_error"
    assert g.stat_reaches(f"reason_{reason}", 2) and g.stats()["forged"] == 1
    assert not log.read_text().endswith("\n")
    limit_files(g.signer(), resource.RLIM_INFINITY)
    serve(g, pki, certkey=pki.client("With room"))
    before, torn, after = log.read_text().splitlines()
    assert len(torn) == 100 and "Before" in before
    assert "With room" in json.loads(after)["original"]["subject"]


def test_killed_signer_tears_no_line(gate, pki, backend, log):
    """Killed again and again while certificates are made: each that a backend saw is in the log."""
    g = gate(settings(pki, backend.port, audit__log=log, timeout__backend_handshake="3s",
                      forge__cache=1))
    identities = [pki.client(f"Client {n}") for n in range(8)]
    stop = threading.Event()

    def visit(certkey):
        while not stop.is_set():
            with contextlib.suppress(AssertionError, OSError):
                serve(g, pki, certkey=certkey)

    visitors = [threading.Thread(target=visit, args=(i,)) for i in identities]
    for v in visitors:
        v.start()
    try:
        for _ in range(3):
            time.sleep(0.3)
            pid = g.signer()
            os.kill(pid, signal.SIGKILL)
            assert g.log_contains(rf"signer \(pid {pid}\) died: killed by signal 9", 5)
            assert wait_until(g.signer, 10)
    finally:
        stop.set()
        for v in visitors:
            v.join()
    logged = {e["forged"]["fingerprint"] for e in entries(log)}
    seen = {x509.load_der_x509_certificate(s.certificate).fingerprint(hashes.SHA256()).hex()
            for s in backend.seen if s.certificate}
    assert len(seen) >= 10 and seen <= logged


def test_torn_line_of_a_crash_is_ended(gate, pki, backend, log):
    """The machine went down within a line: the next ones are not made part of it."""
    log.write_text('{"time":"2026-01-01T00:00:00.000Z"}\n{"time":"20')
    g = gate(settings(pki, backend.port, audit__log=log))
    assert g.log_contains("its last line was cut short")
    serve(g, pki, certkey=pki.client())
    lines = log.read_text().splitlines()
    assert lines[:2] == ['{"time":"2026-01-01T00:00:00.000Z"}', '{"time":"20']
    assert json.loads(lines[2])["vserver"] == "app" and len(lines) == 3


@pytest.mark.parametrize("path, why", [("/nonexistent/audit.jsonl", "No such file or directory"),
                                       ("/dev/null", "not a regular file")])
def test_log_that_cannot_be(pki, tmp_path, engine, path, why):
    """The gate does not start without it."""
    g = Ktlsgated(tmp_path / "gate", pki, engine, settings(pki, 1, audit__log=path))
    done = subprocess.run([program("ktlsgated"), "-c", g.conf_file], capture_output=True, text=True,
                          timeout=20, check=False)
    assert done.returncode == 1 and f"audit.log = {path}: {why}\n" in done.stderr


# ---- what was, and would be, forged: ktlsgatectl explain ----


def test_explain(gate, pki, tmp_path):
    """Rules from the daemon's configuration, CA and key from the backend's last request."""
    root = pki._ca("explain-root")  # pylint: disable=protected-access
    second = pki._ca("explain-forge", "ec", root, chain=[root.cert])  # pylint: disable=protected-access
    port = backends.free_port()
    with backends.s_server(port, certkey=pki.backend("rsa"), client_ca=root, log=tmp_path / "log",
                           args=("-rev", "-client_sigalgs", "rsa_pss_rsae_sha256")):
        g = gate(settings(pki, port, **{
            "certkey.second.cert": second.cert_file, "certkey.second.key": second.key_file,
            "profile.back.forging_certkey": "forge second", "profile.back.forge.lifespan": "1h",
            "profile.back.forge.add": "1.3.6.1.4.1.99999.3=utf8:gate"}))
        certkey = pki.client("Expl Ained")
        before = g.ctl("explain", "app1", certkey.cert_file)
        assert "has not asked for a certificate yet" in before
        assert "CN=ktlsgate test forge-ec" in before
        with clients.connected(g.port, pki=pki, certkey=certkey) as c:
            c.send(b"abc\n")
            assert c.recv_exactly(4) == b"cba\n"
        text = g.ctl("explain", "app1", certkey.cert_file)
    assert "    CA name   CN=ktlsgate test explain-root\n" in text
    assert f"    CA        {second.cert_file}\n" in text
    assert "    key       RSA, 2048 bits\n" in text
    assert "    forged    CN=ktlsgate test explain-forge\n" in text
    assert "    forged    RSA, 2048 bits\n" in text
    assert "1.3.6.1.4.1.99999.3" in text and "gate" in text
    failed = ctl("-s", g.socket, "explain", "nope", certkey.cert_file)
    assert failed.returncode == 1 and 'no service "nope"' in failed.stderr
