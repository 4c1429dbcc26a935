# SPDX-License-Identifier: Apache-2.0
"""
ktlsgate-probe and ktlsgated -V: their lines, and what they say against what the kernel itself shows.

Run natively and in the guests; there more is known about what the kernel must answer.
"""
import errno
import os
import pathlib
import re
import subprocess

import pytest

from harness.daemon import program
from harness.fault import ALWAYS, CHACHA20, Fault

pytestmark = pytest.mark.datapath

BUILD = os.environ.get("KTLSGATE_BUILD", os.path.join(os.path.dirname(os.path.dirname(__file__)), "build"))
PROGRAM = os.path.join(BUILD, "ktlsgate-probe")
CIPHERS = ("aes_128_gcm", "aes_256_gcm", "chacha20_poly1305")
KEYS = [f"tls{v}_{d}_{c}" for v in (12, 13) for c in CIPHERS for d in ("tx", "rx")]
FEATURES = [
    "tls_ulp",
    *KEYS,
    "tls_rekey",
    "tls_rx_expect_no_pad",
    "tls_tx_max_payload_len",
    "splice_refill_safe",
    "overlapping_segments",
    "control_records",
    "io_uring",
    "io_uring_defer_taskrun",
    "io_uring_ops",
    "pipe_max_size",
    "pipe_user_pages_soft",
    "pipe_user_pages_hard",
    "sk_lookup",
    "sk_reuseport",
    "cgroup_skb",
    "sock_ops",
    "btf",
    "cgroup2",
    "bpffs",
]
NEEDS_TLS = FEATURES[1 : FEATURES.index("io_uring")]
GUEST = os.environ.get("KTLSGATE_GUEST", "")


def run(*args):
    return subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def answers():
    """Feature: (yes or no, the rest of the line)."""
    result = run()
    assert result.returncode == 0 and result.stderr == ""
    lines = [re.fullmatch(r"([a-z0-9_]+)=(yes|no)(?: (\S.*))?", line) for line in result.stdout.splitlines()]
    assert all(lines), result.stdout
    return {line[1]: (line[2], line[3]) for line in lines}


def test_every_feature_once_and_each_no_has_its_reason(answers):
    assert list(answers) == FEATURES
    assert [name for name, (answer, why) in answers.items() if answer == "no" and not why] == []


def test_ulp_matches_the_kernel(answers):
    # The file belongs to module tls; asked after the probe, which may have loaded it.
    assert (answers["tls_ulp"][0] == "yes") == os.path.exists("/proc/net/tls_stat")


def test_nothing_of_kernel_tls_without_the_ulp(answers):
    if answers["tls_ulp"][0] == "yes":
        pytest.skip("this kernel has the ULP")
    assert {name: answers[name][0] for name in NEEDS_TLS} == dict.fromkeys(NEEDS_TLS, "no")


def test_the_kernel_counted_the_tls_sockets():
    """What the probe says it tried was tried: each accepted TLS_TX or TLS_RX is counted."""
    if not os.path.exists("/proc/net/tls_stat"):
        pytest.skip("this kernel has no kTLS")
    before, result, after = tls_stat(), run(), tls_stat()
    for direction in ("tx", "rx"):
        accepted = len(re.findall(rf"^tls1[23]_{direction}_\w+=yes", result.stdout, re.M))
        counter = f"Tls{direction.title()}Sw"
        assert accepted > 0
        assert after[counter] - before[counter] >= accepted
    assert after["TlsDecryptError"] == before["TlsDecryptError"]


def tls_stat():
    with open("/proc/net/tls_stat") as file:
        return {name: int(value) for name, value in (line.split() for line in file)}


def test_values_are_the_kernels(answers):
    for name, path in (
        ("pipe_max_size", "/proc/sys/fs/pipe-max-size"),
        ("pipe_user_pages_soft", "/proc/sys/fs/pipe-user-pages-soft"),
    ):
        with open(path) as file:
            assert answers[name] == ("yes", file.read().strip())
    with open("/proc/self/mounts") as file:
        mounts = [line.split()[1:3] for line in file]
    if answers["cgroup2"][0] == "yes":
        assert [answers["cgroup2"][1], "cgroup2"] in mounts
    else:
        assert "cgroup2" not in [kind for _, kind in mounts]


