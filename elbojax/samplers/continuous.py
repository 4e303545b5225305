"""Draws of one real variable. Parameters broadcast; `shape` goes before their shape."""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr, ndtri

from elbojax.samplers.base import Shape, prepare
from elbojax.types import Array, Key


def normal(key: Key, loc: Array | float, scale: Array | float, shape: Shape = ()) -> Array:
    r"""Normal draws.

    .. math:: \mu + \sigma \epsilon, \qquad \epsilon \sim \mathrm{N}(0, 1)

    Args:
      key: consumed.
      loc: mean.
      scale: standard deviation.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> normal(jax.random.key(0), 0.0, 1.0, shape=(3,)).shape
      (3,)
    """
    (loc, scale), full = prepare(shape, loc, scale)
    return loc + scale * jax.random.normal(key, full, loc.dtype)


def student_t(key: Key, df: Array | float, loc: Array | float, scale: Array | float, shape: Shape = ()) -> Array:
    """Student's t draws.

    Args:
      key: consumed.
      df: degrees of freedom.
      loc: centre.
      scale: sigma.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> student_t(jax.random.key(0), 3.0, 0.0, 1.0, shape=(3,)).shape
      (3,)
    """
    (df, loc, scale), full = prepare(shape, df, loc, scale)
    return loc + scale * jax.random.t(key, df, full, loc.dtype)


def laplace(key: Key, loc: Array | float, scale: Array | float, shape: Shape = ()) -> Array:
    """Laplace draws.

    Args:
      key: consumed.
      loc: centre.
      scale: b.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> laplace(jax.random.key(0), 0.0, 1.0, shape=(3,)).shape
      (3,)
    """
    (loc, scale), full = prepare(shape, loc, scale)
    return loc + scale * jax.random.laplace(key, full, loc.dtype)


def logistic(key: Key, loc: Array | float, scale: Array | float, shape: Shape = ()) -> Array:
    """Logistic draws.

    Args:
      key: consumed.
      loc: centre.
      scale: s.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> logistic(jax.random.key(0), 0.0, 1.0, shape=(3,)).shape
      (3,)
    """
    (loc, scale), full = prepare(shape, loc, scale)
    return loc + scale * jax.random.logistic(key, full, loc.dtype)


def cauchy(key: Key, loc: Array | float, scale: Array | float, shape: Shape = ()) -> Array:
    """Cauchy draws.

    Args:
      key: consumed.
      loc: median.
      scale: s.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> cauchy(jax.random.key(0), 0.0, 1.0, shape=(3,)).shape
      (3,)
    """
    (loc, scale), full = prepare(shape, loc, scale)
    return loc + scale * jax.random.cauchy(key, full, loc.dtype)


def half_normal(key: Key, scale: Array | float, shape: Shape = ()) -> Array:
    """Magnitudes of centred normal draws.

    Args:
      key: consumed.
      scale: sigma of the whole normal.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> half_normal(jax.random.key(0), 1.0, shape=(3,)).shape
      (3,)
    """
    (scale,), full = prepare(shape, scale)
    return scale * jnp.abs(jax.random.normal(key, full, scale.dtype))


def half_cauchy(key: Key, scale: Array | float, shape: Shape = ()) -> Array:
    """Magnitudes of centred Cauchy draws.

    Args:
      key: consumed.
      scale: s, the median.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> half_cauchy(jax.random.key(0), 1.0, shape=(3,)).shape
      (3,)
    """
    (scale,), full = prepare(shape, scale)
    return scale * jnp.abs(jax.random.cauchy(key, full, scale.dtype))


def half_t(key: Key, df: Array | float, scale: Array | float, shape: Shape = ()) -> Array:
    """Magnitudes of centred Student's t draws.

    Args:
      key: consumed.
      df: degrees of freedom.
      scale: sigma of the whole t.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> jax.eval_shape(lambda key: half_t(key, 3.0, 1.0, shape=(3,)), jax.random.key(0)).shape
      (3,)
    """
    return jnp.abs(student_t(key, df, 0, scale, shape))


