"""Draws of counts and classes, of JAX's default integer type. Parameters broadcast; `shape` goes before their shape."""

import jax
import jax.numpy as jnp

from elbojax.samplers.base import Shape, floats, prepare
from elbojax.types import Array, Key


def bernoulli(key: Key, logits: Array | float, shape: Shape = ()) -> Array:
    """Bernoulli draws, zero or one.

    Args:
      key: consumed.
      logits: log-odds of one.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...] of integers.

    Example:
      >>> import jax
      >>> bernoulli(jax.random.key(0), 0.0, shape=(3,)).shape
      (3,)
    """
    (logits,), full = prepare(shape, logits)
    return (jax.random.logistic(key, full, logits.dtype) < logits).astype(int)


def categorical(key: Key, logits: Array, shape: Shape = ()) -> Array:
    """Categorical draws from 0 to K - 1.

    Args:
      key: consumed.
      logits: [..., K]; -inf excludes a class.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...] of integers.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> categorical(jax.random.key(0), jnp.zeros(4), shape=(3,)).shape
      (3,)
    """
    (logits,) = floats(logits)
    return jax.random.categorical(key, logits, shape=(*shape, *logits.shape[:-1])).astype(int)


def binomial(key: Key, total: Array | float, logits: Array | float, shape: Shape = ()) -> Array:
    """Binomial draws.

    Args:
      key: consumed.
      total: number of trials.
      logits: log-odds of one in each.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...] of integers.

    Example:
      >>> import jax
      >>> binomial(jax.random.key(0), 4, 0.0, shape=(3,)).shape
      (3,)
    """
    (total, logits), full = prepare(shape, total, logits)
    return jax.random.binomial(key, total, jax.nn.sigmoid(logits), full, logits.dtype).astype(int)


def multinomial(key: Key, total: Array | float, logits: Array, shape: Shape = ()) -> Array:
    """Multinomial draws.

    Args:
      key: consumed.
      total: [...] number of trials.
      logits: [..., K].
      shape: leading axes of independent draws.

    Returns:
      [*shape, ..., K] of integers.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> jax.eval_shape(lambda key: multinomial(key, 4, jnp.zeros(2), shape=(3,)), jax.random.key(0)).shape
      (3, 2)
    """
    total, logits = floats(total, logits)
    batch = (*shape, *jnp.broadcast_shapes(total.shape, logits.shape[:-1]))
    probs = jnp.broadcast_to(jax.nn.softmax(logits), (*batch, logits.shape[-1]))
    return jax.random.multinomial(key, jnp.broadcast_to(total, batch), probs, dtype=logits.dtype).astype(int)


def poisson(key: Key, rate: Array | float, shape: Shape = ()) -> Array:
    """Poisson draws.

    Args:
      key: consumed.
      rate: mean.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...] of integers.

    Example:
      >>> import jax
      >>> poisson(jax.random.key(0), 2.0, shape=(3,)).shape
      (3,)
    """
    (rate,), full = prepare(shape, rate)
    return jax.random.poisson(key, rate, full)


def poisson_log(key: Key, log_rate: Array | float, shape: Shape = ()) -> Array:
    """Poisson draws, from the logarithm of the rate.

    Args:
      key: consumed.
      log_rate: logarithm of the mean.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...] of integers.

    Example:
      >>> import jax
      >>> poisson_log(jax.random.key(0), 0.0, shape=(3,)).shape
      (3,)
    """
    (log_rate,) = floats(log_rate)
    return poisson(key, jnp.exp(log_rate), shape)


def negative_binomial(key: Key, mean: Array | float, concentration: Array | float, shape: Shape = ()) -> Array:
    """Negative binomial draws: Poisson with gamma distributed rates.

    Args:
      key: consumed.
      mean: m.
      concentration: c; the variance is m + m^2 / c.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...] of integers.

    Example:
      >>> import jax
      >>> jax.eval_shape(lambda key: negative_binomial(key, 2.0, 1.0, shape=(3,)), jax.random.key(0)).shape
      (3,)
    """
    (mean, concentration), full = prepare(shape, mean, concentration)
    key_rate, key_count = jax.random.split(key)
    rate = jax.random.gamma(key_rate, concentration, full, mean.dtype) * (mean / concentration)
    return jax.random.poisson(key_count, rate)


def geometric(key: Key, logits: Array | float, shape: Shape = ()) -> Array:
    """Draws of the number of failures before the first success.

    They end at 2^30, which single precision integers still hold.

    Args:
      key: consumed.
      logits: log-odds of success in each trial.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ...] of integers.

    Example:
      >>> import jax
      >>> geometric(jax.random.key(0), 0.0, shape=(3,)).shape
      (3,)
    """
    (logits,), full = prepare(shape, logits)
    count = jnp.floor(jax.random.exponential(key, full, logits.dtype) / jax.nn.softplus(logits))
    return jnp.minimum(count, 2**30).astype(int)
