"""What a bijector is, and the tree walk that gives each leaf its own."""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import structures
from elbojax.inputs import unmasked
from elbojax.types import Array, PyTree, Scalar

Shape: TypeAlias = tuple[int, ...]
C = TypeVar("C")


@dataclass_transform(frozen_default=True, eq_default=False)
def bijector(cls: type[C]) -> type[C]:
    """Class decorator: a frozen dataclass registered as a pytree, whose array fields are leaves.

    Checks belong in a constructor function beside the class, for JAX rebuilds the object with
    placeholders in its fields.
    """
    return structures.register(dataclasses.dataclass(frozen=True, eq=False)(cls))


class Bijector(abc.ABC):
    """A smooth one-to-one map from an unconstrained array `x` to the user's natural value `y`.

    Works on one leaf of a pytree. Where the map is over vectors or matrices they lie along the last axis or the
    last two, and leading axes hold several. Bijectors of one kind and equal fields are equal, so as static arguments
    of a compiled function they do not compile it anew.
    """

    @abc.abstractmethod
    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        r"""The natural value, and :math:`\log|\det J|` summed over the whole leaf."""

    @abc.abstractmethod
    def inverse(self, y: Array) -> Array:
        """From the natural value to the unconstrained one."""

    @abc.abstractmethod
    def contains(self, y: Any) -> bool:
        """Whether a concrete value lies strictly inside the support; seen with NumPy, so nothing is compiled."""

    @abc.abstractmethod
    def __str__(self) -> str:
        """What `y` has to be, in words."""

    def forward(self, x: Array) -> Array:
        """From the unconstrained value to the natural one."""
        return self.forward_and_log_det(x)[0]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Bijector) and _by_value(self) == _by_value(other))

    def __hash__(self) -> int:
        return hash(_by_value(self))

    def unconstrained_shape(self, shape: Shape) -> Shape:
        """The shape of `x` where `y` has this one; raises ValueError where no `y` can have it."""
        return shape

    def constrained_shape(self, shape: Shape) -> Shape:
        """The shape of `y` where `x` has this one; raises ValueError where no `x` can have it."""
        return shape


def _by_value(bijector: Bijector) -> tuple[Any, ...]:
    """What two equal bijectors share; a bijector that holds tracers is equal to itself alone."""
    leaves, structure = jax.tree.flatten(bijector)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return (id(bijector),)
    arrays = [np.asarray(leaf) for leaf in leaves]
    return (
        structures.kinds(structure),
        structure,
        *((array.shape, array.dtype.name, array.tobytes()) for array in arrays),
    )


def as_float(x: Any) -> Array:
    """An array of floats; a floating dtype is kept."""
    return jnp.asarray(unmasked(x, "an argument"), jnp.result_type(x, 0.0))


def bounded_exp(x: Array) -> Array:
    """exp(x), held between the smallest and the largest normal number, so never 0 nor infinite."""
    info = jnp.finfo(x.dtype)
    lowest, highest = math.ceil(math.log(float(info.tiny))), math.floor(math.log(float(info.max)))
    return jnp.exp(jnp.clip(x, lowest, highest))


def check_numbers(name: str, value: Any) -> Any:
    """A number or an array, for a field. NumPy holds what is concrete, so that bijectors may be made at import.

    Raises:
      TypeError: it is not made of real numbers.
      ValueError: it is not finite.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    array = np.asarray(unmasked(value, name))
    if array.dtype.kind not in "iuf" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be a number or an array of numbers, got {value!r}")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} must be finite, got {value}")
    return array if isinstance(value, np.ndarray | jax.Array) else np.asarray(array, float)


def check_broadcasts(shape: Shape, **fields: Any) -> Shape:
    """Returns `shape`, to which the fields broadcast.

    Raises:
      ValueError: one does not.
    """
    for name, value in fields.items():
        given = jnp.shape(value)
        try:
            fits = np.broadcast_shapes(given, shape) == tuple(shape)
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"{name} of shape {given} does not broadcast to shape {tuple(shape)}")
    return tuple(shape)


def number(value: Any) -> str:
    """A field in a message."""
    return "an array" if isinstance(value, jax.core.Tracer) or np.size(value) > 1 else f"{np.asarray(value).item():g}"


def expand(support: PyTree, like: PyTree, lookup: Callable[[Any, str], Bijector], path: tuple[Any, ...] = ()) -> list:
    """One bijector per leaf of `like`, in the order of `jax.tree.leaves`.

    Args:
      support: prefix of `like`. A dict may leave out keys, and None stands for what is left out.
      like: pytree.
      lookup: from an entry of `support` that is no container (None too) and a place in words, to its bijector.
      path: of both, from the root.

    Returns:
      List of bijectors.

    Raises:
      TypeError: `support` goes on where `like` ends, or a container is of another kind.
      ValueError: a key or a number of entries does not fit.
    """
    place = f"init{jax.tree_util.keystr(path)}"
    parts, structure = _one_level(support)
    if support is None or isinstance(support, Bijector) or parts is None:
        return [lookup(support, place)] * len(jax.tree.leaves(like))

    like_parts, like_structure = _one_level(like)
    wanted, given = type(like).__name__, type(support).__name__
    if like_parts is None:
        raise TypeError(
            f"support of {place} must be one bijector or name, for it is a leaf, got a {given}; such as 'positive', or"
            " elbojax.bijectors.interval(low, high). Constraints of NumPyro come with a NumPyro model: fit_model"
        )
    if isinstance(support, Mapping) and isinstance(like, Mapping):
        if unknown := [key for key in support if key not in like]:
            raise ValueError(f"support names {', '.join(map(repr, unknown))}, which {place} lacks; it has {list(like)}")
        entries = {key: value for (key,), value in parts}
        parts = [(key, entries.get(key[0])) for key, _ in like_parts]
    elif type(support) is not type(like):
        raise TypeError(f"support of {place} must be a {wanted} like it, or one bijector or name, got a {given}")
    elif structure != like_structure:
        raise ValueError(f"support of {place} has {len(parts)} entries where init has {len(like_parts)}: {support}")
    found = []
    for (key, entry), (_, value) in zip(parts, like_parts, strict=True):
        found += expand(entry, value, lookup, (*path, *key))
    return found


def _one_level(tree: PyTree) -> tuple[Any, Any]:
    """The children of a node with their keys, or None for a leaf; and the structure."""
    parts, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is not tree)
    is_leaf = [path for path, _ in parts] == [()]
    return (None if is_leaf else parts), structure