def log_normal(key: Key, loc: Array | float, scale: Array | float, shape: Shape = ()) -> Array:
    """Exponentials of normal draws.

    Args:
      key: consumed.
      loc: mean of log x.
      scale: standard deviation of log x.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> log_normal(jax.random.key(0), 0.0, 1.0, shape=(3,)).shape
      (3,)
    """
    return jnp.exp(normal(key, loc, scale, shape))


def exponential(key: Key, rate: Array | float, shape: Shape = ()) -> Array:
    """Exponential draws.

    Args:
      key: consumed.
      rate: one over the mean.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> exponential(jax.random.key(0), 1.0, shape=(3,)).shape
      (3,)
    """
    (rate,), full = prepare(shape, rate)
    return jax.random.exponential(key, full, rate.dtype) / rate


def gamma(key: Key, concentration: Array | float, rate: Array | float, shape: Shape = ()) -> Array:
    """Gamma draws, differentiable in both parameters.

    Args:
      key: consumed.
      concentration: a, the shape.
      rate: b.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> gamma(jax.random.key(0), 2.0, 1.0, shape=(3,)).shape
      (3,)
    """
    (concentration, rate), full = prepare(shape, concentration, rate)
    return jax.random.gamma(key, concentration, full, rate.dtype) / rate


def inverse_gamma(key: Key, concentration: Array | float, scale: Array | float, shape: Shape = ()) -> Array:
    """One over gamma draws, differentiable in both parameters.

    Args:
      key: consumed.
      concentration: a, the shape.
      scale: b.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> inverse_gamma(jax.random.key(0), 2.0, 1.0, shape=(3,)).shape
      (3,)
    """
    (concentration, scale), full = prepare(shape, concentration, scale)
    return scale * jnp.exp(-jax.random.loggamma(key, concentration, full, scale.dtype))


def beta(key: Key, concentration1: Array | float, concentration0: Array | float, shape: Shape = ()) -> Array:
    """Beta draws.

    Args:
      key: consumed.
      concentration1: a, the power of x.
      concentration0: b, the power of 1 - x.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> jax.eval_shape(lambda key: beta(key, 2.0, 2.0, shape=(3,)), jax.random.key(0)).shape
      (3,)
    """
    (a, b), full = prepare(shape, concentration1, concentration0)
    return jax.random.beta(key, a, b, full, a.dtype)


def uniform(key: Key, low: Array | float, high: Array | float, shape: Shape = ()) -> Array:
    """Uniform draws.

    Args:
      key: consumed.
      low: included.
      high: not included.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> uniform(jax.random.key(0), 0.0, 1.0, shape=(3,)).shape
      (3,)
    """
    (low, high), full = prepare(shape, low, high)
    return low + (high - low) * jax.random.uniform(key, full, low.dtype)


def truncated_normal(
    key: Key, loc: Array | float, scale: Array | float, low: Array | float, high: Array | float, shape: Shape = ()
) -> Array:
    """Normal draws between two bounds, however far out in a tail these are.

    By the inverse of the distribution function, in logarithms; the draws are differentiable in all four parameters.

    Args:
      key: consumed.
      loc: mean before truncation.
      scale: standard deviation before truncation.
      low: may be -inf.
      high: may be inf.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> truncated_normal(jax.random.key(0), 0.0, 1.0, 30.0, 31.0, shape=(3,)).shape
      (3,)
    """
    (loc, scale, low, high), full = prepare(shape, loc, scale, low, high)
    uniform_draw = jax.random.uniform(key, full, loc.dtype, minval=jnp.finfo(loc.dtype).tiny)
    bounds = [jnp.broadcast_to(_standard_bound(bound, loc, scale), full) for bound in (low, high)]
    return jnp.clip(loc + scale * _truncated_quantile(uniform_draw, *bounds), low, high)


