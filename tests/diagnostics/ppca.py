"""Probabilistic principal components: a linear autoencoder whose posterior and evidence are known."""

import jax.numpy as jnp
import numpy as np
import scipy.stats

import elbojax

D, P, NOISE = 2, 5, 0.6
WEIGHTS = np.random.default_rng(0).normal(size=(P, D))
DATA = np.random.default_rng(1).multivariate_normal(np.zeros(P), WEIGHTS @ WEIGHTS.T + NOISE**2 * np.eye(P), size=12)
PRIOR = elbojax.mean_field(jnp.zeros(D), 1.0)

COVARIANCE = np.linalg.inv(WEIGHTS.T @ WEIGHTS / NOISE**2 + np.eye(D))
POSTERIOR = {"map": COVARIANCE @ WEIGHTS.T / NOISE**2, "scale_tril": np.linalg.cholesky(COVARIANCE)}
EVIDENCE = scipy.stats.multivariate_normal(np.zeros(P), WEIGHTS @ WEIGHTS.T + NOISE**2 * np.eye(P)).logpdf(DATA)


def log_joint(z, x):
    """log N(z | 0, I) + log N(x | W z, sigma^2 I)."""
    return PRIOR.log_prob(z) + jnp.sum(elbojax.densities.normal(x, jnp.asarray(WEIGHTS) @ z, NOISE))


def encode(params, x):
    """A linear encoder: a full-rank Gaussian of one scale about a linear map of the data."""
    return elbojax.families.FullRank(params["map"] @ x, params["log_diagonal"], params["lower"])


def exact_params(wider=1.0):
    """The encoder that is the exact posterior; or one that is wider."""
    tril = np.sqrt(wider) * POSTERIOR["scale_tril"]
    return {
        "map": jnp.asarray(POSTERIOR["map"]),
        "log_diagonal": jnp.log(jnp.diagonal(tril)),
        "lower": jnp.tril(jnp.asarray(tril), -1),
    }
