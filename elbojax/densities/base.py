"""What the densities share: promotion, edges of the support, and special functions whose gradients stay finite."""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from elbojax.inputs import unmasked
from elbojax.types import Array

LOG_2PI = math.log(2 * math.pi)


def floats(*values: Array | float) -> list[Array]:
    """Arrays of one floating dtype, the one that the inputs promote to (Python numbers follow the arrays)."""
    dtype = jnp.result_type(*values, 0.0)
    return [jnp.asarray(unmasked(value, "an argument"), dtype) for value in values]


def vectors(*values: Array | float) -> list[Array]:
    """Like `floats`, for arguments whose last axis is the event.

    Raises:
      ValueError: where an argument has no axis.
    """
    arrays = floats(*values)
    if shapes := [array.shape for array in arrays if array.ndim == 0]:
        raise ValueError(f"an event has at least one axis, got arguments of shapes {shapes}")
    return arrays


def check_matrix(name: str, matrix: Array, rows: int, columns: int | None) -> None:
    """Raises ValueError unless `matrix` is [rows, columns]; any number of columns where that is None."""
    if matrix.ndim != 2 or matrix.shape[0] != rows or columns not in (None, matrix.shape[1]):
        wanted = f"[{rows}, {'R' if columns is None else columns}]"
        raise ValueError(f"{name} must have shape {wanted}, got {list(matrix.shape)}; batch with jax.vmap")


def not_a_count(x: Array) -> Array:
    """Whether `x` is none of 0, 1, 2, ...; false for NaN, which is to stay NaN."""
    return (x < 0) | (x > jnp.floor(x)) | (x == jnp.inf)


def times(count: Array, value: Array) -> Array:
    """The product, with 0 * (-inf) = 0."""
    return count * jnp.where(count == 0, 0, value)


def xlogy(a: Array, y: Array) -> Array:
    """Returns a log(y), zero at a = y = 0 with zero gradients (those of `jax.scipy.special.xlogy` are NaN there)."""
    corner = (a == 0) & (y == 0)
    return a * jnp.log(jnp.where(corner, 1, y))


def xlog1my(a: Array, y: Array) -> Array:
    """Returns a log(1 - y), zero at a = 0, y = 1 and there with zero gradients."""
    corner = (a == 0) & (y == 1)
    return a * jnp.log1p(-jnp.where(corner, 0, y))


def log1p_square(u: Array) -> Array:
    """log(1 + u^2), where u^2 may overflow."""
    far = jnp.abs(u) > 1
    outer = jnp.where(far, jnp.abs(u), 1)
    inner = jnp.where(far, 1 / outer, u)
    return jnp.log1p(inner * inner) + 2 * jnp.log(outer)


def log_gamma_half_step(a: Array) -> Array:
    """Log of Gamma(a + 1/2) / Gamma(a), without cancellation where `a` is large."""
    large = a > 16
    near, far = jnp.where(large, 1, a), jnp.where(large, a, 16)
    inverse = 1 / far
    square = inverse * inverse
    series = inverse * (-1 / 8 + square * (1 / 192 + square * (-1 / 640 + square * (17 / 14336 - square * 31 / 18432))))
    return jnp.where(large, 0.5 * jnp.log(far) + series, gammaln(near + 0.5) - gammaln(near))


def _stirling_error(x: Array) -> Array:
    """What Stirling's formula lacks of log Gamma(x), for x >= 8."""
    inverse = 1 / x
    square = inverse * inverse
    series = 691 / 360360 - square / 156
    for coefficient in (1 / 1188, 1 / 1680, 1 / 1260, 1 / 360, 1 / 12):
        series = coefficient - square * series
    return inverse * series


