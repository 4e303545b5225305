"""How the stages of `fit` are compiled: for a small model compiling is all that a person waits for."""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax

from elbojax import targets, xla
from elbojax.loops.traces import host_calls
from elbojax.types import PyTree
from elbojax.workarounds.callbacks import doubled_in_all_threads
from elbojax.workarounds.options import accepted

SMALL = 100_000
"""Numbers that a log-density computes, below which its programs are compiled light."""
TRIPS = 50
"""Assumed turns of a loop that does not say how many it takes."""


def program(stage: Callable[..., Any]) -> Callable[..., Any]:
    """`jit`, with effort in proportion to the model.

    Args:
      stage: a function with arguments `target`, which is static, `start` or others of arrays, and `data`.

    Returns:
      The compiled function, called by position.
    """
    signature = inspect.signature(stage)
    thorough = xla.jit(stage, static_argnames=("target",))

    @functools.cache
    def light(options: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
        return xla.jit(stage, static_argnames=("target",), compiler_options=dict(options))

    @functools.wraps(stage)
    def call(*args: Any) -> Any:
        arguments = signature.bind(*args).arguments
        small = is_small(arguments["target"], arguments["data"])
        options = accepted(jax.default_backend()) if small else ()
        return light(options)(*args) if options else thorough(*args)

    return call


def is_small(target: targets.Target, data: PyTree) -> bool:
    """Whether one log-density is so little work that its programs run in the blink of an eye however compiled.

    Args:
      target: whose log-density it is.
      data: what it is given; only shapes and dtypes count.

    Returns:
      True or False, without computing anything.
    """
    return work_of(target, data) < SMALL


def work_of(target: targets.Target, data: PyTree) -> float:
    """Roughly how many numbers one log-density computes.

    Args:
      target: whose log-density it is.
      data: what it is given; only shapes and dtypes count.

    Returns:
      As `work` has it, without computing anything.
    """
    return _seen(target, data)[0]


@contextlib.contextmanager
def doubled_on_host(target: targets.Target, data: PyTree) -> Iterator[None]:
    """Double precision in all threads, where the log-density calls Python on the host and expects it back so.

    The setting of the process is changed until the fit has ended; only for such log-densities (see `workarounds.callbacks`).

    Args:
      target: whose log-density it is.
      data: what it is given; only shapes and dtypes count.
    """
    with doubled_in_all_threads() if _seen(target, data)[1] else contextlib.nullcontext():
        yield


def _seen(target: targets.Target, data: PyTree) -> tuple[float, bool]:
    leaves, structure = jax.tree.flatten(jax.tree.map(jax.typeof, data))
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    return xla.memo(_traced, (target, structure, shapes), lambda: _traced(target, structure, shapes))


def _traced(target: targets.Target, structure: Any, shapes: tuple) -> tuple[float, bool]:
    """How much work a log-density is, and whether it calls the host for numbers of 64 bits."""
    data = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    position = jax.ShapeDtypeStruct((target.size,), float)
    arguments = (position,) if data is None else (position, data)
    traced = jax.make_jaxpr(lambda *a: target.log_density(*a))(*arguments)  # a new function (workaround "kept traces")
    wide = any(var.aval.dtype.itemsize == 8 for equation in host_calls(traced) for var in equation.outvars)
    return work(traced.jaxpr), wide


def work(jaxpr: Any) -> float:
    """Roughly how many numbers a traced function computes on its way.

    Args:
      jaxpr: of the function.

    Returns:
      Elements of all intermediate arrays; each as many times as it has terms in a matrix product, or turns in a loop.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> work(jax.make_jaxpr(lambda x: jnp.exp(x).sum())(jnp.zeros(10)).jaxpr)
      11
    """
    return sum(_work_of(equation) for equation in jaxpr.eqns)


def _work_of(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    inner = sum(work(jaxpr) for jaxpr in _bodies(params))
    if inner:
        return inner * (TRIPS if name == "while" else params.get("length", 1))
    size = sum(math.prod(var.aval.shape) for var in equation.outvars)
    first: Any = equation.invars[0].aval if equation.invars else None
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return size * math.prod(first.shape[axis] for axis in contracted)
    if name in ("cholesky", "triangular_solve", "eigh", "qr", "geqrf", "householder_product", "lu"):
        return size * first.shape[-1]
    return size


def _bodies(params: dict[str, Any]) -> Iterator[Any]:
    """The functions inside an equation: of a loop, a branch, a jit, a custom derivative."""
    holds = lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")  # noqa: E731
    for value in jax.tree.leaves(list(params.values()), is_leaf=holds):
        if holds(value):
            yield value if hasattr(value, "eqns") else value.jaxpr
