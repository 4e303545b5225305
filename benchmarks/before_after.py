"""One table of what the cascade cost when its stages were compiled programs, and costs with the stages on the host.

    python benchmarks/before_after.py

Runs nothing. Reads `posteriordb.json`, `posteriordb-unseen.json` and `batch.json` in `results`, where a row that was measured
anew has what it was before; a few figures of before that were measured by hand, on a quiet machine, stand here.
"""

import json
import pathlib
import statistics
from typing import Any

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
MOVED = "2026-11-29"
"""When the stages were on the host."""
TESTS = {
    "before": "14:29 on two cores, 6 GB a worker",
    "after": "11:41 without the laws, 6,063 tests; since then twenty of the longest are slow ones",
    "wanted": "8:00, 2 GB",
}

Row = dict[str, Any]


def rows(stem: str) -> list[Row]:
    file = RESULTS / f"{stem}.json"
    return json.loads(file.read_text())["rows"] if file.is_file() else []


def of(found: list[Row], method: str, posterior: str) -> Row | None:
    """The row of the first seed, of those measured since the move."""
    own = [r for r in found if r["method"] == method and r["posterior"] == posterior and r.get("date", "") >= MOVED]
    return min(own, key=lambda r: r["seed"], default=None)


def seconds(row: Row | None, field: str = "cold_cpu_seconds") -> str:
    return "" if row is None or row.get(field) is None else f"{row[field]:.2f}"


def over(row: Row | None, rival: Row | None) -> str:
    if row is None or rival is None or not (row.get("cold_cpu_seconds") and rival.get("cold_cpu_seconds")):
        return ""
    return f"{row['cold_cpu_seconds'] / rival['cold_cpu_seconds']:.3f}"


def compared(found: list[Row]) -> list[tuple[Row, Row]]:
    """(before, after) of `fit` with the first seed on each posterior."""
    new = sorted((r for r in found if r["method"] == "fit" and r["seed"] == 0), key=lambda r: r["posterior"])
    return [(r["before"], r) for r in new if r.get("before") and r.get("date", "") >= MOVED]


def worst(row: Row) -> float:
    return max(row["max_mean_error"], row["max_sd_error"])


def table(header: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines]) + "\n"


def summary(known: list[Row], fresh: list[Row], windows: Row | None) -> str:
    """The figures that the move was to better."""
    pairs = compared(known)
    schools = "eight_schools-eight_schools_noncentered"
    eight = [of(known, method, schools) for method in ("fit", "numpyro_nuts", "numpyro_mcmc")]
    process = [of(fresh, method, "sine-gaussian_process") for method in ("fit", "numpyro_nuts")]
    lines = [
        ["eight schools, not centred: cold", "5.1", seconds(eight[0]), "0.3"],
        ["the same over NUTS in one jitted scan", "1.9", over(eight[0], eight[1]), "0.2"],
        ["the same over NumPyro's `MCMC.run`", "", over(eight[0], eight[2]), "0.06"],
        [
            "Gaussian process, 26 parameters: cold",
            "147, refused",
            f"{seconds(process[0])}, {'certified' if process[0] and process[0]['certified'] else 'not certified'}",
            "3, certified",
        ],
        ["the same over NUTS in one jitted scan", "11.5", over(*process), ""],
    ]
    if pairs:
        ratios = [
            a["cold_cpu_seconds"] / nuts["cold_cpu_seconds"]
            for _, a in pairs
            if (nuts := of(known, "numpyro_nuts", a["posterior"])) and nuts.get("cold_cpu_seconds")
        ]
        slowest = [max(pair, key=lambda r: r["cold_cpu_seconds"]) for pair in zip(*pairs, strict=True)]
        lines += [
            [
                f"posteriordb, {len(pairs)} posteriors: cold, median",
                *(f"{statistics.median(r['cold_cpu_seconds'] for r in side):.2f}" for side in zip(*pairs, strict=True)),
                "",
            ],
            [
                "over NUTS in one jitted scan, the median",
                "0.88",
                f"{statistics.median(ratios):.3f}" if ratios else "",
                "0.3",
            ],
            [
                "the slowest",
                *(f"{r['cold_cpu_seconds']:.1f} ({r.get('posterior', slowest[1]['posterior'])})" for r in slowest),
                "5",
            ],
            [
                "warm, median",
                *(
                    f"{statistics.median(r['warm_cpu_seconds'] for r in side if r.get('warm_cpu_seconds')):.3f}"
                    for side in zip(*pairs, strict=True)
                ),
                "no worse",
            ],
            [
                "gradients, median",
                *(f"{statistics.median(r['num_gradients'] for r in side):,.0f}" for side in zip(*pairs, strict=True)),
                "no more",
            ],
            [
                "every mean and sd within 0.1",
                *(f"{sum(worst(r) <= 0.1 for r in side)} of {len(side)}" for side in zip(*pairs, strict=True)),
                "all",
            ],
        ]
    if windows:
        ours = windows["rows"]["fit_batch"]
        lines.append(
            [
                f"GARCH windows, `fit_batch`, cold (300 before, {windows['models']:,} after)",
                "145",
                f"{ours['cold_cpu_seconds']:.0f}; {windows['certified']:,} certified",
                "twice the quick stage",
            ]
        )
    lines.append(["`make test`", TESTS["before"], TESTS["after"], TESTS["wanted"]])
    return table(["processor seconds, fresh processes, after imports", "before", "after", "wanted"], lines)


def each(known: list[Row]) -> str:
    lines = []
    for before, after in compared(known):
        numbers = [[f"{r['cold_cpu_seconds']:.2f}" for r in (before, after)]]
        numbers += [[f"{r['warm_cpu_seconds']:.3f}" if r.get("warm_cpu_seconds") else "" for r in (before, after)]]
        numbers += [[f"{r['num_gradients']:,.0f}" for r in (before, after)]]
        numbers += [[f"{worst(r):.3f}" for r in (before, after)]]
        numbers += [[str(r["stage"]) for r in (before, after)]]
        lines.append([after["posterior"], *(cell for pair in numbers for cell in pair)])
    header = ["posterior", "cold before", "after", "warm before", "after ", "gradients before", "after  "]
    return table([*header, "worst error before", "after   ", "stage before", "after    "], lines)


def page() -> str:
    known, fresh = rows("posteriordb"), rows("posteriordb-unseen")
    batch = json.loads((RESULTS / "batch.json").read_text())["parts"]
    windows = batch.get("kinds", {}).get("records", {}).get("windows")
    return "\n".join(
        [
            "# The cascade before and after its stages moved to the host",
            "",
            "Before: stages as compiled programs, measured 2026-11-26 to 28 on a machine with little else to do. After: stages in"
            f" NumPy, one compiled program a model, measured from {MOVED} on, on two cores shared with other work, `fit` and its"
            " rivals in turns. Processor seconds, but a shared core is slower by them too: compare the ratios to NUTS.",
            "",
            summary(known, fresh, windows),
            "## Each posterior",
            "",
            "`fit` with the first seed. The worst error of a mean or an sd, in reference sds.",
            "",
            each(known),
        ]
    )


if __name__ == "__main__":
    (RESULTS / "before-after.md").write_text(page())
    print(page())
