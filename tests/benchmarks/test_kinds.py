"""Many models whose truth is known: the truth, the errors and the page, not the times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks.harness.record import FIELDS, Store
from benchmarks.problems import kinds
from benchmarks.suites import kinds as suite

DRAWS = 40_000
STANDARD_ERRORS = 5


def funnel(rng, datum):
    v = datum["mu"] + datum["s"] * rng.normal(size=DRAWS)
    return np.stack([v, np.exp(0.5 * v) * rng.normal(size=DRAWS)], axis=1)


def banana(rng, datum):
    x = datum["s"] * rng.normal(size=DRAWS)
    return np.stack([x, x**2 + datum["noise"] * rng.normal(size=DRAWS)], axis=1)


@pytest.mark.parametrize(("name", "sample"), [("funnels", funnel), ("bananas", banana)])
def test_densities_and_moments_are_those_of_draws(name, sample):
    kind = kinds.KINDS[name](5)
    scores = jax.jit(jax.vmap(jax.grad(kind.log_density), in_axes=(0, None)))
    with jax.enable_x64(True):
        for model in range(5):
            datum = jax.tree.map(lambda x, model=model: float(x[model]), kind.data)
            draws = sample(np.random.default_rng(model), datum)
            # By integration by parts, the mean of z times the score is minus one.
            products = draws * np.asarray(scores(jnp.asarray(draws), datum))
            error = products.std(axis=0) / DRAWS**0.5
            assert np.all(np.abs(products.mean(axis=0) + 1) < STANDARD_ERRORS * error)
            error = draws.std(axis=0) / DRAWS**0.5
            assert np.all(np.abs(draws.mean(axis=0) - kind.mean[model]) < STANDARD_ERRORS * error)
            squares = (draws - kind.mean[model]) ** 2
            error = squares.std(axis=0) / DRAWS**0.5
            assert np.all(np.abs(squares.mean(axis=0) - kind.sd[model] ** 2) < STANDARD_ERRORS * error)


@pytest.mark.parametrize("model", [0, 1, 2])
def test_hierarchies_by_importance_sampling_from_the_prior(model):
    kind = kinds.hierarchies(3)
    y, errors = (np.asarray(kind.data[name][model], float) for name in ("y", "sd"))
    rng = np.random.default_rng(model)
    count = 1_000_000
    mu, tau = 5 * rng.normal(size=count), np.abs(5 * rng.standard_cauchy(count))
    eta = rng.normal(size=(count, kinds.GROUPS))
    log_w = -0.5 * (((y - mu[:, None] - tau[:, None] * eta) / errors) ** 2).sum(axis=1)
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    draws = np.column_stack([mu, np.log(tau), eta])
    mean = w @ draws
    sd = np.sqrt(w @ (draws - mean) ** 2)
    error = np.sqrt((w**2) @ (draws - mean) ** 2)
    assert np.all(np.abs(mean - kind.mean[model]) < STANDARD_ERRORS * error)
    np.testing.assert_allclose(sd, kind.sd[model], rtol=STANDARD_ERRORS * np.max(error / sd))
    # The density is that prior and likelihood: differences of both at two points.
    points = draws[:2]
    value = [
        float(kind.log_density(jnp.asarray(z, jnp.float32), jax.tree.map(lambda x: x[model], kind.data)))
        for z in points
    ]
    prior = [-0.5 * (z[0] / 5) ** 2 - np.log1p((np.exp(z[1]) / 5) ** 2) + z[1] - 0.5 * z[2:] @ z[2:] for z in points]
    np.testing.assert_allclose(value[0] - value[1], prior[0] + log_w[0] - prior[1] - log_w[1], rtol=1e-3, atol=1e-2)


def test_errors_by_hand():
    kind = kinds.bananas(3)
    mean, sd = kind.mean.copy(), kind.sd.copy()
    mean[0, 1] += 0.2 * kind.sd[0, 1]
    sd[1, 0] *= 0.4
    sd[2, 1] = np.nan
    errors, withheld = suite.off(mean, sd, kind)
    np.testing.assert_allclose(errors, [0.2, 0.6, 0.0], atol=1e-12)
    assert withheld == 1
    found = suite.rates(errors)
    assert (found["known"], found["wrong"], found["rough"]) == (3, 1, 2)
    assert np.isinf(suite.off(np.full((3, 2), np.nan), np.full((3, 2), np.nan), kind)[0]).all()


def test_certified_answers_that_are_wrong_are_counted():
    """Of three bananas one is off by 0.2 sd, one by 0.7; certified are the first two."""
    kind = kinds.bananas(3)
    errors = np.array([0.2, 0.7, 0.01])

    class Certificate:
        certified = np.array([True, True, False])
        num_gradients = np.array([10, 20, 60])
        stage, status = np.ones(3, int), np.zeros(3, int)

    class Fits:
        certificate = Certificate

    row = suite.certificates(Fits, errors, 1, kind)
    assert (row["certified_count"], row["certified_known"], row["certified_wrong"], row["certified_rough"]) == (
        2,
        2,
        1,
        2,
    )
    assert (row["right"], row["refused_right"], row["gradients"], row["gradients_mean"]) == (1, 1, 20, 30)
    assert not suite.right({"status": "done"} | row) and suite.right({"status": "done", "certified_wrong": 0})
    assert set(row) <= set(FIELDS)


@pytest.mark.slow
def test_a_kind_ends_as_a_section():
    pytest.importorskip("numpyro")
    # In single precision, as the page is.
    with jax.enable_x64(False):
        found = list(suite.measured("funnels", 6, 1, suite.jobs(True)[0].contenders, 50))
    found = [{"problem": "funnels", "seed": 0, "status": "done", "date": "2026-11-30"} | one for one in found]
    ours = found[0]
    assert ours["contender"] == suite.OURS and ours["certified_count"] == 6 and ours["certified_wrong"] == 0
    assert ours["worst_error"] < 0.1 and ours["models"] == ours["batch"] == ours["known"] == 6
    assert [row["contender"] for row in found] == list(suite.jobs(True)[0].contenders)
    (page,) = suite.sections(found)
    assert "## 6 two-dimensional funnels" in page and "Certified: 6 of 6 (100.0%)" in page


@pytest.mark.slow
def test_the_short_form_runs(tmp_path):
    command.main(["kinds", "--quick", "--only", suite.OURS, "--output", str(tmp_path)])
    (row,) = Store(tmp_path / "kinds.json").rows
    assert row["status"] == "done" and row["certified_wrong"] == 0 and row["batch"] == 16, row
    assert "## 16 two-dimensional funnels" in (tmp_path / "kinds.md").read_text()
