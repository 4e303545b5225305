"""Simulation-based calibration: exact ranks where the posterior is known, and wrong models caught."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import elbojax

N, M = 5, 120


def sample_prior(key):
    return {"z": 2 * jax.random.normal(key, (2,))}


def simulate_as(width):
    """Data, and the width of the prior that the log-density is told; 1 is true."""

    def simulate(key, position):
        return {"y": position["z"] + jax.random.normal(key, (N, 2)), "width": jnp.asarray(width, float)}

    return simulate


def log_density(position, datum):
    prior = -0.5 * jnp.sum((position["z"] / (2 * datum["width"])) ** 2)
    return prior - 0.5 * jnp.sum((datum["y"] - position["z"]) ** 2)


def log_likelihood(position, datum):
    return -0.5 * jnp.sum((datum["y"] - position["z"]) ** 2)


@functools.cache
def calibrate(seed, width=1.0):
    return elbojax.studies.simulation_based_calibration(
        jax.random.key(seed),
        sample_prior,
        SIMULATE[width],
        log_density,
        {"z": jnp.zeros(2)},
        num_replicates=M,
        quantity=log_likelihood,
    )


SIMULATE = {width: simulate_as(width) for width in (1.0, 0.1)}


@pytest.mark.slow
def test_ranks_are_binomial_about_the_exact_distribution_function():
    result = calibrate(1)
    assert result.names == ("z[0]", "z[1]", "log density", "quantity")
    assert result.certified == 1 and result.calibrated, result
    # The same simulations again, from the key that the function splits.
    simulate_key, *_ = jax.random.split(jax.random.key(1), 3)
    pairs = [jax.random.split(key) for key in jax.random.split(simulate_key, M)]
    truth = np.stack([sample_prior(prior)["z"] for prior, _ in pairs])
    np.testing.assert_allclose(truth, result.positions["z"])
    y = np.stack([SIMULATE[1.0](data, {"z": z})["y"] for (_, data), z in zip(pairs, truth, strict=True)])
    share = norm.cdf((truth - y.sum(1) / (N + 0.25)) * np.sqrt(N + 0.25))
    surprise = (result.ranks[:, :2] - 99 * share) ** 2 / (99 * share * (1 - share))
    typical = (share > 0.02) & (share < 0.98)
    assert abs(surprise[typical].mean() - 1) < 4 * np.sqrt(2 / typical.sum())


@pytest.mark.slow
def test_a_wrong_prior_is_caught():
    result = calibrate(2, width=0.1)
    assert result.certified == 1 and not result.calibrated
    assert not result.verdicts[0].inside and "OUTSIDE" in str(result)


@pytest.mark.slow
def test_the_picture_has_a_panel_for_each():
    figure = elbojax.plots.calibration(calibrate(2, width=0.1), title="wrong")
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title().split(",")[0] for axes in panels] == ["z[0]", "z[1]", "log density", "quantity"]
    assert panels[0].lines[0].get_color() == elbojax.plots.STRAY


def test_misuse():
    with pytest.raises(ValueError, match="num_replicates"):
        elbojax.studies.simulation_based_calibration(
            jax.random.key(0), sample_prior, SIMULATE[1.0], log_density, {"z": jnp.zeros(2)}, num_replicates=0
        )
    with pytest.raises(ValueError, match="like init"):
        elbojax.studies.simulation_based_calibration(
            jax.random.key(0), sample_prior, SIMULATE[1.0], log_density, {"z": jnp.zeros(3)}, num_replicates=2
        )
