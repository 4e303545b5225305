"""Two stochastic layers whose exact posterior is known: z2 ~ N(0, 1), z1 ~ N(a z2, s^2), x ~ N(b z1, t^2)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from objectives.cases import flat

import elbojax
from elbojax import hierarchical, mean_field

A, B, S, T = 0.8, 1.5, 0.6, 0.5
DATA = jnp.array([[1.0], [-2.0], [0.3]])
JOINT = np.array([[A**2 + S**2, A], [A, 1.0]])  # covariance of (z1, z2)
MARGINAL = B**2 * JOINT[0, 0] + T**2


def exact_params():
    """Posterior of z1 given x, and of z2 given z1 alone."""
    variance = JOINT[0, 0] - (B * JOINT[0, 0]) ** 2 / MARGINAL
    second = 1 - A**2 / JOINT[0, 0]
    first = jnp.array([B * JOINT[0, 0] / MARGINAL, 0.5 * np.log(variance)])
    return {"first": first, "second": jnp.array([A / JOINT[0, 0], 0.0, 0.5 * np.log(second)])}


def second_layer(weights, x, z1):
    return elbojax.families.MeanField(weights[0] * z1 + weights[1] * x, weights[2:])


def encode(params, x):
    first = elbojax.families.MeanField(params["first"][0] * x, params["first"][1:])
    return hierarchical(first, Partial(second_layer, params["second"], x))


def log_joint(z, x):
    top = mean_field(jnp.zeros(1), 1.0)
    prior = hierarchical(top, Partial(lambda z2: mean_field(A * z2, S)))
    return prior.log_prob((z[1], z[0])) + elbojax.densities.normal(x[0], B * z[0][0], T)


def value(key, params, objective):
    return elbojax.mean_over_data(
        key, lambda key, x: objective(key, encode(params, x), lambda z: log_joint(z, x)), DATA
    )


EVIDENCE = np.mean(-0.5 * np.asarray(DATA)[:, 0] ** 2 / MARGINAL - 0.5 * np.log(2 * np.pi * MARGINAL))
LANDING = {"elbo_stl": elbojax.elbo_stl, "dreg": functools.partial(elbojax.iw_elbo_dreg, num_importance=3)}
PLAIN = {"elbo": elbojax.elbo, "iw": functools.partial(elbojax.iw_elbo, num_importance=3)}


@functools.partial(jax.jit, static_argnames="name")
def estimates(keys, params, name):
    """Values [n] and flat gradients [n, 5]."""
    one = jax.value_and_grad(lambda params, key: value(key, params, (LANDING | PLAIN)[name]))
    values, gradients = jax.vmap(one, (None, 0))(params, keys)
    return values, jax.vmap(flat)(gradients)


def keys(seed):
    return jax.random.split(jax.random.key(seed), 2048)


@pytest.mark.parametrize("name", [*LANDING, *PLAIN])
def test_at_the_posterior_every_draw_gives_the_evidence_and_the_gradient_lands(name):
    """In both layers: a score left in the second would show."""
    bounds, gradients = estimates(keys(0), exact_params(), name)
    np.testing.assert_allclose(bounds, EVIDENCE, rtol=1e-10)
    sizes = np.abs(gradients).max(axis=0)
    assert np.all(sizes < 1e-10) if name in LANDING else np.all(sizes > 0.01)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("one", "other"), [("elbo", "elbo_stl"), ("iw", "dreg")])
def test_elsewhere_both_gradients_have_one_mean(one, other, seed):
    params = jax.tree.map(lambda w: w + 0.3, exact_params())
    gradients = [np.asarray(estimates(keys(seed), params, name)[1]) for name in (one, other)]
    difference = gradients[0] - gradients[1]
    error = difference.std(axis=0, ddof=1) / np.sqrt(2048)
    assert np.all(np.abs(difference.mean(axis=0)) < 4 * error)
    assert error.max() < 0.1 * np.linalg.norm(gradients[0].mean(axis=0))
