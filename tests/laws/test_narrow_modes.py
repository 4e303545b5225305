"""A mode much narrower than the rest in which a path ends, or a draw falls, is weighed, or there is no certificate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax


def spike(z, data):
    """A standard Gaussian, and one of a small sd at a place."""
    each = lambda at, sd: jnp.sum(-0.5 * ((z - at) / sd) ** 2 - jnp.log(sd) - 0.5 * jnp.log(2 * jnp.pi))  # noqa: E731
    return jnp.logaddexp(
        jnp.log1p(-data["weight"]) + each(0.0, 1.0), jnp.log(data["weight"]) + each(data["at"], data["sd"])
    )


# Parameters, place, sd and weight of the narrow mode.
CASES = {
    "in the middle": (5, 0.0, 0.1, 0.5),
    "in the middle, light": (5, 0.0, 0.1, 0.2),
    "in the middle, very narrow": (3, 0.0, 0.02, 0.3),
    "at a side, where draws fall": (2, 1.0, 0.05, 0.5),
}


def case(name, copies=None):
    size, at, sd, weight = CASES[name]
    data = {"weight": weight, "at": float(at), "sd": sd}
    if copies is not None:
        data = jax.tree.map(lambda x: jnp.full(copies, x), data)
    return np.ones(size), data, weight * at, np.sqrt(1 - weight + weight * (sd**2 + at**2) - (weight * at) ** 2)


@pytest.mark.parametrize("name", CASES)
def test_a_narrow_mode_is_weighed(name):
    for seed in (0, 1, 2):
        start, data, mean, sd = case(name)
        fit = elbojax.fit(jax.random.key(seed), spike, start, data=data)
        assert bool(fit.certificate.certified)
        np.testing.assert_allclose(np.asarray(fit.mean()), mean, atol=0.1 * sd)
        np.testing.assert_allclose(np.asarray(fit.sd()) / sd, 1, atol=0.1)
        assert abs(float(fit.certificate.log_evidence)) < 0.1


def test_a_batch_weighs_it_too():
    start, data, mean, sd = case("in the middle", 3)
    fits = elbojax.fit_batch(jax.random.key(0), spike, start, data)
    assert np.all(fits.certificate.certified)
    np.testing.assert_allclose(np.asarray(fits.mean()), mean, atol=0.1 * sd)
    np.testing.assert_allclose(np.asarray(fits.sd()) / sd, 1, atol=0.1)


def test_where_the_answer_has_the_mode_it_costs_nothing():
    log_density = lambda z: -0.5 * jnp.sum((z / np.array([1.0, 10.0, 0.1])) ** 2) - 0.1 * jnp.sum(z**4)  # noqa: E731
    counts = []
    for largest in (60, 0):
        with elbojax.thresholds.overridden(NARROW_LARGEST=largest):
            c = elbojax.fit(jax.random.key(0), log_density, jnp.ones(3)).certificate
        assert c.certified
        counts.append((int(c.num_gradients), int(c.num_log_densities)))
    assert counts[0] == counts[1]
