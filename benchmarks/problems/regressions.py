"""Regressions as log-densities on flat vectors, and data for them: one, or a batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Density(NamedTuple):
    """A posterior on flat vectors, or a batch of them.

    Attributes:
      name: of its rows.
      log_density: `(z [D], data) -> scalar`.
      size: D.
      data: pytree; with a leading axis M where there is a batch.
      models: M, or None for one model.
    """

    name: str
    log_density: Callable[[Any, Any], Any]
    size: int
    data: Any
    models: int | None = None


def eight_schools_log_density(z, data):
    """Not centred, the scale as its logarithm."""
    loc, log_scale, school = z[0], z[1], z[2:]
    scale = jnp.exp(log_scale)
    prior = -0.5 * (loc / 5) ** 2 - jnp.log1p((scale / 5) ** 2) + log_scale - 0.5 * school @ school
    return prior - 0.5 * jnp.sum(((data["y"] - loc - scale * school) / data["sd"]) ** 2)


def logistic_log_density(z, data):
    """With a standard normal prior."""
    logits = data["x"] @ z
    return jnp.sum(data["y"] * logits - jax.nn.softplus(logits)) - 0.5 * z @ z


def logistic_data(key, rows: int, size: int) -> dict[str, Any]:
    """Independent columns; coefficients that sum to a logit of sd one."""
    key_x, key_b, key_y = jax.random.split(key, 3)
    x = jax.random.normal(key_x, (rows, size))
    b = jax.random.normal(key_b, (size,)) / jnp.sqrt(size)
    return {"x": x, "y": jax.random.bernoulli(key_y, jax.nn.sigmoid(x @ b)).astype(x.dtype)}


def eight_schools() -> Density:
    y, sd = [28.0, 8, -3, 7, -1, 1, 18, 12], [15.0, 10, 16, 11, 9, 11, 10, 18]
    return Density("eight schools", eight_schools_log_density, 10, {"y": jnp.array(y), "sd": jnp.array(sd)})


def logistic() -> Density:
    return Density("logistic n=1,000 d=50", logistic_log_density, 50, logistic_data(jax.random.key(0), 1000, 50))


def logistic_batch() -> Density:
    data = jax.vmap(lambda key: logistic_data(key, 200, 10))(jax.random.split(jax.random.key(1), 1000))
    return Density("1,000 x logistic n=200 d=10", logistic_log_density, 10, data, 1000)
