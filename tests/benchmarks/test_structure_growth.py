"""Crossed effects as they grow: the reference, the row and the page."""

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks.harness.record import Store
from benchmarks.problems import crossed
from benchmarks.suites import structure_growth


def test_the_reference_is_that_of_a_gibbs_sampler():
    """Of 8 x 5 levels: effects given scales and scales given effects, in turns."""
    log_density, init, data, _ = crossed.crossed("gauss", 8, 5, 120)
    i, j, y = (np.asarray(part) for part in data)
    rng, size = np.random.default_rng(3), 14
    design = np.zeros((len(y), size))
    rows = np.arange(len(y))
    design[rows, i] = design[rows, 8 + j] = design[:, -1] = 1.0
    grid = np.exp(np.linspace(-4, 2, 1500))

    def scale(squares, count):
        """sigma ~ half-normal(1) given a sum of squares, on a grid of its logarithm."""
        log_p = -0.5 * grid**2 - count * np.log(grid) - 0.5 * squares / grid**2 + np.log(grid)
        p = np.exp(log_p - log_p.max())
        return rng.choice(grid, p=p / p.sum())

    scales, draws = np.ones(3), []
    for step in range(6000):
        prior = np.concatenate([np.full(8, scales[0] ** -2), np.full(5, scales[1] ** -2), [0.25]])
        root = np.linalg.cholesky(design.T @ design / scales[2] ** 2 + np.diag(prior))
        half = np.linalg.solve(root, design.T @ y / scales[2] ** 2)
        effects = np.linalg.solve(root.T, half + rng.standard_normal(size))
        residual = np.sum((y - design @ effects) ** 2)
        squares = (np.sum(effects[:8] ** 2), np.sum(effects[8:13] ** 2), residual)
        scales = np.array([scale(*pair) for pair in zip(squares, (8, 5, len(y)), strict=True)])
        if step >= 500:
            draws.append(np.concatenate([scales, effects]))
    draws = np.array(draws)
    mean, sd, ess = crossed.exact(8, 5, data, np.log(draws[:, :3].mean(axis=0)), draws[:, :3].std(axis=0))
    assert ess > 100 and np.shape(init["a"]) == (8,)
    assert np.max(np.abs(mean - draws.mean(axis=0)) / sd) < 0.2 and np.max(np.abs(draws.std(axis=0) / sd - 1)) < 0.2


def test_models_that_are_not_run_have_their_line():
    found = {"problem": "logit-60", "contender": "elbojax fit", "seed": 0, "status": "done", "parameters": 103}
    found |= {"certified": False, "stage": "chains", "gradients": 14397.5, "first_cpu_seconds": 2.7, "peak_mb": 519}
    found |= {"stated_mean_error": 0.044, "stated_sd_error": 0.061, "note": "by hand"}
    text = "\n".join(structure_growth.sections([found]))
    assert (
        "| logistic | 60 x 40, 2,000 | 103 | refused, chains | 14,398 | 2.7 | 519 | 0.044, 0.061 | certificate; by hand |"
        in text
    )
    assert text.count("| not run |") == len(structure_growth.CELLS) - 1


@pytest.mark.slow
def test_the_short_form_runs(tmp_path):
    command.main(["structure_growth", "--quick", "--output", str(tmp_path)])
    (row,) = Store(tmp_path / "structure_growth.json").rows
    assert row["status"] == "done" and row["certified"] and row["parameters"] == 104, row
    assert row["mean_error"] < 0.15 and row["sd_error"] < 0.15 and row["peak_mb"] > 100
    assert "| normal | 60 x 40, 2,000 | 104 | certified," in (tmp_path / "structure_growth.md").read_text()
