"""Other libraries have the same numbers for the same bound, on one q and one set of draws."""

import pytest

from benchmarks.contenders import bounds


def agree(found):
    assert abs(found.value) > 0.05
    assert found.difference < 1e-12 and found.gradient_difference < 1e-12, found


@pytest.mark.parametrize("alpha", bounds.ALPHAS)
def test_numpyro_and_blackjax_have_the_same_renyi_bound(alpha):
    pytest.importorskip("numpyro")
    agree(bounds.numpyro_agrees(alpha))
    agree(bounds.blackjax_agrees(alpha))


@pytest.mark.parametrize("name", bounds.GENERATORS)
def test_tensorflow_probability_has_the_same_divergences(name):
    pytest.importorskip("tensorflow_probability", reason="its releases do not run on this jax; its nightly ones may")
    agree(bounds.tfp_agrees(name, bounds.GENERATORS[name]))
