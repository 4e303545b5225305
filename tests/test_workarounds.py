"""The table of workarounds: whole, current, found at the places it names, and its reproductions run."""

import ast
import os
import pathlib
import re
import subprocess
import sys

import pytest

from elbojax import workarounds
from elbojax.workarounds import WORKAROUNDS, __main__, lapack

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "elbojax"
QUICK = {"constants", "dataclasses", "maxima", "in place", "transfers", "equations", "kept traces", "scans", "ynn"}
"""Rows whose reproductions take some seconds, most of them for the import of JAX."""
VERSIONS = re.compile(r"jaxlib|\bjax (?:up to )?0\.\d|0\.\d+\.\d+ on CPU|deadlock|work-?around for")
rows = pytest.mark.parametrize("row", WORKAROUNDS, ids=lambda row: row.name)


@rows
def test_every_field_is_filled_and_the_reproduction_parses(row):
    for field in ("name", "versions", "symptom", "reproduction", "instead", "places", "may_go"):
        assert getattr(row, field), f"{row.name} lacks {field}"
    assert row.symptom.endswith(".") and row.instead.endswith(".") and row.may_go.endswith(".")
    tree = ast.parse(row.reproduction)
    assert ast.unparse(tree.body[-1]).count("gone") or isinstance(tree.body[-1], ast.Try)


@rows
def test_the_places_name_the_row(row):
    for place in row.places:
        text = (PACKAGE / place).read_text()
        at_home = place.startswith("workarounds/") or "from elbojax.workarounds" in text
        assert at_home or f'workaround "{row.name}"' in text, f"{place} does not name {row.name}"
    if row.has_switch:
        assert f'is_on("{row.name}")' in "".join((PACKAGE / place).read_text() for place in row.places)


def test_names_differ():
    assert len({row.name for row in WORKAROUNDS}) == len(WORKAROUNDS)


def test_versions_stand_in_the_table_alone():
    """A comment that names a version of JAX belongs in a row of the table."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        if PACKAGE / "workarounds" not in path.parents
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if VERSIONS.search(line) and not any(words in line for words in ("LIBRARIES", "NEEDED = ", "_root(kind)"))
    ]
    assert not found, "\n".join(found)


def test_the_page_is_current():
    page = (ROOT / "docs" / "workarounds.md").read_text()
    assert __main__.markdown() in page, "python -m elbojax.workarounds --markdown prints the table"


@pytest.mark.parametrize("name", sorted(QUICK))
def test_quick_reproductions_run(name):
    (row,) = (row for row in WORKAROUNDS if row.name == name)
    assert __main__.verdict(row).startswith(("needed", "gone"))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({row.name for row in WORKAROUNDS} - QUICK))
def test_slow_reproductions_run(name):
    (row,) = (row for row in WORKAROUNDS if row.name == name)
    assert __main__.verdict(row).startswith(("needed", "gone"))


@pytest.mark.slow
def test_the_lapack_calls_hang_where_the_table_says_so():
    """So that a watchdog that finds nothing means something. With one processor there is one thread, and no such hang."""
    (row,) = (row for row in WORKAROUNDS if row.name == "lapack")
    if lapack.AFFECTED and os.cpu_count() == 2:
        assert __main__.verdict(row) == "needed: hangs"
    elif not lapack.AFFECTED:
        assert __main__.verdict(row) == "gone"


@pytest.mark.slow
def test_the_program_that_hangs_ends_with_the_workaround():
    (row,) = (row for row in WORKAROUNDS if row.name == "lapack")
    assert __main__.verdict(row._replace(reproduction="import elbojax\n" + row.reproduction)) == "gone"


@pytest.mark.slow
def test_a_program_that_hangs_is_told_from_one_that_fails():
    waits = "import threading\nthreading.Event().wait()"
    row = WORKAROUNDS[0]._replace(reproduction=waits, hangs=True)
    assert __main__.verdict(row) == "needed: hangs"
    assert __main__.verdict(row._replace(hangs=False)).startswith("unknown")
    fails = __main__.verdict(row._replace(reproduction="raise ValueError(3)"))
    assert fails.startswith("unknown") and fails.endswith("ValueError: 3")


@pytest.mark.parametrize("value", ["-lapack", "-lapack,-constants", "-constants -lapack"])
def test_off_switch(monkeypatch, value):
    monkeypatch.setenv("ELBOJAX_WORKAROUNDS", value)
    assert not workarounds.is_on("lapack")
    assert workarounds.is_on("constants") == ("-constants" not in value)
    assert workarounds.is_on("options")


def test_command_line():
    command = [sys.executable, "-m", "elbojax.workarounds"]
    done = subprocess.run([*command, "equations"], capture_output=True, text=True, timeout=300, check=True)
    assert "Here: " in done.stdout and "jaxlib" in done.stdout
    refused = subprocess.run([*command, "none such"], capture_output=True, text=True, timeout=300, check=False)
    assert refused.returncode == 2 and "no such rows: none such" in refused.stderr
