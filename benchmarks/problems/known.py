"""Posteriors z ~ N(0, I), y | z, whose moments and evidence are known by a formula or by quadrature.

Each is a standard normal prior times a likelihood, so that samplers which need the prior by itself (nested sampling, tempered
SMC) are asked the same as those that take a log-density.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import special, stats


class Known(NamedTuple):
    """A posterior of known answer.

    Attributes:
      name: of its rows.
      size: D.
      log_likelihood: `(z [D], data) -> scalar`, normalised over y.
      data: pytree.
      mean: [D] of z given y.
      sd: [D].
      log_evidence: log p(y), nats.
    """

    name: str
    size: int
    log_likelihood: Callable[[Any, Any], Any]
    data: Any
    mean: np.ndarray
    sd: np.ndarray
    log_evidence: float

    def log_density(self, z: Any, data: Any) -> Any:
        """log p(y, z)."""
        return log_prior(z) + self.log_likelihood(z, data)


def log_prior(z: Any) -> Any:
    """log N(z | 0, I)."""
    return -0.5 * jnp.sum(z**2) - 0.5 * z.size * jnp.log(2 * jnp.pi)


# ---- eight schools: mu = 5 z0, tau = 5 tan(pi Phi(z1) / 2), theta_j = mu + tau z_{2+j}, y_j ~ N(theta_j, s_j)

EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools_log_likelihood(z: Any, data: Any) -> Any:
    from jax.scipy.special import ndtr

    effect, error = data
    mu, tau = 5 * z[0], 5 * jnp.tan(0.5 * jnp.pi * ndtr(z[1]))
    residual = (effect - mu - tau * z[2:]) / error
    return -0.5 * jnp.sum(residual**2) - jnp.sum(jnp.log(error)) - 0.5 * effect.size * jnp.log(2 * jnp.pi)


@functools.cache
def eight_schools() -> Known:
    """Given tau all is Gaussian; z1 by the trapezoidal rule, which converges faster than any power for such integrands."""
    nodes = np.linspace(-8, 8, 4001)
    step = nodes[1] - nodes[0]
    tau = 5 * np.tan(0.5 * np.pi * stats.norm.cdf(nodes))
    logs, means, seconds = [], [], []
    for t in tau:
        # y = A u + noise for u = (z0, z2..z9) ~ N(0, I): A = (5, tau I).
        a = np.concatenate([np.full((8, 1), 5.0), t * np.eye(8)], axis=1)
        marginal = a @ a.T + np.diag(ERROR**2)
        logs.append(stats.multivariate_normal.logpdf(EFFECT, np.zeros(8), marginal))
        gain = np.linalg.solve(marginal, a).T
        mean = gain @ EFFECT
        means.append(mean)
        seconds.append(mean**2 + 1 - np.einsum("ij,ji->i", gain, a))
    log_weights = np.array(logs) + stats.norm.logpdf(nodes) + np.log(step)
    log_evidence = special.logsumexp(log_weights)
    weights = np.exp(log_weights - log_evidence)
    mean, second = weights @ np.array(means), weights @ np.array(seconds)
    mean_tau, second_tau = weights @ nodes, weights @ nodes**2
    mean, second = np.insert(mean, 1, mean_tau), np.insert(second, 1, second_tau)
    sd = np.sqrt(second - mean**2)
    return Known("eight schools", 10, eight_schools_log_likelihood, (EFFECT, ERROR), mean, sd, float(log_evidence))


# ---- linear regression with known noise: y ~ N(X z, 1)


def linear_log_likelihood(z: Any, data: Any) -> Any:
    x, y = data
    return -0.5 * jnp.sum((y - x @ z) ** 2) - 0.5 * y.size * jnp.log(2 * jnp.pi)


@functools.cache
def linear() -> Known:
    rng = np.random.default_rng(0)
    x = (
        rng.normal(size=(100, 10))
        @ np.linalg.cholesky(0.6 ** np.abs(np.subtract.outer(np.arange(10), np.arange(10)))).T
    )
    y = x @ rng.normal(size=10) + rng.normal(size=100)
    covariance = np.linalg.inv(x.T @ x + np.eye(10))
    log_evidence = stats.multivariate_normal.logpdf(y, np.zeros(100), x @ x.T + np.eye(100))
    mean, sd = covariance @ x.T @ y, np.sqrt(np.diag(covariance))
    return Known("linear regression", 10, linear_log_likelihood, (x, y), mean, sd, float(log_evidence))


# ---- logistic regression of three coefficients on forty rows: skewed, by Gauss-Hermite quadrature around the mode


def logistic_log_likelihood(z: Any, data: Any) -> Any:
    x, sign = data
    return -jnp.sum(jnp.logaddexp(0.0, -sign * (x @ (2 * z))))


@functools.cache
def logistic() -> Known:
    rng = np.random.default_rng(1)
    x = np.concatenate([np.ones((40, 1)), rng.normal(size=(40, 2))], axis=1)
    sign = np.where(rng.uniform(size=40) < special.expit(x @ np.array([-1.0, 2.0, 0.5])), 1.0, -1.0)

    def log_joint(z):
        return stats.norm.logpdf(z).sum(axis=-1) - np.logaddexp(0, -sign * (z @ (2 * x.T))).sum(axis=-1)

    mode = np.zeros(3)
    for _ in range(50):
        p = special.expit(2 * x @ mode)
        precision = np.eye(3) + 4 * (x.T * (p * (1 - p))) @ x
        mode = mode + np.linalg.solve(precision, 2 * x.T @ ((sign > 0) - p) - mode)
    # Wider than the posterior by a third, for its tails.
    upper = 1.33 * np.linalg.cholesky(np.linalg.inv(precision))
    return _by_quadrature("logistic regression", logistic_log_likelihood, (x, sign), log_joint, mode, upper)


# ---- a banana: y ~ N(z1 + z0^2, 0.3)


def banana_log_likelihood(z: Any, data: Any) -> Any:
    return -0.5 * ((data - z[1] - z[0] ** 2) / 0.3) ** 2 - jnp.log(0.3) - 0.5 * jnp.log(2 * jnp.pi)


@functools.cache
def banana() -> Known:
    """z1 in closed form given z0, and z0 by the trapezoidal rule."""
    y, variance = 2.0, 1 + 0.3**2
    nodes = np.linspace(-8, 8, 20_001)
    residual = y - nodes**2
    log_weights = stats.norm.logpdf(nodes) + stats.norm.logpdf(residual, 0, np.sqrt(variance))
    log_weights += np.log(nodes[1] - nodes[0])
    log_evidence = special.logsumexp(log_weights)
    weights = np.exp(log_weights - log_evidence)
    given = residual / variance
    mean = np.array([weights @ nodes, weights @ given])
    second = np.array([weights @ nodes**2, weights @ (given**2 + 1 - 1 / variance)])
    sd = np.sqrt(second - mean**2)
    return Known("banana, two arms", 2, banana_log_likelihood, y, mean, sd, float(log_evidence))


def _by_quadrature(name, log_likelihood, data, log_joint, mode, upper, count: int = 40) -> Known:
    """Moments and evidence by a product of Gauss-Hermite rules around the mode."""
    node, weight = np.polynomial.hermite_e.hermegauss(count)
    grid = np.stack(np.meshgrid(*[node] * mode.size, indexing="ij"), axis=-1).reshape(-1, mode.size)
    log_weight = np.log(np.stack(np.meshgrid(*[weight] * mode.size, indexing="ij"), axis=-1)).sum(axis=-1).ravel()
    z = mode + grid @ upper.T
    terms = log_joint(z) + log_weight + 0.5 * (grid**2).sum(axis=-1) + np.log(np.diag(upper)).sum()
    log_evidence = special.logsumexp(terms)
    weights = np.exp(terms - log_evidence)
    mean = weights @ z
    sd = np.sqrt(weights @ (z - mean) ** 2)
    return Known(name, mode.size, log_likelihood, data, mean, sd, float(log_evidence))


PROBLEMS: dict[str, Callable[[], Known]] = {
    "eight schools": eight_schools,
    "linear regression": linear,
    "logistic regression": logistic,
    "banana, two arms": banana,
}
"""To add one: a function that gives a `Known`, and an entry."""
