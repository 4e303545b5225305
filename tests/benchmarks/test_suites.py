"""Suites measure what they say, on problems that are small; their pages and pictures follow from rows."""

import pytest

from benchmarks import __main__ as command
from benchmarks.harness.record import Store
from benchmarks.harness.suite import Job
from benchmarks.suites import calibration, chain_check, estimators, large, sequence

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


def assessed(problem, q, kind, verdict, **errors):
    off = {f"{what}_error": errors.get(what, 0.0) for what in ("mean", "sd", "correlation")}
    return {"contender": q, "kind": kind, "verdict": verdict, "gradients": 1000, "problem": problem, "seed": 0} | off


def test_both_error_rates_of_the_chain_check_stand_on_its_page():
    small, large_ = (
        name for name in chain_check.CELLS if name.startswith("Gaussian") and ("= 50" in name or "1,000" in name)
    )
    found = [
        assessed(small, "right", "right", "agrees"),
        assessed(small, "mean + 0.15 sd, one", "wrong", "agrees", mean=0.155),
        assessed(large_, "sd x 0.8, all", "wrong", "shifted", sd=0.2),
        assessed(large_, "sd x 0.8, one", "between", "undecided", sd=0.08),
    ]
    text = "\n".join(chain_check.sections(found))
    assert (
        "**Of 2 wrong ones 1 passed, 1 were called shifted; of 1 right ones 1 passed, 0 were called shifted.**" in text
    )
    assert "- mean + 0.15 sd, one (Gaussian, sds 0.01 to 100, D = 50, off by 0.155): agrees" in text
    assert f"| {large_} | 0 of 0 | 0 | 0 of 1 | 1 | 0 |  | 1,000 |" in text


@pytest.mark.slow
def test_the_chain_check_is_put_on_trial():
    name = next(iter(chain_check.CELLS))
    found = list(chain_check.rows(Job(name, ("right", "mean + 0.3 sd, one"), 0), quick=True))
    assert [(row["kind"], row["verdict"]) for row in found] == [("right", "agrees"), ("wrong", "shifted")]
    assert 0.25 < found[1]["mean_error"] < 0.35


def test_growth_with_the_number_of_parameters():
    found = [
        {"problem": name, "contender": large.LOW_RANK, "seed": 0, "khat": 1.0, "certified": False}
        | {"first_seconds": 1.0, "mean_error": 0.2, "mean_error_rms": 0.1, "sd_error": 0.2, "sd_error_rms": 0.1}
        | {"warm_seconds": size**2.0, "warm_cpu_seconds": size**1.0, "gradients": 100.0, "planned_mb": size**1.0}
        for name, (problem, size) in large.CELLS.items()
        if problem == "random walk"
    ]
    text = "\n".join(large.sections(found))
    assert "| random walk | 2.00 (no) | 1.00 (yes) | 0.00 |" in text.replace("-0.00", "0.00")
    assert "0.100 / 0.20" in text and "sparse logistic" not in text


@pytest.mark.slow
def test_a_stage_is_run_alone_and_compared_with_the_truth(monkeypatch):
    monkeypatch.setitem(large.CELLS, "small", ("random walk", 12))
    low, full = large.rows(Job("small", (large.LOW_RANK, large.FULL_RANK), 0), quick=True)
    assert low["mean_error"] < 0.05 and low["sd_error"] < 0.1 and full["certified"] and full["status"] == "done"
    assert low["planned_mb"] > 0 and low["gradients"] > 100


def ranked(problem, counts):
    found = {"replicates": 40, "first_seconds": 1.0, "first_cpu_seconds": 1.0, "certified_share": 1.0}
    found |= {"stages": {"full_rank": 40}, "outermost": {"full_rank": 0.04}, "gradients": 90.0, "p_value": 0.5}
    found |= {"calibrated": True, "p_values": {"a": 0.5}, "inside": {"a": True}}
    return found | {"problem": problem, "contender": calibration.CONTENDER, "seed": 0} | counts


def test_pictures_of_calibration_are_those_of_the_ranks(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "calibration.png"
    found = [ranked("logistic regression", {"rank_counts": {"a": [4] * 10, "b": [40] + [0] * 9}})]
    assert [file.name for file in calibration.picture(found, path)] == ["calibration-logistic-regression.png"]
    one = calibration.calibration(found[0]["rank_counts"])
    assert one.ranks.shape == (40, 2) and [verdict.inside for verdict in one.verdicts] == [True, False]
    # Without ranks the picture that is there stays; without either there is none.
    assert calibration.picture([ranked("logistic regression", {})], path) == [
        tmp_path / "calibration-logistic-regression.png"
    ]
    assert calibration.picture([ranked("autoregression", {})], path) == []


def test_wrong_priors_stand_beside_right_ones():
    text = "\n".join(calibration.sections([ranked(name, {}) for name in calibration.CELLS]))
    assert text.count("| prior times 0.5 | 40 | 100.0 %") == 3 and text.count("| right | 40 |") == 3
    assert text.count("| a | 0.500 | inside |") == 3


@pytest.mark.slow
def test_a_model_is_calibrated(monkeypatch):
    monkeypatch.setattr(calibration, "QUICK_REPLICATES", 20)
    (found,) = calibration.rows(Job("logistic regression", (calibration.CONTENDER,), 0), quick=True)
    assert found["certified_share"] == 1.0 and sum(found["stages"].values()) == 20
    assert len(found["rank_counts"]) == len(found["p_values"]) == 5
    assert all(len(counts) == 100 and sum(counts) == 20 for counts in found["rank_counts"].values())
