"""What leaves a fit: double precision inside; outside the session's dtype, where that can hold the numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds
from elbojax.types import PyTree
from elbojax.workarounds.transfers import on_device


def is_traced(*trees: PyTree) -> bool:
    """Whether there is a tracer among the leaves, as under `jit` or `vmap`."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def doubled(tree: PyTree) -> PyTree:
    """The same numbers as NumPy arrays, floating ones in double precision; scalars as NumPy scalars."""

    def one(x):
        array = np.asarray(x)
        return array.astype(np.float64, copy=False)[()] if jnp.issubdtype(array.dtype, jnp.floating) else array[()]

    return jax.tree.map(one, tree)


def widened(tree: PyTree, dtype: Any = np.float64) -> PyTree:
    """Floating arrays of less than some precision in that precision; arrays of NumPy, of JAX, tracers and shapes alike.

    Positions are in double precision while a fit runs. What a log-density writes into an array of data (`data.at[missing]
    .set(position)`) would else be rounded to single, and sums of both widen the data at every evaluation.
    """

    def one(x):
        own = getattr(x, "dtype", None)
        if own is None or not jnp.issubdtype(own, jnp.floating) or jnp.finfo(own).bits >= jnp.finfo(dtype).bits:
            return x
        return (
            jax.ShapeDtypeStruct(x.shape, np.dtype(dtype)) if isinstance(x, jax.ShapeDtypeStruct) else x.astype(dtype)
        )

    return jax.tree.map(one, tree)


def narrowed(tree: PyTree) -> PyTree:
    """NumPy arrays of floats in the session's dtype, infinite where that is too small for them; tracers as they are."""
    dtype = jnp.result_type(float)

    def one(x):
        with np.errstate(over="ignore", under="ignore"):
            return x.astype(dtype) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x

    return jax.tree.map(one, tree)


def holds(dtype: Any, mean: Any, sd: Any, values: Any = ()) -> bool:
    r"""Whether a floating dtype can hold numbers of this mean and this standard deviation, and some values of theirs.

    .. math:: \mathrm{sd} \ge 1000 \, \epsilon \, |\mathrm{mean}| \quad \text{wherever } \mathrm{sd} > 0

    and none is out of its range, too large or too small.

    Args:
      dtype: floating.
      mean: array; NaN and infinities are left out.
      sd: of the same shape; what has no spread (sd within the rounding of double precision) is left out.
      values: array of any shape.

    Returns:
      True or False.

    Example:
      >>> holds("float32", 3.0, 1.0), holds("float32", 1.7e9, 4.0), holds("float64", 1.7e9, 4.0)
      (True, False, True)
    """
    info = jnp.finfo(dtype)
    mean, sd, values = (np.abs(np.asarray(x, np.float64)) for x in (mean, sd, values))
    known = np.isfinite(mean) & np.isfinite(sd) & (sd > 16 * np.finfo(np.float64).eps * mean)
    fine = (sd >= thresholds.SPACINGS * float(info.eps) * mean) & (sd >= thresholds.SPACINGS * float(info.tiny))
    # Not (mean, sd) too: those that count are among the values.
    out = np.isfinite(values) & ((values > float(info.max)) | ((values > 0) & (values < float(info.tiny))))
    return bool(np.all(fine | ~known)) and not bool(np.any(out))


def handed(values: PyTree, mean: PyTree, sd: PyTree) -> PyTree:
    """Arrays in the session's dtype; NumPy arrays in double precision for the leaves that it cannot hold.

    Args:
      values: pytree of NumPy arrays in double precision.
      mean: pytree of the same structure, of what the values are values of.
      sd: likewise.

    Returns:
      The pytree of values.
    """
    dtype = jnp.result_type(float)
    # Narrowed by NumPy, for JAX compiles a program for each shape.
    one = lambda x, m, s: on_device(np.asarray(x, dtype)) if holds(dtype, m, s, x) else x  # noqa: E731
    return jax.tree.map(one, values, mean, sd)
