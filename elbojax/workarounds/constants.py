"""NumPy arrays that a traced function names, in the precision of the moment, for jaxlib 0.10 and later.

A function `lambda z: jnp.sum((y - z) ** 2)` with `y` a NumPy array of float64 was called in a session of float32, as JAX
is by default: then JAX keeps `y` rounded to float32, and as long as that program lives, gives it to every other trace
of the same array, within `jax.enable_x64(True)` too. `fit`, which computes in double precision, got rounded data without a
word, or a TypeError ("lax.sub requires arguments to have the same dtypes") where the function is mapped. After a `fit`, the
user's own programs of single precision got float64. Where JAX is seen to do this, it is given a conversion that tells the
two precisions apart.
"""

import weakref
from typing import Any

import jax
import numpy as np

from elbojax.workarounds.base import is_on


def is_affected() -> bool:
    """Whether JAX gives a NumPy array in the precision of an earlier trace.

    Returns:
      True with jaxlib 0.10 and 0.12, False with 0.9 and after `replace_constants`.

    Example:
      >>> replace_constants() and is_affected()
      False
    """
    array = np.zeros(1)
    with jax.enable_x64(False):
        traced = jax.make_jaxpr(lambda z: array + z)(np.float32(0))
    with jax.enable_x64(True):
        again = jax.make_jaxpr(lambda z: array + z)(np.float64(0))
    return traced.consts[0].dtype == again.consts[0].dtype


def replace_constants() -> bool:
    """Convert NumPy arrays in traced functions by the precision of the moment, for this process.

    Returns:
      Whether it was done: where JAX is affected, unless ELBOJAX_WORKAROUNDS=-constants.

    Example:
      >>> replace_constants() in (True, False)
      True
    """
    if not is_on("constants") or not is_affected():
        return False
    # Private to JAX, of those versions that have them only: others convert in Python, by the precision of the moment.
    from jax._src import dtypes, literals

    cache: dict[Any, tuple[Any, Any]] = {}

    def converted(array: np.ndarray) -> Any:
        """The same object for the same array, which a trace holds once."""
        dtype = dtypes.canonicalize_dtype(array.dtype)
        key = id(array), dtype
        here, there = (ref() for ref in cache.get(key, (_nothing, _nothing)))
        value = np.asarray(array, dtype)
        # A rounded copy may be of an array that was changed in place since; bytes, for NaN is not equal to itself.
        if here is array and there is not None and (dtype == array.dtype or value.tobytes() == there.tobytes()):
            return there
        value = literals.TypedNdArray(value)
        entry = weakref.ref(array), weakref.ref(value)
        cache[key] = entry

        def forget() -> None:
            if cache.get(key) is entry:
                del cache[key]

        for it in (array, value):
            weakref.finalize(it, forget).atexit = False
        return value

    dtypes.register_canonicalize_value_handler(np.ndarray, converted)
    return True


def _nothing() -> None:
    return None
