"""The short form of benchmarks/batch.py: what it counts and compares, not what it times."""

import argparse

import jax
import numpy as np
import pytest

from benchmarks import batch


@pytest.mark.slow
def test_the_reference_of_the_accuracy_is_right():
    """A regression on one column that is not zero: one integral by quadrature, the rest is prior."""
    rng = np.random.default_rng(0)
    x = np.zeros((batch.ROWS, batch.SIZE))
    x[:, 0] = rng.normal(size=batch.ROWS)
    y = (rng.uniform(size=batch.ROWS) < 0.7).astype(float)
    mean, sd, error = batch.exact(x, y, 100_000, seed=1)
    grid = np.linspace(-3, 3, 20_001)
    logits = grid[:, None] * x[:, 0]
    log_p = logits @ y - np.logaddexp(0, logits).sum(axis=1) - 0.5 * grid**2
    w = np.exp(log_p - log_p.max())
    w /= w.sum()
    exact = w @ grid
    exact_sd = np.sqrt(w @ (grid - exact) ** 2)
    assert abs(mean[0] - exact) < 5 * error * exact_sd
    np.testing.assert_allclose(sd[0], exact_sd, rtol=0.02)
    np.testing.assert_allclose(mean[1:], 0, atol=5 * error)
    np.testing.assert_allclose(sd[1:], 1, rtol=0.02)


@pytest.mark.slow
def test_refill_and_accuracy_in_short():
    args = argparse.Namespace(refill_models=70, repeats=3, budget=0.0, models=16, sample=2, draws=20_000)
    record = batch.refill(args)
    assert record["same_steps"] and record["difference"] < 1e-5
    assert record["ideal"] == pytest.approx(record["steps"]["most"] / record["steps"]["mean"])
    assert record["steps"]["most"] > record["steps"]["least"]
    record = {"accuracy": batch.accuracy(args) | {"load": [0, 0]}, "refill": record}
    assert record["accuracy"]["mean_error"]["rms"] < 0.03 and record["accuracy"]["certified"] == 1
    environment = {"device": "cpu", "processor": "", "cores": 1, "python": "", "versions": {}}
    text = batch.markdown({"environment": environment, "quick": True, "parts": record})
    assert "## Accuracy" in text and "## Refill" in text and "## Size" not in text


def test_parts_are_known_by_name():
    assert set(batch.PARTS) == {"throughput", "accuracy", "size", "refill", "devices", "kinds"}
    assert jax.tree.map(np.shape, batch.regressions(3)) == {"x": (3, batch.ROWS, batch.SIZE), "y": (3, batch.ROWS)}
