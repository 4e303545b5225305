"""elbojax beside what people would use in its place, on this machine.

    python -m benchmarks                     the short form of every suite
    python -m benchmarks cold                one suite in full; goes on where it was cut off
    python -m benchmarks cold --only schools,elbojax
    python -m benchmarks --compare OLD.json NEW.json

Rows go to a JSON file and a page of the same name: of the short form to `build/benchmarks`, else to `benchmarks/results`.
"""

import argparse
import pathlib

from benchmarks import suites
from benchmarks.harness import suite as running
from benchmarks.harness.compare import compare
from benchmarks.harness.page import page
from benchmarks.harness.record import Store

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
        file.write_text(page(name, suite.question, store, suite.sections(store.rows)))
        print(f"\n{file.read_text()}")


if __name__ == "__main__":
    main()
