"""The examples of pages, run as they stand: `python docs/tools/examples.py [--write] PAGE ...` compares or renews their outputs.

A page's Python blocks run in order in one fresh interpreter. What a block prints may follow it, as a block of text below the
comment `<!-- output -->`. A block below `<!-- not run -->` is left out. A page that says `<!-- needs pymc -->` runs where that
can be imported, and one that says `<!-- long -->` with the slow tests.
"""

import argparse
import importlib.util
import pathlib
import re
import subprocess
import sys
import tempfile

BLOCK = re.compile(r"(?P<skip><!-- not run -->\s*)?^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
OUTPUT = re.compile(r"\s*<!-- output -->\s*^```text\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"[-+]?(\d[\d,]*(\.\d+)?(e[-+]?\d+)?|inf\b|nan\b)")
END = "\f"


def script(text: str, ends: bool = False) -> str:
    """The Python blocks of a page with everything else blanked, so that line numbers are those of the page.

    Args:
      text: of the page.
      ends: whether each block ends by printing a form feed.
    """
    lines = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        if not block["skip"]:
            first = text.count("\n", 0, block.start("code"))
            code = block["code"].splitlines()
            lines[first : first + len(code)] = code
            if ends:
                lines[first + len(code)] = f"print({END!r}, end='', flush=True)"
    return "\n".join(lines)


def needs(text: str) -> list[str]:
    """Modules that a page needs and that are not installed."""
    return [name for name in re.findall(r"<!-- needs (\w+) -->", text) if importlib.util.find_spec(name) is None]


def run(page: pathlib.Path, folder: pathlib.Path) -> subprocess.CompletedProcess:
    """Run a page's examples in a folder."""
    (folder / page.name).write_text(script(page.read_text(), ends=True))
    return subprocess.run([sys.executable, page.name], cwd=folder, capture_output=True, text=True)


def outputs(text: str, printed: str) -> list[tuple[re.Match, str]]:
    """The outputs that a page shows, each with what its block has printed."""
    blocks = [block for block in BLOCK.finditer(text) if not block["skip"]]
    pairs = zip(blocks, printed.split(END), strict=False)
    shown = [(OUTPUT.match(text, block.end()), own) for block, own in pairs]
    return [(match, own) for match, own in shown if match]


def words(text: str) -> str:
    """An output without its numbers, which differ a little from machine to machine, and without its spaces.

    And without the chi-square estimate, which a k-hat near a half has or has not.
    """
    return " ".join(NUMBER.sub("#", text).replace(", chi-square estimate #", "").split())


def stale(text: str, printed: str) -> list[str]:
    """Outputs of a page whose words are no longer what is printed."""
    return [own for match, own in outputs(text, printed) if words(match["text"]) != words(own)]


def renewed(text: str, printed: str) -> str:
    """The page with the outputs as printed."""
    for match, own in reversed(outputs(text, printed)):
        text = text[: match.start("text")] + own.rstrip() + "\n" + text[match.end("text") :]
    return text


def main() -> None:
    """Compare or renew."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pages", nargs="+", type=pathlib.Path)
    parser.add_argument("--write", action="store_true", help="put what is printed into the pages")
    args = parser.parse_args()
    failed = False
    for page in args.pages:
        with tempfile.TemporaryDirectory() as folder:
            done = run(page, pathlib.Path(folder))
        text = page.read_text()
        if done.returncode:
            failed = True
            print(f"{page}: {done.stderr}")
        elif args.write:
            page.write_text(renewed(text, done.stdout))
        elif found := stale(text, done.stdout):
            failed = True
            print(f"{page}: prints something else:", *found, sep="\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
