# SPDX-License-Identifier: Apache-2.0
"""Each reason of daemon/conn/reason.h is named by an end-to-end test, or here, with why none can."""

import ast
import pathlib
import re

from harness.daemon import REASONS, ROOT

# Reachable only from inside. What stands in for an end-to-end test is named.
UNREACHABLE = {
    "forge_proof": "needs a worker that shows the signer a handshake that no client has signed: "
                   "tests/unit/test_signer.c plays it",
    "forge_token": "the worker looks at a token's end itself, and at nothing that was not sealed by "
                   "it: tests/unit/test_signer.c",
    "forge_full": "needs half a million new clients within timeout.handshake: "
                  "tests/unit/test_signer.c",
    "forge_replay": "needs a worker that asks twice for one handshake, and ours asks once: "
                    "tests/unit/test_signer.c plays the worker",
}


def named(path):
    """
    Every string a test file compares or passes, docstrings not among them; an f-string that begins
    with the side ({by}_reset) stands for both.
    """
    tree = ast.parse(path.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and len(node.values) == 2 and isinstance(
                node.values[0], ast.FormattedValue) and isinstance(node.values[1], ast.Constant):
            yield from (side + node.values[1].value for side in ("client", "backend"))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def test_each_reason_is_tested():
    tests = [p for p in pathlib.Path(__file__).parent.glob("test_*.py") if p.name != "test_reasons.py"]
    tested = {name for path in tests for name in named(path)} & set(REASONS)
    assert set(REASONS) - tested == set(UNREACHABLE)


def test_reasons_are_all_read():
    """The pattern that reads the table misses no row."""
    rows = re.findall(r"^\tX\(", (ROOT / "daemon/conn/reason.h").read_text(), re.MULTILINE)
    assert len(rows) == len(REASONS) > 50
