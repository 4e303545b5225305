"""Many parameters of which each touches few: a sparse Gaussian, equal to exact answers, and what it is not for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import elbojax
from elbojax.cascade.single import prepare
from elbojax.cascade.stages import sparse

RNG = np.random.default_rng(8)


def crossed(large, small, num_rows):
    """Two factors of effects of known scales, seen through normal noise: a Gaussian posterior."""
    i, j = RNG.integers(0, large, num_rows), RNG.integers(0, small, num_rows)
    y = 0.5 + 0.8 * RNG.standard_normal(large)[i] + 0.6 * RNG.standard_normal(small)[j] + RNG.standard_normal(num_rows)

    def log_density(z, data):
        i, j, y = data
        prior = norm.logpdf(z["mu"], 0, 2) + norm.logpdf(z["a"], 0, 0.8).sum() + norm.logpdf(z["b"], 0, 0.6).sum()
        return prior + norm.logpdf(y, z["mu"] + z["a"][i] + z["b"][j]).sum()

    init = {"a": jnp.zeros(large), "b": jnp.zeros(small), "mu": 0.0}
    design = np.zeros((num_rows, large + small + 1))
    rows = np.arange(num_rows)
    design[rows, i] = design[rows, large + j] = design[:, -1] = 1.0
    precision = design.T @ design + np.diag([*[0.8**-2] * large, *[0.6**-2] * small, 0.25])
    covariance = np.linalg.inv(precision)
    return log_density, init, (i, j, y), covariance @ design.T @ y, np.sqrt(np.diag(covariance))


def test_crossed_effects_are_exact():
    log_density, init, data, mean, sd = crossed(220, 110, 2600)
    fit = elbojax.fit(jax.random.key(0), log_density, init, data=data)
    c = fit.certificate
    assert c.certified and c.stage == elbojax.Stage.FULL_RANK and c.num_gradients < 2500
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])  # noqa: E731
    assert np.max(np.abs(flat(fit.mean()) - mean) / sd) < 0.06
    assert np.max(np.abs(flat(fit.sd()) / sd - 1)) < 0.06
    np.testing.assert_allclose(fit.q.loc, mean, atol=0.02 * sd.max())


def test_what_touches_all_is_not_for_it():
    def regression(z):
        return -0.5 * jnp.sum((jnp.ones((3, 400)) @ z["b"]) ** 2) - 0.5 * jnp.sum(z["b"] ** 2)

    with jax.enable_x64(True):
        target, _ = prepare(regression, {"b": jnp.zeros(400)}, None, None)
        assert sparse.look(target, None) is None


@pytest.mark.slow
def test_chains_start_from_it_where_weights_cannot_certify():
    """A logistic likelihood with two scales, 3,100 parameters: beyond what dense matrices are formed for."""
    large, small, num_rows = 2500, 600, 20_000
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, large, num_rows), rng.integers(0, small, num_rows)
    a, b = 0.8 * rng.standard_normal(large), 0.6 * rng.standard_normal(small)
    y = (rng.random(num_rows) < 1 / (1 + np.exp(-a[i] - b[j]))).astype(float)

    def log_density(z, data):
        i, j, y = data
        eta = z["a"][i] + z["b"][j]
        scales = -0.5 * z["s"] ** 2 - 0.5 * z["t"] ** 2
        prior = norm.logpdf(z["a"], 0, z["s"]).sum() + norm.logpdf(z["b"], 0, z["t"]).sum()
        return scales + prior + jnp.sum(y * eta - jax.nn.softplus(eta))

    init = {"a": jnp.zeros(large), "b": jnp.zeros(small), "s": 1.0, "t": 1.0}
    support = {"s": "positive", "t": "positive"}
    fit = elbojax.fit(jax.random.key(0), log_density, init, data=(i, j, y), support=support)
    assert fit.certificate.certified and fit.certificate.stage == elbojax.Stage.CHAINS
    assert abs(float(fit.mean()["s"]) - 0.8) < 4 * float(fit.sd()["s"])
    assert abs(float(fit.mean()["t"]) - 0.6) < 4 * float(fit.sd()["t"])
