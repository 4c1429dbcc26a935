# SPDX-License-Identifier: Apache-2.0
"""
ktlsgate-ns-import: a NetScaler configuration as ours. tests/ns/ holds the configurations, each with
what must come out of it; KTLSGATE_GOLDEN=write writes that anew, to be read before it is committed.

The program that is built writes only keys that its ktlsgated has. tools/ns_import writes all that it
knows: what must come out does not depend on the keys of the day.
"""

import datetime
import functools
import io
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from harness import backend as backends
from harness import client as clients
from harness.daemon import BUILD, ROOT, program
from harness.pki import BACK_NAME
from harness.ports import free_port

sys.path.insert(0, str(ROOT / "tools"))
from ns_import import settings  # noqa: E402
from ns_import.common import Fault  # noqa: E402
from ns_import.ours import Names  # noqa: E402
from ns_import.program import report  # noqa: E402
from ns_import.program import translate as translate_lines  # noqa: E402
from ns_import.text import config_text  # noqa: E402
from ns_import.words import split_words  # noqa: E402

INPUTS = sorted((ROOT / "tests/ns").glob("*.conf"))
NOWHERE = "/nonexistent/pki"


def run(command, args, text=None, env=None):
    return subprocess.run([*command, *map(str, args)], input=text, check=False, capture_output=True,
                          encoding="utf-8", errors="surrogateescape", timeout=20, env=env)


def ns_import(*args, text=None):
    return run(["/usr/bin/python3", "-B", "-m", "ns_import"], args, text,
               dict(os.environ, PYTHONPATH=str(ROOT / "tools")))


def built(*args, **options):
    return run([program("ktlsgate-ns-import")], args, **options)


@functools.lru_cache
def imported(path):
    """The import of a file of tests/ns/ whose certificates are nowhere."""
    return ns_import("--pki-dir", NOWHERE, path)


def named(path, stderr):
    """{line: what is said of it}; no line is named twice."""
    found = re.findall(rf"^{re.escape(str(path))}:(\d+): (.*)$", stderr, re.MULTILINE)
    assert len(found) == len({n for n, _ in found}), stderr
    return {int(n): text for n, text in found}


def settings_of(text):
    """The keys of a configuration; no key stands twice."""
    pairs = [line.split(" = ", 1) for line in text.splitlines() if line and line[0] != "#"]
    assert len(pairs) == len({key for key, _ in pairs})
    return dict(pairs)


def translate(text):
    """A NetScaler configuration given as text: (what comes of it, what is said of its lines)."""
    model, translator = translate_lines(text.split("\n"), "/pki")
    said = io.StringIO()
    left = report(said, "-", model, translator, [])
    assert left == len(named("-", said.getvalue()))
    return settings_of(config_text(translator.blocks, "-")), named("-", said.getvalue())


# ---- whole configurations ----


@pytest.mark.parametrize("path", INPUTS, ids=lambda p: p.stem)
def test_golden(path):
    done = imported(path)
    golden = path.with_suffix(".ktlsgate")
    if os.environ.get("KTLSGATE_GOLDEN") == "write":
        golden.write_text(done.stdout)
    assert done.stdout == golden.read_text()
    assert done.returncode == 1
    assert "SECRET" not in done.stdout + done.stderr


@pytest.mark.parametrize("path", INPUTS, ids=lambda p: p.stem)
def test_untranslated_lines_are_named(path):
    """Exactly those that the file says, each once and for each of its reasons; all others are used."""
    done = imported(path)
    found = named(path, done.stderr)
    expected, commands = {}, set()
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            commands.add(number)
            if lines[number - 2].startswith("#! "):
                expected[number] = lines[number - 2][3:].split("; ")
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    for number, reasons in expected.items():
        assert all(reason in found[number] for reason in reasons), (found[number], reasons)
    counts = list(map(int, re.search(r": (\d+) commands: (\d+) translated, (\d+) in part, (\d+) left out; made ",
                                     done.stderr).groups()))
    assert counts[0] == len(commands) == sum(counts[1:])
    assert counts[2] + counts[3] == len(expected)


