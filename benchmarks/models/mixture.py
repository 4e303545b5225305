"""A mixture of two normals, the ordering of its means against label switching."""

import jax.numpy as jnp
import numpy as np
from jax.scipy import stats

from benchmarks.models.base import Data, Model, Position, Raw, build, half_normal
from elbojax.types import Scalar


def two_normals(position: Position, data: Data) -> Scalar:
    """y_n ~ theta normal(mu_1, sigma_1) + (1 - theta) normal(mu_2, sigma_2), mu_1 < mu_2.

    Priors mu_k ~ normal(0, 2), sigma_k ~ half-normal(0, 2), theta ~ beta(5, 5).
    """
    mu, sigma, theta = position["mu"], position["sigma"], position["theta"]
    components = stats.norm.logpdf(data["y"][:, None], mu, sigma)
    likelihood = jnp.logaddexp(jnp.log(theta) + components[:, 0], jnp.log1p(-theta) + components[:, 1])
    prior = stats.norm.logpdf(mu, 0.0, 2.0).sum() + half_normal(sigma, 2.0).sum() + stats.beta.logpdf(theta, 5.0, 5.0)
    return prior + likelihood.sum()


def low_dim_gauss_mix(raw: Raw) -> Model:
    parameters = {
        "mu": ("ordered", np.array([-1.0, 1.0])),
        "sigma": ("positive", np.ones(2)),
        "theta": ("unit_interval", 0.5),
    }
    return build("low_dim_gauss_mix-low_dim_gauss_mix", two_normals, parameters, {"y": raw["y"]})
