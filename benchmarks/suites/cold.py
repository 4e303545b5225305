"""How long a person waits who changes a line of their model: imports, first answer, second answer, changed model."""

from benchmarks.contenders import CONTENDERS, FIT, MOMENTS, SCAN
from benchmarks.harness.page import number, table
from benchmarks.harness.record import Row, median
from benchmarks.harness.suite import Job, Suite, rounds
from benchmarks.problems.known import PROBLEMS
from benchmarks.suites import known

ROUNDS, QUICK_ROUNDS = 3, 1
TIMES = ("import", "first", "second", "changed")


def jobs(quick: bool) -> list[Job]:
    """A process for each contender, that what one has imported or compiled serves no other."""
    problems = tuple(PROBLEMS)
    if quick:
        problems = problems[:2]
    return rounds(problems, MOMENTS, QUICK_ROUNDS if quick else ROUNDS, apart=True)


def sections(rows: list[Row]) -> list[str]:
    """The times, and the same as ratios to NUTS in one scan."""
    lines, ratios = [], []
    for problem in dict.fromkeys(row["problem"] for row in rows):
        there = {name: _of(rows, problem, name) for name in MOMENTS}
        for name, own in there.items():
            if own:
                times = [median(own, f"{when}_cpu_seconds") for when in TIMES]
                lines.append(
                    [problem, name, *map(number, times)]
                    + [number(median(own, field)) for field in ("gradients", "mean_error", "sd_error", "peak_mb")]
                )
        if there[FIT]:
            for name in (SCAN, "NumPyro MCMC.run", "nutpie"):
                ratio = [_ratio(there[FIT], there[name], f"{when}_cpu_seconds") for when in TIMES]
                if there[name]:
                    ratios.append([problem, name, *map(number, ratio)])
    header = ["posterior", "contender", *TIMES, "gradients", "mean error", "sd error", "peak, MB"]
    words = " ".join(CONTENDERS[name].setting for name in MOMENTS)
    return [
        "Processor seconds, medians over the rounds, each contender in a process of its own without a compilation cache."
        " `import`: a new process until a user's imports are done. `first`: the first call, compilation included, its means"
        " and sds computed. `second`: the same call with another key. `changed`: a call with another log-density, as after a"
        f" change of the model's text. Errors of the first answer: means in true sds, sds relative, the largest. {words}",
        table(header, lines),
        "## `fit` over NUTS\n\nRatios of processor seconds, round by round, the median.\n\n"
        + table(["posterior", "over", *TIMES], ratios),
    ]


def _of(rows: list[Row], problem: str, contender: str) -> list[Row]:
    return [r for r in rows if r["problem"] == problem and r["contender"] == contender and r["status"] == "done"]


def _ratio(ours: list[Row], theirs: list[Row], field: str) -> float | None:
    """Median over the seeds that both have."""
    other = {row["seed"]: row.get(field) for row in theirs}
    pairs = [{"x": row[field] / other[row["seed"]]} for row in ours if other.get(row["seed"]) and row.get(field)]
    return median(pairs, "x")


SUITE = Suite(
    "How long does a person wait who changes a line of their model and wants to see the new posterior?",
    jobs,
    lambda job, quick: known.rows(job, again=True),
    sections,
    costs=(*(f"{when}_cpu_seconds" for when in TIMES), "gradients", "values", "peak_mb"),
    errors={"mean_error": 0.02, "sd_error": 0.02},
)
