"""Gaussian-process regression, of a real response and of counts. Both need double precision."""

import jax.numpy as jnp
import numpy as np
from jax.scipy import linalg, special, stats

from benchmarks.models.base import Data, Model, Position, Raw, build, half_normal
from elbojax.types import Array, Scalar


def cholesky(x: Array, rho: Scalar, alpha: Scalar, variance: Scalar | float) -> Array:
    r"""Lower Cholesky factor of the squared-exponential covariance, `variance` added to its diagonal.

    .. math:: C_{ij} = \alpha^2 e^{-(x_i - x_j)^2 / 2 \rho^2} + \mathrm{variance}\, [i = j]
    """
    distances = (x[:, None] - x) / rho
    covariance = alpha**2 * jnp.exp(-0.5 * distances**2)
    return jnp.linalg.cholesky(covariance + variance * jnp.eye(x.shape[0], dtype=x.dtype), symmetrize_input=False)


def _kernel_prior(position: Position) -> Scalar:
    """rho ~ gamma(25, rate 4), alpha ~ half-normal(0, 2)."""
    return stats.gamma.logpdf(position["rho"], 25.0, scale=0.25) + half_normal(position["alpha"], 2.0)


def regression(position: Position, data: Data) -> Scalar:
    """y ~ normal(0, C) with sigma, not its square, as the variance of the noise; sigma ~ half-normal(0, 1)."""
    factor = cholesky(data["x"], position["rho"], position["alpha"], position["sigma"])
    white = linalg.solve_triangular(factor, data["y"], lower=True)
    likelihood = stats.norm.logpdf(white).sum() - jnp.log(jnp.diagonal(factor)).sum()
    return _kernel_prior(position) + half_normal(position["sigma"], 1.0) + likelihood


def counts(position: Position, data: Data) -> Scalar:
    """k_i ~ Poisson(exp f_i), f = L f_tilde, f_tilde_i ~ normal(0, 1); C has 1e-10 on its diagonal."""
    f, k = _latent(position, data)["f"], data["k"]
    likelihood = jnp.sum(k * f - jnp.exp(f) - special.gammaln(k + 1))
    return _kernel_prior(position) + stats.norm.logpdf(position["f_tilde"]).sum() + likelihood


def _latent(position: Position, data: Data) -> Position:
    rho, alpha = position["rho"], position["alpha"]
    return {"rho": rho, "alpha": alpha, "f": cholesky(data["x"], rho, alpha, 1e-10) @ position["f_tilde"]}


def _whitened(values: Position, data: Data) -> Position:
    rho, alpha = values["rho"], values["alpha"]
    factor = cholesky(data["x"], rho, alpha, 1e-10)
    return {"rho": rho, "alpha": alpha, "f_tilde": linalg.solve_triangular(factor, values["f"], lower=True)}


def gp_regr(raw: Raw) -> Model:
    parameters = {"rho": ("positive", 1.0), "alpha": ("positive", 1.0), "sigma": ("positive", 1.0)}
    return build("gp_pois_regr-gp_regr", regression, parameters, {"x": raw["x"], "y": raw["y"]})


def gp_pois_regr(raw: Raw) -> Model:
    parameters = {"rho": ("positive", 1.0), "alpha": ("positive", 1.0), "f_tilde": ("real", np.zeros(len(raw["x"])))}
    return build(
        "gp_pois_regr-gp_pois_regr",
        counts,
        parameters,
        {"x": raw["x"], "k": raw["k"]},
        variables=("rho", "alpha", "f"),
        transform=_latent,
        invert=_whitened,
    )
