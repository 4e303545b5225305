"""Minibatches at one budget of gradients: `fit_minibatches`, Adam at fixed step sizes, and NumPyro's SVI.

`fit_minibatches` decides itself when it is done; the others are given as many minibatch gradients as it took, start
included, and a step size each: plain steps from the origin, entropy in closed form; their last iterate and their tail average.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contenders import minibatches
from benchmarks.harness.clock import ratio
from benchmarks.harness.page import number, table
from benchmarks.harness.record import Row, median
from benchmarks.harness.suite import Job, Suite
from benchmarks.problems.many_rows import PROBLEMS, make_data, optimum

SEEDS, QUICK_SEEDS = (0, 1, 2), (0,)
OURS, PLAIN = "fit_minibatches", "fit_minibatches, no control variate"
RATES = (0.1, 0.01, 0.001)
NUMPYRO_RATE = 0.001
"""The best of `RATES` for NumPyro on these problems; each run takes long, for its subsampling costs N at every step."""
LAST, AVERAGE = ", last iterate", ", tail average"
CONTENDERS = (OURS, PLAIN, *(f"Adam {rate:g}{which}" for rate in RATES for which in (LAST, AVERAGE)))
NUMPYRO = f"NumPyro, Adam {NUMPYRO_RATE:g}"
STEPS_TOGETHER = 50
"""The budget is rounded down to a multiple: drivers compile steps in rounds of as many."""


def jobs(quick: bool) -> list[Job]:
    """All contenders of a problem in one process; seeds are the rounds, in which they take turns."""
    chosen = list(PROBLEMS)[:1] if quick else list(PROBLEMS)
    return [Job(name, (*CONTENDERS, NUMPYRO) if PROBLEMS[name].with_numpyro else CONTENDERS, 0) for name in chosen]


def rows(job: Job, quick: bool) -> Iterator[Row]:
    """Rows of all seeds, once the last round is done."""
    problem, seeds = PROBLEMS[job.problem], QUICK_SEEDS if quick else SEEDS
    data = jax.tree.map(jnp.asarray, make_data(problem))
    wanted = optimum(problem, data)
    ours = minibatches.fit_minibatches(problem, data, True)
    budget = round(statistics.median(ours(seed).num_gradients for seed in seeds))
    num_steps = max(budget // STEPS_TOGETHER * STEPS_TOGETHER, STEPS_TOGETHER)
    calls: dict[str, Callable[[int], Any]] = {OURS: ours, PLAIN: minibatches.fit_minibatches(problem, data, False)}
    calls |= {f"Adam {rate:g}": minibatches.plain(problem, data, rate, num_steps) for rate in RATES}
    if NUMPYRO in job.contenders:
        try:
            calls[NUMPYRO] = minibatches.numpyro_svi(problem, data, NUMPYRO_RATE, num_steps)
        except ModuleNotFoundError as missing:
            yield {"contender": NUMPYRO, "status": f"not installed: {missing.name}"}
    for call in calls.values():
        jax.block_until_ready(call(seeds[0]))  # compiled before it is timed
    found: dict[str, list[Row]] = {}
    for turn, seed in enumerate(seeds):
        names = list(calls)
        for name in names[turn:] + names[:turn]:
            began = time.perf_counter()
            result = jax.block_until_ready(calls[name](seed))
            seconds = time.perf_counter() - began
            for label, answer, more in answers(name, result, num_steps):
                one = {"contender": label, "seed": seed, "warm_seconds": seconds}
                found.setdefault(label, []).append(one | errors(answer, wanted) | more)
    base = [one["warm_seconds"] for one in found[OURS]]
    for label in (name for name in job.contenders if name in found):
        over = ratio([one["warm_seconds"] for one in found[label]], base)
        yield from (one | {"ratio": over} for one in found[label])


def answers(name: str, result: Any, num_steps: int) -> Iterator[tuple[str, tuple[Any, Any], Row]]:
    """(label, (means, sds), fields) of what a call has given: of Adam two, its last iterate and its tail average."""
    if name in (OURS, PLAIN):
        more = {"gradients": result.num_gradients, "ended": f"{result.status} ({result.winner})"}
        yield name, moments(result.q), more
    elif name == NUMPYRO:
        yield name, result[0], {"gradients": num_steps}
    else:
        last, average = result
        yield name + LAST, moments(last), {"gradients": num_steps}
        yield name + AVERAGE, moments(average), {"gradients": num_steps}


def moments(q: Any) -> tuple[Any, Any]:
    return q.mean(), jnp.sqrt(q.variance())


def errors(found: tuple[Any, Any], wanted: tuple[np.ndarray, np.ndarray]) -> Row:
    """Of means in sds of the optimum, of sds relative."""
    mean, sd = (np.asarray(x, float) for x in found)
    off = np.abs(mean - wanted[0]) / wanted[1]
    return {
        "mean_error": float(np.max(off)),
        "mean_error_rms": float(np.sqrt(np.mean(off**2))),
        "sd_error": float(np.max(np.abs(sd / wanted[1] - 1))),
    }


def sections(found: list[Row]) -> list[str]:
    """A table for each problem: the worst errors of the seeds, the median costs."""
    text = [
        f"Minibatches of {minibatches.BATCH}; all see the same data in float32. Errors against the exact optimum of the family"
        f" from all data, the worst of {len({row['seed'] for row in found})} seeds: means in posterior sds, sds relative. A"
        " minibatch gradient is one draw and one minibatch; `fit_minibatches` counts its start, race, control variates and"
        " passes over all rows, and the others are given as many. Seconds are warm, taken in turns; the ratio is to"
        " `fit_minibatches`, round by round."
    ]
    header = ["", "minibatch gradients", "mean error, rms / max", "sd error, max", "seconds", "ratio", "ended (winner)"]
    for name, problem in PROBLEMS.items():
        lines = []
        for contender in (*CONTENDERS, NUMPYRO):
            own = [r for r in found if (r["problem"], r["contender"]) == (name, contender) and "gradients" in r]
            if own:
                worst = {
                    field: max(row[field] for row in own) for field in ("mean_error_rms", "mean_error", "sd_error")
                }
                lines.append(
                    [contender, number(median(own, "gradients"))]
                    + [f"{worst['mean_error_rms']:.3f} / {worst['mean_error']:.3f}", f"{worst['sd_error']:.3f}"]
                    + [number(median(own, field)) for field in ("warm_seconds", "ratio")]
                    + [", ".join(row["ended"] for row in own if row.get("ended"))]
                )
        if lines:
            text.append(f"## {name}, N = {problem.num_data:,}, D = {problem.size}\n\n{table(header, lines)}")
    return text


SUITE = Suite(
    "At one budget of minibatch gradients, who comes nearest to the best Gaussian?",
    jobs,
    rows,
    sections,
    seconds=1800.0,
    quick_seconds=300.0,
    x64=False,
    costs=("gradients", "warm_seconds", "ratio"),
    errors={"mean_error": 0.02, "mean_error_rms": 0.01, "sd_error": 0.02},
)
