"""What the user says is latent, as a mask over flat coordinates."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from elbojax.structure.record import leaf_of
from elbojax.targets import Target
from elbojax.types import PyTree

WANTED = "latent must be a pytree or prefix like init of True and False, or names of leaves"


def chosen(latent: PyTree, init: PyTree, target: Target) -> np.ndarray:
    """Whether each coordinate is latent, [D].

    Args:
      latent: prefix like `init` of True and False, or a name or a list of names.
      init: the user's.
      target: made of it.

    Raises:
      TypeError: it is no prefix of `init`, or has other leaves than True and False.
      ValueError: it names what is no leaf of `init`.
    """
    leaf_names = tuple(dict.fromkeys(leaf_of(name) for name in target.names))
    if isinstance(latent, str) or (isinstance(latent, list | tuple | set) and _all_names(latent)):
        wanted = (latent,) if isinstance(latent, str) else tuple(latent)
        for name in wanted:
            if not any(_is_in(leaf, name) for leaf in leaf_names):
                raise ValueError(f"latent names {name!r}, which is no leaf of init; there are {', '.join(leaf_names)}")
        return np.array([any(_is_in(leaf_of(name), each) for each in wanted) for name in target.names])
    marks = jax.tree.leaves(_spread(latent, init, "latent"))
    shapes = target.constrain.space.free_shapes  # type: ignore[attr-defined]
    return np.concatenate(
        [np.full(int(np.prod(shape, dtype=int)), mark) for mark, shape in zip(marks, shapes, strict=True)]
    ).astype(bool)


def _all_names(latent: Any) -> bool:
    return len(latent) > 0 and all(isinstance(each, str) for each in latent)


def _is_in(leaf: str, name: str) -> bool:
    return leaf == name or leaf.startswith((name + ".", name + "["))


def _spread(latent: Any, tree: Any, where: str) -> Any:
    """The marks, one for each leaf of the tree."""
    if isinstance(latent, bool | np.bool_):
        return jax.tree.map(lambda _: bool(latent), tree)
    if isinstance(latent, Mapping) and isinstance(tree, Mapping):
        if unknown := [key for key in latent if key not in tree]:
            raise ValueError(f"{where} has {unknown[0]!r}, which is not in init; there are {', '.join(map(str, tree))}")
        spread = {key: _spread(latent.get(key, False), branch, f"{where}[{key!r}]") for key, branch in tree.items()}
        return jax.tree.unflatten(jax.tree.structure(tree), jax.tree.leaves(spread))
    if isinstance(latent, list | tuple) and isinstance(tree, list | tuple) and len(latent) == len(tree):
        branches = zip(latent, tree, strict=True)
        leaves = [jax.tree.leaves(_spread(a, b, f"{where}[{i}]")) for i, (a, b) in enumerate(branches)]
        return jax.tree.unflatten(jax.tree.structure(tree), [leaf for part in leaves for leaf in part])
    given = f"a {type(latent).__name__}" if not isinstance(latent, list | tuple) else f"{len(latent)} entries"
    raise TypeError(f"{WANTED}, got {given} at {where}")
