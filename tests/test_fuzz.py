# SPDX-License-Identifier: Apache-2.0
"""
Each fuzz target for a short while: no crash, no leak, and no input that costs more CPU time than
its length allows. `make fuzz` runs them for longer; tests/fuzz/README.md has the targets.
"""

import concurrent.futures
import filecmp
import importlib.machinery
import importlib.util
import os
import re
import subprocess

import pytest

from harness.daemon import BUILD, ROOT

SECONDS = int(os.environ.get("KTLSGATE_FUZZ_SECONDS", "20"))
FUZZ = ROOT / "tests/fuzz"
CORES = len(os.sched_getaffinity(0))


def program(path):
    """A Python program without a suffix, as a module."""
    loader = importlib.machinery.SourceFileLoader(path.name.replace("-", "_"), str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


runner = program(FUZZ / "run")

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(SECONDS == 0, reason="KTLSGATE_FUZZ_SECONDS=0: make asan and tsan build "
                                            "everything with sanitizers of their own"),
]


@pytest.fixture(scope="module")
def build():
    """Where the targets are. One that cannot be built fails every test here."""
    # As make writes it into its lists of what depends on which header.
    where = os.path.relpath(BUILD, ROOT)
    made = subprocess.run(["make", "-C", ROOT, f"-j{CORES}", f"B={where}", "fuzzers"],
                          capture_output=True, text=True, timeout=1000, check=False)
    assert made.returncode == 0, made.stdout[-4000:] + made.stderr[-4000:]
    return BUILD / "fuzz"


@pytest.fixture(scope="module")
def running(build):
    """All of them, as many at a time as there are cores: name -> future of what was found."""
    with concurrent.futures.ThreadPoolExecutor(CORES) as pool:
        yield {name: pool.submit(runner.fuzz, build, name, SECONDS) for name in runner.targets()}


@pytest.mark.parametrize("name", runner.targets())
def test_nothing_is_found(build, running, name):
    trouble = running[name].result()
    assert not trouble, trouble
    assert runner.runs(build, name) >= len(list((FUZZ / "seeds" / name).iterdir()))


def selftest(build, tmp_path, data):
    """A target with faults, fed with data."""
    path = tmp_path / "input"
    path.write_bytes(data)
    return subprocess.run([build / "selftest", path], cwd=tmp_path, capture_output=True, text=True,
                          timeout=100, check=False)


@pytest.mark.parametrize("data, complaint", [
    (b"q" + bytes(6000), "too slow: 6001 bytes"),
    (b"o", "heap-buffer-overflow"),
    (b"l", "detected memory leaks"),
], ids=["quadratic", "overflow", "leak"])
def test_faults_are_found(build, tmp_path, data, complaint):
    r = selftest(build, tmp_path, data)
    assert r.returncode and complaint in r.stderr


def test_what_is_linear_passes(build, tmp_path):
    r = selftest(build, tmp_path, b"a" * 6000)
    assert r.returncode == 0, r.stderr


def test_seeds_are_those_of_the_generator(tmp_path):
    subprocess.run([FUZZ / "make-seeds", tmp_path], check=True)
    for target in tmp_path.iterdir():
        names = sorted(p.name for p in target.iterdir())
        same, different, missing = filecmp.cmpfiles(target, FUZZ / "seeds" / target.name, names,
                                                    shallow=False)
        assert (different, missing, len(same)) == ([], [], len(names))


def test_each_target_is_explained():
    explained = re.findall(r"^\| `(\w+)` \|", (FUZZ / "README.md").read_text(), re.MULTILINE)
    assert sorted(explained) == runner.targets()
