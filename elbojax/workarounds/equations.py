"""Calling the primitive of one equation of a jaxpr, whose form differs between versions of JAX."""

from typing import Any


def bind(equation: Any, arguments: list[Any]) -> Any:
    """What the primitive of an equation returns.

    Args:
      equation: of a jaxpr.
      arguments: values of its inputs.

    Returns:
      A list where the primitive has several results.

    Example:
      >>> import jax
      >>> bind(jax.make_jaxpr(lambda x: 2 * x)(1.0).eqns[0], [2.0, 3.0]).item()
      6.0
    """
    bound = equation.primitive.get_bind_params(equation.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # the first form up to jax 0.9
    return equation.primitive.bind(*functions, *arguments, **params)