def log_beta(a: Array, b: Array) -> Array:
    """Log of the beta function, without the cancellation of its three gammas where an argument is large.

    `jax.scipy.special.betaln` is good to 1e-7 only, in double precision too.
    """
    a, b = jnp.broadcast_arrays(a, b)
    a, b = jnp.minimum(a, b), jnp.maximum(a, b)
    one, two = b > 8, a > 8
    small_a, small_b = jnp.where(two, 1, a), jnp.where(one, 1, b)
    neither = gammaln(small_a) + gammaln(small_b) - gammaln(small_a + small_b)

    large_b = jnp.where(one, b, 8)
    bend = (large_b - 0.5) * jnp.log1p(a / large_b)
    error = _stirling_error(large_b) - _stirling_error(a + large_b)
    only_b = gammaln(small_a) - bend - small_a * jnp.log(small_a + large_b) + small_a + error

    large_a = jnp.where(two, a, 8)
    both = 0.5 * (LOG_2PI - jnp.log(large_a)) - large_a * jnp.log1p(large_b / large_a) - bend
    both = both + error + _stirling_error(large_a)
    return jnp.where(two, both, jnp.where(one, only_b, neither))


def erfcx(x: Array) -> Array:
    """exp(x^2) erfc(x) for x >= 0, of value only: its callers bring their own derivatives."""
    far = jnp.maximum(x, 3)
    fraction = far
    for k in range(28, 0, -1):
        fraction = far + 0.5 * k / fraction
    near = jnp.minimum(x, 3)
    return jnp.where(x > 3, 1 / (math.sqrt(math.pi) * fraction), jnp.exp(near * near) * jax.lax.erfc(near))


def standard_bound(bound: Array, loc: Array, scale: Array) -> Array:
    """(bound - loc) / scale, with zero gradients where the bound is infinite."""
    infinite = jnp.isinf(bound)
    return jnp.where(infinite, bound, (jnp.where(infinite, loc, bound) - loc) / scale)


def nearest_zero(low: Array, high: Array) -> Array:
    """The point of [low, high] nearest zero."""
    return jnp.minimum(jnp.maximum(low, 0), high)


@jax.custom_jvp
def log_normal_mass(low: Array, high: Array) -> Array:
    r"""Mass of a standard normal between two bounds, relative to its density at e, the point nearest zero.

    .. math:: \log \int_{low}^{high} e^{(e^2 - t^2) / 2} dt

    Of order one however far out the interval lies, so neither the mass nor its derivatives cancel or underflow.

    Args:
      low: may be -inf.
      high: of the shape of `low`; may be inf.

    Returns:
      An array like `low`.
    """
    flip = low + high > 0
    low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    edge = jnp.minimum(high, 0)
    half = math.sqrt(0.5)
    across = jax.lax.erf(half * high) - jax.lax.erf(half * low)
    tail = erfcx(-half * edge) - jnp.exp((edge - low) * (edge + low) / 2) * erfcx(jnp.abs(half * low))

    width, middle = high - low, (low + high) / 2
    narrow = width * (1 + jnp.abs(middle)) < 0.1
    w, m = width * width, middle * middle
    terms = (m - 1) * w / 24 + ((m - 6) * m + 3) * w * w / 1920
    terms = terms + (((m - 15) * m + 45) * m - 15) * w * w * w / 322560
    taylor = width * jnp.exp((edge - middle) * (edge + middle) / 2) * (1 + terms)
    return jnp.log(jnp.where(narrow, taylor, math.sqrt(math.pi / 2) * jnp.where(high > 0, across, tail)))


@log_normal_mass.defjvp
def _log_normal_mass_jvp(primals, tangents):
    (low, high), (low_dot, high_dot) = primals, tangents
    edge, value = nearest_zero(low, high), log_normal_mass(low, high)
    from_high = jnp.exp((edge - high) * (edge + high) / 2 - value) + jnp.where(high < 0, edge, 0)
    from_low = jnp.where(low > 0, edge, 0) - jnp.exp((edge - low) * (edge + low) / 2 - value)
    return value, from_high * high_dot + from_low * low_dot
