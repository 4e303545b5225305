import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax.diagnostics import khat_threshold

psis = jax.jit(elbojax.psis)
SPREADS = (0.1, 0.5, 1.0, 2.0, 5.0)


def _normal(spread, size, seed, dtype=jnp.float64):
    return spread * jax.random.normal(jax.random.key(seed), (size,), dtype)


@pytest.mark.parametrize("seed", (1, 2, 3))
@pytest.mark.parametrize("size", (100, 4000))
def test_equals_arviz(size, seed):
    array_stats = pytest.importorskip("arviz_stats.base").array_stats
    for spread in SPREADS:
        log_ratios = _normal(spread, size, seed)
        log_weights, khat = array_stats.psislw(-np.asarray(log_ratios))  # it negates what it is given
        result = psis(log_ratios)
        np.testing.assert_allclose(result.khat, khat, rtol=1e-10)
        np.testing.assert_allclose(result.log_weights, log_weights, atol=1e-8)


@pytest.mark.parametrize("seed", (1, 2, 3))
def test_equals_blackjax_where_it_smooths(seed):
    diagnostics = pytest.importorskip("blackjax.diagnostics")
    for spread in (2.0, 5.0):
        log_ratios = _normal(spread, 2000, seed)
        log_weights, khat = diagnostics.psis_weights(log_ratios)
        result = psis(log_ratios)
        assert khat > 1 / 3  # below, BlackJAX leaves the tail alone
        np.testing.assert_allclose(result.khat, khat, rtol=1e-8)
        np.testing.assert_allclose(result.log_weights, log_weights, atol=1e-8)


@pytest.mark.parametrize("shape", (0.3, 0.7, 1.2))
def test_khat_is_the_tail_index_of_pareto_ratios(shape):
    uniform = jax.random.uniform(jax.random.key(0), (100_000,), jnp.float64)
    result = psis(-shape * jnp.log(uniform))
    assert abs(float(result.khat) - shape) < 4 * (1 + shape) / np.sqrt(3 * np.sqrt(100_000))


def test_constants_cancel():
    log_ratios = _normal(1.0, 1000, 0)
    near, far = psis(log_ratios), psis(log_ratios + 1e4)
    np.testing.assert_allclose(far.khat, near.khat, atol=1e-8)
    np.testing.assert_allclose(far.log_weights, near.log_weights, atol=1e-8)


BAD = {
    "one NaN": jnp.zeros(1000).at[3].set(jnp.nan),
    "one +inf": jnp.zeros(1000).at[3].set(jnp.inf),
    "all -inf": jnp.full(1000, -jnp.inf),
    "all but ten -inf": jnp.where(jnp.arange(1000) < 990, -jnp.inf, jnp.arange(1000.0)),
    "spread of 1e5 nats": 1e5 * jax.random.normal(jax.random.key(0), (1000,)),
    "too few": jnp.arange(10.0),
    "one draw": jnp.zeros(1),
}


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.float64))
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_assessed_is_bad_and_never_nan(name, dtype):
    result = psis(BAD[name].astype(dtype))
    assert result.khat == jnp.inf
    assert not jnp.any(jnp.isnan(result.log_weights)) and jnp.isfinite(result.ess)
    np.testing.assert_allclose(jnp.sum(jnp.exp(result.log_weights)), 1, rtol=1e-5)
    assert result.khat.dtype == result.log_weights.dtype == dtype


def test_perfect_ratios_are_good():
    result = elbojax.psis(jnp.full(1000, 7.0))  # outside of jit
    assert result.khat < khat_threshold(1000)
    np.testing.assert_allclose(result.ess, 1000)


def test_draws_of_ratio_zero_are_ordinary():
    result = psis(_normal(0.5, 1000, 0).at[:300].set(-jnp.inf))
    assert result.khat < 0.7
    np.testing.assert_array_equal(result.log_weights[:300], -jnp.inf)


def test_vmap_equals_the_loop_in_float32():
    rows = jnp.stack([_normal(spread, 500, 0, jnp.float32) for spread in SPREADS] + [jnp.full(500, jnp.nan, "float32")])
    batch = jax.jit(jax.vmap(psis))(rows)
    single = [psis(row) for row in rows]
    np.testing.assert_allclose(batch.khat, jnp.stack([s.khat for s in single]), rtol=1e-4)
    np.testing.assert_allclose(batch.log_weights, jnp.stack([s.log_weights for s in single]), atol=1e-4)
    assert batch.khat[-1] == jnp.inf


def test_errors_say_what_was_wanted():
    with pytest.raises(ValueError, match=r"vector \[S\].*\(2, 3\)"):
        psis(jnp.zeros((2, 3)))


def test_threshold_grows_with_the_draws():
    assert khat_threshold(100) == pytest.approx(0.5)
    assert khat_threshold(2200) == pytest.approx(0.7, abs=1e-3)
    assert khat_threshold(10**6) == 0.7
