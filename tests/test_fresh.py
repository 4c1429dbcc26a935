# SPDX-License-Identifier: Apache-2.0
"""
Fresh values: what a forging vserver puts into each full handshake, so that the client's signature
tells the signer when and where it was made (docs/security.md). And that all kinds of clients go
along with it: the session id in TLS 1.2, the unknown extension in TLS 1.3.
"""

import os
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings
from harness.pki import FRONT_NAME

VERSION = pytest.mark.parametrize("version", peer.VERSIONS)
EXTENSION = "ff4b"
VALUE = 24
EPOCH = 5  # seconds


def hex_of(printed, message):
    """The bytes of a handshake message as `openssl s_client -msg` prints it."""
    found = re.search(rf"<<< TLS 1\.[23], Handshake \[length \w+\], {message}\n((?:    [0-9a-f ]+\n)+)",
                      printed.decode(errors="replace"))
    return re.sub(r"\s", "", found[1]) if found else ""


def values(g, pki, version, certkey):
    """(what stands in the ServerHello's session id, the extension's contents), as hex, of a handshake."""
    _, printed = clients.s_client(g.port, b"hello\n", b"hello\n", pki=pki, certkey=certkey,
                                  args=("-msg", clients.tls_option(version)))
    hello, request = hex_of(printed, "ServerHello"), hex_of(printed, "CertificateRequest")
    at = 2 * (4 + 2 + 32)
    session_id = hello[at + 2:at + 2 + 2 * int(hello[at:at + 2], 16)]
    found = re.search(EXTENSION + f"{VALUE:04x}(.{{{2 * VALUE}}})", request)
    return session_id, found and found[1]


def epoch(value):
    return int(value[:16], 16)


@VERSION
def test_what_clients_see(gate, pki, backend, version):
    """In one place for each version; the same for everybody, and another one later."""
    g = gate(settings(pki, backend.port))
    one, two = pki.client("One"), pki.client("Two")

    def fresh(who):
        session_id, extension = values(g, pki, version, who)
        if version == "1.2":
            assert len(session_id) == 64 and not extension
            return session_id
        assert extension
        return extension

    seen = [fresh(one), fresh(two), fresh(one)]
    by_epoch = {}
    for value in seen:
        by_epoch.setdefault(epoch(value), set()).add(value[:2 * VALUE])
    assert all(len(same) == 1 for same in by_epoch.values())
    # A session id that a client has been given before would look like a resumption to it.
    assert len({v for v in seen if len(v) == 64}) == (3 if version == "1.2" else 0)
    assert peer_waits(lambda: epoch(fresh(one)) > max(map(epoch, seen)))


def peer_waits(condition):
    deadline = time.monotonic() + 6 * EPOCH * peer.SCALE
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(EPOCH / 4)
    return False


@VERSION
def test_nothing_is_shown_where_nothing_is_forged(gate, pki, version):
    with backends.backend(certkey=pki.backend()) as b:
        g = gate(settings(pki, b.port, profile__back__dynamic_client_cert="off"))
        session_id, extension = values(g, pki, version, pki.client())
        assert not extension
        assert version == "1.3" or not session_id


@VERSION
def test_signer_that_was_away(gate, pki, backend, version):
    """
    Who is in the cache does not notice. Handshakes go on with the last value; whose is too old by
    then is told so, and the next one is served.
    """
    g = gate(settings(pki, backend.port, timeout__handshake="1s", timeout__backend_handshake="60s"))
    known, new = pki.client("Known"), pki.client("New")
    with clients.connected(g.port, pki=pki, certkey=known, version=version) as c:
        clients.ping(c)
    signer = g.signer()
    os.kill(signer, signal.SIGSTOP)
    try:
        with clients.connected(g.port, pki=pki, certkey=known, version=version) as c:
            clients.ping(c)
            # Two epochs and what is left of one: see timeout.handshake in the signer.
            time.sleep(3.2 * EPOCH)
        g.stat_reaches("flows_closed", 2)
        with g.ends_with("forge_stale"):
            with clients.connect(g.port, pki=pki, certkey=new, version=version) as c:
                awake = threading.Timer(0.3, os.kill, (signer, signal.SIGCONT))
                awake.start()
                assert not (c.handshake() and c.recv())
                assert c.ended == "alert access_denied"
                awake.join()
    finally:
        os.kill(signer, signal.SIGCONT)
    assert "the handshake is older than timeout.handshake" in g.log()
    with g.ends_with("client_truncated"), clients.connected(
            g.port, pki=pki, certkey=new, version=version) as c:
        clients.ping(c)


