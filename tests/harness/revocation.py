# SPDX-License-Identifier: Apache-2.0
"""What a CA says about its certificates: OpenSSL's database, and CRLs made by `openssl ca` from it, and OCSP
responders."""

import contextlib
import http.server
import itertools
import subprocess
import threading
import time

from .ports import HOST, free_port

DAY = 86400


def _stamp(seconds, form="%Y%m%d%H%M%SZ"):
    return time.strftime(form, time.gmtime(seconds))


class Authority:
    """The revoking side of a CertKey that is a CA."""

    def __init__(self, directory, ca):
        self.directory, self.ca = directory / f"authority-{ca.cert.serial_number:x}", ca
        self.directory.mkdir()
        self.index = self.directory / "index.txt"
        self.index.write_text("")
        (self.directory / "number").write_text("01\n")
        self.config = self.directory / "ca.cnf"
        self.config.write_text(
            f"[ca]\ndefault_ca = ca_\n[ca_]\ndatabase = {self.index}\n"
            f"crlnumber = {self.directory}/number\ndefault_md = sha256\n"
            "crl_extensions = crl_ext\n[crl_ext]\nauthorityKeyIdentifier = keyid:always\n")
        self._numbers = itertools.count()

    def knows(self, *certkeys, revoked=False):
        """Enters the certificates into the database."""
        with self.index.open("a") as f:
            for certkey in certkeys:
                cert = certkey.cert
                end = cert.not_valid_after.strftime("%y%m%d%H%M%SZ")
                mark = ("R", _stamp(time.time() - DAY, "%y%m%d%H%M%SZ")) if revoked else ("V", "")
                serial = f"{cert.serial_number:x}"
                serial = serial.zfill(len(serial) + len(serial) % 2).upper()
                f.write("\t".join([mark[0], end, mark[1], serial, "unknown", f"/CN={serial}"]) + "\n")

    def revoke(self, *certkeys):
        self.knows(*certkeys, revoked=True)

    def crl(self, begin=-3600, end=DAY, der=False):
        """A file with the present CRL, valid from begin to end seconds from now."""
        path = self.directory / f"{next(self._numbers)}.crl"
        subprocess.run(["openssl", "ca", "-config", self.config, "-gencrl", "-cert",
                        self.ca.cert_file, "-keyfile", self.ca.key_file, "-crl_lastupdate",
                        _stamp(time.time() + begin), "-crl_nextupdate", _stamp(time.time() + end),
                        "-out", path], check=True, capture_output=True)
        if der:
            subprocess.run(["openssl", "crl", "-in", path, "-outform", "DER", "-out", path],
                           check=True, capture_output=True)
        return path

    # ---- OCSP ----

    def _answering(self, signer, *args):
        return ["openssl", "ocsp", "-index", self.index, "-CA", self.ca.cert_file, "-rsigner",
                signer.cert_file, "-rkey", signer.key_file, *map(str, args)]

    @contextlib.contextmanager
    def openssl_responder(self, signer):
        """`openssl ocsp` as a server; its port."""
        port = free_port()
        with subprocess.Popen(self._answering(signer, "-port", port, "-nmin", 5),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL) as process:
            try:
                # Not by connecting: a connection without a request is the last it serves.
                assert any(b"waiting for OCSP client" in line for line in process.stdout)
                yield port
            finally:
                process.kill()

    @contextlib.contextmanager
    def responder(self, signer, *args, how=None):
        """
        A server whose answers are made by `openssl ocsp` with args. how(request, answer): what
        is sent instead, or None for silence. Yields it: .port, .asked, the requests so far, and
        .urls, the host and path of each.
        """
        server = http.server.ThreadingHTTPServer((HOST, 0), _Handler)
        server.daemon_threads = True
        server.how, server.asked, server.port = how, [], server.server_port
        server.urls = []
        server.quiet = threading.Event()
        lock = threading.Lock()

        def answer(request):
            with lock:
                n = len(server.asked)
                server.asked.append(request)
                asked, made = self.directory / f"{n}.req", self.directory / f"{n}.resp"
            asked.write_bytes(request)
            run = subprocess.run([*self._answering(signer, *args), "-reqin", asked, "-respout",
                                  made], capture_output=True, check=False)
            assert made.exists(), run.stderr
            return made.read_bytes()

        server.answer = answer
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.quiet.set()
            server.shutdown()
            thread.join()
            server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):  # noqa: N802 pylint: disable=invalid-name
        assert self.headers["Content-Type"] == "application/ocsp-request"
        self.server.urls.append(self.headers["Host"] + self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.server.answer(body)
        if self.server.how:
            answer = self.server.how(body, answer)
        if answer is None:
            self.server.quiet.wait()
        elif isinstance(answer, tuple):  # raw
            self.wfile.write(answer[0])
        else:
            self.send_response(200)
            self.send_header("Content-Type", "application/ocsp-response")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, *_args):
        pass
