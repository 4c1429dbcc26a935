# SPDX-License-Identifier: Apache-2.0
"""
One end of a TLS connection whose every step the test decides: OpenSSL on memory BIOs, so it can
stall between flights, close one direction, and see how the other end closed. Sends any record it
is told to with its own keys. Knows nothing of certificates to be forged or of the gate.
"""

import ctypes
import os
import selectors
import socket
import ssl
import struct
import tempfile
import time

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

ALERT, HANDSHAKE, DATA = 21, 22, 23
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
CIPHERS = ("AES128-GCM", "AES256-GCM", "CHACHA20")
TLS13_SUITES = {"AES128-GCM": "TLS_AES_128_GCM_SHA256", "AES256-GCM": "TLS_AES_256_GCM_SHA384",
                "CHACHA20": "TLS_CHACHA20_POLY1305_SHA256"}
TLS12_CIPHERS = {"AES128-GCM": "AES128-GCM-SHA256", "AES256-GCM": "AES256-GCM-SHA384",
                 "CHACHA20": "CHACHA20-POLY1305"}
# A guest without KVM is slow; KTLSGATE_SCALE for more flows than usual, or a slower machine.
SCALE = int(os.environ.get("KTLSGATE_SCALE", "4" if os.environ.get("KTLSGATE_GUEST") else "1"))
TIMEOUT = 20 * SCALE
KEPT = []  # what OpenSSL calls


def tls12_names(cipher):
    """OpenSSL's names of cipher in TLS 1.2 for either kind of server key."""
    return ":".join(f"ECDHE-{key}-{TLS12_CIPHERS[cipher]}" for key in ("ECDSA", "RSA"))


def context(server, certkey=None, ca=None, *, version=None, cipher=None, ask=True, alpn=None):
    """
    An SSLContext. ca: CertKey that peers are verified against (None: not at all). A server asks
    for a certificate (ask) and requires it. TLS 1.3 suites cannot be chosen through this API:
    Python tests choose TLS 1.2 ciphers only, nginx, curl and openssl choose the others.
    """
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    ctx.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # Python's default hides truncation
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_NONE
    if version:
        ctx.minimum_version = ctx.maximum_version = VERSIONS[version]
    if cipher:
        ctx.set_ciphers(tls12_names(cipher))
    if certkey:
        ctx.load_cert_chain(certkey.cert_file, certkey.key_file)
    if ca and (ask or not server):
        ctx.load_verify_locations(ca.cert_file)
        ctx.verify_mode = ssl.CERT_REQUIRED
    if alpn:
        ctx.set_alpn_protocols(alpn)
    return ctx


def offer_certificate_compression(ctx):
    """
    Puts compress_certificate (RFC 8879) with zlib, brotli and zstd into ctx's ClientHellos. OpenSSL
    3.2 and later offer it unasked. Returns a list, to which what a server asks for is appended.
    """
    asked = []
    if ssl.OPENSSL_VERSION_INFO >= (3, 2):
        return asked
    offer, lib = b"\x06\0\1\0\2\0\3", ctypes.CDLL("libssl.so.3")
    add_cb = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint,
                              ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(ctypes.c_size_t),
                              *[ctypes.c_void_p] * 4)
    parse_cb = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint,
                                ctypes.POINTER(ctypes.c_char), ctypes.c_size_t,
                                *[ctypes.c_void_p] * 4)

    @add_cb
    def add(_ssl, _type, context, out, length, *_):
        out[0], length[0] = offer, len(offer)
        return int(context == 0x80)  # the ClientHello

    @parse_cb
    def parse(_ssl, _type, _context, data, length, *_):
        asked.append(data[:length])
        return 1

    # Behind the object's header (two words) stands its SSL_CTX *.
    ssl_ctx = ctypes.c_void_p.from_address(id(ctx) + 2 * ctypes.sizeof(ctypes.c_void_p))
    assert lib.SSL_CTX_add_custom_ext(ssl_ctx, 27, 0x80 | 0x4000, add, None, None, parse, None) == 1
    KEPT.extend((add, parse))
    return asked