@VERSION
def test_signer_that_was_started_again(gate, pki, backend, version):
    """It goes on with the same values, and serves handshakes that began before."""
    g = gate(settings(pki, backend.port))
    with clients.connect(g.port, pki=pki, certkey=pki.client("One"), version=version) as c:
        os.kill(g.signer(), signal.SIGKILL)
        assert g.log_contains("signer.*starting it again", 5)
        assert c.handshake()
        clients.ping(c)
    with clients.connected(g.port, pki=pki, certkey=pki.client("Two"), version=version) as c:
        clients.ping(c)


# ---- other people's clients ----

JAVA = """
import java.io.*; import java.net.*; import java.security.*; import javax.net.ssl.*;
public class Client {
    static KeyStore load(String path) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (InputStream in = new FileInputStream(path)) { store.load(in, "secret".toCharArray()); }
        return store;
    }
    public static void main(String[] a) throws Exception {
        KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
        keys.init(load(a[2]), "secret".toCharArray());
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        try (InputStream in = new FileInputStream(a[3])) {
            trusted.setCertificateEntry("ca", java.security.cert.CertificateFactory.getInstance("X.509")
                .generateCertificate(in));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(trusted);
        SSLContext ctx = SSLContext.getInstance("TLS");
        ctx.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        for (int i = 0; i < 3; i++) {
            Socket tcp = new Socket("127.0.0.1", Integer.parseInt(a[0]));
            try (SSLSocket s = (SSLSocket) ctx.getSocketFactory().createSocket(tcp, a[4],
                    Integer.parseInt(a[0]), true)) {
                s.setEnabledProtocols(new String[]{"TLSv" + a[1]});
                SSLParameters p = s.getSSLParameters();
                p.setEndpointIdentificationAlgorithm("HTTPS");
                s.setSSLParameters(p);
                s.getOutputStream().write("hello\\n".getBytes());
                System.out.println(new BufferedReader(new InputStreamReader(s.getInputStream())).readLine());
            }
        }
    }
}
"""

NODE = """
const tls = require("tls"), fs = require("fs");
const [port, version, cert, key, ca, name] = process.argv.slice(2);
let session, left = 3;
function connect() {
    const c = tls.connect({ host: "127.0.0.1", port, servername: name, session,
        cert: fs.readFileSync(cert), key: fs.readFileSync(key), ca: fs.readFileSync(ca),
        minVersion: "TLSv" + version, maxVersion: "TLSv" + version }, () => c.write("hello\\n"));
    c.on("session", s => { session = s; });
    c.on("error", e => { console.log(String(e)); process.exit(1); });
    c.on("data", d => { process.stdout.write(d); c.end(); if (--left) connect(); });
}
connect();
"""

GO = """
package main

import ("bufio"; "crypto/tls"; "crypto/x509"; "fmt"; "os")

func main() {
	version := map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}[os.Args[2]]
	cert, err := tls.LoadX509KeyPair(os.Args[3], os.Args[4])
	if err != nil { fmt.Println(err); os.Exit(1) }
	ca, _ := os.ReadFile(os.Args[5])
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, ServerName: os.Args[6],
		MinVersion: version, MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	for i := 0; i < 3; i++ {
		c, err := tls.Dial("tcp", "127.0.0.1:" + os.Args[1], conf)
		if err != nil { fmt.Println(err); os.Exit(1) }
		fmt.Fprint(c, "hello\\n")
		line, err := bufio.NewReader(c).ReadString('\\n')
		if err != nil { fmt.Println(err); os.Exit(1) }
		fmt.Print(line)
		c.Close()
	}
}
"""


