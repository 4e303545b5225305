"""The guided tour: what it says of the windows by both ways, and its picture."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax.__main__ import main
from elbojax.demo import certified, volatility


class Few:
    """Answers of `fit_batch` for two windows: mu is 1 and 2, all sds are one; the second nu has no mean."""

    def mean(self):
        persistence = jnp.tile(jnp.array([0.1, 0.8, 0.1]), (2, 1))
        return {
            "mu": jnp.array([1.0, 2.0]),
            "omega": jnp.ones(2),
            "persistence": persistence,
            "nu": jnp.array([8.0, jnp.nan]),
        }

    def sd(self):
        return jax.tree.map(jnp.ones_like, self.mean())


def test_means_are_compared_in_sds_of_the_certified_answer():
    """Draws of SVI at mu = 0 and mu = 4 in turns: raw means 2, and 4 where only the second half has weight."""
    model = volatility.target()
    at = lambda mu: model.unconstrain(  # noqa: E731
        jax.tree.map(jnp.asarray, {"mu": mu, "omega": 1.0, "persistence": jnp.array([0.1, 0.8, 0.1]), "nu": 8.0})
    )
    events = jnp.stack([at(0.0), at(4.0)])
    heavy = jnp.log(jnp.array([1e-30, 1.0]))
    assessment = types.SimpleNamespace(
        events=jnp.stack([events] * 6), log_weights=jnp.stack([heavy] * 6), khat=np.full(6, 0.6)
    )
    some = certified.Certified(np.array([0, 3]), Few(), 1.0)
    found = certified.off(model, assessment, some)
    np.testing.assert_allclose(found["raw"], [1.0, 0.0], atol=1e-3)
    np.testing.assert_allclose(found["corrected"], [3.0, 2.0], atol=1e-3)
    assert certified.share(np.array([True, False])) == "1 of 2 (50.0 %)"


@pytest.mark.slow
def test_the_tour_of_a_few_windows(tmp_path, capsys):
    pytest.importorskip("arch")
    pytest.importorskip("matplotlib")
    pytest.importorskip("blackjax")
    # As a user has it who sets nothing.
    with jax.enable_x64(False):
        assert main(["demo", "--models", "4", "--every", "3", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "4 windows of 500 days, one call" in said and "by fit_batch: one in 3" in said
    assert "of the same windows, sure" in said and "of 2 (" in said and "Means of stochastic VI within 0.1 sd" in said
    assert "Window 3, " in said and "fit_batch: " in said and "NUTS: " in said
    assert (tmp_path / "volatility.png").stat().st_size > 20_000
