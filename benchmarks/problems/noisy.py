"""Log-densities at a `q` far from the answer, on the way and at it, for the noise of gradient estimators."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import elbojax
from elbojax import densities

Y, SD = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def eight_schools(z):
    """Non-centred: z = (mu, log tau, the eight standardised effects)."""
    mu, log_tau, effects = z[0], z[1], z[2:]
    prior = densities.normal(mu, 0.0, 5.0) + densities.half_cauchy(jnp.exp(log_tau), 5.0) + log_tau
    prior += jnp.sum(densities.normal(effects, 0.0, 1.0))
    return prior + jnp.sum(densities.normal(Y, mu + jnp.exp(log_tau) * effects, SD))


def coupled_coins(z):
    """Eight coins in a ring that like to agree with their neighbours, some pulled to one side."""
    z = jnp.asarray(z, float)
    return 1.2 * jnp.sum((2 * z - 1) * (2 * jnp.roll(z, 1) - 1)) + jnp.asarray(np.linspace(-1.0, 1.5, 8)) @ z


def two_bumps(z):
    return jnp.logaddexp(
        jnp.log(0.35) + jnp.sum(densities.normal(z, -1.2, 0.7)), jnp.log(0.65) + jnp.sum(densities.normal(z, 1.2, 0.9))
    )


class Noisy(NamedTuple):
    """A log-density, and how `q` comes to it.

    Attributes:
      log_density: `z -> scalar`.
      start: makes the first `q`.
      objective: that is climbed from there.
    """

    log_density: Callable[[Any], Any]
    start: Callable[[], Any]
    objective: Callable


PROBLEMS = {
    "eight schools, D = 10": Noisy(eight_schools, lambda: elbojax.mean_field(jnp.zeros(10), 1.0), elbojax.elbo_stl),
    "coupled coins, D = 8": Noisy(coupled_coins, lambda: elbojax.bernoulli(jnp.zeros(8)), elbojax.elbo_rloo),
    "two bumps, D = 2": Noisy(two_bumps, lambda: elbojax.mean_field(jnp.ones(2), 1.5), elbojax.elbo_stl),
}
STEPS = 2000
PLACES = {"start": 0, "on the way": STEPS // 20, "fitted": STEPS}
"""Steps of Adam after which `q` is looked at."""


def q_at(problem: Noisy, num_steps: int) -> Any:
    """`q` after so many steps."""
    if not num_steps:
        return problem.start()
    solver = elbojax.svi(elbojax.as_loss(problem.objective, problem.log_density, num_samples=32), optax.adam(0.03))
    return elbojax.run(jax.random.key(0), solver, problem.start(), num_steps=num_steps).q


def exact_importance(q, k):
    """The gradient of the importance-weighted bound from many draws, for its estimators' bias."""
    draws = 64 if k < 64 else 16
    one = jax.grad(lambda key, q: elbojax.iw_elbo_dreg(key, q, two_bumps, num_samples=draws, num_importance=k), 1)
    gradients = jax.lax.map(lambda key: one(key, q), jax.random.split(jax.random.key(99), 1024), batch_size=16)
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), gradients)
