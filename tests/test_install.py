# SPDX-License-Identifier: Apache-2.0
"""
make install, the Debian package, the service. The package is installed on a throwaway copy of this
machine (an overlay, with namespaces of its own), where docs/install.md is followed to the letter.
"""

import os
import re
import shutil
import stat
import subprocess

import pytest

from harness import backend as backends
from harness.daemon import BUILD, ROOT, settings

UNIT = ROOT / "config/systemd/ktlsgate.service"
# systemd-analyze security: 0.0 is a process that can do nothing, 10.0 root without a sandbox.
EXPOSURE_MAX = 2.7

# What a service manager would do for docs/install.md, with the unit's program and capabilities.
# The kernel is shared with other tests, its settings stay as they are.
STANDINS = {
    "systemctl": r"""
unit=/lib/systemd/system/ktlsgate.service
case "$*" in
"enable --now ktlsgate")
	caps=$(sed -n 's/^CapabilityBoundingSet=//p' $unit | tr A-Z a-z | sed 's/cap_/+/g' | tr '\n' ' ')
	caps=-all,$(echo $caps | tr ' ' ',')
	setpriv --bounding-set "$caps" --no-new-privs $(sed -n 's/^ExecStart=//p' $unit) 2>/run/log &
	echo $! >/run/pid
	for i in $(seq 100); do
		grep -q 'ktlsgated: ready' /run/log && exit
		kill -0 $! || break
		sleep 0.1
	done
	cat /run/log
	exit 1 ;;
"status ktlsgate") kill -0 $(cat /run/pid) ;;
"stop ktlsgate")
	kill $(cat /run/pid)
	while kill -0 $(cat /run/pid) 2>/dev/null; do sleep 0.05; done ;;
"restart systemd-modules-load") grep -qx tls /usr/lib/modules-load.d/ktlsgate.conf ;;
*) echo "systemctl $*?"; exit 1 ;;
esac""",
    "journalctl": '[ "$*" = "-u ktlsgate -n 1" ] && sleep 0.2 && tail -n 1 /run/log',
    "sysctl": '[ "$*" = --system ] && [ -e /usr/lib/sysctl.d/50-ktlsgate.conf ]',
}

MACHINE = r"""
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount --rbind /dev dev
mount --rbind /sys sys
mount -t bpf bpf sys/fs/bpf || true
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
ip link set lo up
cp "$2"/* tmp
exec chroot . sh -c 'cd /tmp && PATH=/tmp:/usr/sbin:/usr/bin:/sbin:/bin exec sh -e ./script'
"""

need = pytest.mark.skipif


def run(*argv, **options):
    return subprocess.run(list(map(str, argv)), text=True, check=False, timeout=50,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options)


def make(*args):
    """The programs are there, and the build flags are not known here: nothing is compiled."""
    done = run("make", "-C", ROOT, f"B={BUILD}", "--no-print-directory", *args)
    assert done.returncode == 0, done.stdout
    assert "  CC " not in done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def package():
    """The .deb, made of the programs under test."""
    if not shutil.which("dh"):
        pytest.skip("debhelper is not installed")
    make("deb")
    (deb,) = (BUILD / "deb").glob("ktlsgate_*.deb")
    return deb


@pytest.fixture
def machine(package, tmp_path):
    """machine(script) runs it as root of a copy of this machine that is thrown away."""
    def start(script):
        files, place = tmp_path / "files", tmp_path / "machine"
        files.mkdir()
        place.mkdir()
        shutil.copy(package, files)
        for name, text in STANDINS.items():
            (files / name).write_text(f"#!/bin/sh -e\n{text}\n")
            (files / name).chmod(0o755)
        (files / "script").write_text(script)
        return run("unshare", "-mnpf", "--kill-child", "sh", "-c", MACHINE, "sh", place, files)

    if run("unshare", "-mnp", "true").returncode:
        pytest.skip("no right to namespaces")
    return start


def blocks(document, kind):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    return [text for k, text in found if k == kind]


def test_install_md(machine):
    """From dpkg -i to the first forwarded request, then everything is taken away again."""
    document = (ROOT / "docs/install.md").read_text()
    (answer,) = blocks(document, "")
    done = machine("\n".join(blocks(document, "sh")) + r"""
echo "== sandbox"
ps -o user= --ppid "$(cat /run/pid)"
grep 'warning: .*: Operation not permitted' /run/log || true
ls -ld /etc/ktlsgate/pki
echo "== service"
systemd-analyze verify ktlsgate.service || echo "verify: $?"
ls /etc/systemd/system/*.wants | grep ktlsgate || echo "not enabled"
systemctl stop ktlsgate
tail -n 1 /run/log
echo "== removed"
rm /etc/ktlsgate/pki/*
dpkg -P ktlsgate
ls -d /etc/ktlsgate /usr/sbin/ktlsgate* /lib/systemd/system/ktlsgate* 2>&1 || true
""")
    assert done.returncode == 0, done.stdout
    assert answer in done.stdout, done.stdout
    assert "alert certificate required" in done.stdout
    assert "(client_cert_required)" in done.stdout
    assert "forged 1\nreason_done 1\nreason_client_cert_required 1\n" in done.stdout
    sandbox, service, removed = re.split("^== .*\n", done.stdout, flags=re.MULTILINE)[1:]
    users, pki = sandbox.rsplit("\n", 2)[:2]
    assert users == "ktlsgate\nktlsgate", done.stdout
    assert pki.startswith("drwx------"), pki
    assert service.startswith("not enabled\n"), service
    assert "stopping: signal 15" in service
    assert removed.count("No such file or directory") == 3, removed


