"""Single precision is taken where it is seen to do, and nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status
from elbojax.cascade import precision
from elbojax.cascade.single import prepare

SIZE = 3


def target_of(log_density, datum):
    return prepare(log_density, jnp.zeros(SIZE), None, datum)[0]


def test_as_double_to_rounding():
    with jax.enable_x64(True):
        datum = {"x": np.linspace(0.0, 1.0, 7), "n": np.arange(7)}

        def log_density(z, datum):
            zeros = jnp.zeros(())  # of the precision that is set
            total, _ = jax.lax.scan(lambda c, x: (c + x * z[0], None), zeros, datum["x"])
            return -0.5 * jnp.sum(z**2) + jnp.sin(total) + datum["n"][3]

        target = target_of(log_density, datum)
        rough = precision.single(target, datum)
        z = jnp.array([0.3, -1.0, 2.0])
        value, gradient = jax.value_and_grad(rough)(z)
        good, good_gradient = jax.value_and_grad(lambda z: target.log_density(z, datum))(z)
        assert value.dtype == jnp.float64 and gradient.dtype == jnp.float64
        np.testing.assert_allclose(value, good, rtol=1e-6)
        np.testing.assert_allclose(gradient, good_gradient, rtol=1e-5)
        assert value != good  # it was computed in single precision


@pytest.mark.parametrize(
    "log_density",
    [
        lambda z, d: jnp.sum(-(z.astype(jnp.float64) ** 2)) + d,
        lambda z, d: jax.lax.while_loop(lambda c: c < d, lambda c: c + jnp.zeros((), jnp.float64), z[0]),
    ],
)
def test_double_that_is_asked_for_is_given(log_density):
    with jax.enable_x64(True):
        datum = np.float64(1.0)
        assert (
            precision.single(target_of(lambda z, d: -jnp.sum(z**2) * d, datum)._replace(log_density=log_density), datum)
            is None
        )


def draws():
    z = np.random.default_rng(0).normal(size=(256, SIZE))
    return z, -0.5 * (z**2).sum(axis=1), np.zeros(256)


def test_a_common_shift_is_no_error():
    with jax.enable_x64(True):
        z, log_p, log_proposal = draws()
        shifted, exact = precision.compared(z, log_p + 3.0, log_proposal, lambda z: -0.5 * jnp.sum(z**2))
        assert exact
        np.testing.assert_allclose(shifted, log_p, atol=1e-12)


@pytest.mark.parametrize("wrong", ["heaviest", "overflow", "everywhere"])
def test_what_matters_is_compared(wrong):
    with jax.enable_x64(True):
        z, log_p, log_proposal = draws()
        if wrong == "heaviest":
            log_p[np.argmax(log_p)] += 0.1
        elif wrong == "overflow":
            log_p[137] = -np.inf
        else:
            log_p += 0.1 * np.random.default_rng(1).normal(size=len(log_p))
        assert not precision.compared(z, log_p, log_proposal, lambda z: -0.5 * jnp.sum(z**2))[1]


def test_draws_outside_the_support_agree():
    with jax.enable_x64(True):
        z, log_p, log_proposal = draws()
        log_p = np.where(z[:, 0] > -1, log_p, -np.inf)
        _, exact = precision.compared(
            z, log_p, log_proposal, lambda z: jnp.where(z[0] > -1, -0.5 * jnp.sum(z**2), -jnp.inf)
        )
        assert exact


@pytest.mark.slow
def test_models_that_need_double_get_it():
    """A mean known to a millionth of itself, whose digits are lost in single precision."""

    def log_density(z, y):
        return -0.5 * jnp.sum((z - y) ** 2 / 1e-6)

    y = jnp.array([[0.0, 0.0], [1000.0, 0.0]])
    fits = elbojax.fit_batch(jax.random.key(0), log_density, jnp.zeros(2), y, compiled=True)
    assert fits.certificate.certified.all() and (fits.certificate.status == Status.CONVERGED).all()
    assert fits.certificate.num_log_densities[1] > fits.certificate.num_log_densities[0]
    np.testing.assert_allclose(fits.sd(), 1e-3, rtol=0.02)
