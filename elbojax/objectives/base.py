"""What every objective is made of: draws of `q`, an integrand, and their average."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from elbojax.families import Family, Reparameterised
from elbojax.families.base import check_family, check_one
from elbojax.inputs import check_count, check_key, check_real
from elbojax.noise import Draws
from elbojax.numerics import magic_box, stop_gradient
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
    if hasattr(log_density, "log_prob"):
        raise TypeError(
            f"log_density must be a function, got the distribution {type(log_density).__name__}; pass a sum of its log_prob"
        )
    if not callable(log_density):
        raise TypeError(
            f"log_density must be a function, got {type(log_density).__name__}; an optimiser is given "
            "as_loss(objective, log_density), not the objective itself"
        )
    value = log_density(event)
    shape = getattr(value, "shape", () if isinstance(value, float | int) else None)
    if shape != ():
        given = f"an array of shape {shape}" if shape is not None else f"a {type(value).__name__}"
        raise TypeError(
            f"log_density must return a scalar, the log-density of one event; it returned {given}. Sum over data points."
        )
    check_real(value, "the value of the log-density")
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
    check_family(q)
    if not isinstance(q, Reparameterised):
        raise TypeError(
            f"a pathwise gradient needs a Reparameterised q, got {type(q).__name__}; "
            "for discrete latents use elbo_rloo or elbo_score"
        )
    check_one(q)
    check_samples("num_samples", num_samples)
    check_key(key)
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
    check_family(q)
    check_one(q)
    check_samples("num_samples", num_samples)
    check_key(key)
    events = jax.lax.stop_gradient(jax.vmap(q.sample)(jax.random.split(key, num_samples)))
    return events, jax.vmap(q.log_prob)(events)


def log_ratios(
    noise: Array, q: Reparameterised, log_density: LogDensity, *, frozen: bool = False
) -> tuple[Array, Array]:
    r"""Logarithms of importance ratios at pathwise draws, and how much each counts.

    .. math:: \log w = \log p(x, z) - \log q(z), \qquad z = T_q(\epsilon)

    Args:
      noise: [S, noise_size].
      q: a `Reparameterised` family of C strata, 1 for all but mixtures.
      log_density: event -> scalar.
      frozen: True to stop the gradient in `q` but through the draws, static.

    Returns:
      [S, C] log-ratios and [S, C] weights of the strata, which sum to one for each draw.
    """
    if frozen:
        events, weights = jax.vmap(q.strata)(noise)
        log_q = map_strata(stop_gradient(q).log_prob, events)
    else:
        events, log_q, weights = jax.vmap(q.strata_and_log_prob)(noise)
    return map_strata(lambda z: evaluate(log_density, z), events) - log_q, weights


def draw_groups(key: Key, q: Family, num_samples: int, num_importance: int, draws: Draws) -> Array:
    """Noise for S estimates of K draws each, once it is known that both are at least 1.

    Args:
      key: consumed.
      q: a `Reparameterised` family.
      num_samples: S, static.
      num_importance: K, static.
      draws: one of the samplers in `elbojax.noise`.

    Returns:
      [S, K, noise_size].

    Raises:
      TypeError: `q` is not reparameterised.
      ValueError: S or K are below 1.
    """
    check_groups(num_samples, num_importance)
    flat = draw_noise(key, q, num_samples * num_importance, draws)
    return flat.reshape(num_samples, num_importance, -1)


def check_samples(name: str, value: Any, least: int = 1) -> None:
    """Raise TypeError unless a number of draws is an int, ValueError unless it is large enough."""
    check_count(name, value, least)


def check_groups(num_samples: int, num_importance: int, least: int = 1) -> None:
    """Raise ValueError unless there is an estimate, of so many draws at least."""
    check_samples("num_samples", num_samples)
    check_samples("num_importance", num_importance, least)


def rewards(key: Key, q: Family, log_density: LogDensity, num_samples: int) -> tuple[Array, Array, Any]:
    """What score-function gradients weigh: log p(x, z) - log q(z) of draws through which no gradient flows.

    Args:
      key: consumed.
      q: any `Family`.
      log_density: event -> scalar.
      num_samples: S, static.

    Returns:
      [S] rewards, which have no gradient in `q`; [S] log q, which has; the events.
    """
    events, log_q = sample_events(key, q, num_samples)
    log_p = jax.vmap(lambda z: evaluate(log_density, z))(events)
    return log_p - jax.lax.stop_gradient(log_q), log_q, events


def with_score(value: Array, advantage: Array, log_q: Array) -> Scalar:
    """The mean value, whose gradient in `q` is the mean of advantage times score.

    Args:
      value: [S] or scalar.
      advantage: [S].
      log_q: [S], with its gradient.

    Returns:
      Scalar.
    """
    return jnp.mean(value) + jnp.mean((magic_box(log_q) - 1) * jax.lax.stop_gradient(advantage))


def mean_log_mean_exp(log_w: Array, weights: Array) -> Scalar:
    r"""Estimates of the log evidence from K draws each, averaged.

    .. math:: \frac1S \sum_s \log \frac1K \sum_{k, c} b_{skc}\, w_{skc}

    Args:
      log_w: [S, K, C] log-ratios of C strata.
      weights: [S, K, C] of the strata, which sum to one for each draw.

    Returns:
      Scalar.
    """
    return jnp.mean(jax.nn.logsumexp(log_w, axis=(1, 2), b=weights / log_w.shape[1]))
