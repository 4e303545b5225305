"""The page, the tables for the terminal and the picture of the rows that are done."""

import pathlib
from collections import Counter
from collections.abc import Callable, Iterable

from benchmarks import timing
from benchmarks.errors import GOOD, WRONG
from benchmarks.ledger import Ledger, Row
from benchmarks.summary import NUTS, bracketed, calibration, firsts, is_wrong, median, number, summary, targets, worst


def verdict(row: Row) -> str:
    """Certified or not, where the method says."""
    return {None: "", True: "yes", False: "no"}[row.get("certified")] + (" WRONG" if is_wrong(row) else "")


COLUMNS: dict[str, Callable[[Row], str]] = {
    "posterior": lambda row: row["posterior"],
    "D": lambda row: str(row.get("size", "")),
    "mean error, max": lambda row: number(row.get("max_mean_error")),
    "rms": lambda row: number(row.get("rms_mean_error")),
    "sd error, max": lambda row: number(row.get("max_sd_error")),
    "rms ": lambda row: number(row.get("rms_sd_error")),
    "W1, max": lambda row: number(row.get("max_wasserstein")),
    "k-hat": lambda row: number(row.get("khat")),
    "certified": verdict,
    "status": lambda row: row["status"] + (f" ({row['stage']})" if row.get("stage") else ""),
    "gradients": lambda row: number(row.get("num_gradients")),
    "values to check": lambda row: number(row.get("num_log_densities")) if row.get("num_log_densities") else "",
    "cold, s (cpu)": lambda row: number(row.get("cold_seconds")) + bracketed(row.get("cold_cpu_seconds")),
    "warm, s (cpu)": lambda row: number(row.get("warm_seconds")) + bracketed(row.get("warm_cpu_seconds")),
    "peak, MB": lambda row: number(row.get("peak_mb")),
    "date": lambda row: row.get("date") or "",
}


def line(row: Row) -> str:
    """One row as it ends."""
    if worst(row) is None:
        return f"{row['method']:<31} {row['posterior']:<42} seed {row['seed']}: {row['status']}"
    return (
        f"{row['method']:<31} {row['posterior']:<42} seed {row['seed']}: mean {number(row['max_mean_error']):>7}"
        f"  sd {number(row['max_sd_error']):>7}  k-hat {number(row['khat']) or '-':>6}  {verdict(row) or '-':<9}"
        f" {row['status']:<11} {number(row['num_gradients']):>9} gradients"
        f"  cold {number(row.get('cold_seconds')) or '-':>5} s  warm {number(row.get('warm_seconds')) or '-':>6} s"
    )


def _methods_table(ledger: Ledger) -> tuple[list[str], list[list[str]]]:
    table = firsts(ledger.rows)
    header = ["method", f"within {GOOD}", "no answer", "rms mean", "rms sd", "certified", "gradients, D <= 20"]
    header += ["over NUTS's", "cold, cpu s", "over NUTS's ", "warm, cpu s", "over NUTS's  ", "peak, MB"]
    rows = []
    for method, found in table.items():
        s = summary(found, table.get(NUTS, {}))
        vouches = any(row.get("certified") is not None for row in found.values())
        rows.append(
            [
                method,
                f"{s['good']} of {s['run']}",
                str(s["failed"] or ""),
                number(s["rms_mean_error"]),
                number(s["rms_sd_error"]),
                str(s["certified"]) if vouches else "",
                *(
                    number(s[key])
                    for key in (
                        "gradients_small",
                        "gradients_to_nuts",
                        "cold_cpu_seconds",
                        "cold_cpu_to_nuts",
                        "warm_cpu_seconds",
                        "warm_cpu_to_nuts",
                        "peak_mb",
                    )
                ),
            ]
        )
    return header, rows


def terminal(ledger: Ledger) -> str:
    """The tables for the terminal."""
    reached = {None: "", True: "yes", False: "NO"}
    goals = [[what, wanted, found, reached[ok]] for what, wanted, found, ok in targets(ledger)]
    return "\n" + _aligned(["fit", "wanted", "found", "reached"], goals) + "\n\n" + _aligned(*_methods_table(ledger))


def _aligned(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(str(cell)) for cell in column) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(str(cell).ljust(width) for cell, width in zip(cells, widths, strict=True))
        for cells in [header, *rows]
    )


def elsewhere(ledger: Ledger) -> list[str]:
    """What was measured when, and a sentence for each processor but the last: seconds of two of them are not comparable."""
    here = ledger.environment.get("processor")
    methods: dict[str, set[str]] = {}
    dates: dict[str, Counter[str]] = {}
    for row in ledger.rows:
        if row.get("processor", here) != here:
            methods.setdefault(row["processor"], set()).add(row["method"])
        if row.get("date"):
            dates.setdefault(row["date"], Counter())[row["method"]] += 1
    said = [
        f"{date}: {', '.join(f'{name} ({count})' for name, count in sorted(counts.items()))}"
        for date, counts in sorted(dates.items(), reverse=True)
    ]
    text = [f"Measured (so many runs of each method) on {'; on '.join(said)}."] if said else []
    if len(dates) > 1:
        text[-1] += " Seconds are compared where both methods were measured on one day."
    text += [f"On {other}: {', '.join(sorted(names))}." for other, names in sorted(methods.items())]
    return ["", *text] if text else []


