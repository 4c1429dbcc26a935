# SPDX-License-Identifier: Apache-2.0
"""
Bytes and identity through the gate: what the backend saw of the client's certificate, and that
every byte arrives, whatever TLS version, cipher, key type and peer.
"""

import hashlib
import itertools
import os
import re
import threading
import urllib.parse

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from harness import backend as backends
from harness import client as clients
from harness import der, peer
from harness.daemon import settings
from harness.pki import KEY_TYPES, SMARTCARD_LOGON
from harness.rig import second_vserver

pytestmark = pytest.mark.datapath

IN_GUEST = bool(os.environ.get("KTLSGATE_GUEST"))
BULK_MIB = int(os.environ.get("KTLSGATE_BULK_MIB", "64" if IN_GUEST else "1024"))
FLOWS = int(os.environ.get("KTLSGATE_FLOWS", "150" if IN_GUEST else "500"))
ENDS = list(itertools.product(peer.VERSIONS, peer.CIPHERS))


@pytest.fixture(scope="module")
def nginx(pki, tmp_path_factory):
    """One nginx; its ports by (version, cipher, key type)."""
    server = backends.Nginx(tmp_path_factory.mktemp("nginx"))
    server.ports = {
        (v, c, k): server.server(certkey=pki.backend(k), client_ca=pki.forging_root, version=v,
                                 cipher=c)
        for (v, c), k in itertools.product(ENDS, KEY_TYPES)}
    with server.run():
        yield server


@pytest.fixture(scope="module")
def many(module_gate, nginx, pki):
    """A gate with a vserver for each nginx port, front key type and forging key type."""
    conf = settings(pki, next(iter(nginx.ports.values())))
    for kind in KEY_TYPES:
        conf.update({
            f"certkey.web-{kind}.cert": pki.web(kind).cert_file,
            f"certkey.web-{kind}.key": pki.web(kind).key_file,
            f"certkey.forge-{kind}.cert": pki.forge(kind).cert_file,
            f"certkey.forge-{kind}.key": pki.forge(kind).key_file,
            f"profile.back-{kind}.dynamic_client_cert": "enabled",
            f"profile.back-{kind}.forging_certkey": f"forge-{kind}",
            f"profile.back-{kind}.server_ca": pki.server_ca.cert_file,
        })
    for (version, cipher, back), front, forge in itertools.product(nginx.ports, KEY_TYPES,
                                                                   KEY_TYPES):
        conf.update(second_vserver(
            vserver_name(version, cipher, back, front, forge), nginx.ports[version, cipher, back],
            certkey=f"web-{front}", back=f"back-{forge}"))
    return module_gate(conf)


def vserver_name(version, cipher, back="ec", front="ec", forge="ec"):
    return f"v{version[-1]}-{cipher}-{back}-{front}-{forge}"


def check_page(page, certkey, pki, forge="ec"):
    """The certificate nginx saw is a good forgery of certkey's."""
    seen = x509.load_pem_x509_certificate(urllib.parse.unquote(page["certificate"]).encode())
    assert page["verify"] == "SUCCESS"
    check_forged(seen, certkey, pki.forge(forge))


def check_forged(seen, certkey, forging):
    """The rules of forging that hold for any original."""
    new, original = der.fields(seen.public_bytes(Encoding.DER)), der.fields(certkey.der)
    assert new["subject"] == original["subject"]
    assert new["issuer"] == der.fields(forging.der)["subject"]
    assert new["spki"] != original["spki"] and new["serial"] != original["serial"]
    assert new["extensions"][der.SAN] == original["extensions"][der.SAN]
    assert 2 ** 62 < seen.serial_number < 2 ** 159

    def extension(oid):
        found = seen.extensions.get_extension_for_oid(oid)
        return found.value, found.critical

    purposes, _ = extension(ExtensionOID.EXTENDED_KEY_USAGE)
    assert set(purposes) == {ExtendedKeyUsageOID.CLIENT_AUTH, SMARTCARD_LOGON}
    basic, critical = extension(ExtensionOID.BASIC_CONSTRAINTS)
    assert (basic.ca, critical) == (False, True)
    usage, _ = extension(ExtensionOID.KEY_USAGE)
    assert usage.digital_signature and not usage.key_cert_sign and not usage.key_encipherment
    authority, _ = extension(ExtensionOID.AUTHORITY_KEY_IDENTIFIER)
    assert authority.key_identifier == x509.SubjectKeyIdentifier.from_public_key(
        forging.key.public_key()).digest
    subject_key, _ = extension(ExtensionOID.SUBJECT_KEY_IDENTIFIER)
    key_bits = der.elements(der.elements(new["spki"])[0][1])[1][1][1:]
    assert subject_key.digest == hashlib.sha256(key_bits).digest()[:20]  # RFC 7093, method 1
    oids = {e.oid for e in seen.extensions}
    assert ExtensionOID.AUTHORITY_INFORMATION_ACCESS not in oids  # the original's
    assert seen.not_valid_before >= certkey.cert.not_valid_before
    assert seen.not_valid_after <= min(certkey.cert.not_valid_after, forging.cert.not_valid_after)
    verify_signature(seen, forging.key.public_key())


