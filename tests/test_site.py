"""What the site promises, as far as it can be seen without building it."""

import ast
import importlib.util
import pathlib
import re

import pytest

import elbojax

ROOT = pathlib.Path(__file__).parents[1]
TOOLS = ROOT / "docs" / "tools"


def tool(name):
    spec = importlib.util.spec_from_file_location(f"site_{name}", TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checks = tool("checks")


def test_every_public_name_has_one_entry():
    assert checks.faults() == []


def test_a_public_name_without_entry_is_found(monkeypatch):
    monkeypatch.setattr(checks, "public", lambda: ["fit", "nothing_of_that_name"])
    assert checks.faults() == ["elbojax.nothing_of_that_name has no entry in docs/api"]


def test_dead_links_and_foreign_files_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html">1</a><a href="b.html#here">2</a><a href="b.html#gone">3</a><a href="c.html">4</a>'
        '<a href="https://example.org">5</a><a href="#top">6</a><h1 id="top"></h1><img src="//example.org/x.png">'
    )
    (tmp_path / "b.html").write_text('<h2 id="here"></h2>')
    (tmp_path / "s.css").write_text("@import 'https://example.org/font.css'; a { background: url(x.png) }")
    assert checks.dead(tmp_path) == [
        "a.html loads //example.org/x.png",
        "a.html links to b.html#gone, whose anchor is not there",
        "a.html links to c.html, which is not there",
        "s.css loads https://example.org/font.css",
    ]


def test_formulas_compile_or_raise():
    pytest.importorskip("latex2mathml")
    formulas = tool("formulas")
    assert formulas.mathml(r"\log p(x) = \mathrm E_q[z_{1:T}] + \arg\max_r \text{log\_marginal}", display=False)
    assert "<mtable" in formulas.mathml(r"a &= b \\ &= c", display=True)
    assert "<mo>\N{TILDE OPERATOR}</mo>" in formulas.mathml(r"y \sim \mathrm N(0, 1)", display=False)
    for wrong in (r"\nosuchcommand{x}", r"\frac{1}{", r"\left( x"):
        with pytest.raises(ValueError):
            formulas.mathml(wrong, display=True)


def test_docstrings_become_markdown():
    pytest.importorskip("griffe")
    docstrings = tool("docstrings")
    text = "Of :math:`x_n`.\n\n.. math:: a\n          = b\n\n.. math::\n\n    c\n\nExample:\n  >>> 1\n  1\n"
    expected = "Of $x_n$.\n\n\n$$\na\n= b\n$$\n\n\n$$\nc\n$$\nExamples:\n  >>> 1\n  1\n"
    assert docstrings.rewritten(text).split() == expected.split()


def test_the_bibliography_has_the_sources_of_docstrings():
    found = tool("bibliography").references()
    assert len(found) > 50
    assert any("1312.6114" in entry and "elbo" in names for entry, names in found.items())


STATUS = (ROOT / "docs" / "status.md").read_text()


def section(page, title):
    """From a heading that has the title in it to the next heading."""
    found = re.search(rf"^## [^\n]*{re.escape(title)}[^\n]*\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert found, f"no section {title!r}"
    return found[1]


def rows(text):
    """From the first cell of each row of tables to the others."""
    lines = [line.strip("|").split(" | ") for line in text.split("\n") if line.startswith("| `")]
    return {cells[0].strip().strip("`"): [cell.strip() for cell in cells[1:]] for cells in lines}


def classes():
    for path in sorted((ROOT / "elbojax").rglob("*.py")):
        yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef))


def enums():
    for node in classes():
        if any(re.search(r"(Enum|Flag)$", ast.unparse(base)) for base in node.bases):
            yield node.name, {t.id.lower() for n in node.body if isinstance(n, ast.Assign) for t in n.targets}


def test_every_code_of_every_enum_is_on_the_page_of_statuses():
    found = dict(enums())
    assert {"Status", "Stage", "Agreement"} <= found.keys()
    for name, members in found.items():
        title = "`Status` of a certificate" if name == "Status" else f"`{name}`"
        assert rows(section(STATUS, title)).keys() == members - ({"running"} if name == "Status" else set()), name
    assert "running" in rows(section(STATUS, "`Status` of runs"))


def test_every_row_has_a_cause_and_a_remedy():
    for title in ("certificate", "runs", "minibatches", "`Agreement`"):
        table = rows(section(STATUS, title))
        columns = {len(cells) for cells in table.values()}
        assert len(columns) == 1 and columns.pop() >= 2, title
        assert all(all(cells) for cells in table.values()), title


def test_next_steps_are_those_of_the_report():
    table = rows(section(STATUS, "certificate"))
    for status, sentence in elbojax.results.certificate.NEXT_STEP.items():
        assert table[str(status)][0] == sentence


def test_every_record_with_a_status_is_listed_with_its_codes():
    listed = {}
    for line in section(STATUS, "one-shot").split("\n"):
        cells = [re.findall(r"`(\w+)`", cell) for cell in line.strip("|").split("|")]
        if len(cells) == 2 and cells[0]:
            listed |= {name: set(cells[1]) for name in cells[0]}
    public = {name.rpartition(".")[2] for name in checks.public()}
    records = {}
    for node in classes():
        entry = re.search(r"^ +status: (.*?)(?=^ +\w+: |\Z)", ast.get_docstring(node) or "", re.MULTILINE | re.DOTALL)
        if entry and node.name in public:
            codes = {
                name.lower() for name in re.findall(r"\b[A-Z][A-Z_]+\b", entry[1]) if name in elbojax.Status.__members__
            }
            records[node.name] = records.get(node.name, set()) | codes
    assert records.keys() - {"Certificate"} == listed.keys() - {"Certificate"}
    for name, codes in records.items():
        assert name == "Certificate" or codes <= listed[name], name
