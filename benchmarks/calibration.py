"""Simulation-based calibration of `fit_batch` on three models, 1,000 replicates each: ranks, bands, certificates, seconds.

    python benchmarks/calibration.py [--replicates 1000] [--only NAME] [--right] [--output FOLDER]

A logistic regression, a hierarchical normal model (non-centred), and an autoregression. All parameters and the
log-density are ranked among 99 independent posterior draws, and every fit counts, certified or not. Ranks look at tails,
so the fits are those of `fit_batch(..., tails=True)`. For comparison a
fifth of the replicates once more with a log-density that is wrong: its prior is half as wide as that of the simulation.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import elbojax  # noqa: E402
from benchmarks import timing  # noqa: E402
from elbojax import densities  # noqa: E402

ROWS, COVARIATES = 50, 3
GROUPS, PER_GROUP = 8, 5
LENGTH = 60
WANTED_CERTIFIED = 0.95


class Model(NamedTuple):
    """A generative model.

    Attributes:
      name: of the row.
      sample_prior: `(key) -> position`.
      simulate: `(key, position) -> datum`.
      log_density: `(position, datum, width) -> scalar`, with a prior so many times as wide.
      init: a start.
      support: of positions.
    """

    name: str
    sample_prior: Callable
    simulate: Callable
    log_density: Callable
    init: Any
    support: Any


def logistic_prior(key):
    a, b = jax.random.split(key)
    return {"intercept": jax.random.normal(a), "slopes": jax.random.normal(b, (COVARIATES,))}


def logistic_data(key, position):
    x_key, y_key = jax.random.split(key)
    x = jax.random.normal(x_key, (ROWS, COVARIATES))
    heads = jax.random.bernoulli(y_key, jax.nn.sigmoid(position["intercept"] + x @ position["slopes"]))
    return {"x": x, "y": heads.astype(x.dtype)}


def logistic_density(position, data, width):
    logits = position["intercept"] + data["x"] @ position["slopes"]
    prior = densities.normal(position["intercept"], 0.0, width) + jnp.sum(
        densities.normal(position["slopes"], 0.0, width)
    )
    return prior + jnp.sum(data["y"] * logits - jax.nn.softplus(logits))


def hierarchy_prior(key):
    mu, tau, eta = jax.random.split(key, 3)
    return {
        "mu": 2 * jax.random.normal(mu),
        "tau": jnp.abs(jax.random.normal(tau)),
        "eta": jax.random.normal(eta, (GROUPS,)),
    }


def hierarchy_data(key, position):
    means = position["mu"] + position["tau"] * position["eta"]
    return means[:, None] + jax.random.normal(key, (GROUPS, PER_GROUP))


def hierarchy_density(position, y, width):
    prior = (
        densities.normal(position["mu"], 0.0, 2 * width)
        + densities.half_normal(position["tau"], width)
        + jnp.sum(densities.normal(position["eta"], 0.0, 1.0))
    )
    means = position["mu"] + position["tau"] * position["eta"]
    return prior + jnp.sum(densities.normal(y, means[:, None], 1.0))


def autoregression_prior(key):
    a, b, c = jax.random.split(key, 3)
    return {
        "level": jax.random.normal(a),
        "phi": 2 * jax.random.beta(b, 4.0, 2.0) - 1,
        "sigma": jnp.exp(0.5 * jax.random.normal(c)),
    }


def autoregression_data(key, position):
    shocks = position["sigma"] * jax.random.normal(key, (LENGTH,))

    def step(y, shock):
        y = position["level"] + position["phi"] * y + shock
        return y, y

    return jax.lax.scan(step, jnp.zeros(()), shocks)[1]


def autoregression_density(position, y, width):
    prior = (
        densities.normal(position["level"], 0.0, width)
        + densities.beta((position["phi"] + 1) / 2, 4.0, 2.0)
        + densities.normal(jnp.log(position["sigma"]), 0.0, 0.5 * width)
        - jnp.log(position["sigma"])
    )
    before = jnp.concatenate([jnp.zeros(1), y[:-1]])
    return prior + jnp.sum(densities.normal(y, position["level"] + position["phi"] * before, position["sigma"]))


MODELS = (
    Model(
        "logistic regression",
        logistic_prior,
        logistic_data,
        logistic_density,
        {"intercept": 0.0, "slopes": np.zeros(COVARIATES)},
        None,
    ),
    Model(
        "hierarchical normal",
        hierarchy_prior,
        hierarchy_data,
        hierarchy_density,
        {"mu": 0.0, "tau": 1.0, "eta": np.zeros(GROUPS)},
        {"tau": "positive"},
    ),
    Model(
        "autoregression",
        autoregression_prior,
        autoregression_data,
        autoregression_density,
        {"level": 0.0, "phi": 0.3, "sigma": 1.0},
        {"phi": elbojax.bijectors.interval(-1.0, 1.0), "sigma": "positive"},
    ),
)


def run(model: Model, width: float, replicates: int) -> tuple[dict[str, Any], elbojax.Calibration]:
    """One calibration: the row, and the ranks."""
    began, cpu = time.perf_counter(), time.process_time()
    result = elbojax.simulation_based_calibration(
        jax.random.key(2026),
        model.sample_prior,
        model.simulate,
        lambda position, data: model.log_density(position, data, width),
        model.init,
        num_replicates=replicates,
        support=model.support,
    )
    certificate = result.certificate
    stage, good = np.asarray(certificate.stage), np.asarray(certificate.certified)
    stages, counts = np.unique(stage[good], return_counts=True)
    outermost = np.mean((result.ranks < 2) | (result.ranks > 97), axis=1)
    labels = np.where(good, stage, 0)
    return {
        "model": model.name,
        "prior_width": width,
        "replicates": replicates,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "certified": result.certified,
        "stages": {str(elbojax.Stage(int(stage))): int(count) for stage, count in zip(stages, counts, strict=True)},
        "outermost": {
            str(elbojax.Stage(int(each))) if each else "not certified": float(outermost[labels == each].mean())
            for each in np.unique(labels)
        },
        "gradients": float(np.median(np.asarray(certificate.num_gradients))),
        "calibrated": result.calibrated,
        "p_value": result.p_value,
        "p_values": {name: v.p_value for name, v in zip(result.names, result.verdicts, strict=True)},
        "inside": {name: v.inside for name, v in zip(result.names, result.verdicts, strict=True)},
    }, result


def markdown(record: dict[str, Any]) -> str:
    """The tables that a person reads."""
    where = record["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items() if version)
    rows = []
    for row in record["rows"]:
        rows.append(
            [
                row["model"],
                "right" if row["prior_width"] == 1 else f"prior times {row['prior_width']}",
                f"{row['replicates']:,}",
                f"{100 * row['certified']:.1f} %",
                ", ".join(f"{name} {count:,}" for name, count in row["stages"].items()),
                f"{row['gradients']:,.0f}",
                f"{sum(row['inside'].values())} of {len(row['inside'])}",
                f"{row['p_value']:.3g}",
                ", ".join(f"{name} {100 * share:.1f} %" for name, share in row["outermost"].items()),
                "yes" if row["calibrated"] else "NO",
                f"{row['seconds']:.0f} ({row['cpu_seconds']:.0f})",
            ]
        )
    header = ["model", "log-density", "replicates", "certified", "by stage", "gradients"]
    header += ["ECDFs inside", "p", "outermost", "calibrated", "seconds (cpu)"]
    worst = [
        [row["model"], name, f"{p:.3f}", "inside" if row["inside"][name] else "OUTSIDE"]
        for row in record["rows"]
        if row["prior_width"] == 1
        for name, p in row["p_values"].items()
    ]
    return "\n".join(
        [
            "# Calibration",
            "",
            f"{where['device']} ({where['processor']}, {where['cores']} cores), Python {where['python']}; {versions}; float64."
            f" Load: {record['load'][0]} at the start, {record['load'][1]} at the end.",
            "",
            "Positions from the prior, data from them, and one call of `simulation_based_calibration`: ranks of every"
            " parameter and of the log-density among 99 independent posterior draws of each fit, certified or not."
            " The fits are those of `fit_batch(..., tails=True)`."
            f" Wanted: at least {100 * WANTED_CERTIFIED:.0f} % certified, and every ECDF inside its simultaneous 95 % band;"
            " one in twenty leaves its own by chance, so that a row is calibrated where p, the smallest times their"
            " number, is above 0.05. Outermost: how many ranks are among the two lowest or the two highest, 4 % if all is"
            " right. Seconds are those of the whole call, compilation included.",
            "",
            timing.table(header, rows),
            *(
                f"![{row['model']}](calibration-{row['model'].replace(' ', '-')}.png)"
                for row in record["rows"]
                if row["prior_width"] == 1
            ),
            "",
            "## Each number",
            "",
            timing.table(["model", "ranked", "p", "95 % band"], worst),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--only", default="", help="models whose name holds this; rows of others stay as they were")
    parser.add_argument("--right", action="store_true", help="leave out the log-densities that are wrong")
    parser.add_argument(
        "--output",
        default=pathlib.Path(__file__).parent / "results",
        help="folder of calibration.json and .md, and pictures",
    )
    args = parser.parse_args()

    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_enable_x64", True)
    load, rows = timing.load(), {}
    folder = pathlib.Path(args.output)
    if args.only and (folder / "calibration.json").is_file():
        rows = {
            (row["model"], row["prior_width"]): row
            for row in json.loads((folder / "calibration.json").read_text())["rows"]
        }
    for width in (1.0,) if args.right else (1.0, 0.5):
        for model in MODELS:
            if args.only not in model.name:
                continue
            row, result = run(model, width, args.replicates if width == 1 else max(args.replicates // 5, 1))
            rows[model.name, width] = row
            print(f"{model.name}, prior times {width}: {row['seconds']:.0f} s\n{result}", flush=True)
            order = [(each.name, prior) for prior in (1.0, 0.5) for each in MODELS]
            record = {
                "environment": timing.environment(),
                "rows": [rows[each] for each in order if each in rows],
                "load": [load, timing.load()],
            }
            timing.write(folder, "calibration", record, markdown(record))
            if width == 1:
                name = f"calibration-{model.name.replace(' ', '-')}.png"
                title = f"{model.name}, {len(result.ranks):,} replicates, simultaneous 95 % band"
                elbojax.plots.calibration(result, title=title).savefig(folder / name, dpi=80)


if __name__ == "__main__":
    main()
