# SPDX-License-Identifier: Apache-2.0
"""
What the signer itself holds a forging CA to (certkey.<n>.policy.*), and the line of requests that
waits for it: bounded, and each client network has its turn.
"""

import contextlib
import json
import os
import signal
import subprocess

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from harness import client as clients
from harness.daemon import program, settings, wait_until, write_config


def serve(g, pki, **options):
    with clients.connected(g.port, pki=pki, **options) as c:
        clients.ping(c)


def refused(g, pki, reason, alert, **options):
    assert wait_until(lambda: not g.stats()["flows_active"], 5)  # those before have ended
    with g.ends_with(reason), clients.connect(g.port, pki=pki, **options) as c:
        assert not (c.handshake() and c.recv())
        assert c.ended == "alert " + alert


def policy(pki, backend, **changes):
    return settings(pki, backend.port, **{f"certkey.forge.policy.{k}": v
                                          for k, v in changes.items()})


# The names of pki.client(): upn:erika@corp.example, email:erika@client.example,
# uri:https://client.example/...
NAMES = "email:*@client.example upn:*@CORP.example uri:https://client.example/*"


@pytest.mark.parametrize("patterns, good", [
    (NAMES, True),
    (NAMES + " subject:**,O=*,C=DE", True),
    (NAMES + " subject:**,O=Another,C=DE", False),
    (NAMES.replace("client.example upn", "other.example upn"), False),
    ("email:*@client.example upn:*@corp.example", False),  # nothing is said of the URI
    ("email:* upn:* uri:*", True),
    ("subject:*", False),
])
def test_names(gate, pki, backend, patterns, good):
    g = gate(policy(pki, backend, names=patterns))
    if good:
        serve(g, pki, certkey=pki.client())
    else:
        refused(g, pki, "forge_policy", "access_denied", certkey=pki.client())
        assert g.log_contains("a name fits no pattern of policy.names")
        assert g.stats()["forged"] == 0


@pytest.mark.parametrize("good, subject, names", [
    (True, (("O", "Corp"), ("OU", "Payments"), ("CN", "alice")), None),
    (False, (("O", "Corp"), ("CN", "mallory,OU=Payments")), None),
    (False, (("O", "Corp"), ("OU", "x"), ("OU", "Payments"), ("CN", "mallory")), None),
    (True, None, b"\x0c\x05user1"),
    (False, None, b"\x0c\x05admin"),
    (False, None, b"\x04\x05user1"),
], ids=["subject", "comma-in-CN", "one-RDN-more", "other", "other-value", "other-type"])
def test_names_by_value(gate, pki, backend, good, subject, names):
    """What a name looks like as text is nothing; and an otherName is more than its OID."""
    g = gate(policy(pki, backend, names="subject:CN=*,OU=Payments,O=Corp" if subject else
                    "other:1.3.6.1.4.1.99999.7=user*"))
    if subject:
        kinds = {"O": NameOID.ORGANIZATION_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
                 "CN": NameOID.COMMON_NAME}
        certkey = pki.client(names=[], subject=x509.Name(
            [x509.NameAttribute(kinds[kind], value) for kind, value in subject]))
    else:
        certkey = pki.client(names=[x509.OtherName(
            x509.ObjectIdentifier("1.3.6.1.4.1.99999.7"), names)])
    if good:
        serve(g, pki, certkey=certkey)
    else:
        refused(g, pki, "forge_policy", "access_denied", certkey=certkey)
        assert g.stats()["forged"] == 0


@pytest.mark.parametrize("pattern, why", [
    ("subject:CN=*,Payments", 'has "Payments" where TYPE=VALUE belongs'),
    ("other:1.2.3.4", "says nothing about the value; write OID=PATTERN"),
    ("ip:192.0.2.*", "is no address; write ADDRESS or ADDRESS/LENGTH"),
    ("person:*", "begins with no kind of name"),
])
def test_malformed_patterns(pki, backend, tmp_path, pattern, why):
    conf = tmp_path / "ktlsgate.conf"
    write_config(conf, policy(pki, backend, names="dns:* " + pattern))
    line = conf.read_text().splitlines().index(
        f"certkey.forge.policy.names = dns:* {pattern}") + 1
    done = subprocess.run([program("ktlsgated"), "-t", "-c", conf], capture_output=True, text=True,
                          check=False, timeout=60)
    assert done.returncode == 1
    assert (f"{conf}:{line}: certkey.forge.policy.names = dns:* {pattern}: {pattern} {why}"
            in done.stderr)


def test_client_ca(gate, pki, backend):
    """The vserver trusts more client CAs than this forging CA is for."""
    bundle = pki.directory / "two-client-cas.pem"
    bundle.write_bytes(pki.client_root.cert_file.read_bytes() + pki.other_ca.cert_file.read_bytes())
    g = gate(settings(pki, backend.port, profile__front__client_ca=bundle,
                      certkey__forge__policy__client_ca=pki.client_root.cert_file))
    serve(g, pki, certkey=pki.client())
    refused(g, pki, "forge_policy", "access_denied", certkey=pki.client(fault="wrong_ca"))
    assert g.log_contains("the client's CA is none of policy.client_ca")


