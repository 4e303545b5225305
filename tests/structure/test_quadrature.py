"""Components of one coordinate integrated by quadrature: against adaptive quadrature, differences, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import elbojax
from elbojax.structure import quadrature


def bernoulli(x, y):
    return y * x - jnp.logaddexp(0, x)


def poisson(x, y):
    return y * x - jnp.exp(x)


def never_caught(x, y):
    return jnp.logaddexp(jnp.log(0.6) - 5 * jnp.logaddexp(0, x - y), jnp.log(0.4))


CASES = {
    "bernoulli": (bernoulli, [0.0, 1.0], 3.0, 0.002),
    "bernoulli, wide": (bernoulli, [0.0, 1.0], 10.0, 0.02),
    "poisson": (poisson, [0.0, 1.0, 3.0], 2.0, 0.005),
    "poisson, wide": (poisson, [0.0, 0.0], 8.0, 0.03),
    "never caught": (never_caught, [0.0, 2.0], 2.0, 0.003),
}


def nested_of(likelihood, y, inner):
    def log_density(z, y):
        return jnp.sum(-0.5 * ((z["x"] - z["mu"]) * jnp.exp(-z["t"])) ** 2 - z["t"] + likelihood(z["x"], y))

    init = {"mu": 0.0, "t": 0.0, "x": np.zeros(len(y))}
    return elbojax.integrate_out(log_density, init, "x", data=y, inner=inner)


def exact(likelihood, y, mu, tau):
    def integral(one):
        density = jax.jit(lambda x: jnp.exp(-0.5 * ((x - mu) / tau) ** 2 - jnp.log(tau) + likelihood(x, one)))
        return quad(
            lambda x: float(density(x)), mu - 10 * tau, mu + 10 * tau, points=[mu - tau, mu, mu + tau], limit=200
        )[0]

    return sum(np.log(integral(one)) for one in y)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_is_nearer_than_laplace(name):
    likelihood, y, tau, most = CASES[name]
    with jax.enable_x64(True):
        y, theta = np.array(y), jnp.array([0.3, np.log(tau)])
        truth = exact(likelihood, y, 0.3, tau)
        found = [float(nested_of(likelihood, y, inner).log_density(theta, y)) for inner in ("laplace", "quadrature")]
    off = np.abs(np.array(found) - truth) / len(y)
    assert off[1] < most, off
    assert off[0] > 2 * off[1] or name == "never caught", off  # two errors of Laplace's method happen to cancel there


def test_it_composes():
    """The gradient is that of exact integrals; batches are as single ones."""
    likelihood, y, tau, _ = CASES["never caught"]
    with jax.enable_x64(True):
        y, theta = np.array(y), jnp.array([0.3, np.log(tau)])
        nested = nested_of(likelihood, y, "quadrature")
        both = jax.jit(jax.vmap(jax.value_and_grad(nested.log_density), (0, None)))
        values, gradients = both(jnp.stack([theta, theta + 0.1]), y)
        assert values[0] == pytest.approx(float(nested.log_density(theta, y)), abs=1e-9)
        h = 1e-3
        above, below = (exact(likelihood, y, 0.3 + step, tau) for step in (h, -h))
        assert float(gradients[0, 0]) == pytest.approx((above - below) / (2 * h), abs=0.01)
        above, below = (exact(likelihood, y, 0.3, tau * np.exp(step)) for step in (h, -h))
        assert float(gradients[0, 1]) == pytest.approx((above - below) / (2 * h), abs=0.01)


def test_a_gaussian_is_exact():
    with jax.enable_x64(True):
        found = [
            float(
                nested_of(lambda x, y: -0.5 * (x - y) ** 2, np.array([1.0, -2.0]), inner).log_density(
                    jnp.zeros(2), np.array([1.0, -2.0])
                )
            )
            for inner in ("laplace", "quadrature")
        ]
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_what_it_refuses():
    pairs = lambda z: -0.5 * jnp.sum((z["x"] - z["mu"]) ** 2) - jnp.sum(jnp.prod(z["x"], axis=1) ** 2) - z["mu"] ** 2  # noqa: E731
    init = {"mu": 0.0, "x": np.zeros((3, 2))}
    with pytest.raises(ValueError, match="one coordinate"):
        elbojax.integrate_out(pairs, init, "x", inner="quadrature")
    with pytest.raises(ValueError, match="inner must be one of"):
        elbojax.integrate_out(pairs, init, "x", inner="vi")
    with pytest.raises(ValueError, match="odd"):
        quadrature._rule(8)
