# SPDX-License-Identifier: Apache-2.0
"""Debian packages fetched with apt in private directories and unpacked, not installed, into a cache.

It does not know what the packages are for. Nothing under /etc/apt or in dpkg's database is changed;
apt verifies the Release signature and every hash, with the mirror and keyring this machine uses.
"""
import contextlib
import fcntl
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile

SUMS = "SHA256SUMS"


class Unavailable(Exception):
    """The packages cannot be had; str() is the one line to tell."""


def natural(name):
    """6.12.9 before 6.12.117."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def cache_dirs(kind):
    """Where unpacked packages may be: KTLSGATE_CACHE alone, or the system's cache, then the user's."""
    if "KTLSGATE_CACHE" in os.environ:
        return [os.path.join(os.environ["KTLSGATE_CACHE"], kind)]
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [os.path.join(base, "ktlsgate", kind) for base in ("/var/cache", user)]


def writable_dir(dirs):
    for path in dirs:
        with contextlib.suppress(OSError):
            os.makedirs(path, exist_ok=True)
            if os.access(path, os.W_OK):
                return path
    raise Unavailable(f"no cache directory is writable: {' '.join(dirs)}")


@contextlib.contextmanager
def locked(path):
    with open(path, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def seal(top, files):
    """Records the SHA-256 of each file; written last, so an unsealed directory is an unfinished one."""
    with open(os.path.join(top, SUMS), "w") as sums:
        for name in sorted(files):
            sums.write(f"{sha256(os.path.join(top, name))}  {name}\n")


def damage(top):
    """None, or what is wrong with a sealed directory."""
    try:
        with open(os.path.join(top, SUMS)) as sums:
            wanted = [line.rstrip("\n").split("  ", 1) for line in sums]
        for digest, name in wanted:
            if sha256(os.path.join(top, name)) != digest:
                return f"{name} does not match its SHA-256"
    except (OSError, ValueError) as error:
        return str(error)
    return None if wanted else f"{SUMS} is empty"


def cached(kind, pattern):
    """The newest intact cached directory whose name matches; a damaged one is said and passed over."""
    for base in cache_dirs(kind):
        names = [n for n in (os.listdir(base) if os.path.isdir(base) else []) if re.fullmatch(pattern, n)]
        for name in sorted(names, key=natural, reverse=True):
            wrong = damage(os.path.join(base, name))
            if not wrong:
                return os.path.join(base, name)
            print(f"guest: {base}/{name} is damaged ({wrong}): fetching it again", file=sys.stderr)
    return None


def mirror():
    """(archive URI, security URI, keyring) as this machine's own sources name them."""
    archive = security = keyring = None
    for path in sorted(glob.glob("/etc/apt/sources.list.d/*.sources")):
        with open(path) as file:
            for stanza in file.read().split("\n\n"):
                field = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.+)$", stanza, re.M))
                uri = field.get("URIs", "").split(" ")[0].rstrip("/")
                if uri.endswith("/debian-security"):
                    security = security or uri
                elif uri.endswith("/debian"):
                    archive = archive or uri
                    keyring = keyring or field.get("Signed-By")
    for path in ["/etc/apt/sources.list", *sorted(glob.glob("/etc/apt/sources.list.d/*.list"))]:
        if not os.path.exists(path):
            continue
        with open(path) as file:
            for uri in re.findall(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+?)/?\s", file.read(), re.M):
                if uri.endswith("/debian-security"):
                    security = security or uri
                elif uri.endswith("/debian"):
                    archive = archive or uri
    if not archive:
        raise Unavailable("no Debian archive is named in /etc/apt/sources.list*")
    return archive, security, keyring or "/usr/share/keyrings/debian-archive-keyring.gpg"


class Apt:
    """apt with its lists, cache and sources in one temporary directory, for the given suites only."""

    def __init__(self, top, suites, status=None):
        archive, security, keyring = mirror()
        self.top = top
        for name in ("lists/partial", "archives/partial", "debs"):
            os.makedirs(os.path.join(top, name))
        with open(os.path.join(top, "sources.list"), "w") as sources:
            for suite in suites:
                uri = security if suite.endswith("-security") else archive
                if uri:
                    sources.write(f"deb [signed-by={keyring}] {uri} {suite} main\n")
        if not status:
            status = os.path.join(top, "status")
            open(status, "w").close()
        settings = {
            "Dir::State": top,
            "Dir::State::status": status,
            "Dir::Cache": top,
            "Dir::Etc::SourceList": os.path.join(top, "sources.list"),
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            # The directory is ours alone: user _apt could not read it.
            "APT::Sandbox::User": "root",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "30",
            "Acquire::Languages": "none",
            # An index that cannot be had is an error, not a warning.
            "APT::Update::Error-Mode": "any",
            # Hooks of the real apt would touch the real system.
            "APT::Update::Post-Invoke-Success": "",
            "APT::Update::Post-Invoke": "",
        }
        self.options = [arg for key, value in settings.items() for arg in ("-o", f"{key}={value}")]
        self._run("apt-get", "-qq", "update")

    def _run(self, tool, *args):
        result = subprocess.run(
            [tool, *self.options, *args],
            cwd=os.path.join(self.top, "debs"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if result.returncode:
            errors = [l for l in (result.stderr + result.stdout).splitlines() if l[:2] in ("E:", "W:")]
            # The first one is the cause, and one line is enough.
            raise Unavailable(f"{tool} {args[-1]}: {(errors or [result.stderr.strip()])[0]}")
        return result.stdout

    def names(self):
        return self._run("apt-cache", "pkgnames").split()

    def download(self, packages):
        self._run("apt-get", "-q", "download", *packages)

    def download_install(self, suite, package):
        """The package and whatever it needs that dpkg's status file does not list as installed."""
        self._run("apt-get", "-qy", "-d", "--no-install-recommends", "-t", suite, "install", package)

    def unpack(self, into):
        """Unpacks all that was downloaded; returns the .deb names."""
        debs = glob.glob(os.path.join(self.top, "debs", "*.deb"))
        debs += glob.glob(os.path.join(self.top, "archives", "*.deb"))
        for deb in sorted(debs):
            result = subprocess.run(["dpkg", "-x", deb, into], capture_output=True, text=True)
            if result.returncode:
                raise Unavailable(f"dpkg -x {os.path.basename(deb)}: {result.stderr.strip()}")
        return [os.path.basename(deb) for deb in sorted(debs)]


@contextlib.contextmanager
def fetching(kind, suites, status=None):
    """Yields (apt, unpack directory, publish(name)); only what was published stays.

    The caller holds lock(kind), so what another fetch left behind is that of a dead one.
    """
    base = writable_dir(cache_dirs(kind))
    for stale in glob.glob(os.path.join(base, ".fetch-*")):
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=base) as top:
        new = os.path.join(top, "new")
        os.makedirs(new)

        def publish(name):
            path = os.path.join(base, name)
            shutil.rmtree(path, ignore_errors=True)
            os.rename(new, path)
            return path

        yield Apt(os.path.join(top, "apt"), suites, status), new, publish


@contextlib.contextmanager
def lock(kind):
    """One fetch of a kind at a time: a second caller waits, then finds the first one's work."""
    with locked(os.path.join(writable_dir(cache_dirs(kind)), ".lock")):
        yield
