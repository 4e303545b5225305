import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import cases
from objectives.cases import ENUMERABLE, GAUSSIAN, SEEDS, exact_terms, get

from elbojax import bernoulli, mean_field
from elbojax.objectives import decompose

NUM_SAMPLES = 4000
WHICH = ("q", "prior", "posterior")


@functools.cache
def _compiled(name, dtype, num_samples):
    case = get(name, dtype)

    def terms(key, q):
        return decompose(
            key,
            q,
            log_likelihood=case.log_likelihood,
            prior=case.prior,
            log_evidence=case.log_evidence,
            num_samples=num_samples,
        )

    return jax.jit(terms)


def _decompose(name, at="q", seed=0, dtype="float64"):
    return _compiled(name, dtype, NUM_SAMPLES)(jax.random.key(seed), getattr(get(name, dtype), at))


def _pairs(names):
    return [(name, at) for name in names for at in WHICH if getattr(get(name), at) is not None]


def _assert_identities(terms, log_evidence, atol):
    for total in (
        terms.expected_log_joint + terms.entropy,
        terms.expected_log_likelihood - terms.kl_to_prior,
        log_evidence - terms.kl_to_posterior,
    ):
        np.testing.assert_allclose(total, terms.elbo, rtol=0, atol=atol)


@pytest.mark.parametrize(("name", "at"), _pairs(ENUMERABLE))
def test_terms_are_exact_where_the_latent_can_be_enumerated(name, at):
    case, terms = get(name), _decompose(name, at)
    for field, expected in exact_terms(name, at).items():
        np.testing.assert_allclose(getattr(terms, field), expected, rtol=0, atol=1e-12, err_msg=field)
    _assert_identities(terms, case.log_evidence, 1e-12)
    assert terms.elbo_se == 0
    if at == "posterior":
        np.testing.assert_allclose(terms.kl_to_posterior, 0, atol=1e-12)
    else:
        assert terms.kl_to_posterior > 0.01
    if at == "prior":
        np.testing.assert_allclose(terms.kl_to_prior, 0, atol=1e-12)
        np.testing.assert_allclose(terms.elbo, terms.expected_log_likelihood, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "at"), _pairs(GAUSSIAN))
def test_terms_are_within_their_errors_elsewhere(name, at, seed):
    terms, exact = _decompose(name, at, seed), exact_terms(name, at)
    _assert_identities(terms, get(name).log_evidence, 1e-10)
    assert abs(terms.elbo - exact["elbo"]) <= 4 * terms.elbo_se + 1e-10
    for field, integrand in _integrands(name, at).items():
        error = np.std(integrand) / np.sqrt(NUM_SAMPLES)
        assert abs(getattr(terms, field) - exact[field]) <= 4 * error + 1e-10, field


@functools.cache
def _integrands(name, at):
    """What the terms are averages of, on draws of their own."""
    case = get(name)
    q = getattr(case, at)

    @jax.jit
    @jax.vmap
    def one(key):
        z = q.sample(key)
        return {
            "expected_log_joint": case.log_density(z),
            "entropy": q.log_prob(z),
            "expected_log_likelihood": case.log_likelihood(z),
            "kl_to_prior": q.log_prob(z) - case.prior.log_prob(z),
        }

    return one(jax.random.split(jax.random.key(100), NUM_SAMPLES))


@pytest.mark.parametrize("name", ("full rank", "mixture"))
def test_its_standard_error_is_the_spread_of_its_answers(name):
    case = get(name)
    keys = jax.random.split(jax.random.key(0), 400)
    terms = jax.jit(jax.vmap(lambda key: decompose(key, case.q, case.log_density, num_samples=50)))(keys)
    np.testing.assert_allclose(np.mean(terms.elbo_se**2), np.var(terms.elbo), rtol=4 * np.sqrt(2 / 400))
    cases.assert_mean(np.asarray(terms.elbo), cases.exact(name)[0])


@pytest.mark.parametrize("name", ("bernoulli", "mean field"))
def test_log_density_and_its_two_parts_say_the_same(name):
    case = get(name)
    whole = jax.jit(lambda key, q: decompose(key, q, case.log_density, num_samples=NUM_SAMPLES))(
        jax.random.key(0), case.q
    )
    parts = _decompose(name)
    for field in ("elbo", "elbo_se", "expected_log_joint", "entropy"):
        np.testing.assert_allclose(getattr(whole, field), getattr(parts, field), rtol=1e-10)
    assert whole.expected_log_likelihood is whole.kl_to_prior is whole.kl_to_posterior is None


@pytest.mark.parametrize("name", ("categorical", "mean field"))
def test_jit_and_vmap_equal_plain(name):
    case = get(name)
    qs = jax.tree.map(lambda x: jnp.stack([x, x + 0.2, x - 0.3]), case.q)
    keys = jax.random.split(jax.random.key(0), 3)

    def one(key, q):
        return decompose(key, q, log_likelihood=case.log_likelihood, prior=case.prior, num_samples=20)

    batch = jax.jit(jax.vmap(one))(keys, qs)
    for i in range(3):
        alone = one(keys[i], jax.tree.map(lambda x, i=i: x[i], qs))
        for x, y in zip(jax.tree.leaves(batch), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(x[i], y, rtol=1e-10)


@pytest.mark.parametrize("name", ("bernoulli", "categorical"))
def test_gradient_of_an_enumerated_bound_is_exact(name):
    case = get(name)
    gradient = jax.jit(jax.grad(lambda q: decompose(jax.random.key(0), q, case.log_density).elbo))(case.q)
    np.testing.assert_allclose(cases.flat(gradient), cases.exact(name)[1], atol=1e-12)


@pytest.mark.parametrize("name", (*GAUSSIAN, *ENUMERABLE))
def test_float32_in_float32_out(name):
    terms, exact = _decompose(name, dtype="float32"), _decompose(name)
    assert {x.dtype for x in terms} == {jnp.dtype("float32")}
    atol = 1e-5 if name in ENUMERABLE else 1e-4
    _assert_identities(terms, get(name).log_evidence, atol)
    if name in ENUMERABLE:
        for x, y in zip(terms, exact, strict=True):
            np.testing.assert_allclose(x, y, atol=atol)


def test_what_q_excludes_does_not_count_even_where_p_excludes_it():
    """log q = -800 and log p = -inf at z = 1: no weight, no NaN."""
    q = bernoulli(jnp.array([-800.0]))
    terms = decompose(jax.random.key(0), q, lambda z: jnp.where(z[0] == 0, jnp.log(0.25), -jnp.inf))
    np.testing.assert_allclose(terms.elbo, np.log(0.25), rtol=1e-12)
    np.testing.assert_allclose(terms.entropy, 0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(), TypeError, "give log_density, or log_likelihood and prior"),
        (dict(log_likelihood=jnp.sum), TypeError, "log_likelihood and prior belong together"),
        (dict(prior=mean_field(jnp.zeros(2), 1.0)), TypeError, "log_likelihood and prior belong together"),
        (dict(log_density=jnp.sum, num_samples=1), ValueError, "needs num_samples >= 2, got 1"),
        (dict(log_density=lambda z: z), TypeError, r"must return a scalar.*shape \(2,\)"),
        (
            dict(log_likelihood=lambda z: z, prior=mean_field(jnp.zeros(2), 1.0)),
            TypeError,
            r"must return a scalar.*shape \(2,\)",
        ),
    ],
)
def test_errors_say_what_was_wanted_and_given(arguments, error, message):
    with pytest.raises(error, match=message):
        decompose(jax.random.key(0), mean_field(jnp.zeros(2), 1.0), **arguments)
