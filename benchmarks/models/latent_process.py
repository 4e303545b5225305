"""A Gaussian process whose latent values are parameters, not centred, and exact draws of it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import stats

from benchmarks.models.base import Data, Model, Position, build, half_normal, log_normal
from elbojax.types import Array, Scalar

POINTS, NOISE = 23, 0.3
JITTER = 1e-6
DF, WIDER = 5.0, 1.3
"""Of the proposal of the exact draws, a Student t around the mode."""


def _lower(rho: Array, alpha: Array, x: Array) -> Array:
    """The Cholesky factor of the squared exponential covariance."""
    kernel = alpha**2 * jnp.exp(-0.5 * ((x[:, None] - x[None, :]) / rho) ** 2)
    return jnp.linalg.cholesky(kernel + JITTER * jnp.eye(x.size))


def _prior(position: Position) -> Scalar:
    rho, alpha, sigma = position["rho"], position["alpha"], position["sigma"]
    return log_normal(rho, 0.0, 1.0) + half_normal(alpha, 1.0) + half_normal(sigma, 1.0)


def latent_process(position: Position, data: Data) -> Scalar:
    """y ~ normal(L(rho, alpha) eta, sigma), eta ~ normal(0, 1): three hyperparameters and a latent value for each point."""
    f = _lower(position["rho"], position["alpha"], data["x"]) @ position["eta"]
    likelihood = stats.norm.logpdf(data["y"], f, position["sigma"]).sum()
    return likelihood + stats.norm.logpdf(position["eta"]).sum() + _prior(position)


def sine() -> Model:
    """Points of a sine with noise, simulated."""
    x = np.linspace(-3.0, 3.0, POINTS)
    y = np.sin(1.5 * x) + NOISE * np.random.default_rng(7).normal(size=POINTS)
    positive = {name: ("positive", 1.0) for name in ("rho", "alpha", "sigma")}
    return build(
        "sine-gaussian_process", latent_process, {**positive, "eta": ("real", np.zeros(POINTS))}, {"x": x, "y": y}
    )


def exact_process(key: Array, model: Model, num_samples: int) -> np.ndarray:
    r"""Exact columns [S, 26]: hyperparameters resampled from a Student t by their marginal posterior, eta given them.

    .. math:: y \mid \rho, \alpha, \sigma \sim \mathrm N(0, L L^\top + \sigma^2 I), \qquad
              \eta \mid y, \cdot \sim \mathrm N\big(A^{-1} L^\top y / \sigma^2, A^{-1}\big), \; A = I + L^\top L / \sigma^2
    """
    x, y = model.data["x"], model.data["y"]

    def marginal(logs):
        position = dict(zip(("rho", "alpha", "sigma"), jnp.exp(logs), strict=True))
        lower = _lower(position["rho"], position["alpha"], x)
        covariance = lower @ lower.T + position["sigma"] ** 2 * jnp.eye(x.size)
        root = jnp.linalg.cholesky(covariance)
        white = jax.scipy.linalg.solve_triangular(root, y, lower=True)
        return -0.5 * white @ white - jnp.log(jnp.diag(root)).sum() + _prior(position) + logs.sum()

    mode = jnp.zeros(3)
    slope, bend = jax.jit(jax.grad(marginal)), jax.jit(jax.hessian(marginal))
    for _ in range(100):  # damped Newton steps uphill
        values, vectors = np.linalg.eigh(-np.asarray(bend(mode)))
        step = vectors @ (vectors.T @ np.asarray(slope(mode)) / np.maximum(np.abs(values), 1e-3))
        mode = mode + step * min(1.0, 0.5 / np.linalg.norm(step))
    root = WIDER * np.linalg.cholesky(np.linalg.inv(-np.asarray(bend(mode))))
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    t = rng.normal(size=(4 * num_samples, 3)) / np.sqrt(rng.chisquare(DF, size=(4 * num_samples, 1)) / DF)
    tried = np.asarray(mode) + t @ root.T
    log_w = np.asarray(jax.lax.map(jax.jit(marginal), jnp.asarray(tried), batch_size=1000))
    log_w = log_w + 0.5 * (DF + 3) * np.log1p((t**2).sum(axis=1) / DF)
    w = np.exp(log_w - log_w.max())
    chosen = tried[rng.choice(len(tried), num_samples, p=w / w.sum())]

    def latents(arguments):
        logs, noise = arguments
        rho, alpha, sigma = jnp.exp(logs)
        lower = _lower(rho, alpha, x)
        root = jnp.linalg.cholesky(jnp.eye(x.size) + lower.T @ lower / sigma**2)
        white = jax.scipy.linalg.solve_triangular(root, lower.T @ y / sigma**2, lower=True)
        return jax.scipy.linalg.solve_triangular(root.T, white + noise, lower=False)

    noise = rng.normal(size=(num_samples, x.size))
    eta = jax.lax.map(jax.jit(latents), (jnp.asarray(chosen), jnp.asarray(noise)), batch_size=1000)
    return np.column_stack([np.exp(chosen), np.asarray(eta)])
