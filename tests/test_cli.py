# SPDX-License-Identifier: Apache-2.0
"""The command lines: ktlsgatectl's outputs, ktlsgated -t and -V, --help and --version of all."""

import json
import re
import subprocess

import pytest
from cryptography.hazmat.primitives.hashes import SHA256

from harness import backend as backends
from harness import client as clients
from harness import daemon
from harness.daemon import settings
from harness.ports import HOST, free_port

PROGRAMS = ("ktlsgated", "ktlsgatectl", "ktlsgate-forge", "ktlsgate-probe", "ktlsgate-offload")


def run(name, *args):
    return subprocess.run([daemon.program(name), *map(str, args)], capture_output=True, text=True,
                          timeout=20, check=False)


@pytest.mark.parametrize("name", PROGRAMS)
def test_help(name):
    r = run(name, "--help")
    assert r.returncode == 0 and r.stderr == ""
    assert re.match(rf"usage: {name}\b", r.stdout, re.IGNORECASE), r.stdout
    assert "--help" in r.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_version(name):
    r = run(name, "-V")
    assert r.returncode == 0 and re.match(rf"{name} \d+\.\d+\.\d+", r.stdout), r


@pytest.mark.parametrize("name", PROGRAMS)
def test_unknown_option(name):
    r = run(name, "--no-such-option")
    assert r.returncode not in (0, -6, -11) and r.stdout == "" and "no-such-option" in r.stderr


# ---- ktlsgated -t ----


def check(tmp_path, conf):
    path = tmp_path / "ktlsgate.conf"
    daemon.write_config(path, conf)
    return run("ktlsgated", "-t", "-c", path)


def test_good_configuration(pki, tmp_path):
    r = check(tmp_path, settings(pki, 9443))
    assert r.returncode == 0, r.stderr


@pytest.mark.parametrize("key, value, line", [
    ("dataplane.engin", "user", r"dataplane\.engin = user: .*dataplane\.engine"),
    ("dataplane.workers", "many", r"dataplane\.workers = many: "),
    ("certkey.web.cert", "/nowhere/web.pem", r"/nowhere/web\.pem: .*No such file"),
    ("vserver.app.certkey", "nothing", r"vserver\.app\.certkey = nothing: "),
])
def test_bad_configuration(pki, tmp_path, key, value, line):
    """File, line, key, value, and what would be right."""
    conf = settings(pki, 9443)
    conf.pop(key, None)
    conf[key] = value
    r = check(tmp_path, conf)
    assert r.returncode == 1, r
    assert re.search(rf"^{tmp_path}/ktlsgate\.conf:{len(conf)}: .*{line}", r.stderr,
                     re.MULTILINE), r.stderr


def test_forging_needs_client_certificates(pki, tmp_path):
    r = check(tmp_path, settings(pki, 9443, profile__front__client_auth="off"))
    assert r.returncode == 1
    assert re.search(r"profile\.front\.client_auth is off", r.stderr), r.stderr


def test_key_does_not_match_its_certificate(pki, tmp_path):
    conf = settings(pki, 9443, certkey__web__key=pki.backend().key_file)
    r = check(tmp_path, conf)
    assert r.returncode == 1 and re.search(r"certkey\.web\.key = .*not the key", r.stderr), r.stderr


def test_forging_certkey_is_no_ca(pki, tmp_path):
    conf = settings(pki, 9443, certkey__forge__cert=pki.web().cert_file,
                    certkey__forge__key=pki.web().key_file)
    r = check(tmp_path, conf)
    assert r.returncode == 1 and "forg" in r.stderr and "CA" in r.stderr, r.stderr


def test_all_errors_at_once(pki, tmp_path):
    conf = settings(pki, 9443, dataplane__engine="warp", dataplane__workers="-1",
                    vserver__app__service="none", nonsense="1")
    r = check(tmp_path, conf)
    assert r.returncode == 1
    assert len([x for x in r.stderr.splitlines() if "ktlsgate.conf:" in x]) >= 4, r.stderr


def test_no_bpffs(gate, pki, tmp_path):
    """bpf.dir is on no BPF file system: one line says what to mount, and the gate goes on."""
    g = gate(settings(pki, 9443, bpf__dir=tmp_path / "bpf"))
    (line,) = [x for x in g.log().splitlines() if "bpf" in x.lower()]
    assert f"bpf.dir = {tmp_path}/bpf: " in line and f"`mount -t bpf bpf {tmp_path}`" in line
    assert not (tmp_path / "bpf").exists()


# ---- ktlsgatectl ----


@pytest.fixture
def running(gate, pki):
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        yield gate(settings(pki, b.port))


def test_stats(running):
    lines = running.ctl("stats").splitlines()
    assert all(re.fullmatch(r"[a-z0-9_]+ \d+", line) for line in lines)
    names = [line.split()[0] for line in lines]
    assert len(names) == len(set(names))
    assert {f"reason_{r}" for r in daemon.REASONS} <= set(names)
    as_json, stats = json.loads(running.ctl("stats", "--json")), running.stats()
    del as_json["memory_bytes"], stats["memory_bytes"]  # never twice the same
    assert as_json == stats


