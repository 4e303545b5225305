"""NUTS by BlackJAX on the same log-density: what one would use instead, and where a `q` that failed is handed over."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax.types import Array, Key, LogDensity


class Chains(NamedTuple):
    """Draws of several chains and what they cost.

    Attributes:
      draws: [C, S, D].
      num_gradients: leapfrog steps of all chains, warm-up included.
      num_divergent: divergent transitions after the warm-up.
    """

    draws: Array
    num_gradients: Array
    num_divergent: Array


def nuts(key: Key, log_density: LogDensity, starts: Array, *, num_warmup: int = 500, num_samples: int = 500) -> Chains:
    """Draws from a log-density on flat vectors, by the no-U-turn sampler with window adaptation.

    A pure function: `jit` it with the log-density closed over.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      starts: [C, D] one start per chain, draws of a fitted `q` say.
      num_warmup: steps of adaptation, static.
      num_samples: S kept for each chain, static.

    Returns:
      `Chains`.

    Raises:
      ModuleNotFoundError: the `interop` extra is not installed.

    References:
      Hoffman, Gelman 2014, https://jmlr.org/papers/v15/hoffman14a.html
    """
    import blackjax

    def chain(key, start):
        warmup_key, sample_key = jax.random.split(key)
        warmup = blackjax.window_adaptation(blackjax.nuts, log_density)
        (state, parameters), history = warmup.run(warmup_key, start, num_warmup)
        step = blackjax.nuts(log_density, **parameters).step

        def body(state, key):
            state, info = step(key, state)
            return state, (state.position, info.num_integration_steps, info.is_divergent)

        _, (draws, leapfrogs, divergent) = jax.lax.scan(body, state, jax.random.split(sample_key, num_samples))
        spent = jnp.sum(leapfrogs) + jnp.sum(history.info.num_integration_steps)
        return draws, spent, jnp.sum(divergent)

    draws, spent, divergent = jax.vmap(chain)(jax.random.split(key, starts.shape[0]), starts)
    return Chains(draws, jnp.sum(spent), jnp.sum(divergent))