@pytest.mark.parametrize("path", INPUTS, ids=lambda p: p.stem)
def test_every_line_is_accounted_for(path):
    """What is not named as left out is among the lines that an object comes from."""
    done = imported(path)
    comments = " ".join(re.findall(r"^#\s*(.*)$", done.stdout, re.MULTILINE))
    used = {int(n) for group in re.findall(rf"{path.name}:((?:\d+, )*\d+)", comments)
            for n in group.split(", ")}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line or line.startswith("#") or number in named(path, done.stderr):
            continue
        harmless = re.match(r"(?i)(save|sh|un\w+|rm|enable) |set ssl parameter -defaultProfile|.*\bbe-gone\b|.* gone\b", line)
        assert number in used or harmless, line


@pytest.mark.parametrize("path", INPUTS, ids=lambda p: p.stem)
def test_result_is_valid(path, pki, tmp_path):
    """With the certificates where they are looked for, ktlsgated takes it."""
    where = tmp_path / "pki"
    furnish(built("--pki-dir", where, path), where, pki)
    conf = tmp_path / "ktlsgate.conf"
    env = {**os.environ, "PATH": f"{BUILD}:{os.environ['PATH']}"}
    done = built("--pki-dir", where, "--bundle", "--check", "-o", conf, path, env=env)
    assert done.returncode == 1, done.stderr
    assert done.stdout == "" and "not there yet" not in done.stderr
    checked = subprocess.run([program("ktlsgated"), "-t", "-c", conf], capture_output=True,
                             text=True, check=False, timeout=20)
    assert (checked.returncode, checked.stderr) == (0, "")


def furnish(done, where, pki):
    """The files that an import asks for, from the test's PKI, by what their names say they are."""
    wanted = re.findall(r"^ktlsgate-ns-import: (\S.*) is not there yet: (.*)$", done.stderr, re.MULTILINE)
    assert wanted
    for file, what in wanted:
        path = pathlib.Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        if "with --bundle" in what:
            continue
        name = path.name
        if what.startswith("revocation list"):
            path.write_bytes(empty_crl(pki.client_intermediate if "issuing" in name else pki.client_root))
            continue
        if name.startswith("forge"):
            source = pki.forging_intermediate if "root" in name else pki.forge()
        elif re.search("be-ca|back|server", name):
            source = pki.server_ca
        elif "ca" in re.split(r"[-. ]|(?<=ca)\d", name):
            source = pki.client_intermediate if re.search("user-ca2|issuing", name) else pki.client_root
        else:
            source = pki.web()
        text = pathlib.Path(source.cert_file).read_text()
        if name.startswith("forge"):
            text = text[:text.index("-----END") + len("-----END CERTIFICATE-----\n")]
        key = pathlib.Path(source.key_file).read_text()
        path.write_text(key if path.suffix == ".key" else text + key if name == "www.pem" else text)
        path.chmod(0o600)


def empty_crl(ca):
    now = datetime.datetime.utcnow()
    builder = x509.CertificateRevocationListBuilder(ca.cert.subject, now, now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.CRLNumber(1), False).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), False)
    return builder.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.datapath
