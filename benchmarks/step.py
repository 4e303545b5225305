"""Microseconds per step of stochastic VI: elbojax, a hand-written loop, NumPyro and BlackJAX in one interleaved run.

    python benchmarks/step.py [--quick] [--output FOLDER]

All maximise the same bound with `optax.adam`, from N(0, I), on the same log-density in float32. The hand-written loop
is the obvious one: `jit(scan(value_and_grad + adam))`, `random.normal(key, (S, D))`, `vmap` over the draws, the entropy
in closed form. NumPyro and BlackJAX estimate the entropy from the draws, having no other form of the bound for a
Gaussian; both run inside one jitted `scan`, which is kinder to NumPyro than its own `svi.run`, that compiles on each
call. Whoever ends at another bound has been timed at something else, and is said so.
"""

import argparse
import functools
import pathlib
import statistics
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import elbojax

try:
    import numpyro
    from numpyro.infer import SVI, Trace_ELBO, autoguide
except ImportError:
    numpyro = None
try:
    import blackjax
except ImportError:
    blackjax = None

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from benchmarks import timing  # noqa: E402

LEARNING_RATE = 0.01
RELATIVE_TOLERANCE, TOLERANCE = 0.02, 1.0
"""Of the rise of the bound, and in nats: how far apart the final bounds of two contenders may be."""


class Problem(NamedTuple):
    """A posterior, or a batch of them.

    Attributes:
      name: of the row.
      log_density: (z [D], data) -> scalar.
      size: D.
      data: pytree; with a leading axis M where there is a batch.
      models: M, or None for one model.
      steps: number of draws -> steps of a timed fit, enough that compiled work is all that counts.
      wanted: (number of draws, full rank) -> the ratio to the hand-written loop to be reached, or None.
    """

    name: str
    log_density: Callable[[Any, Any], Any]
    size: int
    data: Any
    models: int | None
    steps: dict[int, int]
    wanted: Callable[[int, bool], float | None]


def eight_schools(z, data):
    loc, log_scale, school = z[0], z[1], z[2:]
    scale = jnp.exp(log_scale)
    prior = -0.5 * (loc / 5) ** 2 - jnp.log1p((scale / 5) ** 2) + log_scale - 0.5 * school @ school
    return prior - 0.5 * jnp.sum(((data["y"] - loc - scale * school) / data["sd"]) ** 2)


def logistic(z, data):
    logits = data["x"] @ z
    return jnp.sum(data["y"] * logits - jax.nn.softplus(logits)) - 0.5 * z @ z


def logistic_data(key, n, d):
    key_x, key_b, key_y = jax.random.split(key, 3)
    x = jax.random.normal(key_x, (n, d))
    b = jax.random.normal(key_b, (d,)) / jnp.sqrt(d)
    return {"x": x, "y": jax.random.bernoulli(key_y, jax.nn.sigmoid(x @ b)).astype(x.dtype)}


def problems() -> list[Problem]:
    schools = {
        "y": jnp.array([28.0, 8, -3, 7, -1, 1, 18, 12]),
        "sd": jnp.array([15.0, 10, 16, 11, 9, 11, 10, 18]),
    }
    batch = jax.vmap(lambda key: logistic_data(key, 200, 10))(jax.random.split(jax.random.key(1), 1000))
    return [
        Problem(
            "eight schools",
            eight_schools,
            10,
            schools,
            None,
            {1: 20_000, 10: 10_000, 100: 2000},
            lambda draws, full: None if full else 0.6 if draws == 1 else 0.4,
        ),
        Problem(
            "logistic n=1,000 d=50",
            logistic,
            50,
            logistic_data(jax.random.key(0), 1000, 50),
            None,
            {1: 3000, 10: 500, 100: 200},
            lambda draws, full: 1.05,
        ),
        Problem(
            "1,000 x logistic n=200 d=10",
            logistic,
            10,
            batch,
            1000,
            {1: 200, 10: 100, 100: 20},
            lambda draws, full: 1.05,
        ),
    ]


def hand(problem: Problem, full: bool, num_samples: int, steps: int) -> Callable:
    """`fit(key, data) -> (loc, scale)`, the scale [D] or [D, D]; so are the others."""
    size, optimizer = problem.size, optax.adam(LEARNING_RATE)

    def scale(params):
        if full:
            return jnp.tril(params["lower"], -1) + jnp.diag(jnp.exp(params["log_scale"]))
        return jnp.exp(params["log_scale"])

    def loss(params, key, data):
        noise = jax.random.normal(key, (num_samples, size))
        z = params["loc"] + (noise @ scale(params).T if full else noise * scale(params))
        energy = jnp.mean(jax.vmap(lambda z: problem.log_density(z, data))(z))
        return -(energy + jnp.sum(params["log_scale"]))

    def fit(key, data):
        params = {"loc": jnp.zeros(size), "log_scale": jnp.zeros(size)}
        if full:
            params["lower"] = jnp.zeros((size, size))

        def step(carry, key):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, key, data)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), value

        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, steps))
        return (params["loc"], scale(params)), losses

    return _jitted(fit, problem)


