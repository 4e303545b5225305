"""The sign of an objective: what an optimiser raises, and what it lowers.

Objectives mark their value inside the program that computes it. So the mark is still there under any wrapper, a `partial`,
a closure, a `jit` that was compiled before; an attribute of the function object would be lost.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from elbojax.workarounds.equations import scan_inputs

F = TypeVar("F", bound=Callable[..., Any])

RAISED, LOWERED = "elbojax: to be raised", "elbojax: to be lowered"
"""Names of values in a jaxpr; `checkpoint_name` is the identity under every transformation."""

CARRIED = frozenset({"convert_element_type", "broadcast_in_dim", "reshape", "squeeze"})
"""Primitives through which a known number stays known, as far as its sign goes."""

CONSTANT = frozenset({"stop_gradient", "eq", "ne", "lt", "le", "gt", "ge", "is_finite"})
"""Primitives through which no gradient flows."""

INCREASING = frozenset(
    "convert_element_type broadcast_in_dim reshape squeeze reduce_sum reduce_max reduce_min cumsum transpose copy copy_p"
    " slice dynamic_slice gather concatenate rev exp exp2 log log1p expm1 tanh logistic sqrt cbrt max min add add_any"
    " select_n reduce_precision pad optimization_barrier expand_dims name".split()
)
"""Primitives that decrease in none of their operands, or in none that could hold a mark."""


def raised(objective: F) -> F:
    """Mark a lower bound: an optimiser lowers minus it.

    Example:
      >>> import jax.numpy as jnp
      >>> direction(lambda: raised(jnp.sum)(jnp.ones(2)))
      1
    """
    return _marked(objective, RAISED)


def lowered(objective: F) -> F:
    """Mark a divergence or an upper bound: an optimiser lowers it as it stands.

    Example:
      >>> import jax.numpy as jnp
      >>> direction(lambda: 2.0 * lowered(jnp.sum)(jnp.ones(2)))
      -1
    """
    return _marked(objective, LOWERED)


def _marked(objective: F, name: str) -> F:
    @functools.wraps(objective)
    def marked(*args: Any, **kwargs: Any) -> Any:
        return checkpoint_name(objective(*args, **kwargs), name)

    marked.objective = True  # type: ignore[attr-defined]
    return marked  # type: ignore[return-value]


def direction(value: Callable[[], Any]) -> int:
    """Whether a value is to be raised or lowered, by the marks that it is made of.

    The jaxpr is walked from the value backwards; a minus turns the direction, a weight of known sign keeps or turns it.

    Args:
      value: `() -> scalar`; traced here, not evaluated.

    Returns:
      1 where all marks are to be raised, -1 where all are to be lowered, 0 without a mark.

    Raises:
      ValueError: some are to be raised and some to be lowered, or what is done to them has no sign that could be known.

    Example:
      >>> import jax.numpy as jnp
      >>> bound, penalty = raised(jnp.sum), lowered(jnp.max)
      >>> direction(lambda: bound(jnp.ones(2)) - 0.1 * penalty(jnp.ones(2)))
      1
      >>> direction(lambda: jnp.sum(jnp.ones(2)))
      0
    """
    closed = jax.make_jaxpr(value)()
    marks = _marks(closed.jaxpr)
    if not marks:
        return 0
    found = set().union(*_signs(closed.jaxpr, closed.consts, [frozenset()] * len(closed.jaxpr.invars)))
    if 0 in found and LOWERED not in marks:
        return 1
    if 0 in found:
        raise ValueError(
            "the objective is made of bounds in a way that hides which way it is to be taken; "
            "say so: as_loss(objective, log_density, lower=True), or lower=False"
        )
    if len(found) == 2:
        raise ValueError(
            "the objective adds what is to be raised (a lower bound) to what is to be lowered (a divergence or an upper "
            "bound); give one of them a minus, or say lower=True or lower=False to as_loss"
        )
    return found.pop() if found else 0


def _signs(jaxpr: Any, consts: Any, entering: Any) -> list[frozenset[int]]:
    """For each output, the directions of the marks beneath it: 1, -1, and 0 for one that cannot be known."""
    signs: dict = dict(zip(jaxpr.invars, entering, strict=True))
    numbers: dict = {v: c for v, c in zip(jaxpr.constvars, consts, strict=False) if not isinstance(c, jax.core.Tracer)}

    def of(v: Any) -> frozenset[int]:
        return frozenset() if hasattr(v, "val") else signs.get(v, frozenset())

    def number(v: Any) -> Any:
        return v.val if hasattr(v, "val") else numbers.get(v)

    for eqn in jaxpr.eqns:
        name, operands = eqn.primitive.name, eqn.invars
        if name in CARRIED and number(operands[0]) is not None:
            numbers[eqn.outvars[0]] = number(operands[0])
        for out, found in zip(eqn.outvars, _outputs(eqn, name, operands, of, number), strict=True):
            if found:
                signs[out] = found
    return [of(v) for v in jaxpr.outvars]


def _outputs(eqn: Any, name: str, operands: Any, of: Any, number: Any) -> list[frozenset[int]]:
    nothing, unknown = frozenset[int](), frozenset({0})
    bodies = _inner(eqn)
    if name == "name" and eqn.params["name"] in (RAISED, LOWERED):
        return [frozenset({1 if eqn.params["name"] == RAISED else -1})]
    hidden = set().union(*(_marks(body) for body, _ in bodies))
    if name in CONSTANT or not (hidden or any(of(v) for v in operands)):
        return [nothing] * len(eqn.outvars)
    if name in INCREASING:
        return [nothing.union(*map(of, operands))] * len(eqn.outvars)
    if name == "neg":
        return [_turned(of(operands[0]))]
    if name == "sub":
        return [of(operands[0]) | _turned(of(operands[1]))]
    if name == "mul":
        a, b = operands
        return [_weighted(of(a), number(b)) | _weighted(of(b), number(a))]
    if name == "div":
        a, b = operands
        return [_weighted(of(a), number(b)) | (unknown if of(b) else nothing)]
    taken = operands[1:] if name == "cond" else operands
    fits = bodies and all(
        len(body.invars) == len(taken) and len(body.outvars) == len(eqn.outvars) for body, _ in bodies
    )
    if not fits:
        return [unknown] * len(eqn.outvars)
    entering = [of(v) for v in taken]
    first, carried = scan_inputs(eqn.params) if name == "scan" else (0, 0)
    while True:  # for a scan, until what is carried gathers no more directions; there are three
        results = [_signs(body, body_consts, entering) for body, body_consts in bodies]
        outs = [nothing.union(*(result[i] for result in results)) for i in range(len(eqn.outvars))]
        after = list(entering)
        for i in range(carried):
            after[first + i] = after[first + i] | outs[i]
        if after == entering:
            return outs
        entering = after


def _turned(signs: frozenset[int]) -> frozenset[int]:
    return frozenset(-s for s in signs)


def _weighted(signs: frozenset[int], weight: Any) -> frozenset[int]:
    """Directions of what has a weight: kept, turned, or unknown with the sign of the weight."""
    if not signs:
        return signs
    if weight is not None and np.all(np.asarray(weight) >= 0):
        return signs
    if weight is not None and np.all(np.asarray(weight) <= 0):
        return _turned(signs)
    return frozenset({0})


def _inner(eqn: Any) -> list[tuple[Any, list]]:
    """The jaxprs in an equation, with their constants."""
    bodies: list[tuple[Any, list]] = []
    for param in eqn.params.values():
        for inner in param if isinstance(param, tuple | list) else (param,):
            if hasattr(inner, "jaxpr") and hasattr(inner, "consts"):
                bodies.append((inner.jaxpr, inner.consts))
            elif hasattr(inner, "eqns"):
                bodies.append((inner, []))
    return bodies


def _marks(jaxpr: Any) -> set[str]:
    """The names of all marks in a jaxpr, at any depth."""
    found = {eqn.params["name"] for eqn in jaxpr.eqns if eqn.primitive.name == "name"} & {RAISED, LOWERED}
    return found.union(*(_marks(body) for eqn in jaxpr.eqns for body, _ in _inner(eqn)))
