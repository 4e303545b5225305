"""How noisy each gradient estimator is, and whether other libraries have the same numbers for the same bound.

Nothing is timed: costs are counts of log-density gradients. TensorFlow Probability runs on the newest jax in its nightly
releases only.
"""

from collections.abc import Iterator

import jax

import elbojax
from benchmarks.contenders.bounds import BOUNDS
from benchmarks.contenders.estimators import DISCRETE, IMPORTANCE, PATHWISE
from benchmarks.harness.page import number, table
from benchmarks.harness.record import Row
from benchmarks.harness.suite import Job, Suite
from benchmarks.problems.noisy import PLACES, PROBLEMS, exact_importance, q_at

ESTIMATES, QUICK_ESTIMATES = 2048, 256
QUICK_PROBLEMS = ("coupled coins, D = 8: fitted",)
QUICK_BOUNDS = 1
AGREE = 1e-9
"""Largest difference of two libraries that is rounding."""
ESTIMATORS = {
    "eight schools, D = 10": PATHWISE,
    "coupled coins, D = 8": DISCRETE,
    "two bumps, D = 2": PATHWISE | IMPORTANCE,
}
FIELDS = {
    "bias": "bias",
    "bias_error": "bias_by_chance",
    "variance": "variance",
    "signal_to_noise": "signal_to_noise",
    "cost": "gradients",
    "value": "value",
    "value_sd": "value_sd",
}
"""Field of a `GradientNoise` -> field of a row."""


def jobs(quick: bool) -> list[Job]:
    """All estimators at one `q` in a process; all peers of one bound in another."""
    noisy = {f"{name}: {place}": tuple(ESTIMATORS[name]) for name in PROBLEMS for place in PLACES}
    bounds = list(BOUNDS)[: QUICK_BOUNDS if quick else None]
    return [Job(name, estimators, 0) for name, estimators in noisy.items() if not quick or name in QUICK_PROBLEMS] + [
        Job(bound, tuple(BOUNDS[bound]), 0) for bound in bounds
    ]


def rows(job: Job, quick: bool) -> Iterator[Row]:
    """A row for each estimator, or for each peer."""
    yield from agreements(job) if job.problem in BOUNDS else noises(job, QUICK_ESTIMATES if quick else ESTIMATES)


def noises(job: Job, estimates: int) -> Iterator[Row]:
    name, _, place = job.problem.rpartition(": ")
    problem, q = PROBLEMS[name], q_at(PROBLEMS[name], PLACES[place])
    objectives = {estimator: ESTIMATORS[name][estimator] for estimator in job.contenders}
    exact = {key: exact_importance(q, int(key.split("= ")[1])) for key in objectives if key.startswith("iw")}
    found = elbojax.gradient_noise(
        jax.random.key(job.seed + 1), objectives, q, problem.log_density, exact=exact, num_estimates=estimates
    )
    for i, estimator in enumerate(found.names):
        numbers = {field: float(getattr(found, theirs)[i]) for theirs, field in FIELDS.items()}
        yield {"contender": estimator, "estimates": estimates} | numbers


def agreements(job: Job) -> Iterator[Row]:
    for peer in job.contenders:
        try:
            found = BOUNDS[job.problem][peer]()
        except ModuleNotFoundError as missing:
            yield {"contender": peer, "status": f"not installed: {missing.name}"}
            continue
        same = max(found.difference, found.gradient_difference) <= AGREE
        yield {
            "contender": peer,
            "status": "done" if same else "other numbers",
            "value": found.value,
            "value_difference": found.difference,
            "gradient_difference": found.gradient_difference,
        }


def sections(found: list[Row]) -> list[str]:
    """A table for each `q`, the least noisy on top; then the agreements."""
    counts = sorted({row["estimates"] for row in found if "estimates" in row})
    text = [
        f"{' or '.join(f'{count:,}' for count in counts) or 'No'} estimates of each, worth no more than eight log-density"
        " gradients but where K says so. Sorted by variance times cost: the variance of as many estimates, averaged, as one"
        " log-density gradient pays for. Bias is the norm of the difference from the gradient of the estimator's own bound,"
        " beside what chance alone would make it. A value stands with the sd of one estimate of it."
    ]
    header = ["estimator", "variance", "x cost", "cost", "signal/noise", "bias", "by chance", "value", "its sd"]
    for problem in dict.fromkeys(row["problem"] for row in found if "variance" in row):
        own = [row for row in found if row["problem"] == problem and "variance" in row]
        own.sort(key=lambda row: row["variance"] * row["gradients"])
        lines = [
            [row["contender"], number(row["variance"]), number(row["variance"] * row["gradients"])]
            + [number(row["gradients"]), f"{row['signal_to_noise']:.3g}"]
            + [number(row[field], 2) for field in ("bias", "bias_by_chance")]
            + [f"{row['value']:.3f}", number(row["value_sd"], 2)]
            for row in own
        ]
        text.append(f"## {problem}\n\n{table(header, lines)}")
    peers = [
        [row["contender"], row["problem"], number(row["value"], 6)]
        + [f"{row[field]:.1e}" for field in ("value_difference", "gradient_difference")]
        for row in found
        if "value_difference" in row
    ]
    if peers:
        header = ["peer", "bound", "value", "difference of values", "of gradients"]
        text.append(f"## The same bound elsewhere\n\nOne q, one set of draws.\n\n{table(header, peers)}")
    return text


SUITE = Suite(
    "Which gradient estimator is least noisy at equal cost, and do other libraries have the same numbers for the same bound?",
    jobs,
    rows,
    sections,
    seconds=900.0,
    costs=("variance", "gradients", "value_sd"),
    errors={"value_difference": AGREE, "gradient_difference": AGREE},
)
