"""Minibatches at one budget of gradients: `fit_minibatches`, Adam at fixed step sizes, and NumPyro's SVI.

    python benchmarks/minibatch.py [--quick] [--only NAME] [--output FOLDER]

Logistic regressions whose optimum is known from all data. `fit_minibatches` decides itself when it is done; the others
are given as many minibatch gradients as it took, start included, and a step size each: plain steps from the origin
with scale 0.1, entropy in closed form; their last iterate and their tail average. All see the same data in float32.
Seconds are warm and taken in turns; errors are those of the seeds, in posterior sds of the optimum.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import elbojax  # noqa: E402
from benchmarks import timing  # noqa: E402

BATCH = 256
RATES = (0.1, 0.01, 0.001)
NUMPYRO_RATES = (0.001,)
"""The best of the three here; each run takes long, for its subsampling costs N at every step."""
SEEDS = (0, 1, 2)
SCALE = 0.1
"""Of the start of plain SVI, NumPyro's default."""


class Problem(NamedTuple):
    name: str
    num_data: int
    size: int
    family: str
    with_numpyro: bool


PROBLEMS = (
    Problem("logistic, full rank", 20_000, 20, "full_rank", True),
    Problem("logistic, mean-field", 20_000, 20, "mean_field", True),
    Problem("logistic, mean-field, larger", 50_000, 100, "mean_field", False),
)


def make_data(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Columns are correlated like a series, 0.6 between neighbours."""
    rng = np.random.default_rng(0)
    correlation = 0.6 ** np.abs(np.subtract.outer(np.arange(problem.size), np.arange(problem.size)))
    x = rng.normal(size=(problem.num_data, problem.size)) @ np.linalg.cholesky(correlation).T
    coefficients = rng.normal(size=problem.size) * 0.5 * np.sqrt(20 / problem.size)
    y = rng.uniform(size=problem.num_data) < 1 / (1 + np.exp(-x @ coefficients))
    return x.astype(np.float32), y.astype(np.float32)


def log_prior(z):
    return -0.5 * z @ z


def log_likelihood(z, datum):
    x, y = datum
    logit = x @ z
    return y * logit - jax.nn.softplus(logit)


def optimum(problem: Problem, data: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds of the best Gaussian of the family from all data, by fixed-point iteration in double precision.

    At the optimum E[gradient] = 0, and the precision (of mean-field its diagonal) is E[-Hessian]. Given the mean, a logit
    is one normal number, so both expectations are one-dimensional and taken by Gauss-Hermite quadrature: no draws.
    """
    x, y = (np.asarray(part, float) for part in data)
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    weights = weights / weights.sum()
    mean, covariance = np.zeros(problem.size), 0.01 * np.eye(problem.size)
    for _ in range(30):
        spread = np.sqrt(np.einsum("nd,nd->n", x @ covariance, x))
        probability = 1 / (1 + np.exp(-((x @ mean)[:, None] + spread[:, None] * nodes)))
        gradient = x.T @ (y - probability @ weights) - mean
        precision = (x * ((probability * (1 - probability)) @ weights)[:, None]).T @ x + np.eye(problem.size)
        mean = mean + np.linalg.solve(precision, gradient)
        diagonal = np.diag(1 / np.diag(precision))
        covariance = np.linalg.inv(precision) if problem.family == "full_rank" else diagonal
    return mean, np.sqrt(np.diag(covariance))


def start(problem: Problem) -> Any:
    zeros = jnp.zeros(problem.size, jnp.float32)
    if problem.family == "mean_field":
        return elbojax.mean_field(zeros, SCALE)
    return elbojax.full_rank(zeros, SCALE * jnp.eye(problem.size, dtype=jnp.float32))


def plain(problem: Problem, data: Any, rate: float, num_steps: int) -> Any:
    """Adam on the plain estimate: (key) -> q, the last iterate and the tail average."""
    log_joint = elbojax.targets.subsample(log_prior, log_likelihood, problem.num_data)
    loss = elbojax.as_loss(elbojax.elbo_entropy, log_joint)
    solver = elbojax.averaged(elbojax.minibatched(elbojax.svi(loss, optax.adam(rate)), BATCH))

    def fit(seed):
        run = elbojax.run(jax.random.key(seed), solver, start(problem), data, num_steps=num_steps)
        return run.lane.state.inner.q, run.q

    return fit


def numpyro_svi(problem: Problem, data: Any, rate: float, num_steps: int) -> Any:
    """NumPyro's SVI as documented, its updates in one scan: (seed) -> guide's means and sds."""
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import SVI, Trace_ELBO, autoguide

    def model(x, y):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([problem.size]).to_event(1))
        with numpyro.plate("rows", problem.num_data, subsample_size=BATCH):
            rows = numpyro.subsample(x, event_dim=1)
            numpyro.sample("y", dist.Bernoulli(logits=rows @ z), obs=numpyro.subsample(y, event_dim=0))

    kind = autoguide.AutoNormal if problem.family == "mean_field" else autoguide.AutoMultivariateNormal
    guide = kind(
        model, init_loc_fn=numpyro.infer.init_to_value(values={"z": jnp.zeros(problem.size)}), init_scale=SCALE
    )
    svi = SVI(model, guide, numpyro.optim.Adam(rate), Trace_ELBO())
    svi.init(jax.random.key(0), x=data[0], y=data[1])  # the guide learns the shapes of the model

    @jax.jit
    def fit(key, x, y):
        state = svi.init(key, x=x, y=y)
        state, _ = jax.lax.scan(lambda s, _: (svi.update(s, x=x, y=y)[0], None), state, None, length=num_steps)
        params = svi.get_params(state)
        if problem.family == "mean_field":
            return params["z_auto_loc"], params["z_auto_scale"]
        return params["auto_loc"], jnp.sqrt(jnp.sum(jnp.tril(params["auto_scale_tril"]) ** 2, axis=1))

    compiled = fit.lower(jax.random.key(0), *data).compile()
    return lambda seed: (compiled(jax.random.key(seed), *data),)


