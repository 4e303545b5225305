"""The first stage: optimisation paths from several starts, and a full-rank Gaussian fitted by second-order steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from elbojax import linalg, thresholds
from elbojax import noise as noises
from elbojax.cascade.importance import Cost, Outcome, check_importance, envelope
from elbojax.families import FullRank, Gaussian
from elbojax.objectives import elbo_entropy_at
from elbojax.results.certificate import Stage
from elbojax.solvers.bfgs import bfgs, inverse_hessians
from elbojax.solvers.newton import MAX_STEPS, draws_for, newton
from elbojax.types import Array, Key, LogDensity, Scalar, Status


class Paths(NamedTuple):
    """What the paths have found, leading axis P.

    Attributes:
      q: Gaussians of best bound along each path.
      elbo: their rough bounds.
      modes: [P, D] ends of the paths.
      values: [P] log-densities there.
      status: [P].
      num_gradients: of all paths, scalar.
    """

    q: Any
    elbo: Any
    modes: Any
    values: Any
    status: Any
    num_gradients: Any


def optimise_paths(
    key: Key,
    log_density: LogDensity,
    start: Array,
    *,
    num_paths: int | None = None,
    record: bool = True,
) -> Paths:
    r"""Paths of BFGS from `start` and from around it, each with the Gaussian of best bound along it.

    The bound, not the density, chooses: a mode in a funnel's neck has a high density and no mass (Pathfinder's rule).

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      start: [D], or [K, D] for several.
      num_paths: P, static, `thresholds.PATHS` by default; the first start at `start` itself, or the K of them.
      record: static; whether points along each path are assessed, or its end alone, at a fraction of the cost.

    Returns:
      `Paths`.

    References:
      Zhang, Carpenter, Gelman, Vehtari 2022, https://jmlr.org/papers/v23/21-0889.html
    """
    around_key, noise_key = jax.random.split(key)
    num_paths = thresholds.PATHS if num_paths is None else num_paths
    num_candidates = thresholds.PATH_CANDIDATES if record else 1
    centres = jnp.atleast_2d(start)
    num_centres, size = centres.shape
    away = jnp.maximum(jnp.arange(num_paths, dtype=start.dtype) - (num_centres - 1), 0)
    radius = thresholds.PATH_AROUND * away / max(num_paths - num_centres, 1)
    around = jax.random.uniform(around_key, (num_paths, size), start.dtype, -1, 1)
    starts = centres[jnp.arange(num_paths) % num_centres] + radius[:, None] * around
    noise = noises.antithetic(noise_key, thresholds.PATH_CANDIDATE_DRAWS, size, start.dtype)

    def path(start):
        path = bfgs(log_density, start, record=record)
        last = path.num_steps if record else 0
        share = jnp.arange(1, num_candidates + 1) / num_candidates
        chosen = jnp.ceil(share * last).astype(jnp.int32)
        believed = inverse_hessians(path)[chosen] if record else path.inverse_hessian[None]
        candidates = jax.vmap(_implied)(path.positions[chosen], path.gradients[chosen], believed)
        elbos = jax.vmap(lambda q: elbo_entropy_at(noise, q, log_density))(candidates)
        elbos = jnp.where(jnp.isfinite(elbos), elbos, -jnp.inf)
        best = jnp.argmax(elbos)
        cost = path.num_gradients + 0.5 * thresholds.PATH_CANDIDATE_DRAWS * jnp.minimum(num_candidates, path.num_steps)
        end = path.positions[last], path.values[last]
        return jax.tree.map(lambda x: x[best], candidates), elbos[best], *end, path.status, cost

    q, elbo, modes, values, status, cost = jax.vmap(path)(starts)
    return Paths(q, elbo, modes, values, status, jnp.sum(cost))


def _implied(position: Array, gradient: Array, inverse_hessian: Array) -> FullRank:
    """The Gaussian that a path believes in at one of its points."""
    scale_tril = linalg.cholesky(inverse_hessian)
    loc = position + inverse_hessian @ gradient
    return FullRank(loc, jnp.log(jnp.diagonal(scale_tril)), jnp.tril(scale_tril, -1))


def narrowed(q: FullRank, factor: float) -> FullRank:
    """The same Gaussian with all standard deviations times `factor`."""
    return FullRank(q.loc, q.log_diagonal + jnp.log(jnp.asarray(factor, q.loc.dtype)), factor * q.lower)


def count_modes(q: Gaussian, log_density: LogDensity, paths: Paths) -> Array:
    """One, plus the paths that ended where `q` puts nothing and the density is not negligible.

    Args:
      q: the fit.
      log_density: [D] -> scalar.
      paths: their ends.

    Returns:
      Integer scalar.
    """
    size = q.loc.size
    from_centre = jax.vmap(lambda mode: q.mahalanobis(mode - q.loc))(paths.modes)
    from_best = jax.vmap(lambda mode: q.mahalanobis(mode - paths.modes[jnp.argmax(paths.elbo)]))(paths.modes)
    far = from_centre > thresholds.COVERED + thresholds.COVERED_PER_PARAMETER * size
    far |= (from_best > thresholds.COVERED) & (paths.elbo > jnp.max(paths.elbo) - thresholds.LIGHT)
    heavy = (paths.values > log_density(q.loc) - thresholds.NEGLIGIBLE) & (paths.status == Status.CONVERGED)
    return 1 + jnp.sum(far & heavy)


def affordable(left: Scalar, cost: int) -> Scalar:
    """Steps of `newton`, as far as the gradients that are left allow.

    Args:
      left: gradients; may be infinite.
      cost: of a step.

    Returns:
      At most its default.
    """
    return jnp.minimum(jnp.floor(left / cost), MAX_STEPS)


def fit_gaussian(
    key: Key,
    log_density: LogDensity,
    start: Array,
    *,
    num_paths: int | None = None,
    record: bool = True,
    num_draws: int | None = None,
    path_key: Key | None = None,
    rough: LogDensity | None = None,
    noise: Array | None = None,
    enough: float | None = None,
    limit: Scalar | None = None,
) -> tuple[Outcome, Paths]:
    """Paths, a full-rank Gaussian, and its check.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      start: [D], or [K, D] for several.
      num_paths: static, `thresholds.PATHS` by default.
      record: of the paths.
      num_draws: of the check, static, a power of two.
      path_key: of the paths, for a second look from the same starts; from `key` by default.
      rough: the log-density in less than full precision, for all but what the check holds it against.
      noise: draws of the check, made before.
      enough: effective draws that a certificate needs.
      limit: gradients, traced, above which the Gaussian is fitted no further; all paths run to their end, for else
        modes would go uncounted.

    Returns:
      An `Outcome`, and the `Paths` for the stages that follow.
    """
    own_key, fit_key, check_key = jax.random.split(key, 3)
    climbed = log_density if rough is None else rough
    paths = optimise_paths(
        own_key if path_key is None else path_key,
        climbed,
        start,
        num_paths=num_paths,
        record=record,
    )
    best = jax.tree.map(lambda x: x[jnp.argmax(paths.elbo)], paths.q)
    max_steps = MAX_STEPS if limit is None else affordable(limit - paths.num_gradients, draws_for(start.shape[-1]))
    q, info = newton(fit_key, climbed, narrowed(best, thresholds.NARROWED), max_steps=max_steps)
    cost = Cost(
        num_gradients=paths.num_gradients + info.num_gradients,
        num_log_densities=jnp.zeros((), jnp.int32),
        modes=count_modes(q, climbed, paths),
        decrement=info.decrement,
        fisher_divergence=info.fisher_divergence,
    )
    outcome = check_importance(
        check_key,
        q,
        envelope(q),
        log_density,
        Stage.FULL_RANK,
        info.status,
        cost,
        num_draws=num_draws,
        rough=rough,
        noise=noise,
        enough=enough,
    )
    return outcome, paths