def markdown(ledger: Ledger, picture: str, title: str) -> str:
    """The page."""
    from benchmarks.methods import SETTINGS

    where, table = ledger.environment, firsts(ledger.rows)
    versions = ", ".join(f"{name} {version}" for name, version in where.get("versions", {}).items() if version)
    newest = max((row.get("date", "") for row in ledger.rows), default="")
    loads = [row["load"] for row in ledger.rows if row.get("load") is not None and row.get("date", "") == newest]
    reached = {None: "", True: "yes", False: "**no**"}
    goals = [[what, wanted, found, reached[ok]] for what, wanted, found, ok in targets(ledger)]
    posteriors = sorted({row["posterior"] for row in ledger.rows})
    text = [
        f"# {title}",
        "",
        f"{where.get('processor', '')}, {where.get('cores', '')} cores, Python {where.get('python', '')}; {versions}"
        + (f" at {where['commit']}" if where.get("commit") else "")
        + "; float64."
        + (f" Load while it ran: {min(loads)} to {max(loads)}; processor seconds mind it least." if loads else ""),
        *elsewhere(ledger),
        *([f"Not installed, so not run: {', '.join(where['absent'])}.", ""] if where.get("absent") else [""]),
        "Errors are in reference standard deviations: of a mean (m - m_ref) / sd_ref, of an sd sd / sd_ref - 1; columns with a"
        " heavy tail (excess kurtosis above 50) are assessed by their median and the width of their central 90 % instead. The"
        " references' own error is about 0.01, W1 against 1,000 reference draws about 0.03 for a perfect answer. Gradients"
        " count 1, Hessian-vector products 2, values 1/2; what a check takes is a column of its own, and the k-hat of a solver"
        " alone is the benchmark's look at it, charged to nobody. Cold is the first call in a fresh process without"
        " compilation cache, imports apart; warm is the same call again. Peak memory is that of the process, imports and"
        " looking at the answer included.",
        "",
        SETTINGS,
        "",
        "## `fit` against its targets",
        "",
        timing.table(["", "wanted", "found", "reached"], goals),
        f"![Errors and costs]({picture})",
        "",
        "## Methods",
        "",
        "Medians over posteriors; ratios to NUTS are medians of the ratio on each posterior.",
        "",
        timing.table(*_methods_table(ledger)),
        *_calibration_section(ledger),
        "## The worst error of each method on each posterior",
        "",
        timing.table(
            ["posterior", *table],
            [[name, *(_shown(table[method].get(name)) for method in table)] for name in posteriors],
        ),
    ]
    for method, found in table.items():
        rows = [[column(row) for column in COLUMNS.values()] for _, row in sorted(found.items())]
        text += [
            f"<details><summary>{method}: every posterior</summary>",
            "",
            timing.table(COLUMNS, rows),
            "</details>",
            "",
        ]
    return "\n".join(text)


def _shown(row: Row | None) -> str:
    if row is None:
        return ""
    found = worst(row)
    return row["status"].partition(":")[0] if found is None else f"**{found:.2g}**" if found > GOOD else f"{found:.2g}"


def _calibration_section(ledger: Ledger) -> list[str]:
    c = calibration(ledger.rows)
    if c["seeds"] < 2:
        return []
    rows = []
    for name in sorted({row["posterior"] for row in ledger.rows}):
        own = [row for row in ledger.rows if row["posterior"] == name and row["method"] == "fit"]
        one = calibration(own)
        errors = [error for error in map(worst, own) if error is not None]
        largest = number(max(errors)) if errors else ""
        rows.append([name, one["runs"], one["certified"], one["wrong"], one["good"], number(median(errors)), largest])
    header = [
        "posterior",
        "runs",
        "certified",
        "certified and wrong",
        f"within {GOOD}",
        "median worst error",
        "largest",
    ]
    return [
        "## `fit` over many seeds",
        "",
        f"{c['runs']} runs, {c['certified']} certified, {c['wrong']} of them wrong: a mean or an sd off by more than {WRONG}."
        + _by_date(row for row in ledger.rows if row["method"] == "fit"),
        "",
        timing.table(header, rows),
    ]


def _by_date(rows: Iterable[Row]) -> str:
    """How many runs are of which date, where there are several."""
    dates = Counter(row["date"] for row in rows if row.get("date"))
    said = ", ".join(f"{count} of {date}" for date, count in sorted(dates.items(), reverse=True))
    return f" Runs: {said}." if len(dates) > 1 else ""


def write(ledger: Ledger, folder: pathlib.Path, stem: str) -> None:
    """`<stem>.md` and `<stem>.png` beside the JSON."""
    title = "Posteriors of no database" if "unseen" in stem else "Posteriors of posteriordb"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.md").write_text(markdown(ledger, f"{stem}.png", title))
    if not ledger.rows:
        return
    try:
        from benchmarks import picture
    except ModuleNotFoundError as missing:
        print(f"no picture: {missing}")
    else:
        picture.draw(firsts(ledger.rows), folder / f"{stem}.png")
