# SPDX-License-Identifier: Apache-2.0
"""Configuration files, good and bad: what is said about them, with file, line, key and value."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = pathlib.Path(os.environ.get("KTLSGATE_BUILD", ROOT / "build")).resolve()
UNIT = BUILD / "unit/test_config"
# As the kernel writes those that we may run on.
CPUS = re.search(r"^Cpus_allowed_list:\t(.*)$", pathlib.Path("/proc/self/status").read_text(),
                 re.MULTILINE)[1]
CHECK = [BUILD / "ktlsgated", "-t", "-c"]
START = [BUILD / "ktlsgated", "-c"]


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)


# ---- PKI ----


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


FORGING_ROOTS = {"root": "", "pathlen0": ",pathlen:0",
                 "serverauth": "\nextendedKeyUsage=serverAuth"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A directory of certificates and keys, good and bad."""
    d = tmp_path_factory.mktemp("pki")
    ca = ["-addext", "keyUsage=critical,keyCertSign"]
    leaf = ["-addext", "basicConstraints=critical,CA:FALSE"]
    for name, extensions in (("web", leaf), ("forge", ca), ("ca", ca), ("leaf", leaf)):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", d / f"{name}.key", "-out", d / f"{name}.pem", "-subj", f"/CN={name}",
                "-days", "2", *extensions)
        (d / f"{name}.key").chmod(0o600)
    for name, key, digest in (("weak", "rsa:1024", "-sha256"), ("sha1", "rsa:2048", "-sha1")):
        openssl("req", "-x509", "-newkey", key, digest, "-nodes", "-keyout", d / f"{name}.key",
                "-out", d / f"{name}.pem", "-subj", f"/CN={name}", "-CA", d / "ca.pem", "-CAkey",
                d / "ca.key", *ca)
        (d / f"{name}.key").chmod(0o600)
    extensions = "".join(f"[{name}]\nbasicConstraints=critical,CA:TRUE{more}\n"
                         "keyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
                         for name, more in FORGING_ROOTS.items())
    (d / "roots.cnf").write_text("[req]\ndistinguished_name=dn\n[dn]\n" + extensions)
    for name in FORGING_ROOTS:
        openssl("req", "-x509", "-config", d / "roots.cnf", "-extensions", name, "-newkey", "ec",
                "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", d / f"{name}.key",
                "-out", d / f"{name}.pem", "-subj", f"/CN={name}")
        openssl("req", "-x509", "-key", d / "forge.key", "-out", d / f"below-{name}.pem", "-subj",
                "/CN=forge", "-CA", d / f"{name}.pem", "-CAkey", d / f"{name}.key", *ca)
        (d / f"below-{name}.pem").write_bytes((d / f"below-{name}.pem").read_bytes() +
                                              (d / f"{name}.pem").read_bytes())
    (d / "strangers.pem").write_bytes((d / "forge.pem").read_bytes() + (d / "ca.pem").read_bytes())
    openssl("pkey", "-in", d / "web.key", "-aes128", "-passout", "pass:x", "-out", d / "pkcs8.enc")
    openssl("ec", "-in", d / "web.key", "-aes128", "-passout", "pass:x", "-out", d / "sec1.enc")
    openssl("ec", "-in", d / "web.key", "-out", d / "sec1.key")
    openssl("x509", "-in", d / "web.pem", "-outform", "DER", "-out", d / "web.der")
    for name in ("pkcs8.enc", "sec1.enc", "sec1.key"):
        (d / name).chmod(0o600)
    (d / "both.pem").write_bytes((d / "web.pem").read_bytes() + (d / "web.key").read_bytes())
    (d / "weak-chain.pem").write_bytes((d / "web.pem").read_bytes() + (d / "ca.pem").read_bytes() +
                                       (d / "weak.pem").read_bytes())
    (d / "chain.pem").write_bytes((d / "web.pem").read_bytes() + (d / "ca.pem").read_bytes())
    parameters = subprocess.run(["openssl", "ecparam", "-name", "prime256v1"], check=True,
                                capture_output=True).stdout
    (d / "parameters.key").write_bytes(parameters + (d / "sec1.key").read_bytes())
    (d / "parameters.key").chmod(0o600)
    cut = (d / "ca.pem").read_text().splitlines(keepends=True)
    (d / "broken.pem").write_text((d / "web.pem").read_text() + "".join(cut[:3] + cut[-1:]))
    (d / "text.pem").write_text("no PEM\n")
    (d / "empty.pem").write_text("")
    return d


# ---- configurations ----

GOOD = {
    "dataplane.engine": "auto",
    "certkey.web.cert": "{d}/web.pem",
    "certkey.web.key": "{d}/web.key",
    "certkey.forge.cert": "{d}/forge.pem",
    "certkey.forge.key": "{d}/forge.key",
    "profile.front.client_auth": "mandatory",
    "profile.front.client_ca": "{d}/ca.pem",
    "profile.back.dynamic_client_cert": "enabled",
    "profile.back.forging_certkey": "forge",
    "profile.back.server_ca": "{d}/ca.pem",
    "vserver.app.listen": "0.0.0.0:8443",
    "vserver.app.certkey": "web",
    "vserver.app.profile": "front",
    "vserver.app.service": "app1",
    "service.app1.address": "127.0.0.1:9443",
    "service.app1.server_name": "backend.example",
    "service.app1.profile": "back",
}
SECOND = {  # another vserver, for the same service
    "vserver.b.listen": "0.0.0.0:8444",
    "vserver.b.certkey": "web",
    "vserver.b.profile": "front",
    "vserver.b.service": "app1",
}
SECOND_SERVICE = {  # of the same vserver
    "vserver.app.service": "app1 app2",
    "service.app2.address": "127.0.0.1:9444",
    "service.app2.server_name": "backend.example",
    "service.app2.profile": "back",
    "profile.plain.server_ca": "{d}/ca.pem",
}


