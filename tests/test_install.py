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
# chroot, which gives our processes an empty root, counts 0.3 against us.
EXPOSURE_MAX = 2.9

# The kernel is shared with other tests: its settings and modules stay as they are.
STANDINS = {
    "sysctl": '[ "$*" = --system ] && [ -e /usr/lib/sysctl.d/50-ktlsgate.conf ]',
    "systemctl": r"""
[ "$*" = "restart systemd-modules-load" ] || exec /bin/systemctl "$@"
grep -qx tls /usr/lib/modules-load.d/ktlsgate.conf""",
}

# A copy of this machine with a systemd of its own, which runs ./script and ends. In its cgroup,
# below ours; nothing of this machine's kernel settings can be written.
MACHINE = r"""
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount --rbind /dev dev
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mkdir tmp/test
mount --bind "$2" tmp/test
mount --make-rshared .
ip link set lo up
: >etc/fstab
rm -f var/lib/man-db/auto-update # takes seconds
# `make asan`: what the unit starts may not ptrace(2), as LeakSanitizer does.
echo 'DefaultEnvironment=ASAN_OPTIONS=detect_leaks=0' >>etc/systemd/system.conf
cd etc/systemd/system
for unit in $(cd "$1/root/lib/systemd/system" && ls sysinit.target.wants sockets.target.wants) \
	networking.service systemd-timesyncd.service systemd-remount-fs.service; do
	case $unit in
	*journald.socket | *journald.service | *journald-dev-log.socket) ;;
	*) ln -sf /dev/null "$unit" ;;
	esac
done
cat >test.service <<END
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
WorkingDirectory=/tmp/test
Environment=PATH=/tmp/test:/usr/sbin:/usr/bin:/sbin:/bin
StandardOutput=file:/tmp/test/output
StandardError=inherit
ExecStart=/bin/sh -e ./script
ExecStopPost=/bin/sh -c 'echo \$EXIT_STATUS >status; kill -s RTMIN+14 1'
END
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=test SYSTEMD_LOG_TARGET=console \
	chroot "$1/root" /lib/systemd/systemd --system --unit=test.service
"""
# In a cgroup of its own, so that the namespace begins there.
CAGE = r"""
cgroup=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)$(sed -n 's/^0:://p' \
	/proc/self/cgroup)/ktlsgate-test-$$
mkdir "$cgroup" || exit 77
(
	echo 0 >"$cgroup/cgroup.procs"
	exec unshare -mnuiCpf --kill-child "$@"
)
for i in $(seq 50); do
	find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null && break
	sleep 0.1
done
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
        console = run("sh", "-c", CAGE, "sh", "sh", "-c", MACHINE, "sh", place, files).stdout
        assert (files / "status").exists(), console
        output = (files / "output").read_text()
        assert (files / "status").read_text() == "0\n", output + console
        return output

    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed")
    done = run("sh", "-c", CAGE, "sh", "mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    if done.returncode:
        pytest.skip(f"no right to namespaces: {done.stdout}")
    return start


def blocks(document, kind):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    return [text for k, text in found if k == kind]


def test_install_md(machine):
    """From dpkg -i to the first forwarded request, then everything is taken away again."""
    document = (ROOT / "docs/install.md").read_text()
    (answer,) = blocks(document, "")
    output = machine("\n".join(blocks(document, "sh")) + r"""
echo "== processes"
while [ "$(ktlsgatectl status | wc -l)" -gt 1 ]; do sleep 0.1; done
ps -o user:32= --ppid "$(systemctl show -P MainPID ktlsgate)"
ls -l /sys/fs/bpf/ktlsgate
echo "== service"
systemctl show ktlsgate -p StatusText -p NRestarts
systemctl stop ktlsgate
systemctl show ktlsgate -p Result -p ActiveState
systemd-analyze verify ktlsgate.service
ls -ld /etc/ktlsgate/pki
echo "== credentials"
cd /etc/ktlsgate/pki
systemd-creds encrypt --name=forge.key forge-ca.key /etc/ktlsgate/forge.key.cred
rm forge-ca.key
mkdir /etc/systemd/system/ktlsgate.service.d
cat >/etc/systemd/system/ktlsgate.service.d/key.conf <<END
[Service]
LoadCredentialEncrypted=forge.key:/etc/ktlsgate/forge.key.cred
END
key=/run/credentials/ktlsgate.service/forge.key
sed -i "s|^certkey.forge.key = .*|certkey.forge.key = $key|" /etc/ktlsgate/ktlsgate.conf
systemctl daemon-reload
systemctl start ktlsgate || { journalctl -u ktlsgate -n 8; false; }
ktlsgatectl certkey.forge.key
systemctl stop ktlsgate
ls $key 2>/dev/null || true
rm /etc/ktlsgate/forge.key.cred
echo "== log"
journalctl -u ktlsgate -p warning -o cat
echo "== removed"
rm -r /etc/ktlsgate/pki/* /etc/ktlsgate/ktlsgate.d
dpkg -P ktlsgate
ls -d /etc/ktlsgate /usr/sbin/ktlsgate* /lib/systemd/system/ktlsgate* 2>&1 || true
""")
    assert answer in output, output
    assert "Active: active (running)" in output
    assert "alert certificate required" in output
    assert "(client_cert_required)" in output
    assert "\ntimeout.idle = 30m\ngeneration=2\tstate=current\t" in output, output
    assert "forged 1\nreason_done 1\nreason_client_cert_required 1\n" in output
    processes, service, credentials, log, removed = re.split("^== .*\n", output, flags=re.MULTILINE)[1:]
    assert processes.startswith("ktlsgate-signer\nktlsgate\ntotal 0\n"), processes
    assert re.findall(r"\bflow\w*$", processes, re.MULTILINE) == ["flow_info", "flows"], processes
    *state, pki = service.splitlines()
    assert sorted(state) == ["ActiveState=inactive", "NRestarts=0", "Result=success",
                             "StatusText=1 vserver, 2 workers, engine user"], service
    assert pki.startswith("drwx------"), pki
    assert credentials.splitlines()[-1] == (
        "certkey.forge.key = /run/credentials/ktlsgate.service/forge.key"), credentials
    assert not [x for x in log.splitlines() if not re.search("no kernel TLS|LimitMEMLOCK|built with a sanitizer", x)], log
    assert removed.count("No such file or directory") == 3, removed


def test_package(package):
    """Depends on what it is linked with; what is edited is a conffile."""
    shown = run("dpkg-deb", "-f", package, "Depends").stdout
    for library in ("libbpf1", "libc6", "libcap2", "libnl-genl-3-200", "libseccomp2", "libssl3", "liburing2"):
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
                "usr/local/bin/ktlsgate-forge", "usr/local/bin/ktlsgate-probe", "usr/local/bin/ktlsgate-offload",
                "usr/local/bin/ktlsgate-ns-import",
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
    (["st"], ["stats", "status"]),
    (["stats", "engine_"], ["engine_ktls_flows", "engine_user_flows"]),
    (["stats", "forged", "key_updates_"], ["key_updates_sent"]),
    (["flows", ""], [""]),
    (["vserver.app.l"], ["vserver.app.listen"]),
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
