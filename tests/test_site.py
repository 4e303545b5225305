"""What the site promises, as far as it can be seen without building it."""

import importlib.util
import pathlib

import pytest

TOOLS = pathlib.Path(__file__).parents[1] / "docs" / "tools"


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
