import json

import pytest

from benchmarks import report, summary
from benchmarks.ledger import Ledger


def row(method, posterior, error, *, seed=0, gradients=100.0, certified=None, **rest):
    return {
        "posterior": posterior,
        "method": method,
        "seed": seed,
        "size": 3,
        "status": "converged",
        "stage": "",
        "certified": certified,
        "khat": 0.1,
        "max_mean_error": error,
        "rms_mean_error": error / 2,
        "max_sd_error": error / 4,
        "rms_sd_error": error / 8,
        "max_wasserstein": error,
        "num_gradients": gradients,
        "num_log_densities": 0,
        "cold_seconds": 2.0,
        "warm_seconds": 0.1,
        "load": 1.0,
        **rest,
    }


@pytest.fixture
def ledger(tmp_path):
    file = tmp_path / "posteriordb.json"
    rows = [
        row("fit", "a", 0.04, certified=True, gradients=100.0),
        row("fit", "b", 0.6, certified=True, gradients=300.0, cold_seconds=4.0),
        row("fit", "b", 0.01, certified=False, seed=1),
        {"posterior": "c", "method": "fit", "seed": 0, "status": "time limit", "certified": None},
        row("numpyro_nuts", "a", 0.05, gradients=4000.0, cold_seconds=8.0),
        row("numpyro_nuts", "b", 0.08, gradients=3000.0, cold_seconds=8.0),
    ]
    file.write_text(json.dumps({"environment": {"absent": ["blackjax_pathfinder"]}, "rows": rows}))
    return Ledger(file)


def test_figures_by_hand(ledger):
    table = summary.firsts(ledger.rows)
    s = summary.summary(table["fit"], table["numpyro_nuts"])
    assert (s["run"], s["failed"], s["good"], s["certified"]) == (3, 1, 1, 2)
    assert s["rms_mean_error"] == pytest.approx((0.02 + 0.3) / 2)
    assert s["gradients_small"] == 200 and s["gradients_large"] is None
    assert s["gradients_to_nuts"] == pytest.approx((100 / 4000 + 300 / 3000) / 2)
    assert s["cold_to_nuts"] == pytest.approx((2 / 8 + 4 / 8) / 2)
    assert (s["cheap"], s["cheap_and_no_worse"]) == (1, 1)
    assert summary.calibration(ledger.rows) == {"runs": 4, "seeds": 2, "certified": 2, "wrong": 1, "good": 2}


def test_seconds_of_two_days_are_not_compared():
    found = {
        "a": row("fit", "a", 0.1, date="2026-11-29"),
        "b": row("fit", "b", 0.1, date="2026-11-27", cold_seconds=1.0),
    }
    nuts = {name: row("numpyro_nuts", name, 0.1, gradients=400.0, date="2026-11-29") for name in found}
    s = summary.summary(found, nuts)
    assert s["cold_to_nuts"] == 1.0 and s["gradients_to_nuts"] == 0.25
    assert summary.summary({"b": found["b"]}, nuts)["cold_to_nuts"] is None


def test_no_answer_that_is_certified_is_wrong():
    assert summary.is_wrong({"status": "non_finite", "certified": True})
    assert not summary.is_wrong(row("fit", "a", 0.6, certified=False))
    assert not summary.is_wrong(row("fit", "a", 0.5, certified=True))


def test_the_page(ledger, tmp_path):
    report.write(ledger, tmp_path, "posteriordb")
    page = (tmp_path / "posteriordb.md").read_text()
    assert "| posteriors with every mean and sd error within 0.1 | 3 of 3 | 1 of 3 | **no** |" in page
    assert "1 of 2 certified (4 runs) | **no** |" in page
    assert "Not installed, so not run: blackjax_pathfinder." in page
    assert "| b | **0.6** | 0.08 |" in page and "| c | time limit |  |" in page
    assert "yes WRONG" in page
    assert "## `fit` over many seeds" in page
    assert (tmp_path / "posteriordb.png").stat().st_size > 10_000
    assert "NO" in report.terminal(ledger)


def test_the_page_of_nothing(tmp_path):
    empty = Ledger(tmp_path / "posteriordb.json")
    report.write(empty, tmp_path, "posteriordb")
    assert "0 of 0" in (tmp_path / "posteriordb.md").read_text()


@pytest.mark.parametrize(
    ("value", "shown"), [(None, ""), (0.01234, "0.0123"), (1234.5, "1,234"), (99.96, "100"), (2.5e7, "2.5e+07")]
)
def test_numbers_are_short(value, shown):
    assert summary.number(value) == shown
