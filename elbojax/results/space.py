"""The user's own space: its shapes, its names, and numbers side by side."""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.targets import Target
from elbojax.types import PyTree


@contextlib.contextmanager
def on_host() -> Iterator[None]:
    """Double precision, also where a user's `jit` is at work; what overflows is looked for."""
    # Only where it is needed, for programs compiled within are others than those without.
    tracing = isinstance(jnp.zeros(()), jax.core.Tracer)
    eager = jax.ensure_compile_time_eval() if tracing else contextlib.nullcontext()
    with eager, jax.enable_x64(True), np.errstate(all="ignore"):
        yield


def shapes(target: Target) -> PyTree:
    """The shapes of the user's pytree."""
    return jax.eval_shape(target.constrain, jax.ShapeDtypeStruct((target.size,), jnp.result_type(float)))


def rows(tree: PyTree, count: int) -> np.ndarray:
    """[count, P] the numbers of the user's pytree side by side, from leaves that hold `count` of each."""
    return np.concatenate([np.reshape(leaf, (count, -1)) for leaf in jax.tree.leaves(tree)], axis=1)


def names(target: Target) -> list[str]:
    """One name per number of the user's pytree."""
    labels = getattr(getattr(target.constrain, "space", None), "labels", None)
    if labels is not None:
        return list(labels)
    found = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(shapes(target))[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "z"
        index = [f"[{','.join(map(str, i))}]" for i in np.ndindex(leaf.shape)] if leaf.shape else [""]
        found += [name + i for i in index]
    return found
