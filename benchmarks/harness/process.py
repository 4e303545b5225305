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
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchmarks.harness import machine
from benchmarks.harness.record import Row, plain

if TYPE_CHECKING:
    from benchmarks.harness.suite import Job, Suite

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAST_WORDS = 200
"""Characters that are kept of the error of a process that ended without its rows."""


def rows(
    name: str, suite: "Suite", job: "Job", quick: bool, settings: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[Row]:
    """The rows of a job, one for each contender and seed: where the first is missing, a row that says why.

    Args:
      name: of the suite.
      suite: for its limit.
      job: what to run.
      quick: the short form.
      settings: thresholds that are in force.
    """
    limit = suite.quick_seconds if quick else suite.seconds
    with tempfile.TemporaryDirectory() as folder:
        file, log = pathlib.Path(folder) / "rows", pathlib.Path(folder) / "log"
        file.touch()
        command = [sys.executable, "-m", "benchmarks.harness.process", name, json.dumps(job), str(file)]
        command += ["--settings", json.dumps(dict(settings))]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with log.open("w") as said:
            try:
                ended = subprocess.run(
                    command + ["--quick"] * quick,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    env={**os.environ, "PYTHONPATH": path},
                    cwd=ROOT,
                    timeout=limit,
                )
                words = log.read_text(errors="replace").strip().splitlines() or [f"exit {ended.returncode}"]
                why = words[-1][:LAST_WORDS]
            except subprocess.TimeoutExpired:
                why = f"more than {limit:g} s"
        found = [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    yield from found
    for contender in job.contenders:
        done = {row["seed"] for row in found if row["contender"] == contender and row["problem"] == job.problem}
        left = [seed for seed in range(job.seed, job.seed + job.seeds) if seed not in done]
        # A crash costs one seed; a later call goes on with the others.
        yield from ({"problem": job.problem, "contender": contender, "seed": seed, "status": why} for seed in left[:1])


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
