"""Other libraries have the same numbers for the same bound, on one q and one set of draws."""

import pytest

from benchmarks import estimators
from elbojax import csiszar

TFP = {
    "kl_reverse": csiszar.reverse_kl,
    "kl_forward": csiszar.inclusive_kl,
    "squared_hellinger": csiszar.squared_hellinger,
    "total_variation": csiszar.total_variation,
    "pearson": estimators.pearson,
}


def agree(row):
    assert abs(row.value) > 0.05
    assert row.difference < 1e-12 and row.gradient_difference < 1e-12, row.row()


@pytest.mark.parametrize("alpha", (0.0, 0.5, 2.0, -1.0))
def test_numpyro_and_blackjax_have_the_same_renyi_bound(alpha):
    pytest.importorskip("numpyro")
    agree(estimators.numpyro_agrees(alpha))
    agree(estimators.blackjax_agrees(alpha))


@pytest.mark.parametrize("name", TFP)
def test_tensorflow_probability_has_the_same_divergences(name):
    pytest.importorskip("tensorflow_probability", reason="its releases do not run on this jax; its nightly ones may")
    agree(estimators.tfp_agrees(name, TFP[name]))
