"""The chain check on trial, on targets of known moments at D = 50, 200 and 1,000, with `q` right and with `q` made wrong.

At most one in a hundred wrong ones may pass, and nine in ten right ones have to.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import jax

import elbojax
from benchmarks.harness.page import number, table
from benchmarks.harness.record import Row, median
from benchmarks.harness.suite import Job, Suite
from benchmarks.problems.made_wrong import RIGHT_ONE, TARGETS, TOLERANCE, WRONG, Target, kind_of, made, off


class Cell(NamedTuple):
    """A target of a size.

    Attributes:
      target: what is checked against.
      size: D.
    """

    target: Target
    size: int


SEEDS = {50: (10, 3), 200: (3, 1), 1000: (1, 1)}
"""Size -> seeds of a right `q`, and of each wrong one."""
QUICK_WRONG = ("mean + 0.3 sd, one", "sd x 0.8, all")
CELLS = {f"{target.name}, D = {size:,}": Cell(target, size) for size in SEEDS for target in TARGETS}
QS = {one.name: one for one in (RIGHT_ONE, *WRONG)}


def jobs(quick: bool) -> list[Job]:
    """All `q` of a target and a size in one process, where they share a program; a process takes all seeds."""
    if quick:
        return [Job(next(iter(CELLS)), (RIGHT_ONE.name, *QUICK_WRONG), 0)]
    return [
        Job(name, tuple(q for q, one in QS.items() if cell.target.correlated or not (one.mixed or one.mean_field)), 0)
        for name, cell in CELLS.items()
    ]


def rows(job: Job, quick: bool) -> Iterator[Row]:
    """A row for each `q` and each seed."""
    target, size = CELLS[job.problem]
    data = target.data(size)
    for name in job.contenders:
        wrong = QS[name]
        errors = off(target, wrong, size)
        for seed in range(1 if quick else SEEDS[size][wrong is not RIGHT_ONE]):
            began, q = time.process_time(), made(target, wrong, size)
            found = elbojax.chain_check(
                jax.random.key(seed), q, target.log_density, data=data, support=target.support, tolerance=TOLERANCE
            )
            yield {
                "contender": name,
                "seed": seed,
                "mean_error": round(errors[0], 3),
                "sd_error": round(errors[1], 3),
                "correlation_error": round(errors[2], 3),
                "kind": kind_of(wrong, errors),
                "verdict": str(found.agreement),
                "reasons": list(found.reasons),
                "gradients": found.num_gradients,
                "cpu_seconds": round(time.process_time() - began, 2),
            }


def sections(found: list[Row]) -> list[str]:
    """Both error rates, then a line for each target and size, then what was missed."""
    count = lambda some, what: sum(row["verdict"] == what for row in some)  # noqa: E731
    right, wrong = ([row for row in found if row.get("kind") == kind] for kind in ("right", "wrong"))
    lines = []
    for problem in (name for name in CELLS if any(row["problem"] == name for row in found)):
        good, bad = ([row for row in some if row["problem"] == problem] for some in (right, wrong))
        lines.append(
            [problem, f"{count(good, 'agrees')} of {len(good)}", count(good, "shifted")]
            + [f"{count(bad, 'agrees')} of {len(bad)}", count(bad, "shifted"), count(bad, "undecided")]
            + [number(median(some, "gradients"), 7) for some in (good, bad)]
        )
    header = ["target", "right: pass", "shifted", "wrong: pass", "shifted", "undecided", "gradients", "of wrong ones"]
    text = [
        "`chain_check` of targets of known moments, with `q` right and with `q` made wrong: the mean of one or of all"
        " coordinates shifted by 0.15 to 0.5 sd, sds times 0.8 or 1.25, one coordinate's correlations halved, mean-field on"
        f" what is correlated. Wrong is what is off by more than {TOLERANCE} sd (correlations: {2 * TOLERANCE}).",
        f"**Of {len(wrong)} wrong ones {count(wrong, 'agrees')} passed, {count(wrong, 'shifted')} were called shifted; of"
        f" {len(right)} right ones {count(right, 'agrees')} passed, {count(right, 'shifted')} were called shifted.**",
        table(header, lines),
    ]
    missed = [
        f"- {row['contender']} ({row['problem']}, off by"
        f" {max(row[f'{what}_error'] for what in ('mean', 'sd', 'correlation'))}): {row['verdict']}"
        for row in wrong
        if row["verdict"] != "shifted"
    ]
    if missed:
        text.append("Wrong, and not called shifted:\n\n" + "\n".join(dict.fromkeys(missed)))
    if lines:
        text.append("What is missing was not run.")
    return text


SUITE = Suite(
    "How often is `chain_check` wrong, and how often does it decide, of a `q` that is right or made wrong?",
    jobs,
    rows,
    sections,
    seconds=3600.0,
    quick_seconds=300.0,
    costs=("gradients", "cpu_seconds"),
    right=lambda row: row.get("verdict") == "agrees" if row.get("kind") == "right" else row.get("verdict") != "agrees",
)
