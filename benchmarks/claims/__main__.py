"""`docs/benchmarks.md` from the stored rows.

python -m benchmarks.claims              writes the page; says which passages of README and the guide are not as the rows are
python -m benchmarks.claims --check      writes nothing; fails where the page or a passage is not as the rows are
"""

import argparse
import pathlib
import sys

from benchmarks.claims.page import page
from benchmarks.claims.passages import PASSAGES

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"


def absent() -> list[str]:
    """Passages that are not in their files as the rows have them."""
    return [
        f"{passage.file} does not say: {passage.text}"
        for passage in PASSAGES
        if passage.text not in " ".join((ROOT / passage.file).read_text().split())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    text, found = page(), absent()
    if args.check and PAGE.read_text() != text:
        found.insert(0, "docs/benchmarks.md is not that of the rows: make benchmarks-page")
    if not args.check:
        PAGE.write_text(text)
    print("\n".join(found), end="\n" * bool(found))
    sys.exit(bool(args.check and found))


if __name__ == "__main__":
    main()
