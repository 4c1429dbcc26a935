# SPDX-License-Identifier: Apache-2.0
"""Private keys that are not a plain PEM file: behind a passphrase, or in a token (SoftHSM2)."""

import pathlib
import shutil
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from harness import client as clients
from harness.daemon import Ktlsgated, program, settings

SOFTHSM = pathlib.Path("/usr/lib/softhsm/libsofthsm2.so")
PASSPHRASE = "correct horse"
PIN = "123456"


def serve(g, pki, backend):
    with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
        clients.ping(c)
    cert = x509.load_der_x509_certificate(backend.connection().wait().certificate)
    assert cert.issuer == pki.forge().cert.subject


def encrypted(path, key, form):
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, form,
        serialization.BestAvailableEncryption(PASSPHRASE.encode())))
    return path


def secret(path, text):
    path.touch(mode=0o600)
    path.write_text(text)
    return path


FORMS = {"PKCS#8": serialization.PrivateFormat.PKCS8,
         "RFC 1421": serialization.PrivateFormat.TraditionalOpenSSL}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("source", ["file", "credential"])
def test_passphrase(gate, pki, backend, tmp_path, monkeypatch, form, source):
    """Of a forging and of a serving key; from a file, or from systemd."""
    passphrase = secret(tmp_path / "passphrase", PASSPHRASE + "\nnothing of this counts\n")
    if source == "credential":
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
        passphrase = "credential:passphrase"
    g = gate(settings(
        pki, backend.port, certkey__forge__key_passphrase_file=passphrase,
        certkey__web__key_passphrase_file=passphrase,
        certkey__forge__key=encrypted(tmp_path / "forge.key", pki.forge().key, form),
        certkey__web__key=encrypted(tmp_path / "web.key", pki.web().key, form)))
    serve(g, pki, backend)


def checked(pki, tmp_path, engine, **changes):
    """What ktlsgated -t says."""
    g = Ktlsgated(tmp_path / "gate", pki, engine, settings(pki, 1, **changes))
    done = subprocess.run([program("ktlsgated"), "-t", "-c", g.conf_file], capture_output=True,
                          text=True, timeout=20, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("text, why", [
    ("wrong", "cannot be decrypted"),
    ("", "is empty; name one"),
    ("\n", "line of 0 bytes; use 1 to 1023"),
    ("x" * 2000, "line of 2000 bytes"),
    (None, "No such file or directory; name one"),
])
def test_bad_passphrase(pki, tmp_path, engine, form, text, why):
    file = tmp_path / "passphrase"
    if text is not None:
        secret(file, text)
    status, said = checked(pki, tmp_path, engine, certkey__forge__key_passphrase_file=file,
                           certkey__forge__key=encrypted(tmp_path / "forge.key", pki.forge().key,
                                                         form))
    assert status == 1 and why in said, said


def test_no_credentials(pki, tmp_path, engine, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    status, said = checked(
        pki, tmp_path, engine, certkey__forge__key_passphrase_file="credential:forge",
        certkey__forge__key=encrypted(tmp_path / "forge.key", pki.forge().key, FORMS["PKCS#8"]))
    assert status == 1 and "systemd gave no credentials" in said


# ---- a token ----


@pytest.fixture
def token(tmp_path, monkeypatch, pki):
    """A SoftHSM2 token that holds the forging CA's keys, each labelled by its kind."""
    if not (shutil.which("softhsm2-util") and SOFTHSM.exists()):
        pytest.skip("softhsm2 is not installed: there is no token to try")
    if "available" not in subprocess.run(["openssl", "engine", "-t", "pkcs11"], capture_output=True,
                                         text=True, check=False).stdout:
        pytest.skip("libengine-pkcs11-openssl is not installed: keys in tokens need it")
    directory = tmp_path / "tokens"
    directory.mkdir()
    conf = tmp_path / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {directory}\nobjectstore.backend = file\n"
                    "log.level = ERROR\nslots.removable = false\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(conf))

    def util(*args):
        subprocess.run(["softhsm2-util", *map(str, args)], check=True, capture_output=True)

    util("--init-token", "--free", "--label", "gate", "--so-pin", PIN, "--pin", PIN)
    for number, kind in ((1, "ec"), (2, "rsa")):
        util("--import", pki.forge(kind).key_file, "--token", "gate", "--label", kind, "--id",
             f"0{number}", "--pin", PIN)
    return f"pkcs11:token=gate;object={{}};type=private?module-path={SOFTHSM}"


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_forging_key_in_a_token(gate, pki, backend, token, tmp_path, kind):
    """
    There is no file with the key: it is made from what the token signs; several certificates, in the
    signer's sandbox, and again by a signer that was started anew.
    """
    g = gate(settings(pki, backend.port, certkey__forge__cert=pki.forge(kind).cert_file,
                      certkey__forge__key=token.format(kind),
                      certkey__forge__key_passphrase_file=secret(tmp_path / "pin", PIN)))
    for n in range(3):
        with clients.connected(g.port, pki=pki, certkey=pki.client(f"Client {n}")) as c:
            clients.ping(c)
        cert = x509.load_der_x509_certificate(backend.connection(n).wait().certificate)
        assert cert.issuer == pki.forge(kind).cert.subject
    assert g.stats()["forged"] == 3
    assert not g.log_contains("died")


@pytest.mark.parametrize("label, pin, why", [
    ("nope", PIN, "no such key, or wants another PIN"),
    ("ec", "654321", "no such key, or wants another PIN"),
    ("rsa", PIN, "is not the key of the certificate"),
])
def test_token_without_the_key(pki, tmp_path, engine, token, label, pin, why):
    status, said = checked(pki, tmp_path, engine, certkey__forge__key=token.format(label),
                           certkey__forge__key_passphrase_file=secret(tmp_path / "pin", pin))
    assert status == 1 and why in said, said


def test_no_such_module(pki, tmp_path, engine, token):
    status, said = checked(pki, tmp_path, engine,
                           certkey__forge__key="pkcs11:object=ec?module-path=/nonexistent.so")
    assert status == 1 and "certkey.forge.key = pkcs11:object=ec" in said


def test_serving_key_in_a_token(pki, tmp_path, engine, token):
    status, said = checked(pki, tmp_path, engine, certkey__web__key=token.format("ec"))
    assert status == 1 and "only the keys of forging CAs can be there" in said
