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


def test_misuse():
    with pytest.raises(TypeError, match="an object with log_prob is wanted, got the class Gamma"):
        from_distribution(dist.Gamma)
    with pytest.raises(ValueError, match="Poisson is discrete"):
        from_distribution(dist.Poisson(3.0))
    with pytest.raises(TypeError, match="draws of Poisson have no derivatives"):
        distribution_family(dist.Poisson(3.0))
    with pytest.raises(TypeError, match="a distribution of NumPyro is wanted, got float"):
        distribution_family(3.0)
