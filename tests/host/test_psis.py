"""Smoothed weights in NumPy are those of `elbojax.diagnostics.pareto`, in every case that the latter knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax.diagnostics import pareto
from elbojax.host import psis

RNG = np.random.default_rng(0)
NORMAL, HEAVY = RNG.standard_normal(1000), RNG.standard_exponential(1000)


def but(x, **changes):
    x = x.copy()
    for where, value in changes.items():
        x[int(where[1:])] = value
    return x


CASES = {
    "normal": NORMAL,
    "light": -HEAVY,
    "nearly flat": 1e-9 * NORMAL,
    "flat": np.zeros(1000),
    "flat tail": np.minimum(NORMAL, 0.5),
    "flat but for one": but(np.zeros(1000), _3=5.0),
    "heavy": 0.9 * HEAVY,
    "very heavy": 3 * HEAVY,
    "far below": NORMAL - 1e6,
    "far above": NORMAL + 1e6,
    "far apart": 1e3 * NORMAL,
    "apart beyond exp": 1e6 * NORMAL,
    "one zero": but(NORMAL, _3=-np.inf),
    "half zero": np.where(np.arange(1000) % 2, NORMAL, -np.inf),
    "nearly all zero": np.where(np.arange(1000) % 50 == 0, NORMAL, -np.inf),
    "all but one zero": but(np.full(1000, -np.inf), _7=2.0),
    "all zero": np.full(1000, -np.inf),
    "nan": but(NORMAL, _3=np.nan),
    "+inf": but(NORMAL, _3=np.inf),
    "nan and inf": but(NORMAL, _3=np.nan, _4=np.inf),
    "ties": np.round(NORMAL),
    "two": np.array([0.0, 1.0]),
    "one": np.array([2.0]),
    "one, of none": np.array([-np.inf]),
    "too few for a tail": NORMAL[:24],
    "just enough": NORMAL[:25],
    "26": NORMAL[:26],
    "4096": RNG.standard_normal(4096) * 2,
}


@pytest.mark.parametrize("name", CASES)
def test_smoothed_as_the_compiled_are(name):
    with np.errstate(all="ignore"):
        got = psis.smooth(CASES[name])
    wanted, log_mean = jax.jit(pareto.smooth)(jnp.asarray(CASES[name]))
    # Differences of 1e-9 are known to 1e-7 of themselves.
    np.testing.assert_allclose(got.khat, wanted.khat, rtol=1e-9, atol=1e-6 if name == "nearly flat" else 1e-9)
    np.testing.assert_allclose(got.ess, wanted.ess, rtol=1e-9)
    np.testing.assert_allclose(got.log_mean, log_mean, rtol=1e-9, atol=1e-9)
    # In ties it is open which draw gets which quantile.
    sort = np.sort if "flat" in name or name == "ties" else np.asarray
    np.testing.assert_allclose(sort(got.log_weights), sort(wanted.log_weights), rtol=1e-9, atol=1e-9)


def test_what_is_given_stays_as_it_is():
    before = HEAVY.copy()
    psis.smooth(before)
    np.testing.assert_array_equal(before, HEAVY)


def test_the_shape_of_exact_pareto_tails():
    rng = np.random.default_rng(1)
    for shape in (0.2, 0.5, 1.0):
        found = [psis.smooth(shape * rng.standard_exponential(16384)).khat for _ in range(20)]
        assert abs(np.mean(found) - shape) < 0.05


@pytest.mark.parametrize(
    ("x", "answer"),
    [([0.0, 0.0], np.log(2)), ([-np.inf, 1.0], 1.0), ([-np.inf, -np.inf], -np.inf), ([1e5, 1e5], 1e5 + np.log(2))],
)
def test_log_sum_exp(x, answer):
    assert psis.log_sum_exp(np.array(x)) == pytest.approx(answer)


def test_log_sum_exp_shows_what_is_not_finite():
    assert psis.log_sum_exp(np.array([0.0, np.inf])) == np.inf
    assert np.isnan(psis.log_sum_exp(np.array([0.0, np.nan])))
