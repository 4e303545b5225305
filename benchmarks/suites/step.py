"""Microseconds per step of stochastic VI: elbojax, a hand-written loop, NumPyro and BlackJAX in one interleaved run.

Whoever ends at another bound has been timed at something else, and is said so.
"""

import functools
import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.contenders.svi import SVI
from benchmarks.harness import clock
from benchmarks.harness.page import number, table
from benchmarks.harness.record import Row
from benchmarks.harness.suite import Job, Suite
from benchmarks.problems.regressions import Density, eight_schools, logistic, logistic_batch

RELATIVE_TOLERANCE, TOLERANCE = 0.02, 1.0
"""Of the rise of the bound, and in nats: how far apart the final bounds of two contenders may be."""
ROUNDS, QUICK_ROUNDS = (25, 8.0), (5, 1.0)
"""Rounds at most, and seconds after which no round is begun."""
QUICK_DRAWS = (1, 10)
HAND, OURS = "hand", "elbojax"


class Cell(NamedTuple):
    """One row of the table.

    Attributes:
      make: the posterior.
      full: full rank, or mean-field.
      draws: per step.
      steps: of a timed fit, enough that compiled work is all that counts.
      wanted: the ratio to the hand-written loop to be reached; None for none.
    """

    make: Callable[[], Density]
    full: bool
    draws: int
    steps: int
    wanted: float | None


FAMILIES = {False: "mean-field", True: "full rank"}
CELLS: dict[str, Cell] = {
    f"{name}, {FAMILIES[full]}, {draws} draw{'s' * (draws > 1)}": Cell(make, full, draws, steps, wanted(draws, full))
    for name, make, families, sizes, wanted in (
        (
            "eight schools",
            eight_schools,
            (False, True),
            {1: 20_000, 10: 10_000, 100: 2000},
            lambda draws, full: None if full else 0.6 if draws == 1 else 0.4,
        ),
        ("logistic n=1,000 d=50", logistic, (False, True), {1: 3000, 10: 500, 100: 200}, lambda draws, full: 1.05),
        ("1,000 x logistic n=200 d=10", logistic_batch, (False,), {1: 200, 10: 100, 100: 20}, lambda draws, full: 1.05),
    )
    for full in families
    for draws, steps in sizes.items()
}


def jobs(quick: bool) -> list[Job]:
    """All contenders in one process, where they take turns."""
    return [Job(name, tuple(SVI), 0) for name, cell in CELLS.items() if not quick or cell.draws in QUICK_DRAWS]


def rows(job: Job, quick: bool) -> Iterator[Row]:
    """A row for each contender, with ratios to the hand-written loop, which is timed even if its row is not asked for."""
    cell = CELLS[job.problem]
    problem, steps = cell.make(), max(cell.steps // 10, 50) if quick else cell.steps
    key = jax.random.key(job.seed)
    if problem.models is not None:
        key = jax.random.split(key, problem.models)
    calls = {}
    for name in (HAND, *(one for one in job.contenders if one != HAND)):
        try:
            calls[name] = functools.partial(SVI[name](problem, cell.full, cell.draws, steps), key, problem.data)
        except ModuleNotFoundError as missing:
            yield {"contender": name, "status": f"not installed: {missing.name}"}
    repeats, budget = QUICK_ROUNDS if quick else ROUNDS
    times, results = clock.measure(calls, repeats=repeats, budget=budget)
    start = bounds(problem, False, start_of(problem))
    reached = {name: bounds(problem, cell.full, result) for name, result in results.items()}
    allowed = RELATIVE_TOLERANCE * abs(reached[HAND] - start) + TOLERANCE
    per_step, base = steps * (problem.models or 1), times[HAND]
    for name in job.contenders:
        if name in times:
            t = times[name]
            yield {
                "contender": name,
                "status": "done" if abs(reached[name] - reached[HAND]) <= allowed else "another bound",
                "steps": steps,
                "rounds": len(t.wall),
                "spread": clock.spread(t.cpu),
                "microseconds": 1e6 * statistics.median(t.wall) / per_step,
                "cpu_microseconds": 1e6 * statistics.median(t.cpu) / per_step,
                "ratio": clock.ratio(t.wall, base.wall),
                "cpu_ratio": clock.ratio(t.cpu, base.cpu),
                "first_seconds": t.first,
                "elbo": reached[name],
            }


@functools.partial(jax.jit, static_argnames=("log_density",))
def _bound(q, data, log_density):
    import elbojax

    return elbojax.elbo_entropy(jax.random.key(99), q, lambda z: log_density(z, data), num_samples=500)


def bounds(problem: Density, full: bool, result: Any) -> float:
    """The bound that a contender has reached, the mean over the models of a batch."""
    import elbojax

    if isinstance(result, tuple):
        (loc, scale), _ = result
        make = elbojax.full_rank if full else elbojax.mean_field
        result = make(loc, scale) if problem.models is None else jax.vmap(make)(loc, scale)
    one = functools.partial(_bound, log_density=problem.log_density)
    return float(jnp.mean((one if problem.models is None else jax.vmap(one))(result, problem.data)))


def start_of(problem: Density) -> tuple:
    """N(0, I), as a contender would give it."""
    shape = (problem.size,) if problem.models is None else (problem.models, problem.size)
    return (jnp.zeros(shape), jnp.ones(shape)), None


def sections(found: list[Row]) -> list[str]:
    """The ratios, and the first calls."""
    lines, firsts = [], []
    others = [name for name in SVI if name != HAND]
    for problem in (name for name in CELLS if any(row["problem"] == name for row in found)):
        own = {row["contender"]: row for row in found if row["problem"] == problem and "ratio" in row}
        wanted, ours = CELLS[problem].wanted, own.get(OURS)
        lines.append(
            [
                problem,
                number(own[HAND]["microseconds"]) if HAND in own else "",
                *(f"{own[n]['ratio']:.2f} ({own[n]['cpu_ratio']:.2f})" if n in own else "" for n in others),
                "" if wanted is None or ours is None else f"{wanted} {'yes' if ours['ratio'] <= wanted else 'no'}",
                " / ".join(f"{own[n]['elbo']:.1f}" if n in own else "-" for n in SVI),
            ]
        )
        firsts.append([problem, *(f"{own[n]['first_seconds']:.2f}" if n in own else "" for n in SVI)])
    return [
        "All maximise the same bound with `optax.adam`, from N(0, I), on the same log-density in float32. The hand-written loop"
        " is the obvious one: `jit(scan(value_and_grad + adam))`, `random.normal(key, (S, D))`, `vmap` over the draws, the"
        " entropy in closed form. NumPyro and BlackJAX estimate the entropy from the draws, and run in one jitted scan.",
        "Microseconds per step (per model in a batch) of the hand-written loop, medians of wall time; the others as a ratio"
        " to it, round by round, the median over rounds, in brackets the same of processor time. Below 1 is faster; within 0.85"
        " to 1.2 is a tie on a busy machine. Last, the bound that each reached, in the order of the columns with the"
        " hand-written loop first.",
        table(["problem", "hand, µs", *others, f"wanted of {OURS}", "ELBO reached"], lines),
        "## First call, compilation included, seconds\n\n" + table(["problem", *SVI], firsts),
    ]


SUITE = Suite(
    "What does one step of stochastic VI cost, beside a loop written by hand and other libraries?",
    jobs,
    rows,
    sections,
    x64=False,
    costs=("microseconds", "cpu_microseconds", "ratio", "cpu_ratio", "first_seconds"),
    gains={"elbo": TOLERANCE},
)
