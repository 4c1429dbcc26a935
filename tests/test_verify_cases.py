# SPDX-License-Identifier: Apache-2.0
"""The verdicts of daemon/pki/verify.c on chains whose verdict was fixed beforehand, by one program."""

import re
import subprocess

import pytest

from harness import verify_cases
from harness.daemon import BUILD, ROOT
from harness.rawcert import pem

PROGRAM = BUILD / "tests/ktlsgate-verify-cases"


class Verdict:
    def __init__(self, line):
        name, *numbers, self.text = line.split(" ", 6)
        self.name = name
        self.error, self.depth, self.length, self.candidates, self.signatures = map(int, numbers)

    @property
    def word(self):
        return {0: "ok", -1: "unfit"}.get(self.error, "refused")


@pytest.fixture(scope="module")
def cases():
    return verify_cases.cases()


@pytest.fixture(scope="module")
def verdicts(cases, tmp_path_factory):
    where = tmp_path_factory.mktemp("cases")
    lines = []
    for c in cases:
        (where / c.name).mkdir()
        (where / c.name / "anchors.pem").write_text("".join(cert.pem for cert in c.anchors))
        (where / c.name / "chain.pem").write_text("".join(cert.pem for cert in c.chain))
        (where / c.name / "crls.pem").write_text("".join(pem("X509 CRL", der) for der in c.crls))
        lines.append(f"{c.name} {c.purpose} {c.now} {c.depth} {int(c.partial)} {c.crl_check}\n")
    (where / "cases").write_text("".join(lines))
    run = subprocess.run([PROGRAM, where], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return {v.name: v for v in map(Verdict, run.stdout.splitlines())}


def test_bad_accepted_and_good_refused(cases, verdicts):
    assert len(cases) == len({c.name for c in cases}) == len(verdicts) >= 300
    wrong = [c for c in cases if verdicts[c.name].word != c.verdict]
    accepted = [c for c in wrong if c.verdict != "ok"]
    refused = [c for c in wrong if c.verdict == "ok"]
    good = sum(c.verdict == "ok" for c in cases)
    print(f"{len(cases)} chains, {good} good, {len(cases) - good} bad: {len(accepted)} bad accepted, "
          f"{len(refused)} good refused")
    for kind, group in (("bad accepted", accepted), ("good refused", refused)):
        for c in group:
            print(f"{kind}: {c.name} ({c.rule}): {verdicts[c.name].text}")
    assert not accepted and not refused


def test_errors(cases, verdicts):
    """Where a case is about one error, that is the one told."""
    told = [(c.name, c.error, verdicts[c.name].error, verdicts[c.name].text) for c in cases if c.error]
    assert len(told) > 100
    assert [t for t in told if t[1] != t[2]] == []


def test_budget(verdicts):
    """No chain costs more than the budget, and the hostile ones come near to it."""
    text = (ROOT / "daemon/pki/verify.h").read_text()
    limits = dict(re.findall(r"#define VERIFY_(CANDIDATES|SIGNATURES)_MAX\s+(\d+)", text))
    assert all(v.candidates <= int(limits["CANDIDATES"]) and
               v.signatures <= int(limits["SIGNATURES"]) for v in verdicts.values())
    assert max(v.candidates for v in verdicts.values()) == int(limits["CANDIDATES"])
    # an ordinary chain is verified once
    assert (verdicts["signature-valid"].candidates, verdicts["signature-valid"].signatures) == (1, 2)
