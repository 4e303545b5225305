"""`fit` and `fit_batch` answer alike: of one model, whether alone, in a batch of one, or among others, the same is certified."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import elbojax
from elbojax import Status

KEY = jax.random.key(3)
INIT, SUPPORT = {"z": np.zeros(2), "g": 1.0}, {"g": "positive"}
X = np.linspace(-1, 1, 20)
Y = 0.5 + 2 * X + np.random.default_rng(0).normal(size=20)

FUNNEL, SHAPE = 0.4, 0.6
DESIGN = np.stack([np.ones(20), X], axis=1)
COVARIANCE = np.linalg.inv(DESIGN.T @ DESIGN + np.eye(2) / 100)


def log_density(position, family):
    """Two numbers of one of eight families, and a positive one, of a gamma distribution that the sixth makes skewed."""
    a, b = position["z"]
    shape = jnp.where(family == 5, SHAPE, 30.0)
    rest = (shape - 1) * jnp.log(position["g"]) - position["g"]
    regression = jnp.sum(norm.logpdf(Y, a + b * X)) - 0.5 * (a**2 + b**2) / 100
    bimodal = jnp.logaddexp(norm.logpdf(a, -3), norm.logpdf(a, 3)) + norm.logpdf(b)
    funnel = norm.logpdf(a, 0, FUNNEL) + norm.logpdf(b, 0, jnp.exp(a))
    banana = norm.logpdf(a) + norm.logpdf(b, 0.5 * a**2, 1)
    heavy = -2.5 * (jnp.log1p(a**2 / 4) + jnp.log1p(b**2 / 4))
    skewed = norm.logpdf(a) + norm.logpdf(b)
    endless = norm.logpdf(a) + 0 * b
    return rest + jax.lax.select_n(family, regression, bimodal, funnel, banana, heavy, skewed, endless, a + jnp.nan)


FAMILIES = ["a regression", "two modes", "a funnel", "a banana", "t of four degrees of freedom", "a skewed gamma"]


def exact(family):
    """Means and standard deviations of a, b and g."""
    shape = SHAPE if family == 5 else 30.0
    mean, sd = np.zeros(2), np.ones(2)
    if family == 0:
        mean, sd = COVARIANCE @ DESIGN.T @ Y, np.sqrt(np.diagonal(COVARIANCE))
    if family == 1:
        sd = np.array([10**0.5, 1.0])
    if family == 2:
        sd = np.array([FUNNEL, np.exp(FUNNEL**2)])
    if family == 3:
        mean, sd = np.array([0.0, 0.5]), np.array([1.0, 1.5**0.5])
    if family == 4:
        sd = np.full(2, 2**0.5)
    return np.append(mean, shape), np.append(sd, shape**0.5)


def numbers(fit):
    return tuple(np.append(np.asarray(each["z"], float), float(each["g"])) for each in (fit.mean(), fit.sd()))


@functools.cache
def answers(double):
    """Of each family: `fit`, a batch of one, and a batch of all. One run for all tests."""
    with jax.enable_x64(double):
        fits = [elbojax.fit(KEY, log_density, INIT, data=np.int32(i), support=SUPPORT) for i in range(8)]
        ones = [elbojax.fit_batch(KEY, log_density, INIT, np.array([i]), support=SUPPORT)[0] for i in range(8)]
        several = elbojax.fit_batch(KEY, log_density, INIT, np.arange(8), support=SUPPORT)
    return [(fits[i], ones[i], several[i]) for i in range(8)]


@pytest.mark.parametrize("family", range(6), ids=FAMILIES)
def test_all_are_certified_and_right(family, precision):
    mean, sd = exact(family)
    for one in answers(precision)[family]:
        c = one.certificate
        assert c.certified and c.status == Status.CONVERGED
        found, spread = numbers(one)
        np.testing.assert_allclose((found - mean) / sd, 0, atol=0.02 + 4 * float(c.mean_error))
        np.testing.assert_allclose(spread / sd, 1, rtol=0.02 + 4 * float(c.sd_error))
        assert c.mean_error < 0.03 and c.sd_error < 0.05


@pytest.mark.parametrize(("family", "status"), [(6, Status.IMPROPER), (7, Status.NON_FINITE)], ids=["endless", "NaN"])
def test_the_same_trouble(family, status, precision):
    for one in answers(precision)[family]:
        assert not one.certificate.certified and one.certificate.status == status
