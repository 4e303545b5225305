"""The examples of a page run as they stand, in order, in one fresh interpreter with JAX's default settings.

`docs/tools/examples.py` says how a page marks what is not run, what is printed and what it needs.
"""

import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("examples", ROOT / "docs" / "tools" / "examples.py")
examples = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(examples)

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def parameter(page):
    """A page, slow where it says so."""
    text = page.read_text()
    name = page.relative_to(ROOT).as_posix().removeprefix("docs/")
    return pytest.param(page, id=name, marks=[pytest.mark.slow] if "<!-- long -->" in text else [])


WITH_EXAMPLES = [parameter(page) for page in PAGES if examples.script(page.read_text()).strip()]


@pytest.mark.parametrize("page", WITH_EXAMPLES)
def test_examples_run(page, tmp_path):
    if missing := examples.needs(page.read_text()):
        pytest.skip(f"needs {', '.join(missing)}")
    run = examples.run(page, tmp_path)
    assert run.returncode == 0, run.stderr
    assert not examples.stale(page.read_text(), run.stdout), "python docs/tools/examples.py --write renews outputs"


def test_readme_shows_python():
    assert examples.script((ROOT / "README.md").read_text()).strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert not [target for target in local if not (page.parent / target).exists() and target != "bibliography.md"]


def test_script_keeps_line_numbers_and_leaves_out_what_is_marked():
    page = "text\n```python\na = 1\n```\n<!-- not run -->\n```python\nb\n```\n```sh\nc\n```\n```python\nd = 4\n```\n"
    lines = examples.script(page).splitlines()
    assert {i: line for i, line in enumerate(lines) if line} == {2: "a = 1", 12: "d = 4"}


def test_outputs_are_compared_but_for_their_numbers():
    page = "```python\nprint('k-hat', 0.31)\n```\n\n<!-- output -->\n```text\nk-hat 0.29\n```\n"
    assert not examples.stale(page, "k-hat 0.31\n\f")
    assert examples.stale(page, "ess 0.29\n\f") == ["ess 0.29\n"]
    assert "0.31" in examples.renewed(page, "k-hat 0.31\n\f")