class Conf:
    """A configuration file of one assignment per line; knows the line of each key."""

    def __init__(self, directory, path, changes):
        settings = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
        self.settings = {k: v.format(d=directory) for k, v in settings.items()}
        self.path = path
        path.write_text("".join(f"{k} = {v}\n" for k, v in self.settings.items()))

    def line(self, key):
        return list(self.settings).index(key) + 1

    def first_line(self, prefix):
        return min(self.line(k) for k in self.settings if k.startswith(prefix + "."))

    def prefix(self, key):
        """How an error line about key begins."""
        if key in self.settings:
            return f"{self.path}:{self.line(key)}: {key} = {self.settings[key]}: "
        return f"{self.path}:{self.first_line(key.rpartition('.')[0])}: {key}: "


@pytest.fixture
def conf(files, tmp_path):
    return lambda changes: Conf(files, tmp_path / "ktlsgate.conf", changes)


def errors_of(path, check=CHECK):
    result = run(*check, path)
    assert result.returncode == 1, (result.stdout, result.stderr)
    assert result.stdout == ""
    return result.stderr.splitlines()


def one_error(path):
    lines = errors_of(path)
    assert len(lines) == 1, lines
    return lines[0]


GOOD_CHANGES = [
    {},
    SECOND,
    {"service.app1.address": "backend-1.example:443", "service.app1.resolve_interval": "1m"},
    {"service.app1.address": "unix:/run/backend.sock", "vserver.app.accept_proxy": "on",
     "vserver.app.proxy_from": "10.0.0.0/8\t2001:db8::/32 ::1", "service.app1.send_proxy": "tls",
     "service.app1.connect": "verified"},
    {**SECOND_SERVICE, "vserver.app.balance": "source-hash", "service.app2.backup": "yes",
     "vserver.app.service": "app1\t app2"},
    {**SECOND_SERVICE, "service.app2.profile": "plain", "profile.back.dynamic_client_cert": "off"},
    {"certkey.web.key": "{d}/sec1.key"},
    {"certkey.web.key": "{d}/parameters.key"},
    {"certkey.web.cert": "{d}/chain.pem"},
    {"vserver.app.listen": "10.0.0.0/8:443-450 [2001:db8::]/32:443 192.0.2.1:1-65535"},
    {"shield.deny": "10.0.0.0/8 192.0.2.1 2001:db8::/32 ::1", "shield.rate": "10",
     "shield.burst": "100", "shield.prefix6": "56", "vserver.app.shield": "off"},
    {**SECOND, "vserver.app.listen": "10.0.0.0/8:443", "vserver.b.listen": "10.1.0.0/16:443"},
    {"vserver.app.listen": "[::]:8443", "service.app1.address": "[2001:db8::1]:443"},
    {"certkey.unused.cert": "{d}/leaf.pem", "certkey.unused.key": "{d}/leaf.key"},
    {"profile.unused.client_auth": "off"},
    {"certkey.forge.cert": "{d}/below-root.pem"},
    {"profile.front.client_auth": "optional", "profile.back.dynamic_client_cert": "0"},
    {"profile.front.client_auth": "off", "profile.back.dynamic_client_cert": "no"},
    {"dataplane.cpus": CPUS.replace(",", " ,\t"), "dataplane.workers": "AUTO"},
    {"dataplane.cpus": "0", "dataplane.workers": "1"},
    {"socket.client.rcvbuf": "64k", "socket.backend.sndbuf": "100000", "socket.backlog": "1",
     "socket.client.congestion_control": "reno"},
    {"dataplane.user": "nobody", "bpf.dir": "off", "control.socket": "/tmp/x.sock",
     "timeout.idle": "0", "forge.cache": "1000000", "dataplane.workers": "256",
     "service.app1.connect": "verified", "profile.back.require_certificate_request": "TRUE"},
]


