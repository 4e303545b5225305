"""The examples of a page run as they stand, in order, in one fresh interpreter with JAX's default settings.

A block below the comment `<!-- not run -->` is left out.
"""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"(?P<skip><!-- not run -->\s*)?^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


def script(text):
    """The Python blocks of a page with everything else blanked, so that line numbers are those of the page."""
    lines = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        if not block["skip"]:
            first = text.count("\n", 0, block.start("code"))
            code = block["code"].splitlines()
            lines[first : first + len(code)] = code
    return "\n".join(lines)


WITH_EXAMPLES = [page for page in PAGES if script(page.read_text()).strip()]


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.name)
def test_examples_run(page, tmp_path):
    (tmp_path / page.name).write_text(script(page.read_text()))
    run = subprocess.run([sys.executable, page.name], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_readme_shows_python():
    assert script((ROOT / "README.md").read_text()).strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert not [target for target in local if not (page.parent / target).exists()]


def test_script_keeps_line_numbers_and_leaves_out_what_is_marked():
    page = "text\n```python\na = 1\n```\n<!-- not run -->\n```python\nb\n```\n```sh\nc\n```\n```python\nd = 4\n```\n"
    lines = script(page).splitlines()
    assert {i: line for i, line in enumerate(lines) if line} == {2: "a = 1", 12: "d = 4"}
