"""Posteriors of any size D, whose data grow with D so that a gradient costs D.

A random walk seen through noise, whose posterior is a Gaussian that dense linear algebra knows exactly, and a logistic
regression with sparse rows and mostly zero coefficients, N = 4 D.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

STEP = 0.05
"""Variance of a step of the walk, that of the noise being one: neighbours of an sd 2.1 times that given the others."""
ENTRIES, ROWS_PER_COLUMN, NONZERO = 8, 4, 0.2


class Growing(NamedTuple):
    """A posterior of any size.

    Attributes:
      log_density: `(z [D], data) -> scalar`.
      data: `D -> pytree`.
      truth: `data -> means and sds [D]`, where they are known.
    """

    log_density: Callable[[Any, Any], Any]
    data: Callable[[int], Any]
    truth: Callable[[Any], tuple[np.ndarray, np.ndarray]] | None


def random_walk(z, data):
    steps = jnp.sum(jnp.diff(z) ** 2) / STEP
    return -0.5 * (z[0] ** 2 + steps + jnp.sum((data["y"] - z) ** 2))


def random_walk_data(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    walk = np.cumsum(np.sqrt(STEP) * rng.normal(size=size))
    return {"y": walk + rng.normal(size=size)}


def random_walk_truth(data: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    size = data["y"].size
    precision = np.diag(np.full(size, 1 + 2 / STEP))
    precision[0, 0], precision[-1, -1] = 2 + 1 / STEP, 1 + 1 / STEP
    i = np.arange(size - 1)
    precision[i, i + 1] = precision[i + 1, i] = -1 / STEP
    covariance = np.linalg.inv(precision)
    return covariance @ data["y"], np.sqrt(np.diag(covariance))


def logistic(z, data):
    logits = jnp.sum(data["x"] * z[data["column"]], axis=1)
    return -jnp.sum(jax.nn.softplus(-data["sign"] * logits)) - 0.5 * z @ z


def logistic_data(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (ROWS_PER_COLUMN * size, ENTRIES)
    x, column = rng.normal(size=shape), rng.integers(size, size=shape)
    coefficients = np.where(rng.uniform(size=size) < NONZERO, rng.normal(size=size), 0)
    probability = 1 / (1 + np.exp(-np.sum(x * coefficients[column], axis=1)))
    return {"x": x, "column": column, "sign": np.where(rng.uniform(size=shape[0]) < probability, 1.0, -1.0)}


PROBLEMS = {
    "random walk": Growing(random_walk, random_walk_data, random_walk_truth),
    "sparse logistic": Growing(logistic, logistic_data, None),
}
