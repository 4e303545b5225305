"""`fit` and each solver alone, with the settings they have by default.

A method is a function of a `Problem` that gives two: `call(key)`, which is timed, and `answer(key, result)`, which is not.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import elbojax
from benchmarks.contenders import peers
from benchmarks.contenders.answers import Answer, from_family, name_of
from benchmarks.problems.posterior import Problem

Method = Callable[[Problem], tuple[Callable, Callable]]


def fit(problem: Problem):
    model = problem.model

    def call(key):
        return elbojax.fit(key, model.log_density, model.init, data=model.data, support=model.support)

    def answer(key, result):
        del key
        c = result.certificate
        return Answer(
            result.draws,
            result.log_weights,
            float(c.num_gradients),
            str(c.status),
            int(c.num_log_densities),
            float(c.khat),
            bool(c.certified),
            str(c.stage),
        )

    return call, answer


def _one_shot(solve: Callable[..., tuple[Any, Any]]) -> Method:
    """A solver that is a plain function (key, log_density, start) -> (q, info)."""

    def method(problem: Problem):
        solved = jax.jit(lambda key, start, data: solve(key, problem.density(data), start))

        def answer(key, result):
            q, info = result
            return from_family(key, problem, q, info.num_gradients, info.status)

        return lambda key: solved(key, problem.start, problem.model.data), answer

    return method


def _newton(key, log_density, start):
    """From the Gaussian of a Pathfinder, narrowed as in `fit`; its gradients are counted."""
    found, path_info = elbojax.pathfinder(jax.random.fold_in(key, 0), log_density, start)
    # Pathfinder gives low-rank Gaussians above D = 100.
    upper = jnp.linalg.cholesky(found.covariance())
    q, info = elbojax.newton(jax.random.fold_in(key, 1), log_density, elbojax.full_rank(found.loc, 0.3 * upper))
    return q, info._replace(num_gradients=info.num_gradients + path_info.num_gradients)


def _linear_response(key, log_density, start):
    """Of a `dadvi` fit on the same draws."""
    fitted, found = elbojax.solvers.dadvi(key, log_density, start, num_replicates=0)
    q, info = elbojax.solvers.linear_response(key, log_density, fitted)
    return q, info._replace(num_gradients=info.num_gradients + found.num_gradients)


def multipathfinder(problem: Problem):
    solved = jax.jit(lambda key, start, data: elbojax.solvers.multipathfinder(key, problem.density(data), start))

    def answer(key, result):
        del key
        _, info = result
        return Answer(
            info.draws, info.log_weights, float(info.num_gradients), name_of(info.status), khat=float(info.khat)
        )

    return lambda key: solved(key, problem.start, problem.model.data), answer


SVGD = {"particles": 100, "steps": 1000, "rate": 0.05}


def svgd(problem: Problem):
    solver = elbojax.solvers.svgd(problem.target.log_density, optax.adam(SVGD["rate"]))

    def call(key):
        cloud = problem.start + jax.random.normal(key, (SVGD["particles"], problem.size))
        return elbojax.run(
            key, solver, elbojax.families.particles(cloud, 1.0), problem.model.data, num_steps=SVGD["steps"]
        )

    def answer(key, result):
        del key
        x = result.q.locations
        return Answer(x, jnp.zeros(len(x)), float(len(x) * int(result.num_steps)), name_of(result.status))

    return call, answer


def svi_mean_field(problem: Problem):
    loss = elbojax.as_loss(elbojax.elbo_entropy, problem.target.log_density, num_samples=1)
    solver = elbojax.svi(loss, peers.optimizer())
    start = elbojax.mean_field(problem.start, peers.INIT_SCALE)

    def call(key):
        return elbojax.run(key, solver, start, problem.model.data, num_steps=peers.NUM_STEPS)

    def answer(key, result):
        return from_family(key, problem, result.q, np.asarray(result.num_steps), result.status)

    return call, answer


_OURS: dict[str, Method] = {
    "fit": fit,
    "newton": _one_shot(_newton),
    "pathfinder": _one_shot(elbojax.pathfinder),
    "multipathfinder": multipathfinder,
    "dadvi": _one_shot(elbojax.solvers.dadvi),
    "linear_response": _one_shot(_linear_response),
    "newton_low_rank": _one_shot(elbojax.solvers.newton_low_rank),
    "laplace": _one_shot(elbojax.laplace),
    "batch_and_match": _one_shot(elbojax.solvers.batch_and_match),
    "gsm": _one_shot(elbojax.solvers.gsm),
    "svgd": svgd,
    "svi_mean_field": svi_mean_field,
}
METHODS: dict[str, Method] = {
    "fit": fit,
    "numpyro_nuts": peers.nuts,
    "numpyro_mcmc": peers.mcmc,
    **_OURS,
    **peers.METHODS,
}
"""In the order in which they run: what matters most first."""

SETTINGS = (
    "Solvers alone have their defaults; newton starts from pathfinder, linear_response from dadvi;"
    f" svgd has {SVGD['particles']} particles and {SVGD['steps']:,} steps of Adam at {SVGD['rate']}."
    " svi_mean_field and NumPyro's guides take"
    f" {peers.NUM_STEPS:,} steps of Adam, one draw each, from {peers.RATE} falling to 0 by a cosine, from the same"
    f" start with scale {peers.INIT_SCALE}. NUTS is NumPyro's, one chain of {peers.NUM_WARMUP} + {peers.NUM_SAMPLES},"
    " diagonal metric, in one jitted scan, and as numpyro_mcmc by its own"
    " MCMC(...).run, which compiles more; nutpie's is as long, in Rust, on the log-density compiled by JAX."
    " BlackJAX's Pathfinder has its defaults, and as many paths as ours."
)
