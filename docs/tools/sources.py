"""Pages of the site that lie elsewhere in the repository: contributing, changelog, benchmarks, notebooks, the bibliography.

A link between two files of the repository becomes one between their pages, so that the files read well without the site too.
"""

import json
import pathlib
import posixpath
import re
import types

import bibliography
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).parents[2]
LINK = re.compile(r"(?P<begin>\]\()(?P<target>[^)#\s]+)(?P<rest>[)#])")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)


def places():
    """From the path of each page's source in the repository to its path in the site."""
    found = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}
    for path in sorted(ROOT.glob("benchmarks/results/*.*")):
        if path.suffix in (".md", ".png", ".svg"):
            found[path.relative_to(ROOT).as_posix()] = f"benchmarks/{path.name}"
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        found[path.relative_to(ROOT).as_posix()] = f"notebooks/{path.stem}.md"
    for path in sorted(ROOT.glob("docs/**/*.*")):
        relative = path.relative_to(ROOT).as_posix()
        if not relative.startswith("docs/tools/"):
            found[relative] = relative.removeprefix("docs/")
    return found | {"benchmarks/results": "benchmarks/index.md"}


MODULES_ALONE = ("structure",)
"""Modules whose names have entries of their own."""
PLACES = places()
SOURCES = {page: source for source, page in PLACES.items() if page != "index.md"} | {"index.md": "docs/index.md"}


def on_config(config):
    """Pages of benchmarks and notebooks enter the menu by themselves."""
    for section in config.nav:
        for title, pages in section.items() if isinstance(section, dict) else ():
            if title in ("Benchmarks", "Notebooks"):
                folder = f"{title.lower()}/"
                pages += [
                    page
                    for page in PLACES.values()
                    if page.startswith(folder) and page.endswith(".md") and page not in pages
                ]
    return config


def heading(page: str) -> str:
    """The title of a page as the menu shows it, without formulas."""
    if page == "benchmarks/index.md":
        return "All"
    path = ROOT / SOURCES[page]
    text = path.read_text()
    if path.suffix == ".ipynb":
        text = "".join(json.loads(text)["cells"][0]["source"])
    title = text.partition("\n")[0].removeprefix("# ").replace("`", "")
    return re.sub(r"\$([^$]*)\$", lambda match: re.sub(r"[{}]", "", match[1].replace(r"\dots", "…")), title)


def on_files(files: Files, config) -> Files:
    """Adds the pages from outside `docs`."""
    for source, page in PLACES.items():
        path = ROOT / source
        if source.startswith("docs/") or source in ("README.md", "benchmarks/results"):
            continue
        if path.suffix == ".ipynb":
            for file in notebook(path, page, config):
                files.append(file)
        else:
            files.append(File.generated(config, page, abs_src_path=str(path)))
    files.append(File.generated(config, "bibliography.md", content=bibliography.page()))
    files.append(File.generated(config, "benchmarks/index.md", content=benchmarks()))
    return files


def benchmarks() -> str:
    """The list of what was measured, each with its title."""
    lines = [
        "# Benchmarks",
        "",
        "Each page says on what device, with which versions and under what load it was measured, and what was missed.",
        "",
    ]
    for path in sorted(ROOT.glob("benchmarks/results/*.md")):
        lines.append(f"- [{path.read_text().partition(chr(10))[0].removeprefix('# ')}]({path.name}), `{path.stem}`")
    return "\n".join([*lines, "", "`make bench` and the scripts in `benchmarks` write them anew.", ""])


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Links between files of the repository lead from page to page."""
    here = page.file.src_uri
    source = posixpath.dirname(SOURCES.get(here, f"docs/{here}"))

    def moved(match):
        if re.match(r"[a-z]+:", match["target"]):
            return match[0]
        target = PLACES.get(posixpath.normpath(posixpath.join(source, match["target"])))
        if target is None:
            return match[0]  # mkdocs says that it is dead
        return match["begin"] + posixpath.relpath(target, posixpath.dirname(here) or ".") + match["rest"]

    if here.startswith("api/"):
        markdown = re.sub(r"^::: elbojax\.(\S+)$", lambda match: entry(match[1]), markdown, flags=re.MULTILINE)
    return outside_fences(lambda text: LINK.sub(moved, text), markdown)


def entry(name: str) -> str:
    """The entry of a public name, where it is defined: a module may have the name of a function in it, as `elbo` does.

    Of a module, the functions and classes that are its own.
    """
    import inspect
    import operator

    import elbojax

    found = operator.attrgetter(name)(elbojax)
    if not isinstance(found, types.ModuleType):
        return f"::: {found.__module__}.{found.__qualname__}"
    if name in MODULES_ALONE:
        return f"::: {found.__name__}\n    options:\n      members: false"
    own = [
        f"::: {value.__module__}.{value.__qualname__}\n    options:\n      heading_level: 4"
        for key, value in vars(found).items()
        if (key in found.__all__ if hasattr(found, "__all__") else not key.startswith("_"))
        and (inspect.isfunction(value) or inspect.isclass(value))
        and (value.__module__ + ".").startswith(found.__name__ + ".")
    ]
    return "\n\n".join([f"::: {found.__name__}\n    options:\n      members: false", *own])


def outside_fences(change, markdown: str) -> str:
    """Text with everything but its code blocks changed."""
    parts, at = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, change(markdown[at:])])


def notebook(path: pathlib.Path, page: str, config):
    """The page of a notebook with its stored outputs, and its pictures."""
    import base64

    text = []
    for i, cell in enumerate(json.loads(path.read_text())["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            text.append(f"```python\n{source}\n```")
            for j, output in enumerate(cell["outputs"]):
                data = output.get("data", {"text/plain": output.get("text", "")})
                if "image/png" in data:
                    name = f"{path.stem}-{i}-{j}.png"
                    content = base64.b64decode("".join(data["image/png"]))
                    yield File.generated(config, f"notebooks/{name}", content=content)
                    text.append(f"![output of the cell above]({name})")
                elif "text/html" in data:
                    text.append('<div class="output">\n' + "".join(data["text/html"]) + "\n</div>")
                elif plain := "".join(data["text/plain"]).rstrip():
                    text.append(f'<div class="output" markdown>\n\n```text\n{plain}\n```\n\n</div>')
    yield File.generated(config, page, content="\n\n".join(text))
