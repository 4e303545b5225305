"""`fit` and NUTS on the posteriors of the Inference Gym, beside the ground truths that it brings.

The package is no dependency: where it is not installed, that is what rows say (`benchmarks/requirements-rivals.txt`).
"""

import time
from collections.abc import Iterator

import numpy as np

from benchmarks.harness.page import table
from benchmarks.harness.record import Row
from benchmarks.harness.suite import Job, Suite
from benchmarks.models import gym
from benchmarks.problems.posterior import of_model
from benchmarks.suites.structured import FIT, GOOD, NUTS, errors, fitted, moments, sampled

QUICK = ("eight_schools",)


def jobs(quick: bool) -> list[Job]:
    """A process for each posterior and contender."""
    return [Job(name, (one,), 0) for name in (QUICK if quick else gym.NAMES) for one in (FIT, NUTS)]


def rows(job: Job, quick: bool) -> Iterator[Row]:
    """The row of the contender."""
    (name,) = job.contenders
    try:
        problem, truth = of_model(gym.load(job.problem)), gym.truth(job.problem)
    except ModuleNotFoundError as missing:
        yield {"contender": name, "status": f"not installed: {missing.name}"}
        return
    wall, cpu = time.perf_counter(), time.process_time()
    found = {FIT: fitted, NUTS: sampled}[name](problem)
    row = {"contender": name, "parameters": problem.size}
    row |= {"first_seconds": time.perf_counter() - wall, "first_cpu_seconds": time.process_time() - cpu}
    values, weights = found.pop("draws")
    counts = weights > 0
    mean, sd = moments(np.asarray(values, float)[counts], weights[counts], np.zeros(values.shape[1], bool))
    row |= found | {"means": mean, "sds": sd}
    reference = {
        "means": truth["mean"],
        "sds": truth["sd"],
        "mean_ses": truth["mean_error"],
        "sd_ses": truth["sd_error"],
    }
    yield row | errors(row, reference)


def sections(found: list[Row]) -> list[str]:
    """The table."""
    at = {(row["problem"], row["contender"]): row for row in found}
    lines, right, ran = [], 0, 0
    number = lambda field, row, form=",.0f": f"{row[field]:{form}}" if row.get(field) is not None else ""  # noqa: E731
    for name in gym.NAMES:
        row, nuts = at.get((name, FIT)), at.get((name, NUTS), {})
        if row is None:
            continue
        ran += 1
        if row["status"] != "done":
            answer = f"no answer: {row['status']}"
        else:
            answer = f"certified, {row['stage']}" if row["certified"] else f"refused: {row['ended']}"
            right += not row["certified"] or row["columns_off"] == 0
        lines.append(
            [name, number("parameters", row), answer, number("mean_error", row, ".3f"), number("sd_error", row, ".3f")]
            + [number("columns_off", row), number("gradients", row), number("first_cpu_seconds", row, ".1f")]
            + [number("mean_error", nuts, ".3f"), number("sd_error", nuts, ".3f"), number("columns_off", nuts)]
            + [number("gradients", nuts), number("first_cpu_seconds", nuts, ".1f")]
        )
    header = ["posterior", "D", "answer of `fit`", "worst mean", "worst sd", "columns off", "gradients", "processor s"]
    header += ["NUTS 500 + 500: worst mean", "worst sd", "columns off", "gradients", "processor s"]
    return [
        "Posteriors of the Inference Gym that need no data from elsewhere, most of which compute in single precision; truths are"
        " those that the package brings, by chains of others. Errors of means are in sds of the truth, of sds relative; a column"
        f" is off where it is further away than {GOOD} and three Monte Carlo errors of the truth. One seed. Gradients are"
        " equivalents: a Hessian-vector product counts two, a value a half, inner work and checks included; NUTS's are those of"
        " adaptation and sampling of one chain. Seconds are of the processor, compilation included.",
        f"`fit` is certified with no column off, or refuses: {right} of {ran}.",
        table(header, lines),
    ]


SUITE = Suite(
    "What does `fit` say of posteriors that others have posed and answered, beside NUTS?",
    jobs,
    rows,
    sections,
    seconds=300.0,
    quick_seconds=120.0,
    costs=("gradients", "first_seconds", "first_cpu_seconds", "peak_mb"),
    errors={f"{what}_error{end}": 0.02 for what in ("mean", "sd") for end in ("", "_rms")} | {"columns_off": 0.0},
)