@pytest.mark.parametrize("changes", GOOD_CHANGES, ids=lambda c: next(iter(c), "as is"))
def test_good(conf, changes):
    c = conf(changes)
    result = run(*CHECK, c.path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{c.path}: configuration is valid\n"


# One change to the good configuration, the key complained about, and words of what is wrong and right.
BAD = [
    # keys and names
    ({"dataplane.engin": "auto"}, "dataplane.engin", "unknown key", "did you mean dataplane.engine?"),
    ({"vserver.app.lissten": "x"}, "vserver.app.lissten", "unknown key", "vserver.app.listen?"),
    ({"profile.front.strict_transport_security": "on"}, "profile.front.strict_transport_security", "unknown key", "ktlsgate.conf"),
    ({"certkey.cert": "x"}, "certkey.cert", "unknown key", "certkey.<name>.cert?"),
    ({"certkey.a b.cert": "{d}/web.pem"}, "certkey.a b.cert", "'a b' is no valid name", "_ -"),
    ({"certkey.a.b.cert": "{d}/web.pem"}, "certkey.a.b.cert", "'a.b' is no valid name", "_ -"),
    ({"certkey..cert": "{d}/web.pem"}, "certkey..cert", "'' is no valid name", "_ -"),
    # types and ranges
    ({"dataplane.engine": "kernel"}, "dataplane.engine", "none of", "auto | ktls | user"),
    ({"dataplane.relay": "sendfile"}, "dataplane.relay", "none of the possible values",
     "splice | copy"),
    ({"dataplane.workers": "0"}, "dataplane.workers", "out of range", "auto | 1..256"),
    ({"dataplane.cpus": "0-"}, "dataplane.cpus", "a range without an end", "e.g. 0-3,8"),
    ({"dataplane.cpus": "0,two"}, "dataplane.cpus", "is no list of CPUs", "any | numbers and ranges"),
    ({"dataplane.cpus": "0x1"}, "dataplane.cpus", "is no list of CPUs", "any | numbers and ranges"),
    ({"dataplane.cpus": ","}, "dataplane.cpus", "is no list of CPUs", "any | numbers and ranges"),
    ({"dataplane.cpus": "1-0"}, "dataplane.cpus", "ends before it begins", "use 0-1"),
    ({"dataplane.cpus": "0 0"}, "dataplane.cpus", "names CPU 0 twice", "once is enough"),
    ({"dataplane.cpus": "0,9999"}, "dataplane.cpus", "CPU 9999 is none that we may run on",
     f"use some of {CPUS}"),
    ({"dataplane.cpus": "0-4294967295"}, "dataplane.cpus", "is none that we may run on",
     f"use some of {CPUS}"),
    ({"dataplane.cpus": "0", "dataplane.workers": "2"}, "dataplane.workers",
     "dataplane.cpus has 1 CPU, each of which gets one worker", "set it to auto"),
    ({"dataplane.user": "nobody-of-us"}, "dataplane.user", "no user", "name of a user"),
    ({"signer.user": "nobody-of-us"}, "signer.user", "no user", "name of a user"),
    ({"resolver.user": "nobody-of-us"}, "resolver.user", "no user", "name of a user"),
    ({"control.socket": "/" + "x" * 107}, "control.socket", "too long", "107"),
    ({"bpf.dir": "sys"}, "bpf.dir", "not an absolute path", "off | an absolute path"),
    ({"log.level": "loud"}, "log.level", "none of", "error | warn | info | debug"),
    ({"socket.client.rcvbuf": "1G"}, "socket.client.rcvbuf", "no unit of size we know (K, M)",
     "auto | 16K..512M"),
    ({"socket.client.sndbuf": "much"}, "socket.client.sndbuf", "is not a size", "16K..512M"),
    ({"socket.backend.rcvbuf": "16383"}, "socket.backend.rcvbuf", "out of range", "16K..512M"),
    ({"socket.backend.sndbuf": "513M"}, "socket.backend.sndbuf", "out of range", "16K..512M"),
    ({"socket.client.rcvbuf": "512M"}, "socket.client.rcvbuf", "more than the kernel gives",
     "raise the sysctl net.core.rmem_max, or use auto or "),
    ({"socket.backlog": "0"}, "socket.backlog", "out of range", "1..65535"),
    ({"socket.backlog": "65535"}, "socket.backlog", "more than the kernel lets wait",
     "raise the sysctl net.core.somaxconn, or use "),
    *[({f"socket.{side}.congestion_control": "nonesuch"}, f"socket.{side}.congestion_control",
       "no congestion control of this kernel", "use one of ") for side in ("client", "backend")],
    ({"timeout.connect": "5ms"}, "timeout.connect", "unit of time", "s, m, h, d"),
    ({"timeout.connect": "0"}, "timeout.connect", "out of range", "1s..1h"),
    ({"timeout.drain": "soon"}, "timeout.drain", "not a time", "1s..1h"),
    ({"forge.lifespan": "366d"}, "forge.lifespan", "out of range", "1m..365d"),
    ({"forge.cache": "many"}, "forge.cache", "not a number", "1..1000000"),
    ({"profile.front.client_auth": "yes"}, "profile.front.client_auth", "none of",
     "off | optional | mandatory"),
    ({"profile.back.dynamic_client_cert": "maybe"}, "profile.back.dynamic_client_cert",
     "not a boolean", "enabled | disabled"),
    ({"profile.back.require_certificate_request": "2"}, "profile.back.require_certificate_request",
     "not a boolean", "on | off"),
    ({"service.app1.connect": "late"}, "service.app1.connect", "none of", "early | verified"),
    ({"vserver.app.listen": "8443"}, "vserver.app.listen", "no port", "IPv4:PORT | [IPv6]:PORT"),
    ({"vserver.app.listen": "0.0.0.0:99999"}, "vserver.app.listen", "1..65535", "IPv4:PORT"),
    ({"shield.rate": "1000001"}, "shield.rate", "out of range", "0..1000000"),
    ({"shield.prefix4": "33"}, "shield.prefix4", "out of range", "1..32"),
    ({"shield.deny": "10.0.0.0/8 10.1.2.3/16"}, "shield.deny", "10.1.2.3/16 has bits",
     "use 10.1.0.0/16"),
    ({"shield.deny": "2001:db8::/129"}, "shield.deny", "2001:db8::/129 has no prefix length",
     "0..128"),
    ({"shield.deny": "example.org"}, "shield.deny", "is no address or prefix", "192.0.2.0/24"),
    ({"vserver.app.listen": "10.0.0.0/33:443"}, "vserver.app.listen", "0..32 behind the '/'",
     "IPv4/LENGTH:PORT"),
    ({"vserver.app.listen": "[2001:db8::]/129:443"}, "vserver.app.listen", "0..128 behind the '/'",
     "[IPv6]/LENGTH:PORT"),
    ({"vserver.app.listen": "10.1.0.0/8:443"}, "vserver.app.listen", "behind the prefix",
     "use 10.0.0.0/8:443"),
    ({"vserver.app.listen": "[2001:db8::1]/32:4-5"}, "vserver.app.listen", "behind the prefix",
     "use [2001:db8::]/32:4-5"),
    ({"vserver.app.listen": "10.0.0.1:450-443"}, "vserver.app.listen", "last port before its first",
     "use 443-450"),
    ({"vserver.app.listen": "10.0.0.1:443-"}, "vserver.app.listen", "no last port in 1..65535", "IPv4:PORT"),
    ({"vserver.app.listen": "10.0.0.1:1 2001:db8::1:443"}, "vserver.app.listen",
     "2001:db8::1:443 is", "IPv4:PORT"),
    ({"service.app1.address": "local host:1"}, "service.app1.address", "no IPv4 address",
     "NAME:PORT"),
    ({"service.app1.address": "backend.example"}, "service.app1.address", "has no port",
     "NAME:PORT"),
    ({"service.app1.address": "fe80::1:1"}, "service.app1.address", "without brackets",
     "[IPv6]:PORT"),
    ({"service.app1.server_name": "10.0.0.1"}, "service.app1.server_name", "is an address",
     "DNS name"),
    ({"timeout.idle": ""}, "timeout.idle", "value is missing", "0: never"),
    # files
    ({"certkey.web.cert": "{d}/none.pem"}, "certkey.web.cert", "No such file or directory", "PEM"),
    ({"certkey.web.cert": "{d}"}, "certkey.web.cert", "is a directory", "give a PEM file"),
    ({"certkey.web.cert": "{d}/empty.pem"}, "certkey.web.cert", "is empty", "give a PEM file"),
    ({"certkey.web.cert": "{d}/web.der"}, "certkey.web.cert", "is not PEM", "-inform DER"),
    ({"certkey.web.cert": "{d}/web.key"}, "certkey.web.cert", "holds a private key", "of their own"),
    ({"certkey.web.cert": "{d}/both.pem"}, "certkey.web.cert", "holds a private key", "of their own"),
    ({"certkey.web.cert": "{d}/broken.pem"}, "certkey.web.cert", "certificate 2 of the file is "
     "malformed", "openssl x509"),
    ({"profile.front.client_ca": "{d}/text.pem"}, "profile.front.client_ca", "is not PEM",
     "openssl x509"),
    ({"profile.back.server_ca": "{d}/none.pem"}, "profile.back.server_ca", "No such file", "PEM"),
    ({"certkey.web.cert": "{d}/weak.pem", "certkey.web.key": "{d}/weak.key"}, "certkey.web.cert",
     "OpenSSL refuses certificate 1 of the file: ee key too small", "2048 bits or more"),
    ({"certkey.web.cert": "{d}/sha1.pem", "certkey.web.key": "{d}/sha1.key"}, "certkey.web.cert",
     "OpenSSL refuses certificate 1 of the file: ca md too weak", "SHA-256 or better"),
    ({"certkey.web.cert": "{d}/weak-chain.pem"}, "certkey.web.cert",
     "OpenSSL refuses certificate 3 of the file: ca key too small", "2048 bits or more"),
    ({"certkey.forge.cert": "{d}/weak.pem", "certkey.forge.key": "{d}/weak.key"},
     "certkey.forge.cert", "OpenSSL refuses certificate 1 of the file", "2048 bits or more"),
    # private keys
    ({"certkey.web.key": "{d}/none.key"}, "certkey.web.key", "No such file or directory", "PEM"),
    ({"certkey.web.key": "{d}/forge.key"}, "certkey.web.key", "is not the key of the certificate in "
     "{d}/web.pem", "give the one"),
    ({"certkey.forge.key": "{d}/web.key"}, "certkey.forge.key", "is not the key of", "forge.pem"),
    ({"certkey.unused.cert": "{d}/leaf.pem", "certkey.unused.key": "{d}/none.key"},
     "certkey.unused.key", "No such file or directory", "PEM"),
    ({"certkey.unused.cert": "{d}/leaf.pem", "certkey.unused.key": "{d}/web.key"},
     "certkey.unused.key", "is not the key of the certificate in {d}/leaf.pem", "give the one"),
    ({"certkey.web.key": "{d}/pkcs8.enc"}, "certkey.web.key", "is encrypted",
     "key_passphrase_file"),
    ({"certkey.web.key": "{d}/sec1.enc"}, "certkey.web.key", "is encrypted",
     "key_passphrase_file"),
    ({"certkey.web.key": "{d}/web.pem"}, "certkey.web.key", "holds no private key",
     "BEGIN PRIVATE KEY"),
    # references
    ({"vserver.app.certkey": "nope"}, "vserver.app.certkey", "no certkey nope",
     "define certkey.nope."),
    ({"vserver.app.certkey": "web nope"}, "vserver.app.certkey", "no certkey nope",
     "define certkey.nope."),
    ({"vserver.app.certkey": "web a/b"}, "vserver.app.certkey", "no valid name",
     "names of certkeys"),
    ({"vserver.app.certkey": "web web"}, "vserver.app.certkey", "names web twice", "once"),
    ({"profile.back.forging_certkey": "forge nope"}, "profile.back.forging_certkey",
     "no certkey nope", "define certkey.nope."),
    ({"vserver.app.certkey": "web forge"}, "profile.back.forging_certkey",
     "also the certkey of a vserver", "of its own"),
    ({"vserver.app.profile": "nope"}, "vserver.app.profile", "no profile of this name",
     "define profile.nope."),
    ({"vserver.app.service": "nope"}, "vserver.app.service", "no service nope",
     "define service.nope."),
    ({"service.app1.profile": "nope"}, "service.app1.profile", "no profile of this name",
     "define profile.nope."),
    # rules for forged certificates; all of them: test_forge_rules.py
    ({"profile.back.forge.copy": "keyUsage"}, "profile.back.forge.copy", "rule 10", "new key"),
    ({"profile.back.forge.sid_issuers": "{d}/none.pem"}, "profile.back.forge.sid_issuers",
     "No such file", "PEM"),
    ({"profile.back.forge.copy": "1.2.3.4", "profile.back.forge.add": "1.2.3.4=utf8:x"},
     "profile.back.forge.add", "writes 1.2.3.4, as another setting does", "keep one"),
    ({"profile.back.forge.lifespan": "1s"}, "profile.back.forge.lifespan", "out of range",
     "inherit | 1m..365d"),
    ({"certkey.forge.crl": "ftp://x/a.crl"}, "certkey.forge.crl", "no such URI", "http://"),
    ({"vserver.app.service": "app1 app2"}, "vserver.app.service", "no service app2",
     "define service.app2."),
    ({**SECOND_SERVICE, "service.app2.profile": "plain"}, "vserver.app.service",
     "service.app1 forges by profile.back, and service.app2 does not",
     "give all services of a vserver the same"),
    ({**SECOND_SERVICE, "service.app1.profile": "plain"}, "vserver.app.service",
     "service.app2 forges by profile.back, and service.app1 does not", "make another vserver"),
    ({**SECOND_SERVICE, "service.app2.profile": "back2", "profile.back2.forging_certkey": "forge",
      "profile.back2.dynamic_client_cert": "on", "profile.back2.server_ca": "{d}/ca.pem"},
     "vserver.app.service", "service.app1 forges by profile.back, and service.app2 by "
     "profile.back2", "give all services of a vserver the same"),
    ({"service.app1.weight": "0"}, "service.app1.weight", "out of range", "1..256"),
    ({"vserver.app.balance": "random"}, "vserver.app.balance", "none of",
     "round-robin | least-connections | source-hash"),
    ({"service.app1.address": "unix:run/x"}, "service.app1.address", "no absolute path",
     "unix:/PATH"),
    ({"service.app1.address": 'unix:/run/"x'}, "service.app1.address", "quote", "another path"),
    ({"service.app1.address": "unix:/" + "x" * 108}, "service.app1.address", "too long", "107"),
    ({"service.app1.address": "unix:/run/x", "dataplane.engine": "ktls"}, "service.app1.address",
     "kernel TLS does not exist on UNIX sockets", "dataplane.engine = auto"),
    ({"vserver.app.accept_proxy": "on"}, "vserver.app.accept_proxy", "nobody is trusted",
     "set vserver.app.proxy_from"),
    ({"vserver.app.proxy_from": "10.0.0.1/8"}, "vserver.app.proxy_from", "behind the prefix",
     "10.0.0.0/8"),
    ({"vserver.app.proxy_from": "::1 proxies"}, "vserver.app.proxy_from", "proxies is no address",
     "2001:db8::/32"),
    ({"service.app1.send_proxy": "v1"}, "service.app1.send_proxy", "none of", "off | on | tls"),
    ({"profile.back.session_reuse": "on"}, "service.app1.profile", "not known at its ClientHello",
     "set service.app1.connect = verified, or session_reuse = off"),
    ({"profile.back.session_reuse": "on", "service.app1.connect": "verified",
      "profile.back.server_ocsp": "mandatory", "profile.back.ocsp_responder": "http://127.0.0.1"},
     "service.app1.profile", "does not go with server_ocsp", "set one of them to off"),
    ({"service.app1.send_proxy": "tls"}, "service.app1.send_proxy", "not known at its ClientHello",
     "set service.app1.connect = verified"),
    ({"service.app1.check": "ping"}, "service.app1.check", "none of", "off | connect | tls"),
    ({"service.app1.check_certkey": "web"}, "service.app1.check_certkey", "shown by no check",
     "set service.app1.check = tls"),
    ({"service.app1.check_certkey": "forge", "service.app1.check": "tls"},
     "service.app1.check_certkey", "is a forging CA", "of its own"),
    ({"vserver.app.retries": "17"}, "vserver.app.retries", "out of range", "0..16"),
    ({"vserver.app.profile": "a/b"}, "vserver.app.profile", "no valid name", "name of a profile"),
    # what is missing
    *[({key: None}, key, "is missing", "needs it")
      for key in ("vserver.app.listen", "vserver.app.certkey", "vserver.app.profile",
                  "vserver.app.service", "service.app1.address", "service.app1.server_name",
                  "service.app1.profile", "certkey.web.cert", "certkey.web.key")],
    # what does not belong together
    ({"profile.back.server_ca": None}, "service.app1.profile", "no CA to verify the backend",
     "set profile.back.server_ca"),
    ({"profile.front.client_ca": None}, "profile.front.client_auth", "no CA to verify clients",
     "set profile.front.client_ca"),
    ({"profile.front.client_auth": "optional", "profile.front.client_ca": None},
     "profile.front.client_auth", "no CA to verify clients", "set profile.front.client_ca"),
    ({"profile.front.client_auth": "off"}, "vserver.app.profile", "profile.front.client_auth is off, "
     "but profile.back of service.app1 forges", "set profile.front.client_auth = mandatory"),
    ({"profile.back.forging_certkey": None}, "profile.back.dynamic_client_cert",
     "no CA to forge with", "set profile.back.forging_certkey"),
    ({"certkey.forge.cert": "{d}/leaf.pem", "certkey.forge.key": "{d}/leaf.key"},
     "profile.back.forging_certkey", "{d}/leaf.pem cannot be a forging CA", "use a CA certificate"),
    *[({"certkey.forge.cert": f"{{d}}/{file}.pem"}, "profile.back.forging_certkey",
       f"{{d}}/{file}.pem cannot be a forging CA: certificate 2 {why}", "the CAs above it in order")
      for file, why in (("strangers", "did not issue the one before it"),
                        ("below-pathlen0", "has a path length too short"),
                        ("below-serverauth", "is no CA for clients"))],
    ({"profile.back.forging_certkey": "both", "certkey.both.cert": "{d}/forge.pem",
      "certkey.both.key": "{d}/forge.key", "vserver.app.certkey": "both"},
     "profile.back.forging_certkey", "also the certkey of a vserver", "of its own"),
    ({"profile.front.tls_min": "1.3", "profile.front.tls_max": "1.2"}, "profile.front.tls_min",
     "is newer than profile.front.tls_max", "tls_max = 1.3"),
    ({"profile.front.tls_min": "1.1"}, "profile.front.tls_min", "none of the possible", "1.2 | 1.3"),
    ({"profile.back.ciphers": "ECDHE-RSA-AES128-GCM-SHA256 AES128-GCM-SHA256"},
     "profile.back.ciphers", "a word that is none of the possible", "ECDHE-RSA-CHACHA20-POLY1305"),
    ({"profile.back.ciphersuites": "TLS_AES_128_CCM_SHA256"}, "profile.back.ciphersuites",
     "none of the possible", "TLS_AES_128_GCM_SHA256"),
    ({"profile.back.groups": "P-192"}, "profile.back.groups", "none of the possible", "P-256"),
    ({"profile.front.alpn": "mirror", "service.app1.connect": "verified"}, "vserver.app.profile",
     "alpn is mirror, but service.app1.connect is verified", "connect = early"),
    ({"profile.front.alpn": "h2 b\xc3\xbc"}, "profile.front.alpn", "no list of protocol names",
     "names of protocols"),
    ({**SECOND, "vserver.b.listen": "0.0.0.0:8443"}, "vserver.b.listen",
     "vserver.app listens there already", "another address or port"),
    ({**SECOND, "vserver.app.listen": "10.0.0.0/8:443 10.0.0.1:80-90",
      "vserver.b.listen": "10.0.0.0/8:444 10.0.0.1/32:90-99"}, "vserver.b.listen",
     "vserver.app listens there already", "another address or port"),
    ({"vserver.app.listen": "10.0.0.1:443 10.0.0.1:440-450"}, "vserver.app.listen",
     "names an address and port twice", "once is enough"),
]


def bad_id(case):
    key, value = next(iter(case[0].items()))
    return f"{key}={value}"[:60].replace("{d}/", "")


@pytest.mark.parametrize("changes,key,wrong,right", BAD, ids=map(bad_id, BAD))
def test_bad(conf, files, changes, key, wrong, right):
    c = conf(changes)
    error = one_error(c.path)
    assert error.startswith(c.prefix(key))
    said = error[len(c.prefix(key)):]
    assert wrong.format(d=files) in said
    assert right in said


def test_all_errors_at_once_in_order(conf):
    c = conf({"dataplane.engine": "x", "certkey.web.cert": "/none", "vserver.app.profile": "nope",
              "service.app1.address": None, "timeout.idl": "1", **SECOND,
              "vserver.b.listen": "0.0.0.0:8443"})
    lines = errors_of(c.path)
    # the missing address is told where service.app1 is first named
    keys = ["dataplane.engine", "certkey.web.cert", "vserver.app.profile", "service.app1.address",
            "timeout.idl", "vserver.b.listen"]
    assert len(lines) == len(keys), lines
    for line, key in zip(lines, keys):
        assert line.startswith(c.prefix(key))


@pytest.mark.parametrize("check", [CHECK, START], ids=["-t", "start"])
def test_key_errors_among_the_others(conf, check):
    c = conf({"dataplane.engine": "x", "certkey.web.key": "{d}/forge.key",
              "certkey.forge.key": "/none", "profile.front.client_ca": "/none",
              "service.app1.profile": "nope", "certkey.unused.cert": "{d}/leaf.pem",
              "certkey.unused.key": "{d}/pkcs8.enc", "timeout.idl": "1"})
    wrong = {"dataplane.engine": "none of", "certkey.web.key": "is not the key of",
             "certkey.forge.key": "No such file", "profile.front.client_ca": "No such file",
             "service.app1.profile": "no profile of this name", "certkey.unused.key": "encrypted",
             "timeout.idl": "unknown key"}
    lines = errors_of(c.path, check)
    assert len(lines) == len(wrong), lines
    for line, (key, what) in zip(lines, wrong.items()):
        assert line.startswith(c.prefix(key)) and what in line


def test_no_key_error_where_the_certificate_is_wrong(conf):
    """Which key would be right cannot be told."""
    c = conf({"certkey.web.cert": "/none", "certkey.web.key": "{d}/forge.key",
              "certkey.forge.cert": None, "certkey.forge.key": "/none"})
    first, second = errors_of(c.path)
    assert first.startswith(c.prefix("certkey.web.cert"))
    assert second.startswith(c.prefix("certkey.forge.cert")) and "is missing" in second


def test_later_assignment_replaces(conf):
    c = conf({})
    c.path.write_text("vserver.app.service = nowhere\n" + c.path.read_text())
    assert run(*CHECK, c.path).returncode == 0
    c.path.write_text(c.path.read_text() + "vserver.app.service = gone\n")
    number = len(c.settings) + 2
    assert one_error(c.path).startswith(f"{c.path}:{number}: vserver.app.service = gone: ")


def test_no_vserver(tmp_path):
    path = tmp_path / "empty.conf"
    path.write_text("# nothing\n")
    error = one_error(path)
    assert error.startswith(f"{path}: there is no vserver; ")
    assert "vserver.<name>.listen" in error


@pytest.mark.parametrize("make,want", [
    (lambda p: None, "cannot be opened: No such file or directory"),
    (lambda p: p.mkdir(), "cannot be read: Is a directory"),
], ids=["missing", "directory"])
def test_unreadable(tmp_path, make, want):
    path = tmp_path / "x.conf"
    make(path)
    assert one_error(path) == (
        f"{path}: {want}; make it a file that we may read, or name another with -c")


@pytest.mark.parametrize("line,want", [
    (b"log.level = in\0fo", "byte 15 of the line is 0x00"),
    (b"log.level = \x1b[31m", "byte 13 of the line is 0x1b"),
    (b"log.level", "log.level: there is no '='; write KEY = VALUE"),
    (b"log.level # = info", "log.level: there is no '='"),
    (b"#" + b"x" * 4096, "the line has 4097 bytes; at most 4096 are allowed"),
], ids=["NUL", "escape", "no =", "= in a comment", "long"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b""], ids=["LF", "CRLF", "end of file"])
def test_bad_line(conf, line, want, newline):
    c = conf({})
    c.path.write_bytes(c.path.read_bytes() + b"\n" + line + newline)
    assert one_error(c.path).startswith(f"{c.path}:{len(c.settings) + 2}: {want}")


def test_form(conf):
    c = conf({})
    text = c.path.read_text().replace(" = ", "=", 4).replace(" = ", "\t =  ", 4)
    text = text.replace("enabled", "ENABLED   # with a comment").replace("\n", "\r\n")
    c.path.write_bytes(b"; a comment\n\n  # another\n" + text.rstrip().encode())
    result = run(*CHECK, c.path)
    assert (result.returncode, result.stderr) == (0, "")


def test_longest_line(conf):
    c = conf({})
    c.path.write_text(c.path.read_text() + "#" + "x" * 4095 + "\r\n")
    assert run(*CHECK, c.path).returncode == 0


@pytest.mark.parametrize("key, mode, cure", [
    ("forge", 0o640, 600), ("forge", 0o604, 600), ("forge", 0o622, 600),
    ("web", 0o604, 640), ("web", 0o620, 640), ("web", 0o660, 640), ("web", 0o640, None),
])
def test_key_that_others_may_use(conf, files, key, mode, cure):
    """A forging key is its owner's alone; a serving key may be read by a group."""
    c = conf({})
    (files / f"{key}.key").chmod(mode)
    try:
        result = run(*CHECK, c.path)
    finally:
        (files / f"{key}.key").chmod(0o600)
    if cure is None:
        assert (result.returncode, result.stderr) == (0, "")
        return
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert f"{c.path}:{c.line(f'certkey.{key}.key')}: certkey.{key}.key = " in result.stderr
    assert f"others than its owner may use this file (mode {mode:04o}); chmod {cure} it" \
        in result.stderr


@pytest.mark.parametrize("what", ["owner", "directory", "above", "link", "passphrase"])
def test_key_that_others_may_replace(conf, files, tmp_path, what):
    key, conf_keys = tmp_path / "above/directory/forge.key", {}
    key.parent.mkdir(parents=True)
    shutil.copy(files / "forge.key", key)
    key.chmod(0o600)
    if what == "owner":
        os.chown(key, 65534, -1)
    elif what == "link":
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        (tmp_path / "open/forge.key").symlink_to(key)
        key = tmp_path / "open/forge.key"
    elif what == "passphrase":
        conf_keys["certkey.forge.key_passphrase_file"] = str(tmp_path / "word")
        (tmp_path / "word").write_text("word\n")
        (tmp_path / "word").chmod(0o644)
    else:
        (key.parent if what == "directory" else key.parent.parent).chmod(0o770)
        os.chown(key.parent if what == "directory" else key.parent.parent, -1, 65534)
    result = run(*CHECK, conf({"certkey.forge.key": str(key), **conf_keys}).path)
    assert result.returncode == 1 and "certkey.forge.key = " in result.stderr
    assert {"owner": "belongs to user 65534; chown it to root",
            "passphrase": "word: others than its owner may use this file (mode 0644); chmod 600 it",
            }.get(what, "can replace it; chown it to root and chmod go-w it") in result.stderr


# ---- printers ----


def test_example_is_generated():
    """config/ktlsgate.conf is what the table says; build/unit/test_config --example makes it."""
    assert run(UNIT, "--example").stdout == (ROOT / "config/ktlsgate.conf").read_text()


def test_example_is_loadable(files, tmp_path):
    """With its files in place, and with all defaults uncommented."""
    text = (ROOT / "config/ktlsgate.conf").read_text()
    for sample, real in (("web.pem", "web.pem"), ("web.key", "web.key"),
                         ("forge-ca.pem", "forge.pem"), ("forge-ca.key", "forge.key"),
                         ("client-ca.pem", "ca.pem"), ("server-ca.pem", "ca.pem")):
        assert f"/etc/ktlsgate/pki/{sample}\n" in text
        text = text.replace(f"/etc/ktlsgate/pki/{sample}\n", f"{files}/{real}\n")
    text = re.sub(r"(\n\w+\.user) = ktlsgate\S*", r"\1 = nobody", text)
    lines = [line[1:] if line.startswith("#") and line[1:2].isalpha() else line
             for line in text.splitlines()]
    assert len([line for line in lines if line.startswith("timeout.")]) == 7
    path = tmp_path / "example.conf"
    path.write_text("\n".join(lines))
    result = run(*CHECK, path)
    assert (result.returncode, result.stderr) == (0, "")


def test_table():
    head, *rows = [line.split("\t") for line in run(UNIT, "--table").stdout.splitlines()]
    assert head == ["key", "type", "unit", "range", "default", "runtime", "help"]
    assert all(len(row) == len(head) and all(row) for row in rows)
    table = {row[0]: dict(zip(head, row)) for row in rows}
    assert len(table) == len(rows)
    source = (ROOT / "daemon/config/config_table.c").read_text()
    assert set(table) == set(re.findall(r'^\t\{"(\w+\.[\w.<>]+)", ', source, re.MULTILINE))
    assert table["timeout.idle"]["default"] == "1h"
    assert table["timeout.idle"]["range"] == "0..365d"
    assert table["vserver.<name>.listen"]["default"] == "mandatory"
    assert table["forge.cache"]["unit"] == "entries"
    # the example explains every one of them
    example = (ROOT / "config/ktlsgate.conf").read_text()
    assert all(f"# {key}: {row['help']}.\n" in example for key, row in table.items())


def test_print(conf):
    c = conf({"timeout.idle": "90"})
    lines = run(UNIT, "--print", c.path).stdout.splitlines()
    keys = [line.split(" = ")[0] for line in lines]
    values = dict(line.split(" = ", 1) for line in lines)
    assert values["timeout.idle"] == "90s"
    assert values["timeout.connect"] == "5s"
    assert values["profile.front.dynamic_client_cert"] == "disabled"
    assert "dataplane.user" not in values and "shield.deny" not in values
    assert "PRIVATE" not in "".join(lines)
    assert {k: v for k, v in values.items() if k in c.settings and k != "timeout.idle"} == {
        k: v for k, v in c.settings.items() if k != "timeout.idle"}
    scopes = ("certkey", "profile", "service", "vserver")
    objects = [".".join(key.split(".")[:2 if key.split(".")[0] in scopes else 1]) for key in keys]
    assert sorted(set(objects), key=objects.index) == [
        "dataplane", "bpf", "control", "config", "log", "limit", "timeout", "socket", "forge", "shield", "audit",
        "certkey.web", "certkey.forge", "profile.front", "profile.back", "service.app1", "vserver.app"]
    assert len(keys) == len(set(keys))
    one = run(UNIT, "--print", c.path, "vserver.app.certkey")
    assert one.stdout == "vserver.app.certkey = web\n"
    assert run(UNIT, "--print", c.path, "vserver.app.nothing").returncode == 1
