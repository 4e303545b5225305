"""Precisions of wide bands by the colours of their pattern: equal to dense Hessians, from few products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax.structure import linear

RNG = np.random.default_rng(5)


def field(shape):
    """Counts on a grid whose log-rates differ little from their neighbours'."""
    counts = RNG.poisson(2.0, shape)

    def log_density(z):
        f, tau = z["f"], z["tau"]
        steps = sum(jnp.sum(jnp.diff(f, axis=axis) ** 2) for axis in (0, 1))
        prior = -0.5 * (0.1 * jnp.sum(f**2) + steps) / tau**2 - f.size * jnp.log(tau) - tau
        return prior + jnp.sum(counts * f - jnp.exp(f))

    return log_density, {"f": jnp.zeros(shape), "tau": 1.0}, {"tau": "positive"}


def second_order(length):
    """A curve by its second differences, and a mean of five neighbours seen in noise."""
    y = RNG.standard_normal(length - 4)

    def log_density(z):
        x, tau = z["x"], z["tau"]
        prior = -0.5 * jnp.sum(jnp.diff(x, n=2) ** 2) / tau**2 - length * jnp.log(tau) - tau - 0.05 * jnp.sum(x**4)
        means = sum(x[i : length - 4 + i] for i in range(5)) / 5
        return prior - 0.5 * jnp.sum((y - means) ** 2)

    return log_density, {"x": jnp.zeros(length), "tau": 1.0}, {"tau": "positive"}


@pytest.mark.parametrize(("model", "most"), [(field((5, 9)), 10), (second_order(40), 9)], ids=["field", "curve"])
def test_the_precision_is_that_of_a_dense_hessian(model, most):
    log_density, init, support = model
    with jax.enable_x64(True):
        found = elbojax.find_structure(jax.random.key(0), log_density, init, support=support)
        nested = elbojax.integrate_out(log_density, init, found, support=support)
        plan = nested.plan
        assert plan.num_components == 1 and plan.num_colours <= most
        point = jnp.asarray(nested.start + 0.3 * RNG.standard_normal(len(nested.start)))
        density = lambda z: nested.target.log_density(z)  # noqa: E731
        _, blocks = jax.jit(lambda z: linear.precision(plan, density, z))(point)
        wanted = -jax.jit(jax.hessian(density))(point)
        (group,) = plan.groups
        dense = np.zeros((plan.size + 1, plan.size + 1))
        places = group.places[0]
        for block, place in zip(blocks[0][0][0], places, strict=True):
            dense[np.ix_(place, place)] += block
        for block, above, below in zip(blocks[0][1][0], places[:-1], places[1:], strict=True):
            dense[np.ix_(below, above)] += block
            dense[np.ix_(above, below)] += block.T
        latent = np.ix_(plan.latent, plan.latent)
        np.testing.assert_allclose(dense[latent], wanted[latent], atol=1e-12 * np.abs(wanted).max())
