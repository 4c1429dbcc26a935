# SPDX-License-Identifier: Apache-2.0
"""
The daemon's processes one by one: a signer that is stopped, slow or refuses; a signer or data
process that is killed; and the end of them all.
"""

import collections
import contextlib
import datetime
import os
import pathlib
import pwd
import re
import signal
import subprocess
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from harness import client as clients
from harness import peer
from harness.daemon import REASONS, ctl, program, settings, wait_until

WORKERS = 2
VERSION = pytest.mark.parametrize("version", peer.VERSIONS)


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it was killed meanwhile
            os.kill(pid, signal.SIGCONT)


def serve(g, pki, **options):
    with clients.connected(g.port, pki=pki, **options) as c:
        clients.ping(c)


def refused(g, pki, backend, alert, **options):
    """The client's alert; the backend waits at its CertificateRequest and is told, too."""
    n = len(backend.seen)
    with clients.connect(g.port, pki=pki, **options) as c:
        assert not (c.handshake() and c.recv())
        assert c.ended == "alert " + alert
    seen = backend.connection(n).wait()
    assert (seen.handshake, seen.ended) == (False, "alert handshake_failure")


# ---- what each of them has ----

PRIVATE = {"program", "library", "[heap]", "[stack]", "[vvar]", "[vvar_vclock]", "[vdso]",
           "[vsyscall]", "memory"}
# Kinds of mappings and of descriptors: whatever is found beyond them is a mistake.
MAPPINGS = {
    None: PRIVATE | {"memfd:ktlsgate-counters", "memfd:ktlsgate-flows"},
    "signer": PRIVATE | {"memfd:ktlsgate-replay", "memfd:ktlsgate-fresh"},
    "resolver": PRIVATE | {"memfd:ktlsgate-resolved"},
    "data": PRIVATE | {"memfd:ktlsgate-counters", "memfd:ktlsgate-flows",
                       "memfd:ktlsgate-fresh", "memfd:ktlsgate-resolved", "[io_uring]"},
}
DESCRIPTORS = {
    "signer": {"pipe": 1, "socket": WORKERS, "[eventpoll]": 1},
    "resolver": {"pipe": 1},
    # One listening socket and one to the signer for each worker, and the supervisor's channel.
    "data": {"socket": 2 * WORKERS + 1, "[io_uring]": WORKERS, "[eventfd]": WORKERS,
             "/proc/PID/net/tls_stat": 1},
}


def kind_of_mapping(line):
    """Of a line of /proc/PID/maps; what is writable and shared is named as it is."""
    fields = line.split(None, 5)
    access, name = fields[1], fields[5].strip() if len(fields) > 5 else ""
    if access.endswith("p"):
        if not name or name.startswith(("[anon", "[stack")):
            return name.startswith("[stack") and "[stack]" or "memory"
        if name == str(program("ktlsgated")):
            return "program"
        if re.search(r"/(lib|ld-)[^/]*\.so[.\d]*$", name) and access != "rwxp":
            return "library"
    return re.sub(r"^/(memfd:\S+) \(deleted\)$|^anon_inode:(\S+)$", r"\1\2", name)


def mappings(pid):
    maps = pathlib.Path(f"/proc/{pid}/maps").read_text()
    return {kind_of_mapping(line) for line in maps.splitlines()}


def first_address(pid):
    """Where the kernel has put the program."""
    maps = pathlib.Path(f"/proc/{pid}/maps").read_text()
    return next(line.split("-")[0] for line in maps.splitlines()
                if line.endswith(str(program("ktlsgated"))))


def descriptors(pid):
    """How many there are of each kind, but for standard input, output and error."""
    found = collections.Counter()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if int(fd) > 2:
            name = os.readlink(f"/proc/{pid}/fd/{fd}")
            name = re.sub(r"^(pipe|socket):.*|^anon_inode:(\S+)$", r"\1\2", name)
            found[re.sub(r"^/proc/\d+/", "/proc/PID/", name)] += 1
    return found


@pytest.fixture
def resolving(gate, pki, backend):
    """A gate with a resolver, so with one process of each kind."""
    return gate(settings(pki, backend.port, dataplane__workers=WORKERS,
                         service__app1__address=f"localhost:{backend.port}"))


def test_what_each_process_has(resolving, pki):
    """No memory, no descriptor and no file of another one's."""
    g = resolving
    serve(g, pki, certkey=pki.client())
    if g.sanitized():
        pytest.skip("a sanitizer has mappings of its own")
    assert g.stat_reaches("flows_closed", 1)
    pids = {None: g.process.pid, **{role: g.role(role) for role in DESCRIPTORS}}
    for role, pid in pids.items():
        assert mappings(pid) <= MAPPINGS[role], role
    for role, kinds in DESCRIPTORS.items():
        found = descriptors(pids[role])
        # What a kernel without TLS does not have is not open, either.
        assert {**found, **{k: n for k, n in kinds.items() if k.startswith("/proc")}} == kinds, role