def pkcs12(certkey, path):
    subprocess.run(["openssl", "pkcs12", "-export", "-in", certkey.cert_file, "-inkey", certkey.key_file,
                    "-name", "client", "-passout", "pass:secret", "-out", path], check=True)
    return path


def openssl(port, version, certkey, pki, path):
    """With a session file, in which it finds what it has been given."""
    return ["sh", "-c", 'for i in 1 2 3; do echo hello | "$@" -quiet -sess_out "$0" '
            '$([ -s "$0" ] && echo -sess_in "$0"); done', path / "session",
            *clients.s_client_argv(port, pki=pki, certkey=certkey, args=(clients.tls_option(version),))]


def gnutls(port, version, certkey, pki, path):
    del path
    priority = f"NORMAL:-VERS-ALL:+VERS-TLS{version}"
    argv = clients.gnutls_cli_argv(port, pki=pki, certkey=certkey, priority=priority,
                                   args=("--resume",))
    return ["sh", "-c", 'echo hello | "$@"; echo hello | "$@"', "", *argv]


def nss(port, version, certkey, pki, path):
    """A data base of its own, and three connections of one process."""
    base = f"sql:{path}"
    pkcs12(certkey, path / "client.p12")
    for args in (["certutil", "-d", base, "-N", "--empty-password"],
                 ["certutil", "-d", base, "-A", "-n", "ca", "-t", "C,,", "-a", "-i", pki.server_ca.cert_file],
                 ["pk12util", "-d", base, "-i", path / "client.p12", "-W", "secret"]):
        subprocess.run(args, check=True, capture_output=True)
    (path / "say").write_text("hello\n")
    return ["tstclnt", "-h", "127.0.0.1", "-a", FRONT_NAME, "-p", port, "-d", base, "-n", "client",
            "-V", f"tls{version}:tls{version}", "-L", "3", "-A", path / "say"]


def java(port, version, certkey, pki, path):
    (path / "Client.java").write_text(JAVA)
    return ["java", path / "Client.java", port, version, pkcs12(certkey, path / "client.p12"),
            pki.server_ca.cert_file, FRONT_NAME]


def node(port, version, certkey, pki, path):
    (path / "client.js").write_text(NODE)
    return ["node", path / "client.js", port, version, certkey.cert_file, certkey.key_file,
            pki.server_ca.cert_file, FRONT_NAME]


def go(port, version, certkey, pki, path):
    (path / "client.go").write_text(GO)
    return ["go", "run", path / "client.go", port, version, certkey.cert_file, certkey.key_file,
            pki.server_ca.cert_file, FRONT_NAME]


CLIENTS = {"openssl": openssl, "gnutls-cli": gnutls, "tstclnt": nss, "java": java, "node": node, "go": go}
FLOWS = {"gnutls-cli": 4}  # else 3; the first of two only shakes hands
PACKAGES = {"gnutls-cli": "gnutls-bin", "tstclnt": "libnss3-tools", "java": "default-jdk-headless",
            "node": "nodejs", "go": "golang-go"}


@VERSION
@pytest.mark.parametrize("tickets", ["off", "on"])
@pytest.mark.parametrize("program", CLIENTS)
def test_interoperability(gate, pki, tmp_path, program, version, tickets):
    """
    Connections one after the other, all of one identity: the later ones may offer the session that
    the first was given, within the same epoch. Each comes through, with a certificate.
    """
    def once(_seen, p):
        p.send(p.recv())
        p.close_notify()

    if not shutil.which(program):
        pytest.skip(f"{program} is not installed ({PACKAGES[program]}): a client less")
    flows = FLOWS.get(program, 3)
    with backends.backend(once, certkey=pki.backend(), client_ca=pki.forging_root) as b:
        g = gate(settings(pki, b.port, profile__front__session_tickets=tickets))
        argv = CLIENTS[program](g.port, version, pki.client(), pki, tmp_path)
        with g.carries(flows):
            done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=40, check=False)
            assert done.stdout.count(b"hello") >= (2 if program in FLOWS else 3), \
                done.stdout + done.stderr
        assert all(b.connection(n).wait().certificate for n in range(flows))
        assert tickets == "on" or not g.stats()["client_resumptions"]
