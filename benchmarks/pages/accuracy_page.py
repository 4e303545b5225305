"""What the page of posteriors with references says: targets, methods, seeds, and every posterior of each method."""

from collections import Counter
from collections.abc import Callable, Iterable

from benchmarks.contenders.methods import SETTINGS
from benchmarks.harness.errors import GOOD, WRONG
from benchmarks.harness.page import table
from benchmarks.harness.record import Row
from benchmarks.pages.accuracy import (
    NUTS,
    bracketed,
    calibration,
    firsts,
    is_wrong,
    median,
    number,
    summary,
    targets,
    worst,
)


def verdict(row: Row) -> str:
    """Certified or not, where the method says."""
    return {None: "", True: "yes", False: "no"}[row.get("certified")] + (" WRONG" if is_wrong(row) else "")


def ended(row: Row) -> str:
    """In the method's words; or why there is no answer."""
    return row["status"] if row["status"] != "done" else row.get("ended") or "done"


COLUMNS: dict[str, Callable[[Row], str]] = {
    "problem": lambda row: row["problem"],
    "D": lambda row: str(row.get("parameters", "")),
    "mean error, max": lambda row: number(row.get("mean_error")),
    "rms": lambda row: number(row.get("mean_error_rms")),
    "sd error, max": lambda row: number(row.get("sd_error")),
    "rms ": lambda row: number(row.get("sd_error_rms")),
    "W1, max": lambda row: number(row.get("wasserstein")),
    "k-hat": lambda row: number(row.get("khat")),
    "certified": verdict,
    "status": lambda row: ended(row) + (f" ({row['stage']})" if row.get("stage") else ""),
    "gradients": lambda row: number(row.get("gradients")),
    "values to check": lambda row: number(row.get("values")) if row.get("values") else "",
    "cold, s (cpu)": lambda row: number(row.get("first_seconds")) + bracketed(row.get("first_cpu_seconds")),
    "warm, s (cpu)": lambda row: number(row.get("warm_seconds")) + bracketed(row.get("warm_cpu_seconds")),
    "peak, MB": lambda row: number(row.get("peak_mb")),
    "date": lambda row: row.get("date") or "",
}


def sections(found: list[Row]) -> list[str]:
    """All of the page below its head."""
    by_method = firsts(found)
    reached = {None: "", True: "yes", False: "**no**"}
    goals = [[what, wanted, value, reached[ok]] for what, wanted, value, ok in targets(found)]
    lines = [
        [name, *(_shown(own.get(name)) for own in by_method.values())]
        for name in sorted({row["problem"] for row in found})
    ]
    text = [
        *measured(found),
        "Errors are in reference standard deviations: of a mean (m - m_ref) / sd_ref, of an sd sd / sd_ref - 1; columns with a"
        " heavy tail (excess kurtosis above 50) are assessed by their median and the width of their central 90 % instead. The"
        " references' own error is about 0.01, W1 against 1,000 reference draws about 0.03 for a perfect answer. Gradients"
        " count 1, Hessian-vector products 2, values 1/2; what a check takes is a column of its own, and the k-hat of a solver"
        " alone is the benchmark's look at it, charged to nobody. Cold is the first call in a fresh process without"
        " compilation cache, imports apart; warm is the same call again. Peak memory is that of the process, imports and"
        " looking at the answer included.",
        SETTINGS,
        "## `fit` against its targets\n\n" + table(["", "wanted", "found", "reached"], goals),
        "## Methods\n\nMedians over posteriors; ratios to NUTS are medians of the ratio on each posterior.\n\n"
        + table(*_methods_table(found)),
        *_calibration_section(found),
        "## The worst error of each method on each posterior\n\n" + table(["posterior", *by_method], lines),
    ]
    for method, own in by_method.items():
        lines = [[column(row) for column in COLUMNS.values()] for _, row in sorted(own.items())]
        text.append(f"<details><summary>{method}: every posterior</summary>\n\n{table(COLUMNS, lines)}\n</details>")
    return text


def measured(found: list[Row]) -> list[str]:
    """What was measured when: seconds of two days are not compared."""
    dates: dict[str, Counter[str]] = {}
    for row in found:
        if row.get("date"):
            dates.setdefault(row["date"], Counter())[row["contender"]] += 1
    said = [
        f"{date}: {', '.join(f'{name} ({count})' for name, count in sorted(counts.items()))}"
        for date, counts in sorted(dates.items(), reverse=True)
    ]
    if not said:
        return []
    more = " Seconds are compared where both methods were measured on one day." * (len(said) > 1)
    return [f"Measured (so many runs of each method) on {'; on '.join(said)}.{more}"]


def _methods_table(found: list[Row]) -> tuple[list[str], list[list[str]]]:
    by_method = firsts(found)
    header = ["contender", f"within {GOOD}", "no answer", "rms mean", "rms sd", "certified", "gradients, D <= 20"]
    header += ["over NUTS's", "cold, cpu s", "over NUTS's ", "warm, cpu s", "over NUTS's  ", "peak, MB"]
    lines = []
    for method, own in by_method.items():
        s = summary(own, by_method.get(NUTS, {}))
        vouches = any(row.get("certified") is not None for row in own.values())
        lines.append(
            [
                method,
                f"{s['good']} of {s['run']}",
                str(s["failed"] or ""),
                number(s["mean_error_rms"]),
                number(s["sd_error_rms"]),
                str(s["certified"]) if vouches else "",
                *(
                    number(s[key])
                    for key in (
                        "gradients_small",
                        "gradients_to_nuts",
                        "first_cpu_seconds",
                        "cold_cpu_to_nuts",
                        "warm_cpu_seconds",
                        "warm_cpu_to_nuts",
                        "peak_mb",
                    )
                ),
            ]
        )
    return header, lines


def _shown(row: Row | None) -> str:
    if row is None:
        return ""
    found = worst(row)
    return row["status"].partition(":")[0] if found is None else f"**{found:.2g}**" if found > GOOD else f"{found:.2g}"


def _calibration_section(found: list[Row]) -> list[str]:
    c = calibration(found)
    if c["seeds"] < 2:
        return []
    lines = []
    for name in sorted({row["problem"] for row in found}):
        own = [row for row in found if row["problem"] == name and row["contender"] == "fit"]
        one = calibration(own)
        errors = [error for error in map(worst, own) if error is not None]
        largest = number(max(errors)) if errors else ""
        lines.append([name, one["runs"], one["certified"], one["wrong"], one["good"], number(median(errors)), largest])
    header = ["posterior", "runs", "certified", "certified and wrong"]
    header += [f"within {GOOD}", "median worst error", "largest"]
    return [
        "## `fit` over many seeds\n\n"
        f"{c['runs']} runs, {c['certified']} certified, {c['wrong']} of them wrong: a mean or an sd off by more than {WRONG}."
        + _by_date(row for row in found if row["contender"] == "fit"),
        table(header, lines),
    ]


def _by_date(rows: Iterable[Row]) -> str:
    """How many runs are of which date, where there are several."""
    dates = Counter(row["date"] for row in rows if row.get("date"))
    said = ", ".join(f"{count} of {date}" for date, count in sorted(dates.items(), reverse=True))
    return f" Runs: {said}." if len(dates) > 1 else ""