def test_imported_gate_forwards(pki, gate, tmp_path):
    """The reference page's configuration: the backend sees a forged certificate."""
    where, port = tmp_path / "pki", free_port()
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        text = (ROOT / "tests/ns/dc2g.conf").read_text()
        text = text.replace("192.0.2.100 443", f"127.0.0.1 {port}").replace("192.0.2.10", "127.0.0.1")
        text = text.replace("-gslb NONE", "-gslb NONE -healthMonitor NO")
        text = text.replace("9443", str(b.port)).replace("backend.example", BACK_NAME)
        ns_conf = tmp_path / "ns.conf"
        ns_conf.write_text(text)
        for name, certkey in (("web", pki.web()), ("client-ca", pki.client_root),
                              ("server-ca", pki.server_ca), ("forge-ca", pki.forge())):
            where.mkdir(exist_ok=True)
            shutil.copy(certkey.cert_file, where / f"{name}.pem")
            shutil.copy(certkey.key_file, where / f"{name}.key")
        done = built("--pki-dir", where, ns_conf)
        g = gate(settings_of(done.stdout))
        with g.ends_with("client_cert_required"), clients.connect(port, pki=pki) as c:
            c.handshake()
            c.recv()
        certkey = pki.client()
        with g.ends_with("done"), g.carries(1):
            with clients.connected(port, pki=pki, certkey=certkey) as c:
                c.send(b"through an imported gate")
                assert c.recv_exactly(24) == b"through an imported gate"
                c.close_notify()
                assert c.recv() == b""
        seen = b.connection(1).wait()  # the first had to do without
        assert g.ctl("timeout.idle") == "timeout.idle = 10m\n"
    forged = x509.load_der_x509_certificate(seen.certificate)
    assert forged.subject == certkey.cert.subject and forged.issuer == pki.forge().cert.subject
    assert seen.certificate != certkey.cert.public_bytes(Encoding.DER)


# ---- words ----


@pytest.mark.parametrize("line, words", [
    ("add lb\tvserver  x", ["add", "lb", "vserver", "x"]),
    (r'"a b" a\ b "a\"b" "a\\b" "tab\there" "\x41\102"', ["a b", "a b", 'a"b', "a\\b", "tab\there", "AB"]),
    ("'a \"b\"' 'it\\'s' \"it's\"", ['a "b"', "it's", "it's"]),
    ('ab"c d"e"" "f"g', ["abc de", "fg"]),
    (r'q/a "b" \/ q{c} d} q[e] f]', ['a "b" \\', "c", "d}", "e", "f]"]),
    ("q~it's~ q|a b| q<c> q^d^", ["it's", "a b", "c", "d"]),
    ("q q-web q.x q_1 qa/b/ x/q/y q@home q=1", ["q", "q-web", "q.x", "q_1", "qa/b/", "x/q/y", "q@home", "q=1"]),
    ("q@a b@c q#d#", ["a bc", "d"]),
    ('"" x', ["", "x"]),
    ("", []),
    ("trailing\\", ["trailing\\"]),
])
def test_words(line, words):
    assert [w.text for w in split_words(line)] == words


@pytest.mark.parametrize("line", ['a "b', "a 'b", r'a "b\"', "a q{b c", "q/x"])
def test_unclosed(line):
    with pytest.raises(Fault, match="not closed"):
        split_words(line)


def test_names():
    """Deterministic, free of collisions, valid, and those that fit are kept."""
    originals = ["a.b", "a b", "a_b", "a@b", "*", "x" * 63, "x" * 64, "x" * 65, "é", "", "A_B"]
    names = Names(originals).ours
    assert names == Names(originals[::-1]).ours
    assert len(set(names.values())) == len(originals)
    assert all(re.fullmatch("[A-Za-z0-9_-]{1,63}", n) for n in names.values())
    assert all(names[n] == n for n in ("a_b", "A_B", "x" * 63))
    assert Names(["a.b"]).ours == {"a.b": "a_b"}


# ---- single things ----

BASE = """
add ssl certKey web -cert web.pem -key web.key
add ssl certKey be-ca -cert be.pem
add lb vserver v SSL 192.0.2.1 443
add service s 192.0.2.2 SSL 443
bind lb vserver v s
bind ssl vserver v -certkeyName web
bind ssl service s -certkeyName be-ca -CA
set ssl service s -serverAuth ENABLED -commonName be.example
"""
CLIENT_CA = BASE + """
add ssl certKey ca -cert ca.pem
bind ssl vserver v -certkeyName ca -CA
"""


def test_all_translated():
    conf, left = translate(BASE)
    assert left == {}
    assert conf == {
        "timeout.idle": "180s",
        "certkey.web.cert": "/pki/web.pem", "certkey.web.key": "/pki/web.key",
        "profile.s-back.server_ca": "/pki/be.pem", "profile.v-front.client_auth": "off",
        "profile.s-back.tls_max": "1.2", "profile.v-front.tls_max": "1.2",
        "service.s.address": "192.0.2.2:443", "service.s.server_name": "be.example",
        "service.s.profile": "s-back", "service.s.check": "connect", "service.s.check_interval": "5s",
        "service.s.check_timeout": "2s", "service.s.check_rise": "1", "service.s.check_fall": "3",
        "vserver.v.listen": "192.0.2.1:443", "vserver.v.certkey": "web",
        "vserver.v.profile": "v-front", "vserver.v.service": "s"}


