"""elbojax beside what people would use in its place, on this machine.

    python -m benchmarks                     the short form of every suite
    python -m benchmarks cold                one suite in full; goes on where it was cut off
    python -m benchmarks cold --only schools,elbojax      of some problems, some contenders
    python -m benchmarks certificate --set ENOUGH=200       with another threshold (docs/thresholds.md)
    python -m benchmarks certificate --sweep ENOUGH=100,200,400 --seeds 3
    python -m benchmarks --compare OLD.json NEW.json      what got slower or less accurate; the suite first, where the name of the
                                                          second file does not begin with it

Rows go to a JSON file and a page of the same name: of the short form, and of thresholds that are not the defaults, to
`build/benchmarks`, else to `benchmarks/results`.
"""

import argparse
import importlib.util
import pathlib
from typing import Any

from benchmarks import suites
from benchmarks.harness import settings
from benchmarks.harness import suite as running
from benchmarks.harness.compare import compare, name_of
from benchmarks.harness.page import page, where
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
    parser.add_argument("--seeds", type=int, help="of each problem and contender, at most")
    parser.add_argument("--set", type=settings.setting, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--sweep", type=settings.values, action="append", default=[], metavar="NAME=V1,V2")
    parser.add_argument("--again", action="store_true", help="run also what is there already")
    parser.add_argument("--report", action="store_true", help="run nothing: the page from the rows that are there")
    parser.add_argument("--output", type=pathlib.Path, help="folder of rows and pages")
    parser.add_argument("--compare", nargs=2, metavar="FILE", help="what got slower or less accurate")
    args = parser.parse_args(arguments)
    if args.compare:
        absent = [file for file in args.compare if not pathlib.Path(file).is_file()]
        if absent:
            parser.error(f"no such file: {', '.join(absent)}")
        name = args.suites[0] if len(args.suites) == 1 else name_of(args.compare[1], suites.NAMES)
        if name not in suites.NAMES:
            parser.error(f"of which suite are they? name one of {', '.join(suites.NAMES)}")
        print(compare(*map(Store, args.compare), suites.load(name)))
        return
    unknown = [name for name in args.suites if name not in suites.NAMES]
    if unknown:
        parser.error(f"no suite {', '.join(unknown)}; there are {', '.join(suites.NAMES)}")
    quick = args.quick or not args.suites
    other = settings.others(dict(args.set))
    folder = args.output or (SHORT if quick or other or args.sweep else RESULTS)
    for name in args.suites or suites.NAMES:
        try:
            text = swept(name, folder, quick, args) if args.sweep else measured(name, folder, quick, args, other)
        except ValueError as misuse:
            parser.error(str(misuse))
        print(f"\n{text}")


def rows_of(name: str, folder: pathlib.Path, quick: bool, args: argparse.Namespace, other: dict[str, Any]) -> Store:
    """Those of a suite with some thresholds, run as far as they are missing."""
    store = Store(folder / f"{settings.stem(name, other)}.json")
    if not args.report:
        choice = {"only": args.only, "seeds": args.seeds, "again": args.again}
        running.run(name, suites.load(name), store, quick=quick, settings=other, **choice)
    return store


def measured(name: str, folder: pathlib.Path, quick: bool, args: argparse.Namespace, other: dict[str, Any]) -> str:
    """The page of a suite, written."""
    suite, store = suites.load(name), rows_of(name, folder, quick, args, other)
    file = store.file.with_suffix(".md")
    shown = suite.sections(store.rows) + pictures(suite, store, store.file.with_suffix(".png"))
    told = ", ".join(f"{key} = {value}" for key, value in other.items())
    question = suite.question + f"\n\nWith {told}, not the defaults." * bool(other)
    return written(file, page(name, question, store, shown))


def swept(name: str, folder: pathlib.Path, quick: bool, args: argparse.Namespace) -> str:
    """The page of all sweeps; what they have in common is run once."""
    suite, text = suites.load(name), []
    for threshold, tried in args.sweep:
        stores = [
            (value, rows_of(name, folder, quick, args, settings.others({**dict(args.set), threshold: value})))
            for value in tried
        ]
        if suite.sweep:
            text.append(suite.sweep(threshold, [(value, store.rows) for value, store in stores]))
        else:
            (first, base), *rest = stores
            text += [
                f"## {threshold} = {value} beside {first}\n\n{compare(base, store, suite)}" for value, store in rest
            ]
        environments = dict.fromkeys(where(one, store) for _, store in stores for one in store.environments)
        page_ = "\n\n".join([f"# Sweeps: {name}", *environments, *text]).rstrip() + "\n"
        written(folder / f"{name}-sweeps.md", page_)
    return page_


def written(file: pathlib.Path, text: str) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return text


def pictures(suite: Suite, store: Store, path: pathlib.Path) -> list[str]:
    """Draws what the suite has of pictures, where that can be done: the section that shows them."""
    if suite.picture is None or not store.rows or importlib.util.find_spec("matplotlib") is None:
        return []
    return ["\n".join(f"![{file.stem}]({file.name})" for file in suite.picture(store.rows, path))]


if __name__ == "__main__":
    main()
