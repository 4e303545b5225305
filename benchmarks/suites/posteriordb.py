"""How near `fit`, each solver alone and other libraries come to posteriors that are known, and at what price.

The posteriordb is found as `benchmarks.problems.reference` tells; where there is none, that is what rows say. One process runs
all seeds of a method on a posterior; only the first is cold.
"""

import functools
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import scipy.linalg  # noqa: F401  (JAX would at its first decomposition, NumPyro does at once; imports are apart)

from benchmarks import models
from benchmarks.contenders.answers import Answer
from benchmarks.contenders.methods import METHODS
from benchmarks.harness import errors as columns
from benchmarks.harness.record import Row
from benchmarks.harness.suite import Job, Suite
from benchmarks.pages.accuracy import firsts
from benchmarks.pages.accuracy_page import sections
from benchmarks.problems.posterior import Problem, load_problem

SEEDS = 20
"""Of `fit`; the others have one."""
QUICK = ("eight_schools-eight_schools_noncentered", "kidiq-kidscore_momiq")
QUICK_METHODS = ("fit", "numpyro_nuts", "pathfinder")
WARM, WARM_BUDGET = 3, 2.0
"""Warm runs at most, and seconds after which none is begun."""
COSTS = tuple(f"{when}{of}_seconds" for when in ("first", "warm") for of in ("", "_cpu")) + (
    "gradients",
    "values",
    "peak_mb",
)
ERRORS = {f"{what}_error{end}": 0.02 for what in ("mean", "sd") for end in ("", "_rms")} | {"wasserstein": 0.02}


def jobs_on(names: tuple[str, ...], quick_names: tuple[str, ...], seeds: int, quick: bool) -> list[Job]:
    """A process for each posterior and method, those of a posterior next to each other.

    Args:
      names: of posteriors.
      quick_names: of them, those of the short form.
      seeds: of `fit`.
      quick: whether it is that.
    """
    if quick:
        return [Job(name, (method,), 0) for name in quick_names for method in QUICK_METHODS]
    return [Job(name, (method,), 0, seeds if method == "fit" else 1) for name in names for method in METHODS]


def rows(job: Job, quick: bool) -> Iterator[Row]:
    """A row for each seed."""
    (method,) = job.contenders
    problem = load_problem(job.problem)
    try:
        yield from run(method, range(job.seed, job.seed + job.seeds), problem, WARM_BUDGET / (4 if quick else 1))
    except ModuleNotFoundError as missing:
        yield {"contender": method, "status": f"not installed: {missing.name}"}


def run(method: str, seeds: range, problem: Problem, budget: float = WARM_BUDGET) -> Iterator[Row]:
    """A row for each seed; the first is cold, and is repeated warm as far as the time allows."""
    call, finish = METHODS[method](problem)
    for place, seed in enumerate(seeds):
        key = jax.random.key(seed)
        result, first = clocked(call, key)
        cold, warm = (first, []) if place == 0 else ((None, None), [first])
        began = time.perf_counter()
        while place == 0 and len(warm) < WARM and time.perf_counter() - began < budget:
            warm.append(clocked(call, key)[1])
        wall, cpu = (statistics.median(times) for times in zip(*warm, strict=True))
        yield {
            "contender": method,
            "seed": seed,
            **assessed(problem, finish(jax.random.fold_in(key, 999), result)),
            "first_seconds": cold[0],
            "warm_seconds": wall,
            "first_cpu_seconds": cold[1],
            "warm_cpu_seconds": cpu,
        }


def clocked(call: Callable[[Any], Any], key: Any) -> tuple[Any, tuple[float, float]]:
    """The result, and (wall, processor) seconds; other programs on the machine disturb the second less."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call(key)
    for leaf in jax.tree.leaves(result):
        getattr(leaf, "block_until_ready", lambda: None)()
    return result, (time.perf_counter() - wall, time.process_time() - cpu)


def assessed(problem: Problem, answer: Answer) -> Row:
    """What is kept of an answer, but for its times."""
    values = np.asarray(problem.columns(answer.draws))
    log_weights = np.asarray(answer.log_weights, float)
    found = columns.errors(values, np.exp(log_weights - log_weights.max()), problem.reference)
    return {
        "parameters": problem.size,
        "status": "done" if np.isfinite(found.worst) else "non_finite",
        "ended": answer.status,
        "stage": answer.stage,
        "certified": answer.certified,
        "khat": answer.khat,
        "mean_error": np.max(np.abs(found.mean)),
        "mean_error_rms": np.sqrt(np.mean(found.mean**2)),
        "sd_error": np.max(np.abs(found.sd)),
        "sd_error_rms": np.sqrt(np.mean(found.sd**2)),
        "wasserstein": np.max(found.wasserstein),
        "gradients": answer.num_gradients,
        "values": answer.num_log_densities,
        "columns": problem.model.column_names,
        "mean_errors": found.mean,
        "sd_errors": found.sd,
        "wassersteins": found.wasserstein,
        "by_quantiles": found.heavy,
    }


def picture(found: list[Row], path: pathlib.Path) -> list[pathlib.Path]:
    """Errors and costs of each method."""
    from benchmarks.pages import accuracy_picture

    accuracy_picture.draw(firsts(found), path)
    return [path]


SUITE = Suite(
    "How near do `fit`, each solver alone and other libraries come to posteriors that are known, at what price?",
    functools.partial(jobs_on, models.NAMES, QUICK, SEEDS),
    rows,
    sections,
    seconds=7200.0,
    row_seconds=300.0,
    picture=picture,
    costs=COSTS,
    errors=ERRORS,
)