def ours(problem: Problem, full: bool, num_samples: int, steps: int) -> Callable:
    loss = elbojax.as_loss(elbojax.elbo_entropy, problem.log_density, num_samples=num_samples)
    solver = elbojax.svi(loss, optax.adam(LEARNING_RATE))
    zeros = jnp.zeros(problem.size)
    q = elbojax.full_rank(zeros, jnp.eye(problem.size)) if full else elbojax.mean_field(zeros, 1.0)
    if problem.models is None:
        return lambda key, data: elbojax.run(key, solver, q, data, num_steps=steps).q
    qs = jax.tree.map(lambda x: jnp.broadcast_to(x, (problem.models, *x.shape)), q)
    return lambda keys, data: elbojax.run_batch(keys, solver, qs, data, max_steps=steps).q


def with_numpyro(problem: Problem, full: bool, num_samples: int, steps: int) -> Callable:
    def model(data):
        support = numpyro.distributions.constraints.real_vector
        z = numpyro.sample("z", numpyro.distributions.ImproperUniform(support, (), (problem.size,)))
        numpyro.factor("log_density", problem.log_density(z, data))

    start = numpyro.infer.init_to_value(values={"z": jnp.zeros(problem.size)})
    guide = (autoguide.AutoMultivariateNormal if full else autoguide.AutoDiagonalNormal)(
        model, init_loc_fn=start, init_scale=1.0
    )
    # Logarithms of scales as everyone else, not its softplus, lest Adam take another path.
    guide.scale_constraint = numpyro.distributions.constraints.positive
    guide.scale_tril_constraint = numpyro.distributions.constraints.lower_cholesky
    svi = SVI(model, guide, optax.adam(LEARNING_RATE), Trace_ELBO(num_particles=num_samples))

    def fit(key, data):
        state, losses = jax.lax.scan(lambda s, _: svi.update(s, data), svi.init(key, data), length=steps)
        params = svi.get_params(state)
        return (params["auto_loc"], params["auto_scale_tril" if full else "auto_scale"]), losses

    return _jitted(fit, problem)


def with_blackjax(problem: Problem, full: bool, num_samples: int, steps: int) -> Callable:
    size, optimizer = problem.size, optax.adam(LEARNING_RATE)
    method = blackjax.fullrank_vi if full else blackjax.meanfield_vi

    def fit(key, data):
        # Its default, sticking the landing, is another estimator, and dearer.
        algorithm = method(lambda z: problem.log_density(z, data), optimizer, num_samples, stl_estimator=False)
        state = algorithm.init(jnp.zeros(size))
        if not full:
            state = state._replace(rho=jnp.zeros(size))
        state, infos = jax.lax.scan(lambda s, key: algorithm.step(key, s), state, jax.random.split(key, steps))
        if not full:
            return (state.mu, jnp.exp(state.rho)), infos
        lower = jnp.zeros((size, size)).at[jnp.tril_indices(size, -1)].set(state.chol_params[size:])
        return (state.mu, lower + jnp.diag(jnp.exp(state.chol_params[:size]))), infos

    return _jitted(fit, problem)


def _jitted(fit: Callable, problem: Problem) -> Callable:
    return jax.jit(fit if problem.models is None else jax.vmap(fit))


CONTENDERS = {"hand": hand, "elbojax": ours}
if numpyro is not None:
    CONTENDERS["NumPyro"] = with_numpyro
if blackjax is not None:
    CONTENDERS["BlackJAX"] = with_blackjax
ABSENT = [name for name, module in (("NumPyro", numpyro), ("BlackJAX", blackjax)) if module is None]


@functools.partial(jax.jit, static_argnames=("log_density",))
def bound(q, data, log_density):
    return elbojax.elbo_entropy(jax.random.key(99), q, lambda z: log_density(z, data), num_samples=500)


def bounds(problem: Problem, full: bool, result: Any) -> float:
    """The bound that a contender has reached, the mean over the models of a batch."""
    if isinstance(result, tuple):
        (loc, scale), _ = result
        make = elbojax.full_rank if full else elbojax.mean_field
        result = make(loc, scale) if problem.models is None else jax.vmap(make)(loc, scale)
    one = functools.partial(bound, log_density=problem.log_density)
    return float(jnp.mean((one if problem.models is None else jax.vmap(one))(result, problem.data)))


def start_of(problem: Problem) -> tuple:
    shape = (problem.size,) if problem.models is None else (problem.models, problem.size)
    return (jnp.zeros(shape), jnp.ones(shape)), None


