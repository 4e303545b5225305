"""The pattern of the Hessian from the operations of a log-density, without computing any: for any number of coordinates.

Each number carries the coordinates on which it depends. Linear operations unite them; where numbers enter nonlinearly, pairs of
their coordinates are entries of the Hessian. An operation that is not known here makes all its inputs touch each other.

Reference: Walther 2008, Computing sparse Hessians with automatic differentiation, https://doi.org/10.1145/1322436.1322439
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.structure.domains import Domain, Pairs, empty, union
from elbojax.structure.rules import RULES
from elbojax.structure.scans import together
from elbojax.targets import Target
from elbojax.types import PyTree
from elbojax.workarounds.equations import scan_inputs

FEW = 500
"""Operations of an unrolled loop, of 0.3 ms each, beyond which all turns are looked at together where they can be."""
STEPS = 100_000
"""Operations of unrolled loops beyond which the inputs of a loop all count as touching each other: half a minute."""


def traced(target: Target, data: PyTree) -> tuple[Any, bool]:
    """A pattern that holds that of the Hessian at every point; under `jax.enable_x64(True)`.

    Args:
      target: whose log-density it is.
      data: concrete.

    Returns:
      `scipy.sparse` [D, D] of bool, symmetric with its diagonal, None where it cannot be told; and whether all operations were
      known.
    """
    arguments = () if data is None else (data,)
    # A function of its own, for `make_jaxpr` keeps traces by identity.
    closed = jax.make_jaxpr(lambda z: target.log_density(z, *arguments))(
        jax.ShapeDtypeStruct((target.size,), jnp.result_type(float))
    )
    import scipy.sparse as sp

    pairs = Pairs(target.size)
    start = Domain((target.size,), sp.csr_array(sp.eye_array(target.size, dtype=bool)))
    interpreter = _Interpreter(pairs)
    try:
        interpreter.run(closed.jaxpr, closed.consts, [start])
    except Exception:  # what a rule does not foresee means dense, as an unknown operation does
        return None, False
    return pairs.pattern(), interpreter.all_known


class _Interpreter:
    """Runs jaxprs on domains; what depends on no coordinate is computed."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs, self._left, self.all_known = pairs, STEPS, True

    def run(self, jaxpr: Any, consts: Any, args: list[Any]) -> list[Any]:
        """The outputs: domains, or arrays where they depend on nothing."""
        known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        known.update(zip(jaxpr.invars, args, strict=True))
        for equation in jaxpr.eqns:
            inputs = [v.val if hasattr(v, "val") else known[v] for v in equation.invars]
            outputs = self.step(equation, inputs)
            known.update(zip(equation.outvars, outputs, strict=True))
        return [v.val if hasattr(v, "val") else known[v] for v in jaxpr.outvars]

    def step(self, equation: Any, inputs: list[Any]) -> list[Any]:
        """The outputs of one operation."""
        name = equation.primitive.name
        if not any(isinstance(x, Domain) for x in inputs):
            if name.startswith("custom_"):
                return _call(self, equation, inputs)
            found = equation.primitive.bind(*inputs, **equation.params)
            return list(found) if equation.primitive.multiple_results else [found]
        shapes = [v.aval.shape for v in equation.outvars]
        if not any(jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in equation.outvars):
            return [empty(shape, self.pairs.size) for shape in shapes]  # a comparison has no derivative
        if name in _CALLS:
            return _CALLS[name](self, equation, inputs)
        if name in RULES:
            found = RULES[name](self.pairs, equation, inputs)
            return found if isinstance(found, list) else [found]
        return self.unknown(inputs, shapes)

    def unknown(self, inputs: list[Any], shapes: list[tuple[int, ...]]) -> list[Any]:
        """All outputs on all inputs, which meet."""
        self.all_known = False
        whole = union([x.total() for x in inputs if isinstance(x, Domain)])
        self.pairs.within(whole)
        return [whole.spread(shape) for shape in shapes]

    def inner(self, pairs: Pairs) -> "_Interpreter":
        """Another, for the body of a loop."""
        return _Interpreter(pairs)

    def spend(self, steps: int) -> bool:
        """Whether so many steps are left."""
        if steps > self._left:
            return False
        self._left -= steps
        return True


def _inner(equation: Any) -> Any:
    return next(equation.params[name] for name in ("jaxpr", "call_jaxpr", "fun_jaxpr") if name in equation.params)


def _call(interpreter: _Interpreter, equation: Any, inputs: list[Any]) -> list[Any]:
    inner = _inner(equation)
    jaxpr, consts = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
    return interpreter.run(jaxpr, consts, inputs)


def _cond(interpreter: _Interpreter, equation: Any, inputs: list[Any]) -> list[Any]:
    branches = equation.params["branches"]
    if not isinstance(inputs[0], Domain):
        branches = [branches[int(np.clip(inputs[0], 0, len(branches) - 1))]]
    outputs = [interpreter.run(branch.jaxpr, branch.consts, inputs[1:]) for branch in branches]
    size = interpreter.pairs.size
    if len(outputs) == 1:
        return outputs[0]
    return [union([_domain(x, size) for x in each]) for each in zip(*outputs, strict=True)]


def _scan(interpreter: _Interpreter, equation: Any, inputs: list[Any]) -> list[Any]:
    params = equation.params
    body, length = params["jaxpr"], params["length"]
    shapes = [v.aval.shape for v in equation.outvars]
    steps = length * len(body.jaxpr.eqns)
    if steps > FEW and (found := together(interpreter, equation, inputs)) is not None:
        return found
    if not interpreter.spend(steps):
        return interpreter.unknown(inputs, shapes)
    num_consts, num_carry = scan_inputs(params)
    consts, carry, rows = (
        inputs[:num_consts],
        inputs[num_consts : num_consts + num_carry],
        inputs[num_consts + num_carry :],
    )
    rows = [x if isinstance(x, Domain) else np.asarray(x) for x in rows]
    stacked: list[Any] = [None] * length
    for turn in range(length):
        at = length - 1 - turn if params["reverse"] else turn
        found = interpreter.run(body.jaxpr, body.consts, [*consts, *carry, *(_row(x, at) for x in rows)])
        carry, stacked[at] = found[:num_carry], found[num_carry:]
    size = interpreter.pairs.size
    import scipy.sparse as sp

    out = []
    for place, shape in enumerate(shapes[num_carry:]):
        parts = [_domain(each[place], size).rows for each in stacked]
        out.append(Domain(shape, sp.csr_array(sp.vstack(parts), dtype=bool)) if parts else empty(shape, size))
    return [*carry, *out]


def _row(x: Any, at: int) -> Any:
    return x.taken(x.ids()[at]) if isinstance(x, Domain) else x[at]


def _domain(x: Any, size: int) -> Domain:
    return x if isinstance(x, Domain) else empty(np.shape(x), size)


_CALLS: dict[str, Callable[..., list[Any]]] = {
    "cond": _cond,
    "scan": _scan,
    **dict.fromkeys(
        (
            "jit",
            "pjit",
            "closed_call",
            "core_call",
            "remat",
            "remat2",
            "checkpoint",
            "custom_jvp_call",
            "custom_vjp_call",
        ),
        _call,
    ),
}
