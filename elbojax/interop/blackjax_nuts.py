"""NUTS by BlackJAX on the same log-density: what one would use instead, and where a `q` that failed is handed over."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from elbojax.types import Array, Key, LogDensity, Scalar

MOST = 2**10 - 1
"""Gradients of one transition, at most: BlackJAX doubles a trajectory ten times."""


class Chains(NamedTuple):
    """Draws of several chains and what they cost.

    Attributes:
      draws: [C, S, D].
      num_gradients: leapfrog steps of all chains, warm-up included.
      num_divergent: divergent transitions after the warm-up.
      cut: whether a chain was stopped, for the limit of gradients was near; its draws then repeat the last.
    """

    draws: Array
    num_gradients: Array
    num_divergent: Array
    cut: Array


def nuts(
    key: Key,
    log_density: LogDensity,
    starts: Array,
    *,
    num_warmup: int = 500,
    num_samples: int = 500,
    limit: Scalar | None = None,
) -> Chains:
    """Draws from a log-density on flat vectors, by the no-U-turn sampler with window adaptation.

    A pure function: `jit` it with the log-density closed over.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      starts: [C, D] one start per chain, draws of a fitted `q` say.
      num_warmup: steps of adaptation, static.
      num_samples: S kept for each chain, static.
      limit: gradients of all chains, traced, that are not to be exceeded, and at least one for each transition; None for as
        many as it takes.

    Returns:
      `Chains`.

    Raises:
      ModuleNotFoundError: the `interop` extra is not installed.

    References:
      Hoffman, Gelman 2014, https://jmlr.org/papers/v15/hoffman14a.html
    """
    import blackjax

    num_chains, total = starts.shape[0], num_warmup + num_samples
    sampler: Any = blackjax.nuts
    if limit is not None:
        sampler = _Limited(blackjax.nuts, jnp.floor(limit / num_chains) - MOST - total)

    def chain(key, start):
        warmup_key, sample_key = jax.random.split(key)
        warmup = blackjax.window_adaptation(sampler, log_density)
        (state, parameters), history = warmup.run(warmup_key, start, num_warmup)
        kernel = sampler.build_kernel()

        def body(state, key):
            state, info = kernel(key, state, log_density, **parameters)
            return state, (state.position, info.num_integration_steps, info.is_divergent)

        state, (draws, leapfrogs, divergent) = jax.lax.scan(body, state, jax.random.split(sample_key, num_samples))
        used = jnp.sum(leapfrogs) + jnp.sum(history.info.num_integration_steps)
        cut = jnp.zeros((), bool) if limit is None else state.cut
        return draws, used, jnp.sum(divergent), cut

    draws, used, divergent, cut = jax.vmap(chain)(jax.random.split(key, num_chains), starts)
    return Chains(draws, jnp.sum(used), jnp.sum(divergent), jnp.any(cut))


class _Counted(NamedTuple):
    """The state of a chain, as BlackJAX reads it, and what it has cost."""

    position: Array
    logdensity: Array
    logdensity_grad: Array
    used: Array
    cut: Array


class _Limited(NamedTuple):
    """NUTS whose transitions end after one gradient once a chain has used its share.

    Args:
      sampler: of BlackJAX.
      share: gradients after which a chain stands still.
    """

    sampler: Any
    share: Scalar

    def init(self, position: Array, log_density: LogDensity) -> _Counted:
        here = self.sampler.init(position, log_density)
        none = jnp.zeros((), jnp.int32)
        return _Counted(here.position, here.logdensity, here.logdensity_grad, none, jnp.zeros((), bool))

    def build_kernel(self, *integrator: Any) -> Callable[..., tuple[_Counted, Any]]:
        kernel = self.sampler.build_kernel(*integrator)

        def limited(key, state, log_density, step_size, inverse_mass_matrix):
            cut = state.cut | (state.used > self.share)
            # A step out of the space diverges at once: chains run side by side, where no branch is spared.
            step_size = jnp.where(cut, jnp.inf, step_size)
            inner = type(self.sampler.init(state.position, log_density))(*state[:3])
            inner, info = kernel(key, inner, log_density, step_size, inverse_mass_matrix)
            used = state.used + info.num_integration_steps
            return _Counted(inner.position, inner.logdensity, inner.logdensity_grad, used, cut), info

        return limited
