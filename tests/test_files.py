# SPDX-License-Identifier: Apache-2.0
"""Files that the gate opens as root: not those that somebody else has put there."""

import os
import re
import subprocess

import pytest

from harness.daemon import ROOT, program, settings, write_config


def refused(tmp_path, pki, **changes):
    """What a gate that must not start says."""
    conf = tmp_path / "ktlsgate.conf"
    write_config(conf, {**settings(pki, 9443), "dataplane.engine": "user", "bpf.dir": "off",
                        "control.socket": tmp_path / "s", **{k.replace("__", "."): v
                                                             for k, v in changes.items()}})
    done = subprocess.run([program("ktlsgated"), "-c", conf], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 1
    return done.stderr


@pytest.mark.parametrize("key", ["log.flows", "audit.log"])
@pytest.mark.parametrize("what", ["link", "owner", "directory"])
def test_log_of_somebody_else(pki, tmp_path, key, what):
    directory, victim = tmp_path / "open", tmp_path / "victim"
    directory.mkdir()
    victim.write_text("kept\n")
    log = directory / "log"
    if what == "link":
        log.symlink_to(victim)
    elif what == "owner":
        log.write_text("")
        os.chown(log, 65534, -1)
    else:
        directory.chmod(0o777)
    said = refused(tmp_path, pki, **{key.replace(".", "__"): log})
    assert {"link": f"{key} = {log}: Too many levels of symbolic links",
            "owner": f"{key} = {log}: belongs to user 65534",
            "directory": "can replace it; chown it to root and chmod go-w it"}[what] in said
    assert victim.read_text() == "kept\n"


def test_root_is_said_loudly(gate, pki, backend):
    warning = r"warning: dataplane\.user is not set: .* run as root"
    assert gate(settings(pki, backend.port)).log_contains(warning)
    assert not gate(settings(pki, backend.port, dataplane__user="nobody")).log_contains(warning)


def test_samples_are_safe():
    """What one would paste names an unprivileged user."""
    sample = re.search(r"```\n(.*?certkey\.web\.cert.*?)```", (ROOT / "README.md").read_text(),
                       re.DOTALL)[1]
    assert "dataplane.user = ktlsgate\n" in sample.replace("   ", "")
    assert "\ndataplane.user = ktlsgate\n" in (ROOT / "config/ktlsgate.conf").read_text()
