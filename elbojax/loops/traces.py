"""A digest of what a function computes: its traced program, with the rules and host functions that no program shows."""

import functools
import hashlib
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.structures import spelled
from elbojax.types import PyTree

CALLBACKS = ("pure_callback", "io_callback")
"""Primitives whose answer comes from Python on the host."""
DEEPEST = 8
"""Objects within objects that a look into a host function follows."""


def fingerprint(function: Callable[..., Any], *arguments: PyTree, values: PyTree = (), results: PyTree = ()) -> str:
    """A digest of a problem: what the function computes, on what, and what comes of it.

    Derivatives with rules of their own (`custom_jvp`, `custom_vjp`) count. Of functions that run on the host
    (`jax.pure_callback`) code, constants, defaults, closures and globals count, but not what else they read, of which a
    warning tells. The version of elbojax counts, for another may write other results.

    Args:
      function: traced, so that any other computation has another digest.
      *arguments: of the function; shapes are enough.
      values: pytree of arrays, typed keys among them.
      results: pytree of arrays, of which names, shapes and dtypes count.

    Returns:
      Hexadecimal digits.

    Example:
      >>> import jax.numpy as jnp
      >>> fingerprint(jnp.sin, 1.0) == fingerprint(jnp.sin, 1.0), fingerprint(jnp.sin, 1.0) == fingerprint(jnp.cos, 1.0)
      (True, False)
    """
    digest = hashlib.sha256(f"elbojax {sys.modules['elbojax'].__version__}".encode())  # which imports this module
    digest.update(spelled((arguments, values, results)).encode())  # a trace does not tell types apart
    traced = jax.make_jaxpr(lambda *a: function(*a))(*arguments)  # a new function (workaround "kept traces")
    programs = [traced]
    if any(equation.primitive.name.startswith("custom_") for equation in _equations(traced)):
        programs += _derivatives(function, arguments)
    callbacks = []
    for program in programs:
        digest.update(re.sub(r"0x[0-9a-fA-FX]+", "", str(program)).encode())  # addresses differ from run to run
        for constant in _constants(program):
            _add_array(digest, constant)
        callbacks += host_calls(program)
    for equation in callbacks:
        _add_host(digest, equation.params.get("callback"), DEEPEST, [])
    if callbacks:
        warnings.warn(
            "the log-density or loss calls Python on the host (jax.pure_callback): the checkpoint is told from others by the"
            " code of these functions, their closures and globals, not by files and other things that they read. Where"
            " those have changed, give another folder",
            UserWarning,
            stacklevel=3,
        )
    for leaf in jax.tree.leaves(values):
        _add_array(digest, leaf)
    for path, leaf in jax.tree_util.tree_flatten_with_path(results)[0]:
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype}{leaf.shape}".encode())
    return digest.hexdigest()


def host_calls(traced: Any) -> list[Any]:
    """The equations of a traced function that call Python functions on the host for their results.

    Args:
      traced: of `jax.make_jaxpr`.

    Returns:
      Equations, those of inner functions among them.
    """
    return [equation for equation in _equations(traced) if equation.primitive.name in CALLBACKS]


def _derivatives(function: Callable[..., Any], arguments: tuple[PyTree, ...]) -> Iterator[Any]:
    """Traced first and second derivatives, of those kinds that the function has."""
    leaves, structure = jax.tree.flatten(arguments)
    is_float = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]

    def of_floats(floats, others):
        floats, others = iter(floats), iter(others)
        given = [next(floats if each else others) for each in is_float]
        out = jax.tree.leaves(function(*jax.tree.unflatten(structure, given)))
        return [x for x in out if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]

    def backwards(floats, others):
        out, pull = jax.vjp(lambda x: of_floats(x, others), floats)
        return pull(jax.tree.map(jnp.ones_like, out))[0]

    def forwards(derivative, floats, others):
        return jax.jvp(lambda x: derivative(x, others), (floats,), (jax.tree.map(jnp.ones_like, floats),))

    floats = [leaf for leaf, each in zip(leaves, is_float, strict=True) if each]
    others = [leaf for leaf, each in zip(leaves, is_float, strict=True) if not each]
    kinds = (
        backwards,
        functools.partial(forwards, of_floats),
        functools.partial(forwards, backwards),
        functools.partial(forwards, functools.partial(forwards, of_floats)),
    )
    for derivative in kinds:
        try:
            yield jax.make_jaxpr(derivative)(floats, others)
        except Exception:  # there is none of this kind, whatever JAX says of it
            continue


