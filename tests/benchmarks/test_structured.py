"""The posteriors of the structured pack are those that it states; skipped where the pack is not here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks.harness.record import Store
from benchmarks.models import structured
from benchmarks.models.base import build
from benchmarks.problems.posterior import of_model
from benchmarks.suites import structured as suite


@pytest.mark.parametrize("name", structured.NAMES)
def test_log_density_is_that_of_the_pack(name):
    try:
        model, said = structured.load(name), structured.check(name)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    values = []
    density = jax.jit(model.log_density)
    for point in (said["points"]["A"], said["points"]["B"]):
        position = {
            key: jnp.reshape(jnp.asarray(point[key], float), np.shape(start)) for key, start in model.init.items()
        }
        values.append(float(density(position, model.data)))
    assert values[1] - values[0] == pytest.approx(said["difference"], rel=1e-9, abs=1e-6)
    problem = of_model(model)
    assert problem.size == said["D"]
    value, slope = jax.jit(jax.value_and_grad(problem.density(model.data)))(problem.start)
    assert np.isfinite(value) and np.isfinite(slope).all()


def test_a_missing_pack_is_said(monkeypatch):
    monkeypatch.delenv(structured.VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError, match="set ELBOJAX_STRUCTURED to its folder"):
        structured.load(structured.NAMES[0])


def reference(**more):
    found = {"problem": structured.NAMES[0], "contender": suite.REFERENCE, "seed": 0, "status": "done", "parameters": 2}
    found |= {
        "means": [1.0, 2.0],
        "sds": [0.5, 2.0],
        "mean_ses": [0.01, 0.05],
        "sd_ses": [0.01, 0.01],
        "heavy_columns": [],
    }
    return found | {"rhat": 1.001, "ess": 400.0, "reference": "4 chains of 2500, 0 divergent"} | more


def fitted(means, sds, **more):
    found = {"problem": structured.NAMES[0], "contender": suite.FIT, "seed": 0, "status": "done", "parameters": 2}
    found |= {
        "means": means,
        "sds": sds,
        "certified": True,
        "stage": "nested",
        "ended": "converged",
        "gradients": 500.0,
    }
    return found | more


def test_errors_are_those_beyond_the_references_own():
    """The second mean is 0.2 sds off, where 0.1 + 3 x 0.05 are let pass; the first sd 20 per cent, where 0.13 are."""
    found = suite.errors(fitted([1.0, 2.4], [0.6, 2.0]), reference())
    assert found["mean_error"] == pytest.approx(0.2) and found["sd_error"] == pytest.approx(0.2)
    assert found["mean_error_rms"] == pytest.approx(0.2 / 2**0.5) and found["columns_off"] == 1
    assert suite.errors(fitted([1.0, 2.6], [0.5, 2.0]), reference())["columns_off"] == 1
    assert suite.errors(fitted([None, 2.0], [None, 2.0]), reference()) == {} == suite.errors(fitted([1.0], [1.0]), None)


def test_the_page_says_who_is_right():
    good, bad = fitted([1.0, 2.0], [0.5, 2.0]), fitted([1.5, 2.0], [0.5, 2.0])
    for row, right, off in ((good, 1, 0), (bad, 0, 1), (bad | {"certified": False, "ended": "stalled"}, 1, 1)):
        text = "\n".join(suite.sections([row, reference()]))
        assert f"Certified with no column off, or refused: {right} of 1." in text and f"| {off} of 2 | 500 |" in text
    assert "| refused: stalled |" in text and "NUTS, 400 / 1.001" in text
    late = {"problem": structured.NAMES[0], "contender": suite.FIT, "seed": 0, "status": "more than 900 s"}
    text = "\n".join(suite.sections([late]))
    assert "no answer: more than 900 s" in text and "or refused: 0 of 1." in text


def test_heavy_columns_are_told_by_quantiles():
    import numpy as np

    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(size=20_000), 3 + np.tan(np.pi * (rng.uniform(size=20_000) - 0.5))], axis=1)
    mean, sd = suite.moments(values, np.ones(20_000), np.array([False, True]))
    # Of a standard Cauchy variate the central 90 % are 2 x 6.314 wide.
    assert abs(mean[0]) < 0.03 and abs(mean[1] - 3) < 0.05 and sd[1] == pytest.approx(6.314 / 1.6449, rel=0.05)


@pytest.mark.slow
def test_the_short_form_runs(tmp_path):
    try:
        structured.find()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    command.main(["structured", "--quick", "--output", str(tmp_path)])
    (row,) = Store(tmp_path / "structured.json").rows
    # Beside the reference that is stored.
    assert row["status"] == "done" and row["certified"] and row["columns_off"] == 0 and row["mean_error"] < 0.1, row


@pytest.mark.slow
def test_references_by_chains_agree_with_quadrature(monkeypatch):
    """Of a Gaussian: moments in closed form, and errors that cover what the chains are off by."""
    numpyro = pytest.importorskip("numpyro")
    monkeypatch.setattr(suite, "WARMUP", 200)
    model = build(
        "normal",
        lambda z, data: -0.5 * jnp.sum(((z["x"] - data["at"]) / 2) ** 2),
        {"x": ("real", jnp.zeros(2))},
        {"at": 3.0},
    )
    columns, diverged = suite.long_chains(of_model(model), 500)
    found = suite.reference_of(columns)
    assert numpyro and columns.shape == (suite.CHAINS, 500, 2) and diverged == 0 and found["rhat"] < 1.02
    assert max(abs(found["mean"] - 3) / 2 / found["mean_error"]) < 5
    assert max(abs(found["sd"] / 2 - 1) / found["sd_error"]) < 5
