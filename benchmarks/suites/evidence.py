"""log p(x) and its error, where both are known."""

import numpy as np

from benchmarks.contenders import CONTENDERS, EVIDENCE
from benchmarks.harness.page import number, table
from benchmarks.harness.record import Row, median
from benchmarks.harness.suite import Job, Suite, rounds
from benchmarks.problems.known import PROBLEMS
from benchmarks.suites import known

ROUNDS, QUICK_ROUNDS = 5, 1


def jobs(quick: bool) -> list[Job]:
    """A process for each contender."""
    problems = ("banana, two arms", "eight schools") if quick else tuple(PROBLEMS)
    return rounds(problems, EVIDENCE, QUICK_ROUNDS if quick else ROUNDS, apart=True)


def sections(rows: list[Row]) -> list[str]:
    """Errors in nats and in the standard errors that were stated, and what they cost."""
    lines = []
    for problem in dict.fromkeys(row["problem"] for row in rows):
        lines.append([f"{problem}, log p(x) = {PROBLEMS[problem]().log_evidence:.4f}", *[""] * 7])
        for name in EVIDENCE:
            own = [r for r in rows if (r["problem"], r["contender"], r["status"]) == (problem, name, "done")]
            if not own:
                continue
            errors = np.array([row["log_evidence_error"] for row in own])
            scores = [row["log_evidence_error"] / row["log_evidence_se"] for row in own if row.get("log_evidence_se")]
            lines.append(
                [name, f"{errors.mean():+.4f}", f"{np.sqrt(np.mean(errors**2)):.4f}"]
                + [number(median(own, "log_evidence_se"))]
                + ([number(float(np.sqrt(np.mean(np.square(scores)))))] if scores else [""])
                + [number(median(own, field)) for field in ("gradients", "values", "first_cpu_seconds")]
            )
    header = ["", "error, mean", "rms", "stated se", "error / se, rms", "gradients", "values", "first call, cpu s"]
    return [
        "Errors in nats over the seeds. In units of standard errors that are right, their"
        f" rms is about one. {' '.join(CONTENDERS[name].setting for name in EVIDENCE)}",
        table(header, lines),
    ]


SUITE = Suite(
    "What does each say of log p(x), and of its own error?",
    jobs,
    lambda job, quick: known.rows(job, again=False),
    sections,
    costs=("gradients", "values", "first_cpu_seconds", "log_evidence_se"),
    errors={"log_evidence_error": 0.02, "mean_error": 0.02, "sd_error": 0.02},
)