@pytest.mark.parametrize("lines, client_auth", [
    ("", "off"),
    ("set ssl vserver v -clientCert Mandatory", "off"),
    ("set ssl vserver v -clientAuth ENABLED", "mandatory"),  # NetScaler's default
    ("set ssl vserver v -clientAuth ENABLED -clientCert Optional", "optional"),
    ("set ssl vserver v -clientAuth ENABLED\nset ssl vserver v -clientAuth DISABLED", "off"),
    ("set ssl vserver v -clientAuth ENABLED\nunset ssl vserver v -clientAuth", "off"),
    # The enhanced profiles: what is not bound to one has the default one.
    ("set ssl parameter -defaultProfile ENABLED", "off"),
    ("set ssl parameter -defaultProfile YES\nset ssl profile ns_default_ssl_profile_frontend -clientAuth ENABLED",
     "mandatory"),
    ("add ssl profile p -clientAuth ENABLED\nset ssl vserver v -sslProfile p", "mandatory"),
])
def test_client_auth(lines, client_auth):
    conf, left = translate(CLIENT_CA + lines)
    profile = conf["vserver.v.profile"]
    assert conf[f"profile.{profile}.client_auth"] == client_auth
    assert (f"profile.{profile}.client_ca" in conf) == (client_auth != "off")
    assert not any("clientAuth" in text for text in left.values())


def test_defaults_of_a_profile_count_over_legacy_settings():
    """With a profile what is set at the vserver itself does not count, and is named."""
    conf, left = translate(BASE + "add ssl profile p\nset ssl vserver v -sslProfile p -clientAuth ENABLED\n")
    assert conf["profile.p.client_auth"] == "off"
    (text,) = left.values()
    assert "-clientAuth ENABLED: ssl profile p counts instead" in text


@pytest.mark.parametrize("lines, certkeys, allow_unknown, named_as", [
    ("", "web", None, None),
    ("bind ssl vserver v -certkeyName sni -SNICert", "web", None, "-SNIEnable is not ENABLED"),
    ("set ssl vserver v -SNIEnable ENABLED\nbind ssl vserver v -certkeyName sni -SNICert", "web sni", None, None),
    ("bind ssl vserver v -certkeyName sni -SNICert\nset ssl vserver v -SNIEnable ENABLED\n"
     "unbind ssl vserver v -certkeyName web", "sni", "off", None),
    ("set ssl vserver v -SNIEnable ENABLED -allowUnknownSNI ENABLED\nbind ssl vserver v -certkeyName sni -SNICert\n"
     "bind ssl vserver v -certkeyName second", "web second sni", None, None),
    ("set ssl vserver v -SNIEnable ENABLED -allowUnknownSNI DISABLED\nbind ssl vserver v -certkeyName sni -SNICert",
     "web sni", None, "-allowUnknownSNI DISABLED: clients that name"),
])
def test_sni(lines, certkeys, allow_unknown, named_as):
    conf, left = translate(BASE + "add ssl certKey sni -cert sni.pem -key sni.key\n"
                           "add ssl certKey second -cert second.pem -key second.key\n" + lines)
    assert conf["vserver.v.certkey"] == certkeys
    assert conf.get("vserver.v.allow_unknown_sni") == allow_unknown
    left = [text for text in left.values() if "nothing that is translated uses it" not in text]
    assert len(left) == (named_as is not None) and all(named_as in text for text in left)


