"""Simulation-based calibration of `fit_batch` on three models, and of log-densities that are wrong.

All parameters and the log-density are ranked among 99 independent posterior draws, and every fit counts, certified or not. Ranks
look at tails, so the fits are those of `fit_batch(..., tails=True)`. For comparison a fifth of the replicates once more with a
prior that is half as wide as that of the simulation.
"""

import pathlib
import time
from collections.abc import Iterator

import jax
import numpy as np

import elbojax
from benchmarks.harness.page import table
from benchmarks.harness.record import Row
from benchmarks.harness.suite import Job, Suite
from benchmarks.problems.generative import MODELS

SEED = 2026
REPLICATES, WRONG_REPLICATES, QUICK_REPLICATES = 1000, 200, 50
NARROW = 0.5
WANTED_CERTIFIED = 0.95
CONTENDER = "fit_batch, tails"
CELLS = {
    f"{name}{'' if width == 1 else f', prior times {width}'}": (name, width)
    for width in (1.0, NARROW)
    for name in MODELS
}


def jobs(quick: bool) -> list[Job]:
    """A process for each model."""
    return [Job(name, (CONTENDER,), 0) for name in CELLS if not quick or CELLS[name][0] == "logistic regression"]


def rows(job: Job, quick: bool) -> Iterator[Row]:
    """One calibration, with how often each rank was met."""
    name, width = CELLS[job.problem]
    model, replicates = MODELS[name], REPLICATES if width == 1 else WRONG_REPLICATES
    began, cpu = time.perf_counter(), time.process_time()
    found = elbojax.studies.simulation_based_calibration(
        jax.random.key(SEED + job.seed),
        model.sample_prior,
        model.simulate,
        lambda position, data: model.log_density(position, data, width),
        model.init,
        num_replicates=QUICK_REPLICATES if quick else replicates,
        support=model.support,
    )
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    certificate = found.certificate
    stage, good = np.asarray(certificate.stage), np.asarray(certificate.certified)
    stages, counts = np.unique(stage[good], return_counts=True)
    outermost = np.mean((found.ranks < 2) | (found.ranks > found.num_draws - 2), axis=1)
    labels = np.where(good, stage, 0)
    yield {
        "contender": CONTENDER,
        "replicates": len(found.ranks),
        "first_seconds": seconds,
        "first_cpu_seconds": cpu_seconds,
        "certified_share": found.certified,
        "stages": {str(elbojax.Stage(int(one))): int(count) for one, count in zip(stages, counts, strict=True)},
        "outermost": {
            str(elbojax.Stage(int(one))) if one else "not certified": float(outermost[labels == one].mean())
            for one in np.unique(labels)
        },
        "gradients": float(np.median(np.asarray(certificate.num_gradients))),
        "calibrated": found.calibrated,
        "p_value": found.p_value,
        "p_values": {one: verdict.p_value for one, verdict in zip(found.names, found.verdicts, strict=True)},
        "inside": {one: verdict.inside for one, verdict in zip(found.names, found.verdicts, strict=True)},
        "rank_counts": {
            one: np.bincount(ranks, minlength=found.num_draws + 1)
            for one, ranks in zip(found.names, np.asarray(found.ranks, int).T, strict=True)
        },
    }


def sections(found: list[Row]) -> list[str]:
    """A line for each model, then one for each number that was ranked."""
    at = {row["problem"]: row for row in found if "p_value" in row}
    lines, worst = [], []
    for problem, (name, width) in CELLS.items():
        if problem not in at:
            continue
        row = at[problem]
        lines.append(
            [name, "right" if width == 1 else f"prior times {width}", f"{row['replicates']:,}"]
            + [f"{100 * row['certified_share']:.1f} %"]
            + [", ".join(f"{stage} {count:,}" for stage, count in row["stages"].items())]
            + [f"{row['gradients']:,.0f}", f"{sum(row['inside'].values())} of {len(row['inside'])}"]
            + [f"{row['p_value']:.3g}"]
            + [", ".join(f"{stage} {100 * share:.1f} %" for stage, share in row["outermost"].items())]
            + ["yes" if row["calibrated"] else "NO", f"{row['first_seconds']:.0f} ({row['first_cpu_seconds']:.0f})"]
        )
        if width == 1:
            worst += [
                [name, one, f"{p:.3f}", "inside" if row["inside"][one] else "OUTSIDE"]
                for one, p in row["p_values"].items()
            ]
    header = ["model", "log-density", "replicates", "certified", "by stage", "gradients"]
    header += ["ECDFs inside", "p", "outermost", "calibrated", "seconds (cpu)"]
    return [
        "Positions from the prior, data from them, and one call of `simulation_based_calibration`: ranks of every"
        " parameter and of the log-density among 99 independent posterior draws of each fit, certified or not."
        " The fits are those of `fit_batch(..., tails=True)`."
        f" Wanted: at least {100 * WANTED_CERTIFIED:.0f} % certified, and every ECDF inside its simultaneous 95 % band;"
        " one in twenty leaves its own by chance, so that a row is calibrated where p, the smallest times their"
        " number, is above 0.05. Outermost: how many ranks are among the two lowest or the two highest, 4 % if all is"
        " right. Seconds are those of the whole call, compilation included.",
        table(header, lines),
        "## Each number\n\n" + table(["model", "ranked", "p", "95 % band"], worst),
    ]


def picture(found: list[Row], path: pathlib.Path) -> list[pathlib.Path]:
    """ECDFs of the ranks for each model: of those whose ranks are in the rows anew, of others what was drawn before."""
    at, files = {row["problem"]: row for row in found}, []
    for name in MODELS:
        file = path.with_name(f"{path.stem}-{name.replace(' ', '-')}.png")
        if "rank_counts" in at.get(name, {}):
            one = calibration(at[name]["rank_counts"])
            title = f"{name}, {len(one.ranks):,} replicates, simultaneous 95 % band"
            elbojax.plots.calibration(one, title=title).savefig(file, dpi=80)
        if name in at and file.is_file():
            files.append(file)
    return files


def calibration(counts: dict[str, list[int]]) -> elbojax.studies.Calibration:
    """What was measured, as far as ranks go, in their order of size."""
    columns = [np.repeat(np.arange(len(each)), each) for each in counts.values()]
    num_draws = len(next(iter(counts.values()))) - 1
    verdicts = tuple(elbojax.diagnostics.uniformity(column, num_draws) for column in columns)
    return elbojax.studies.Calibration(tuple(counts), np.stack(columns, axis=1), num_draws, None, None, verdicts)


SUITE = Suite(
    "Simulation-based calibration: are the ranks of what was simulated uniform, and is a wrong prior seen?",
    jobs,
    rows,
    sections,
    seconds=7200.0,
    quick_seconds=300.0,
    picture=picture,
    costs=("first_seconds", "first_cpu_seconds", "gradients"),
    gains={"certified_share": 0.02},
    right=lambda row: row["status"] == "done" and row["calibrated"] != ("prior times" in row["problem"]),
)
