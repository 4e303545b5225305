"""Every density and every family is the same compiled for thousands of rows as it is operation by operation.

The sums are those that likelihoods have: of a density at related numbers, and over several observations of a row.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax import densities
from tests.families.cases import CASES

ROWS, EACH = 4096, 3
"""Rows side by side, and observations of each."""

ONE = {
    "bernoulli": (0.4,),
    "beta": (2.5, 1.3),
    "binomial": (9.0, 0.4),
    "cauchy": (0.5, 2.0),
    "exponential": (1.3,),
    "gamma": (2.5, 0.7),
    "geometric": (0.4,),
    "half_cauchy": (1.3,),
    "half_normal": (1.3,),
    "half_t": (3.0, 1.3),
    "inverse_gamma": (2.5, 0.7),
    "laplace": (0.5, 2.0),
    "log_normal": (0.5, 1.2),
    "logistic": (0.5, 2.0),
    "negative_binomial": (3.0, 1.5),
    "normal": (0.5, 2.0),
    "poisson": (3.0,),
    "poisson_log": (0.4,),
    "student_t": (4.0, 0.5, 2.0),
    "truncated_normal": (0.5, 2.0, -4.0, 5.0),
    "uniform": (-5.0, 9.0),
    "von_mises": (0.5, 2.0),
}
"""Parameters of densities of one number."""
COUNTED = ("bernoulli", "binomial", "geometric", "negative_binomial", "poisson", "poisson_log")
TRIL = np.array([[0.9, 0.0, 0.0], [0.4, 0.6, 0.0], [-0.7, 0.3, 1.2]])
LOC = np.array([0.3, -1.2, 0.7])


def vectors(rng):
    """Densities of vectors, [S, ...] of them, and their parameters."""
    line, shares = rng.normal(size=(ROWS, 3)), rng.dirichlet([1.0, 2.0, 3.0], size=ROWS)
    correlated = np.linalg.cholesky(np.stack([np.corrcoef(each) for each in rng.normal(size=(ROWS, 3, 8))]))
    steps = np.log(rng.dirichlet([1.0, 2.0], size=2))
    return {
        "categorical": (rng.integers(3, size=ROWS), (LOC,)),
        "multinomial": (rng.multinomial(7, [0.2, 0.3, 0.5], size=ROWS).astype(float), (7.0, LOC)),
        "multivariate_normal": (line, (LOC, TRIL)),
        "multivariate_normal_precision": (line, (LOC, TRIL)),
        "multivariate_normal_low_rank": (line, (LOC, TRIL[:, :2], np.array([0.5, 1.5, 0.8]))),
        "dirichlet": (shares, (np.array([1.5, 2.0, 0.7]),)),
        "lkj_cholesky": (correlated, (1.7,)),
        "hidden_markov": (rng.normal(size=(ROWS, 5, 2)), (np.log([0.3, 0.7]), steps)),
    }


def alike(compiled, plain, precision):
    compiled, plain = np.asarray(compiled, float), np.asarray(plain, float)
    tolerance = 1e-11 if precision else 2e-4
    np.testing.assert_allclose(compiled, plain, rtol=tolerance, atol=tolerance * max(np.nanmax(np.abs(plain)), 1))


def narrowed(x):
    """In the session's precision."""
    return jnp.asarray(x, None if np.issubdtype(np.asarray(x).dtype, np.integer) else float)


def test_none_is_left_out():
    told = {name for name in densities.__all__ if not name.startswith(("entropy_", "kl_"))}
    assert told == set(ONE) | set(vectors(np.random.default_rng(0)))


@pytest.mark.parametrize("name", ONE)
def test_densities_of_a_number(name, precision):
    density, params = getattr(densities, name), [narrowed(x) for x in ONE[name]]
    rng = np.random.default_rng(0)
    x = narrowed(rng.integers(2 if name == "bernoulli" else 9, size=(ROWS, EACH)).astype(float))
    if name not in COUNTED:
        x = narrowed(rng.uniform(0.05, 0.9, size=(ROWS, EACH)))

    def log_density(x):
        # At related numbers, where it takes others than whole ones.
        related = jnp.zeros_like(x) if name in COUNTED else density(x / 4, *params)
        return jnp.sum(density(x, *params) + related)

    compiled, slopes = jax.jit(jax.vmap(jax.value_and_grad(log_density)))(x)
    plain, slopes_of_plain = jax.vmap(jax.value_and_grad(log_density))(x)
    alike(compiled, plain, precision)
    alike(slopes, slopes_of_plain, precision)


@pytest.mark.parametrize("name", vectors(np.random.default_rng(0)))
def test_densities_of_a_vector(name, precision):
    x, params = vectors(np.random.default_rng(0))[name]
    x, params = narrowed(x), [narrowed(each) for each in params]
    log_density = jax.vmap(lambda x: getattr(densities, name)(x, *params))
    alike(jax.jit(log_density)(x), log_density(x), precision)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_families(case, precision):
    q = case.make(jnp.result_type(float))
    events = jax.jit(jax.vmap(q.sample))(jax.random.split(jax.random.key(0), ROWS))
    plain = jax.vmap(q.log_prob)(events)
    assert np.all(np.isfinite(plain))
    alike(jax.jit(jax.vmap(q.log_prob))(events), plain, precision)
