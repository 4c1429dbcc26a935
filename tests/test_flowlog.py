# SPDX-License-Identifier: Apache-2.0
"""log.flows: a line for each flow at its end, whatever happens to the file meanwhile."""

import json
import os
import subprocess
import time

from harness import client as clients
from harness.daemon import Ktlsgated, program, settings, wait_until
from harness.peer import SCALE
from harness.ports import HOST


def transfer(gate, pki, n=5):
    """One flow; the client's port."""
    with clients.connected(gate.port, pki=pki, certkey=pki.client()) as c:
        c.send(b"x" * n)
        assert c.recv_exactly(n) == b"x" * n
        c.close_notify()
        c.recv()
        return c.sock.getsockname()[1]


def lines(path):
    return [json.loads(x) for x in path.read_text().splitlines()]


def test_a_line_for_each_flow(gate, pki, backend, engine, tmp_path):
    path = tmp_path / "flows"
    before = time.time() * 1000
    g = gate(settings(pki, backend.port, log__flows=path))
    port = transfer(g, pki, 30_000)
    with clients.connect(g.port, pki=pki) as c:  # has no certificate
        c.handshake()
        c.recv()
    assert wait_until(lambda: len(lines(path)) == 2, 10 * SCALE)
    assert path.stat().st_mode & 0o777 == 0o640
    done, refused = lines(path)
    assert done["client"] == f"{HOST}:{port}" and done["backend"] == f"{HOST}:{backend.port}"
    assert (done["vserver"], done["service"], done["reason"]) == ("app", "app1", "done")
    assert (done["engine"], done["client_tls"], done["backend_tls"]) == (engine, "TLSv1.3", "TLSv1.3")
    assert done["bytes_from_client"] == done["bytes_from_backend"] == 30_000
    assert before <= done["start_ms"] <= done["end_ms"] <= time.time() * 1000 + 1
    assert len(done["identity"]) == 16 and done["forged"] is True
    for side in ("client", "backend"):
        assert 30_000 < done[f"{side}_bytes_rx"] < 50_000
        assert 30_000 < done[f"{side}_bytes_tx"] < 50_000
        assert done[f"{side}_packets_rx"] > 3 and done[f"{side}_packets_tx"] > 3
        assert 0 < done[f"{side}_rtt_us"] < 10_000_000
    assert refused["reason"] == "client_cert_required" and refused["identity"] == ""
    assert refused["engine"] == "none" and refused["bytes_from_client"] == 0
    assert g.stats()["flow_log_lost"] == 0


def test_rotated(gate, pki, backend, tmp_path):
    """By copytruncate, in place; by a new file, with a reload."""
    path = tmp_path / "flows"
    g = gate(settings(pki, backend.port, log__flows=path))
    transfer(g, pki)
    assert wait_until(lambda: len(lines(path)) == 1, 10 * SCALE)
    os.truncate(path, 0)
    transfer(g, pki)
    assert wait_until(lambda: len(lines(path)) == 1, 10 * SCALE)
    path.rename(tmp_path / "flows.1")
    g.ctl("reload")
    transfer(g, pki)
    assert wait_until(lambda: path.exists() and len(lines(path)) == 1, 10 * SCALE)
    assert len(lines(tmp_path / "flows.1")) == 1


def test_full_disk(gate, pki, backend):
    """Lost lines are counted; flows go on."""
    g = gate(settings(pki, backend.port, log__flows="/dev/full"))
    for n in range(3):
        transfer(g, pki)
        assert g.stat_reaches("flow_log_lost", n + 1)


def test_reader_that_does_not_read(gate, pki, backend, tmp_path):
    """A full pipe holds up nobody."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        while True:
            os.write(reader, b"x" * 4096)
    except BlockingIOError:
        pass
    g = gate(settings(pki, backend.port, log__flows=path))
    transfer(g, pki)
    assert g.stat_reaches("flow_log_lost", 1)
    transfer(g, pki)
    os.close(reader)


def test_no_such_directory(pki, backend, engine, tmp_path):
    g = Ktlsgated(tmp_path / "g", pki, engine, settings(pki, backend.port,
                                                        log__flows="/no/such/file"))
    done = subprocess.run([program("ktlsgated"), "-c", g.conf_file], capture_output=True, text=True,
                          timeout=20 * SCALE, check=False)
    assert done.returncode == 1
    assert "log.flows = /no/such/file: No such file or directory" in done.stderr
