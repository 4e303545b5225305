"""Latents whose log-density jumps: corrections of the nested stage are made of gradients, which say nothing of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax.types import Status

Y = np.random.default_rng(1).normal(size=20)
STEPS = {
    "smooth": lambda th: 0.0 * th,
    "kink": lambda th: -jnp.maximum(th, 0.0),
    "step": lambda th: jnp.where(th > 0, -2.5, 0.0),
    "floor": lambda th: -0.8 * jnp.floor(2 * th),
    "hidden": lambda th: -2 * jnp.tanh(jax.lax.stop_gradient(th)),
}


@pytest.mark.slow
def test_answers_with_jumps_are_not_certified():
    # With scales that send fit to the nested stage: means 0.7 sd off and evidence 2.4 nats, by quadrature.
    rng = np.random.default_rng(1)
    y = 1e4 * (1 + 0.1 * rng.normal(size=40))

    def log_density(z, y):
        outer = -0.5 * (z["mu"] / 3e4) ** 2 - 0.5 * (z["log_tau"] - np.log(1e3)) ** 2
        latent = -0.5 * jnp.sum(((z["th"] - z["mu"]) / jnp.exp(z["log_tau"])) ** 2) - len(y) * z["log_tau"]
        return outer + latent + jnp.sum(-0.5 * ((y - z["th"]) / 900) ** 2 + jnp.where(z["th"] > 1e4, -2.5, 0.0))

    init = {"mu": 0.0, "log_tau": 0.0, "th": jnp.zeros(40)}
    fit = elbojax.fit(jax.random.key(1), log_density, init, data=y, max_gradients=200_000)
    assert not fit.certificate.certified


@pytest.mark.parametrize("kind", STEPS)
def test_jumps_are_seen(precision, kind):
    del precision

    def log_density(z, y):
        outer = -0.5 * z["mu"] ** 2 / 9 - 0.5 * z["log_tau"] ** 2
        latent = -0.5 * jnp.sum(((z["th"] - z["mu"]) / jnp.exp(z["log_tau"])) ** 2) - len(y) * z["log_tau"]
        return outer + latent + jnp.sum(-0.5 * (y - z["th"]) ** 2 + STEPS[kind](z["th"]))

    init = {"mu": 0.0, "log_tau": 0.0, "th": jnp.zeros(20)}
    nested = elbojax.integrate_out(log_density, init, "th", data=Y)
    found = nested.status(jnp.array([0.1, 0.2]), Y)
    jumps = kind in ("step", "floor", "hidden")
    assert (int(found.status) == Status.UNRELIABLE) == jumps and (abs(float(found.jump)) > 0.5) == jumps
