"""`fit` on crossed effects and item response as they grow: verdict, gradients, seconds, memory, errors where they are known.

    python benchmarks/structure_growth.py [--cases gauss-60,logit-60] [--report]

Each case runs in a process of its own and ends as a row of the JSON file; the page is written from all rows. Normal likelihoods
have an independent answer: effects and mean integrated out by dense linear algebra, the three scales by importance sampling.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks" / "results"
STEM = "structure_growth"
CASES = {
    "gauss-60": ("gauss", 60, 40, 2_000),
    "gauss-400": ("gauss", 400, 200, 6_000),
    "logit-60": ("logit", 60, 40, 2_000),
    "logit-200": ("logit", 200, 100, 4_000),
    "logit-2000": ("logit", 2_000, 1_000, 50_000),
    "irt-100": ("irt", 100, 20, 2_000),
    "irt-1000": ("irt", 1_000, 50, 50_000),
}
"""Likelihood, levels (persons), levels (items), rows."""
PROPOSALS = 600


def crossed(kind: str, large: int, small: int, num_rows: int) -> tuple[Any, ...]:
    """Log-density, start, data, support of two crossed factors of effects with their scales."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    a, b = 0.8 * rng.standard_normal(large), 0.6 * rng.standard_normal(small)
    i, j = rng.integers(0, large, num_rows), rng.integers(0, small, num_rows)
    eta = 0.3 + a[i] + b[j]
    y = (
        eta + rng.standard_normal(num_rows)
        if kind == "gauss"
        else (rng.random(num_rows) < 1 / (1 + np.exp(-eta))) * 1.0
    )
    normal = lambda x, mean, sd: jnp.sum(-0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd) + 0 * x)  # noqa: E731
    scales = ["sa", "sb", "s"] if kind == "gauss" else ["sa", "sb"]

    def log_density(z, data):
        i, j, y = data
        eta = z["mu"] + z["a"][i] + z["b"][j]
        prior = normal(z["mu"], 0.0, 2.0) + normal(z["a"], 0.0, z["sa"]) + normal(z["b"], 0.0, z["sb"])
        prior = prior - 0.5 * sum(z[name] ** 2 for name in scales)
        return prior + (normal(y, eta, z["s"]) if kind == "gauss" else jnp.sum(y * eta - jax.nn.softplus(eta)))

    init = {"mu": 0.0, "a": jnp.zeros(large), "b": jnp.zeros(small), **dict.fromkeys(scales, 1.0)}
    return log_density, init, (i, j, y), dict.fromkeys(scales, "positive")


