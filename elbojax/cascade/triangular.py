"""A proposal with skew and bends, fitted to weighted draws in closed form: each coordinate given those before it."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import linalg, thresholds
from elbojax import noise as noises
from elbojax.types import Array, Key, Scalar

FURTHEST = 4.0
"""Standard deviations beyond which a coordinate moves the means of others no further: a parabola fitted to draws within it says
nothing of what is outside."""
WIDEST = 3.0
"""The same, of their scales."""
STEEPEST = 0.7
"""Log-scale by which one standard deviation of a coordinate changes the scale of another, at most."""
STEPS = 4
"""Scoring steps of the scales; with more, of GARCH models, none of the errors fell."""
QUANTILES = (0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97)
"""Quantiles of the residuals, whose distances give tail, skew, centre and width."""
HALVINGS = 14
"""Halvings of the bracket of a quantile, 16 standard deviations wide, and of that of a tail."""
LIGHTEST, HEAVIEST = 0.0, 0.4
"""Bounds of the logarithm of a tail."""


class Triangular(NamedTuple):
    r"""A triangular map of independent Student t variates of four degrees of freedom.

    .. math:: x_k = f_k(x_{<k}) + e^{g_k(x_{<k})} \big(c_k + w_k \sinh(b_k \operatorname{arcsinh} \epsilon_k + a_k)\big), \qquad
              z = m + s \, x

    with f quadratic, g linear, and x in an order of its own.

    Attributes:
      loc: [D] m.
      scale: [D] s.
      order: [D] place of each coordinate of z in x.
      mean: [P, D] coefficients of f, zero for what comes later.
      log_scale: [1 + D, D] those of g.
      centre: [D] c.
      width: [D] w.
      skew: [D] a.
      tail: [D] b.

    References:
      Jones, Pewsey 2009 (sinh-arcsinh), https://doi.org/10.1093/biomet/asp053;
      Marzouk, Moselhy, Parno, Spantini 2016 (triangular maps), https://arxiv.org/abs/1602.05023
    """

    loc: Array
    scale: Array
    order: Array
    mean: Array
    log_scale: Array
    centre: Array
    width: Array
    skew: Array
    tail: Array

    def transport(self, noise: Array) -> Array:
        """[D], arcsinh of the variates, to an event [D]."""
        size = self.loc.size
        residuals = self.centre + self.width * jnp.sinh(self.tail * noise + self.skew)

        def coordinate(k, x):
            log_scale = jnp.concatenate([jnp.ones(1, x.dtype), _clip(x, WIDEST)]) @ self.log_scale[:, k]
            place = _features(x) @ self.mean[:, k] + jnp.exp(log_scale) * residuals[k]
            return jnp.where(jnp.arange(size) == k, place, x)

        x = jax.lax.fori_loop(0, size, coordinate, jnp.zeros_like(self.loc))
        return self.loc + self.scale * x[self.order]

    def log_prob(self, event: Array) -> Scalar:
        """By the way back, which no coordinate has to wait for."""
        x = jnp.zeros_like(event).at[self.order].set((event - self.loc) / self.scale)
        log_scale = jnp.concatenate([jnp.ones(1, x.dtype), _clip(x, WIDEST)]) @ self.log_scale
        residuals = (x - _features(x) @ self.mean) * jnp.exp(-log_scale)
        t = jnp.arcsinh((residuals - self.centre) / self.width)
        epsilon = jnp.sinh((t - self.skew) / self.tail)
        log_prob = math.log(3 / 8) - 2.5 * jnp.log1p(epsilon**2 / 4) + 0.5 * jnp.log1p(epsilon**2)
        return jnp.sum(log_prob - log_scale - jnp.log(self.scale * self.tail * self.width) - _log_cosh(t))


class Guarded(NamedTuple):
    """A `Triangular` map, and around it the Student t of heavy tails that a second look draws from.

    Attributes:
      front: the map.
      guard: a `StudentT`; of `GUARD` of the draws.
    """

    front: Triangular
    guard: Any

    def transport_and_log_prob(self, noise: Array) -> tuple[Array, Scalar]:
        """A row of `base` to an event [D], and its log-probability."""
        size = self.front.loc.size
        guarded = noise[size] > 0
        event = jnp.where(guarded, self.guard.transport(noise[size + 1 :]), self.front.transport(noise[:size]))
        return event, self.log_prob(event)

    def log_prob(self, event: Array) -> Scalar:
        """The log-density of the mixture of both."""
        share = thresholds.TRIANGULAR_GUARD
        front, guard = self.front.log_prob(event), self.guard.log_prob(event)
        return jnp.logaddexp(front + math.log(1 - share), guard + math.log(share))


def base(key: Key, num_draws: int, size: int, dtype: jnp.dtype) -> Array:
    """The noise of `Guarded`.

    Args:
      key: consumed.
      num_draws: S, static, a power of two.
      size: D.
      dtype: of the draws.

    Returns:
      [S, 2 D + 1 + SHARP_TAILS]: arcsinh of the variates, the choice of the guard where positive, and the guard's own.
    """
    own, guards = jax.random.split(key)
    num_guarded = round(thresholds.TRIANGULAR_GUARD * num_draws)
    # A net each, of as few dimensions as there can be; the first three quarters of a net are three nets.
    normal = noises.sobol(own, num_draws, size, dtype)
    guard = noises.sobol(guards, num_draws, size + thresholds.SHARP_TAILS, dtype)
    # Four degrees of freedom have a quantile function in closed form; of the lower tail, where nothing cancels.
    both = 4 * jax.scipy.special.ndtr(-jnp.abs(normal)) * jax.scipy.special.ndtr(jnp.abs(normal))
    root = jnp.sqrt(jnp.clip(both, jnp.finfo(normal.dtype).tiny, 1))
    epsilon = jnp.sign(normal) * 2 * jnp.sqrt(jnp.maximum(jnp.cos(jnp.arccos(root) / 3) / root - 1, 0))
    choice = jnp.where(jnp.arange(num_draws) < num_draws - num_guarded, -1, 1).astype(normal.dtype)[:, None]
    return jnp.concatenate([jnp.arcsinh(epsilon), choice, jnp.roll(guard, -num_guarded, axis=0)], axis=1)


def fit_triangular(draws: Array, weights: Array) -> Triangular:
    """The map under which weighted draws look most like independent variates: regressions, and quantiles of what they leave.

    Args:
      draws: [S, D].
      weights: [S], of sum one.

    Returns:
      A `Triangular`.
    """
    size = draws.shape[1]
    loc = weights @ draws
    scale = jnp.sqrt(weights @ (draws - loc) ** 2)
    standard = (draws - loc) / scale
    first = jnp.argsort(-jnp.abs(weights @ standard**3))  # the most skewed leads: the others follow its bend
    x = standard[:, first]

    features = jax.vmap(_features)(x)
    reach = _reach(size)
    gram, both = features.T @ (weights[:, None] * features), features.T @ (weights[:, None] * x)
    penalty = thresholds.TRIANGULAR_RIDGE * (np.arange(len(reach)) > 0)
    mean = _regressions(gram, both, reach, penalty)
    residuals = x - features @ mean

    linear = jnp.concatenate([jnp.ones((len(x), 1), x.dtype), _clip(x, WIDEST)], axis=1)
    near = np.arange(-1, size)
    stiff = 10 * thresholds.TRIANGULAR_RIDGE * (near >= 0)
    information = 2 * linear.T @ (weights[:, None] * linear)
    log_scale = jnp.zeros((size + 1, size), x.dtype).at[0].set(0.5 * jnp.log(weights @ residuals**2))

    def score(_, log_scale):
        excess = jnp.minimum(jnp.exp(-2 * linear @ log_scale) * residuals**2, 20.0) - 1
        slope = linear.T @ (weights[:, None] * excess) - stiff[:, None] * log_scale
        new = log_scale + _regressions(information, slope, near, stiff)
        return new.at[1:].set(_clip(new[1:], STEEPEST))

    log_scale = jax.lax.fori_loop(0, STEPS, score, log_scale)
    residuals = residuals * jnp.exp(-linear @ log_scale)

    lowest, low, lower, middle, upper, high, highest = _quantiles(residuals, weights)
    far, wide, near_by = (jnp.asarray(_arcsinh_quantile(p), x.dtype) for p in QUANTILES[-1:-4:-1])
    # For every skew alike, sinh(b far) / sinh(b near) is the ratio of the distances between outer and inner quantiles.
    ratio = (highest - lowest) / (upper - lower)

    def halve(_, bracket):
        below, above = bracket
        log_tail = 0.5 * (below + above)
        heavier = jnp.sinh(jnp.exp(log_tail) * far) / jnp.sinh(jnp.exp(log_tail) * near_by) < ratio
        return jnp.where(heavier, log_tail, below), jnp.where(heavier, above, log_tail)

    ends = jnp.full(size, LIGHTEST, x.dtype), jnp.full(size, HEAVIEST, x.dtype)
    tail = jnp.exp(jax.lax.fori_loop(0, HALVINGS, halve, ends)[0])
    tilt = ((high - middle) - (middle - low)) / ((high - low) * jnp.tanh(0.5 * tail * wide))
    skew = jnp.arctanh(_clip(tilt, 0.8))
    width = (upper - lower) / (2 * jnp.cosh(skew) * jnp.sinh(tail * near_by))
    centre = middle - width * jnp.sinh(skew)
    return Triangular(loc, scale, jnp.argsort(first), mean, log_scale, centre, width, skew, tail)


def _regressions(gram, both, reach, penalty):
    """Coefficients [P, D] of each coordinate on the features that reach no further than the one before it."""

    def of(k, column):
        mine = (reach < k).astype(gram.dtype)
        matrix = gram * mine[:, None] * mine + jnp.diag(1 - mine + penalty * mine)
        return linalg.solve_definite(linalg.cholesky(matrix), (mine * column)[:, None])[:, 0]

    reach, penalty = jnp.asarray(reach), jnp.asarray(penalty, gram.dtype)
    return jax.vmap(of, in_axes=(0, 1), out_axes=1)(jnp.arange(both.shape[1]), both)


def _features(x: Array) -> Array:
    """One, the coordinates, and their products."""
    x = _clip(x, FURTHEST)
    first, second = np.tril_indices(x.size)
    return jnp.concatenate([jnp.ones(1, x.dtype), x, x[first] * x[second] - (first == second)])


def _reach(size: int) -> np.ndarray:
    """The last coordinate that each of the features reads."""
    return np.concatenate([[-1], np.arange(size), np.tril_indices(size)[0]])


def _quantiles(residuals: Array, weights: Array) -> Array:
    """[Q, D] weighted quantiles, by halving: sorts of thousands of numbers are slow on CPU."""
    levels = jnp.asarray(QUANTILES, residuals.dtype)[:, None]

    def halve(_, bracket):
        below, above = bracket
        middle = 0.5 * (below + above)
        reached = jnp.stack([weights @ (residuals <= row) for row in middle])
        return jnp.where(reached < levels, middle, below), jnp.where(reached < levels, above, middle)

    start = jnp.full((len(QUANTILES), residuals.shape[1]), -8.0, residuals.dtype)
    below, above = jax.lax.fori_loop(0, HALVINGS, halve, (start, -start))
    return 0.5 * (below + above)


def _arcsinh_quantile(p: float) -> float:
    """The arcsinh of a quantile of the Student t of four degrees of freedom."""
    both = 4 * p * (1 - p)
    return math.asinh(
        math.copysign(2, p - 0.5) * math.sqrt(math.cos(math.acos(math.sqrt(both)) / 3) / math.sqrt(both) - 1)
    )


def _clip(x: Array, most: float) -> Array:
    return jnp.clip(x, -most, most)


def _log_cosh(x: Array) -> Array:
    return jnp.logaddexp(x, -x) - math.log(2)
