"""A user's function at many draws: one compiled program, for pieces of one size."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from elbojax import xla
from elbojax.types import PyTree

PIECE = 512
"""Draws of a call, so that memory does not grow with their number: a function may return one number for each observation."""


def mapped(function: Callable[..., PyTree], positions: PyTree, *rest: PyTree) -> PyTree:
    """The function at each of many draws.

    Args:
      function: `(position, *rest) -> pytree` of arrays; with an attribute `on_host` that is true it is given all draws at
        once, in NumPy.
      positions: pytree, leading axis S.
      *rest: pytrees that are the same for all draws.

    Returns:
      What the function returns, leading axis S, as NumPy arrays.
    """
    if getattr(function, "on_host", False):
        return function(jax.tree.map(np.asarray, positions), *rest)
    count = len(jax.tree.leaves(positions)[0])
    size = min(PIECE, count)
    found = []
    for at in range(0, count, size):
        # The last piece reaches back, so that all are of one size.
        start = min(at, count - size)
        piece = jax.tree.map(lambda x: x[start : start + size], positions)  # noqa: B023
        values = jax.tree.map(np.asarray, _each(function, piece, rest))
        found.append(jax.tree.map(lambda x: x[at - start :], values))  # noqa: B023
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


@functools.partial(xla.jit, static_argnames=("function",))
def _each(function: Callable[..., PyTree], positions: PyTree, rest: Any) -> PyTree:
    return jax.vmap(lambda position: function(position, *rest))(positions)
