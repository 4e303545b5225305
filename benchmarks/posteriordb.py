"""How near `fit`, each solver alone and other libraries come to posteriors that are known, and at what price.

    python benchmarks/posteriordb.py [--methods fit,numpyro_nuts] [--posteriors earnings,nes] [--seeds 0,1]
    python benchmarks/posteriordb.py --calibration 20    # `fit` over many seeds: how often its word is wrong
    python benchmarks/posteriordb.py --unseen            # posteriors of no database, their truth found here
    python benchmarks/posteriordb.py --report            # only write the page from what has been run

Every (posterior, method, seed) runs in a process of its own, ends as a row of the JSON file at once, and is not run
again: a second call goes on where the first was cut off. The posteriordb is found as `benchmarks.reference` tells.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import peers, report, timing  # noqa: E402
from benchmarks.cell import failure  # noqa: E402
from benchmarks.ledger import Ledger, Row, key_of  # noqa: E402
from benchmarks.methods import METHODS  # noqa: E402
from benchmarks.problem import names  # noqa: E402

LIMIT = 300.0
KEPT = ("date", "processor", "status", "stage", "certified", "max_mean_error", "max_sd_error", "num_gradients")
KEPT += ("cold_seconds", "warm_seconds", "cold_cpu_seconds", "warm_cpu_seconds")
"""What a row that is measured anew keeps of the one that it takes the place of."""
LAST_WORDS = 100
"""Characters of the error that are kept of a run that crashed."""


def cells(name: str, method: str, seeds: list[int], limit: float, path: str | None) -> Iterator[Row]:
    """Rows as they end. A crash, or a seed that takes longer than the limit, costs that seed; the others go on afresh."""
    left = list(seeds)
    while left:
        for row, why in _process(name, method, left, limit, path):
            if row is not None:
                left.remove(row["seed"])
                yield row
            elif left:
                yield failure(name, method, left.pop(0), why)


def _process(name, method, seeds, limit, path) -> Iterator[tuple[Row | None, str]]:
    """(row, "") for each seed that ends, and at last (None, why it ended)."""
    with tempfile.TemporaryDirectory() as folder:
        file, log = pathlib.Path(folder) / "rows", pathlib.Path(folder) / "log"
        file.touch()
        command = [sys.executable, "-m", "benchmarks.cell", name, method, ",".join(map(str, seeds)), str(file)]
        command += ["--limit", str(limit)] + (["--path", str(path)] if path else [])
        place = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
        with log.open("w") as said:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=place, cwd=ROOT)
            try:
                seen, since = 0, time.monotonic()
                while True:
                    ended = process.poll() is not None
                    lines = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
                    for line in lines[seen:]:
                        yield json.loads(line), ""
                        since = time.monotonic()
                    seen = len(lines)
                    if ended or time.monotonic() - since > limit:
                        break
                    time.sleep(0.1)
            finally:
                process.kill()
                process.wait()
        if not ended:
            yield None, "time limit"
        else:
            words = log.read_text().strip().splitlines() or [f"exit {process.returncode}"]
            yield None, "crashed: " + words[-1][:LAST_WORDS]


def settle(ledger: Ledger, chosen: list[str], methods: list[str], seeds: list[int], args: argparse.Namespace) -> None:
    """Run what the ledger has not, or has from before a date; the methods take turns on each posterior."""
    done = {key_of(row) for row in ledger.rows if not args.again and row.get("date", "") >= args.since}
    for name in chosen:
        for method in methods:
            missing = [seed for seed in seeds if (name, method, seed) not in done]
            for row in cells(name, method, missing, args.limit, args.path):
                row["processor"] = ledger.environment.get("processor")
                if (old := ledger.get(key_of(row))) is not None:
                    row["before"] = {field: old.get(field) for field in KEPT}
                ledger.add(row)
                print(report.line(row), flush=True)


def select(all_names: tuple[str, ...], wanted: str, exact: bool) -> list[str]:
    """Those of all names that are asked for, by their name or a part of it."""
    if not wanted:
        return list(all_names)
    parts = wanted.split(",")
    found = [name for name in all_names if any(part == name or (not exact and part in name) for part in parts)]
    unknown = [part for part in parts if not any(part == name or (not exact and part in name) for name in all_names)]
    if unknown:
        raise SystemExit(f"wanted {', '.join(unknown)}; there are {', '.join(all_names)}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posteriors", default="", help="names or parts of names, separated by commas")
    parser.add_argument("--methods", default="", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--calibration", type=int, metavar="SEEDS", help="`fit` with seeds 0 to SEEDS - 1")
    parser.add_argument("--unseen", action="store_true", help="posteriors of no database")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--again", action="store_true", help="run what is asked for even where it is done")
    parser.add_argument(
        "--since", default="", metavar="DATE", help="run also what was last run before this, 2026-11-29 say"
    )
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of one run, compilation included")
    parser.add_argument("--path", help="where the posteriordb is")
    parser.add_argument(
        "--output", type=pathlib.Path, default=ROOT / "benchmarks" / "results", help="folder of the page"
    )
    args = parser.parse_args()

    stem = "posteriordb-unseen" if args.unseen else "posteriordb"
    ledger = Ledger(args.output / f"{stem}.json")
    if not args.report:
        absent = peers.absent()
        if absent:
            print("not installed, so not run:", ", ".join(absent))
        chosen = select(names(args.path, with_unseen=args.unseen), args.posteriors, exact=False)
        methods = [m for m in select(tuple(METHODS), args.methods, exact=True) if m not in absent]
        seeds = [int(seed) for seed in args.seeds.split(",")]
        if args.calibration:
            methods, seeds = ["fit"], list(range(args.calibration))
        if args.unseen:
            subprocess.run([sys.executable, "-m", "benchmarks.long_runs", *chosen], cwd=ROOT, check=True)
        ledger.environment = {**timing.environment(), "x64": True, "absent": list(absent)}
        settle(ledger, chosen, methods, seeds, args)
    print(report.terminal(ledger))
    report.write(ledger, args.output, stem)


if __name__ == "__main__":
    main()
