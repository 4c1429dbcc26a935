# SPDX-License-Identifier: Apache-2.0
"""TCP segments that no socket sends by itself; as root."""

import socket
import struct
import time

# linux/tcp.h
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_WINDOW = 19, 20, 21, 29
ON, OFF_WITHOUT_PROBE = 1, -1
RECEIVED, SENT = 1, 2
WINDOW_SIZE = 20


def repeat_last(sock, n):
    """
    A socket in place of sock, for an IPv4 connection at rest, whose next send begins with a
    repetition: its first n bytes take the numbers of the last n that were sent.
    """
    time.sleep(0.1)  # until they are acknowledged
    local, remote = sock.getsockname(), sock.getpeername()
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, ON)
    numbers = {}
    for queue in (RECEIVED, SENT):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        numbers[queue] = sock.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ)
    window = sock.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR_WINDOW, WINDOW_SIZE)
    timeout = sock.gettimeout()
    sock.close()  # under repair: the other end does not notice
    numbers[SENT] -= n
    again = socket.socket()
    again.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, ON)  # it may take a port in use, too
    again.bind(local)
    for queue, number in numbers.items():
        again.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        again.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, struct.pack("=I", number & 0xffffffff))
    again.connect(remote)
    again.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_WINDOW, window)
    again.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, OFF_WITHOUT_PROBE)
    again.settimeout(timeout)
    return again