def test_counters_are_explained(running):
    """The table has every name, in the order of the output."""
    head, *rows = [x.split("\t") for x in run("ktlsgated", "--counters").stdout.splitlines()]
    assert head == ["name", "kind", "help"] and all(len(r) == 3 and all(r) for r in rows)
    assert [r[0] for r in rows] == [x.split()[0] for x in running.ctl("stats").splitlines()]
    assert {r[0] for r in rows if r[1] == "gauge"} == {
        "flows_active", "handshakes_waiting_active", "flows_relaying_active", "pipes_active",
        "forge_cache_entries", "backend_sessions_kept", "forge_keys_ready", "memory_bytes",
        "crl_next_update", "workers", "generations", "generation"}


def test_flows(running, pki, engine):
    assert running.flows() == []
    certkey = pki.client()
    with clients.connected(running.port, pki=pki, certkey=certkey) as c:
        c.send(b"hello")
        assert c.recv_exactly(5) == b"hello"
        (flow,) = running.flows()
        port = c.sock.getsockname()[1]
        fingerprint = certkey.cert.fingerprint(SHA256()).hex()
        assert flow["client"] == f"{HOST}:{port}" and flow["engine"] == engine
        assert (flow["vserver"], flow["service"], flow["stage"]) == ("app", "app1", "relay")
        assert (flow["bytes_from_client"], flow["bytes_from_backend"]) == (5, 5)
        assert fingerprint.startswith(flow["identity"]) and len(flow["identity"]) >= 16
        table = running.ctl("flows").splitlines()
        assert len(table) == 2 and f"{HOST}:{port}" in table[1] and engine in table[1].split()
    assert daemon.wait_until(lambda: running.flows() == [], 5 * daemon.SCALE)


def test_flow_of_a_client_without_a_certificate(gate, pki):
    """No identity, and a name is text, whatever it looks like."""
    with backends.backend(certkey=pki.backend()) as b:
        g = gate(settings(pki, b.port, profile__back__dynamic_client_cert="off",
                          profile__front__client_auth="off",
                          vserver__123__listen=f"{HOST}:{free_port()}", vserver__123__certkey="web",
                          vserver__123__profile="front", vserver__123__service="app1"))
        with clients.connected(g.port_of("123"), pki=pki) as c:
            c.send(b"hello")
            assert c.recv_exactly(5) == b"hello"
            (flow,) = g.flows()
            assert (flow["vserver"], flow["identity"], flow["forged"]) == ("123", "", "no")
            assert all(isinstance(flow[n], int)
                       for n in ("id", "age_ms", "bytes_from_client", "bytes_from_backend"))


def test_configuration_is_shown(running):
    shown = dict(line.split(" = ", 1) for line in running.ctl("-a").splitlines())
    for key, value in running.settings.items():
        if value not in ("enabled", "off"):
            assert shown[key] == str(value)
    assert running.ctl("timeout.connect") == "timeout.connect = 5s\n"
    assert running.ctl("-n", "timeout.connect", "forge.cache") == "5s\n4096\n"


def test_configuration_as_json(running):
    """An object, its values as in the file."""
    shown = dict(line.split(" = ", 1) for line in running.ctl("-a").splitlines())
    assert json.loads(running.ctl("--json", "-a")) == shown
    assert json.loads(running.ctl("--json", "timeout.connect", "forge.cache")) == {
        "timeout.connect": "5s", "forge.cache": "4096"}
    r = daemon.ctl("-s", running.socket, "--json", "log.level", "no.such.key")
    assert r.returncode == 1 and json.loads(r.stdout) == {"log.level": "info"}
    r = daemon.ctl("-s", running.socket, "--json", "no.such.key")
    assert r.returncode == 1 and r.stdout == ""


@pytest.mark.parametrize("key, what", [
    ("dataplane.user", "dataplane.user is not set"),
    ("profile.front.server_ca", "profile.front.server_ca is not set"),
    ("profile.none.server_ca", 'unknown key "profile.none.server_ca"'),
    ("profile.fron.server_ca", 'unknown key "profile.fron.server_ca"'),
    ("profile.<name>.server_ca", 'unknown key "profile.<name>.server_ca"'),
    ("dataplane.use", 'unknown key "dataplane.use"'),
])
def test_unset_is_not_unknown(running, key, what):
    r = daemon.ctl("-s", running.socket, key)
    assert (r.returncode, r.stdout, r.stderr) == (1, "", f"ktlsgatectl: error {what}\n")


def test_unknown_key_and_command(running):
    r = daemon.ctl("-s", running.socket, "no.such.key")
    assert r.returncode != 0 and "no.such.key" in r.stderr and r.stdout == ""


def test_no_daemon(tmp_path):
    r = daemon.ctl("-s", tmp_path / "none.sock", "stats")
    assert r.returncode != 0 and str(tmp_path / "none.sock") in r.stderr and r.stdout == ""


def test_control_socket_is_not_for_everybody(running):
    assert running.socket.stat().st_mode & 0o007 == 0


def test_a_second_daemon_does_not_take_the_socket_away(running, pki, engine, tmp_path):
    second = daemon.Ktlsgated(tmp_path / "second", pki, engine,
                              settings(pki, 9443), **{"control.socket": running.socket})
    with pytest.raises(AssertionError):
        second.start()
    second.process.kill()
    second.process.wait()
    second.process = None
    assert running.stats()["flows_accepted"] == 0
