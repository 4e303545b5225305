"""Generative models: a prior, data from it, and the log-density, whose prior can be made wrong.

A logistic regression, a hierarchical normal model (non-centred), and an autoregression.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import bijectors, densities

ROWS, COVARIATES = 50, 3
GROUPS, PER_GROUP = 8, 5
LENGTH = 60


class Generative(NamedTuple):
    """A generative model.

    Attributes:
      sample_prior: `(key) -> position`.
      simulate: `(key, position) -> datum`.
      log_density: `(position, datum, width) -> scalar`, with a prior so many times as wide.
      init: a start.
      support: of positions.
    """

    sample_prior: Callable
    simulate: Callable
    log_density: Callable
    init: Any
    support: Any


def logistic_prior(key):
    a, b = jax.random.split(key)
    return {"intercept": jax.random.normal(a), "slopes": jax.random.normal(b, (COVARIATES,))}


def logistic_data(key, position):
    x_key, y_key = jax.random.split(key)
    x = jax.random.normal(x_key, (ROWS, COVARIATES))
    heads = jax.random.bernoulli(y_key, jax.nn.sigmoid(position["intercept"] + x @ position["slopes"]))
    return {"x": x, "y": heads.astype(x.dtype)}


def logistic_density(position, data, width):
    logits = position["intercept"] + data["x"] @ position["slopes"]
    prior = densities.normal(position["intercept"], 0.0, width) + jnp.sum(
        densities.normal(position["slopes"], 0.0, width)
    )
    return prior + jnp.sum(data["y"] * logits - jax.nn.softplus(logits))


def hierarchy_prior(key):
    mu, tau, eta = jax.random.split(key, 3)
    return {
        "mu": 2 * jax.random.normal(mu),
        "tau": jnp.abs(jax.random.normal(tau)),
        "eta": jax.random.normal(eta, (GROUPS,)),
    }


def hierarchy_data(key, position):
    means = position["mu"] + position["tau"] * position["eta"]
    return means[:, None] + jax.random.normal(key, (GROUPS, PER_GROUP))


def hierarchy_density(position, y, width):
    prior = (
        densities.normal(position["mu"], 0.0, 2 * width)
        + densities.half_normal(position["tau"], width)
        + jnp.sum(densities.normal(position["eta"], 0.0, 1.0))
    )
    means = position["mu"] + position["tau"] * position["eta"]
    return prior + jnp.sum(densities.normal(y, means[:, None], 1.0))


def autoregression_prior(key):
    a, b, c = jax.random.split(key, 3)
    return {
        "level": jax.random.normal(a),
        "phi": 2 * jax.random.beta(b, 4.0, 2.0) - 1,
        "sigma": jnp.exp(0.5 * jax.random.normal(c)),
    }


def autoregression_data(key, position):
    shocks = position["sigma"] * jax.random.normal(key, (LENGTH,))

    def step(y, shock):
        y = position["level"] + position["phi"] * y + shock
        return y, y

    return jax.lax.scan(step, jnp.zeros(()), shocks)[1]


def autoregression_density(position, y, width):
    prior = (
        densities.normal(position["level"], 0.0, width)
        + densities.beta((position["phi"] + 1) / 2, 4.0, 2.0)
        + densities.normal(jnp.log(position["sigma"]), 0.0, 0.5 * width)
        - jnp.log(position["sigma"])
    )
    before = jnp.concatenate([jnp.zeros(1), y[:-1]])
    return prior + jnp.sum(densities.normal(y, position["level"] + position["phi"] * before, position["sigma"]))


MODELS = {
    "logistic regression": Generative(
        logistic_prior, logistic_data, logistic_density, {"intercept": 0.0, "slopes": np.zeros(COVARIATES)}, None
    ),
    "hierarchical normal": Generative(
        hierarchy_prior,
        hierarchy_data,
        hierarchy_density,
        {"mu": 0.0, "tau": 1.0, "eta": np.zeros(GROUPS)},
        {"tau": "positive"},
    ),
    "autoregression": Generative(
        autoregression_prior,
        autoregression_data,
        autoregression_density,
        {"level": 0.0, "phi": 0.3, "sigma": 1.0},
        {"phi": bijectors.interval(-1.0, 1.0), "sigma": "positive"},
    ),
}
