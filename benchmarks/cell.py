"""One method on one posterior in a process of its own, so that compilation is timed and a crash stays one row.

    python -m benchmarks.cell POSTERIOR METHOD SEEDS ROWS [--path FOLDER] [--limit SECONDS]

Writes one line of JSON to the file ROWS as each seed ends. Only the first has a cold time.
"""

import argparse
import json
import math
import statistics
import time
from typing import Any

import jax
import numpy as np
import scipy.linalg  # noqa: F401  (JAX would at its first decomposition, NumPyro does at once; imports are apart)

from benchmarks import errors as columns
from benchmarks import timing
from benchmarks.answers import Answer
from benchmarks.methods import METHODS
from benchmarks.problem import Problem, load_problem

DIGITS = 5
WARM_BUDGET = 2.0
"""Seconds of repeated warm runs, three at most."""


def row(name: str, method: str, seed: int, problem: Problem, answer: Answer) -> dict[str, Any]:
    """What is kept of one run, but for its times."""
    values = np.asarray(problem.columns(answer.draws))
    log_weights = np.asarray(answer.log_weights, float)
    weights = np.exp(log_weights - log_weights.max())
    found = columns.errors(values, weights, problem.reference)
    status = answer.status if np.isfinite(found.worst) else "non_finite"
    return plain(
        {
            "posterior": name,
            "method": method,
            "seed": seed,
            "size": problem.size,
            "status": status,
            "stage": answer.stage,
            "certified": answer.certified,
            "khat": answer.khat,
            "max_mean_error": np.max(np.abs(found.mean)),
            "rms_mean_error": np.sqrt(np.mean(found.mean**2)),
            "max_sd_error": np.max(np.abs(found.sd)),
            "rms_sd_error": np.sqrt(np.mean(found.sd**2)),
            "max_wasserstein": np.max(found.wasserstein),
            "num_gradients": answer.num_gradients,
            "num_log_densities": answer.num_log_densities,
            "columns": problem.model.column_names,
            "mean_errors": found.mean,
            "sd_errors": found.sd,
            "wasserstein": found.wasserstein,
            "by_quantiles": found.heavy,
        }
    )


def failure(name: str, method: str, seed: int, status: str) -> dict[str, Any]:
    """The row of a run that gave no answer."""
    return {"posterior": name, "method": method, "seed": seed, "status": status, "certified": None}


def plain(value: Any) -> Any:
    """The same as JSON has it: numbers of a few digits, None for those that are not finite."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return [plain(entry) for entry in value]


def run(name: str, method: str, seeds: list[int], problem: Problem, limit: float = math.inf):
    """A row for each seed; the first is cold, and is repeated warm as far as the time allows."""
    call, finish = METHODS[method](problem)
    for place, seed in enumerate(seeds):
        key = jax.random.key(seed)
        result, first = _clock(call, key)
        cold, warm = (first, []) if place == 0 else (None, [first])
        began = time.perf_counter()
        while cold and len(warm) < 3 and cold[0] < limit / 4 and time.perf_counter() - began < WARM_BUDGET:
            warm.append(_clock(call, key)[1])
        wall, cpu = (statistics.median(times) for times in zip(*warm, strict=True)) if warm else (None, None)
        yield {
            **row(name, method, seed, problem, finish(jax.random.fold_in(key, 999), result)),
            "cold_seconds": plain(cold and cold[0]),
            "warm_seconds": plain(wall),
            "cold_cpu_seconds": plain(cold and cold[1]),
            "warm_cpu_seconds": plain(cpu),
            "peak_mb": timing.peak_mb(),
            "load": timing.load(),
            "date": timing.today(),
        }


def _clock(call, key):
    """The result, and (wall, processor) seconds; other programs on the machine disturb the second less."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call(key)
    for leaf in jax.tree.leaves(result):
        getattr(leaf, "block_until_ready", lambda: None)()
    return result, (time.perf_counter() - wall, time.process_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("posterior")
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("seeds", help="separated by commas")
    parser.add_argument("rows", help="file to which each row is appended")
    parser.add_argument("--path", help="of the posteriordb")
    parser.add_argument("--limit", type=float, default=math.inf)
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_enable_compilation_cache", False)
    problem = load_problem(args.posterior, args.path)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    for found in run(args.posterior, args.method, seeds, problem, args.limit):
        with open(args.rows, "a") as file:
            file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
