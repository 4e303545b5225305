"""What a user hands over, before its mask or its imaginary part is dropped without a word.

`np.asarray(x)` and `jnp.asarray(x, dtype)` take a masked array for its data, masked entries and all, and a complex one for
its real part. Whatever turns a user's array into another goes through these.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.types import Array, PyTree


def check_key(key: Any) -> None:
    """Raise TypeError unless it is one key.

    Args:
      key: anything.
    """
    dtype, shape = getattr(key, "dtype", None), jnp.shape(key) if hasattr(key, "shape") else None
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if typed and shape == () or dtype == jnp.uint32 and len(shape or ()) == 1:
        return
    given = type(key).__name__ if dtype is None else f"{'keys' if typed else str(dtype)} of shape {shape}"
    raise TypeError(f"key must be one random key, such as jax.random.key(0), got {given}")


def unmasked(tree: PyTree, name: str = "data") -> PyTree:
    """The pytree with plain arrays in place of masked ones that mask nothing.

    Args:
      tree: pytree.
      name: of the argument, for the message.

    Returns:
      The same pytree, and the very same object where there is no masked array.

    Raises:
      ValueError: a leaf has masked entries.

    Example:
      >>> type(unmasked(np.ma.masked_array([1.0, 2.0]))).__name__
      'ndarray'
    """
    if not any(_mask(leaf) is not None for leaf in jax.tree.leaves(tree)):
        return tree

    def plain(path, leaf):
        mask = _mask(leaf)
        if mask is None:
            return leaf
        if count := int(np.sum(mask)):
            leaf_name = name + jax.tree_util.keystr(path)
            raise ValueError(
                f"{leaf_name} is a masked array with {count} of {np.size(mask)} entries masked, and what stands in them would"
                " be taken as numbers. Drop or impute them, or give plain arrays: .filled(0), and the mask beside it"
                " as data (np.ma.getmaskarray), for the log-density to leave out what is masked"
            )
        return np.array(leaf.data) if isinstance(leaf, np.ma.MaskedArray) else np.array(getattr(leaf, "unmasked", leaf))

    return jax.tree_util.tree_map_with_path(plain, tree)


def as_real(name: str, value: Any, dtype: Any) -> Array:
    """`jnp.asarray(value, dtype)` of what is real and has no masked entries.

    Args:
      name: of the argument, for the message.
      value: array-like.
      dtype: of the array.

    Returns:
      An array.

    Raises:
      TypeError: complex.
      ValueError: masked.

    Example:
      >>> as_real("scale", [1, 2], float).tolist()
      [1.0, 2.0]
    """
    check_real(value, name)
    return jnp.asarray(unmasked(value, name), dtype)


def check_real(tree: PyTree, name: str) -> None:
    """Raise TypeError where a leaf is complex.

    Args:
      tree: pytree.
      name: of the argument, for the message.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        dtype = getattr(leaf, "dtype", type(leaf))
        if dtype is complex or (hasattr(leaf, "dtype") and jnp.issubdtype(dtype, jnp.complexfloating)):
            raise TypeError(
                f"{name}{jax.tree_util.keystr(path)} must be real, got {dtype if dtype is not complex else 'complex'}; give"
                " real and imaginary parts as two leaves"
            )


def _mask(leaf: Any) -> Any:
    """The mask of a masked array, be it NumPy's or a subclass of its plain one; None of what cannot have one."""
    return (
        np.ma.getmaskarray(leaf)
        if isinstance(leaf, np.ma.MaskedArray)
        else (getattr(leaf, "mask", None) if isinstance(leaf, np.ndarray) else None)
    )
