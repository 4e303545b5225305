"""Distribution objects: densities that are fitted, and families whose gradients are those of the closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax.interop.distributions import distribution_family, from_distribution

dist = pytest.importorskip("numpyro.distributions")
KEY = jax.random.key(0)
A = np.array([1.5, 2.5, 4.0])
# f, and its expectation in the constrained parameters.
CASES = {
    "gamma": (
        dist.Gamma(2.5, 1.7),
        lambda z: z**2 + jnp.log(z),
        lambda d: (
            d.concentration * (d.concentration + 1) / d.rate**2
            + jax.scipy.special.digamma(d.concentration)
            - jnp.log(d.rate)
        ),
    ),
    "small gamma": (dist.Gamma(0.3, 1.0), lambda z: z, lambda d: d.concentration / d.rate),
    "beta": (
        dist.Beta(0.7, 2.2),
        lambda z: z + jnp.log1p(-z),
        lambda d: (
            d.concentration1 / (d.concentration1 + d.concentration0)
            + jax.scipy.special.digamma(d.concentration0)
            - jax.scipy.special.digamma(d.concentration1 + d.concentration0)
        ),
    ),
    "dirichlet": (
        dist.Dirichlet(jnp.asarray(A)),
        lambda z: z[0] * z[1] + jnp.log(z[2]),
        lambda d: (
            d.concentration[0] * d.concentration[1] / (d.concentration.sum() * (d.concentration.sum() + 1))
            + jax.scipy.special.digamma(d.concentration[2])
            - jax.scipy.special.digamma(d.concentration.sum())
        ),
    ),
    "several gammas": (
        dist.Gamma(jnp.array([1.0, 3.0]), 2.0).to_event(1),
        lambda z: z[0] * z[1],
        lambda d: jnp.prod(d.base_dist.concentration / d.base_dist.rate),
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "small gamma" else pytest.mark.slow) for name in CASES]
)
def test_gradients_of_expectations_are_those_of_the_closed_form(name):
    distribution, f, expectation = CASES[name]
    q = distribution_family(distribution)

    @jax.jit
    def each(noise):
        return jax.vmap(jax.grad(lambda q, e: f(q.transport(e))), (None, 0))(q, noise)

    found = each(elbojax.noise.iid(KEY, 20_000, q.noise_size, jnp.float64))
    exact = jax.grad(lambda q: expectation(q.distribution))(q)
    for ours, true in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        error = np.asarray(ours).std(0) / np.sqrt(20_000)
        assert np.all(np.abs(np.asarray(ours).mean(0) - np.asarray(true)) < 4.5 * error + 1e-9), (
            name,
            ours.mean(0),
            true,
        )


@pytest.mark.slow
def test_the_bound_is_the_evidence_at_the_posterior_and_draws_are_of_the_distribution():
    counts = np.array([3, 5, 2, 4])
    log_density = lambda z: jnp.sum(dist.Poisson(z).log_prob(counts)) + dist.Gamma(2.0, 1.0).log_prob(z)  # noqa: E731
    exact = dist.Gamma(2.0 + counts.sum(), 5.0)
    q = distribution_family(exact)
    # The bound is the evidence at the posterior, whatever the draws.
    values = [float(elbojax.elbo(jax.random.key(i), q, log_density)) for i in range(3)]
    np.testing.assert_allclose(values, values[0], rtol=1e-9)
    other = distribution_family(dist.Gamma(10.0, 5.0))
    gradient = jax.grad(lambda q: elbojax.elbo(KEY, q, log_density, num_samples=500))(other)
    assert gradient.params["concentration"] > 0
    draws = jax.jit(jax.vmap(q.transport))(elbojax.noise.iid(KEY, 4000, 2, jnp.float64))
    assert abs(draws.mean() - exact.mean) < 4.5 * np.sqrt(exact.variance / 4000)


@pytest.mark.parametrize(
    ("distribution", "mean"),
    [(dist.Beta(2.0, 3.0), 0.4), (dist.Dirichlet(jnp.asarray(A)), A / 8), (dist.StudentT(8.0, 1.0, 2.0), 1.0)],
)
def test_densities_are_fitted(distribution, mean):
    fit = elbojax.fit_model(KEY, from_distribution(distribution))
    assert fit.certificate.certified
    np.testing.assert_allclose(fit.mean(), mean, atol=0.06)
    assert fit.certificate.log_evidence == pytest.approx(0, abs=0.03)


def test_any_object_with_a_log_density():
    class Exponential:
        def log_prob(self, z):
            return -z

    fit = elbojax.fit_model(KEY, from_distribution(Exponential(), init=1.0, support="positive"))
    assert float(fit.mean()) == pytest.approx(1.0, abs=0.05)
    with pytest.raises(TypeError, match="where Exponential lives is not known: give init"):
        from_distribution(Exponential())


class DistraxGamma:
    """Stands in for distrax 0.1.9, which JAX 0.9 and later cannot import: `sample(*, seed, sample_shape)`, `log_prob(value)`."""

    def __init__(self, concentration, rate):
        self.concentration, self.rate = concentration, rate

    def sample(self, *, seed, sample_shape=()):
        return jax.random.gamma(seed, self.concentration, sample_shape + jnp.shape(self.concentration)) / self.rate

    def log_prob(self, value):
        return jax.scipy.stats.gamma.logpdf(value, self.concentration, scale=1 / self.rate)


class TfpGamma(DistraxGamma):
    """Stands in for TFP 0.25 on JAX, likewise: `sample(sample_shape, seed)`, keys of the former kind alone."""

    reparameterization_type = "<Reparameterization Type: FULLY_REPARAMETERIZED>"

    def sample(self, sample_shape=(), seed=None, name="sample"):
        assert seed.dtype == jnp.uint32 and seed.shape == (2,)
        return super().sample(seed=seed, sample_shape=sample_shape)


def of_kind(kind):
    return lambda p: kind(jnp.exp(p["a"]), jnp.exp(p["b"]))


@pytest.mark.parametrize("kind", [DistraxGamma, TfpGamma, dist.Gamma])
def test_families_of_other_libraries(kind):
    params = {"a": jnp.log(jnp.array([2.5, 0.8])), "b": jnp.log(jnp.array([1.7, 1.0]))}
    q = distribution_family(of_kind(kind), params)

    @jax.jit
    def each(noise):
        return jax.vmap(jax.grad(lambda q, e: jnp.sum(q.transport(e) ** 2)), (None, 0))(q, noise)

    found = each(elbojax.noise.iid(KEY, 20_000, q.noise_size, jnp.float64)).params
    exact = jax.grad(lambda p: jnp.sum(jnp.exp(p["a"]) * (jnp.exp(p["a"]) + 1) / jnp.exp(2 * p["b"])))(params)
    for name in params:
        error = found[name].std(0) / np.sqrt(20_000)
        assert np.all(np.abs(found[name].mean(0) - exact[name]) < 4.5 * error), name
    theirs = distribution_family(dist.Gamma(jnp.array([2.5, 0.8]), jnp.array([1.7, 1.0])).to_event(1))
    z = jnp.array([0.4, 2.0])
    np.testing.assert_allclose(q.log_prob(z), theirs.log_prob(z), rtol=1e-6)
    # At the posterior the bound is the evidence, whatever the draws.
    values = [float(elbojax.elbo(jax.random.key(i), q, lambda z: q.log_prob(z) + 3)) for i in range(3)]
    np.testing.assert_allclose(values, 3.0, rtol=1e-6)


@pytest.mark.parametrize("kind", [DistraxGamma, TfpGamma])
def test_densities_of_other_libraries(kind):
    fit = elbojax.fit_model(KEY, from_distribution(kind(3.0, 2.0), init=1.0, support="positive"))
    assert fit.certificate.certified and fit.certificate.log_evidence == pytest.approx(0, abs=0.03)
    assert float(fit.mean()) == pytest.approx(1.5, abs=0.05)


class Coin(DistraxGamma):
    def sample(self, *, seed):
        return jax.random.bernoulli(seed, 0.5, self.rate.shape)


class ByRejection(DistraxGamma):
    reparameterization_type = "<Reparameterization Type: NOT_REPARAMETERIZED>"


class Stopped(DistraxGamma):
    def sample(self, *, seed):
        return jax.lax.stop_gradient(super().sample(seed=seed))


@pytest.mark.parametrize("kind", [Coin, ByRejection, Stopped])
def test_draws_without_derivatives_are_refused(kind):
    with pytest.raises(TypeError, match=f"draws of {kind.__name__} have no derivatives"):
        distribution_family(of_kind(kind), {"a": jnp.zeros(2), "b": jnp.zeros(2)})


def test_misuse():
    with pytest.raises(TypeError, match="an object with log_prob is wanted, got the class Gamma"):
        from_distribution(dist.Gamma)
    with pytest.raises(ValueError, match="Poisson is discrete"):
        from_distribution(dist.Poisson(3.0))
    with pytest.raises(TypeError, match="draws of Poisson have no derivatives"):
        distribution_family(dist.Poisson(3.0))
    with pytest.raises(TypeError, match="a distribution of NumPyro is wanted, got float; .*function of its parameters"):
        distribution_family(3.0)
    with pytest.raises(
        TypeError, match="with params, a function that makes a distribution of them is wanted, got float"
    ):
        distribution_family(3.0, {"a": 1.0})
    with pytest.raises(TypeError, match="must return an object with sample and log_prob, got dict"):
        distribution_family(lambda p: p, {"a": 1.0})