def cell(problem: Problem, full: bool, num_samples: int, steps: int, repeats: int, budget: float) -> dict[str, Any]:
    """One row of the table."""
    key = jax.random.key(0)
    if problem.models is not None:
        key = jax.random.split(key, problem.models)
    calls = {
        name: functools.partial(build(problem, full, num_samples, steps), key, problem.data)
        for name, build in CONTENDERS.items()
    }
    before = timing.load()
    times, results = timing.measure(calls, repeats=repeats, budget=budget)
    start = bounds(problem, False, start_of(problem))
    reached = {name: bounds(problem, full, result) for name, result in results.items()}
    allowed = RELATIVE_TOLERANCE * abs(reached["hand"] - start) + TOLERANCE
    per_step = steps * (problem.models or 1)
    base = times["hand"]
    return {
        "problem": problem.name,
        "family": "full rank" if full else "mean-field",
        "draws": num_samples,
        "steps": steps,
        "rounds": len(base.wall),
        "load": [before, timing.load()],
        "wanted": problem.wanted(num_samples, full),
        "elbo_at_start": start,
        "elbo_tolerance": allowed,
        "contenders": {
            name: {
                "microseconds_per_step": 1e6 * statistics.median(t.wall) / per_step,
                "cpu_microseconds_per_step": 1e6 * statistics.median(t.cpu) / per_step,
                "ratio": timing.ratio(t.wall, base.wall),
                "cpu_ratio": timing.ratio(t.cpu, base.cpu),
                "first_call_seconds": t.first,
                "elbo": reached[name],
                "same_elbo": abs(reached[name] - reached["hand"]) <= allowed,
            }
            for name, t in times.items()
        },
    }


def markdown(record: dict[str, Any]) -> str:
    """The tables that a person reads."""
    where, names = record["environment"], list(CONTENDERS)
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items() if version)
    rows, compile_rows, wrong = [], [], []
    for row in record["rows"]:
        c = row["contenders"]
        label = [row["problem"], row["family"], row["draws"]]
        wanted = row["wanted"]
        rows.append(
            [
                *label,
                f"{c['hand']['microseconds_per_step']:.3g}",
                *(f"{c[name]['ratio']:.2f} ({c[name]['cpu_ratio']:.2f})" for name in names[1:]),
                "" if wanted is None else f"{wanted} {'yes' if c['elbojax']['ratio'] <= wanted else 'no'}",
                " / ".join(f"{c[name]['elbo']:.1f}" for name in names),
            ]
        )
        compile_rows.append([*label, *(f"{c[name]['first_call_seconds']:.2f}" for name in names)])
        wrong += [
            f"{name} on {row['problem']}, {row['family']}, {row['draws']} draws"
            for name in names
            if not c[name]["same_elbo"]
        ]
    loads = [x for row in record["rows"] for x in row["load"] if x is not None]
    text = [
        "# Time of one step",
        "",
        f"{where['device']} ({where['processor']}, {where['cores']} cores), Python {where['python']}; {versions}; float32."
        + (f" Load while it ran: {min(loads)} to {max(loads)}." if loads else "")
        + (" A short run." if record["quick"] else ""),
        *([f"Not installed, so not timed: {', '.join(record['absent'])}."] if record["absent"] else []),
        "",
        "Microseconds per step (per model in a batch) of the hand-written loop, medians of wall time; the others as a ratio"
        " to it, round by round, the median over rounds, in brackets the same of processor time. Below 1 is faster;"
        " within 0.85 to 1.2 is a tie on a busy machine. Last, the bound that each reached, in the order of the columns.",
        "",
        timing.table(["problem", "family", "draws", "hand, µs", *names[1:], "wanted of elbojax", "ELBO reached"], rows),
        "All reached the same bound."
        if not wrong
        else "Another bound than the hand-written loop: " + "; ".join(wrong) + ".",
        "",
        "## First call, compilation included, seconds",
        "",
        timing.table(["problem", "family", "draws", *names], compile_rows),
    ]
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps and rounds, about a minute")
    parser.add_argument(
        "--output", default=pathlib.Path(__file__).parent / "results", help="folder of step.json and step.md"
    )
    parser.add_argument("--only", default="", help="problems whose name holds this")
    parser.add_argument("--name", default="step", help="of the two files")
    args = parser.parse_args()

    jax.config.update("jax_enable_compilation_cache", False)
    if ABSENT:
        print("not installed, so not timed:", ", ".join(ABSENT))
    record = {"environment": timing.environment(), "quick": args.quick, "absent": ABSENT, "rows": []}
    for problem in problems():
        if args.only not in problem.name:
            continue
        for full in (False, True) if problem.models is None else (False,):
            for draws, steps in problem.steps.items():
                if args.quick:
                    if draws == 100:
                        continue
                    steps = max(steps // 10, 50)
                row = cell(problem, full, draws, steps, *((5, 1.0) if args.quick else (25, 8.0)))
                record["rows"].append(row)
                found = "  ".join(
                    f"{name} {c['microseconds_per_step']:.3g} µs ({c['ratio']:.2f}, cpu {c['cpu_ratio']:.2f}"
                    f"{'' if c['same_elbo'] else ', ANOTHER BOUND ' + format(c['elbo'], '.1f')})"
                    for name, c in row["contenders"].items()
                )
                print(f"{problem.name}, {row['family']}, {draws} draws: {found}", flush=True)
    timing.write(args.output, args.name, record, markdown(record))


if __name__ == "__main__":
    main()