def verify_signature(cert, key):
    args = (cert.signature, cert.tbs_certificate_bytes)
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(*args, padding.PKCS1v15(), cert.signature_hash_algorithm)
    else:
        key.verify(*args, ec.ECDSA(cert.signature_hash_algorithm))


def curl_cert(gate, vserver, pki, certkey, **options):
    """GET /cert through the gate: (nginx's page, the client's version, the client's cipher)."""
    with gate.carries(1):
        r = clients.curl(gate.port_of(vserver), "/cert", pki=pki, certkey=certkey, args=("-v",),
                         **options)
    assert r.returncode == 0, r.stderr.decode()
    version, cipher = re.search(r"SSL connection using TLSv(\S+) / (\S+)",
                                r.stderr.decode()).groups()
    return backends.parse_cert_page(r.stdout.decode()), version, cipher


# ---- what the backend saw ----


@pytest.mark.parametrize("kind", KEY_TYPES)
@pytest.mark.parametrize("back", peer.VERSIONS)
@pytest.mark.parametrize("front", peer.VERSIONS)
def test_certificate_the_backend_saw(rig, pki, front, back, kind):
    certkey = pki.client("Max Mustermann", kind)
    with rig.flow(backends.echo, front=front, back=back, certkey=certkey) as (c, seen):
        c.send(b"hello")
        assert c.recv_exactly(5) == b"hello"
        got = seen()
        assert got.version == f"TLSv{back}"
        check_forged(x509.load_der_x509_certificate(got.certificate), certkey, pki.forge())
        # Leaf, forging CA, the CA above it; not the root.
        assert got.chain == [got.certificate, pki.forge().der, pki.forging_intermediate.der]
        c.close_notify()
        c.recv()


def test_same_client_same_forged_key_other_client_other(rig, pki):
    """The cache: one forged certificate per identity."""
    seen = []
    one, other = pki.client("One"), pki.client("Other")
    before = rig.gate.stats()
    for certkey in (one, one, other):
        with rig.flow(backends.echo, certkey=certkey) as (c, saw):
            c.close_notify()
            c.recv()
            seen.append(saw().wait().certificate)
    after = rig.gate.stats()
    assert seen[0] == seen[1] != seen[2]
    assert after["forged"] - before["forged"] == 2
    assert after["forge_cache_hits"] - before["forge_cache_hits"] == 1


# ---- versions, ciphers, key types; curl to nginx ----


@pytest.mark.parametrize("back", ENDS, ids="-".join)
@pytest.mark.parametrize("front", ENDS, ids="-".join)
def test_versions_and_ciphers(many, pki, client, front, back):
    page, version, cipher = curl_cert(many, vserver_name(*back), pki, client, version=front[0],
                                      cipher=front[1])
    check_page(page, client, pki)
    assert page["protocol"] == f"TLSv{back[0]}" and version == front[0]
    assert canonical(page["cipher"]) == back[1] and canonical(cipher) == front[1]


