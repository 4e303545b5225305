"""elbojax beside what people would use in its place, on this machine.

    python -m benchmarks                     the short form of every suite
    python -m benchmarks cold                one suite in full; goes on where it was cut off
    python -m benchmarks cold --only schools,elbojax
    python -m benchmarks --compare OLD.json NEW.json

Rows go to a JSON file and a page of the same name: of the short form to `build/benchmarks`, else to `benchmarks/results`.
"""

import argparse
import importlib.util
import pathlib

from benchmarks import suites
from benchmarks.harness import suite as running
from benchmarks.harness.compare import compare
from benchmarks.harness.page import page
from benchmarks.harness.record import Store
from benchmarks.harness.suite import Suite

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS, SHORT = ROOT / "benchmarks" / "results", ROOT / "build" / "benchmarks"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(suites.NAMES)}; all without")
    parser.add_argument("--quick", action="store_true", help="the short form, which it is where no suite is named")
    parser.add_argument("--only", default="", help="parts of names of problems or contenders, separated by commas")
    parser.add_argument("--again", action="store_true", help="run also what is there already")
    parser.add_argument("--report", action="store_true", help="run nothing: the page from the rows that are there")
    parser.add_argument("--output", type=pathlib.Path, help="folder of rows and pages")
    parser.add_argument("--compare", nargs=2, metavar="FILE", help="what got slower or less accurate")
    args = parser.parse_args(arguments)
    if args.compare:
        absent = [file for file in args.compare if not pathlib.Path(file).is_file()]
        if absent:
            parser.error(f"no such file: {', '.join(absent)}")
        print(compare(*map(Store, args.compare)))
        return
    unknown = [name for name in args.suites if name not in suites.NAMES]
    if unknown:
        parser.error(f"no suite {', '.join(unknown)}; there are {', '.join(suites.NAMES)}")
    quick = args.quick or not args.suites
    folder = args.output or (SHORT if quick else RESULTS)
    for name in args.suites or suites.NAMES:
        suite, store = suites.load(name), Store(folder / f"{name}.json")
        if not args.report:
            running.run(name, suite, store, quick=quick, only=args.only, again=args.again)
        file = folder / f"{name}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        shown = suite.sections(store.rows) + pictures(suite, store, folder / f"{name}.png")
        file.write_text(page(name, suite.question, store, shown))
        print(f"\n{file.read_text()}")


def pictures(suite: Suite, store: Store, path: pathlib.Path) -> list[str]:
    """Draws what the suite has of pictures, where that can be done: the section that shows them."""
    if suite.picture is None or not store.rows or importlib.util.find_spec("matplotlib") is None:
        return []
    return ["\n".join(f"![{file.stem}]({file.name})" for file in suite.picture(store.rows, path))]


if __name__ == "__main__":
    main()