def linger_zero(sock):
    """close() will send RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Peer:
    """
    ended: how the other end closed, None while it has not:
      "close_notify", "eof" (FIN without close_notify), "rst", "alert <name>" or "error <text>".
    """

    def __init__(self, sock, ctx, *, server=False, name=None, timeout=TIMEOUT):
        self.sock, self.server = sock, server
        self.ended = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._first = {"sent": b"", "received": b""}
        self._records = 0  # sent since the last call of OpenSSL's handshake
        self._writer = None
        sock.settimeout(timeout)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = ctx.wrap_bio(self._incoming, self._outgoing, server_side=server,
                                server_hostname=None if server else name)

    # ---- handshake ----

    def handshake(self, before_flight=None, send_with_finished=b"", after_flight=None):
        """
        Returns True when complete, False when it failed (see ended). before_flight is called
        before each of our flights but the first: a test stalls there. send_with_finished: data
        in one segment with the last flight, as far as it fits. after_flight(peer, n) is called
        when flight n (from 0) is sent; see write_ahead().
        """
        flight = 0
        while not self.ended:
            self._records, done = 0, False
            try:
                self.tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as e:
                self._end(e)
                break
            sending, data = self._outgoing.read(), b""
            if done and send_with_finished:
                self.tls.write(send_with_finished)
                data = self._outgoing.read()
            if sending or data:
                if before_flight and flight:
                    before_flight()
                self._send(sending + data)
                if after_flight:
                    after_flight(self, flight)
                flight += 1
            if done:
                self._after_handshake()
                self._count(data)
                return True
            self._fill()
        return False

    def hello(self):
        """Sends the ClientHello and nothing else; handshake() goes on from there."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()

    def _after_handshake(self):
        # What a TLS 1.3 server sends after the client's Finished are tickets, with traffic keys;
        # a client's last flight is Finished, with handshake keys; TLS 1.2's Finished has number 0.
        if self.version == "TLSv1.2":
            self._records = 1
        elif not self.server:
            self._records = 0

    @property
    def version(self):
        return self.tls.version()

    @property
    def cipher(self):
        return self.tls.cipher()[0]

    def certificate(self):
        """DER of the other end's certificate, None without one."""
        return self.tls.getpeercert(True)

    def chain(self):
        """DER of every certificate the other end sent, its own first."""
        sent = self.tls._sslobj.get_unverified_chain() or []
        # Without a certificate Python's list has one entry, None.
        return [ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in sent if c]

    # ---- data ----

    def send(self, data):
        if self._writer:
            for at in range(0, len(data), 16384):
                self.send_record(DATA, data[at:at + 16384])
            return
        for at in range(0, len(data), 1 << 18):
            self.tls.write(data[at:at + (1 << 18)])
            self._flush()

    def recv(self, limit=65536):
        """Some bytes, or b"" at the end: ended tells which."""
        while not self.ended:
            try:
                data = self.tls.read(limit)
                if data:
                    self._flush()  # an answer to a KeyUpdate
                    return data
                self.ended = "close_notify"
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError as e:
                self._end(e)
        return b""

    def recv_exactly(self, n):
        """Up to n bytes, fewer only at the end."""
        parts, have = [], 0
        while have < n:
            data = self.recv(min(n - have, 65536))
            if not data:
                break
            parts.append(data)
            have += len(data)
        return b"".join(parts)

    def recv_all(self):
        parts = []
        while data := self.recv():
            parts.append(data)
        return b"".join(parts)

    def duplex(self, source, sink):
        """
        Both directions at once: sends what the iterator source yields, then close_notify, while
        sink(memoryview) gets what arrives, until the other end has closed.
        """
        source, pending, sending = iter(source), b"", True
        buf = memoryview(bytearray(65536))
        end = time.monotonic() + self.sock.gettimeout() * 10
        self.sock.setblocking(False)
        with selectors.DefaultSelector() as sel:
            sel.register(self.sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while not self.ended or sending or pending:
                assert time.monotonic() < end, "duplex transfer hangs"
                if sending and not pending:
                    chunk = next(source, None)
                    if chunk is None:
                        sending = False
                        self._close_notify()
                    else:
                        self.tls.write(chunk)
                    pending = memoryview(self._outgoing.read())
                wanted = (0 if self.ended else selectors.EVENT_READ) | (
                    selectors.EVENT_WRITE if pending else 0)
                sel.modify(self.sock, wanted)
                for _, ready in sel.select(1):
                    if ready & selectors.EVENT_WRITE:
                        pending = self._send_some(pending)
                    if ready & selectors.EVENT_READ:
                        self._drain(buf, sink)
        self.sock.settimeout(TIMEOUT)

    def _send_some(self, pending):
        try:
            return pending[self.sock.send(pending):]
        except BlockingIOError:
            return pending
        except (ConnectionResetError, BrokenPipeError):
            self.ended = self.ended or "rst"
            return b""

    def _drain(self, buf, sink):
        if not self._fill(1 << 18):
            return
        while not self.ended:
            try:
                n = self.tls.read(len(buf), buf)
                if not n:
                    self.ended = "close_notify"
                    return
                sink(buf[:n])
            except ssl.SSLWantReadError:
                return
            except ssl.SSLError as e:
                self._end(e)

    # ---- closing ----

    def close_notify(self):
        """Says close_notify; receiving goes on."""
        if self._writer:
            self.send_record(ALERT, bytes([1, 0]))
            return
        self._close_notify()
        self._flush()

    def _close_notify(self):
        try:
            self.tls.unwrap()
        except ssl.SSLError:  # WANT_READ: the other end's close_notify is still to come
            pass

    def fin(self):
        """FIN, whether or not close_notify was said; receiving goes on."""
        self.sock.shutdown(socket.SHUT_WR)

    def rst(self):
        linger_zero(self.sock)
        self.sock.close()

    def close(self):
        self.sock.close()

    def tcp_end(self):
        """Reads what is left on the socket: "fin" or "rst"."""
        try:
            while self.sock.recv(65536):
                pass
            return "fin"
        except ConnectionResetError:
            return "rst"

    # ---- records of our own ----

    def send_record(self, kind, payload, *, renew=False, damage=False):
        """
        One protected record with any content type. From here on OpenSSL's own record numbers are
        behind ours: send(), close_notify() and alert() go on with ours. renew: the payload ends
        with a KeyUpdate; damage: it will not pass for authentic.
        """
        record = self.seal(kind, payload)
        self.sock.sendall(record[:-1] + bytes([record[-1] ^ damage]))
        if renew:
            self._writer.next_keys()

    def seal(self, kind, payload):
        """As send_record(), but for the sending."""
        if not self._writer:
            self._writer = RecordWriter(self, self._records)
        return self._writer.seal(kind, payload)

    def write_ahead(self):
        """
        Behind our Finished, before the other end's: from here on records are ours. A client of TLS
        1.2 may send data then (RFC 7918), and a server of TLS 1.3 (RFC 8446 4.4.4), without tickets.
        """
        self._writer = RecordWriter(self, 0 if self.server else 1)

    def alert(self, description, level=2):
        self.send_record(ALERT, bytes([level, description]))

    def key_update(self, request=False):
        """TLS 1.3: KeyUpdate, then the next keys."""
        self.send_record(HANDSHAKE, bytes([24, 0, 0, 1, int(request)]), renew=True)

    def hello_random(self, whose):
        """Client's or server's random, read from the ClientHello or ServerHello on the wire."""
        return self._first["sent" if (whose == "server") == self.server else "received"][11:43]

    # ---- plumbing ----

    def _flush(self):
        data = self._outgoing.read()
        if data:
            self._send(data)

    def _send(self, data):
        if len(self._first["sent"]) < 43:
            self._first["sent"] += data[:43]
        self._count(data)
        try:
            self.sock.sendall(data)
        except (ConnectionResetError, BrokenPipeError):
            # What was received before is still to be read, and may say why.
            pass

    def _count(self, data):
        """Counts the records we send; data begins at a record boundary, OpenSSL writes them whole."""
        at = 0
        while at + 5 <= len(data):
            self._records += data[at] != 20
            at += 5 + int.from_bytes(data[at + 3:at + 5], "big")

    def _fill(self, limit=65536):
        """Gives OpenSSL what has arrived; False when there is nothing. A FIN it will report itself."""
        try:
            data = self.sock.recv(limit)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            self.ended = self.ended or "rst"
            return False
        if len(self._first["received"]) < 43:
            self._first["received"] += data[:43]
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return True

    def _end(self, error):
        self.ended = describe(error)
        # OpenSSL's alert, if it has one; its answer to a truncation (decode_error) is kept back,
        # it would hide how the connection is closed. Behind records of our own it has a wrong number.
        if self.ended != "eof" and not self._writer:
            self._flush()


def describe(error):
    """What an SSLError says about the other end."""
    reason = error.reason or ""
    if isinstance(error, ssl.SSLEOFError) or reason == "UNEXPECTED_EOF_WHILE_READING":
        return "eof"
    if isinstance(error, ssl.SSLZeroReturnError):
        return "close_notify"
    if "ALERT_" in reason:
        return "alert " + reason.split("ALERT_")[1].lower().replace("cancelled", "canceled")
    if reason in ("TLSV1_UNRECOGNIZED_NAME", "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE"):
        return "alert " + reason[len("TLSV1_"):].lower()
    if "tlsv1 alert no application protocol" in str(error):  # Python has no name for it
        return "alert no_application_protocol"
    return f"error {reason or error}"


class RecordWriter:
    """Seals records with the keys of a Peer's sending direction, found through its key log."""

    def __init__(self, peer, seq):
        # Before the end of the handshake Python does not tell the version.
        cipher, version, _bits = peer.tls.cipher()
        self.seq, self.tls13 = seq, version == "TLSv1.3"
        self.hash = hashes.SHA384() if "SHA384" in cipher else hashes.SHA256()
        self.aead = ChaCha20Poly1305 if "CHACHA20" in cipher else AESGCM
        self.key_len = 16 if "128" in cipher else 32
        log = dict_of_log(peer.tls.context.keylog_filename, peer.hello_random("client"))
        if self.tls13:
            side = "SERVER" if peer.server else "CLIENT"
            self._use(log[f"{side}_TRAFFIC_SECRET_0"])
        else:
            self._use_tls12(log["CLIENT_RANDOM"], peer)

    def _use(self, secret):
        self.secret = secret
        self.key = self._expand(b"key", self.key_len)
        self.iv = self._expand(b"iv", 12)

    def _expand(self, label, n):
        label = b"tls13 " + label
        info = struct.pack(">HB", n, len(label)) + label + b"\0"
        return HKDFExpand(self.hash, n, info).derive(self.secret)

    def _use_tls12(self, master, peer):
        iv_len = 12 if self.aead is ChaCha20Poly1305 else 4
        seed = peer.hello_random("server") + peer.hello_random("client")
        block = self._prf(master, b"key expansion" + seed, 2 * (self.key_len + iv_len))
        k, i = self.key_len, iv_len
        client = block[:k], block[2 * k:2 * k + i]
        server = block[k:2 * k], block[2 * k + i:2 * k + 2 * i]
        self.key, self.iv = server if peer.server else client

    def _prf(self, secret, seed, n):
        def mac(data):
            h = hmac.HMAC(secret, self.hash)
            h.update(data)
            return h.finalize()
        out, a = b"", seed
        while len(out) < n:
            a = mac(a)
            out += mac(a + seed)
        return out[:n]

    def next_keys(self):
        self._use(self._expand(b"traffic upd", len(self.secret)))
        self.seq = 0

    def seal(self, kind, payload):
        seq, self.seq = self.seq, self.seq + 1
        number = seq.to_bytes(8, "big")
        if self.tls13:
            payload += bytes([kind])
            header = struct.pack(">BHH", DATA, 0x0303, len(payload) + 16)
            return header + self.aead(self.key).encrypt(self._xor(number), payload, header)
        associated = number + struct.pack(">BHH", kind, 0x0303, len(payload))
        explicit = b"" if len(self.iv) == 12 else os.urandom(8)
        nonce = self.iv + explicit if explicit else self._xor(number)
        sealed = explicit + self.aead(self.key).encrypt(nonce, payload, associated)
        return struct.pack(">BHH", kind, 0x0303, len(sealed)) + sealed

    def _xor(self, number):
        return bytes(a ^ b for a, b in zip(self.iv, b"\0" * 4 + number))


def dict_of_log(path, client_random):
    """Secrets of one connection from a key log in NSS's format."""
    found = {}
    with open(path, encoding="ascii") as lines:
        for line in lines:
            label, *values = line.split()
            if label != "#" and bytes.fromhex(values[0]) == client_random:
                found[label] = bytes.fromhex(values[1])
    return found


def log_keys(ctx, directory):
    """Lets peers of ctx seal records of their own."""
    with tempfile.NamedTemporaryFile(dir=directory, delete=False) as f:
        ctx.keylog_filename = f.name
    return ctx
