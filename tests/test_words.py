"""Plain technical English: retired names and words stay out, and docstrings name the thing that they describe."""

import ast
import json
import pathlib
import re

import pytest

import elbojax

ROOT = pathlib.Path(__file__).parents[1]
WORDS = {
    "scout": "optimisation path, or start",
    "scouts": "optimisation paths, or starts",
    "scouted": "found by an optimisation path",
    "judge": "assess, or importance check",
    "judges": "assesses",
    "judged": "assessed",
    "spent": "used, or cost",
    "unspent": "at no cost",
    "leak": "exploration check, or mass outside the proposal",
    "leaks": "exploration check, or mass outside the proposal",
    "doubts": "diagnosis",
    "blame": "diagnosis, or fault",
    "sharpen": "re-check",
    "sharpened": "re-checked",
    "unsharpened": "not re-checked",
    "heat": "temperature, or round of successive halving",
    "heats": "temperatures, or rounds of successive halving",
    "outskirts": "variance outside, or tails",
}
"""Retired words, each with what to say instead. They count as whole words and as parts of names (`leak_key`, `LeakKey`)."""
NAMES = {
    "fall": "decrease",
    "falls": "decreases",
    "kept": "stored, chosen, remaining or cached",
    "Kept": "Stored",
    "KEPT_DRAWS": "STORED_DRAWS",
}
"""Retired names of things in code; as words of a sentence they may stay."""
EXEMPT = {
    "tests/test_words.py": set(WORDS),
    "tests/minibatch/test_halving.py": {"heats"},
    "elbojax/minibatch/halving.py": {"heats"},  # the former name of `Race.rounds`, for one release
}
PHRASES = (
    "house together",
    "vocabulary of the house",
    "sends out",
    "passes for a bow",
    "independent coins",
    "independent dice",
)
"""Passages that were replaced by plain ones."""
PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
BARE = re.compile(
    r"(?:Of|Likewise|Whose|From which|By which|On which|In which|At which|Below which|Above which)\b(?! which)"
)
"""How no docstring begins: its first words name the thing."""


def files():
    for folder in ("elbojax", "tests", "benchmarks"):
        yield from (ROOT / folder).rglob("*.py")
    yield from (ROOT / "docs").rglob("*.md")
    yield from (ROOT / "notebooks").glob("*.ipynb")
    yield from (ROOT / "notebooks").glob("*.py")
    yield ROOT / "README.md"
    yield ROOT / "CONTRIBUTING.md"


FILES = sorted(set(files()))


def text_of(path):
    """The text of a file; of a notebook its sources, without pictures."""
    if path.suffix != ".ipynb":
        return path.read_text()
    return "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])


def retired(text):
    """Line number, word and replacement of each retired word; names are split at underscores and capitals."""
    for number, line in enumerate(text.splitlines(), 1):
        if "tracer" in line:  # JAX's own term: a leaked tracer
            continue
        for part in PARTS.findall(line):
            word = part.lower()
            if word in WORDS:
                yield number, word, WORDS[word]


def retired_names(tree, exempt):
    """The same for names in code."""
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name"):
            name = getattr(node, field, None)
            if isinstance(name, str) and name in set(NAMES) - exempt:
                yield getattr(node, "lineno", 0), name, NAMES[name]


def bare_docstrings(tree):
    """Line number and beginning of docstrings, and of strings below constants, that name no thing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            if BARE.match(node.value.value):
                yield node.lineno, node.value.value[:60]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_retired_words(path):
    place = str(path.relative_to(ROOT))
    text = text_of(path)
    found = [
        f"{place}:{number}: {word!r}: say {instead}"
        for number, word, instead in retired(text)
        if word not in EXEMPT.get(place, ())
    ]
    if path.suffix == ".py":
        tree = ast.parse(text)
        names_exempt = {"kept"} if place.startswith("elbojax/structure/") else set()  # not yet renamed
        found += [
            f"{place}:{number}: the name {name!r}: say {instead}"
            for number, name, instead in retired_names(tree, names_exempt)
        ]
        if place.startswith("elbojax/"):
            found += [f"{place}:{number}: begin with what it is: {words!r}" for number, words in bare_docstrings(tree)]
    if place not in EXEMPT:
        found += [f"{place}: {phrase!r} is no plain English" for phrase in PHRASES if phrase in text]
    assert not found, "\n".join(found)


def test_no_retired_word_is_a_public_name():
    modules = [getattr(elbojax, name) for name in elbojax._MODULES]
    public = [name for place in (elbojax, *modules) for name in dir(place) if not name.startswith("_")]
    assert not [name for name in public if list(retired(name))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("scouts look", ["scouts"]),
        ("class Scouts:", ["scouts"]),
        ("LEAK_CHAINS = leak_key", ["leak", "leak"]),
        ("self._blame_program", ["blame"]),
        ("JudgeThis", ["judge"]),
        ("a tracer leaks", []),
        ("scouting, heater, judgement, spentness", []),
    ],
)
def test_the_lint_itself(text, found):
    assert [word for _, word, _ in retired(text)] == found


def test_bare_docstrings_are_found():
    tree = ast.parse('A = 1\n"""Of a step."""\ndef f():\n    """The mean."""\ndef g():\n    """Likewise."""')
    assert [number for number, _ in bare_docstrings(tree)] == [2, 6]
