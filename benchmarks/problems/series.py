"""Stochastic volatility with its parameters given: x_t = exp(z_t / 2) e_t, z a first-order autoregression of any length."""

import jax.numpy as jnp
import numpy as np

PERSISTENCE, STEP = 0.97, 0.2


def log_density(z, x):
    """Of a path [T] or [T / d, d], which is read row by row."""
    z = z.ravel()
    first = -0.5 * (1 - PERSISTENCE**2) * (z[0] / STEP) ** 2
    moved = -0.5 * jnp.sum((z[1:] - PERSISTENCE * z[:-1]) ** 2) / STEP**2
    return first + moved - 0.5 * jnp.sum(z + x**2 * jnp.exp(-z))


def returns(length: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    z, path = 0.0, np.empty(length)
    for t in range(length):
        z = path[t] = PERSISTENCE * z + STEP * rng.normal()
    return (np.exp(path / 2) * rng.normal(size=length)).astype("float32")