def test_each_process_has_a_layout_of_its_own(resolving):
    """Who knows where one has its code knows nothing of another, nor of the next one."""
    g = resolving
    pids = [g.process.pid, *(g.role(role) for role in DESCRIPTORS)]
    seen = {first_address(pid) for pid in pids}
    assert len(seen) == len(pids)
    for role in DESCRIPTORS:
        pid = g.role(role)
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: g.role(role) not in (None, pid), 5)
        assert first_address(g.role(role)) not in seen


USERS = {"signer": "daemon", "resolver": "bin", "data": "nobody"}


def status(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return dict(line.split(":", 1) for line in text.splitlines())


def root_is_empty(pid):
    """A directory that was removed cannot even be listed."""
    try:
        return os.listdir(f"/proc/{pid}/root/") == []
    except FileNotFoundError:
        return True


def test_rights_of_each_process(gate, pki, backend):
    g = gate(settings(pki, backend.port, dataplane__user=USERS["data"],
                      signer__user=USERS["signer"], resolver__user=USERS["resolver"],
                      service__app1__address=f"localhost:{backend.port}"))
    serve(g, pki, certkey=pki.client())
    found = status(g.process.pid)
    assert found["NoNewPrivs"].strip() == "1"
    assert g.sanitized() or found["Seccomp"].strip() == "2"
    for role, user in USERS.items():
        found, user = status(g.role(role)), pwd.getpwnam(user)
        assert found["Uid"].split() == 4 * [str(user.pw_uid)], role
        assert found["Gid"].split() == 4 * [str(user.pw_gid)], role
        assert found["Groups"].split() == [str(user.pw_gid)], role
        assert found["NoNewPrivs"].strip() == "1", role
        assert {int(found[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
        if not g.sanitized():
            assert found["Seccomp"].strip() == "2", role
            assert root_is_empty(g.role(role)) == (role != "resolver"), role


def test_users_are_that_of_the_data_process_by_default(gate, pki, backend):
    g = gate(settings(pki, backend.port, dataplane__user="nobody"))
    uid = str(pwd.getpwnam("nobody").pw_uid)
    assert [status(pid)["Uid"].split()[0] for pid in (g.signer(), g.data_process())] == [uid, uid]


# ---- who checks ----


def test_what_was_checked_is_what_runs(gate, pki, backend, tmp_path):
    """
    Certificates that are changed on disk come into force by a reload, and not by the death of a
    process: all have what was there when the configuration was checked.
    """
    ca = tmp_path / "client-ca.pem"
    ca.write_bytes(pathlib.Path(pki.client_root.cert_file).read_bytes())
    g = gate(settings(pki, backend.port, profile__front__client_ca=ca))
    ca.write_text("nothing of the kind\n")
    for pid in (g.signer(), g.data_process()):
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: g.role("signer") and g.role("data"), 5)
    serve(g, pki, certkey=pki.client())
    done = ctl("-s", g.socket, "reload")
    assert done.returncode == 1 and "profile.front.client_ca" in done.stderr
    serve(g, pki, certkey=pki.client())


def test_rights_of_the_checking_process(gate, pki, backend):
    """It sees the keys; so it has a filter, and no right but to read files."""
    g = gate(settings(pki, backend.port))
    if g.sanitized():
        pytest.skip("a sanitizer needs what the filter forbids")
    seen = set()

    def look():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, TypeError):
            found = status(g.role("check"))
            seen.add((found["Seccomp_filters"].strip(), found["NoNewPrivs"].strip(),
                      int(found["CapEff"], 16)))

    def reload_and_look():
        g.process.send_signal(signal.SIGHUP)
        end = g.log().count("reloaded:") + 1
        assert wait_until(lambda: look() or g.log().count("reloaded:") >= end, 20)
        return any(filters == "2" for filters, _, _ in seen)

    assert wait_until(reload_and_look, 60)
    assert all(nnp == "1" for _, nnp, _ in seen)
    assert {caps for filters, _, caps in seen if filters == "2"} == {1 << 2}  # DAC_READ_SEARCH


# ---- what is not in the memory of a process ----


def memory(pid):
    """All that it can read, but for what the kernel maps."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as mem:
        for line in maps:
            start, end = (int(x, 16) for x in line.split()[0].split("-"))
            if "r" in line.split()[1] and not re.search(r"\[v|io_uring", line):
                mem.seek(start)
                with contextlib.suppress(OSError):  # beyond the end of a file
                    yield mem.read(end - start)


def secret_of(certkey):
    """Of a private key the secret numbers, as OpenSSL keeps them and as a file does."""
    key = load_pem_private_key(pathlib.Path(certkey.key_file).read_bytes(), None)
    numbers = key.private_numbers()
    n = getattr(numbers, "p", None) or numbers.private_value
    big = n.to_bytes((n.bit_length() + 7) // 8, "big")
    return {big, big[::-1]}


def token_secret(pid):
    """What is at the beginning of the signers' shared memory, in pieces that look like a key."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as mem:
        start = next(int(m.split("-")[0], 16) for m in maps if "memfd:ktlsgate-replay" in m)
        mem.seek(start)
        page = mem.read(4096)
    pieces = {page[i:i + 16] for i in range(0, len(page) - 16, 8)}
    return {p for p in pieces if len(set(p)) > 10}


def certificate(certkey):
    return {x509.load_pem_x509_certificate(pathlib.Path(certkey.cert_file).read_bytes())
            .public_bytes(Encoding.DER)[-64:]}  # its signature


def holders(pids, secret):
    return {role for role, pid in pids.items()
            if any(piece in text for text in memory(pid) for piece in secret)}


def test_who_has_secrets_in_memory(resolving, pki):
    """Each secret is with who needs it, and the supervisor parses no certificate."""
    g = resolving
    serve(g, pki, certkey=pki.client())
    g.reload()  # so that the supervisor has done all that it does
    serve(g, pki, certkey=pki.client())
    assert wait_until(lambda: len(g.generations()) == 1, 10)
    pids = {"supervisor": g.process.pid, **{role: g.role(role) for role in DESCRIPTORS}}
    assert holders(pids, secret_of(pki.forge())) == {"signer"}
    assert holders(pids, token_secret(pids["signer"])) == {"signer"}
    assert holders(pids, secret_of(pki.web())) == {"data"}
    assert "supervisor" not in holders(pids, certificate(pki.client_root))
    assert "signer" in holders(pids, certificate(pki.client_root))


def environment(pid):
    words = pathlib.Path(f"/proc/{pid}/environ").read_text().split("\0")
    return {word.split("=")[0] for word in words}


def test_environment(monkeypatch, gate, pki, backend):
    """What is between the service manager and the supervisor is nobody else's."""
    manager = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "60000000"}
    for name, value in manager.items():
        monkeypatch.setenv(name, value)
    g = gate(settings(pki, backend.port))
    own = environment(g.process.pid)
    assert own.issuperset(manager)
    assert environment(g.signer()) == environment(g.data_process()) == own - set(manager)


def test_role_is_not_for_people():
    """Executed by hand, without a brief of the supervisor's."""
    done = subprocess.run([program("ktlsgated"), "--role", "signer", "--brief", "0"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--role is for ktlsgated itself" in done.stderr


# ---- a signer that does not answer ----


@VERSION
def test_signer_does_not_answer(gate, pki, backend, version):
    """New identities fail in time; known ones are served, and what is established goes on."""
    g = gate(settings(pki, backend.port, timeout__backend_handshake="1s"))
    known = pki.client("Known")
    with clients.connected(g.port, pki=pki, certkey=known, version=version) as c:
        clients.ping(c)
        with stopped(g.signer()):
            started = time.monotonic()
            with g.ends_with("forge_timeout"):
                refused(g, pki, backend, "internal_error", certkey=pki.client("New"),
                        version=version)
            assert 0.9 < time.monotonic() - started < 5
            clients.ping(c)
            serve(g, pki, certkey=known, version=version)
            clients.ping(c)
        # Its answer to the flow that is gone comes now, and is nobody's.
        serve(g, pki, certkey=pki.client("Newer"), version=version)
        clients.ping(c)
    assert g.stats()["forged"] == 2


def test_signer_answers_late(gate, pki, backend):
    """Stopped for a moment: the handshakes wait for it, all of them."""
    g = gate(settings(pki, backend.port))
    identities = [pki.client(f"Client {n}") for n in range(5)]
    with contextlib.ExitStack() as stack:
        waiting = []
        with stopped(g.signer()):
            for certkey in identities:
                c = stack.enter_context(clients.connect(g.port, pki=pki, certkey=certkey,
                                                        version="1.3"))
                assert c.handshake()  # TLS 1.3: on the client's side it is complete
                waiting.append(c)
            time.sleep(0.2)
            assert g.stats()["flows_established"] == 0
        for c in waiting:
            clients.ping(c)
    assert g.stats()["forged"] == 5


# ---- a signer that refuses ----


def test_certificate_expires_while_the_signer_is_slow(gate, pki, backend):
    """The signer believes no worker: it verifies the chain itself, at its own time."""
    g = gate(settings(pki, backend.port))
    expires = datetime.datetime.utcnow().replace(microsecond=0) + datetime.timedelta(seconds=2)
    certkey = pki.client(not_after=expires)
    signer = g.signer()

    def wake():
        time.sleep((expires - datetime.datetime.utcnow()).total_seconds() + 1.1)
        os.kill(signer, signal.SIGCONT)

    thread = threading.Thread(target=wake)
    with stopped(signer), g.ends_with("forge_chain"):
        thread.start()
        refused(g, pki, backend, "certificate_unknown", certkey=certkey)
    thread.join()
    assert g.stats()["forge_cache_misses"] == 1  # for the worker it was still valid
    assert g.log_contains(r"chain was refused: certificate has expired \(forge_chain\)")


# ---- killed ----


def test_killed_signer_is_started_again(gate, pki, backend):
    """Nobody notices: what is established goes on, and a new identity waits for the new signer."""
    g = gate(settings(pki, backend.port))
    with clients.connected(g.port, pki=pki, certkey=pki.client("One")) as c:
        clients.ping(c)
        signer = g.signer()
        os.kill(signer, signal.SIGKILL)
        assert g.log_contains(rf"signer \(pid {signer}\) died: killed by signal 9 .*again", 5)
        serve(g, pki, certkey=pki.client("Two"))
        clients.ping(c)
        assert g.signer() not in (None, signer)
    assert g.stats()["forged"] == 2


def test_signer_lets_workers_go_first(gate, pki, backend):
    """Where cores are few, one with more to do than it can would slow down who does not need it."""
    g = gate(settings(pki, backend.port))
    own, signer = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (g.process.pid, g.signer()))
    assert signer == min(own + 10, 19)


def test_killed_data_process_is_started_again(gate, pki, backend):
    """Its flows end with it, by no close_notify; the listening sockets stay, the next one waits."""
    g = gate(settings(pki, backend.port))
    with clients.connected(g.port, pki=pki, certkey=pki.client()) as c:
        clients.ping(c)
        data, signer = g.data_process(), g.signer()
        os.kill(data, signal.SIGKILL)
        assert c.recv() == b"" and c.ended in ("eof", "rst")
        assert backend.connection().wait().ended in ("eof", "rst")
    serve(g, pki, certkey=pki.client())
    assert g.log_contains(rf"data process \(pid {data}\) died: killed by signal 9 .*again")
    assert g.data_process() not in (None, data) and g.signer() == signer
    # Counters go on, in memory of the supervisor's; what the dead one had is gone.
    assert g.stats()["flows_established"] == 2
    assert g.stat_reaches("flows_closed", 1) and g.stats()["flows_active"] == 0


def test_both_killed_again_and_again(gate, pki, backend):
    g = gate(settings(pki, backend.port))
    for _ in range(2):
        for pid in (g.signer(), g.data_process()):
            os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: len(g.processes()) == 1, 5)
        serve(g, pki, certkey=pki.client())


# ---- the end ----


@pytest.mark.datapath
def test_shutdown(gate, pki, backend):
    """
    SIGTERM: flows in every stage end, for this reason, told to both sides and never by
    close_notify.
    """
    g = gate(settings(pki, backend.port))
    with contextlib.ExitStack() as stack:
        def open_flow(version):
            return stack.enter_context(clients.connect(
                g.port, pki=pki, certkey=pki.client(), version=version))

        relayed = {v: open_flow(v) for v in peer.VERSIONS}
        for c in relayed.values():
            assert c.handshake()
            clients.ping(c)
        silent = stack.enter_context(clients.tcp(g.port))
        shaking = open_flow("1.2")
        ended = []

        def stop():
            """In place of the client's certificate; the rest of the flight is written to nobody."""
            assert g.stat_reaches("flows_active", 4)
            g.process.send_signal(signal.SIGTERM)
            assert wait_until(lambda: not g.running(), 10 * peer.SCALE)
            ended.append(g.process.returncode)

        assert not shaking.handshake(before_flight=stop)
        # TLS 1.3: see test_failures.never_authenticated().
        ends = [c.recv() or c.ended for c in (relayed["1.2"], relayed["1.3"])]
        assert (ended, ends) == ([0], ["alert user_canceled", "eof"])
        assert shaking.ended in ("alert user_canceled", "eof")
        assert silent.recv(100) == b"\x15\3\3\0\2\2\x5a" and silent.recv(100) == b""
        assert [s.wait().ended for s in backend.seen] == ["eof"] * 3
    reason = "shutdown"
    lines = re.findall(rf": {REASONS[reason]} \({reason}\)$", g.log(), re.MULTILINE)
    assert len(lines) == 4, g.log()
    g.process = None


def test_hung_signer_does_not_hang_the_end(gate, pki, backend):
    g = gate(settings(pki, backend.port))
    with stopped(g.signer()):
        g.process.send_signal(signal.SIGTERM)
        assert g.process.wait(5 + 5) == 1
    assert g.log_contains(r"signer \(pid \d+\) did not end within 5 s: killed")
    g.process = None
