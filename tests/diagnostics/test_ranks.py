"""The band of an ECDF of ranks, against enumeration of all ranks and against simulation."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom

import elbojax


def strays(ranks, num_draws):
    """The smaller tail of the binomial counts, doubled, where it is smallest."""
    places = np.arange(1, num_draws + 1)
    counts = (np.asarray(ranks)[..., None] < places).sum(axis=-2)
    size = np.shape(ranks)[-1]
    z = places / (num_draws + 1)
    return (2 * np.minimum(binom.cdf(counts, size, z), binom.sf(counts - 1, size, z))).min(axis=-1)


@pytest.mark.parametrize(("size", "num_draws", "level"), [(4, 3, 0.9), (5, 2, 0.8), (6, 1, 0.95)])
def test_the_p_value_of_every_possible_outcome(size, num_draws, level):
    everything = np.array(list(itertools.product(range(num_draws + 1), repeat=size)))
    found = strays(everything, num_draws)
    inside = []
    for ranks, mine in zip(everything, found, strict=True):
        verdict = elbojax.diagnostics.uniformity(ranks, num_draws, level=level)
        np.testing.assert_allclose(verdict.p_value, np.mean(found <= mine + 1e-12), atol=1e-9)
        assert verdict.inside == (verdict.p_value > 1 - level)
        inside.append(verdict.inside)
    assert np.mean(inside) >= level


@pytest.mark.parametrize("seed", (1, 2, 3))
def test_the_band_holds_one_set_of_ranks_in_twenty_out(seed):
    rng = np.random.default_rng(seed)
    band = elbojax.diagnostics.uniformity(rng.integers(0, 20, 300), 19)
    ecdf = (rng.integers(0, 20, (2000, 300))[..., None] < np.arange(1, 20)).mean(axis=1)
    inside = np.all((band.lower <= ecdf + 1e-9) & (ecdf <= band.upper + 1e-9), axis=1)
    assert abs(inside.mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 2000) + 0.003  # the rest: counts are discrete


def test_what_is_wrong_is_seen():
    rng = np.random.default_rng(0)
    uniform = rng.uniform(size=500)
    for wrong in (uniform**1.3, 0.5 + 0.8 * (uniform - 0.5), np.where(uniform < 0.1, 0.0, uniform)):
        verdict = elbojax.diagnostics.uniformity(rng.binomial(99, wrong), 99)
        assert not verdict.inside and verdict.p_value < 0.05
    assert elbojax.diagnostics.uniformity(rng.binomial(999, uniform), 999).places.size == 100


def test_misuse():
    with pytest.raises(ValueError, match=r"0\.\.9"):
        elbojax.diagnostics.uniformity(np.array([3, 10]), 9)
    with pytest.raises(ValueError, match=r"\[N\]"):
        elbojax.diagnostics.uniformity(np.zeros((2, 2), int), 9)
    with pytest.raises(ValueError, match="level"):
        elbojax.diagnostics.uniformity(np.zeros(2, int), 9, level=1.0)