@pytest.mark.skipif(not GUEST, reason="only of the guests' kernels is it known what they must answer")
def test_a_stock_kernel_answers_as_known(answers):
    version = tuple(int(part) for part in re.match(r"(\d+)\.(\d+)", GUEST).groups())
    assert os.uname().release == GUEST
    assert {name: answers[name][0] for name in KEYS} == dict.fromkeys(KEYS, "yes")
    for name, since in (("tls_rekey", (6, 14)), ("tls_tx_max_payload_len", (7, 0))):
        assert answers[name][0] == ("yes" if version >= since else "no"), answers[name]
    # Stable releases of 6.1 and 6.12 have got the fixes meanwhile; 6.18.15 is older than they are.
    if version >= (7, 2):
        assert answers["splice_refill_safe"][0] == answers["overlapping_segments"][0] == "yes"
    if GUEST.startswith("6.18.15"):
        assert answers["splice_refill_safe"] == ("no", "16379 of 16384 bytes arrived: refill only an empty pipe")
        assert answers["overlapping_segments"] == ("no", "a header in TCP segments that overlap is misread")
    for name in FEATURES[FEATURES.index("control_records") :]:
        assert answers[name][0] == "yes", (name, answers[name])


def test_options():
    assert run("--help").stdout.startswith("usage: ktlsgate-probe")
    assert re.fullmatch(r"ktlsgate-probe \d+\.\d+\.\d+\n", run("-V").stdout)
    for bad in (["--no-such-option"], ["stray"]):
        result = run(*bad)
        assert result.returncode == 2 and result.stdout == ""


# ---- ktlsgated -V ----


def abilities(*inside, fault=None):
    """What ktlsgated -V says of this kernel: {name: value}, the version's line as "ktlsgated"."""
    result = subprocess.run([*inside, program("ktlsgated"), "-V"], capture_output=True, text=True, timeout=60,
                            check=True, env={**os.environ, **(fault.env if fault else {})})
    first, *lines = result.stdout.splitlines()
    found = dict(re.fullmatch(r" *(TLS 1\.[23]|[^:]+):? +(\S.*)", line).groups() for line in lines)
    return {"ktlsgated": first, **found}


def test_the_daemon_finds_what_the_probe_finds(answers):
    """The start of a gate tries the same."""
    said = abilities()
    assert said["io_uring"] == answers["io_uring"][0] == "yes"
    if answers["tls_ulp"][0] == "no":
        assert said["kernel TLS"] == (f"no ({answers['tls_ulp'][1]}); "
                                      "the user engine carries all flows")
        assert len(said) == 3
        return
    assert said["kernel TLS"] == "yes"
    for version in ("1.2", "1.3"):
        assert said[f"TLS {version}"].lower().replace("-", "_").split() == [
            c for c in CIPHERS
            if answers[f"tls{version.replace('.', '')}_tx_{c}"][0] == "yes"
            and answers[f"tls{version.replace('.', '')}_rx_{c}"][0] == "yes"]
    for name, feature in (("control records", "control_records"),
                          ("re-key (KeyUpdate)", "tls_rekey"),
                          ("safe refill of a pipe that is not empty (never done)",
                           "splice_refill_safe"),
                          ("headers in TCP segments that overlap", "overlapping_segments")):
        assert said[name].split()[0] == answers[feature][0], name
    assert len(said) == 9


def test_what_cannot_be_tried_is_told(answers):
    if answers["overlapping_segments"][0] == "no":
        pytest.skip(answers["overlapping_segments"][1])
    said = abilities("setpriv", "--bounding-set=-net_admin")
    assert said["headers in TCP segments that overlap"] == (
        "no (cannot try: TCP_REPAIR: Operation not permitted)")


def test_the_daemon_tells_what_is_missing(answers, tmp_path):
    """Descriptors; and, where there is kernel TLS, the module or a cipher."""
    said = abilities("prlimit", "--nofile=4")  # the loader and the ring each take one
    assert said["io_uring"] == "no (socket: Too many open files)"
    assert said["kernel TLS"] == "no (loopback connection: Too many open files); the user engine carries all flows"
    if answers["tls_ulp"][0] == "no":
        return
    fault = Fault(tmp_path / "fault")
    fault.arm("attach", errno.ENOENT, times=ALWAYS)
    assert abilities(fault=fault)["kernel TLS"].startswith("no (module tls is not loaded: modprobe")
    fault.arm("tx_keys", errno.ENOENT, cipher=CHACHA20, times=ALWAYS)
    said = abilities(fault=fault)
    assert said["TLS 1.2"] == said["TLS 1.3"] == "AES-128-GCM AES-256-GCM"


@pytest.mark.skipif(not GUEST, reason="the setting is the whole machine's")
def test_the_daemon_tells_that_io_uring_is_forbidden():
    setting = pathlib.Path("/proc/sys/kernel/io_uring_disabled")
    if not setting.exists():
        pytest.skip("this kernel cannot forbid io_uring")
    before = setting.read_text()
    setting.write_text("2")
    try:
        assert abilities()["io_uring"] == "no (Operation not permitted)"
    finally:
        setting.write_text(before)
