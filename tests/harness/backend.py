# SPDX-License-Identifier: Apache-2.0
"""Backends that ask for a client certificate: nginx, openssl, gnutls, and scripted ones."""

import contextlib
import hashlib
import socket
import subprocess
import threading
import time

from . import peer
from .ports import HOST, free_port, wait_listening

TIMEOUT = peer.TIMEOUT


# ---- scripted: a thread per connection, a Peer each ----


class Seen:
    """What one connection showed the backend."""

    def __init__(self):
        self.done = threading.Event()  # the script has ended
        self.ready = threading.Event()  # handshake complete or failed
        self.handshake = False
        self.version = self.cipher = None
        self.certificate = None  # DER
        self.chain = []  # DER
        self.received = 0
        self.digest = hashlib.sha256()
        self.ended = None  # as Peer.ended
        self.tcp_end = None  # "fin" or "rst"
        self.peer = None
        self.error = None  # an exception of the script

    def take(self, data):
        self.received += len(data)
        self.digest.update(data)

    def wait(self, timeout=TIMEOUT):
        """The finished connection; a failure of the script is the test's."""
        assert self.done.wait(timeout), f"the backend's connection still runs (ended: {self.ended})"
        if self.error:
            raise self.error
        return self


def echo(seen, p):
    """Sends everything back; close_notify is answered, anything else just ends."""
    while data := p.recv():
        seen.take(data)
        p.send(data)
    if p.ended == "close_notify":
        p.close_notify()
        p.fin()
        seen.tcp_end = p.tcp_end()


def sink(seen, p):
    """Receives to the end and says close_notify if the other side did."""
    while data := p.recv():
        seen.take(data)
    if p.ended == "close_notify":
        p.close_notify()
        p.fin()
        seen.tcp_end = p.tcp_end()


def source(data):
    """Sends data, close_notify and FIN, then receives to the end."""
    def script(seen, p):
        p.send(data)
        p.close_notify()
        p.fin()
        while got := p.recv():
            seen.take(got)
    return script


class Backend:
    """
    Runs script(seen, peer) for each connection after its handshake. certkey: the backend's own;
    client_ca: whom it trusts to issue client certificates (CertKey), None: it does not ask.
    tcp_script(seen, sock), if given, is run instead of TLS. before_flight and after_flight as in
    Peer.handshake(). hold: an Event without which it does not answer the ClientHello.
    """

    def __init__(self, script=echo, *, certkey=None, client_ca=None, version=None, cipher=None,
                 key_log=None, handshake_timeout=TIMEOUT, tcp_script=None, before_flight=None,
                 after_flight=None, hold=None, tickets=2, reset_on_timeout=False, host=HOST, port=0):
        self.script, self.tcp_script, self.hold = script, tcp_script, hold
        self.before_flight, self.after_flight = before_flight, after_flight
        self.handshake_timeout, self.reset_on_timeout = handshake_timeout, reset_on_timeout
        self.ctx = None
        if certkey:
            self.ctx = peer.context(True, certkey, client_ca, version=version, cipher=cipher)
            self.ctx.num_tickets = tickets
            if key_log:
                peer.log_keys(self.ctx, key_log)
        self.seen = []
        self._changed = threading.Condition()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, port), family=family, backlog=1024)
        self.port = self.listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def connection(self, n=0, timeout=TIMEOUT):
        """The n-th connection (0: the first) as soon as it was accepted."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) > n, timeout), (
                f"the backend saw {len(self.seen)} connections, not {n + 1}")
            return self.seen[n]

    def stop(self):
        """May be called again."""
        if self.listener.fileno() < 0:
            return
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(5)

    def _accept(self):
        while True:
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            seen = Seen()
            with self._changed:
                self.seen.append(seen)
                self._changed.notify_all()
            threading.Thread(target=self._serve, args=(seen, sock), daemon=True).start()

    def _serve(self, seen, sock):
        try:
            with sock:
                if self.tcp_script:
                    self.tcp_script(seen, sock)
                else:
                    self._serve_tls(seen, sock)
        except Exception as e:  # pylint: disable=broad-except  # Seen.wait() raises it in the test
            seen.error = e
        finally:
            seen.ready.set()
            seen.done.set()

    def _serve_tls(self, seen, sock):
        p = seen.peer = peer.Peer(sock, self.ctx, server=True, timeout=self.handshake_timeout)
        assert not self.hold or self.hold.wait(TIMEOUT)
        try:
            seen.handshake = p.handshake(self.before_flight, after_flight=self.after_flight)
        except TimeoutError:
            seen.ended = "timeout"
            if self.reset_on_timeout:
                peer.linger_zero(sock)
            return
        seen.ended = p.ended
        if not seen.handshake:
            return
        seen.certificate, seen.chain = p.certificate(), p.chain()
        seen.version, seen.cipher = p.version, p.cipher
        seen.ready.set()
        sock.settimeout(TIMEOUT)
        try:
            self.script(seen, p)
        finally:
            seen.ended = p.ended


@contextlib.contextmanager
def backend(*args, **options):
    b = Backend(*args, **options)
    try:
        yield b
    finally:
        b.stop()
        for n, seen in enumerate(b.seen):  # shown by pytest when the test fails
            print(f"backend connection {n}: handshake {seen.handshake}, {seen.received} bytes, "
                  f"ended {seen.ended}, error {seen.error!r}")


@contextlib.contextmanager
def held(pki, script=lambda _seen, _p: None):
    """One whose connections stay open when script has run, until the block ends."""
    over = threading.Event()

    def run(seen, p):
        script(seen, p)
        over.wait()

    with backend(run, certkey=pki.backend(), client_ca=pki.forging_root) as b:
        try:
            yield b
        finally:
            over.set()


# ---- faults below TLS, as tcp_script ----


def close_at_once(_seen, _sock):
    """FIN as the first answer."""


def close_in_handshake(_seen, sock):
    """Reads the ClientHello, then closes."""
    sock.settimeout(TIMEOUT)
    sock.recv(65536)


def silent(seen, sock):
    """Never answers; ends when the other side does."""
    sock.settimeout(TIMEOUT * 2)
    try:
        while sock.recv(65536):
            pass
        seen.ended = "eof"
    except ConnectionResetError:
        seen.ended = "rst"


@contextlib.contextmanager
def unaccepting():
    """A port that drops SYNs: its accept queue is full and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOST, 0), backlog=0))
        port = listener.getsockname()[1]
        for _ in range(8):
            s = stack.enter_context(socket.socket())
            s.setblocking(False)
            s.connect_ex((HOST, port))
        time.sleep(0.05)
        yield port


