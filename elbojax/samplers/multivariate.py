"""Draws of vectors and matrices. Leading axes of the vector parameters are batch axes; matrices describe one model."""

import math

import jax
import jax.numpy as jnp

from elbojax import linalg
from elbojax.samplers.base import Shape, check_matrix, floats, prepare
from elbojax.types import Array, Key


def multivariate_normal(key: Key, loc: Array, scale_tril: Array, shape: Shape = ()) -> Array:
    r"""Multivariate normal draws, from the Cholesky factor of the covariance.

    .. math:: \mu + L \epsilon, \qquad \epsilon \sim \mathrm{N}(0, I)

    Args:
      key: consumed.
      loc: [..., D] mean.
      scale_tril: [D, D], lower triangular.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ..., D], the dtype of the parameters.

    Raises:
      ValueError: where the shapes do not fit.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> multivariate_normal(jax.random.key(0), jnp.zeros(2), jnp.eye(2), shape=(3,)).shape
      (3, 2)
    """
    loc, scale_tril = floats(loc, scale_tril)
    check_matrix("scale_tril", scale_tril, loc)
    noise = jax.random.normal(key, (*shape, *loc.shape), loc.dtype)
    return loc + noise @ jnp.tril(scale_tril).T


def multivariate_normal_precision(key: Key, loc: Array, precision_tril: Array, shape: Shape = ()) -> Array:
    r"""Multivariate normal draws, from the Cholesky factor of the precision.

    .. math:: \mu + P^{-T} \epsilon, \qquad \epsilon \sim \mathrm{N}(0, I)

    Args:
      key: consumed.
      loc: [..., D] mean.
      precision_tril: [D, D], lower triangular.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ..., D], the dtype of the parameters.

    Raises:
      ValueError: where the shapes do not fit.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> multivariate_normal_precision(jax.random.key(0), jnp.zeros(2), jnp.eye(2), shape=(3,)).shape
      (3, 2)
    """
    loc, precision_tril = floats(loc, precision_tril)
    check_matrix("precision_tril", precision_tril, loc)
    full = (*shape, *loc.shape)
    noise = jax.random.normal(key, (loc.shape[-1], math.prod(full[:-1])), loc.dtype)
    return loc + linalg.solve_lower(precision_tril, noise, transposed=True).T.reshape(full)


def multivariate_normal_low_rank(key: Key, loc: Array, factor: Array, scale: Array, shape: Shape = ()) -> Array:
    r"""Multivariate normal draws of a covariance of low rank plus diagonal.

    .. math:: \mu + F \epsilon + \sigma \eta, \qquad \epsilon \sim \mathrm{N}(0, I_R), \; \eta \sim \mathrm{N}(0, I_D)

    Args:
      key: consumed.
      loc: [..., D] mean.
      factor: [D, R].
      scale: [D] standard deviations of the diagonal part.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ..., D], the dtype of the parameters.

    Raises:
      ValueError: where the shapes do not fit.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> multivariate_normal_low_rank(jax.random.key(0), jnp.zeros(2), jnp.ones((2, 1)), jnp.ones(2), shape=(3,)).shape
      (3, 2)
    """
    loc, factor, scale = floats(loc, factor, scale)
    check_matrix("factor", factor, loc, square=False)
    if scale.shape != loc.shape[-1:]:
        raise ValueError(f"scale must have shape {list(loc.shape[-1:])}, got {list(scale.shape)}; batch with jax.vmap")
    key_common, key_own = jax.random.split(key)
    common = jax.random.normal(key_common, (*shape, *loc.shape[:-1], factor.shape[1]), loc.dtype)
    return loc + common @ factor.T + scale * jax.random.normal(key_own, (*shape, *loc.shape), loc.dtype)


def dirichlet(key: Key, concentration: Array, shape: Shape = ()) -> Array:
    """Dirichlet draws.

    Args:
      key: consumed.
      concentration: [..., K] powers a.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ..., K], the dtype of the parameters.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> jax.eval_shape(lambda key: dirichlet(key, jnp.ones(2), shape=(3,)), jax.random.key(0)).shape
      (3, 2)
    """
    (concentration,) = floats(concentration)
    return jax.random.dirichlet(key, concentration, (*shape, *concentration.shape[:-1]), concentration.dtype)


def lkj_cholesky(key: Key, size: int, concentration: Array | float, shape: Shape = ()) -> Array:
    """Cholesky factors of LKJ correlation matrices, row by row (the onion).

    The squared length of row i before the diagonal is Beta((i - 1) / 2, eta + (D - i) / 2); its direction is uniform.

    Args:
      key: consumed.
      size: D, static.
      concentration: eta; one is uniform over correlation matrices.
      shape: leading axes of independent draws.

    Returns:
      [*shape, ..., D, D], the dtype of `concentration`.

    Raises:
      ValueError: where `size` is not positive.

    Example:
      >>> import jax
      >>> jax.eval_shape(lambda key: lkj_cholesky(key, 2, 1.0, shape=(3,)), jax.random.key(0)).shape
      (3, 2, 2)

    References:
      Lewandowski, Kurowicka, Joe 2009, https://doi.org/10.1016/j.jmva.2009.04.008
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    (concentration,), full = prepare(shape, concentration)
    dtype = concentration.dtype
    key_length, key_direction = jax.random.split(key)
    below = jnp.arange(1, size, dtype=dtype)
    powers = concentration[..., None] + 0.5 * (size - 1 - below)
    squares = jax.random.beta(key_length, 0.5 * below, powers, (*full, size - 1), dtype)
    noise = jnp.tril(jax.random.normal(key_direction, (*full, size - 1, size - 1), dtype))
    rows = noise * (jnp.sqrt(squares) / jnp.linalg.norm(noise, axis=-1))[..., None]
    factor = jnp.zeros((*full, size, size), dtype).at[..., 1:, :-1].set(rows)
    diagonal = jnp.concatenate([jnp.ones((*full, 1), dtype), jnp.sqrt(1 - squares)], -1)
    return factor.at[..., jnp.arange(size), jnp.arange(size)].set(diagonal)
