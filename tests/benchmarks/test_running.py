"""What the suites `posteriordb` and `unseen` run: methods on a posterior, and what their rows say of it."""

import json

import jax
import numpy as np
import pytest
from jax.scipy import stats

from benchmarks import __main__ as command
from benchmarks.contenders import peers
from benchmarks.contenders.methods import METHODS
from benchmarks.harness.record import FIELDS, Store, plain
from benchmarks.harness.suite import Job
from benchmarks.models.base import build
from benchmarks.problems import reference
from benchmarks.problems.posterior import of_model
from benchmarks.problems.reference import Reference
from benchmarks.suites import posteriordb, unseen


def test_methods_stand_next_to_each_other_on_a_posterior():
    jobs = posteriordb.SUITE.jobs(False)
    assert [job.contenders for job in jobs[: len(METHODS)]] == [(method,) for method in METHODS]
    assert len({job.problem for job in jobs[: len(METHODS)]}) == 1
    assert {job.contenders[0]: job.seeds for job in jobs} == dict.fromkeys(METHODS, 1) | {"fit": posteriordb.SEEDS}
    assert {job.seeds for job in unseen.SUITE.jobs(False)} == {1}


def test_a_package_that_is_not_installed_is_a_row(monkeypatch):
    def absent(problem):
        raise ModuleNotFoundError("No module named 'c'", name="c")

    monkeypatch.setitem(posteriordb.METHODS, "laplace", absent)
    monkeypatch.setattr(posteriordb, "load_problem", lambda name: None)
    found = list(posteriordb.rows(Job("p", ("laplace",), 0, 3), quick=True))
    assert found == [{"contender": "laplace", "status": "not installed: c"}]


@pytest.fixture(scope="module")
def problem():
    """x ~ normal(3, 2), s ~ log-normal(0, 0.25)."""

    def log_density(position, data):
        x, s = position["x"], position["s"]
        return (
            stats.norm.logpdf(x, data["loc"], 2.0) + stats.norm.logpdf(jax.numpy.log(s), 0.0, 0.25) - jax.numpy.log(s)
        )

    model = build("normal", log_density, {"x": ("real", 0.0), "s": ("positive", 1.0)}, {"loc": 3.0})
    noise = np.random.default_rng(0).normal(size=(20_000, 2))
    draws = np.stack([3 + 2 * noise[:, 0], np.exp(0.25 * noise[:, 1])], axis=1)
    quantiles = np.quantile(draws, (0.05, 0.5, 0.95), axis=0)
    return of_model(model, Reference(("x", "s"), draws.mean(axis=0), draws.std(axis=0), *quantiles, draws))


@pytest.mark.parametrize("method", ["fit", "laplace"])
def test_rows_of_a_posterior_that_is_normal_in_flat_coordinates(problem, method):
    first, second = (plain(row) for row in posteriordb.run(method, range(2), problem))
    assert first["columns"] == ["x", "s"] and first["parameters"] == 2 and set(first) <= set(FIELDS)
    for seed, found in enumerate((first, second)):
        assert found["mean_error"] < 0.04 and found["sd_error"] < 0.04 and found["wasserstein"] < 0.05
        assert found["mean_error"] == max(map(abs, found["mean_errors"])) and found["seed"] == seed
        assert found["status"] == "done" and found["ended"] == "converged" and found["gradients"] > 0
        assert found["certified"] is (True if method == "fit" else None)
        json.dumps(found, allow_nan=False)
    assert first["first_seconds"] > first["warm_seconds"] > 0
    assert second["first_seconds"] is second["first_cpu_seconds"] is None and second["warm_seconds"] > 0


CHAINS = dict.fromkeys(("numpyro_nuts", "numpyro_mcmc", "nutpie"), 0.5)
ROUGH = {**CHAINS, "svgd": 0.5, "pathfinder": np.inf, "blackjax_pathfinder": np.inf}
"""Particles and short chains err. One path from where s has its mode already learns nothing of the sd of s. The question is
whether they are asked rightly."""


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("fit", "laplace")])
def test_every_method_can_be_asked(problem, method):
    if method in peers.METHODS:
        pytest.importorskip(method.partition("_")[0])
    (found,) = posteriordb.run(method, range(1), problem)
    tolerance = ROUGH.get(method, 0.15)
    assert found["mean_error"] < tolerance and found["sd_error"] < tolerance, found
    assert found["gradients"] > 0 and found["first_seconds"] > 0


@pytest.mark.slow
def test_the_short_forms_run(tmp_path):
    """A method that fails has its row, and `--only` chooses."""
    try:
        reference.find()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    command.main(["posteriordb", "unseen", "--quick", "--only", "fit,pathfinder", "--output", str(tmp_path)])
    for name, problems in (("posteriordb", posteriordb.QUICK), ("unseen", unseen.QUICK)):
        found = Store(tmp_path / f"{name}.json").rows
        assert {(r["problem"], r["contender"]) for r in found} == {
            (p, m) for p in problems for m in ("fit", "pathfinder")
        }
        for row in found:
            assert row["status"] == "done" and row["peak_mb"] > 100, row
            assert row["contender"] != "fit" or (row["certified"] and max(row["mean_error"], row["sd_error"]) < 0.1)
        text = (tmp_path / f"{name}.md").read_text()
        assert "## `fit` against its targets" in text and "## Methods" in text
