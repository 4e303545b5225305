"""Weighted draws in the user's own space, compiled: their moments, and draws of equal weight picked from them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import xla
from elbojax.results import tails
from elbojax.types import Array, Key, PyTree
from elbojax.weights import pick


@functools.partial(xla.jit, static_argnames=("target", "num_samples"))
def resampled(key: Key, draws: Array, log_weights: Array, target: Any, num_samples: int) -> PyTree:
    """Draws of one model picked by weight, in the user's space.

    Args:
      key: consumed.
      draws: [S, D].
      log_weights: [S], normalised.
      target: from flat vectors to the user's space, static.
      num_samples: static.

    Returns:
      Pytree like `init`, leading axis num_samples.
    """
    return jax.vmap(target.constrain)(draws[pick(key, log_weights, num_samples)])


@functools.partial(xla.jit, static_argnames=("target", "num_samples"))
def resampled_of_each(keys: Key, draws: Array, log_weights: Array, target: Any, num_samples: int) -> PyTree:
    """`resampled` of many models.

    Args:
      keys: [M], consumed.
      draws: [M, S, D].
      log_weights: [M, S], normalised.
      target: from flat vectors to the user's space, static.
      num_samples: static.

    Returns:
      Pytree like `init`, leading axes [M, num_samples].
    """
    return jax.vmap(lambda *one: resampled(*one, target, num_samples))(keys, draws, log_weights)


def moments(draws: Array, log_weights: Array, target: Any) -> tuple[PyTree, PyTree]:
    """Weighted means and standard deviations in the user's space, NaN for numbers that have none (`tails`).

    Args:
      draws: [S, D] of one model.
      log_weights: [S], normalised.
      target: from flat vectors to the user's space, static.

    Returns:
      Two pytrees like `init`.
    """
    return examined(draws, log_weights, target)[:2]


@functools.partial(xla.jit, static_argnames=("target",))
def moments_of_each(draws: Array, log_weights: Array, target: Any) -> tuple[PyTree, PyTree]:
    """`moments` of many models.

    Args:
      draws: [M, S, D].
      log_weights: [M, S], normalised.
      target: from flat vectors to the user's space, static.

    Returns:
      Two pytrees like `init`, leading axis M.
    """
    return jax.vmap(lambda draws, log_weights: moments(draws, log_weights, target))(draws, log_weights)


@functools.partial(xla.jit, static_argnames=("target", "thorough"))
def examined(draws: Array, log_weights: Array, target: Any, thorough: bool = True) -> tuple[PyTree, PyTree, Array]:
    """`moments`, and whether any of them rests on single draws, so that it wants more of them.

    Args:
      draws: [S, D] of one model.
      log_weights: [S], normalised.
      target: from flat vectors to the user's space, static.
      thorough: static; False where the numbers are not looked at one by one, and none is NaN for want of a moment.

    Returns:
      Two pytrees like `init`, and a boolean.
    """
    weights = jnp.exp(log_weights)
    values = jax.vmap(target.constrain)(draws)
    # A draw without weight may lie where the map overflows.
    average = lambda x: jnp.tensordot(weights, jnp.where(_column(weights, x) > 0, x, 0), axes=1)  # noqa: E731
    mean = jax.tree.map(average, values)
    variance = jax.tree.map(lambda x, m: average((x - m) ** 2), values, mean)
    sd = jax.tree.map(jnp.sqrt, variance)
    rows = jnp.concatenate([jnp.reshape(leaf, (len(weights), -1)) for leaf in jax.tree.leaves(values)], axis=1)
    flat = [jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(part)]) for part in (mean, variance)]
    if thorough:
        no_mean, no_sd = (_like_leaves(each, mean) for each in tails.lacking(rows, log_weights, *flat))
        mean, sd = (jax.tree.map(_or_nan, part, none) for part, none in ((mean, no_mean), (sd, no_sd)))
    return mean, sd, jnp.any(tails.doubtful(rows, weights, *flat))


def _or_nan(x: Array, none: Array) -> Array:
    return jnp.where(none, jnp.nan, x)


def _like_leaves(flat: Array, like: PyTree) -> PyTree:
    """A vector cut into the leaves of a pytree, whatever their dtypes."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1].tolist()
    return jax.tree.unflatten(
        structure, [part.reshape(leaf.shape) for part, leaf in zip(jnp.split(flat, ends), leaves, strict=True)]
    )


def _column(weights: Array, like: Array) -> Array:
    return jnp.reshape(weights, (-1,) + (1,) * (like.ndim - 1))
