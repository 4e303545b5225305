"""The page of posteriors with references follows from rows."""

import pytest

from benchmarks import __main__ as command
from benchmarks.harness.record import Store
from benchmarks.pages import accuracy as summary
from benchmarks.pages import accuracy_page


def row(method, posterior, error, *, seed=0, gradients=100.0, certified=None, **rest):
    return {
        "problem": posterior,
        "contender": method,
        "seed": seed,
        "parameters": 3,
        "status": "done",
        "ended": "converged",
        "stage": "",
        "certified": certified,
        "khat": 0.1,
        "mean_error": error,
        "mean_error_rms": error / 2,
        "sd_error": error / 4,
        "sd_error_rms": error / 8,
        "wasserstein": error,
        "gradients": gradients,
        "values": 0,
        "first_seconds": 2.0,
        "warm_seconds": 0.1,
        "load": 1.0,
        **rest,
    }


@pytest.fixture
def rows():
    return [
        row("fit", "a", 0.04, certified=True, gradients=100.0),
        row("fit", "b", 0.6, certified=True, gradients=300.0, first_seconds=4.0),
        row("fit", "b", 0.01, certified=False, seed=1),
        {"problem": "c", "contender": "fit", "seed": 0, "status": "time limit", "certified": None},
        row("numpyro_nuts", "a", 0.05, gradients=4000.0, first_seconds=8.0),
        row("numpyro_nuts", "b", 0.08, gradients=3000.0, first_seconds=8.0),
    ]


def test_figures_by_hand(rows):
    table = summary.firsts(rows)
    s = summary.summary(table["fit"], table["numpyro_nuts"])
    assert (s["run"], s["failed"], s["good"], s["certified"]) == (3, 1, 1, 2)
    assert s["mean_error_rms"] == pytest.approx((0.02 + 0.3) / 2)
    assert s["gradients_small"] == 200 and s["gradients_large"] is None
    assert s["gradients_to_nuts"] == pytest.approx((100 / 4000 + 300 / 3000) / 2)
    assert s["cold_to_nuts"] == pytest.approx((2 / 8 + 4 / 8) / 2)
    assert (s["cheap"], s["cheap_and_no_worse"]) == (1, 1)
    assert summary.calibration(rows) == {"runs": 4, "seeds": 2, "certified": 2, "wrong": 1, "good": 2}


def test_seconds_of_two_days_are_not_compared():
    found = {
        "a": row("fit", "a", 0.1, date="2026-11-29"),
        "b": row("fit", "b", 0.1, date="2026-11-27", first_seconds=1.0),
    }
    nuts = {name: row("numpyro_nuts", name, 0.1, gradients=400.0, date="2026-11-29") for name in found}
    s = summary.summary(found, nuts)
    assert s["cold_to_nuts"] == 1.0 and s["gradients_to_nuts"] == 0.25
    assert summary.summary({"b": found["b"]}, nuts)["cold_to_nuts"] is None


def test_no_answer_that_is_certified_is_wrong():
    assert summary.is_wrong({"status": "non_finite", "certified": True})
    assert not summary.is_wrong(row("fit", "a", 0.6, certified=False))
    assert not summary.is_wrong(row("fit", "a", 0.5, certified=True))


def test_the_page(rows, tmp_path):
    store = Store(tmp_path / "posteriordb.json")
    here = {"device": "cpu", "processor": "x", "cores": 2, "python": "3", "versions": {}, "x64": True}
    for one in rows:
        store.add({"date": "2026-11-30"} | one, here)
    command.main(["posteriordb", "--report", "--output", str(tmp_path)])
    page = (tmp_path / "posteriordb.md").read_text()
    assert "| posteriors with every mean and sd error within 0.1 | 3 of 3 | 1 of 3 | **no** |" in page
    assert "1 of 2 certified (4 runs) | **no** |" in page
    assert "| b | **0.6** | 0.08 |" in page and "| c | time limit |  |" in page
    assert "yes WRONG" in page and "converged" in page
    assert "## `fit` over many seeds" in page and "| fit | c | 0 | `time limit` |" in page
    assert "Measured (so many runs of each method) on 2026-11-30: fit (4), numpyro_nuts (2)." in page
    assert (tmp_path / "posteriordb.png").stat().st_size > 10_000


def test_the_page_of_nothing():
    assert "0 of 0" in "\n".join(accuracy_page.sections([]))


@pytest.mark.parametrize(
    ("value", "shown"), [(None, ""), (0.01234, "0.0123"), (1234.5, "1,234"), (99.96, "100"), (2.5e7, "2.5e+07")]
)
def test_numbers_are_short(value, shown):
    assert summary.number(value) == shown
