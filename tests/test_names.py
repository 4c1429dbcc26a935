# SPDX-License-Identifier: Apache-2.0
"""What a client's names may hold, and that they leave the gate as they are."""


import pytest
from cryptography import x509

from harness import backend as backends
from harness import client as clients
from harness import peer
from harness.daemon import settings
from harness.pki import common_name
from test_proxy import Front, tlvs


def told(pki, front):
    return settings(pki, front.port, service__app1__send_proxy="tls",
                    service__app1__connect="verified", audit__log=pki.directory / "audit.jsonl")


@pytest.mark.parametrize("version", peer.VERSIONS)
@pytest.mark.parametrize("subject, names", [
    (common_name("admin\0.guest-users.example"), None),
    (common_name("admin\r\nX-Role: root"), None),
    (common_name("admin\x9b2J"), None),
    (None, [x509.DirectoryName(common_name("admin\0x"))]),
    (None, [x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x07admin\0x")]),
], ids=["nul", "newline", "c1", "dir", "upn"])
def test_control_characters_are_refused(gate, pki, version, subject, names):
    """A backend that ends a name at its NUL would take one user for another: it hears of none."""
    seen = Front(pki)
    with backends.backend(tcp_script=seen) as b:
        g = gate(told(pki, b))
        with g.ends_with("client_cert_invalid"):
            with clients.connect(g.port, pki=pki, version=version,
                                 certkey=pki.client(subject=subject, names=names)) as c:
                assert not (c.handshake() and c.recv())
                assert c.ended.startswith("alert "), c.ended
        assert seen.header is None
        assert g.stats()["forged"] == 0


@pytest.mark.parametrize("name", ["Zo\u00eb M\u00fcller", "a,b+c=\"d\"", "\u674e", "x" * 64])
def test_common_name_is_told_whole(gate, pki, name):
    seen = Front(pki)
    with backends.backend(tcp_script=seen) as b:
        g = gate(told(pki, b))
        with clients.connected(g.port, pki=pki,
                               certkey=pki.client(subject=common_name(name))) as c:
            clients.ping(c)
    [tls] = [v for k, v in tlvs(seen.header[28:]).items() if k == 0x20]
    assert tlvs(tls[5:])[0x22] == name.encode()