# ---- programs ----


@contextlib.contextmanager
def program(argv, port, log):
    """A server program that listens on port; its output goes to the file log."""
    with open(log, "wb") as out:
        # A stdin that stays open: openssl s_server ends at its end.
        process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=out,
                                   stderr=out)
        try:
            wait_listening(port, process)
            yield process
        except BaseException:
            print(f"---- {argv[0]}:", log.read_text(errors="replace")[-4000:], sep="\n")
            raise
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdin.close()


def s_server_argv(port, *, certkey, client_ca, args=()):
    return ["openssl", "s_server", "-accept", f"{HOST}:{port}", "-cert", certkey.cert_file, "-key",
            certkey.key_file, "-CAfile", client_ca.cert_file, "-Verify", "5",
            "-verify_return_error", *args]


def s_server(port, *, log, args=("-rev",), **options):
    """openssl s_server; "-rev" answers each line reversed, "-www" with a page about the session."""
    return program(s_server_argv(port, args=args, **options), port, log)


def gnutls_serv_argv(port, *, certkey, client_ca, priority="NORMAL"):
    """gnutls-serv that echoes."""
    return ["gnutls-serv", "--echo", "--port", port, "--x509certfile", certkey.cert_file,
            "--x509keyfile", certkey.key_file, "--x509cafile", client_ca.cert_file,
            "--require-client-cert", "--verify-client-cert", "--priority", priority]


def gnutls_serv(port, *, log, **options):
    return program(gnutls_serv_argv(port, **options), port, log)


NGINX_CONF = """
daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log {dir}/error.log info;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_max_body_size 64m;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    scgi_temp_path {dir}/scgi;
    uwsgi_temp_path {dir}/uwsgi;
    ssl_session_tickets {tickets};
    {servers}
}}
"""

NGINX_SERVER = """
    server {{
        listen {host}:{port} ssl {http2};
        ssl_certificate {cert};
        ssl_certificate_key {key};
        ssl_client_certificate {ca};
        ssl_verify_client on;
        ssl_verify_depth 5;
        ssl_protocols {protocols};
        ssl_ciphers {ciphers};
        {suites}
        location /cert {{
            default_type text/plain;
            return 200 "verify: $ssl_client_verify
subject: $ssl_client_s_dn
issuer: $ssl_client_i_dn
serial: $ssl_client_serial
protocol: $ssl_protocol
cipher: $ssl_cipher
reused: $ssl_session_reused
certificate: $ssl_client_escaped_cert
";
        }}
        location /files/ {{
            root {dir};
            dav_methods PUT;
        }}
    }}
"""


class Nginx:
    """One nginx with any number of servers; directory/files/ holds what was PUT and can be got."""

    def __init__(self, directory, tickets="off"):
        self.directory, self.tickets = directory, tickets
        self.files = directory / "files"
        self.files.mkdir(parents=True)
        self.servers = []

    def server(self, *, certkey, client_ca, version=None, cipher=None, http2=False):
        """Adds a server, returns its port."""
        port = free_port()
        suites = f"ssl_conf_command Ciphersuites {peer.TLS13_SUITES[cipher]};" if cipher else ""
        self.servers.append(NGINX_SERVER.format(
            host=HOST, port=port, dir=self.directory, cert=certkey.cert_file, key=certkey.key_file,
            ca=client_ca.cert_file, suites=suites, http2="http2" if http2 else "",
            ciphers=peer.tls12_names(cipher) if cipher else "HIGH",
            protocols=f"TLSv{version}" if version else "TLSv1.2 TLSv1.3"))
        self.last_port = port
        return port

    def run(self):
        conf = self.directory / "nginx.conf"
        conf.write_text(NGINX_CONF.format(dir=self.directory, tickets=self.tickets, servers="".join(self.servers)))
        return program(["nginx", "-p", self.directory, "-e", self.directory / "error.log",
                        "-c", conf], self.last_port, self.directory / "nginx.log")


def parse_cert_page(text):
    """What location /cert answered, as a dict."""
    return dict(line.split(": ", 1) for line in text.strip().split("\n"))
