"""Gaussian score matching: the nearest Gaussian with the target's score at a draw, averaged over a batch."""

import jax
import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.families import FullRank, Gaussian
from elbojax.solvers.batch_and_match import ScoreInfo, match_scores
from elbojax.types import Array, Key, LogDensity


@explained
def gsm(
    key: Key,
    log_density: LogDensity,
    start: Array | Gaussian,
    *,
    batch_size: int | None = None,
    max_steps: int = 100,
    tolerance: float = 1e-3,
) -> tuple[FullRank, ScoreInfo]:
    r"""Fit a full-rank Gaussian by matching scores one draw at a time, without a learning rate.

    .. math:: q' = \arg\min_r \mathrm{KL}(q \| r) \quad\text{subject to}\quad \nabla \log r(z_s) = \nabla \log p(z_s)

    has a closed form for each draw; moments are averaged over the batch. On a target that is not Gaussian it
    ends in a cloud whose width falls with the batch, and so with status MAX_STEPS: prefer `batch_and_match`.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      start: a Gaussian, or a point [D] with a finite log-density from which `pathfinder` finds one.
      batch_size: B, static, even; the larger of 32 and 2 D + 4 by default.
      max_steps: static.
      tolerance: nats; done after two steps in a row that change q by less.

    Returns:
      A `FullRank`, and a `ScoreInfo`.

    Raises:
      TypeError: `start` is not floating point.
      ValueError: B is odd, or a shape does not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> fit = jax.jit(lambda key, start: gsm(key, lambda z: -2 * jnp.sum((z - 3) ** 2), start))
      >>> q, info = fit(jax.random.key(0), jnp.zeros(1))
      >>> round(q.loc.item(), 2), round(q.variance().item(), 2)
      (3.0, 0.25)

    References:
      Modi, Gower, Margossian, Yao, Blei, Saul 2023, https://arxiv.org/abs/2307.07849
    """
    return match_scores(_update, key, log_density, start, batch_size, max_steps, tolerance)


def _update(noise: Array, scores: Array, weights: Array, count: Array) -> tuple[Array, Array]:
    del count

    def match(noise, score):
        product = noise @ score
        rho = 0.5 * jnp.sqrt(1 + 4 * (score @ score + product**2)) - 0.5
        total = score + noise
        return (total + noise * (score @ total) / (1 + rho - product)) / (1 + rho)

    shifts = jax.vmap(match)(noise, scores)
    before, after = noise, shifts - noise
    identity = jnp.eye(noise.shape[1], dtype=noise.dtype)
    mean = weights @ shifts
    covariance = identity + (weights * before.T) @ before - (weights * after.T) @ after
    eigenvalues, axes = jnp.linalg.eigh(covariance)
    # An average of covariances is one; rounding, or draws left out, may say otherwise.
    return mean, axes * jnp.sqrt(jnp.maximum(eigenvalues, 1e-3))
