"""Suites measure what they say, on problems that are small; their pages and pictures follow from rows."""

import pytest

from benchmarks import __main__ as command
from benchmarks.harness.record import Store
from benchmarks.harness.suite import Job
from benchmarks.suites import estimators, sequence

HERE = {"device": "cpu", "processor": "x", "cores": 2, "python": "3", "versions": {"jax": "1"}, "x64": True}


def whole(problem, rows):
    """As the harness completes them."""
    return [{"problem": problem, "seed": 0, "status": "done", "date": "2026-11-30"} | one for one in rows]


def of_lengths(exponent):
    return [
        {"problem": problem, "seed": 0, "contender": "chain, d = 1, scan", "status": "done", "date": "2026-11-30"}
        | {field: length**exponent for field in sequence.MEASURES}
        for problem, length in sequence.LENGTHS.items()
    ]


def test_growth_is_an_exponent():
    assert abs(sequence.exponent({10: 3.0, 100: 30.0, 1000: 300.0}) - 1) < 1e-9
    assert sequence.exponent({10: 3.0}) is None
    for grows, said in ((1.0, "1.1: chain, d = 1, scan."), (1.5, "1.1: none. Steeper: chain, d = 1, scan.")):
        text = "\n".join(sequence.sections(of_lengths(grows)))
        assert said in text and f"| {grows:.2f} |" in text


def test_a_page_shows_the_pictures_of_its_suite(tmp_path):
    pytest.importorskip("matplotlib")
    store = Store(tmp_path / "sequence.json")
    for row in of_lengths(1.0):
        store.add(row, HERE)
    command.main(["sequence", "--report", "--output", str(tmp_path)])
    assert "![sequence](sequence.png)" in (tmp_path / "sequence.md").read_text()
    assert (tmp_path / "sequence.png").stat().st_size > 10_000
    assert command.pictures(sequence.SUITE, Store(tmp_path / "none.json"), tmp_path / "none.png") == []


def test_the_same_bound_by_scan_and_by_associative_scan(monkeypatch):
    monkeypatch.setitem(sequence.LENGTHS, "short", 40)
    monkeypatch.setattr(sequence, "QUICK_ROUNDS", (3, 0.0))
    names = ("banded, b = 1, scan", "banded, b = 1, associative")
    found = whole("short", sequence.rows(Job("short", names, 0), quick=True))
    assert [row["contender"] for row in found] == list(names) and all(row["rounds"] == 3 for row in found)
    assert abs(found[0]["elbo"] - found[1]["elbo"]) < 1e-3 * abs(found[0]["elbo"])
    assert all(4 * 40 / 1e6 < row["planned_mb"] < 1 for row in found)


@pytest.mark.slow
def test_noise_of_estimators_is_a_row_of_each(monkeypatch):
    monkeypatch.setattr(estimators, "QUICK_ESTIMATES", 64)
    name = "coupled coins, D = 8: start"
    found = whole(name, estimators.rows(Job(name, ("elbo_rloo", "elbo_enumerated"), 0), quick=True))
    noisy, exact = found
    assert noisy["estimates"] == 64 and noisy["variance"] > 0.1 > 1e-9 > exact["variance"]
    assert noisy["bias"] < 3 * noisy["bias_by_chance"] and exact["gradients"] > noisy["gradients"]
    text = "\n".join(estimators.sections(found))
    assert text.index("| elbo_enumerated |") < text.index("| elbo_rloo |") and "elsewhere" not in text


def test_a_peer_with_other_numbers_is_told(monkeypatch):
    from benchmarks.contenders.bounds import Agreement

    def absent():
        raise ModuleNotFoundError("No module named 'c'", name="c")

    peers = {"a": lambda: Agreement(1.0, 0.0, 1e-12), "b": lambda: Agreement(1.0, 1e-3, 0.0), "c": absent}
    monkeypatch.setitem(estimators.BOUNDS, "a bound", peers)
    found = whole("a bound", estimators.rows(Job("a bound", tuple(peers), 0), quick=True))
    assert [row["status"] for row in found] == ["done", "other numbers", "not installed: c"]
    assert "| b | a bound | 1 | 1.0e-03 | 0.0e+00 |" in "\n".join(estimators.sections(found))
