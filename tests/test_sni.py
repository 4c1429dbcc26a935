# SPDX-License-Identifier: Apache-2.0
"""Several certificates on one vserver: which of them a client is shown, and what the signer says."""

import re

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings
from harness.pki import BACK_NAME, FRONT_NAME
from harness.ports import HOST, free_port

NAMES = {  # certkey: (key type, DNS names)
    "web": ("ec", [FRONT_NAME]),
    "webrsa": ("rsa", [FRONT_NAME]),
    "shop": ("ec", ["shop.example", "WWW.Shop.Example"]),
    "wild": ("ec", ["*.shop.example"]),
    "wildrsa": ("rsa", ["*.shop.example"]),
    "idle": ("ec", ["shop.example"]),  # the name and the key type of shop
}


@pytest.fixture(scope="module")
def servers(pki):
    return {name: pki.server(kind, dns) for name, (kind, dns) in NAMES.items()}


@pytest.fixture(scope="module")
def backend(pki):
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        yield b


@pytest.fixture(scope="module")
def sni_gate(module_gate, pki, servers, backend):
    """Vserver app gives unknown names the default, vserver strict refuses them."""
    conf = settings(pki, backend.port)
    for name, certkey in servers.items():
        conf[f"certkey.{name}.cert"] = certkey.cert_file
        conf[f"certkey.{name}.key"] = certkey.key_file
    conf["vserver.app.certkey"] = " ".join(servers)
    conf.update({"vserver.strict.listen": f"{HOST}:{free_port()}",
                 "vserver.strict.certkey": "web shop wild",
                 "vserver.strict.allow_unknown_sni": "off",
                 "vserver.strict.profile": "front", "vserver.strict.service": "app1"})
    return module_gate(conf)


CASES = [  # SNI, the client's signature algorithms, certkey
    (FRONT_NAME, "ECDSA+SHA256:rsa_pss_rsae_sha256:RSA+SHA256", "web"),
    (FRONT_NAME, "rsa_pss_rsae_sha256:RSA+SHA256", "webrsa"),
    ("shop.example", None, "shop"),
    ("SHOP.example", None, "shop"),
    ("www.shop.example", None, "shop"),  # exact, though the wildcard has it too
    ("a.shop.example", None, "wild"),
    ("a.shop.example", "rsa_pss_rsae_sha256:RSA+SHA256", "wildrsa"),
    ("a.b.shop.example", None, "web"),  # a wildcard is one label
    ("nobody.example", None, "web"),
    (None, None, "web"),
    (None, "rsa_pss_rsae_sha256:RSA+SHA256", "webrsa"),
]


@pytest.mark.datapath
@pytest.mark.parametrize("version", peer.VERSIONS)
@pytest.mark.parametrize("name,sigalgs,certkey", CASES)
def test_chosen(sni_gate, servers, backend, pki, version, name, sigalgs, certkey):
    """The certificate shown, and a forged one behind it: the signer knows each of them as ours."""
    n, who = len(backend.seen), pki.client(f"{name} {certkey}", NAMES[certkey][0])
    args = ["-tls" + version.replace(".", "_"), *(["-sigalgs", sigalgs] if sigalgs else [])]
    with sni_gate.ends_with("done"), sni_gate.carries(1):
        printed = s_client(sni_gate.port, pki, who, name, args)
        seen = backend.connection(n).wait()
    assert shown(printed) == servers[certkey].der, printed.decode()
    assert seen.received == 6 and seen.certificate and seen.certificate != who.der


def s_client(port, pki, who, name, args):
    argv = ["openssl", "s_client", "-connect", f"{HOST}:{port}", "-CAfile",
            pki.server_ca.cert_file, "-cert", who.cert_file, "-key", who.key_file, "-cert_chain",
            who.cert_file, "-nocommands", "-verify_return_error",
            *(["-servername", name] if name else ["-noservername"]), *args]
    return clients.talk(argv, b"hello\n", b"hello\n")[1]