def von_mises(key: Key, loc: Array | float, concentration: Array | float, shape: Shape = ()) -> Array:
    """Von Mises angles in [-pi, pi], differentiable in `loc` only.

    By rejection from a wrapped Cauchy angle, of which at least 65 % are accepted; neither small nor large
    concentrations lose digits.

    Args:
      key: consumed.
      loc: mean angle.
      concentration: kappa, zero or more.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...], the dtype of the parameters.

    Example:
      >>> import jax
      >>> von_mises(jax.random.key(0), 0.0, 1.0, shape=(3,)).shape
      (3,)

    References:
      Best, Fisher 1979, https://doi.org/10.2307/2346732
    """
    (loc, concentration), full = prepare(shape, loc, concentration)
    turned = loc + _centred_von_mises(key, jnp.broadcast_to(jax.lax.stop_gradient(concentration), full))
    return turned - 2 * math.pi * jax.lax.stop_gradient(jnp.round(turned / (2 * math.pi)))


def _standard_bound(bound: Array, loc: Array, scale: Array) -> Array:
    """(bound - loc) / scale, with zero gradients where the bound is infinite."""
    infinite = jnp.isinf(bound)
    return jnp.where(infinite, bound, (jnp.where(infinite, loc, bound) - loc) / scale)


def _log_cdf_inverse(log_p: Array) -> Array:
    """Quantile of a standard normal from the logarithm of its probability."""
    deep = log_p < -5
    target = jnp.where(deep, log_p, -5)
    # The logarithm of the distribution function is concave, so Newton from below climbs and never overshoots.
    z = -jnp.sqrt(-2 * target)
    for _ in range(5):
        value = log_ndtr(z)
        z = z + (target - value) * jnp.exp(value + 0.5 * z * z + 0.5 * math.log(2 * math.pi))
    p = jnp.minimum(jnp.exp(jnp.where(deep, -5, log_p)), 1 - jnp.finfo(log_p.dtype).epsneg)
    return jnp.where(deep, z, ndtri(p))


@jax.custom_jvp
def _truncated_quantile(p: Array, low: Array, high: Array) -> Array:
    """Quantile of a standard normal truncated to [low, high]."""
    flip = low + high > 0
    p, below, above = jnp.where(flip, 1 - p, p), jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    log_above = log_ndtr(above)
    z = _log_cdf_inverse(log_above + jnp.log(p + (1 - p) * jnp.exp(log_ndtr(below) - log_above)))
    return jnp.clip(jnp.where(flip, -z, z), low, high)


@_truncated_quantile.defjvp
def _truncated_quantile_jvp(primals, tangents):
    (p, low, high), (_, low_dot, high_dot) = primals, tangents
    z = _truncated_quantile(p, low, high)
    from_low = (1 - p) * jnp.exp((z - low) * (z + low) / 2)
    from_high = p * jnp.exp((z - high) * (z + high) / 2)
    return z, from_low * low_dot + from_high * high_dot


def _centred_von_mises(key: Key, concentration: Array) -> Array:
    """One angle in [-pi, pi] around zero for each concentration."""
    dtype, shape = concentration.dtype, concentration.shape
    root = jnp.sqrt(1 + 4 * concentration * concentration)
    total = 1 + root + jnp.sqrt(2 * (1 + root))
    # One minus the mean length rho of the Cauchy angle, and concentration / rho, written so that nothing cancels.
    shortfall = (1 + 1 / (root + 2 * concentration) + jnp.sqrt(2 * (1 + root))) / total
    narrowing = shortfall / (2 - shortfall)
    excess = total / 4 * shortfall * shortfall

    def propose(state):
        count, _, done, angle = state
        key_angle, key_accept = jax.random.split(jax.random.fold_in(key, count))
        turn = jax.random.uniform(key_angle, shape, dtype, minval=-1.0, maxval=1.0)
        proposal = 2 * jnp.arctan(narrowing * jnp.tan(0.5 * math.pi * turn))
        half_sine = jnp.sin(0.5 * proposal)
        y = excess + 2 * concentration * half_sine * half_sine
        accept = jnp.log(y) + 1 - y + jax.random.exponential(key_accept, shape, dtype) >= 0
        angle = jnp.where(done, angle, proposal)
        done = done | accept | jnp.isnan(y)
        return count + 1, jnp.all(done), done, angle

    start = (0, jnp.array(False), jnp.zeros(shape, bool), jnp.zeros(shape, dtype))
    *_, angle = jax.lax.while_loop(lambda state: ~state[1] & (state[0] < 1000), propose, start)
    return angle
