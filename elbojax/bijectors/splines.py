"""Monotone rational-quadratic splines: flexible maps of one coordinate whose inverse is in closed form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax.numerics import softplus
from elbojax.types import Array

NARROWEST = 1e-3
"""Share of the interval that a bin has at least."""
FLATTEST = 1e-3
"""Slope at a knot, at least."""


class Spline(NamedTuple):
    """Knots of d splines on [-bound, bound] with K bins; outside they are the identity.

    Attributes:
      x: [d, K + 1] where the bins begin and end, increasing.
      y: [d, K + 1] their images, increasing.
      slopes: [d, K + 1] derivatives there, positive; one at both ends.
    """

    x: Array
    y: Array
    slopes: Array


def spline(raw: Array, bound: float) -> Spline:
    """Splines from numbers without constraints; zeros give the identity.

    Args:
      raw: [d, 3 K - 1]: K widths and K heights before a softmax, K - 1 slopes before a softplus.
      bound: static.

    Returns:
      A `Spline`.

    Raises:
      ValueError: the size of `raw` is not 3 K - 1.

    Example:
      >>> import jax.numpy as jnp
      >>> spline(jnp.zeros((1, 5)), 2.0).x.tolist()
      [[-2.0, 0.0, 2.0]]
    """
    num_bins, left = divmod(raw.shape[-1] + 1, 3)
    if left or num_bins < 1:
        raise ValueError(f"a spline of K bins takes 3 K - 1 numbers, got {raw.shape[-1]}")
    widths, heights, slopes = raw[:, :num_bins], raw[:, num_bins : 2 * num_bins], raw[:, 2 * num_bins :]
    # softplus(0 + shift) is the slope one, less the least.
    shift = jnp.log(jnp.expm1(jnp.asarray(1 - FLATTEST, raw.dtype)))
    ones = jnp.ones_like(raw[:, :1])
    inner = FLATTEST + softplus(slopes + shift)
    return Spline(_knots(widths, bound), _knots(heights, bound), jnp.concatenate([ones, inner, ones], axis=1))


def _knots(raw: Array, bound: float) -> Array:
    num_bins = raw.shape[1]
    shares = NARROWEST + (1 - NARROWEST * num_bins) * jax.nn.softmax(raw, axis=1)
    inner = bound * (2 * jnp.cumsum(shares, axis=1)[:, :-1] - 1)
    end = jnp.full_like(raw[:, :1], bound)
    return jnp.concatenate([-end, inner, end], axis=1)


class _Bin(NamedTuple):
    """The bin in which each number lies: its corner, its size, its slopes; all [d]."""

    x: Array
    y: Array
    width: Array
    height: Array
    first: Array
    last: Array


def _pick(spline: Spline, knots: Array, place: Array) -> _Bin:
    # By a sum over all bins: a gather's gradient is a scatter, slow on small arrays.
    chosen = (place[:, None] >= knots[:, :-1]) & (place[:, None] < knots[:, 1:])
    pick = lambda values: jnp.sum(jnp.where(chosen, values, 0), axis=1)  # noqa: E731
    x, y, slopes = spline
    sizes = pick(jnp.diff(x, axis=1)), pick(jnp.diff(y, axis=1))
    return _Bin(pick(x[:, :-1]), pick(y[:, :-1]), *sizes, pick(slopes[:, :-1]), pick(slopes[:, 1:]))


def _log_slope(b: _Bin, share: Array) -> Array:
    steep, rest = b.height / b.width, share * (1 - share)
    top = b.last * share**2 + 2 * steep * rest + b.first * (1 - share) ** 2
    return 2 * jnp.log(steep) + jnp.log(top) - 2 * jnp.log(steep + (b.first + b.last - 2 * steep) * rest)


def spline_and_log_det(spline: Spline, x: Array) -> tuple[Array, Array]:
    r"""Forward, with the logarithm of each derivative.

    .. math:: y = y_k + h_k \frac{s \theta^2 + d_k \theta (1 - \theta)}{s + (d_k + d_{k+1} - 2 s) \theta (1 - \theta)},
              \qquad \theta = \frac{x - x_k}{w_k}, \quad s = \frac{h_k}{w_k}

    Args:
      spline: d of them.
      x: [d].

    Returns:
      y and log dy/dx, both [d].

    Example:
      >>> import jax.numpy as jnp
      >>> y, log_det = spline_and_log_det(spline(jnp.zeros((2, 5)), 2.0), jnp.array([0.5, 7.0]))
      >>> [round(v, 4) for v in y.tolist()]
      [0.5, 7.0]

    References:
      Durkan, Bekasov, Murray, Papamakarios 2019, https://arxiv.org/abs/1906.04032
    """
    inside, middle = _within(spline.x, x)
    b = _pick(spline, spline.x, middle)
    share = (middle - b.x) / b.width
    steep, rest = b.height / b.width, share * (1 - share)
    y = b.y + b.height * (steep * share**2 + b.first * rest) / (steep + (b.first + b.last - 2 * steep) * rest)
    return jnp.where(inside, y, x), jnp.where(inside, _log_slope(b, share), 0)


def spline_inverse_and_log_det(spline: Spline, y: Array) -> tuple[Array, Array]:
    """Backward: the root of a quadratic.

    Args:
      spline: d of them.
      y: [d].

    Returns:
      x and log dy/dx there, both [d].

    Example:
      >>> import jax.numpy as jnp
      >>> bent = spline(jnp.array([[1.0, 0.0, 0.0, 0.5, -1.0]]), 2.0)
      >>> y, _ = spline_and_log_det(bent, jnp.array([0.5]))
      >>> round(float(spline_inverse_and_log_det(bent, y)[0][0]), 4)
      0.5
    """
    inside, middle = _within(spline.y, y)
    b = _pick(spline, spline.y, middle)
    rise, steep = middle - b.y, b.height / b.width
    bend = rise * (b.first + b.last - 2 * steep)
    quadratic, linear, constant = bend + b.height * (steep - b.first), b.height * b.first - bend, -steep * rise
    root = jnp.sqrt(linear**2 - 4 * quadratic * constant)
    share = 2 * constant / (-linear - root)
    return jnp.where(inside, b.x + share * b.width, y), jnp.where(inside, _log_slope(b, share), 0)


def _within(knots: Array, place: Array) -> tuple[Array, Array]:
    """Whether a number lies between the first knot and the last, and one that does, for the branch not taken."""
    inside = (place >= knots[:, 0]) & (place < knots[:, -1])
    return inside, jnp.where(inside, place, 0)
