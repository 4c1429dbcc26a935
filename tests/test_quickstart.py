# SPDX-License-Identifier: Apache-2.0
"""tools/quickstart shows what it promises, and leaves nothing behind."""

import glob
import json
import re
import subprocess

import pytest

from harness.daemon import BUILD, ROOT

# As on a machine that has neither of the file systems mounted that BPF needs.
BARE = ["unshare", "-m", "sh", "-c", 'umount -a -t bpf,cgroup2; exec "$@"', "sh"]


@pytest.mark.usefixtures("bpf")
@pytest.mark.parametrize("machine", [[], BARE], ids=["as it is", "bare"])
def test_quickstart(machine):
    before = glob.glob("/tmp/ktlsgate-quickstart.*")
    mounts = open("/proc/self/mounts", encoding="utf-8").read()
    done = subprocess.run([*machine, ROOT / "tools/quickstart", BUILD], capture_output=True,
                          text=True, timeout=50, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    steps = re.split(r"\n\x1b\[1m(?=\d\.|Done)", done.stdout)[1:]
    assert [s[0] for s in steps] == [*"1234567D"], done.stdout
    assert "CN = Alice Example" in steps[0]
    assert "verdict  SUCCESS" in steps[1] and "issuer   CN=Example Forging CA" in steps[1]
    assert "certificate required" in steps[2]
    (flow,) = json.loads(steps[3].split("\n", 1)[1])
    # bpftool: the two sides of that flow in either map.
    ids = re.findall(r'"flow_id": (\d+)', steps[4])
    assert ids == [str(flow["id"])] * 2, steps[4]
    assert set(re.findall(r'"side": "(\w+)"', steps[4])) == {"FLOW_CLIENT", "FLOW_BACKEND"}
    assert f'"client_identity": "{flow["identity"]}' in steps[4]
    assert "warning: bpf" not in steps[6] and "BPF" not in steps[6], steps[6]
    assert glob.glob("/tmp/ktlsgate-quickstart.*") == before
    assert open("/proc/self/mounts", encoding="utf-8").read() == mounts
