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
    first = "; the key comes first" if dtype is None and not isinstance(key, int | str | None) else ""
    raise TypeError(f"key must be one random key, such as jax.random.key(0), got {given}{first}")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise TypeError unless a static number is an int, ValueError unless it is large enough.

    Args:
      name: of the argument, for the message.
      value: anything.
      least: the smallest that is allowed.
    """
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name} must be a Python int, got a traced value: it sets the shape of the draws; close over it, or name it in "
            "static_argnames of jit"
        )
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def as_array(value: Any, name: str) -> Array:
    """`jnp.asarray(value)` of what is an array of numbers and has no masked entries.

    Args:
      value: array-like.
      name: of the argument, for the message.

    Returns:
      An array.

    Raises:
      TypeError: something that is no array of numbers.
      ValueError: masked, or lists of unequal lengths.

    Example:
      >>> as_array({"a": 1.0}, "loc")
      Traceback (most recent call last):
      TypeError: loc must be an array of numbers, got a dict
    """
    return jnp.asarray(_numbers(value, name))


def _numbers(value: Any, name: str) -> Any:
    """The value without a mask, once it is known to be an array of numbers, or lists that may be one."""
    value = unmasked(value, name)
    if isinstance(value, jax.Array | bool | int | float | complex | list | tuple) or hasattr(value, "__jax_array__"):
        return value
    try:
        dtype = np.asarray(value).dtype
    except Exception:
        dtype = np.dtype(object)
    if not jnp.issubdtype(dtype, np.number) and dtype.kind != "b":
        raise TypeError(f"{name} must be an array of numbers, got {what(value, call=True)}")
    return value


def what(value: Any, call: bool = False) -> str:
    """A value that is of the wrong kind, in a message.

    Args:
      value: anything.
      call: whether a function or a class was to be called.

    Example:
      >>> what(None), what({}), what(np.array(["a"])), what(dict, call=True)
      ('None', 'a dict', 'an array of dtype <U1', 'the class dict; call it to make one')
    """
    if value is None or isinstance(value, str):
        return repr(value)
    if callable(value) and hasattr(value, "__name__"):
        kind = "class" if isinstance(value, type) else "function"
        return f"the {kind} {value.__name__}{'; call it to make one' if call else ''}"
    if isinstance(value, jax.Array | np.ndarray):
        is_key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        return "a random key" if is_key else f"an array of dtype {value.dtype}"
    return f"a {type(value).__name__}"


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
    return jnp.asarray(_numbers(value, name), dtype)


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
