"""What is compiled is what is written: sums and maxima over functions of related numbers, a user's own `jit` among them.

XLA on CPU handed such reductions to a library that took the logarithm of one argument for that of another.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import elbojax

FUNCTIONS = {
    "log1p": (jnp.log1p, np.log1p),
    "expm1": (jnp.expm1, np.expm1),
    "log": (lambda x: jnp.log(x + 0.1), lambda x: np.log(x + 0.1)),
    "exp": (jnp.exp, np.exp),
    "tanh": (jnp.tanh, np.tanh),
    "sqrt": (jnp.sqrt, np.sqrt),
    "square": (jnp.square, np.square),
    "logistic": (jax.nn.sigmoid, scipy.special.expit),
    "erf": (jax.scipy.special.erf, scipy.special.erf),
    "softplus": (jax.nn.softplus, lambda x: np.logaddexp(x, 0)),
    "gammaln": (lambda x: jax.scipy.special.gammaln(x + 1), lambda x: scipy.special.gammaln(x + 1)),
    "abs": (jnp.abs, np.abs),
    "sin": (jnp.sin, np.sin),
}
SHAPES = [(4096,), (1024, 4), (64, 100), (4, 2000)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_sum_of_one_function_at_related_numbers(name, precision):
    ours, exact = FUNCTIONS[name]
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        x = rng.uniform(0.1, 2, size=shape).astype(jnp.result_type(float))
        of = {
            "scaled": (lambda x: ours(x / 4) + ours(x), lambda x: exact(x / 4) + exact(x)),
            "moved": (lambda x: ours(x + 1) - 0.5 * ours(x), lambda x: exact(x + 1) - 0.5 * exact(x)),
            "squared": (lambda x: ours(x**2) * ours(x), lambda x: exact(x**2) * exact(x)),
        }
        for kind, (f, right) in of.items():
            each = right(x.astype(float))
            found = jax.jit(lambda x, f=f: jnp.sum(f(x), axis=-1))(x)
            scale = float(np.max(np.sum(np.abs(each), axis=-1)))
            np.testing.assert_allclose(found, np.sum(each, axis=-1), atol=2e-5 * scale, err_msg=f"{kind} {shape}")


@pytest.mark.parametrize("size", [300, 16_385, 32_769])
def test_mapped_products_that_are_summed(size, precision):
    """Of jax issue 39103."""
    i = np.arange(size) % 1000 / 1000
    x = np.stack([i, 2 * i, i**2], axis=1).astype(jnp.result_type(float))
    matrix = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.2, 0.0, 1.0]], x.dtype)
    found = jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)))(x)
    np.testing.assert_allclose(found, np.sum((x @ matrix.T) ** 2, axis=1), rtol=1e-4)


def test_a_fit_of_student_t_variates_of_two_scales():
    rng = np.random.default_rng(0)
    y = rng.standard_t(5, size=4000) + 1.0

    def log_density(z, y):
        # Half of all are of this scale, half of that: as a contaminated likelihood has it, but for the mixture.
        return -1.5 * jnp.sum(jnp.log1p((y - z) ** 2 / 4) + jnp.log1p((y - z) ** 2)) - 0.5 * z**2

    grid = np.linspace(0.5, 1.5, 4001)
    residuals = (y[:, None] - grid) ** 2
    exact = -1.5 * np.sum(np.log1p(residuals / 4) + np.log1p(residuals), axis=0) - 0.5 * grid**2
    weights = np.exp(exact - exact.max())
    weights /= weights.sum()
    mean = weights @ grid
    sd = np.sqrt(weights @ (grid - mean) ** 2)
    fit = elbojax.fit(jax.random.key(0), log_density, 0.0, data=y)
    assert fit.certificate.certified
    assert abs(float(fit.mean()) - mean) < 0.1 * sd and float(fit.sd()) == pytest.approx(sd, rel=0.1)
    log_evidence = exact.max() + np.log(np.sum(np.exp(exact - exact.max())) * (grid[1] - grid[0]))
    assert float(fit.certificate.log_evidence) == pytest.approx(log_evidence, abs=0.05)
