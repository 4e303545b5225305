r"""Whether a Gaussian `q` is where the gradient of the bound vanishes, in units of its own means and sds.

With z = mu + L e and r the gradient of log p - log q at z, the gradients of the bound in mu and L are the averages of r
and of r e'. In the noise's coordinates u = L' r the curvature of the bound is A = I - E[u e'], and one Newton step

.. math:: \mu \leftarrow \mu + L A^{-1} \mathrm E[u], \qquad \Sigma \leftarrow L A^{-1} L^\top

says by how many sds each mean is off and by which factor each sd. It is zero at the optimum of the family only. Of mean-field
sds it takes the diagonal of A, of a low-rank covariance the one of its rank that is best for that curvature. Draws come
in antithetic pairs, each with a minibatch of its own; as u is regressed on e, what is linear in it carries no error. An
eigenvalue of A that is lost in its error leaves the step along its vector uncertain, and that counts as an error too.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import noise as noises
from elbojax import thresholds, xla
from elbojax.families import FullRank, LowRank, MeanField, full_rank, low_rank, mean_field
from elbojax.minibatch.halving import step_data
from elbojax.minibatch.low_rank import best
from elbojax.minibatch.standardised import Model
from elbojax.types import Key, PyTree

PASSES = ((1, 1), (1, 4), (1, 16), (4, 16))
"""Factors of the pairs, and minibatches to a pair, that are tried in turn while the answer is too noisy."""


class Step(NamedTuple):
    """The Newton step of the bound at a `q`.

    Attributes:
      shift: [D] of the means, in sds.
      stretch: [D] of the log-sds.
      shift_se: [D] standard errors.
      stretch_se: [D] likewise.
      q: after the step; None of a low-rank one of more than `REGRESSED` parameters, whose best step is not known.
      cost: in gradients of a minibatch.
    """

    shift: np.ndarray
    stretch: np.ndarray
    shift_se: np.ndarray
    stretch_se: np.ndarray
    q: Any
    cost: int

    @property
    def error(self) -> float:
        """The largest standard error."""
        return float(np.max([self.shift_se, self.stretch_se]))

    @property
    def size(self) -> float:
        """The largest of means and log-sds."""
        return float(np.max(np.abs([self.shift, self.stretch])))

    def exceeds(self, allowed: float, errors: float) -> bool:
        """Whether a mean or a log-sd moves by more than is allowed and so many standard errors."""
        means = np.abs(self.shift) > allowed + errors * self.shift_se
        sds = np.abs(self.stretch) > allowed + errors * self.stretch_se
        return not np.isfinite(self.size + self.error) or bool(np.any(means | sds))


def newton_step(
    key: Key, q: Any, data: PyTree, shared: PyTree, model: Model, batch_size: int, allowed: float, wanted: float
) -> Step:
    """The Newton step of the bound at a Gaussian, with its standard errors.

    Args:
      key: consumed.
      q: mean-field, full-rank or low-rank, in standardised coordinates.
      data: leaves [N, ...].
      shared: units and expansion.
      model: static.
      batch_size: B, static.
      allowed: a step that is larger than this and four standard errors needs no more draws.
      wanted: standard error at which no more draws are taken; some hundreds of gradients at first, 16,000 in all.

    Returns:
      A `Step`.
    """
    size = q.noise_size
    regressed = size <= thresholds.BALANCE_REGRESSED or isinstance(q, FullRank)
    pairs = max(thresholds.BALANCE_PAIRS, 2 * size) if regressed else thresholds.BALANCE_MANY_PAIRS
    most = max(model.num_data // batch_size, 1)
    cost, last = 0, None
    for i, (more, passes) in enumerate(PASSES):
        plan = (more * pairs, most if passes > 4 and most <= thresholds.BALANCE_EPOCH else min(passes, most))
        if plan == last:
            continue
        last = plan
        e, even, odd = _residuals(jax.random.fold_in(key, i), q, data, shared, plan[1], model, batch_size, plan[0])
        cost += 2 * 2 * plan[0] * plan[1]
        step = _step(q, np.asarray(e, float), np.asarray(even, float), np.asarray(odd, float), cost)
        if step.error <= wanted or step.exceeds(allowed, 4):
            break
    return step


@functools.partial(xla.jit, static_argnames=("model", "batch_size", "pairs"))
def _residuals(key, q, data, shared, passes, model, batch_size, pairs):
    """Noise [K, size], and the even and odd parts in it of the residual gradient in its coordinates.

    Of a low-rank `q`, whose noise has more coordinates than there are parameters, in those of w: [K, D].
    """
    key_noise, key_rows = jax.random.split(key)
    noise = noises.iid(key_noise, pairs, q.noise_size, q.dtype)

    def slope(e, given):
        if isinstance(q, LowRank):
            return jax.grad(lambda w: model.standardised(w, given) - q.log_prob(w))(q.transport(e))
        return jax.grad(lambda e: model.standardised(q.transport(e), given) + 0.5 * jnp.sum(e**2))(e)

    def pair(args):
        k, e = args

        def one(i, sums):
            given = step_data(key_rows, k * passes + i, data, shared, batch_size)
            return jax.tree.map(jnp.add, sums, tuple(slope(sign * e, given) for sign in (1, -1)))

        zeros = jnp.zeros_like(q.loc)
        ahead, behind = jax.lax.fori_loop(0, passes, one, (zeros, zeros))
        return 0.5 * (ahead + behind) / passes, 0.5 * (ahead - behind) / passes

    even, odd = jax.lax.map(pair, (jnp.arange(pairs), noise))
    return noise, even, odd


def _step(q: Any, e: np.ndarray, even: np.ndarray, odd: np.ndarray, cost: int) -> Step:
    if not (np.isfinite(even).all() and np.isfinite(odd).all()):
        nothing = np.full(np.shape(q.loc), np.nan)
        return Step(nothing, nothing, nothing, nothing, q, cost)
    if isinstance(q, FullRank):
        return _full_rank(q, e, even, odd, cost)
    if isinstance(q, MeanField):
        return _mean_field(q, e, even, odd, cost)
    return _low_rank(q, e, even, odd, cost)


def _regressed(e: np.ndarray, odd: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The matrix that takes e to the odd part, its residuals, and how many draws these are worth."""
    matrix = np.linalg.lstsq(e, odd, rcond=None)[0].T
    return matrix, odd - e @ matrix.T, max(len(e) - e.shape[1], 1)


