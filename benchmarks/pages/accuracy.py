"""The figures that the rows come down to, and how they stand against what is wanted of `fit`."""

import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.harness.errors import GOOD, WRONG
from benchmarks.harness.record import Row

NUTS, MCMC = "numpyro_nuts", "numpyro_mcmc"
"""The sampler in one jitted scan, and by the call that its pages show."""


def worst(row: Row) -> float | None:
    """The largest |mean error| or |sd error|; None where there was no answer."""
    errors = row.get("mean_error"), row.get("sd_error")
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
        table.setdefault(row["contender"], {}).setdefault(row["problem"], row)
    return table


def median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def summary(rows: dict[str, Row], nuts: dict[str, Row]) -> dict[str, Any]:
    """What the page says of one method, from one row a posterior, beside NUTS on the same posteriors."""
    both = [(row, nuts[name]) for name, row in rows.items() if worst(row) is not None and name in nuts]
    both = [(row, other) for row, other in both if worst(other) is not None]
    cheap = [(row, other) for row, other in both if row["gradients"] <= other["gradients"] / 20]

    def ratio(key: str) -> float | None:
        """Of gradients whenever counted; of seconds where both were measured on one day."""
        alike = [(a, b) for a, b in both if "seconds" not in key or a.get("date") == b.get("date")]
        return median(a[key] / b[key] for a, b in alike if a.get(key) and b.get(key))

    return {
        "run": len(rows),
        "failed": sum(worst(row) is None for row in rows.values()),
        "good": sum(map(is_good, rows.values())),
        "mean_error_rms": median(row.get("mean_error_rms") for row in rows.values()),
        "sd_error_rms": median(row.get("sd_error_rms") for row in rows.values()),
        "certified": sum(bool(row.get("certified")) for row in rows.values()),
        "gradients_small": median(row["gradients"] for row in rows.values() if 0 < row.get("parameters", 0) <= 20),
        "gradients_large": median(row["gradients"] for row in rows.values() if 20 < row.get("parameters", 0) <= 200),
        "beside_nuts": len(both),
        "gradients_to_nuts": ratio("gradients"),
        "cheap": len(cheap),
        "cheap_and_no_worse": sum(worst(row) <= worst(other) for row, other in cheap),  # type: ignore[operator]
        "first_seconds": median(row.get("first_seconds") for row in rows.values()),
        "warm_seconds": median(row.get("warm_seconds") for row in rows.values()),
        "first_cpu_seconds": median(row.get("first_cpu_seconds") for row in rows.values()),
        "warm_cpu_seconds": median(row.get("warm_cpu_seconds") for row in rows.values()),
        "slowest": max((row.get("first_cpu_seconds") or 0.0 for row in rows.values()), default=0.0) or None,
        "peak_mb": median(row.get("peak_mb") for row in rows.values()),
        "cold_to_nuts": ratio("first_seconds"),
        "warm_to_nuts": ratio("warm_seconds"),
        "cold_cpu_to_nuts": ratio("first_cpu_seconds"),
        "warm_cpu_to_nuts": ratio("warm_cpu_seconds"),
    }


def calibration(rows: Iterable[Row]) -> dict[str, int]:
    """Over all seeds of `fit`: how many ran, are certified, are certified and wrong, are good."""
    fits = [row for row in rows if row["contender"] == "fit"]
    return {
        "runs": len(fits),
        "seeds": len({row["seed"] for row in fits}),
        "certified": sum(bool(row.get("certified")) for row in fits),
        "wrong": sum(map(is_wrong, fits)),
        "good": sum(map(is_good, fits)),
    }


def targets(rows: list[Row]) -> list[tuple[str, str, str, bool | None]]:
    """(what, wanted, found, reached) for `fit`; reached is None where nothing is known."""
    table = firsts(rows)
    fits, nuts = table.get("fit", {}), table.get(NUTS, {})
    s, c = summary(fits, nuts), calibration(rows)
    share = c["wrong"] / c["certified"] if c["certified"] else None
    wanted_good = len(fits)

    def below(value: float | None, limit: float) -> bool | None:
        return None if value is None else value <= limit

    return [
        (
            f"posteriors with every mean and sd error within {GOOD}",
            f"{wanted_good} of {len(fits)}",
            f"{s['good']} of {len(fits)}",
            s["good"] >= wanted_good if fits else None,
        ),
        ("median rms error of the means", "0.015", number(s["mean_error_rms"]), below(s["mean_error_rms"], 0.015)),
        ("median rms error of the sds", "0.015", number(s["sd_error_rms"]), below(s["sd_error_rms"], 0.015)),
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
                f"median {kind} processor seconds over those of {rival} (wall)",
                str(limit),
                number(beside[f"{kind}_cpu_to_nuts"]) + bracketed(beside[f"{kind}_to_nuts"]),
                below(beside[f"{kind}_cpu_to_nuts"], limit),
            )
            for kind, limit in (("cold", 0.3), ("warm", 0.1))
            for rival, beside in (
                ("NUTS in one jitted scan", s),
                ("NumPyro's MCMC.run", summary(fits, table.get(MCMC, {}))),
            )
        ),
        ("slowest posterior, cold, processor seconds", "5", number(s["slowest"]), below(s["slowest"], 5.0)),
    ]


def bracketed(value: float | None) -> str:
    return "" if value is None else f" ({number(value)})"


def number(value: float | None) -> str:
    """Short, for a person."""
    if value is None:
        return ""
    if abs(value) >= 1e6:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
