# SPDX-License-Identifier: Apache-2.0
"""Stock Debian kernels and the initramfs for a guest. Does not know QEMU or what will run inside.

The cache holds kernels/<release>/: vmlinux, lib/modules/<release> and SHA256SUMS over what a guest
boots with and loads.
"""
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys

import debs

# Series: (suites, pattern of the package that names the release, packages wanted beside it).
SERIES = {
    "6.1": (
        ("bookworm", "bookworm-updates", "bookworm-security"),
        r"linux-image-(6\.1\.0-\d+-amd64)",
        (),
    ),
    "6.12": (("bookworm-backports", "bookworm-security"), r"linux-image-(6\.12\.[\d.]+\+deb12[\d.]*-amd64)", ()),
    "6.18": (("trixie-backports",), r"linux-image-(6\.18\.[\d.]+\+deb13[\d.]*-amd64)", ("linux-base-",)),
    "7.3": (
        ("trixie-backports",),
        r"linux-binary-(7\.3\.[\d.]+\+deb13[\d.]*-amd64)",
        ("linux-modules-", "linux-base-"),
    ),
}

# Needed before this machine's root file system can be mounted and spoken through.
BOOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console", "virtio_rng")
# Loaded before COMMAND runs; a kernel may have some of them built in, or not have them any more.
TEST_MODULES = (
    "tls",
    "gcm",
    "ccm",
    "chacha20poly1305",
    "aesni_intel",
    "ghash_clmulni_intel",
    "sch_netem",
    "veth",
    "dummy",
    "tcp_diag",
)


def ensure(series):
    """The directory of a checked kernel of this series, fetched if the cache has none."""
    suites, pattern, beside = SERIES[series]
    release_pattern = re.search(r"\((.*)\)", pattern).group(1)
    found = debs.cached("kernels", release_pattern)
    if found:
        return found
    with debs.lock("kernels"):
        return debs.cached("kernels", release_pattern) or fetch(series, suites, pattern, beside)


def fetch(series, suites, pattern, beside):
    print(f"guest: fetching kernel {series} from {' '.join(suites)}", file=sys.stderr)
    with debs.fetching("kernels", suites) as (apt, new, publish):
        names = set(apt.names())
        releases = [m.group(1) for m in (re.fullmatch(pattern, name) for name in names) if m]
        if not releases:
            raise debs.Unavailable(f"no kernel {series} in {' '.join(suites)} on this mirror")
        release = max(releases, key=debs.natural)
        package = re.sub(r"\(.*\)", release, pattern).replace("\\", "")
        wanted = [package] + [prefix + release for prefix in beside]
        apt.download([name for name in wanted if name in names])
        apt.unpack(new)
        arrange(new, release)
        return publish(release)


def arrange(top, release):
    """One layout for all: packages before 7.x have /boot/vmlinuz-* and /lib, later ones /usr/lib."""
    if os.path.isdir(os.path.join(top, "usr/lib/modules")):
        shutil.copytree(os.path.join(top, "usr/lib"), os.path.join(top, "lib"), dirs_exist_ok=True)
    modules = os.path.join(top, "lib/modules", release)
    image = os.path.join(top, "boot", "vmlinuz-" + release)
    if not os.path.exists(image):
        image = os.path.join(modules, "vmlinuz")
    with open(image, "rb") as packed, open(os.path.join(top, "vmlinux"), "wb") as file:
        file.write(vmlinux(packed.read()))
    os.unlink(image)
    for name in ("usr", "boot"):
        shutil.rmtree(os.path.join(top, name), ignore_errors=True)

    depmod = shutil.which("depmod", path="/usr/sbin:/sbin:/usr/bin:/bin")
    subprocess.run([depmod or "depmod", "-b", top, release], check=True)
    index = [f"lib/modules/{release}/{n}" for n in os.listdir(modules) if n.startswith("modules.")]
    loaded = [f"lib/modules/{release}/{path}" for path in ordered(top, BOOT_MODULES + TEST_MODULES)]
    debs.seal(top, ["vmlinux", *index, *loaded])


def vmlinux(bzimage):
    """The ELF image inside: QEMU starts it by PVH, which spares 1 to 6 s of emulated decompression."""
    # Documentation/arch/x86/boot.rst: setup_sects, payload_offset and payload_length.
    setup = ((bzimage[0x1F1] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    payload = bzimage[setup + offset : setup + offset + length]
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        # The last four bytes are the uncompressed size.
        return unzstd(payload[:-4])
    raise debs.Unavailable(f"kernel image compressed in an unknown way: {payload[:6].hex()}")


def unzstd(data):
    result = subprocess.run(["zstd", "-dcq"], input=data, capture_output=True)
    if result.returncode:
        raise debs.Unavailable(f"zstd: {result.stderr.decode().strip()}")
    return result.stdout


def release_of(top):
    return os.path.basename(top)


def ordered(top, wanted):
    """Paths of the wanted modules and what they need, each after its dependencies."""
    modules = os.path.join(top, "lib/modules")
    modules = os.path.join(modules, os.listdir(modules)[0])
    needs = {}
    with open(os.path.join(modules, "modules.dep")) as file:
        for line in file:
            path, _, dependencies = line.partition(":")
            name = re.sub(r"\.ko.*$", "", os.path.basename(path)).replace("-", "_")
            # modules.dep lists the nearest dependency first: the farthest has to be loaded first.
            needs[name] = [*reversed(dependencies.split()), path]
    order = {}
    for name in wanted:
        for path in needs.get(name, ()):
            order[path] = True
    return list(order)


def plain(path):
    """The bytes of a module, decompressed, so that busybox's insmod need not know how."""
    if path.endswith(".xz"):
        with lzma.open(path) as file:
            return file.read()
    with open(path, "rb") as file:
        return unzstd(file.read()) if path.endswith(".zst") else file.read()


def initramfs(top, into, init, files):
    """Writes a cpio archive: busybox, init, the boot modules in load order, and files (name: bytes)."""
    modules = ordered(top, BOOT_MODULES)
    release = release_of(top)
    archive = Cpio(into)
    for name in ("bin", "dev", "proc", "host", "upper", "root", "modules", "job"):
        archive.directory(name)
    with open("/bin/busybox", "rb") as busybox:
        archive.file("bin/busybox", busybox.read(), 0o755)
    archive.file("init", init, 0o755)
    for number, path in enumerate(modules):
        name = f"modules/{number:02}-" + re.sub(r"\.ko.*$", ".ko", os.path.basename(path))
        archive.file(name, plain(os.path.join(top, "lib/modules", release, path)), 0o644)
    for name, data in files.items():
        archive.file(name, data, 0o644)
    archive.close()


class Cpio:
    """The "newc" format, all the kernel's initramfs needs of it."""

    def __init__(self, path):
        self.out = open(path, "wb")
        self.inode = 0

    def directory(self, name):
        self._entry(name, 0o040755, b"")

    def file(self, name, data, mode):
        self._entry(name, 0o100000 | mode, data)

    def close(self):
        self._entry("TRAILER!!!", 0, b"")
        self.out.close()

    def _entry(self, name, mode, data):
        self.inode += 1
        raw = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
        head = b"070701" + b"".join(b"%08x" % f for f in fields) + raw
        self.out.write(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))