class _Inverse(NamedTuple):
    """The inverse of the curvature A = V diag(values) V'."""

    vectors: np.ndarray  # [D, D]
    values: np.ndarray  # [D], no smaller than their errors, which would make the inverse any number
    least: np.ndarray  # [D], what they may be as well

    @property
    def matrix(self) -> np.ndarray:
        return (self.vectors / self.values) @ self.vectors.T

    def moved(self, even: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The Newton step [I] of the coordinates `rows` [I, D], and its standard errors.

        Where an eigenvalue is lost in its error, the step along its vector may be as large as the least makes it.
        """
        each = even @ self.matrix @ rows.T
        along = even @ self.vectors
        most = np.abs(along.mean(axis=0)) + along.std(axis=0) / np.sqrt(len(along))
        beyond = np.abs(rows @ self.vectors) * most * (1 / self.least - 1 / self.values)
        return each.mean(axis=0), np.hypot(each.std(axis=0) / np.sqrt(len(each)), np.linalg.norm(beyond, axis=1))


def _inverse(matrix: np.ndarray, rest: np.ndarray, worth: int) -> _Inverse:
    """The inverse of the curvature I - M. Errors are those along each vector: minibatches miss a flat direction by little."""
    curvature = np.eye(len(matrix)) - 0.5 * (matrix + matrix.T)
    values, vectors = np.linalg.eigh(curvature)
    error = np.sqrt(np.mean((rest @ vectors) ** 2, axis=0) * len(matrix) / worth)
    floor = np.maximum(thresholds.BALANCE_NARROWEST, np.minimum(2 * error, 0.5))
    used = np.clip(values, floor, thresholds.BALANCE_WIDEST)
    least = np.where(values < floor, np.clip(values - error, thresholds.BALANCE_NARROWEST, used), used)
    return _Inverse(vectors, used, least)


def _full_rank(q, e, even, odd, cost):
    loc, root = np.asarray(q.loc, float), np.asarray(q.scale_tril, float)
    matrix, rest, worth = _regressed(e, odd)
    inverse = _inverse(matrix, rest, worth)
    sds = np.linalg.norm(root, axis=1)
    rows = root / sds[:, None]
    shift, shift_se = inverse.moved(even, rows)
    ratio, most = (np.sum((rows @ inverse.vectors) ** 2 / v, axis=1) for v in (inverse.values, inverse.least))
    products = (rest @ rows.T) * (e @ rows.T)
    stepped = root @ (inverse.vectors / np.sqrt(inverse.values)) @ inverse.vectors.T
    upper = np.linalg.qr(stepped.T, mode="r")
    lower = (upper * np.sign(np.diagonal(upper))[:, None]).T
    dtype = q.loc.dtype
    after = full_rank(jnp.asarray(loc + sds * shift, dtype), jnp.asarray(lower, dtype))
    stretch_se = np.hypot(0.5 * products.std(axis=0) / np.sqrt(worth), 0.5 * np.log(most / ratio))
    return Step(shift, 0.5 * np.log(ratio), shift_se, stretch_se, after, cost)


def _mean_field(q, e, even, odd, cost):
    loc, sds = np.asarray(q.loc, float), np.exp(np.asarray(q.log_scale, float))
    if len(loc) <= thresholds.BALANCE_REGRESSED:
        matrix, rest, worth = _regressed(e, odd)
        diagonal = np.diagonal(matrix)
        shift, shift_se = _inverse(matrix, rest, worth).moved(even, np.eye(len(loc)))
    else:
        diagonal = np.mean(odd * e, axis=0) / np.mean(e**2, axis=0)
        eigenvalues = np.clip(1 - diagonal, thresholds.BALANCE_NARROWEST, thresholds.BALANCE_WIDEST)
        rest, worth, moved = odd - diagonal * e, len(e), even / eigenvalues
        shift, shift_se = moved.mean(axis=0), moved.std(axis=0) / np.sqrt(len(e))
    stretch = -0.5 * np.log(np.clip(1 - diagonal, thresholds.BALANCE_NARROWEST, thresholds.BALANCE_WIDEST))
    stretch_se = 0.5 * (rest * e).std(axis=0) / np.sqrt(worth)
    dtype = q.loc.dtype
    after = mean_field(jnp.asarray(loc + sds * shift, dtype), jnp.asarray(sds * np.exp(stretch), dtype))
    return Step(shift, stretch, shift_se, stretch_se, after, cost)


def _low_rank(q, e, even, odd, cost):
    """The covariance of the family that is best for the curvature at hand; above `REGRESSED` see `_low_rank_slope`."""
    loc, factor, scale = (np.asarray(x, float) for x in (q.loc, q.factor, jnp.exp(q.log_scale)))
    size = len(loc)
    if size > thresholds.BALANCE_REGRESSED:
        return _low_rank_slope(loc, factor, scale, e, even, odd, cost)
    sds = np.sqrt(scale**2 + np.sum(factor**2, axis=1))
    factor, scale = factor / sds[:, None], scale / sds
    root = np.linalg.cholesky(factor @ factor.T + np.diag(scale**2))
    white = np.linalg.solve(root, (scale * e[:, :size] + e[:, size:] @ factor.T).T).T
    matrix, rest, worth = _regressed(white, (sds * odd) @ root)
    inverse = _inverse(matrix, rest, worth)
    shift, shift_se = inverse.moved((sds * even) @ root, root)

    def precision(curvature):
        half = np.linalg.solve(root.T, curvature)
        return np.linalg.solve(root.T, half.T)

    curvature, least = ((inverse.vectors * v) @ inverse.vectors.T for v in (inverse.values, inverse.least))
    new_factor, new_scale = best(precision(curvature), factor, scale)
    new = np.sqrt(new_scale**2 + np.sum(new_factor**2, axis=1))

    def change(curvature):
        f, s = best(precision(curvature), new_factor, new_scale, again=False)
        return np.log(np.sqrt(s**2 + np.sum(f**2, axis=1)) / new)

    rng, changes = np.random.default_rng(0), []
    for _ in range(thresholds.BALANCE_REPLICATES):
        noise = np.linalg.lstsq(white, rng.choice([-1.0, 1.0], (len(rest), 1)) * rest, rcond=None)[0]
        values, vectors = np.linalg.eigh(curvature - 0.5 * (noise + noise.T))
        changes.append(change((vectors * np.clip(values, 0.5 * inverse.values.min(), None)) @ vectors.T))
    stretch_se = np.sqrt(np.mean(np.square(changes), axis=0) * len(e) / worth)
    stretch_se = np.hypot(stretch_se, change(least) if np.any(inverse.least < inverse.values) else 0)
    dtype = q.loc.dtype
    after = low_rank(*(jnp.asarray(x, dtype) for x in (loc + sds * shift, sds[:, None] * new_factor, sds * new_scale)))
    return Step(shift, np.log(new), shift_se, stretch_se, after, cost)


def _low_rank_slope(loc, factor, scale, e, even, odd, cost):
    """The gradient in the metric of the covariance; what lies that way is not known, and no step is taken."""
    size = len(loc)
    variance = scale**2 + np.sum(factor**2, axis=1)
    sds = np.sqrt(variance)
    apply = lambda r: scale**2 * r + (r @ factor) @ factor.T  # noqa: E731
    # In the diagonal: u_i e_i. In the factor: (Sigma r)_i (F eta)_i.
    own_each = odd * e[:, :size] * scale**3 / variance
    shared_each = apply(odd) * (e[:, size:] @ factor.T) / variance
    own, shared = own_each.mean(axis=0), shared_each.mean(axis=0)
    total = np.stack([own, shared, own + shared])
    which = np.argmax(np.abs(total), axis=0)
    stretch = 0.5 * np.take_along_axis(total, which[None], axis=0)[0]
    stretch_se = 0.5 * np.sqrt(own_each.var(axis=0) + shared_each.var(axis=0)) / np.sqrt(len(e))
    moved = apply(even) / sds
    return Step(moved.mean(axis=0), stretch, moved.std(axis=0) / np.sqrt(len(e)), stretch_se, None, cost)
