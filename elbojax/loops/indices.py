"""Indices beyond the end of an array, of which JAX says nothing."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import checkify

from elbojax import xla
from elbojax.types import PyTree

BLOCK = 32
"""Models in one call: few, for their data are copied, and enough that 10,000 models are 0.03 s (measured 2026-11-30)."""


def warn_outside(function: Callable[..., Any], position: PyTree, data: PyTree, *, stacked: bool = False) -> None:
    """Warn where a function reads beyond the end of an array: JAX takes the last element then, without a word.

    Groups numbered from one are what it is for: the last of them would share the level of the one before. What the indices
    do not depend on is not computed.

    Args:
      function: `(position, data) -> scalar`, of JAX.
      position: pytree.
      data: pytree.
      stacked: whether the data have a leading axis of models.
    """
    try:
        parts = _blocks(data) if stacked else [data]
        said = next(filter(None, (_outside(function, position, part, stacked).get() for part in parts)), None)
    except Exception:  # what checkify does not know is not looked at
        return
    if said:
        warnings.warn(
            f"the model reads beyond the end of an array ({said.strip().rstrip('.')}), where JAX takes the last element:"
            " groups are numbered from 0",
            UserWarning,
            stacklevel=4,
        )


def _blocks(data: PyTree) -> Iterator[PyTree]:
    """Data of `BLOCK` models at a time, the first ones again where there are too few: one program for any number of them."""
    leaves, form = jax.tree.flatten(jax.tree.map(np.asarray, data))
    models = len(leaves[0])
    for begin in range(0, models, BLOCK):
        which = (begin + np.arange(BLOCK)) % models
        yield jax.tree.unflatten(form, [leaf[which] for leaf in leaves])


def may_index(data: PyTree) -> bool:
    """Whether some of the data could be indices: whole numbers, be they floats."""
    return any(_whole(np.asarray(leaf)) for leaf in jax.tree.leaves(data))


def _whole(leaf: np.ndarray) -> bool:
    if leaf.dtype.kind in "iu":
        return True
    if not np.issubdtype(leaf.dtype, np.floating) or not leaf.size:
        return False
    return bool(leaf.ravel()[0] == np.round(leaf.ravel()[0]) and np.all(leaf == np.round(leaf)))


def _errors(function: Callable[..., Any], position: PyTree, data: PyTree, stacked: bool) -> Any:
    mapped = jax.vmap(function, in_axes=(None, 0)) if stacked else function
    return checkify.checkify(mapped, errors=checkify.index_checks)(position, data)[0]


_outside = xla.jit(_errors, static_argnames=("function", "stacked"))
