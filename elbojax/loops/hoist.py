"""Draw the randomness of many steps at once.

A step that takes a key spends, on a small model, most of its time on drawing a few numbers: 50 ns each where a
long vector costs 10. `hoist` splits any step, whatever its author wrote, into what depends on the key alone
(the draws) and the rest, so that a loop can make the draws of a whole block of steps in one go.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Literal

from elbojax.types import Key, PyTree
from elbojax.workarounds.equations import bind


def hoist(
    step: Callable[..., PyTree], key: Key, *args: PyTree
) -> tuple[Callable[[Key], list[Any]], Callable[..., PyTree]]:
    r"""Split `step(key, *args)` into `draw(key)` and `rest(draws, *args)`.

    .. math:: \mathrm{step}(\mathrm{key}, \cdot) = \mathrm{rest}(\mathrm{draw}(\mathrm{key}), \cdot)

    Equations of the traced step whose inputs come from the key alone go to `draw`; those that depend on nothing
    at all stay where they are.

    Args:
      step: a function of a key and of pytrees.
      key: an example key; only its type is used.
      *args: example arguments; only their shapes and dtypes are used.

    Returns:
      `draw(key) -> list` and `rest(draws, *args) -> step's result`.

    Example:
      >>> import jax
      >>> step = lambda key, x: x + jax.random.normal(key)
      >>> draw, rest = hoist(step, jax.random.key(0), 1.0)
      >>> key = jax.random.key(1)
      >>> float(rest(draw(key), 1.0)) == float(step(key, 1.0))
      True

    References:
      Writing custom interpreters in JAX,
      https://docs.jax.dev/en/latest/notebooks/Writing_custom_interpreters_in_Jax.html
    """
    closed, out_shape = jax.make_jaxpr(lambda *a: step(*a), return_shape=True)(
        key, *args
    )  # a new function: traces are kept
    jaxpr, out_tree = closed.jaxpr, jax.tree.structure(out_shape)
    key_var, *arg_vars = jaxpr.invars

    from_key = {key_var}
    early, late = [], []
    for eqn in jaxpr.eqns:
        inputs = [v for v in eqn.invars if not isinstance(v, Literal)]
        if inputs and not eqn.effects and all(v in from_key for v in inputs):
            early.append(eqn)
            from_key.update(eqn.outvars)
        else:
            late.append(eqn)
    needed = [v for eqn in late for v in eqn.invars] + list(jaxpr.outvars)
    crossing = list(dict.fromkeys(v for v in needed if not isinstance(v, Literal) and v in from_key))

    def draw(key: Key) -> list[Any]:
        values = _evaluate(early, {key_var: key})
        return [values[v] for v in crossing]

    def rest(draws: list[Any], *args: PyTree) -> PyTree:
        values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        values.update(zip(arg_vars, jax.tree.leaves(args), strict=True))
        values.update(zip(crossing, draws, strict=True))
        values = _evaluate(late, values)
        return jax.tree.unflatten(out_tree, [_read(values, v) for v in jaxpr.outvars])

    return draw, rest


def _read(values: dict[Any, Any], variable: Any) -> Any:
    return variable.val if isinstance(variable, Literal) else values[variable]


def _evaluate(equations: list[Any], values: dict[Any, Any]) -> dict[Any, Any]:
    for eqn in equations:
        results = bind(eqn, [_read(values, v) for v in eqn.invars])
        values.update(zip(eqn.outvars, results if eqn.primitive.multiple_results else [results], strict=True))
    return values
