"""Eight schools, centred and not: one posterior in two sets of coordinates."""

import numpy as np
from jax.scipy import stats

from benchmarks.models.base import Data, Model, Position, Raw, build, half_cauchy
from elbojax.types import Array, Scalar


def _rest(theta: Array, position: Position, data: Data) -> Scalar:
    """Likelihood and the priors of mu and tau."""
    prior = stats.norm.logpdf(position["mu"], 0.0, 5.0) + half_cauchy(position["tau"], 5.0)
    return prior + stats.norm.logpdf(data["y"], theta, data["sigma"]).sum()


def centred(position: Position, data: Data) -> Scalar:
    """theta_j ~ normal(mu, tau): a funnel as tau goes to 0."""
    theta = position["theta"]
    return stats.norm.logpdf(theta, position["mu"], position["tau"]).sum() + _rest(theta, position, data)


def noncentred(position: Position, data: Data) -> Scalar:
    """theta_j = mu + tau theta_trans_j, theta_trans_j ~ normal(0, 1)."""
    theta = _theta(position, data)["theta"]
    return stats.norm.logpdf(position["theta_trans"]).sum() + _rest(theta, position, data)


def _theta(position: Position, data: Data) -> Position:
    del data
    mu, tau = position["mu"], position["tau"]
    return {"theta": mu + tau * position["theta_trans"], "mu": mu, "tau": tau}


def _theta_trans(values: Position, data: Data) -> Position:
    del data
    mu, tau = values["mu"], values["tau"]
    return {"theta_trans": (values["theta"] - mu) / tau, "mu": mu, "tau": tau}


def eight_schools_centered(raw: Raw) -> Model:
    parameters = {"theta": ("real", np.zeros(len(raw["y"]))), "mu": ("real", 0.0), "tau": ("positive", 1.0)}
    data = {"y": raw["y"], "sigma": raw["sigma"]}
    return build("eight_schools-eight_schools_centered", centred, parameters, data)


def eight_schools_noncentered(raw: Raw) -> Model:
    parameters = {"theta_trans": ("real", np.zeros(len(raw["y"]))), "mu": ("real", 0.0), "tau": ("positive", 1.0)}
    return build(
        "eight_schools-eight_schools_noncentered",
        noncentred,
        parameters,
        {"y": raw["y"], "sigma": raw["sigma"]},
        variables=("theta", "mu", "tau"),
        transform=_theta,
        invert=_theta_trans,
    )
