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
FEW = 64
"""The same, of points whose images are looked at."""


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


def flat_rows(target: Target, rows: np.ndarray) -> np.ndarray:
    """[B, D] flat vectors, of the numbers [B, P] of the user's pytree side by side; the way back of `rows`.

    Args:
      target: which knows the supports.
      rows: [B, P], inside them.
    """
    shapes = [leaf.shape for leaf in jax.tree.leaves(_position(target))]
    ends = np.cumsum([int(np.prod(shape, dtype=int)) for shape in shapes])[:-1]
    parts = []
    for bijector, shape, part in zip(target.supports, shapes, np.split(rows, ends, axis=1), strict=True):
        leaf = part.reshape(len(rows), *shape)
        moved = leaf if type(bijector) is Real else _chunked(_inverses(jax.default_backend()), bijector, leaf)
        parts.append(moved.reshape(len(rows), -1))
    return np.concatenate(parts, axis=1)


def log_dets(target: Target, draws: np.ndarray) -> np.ndarray:
    """[S] logarithms of the Jacobians of the way into the user's space, at flat vectors [S, D]."""
    total, at = np.zeros(len(draws)), 0
    for bijector, shape in zip(target.supports, target.constrain.space.free_shapes, strict=True):  # type: ignore[attr-defined]
        size = int(np.prod(shape, dtype=int))
        if type(bijector) is not Real:
            part = draws[:, at : at + size].reshape(len(draws), *shape)
            total += _chunked(_log_dets(jax.default_backend()), bijector, part)
        at += size
    return total


def _position(target: Target) -> PyTree:
    """Shapes of the user's pytree."""
    return jax.eval_shape(target.constrain, jax.ShapeDtypeStruct((target.size,), np.float64))


def _through(bijector: Bijector, part: np.ndarray) -> np.ndarray:
    return _chunked(_forward(jax.default_backend()), bijector, part, ROOM)


def _chunked(program: Any, bijector: Bijector, part: np.ndarray, room: int = FEW) -> np.ndarray:
    """What a program makes of many, so many in a call."""
    found = []
    for at in range(0, len(part), room):
        some = part[at : at + room]
        padded = np.concatenate([some, np.broadcast_to(some[:1], (room - len(some), *some.shape[1:]))])
        found.append(np.asarray(program(bijector, padded))[: len(some)])
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


@functools.cache
def _inverses(backend: str) -> Any:
    def inverses(bijector: Bijector, part: Array) -> Array:
        return jax.vmap(bijector.inverse)(part)

    return jax.jit(inverses, compiler_options=dict(accepted(backend)) or None)


@functools.cache
def _log_dets(backend: str) -> Any:
    def log_dets(bijector: Bijector, part: Array) -> Array:
        return jax.vmap(lambda x: bijector.forward_and_log_det(x)[1])(part)

    return jax.jit(log_dets, compiler_options=dict(accepted(backend)) or None)


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


def rests_on_few(target: Target, draws: np.ndarray, log_weights: np.ndarray, share: float | None = None) -> bool:
    """Whether a variance in the user's space rests on single draws, so that it wants more of them.

    Args:
      target: from flat vectors to the user's space.
      draws: [S, D].
      log_weights: [S], normalised.
      share: of one draw, over the root of their number; `thresholds.TAIL_SHARE_AGAIN` by default.

    Returns:
      True or False.
    """
    share = thresholds.TAIL_SHARE_AGAIN if share is None else share
    values, weights, mean, variance = _weighted(target, draws, log_weights)
    return bool(np.any(tails.doubtful(_rows(values), weights, _flat(mean), _flat(variance), share)))


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