@pytest.mark.parametrize("lines, speech", [
    ("", {"tls_max": "1.2"}),
    ("set ssl vserver v -tls13 ENABLED", {}),
    ("set ssl vserver v -tls13 ENABLED -tls12 DISABLED", {"tls_min": "1.3"}),
    ("set ssl vserver v -tls13 ENABLED\nbind ssl vserver v -cipherName TLS1.3-AES256-GCM-SHA384",
     {"tls_min": "1.3", "ciphersuites": "TLS_AES_256_GCM_SHA384"}),
    ("set ssl vserver v -tls13 ENABLED\nbind ssl vserver v -cipherName tls1.2-ecdhe-rsa-aes128-gcm-sha256",
     {"tls_max": "1.2", "ciphers": "ECDHE-RSA-AES128-GCM-SHA256"}),
    ("bind ssl vserver v -eccCurveName P_521", {"tls_max": "1.2", "groups": "P-521"}),
    # An old profile has no ciphers: those of the vserver count.
    ("add ssl profile p -tls13 ENABLED\nset ssl vserver v -sslProfile p\n"
     "bind ssl vserver v -cipherName TLS1.2-ECDHE-RSA-CHACHA20-POLY1305",
     {"tls_max": "1.2", "ciphers": "ECDHE-RSA-CHACHA20-POLY1305"}),
])
def test_what_is_spoken(lines, speech):
    conf, left = translate(BASE + lines)
    prefix = f"profile.{conf['vserver.v.profile']}."
    found = {key.removeprefix(prefix): value for key, value in conf.items() if key.startswith(prefix)}
    assert found == {"client_auth": "off", **speech} and left == {}


@pytest.mark.parametrize("known", ["none", "balance"])
def test_keys_that_are_not_there(monkeypatch, known):
    """What would need a key that ktlsgated lacks is named, and not written."""
    keys = {"none": (), "balance": ("vserver.<name>.balance",)}[known]
    monkeypatch.setattr(settings, "KNOWN", frozenset(keys))
    conf, left = translate(CLIENT_CA + """
add service s2 192.0.2.3 SSL 443
set ssl service s2 -serverAuth ENABLED -commonName be.example
bind ssl service s2 -certkeyName be-ca -CA
bind lb vserver v s2 -weight 2
set ssl vserver v -clientAuth ENABLED -tls12 DISABLED -tls13 ENABLED
add ssl crl c ca.crl -CAcert ca
bind ssl vserver v -certkeyName ca -CA -crlCheck Mandatory -skipCAName
add lb monitor m TCP
bind service s -monitorName m
""")
    assert {key.split(".", 2)[2] for key in conf if key.startswith("vserver")} == {
        "listen", "certkey", "profile", "service", *(["balance"] if keys else [])}
    said = "\n".join(left.values())
    for text in ("-tls12 DISABLED: TLS 1.2 and 1.3 are spoken", "-crlCheck Mandatory: CRLs are not looked at",
                 "-skipCAName: the names of all CAs are sent", "add lb monitor m: backends are not probed",
                 "bind service s: backends are not probed", "add ssl crl c: nothing"):
        assert text in said
    assert (conf["vserver.v.service"], "a vserver has one service: s" in said) == (
        ("s s2", False) if keys else ("s", True))
    assert ("-weight 2: services have no weights" in said) == bool(keys)


def test_bound_twice_is_once():
    again = "bind lb vserver v s\nbind ssl vserver v -certkeyName web\nbind ssl service s -certkeyName be-ca -CA\n"
    assert translate(BASE + again) == translate(BASE)


@pytest.mark.parametrize("file, path", [
    ("web.pem", "/pki/web.pem"),
    ("/nsconfig/ssl/sub/web.pem", "/pki/sub/web.pem"),
    ("/flash/nsconfig/ssl/web.pem", "/pki/web.pem"),
    ("/var/elsewhere/web.pem", "/pki/web.pem"),
    ("../../etc/passwd", "/pki/passwd"),
    ("/nsconfig/ssl/../ssl/web.pem", "/pki/web.pem"),
])
def test_files(file, path):
    conf, _ = translate(BASE.replace("web.pem", file))
    assert conf["certkey.web.cert"] == path


