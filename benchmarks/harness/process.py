"""A process of its own for each job, with a limit: compilation is timed, memory is its own, and a crash costs one row.

    python -m benchmarks.harness.process SUITE JOB FILE [--quick] [--settings JSON]

writes one line of JSON to FILE as each row ends.
"""

import argparse
import contextlib
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchmarks.harness import machine
from benchmarks.harness.record import Row, plain

if TYPE_CHECKING:
    from benchmarks.harness.suite import Job, Suite

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOOK = 0.5
"""Seconds between two looks at the rows of a process that runs."""
LAST_WORDS = 200
"""Characters that are kept of the error of a process that ended without its rows."""


def rows(
    name: str, suite: "Suite", job: "Job", quick: bool, settings: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[Row]:
    """The rows of a job, one for each contender and seed: where the first is missing, a row that says why.

    Args:
      name: of the suite.
      suite: for its limits.
      job: what to run.
      quick: the short form.
      settings: thresholds that are in force.
    """
    limit = suite.quick_seconds if quick else suite.seconds
    with tempfile.TemporaryDirectory() as folder:
        file, log = pathlib.Path(folder) / "rows", pathlib.Path(folder) / "log"
        file.touch()
        command = [sys.executable, "-m", "benchmarks.harness.process", name, json.dumps(job), str(file)]
        command += ["--settings", json.dumps(dict(settings))] + ["--quick"] * quick
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path}
        silent = subprocess.DEVNULL
        with log.open("w") as said:
            process = subprocess.Popen(command, stdin=silent, stdout=silent, stderr=said, env=environment, cwd=ROOT)
            exceeded = waited(
                process, file, limit, limit if suite.row_seconds is None else min(suite.row_seconds, limit)
            )
        words = log.read_text(errors="replace").strip().splitlines() or [f"exit {process.returncode}"]
        why = words[-1][:LAST_WORDS] if exceeded is None else f"more than {exceeded:g} s"
        found = [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    yield from found
    for contender in job.contenders:
        done = {row["seed"] for row in found if row["contender"] == contender and row["problem"] == job.problem}
        left = [seed for seed in range(job.seed, job.seed + job.seeds) if seed not in done]
        # A crash costs one seed; a later call goes on with the others.
        yield from ({"problem": job.problem, "contender": contender, "seed": seed, "status": why} for seed in left[:1])


def waited(process: subprocess.Popen, file: pathlib.Path, limit: float, of_row: float) -> float | None:
    """Wait for its end, and end it where it takes too long.

    Args:
      process: which adds to the file.
      file: of rows.
      limit: seconds of all.
      of_row: seconds since the file was last added to.

    Returns:
      The limit that was exceeded, if one was.
    """
    began = since = time.monotonic()
    size = 0
    try:
        while True:
            now = time.monotonic()
            if file.stat().st_size > size:
                size, since = file.stat().st_size, now
            left = {limit: began + limit - now, of_row: since + of_row - now}
            exceeded = next((one for one, seconds in left.items() if seconds <= 0), None)
            if exceeded is not None:
                return exceeded
            try:
                process.wait(min(LOOK, *left.values()))
            except subprocess.TimeoutExpired:
                continue
            return None
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite")
    parser.add_argument("job", help="as JSON")
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--settings", type=json.loads, default={}, help="of thresholds, as JSON")
    args = parser.parse_args()
    import jax

    from benchmarks.harness.suite import Job
    from elbojax.thresholds import overridden

    problem, contenders, seed, seeds = json.loads(args.job)
    suite = importlib.import_module(f"benchmarks.suites.{args.suite}").SUITE
    jax.config.update("jax_enable_x64", suite.x64)
    jax.config.update("jax_enable_compilation_cache", False)
    job = Job(problem, tuple(contenders), seed, seeds)
    with overridden(**args.settings) if args.settings else contextlib.nullcontext():
        for row in suite.rows(job, args.quick):
            whole = {"status": "done"} | row | {"load": machine.load(), "peak_mb": machine.peak_mb()}
            with args.file.open("a") as file:
                file.write(json.dumps(plain({"problem": problem, "seed": seed} | whole)) + "\n")


if __name__ == "__main__":
    main()
