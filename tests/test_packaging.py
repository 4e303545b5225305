"""What pyproject.toml says, beside what else says it."""

import importlib.util
import pathlib
import re
import sys
import tomllib

import pytest

import elbojax
from elbojax.commands import doctor

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
FLOORS = dict(requirement.split(">=") for requirement in PROJECT["dependencies"])


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_one_version():
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1]
    assert elbojax.__version__ == PROJECT["version"] == cited


def test_classifiers_are_the_pythons_of_the_workflow():
    said = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert said == re.findall(r'"(3\.\d+)"', re.search(r"python: \[(.*)\]", WORKFLOW)[1])
    assert PROJECT["requires-python"] == f">={said[0]}"


def test_the_workflow_tests_the_oldest_dependencies():
    pins = dict(pin.split("==") for pin in re.search(r"pin: (.*==.*)", WORKFLOW)[1].split())
    full = lambda version: (version + ".0.0").split(".")[:3]  # noqa: E731
    assert {name: full(version) for name, version in pins.items()} == {name: full(v) for name, v in FLOORS.items()}


def test_the_doctor_looks_for_what_is_needed():
    assert set(doctor.NEEDED) == {*FLOORS, "numpy"}


def test_links_of_the_package_page(monkeypatch):
    pytest.importorskip("hatchling")
    page = module(ROOT / "hatch_build.py").page
    text = "[a](docs/a.md) [b](https://example.org) [c](#c)\n```python\n[d](e)\n```\n"
    assert page(text, None) == text.replace("[a](docs/a.md)", "a")
    there = "[a](https://example.org/x/blob/main/docs/a.md)"
    assert page(text, "https://example.org/x/") == text.replace("[a](docs/a.md)", there)
    assert "](docs/" not in page((ROOT / "README.md").read_text(), None)


def test_extras_for_users_are_tried_by_themselves(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["package.py"])
    tried = module(ROOT / ".ci" / "package.py").EXTRAS
    assert tried.keys() == PROJECT["optional-dependencies"].keys() - {"benchmarks", "dev", "test"}
