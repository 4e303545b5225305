"""Control variates and missing moments in NumPy are those of `elbojax.cascade.control` and `elbojax.results.tails`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from elbojax.cascade import control as compiled_control
from elbojax.host import control, tails
from elbojax.host.psis import smooth
from elbojax.results import tails as compiled_tails


def sample(num_draws=1024, size=3, seed=0, scale=0.3):
    """Normalised weights, shares q / r and draws, such as a check has."""
    rng = np.random.default_rng(seed)
    weights = np.exp(scale * rng.standard_normal(num_draws))
    return weights / weights.sum(), np.exp(0.2 * rng.standard_normal(num_draws)), rng.standard_normal((num_draws, size))


def one_column(x, value):
    x = x.copy()
    x[:, 1] = value
    return x


W, SHARE, Z = sample()
CASES = {
    "plain": (W, SHARE, Z),
    "one coordinate": sample(size=1),
    "heavy weights": sample(scale=3.0),
    "shifted": (W, SHARE, Z + 2),
    "too few draws": sample(num_draws=48),
    "just enough": sample(num_draws=56),
    "a constant coordinate": (W, SHARE, one_column(Z, 0.0)),
    "two alike": (W, SHARE, one_column(Z, Z[:, 0])),
    "draws at infinity": (W, SHARE, one_column(Z, np.inf)),
    "nan in a share": (W, np.where(np.arange(len(W)) == 3, np.nan, SHARE), Z),
    "no shares": (W, 0 * SHARE, Z),
    "one weight": (np.eye(1, len(W), 5)[0], SHARE, Z),
}


@pytest.mark.parametrize("name", CASES)
def test_control_variates(name):
    with np.errstate(all="ignore"):
        got = control.controlled(*CASES[name])
    wanted = jax.jit(compiled_control.controlled)(*map(jnp.asarray, CASES[name]))
    # Where the controls depend on each other, rounding is magnified by the ridge.
    close = {"rtol": 1e-5, "atol": 1e-8} if name in ("a constant coordinate", "two alike") else {"rtol": 1e-9}
    np.testing.assert_allclose(got.weights, wanted.weights, **close)
    np.testing.assert_allclose(got.mean_error, wanted.mean_error, **close)
    np.testing.assert_allclose(got.sd_error, wanted.sd_error, **close)


def test_control_variates_give_back_what_is_known():
    weights, share, _ = sample(num_draws=4096)
    z = np.random.default_rng(3).standard_normal((4096, 3))
    even = np.full(4096, 1 / 4096)
    new = control.controlled(even, np.ones(4096), z).weights
    np.testing.assert_allclose(new.sum(), 1)
    assert np.max(np.abs(new @ z)) < 0.02 * np.max(np.abs(even @ z))


def columns():
    """Draws whose moments exist, and draws whose moments do not, by the tails of the posterior under flat weights."""
    rng = np.random.default_rng(4)
    z = rng.standard_normal((8192, 2))
    return {
        "normal": z[:, 0],
        "log-normal": np.exp(z[:, 0]),
        "cauchy": z[:, 0] / z[:, 1],
        "t(2.5)": rng.standard_t(2.5, 8192),
        "half-cauchy": np.abs(z[:, 0] / z[:, 1]),
        "constant": np.ones(8192),
        "with an infinity": np.where(np.arange(8192) == 9, np.inf, z[:, 0]),
        "with nan": np.where(np.arange(8192) == 9, np.nan, z[:, 0]),
        "infinite without weight": np.where(np.arange(8192) == 0, np.inf, z[:, 0]),
    }


@pytest.mark.parametrize("scale", [0.0, 0.3, 2.5])
def test_missing_moments(scale):
    values = np.stack(list(columns().values()), axis=1)
    weights = np.exp(scale * np.random.default_rng(5).standard_normal(8192))
    weights[0] = 0
    weights /= weights.sum()
    there = weights > 0
    with np.errstate(all="ignore"):
        mean = weights[there] @ values[there]
        variance = weights[there] @ (values[there] - mean) ** 2
        log_weights = np.log(weights)
        doubtful = tails.doubtful(values, weights, mean, variance)
        shapes = tails.shapes(values, weights)
        lacking = tails.lacking(values, weights, mean, variance)
    # Of NaN, XLA's maxima on CPU are not NaN; here it is doubtful, and has no moments.
    nan = list(columns()).index("with nan")
    assert doubtful[nan] and lacking[0][nan] and lacking[1][nan]
    known = np.arange(len(mean)) != nan
    arguments = (
        jnp.asarray(values[:, known]),
        jnp.asarray(log_weights),
        jnp.asarray(mean[known]),
        jnp.asarray(variance[known]),
    )
    values, log_weights, mean, variance = arguments
    np.testing.assert_array_equal(
        doubtful[known], compiled_tails.doubtful(values, jnp.exp(log_weights), mean, variance)
    )
    for got, wanted in zip(shapes, jax.jit(compiled_tails.shapes)(values, log_weights), strict=True):
        np.testing.assert_allclose(got[known], wanted, rtol=1e-7, atol=1e-9)
    for got, wanted in zip(lacking, jax.jit(compiled_tails.lacking)(*arguments), strict=True):
        np.testing.assert_array_equal(got[known], wanted)
    if scale == 0:
        assert dict(zip(columns(), lacking[0].tolist(), strict=True))["cauchy"]
        assert not lacking[1][[0, 1, 5]].any()


def test_nothing_is_looked_at_where_nothing_is_doubtful():
    values = np.random.default_rng(6).standard_normal((4096, 5))
    weights = np.full(4096, 1 / 4096)
    no_mean, no_sd = tails.lacking(values, weights, values.mean(0), values.var(0))
    assert no_mean.dtype == no_sd.dtype == bool and no_mean.shape == (5,) and not (no_mean | no_sd).any()


def test_heavy_weights_hide_no_heavy_tail():
    """A Laplace and a Cauchy variate, drawn as a narrow normal and a t(3): k-hat of the weights is 0.5 to 0.8 by the first."""
    missed = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        light, heavy = 0.55 * rng.normal(size=16_384), rng.standard_t(3, size=16_384)
        ratio = stats.laplace.logpdf(light, scale=0.5) - stats.norm.logpdf(light, scale=0.55)
        weights = np.exp(smooth(ratio + stats.cauchy.logpdf(heavy) - stats.t.logpdf(heavy, 3)).log_weights)
        weights /= weights.sum()
        values = np.stack([light, heavy], axis=1)
        mean = weights @ values
        variance = weights @ (values - mean) ** 2
        no_mean, no_sd = tails.lacking(values, weights, mean, variance)
        assert not no_mean[0] and not no_sd[0] and no_sd[1]
        missed += int(not no_mean[1])
        compiled = compiled_tails.lacking(values, np.log(weights), mean, variance)
        np.testing.assert_array_equal(compiled, (no_mean, no_sd))
    assert missed <= 2, missed
