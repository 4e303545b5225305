"""Misuse of a loop, caught before anything is compiled."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.inputs import as_array, unmasked, what
from elbojax.inputs import check_key as check_key
from elbojax.solvers import Solver, StopRule
from elbojax.types import PyTree

MOST_STEPS = 2**31 - 1
"""What a count of 32 bits holds."""


def check_data(data: PyTree) -> None:
    """Raise TypeError unless all leaves are arrays of numbers.

    Args:
      data: pytree.
    """
    unmasked(data)
    check_lists("data", data)
    for path, leaf in jax.tree_util.tree_flatten_with_path(data)[0]:
        name, kind = "data" + jax.tree_util.keystr(path), type(leaf).__name__
        if isinstance(leaf, int) and not -(2**63) <= leaf < 2**63:
            raise TypeError(f"{name} must be a number of 64 bits, got an int of {leaf.bit_length()}; try float of it")
        if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct | bool | int | float | complex):
            continue
        if not isinstance(leaf, np.ndarray | np.generic):
            raise TypeError(f"{name} must be an array of numbers, got a {kind}; try np.asarray of it")
        if leaf.dtype.kind not in "biufc" and not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"{name} must be an array of numbers, got dtype {leaf.dtype}")


def check_lists(name: str, tree: PyTree) -> None:
    """Raise TypeError where a list holds numbers: to JAX it is a pytree of scalars, and no array.

    Lists of arrays, and tuples and dicts of whatever, are pytrees as they stand.

    Args:
      name: of the argument, for the message.
      tree: pytree.
    """
    lists, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: type(x) is list)
    for path, value in lists:
        if type(value) is not list:
            continue
        place, numbers = name + jax.tree_util.keystr(path), jax.tree.leaves(value, is_leaf=lambda x: x is None)
        scalars = [x is None or _is_scalar(x) for x in numbers]
        if not numbers and place == name:
            raise TypeError(f"{place} is an empty list; make it an array: np.zeros(0)")
        if not numbers or not all(scalars) or all(x is None for x in numbers):
            for number, item in enumerate(value):
                check_lists(f"{place}[{number}]", item)
            continue
        what = (
            f"{place} is a list of {len(numbers)} {'number' if len(numbers) == 1 else 'numbers'}, which JAX takes for"
        )
        what += " a pytree of scalars and no array"
        if any(x is None for x in numbers):
            raise TypeError(
                f"{what}; make it an array, with NaN and a mask for what is missing: np.asarray({place}, float)"
            )
        try:
            np.asarray(value, float)
        except (TypeError, ValueError):
            raise TypeError(
                f"{what}, and its rows differ in length; for data sets of unequal length there is fit_ragged, else pad them to"
                " one array with a mask"
            ) from None
        raise TypeError(f"{what}; make it an array: np.asarray({place})")


def _is_scalar(leaf: Any) -> bool:
    if isinstance(leaf, jax.Array | np.ndarray):
        return leaf.ndim == 0 and not isinstance(leaf, jax.core.Tracer)
    return isinstance(leaf, bool | int | float | complex | np.number | np.bool_)


def check_stacked(name: str, tree: PyTree) -> None:
    """Raise TypeError for a list of data sets of equal shapes, which would be one data set with models along its rows.

    Args:
      name: of the argument, for the message.
      tree: pytree.
    """
    if type(tree) is not list or not jax.tree.leaves(tree):
        return
    kinds = {(jax.tree.structure(item), tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(item))) for item in tree}
    if len(kinds) > 1:
        return
    ((structure, shapes),) = kinds
    number, plain = len(tree), jax.tree_util.treedef_is_leaf(structure)
    what = f"arrays of shape {shapes[0]}" if plain else f"pytrees of shapes {', '.join(map(str, shapes[:3]))}"
    stack = f"jnp.stack({name})" if plain else f"jax.tree.map(lambda *x: jnp.stack(x), *{name})"
    raise TypeError(
        f"{name} is a list of {number} {what}: as it stands each model would get a list of {number}, and the models would lie"
        f" along the first axis. For {number} data sets, one for each model, stack them: {stack}. If several arrays for each"
        f" model are meant, give a tuple or a dict: tuple({name})"
    )


def check_host(name: str, **given: PyTree) -> None:
    """Raise TypeError where a call that runs on the host stands inside `jit`, `vmap` or `grad`.

    Args:
      name: of the function.
      **given: its arguments by name.
    """
    traced = [
        argument + jax.tree_util.keystr(path)
        for argument, tree in given.items()
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        if isinstance(leaf, jax.core.Tracer)
    ]
    if traced or isinstance(jnp.zeros(()), jax.core.Tracer):  # inside jit new arrays are traced too
        what = f"{traced[0]} is traced" if traced else "it was called while tracing"
        raise TypeError(
            f"{name} runs on the host and can't stand inside jit, vmap or grad ({what}); for many data sets there is "
            "fit_batch, and inside jit use newton, which is made of JAX operations alone"
        )


def check_log_density(log_density: Any) -> None:
    """Raise TypeError unless it is a function that takes a position.

    Args:
      log_density: anything.
    """
    wanted = "log_density must be a function (position) -> scalar, or (position, data) -> scalar"
    if hasattr(log_density, "log_prob"):
        raise TypeError(f"{wanted}, got the distribution {type(log_density).__name__}; pass a sum of its log_prob")
    if hasattr(log_density, "value_and_gradient") and not callable(log_density):
        raise TypeError(
            f"{wanted}, got the density object {type(log_density).__name__}; these are taken by `fit` alone, one at a time"
        )
    if not callable(log_density):
        raise TypeError(f"{wanted}, got {type(log_density).__name__}")
    try:
        parameters = inspect.signature(log_density, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):
        return  # some callables of C have none
    if not any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters):
        raise TypeError(
            f"{wanted}, got one that takes no position; a NumPyro model goes to elbojax.fit_model(key, model, *args), as it is"
            " written"
        )


def check_needs_no_data(log_density: Any) -> None:
    """Raise TypeError where a log-density cannot be called with a position alone.

    Args:
      log_density: a function.
    """
    try:
        # Its own, for that of what it wraps (functools.wraps) need not be how it is called.
        signature = inspect.signature(log_density, follow_wrapped=False)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(f"log_density{signature} takes data, and none were given ({error}): fit(..., data=)") from None


def check_keys(keys: Any) -> None:
    """Raise TypeError unless they are random keys, one or several.

    Args:
      keys: anything.
    """
    if not hasattr(keys, "dtype") or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        given = f"{keys.dtype} of shape {keys.shape}" if hasattr(keys, "dtype") else type(keys).__name__
        raise TypeError(f"keys must be one random key, such as jax.random.key(0), or one for each model, got {given}")


def check_mesh(mesh: Any) -> None:
    """Raise TypeError unless it is a mesh of devices or None.

    Args:
      mesh: anything.
    """
    if not isinstance(mesh, jax.sharding.Mesh | None):
        raise TypeError(
            f"mesh must be a jax.sharding.Mesh or None, got {mesh!r}; for all devices: jax.make_mesh((n,), ('models',))"
        )


def check_settings(solver: Any, stop: Any, num_steps: Any) -> None:
    """Raise unless solver, stop rule and number of steps are what a loop needs."""
    if not isinstance(solver, Solver):
        raise TypeError(
            f"solver must be a Solver(init, step), such as elbojax.svi(loss, optimizer) makes, got {what(solver)}"
        )
    if not isinstance(stop, StopRule):
        raise TypeError(
            f"stop must be a StopRule(init, update), such as elbojax.moments_stable() makes, or None, got"
            f" {what(stop, call=True)}"
        )
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(f"the number of steps must be an int of at least 1, got {num_steps!r}")
    if num_steps > MOST_STEPS:
        raise ValueError(f"the number of steps must be at most {MOST_STEPS:,}, got {num_steps:,}")


def trained_leaves(q: PyTree, *, may_be_nan: bool = False) -> PyTree:
    """`q` with array leaves of a settled dtype, or an error that names the leaf that cannot be trained.

    Args:
      q: pytree.
      may_be_nan: whether NaN is left to become a status.

    Returns:
      The same pytree.

    Raises:
      TypeError: a leaf is not floating point.
      ValueError: there is no leaf, or one holds a NaN or an infinity.
    """
    q = unmasked(q, "q")
    if not jax.tree.leaves(q):
        raise ValueError(f"q has no array leaf to train: {q}")

    def settle(path, leaf):
        name = "q" + jax.tree_util.keystr(path)
        array = as_array(leaf, name)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"leaf {name} must be floating point to be trained, got {array.dtype}")
        if not may_be_nan and not isinstance(leaf, jax.core.Tracer) and not np.all(np.isfinite(leaf)):
            raise ValueError(f"leaf {name} is not finite at the start: {leaf}")
        return jax.lax.convert_element_type(array, array.dtype)  # no weak type, or the second step would retrace

    return jax.tree_util.tree_map_with_path(settle, q)


def batch_size(**trees: PyTree) -> int:
    """M, the leading axis that all leaves of all trees share.

    Args:
      **trees: pytrees by their argument names.

    Returns:
      M.

    Raises:
      ValueError: a leaf has no leading axis or has masked entries, two leaves disagree, or the batch is empty.
    """
    sizes = {}
    for name, tree in trees.items():
        unmasked(tree, name)
        check_lists(name, tree)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            shape = jnp.shape(leaf)
            leaf_name = name + jax.tree_util.keystr(path)
            if not shape:
                raise ValueError(f"leaf {leaf_name} must have a leading axis of models, got a scalar")
            sizes[leaf_name] = shape[0]
    if not sizes:
        raise ValueError(f"{', '.join(trees)} must have an array with a leading axis of models, got none")
    (first, size), *others = sizes.items()
    for other, given in others:
        if given != size:
            raise ValueError(f"leaves must share their leading axis of models: {first} has {size}, {other} has {given}")
    if size == 0:
        raise ValueError(f"the batch is empty: leaf {first} has a leading axis of 0 models")
    return size
