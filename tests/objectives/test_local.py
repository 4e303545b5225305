import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax import amortised, mean_field
from elbojax.densities import normal
from elbojax.families import Amortised
from elbojax.objectives import GlobalAndLocal, elbo_local

X = jnp.array([1.0, -2.0, 0.5, 3.0, 0.0])
SHARED = mean_field(jnp.array([0.3]), 0.7)
LOCAL = jax.vmap(lambda x, s: mean_field(x[None], s))(0.4 * X + 0.1, jnp.array([0.5, 0.6, 0.7, 0.8, 0.9]))
ENCODER = amortised(
    lambda w, x: mean_field(w[:1] * x + w[1:2], jnp.exp(w[2] + w[3] * jnp.sin(x))), jnp.array([0.4, 0.1, -0.5, 0.2])
)
QS = {
    "global": GlobalAndLocal(SHARED, None),
    "local": GlobalAndLocal(None, LOCAL),
    "both": GlobalAndLocal(SHARED, LOCAL),
    "amortised": GlobalAndLocal(None, ENCODER),
    "amortised, both": GlobalAndLocal(SHARED, ENCODER),
}
# theta ~ N(0, 2), z_n ~ N(theta, 1), x_n ~ N(z_n, 0.5); what is missing stands at zero, or is left out.


def log_prior(theta):
    return normal(theta[0], 0.0, 2.0)


def log_joint(theta, z, x):
    theta = 0.0 if theta is None else theta[0]
    if z is None:
        return normal(x, theta, 0.5)
    return normal(z[0], theta, 1.0) + normal(x, z[0], 0.5)


def by_row(q):
    """With a local part for every row in place of a function of the data."""
    return q._replace(local=jax.vmap(q.local)(X)) if isinstance(q.local, Amortised) else q


def exact(q):
    """The bound of all data by expectations of Gaussians, with numpy."""

    def expected(mean, variance, sd):
        return -0.5 * (mean**2 + variance) / sd**2 - np.log(sd) - 0.5 * np.log(2 * np.pi)

    def moments(part):
        return (
            (0.0, 0.0)
            if part is None
            else (np.asarray(part.loc)[..., 0], np.exp(2 * np.asarray(part.log_scale)[..., 0]))
        )

    (m, v), (n, w) = moments(q.shared), moments(by_row(q).local)
    entropy = lambda variance: 0.5 * np.log(2 * np.pi * np.e * variance)  # noqa: E731
    total = 0.0 if q.shared is None else expected(m, v, 2.0) + entropy(v)
    if q.local is None:
        return total + np.sum(expected(np.asarray(X) - m, v, 0.5))
    return total + np.sum(expected(n - m, v + w, 1.0) + expected(np.asarray(X) - n, w, 0.5) + entropy(w))


@functools.partial(jax.jit, static_argnames="num_samples")
def bound(key, q, rows, num_samples=1):
    return elbo_local(key, q, log_prior, log_joint, X, rows, num_samples=num_samples)


over_batches = jax.jit(jax.vmap(jax.value_and_grad(bound, argnums=1), (None, None, 0)))


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("latents", QS)
def test_over_all_minibatches_it_is_the_bound_of_all_rows(latents, size):
    """With the same noise: value and gradient average to those of one batch of all rows."""
    q, key = QS[latents], jax.random.key(3)
    batches = jnp.array(list(itertools.combinations(range(5), size)))
    values, gradients = over_batches(key, q, batches)
    wanted = jax.tree.map(lambda x: x[0], over_batches(key, q, jnp.arange(5)[None]))
    np.testing.assert_allclose(values.mean(), wanted[0], rtol=1e-12)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g.mean(0), w, rtol=1e-10, atol=1e-12), gradients, wanted[1])
    assert np.std(values) > 0


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("latents", QS)
def test_its_mean_is_the_exact_bound(latents, seed):
    q = QS[latents]
    keys = jax.random.split(jax.random.key(seed), 4000)
    rows = jax.random.randint(jax.random.key(seed + 10), (4000, 2), 0, 5)
    values = np.asarray(jax.jit(jax.vmap(bound, (0, None, 0)))(keys, q, rows))
    assert abs(values.mean() - exact(q)) < 4 * values.std() / np.sqrt(4000)


@pytest.mark.parametrize("latents", ["amortised", "amortised, both"])
def test_an_amortised_part_is_the_stacked_one_it_stands_for(latents):
    """Value, and by the chain rule the gradient in the parameters that all rows share."""
    q, key, rows = QS[latents], jax.random.key(5), jnp.array([3, 0, 2])
    value, gradient = jax.value_and_grad(bound, argnums=1)(key, q, rows)
    stacked, pull = jax.vjp(by_row, q)
    wanted, slope = jax.value_and_grad(bound, argnums=1)(key, stacked, rows)
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    np.testing.assert_allclose(gradient.local.params, pull(slope)[0].local.params, rtol=1e-10)


def test_rows_outside_the_minibatch_get_no_gradient():
    gradient = jax.grad(bound, argnums=1)(jax.random.key(0), QS["both"], jnp.array([1, 4])).local.loc[:, 0]
    assert np.array_equal(np.flatnonzero(gradient), [1, 4])


def test_misuse():
    with pytest.raises(TypeError, match="neither a shared nor a local part"):
        bound(jax.random.key(0), GlobalAndLocal(None, None), jnp.arange(2))
    with pytest.raises(ValueError, match="leading axis of 5 like the data, got 3"):
        bound(jax.random.key(0), GlobalAndLocal(None, jax.tree.map(lambda x: x[:3], LOCAL)), jnp.arange(2))
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        bound(jax.random.key(0), QS["both"], jnp.arange(2), num_samples=0)
