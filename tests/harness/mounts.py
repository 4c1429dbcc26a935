# SPDX-License-Identifier: Apache-2.0
"""The file systems that BPF needs, for this process and its children only."""

import ctypes
import os

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
PLACES = {"bpf": "/sys/fs/bpf", "cgroup2": "/sys/fs/cgroup"}

_libc = ctypes.CDLL(None, use_errno=True)


def missing():
    """Those of PLACES that this machine has not mounted; cgroup2 may be anywhere."""
    with open("/proc/self/mounts", encoding="utf-8") as lines:
        mounted = [line.split()[1:3] for line in lines]
    found = {kind for place, kind in mounted if kind == "cgroup2" or place == PLACES["bpf"]}
    return [kind for kind in PLACES if kind not in found]


def mount_missing():
    """
    Mounts them in a mount namespace of our own, which ends with us. Without the right to nothing
    changes, and without BPF in the kernel nothing that lasts.
    """
    wanted = missing()
    if not wanted or os.geteuid() != 0 or _libc.unshare(CLONE_NEWNS):
        return
    _libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
    for kind in wanted:
        _libc.mount(kind.encode(), PLACES[kind].encode(), kind.encode(), ctypes.c_ulong(0), None)
