"""Multi-path Pathfinder: paths from several starts, their draws weighted as draws of one mixture."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.diagnostics import psis
from elbojax.families import Gaussian
from elbojax.families.base import check_vector, sample_many
from elbojax.inputs import as_array, check_real
from elbojax.numerics import log_mean_exp
from elbojax.solvers.pathfinder import PathfinderInfo, pathfinder
from elbojax.types import Array, Key, LogDensity, Scalar, Status
from elbojax.weights import pick


class MultiPathfinderInfo(NamedTuple):
    """What all paths found; P paths, S draws.

    Attributes:
      status: `Status`: that of the best path; NON_FINITE where none found a Gaussian.
      num_gradients: over all paths, and half for each value of the log-density.
      best: index of the path of highest ELBO.
      draws: [S, D] from all paths in turn.
      log_weights: [S] Pareto-smoothed and normalised.
      resampled: [S, D] draws of equal weight in random order, by systematic resampling.
      khat: of the weights.
      log_evidence: log of the mean importance ratio.
      paths: `PathfinderInfo` with a leading axis P.
    """

    status: Array
    num_gradients: Array
    best: Array
    draws: Array
    log_weights: Array
    resampled: Array
    khat: Scalar
    log_evidence: Scalar
    paths: PathfinderInfo


@explained
def multipathfinder(
    key: Key,
    log_density: LogDensity,
    start: Array,
    *,
    num_paths: int = 4,
    spread: float = 2.0,
    num_samples: int = 1000,
    max_steps: int = 100,
    history: int = 30,
) -> tuple[Gaussian, MultiPathfinderInfo]:
    r"""Run Pathfinder from several starts at once and resample their draws by Pareto-smoothed importance.

    The paths' Gaussians are taken as one mixture, whose ratios are bounded where any one of them covers:

    .. math:: w_s = \frac{p(z_s)}{\frac1P \sum_p q_p(z_s)}

    A path that fails has no share in it.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      start: [P, D] starts; or [D], the first of them, the others spread uniformly around it.
      num_paths: P, static, where `start` is one point.
      spread: half the width of the box of starts around it.
      num_samples: S, static; rounded up to a multiple of P.
      max_steps: of each path, static.
      history: of L-BFGS, static.

    Returns:
      The path's Gaussian of highest ELBO, and a `MultiPathfinderInfo`.

    Raises:
      TypeError: `start` is not floating point.
      ValueError: a shape or size does not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> log_density = lambda z: -0.5 * jnp.sum((z - 3.0) ** 2)
      >>> fit = jax.jit(lambda key, start: multipathfinder(key, log_density, start, num_samples=40))
      >>> q, info = fit(jax.random.key(0), jnp.zeros(2))
      >>> info.draws.shape, bool(jnp.allclose(q.loc, 3.0, atol=1e-3))
      ((40, 2), True)

    References:
      Zhang, Carpenter, Gelman, Vehtari 2022, https://jmlr.org/papers/v23/21-0889.html
    """
    start = as_array(start, "start")
    check_real(start, "start")
    start_key, path_key, draw_key, choice_key = jax.random.split(key, 4)
    if start.ndim == 1:
        start = check_vector("start", start)
        if num_paths < 1:
            raise ValueError(f"num_paths must be at least 1, got {num_paths}")
        box = jax.random.uniform(start_key, (num_paths, start.size), start.dtype, -1, 1)
        start = start + spread * box.at[0].set(0)
    elif start.ndim != 2 or not start.size:
        raise ValueError(f"start must be [D] or [P, D], got shape {start.shape}")
    num_paths = start.shape[0]
    each = -(-num_samples // num_paths)

    def run_path(key, start):
        return pathfinder(key, log_density, start, max_steps=max_steps, history=history)

    qs, paths = jax.vmap(run_path)(jax.random.split(path_key, num_paths), start)
    usable = (paths.elbo > -jnp.inf) & (paths.status != Status.NON_FINITE)
    draws, _ = jax.vmap(lambda key, q: sample_many(key, q, each))(jax.random.split(draw_key, num_paths), qs)
    mine = jnp.repeat(usable, each)
    draws = draws.reshape(num_paths * each, -1)
    draws = jnp.where(mine[:, None], draws, start[0])
    log_q = jax.vmap(lambda q: jax.vmap(q.log_prob)(draws))(qs)
    mixture = jax.nn.logsumexp(jnp.where(usable[:, None], log_q, -jnp.inf), axis=0) - jnp.log(jnp.sum(usable))
    log_p = jax.vmap(log_density)(draws)
    sound = mine & (log_p < jnp.inf)  # NaN too counts as no density
    log_ratios = jnp.where(sound, log_p - jnp.where(mine, mixture, 0), -jnp.inf)
    smoothed = psis(log_ratios)

    picked = pick(choice_key, smoothed.log_weights, draws.shape[0])
    best = jnp.argmax(jnp.where(usable, paths.elbo, -jnp.inf))
    info = MultiPathfinderInfo(
        status=jnp.where(jnp.any(usable), paths.status[best], Status.NON_FINITE).astype(jnp.int32),
        num_gradients=jnp.sum(paths.num_gradients) + 0.5 * draws.shape[0],
        best=best,
        draws=draws,
        log_weights=smoothed.log_weights,
        resampled=draws[picked],
        khat=smoothed.khat,
        log_evidence=log_mean_exp(log_ratios) - jnp.log(jnp.mean(usable.astype(draws.dtype))),
        paths=paths,
    )
    return jax.tree.map(lambda x: x[best], qs), info
