"""What every objective is made of: draws of `q`, an integrand, and their average."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from elbojax.families import Family, Reparameterised
from elbojax.noise import Draws
from elbojax.types import Array, Event, Key, LogDensity, Scalar


def evaluate(log_density: LogDensity, event: Event) -> Scalar:
    """The log-density of one event, once it is known to be a scalar.

    Args:
      log_density: event -> scalar.
      event: one event.

    Returns:
      Scalar.

    Raises:
      TypeError: it returned something else than one scalar array.
    """
    value = log_density(event)
    shape = getattr(value, "shape", () if isinstance(value, float | int) else None)
    if shape != ():
        given = f"an array of shape {shape}" if shape is not None else f"a {type(value).__name__}"
        raise TypeError(
            f"log_density must return a scalar, the log-density of one event; it returned {given}. Sum over data points."
        )
    return jnp.asarray(value)


def draw_noise(key: Key, q: Family, num_samples: int, draws: Draws) -> Array:
    """Noise for `q`, once it is known to have a pathwise map.

    Args:
      key: consumed.
      q: a `Reparameterised` family.
      num_samples: S, static.
      draws: one of the samplers in `elbojax.noise`.

    Returns:
      [S, noise_size].

    Raises:
      TypeError: `q` is not reparameterised.
      ValueError: `num_samples` is below 1.
    """
    if not isinstance(q, Reparameterised):
        raise TypeError(
            f"a pathwise gradient needs a Reparameterised q, got {type(q).__name__}; "
            "for discrete latents use elbo_rloo or elbo_score"
        )
    return draws(key, num_samples, q.noise_size, q.dtype)


def average(integrand: Callable[[Event], Scalar], noise: Array, q: Reparameterised) -> Scalar:
    r"""Pathwise estimate of an expectation under `q` on given noise.

    .. math:: \frac1S \sum_s \sum_k w_k\, f(z_{sk})

    Args:
      integrand: f, event -> scalar.
      noise: [S, noise_size].
      q: a `Reparameterised` family.

    Returns:
      Scalar.
    """
    events, weights = jax.vmap(q.strata)(noise)
    return jnp.sum(weights * map_strata(integrand, events)) / noise.shape[0]


def map_strata(integrand: Callable[[Event], Scalar], events: Event) -> Array:
    """The integrand at every stratum of every draw.

    One `vmap` over all of them: under two nested ones XLA transposes a log-likelihood and is slower by half on CPU.

    Args:
      integrand: event -> scalar.
      events: with leading axes S and K.

    Returns:
      [S, K].
    """
    num_samples, num_strata = jax.tree.leaves(events)[0].shape[:2]
    flat = jax.tree.map(lambda x: x.reshape(num_samples * num_strata, *x.shape[2:]), events)
    return jax.vmap(integrand)(flat).reshape(num_samples, num_strata)


def sample_events(key: Key, q: Family, num_samples: int) -> tuple[Any, Array]:
    """Draws through which no gradient flows, and their log-probabilities, through which it does.

    Args:
      key: consumed.
      q: any `Family`.
      num_samples: S, static.

    Returns:
      Events with a leading axis S, and [S].

    Raises:
      ValueError: `num_samples` is below 1.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    events = jax.lax.stop_gradient(jax.vmap(q.sample)(jax.random.split(key, num_samples)))
    return events, jax.vmap(q.log_prob)(events)