def test_trust_ends_where_it_did():
    """NetScaler trusts what is bound, be it a root or not; importing must not trust more."""
    linked = CLIENT_CA + ("add ssl certKey root -cert root.pem\nlink ssl certKey ca root\n"
                          "set ssl vserver v -clientAuth ENABLED\n")
    conf, left = translate(linked)
    assert conf["profile.v-front.client_ca"] == "/pki/ca.pem"
    assert conf["profile.v-front.verify.partial_chain"] == "on"
    assert list(left.values()) == ["add ssl certKey root: nothing that is translated uses it"]
    conf, left = translate(linked + "bind ssl vserver v -certkeyName root -CA\n")
    assert conf["profile.v-front.client_ca"] == "/pki/ns-import/v-front-client-ca.pem"
    assert "profile.v-front.verify.partial_chain" not in conf and left == {}


def test_secrets_are_never_printed():
    """Wherever one may stand."""
    lines = [
        'add ssl certKey k1 -cert web.pem -key web.key -passcrypt "SECRET" -encrypted',
        "add ssl certKey k2 -cert web.pem -key web.key -password SECRET",
        "add ssl certKey k3 -cert web.pem -key web.key -passplain SECRET",
        "set system user nsroot SECRET -encrypted",
        "set ns rpcNode 192.0.2.1 -password SECRET -encrypted -srcIP 192.0.2.1",
        "add lb monitor m HTTP -userName u -password SECRET -httpRequest SECRET -destIP 192.0.2.1",
        'set lb vserver v -rule "SECRET" -redirectURL https://SECRET/ -cookieName SECRET',
        "bind service s -monitorName m",
        "add aaa user joe -password SECRET",
        "set ssl profile p -sessionTicketKeyData SECRET",
        "set ssl profile p -unknownOption SECRET",
        "add lb vserver v2 SSL 192.0.2.9 443 -SECRET=1",
        "add snmp community SECRET GET_ALL",
        "set system SECRET", "add snmp SECRET ALL", "SECRET", "'SECRET", "set SECRET", "set ns SECRET=1", "add ssl SECRET/x", "wrapped SECRET line",
    ]
    text = BASE + "set ssl vserver v -sslProfile p\nadd ssl profile p\n" + "".join(
        f"bind ssl vserver v -certkeyName k{n}\n" for n in (1, 2, 3)) + "\n".join(lines)
    text = text.replace("bind ssl vserver v -certkeyName web\n", "")
    done = ns_import("-", text=text)
    assert done.returncode == 1
    assert len(named("-", done.stderr)) > len(lines) - 2
    assert "SECRET" not in done.stdout + done.stderr, done.stderr
    assert "-passcrypt (not shown): keys are read without a passphrase" in done.stderr


def test_bytes_that_are_no_text(tmp_path):
    conf = tmp_path / "ns.conf"
    conf.write_bytes(b"\xef\xbb\xbf" + BASE.encode().replace(b"\n", b"\r\n") +
                     b'add lb vserver "\xff\x1b[31m" SSL 192.0.2.3 443\r\n\x00\x01\r\n')
    done = ns_import("--pki-dir", "/pki", conf)
    assert done.returncode == 1
    assert settings_of(done.stdout) == translate(BASE)[0]
    assert "\x1b" not in done.stderr and r"add lb vserver \xff\x1b[31m: " in done.stderr


def damaged(lines, rng):
    """A configuration as it comes out of e-mail, editors and merges."""
    lines = lines[:]
    for _ in range(rng.randrange(1, 12)):
        at = rng.randrange(len(lines))
        line, cut = lines[at], rng.randrange(len(lines[at]) + 1)
        change = rng.randrange(7)
        if change == 0:
            del lines[at]
        elif change == 1:
            lines.insert(rng.randrange(len(lines)), line)
        elif change == 2:
            lines[at:at + 1] = [line[:cut], line[cut:]]
        elif change == 3:
            lines[at] = line[:cut] + rng.choice("\"'\\ q{}[]-#\t\x00\udcff*/=1") + line[cut:]
        elif change == 4:
            words = line.split(" ")
            del words[rng.randrange(len(words))]
            lines[at] = " ".join(words)
        elif change == 5:
            words = line.split(" ")
            words[rng.randrange(len(words))] = rng.choice(rng.choice(lines).split(" "))
            lines[at] = " ".join(words)
        else:
            rng.shuffle(lines)
    return lines or [""]


