"""Posteriors of the Inference Gym, by a stand-in of the package: what rows say of answers, and that it is absent."""

import sys
import types
from collections import OrderedDict
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.harness.suite import Job
from benchmarks.models import gym
from benchmarks.problems.posterior import of_model
from benchmarks.suites import gym as suite

LOC, SD = np.array([1.0, -2.0]), 0.5


class TensorShape(tuple):
    """As the package's, by its name."""


class Exp:
    """A bijector in the package's manner."""

    def forward(self, x):
        return jnp.exp(x)

    def forward_log_det_jacobian(self, x, event_ndims):
        assert event_ndims == x.ndim
        return jnp.sum(x)


class Identity:
    """Likewise."""

    def forward(self, x):
        return x

    def forward_log_det_jacobian(self, x, event_ndims):
        return jnp.zeros(())


class Transformation(NamedTuple):
    """What is compared: the same numbers, in a mapping of another order."""

    ground_truth_mean: dict
    ground_truth_standard_deviation: dict
    ground_truth_mean_standard_error: dict

    def __call__(self, z):
        return OrderedDict(x=z["x"], scale=z["scale"])


class EightSchools:
    """Two normal numbers, and one of a gamma(3) distribution."""

    event_shape = {"scale": TensorShape(()), "x": TensorShape((2,))}
    dtype = {"scale": np.float32, "x": np.float32}
    default_event_space_bijector = {"scale": Exp(), "x": Identity()}

    def __init__(self):
        tree = lambda scale, x: {"scale": np.array(scale), "x": np.array(x)}  # noqa: E731
        self.sample_transformations = {
            "identity": Transformation(tree(3.0, LOC), tree(3**0.5, [SD, SD]), tree(0.01, [0.001, 0.001]))
        }

    def unnormalized_log_prob(self, z):
        if z["x"].dtype != jnp.float32:
            raise TypeError("Found incompatible dtypes")
        return 2 * jnp.log(z["scale"]) - z["scale"] - jnp.sum(((z["x"] - LOC.astype(np.float32)) / SD) ** 2) / 2


@pytest.fixture
def package(monkeypatch):
    inner = types.ModuleType("inference_gym.using_jax")
    inner.targets = types.SimpleNamespace(EightSchools=EightSchools)
    outer = types.ModuleType("inference_gym")
    outer.using_jax = inner
    monkeypatch.setitem(sys.modules, "inference_gym", outer)
    monkeypatch.setitem(sys.modules, "inference_gym.using_jax", inner)


def test_the_density_is_the_package_s_with_its_jacobian(package):
    problem = of_model(gym.load("eight_schools"))
    z = jnp.array([0.3, 1.5, -2.5])
    expected = 3 * 0.3 - np.exp(0.3) - 0.5 * (1 + 1)
    assert float(problem.density(problem.model.data)(z)) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(problem.columns(z[None]), [[np.exp(0.3), 1.5, -2.5]], rtol=1e-6)


def test_rows_of_fit_and_nuts_are_compared_with_the_truth(package):
    with jax.enable_x64(True):
        for contender, near in ((suite.FIT, 0.1), (suite.NUTS, 0.3)):
            (row,) = suite.rows(Job("eight_schools", (contender,), 0), True)
            assert row["parameters"] == 3 and row["mean_error"] < near and row["sd_error"] < near
            assert row["gradients"] > 100
    text = "\n".join(suite.sections([row | {"problem": "eight_schools", "status": "done"}]))
    assert "| eight_schools |" not in text, "of NUTS alone there is no line"


def test_a_certified_answer_that_is_off_is_not_counted_right():
    row = {"problem": "eight_schools", "contender": suite.FIT, "status": "done", "certified": True, "stage": "funnel"}
    good, bad = (row | {"columns_off": off, "mean_error": 0.01 + off, "sd_error": 0.0} for off in (0, 1))
    refused = row | {"certified": False, "ended": "unreliable", "columns_off": 1}
    for found, right in ((good, 1), (bad, 0), (refused, 1)):
        assert f"is certified with no column off, or refuses: {right} of 1." in "\n".join(suite.sections([found]))


def test_an_absent_package_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "inference_gym", None)
    (row,) = suite.rows(Job("eight_schools", (suite.FIT,), 0), True)
    assert row["status"] == "not installed: inference_gym"


def test_names_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="wanted one of eight_schools"):
        gym.target("nine_schools")
