"""The first stage for many parameters: optimisation paths and a low-rank Gaussian, in time and memory linear in D."""

import math

import jax
import jax.numpy as jnp

from elbojax import noise as noises
from elbojax import thresholds
from elbojax.cascade.gaussian import Paths, count_modes
from elbojax.cascade.importance import Cost, Outcome, check_importance, envelope
from elbojax.diagnostics import khat_threshold
from elbojax.families import MeanField
from elbojax.results.certificate import Stage
from elbojax.solvers.newton_low_rank import newton_low_rank
from elbojax.solvers.pathfinder import pathfinder
from elbojax.types import Array, Key, LogDensity

UNCHECKED = (
    "this many parameters are more than importance weights can vouch for: means and sds are those of q, a second-order"
    " fit, unchecked; install BlackJAX and fit will go on to check them by NUTS, or run MCMC from fit.draws"
)
"""What to do where a low-rank answer is not certified."""


def low_rank_paths(key: Key, log_density: LogDensity, start: Array) -> tuple[Paths, Array]:
    """Paths of L-BFGS from `start` and from around it, each with its Gaussian of best bound.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      start: [D].

    Returns:
      `Paths` with `LowRank` Gaussians, and [P, D] sds of each coordinate given the others.
    """
    around_key, path_key = jax.random.split(key)
    radius = (
        thresholds.PATH_AROUND
        * jnp.arange(thresholds.PATHS_LARGE, dtype=start.dtype)
        / max(thresholds.PATHS_LARGE - 1, 1)
    )
    starts = start + radius[:, None] * jax.random.uniform(
        around_key, (thresholds.PATHS_LARGE, start.size), start.dtype, -1, 1
    )
    # One after the other: side by side every turn of the loop would copy the points of all paths.
    qs, info = jax.lax.map(
        lambda start: pathfinder(path_key, log_density, start, max_steps=thresholds.PATH_STEPS_LARGE), starts
    )
    values = jax.vmap(log_density)(info.mode)
    paths = Paths(
        qs, info.elbo, info.mode, values, info.status, jnp.sum(info.num_gradients) + 0.5 * thresholds.PATHS_LARGE
    )
    return paths, info.conditional_scale


def fit_large(key: Key, log_density: LogDensity, start: Array) -> tuple[Outcome, Paths]:
    """Paths, a low-rank Gaussian, and its check.

    The check is that of all stages. Where it fails, as it must for most posteriors of a thousand parameters that are
    not Gaussian themselves, its weights rest on a few draws: the draws handed on are then those of `q`, all of one
    weight, and the certificate says that they are not certified.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      start: [D].

    Returns:
      An `Outcome`, and the `Paths`.
    """
    path_key, fit_key, check_key, draw_key = jax.random.split(key, 4)
    paths, scales = low_rank_paths(path_key, log_density, start)
    best = jnp.argmax(paths.elbo)
    q, info = newton_low_rank(fit_key, log_density, MeanField(paths.q.loc[best], jnp.log(scales[best])))
    cost = Cost(
        num_gradients=paths.num_gradients + info.num_gradients,
        num_log_densities=jnp.zeros((), jnp.int32),
        modes=count_modes(q, log_density, paths),
        decrement=info.decrement,
        fisher_divergence=info.fisher_divergence,
    )
    weighted = check_importance(check_key, q, envelope(q), log_density, Stage.LOW_RANK, info.status, cost)
    num_draws = weighted.draws.shape[0]
    trusted = weighted.certificate.khat < khat_threshold(num_draws)
    draws = jax.vmap(q.transport)(noises.sobol(draw_key, num_draws, q.noise_size, q.dtype))
    uniform = jnp.full(num_draws, -math.log(num_draws), draws.dtype)
    outcome = weighted._replace(
        draws=jnp.where(trusted, weighted.draws, draws),
        log_weights=jnp.where(trusted, weighted.log_weights, uniform),
    )
    return outcome, paths
