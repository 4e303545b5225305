"""README and the guide say what the rows say."""

import re

import pytest

from benchmarks.claims import figures as claimed
from benchmarks.claims.__main__ import PAGE, ROOT, absent
from benchmarks.claims.figures import Figure, figures
from benchmarks.claims.page import page
from benchmarks.claims.passages import PASSAGES, Passage
from benchmarks.claims.targets import Target, targets

SETTINGS = re.compile(r"`[^`]*`|\(\[[^)]*\)[^)]*\)|\[[^\]]*\]\([^)]*\)|\bD = \d+|\d{4}-\d\d-\d\d")
"""Code, links, dates: no figures."""


@pytest.mark.parametrize("passage", PASSAGES, ids=lambda passage: passage.template[:40])
def test_a_passage_is_as_the_rows_are(passage):
    assert passage.text in " ".join((ROOT / passage.file).read_text().split())


def test_the_page_is_that_of_the_rows():
    assert PAGE.read_text() == page(), "make benchmarks-page"


def test_a_figure_that_differs_is_found(monkeypatch):
    """Any single figure: none of them could be another number unseen."""
    shown = {name for passage in PASSAGES for name in passage.figures}
    assert not absent() and len(shown) > 40
    true = dict(figures())
    for name in shown:
        other = true[name]._replace(value=true[name].value * 2 + 1)
        monkeypatch.setattr("benchmarks.claims.passages.figures", lambda name=name, other=other: true | {name: other})
        assert absent(), name


def answers():
    """Cells of README's table of what was measured."""
    text = (ROOT / "README.md").read_text().partition("\n## Measured\n")[2].partition("\n## ")[0]
    return [line.split(" | ", 1)[1] for line in text.splitlines() if line.startswith("| ") and "---" not in line][1:]


def test_readme_claims_no_other_figure():
    assert len(answers()) > 4
    for cell in answers():
        for passage in PASSAGES:
            cell = cell.replace(passage.text, "")
        assert not re.search(r"\d", SETTINGS.sub("", cell)), cell


def test_formats():
    one = Figure(3.0, "", "", "", "")
    assert [f"{one}", f"{one:words}", f"{one:.2f}", f"{one._replace(value=0.0):words}"] == [
        "3",
        "three",
        "3.00",
        "none",
    ]
    assert [f"{one._replace(value=value)}" for value in (1000.0, 6138.5, 0.02156, 23.25)] == [
        "1,000",
        "6,138",
        "0.02156",
        "23.25",
    ]
    assert f"{one._replace(value=32.0):words}" == "32"


def test_targets_that_are_missed_say_so(monkeypatch):
    found = {"a/b": Figure(23, "good", "a", "2026-11-30", "cpu"), "a/c": Figure(24, "run", "a", "2026-11-30", "cpu")}
    monkeypatch.setattr("benchmarks.claims.targets.figures", lambda: found)
    share, small = Target("a/b", 1.0, True, "a/c"), Target("a/b", 25.0)
    assert not share.reached and share.line()[1:4] == ["at least 100.0%", "95.8% (23 of 24)", "**missed**"]
    assert small.reached and small.line()[1:4] == ["at most 25", "23", "reached"]


def test_every_target_has_its_figure():
    assert len({(one.figure, one.of) for one in targets()}) == len(targets()) > 30
    assert all(one.line()[3] in ("reached", "**missed**") for one in targets())


def test_passages_name_figures_that_there_are():
    with pytest.raises(KeyError):
        _ = Passage("README.md", "{nothing/at_all}").text
    assert all((claimed.RESULTS / f"{one.page}.md").is_file() for one in figures().values())
