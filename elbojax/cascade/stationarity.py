r"""Whether a Gaussian `q` is where the gradient of the bound vanishes, in units of its own means and sds.

With z = mu + L e and r the gradient of log p - log q at z, the gradients of the bound in mu and L are the averages of r
and of r e'. In the noise's coordinates u = L' r the curvature of the bound is A = I - E[u e'], and one Newton step

.. math:: \mu \leftarrow \mu + L A^{-1} \mathrm E[u], \qquad \Sigma \leftarrow L A^{-1} L^\top

says by how many sds each mean is off and by which factor each sd. It is zero at the optimum of the family only. Draws come in
antithetic pairs, each with a minibatch of its own; as u is regressed on e, what is linear in it carries no error.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import noise as noises
from elbojax import xla
from elbojax.cascade.standardised import Model
from elbojax.families import FullRank, LowRank, MeanField, full_rank, mean_field
from elbojax.loops.heats import step_data
from elbojax.types import Key, PyTree

PAIRS = 32
"""Of antithetic draws, to begin with, and twice the size of the noise where that is more."""
REGRESSED = 128
"""Up to so many parameters u is regressed on all of e, above on its own coordinate."""
MANY_PAIRS = 256
"""Of draws above that."""
PASSES = ((1, 1), (1, 4), (1, 16), (4, 16))
"""Factors of the pairs, and minibatches to a pair, that are tried in turn while the answer is too noisy."""
EPOCH = 64
"""Up to so many minibatches to an epoch a pair of draws is given them all, rather than 16."""
NARROWEST, WIDEST = 1e-4, 1e4
"""Eigenvalues of A that a Newton step heeds: an sd changes by a factor of 100 at most."""


class Step(NamedTuple):
    """The Newton step of the bound at a `q`.

    Attributes:
      shift: [D] of the means, in sds.
      stretch: [D] of the log-sds.
      shift_se: [D] standard errors.
      stretch_se: [D] likewise.
      q: after the step; None of a low-rank one, whose best step is not known.
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
    pairs = max(PAIRS, 2 * size) if size <= REGRESSED or isinstance(q, FullRank) else MANY_PAIRS
    most = max(model.num_data // batch_size, 1)
    cost, last = 0, None
    for i, (more, passes) in enumerate(PASSES):
        plan = (more * pairs, most if passes > 4 and most <= EPOCH else min(passes, most))
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
    """Noise [K, size], and the even and odd parts in it of the residual gradient in its coordinates."""
    key_noise, key_rows = jax.random.split(key)
    noise = noises.iid(key_noise, pairs, q.noise_size, q.dtype)

    def slope(e, given):
        def along(e):
            w = q.transport(e)
            fixed = jax.lax.stop_gradient(w)
            log_q = q.log_prob(w) if isinstance(q, LowRank) else -0.5 * jnp.sum(e**2)
            return model.standardised(w, given) - log_q, fixed

        return jax.grad(along, has_aux=True)(e)[0]

    def pair(args):
        k, e = args

        def one(i, sums):
            given = step_data(key_rows, k * passes + i, data, shared, batch_size)
            return jax.tree.map(jnp.add, sums, tuple(slope(sign * e, given) for sign in (1, -1)))

        ahead, behind = jax.lax.fori_loop(0, passes, one, (jnp.zeros_like(e), jnp.zeros_like(e)))
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


def _inverse(matrix: np.ndarray, rest: np.ndarray, worth: int) -> np.ndarray:
    """Of the curvature I - M, its eigenvalues no smaller than their error, which would make them any number."""
    curvature = np.eye(len(matrix)) - 0.5 * (matrix + matrix.T)
    values, vectors = np.linalg.eigh(curvature)
    error = np.sqrt(np.mean(rest**2) * len(matrix) / worth)
    return (vectors / np.clip(values, max(NARROWEST, min(2 * error, 0.5)), WIDEST)) @ vectors.T


def _full_rank(q, e, even, odd, cost):
    loc, root = np.asarray(q.loc, float), np.asarray(q.scale_tril, float)
    matrix, rest, worth = _regressed(e, odd)
    inverse = _inverse(matrix, rest, worth)
    sds = np.linalg.norm(root, axis=1)
    rows = root / sds[:, None]
    moved = even @ inverse @ rows.T  # [K, D] in sds
    ratio = np.einsum("id,de,ie->i", rows, inverse, rows)
    products = (rest @ rows.T) * (e @ rows.T)
    values, vectors = np.linalg.eigh(inverse)
    stepped = root @ (vectors * np.sqrt(values)) @ vectors.T
    upper = np.linalg.qr(stepped.T, mode="r")
    lower = (upper * np.sign(np.diagonal(upper))[:, None]).T
    dtype = q.loc.dtype
    after = full_rank(jnp.asarray(loc + sds * moved.mean(axis=0), dtype), jnp.asarray(lower, dtype))
    shift_se = moved.std(axis=0) / np.sqrt(len(e))
    return Step(
        moved.mean(axis=0), 0.5 * np.log(ratio), shift_se, 0.5 * products.std(axis=0) / np.sqrt(worth), after, cost
    )


def _mean_field(q, e, even, odd, cost):
    loc, sds = np.asarray(q.loc, float), np.exp(np.asarray(q.log_scale, float))
    if len(loc) <= REGRESSED:
        matrix, rest, worth = _regressed(e, odd)
        diagonal, moved = np.diagonal(matrix), even @ _inverse(matrix, rest, worth)
    else:
        diagonal = np.mean(odd * e, axis=0) / np.mean(e**2, axis=0)
        rest, worth, moved = odd - diagonal * e, len(e), even / np.clip(1 - diagonal, NARROWEST, WIDEST)
    stretch = -0.5 * np.log(np.clip(1 - diagonal, NARROWEST, WIDEST))
    stretch_se = 0.5 * (rest * e).std(axis=0) / np.sqrt(worth)
    dtype = q.loc.dtype
    shift = moved.mean(axis=0)
    after = mean_field(jnp.asarray(loc + sds * shift, dtype), jnp.asarray(sds * np.exp(stretch), dtype))
    return Step(shift, stretch, moved.std(axis=0) / np.sqrt(len(e)), stretch_se, after, cost)


def _low_rank(q, e, even, odd, cost):
    """Of a low-rank covariance no Newton step is at hand: the gradient in the metric of the covariance, and no step."""
    loc, factor, scale = (np.asarray(x, float) for x in (q.loc, q.factor, jnp.exp(q.log_scale)))
    size = len(loc)
    root = np.concatenate([np.diag(scale), factor], axis=1) if size <= REGRESSED else None
    apply = (lambda u: u @ root.T) if root is not None else (lambda u: scale * u[:, :size] + u[:, size:] @ factor.T)
    variance = scale**2 + np.sum(factor**2, axis=1)
    sds = np.sqrt(variance)
    rest, worth = odd, len(e)
    if e.shape[1] <= REGRESSED:
        matrix, rest, worth = _regressed(e, odd)
        linear = matrix
    else:
        linear = odd.T @ e / len(e)
    # In the diagonal: u_i e_i. In the factor: (Sigma r)_i (F eta)_i.
    own = np.diagonal(linear)[:size] * scale**2 / variance
    spread = (apply(linear.T).T)[:, size:]  # [D, R] Sigma E[r eta']
    shared = np.sum(spread * factor, axis=1) / variance
    own_each = rest[:, :size] * e[:, :size] * scale**2 / variance
    shared_each = apply(rest) * (e[:, size:] @ factor.T) / variance
    total = np.stack([own, shared, own + shared])
    which = np.argmax(np.abs(total), axis=0)
    stretch = 0.5 * np.take_along_axis(total, which[None], axis=0)[0]
    stretch_se = 0.5 * np.sqrt(own_each.var(axis=0) + shared_each.var(axis=0)) / np.sqrt(worth)
    moved = apply(even) / sds
    shift = moved.mean(axis=0)
    return Step(shift, stretch, moved.std(axis=0) / np.sqrt(len(e)), stretch_se, None, cost)
