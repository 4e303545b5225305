"""`fit` on crossed effects and item response as they grow: verdict, gradients, seconds, memory, errors where they are known."""

import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

import elbojax
from benchmarks.contenders import FIT
from benchmarks.harness.page import number, table
from benchmarks.harness.record import Row
from benchmarks.harness.suite import Job, Suite
from benchmarks.problems.crossed import crossed, exact, item_response

WORDS = {"gauss": "normal", "logit": "logistic", "irt": "2PL item response"}


class Cell(NamedTuple):
    """A model of a size.

    Attributes:
      kind: of the likelihood.
      large: levels of the first factor, or persons.
      small: levels of the second, or items.
      data: rows.
    """

    kind: str
    large: int
    small: int
    data: int


CELLS = {
    "gauss-60": Cell("gauss", 60, 40, 2_000),
    "gauss-400": Cell("gauss", 400, 200, 6_000),
    "logit-60": Cell("logit", 60, 40, 2_000),
    "logit-200": Cell("logit", 200, 100, 4_000),
    "logit-2000": Cell("logit", 2_000, 1_000, 50_000),
    "irt-100": Cell("irt", 100, 20, 2_000),
    "irt-1000": Cell("irt", 1_000, 50, 50_000),
}
QUICK = ("gauss-60",)


def jobs(quick: bool) -> list[Job]:
    """A process for each model and size."""
    return [Job(name, (FIT,), 0) for name in (QUICK if quick else CELLS)]


def rows(job: Job, quick: bool) -> Iterator[Row]:
    """The row of `fit`."""
    cell = CELLS[job.problem]
    made = item_response(cell.large, cell.small) if cell.kind == "irt" else crossed(*cell)
    log_density, init, data, support = made
    wall, cpu = time.perf_counter(), time.process_time()
    fit = elbojax.fit(jax.random.key(job.seed), log_density, init, data=data, support=support)
    seconds, c = time.process_time() - cpu, fit.certificate
    row = {
        "contender": FIT,
        "parameters": int(sum(np.size(x) for x in jax.tree.leaves(init))),
        "certified": bool(c.certified),
        "stage": str(elbojax.Stage(int(c.stage))),
        "gradients": float(c.num_gradients) + 0.5 * float(c.num_log_densities),
        "first_cpu_seconds": seconds,
        "first_seconds": time.perf_counter() - wall,
        "stated_mean_error": float(c.mean_error),
        "stated_sd_error": float(c.sd_error),
    }
    if cell.kind == "gauss":
        order = ("sa", "sb", "s", "a", "b", "mu")
        mean, sd = (np.concatenate([np.ravel(tree[leaf]) for leaf in order]) for tree in (fit.mean(), fit.sd()))
        wanted, wanted_sd, ess = exact(cell.large, cell.small, data, np.log(mean[:3]), sd[:3] / mean[:3])
        row |= {
            "mean_error": float(np.max(np.abs(mean - wanted) / wanted_sd)),
            "sd_error": float(np.max(np.abs(sd / wanted_sd - 1))),
            "reference": f"exact given the scales, {ess:,.0f} weighted draws of these",
        }
    yield row


def sections(found: list[Row]) -> list[str]:
    """The table."""
    own = {row["problem"]: row for row in found if "gradients" in row}
    lines = []
    for name, cell in CELLS.items():
        line = [WORDS[cell.kind], f"{cell.large:,} x {cell.small:,}, {cell.data:,}"]
        row = own.get(name)
        if row is None:
            lines.append([*line, "", "not run", *[""] * 5])
            continue
        of = "" if "mean_error" in row else "stated_"
        by = row.get("reference") or "certificate" + (f"; {row['note']}" if row.get("note") else "")
        lines.append(
            [*line, f"{row['parameters']:,}", f"{'certified' if row['certified'] else 'refused'}, {row['stage']}"]
            + [f"{row['gradients']:,.0f}", number(row["first_cpu_seconds"]), number(row.get("peak_mb"))]
            + [f"{row[f'{of}mean_error']:.3f}, {row[f'{of}sd_error']:.3f}", by]
        )
    header = ["model", "levels, rows", "D", "answer", "gradients", "processor s", "MB"]
    return [
        "`fit` with one seed, compilation included. Gradients are equivalents: a value counts a half. Errors beside an"
        " independent answer: the largest of all means, in sds, and of all sds, relative; else what the certificate says of"
        " Monte Carlo errors.",
        table([*header, "largest error of a mean, an sd", "by"], lines),
    ]


SUITE = Suite(
    "Crossed effects and item response as they grow: is `fit` certified, is it right, and what does it take?",
    jobs,
    rows,
    sections,
    seconds=1800.0,
    quick_seconds=300.0,
    costs=("gradients", "first_cpu_seconds", "first_seconds", "peak_mb"),
    errors={f"{stated}{what}_error": 0.02 for stated in ("", "stated_") for what in ("mean", "sd")},
)
