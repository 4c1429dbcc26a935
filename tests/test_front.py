# SPDX-License-Identifier: Apache-2.0
"""What clients are shown beside the certificate: CA names, a stapled OCSP response."""

import re

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import program, settings, write_config
from harness.pki import FRONT_NAME
from harness.rig import second_vserver

VERSION = pytest.mark.parametrize("version", peer.VERSIONS)


# ---- CA names ----


@VERSION
@pytest.mark.parametrize("announce", ["on", "off"])
def test_ca_names(gate, pki, backend, version, announce):
    g = gate(settings(pki, backend.port, profile__front__announce_ca_names=announce))
    _, printed = clients.s_client(g.port, b"hello\n", b"hello\n", pki=pki, certkey=pki.client(),
                                  args=(clients.tls_option(version),))
    if announce == "on":
        names = re.search(rb"Acceptable client certificate CA names\n((?:CN.*\n)+)", printed)
        assert names[1] == b"CN = ktlsgate test client-root\n"
    else:
        assert b"No client certificate CA names sent" in printed


# ---- stapling ----


@pytest.fixture(scope="module")
def web(pki):
    return pki.server("ec", FRONT_NAME)


def stapling(pki, backend, web, response):
    return settings(pki, backend.port, certkey__web__cert=web.cert_file,
                    certkey__web__key=web.key_file, certkey__web__ocsp_response=response)


@VERSION
@pytest.mark.parametrize("signer,until", [("issuer", 1), ("issuer", None), ("responder", 1)])
def test_stapled(gate, pki, backend, web, version, signer, until):
    """To who asks for it, and the signer process still knows the handshake as ours."""
    by = pki.responder() if signer == "responder" else None
    g = gate(stapling(pki, backend, web, pki.ocsp_response(web, signer=by, until=until)))
    backend.script = backends.echo
    for args, sent in ((("-status", clients.tls_option(version)), True), ((clients.tls_option(version),), False)):
        with g.ends_with("done"), g.carries(1):
            _, printed = clients.s_client(g.port, b"hello\n", b"hello\n", pki=pki,
                                          certkey=pki.client(), args=args)
        assert (b"OCSP Response Status: successful" in printed) == sent
        assert (b"Cert Status: good" in printed) == sent
    backend.script = backends.source(b"HTTP/1.0 200 OK\r\n\r\nhello")
    r = clients.curl(g.port, pki=pki, certkey=pki.client(), version=version,
                     args=("--cert-status",))
    assert r.stdout == b"hello", r.stderr.decode()


def test_out_of_date(gate, pki, backend, web):
    """Not sent, which is said once."""
    backend.script = backends.echo
    g = gate(stapling(pki, backend, web, pki.ocsp_response(web, since=-9, until=-1)))
    for _ in range(2):
        _, printed = clients.s_client(g.port, b"hello\n", b"hello\n", pki=pki,
                                      certkey=pki.client(), args=("-status",))
        assert b"OCSP response: no response sent" in printed
    assert g.log().count("certkey web: the OCSP response is out of date") == 1


def test_each_certkey_has_its_own(gate, pki, backend, web):
    """The response goes with the certificate that the server name chose."""
    other = pki.server("rsa", "shop.example")
    backend.script = backends.echo
    conf = stapling(pki, backend, web, pki.ocsp_response(web))
    conf.update({"certkey.shop.cert": other.cert_file, "certkey.shop.key": other.key_file,
                 "vserver.app.certkey": "web shop"})
    conf.update(second_vserver("b", backend.port, certkey="shop web"))
    g = gate(conf)
    for vserver in ("app", "b"):
        for name, sent in ((FRONT_NAME, True), ("shop.example", False)):
            _, printed = clients.s_client(g.port_of(vserver), b"hello\n", b"hello\n", pki=pki,
                                          certkey=pki.client(), name=name, args=("-status",))
            assert (b"Cert Status: good" in printed) == sent


@pytest.mark.parametrize("fault,said,right", [
    ("garbage", "is no OCSP response in DER", "openssl ocsp -respout"),
    ("nothing", "cannot be opened: No such file", "DER file"),
    ("other_certificate", "is about another certificate", "the one for this certificate"),
    ("other_signer", "is not signed by the certificate's issuer", "use one that is"),
    ("no_responder", "is not signed by the certificate's issuer", "use one that is"),
    ("revoked", "says that the certificate is revoked", "says it is good"),
    ("unknown", "says that the certificate is unknown", "says it is good"),
    ("future", "is from the future", "clock"),
    ("no_issuer", "the certificate's issuer is missing", "certkey.<name>.cert"),
])
def test_bad_response(pki, web, tmp_path, fault, said, right):
    """An error of the configuration, with file, line, key and value."""
    path = tmp_path / "response.der"
    if fault == "garbage":
        path.write_bytes(web.der)
    elif fault != "nothing":
        about = pki.server("ec", FRONT_NAME) if fault == "other_certificate" else web
        signer = {"other_signer": pki.other_ca,
                  "no_responder": pki.backend("ec")}.get(fault)
        path = pki.ocsp_response(about, signer=signer, since=1 if fault == "future" else -1,
                                 until=2, status=fault if fault in ("revoked", "unknown") else "good")
    conf = settings(pki, 9443, certkey__web__cert=web.cert_file, certkey__web__key=web.key_file,
                    certkey__web__ocsp_response=path)
    if fault == "no_issuer":
        alone = tmp_path / "alone.pem"
        alone.write_bytes(web.cert_file.read_bytes().split(b"-----END CERTIFICATE-----")[0]
                          + b"-----END CERTIFICATE-----\n")
        conf["certkey.web.cert"] = alone
    write_config(tmp_path / "bad.conf", conf)
    done = clients.run([program("ktlsgated"), "-t", "-c", tmp_path / "bad.conf"])
    line = list(conf).index("certkey.web.ocsp_response") + 1
    error = done.stderr.decode()
    assert done.returncode == 1
    assert error.startswith(f"{tmp_path}/bad.conf:{line}: certkey.web.ocsp_response = {path}: ")
    assert said in error and right in error