def item_response(persons: int, items: int) -> tuple[Any, ...]:
    """Log-density, start, data, support of the 2PL model."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    ability, discrimination = rng.standard_normal(persons), np.exp(0.3 * rng.standard_normal(items))
    eta = discrimination * (ability[:, None] - rng.standard_normal(items))
    y = (rng.random((persons, items)) < 1 / (1 + np.exp(-eta))).astype(float)
    normal = lambda x, mean, sd: jnp.sum(-0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd) + 0 * x)  # noqa: E731

    def log_density(z, y):
        eta = z["disc"] * (z["theta"][:, None] - z["diff"])
        prior = normal(z["theta"], 0.0, 1.0) + normal(jnp.log(z["disc"]), 0.0, z["sdisc"]) - jnp.sum(jnp.log(z["disc"]))
        prior = prior + normal(z["diff"], z["mdiff"], z["sdiff"]) + normal(z["mdiff"], 0.0, 2.0)
        return prior - 0.5 * (z["sdiff"] ** 2 + z["sdisc"] ** 2) + jnp.sum(y * eta - jax.nn.softplus(eta))

    init = {"theta": jnp.zeros(persons), "disc": jnp.ones(items), "diff": jnp.zeros(items)}
    init |= {"mdiff": 0.0, "sdiff": 1.0, "sdisc": 0.5}
    return log_density, init, y, {"disc": "positive", "sdiff": "positive", "sdisc": "positive"}


def exact(large: int, small: int, data: tuple[np.ndarray, ...], centre: np.ndarray, sd: np.ndarray) -> tuple[Any, ...]:
    """Means and sds of (sa, sb, s) and of (a, b, mu), and effective draws, by dense linear algebra given the scales.

    Args:
      large: levels.
      small: levels.
      data: rows.
      centre: logarithms of the scales around which proposals are made, and
      sd: their widths; any give the answer, good ones quickly.
    """
    i, j, y = data
    size, rng = large + small + 1, np.random.default_rng(1)
    design = np.zeros((len(y), size))
    rows = np.arange(len(y))
    design[rows, i] = design[rows, large + j] = design[:, -1] = 1.0
    gram, pulled, square = design.T @ design, design.T @ y, y @ y
    t = rng.standard_t(5, (PROPOSALS, 3))
    logs = centre + 1.2 * sd * t
    log_weights, means, squares = np.empty(PROPOSALS), np.empty((PROPOSALS, size)), np.empty((PROPOSALS, size))
    for k, (one, two, three) in enumerate(np.exp(logs)):
        prior = np.concatenate([np.full(large, one**-2), np.full(small, two**-2), [0.25]])
        factor = np.linalg.cholesky(gram / three**2 + np.diag(prior))
        inverse = np.linalg.inv(factor)
        half = inverse @ pulled / three**2
        means[k] = inverse.T @ half
        squares[k] = means[k] ** 2 + np.sum(inverse**2, axis=0)
        log_evidence = 0.5 * np.sum(np.log(prior)) - np.sum(np.log(np.diag(factor))) - len(y) * np.log(three)
        log_evidence += -0.5 * square / three**2 + 0.5 * half @ half
        log_weights[k] = log_evidence - 0.5 * (one**2 + two**2 + three**2) + logs[k].sum()
    log_weights += 3 * np.sum(np.log1p(t**2 / 5), axis=1)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    scales = np.exp(logs)
    every = np.concatenate([scales, means], axis=1)
    second = np.concatenate([scales**2, squares], axis=1)
    mean = weights @ every
    return mean, np.sqrt(weights @ second - mean**2), 1 / np.sum(weights**2)


def run(name: str) -> dict[str, Any]:
    """One row."""
    import jax

    import elbojax

    kind, large, small, num_rows = CASES[name]
    log_density, init, data, support = (
        item_response(large, small) if kind == "irt" else crossed(kind, large, small, num_rows)
    )
    began = time.process_time()
    fit = elbojax.fit(jax.random.key(0), log_density, init, data=data, support=support)
    seconds, c = time.process_time() - began, fit.certificate
    row = {
        "rows": num_rows,
        "D": int(sum(np.size(x) for x in jax.tree.leaves(init))),
        "certified": bool(c.certified),
        "stage": str(elbojax.Stage(int(c.stage))),
        "num_gradients": float(c.num_gradients) + 0.5 * float(c.num_log_densities),
        "cpu_seconds": seconds,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "mean_error": float(c.mean_error),
        "sd_error": float(c.sd_error),
    }
    if kind == "gauss":
        mean, sd = fit.mean(), fit.sd()
        order = ("sa", "sb", "s", "a", "b", "mu")
        own = [np.concatenate([np.ravel(each[leaf]) for leaf in order]) for each in (mean, sd)]
        wanted, wanted_sd, ess = exact(large, small, data, np.log(own[0][:3]), own[1][:3] / own[0][:3])
        row |= {
            "mean_off": float(np.max(np.abs(own[0] - wanted) / wanted_sd)),
            "sd_off": float(np.max(np.abs(own[1] / wanted_sd - 1))),
            "reference": f"exact given the scales, {ess:,.0f} weighted draws of these",
        }
    return row


def page(rows: dict[str, Any]) -> str:
    """The table."""
    lines = [
        "# Crossed effects and item response as they grow",
        "",
        "`fit` with one seed, in double precision, on two busy cores; seconds are of the processor, compilation or its cache",
        "included. Gradients are equivalents: a value counts a half. Errors beside an independent answer: the largest of all",
        "means, in sds, and of all sds, relative; else what the certificate says of Monte Carlo errors.",
        "",
        "| model | levels, rows | D | answer | gradients | processor s | MB | largest error of a mean, an sd | by |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    words = {"gauss": "normal", "logit": "logistic", "irt": "2PL item response"}
    for name, (kind, large, small, num_rows) in CASES.items():
        levels = f"{large:,} x {small:,}, {num_rows:,}"
        if name not in rows:
            lines.append(f"| {words[kind]} | {levels} | | not run | | | | | |")
            continue
        row = rows[name]
        answer = f"{'certified' if row['certified'] else 'refused'}, {row['stage']}"
        by = row.get("reference", "certificate" + (f"; {row['note']}" if "note" in row else ""))
        errors = f"{row.get('mean_off', row['mean_error']):.3f}, {row.get('sd_off', row['sd_error']):.3f}"
        lines.append(
            f"| {words[kind]} | {levels} | {row['D']:,} | {answer} | {row['num_gradients']:,.0f} |"
            f" {row['cpu_seconds']:.0f} | {row['megabytes']:,.0f} | {errors} | {by} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked for, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds of the clock for each")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--cell")
    options = parser.parse_args()
    if options.cell:
        print(json.dumps(run(options.cell)))
        return
    path = RESULTS / f"{STEM}.json"
    rows = json.loads(path.read_text()) if path.exists() else {}
    for name in [] if options.report else options.cases.split(","):
        try:
            done = subprocess.run(
                [sys.executable, __file__, "--cell", name], capture_output=True, text=True, timeout=options.limit
            )
            rows[name] = json.loads(done.stdout.splitlines()[-1])
        except (subprocess.TimeoutExpired, IndexError, json.JSONDecodeError):
            print(f"{name}: no answer")
            continue
        path.write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / f"{STEM}.md").write_text(page(rows))


if __name__ == "__main__":
    main()
