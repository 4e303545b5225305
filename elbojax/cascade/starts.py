"""Other starts, where the log-density or its gradient is not finite at the given one: as Stan and NumPyro draw them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax import thresholds
from elbojax.types import Array, Key, LogDensity, Scalar


class Found(NamedTuple):
    """A start.

    Attributes:
      position: [D]; the given one where none was found.
      finite: whether log-density and gradient are finite there.
      tried: how many were looked at after the given one.
    """

    position: Array
    finite: Array
    tried: Array


def drawn() -> str:
    """Where starts are looked for, in words."""
    width = thresholds.START_WITHIN
    return f"drawn uniformly from {-width:g} to {width:g} in each unconstrained coordinate, or from around it"


def another(key: Key, log_density: LogDensity, start: Array) -> Found:
    """The given start, or the first of those drawn where log-density and gradient are finite.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      start: [D].

    Returns:
      `Found`; with `tried` 0 where the given one will do.

    References:
      Stan Development Team, CmdStan Guide, Initial values; numpyro.infer.init_to_uniform
    """
    gradient = jax.value_and_grad(log_density)

    def propose(i: Array) -> Array:
        width = jnp.where(
            i > thresholds.START_TRIES, thresholds.START_AROUND, jnp.where(i > 0, thresholds.START_WITHIN, 0)
        ).astype(start.dtype)
        noise = jax.random.uniform(jax.random.fold_in(key, i), start.shape, start.dtype, -1, 1)
        return jnp.where((i == 0) | (i > thresholds.START_TRIES), start, 0) + width * noise

    def body(state: tuple[Array, Array, Scalar]) -> tuple[Array, Array, Array]:
        i = state[0] + 1
        value, slope = gradient(propose(i))
        return i, propose(i), jnp.isfinite(value) & jnp.all(jnp.isfinite(slope))

    def unfinished(state: tuple[Array, Array, Scalar]) -> Array:
        return ~state[2] & (state[0] < 2 * thresholds.START_TRIES)

    none = jnp.zeros((), jnp.int32)
    tried, position, finite = jax.lax.while_loop(unfinished, body, (none - 1, start, jnp.zeros((), bool)))
    return Found(jnp.where(finite, position, start), finite, tried)