@pytest.mark.parametrize("forge", KEY_TYPES)
@pytest.mark.parametrize("back_key", KEY_TYPES)
@pytest.mark.parametrize("client_key", KEY_TYPES)
@pytest.mark.parametrize("front_key", KEY_TYPES)
@pytest.mark.parametrize("version", peer.VERSIONS)
def test_key_types(many, pki, version, front_key, client_key, back_key, forge):
    vserver = vserver_name(version, "AES256-GCM", back_key, front_key, forge)
    certkey = pki.client(kind=client_key)
    page, got, cipher = curl_cert(many, vserver, pki, certkey, version=version)
    check_page(page, certkey, pki, forge)
    assert got == version
    if version == "1.2":
        names = {"rsa": "RSA", "ec": "ECDSA"}
        assert names[front_key] in cipher and names[back_key] in page["cipher"]


@pytest.fixture(scope="module")
def client(pki):
    return pki.client()


def canonical(cipher):
    """peer.CIPHERS' name of OpenSSL's."""
    plain = cipher.replace("_", "").replace("-", "")
    return next(c for c in peer.CIPHERS if c.replace("-", "") in plain)


@pytest.mark.parametrize("version", peer.VERSIONS)
def test_put_and_get(many, nginx, pki, client, version, tmp_path):
    """A body in either direction."""
    body = tmp_path / "body"
    body.write_bytes(os.urandom(3 << 20))
    port = many.port_of(vserver_name(version, "AES128-GCM"))
    put = clients.curl(port, "/files/body", pki=pki, certkey=client, version=version,
                       args=("-f", "-T", body))
    assert put.returncode == 0, put.stderr.decode()
    assert (nginx.files / "body").read_bytes() == body.read_bytes()
    (nginx.files / "body").unlink()
    (nginx.files / "get").write_bytes(body.read_bytes())
    with many.carries(1):
        get = clients.curl(port, "/files/get", pki=pki, certkey=client, version=version)
    assert get.stdout == body.read_bytes()


# ---- other peers ----


@pytest.mark.parametrize("version", peer.VERSIONS)
def test_openssl_to_openssl(gate, pki, client, version, tmp_path):
    port = backends.free_port()
    flag = "-tls" + version.replace(".", "_")
    with backends.s_server(port, certkey=pki.backend(), client_ca=pki.forging_root,
                           log=tmp_path / "log", args=("-rev", flag)):
        g = gate(settings(pki, port))
        with g.carries(1), g.ends_with("done"):
            clients.s_client(g.port, b"abc\n", b"cba\n", pki=pki, certkey=client, args=(flag,))


@pytest.mark.parametrize("priority", ["NORMAL:-VERS-ALL:+VERS-TLS1.2", "NORMAL"])
def test_gnutls_to_gnutls(gate, pki, client, priority, tmp_path):
    port = backends.free_port()
    with backends.gnutls_serv(port, certkey=pki.backend(), client_ca=pki.forging_root,
                              log=tmp_path / "log", priority=priority):
        g = gate(settings(pki, port))
        with g.carries(1), g.ends_with("done"):
            clients.gnutls_cli(g.port, b"abc\n", b"abc\n", pki=pki, certkey=client,
                               priority=priority)


@pytest.mark.parametrize("version", peer.VERSIONS)
def test_compress_certificate(gate, pki, backend, client, version):
    """RFC 8879: a client that offers it is served, and shown and asked for plain certificates."""
    g = gate(settings(pki, backend.port))
    ctx = peer.context(False, client, pki.server_ca, version=version)
    asked = peer.offer_certificate_compression(ctx)
    with g.carries(1), g.ends_with("done"):
        with clients.connected(g.port, pki=pki, ctx=ctx) as c:
            c.close_notify()
            assert c.recv_all() == b""
    assert c.ended == "close_notify" and not asked


# ---- data ----


@pytest.mark.parametrize("back", peer.VERSIONS)
@pytest.mark.parametrize("front", peer.VERSIONS)
def test_ping_pong(rig, front, back):
    with rig.flow(backends.echo, front=front, back=back) as (c, _):
        for n in range(300):
            message = b"%d;" % n * (n % 40 + 1)
            c.send(message)
            assert c.recv_exactly(len(message)) == message
        c.close_notify()
        assert c.recv() == b"" and c.ended == "close_notify"