def shown(printed):
    """DER of the server certificate that s_client printed."""
    pem = re.search(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", printed, re.DOTALL)
    return peer.ssl.PEM_cert_to_DER_cert(pem[0].decode())


@pytest.mark.parametrize("version", peer.VERSIONS)
@pytest.mark.parametrize("name", ["nobody.example", "a.b.shop.example", None])
def test_unknown_name_is_refused(sni_gate, backend, pki, version, name):
    """unrecognized_name, and the backend never hears of it."""
    n = len(backend.seen)
    ctx = peer.context(False, pki.client(), pki.server_ca, version=version)
    with sni_gate.ends_with("client_server_name"):
        with clients.connect(sni_gate.port_of("strict"), pki=pki, ctx=ctx, name=name) as c:
            assert not c.handshake()
            assert c.ended == "alert unrecognized_name"
    assert re.search(f": {name or 'none that is a name'} \\(client_server_name\\)$",
                     sni_gate.log(), re.MULTILINE)
    assert len(backend.seen) == n


@pytest.mark.parametrize("name,certkey", [(FRONT_NAME, "web"), ("x.shop.example", "wild")])
def test_known_name_where_others_are_refused(sni_gate, servers, pki, name, certkey):
    with clients.connected(sni_gate.port_of("strict"), pki=pki, certkey=pki.client(),
                           name=name) as c:
        assert c.certificate() == servers[certkey].der


def test_gnutls_and_curl(sni_gate, backend, pki):
    """Clients that check the name themselves."""
    _, printed = clients.gnutls_cli(sni_gate.port, b"abc\n", b"abc", pki=pki, certkey=pki.client(),
                                    name="a.shop.example")
    assert b"- Status: The certificate is trusted." in printed
    backend.script = backends.source(b"HTTP/1.0 200 OK\r\n\r\nhello")
    r = clients.curl(sni_gate.port, pki=pki, certkey=pki.client(), name="shop.example",
                     args=("-v",))
    backend.script = backends.echo
    assert b"subject: CN=shop.example" in r.stderr and r.stdout == b"hello", r.stderr.decode()


def test_certkey_that_is_never_shown(sni_gate):
    assert sni_gate.log().count("is never shown") == 1
    assert "vserver app: certkey idle is never shown" in sni_gate.log()


# ---- the name that the backend is asked for ----


@pytest.mark.parametrize("sni,name,asked", [
    ("fixed", "a.shop.example", BACK_NAME), ("mirror", "A.shop.example", "a.shop.example"),
    ("mirror", None, BACK_NAME)])
def test_backend_is_asked_for(gate, pki, sni, name, asked):
    """Its certificate is for server_name, whatever it is asked for."""
    names = []
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        b.ctx.sni_callback = lambda _sock, server_name, _ctx: names.append(server_name)
        g = gate(settings(pki, b.port, service__app1__sni=sni))
        with g.carries(1), clients.connected(g.port, pki=pki, certkey=pki.client(), name=name):
            assert b.connection(0).ready.wait(peer.TIMEOUT)
    assert names == [asked]


def test_mirrored_name_is_not_what_is_verified(gate, pki):
    with backends.backend(certkey=pki.server("ec", FRONT_NAME), client_ca=pki.forging_root) as b:
        g = gate(settings(pki, b.port, service__app1__sni="mirror"))
        with g.ends_with("backend_cert_name"):
            with clients.connect(g.port, pki=pki, certkey=pki.client()) as c:
                assert not (c.handshake() and c.recv())


@pytest.mark.parametrize("version", peer.VERSIONS)
def test_backend_does_not_know_the_name(gate, pki, tmp_path, version):
    """It refuses with unrecognized_name, and so the client's question was answered."""
    port = free_port()
    args = ("-rev", "-servername", "other.example", "-servername_fatal", "-cert2",
            pki.backend().cert_file, "-key2", pki.backend().key_file,
            "-tls" + version.replace(".", "_"))
    with backends.s_server(port, log=tmp_path / "log", certkey=pki.backend(),
                           client_ca=pki.forging_root, args=args):
        g = gate(settings(pki, port, service__app1__sni="mirror"))
        with g.ends_with("backend_server_name"):
            with clients.connect(g.port, pki=pki, certkey=pki.client(), name=FRONT_NAME) as c:
                assert not (c.handshake() and c.recv())
                assert c.ended == "alert unrecognized_name"
