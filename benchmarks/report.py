"""The page, the table and the picture of the rows that are done."""

import pathlib
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks import timing
from benchmarks.errors import GOOD, WRONG
from benchmarks.ledger import Ledger, Row

NUTS = "numpyro_nuts"


def worst(row: Row) -> float | None:
    """The largest |mean error| or |sd error|; None where there was no answer."""
    errors = row.get("max_mean_error"), row.get("max_sd_error")
    return None if None in errors else max(errors)


def is_good(row: Row) -> bool:
    found = worst(row)
    return found is not None and found <= GOOD


def is_wrong(row: Row) -> bool:
    """Certified, and a mean or sd is off by more than half a standard deviation."""
    found = worst(row)
    return bool(row.get("certified")) and (found is None or found > WRONG)


def firsts(rows: Iterable[Row]) -> dict[str, dict[str, Row]]:
    """Method -> posterior -> the row of the lowest seed."""
    table: dict[str, dict[str, Row]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        table.setdefault(row["method"], {}).setdefault(row["posterior"], row)
    return table


def median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def summary(rows: dict[str, Row], nuts: dict[str, Row]) -> dict[str, Any]:
    """What the page says of one method, from one row a posterior, beside NUTS on the same posteriors."""
    both = [(row, nuts[name]) for name, row in rows.items() if worst(row) is not None and name in nuts]
    both = [(row, other) for row, other in both if worst(other) is not None]
    cheap = [(row, other) for row, other in both if row["num_gradients"] <= other["num_gradients"] / 20]

    def ratio(key: str) -> float | None:
        return median(a[key] / b[key] for a, b in both if a.get(key) and b.get(key))

    return {
        "run": len(rows),
        "failed": sum(worst(row) is None for row in rows.values()),
        "good": sum(map(is_good, rows.values())),
        "rms_mean_error": median(row.get("rms_mean_error") for row in rows.values()),
        "rms_sd_error": median(row.get("rms_sd_error") for row in rows.values()),
        "certified": sum(bool(row.get("certified")) for row in rows.values()),
        "gradients_small": median(row["num_gradients"] for row in rows.values() if 0 < row.get("size", 0) <= 20),
        "gradients_large": median(row["num_gradients"] for row in rows.values() if 20 < row.get("size", 0) <= 200),
        "beside_nuts": len(both),
        "gradients_to_nuts": ratio("num_gradients"),
        "cheap": len(cheap),
        "cheap_and_no_worse": sum(worst(row) <= worst(other) for row, other in cheap),  # type: ignore[operator]
        "cold_seconds": median(row.get("cold_seconds") for row in rows.values()),
        "warm_seconds": median(row.get("warm_seconds") for row in rows.values()),
        "cold_to_nuts": ratio("cold_seconds"),
        "warm_to_nuts": ratio("warm_seconds"),
        "cold_cpu_to_nuts": ratio("cold_cpu_seconds"),
        "warm_cpu_to_nuts": ratio("warm_cpu_seconds"),
    }


def calibration(rows: Iterable[Row]) -> dict[str, int]:
    """Over all seeds of `fit`: how many ran, are certified, are certified and wrong, are good."""
    fits = [row for row in rows if row["method"] == "fit"]
    return {
        "runs": len(fits),
        "seeds": len({row["seed"] for row in fits}),
        "certified": sum(bool(row.get("certified")) for row in fits),
        "wrong": sum(map(is_wrong, fits)),
        "good": sum(map(is_good, fits)),
    }


def targets(ledger: Ledger) -> list[tuple[str, str, str, bool | None]]:
    """(what, wanted, found, reached) for `fit`; reached is None where nothing is known."""
    table = firsts(ledger.rows)
    fits, nuts = table.get("fit", {}), table.get(NUTS, {})
    s, c = summary(fits, nuts), calibration(ledger.rows)
    share = c["wrong"] / c["certified"] if c["certified"] else None
    wanted_good = -(-11 * len(fits) // 12)

    def below(value: float | None, limit: float) -> bool | None:
        return None if value is None else value <= limit

    return [
        (
            f"posteriors with every mean and sd error within {GOOD}",
            f"{wanted_good} of {len(fits)}",
            f"{s['good']} of {len(fits)}",
            s["good"] >= wanted_good if fits else None,
        ),
        ("median rms error of the means", "0.015", number(s["rms_mean_error"]), below(s["rms_mean_error"], 0.015)),
        ("median rms error of the sds", "0.015", number(s["rms_sd_error"]), below(s["rms_sd_error"], 0.015)),
        (
            f"certified and wrong (an error above {WRONG}), all seeds",
            "1 %",
            "" if share is None else f"{c['wrong']} of {c['certified']} certified ({c['runs']} runs)",
            below(share, 0.01),
        ),
        ("median gradients, D <= 20", "1,000", number(s["gradients_small"]), below(s["gradients_small"], 1000)),
        (
            "median gradients, 20 < D <= 200",
            "10,000",
            number(s["gradients_large"]),
            below(s["gradients_large"], 10_000),
        ),
        (
            "median gradients over those of NUTS",
            "0.05",
            number(s["gradients_to_nuts"]),
            below(s["gradients_to_nuts"], 0.05),
        ),
        (
            "at most a twentieth of NUTS's gradients / and the worst error no larger",
            f"{s['beside_nuts']}",
            f"{s['cheap']} / {s['cheap_and_no_worse']}",
            s["cheap_and_no_worse"] == s["beside_nuts"] if s["beside_nuts"] else None,
        ),
        *(
            (
                f"median {kind} seconds over those of NUTS (of processor time)",
                str(limit),
                number(s[f"{kind}_to_nuts"]) + _bracketed(s[f"{kind}_cpu_to_nuts"]),
                below(s[f"{kind}_to_nuts"], limit),
            )
            for kind, limit in (("cold", 0.5), ("warm", 0.1))
        ),
    ]


def _bracketed(value: float | None) -> str:
    return "" if value is None else f" ({number(value)})"


def number(value: float | None) -> str:
    """Short, for a person."""
    if value is None:
        return ""
    if abs(value) >= 1e6:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


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
    "cold, s (cpu)": lambda row: number(row.get("cold_seconds")) + _bracketed(row.get("cold_cpu_seconds")),
    "warm, s (cpu)": lambda row: number(row.get("warm_seconds")) + _bracketed(row.get("warm_cpu_seconds")),
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
    header += ["over NUTS's", "cold, s", "over NUTS's ", "warm, s", "over NUTS's  "]
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
                        "cold_seconds",
                        "cold_to_nuts",
                        "warm_seconds",
                        "warm_to_nuts",
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


def markdown(ledger: Ledger, picture: str, title: str) -> str:
    """The page."""
    from benchmarks.methods import SETTINGS

    where, table = ledger.environment, firsts(ledger.rows)
    versions = ", ".join(f"{name} {version}" for name, version in where.get("versions", {}).items() if version)
    loads = [row["load"] for row in ledger.rows if row.get("load") is not None]
    reached = {None: "", True: "yes", False: "**no**"}
    goals = [[what, wanted, found, reached[ok]] for what, wanted, found, ok in targets(ledger)]
    posteriors = sorted({row["posterior"] for row in ledger.rows})
    text = [
        f"# {title}",
        "",
        f"{where.get('processor', '')}, {where.get('cores', '')} cores, Python {where.get('python', '')}; {versions}; float64."
        + (f" Load while it ran: {min(loads)} to {max(loads)}, so times are rough." if loads else ""),
        *([f"Not installed, so not run: {', '.join(where['absent'])}.", ""] if where.get("absent") else [""]),
        "Errors are in reference standard deviations: of a mean (m - m_ref) / sd_ref, of an sd sd / sd_ref - 1; columns with a"
        " heavy tail (excess kurtosis above 50) are judged by their median and the width of their central 90 % instead. The"
        " references' own error is about 0.01, W1 against 1,000 reference draws about 0.03 for a perfect answer. Gradients"
        " count 1, Hessian-vector products 2, values 1/2; what a check takes is a column of its own, and the k-hat of a solver"
        " alone is the benchmark's look at it, charged to nobody. Cold is the first call in a fresh process without"
        " compilation cache, imports apart; warm is the same call again.",
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
        f"{c['runs']} runs, {c['certified']} certified, {c['wrong']} of them wrong: a mean or an sd off by more than {WRONG}.",
        "",
        timing.table(header, rows),
    ]


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
