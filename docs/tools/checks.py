"""What fails the build beside mkdocs' own checks: a public name without its page, a dead link, anything loaded from elsewhere."""

import ast
import collections
import html.parser
import logging
import pathlib
import re
import urllib.parse

log = logging.getLogger("mkdocs.hooks.checks")

ROOT = pathlib.Path(__file__).parents[2]


PARTS = ("diagnostics", "families", "loops", "minibatch", "objectives", "results", "solvers", "structure", "studies")
"""Modules that are documented name by name; others have an entry as a whole."""


def listed(module: str) -> list[str]:
    """`__all__` of a module, read and not imported.

    Args:
      module: below the root of the repository.
    """
    for node in ast.parse((ROOT / module / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    raise ValueError(f"{module}/__init__.py has no __all__")


def public() -> list[str]:
    """Names that want an entry, without `elbojax.` before them: those of `elbojax`, and those that stand in a part alone."""
    front = listed("elbojax")
    parts = [f"{part}.{name}" for part in PARTS for name in listed(f"elbojax/{part}") if name not in front]
    return [*front, *parts]


def documented() -> list[str]:
    """Names under elbojax that have an entry in docs/api."""
    pages = sorted((ROOT / "docs" / "api").glob("*.md"))
    found = [re.findall(r"^::: elbojax\.(\S+)", path.read_text(), re.MULTILINE) for path in pages]
    return [name for names in found for name in names]


def faults() -> list[str]:
    """Public names without an entry, and names with two."""
    entries = collections.Counter(documented())
    missing = [f"elbojax.{name} has no entry in docs/api" for name in public() if name not in entries]
    return missing + [f"elbojax.{name} has {n} entries in docs/api" for name, n in entries.items() if n > 1]


class Page(html.parser.HTMLParser):
    """Anchors of a page, where its links lead, and what it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Called for each element."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(given.get("href", ""))
        elif tag in ("script", "img", "iframe", "source") and "src" in given:
            self.loads.append(given["src"])


def dead(site: pathlib.Path) -> list[str]:
    """Links that lead nowhere, and what is loaded from elsewhere; addresses on the network are not tried."""
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        found += [f"{name} loads {load}" for load in page.loads if re.match(r"(https?:)?//", load)]
        for link in [*page.links, *page.loads]:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            anchor = urllib.parse.unquote(parts.fragment)
            if not target.exists():
                found.append(f"{name} links to {link}, which is not there")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                found.append(f"{name} links to {link}, whose anchor is not there")
    for path in sorted(site.rglob("*.css")):
        elsewhere = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)", path.read_text())
        found += [f"{path.relative_to(site)} loads {load}" for load in elsewhere]
    return found


def on_files(files, config):
    """Before pages are made."""
    for fault in faults():
        log.warning(fault)
    return files


def on_post_build(config) -> None:
    """When all pages are written."""
    if found := dead(pathlib.Path(config.site_dir)):
        for fault in found[:50]:
            log.warning(fault)
