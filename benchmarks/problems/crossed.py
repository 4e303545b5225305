"""Two crossed factors of effects, and item response: log-density, start, data and support at any size.

Normal likelihoods have an independent answer: effects and mean integrated out by dense linear algebra, the three scales by
importance sampling.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PROPOSALS = 600
"""Of the three scales, in `exact`."""


def crossed(kind: str, large: int, small: int, num_rows: int) -> tuple[Any, ...]:
    """Log-density, start, data, support of two crossed factors of effects with their scales."""
    rng = np.random.default_rng(0)
    a, b = 0.8 * rng.standard_normal(large), 0.6 * rng.standard_normal(small)
    i, j = rng.integers(0, large, num_rows), rng.integers(0, small, num_rows)
    eta = 0.3 + a[i] + b[j]
    y = (
        eta + rng.standard_normal(num_rows)
        if kind == "gauss"
        else (rng.random(num_rows) < 1 / (1 + np.exp(-eta))) * 1.0
    )
    normal = lambda x, mean, sd: jnp.sum(-0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd) + 0 * x)  # noqa: E731
    scales = ["sa", "sb", "s"] if kind == "gauss" else ["sa", "sb"]

    def log_density(z, data):
        i, j, y = data
        eta = z["mu"] + z["a"][i] + z["b"][j]
        prior = normal(z["mu"], 0.0, 2.0) + normal(z["a"], 0.0, z["sa"]) + normal(z["b"], 0.0, z["sb"])
        prior = prior - 0.5 * sum(z[name] ** 2 for name in scales)
        return prior + (normal(y, eta, z["s"]) if kind == "gauss" else jnp.sum(y * eta - jax.nn.softplus(eta)))

    init = {"mu": 0.0, "a": jnp.zeros(large), "b": jnp.zeros(small), **dict.fromkeys(scales, 1.0)}
    return log_density, init, (i, j, y), dict.fromkeys(scales, "positive")


def item_response(persons: int, items: int) -> tuple[Any, ...]:
    """Log-density, start, data, support of the 2PL model."""
    rng = np.random.default_rng(0)
    ability, discrimination = rng.standard_normal(persons), np.exp(0.3 * rng.standard_normal(items))
    eta = discrimination * (ability[:, None] - rng.standard_normal(items))
    y = (rng.random((persons, items)) < 1 / (1 + np.exp(-eta))).astype(float)
    normal = lambda x, mean, sd: jnp.sum(-0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd) + 0 * x)  # noqa: E731

    def log_density(z, y):
        eta = z["disc"] * (z["theta"][:, None] - z["diff"])
        prior = normal(z["theta"], 0.0, 1.0) + normal(jnp.log(z["disc"]), 0.0, z["sdisc"]) - jnp.sum(jnp.log(z["disc"]))
        prior = prior + normal(z["diff"], z["mdiff"], z["sdiff"]) + normal(z["mdiff"], 0.0, 2.0)
        return prior - 0.5 * (z["sdiff"] ** 2 + z["sdisc"] ** 2) + jnp.sum(y * eta - jax.nn.softplus(eta))

    init = {"theta": jnp.zeros(persons), "disc": jnp.ones(items), "diff": jnp.zeros(items)}
    init |= {"mdiff": 0.0, "sdiff": 1.0, "sdisc": 0.5}
    return log_density, init, y, {"disc": "positive", "sdiff": "positive", "sdisc": "positive"}


def exact(large: int, small: int, data: tuple[np.ndarray, ...], centre: np.ndarray, sd: np.ndarray) -> tuple[Any, ...]:
    """Means and sds of (sa, sb, s) and of (a, b, mu), and effective draws, by dense linear algebra given the scales.

    Args:
      large: levels.
      small: levels.
      data: rows.
      centre: logarithms of the scales around which proposals are made, and
      sd: their widths; any give the answer, good ones quickly.
    """
    i, j, y = data
    size, rng = large + small + 1, np.random.default_rng(1)
    design = np.zeros((len(y), size))
    rows = np.arange(len(y))
    design[rows, i] = design[rows, large + j] = design[:, -1] = 1.0
    gram, pulled, square = design.T @ design, design.T @ y, y @ y
    t = rng.standard_t(5, (PROPOSALS, 3))
    logs = centre + 1.2 * sd * t
    log_weights, means, squares = np.empty(PROPOSALS), np.empty((PROPOSALS, size)), np.empty((PROPOSALS, size))
    for k, (one, two, three) in enumerate(np.exp(logs)):
        prior = np.concatenate([np.full(large, one**-2), np.full(small, two**-2), [0.25]])
        factor = np.linalg.cholesky(gram / three**2 + np.diag(prior))
        inverse = np.linalg.inv(factor)
        half = inverse @ pulled / three**2
        means[k] = inverse.T @ half
        squares[k] = means[k] ** 2 + np.sum(inverse**2, axis=0)
        log_evidence = 0.5 * np.sum(np.log(prior)) - np.sum(np.log(np.diag(factor))) - len(y) * np.log(three)
        log_evidence += -0.5 * square / three**2 + 0.5 * half @ half
        log_weights[k] = log_evidence - 0.5 * (one**2 + two**2 + three**2) + logs[k].sum()
    log_weights += 3 * np.sum(np.log1p(t**2 / 5), axis=1)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    scales = np.exp(logs)
    every = np.concatenate([scales, means], axis=1)
    second = np.concatenate([scales**2, squares], axis=1)
    mean = weights @ every
    return mean, np.sqrt(weights @ second - mean**2), 1 / np.sum(weights**2)