def test_trust_domains(gate, pki, backend):
    """A profile may ask for more than the CA's owner allows."""
    certkey = pki.client(fault="privileged_san")  # spiffe://client.example/..., and no other URI
    domains = "client.example other.example"
    conf = {"profile.back.forge.trust_domains": domains}
    g = gate({**policy(pki, backend), **conf})
    serve(g, pki, certkey=certkey)
    g = gate({**policy(pki, backend, trust_domains="other.example"), **conf})
    refused(g, pki, "forge_policy", "access_denied", certkey=certkey)


def test_lifespan(gate, pki, backend):
    g = gate({**policy(pki, backend, lifespan="2m"), "profile.back.forge.lifespan": "1h"})
    serve(g, pki, certkey=pki.client())
    cert = x509.load_der_x509_certificate(backend.connection().wait().certificate)
    assert (cert.not_valid_after - cert.not_valid_before).total_seconds() <= 120 + 300


def test_rate(gate, pki, backend):
    """So many a minute; what is in the cache is not new."""
    g = gate(policy(pki, backend, rate=2))
    known = pki.client("One")
    serve(g, pki, certkey=known)
    serve(g, pki, certkey=pki.client("Two"))
    refused(g, pki, "forge_rate", "internal_error", certkey=pki.client("Three"))
    serve(g, pki, certkey=known)
    assert g.stats()["forged"] == 2


# ---- the line ----


def flood(g, pki, stack, names, source):
    """Flows that wait for the signer, each of a new client of that name, or of whom a key is."""
    opened = []
    for n in names:
        certkey = pki.client(n) if isinstance(n, str) else n
        c = stack.enter_context(clients.connect(g.port, pki=pki, certkey=certkey, source=source))
        assert c.handshake()
        opened.append(c)
    return opened


def test_networks_take_turns(gate, pki, backend, tmp_path):
    """Behind thirty requests of one network, another's comes next but for those on their way."""
    log = tmp_path / "audit.jsonl"
    g = gate(settings(pki, backend.port, dataplane__workers=1, audit__log=log))
    signer = g.signer()
    os.kill(signer, signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        stack.callback(os.kill, signer, signal.SIGCONT)
        many = flood(g, pki, stack, [f"Many {n}" for n in range(30)], "127.1.1.1")
        few = flood(g, pki, stack, ["Few 0", "Few 1"], "127.1.2.1")
        assert g.stat_reaches("forge_cache_misses", 32)
        os.kill(signer, signal.SIGCONT)
        for c in many + few:
            clients.ping(c)
    order = [json.loads(line)["peer"].split(":")[0] for line in log.read_text().splitlines()]
    assert len(order) == 32
    places = [n for n, peer in enumerate(order) if peer == "127.1.2.1"]
    assert places[0] <= 9 and places[1] == places[0] + 2, places


def test_line_is_bounded(gate, pki, backend):
    """The network that has most in it loses, and who waits longest is kept."""
    g = gate(settings(pki, backend.port, dataplane__workers=1, forge__queue=8))
    signer = g.signer()
    os.kill(signer, signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        stack.callback(os.kill, signer, signal.SIGCONT)
        # Eight on their way, eight in the line; two of the latter lose their place to others.
        many = flood(g, pki, stack, [f"Many {n}" for n in range(20)], "127.1.1.1")
        reason = "forge_queue"
        assert g.stat_reaches(f"reason_{reason}", 4)
        few = flood(g, pki, stack, ["Few 0", "Few 1"], "127.1.2.1")
        assert g.stat_reaches(f"reason_{reason}", 6)
        os.kill(signer, signal.SIGCONT)
        for c in many[:14] + few:
            clients.ping(c)
        for c in many[14:]:
            assert not c.recv() and c.ended == "alert internal_error"
    assert g.stats()["forged"] == 16


def test_line_loses_one_that_others_wait_for(gate, pki, backend):
    """
    A flow that waits for a certificate of the same client asks itself when the other's request has
    lost its place, in the middle of what made it lose it: each gets the answer to its own request.
    """
    g = gate(settings(pki, backend.port, dataplane__workers=1, forge__queue=8))
    signer = g.signer()
    os.kill(signer, signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        stack.callback(os.kill, signer, signal.SIGCONT)
        newest = pki.client("Many 15")
        many = flood(g, pki, stack, [*(f"Many {n}" for n in range(15)), newest], "127.1.1.1")
        assert g.stat_reaches("forge_cache_misses", 16)
        same = flood(g, pki, stack, [newest], "127.1.1.1")
        assert g.stat_reaches("forge_coalesced", 1)
        few = flood(g, pki, stack, ["Few 0", "Few 1"], "127.1.2.1")
        assert g.stat_reaches("reason_forge_queue", 3)
        os.kill(signer, signal.SIGCONT)
        for c in many[:14] + few:
            clients.ping(c)
        for c in many[14:] + same:
            assert not c.recv() and c.ended == "alert internal_error"
    assert g.stats()["forged"] == 16
