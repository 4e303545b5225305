"""Autoregression, ARMA(1, 1) and GARCH(1, 1)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import stats

from benchmarks.models.base import LOG_TWO_PI, Data, Model, Position, Raw, build, half_cauchy
from elbojax.types import Array, Scalar


def recursion(start: Scalar, drive: Array, decay: Scalar) -> Array:
    r"""The path of a first-order linear recursion.

    .. math:: x_1 = \mathrm{start}, \qquad x_t = \mathrm{drive}_t + \mathrm{decay}\, x_{t-1}

    Args:
      start: x_1.
      drive: [T - 1], for t = 2, ..., T.
      decay: scalar.

    Returns:
      [T] x_1, ..., x_T.
    """

    def step(x, forced):
        x = forced + decay * x
        return x, x

    _, path = jax.lax.scan(step, start, drive)
    return jnp.concatenate([start[None], path])


def autoregression(position: Position, data: Data) -> Scalar:
    """y_t ~ normal(alpha + sum_k beta_k y_{t-k}, sigma) for t > K; the first K values are given."""
    alpha, beta, sigma = position["alpha"], position["beta"], position["sigma"]
    y, order = data["y"], beta.shape[0]
    lags = jnp.stack([y[order - k : y.shape[0] - k] for k in range(1, order + 1)], axis=1)
    prior = stats.norm.logpdf(alpha, 0.0, 10.0) + stats.norm.logpdf(beta, 0.0, 10.0).sum() + half_cauchy(sigma, 2.5)
    return prior + stats.norm.logpdf(y[order:], alpha + lags @ beta, sigma).sum()


def arma(position: Position, data: Data) -> Scalar:
    """Residuals e_t = y_t - (mu + phi y_{t-1} + theta e_{t-1}) ~ normal(0, sigma), e_1 = y_1 - (mu + phi mu)."""
    mu, phi, theta, sigma = (position[name] for name in ("mu", "phi", "theta", "sigma"))
    y = data["y"]
    residuals = recursion(y[0] - (mu + phi * mu), y[1:] - (mu + phi * y[:-1]), -theta)
    prior = stats.norm.logpdf(mu, 0.0, 10.0) + half_cauchy(sigma, 2.5)
    prior += stats.norm.logpdf(phi, 0.0, 2.0) + stats.norm.logpdf(theta, 0.0, 2.0)
    return prior + stats.norm.logpdf(residuals, 0.0, sigma).sum()


def garch(position: Position, data: Data) -> Scalar:
    r"""y_t ~ normal(mu, s_t), flat priors where alpha0 > 0, 0 < alpha1, 0 < beta1, alpha1 + beta1 < 1.

    .. math:: s_t^2 = \alpha_0 + \alpha_1 (y_{t-1} - \mu)^2 + \beta_1 s_{t-1}^2

    The range of beta1 depends on alpha1, so the position has the part `share` of it that beta1 takes, between 0 and 1,
    independent of the rest: beta1 = share (1 - alpha1). The term log(1 - alpha1) is the Jacobian, which makes this the
    density of (mu, alpha0, alpha1, share) and leaves (mu, alpha0, alpha1, beta1) distributed as stated.
    """
    mu, alpha0, alpha1, beta1 = _beta1(position, data).values()
    squares = (data["y"] - mu) ** 2
    variances = recursion(data["sigma1"] ** 2, alpha0 + alpha1 * squares[:-1], beta1)
    likelihood = -0.5 * jnp.sum(squares / variances + jnp.log(variances) + LOG_TWO_PI)
    return likelihood + jnp.log1p(-alpha1)


def _beta1(position: Position, data: Data) -> Position:
    del data
    mu, alpha0, alpha1 = position["mu"], position["alpha0"], position["alpha1"]
    return {"mu": mu, "alpha0": alpha0, "alpha1": alpha1, "beta1": position["share"] * (1 - alpha1)}


def _share(values: Position, data: Data) -> Position:
    del data
    mu, alpha0, alpha1 = values["mu"], values["alpha0"], values["alpha1"]
    return {"mu": mu, "alpha0": alpha0, "alpha1": alpha1, "share": values["beta1"] / (1 - alpha1)}


def ark(raw: Raw) -> Model:
    parameters = {"alpha": ("real", 0.0), "beta": ("real", np.zeros(raw["K"])), "sigma": ("positive", 1.0)}
    return build("arK-arK", autoregression, parameters, {"y": raw["y"]})


def arma11(raw: Raw) -> Model:
    parameters = {"mu": ("real", 0.0), "phi": ("real", 0.0), "theta": ("real", 0.0), "sigma": ("positive", 1.0)}
    return build("arma-arma11", arma, parameters, {"y": raw["y"]})


def garch11(raw: Raw) -> Model:
    parameters = {
        "mu": ("real", 0.0),
        "alpha0": ("positive", 1.0),
        "alpha1": ("unit_interval", 0.5),
        "share": ("unit_interval", 0.5),
    }
    return build(
        "garch-garch11",
        garch,
        parameters,
        {"y": raw["y"], "sigma1": raw["sigma1"]},
        variables=("mu", "alpha0", "alpha1", "beta1"),
        transform=_beta1,
        invert=_share,
    )
