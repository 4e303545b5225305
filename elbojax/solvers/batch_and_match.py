r"""Batch and match: a full-rank Gaussian whose scores agree with those of the target."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax import linalg
from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import FullRank, Gaussian
from elbojax.solvers.pathfinder import pathfinder
from elbojax.types import Array, Key, LogDensity, Scalar, Status


class ScoreInfo(NamedTuple):
    """How a score-based fit ended.

    Attributes:
      status: `Status`: CONVERGED, MAX_STEPS, NON_FINITE where the last batch had no draw with a finite score.
      num_gradients: of the log-density.
      num_steps: batches.
      change: KL divergence from the last q to the one before it, nats.
      fisher: Fisher divergence over D before the last step, on its batch, in the metric of q; zero at q = p.
    """

    status: Array
    num_gradients: Array
    num_steps: Array
    change: Scalar
    fisher: Scalar


class _State(NamedTuple):
    loc: Array
    scale_tril: Array
    change: Scalar
    fisher: Scalar
    batches: Array
    settled: Array
    usable: Array


@explained
def batch_and_match(
    key: Key,
    log_density: LogDensity,
    start: Array | Gaussian,
    *,
    batch_size: int | None = None,
    max_steps: int = 100,
    tolerance: float = 1e-3,
) -> tuple[FullRank, ScoreInfo]:
    r"""Fit a full-rank Gaussian by proximal steps on the score-based divergence, without a learning rate.

    .. math:: \min_q \mathrm E_{q_t}\|\nabla \log q - \nabla \log p\|^2_{\Sigma}
              + \tfrac2{\lambda_t} \mathrm{KL}(q_t \| q), \qquad \lambda_t = D B / t

    has a closed form in mean and covariance of the batch, :math:`\bar z, C`, and of its scores, :math:`\bar g, \Gamma`:

    .. math:: \Sigma' U \Sigma' + \Sigma' = V, \quad U = \lambda \Gamma + \tfrac\lambda{1+\lambda} \bar g \bar g^\top,
              \quad V = \Sigma + \lambda C + \tfrac\lambda{1+\lambda} (\mu - \bar z)(\mu - \bar z)^\top,
              \quad \mu' = \tfrac1{1+\lambda} \mu + \tfrac\lambda{1+\lambda} (\Sigma' \bar g + \bar z) .

    Few steps on a Gaussian target. It does not minimise a KL divergence: on skewed or heavy-tailed targets its
    fixed point differs from that of the ELBO. Draws without a finite score are left out; where none has one, q is
    halved.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      start: a Gaussian, or a point [D] with a finite log-density from which `pathfinder` finds one.
      batch_size: B, static, even; the larger of 32 and 2 D + 4 by default.
      max_steps: static.
      tolerance: nats; done after two steps in a row that change q by less.

    Returns:
      A `FullRank`, and a `ScoreInfo`. O(D^2 (B + D)) a step.

    Raises:
      TypeError: `start` is not floating point.
      ValueError: B is odd, or a shape does not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> log_density = lambda z: -0.5 * (z[0] - 3) ** 2 - 2 * (z[1] + z[0]) ** 2
      >>> fit = jax.jit(lambda key, start: batch_and_match(key, log_density, start))
      >>> q, info = fit(jax.random.key(0), jnp.zeros(2))
      >>> [round(x, 2) for x in q.loc.tolist()]
      [3.0, -3.0]

    References:
      Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei, Saul 2024, https://arxiv.org/abs/2402.14758
    """

    def update(noise: Array, scores: Array, weights: Array, count: Array) -> tuple[Array, Array]:
        # In the coordinates that whiten q: its mean is 0 and its covariance I.
        size = noise.shape[1]
        rate = (size * noise.shape[0] / count).astype(noise.dtype)
        share = rate / (1 + rate)
        mean, mean_score = weights @ noise, weights @ scores
        deviation, score_deviation = noise - mean, scores - mean_score
        covariance = (weights * deviation.T) @ deviation
        score_covariance = (weights * score_deviation.T) @ score_deviation
        u = rate * score_covariance + share * jnp.outer(mean_score, mean_score)
        v = jnp.eye(size, dtype=noise.dtype) + rate * covariance + share * jnp.outer(mean, mean)
        # X U X + X = V by symmetric factors: V = R R^T, R^T U R = W k W^T, X = R W 2 / (1 + sqrt(1 + 4 k)) W^T R^T.
        root = linalg.cholesky(v)
        eigenvalues, axes = jnp.linalg.eigh(root.T @ u @ root)
        shrink = 2 / (1 + jnp.sqrt(1 + 4 * jnp.maximum(eigenvalues, 0)))
        factor = root @ axes * jnp.sqrt(shrink)
        return share * (factor @ (factor.T @ mean_score) + mean), factor

    return match_scores(update, key, log_density, start, batch_size, max_steps, tolerance)


def match_scores(
    update: Callable[[Array, Array, Array, Array], tuple[Array, Array]],
    key: Key,
    log_density: LogDensity,
    start: Array | Gaussian,
    batch_size: int | None,
    max_steps: int,
    tolerance: float,
) -> tuple[FullRank, ScoreInfo]:
    """The loop around an update of a Gaussian from a batch of scores.

    `update(noise [B, D], scores [B, D], weights [B], count) -> (shift [D], factor [D, D])` works in the coordinates
    that whiten q; draws without a finite score come with weight zero.
    """
    cost: Array | float = 0.0
    if not isinstance(start, Gaussian):
        start, found = pathfinder(jax.random.fold_in(key, 0), log_density, start)
        cost = found.num_gradients
    loc = start.loc
    scale_tril = start.scale_tril if isinstance(start, FullRank) else linalg.cholesky(start.covariance())
    size, dtype = loc.size, loc.dtype
    batch_size = max(32, 2 * size + 4) if batch_size is None else batch_size
    value_and_grad = jax.value_and_grad(log_density)

    def body(state):
        loc, scale_tril, count = state.loc, state.scale_tril, state.batches + 1
        noise = noises.whitened(jax.random.fold_in(key, count), batch_size, size, dtype)
        values, gradients = jax.vmap(value_and_grad)(loc + noise @ scale_tril.T)
        scores = gradients @ scale_tril
        # Where the density is zero the gradient may well be zero too.
        usable = jnp.isfinite(values) & jnp.all(jnp.isfinite(scores), axis=1)
        weights = usable / jnp.maximum(jnp.sum(usable), 1).astype(dtype)
        scores = jnp.where(usable[:, None], scores, 0)
        shift, factor = update(noise, scores, weights, count)
        sound = jnp.any(usable) & jnp.all(jnp.isfinite(factor)) & jnp.all(jnp.isfinite(shift))
        shift = jnp.where(sound, shift, 0)
        factor = jnp.where(sound, factor, 0.5 * jnp.eye(size, dtype=dtype))
        upper = jnp.linalg.qr(factor.T, mode="r")
        lower = (upper * jnp.sign(jnp.diagonal(upper))[:, None]).T
        log_det = jnp.sum(jnp.log(jnp.diagonal(lower)))
        change = 0.5 * (jnp.sum(lower**2) - size + shift @ shift) - log_det
        settled = jnp.where(sound & (change < tolerance), state.settled + 1, 0)
        fisher = weights @ jnp.sum((scores + noise) ** 2, axis=1) / size
        return _State(loc + scale_tril @ shift, scale_tril @ lower, change, fisher, count, settled, sound)

    def unfinished(state):
        return (state.settled < 2) & (state.batches < max_steps)

    zero = jnp.zeros((), jnp.int32)
    unknown = jnp.full((), jnp.nan, dtype)
    end = jax.lax.while_loop(unfinished, body, _State(loc, scale_tril, unknown, unknown, zero, zero, jnp.array(False)))
    status = jnp.where(end.settled >= 2, Status.CONVERGED, Status.MAX_STEPS)
    status = jnp.where(end.usable, status, Status.NON_FINITE).astype(jnp.int32)
    q = FullRank(end.loc, jnp.log(jnp.diagonal(end.scale_tril)), jnp.tril(end.scale_tril, -1))
    return q, ScoreInfo(status, end.batches * batch_size + cost, end.batches, end.change, end.fisher)
