"""log p(x) = ELBO(q) + KL(q || p(z|x)) in all its forms to 1e-12, where each term has a closed form.

Latents that can be enumerated are in test_decompose.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives.cases import GAUSSIAN, get
from scipy.special import betaln, digamma, gammaln

import elbojax
from elbojax import densities, noise, samplers

EXACT = dict(rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", GAUSSIAN)
@pytest.mark.parametrize("at", ("q", "prior", "posterior"))
def test_gaussian_latents(name, at):
    """Whitened draws average a quadratic without error, so that the Monte Carlo form is an expectation here."""
    case = get(name)
    q = getattr(case, at)
    draws = noise.whitened(jax.random.key(0), 8, q.noise_size, q.dtype)
    forms = {
        "Monte Carlo": elbojax.objectives.elbo_at(draws, q, case.log_density),
        "sticking the landing": elbojax.objectives.elbo_stl_at(draws, q, case.log_density),
        "entropy": elbojax.objectives.elbo_entropy_at(draws, q, case.log_density),
        "reconstruction": elbojax.objectives.elbo_kl_at(draws, q, case.log_likelihood, prior=case.prior),
    }
    gap = elbojax.families.kl_divergence(q, case.posterior)
    for form, bound in forms.items():
        np.testing.assert_allclose(bound + gap, case.log_evidence, err_msg=form, **EXACT)
    if at == "posterior":
        np.testing.assert_allclose(gap, 0, **EXACT)
    else:
        assert gap > 0.01
    if at == "prior":  # Jensen: the mean of the log-likelihood is below the log of its mean
        likelihoods = jax.vmap(lambda e: case.log_likelihood(q.transport(e)))(draws)
        np.testing.assert_allclose(jnp.mean(likelihoods), forms["reconstruction"], **EXACT)


# ---- conjugate pairs: (prior, q) and the posterior are of one kind, with natural parameters that add


def gamma_poisson(parameters):
    """A rate z ~ Gamma(2, 0.5) of Poisson counts."""
    counts, (concentration, rate) = np.array([3.0, 0.0, 5.0]), parameters
    mean, mean_log = concentration / rate, digamma(concentration) - np.log(rate)
    prior, posterior = (2.0, 0.5), (2.0 + counts.sum(), 0.5 + counts.size)
    log_evidence = prior[0] * np.log(prior[1]) - posterior[0] * np.log(posterior[1])
    log_evidence += gammaln(posterior[0]) - gammaln(prior[0]) - gammaln(counts + 1).sum()
    return dict(
        expected_log_likelihood=np.sum(counts * mean_log - mean - gammaln(counts + 1)),
        expected_log_prior=prior[0] * np.log(prior[1]) - gammaln(prior[0]) + (prior[0] - 1) * mean_log - 0.5 * mean,
        entropy=densities.entropy_gamma(*parameters),
        kl_to_prior=densities.kl_gamma(*parameters, *prior),
        kl_to_posterior=densities.kl_gamma(*parameters, *posterior),
        log_evidence=log_evidence,
        draws=samplers.gamma(jax.random.key(0), *parameters, shape=(5,)),
        log_joint=lambda z: jnp.sum(densities.poisson(counts, z)) + densities.gamma(z, *prior),
        log_q=lambda z: densities.gamma(z, *parameters),
    ), posterior


def beta_binomial(parameters):
    """A share z ~ Beta(1.5, 2) of Bernoulli trials, seven of ten."""
    a, b = parameters
    log_z, log_rest = digamma(a) - digamma(a + b), digamma(b) - digamma(a + b)
    prior, posterior = (1.5, 2.0), (1.5 + 7, 2.0 + 3)
    return dict(
        expected_log_likelihood=7 * log_z + 3 * log_rest,
        expected_log_prior=0.5 * log_z + log_rest - betaln(*prior),
        entropy=densities.entropy_beta(a, b),
        kl_to_prior=densities.kl_beta(a, b, *prior),
        kl_to_posterior=densities.kl_beta(a, b, *posterior),
        log_evidence=betaln(*posterior) - betaln(*prior),
        draws=samplers.beta(jax.random.key(0), a, b, shape=(5,)),
        log_joint=lambda z: 7 * jnp.log(z) + 3 * jnp.log1p(-z) + densities.beta(z, *prior),
        log_q=lambda z: densities.beta(z, a, b),
    ), posterior


def dirichlet_categorical(parameters):
    """Shares z ~ Dirichlet of three kinds, seen 4, 0 and 2 times."""
    counts, prior, (q,) = np.array([4.0, 0.0, 2.0]), np.array([0.8, 1.0, 2.5]), parameters
    log_z = digamma(q) - digamma(np.sum(q))
    log_normaliser = lambda a: np.sum(gammaln(a)) - gammaln(np.sum(a))  # noqa: E731
    return dict(
        expected_log_likelihood=counts @ log_z,
        expected_log_prior=(prior - 1) @ log_z - log_normaliser(prior),
        entropy=densities.entropy_dirichlet(q),
        kl_to_prior=densities.kl_dirichlet(q, prior),
        kl_to_posterior=densities.kl_dirichlet(q, prior + counts),
        log_evidence=log_normaliser(prior + counts) - log_normaliser(prior),
        draws=samplers.dirichlet(jax.random.key(0), q, shape=(5,)),
        log_joint=lambda z: counts @ jnp.log(z) + densities.dirichlet(z, prior),
        log_q=lambda z: densities.dirichlet(z, q),
    ), (prior + counts,)


CONJUGATE = {
    gamma_poisson: (np.array(3.0), np.array(1.2)),
    beta_binomial: (np.array(2.5), np.array(4.0)),
    dirichlet_categorical: (np.array([1.0, 2.0, 3.0]),),
}


@pytest.mark.parametrize("pair", CONJUGATE, ids=lambda pair: pair.__name__)
def test_conjugate_latents(pair):
    terms, posterior = pair(CONJUGATE[pair])
    bound = terms["expected_log_likelihood"] + terms["expected_log_prior"] + terms["entropy"]
    np.testing.assert_allclose(terms["expected_log_likelihood"] - terms["kl_to_prior"], bound, **EXACT)
    np.testing.assert_allclose(bound + terms["kl_to_posterior"], terms["log_evidence"], **EXACT)
    assert terms["kl_to_posterior"] > 0.1

    terms, _ = pair(posterior)  # where each single draw of the Monte Carlo form is the evidence
    bound = terms["expected_log_likelihood"] - terms["kl_to_prior"]
    np.testing.assert_allclose(terms["kl_to_posterior"], 0, **EXACT)
    np.testing.assert_allclose(bound, terms["log_evidence"], **EXACT)
    each = jax.vmap(lambda z: terms["log_joint"](z) - terms["log_q"](z))(terms["draws"])
    np.testing.assert_allclose(each, terms["log_evidence"], rtol=0, atol=2e-11)
