# SPDX-License-Identifier: Apache-2.0
"""ktlsgatectl metrics: Prometheus's text format and names, the values of ktlsgatectl stats."""

import json
import re
import subprocess

import pytest

from harness import backend as backends
from harness import client as clients
from harness import debian
from harness.daemon import ROOT, settings


@pytest.fixture(scope="module")
def running(module_gate, pki):
    """A gate that has forwarded one flow and refused another."""
    with backends.backend(certkey=pki.backend(), client_ca=pki.forging_root) as b:
        g = module_gate(settings(pki, b.port))
        with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
            c.send(b"hello")
            assert c.recv_exactly(5) == b"hello"
        with clients.connect(g.port, pki=pki) as c:
            assert not (c.handshake() and c.recv())
        assert g.stat_reaches("flows_closed", 2)
        yield g


def metric_of(name, gauge):
    """By the conventions: the unit, then _total for counters."""
    if name.startswith("reason_"):
        return f'ktlsgate_flows_ended_total{{reason="{name[7:]}"}}'
    name = re.sub("^bytes_(.*)", r"\1_bytes", name)
    return f"ktlsgate_{name}" + ("" if gauge else "_total")


def test_values(running):
    """Each of ktlsgatectl stats is there, and nothing else."""
    text = running.ctl("metrics")
    shown = dict(x.rsplit(" ", 1) for x in text.splitlines() if not x.startswith("#"))
    assert re.fullmatch(r'ktlsgate_build_info\{version="[\d.]+"\}', list(shown)[0])
    del shown[list(shown)[0]]
    shown = {n: v for n, v in shown.items() if not n.startswith("ktlsgate_service_")}
    gauges = set(re.findall(r"^# TYPE ktlsgate_(\w+) gauge$", text, re.MULTILINE))
    stats = running.stats()
    del shown["ktlsgate_memory_bytes"], stats["memory_bytes"]  # never twice the same
    assert shown == {metric_of(n, n in gauges): str(v) for n, v in stats.items()}
    assert shown["ktlsgate_from_client_bytes_total"] == "5"
    assert shown['ktlsgate_flows_ended_total{reason="client_cert_required"}'] == "1"


def test_format(running):
    """HELP, TYPE, then the samples of that family; each family once."""
    text = running.ctl("metrics")
    families = re.findall(r"# HELP (\w+) (\S.*)\n# TYPE (\w+) (counter|gauge)\n((?:[^#].*\n)+)",
                          text)
    assert "".join(f"# HELP {n} {h}\n# TYPE {t} {k}\n{s}" for n, h, t, k, s in families) == text
    for name, _help, again, kind, samples in families:
        assert name == again and (kind == "counter") == name.endswith("_total")
        assert all(re.fullmatch(rf'{name}({{\w+="[\w.]+"}})? \d+', s) for s in samples.splitlines())
    names = [f[0] for f in families]
    assert len(names) == len(set(names))


@pytest.fixture(scope="module")
def promtool():
    try:
        return debian.program("prometheus", "promtool")
    except debian.debs.Unavailable as error:
        pytest.skip(f"no promtool, and none to be had: {error}")


def test_promtool(running, promtool):
    done = subprocess.run([promtool, "check", "metrics"], input=running.ctl("metrics"),
                          capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_dashboard(running):
    """It asks for what there is, and for labels that there are."""
    text = (ROOT / "config/grafana/ktlsgate.json").read_text()
    there = set(re.findall(r"^# TYPE (\w+) ", running.ctl("metrics"), re.MULTILINE))
    asked = set(re.findall(r"\bktlsgate_\w+", text))
    assert asked <= there and len(asked) > 10
    panels = json.loads(text)["panels"]
    assert all(t["expr"] and "$instance" in t["expr"] for p in panels for t in p["targets"])
    assert len({p["id"] for p in panels}) == len(panels)
