"""Hidden Markov models with two states, the states summed out."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special, stats

from benchmarks.models.base import Data, Model, Position, Raw, build
from elbojax.types import Array, Scalar


def forward(log_transition: Array, log_emission: Array) -> Scalar:
    r"""Log-likelihood by the forward algorithm, every first state with weight 1.

    .. math:: g_1(k) = \log e_k(1), \qquad g_t(k) = \log \sum_j e^{g_{t-1}(j)} \theta_{jk} + \log e_k(t)

    Args:
      log_transition: [K, K] log theta, from state j (row) to state k.
      log_emission: [T, K] log e.

    Returns:
      log sum_k exp g_T(k).
    """

    def step(g, emission):
        return jax.nn.logsumexp(g[:, None] + log_transition, axis=0) + emission, None

    g, _ = jax.lax.scan(step, log_emission[0], log_emission[1:])
    return jax.nn.logsumexp(g)


def normal_emissions(position: Position, data: Data) -> Scalar:
    """y_t ~ normal(mu_k, 1) in state k; uniform theta_k; mu_1 ~ normal(3, 1), mu_2 ~ normal(10, 1), 0 < mu_1 < mu_2."""
    mu, log_transition = position["mu"], jnp.log(jnp.stack([position["theta1"], position["theta2"]]))
    prior = stats.norm.logpdf(mu[0], 3.0, 1.0) + stats.norm.logpdf(mu[1], 10.0, 1.0)
    return prior + forward(log_transition, stats.norm.logpdf(data["y"][:, None], mu, 1.0))


def exponential_emissions(position: Position, data: Data) -> Scalar:
    """u_t and v_t exponential with rates phi_k and lambda_k in state k; theta_k ~ Dirichlet(row k of alpha).

    phi_1, lambda_1 ~ normal(0, 1) and phi_2, lambda_2 ~ normal(3, 1), each pair positive and increasing.
    """
    phi, rate = position["phi"], position["lambda"]
    log_transition = jnp.log(jnp.stack([position["theta1"], position["theta2"]]))
    log_emission = jnp.log(phi) - phi * data["u"][:, None] + jnp.log(rate) - rate * data["v"][:, None]
    alpha = data["alpha"]
    normaliser = special.gammaln(alpha.sum(axis=1)).sum() - special.gammaln(alpha).sum()
    prior = normaliser + jnp.sum((alpha - 1) * log_transition)
    prior += sum(stats.norm.logpdf(pair[0], 0.0, 1.0) + stats.norm.logpdf(pair[1], 3.0, 1.0) for pair in (phi, rate))
    return prior + forward(log_transition, log_emission)


def hmm_example(raw: Raw) -> Model:
    parameters = {
        "theta1": ("simplex", np.full(2, 0.5)),
        "theta2": ("simplex", np.full(2, 0.5)),
        "mu": ("positive_ordered", np.arange(1.0, 3.0)),
    }
    return build("hmm_example-hmm_example", normal_emissions, parameters, {"y": raw["y"]})


def hmm_drive_0(raw: Raw) -> Model:
    parameters = {
        "theta1": ("simplex", np.full(2, 0.5)),
        "theta2": ("simplex", np.full(2, 0.5)),
        "phi": ("positive_ordered", np.arange(1.0, 3.0)),
        "lambda": ("positive_ordered", np.arange(1.0, 3.0)),
    }
    data = {key: raw[key] for key in ("u", "v", "alpha")}
    return build("bball_drive_event_0-hmm_drive_0", exponential_emissions, parameters, data)
