"""The low-rank stage of `fit` on 250 to 2,000 parameters: seconds, gradients and bytes as D grows, and its errors.

The stage is run alone: what `fit` does first above 300 parameters, check included.
"""

from collections.abc import Iterator

import numpy as np

from benchmarks.contenders.stages import CHAINS, FULL_RANK, LOW_RANK, chains, errors, stage
from benchmarks.harness.page import number, table
from benchmarks.harness.record import Row
from benchmarks.harness.suite import Job, Suite
from benchmarks.problems.growing import PROBLEMS
from elbojax.cascade import handover

SIZES, QUICK_SIZES = (250, 500, 1000, 2000), (250, 500)
CELLS = {f"{name}, D = {size:,}": (name, size) for name in PROBLEMS for size in SIZES}
REPEATS, QUICK_REPEATS = 5, 1
DENSE, DENSE_RUN = 500, 250
"""Largest D at which full rank is compiled, and at which it is run."""
CHAINED = 500
"""Largest D at which NUTS is the reference where none is exact."""
WANTED = {"warm_seconds": 1.5, "warm_cpu_seconds": 1.5, "gradients": None, "planned_mb": 1.0}
"""Field -> the largest exponent b of D^b that is aimed at."""
COMPILED = "compiled only"


def jobs(quick: bool) -> list[Job]:
    """All stages of a problem and a size in one process."""
    found = []
    for name, (problem, size) in CELLS.items():
        if quick and (size not in QUICK_SIZES or problem != "random walk"):
            continue
        chained = PROBLEMS[problem].truth is None and size <= CHAINED and not quick
        names = [(LOW_RANK, True), (CHAINS, chained), (FULL_RANK, size <= DENSE)]
        found.append(Job(name, tuple(one for one, there in names if there), 0))
    return found


def rows(job: Job, quick: bool) -> Iterator[Row]:
    """A row for each stage; the low-rank one is run first, since the chains start from it."""
    name, size = CELLS[job.problem]
    problem, repeats = PROBLEMS[name], QUICK_REPEATS if quick else REPEATS
    data = problem.data(size)
    if LOW_RANK in job.contenders or CHAINS in job.contenders:
        row, outcome = stage(LOW_RANK, problem, size, data, repeats)
        truth = None if problem.truth is None else problem.truth(data)
        if CHAINS in job.contenders and handover.available():
            chained, truth = chains(problem, size, data, outcome)
            yield {"contender": CHAINS} | chained
        elif CHAINS in job.contenders:
            yield {"contender": CHAINS, "status": "not installed: blackjax"}
        yield {"contender": LOW_RANK} | row | ({} if truth is None else errors(outcome, truth))
    if FULL_RANK in job.contenders:
        row, outcome = stage(FULL_RANK, problem, size, data, 1 if size <= DENSE_RUN else 0)
        yield {"contender": FULL_RANK, "status": "done" if outcome is not None else COMPILED} | row


def exponent(points: dict[int, float]) -> float | None:
    """The b of a D^b fitted by least squares of logarithms."""
    if len(points) < 2 or not all(points.values()):
        return None
    return float(np.polyfit(np.log(list(points)), np.log(list(points.values())), 1)[0])


def sections(found: list[Row]) -> list[str]:
    """The low-rank stage with the chains beside it, its growth, and full rank."""
    at = {(*CELLS[row["problem"]], row["contender"]): row for row in found}
    places = [place for place in CELLS.values() if (*place, LOW_RANK) in at]
    lines = []
    for name, size in places:
        low, nuts = at[name, size, LOW_RANK], at.get((name, size, CHAINS))
        lines.append(
            [name, size]
            + [number(low.get(field)) for field in ("first_seconds", "warm_seconds", "warm_cpu_seconds")]
            + [number(low.get("gradients"), 7), number(low.get("planned_mb"))]
            + [
                f"{low[f'{what}_error_rms']:.3f} / {low[f'{what}_error']:.2f}" if f"{what}_error" in low else ""
                for what in ("mean", "sd")
            ]
            + [number(low.get("khat")), "yes" if low.get("certified") else "no"]
            + [f"{nuts['first_seconds']:.0f} s, {nuts['gradients']:,.0f}" if nuts and "gradients" in nuts else ""]
        )
    header = ["problem", "D", "cold, s", "warm, s", "cpu, s", "gradients", "MB"]
    header += ["mean error, rms / max", "sd error, rms / max", "k-hat", "certified", CHAINS]
    grown = []
    for name in dict.fromkeys(name for name, _ in places):
        line = [name]
        for field, wanted in WANTED.items():
            b = exponent({size: at[name, size, LOW_RANK].get(field) for one, size in places if one == name})
            reached = "" if wanted is None or b is None else f" ({'yes' if b <= wanted else 'no'})"
            line.append("" if b is None else f"{b:.2f}{reached}")
        grown.append(line)
    dense = [
        [name, size, *(number(full.get(field)) for field in ("planned_mb", "warm_seconds", "gradients", "khat"))]
        for name, size in CELLS.values()
        if (full := at.get((name, size, FULL_RANK)))
    ]
    return [
        "The low-rank stage of `fit` alone: paths, `newton_low_rank`, and the check with 4,096 draws. A Hessian-vector"
        " product counts as two gradients. Errors of means in reference sds, of sds relative, of the 4,096 draws that the"
        " stage hands on; reference: exact for the random walk, for the logistic regression NUTS (its own error about"
        " 0.02). The last column: seconds with compilation and gradients of the chains to which `fit` goes on. Warm"
        " times are the least of the repeats; memory is what XLA plans for the compiled program, temporaries and results.",
        table(header, lines),
        "## Growth\n\nExponents b of D^b by least squares, and whether that is at most what is wanted: of time 1.5, of memory"
        " 1.\n\n" + table(["problem", "warm seconds", "cpu seconds", "gradients", "memory"], grown),
        "## Full rank instead\n\nThe same first stage as `fit` takes it up to 300 parameters; where no time stands it was"
        " compiled and not run.\n\n" + table(["problem", "D", "MB", "warm, s", "gradients", "k-hat"], dense),
    ]


SUITE = Suite(
    "How do time and memory of the low-rank stage grow with the number of parameters, and what does it err?",
    jobs,
    rows,
    sections,
    seconds=1800.0,
    quick_seconds=300.0,
    costs=("gradients", "compile_seconds", "first_seconds", "warm_seconds", "warm_cpu_seconds", "planned_mb"),
    errors={f"{what}_error{end}": 0.02 for what in ("mean", "sd") for end in ("", "_rms")},
)
