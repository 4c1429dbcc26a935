# SPDX-License-Identifier: Apache-2.0
"""The manual says what the programs do: every option, key and counter is in it, and no other."""

import re
import shutil
import subprocess

import pytest

from harness.daemon import ROOT, program

MAN = ROOT / "man"
PAGES = {"ktlsgated": 8, "ktlsgatectl": 8, "ktlsgate-forge": 1, "ktlsgate-probe": 8,
         "ktlsgate-offload": 8, "ktlsgate-ns-import": 1}


def run(*argv):
    return subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=20,
                          check=True).stdout


def items(page):
    """The names of .It lines, without their markup."""
    found = re.findall(r"^\.It (.*)$", (MAN / page).read_text(), re.MULTILINE)
    return [re.sub(r"\b(Cm|Fl|Op|Ar|Dv|Ev|Pa)\b ?", "", item) for item in found]


@pytest.mark.parametrize("name, section", PAGES.items())
def test_options(name, section):
    text = run(program(name), "--help")
    offered = set(re.findall(r"(?<![\w-])--?([a-zA-Z][\w-]*)", text)) - {"json]"}
    page = (MAN / f"{name}.{section}").read_text()
    explained = set()
    for line in re.findall(r"^\.It Fl (.*)$", page, re.MULTILINE):
        explained |= {word.lstrip("-") for word in line.split(" Ar ")[0].split(" , ")}
    assert explained == offered


def test_commands():
    assert {"stats name ...", "metrics", "key ...", "status", "reload", "kill id ..."} <= set(items("ktlsgatectl.8"))


def test_keys():
    table = [row.split("\t") for row in run(program("ktlsgated"), "--keys").splitlines()[1:]]
    assert {row[0] for row in table} == {i for i in items("ktlsgate.conf.5") if "." in i
                                         and not i.startswith("/")}
    page = (MAN / "ktlsgate.conf.5").read_text()
    for key, kind, unit, what, default, _runtime, text in table:
        entry = page.split(f".It Cm {key}\n", 1)[1].split("\n.It", 1)[0]
        assert f"Type {kind}: {what}" in entry and text[1:] in entry
        assert unit == "-" or unit in entry
        assert {"mandatory": "Mandatory.", "unset": "Unset by default."}.get(
            default, f".Cm {default} .") in entry


def test_counters():
    table = [row.split("\t") for row in run(program("ktlsgated"), "--counters").splitlines()[1:]]
    page = (MAN / "ktlsgatectl.8").read_text()
    section = page[page.index(".Sh COUNTERS"):page.index(".Sh EXIT STATUS")]
    explained = dict(re.findall(r"^\.It Cm (\w+)\n(.*)$", section, re.MULTILINE))
    assert explained.keys() == {row[0] for row in table}
    for name, kind, text in table:
        ending = " (a gauge)." if kind == "gauge" else "."
        assert explained[name].lower() == (text + ending).lower()


def test_flow_fields():
    """Those that flow_show.c prints."""
    code = (ROOT / "daemon/flow/flow_show.c").read_text()
    code = code[code.index("void flow_print("):code.index("/* ---- the flow log ---- */")]
    fields = re.findall(r"(?:\"|\\t)([a-z_]+)=[%\"]", code)
    page = (MAN / "ktlsgatectl.8").read_text()
    section = page[page.index(".Sh FLOWS"):page.index(".Sh SERVICES")]
    explained = re.findall(r"^\.It Cm (.*)$", section, re.MULTILINE)
    assert sorted(fields) == sorted(" , ".join(explained).split(" , "))


def test_service_fields():
    code = (ROOT / "daemon/service/service.c").read_text()
    fields = re.findall(r"(?:\"|\\t)([a-z_]+)=[%\"]", code[code.index("void print_service("):
                                                       code.index("void services_print(")])
    page = (MAN / "ktlsgatectl.8").read_text()
    section = page[page.index(".Sh SERVICES"):page.index(".Sh COUNTERS")]
    explained = re.findall(r"^\.It Cm (.*)$", section, re.MULTILINE)
    assert sorted(fields) == sorted(" , ".join(explained).split(" , "))


def test_probe_features():
    """Of the eighteen kinds of keys the manual names one."""
    lines = run(program("ktlsgate-probe")).splitlines()
    names = {line.split("=")[0] for line in lines}
    keys = {n for n in names if re.match(r"tls1[23]_", n)}
    said = set(" , ".join(i for i in items("ktlsgate-probe.8")
                          if not re.match("h |V ", i)).split(" , "))
    assert said == names - keys | {"tls12_tx_aes_128_gcm No and so on"}


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
@pytest.mark.parametrize("page", sorted(p.name for p in MAN.iterdir()))
def test_markup(page):
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", MAN / page],
                          capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_generated_parts_are_fresh(tmp_path):
    shutil.copytree(MAN, tmp_path / "man")
    run(ROOT / "tools/mkman", program("ktlsgated"), tmp_path / "man")
    assert all((tmp_path / "man" / p.name).read_text() == p.read_text() for p in MAN.iterdir())


# ---- the documents ----


def named_tests():
    """(document, file, function or "") of each `tests/FILE::FUNCTION` in docs/."""
    for document in sorted((ROOT / "docs").glob("*.md")):
        for file, function in re.findall(r"`(tests/[\w/.-]+\.(?:py|c))(?:::(\w+))?`", document.read_text()):
            yield document.name, file, function


def is_there(file, function):
    path = ROOT / file
    return path.exists() and (not function or re.search(rf"^(static void|def) {function}\(",
                                                        path.read_text(), re.MULTILINE))


def test_tests_that_documents_name_are_there():
    found = list(named_tests())
    assert any(function for _, _, function in found)
    assert [name for name in found if not is_there(*name[1:])] == []


def test_each_asset_has_a_test():
    """A row of docs/security.md's table names one, or says that nothing stops anybody."""
    text = (ROOT / "docs/security.md").read_text()
    rows = re.findall(r"^\| (.*) \|$", text[text.index("| asset |"):text.index("## What the signer")],
                      re.MULTILINE)[2:]
    assert len(rows) > 20
    for row in rows:
        *_, defence, tests = row.split(" | ")
        assert "::" in tests or defence.startswith("Nothing"), row