def errors(found: tuple[Any, Any], wanted: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Of means in sds of the optimum, of sds relative; largest ones."""
    mean, sd = (np.asarray(x, float) for x in found)
    return {
        "mean_rms": float(np.sqrt(np.mean(((mean - wanted[0]) / wanted[1]) ** 2))),
        "mean_max": float(np.max(np.abs(mean - wanted[0]) / wanted[1])),
        "sd_max": float(np.max(np.abs(sd / wanted[1] - 1))),
    }


def moments(q: Any) -> tuple[Any, Any]:
    return q.mean(), jnp.sqrt(q.variance())


def contest(problem: Problem, quick: bool) -> dict[str, Any]:
    """One problem: the rows of all contenders. Seeds are the rounds, in which all take turns."""
    data = jax.tree.map(jnp.asarray, make_data(problem))
    wanted = optimum(problem, data)
    seeds = SEEDS[:1] if quick else SEEDS
    settings: dict[str, Any] = {"family": problem.family, "batch_size": BATCH}

    def ours(control_variate):
        init = jnp.zeros(problem.size, jnp.float32)
        model = (log_prior, log_likelihood, init, data)
        return lambda seed: elbojax.fit_minibatches(
            jax.random.key(seed), *model, control_variate=control_variate, **settings
        )

    budget = round(statistics.median(ours(True)(seed).num_gradients for seed in seeds))
    num_steps = max(budget // 50 * 50, 50)
    ours(False)(seeds[0])
    calls = {"fit_minibatches": ours(True), "fit_minibatches, no control variate": ours(False)}
    for rate in RATES:
        calls[f"Adam {rate:g}"] = plain(problem, data, rate, num_steps)
        calls[f"Adam {rate:g}"](0)
    if problem.with_numpyro:
        for rate in NUMPYRO_RATES:
            calls[f"NumPyro, Adam {rate:g}"] = numpyro_svi(problem, data, rate, num_steps)

    results: dict[str, dict[str, Any]] = {}
    names = list(calls)
    for turn, seed in enumerate(seeds):
        for name in names[turn:] + names[:turn]:
            began = time.perf_counter()
            found = jax.block_until_ready(calls[name](seed))
            seconds = time.perf_counter() - began
            if isinstance(found, elbojax.MinibatchFit):
                more = {"gradients": found.num_gradients, "ended": f"{found.status} ({found.winner})"}
                answers = {name: moments(found.q)}
            elif len(found) == 2:
                more = {"gradients": num_steps}
                answers = {f"{name}, last iterate": moments(found[0]), f"{name}, tail average": moments(found[1])}
            else:
                more, answers = {"gradients": num_steps}, {name: found[0]}
            for label, answer in answers.items():
                row = results.setdefault(label, {"rounds": []})
                row["rounds"].append(errors(answer, wanted) | more | {"seconds": seconds})
    base = [one["seconds"] for one in results["fit_minibatches"]["rounds"]]
    for label, row in results.items():
        rounds = row["rounds"]
        row |= {key: max(one[key] for one in rounds) for key in ("mean_rms", "mean_max", "sd_max")}
        row["gradients"] = round(statistics.median(one["gradients"] for one in rounds))
        row["seconds"] = statistics.median(one["seconds"] for one in rounds)
        row["ratio"] = timing.ratio([one["seconds"] for one in rounds], base)
        shown = {key: round(value, 4) for key, value in row.items() if isinstance(value, float)}
        print(f"{problem.name:>28}  {label:<36}", shown, flush=True)
    return {"problem": problem._asdict(), "results": results}


def markdown(record: dict[str, Any]) -> str:
    where = record["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items() if version)
    text = [
        "# Minibatches",
        "",
        f"{where['device']} ({where['processor']}, {where['cores']} cores), Python {where['python']}; {versions}; float32."
        + f" Load: {record['load'][0]} at the start, {record['load'][1]} at the end."
        + (" A short run." if record["quick"] else ""),
        "",
        f"Minibatches of {BATCH}. Errors against the exact optimum of the family from all data, the worst of"
        f" {record['seeds']} seeds: means in posterior sds, sds relative. A minibatch gradient is one draw and one"
        " minibatch; `fit_minibatches` counts its start, race, control variates and passes over all rows. Seconds are warm,"
        " taken in turns; the ratio is to `fit_minibatches`, round by round.",
        "",
    ]
    for entry in record["problems"]:
        problem = entry["problem"]
        rows = []
        for name, row in entry["results"].items():
            rows.append(
                [
                    name,
                    f"{row['gradients']:,}",
                    f"{row['mean_rms']:.3f} / {row['mean_max']:.3f}",
                    f"{row['sd_max']:.3f}",
                    f"{row['seconds']:.2f}" if "seconds" in row else "",
                    f"{row['ratio']:.2f}" if "ratio" in row else "",
                    ", ".join(one["ended"] for one in row["rounds"] if "ended" in one),
                ]
            )
        header = [
            "",
            "minibatch gradients",
            "mean error, rms / max",
            "sd error, max",
            "seconds",
            "ratio",
            "ended (winner)",
        ]
        text += [
            f"## {problem['name']}, N = {problem['num_data']:,}, D = {problem['size']}",
            "",
            timing.table(header, rows),
        ]
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one problem, one seed")
    parser.add_argument("--only", default="", help="problems whose name holds this; others stay as they were")
    parser.add_argument(
        "--output", default=pathlib.Path(__file__).parent / "results", help="folder of minibatch.json and .md"
    )
    args = parser.parse_args()
    load, entries = timing.load(), []
    last = pathlib.Path(args.output) / "minibatch.json"
    if args.only and last.is_file():
        entries = [one for one in json.loads(last.read_text())["problems"] if args.only not in one["problem"]["name"]]
    text = ""
    for problem in PROBLEMS[:1] if args.quick else PROBLEMS:
        if args.only not in problem.name:
            continue
        entries.append(contest(problem, args.quick))
        record = {
            "environment": timing.environment(),
            "quick": args.quick,
            "seeds": 1 if args.quick else len(SEEDS),
            "problems": entries,
            "load": [load, timing.load()],
        }
        text = markdown(record)
        timing.write(args.output, "minibatch", record, text)
    print("\n" + text)


if __name__ == "__main__":
    main()
