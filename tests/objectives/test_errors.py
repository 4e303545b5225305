import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives.cases import ESTIMATORS, PATHWISE, get

from elbojax import bernoulli, elbo, elbo_entropy, elbo_kl, elbo_rloo, mean_field, noise

KEY = jax.random.key(0)
Q = mean_field(jnp.zeros(2), 1.0)


def _call(name, log_density, q=None, **settings):
    q = bernoulli(jnp.zeros(2)) if q is None and name == "elbo_disarm" else Q if q is None else q
    prior = {"prior": Q} if ESTIMATORS[name].reconstruction else {}
    return ESTIMATORS[name].objective(
        KEY, q, log_density, num_samples=settings.pop("num_samples", 2), **prior, **settings
    )


@pytest.mark.parametrize(
    ("log_density", "given"),
    [
        (lambda z: z, r"array of shape \(2,\)"),
        (lambda z: jnp.sum(z, keepdims=True), r"array of shape \(1,\)"),
        (lambda z: jnp.outer(z, z), r"array of shape \(2, 2\)"),
        (lambda z: None, "NoneType"),
        (lambda z: (jnp.sum(z), 0.0), "tuple"),
        (lambda z: {"value": jnp.sum(z)}, "dict"),
    ],
    ids=("vector", "one element", "matrix", "None", "tuple", "dict"),
)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_log_density_must_be_a_scalar(name, log_density, given):
    with pytest.raises(TypeError, match=f"log_density must return a scalar.*it returned an? {given}.*Sum over data"):
        _call(name, log_density)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_log_density_may_be_a_plain_number(name):
    np.testing.assert_allclose(_call(name, lambda z: 2.0) - _call(name, lambda z: 0), 2.0, rtol=1e-12)


@pytest.mark.parametrize("case", ("bernoulli", "categorical"))
@pytest.mark.parametrize("name", PATHWISE)
def test_a_discrete_q_has_no_pathwise_gradient(name, case):
    q = get(case).q
    with pytest.raises(TypeError, match=f"needs a Reparameterised q, got {type(q).__name__}.*elbo_rloo or elbo_score"):
        _call(name, get(case).log_density, q)


@pytest.mark.parametrize("num_samples", (0, -2))
@pytest.mark.parametrize("name", ESTIMATORS)
def test_there_must_be_draws(name, num_samples):
    wanted = "num_samples >= 2" if name in ("elbo_rloo", "elbo_vargrad") else "num_samples must be at least 1"
    with pytest.raises(ValueError, match=f"{wanted}, got {num_samples}"):
        _call(name, jnp.sum, num_samples=num_samples)


def test_leaving_one_out_takes_two():
    with pytest.raises(ValueError, match="leave-one-out baseline needs num_samples >= 2, got 1"):
        elbo_rloo(KEY, Q, jnp.sum, num_samples=1)


@pytest.mark.parametrize("draws", (noise.antithetic, noise.whitened), ids=lambda f: f.__name__)
def test_pairs_take_an_even_number(draws):
    with pytest.raises(ValueError, match="num_samples must be even, got 3"):
        elbo(KEY, Q, jnp.sum, num_samples=3, draws=draws)


def test_closed_forms_that_do_not_exist():
    q = get("mixture").q
    with pytest.raises(TypeError, match="Mixture has no closed-form entropy; use the Monte Carlo form, `elbo`"):
        elbo_entropy(KEY, q, jnp.sum)
    with pytest.raises(TypeError, match="no closed-form KL from MeanField to Mixture"):
        elbo_kl(KEY, mean_field(jnp.zeros(1), 1.0), jnp.sum, prior=q)
