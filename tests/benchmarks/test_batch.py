"""The suite `batch`: what it counts and compares, not what it times."""

import jax
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks.harness.record import FIELDS, Store
from benchmarks.suites import batch

SMALL = batch.QUICK._replace(models=16, group=8, steps=20, sample=2, refilled=70, spread=8, repeats=3, budget=0.0)


@pytest.mark.long
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


def whole(part, found):
    """As the harness completes them."""
    return [{"problem": part, "seed": 0, "status": "done", "date": "2026-11-30", "peak_mb": 300} | one for one in found]


@pytest.mark.long
def test_refill_and_accuracy_in_short():
    lanes, together = whole("refill", batch.refill(SMALL, ()))
    least, _, mean, most = lanes["steps_of_models"]
    assert lanes["same_steps"] and lanes["value_difference"] < 1e-5 and most > least
    assert lanes["ideal_gain"] == pytest.approx(most / mean) and together["contender"] == batch.TOGETHER
    (one,) = whole("accuracy", batch.accuracy(SMALL, ()))
    assert one["mean_error_rms"] < 0.03 and one["certified_share"] == 1
    assert set(lanes) | set(one) <= set(FIELDS)
    text = "\n".join(batch.sections([lanes, together, one]))
    assert "## Accuracy" in text and "## Refill" in text and "## Size" not in text


@pytest.mark.long
def test_throughput_and_memory_in_short():
    """Seconds are measured; that all contenders reach the same posterior within their 20 steps is not asked."""
    found = whole("throughput", batch.throughput(SMALL, batch.PARTS["throughput"].contenders))
    ours = found[0]
    assert ours["contender"] == batch.OURS and ours["certified_share"] == 1 and "cpu_over" not in ours
    assert [row["contender"] for row in found] == list(batch.PARTS["throughput"].contenders)
    assert all(row["cpu_over"] > 0 and row["cold_over"] > 0 for row in found[1:-1])
    assert all(set(row) <= set(FIELDS) for row in found)
    (held,) = whole("memory", batch.memory(SMALL, ("once",)))
    assert held["data_mb"] == pytest.approx(16 * batch.ROWS * (batch.SIZE + 1) * 4 / 1e6) and held["results_mb"] > 0.1
    text = "\n".join(batch.sections([*found, held]))
    assert "## 16 logistic regressions" in text and "| 16 | 300 |" in text


@pytest.mark.slow
def test_the_short_form_runs(tmp_path):
    command.main(["batch", "--quick", "--only", "accuracy", "--output", str(tmp_path)])
    (row,) = Store(tmp_path / "batch.json").rows
    assert row["status"] == "done" and row["mean_error"] < 0.1 and row["batch"] == batch.QUICK.models, row
    assert "## Accuracy" in (tmp_path / "batch.md").read_text()


def test_a_free_lane_takes_the_next_model():
    assert batch.rounds_of(np.array([5, 1, 1, 1, 1]), 2) == 5 and batch.rounds_of(np.array([1, 1, 1, 1, 5]), 2) == 7


def test_parts_are_known_by_name():
    assert {job.problem for job in batch.jobs(False)} == set(batch.PARTS) == set(batch.SECTIONS)
    assert [len(job.contenders) for job in batch.jobs(False) if job.problem == "memory"] == [1, 1, 1]
    assert jax.tree.map(np.shape, batch.regressions(3)) == {"x": (3, batch.ROWS, batch.SIZE), "y": (3, batch.ROWS)}