@pytest.mark.parametrize("back", peer.VERSIONS)
def test_data_behind_the_clients_finished(rig, pki, back):
    """Finished and data in one segment: nothing of it may stay in the gate's OpenSSL."""
    b = rig.backends[back]
    b.script, n = backends.echo, len(b.seen)
    for size in (1, 1000, 100000):
        with rig.gate.ends_with("done"), clients.connect(
                rig.port(back), pki=pki, certkey=rig.certkey, version="1.3") as c:
            data = os.urandom(size)
            assert c.handshake(send_with_finished=data), c.ended
            assert c.recv_exactly(size) == data
            c.close_notify()
            c.recv()
            assert b.connection(n).wait().received == size
        n += 1


@pytest.mark.parametrize("back", peer.VERSIONS)
@pytest.mark.parametrize("front", peer.VERSIONS)
def test_backend_speaks_first(rig, front, back):
    """And right behind its own last flight, tickets in front of it in TLS 1.3."""
    def script(seen, p):
        p.send(b"220 welcome")
        backends.echo(seen, p)

    with rig.flow(script, front=front, back=back) as (c, _):
        assert c.recv_exactly(11) == b"220 welcome"
        c.close_notify()
        assert c.recv() == b""


class Stream:
    """size bytes, no two chunks alike, and their hash."""

    RANDOM = os.urandom((1 << 20) + (1 << 18))

    def __init__(self, size):
        self.size, self.digest = size, hashlib.sha256()

    def __iter__(self):
        for n in range(0, self.size, 1 << 18):
            at = n // 7 % (1 << 20)
            chunk = self.RANDOM[at:at + min(1 << 18, self.size - n)]
            self.digest.update(chunk)
            yield chunk


def both_directions(rig, mib, front, back):
    """mib MiB each way at once: lengths and hashes are equal."""
    up, down, got = Stream(mib << 20), Stream(mib << 20), backends.Seen()

    def script(seen, p):
        p.duplex(down, seen.take)

    before = rig.gate.stats()
    with rig.flow(script, front=front, back=back) as (c, saw):
        c.duplex(up, got.take)
        seen = saw().wait()
        assert c.ended == seen.ended == "close_notify"
    assert (seen.received, seen.digest.digest()) == (mib << 20, up.digest.digest())
    assert (got.received, got.digest.digest()) == (mib << 20, down.digest.digest())
    after = rig.gate.stats()
    for side in ("bytes_from_client", "bytes_from_backend"):
        assert after[side] - before[side] == mib << 20


@pytest.mark.timeout(300)
def test_bulk_both_directions(rig):
    both_directions(rig, BULK_MIB, "1.3", "1.3")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("front, back", [("1.2", "1.2"), ("1.2", "1.3"), ("1.3", "1.2")])
def test_bulk_other_versions(rig, front, back):
    both_directions(rig, max(BULK_MIB // 16, 4), front, back)


@pytest.mark.timeout(120)
def test_many_flows_at_once(rig, pki):
    """All connected at once, several identities; each gets its own bytes and was seen as itself."""
    identities = [pki.client(f"Client {n}") for n in range(8)]
    contexts = [peer.context(False, i, pki.server_ca) for i in identities]
    b = rig.backends["1.3"]
    first, failures = len(b.seen), []
    together = threading.Barrier(FLOWS)

    def script(seen, p):
        p.send(der.fields(seen.certificate)["subject"])
        backends.echo(seen, p)

    def one(n):
        try:
            want = der.fields(identities[n % 8].der)["subject"]
            with clients.connected(rig.port("1.3"), pki=pki, ctx=contexts[n % 8]) as c:
                assert c.recv_exactly(len(want)) == want
                together.wait(60 * peer.SCALE)
                data = os.urandom(3000 + n)
                c.send(data)
                assert c.recv_exactly(len(data)) == data
                c.close_notify()
                assert c.recv() == b"" and c.ended == "close_notify"
        except Exception as e:  # pylint: disable=broad-except
            failures.append((n, repr(e)))
            together.abort()

    b.script = script
    with rig.gate.carries(FLOWS), rig.gate.ends_with("done", FLOWS):
        threads = [threading.Thread(target=one, args=(n,), daemon=True) for n in range(FLOWS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not failures, failures[:5]
    assert len(b.seen) == first + FLOWS