@pytest.mark.parametrize("path", INPUTS, ids=lambda p: p.stem)
def test_damaged_configurations(path):
    """Nothing is too odd to be read to the end; what comes out is made of keys."""
    seed = os.environ.get("KTLSGATE_SEED", "21")
    lines = path.read_text().splitlines()
    for n in range(30):
        rng = random.Random(f"{seed} {path.name} {n}")
        print(f"KTLSGATE_SEED={seed}, round {n}")
        text = "\n".join(damaged(lines, rng))
        conf, _ = translate(text)
        assert all(re.fullmatch(r"timeout\.idle|(certkey|profile|service|vserver)\.[\w-]{1,63}\.[a-z_.]+", key)
                   for key in conf)
        assert not any("\n" in value for value in conf.values())


# ---- bundles ----


def test_bundle_holds_certificates_only(pki, tmp_path):
    """No key of a file that has both; DER is made PEM."""
    where = tmp_path / "pki"
    where.mkdir()
    web = pathlib.Path(pki.web().cert_file).read_text()
    (where / "web.pem").write_text(pathlib.Path(pki.web().key_file).read_text() + web)
    (where / "ca.der").write_bytes(pki.server_ca.der)
    text = BASE + "add ssl certKey above -cert ca.der -inform DER\nlink ssl certKey web above\n"
    done = ns_import("--pki-dir", where, "--bundle", "-", text=text)
    assert done.returncode == 0, done.stderr
    bundle = pathlib.Path(settings_of(done.stdout)["certkey.web.cert"]).read_text()
    assert "PRIVATE KEY" not in bundle
    found = re.findall("-----BEGIN.*?-----END CERTIFICATE-----", bundle, re.DOTALL)
    assert [x509.load_pem_x509_certificate(c.encode()) for c in found] == [pki.web().cert, pki.server_ca.cert]
    again = ns_import("--pki-dir", where, "--bundle", "-", text=text)
    assert (again.returncode, again.stdout) == (0, done.stdout)


# ---- the program ----


def test_errors(tmp_path):
    conf = tmp_path / "ns.conf"
    conf.write_text(BASE)
    for args, text in [
            ((tmp_path / "missing",), "No such file"), ((), "NS.CONF"), ((conf, "--no-such"), "--no-such"),
            ((conf, "-o", tmp_path / "no/dir"), "No such file"),
            ((conf, "--bundle", "--pki-dir", tmp_path, "-o", tmp_path), "Is a directory")]:
        done = ns_import(*args)
        assert done.returncode == 2 and text in done.stderr, done.stderr


def test_check_says_what_the_daemon_says(tmp_path):
    """Without the certificates the result is not taken; without the daemon that cannot be known."""
    conf = tmp_path / "ns.conf"
    conf.write_text(BASE)
    done = built("--check", "--pki-dir", NOWHERE, conf, env={"PATH": f"{BUILD}:/usr/bin:/bin"})
    assert done.returncode == 2
    assert f"certkey.web.cert = {NOWHERE}/web.pem: cannot be opened" in done.stderr
    assert "ktlsgated -t does not take the result" in done.stderr
    assert settings_of(done.stdout)["vserver.v.certkey"] == "web"


def test_keys_are_ours():
    """Whatever the built program writes, the table has."""
    table = subprocess.run([program("ktlsgated"), "--keys"], capture_output=True, text=True, check=True)
    known = {line.split("\t")[0] for line in table.stdout.splitlines()[1:]}
    written = set()
    for path in INPUTS:
        conf = settings_of(built("--pki-dir", NOWHERE, path).stdout)
        written |= {re.sub(r"^(certkey|profile|service|vserver)\.[^.]+", r"\1.<name>", key) for key in conf}
    assert written and written <= known


def test_version():
    version = re.search(r"^VERSION := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert built("-V").stdout == f"ktlsgate-ns-import {version}\n"
