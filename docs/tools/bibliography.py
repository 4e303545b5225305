"""The page of all sources that docstrings name, and where."""

import ast
import collections
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
SECTION = re.compile(r"^References?:\n(?P<body>(?:[ ]+[^\n]*\n?|\n(?=[ ]))+)", re.MULTILINE)


def docstrings():
    """Of every module, class and function of the package: its name, and its docstring."""
    for path in sorted((ROOT / "elbojax").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                yield (module if isinstance(node, ast.Module) else node.name), text


def references() -> dict[str, list[str]]:
    """From each source to the names whose docstrings give it."""
    found = collections.defaultdict(list)
    for name, text in docstrings():
        for section in SECTION.finditer(text):
            text = " ".join(section["body"].split())
            # An entry ends with a semicolon, or with its address where another one begins.
            text = re.sub(r"(https?://\S+[^\s;,)])\)? (?=[A-ZÀ-Ž])", r"\1; ", text)
            for entry in filter(None, re.split(r";(?:\s+|$)", text)):
                if name not in found[entry]:
                    found[entry].append(name)
    return found


def page() -> str:
    """Markdown."""
    lines = ["# Bibliography", "", "The sources that docstrings name, each with the names that rest on it.", ""]
    for entry, names in sorted(references().items(), key=lambda item: item[0].lower()):
        lines.append(f"- {entry.rstrip('.')}. Of {', '.join(f'`{name}`' for name in names)}.")
    return "\n".join(lines) + "\n"
