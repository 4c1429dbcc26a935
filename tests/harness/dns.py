# SPDX-License-Identifier: Apache-2.0
"""A name server of one zone's worth: A and AAAA, over UDP only so much that TCP must be asked."""

import contextlib
import ipaddress
import socket
import struct
import threading

A, AAAA = 1, 28


def _answer(query, names, truncate):
    """RFC 1035, for a query of one question."""
    end = 12
    labels = []
    while query[end]:
        labels.append(query[end + 1:end + 1 + query[end]].decode())
        end += 1 + query[end]
    question = query[12:end + 5]
    kind = struct.unpack("!H", query[end + 1:end + 3])[0]
    found = [a.packed for a in map(ipaddress.ip_address, names.get(".".join(labels).lower(), []))
             if (a.version == 6) == (kind == AAAA) and kind in (A, AAAA)]
    records = b"" if truncate else b"".join(
        struct.pack("!HHHIH", 0xc00c, kind, 1, 1, len(a)) + a for a in found)
    flags = 0x8580 | (0x200 if truncate else 0)
    return query[:2] + struct.pack("!HHHHH", flags, 1, 0 if truncate else len(found), 0, 0) + (
        question + records)


def _serve_udp(sock, names, asked):
    with contextlib.suppress(OSError):
        while (got := sock.recvfrom(512))[0]:
            asked.append("udp")
            sock.sendto(_answer(got[0], names, True), got[1])


def _serve_tcp(listener, names, asked):
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rwb") as f:
                while len(head := f.read(2)) == 2:
                    asked.append("tcp")
                    answer = _answer(f.read(*struct.unpack("!H", head)), names, False)
                    f.write(struct.pack("!H", len(answer)) + answer)
                    f.flush()


@contextlib.contextmanager
def server(address, names):
    """
    On port 53 of address. names: {name: [addresses]}, which may be changed. Yields the list of what
    it was asked by, "udp" or "tcp" for each question.
    """
    asked = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind((address, 53))
        tcp.bind((address, 53))
        tcp.listen()
        threads = [threading.Thread(target=f, args=(s, names, asked), daemon=True)
                   for f, s in ((_serve_udp, udp), (_serve_tcp, tcp))]
        for t in threads:
            t.start()
        try:
            yield asked
        finally:
            for s in (udp, tcp):
                with contextlib.suppress(OSError):  # UDP is not connected
                    s.shutdown(socket.SHUT_RDWR)
            for t in threads:
                t.join(5)
