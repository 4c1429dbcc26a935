# SPDX-License-Identifier: Apache-2.0
"""What a CA says about its certificates: OpenSSL's database, and CRLs made by `openssl ca` from it."""

import itertools
import subprocess
import time

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
                f.write("\t".join([mark[0], end, mark[1], serial, "unknown", "/CN=x"]) + "\n")

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