def _add_array(digest: Any, leaf: Any) -> None:
    if jnp.issubdtype(getattr(leaf, "dtype", np.dtype(float)), jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.ascontiguousarray(leaf)
    digest.update(f"{array.dtype}{array.shape}".encode())
    digest.update(array.tobytes())


def _equations(traced: Any) -> Iterator[Any]:
    """The equations of a traced function and of its inner ones."""
    jaxpr = getattr(traced, "jaxpr", traced)
    for equation in jaxpr.eqns:
        yield equation
        for inner in _inner(equation):
            yield from _equations(inner)


def _inner(equation: Any) -> list[Any]:
    holds = lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")  # noqa: E731
    return [value for value in jax.tree.leaves(list(equation.params.values()), is_leaf=holds) if holds(value)]


def _constants(traced: Any) -> Iterator[Any]:
    """Arrays that a traced function has closed over, also those inside its inner functions, which are not printed."""
    yield from getattr(traced, "consts", ())
    jaxpr = getattr(traced, "jaxpr", traced)
    for equation in jaxpr.eqns:
        yield from (variable.val for variable in equation.invars if np.ndim(getattr(variable, "val", 0)))
        for inner in _inner(equation):
            yield from _constants(inner)


def _add_host(digest: Any, thing: Any, depth: int, seen: list[Any]) -> None:
    """A Python object of a host function: the function itself, or what it names."""
    if any(thing is other for other in seen):
        return
    digest.update(type(thing).__qualname__.encode())
    if isinstance(thing, bool | int | float | complex | str | bytes | None):
        digest.update(repr(thing).encode())
        return
    seen.append(thing)
    if isinstance(thing, np.ndarray | np.generic | jax.Array) and not np.issubdtype(thing.dtype, np.object_):
        _add_array(digest, thing)
    elif isinstance(thing, types.ModuleType | type):
        digest.update(f"{getattr(thing, '__module__', '')}.{thing.__name__}".encode())
    elif depth:
        for part in _parts(thing):
            _add_host(digest, part, depth - 1, seen)


def _parts(thing: Any) -> Iterator[Any]:
    """What a Python object is made of, as far as can be seen."""
    if isinstance(thing, types.FunctionType):
        code = thing.__code__
        yield code
        yield from (thing.__defaults__, thing.__kwdefaults__)
        yield from (cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell))
        yield from (thing.__globals__[name] for name in _names(code) if name in thing.__globals__)
    elif isinstance(thing, types.CodeType):
        yield from (thing.co_code, " ".join((*thing.co_names, *thing.co_varnames)), *thing.co_consts)
    elif isinstance(thing, types.MethodType):
        yield from (thing.__func__, thing.__self__)
    elif isinstance(thing, functools.partial):
        yield from (thing.func, thing.args, thing.keywords)
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from (key, value)
    elif isinstance(thing, list | tuple):
        yield from thing
    elif isinstance(thing, set | frozenset):
        yield from sorted(map(repr, thing))
    else:
        yield getattr(thing, "__wrapped__", None)
        yield next((vars(kind)["__call__"] for kind in type(thing).__mro__ if "__call__" in vars(kind)), None)
        yield getattr(thing, "__dict__", None)
        yield from (getattr(thing, name, None) for name in getattr(type(thing), "__slots__", ()))


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _names(code: types.CodeType) -> Iterator[str]:
    """Globals that a function and those within it name."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
