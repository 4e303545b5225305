"""The first stages: scouts that find where the mass is, and a full-rank Gaussian put there by second-order steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax.cascade.certificate import Stage
from elbojax.cascade.judge import Outcome, Spent, envelope, judge
from elbojax.families import FullRank
from elbojax.solvers import newton, pathfinder
from elbojax.types import Array, Key, LogDensity, Scalar, Status

NUM_SCOUTS = 4
AROUND = 1.0
"""Scouts start uniformly within so much of init, in each unconstrained coordinate."""
NEGLIGIBLE = 10.0
"""Nats below the density at the mean of `q` at which a scout's end is no mode worth a look."""
NARROW = 0.3
"""The start of the second-order fit is a scout's Gaussian, narrowed: a narrow one sees the exact local curvature,
one that is too wide sees mostly the tails."""


class Scouts(NamedTuple):
    """The ends of the scouts, leading axis P.

    Attributes:
      q: Gaussians of best bound along each path.
      elbo: their rough bounds.
      modes: [P, D] ends of the paths.
      values: [P] log-densities there.
      status: [P].
      num_gradients: of all paths, scalar.
    """

    q: FullRank
    elbo: Array
    modes: Array
    values: Array
    status: Array
    num_gradients: Scalar


def scout(key: Key, log_density: LogDensity, start: Array, *, num_scouts: int = NUM_SCOUTS) -> Scouts:
    """L-BFGS paths from `start` and from around it, each with the Gaussian of best bound along it (Pathfinder).

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      start: [D].
      num_scouts: P, static; the first starts at `start` itself.

    Returns:
      `Scouts`.
    """
    around_key, path_key = jax.random.split(key)
    around = jax.random.uniform(around_key, (num_scouts - 1, start.size), start.dtype, -AROUND, AROUND)
    starts = start + jnp.concatenate([jnp.zeros_like(start)[None], around])

    def path(start):
        return pathfinder(
            path_key, log_density, start, max_steps=60, history=10, tolerance=0.1, num_candidates=10, num_draws=4
        )

    q, info = jax.vmap(path)(starts)
    values = jax.vmap(log_density)(info.mode)
    elbo = jnp.where(info.status == Status.NON_FINITE, -jnp.inf, info.elbo)
    return Scouts(q, elbo, info.mode, values, info.status, jnp.sum(info.num_gradients))


def narrowed(q: FullRank, factor: float = NARROW) -> FullRank:
    """The same Gaussian with all standard deviations times `factor`."""
    return FullRank(q.loc, q.log_diagonal + jnp.log(jnp.asarray(factor, q.loc.dtype)), factor * q.lower)


def count_modes(q: FullRank, log_density: LogDensity, scouts: Scouts) -> Array:
    """One, plus the scouts that ended where `q` puts nothing and the density is not negligible.

    Args:
      q: the fit.
      log_density: [D] -> scalar.
      scouts: their ends.

    Returns:
      Integer scalar.
    """
    size = q.loc.size
    distance = jax.vmap(lambda mode: q.mahalanobis(mode - q.loc))(scouts.modes)
    far = distance > 25 + 4 * size
    heavy = (scouts.values > log_density(q.loc) - NEGLIGIBLE) & (scouts.status == Status.CONVERGED)
    return 1 + jnp.sum(far & heavy)


def fit_gaussian(key: Key, log_density: LogDensity, start: Array) -> tuple[Outcome, Scouts]:
    """Scouts, a full-rank Gaussian, and its check.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      start: [D].

    Returns:
      An `Outcome`, and the `Scouts` for the stages that follow.
    """
    scout_key, fit_key, check_key = jax.random.split(key, 3)
    scouts = scout(scout_key, log_density, start)
    best = jax.tree.map(lambda x: x[jnp.argmax(scouts.elbo)], scouts.q)
    q, info = newton(fit_key, log_density, narrowed(best))
    spent = Spent(
        num_gradients=scouts.num_gradients + info.num_gradients,
        num_log_densities=jnp.zeros((), jnp.int32),
        modes=count_modes(q, log_density, scouts),
        decrement=info.decrement,
        fisher_divergence=info.fisher_divergence,
    )
    outcome = judge(check_key, q, envelope(q), log_density, Stage.FULL_RANK, info.status, spent)
    return outcome, scouts
