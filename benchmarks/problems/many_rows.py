"""Logistic regressions of so many rows that they are fitted by minibatches, with the optimum of a Gaussian family."""

from typing import NamedTuple

import jax
import numpy as np


class ManyRows(NamedTuple):
    """A regression and a family.

    Attributes:
      num_data: rows.
      size: D.
      family: "full_rank" or "mean_field".
      with_numpyro: whether NumPyro is asked too; its subsampling costs N at every step.
    """

    num_data: int
    size: int
    family: str
    with_numpyro: bool


PROBLEMS = {
    "logistic, full rank": ManyRows(20_000, 20, "full_rank", True),
    "logistic, mean-field": ManyRows(20_000, 20, "mean_field", True),
    "logistic, mean-field, larger": ManyRows(50_000, 100, "mean_field", False),
}


def make_data(problem: ManyRows) -> tuple[np.ndarray, np.ndarray]:
    """Columns are correlated like a series, 0.6 between neighbours."""
    rng = np.random.default_rng(0)
    correlation = 0.6 ** np.abs(np.subtract.outer(np.arange(problem.size), np.arange(problem.size)))
    x = rng.normal(size=(problem.num_data, problem.size)) @ np.linalg.cholesky(correlation).T
    coefficients = rng.normal(size=problem.size) * 0.5 * np.sqrt(20 / problem.size)
    y = rng.uniform(size=problem.num_data) < 1 / (1 + np.exp(-x @ coefficients))
    return x.astype(np.float32), y.astype(np.float32)


def log_prior(z):
    return -0.5 * z @ z


def log_likelihood(z, datum):
    x, y = datum
    logit = x @ z
    return y * logit - jax.nn.softplus(logit)


def optimum(problem: ManyRows, data: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds of the best Gaussian of the family from all data, by fixed-point iteration in double precision.

    At the optimum E[gradient] = 0, and the precision (of mean-field its diagonal) is E[-Hessian]. Given the mean, a logit
    is one normal number, so both expectations are one-dimensional and taken by Gauss-Hermite quadrature: no draws.
    """
    x, y = (np.asarray(part, float) for part in data)
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    weights = weights / weights.sum()
    mean, covariance = np.zeros(problem.size), 0.01 * np.eye(problem.size)
    for _ in range(30):
        spread = np.sqrt(np.einsum("nd,nd->n", x @ covariance, x))
        probability = 1 / (1 + np.exp(-((x @ mean)[:, None] + spread[:, None] * nodes)))
        gradient = x.T @ (y - probability @ weights) - mean
        precision = (x * ((probability * (1 - probability)) @ weights)[:, None]).T @ x + np.eye(problem.size)
        mean = mean + np.linalg.solve(precision, gradient)
        diagonal = np.diag(1 / np.diag(precision))
        covariance = np.linalg.inv(precision) if problem.family == "full_rank" else diagonal
    return mean, np.sqrt(np.diag(covariance))
