# SPDX-License-Identifier: Apache-2.0
"""The unit tests in C: each program of build/unit is one test."""

import subprocess

import pytest

from harness.daemon import BUILD

PROGRAMS = sorted(p for p in (BUILD / "unit").glob("test_*") if not p.suffix)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_unit(program):
    r = subprocess.run([program], capture_output=True, text=True, timeout=170, check=False)
    assert r.returncode == 0, r.stdout[-8000:] + r.stderr[-8000:]


def test_there_are_unit_tests():
    assert PROGRAMS, f"{BUILD}/unit is empty: run make unit"
