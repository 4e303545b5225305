"""Fits made by hand, with numbers that are known."""

import jax
import jax.numpy as jnp
import numpy as np

import elbojax
from elbojax import Certificate, Stage, Status, targets

INIT = {"b": {"tau": 1.0}, "a": np.zeros((2, 2)), "w": np.full(3, 1 / 3)}
SUPPORT = {"b": {"tau": "positive"}, "w": "simplex"}
SIZE, DRAWS = 7, 64


def log_density(position, data=0.0):
    return data - sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(position))


def certificate(*, models=None, **given):
    """Known numbers, with leading axis `models` where there is one."""
    fields = dict(
        certified=True,
        status=Status.CONVERGED,
        stage=Stage.FULL_RANK,
        khat=0.25,
        ess=300.0,
        elbo=-2.0,
        elbo_se=0.01,
        log_evidence=-1.9,
        log_evidence_se=0.02,
        upper_bound=np.inf,
        decrement=1e-4,
        mean_error=0.03,
        fisher_divergence=0.1,
        modes=1,
        num_gradients=200,
        num_log_densities=4096,
        sd_error=0.02,
    )
    if models is None:
        return Certificate(**fields | given)
    each = {name: np.broadcast_to(value, models) for name, value in (fields | given).items()}
    return Certificate(**jax.tree.map(jnp.asarray, each))


def fit(q, *, models=None, dtype=np.float64, note="", moments=False, init=INIT, support=SUPPORT, chains=1, **given):
    """A `Fit`, or `Fits` of so many models, whose draws are standard normal and whose weights are not equal."""
    target = targets.unconstrain(log_density, init, support)
    lead = () if models is None else (models,)
    rng = np.random.default_rng(0)
    draws = jnp.asarray(rng.normal(size=(*lead, DRAWS, target.size)), dtype)
    weights = rng.gamma(1.0, size=(*lead, DRAWS))
    log_weights = jnp.asarray(np.log(weights / weights.sum(-1, keepdims=True)), dtype)
    kind = elbojax.Fit if models is None else elbojax.Fits
    made = kind(q, certificate(models=models, **given), draws, log_weights, target, note, chains=chains)
    if moments:
        made = kind(q, made.certificate, draws, log_weights, target, note, (made.mean(), made.sd()))
    return made
