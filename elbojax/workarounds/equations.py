"""Equations of a jaxpr whose form differs between versions of JAX."""

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


def scan_inputs(params: dict[str, Any]) -> tuple[int, int]:
    """How many inputs of a `scan` are constants, and how many are carried on (workaround "scans").

    Args:
      params: of its equation.

    Returns:
      Both numbers; the other inputs are sequences.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> turn = lambda c, x: (c + x, None)
      >>> scan_inputs(jax.make_jaxpr(lambda xs: jax.lax.scan(turn, 0.0, xs)[0])(jnp.ones(3)).eqns[0].params)
      (0, 1)
    """
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = (len(list(part)) for part in params["ft_in"].unpack())
    return consts, carry