def test_package(package):
    """Depends on what it is linked with; what is edited is a conffile."""
    shown = run("dpkg-deb", "-f", package, "Depends").stdout
    for library in ("libbpf1", "libc6", "libcap2", "libseccomp2", "libssl3", "liburing2"):
        assert re.search(rf"\b{library}\b", shown), shown
    assert run("dpkg-deb", "-I", package, "conffiles").stdout == "/etc/ktlsgate/ktlsgate.conf\n"


@need(not shutil.which("lintian"), reason="lintian is not installed")
def test_lintian(package):
    (changes,) = package.parent.glob("*.changes")
    done = run("lintian", "--fail-on", "error,warning", changes)
    assert done.returncode == 0 and not re.search("^[EW]:", done.stdout, re.M), done.stdout


def test_make_install(tmp_path):
    """Elsewhere than in /usr, and a second time over an edited configuration."""
    make("install", f"DESTDIR={tmp_path}", "PREFIX=/usr/local")
    conf = tmp_path / "etc/ktlsgate/ktlsgate.conf"
    assert conf.read_text() == (ROOT / "config/ktlsgate.conf").read_text()
    conf.write_text("# edited\n")
    make("install", f"DESTDIR={tmp_path}", "PREFIX=/usr/local")
    assert conf.read_text() == "# edited\n"
    found = {str(p.relative_to(tmp_path)): stat.S_IMODE(p.stat().st_mode)
             for p in tmp_path.rglob("*") if p.is_file()}
    programs = {"usr/local/sbin/ktlsgated", "usr/local/bin/ktlsgatectl",
                "usr/local/bin/ktlsgate-forge", "usr/local/bin/ktlsgate-probe",
                "usr/local/libexec/ktlsgate/load-tls.sh",
                "usr/local/share/doc/ktlsgate/examples/mkpki.sh"}
    assert {p for p, mode in found.items() if mode == 0o755} == programs
    assert {mode for p, mode in found.items() if p not in programs} == {0o644}
    for page in (ROOT / "man").iterdir():
        assert f"usr/local/share/man/man{page.suffix[1]}/{page.name}" in found
    unit = (tmp_path / "lib/systemd/system/ktlsgate.service").read_text()
    assert "\nExecStart=/usr/local/sbin/ktlsgated\n" in unit


def test_kernel_settings():
    """Of names that this kernel knows, each with a reason before it."""
    text = (ROOT / "kmod-helpers/sysctl.d/50-ktlsgate.conf").read_text()
    settings_ = re.findall(r"^# .*\n(\S+) = \S", text, re.MULTILINE)
    assert len(settings_) == text.count(" = ") > 3
    assert all(os.path.exists("/proc/sys/" + name.replace(".", "/")) for name in settings_)


# ---- the unit ----


@need(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_exposure():
    """Told by systemd-analyze; it must not grow unnoticed."""
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", UNIT,
               env={**os.environ, "LC_ALL": "C.UTF-8"})
    (score,) = re.findall(r"Overall exposure level for ktlsgate.service: ([\d.]+)", done.stdout)
    assert 0 < float(score) <= EXPOSURE_MAX, done.stdout


# ---- completion ----

COMPLETE = r"""
_init_completion() {
	words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
	cur=${words[cword]} prev=${words[cword-1]}
}
_filedir() { COMPREPLY=(FILES); }
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_ktlsgatectl "$1"
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def running(module_gate, pki):
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        yield module_gate(settings(pki, b.port))


@pytest.mark.parametrize("words, offered", [
    (["st"], ["stats"]),
    (["stats", "engine_"], ["engine_ktls_flows", "engine_user_flows"]),
    (["stats", "forged", "key_updates_"], ["key_updates_sent"]),
    (["flows", ""], [""]),
    (["vserver.app."], [f"vserver.app.{k}" for k in ("listen", "certkey", "profile", "service")]),
    (["--js"], ["--json"]),
    (["--s"], ["--socket"]),
    (["-s", ""], ["FILES"]),
])
def test_completion(running, words, offered):
    if words[0] != "-s":
        words = ["-s", str(running.socket), *words]
    done = run("bash", "-c", COMPLETE, "bash", ROOT / "config/bash-completion/ktlsgatectl",
               BUILD / "ktlsgatectl", *words)
    assert done.stdout.splitlines() == offered
