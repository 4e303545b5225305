"""Draws in the user's own space, and their moments: on the host, one small program for each kind of support."""

import functools
from typing import Any

import jax
import numpy as np

from elbojax import thresholds
from elbojax.bijectors import Bijector, Real
from elbojax.host import tails
from elbojax.targets import Target
from elbojax.types import Array, PyTree
from elbojax.workarounds.options import accepted

ROOM = 4096
"""Draws of a call: as many as a check has."""


def positions(target: Target, draws: np.ndarray) -> PyTree:
    """Flat draws in the user's space, in double precision; called under `jax.enable_x64(True)`.

    Args:
      target: which knows the supports.
      draws: [S, D].

    Returns:
      Pytree like `init` of NumPy arrays, leading axis S.
    """
    leaves, at = [], 0
    for bijector, shape in zip(target.supports, target.constrain.space.free_shapes, strict=True):  # type: ignore[attr-defined]
        size = int(np.prod(shape, dtype=int))
        part = draws[:, at : at + size].reshape(len(draws), *shape)
        leaves.append(part if type(bijector) is Real else _through(bijector, part))
        at += size
    return jax.tree.unflatten(target.constrain.space.structure, leaves)  # type: ignore[attr-defined]


def flat(target: Target, position: PyTree) -> np.ndarray:
    """A position in the user's space as a flat vector [D], in double precision; the way back.

    Args:
      target: which knows the supports.
      position: pytree like `init`, inside them.
    """
    parts = []
    for bijector, leaf in zip(target.supports, jax.tree.leaves(position), strict=True):
        leaf = np.asarray(leaf, np.float64)
        parts.append(np.ravel(leaf if type(bijector) is Real else _inverse(jax.default_backend())(bijector, leaf)))
    return np.concatenate(parts)


def _through(bijector: Bijector, part: np.ndarray) -> np.ndarray:
    forward = _forward(jax.default_backend())
    found = []
    for at in range(0, len(part), ROOM):
        some = part[at : at + ROOM]
        padded = np.concatenate([some, np.broadcast_to(some[:1], (ROOM - len(some), *some.shape[1:]))])
        found.append(np.asarray(forward(bijector, padded))[: len(some)])
    return np.concatenate(found)


@functools.cache
def _forward(backend: str) -> Any:
    def forward(bijector: Bijector, part: Array) -> Array:
        return jax.vmap(bijector.forward)(part)

    return jax.jit(forward, compiler_options=dict(accepted(backend)) or None)


@functools.cache
def _inverse(backend: str) -> Any:
    def inverse(bijector: Bijector, leaf: Array) -> Array:
        return bijector.inverse(leaf)

    return jax.jit(inverse, compiler_options=dict(accepted(backend)) or None)


def rows(target: Target, draws: np.ndarray) -> np.ndarray:
    """[S, P] the numbers of the user's pytree side by side, of flat draws [S, D]."""
    return _rows(positions(target, draws))


def moments(target: Target, draws: np.ndarray, log_weights: np.ndarray) -> tuple[PyTree, PyTree]:
    """Weighted means and standard deviations in the user's space, NaN for numbers that have none (`host.tails`).

    Args:
      target: from flat vectors to the user's space.
      draws: [S, D].
      log_weights: [S], normalised.

    Returns:
      Two pytrees like `init`.
    """
    values, weights, mean, variance = _weighted(target, draws, log_weights)
    no_mean, no_sd = tails.lacking(_rows(values), weights, _flat(mean), _flat(variance))
    return _but(mean, no_mean), _but(jax.tree.map(np.sqrt, variance), no_sd)


def rests_on_few(target: Target, draws: np.ndarray, log_weights: np.ndarray) -> bool:
    """Whether a variance in the user's space rests on single draws, so that it wants more of them.

    Args:
      target: from flat vectors to the user's space.
      draws: [S, D].
      log_weights: [S], normalised.

    Returns:
      True or False.
    """
    values, weights, mean, variance = _weighted(target, draws, log_weights)
    return bool(
        np.any(tails.doubtful(_rows(values), weights, _flat(mean), _flat(variance), thresholds.TAIL_SHARE_AGAIN))
    )


def _weighted(target: Target, draws: np.ndarray, log_weights: np.ndarray) -> Any:
    """Positions, weights, means and variances."""
    weights = np.exp(log_weights)
    there = weights > 0  # a draw without weight may lie where the map overflows
    values = positions(target, draws)
    average = lambda x: np.tensordot(weights[there], x[there], axes=1)  # noqa: E731
    # From one of them: of draws at 1e13 sds from zero, sums of thousands lose hundredths of an sd.
    one = int(np.argmax(log_weights))
    mean = jax.tree.map(lambda x: x[one] + average(x - x[one]), values)
    return values, weights, mean, jax.tree.map(lambda x, m: average((x - m) ** 2), values, mean)


def _rows(values: PyTree) -> np.ndarray:
    return np.concatenate([leaf.reshape(len(leaf), leaf[0].size) for leaf in jax.tree.leaves(values)], axis=1)


def _flat(tree: PyTree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def _but(tree: PyTree, none: np.ndarray) -> PyTree:
    """The numbers, NaN where there are none."""
    leaves, structure = jax.tree.flatten(tree)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = [
        np.where(part.reshape(leaf.shape), np.nan, leaf)[()]
        for part, leaf in zip(np.split(none, ends), leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, parts)
