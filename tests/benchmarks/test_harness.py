"""Rows are kept and told apart; a job that fails leaves a row that says why; pages and comparisons say what rows say."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import suites
from benchmarks.contenders import CONTENDERS, EVIDENCE, MOMENTS, Contender
from benchmarks.harness import process
from benchmarks.harness import suite as running
from benchmarks.harness.compare import changed, compare, name_of
from benchmarks.harness.page import number, page
from benchmarks.harness.record import FIELDS, Store, median, plain
from benchmarks.harness.suite import Job, Suite, rounds
from benchmarks.problems.known import PROBLEMS
from benchmarks.suites import cold, evidence, known, minibatch, step

HERE = {"device": "cpu", "processor": "x", "cores": 2, "python": "3", "versions": {"jax": "1"}, "x64": True}


def row(seed=0, problem="p", contender="c", **more):
    return {"problem": problem, "contender": contender, "seed": seed, "status": "done", "date": "2026-11-30"} | more


def store(tmp_path, rows, name="rows"):
    found = Store(tmp_path / f"{name}.json")
    for one in rows:
        found.add(one, HERE)
    return found


def test_a_store_goes_on_where_it_was(tmp_path):
    store(tmp_path, [row(0, gradients=1), row(1, gradients=np.float64(2)), row(0, gradients=3)])
    later = Store(tmp_path / "rows.json")
    assert ("p", "c", 0) in later and ("p", "c", 2) not in later
    assert [one["gradients"] for one in later.rows] == [3, 2.0]
    assert len(later.environments) == 1 and list(later.environments.values()) == [HERE]
    later.add(row(2), HERE | {"date": "another day", "commit": "another"})
    assert len(later.environments) == 1
    later.add(row(3), HERE | {"cores": 8})
    assert len(later.environments) == 2
    # What no row refers to is not kept.
    later.add(row(3), HERE)
    assert len(Store(later.file).environments) == 1


def test_a_row_has_declared_fields_only(tmp_path):
    with pytest.raises(ValueError, match="unknown: grads; missing: none"):
        store(tmp_path, [row(grads=1)])
    with pytest.raises(ValueError, match="missing: seed"):
        store(tmp_path, [{"problem": "p", "contender": "c", "status": "done"}])


def test_plain_is_json():
    found = plain({"a": np.float32(1 / 3), "b": float("nan"), "c": (np.arange(2), True, None, "x"), "d": 10**12})
    assert found == {"a": 0.33333, "b": None, "c": [[0, 1], True, None, "x"], "d": 10**12}
    json.dumps(found, allow_nan=False)


def test_rounds_turn_and_keep_rivals_together():
    jobs = rounds(("p", "q"), ("a", "b", "c"), 2, apart=False)
    assert jobs == [
        Job("p", ("a", "b", "c"), 0),
        Job("q", ("a", "b", "c"), 0),
        Job("p", ("b", "c", "a"), 1),
        Job("q", ("b", "c", "a"), 1),
    ]
    assert [(j.contenders, j.seed) for j in rounds(("p",), ("a", "b"), 2, apart=True)] == [
        (("a",), 0),
        (("b",), 0),
        (("b",), 1),
        (("a",), 1),
    ]


@pytest.fixture
def fake(monkeypatch):
    """A suite whose processes are not started: (suite, jobs that were run)."""
    ran = []

    def rows(name, suite, job, quick, settings):
        ran.append(job)
        yield from (row(job.seed, job.problem, contender) for contender in job.contenders)

    monkeypatch.setattr(process, "rows", rows)
    jobs = lambda quick: rounds(("p", "q"), ("a", "b"), 1 if quick else 2, apart=True)  # noqa: E731
    return Suite("Why?", jobs, None, lambda rows: [f"{len(rows)} rows"]), ran


def test_only_what_is_missing_is_run(tmp_path, fake):
    suite, ran = fake
    found = Store(tmp_path / "rows.json")
    running.run("fake", suite, found, quick=True, say=str)
    assert [(j.problem, j.contenders) for j in ran] == [("p", ("a",)), ("p", ("b",)), ("q", ("a",)), ("q", ("b",))]
    running.run("fake", suite, found, say=str)
    assert len(ran) == 8 and len(found.rows) == 8
    running.run("fake", suite, found, only="q", again=True, say=str)
    assert [j.problem for j in ran[8:]] == ["q"] * 4
    assert [r["quick"] for r in found.rows if r["seed"] == 0 and r["problem"] == "p"] == [True, True]


BROKEN = Suite("Why?", None, None, None, seconds=600.0)


def test_a_process_that_crashes_says_why():
    job = Job("no such posterior", ("elbojax fit",), 0)
    (found,) = process.rows("cold", BROKEN, job, quick=False)
    assert found == {"problem": job.problem, "contender": "elbojax fit", "seed": 0} | {
        "status": "KeyError: 'no such posterior'"
    }


def test_a_process_that_takes_too_long_is_ended():
    (found,) = process.rows("cold", BROKEN._replace(seconds=0.01), Job("eight schools", ("elbojax fit",), 0), False)
    assert found["status"] == "more than 0.01 s"


@pytest.mark.parametrize(
    ("limit", "of_row", "said", "lines"), [(60.0, 20.0, None, 3), (60.0, 1.5, 1.5, 2), (1.5, 60.0, 1.5, 2)]
)
def test_each_row_has_the_limit_anew(tmp_path, limit, of_row, said, lines):
    """Rows after 0.2, 0.4 and 5 seconds: what is there stays, whatever comes of the rest."""
    file = tmp_path / "rows"
    file.touch()
    code = "import sys, time\nfor wait in (0.2, 0.2, 4.6):\n time.sleep(wait)\n print(1, file=open(sys.argv[1], 'a'))"
    child = subprocess.Popen([sys.executable, "-c", code, str(file)])
    assert process.waited(child, file, limit, of_row) == said
    assert len(file.read_text().splitlines()) == lines and child.returncode is not None


def test_a_library_that_is_not_there_is_a_row(monkeypatch):
    absent = Contender(("no_such_library",), None, "")
    monkeypatch.setitem(CONTENDERS, "absent", absent)
    (found,) = known.rows(Job("eight schools", ("absent",), 0), again=True)
    assert found["status"] == "not installed: no_such_library"


def test_numbers():
    assert [number(x) for x in (None, 0.0123456, 12.3456, 9310.0, 1234567.0)] == [
        "",
        "0.0123",
        "12.3",
        "9,310",
        "1,234,567",
    ]
    assert median([{"a": 1.0}, {"a": None}, {}, {"a": 3.0}], "a") == 2.0
    assert median([{}], "a") is None


def test_a_page_says_where_and_what_gave_no_answer(tmp_path):
    text = page("cold", "Why?", store(tmp_path, [row(load=1.5), row(1, status="crashed")]), ["## Times"])
    assert text.startswith("# Cold\n\nWhy?\n\n`python -m benchmarks cold` makes this page. 2 rows: cpu (x, 2 cores)")
    assert "load 1.5 to 1.5" in text and "## Times" in text and "| c | p | 1 | `crashed` |" in text


COMPARED = Suite(
    "Why?",
    None,
    None,
    None,
    costs=("gradients", "variance", "first_cpu_seconds", "microseconds"),
    errors={"mean_error": 0.02, "log_evidence_error": 0.02},
    gains={"elbo": 1.0},
)


@pytest.mark.parametrize(
    ("field", "before", "after", "said"),
    [
        ("first_cpu_seconds", 1.0, 1.1, ""),
        ("first_cpu_seconds", 1.0, 1.3, "WORSE"),
        ("first_cpu_seconds", 1.3, 1.0, "better"),
        # No unit is so small that nothing counts in it.
        ("first_cpu_seconds", 0.001, 0.01, "WORSE"),
        ("microseconds", 0.6, 1.2, "WORSE"),
        ("gradients", 100, 111, "WORSE"),
        ("variance", 1.0, 1.15, ""),
        ("variance", 2.0, 1.0, "better"),
        ("mean_error", 0.001, 0.02, ""),
        ("mean_error", 0.1, 0.2, "WORSE"),
        ("log_evidence_error", -0.5, 0.1, "better"),
        ("elbo", -10.0, -10.5, ""),
        ("elbo", -10.0, -12.0, "WORSE"),
        ("elbo", -12.0, -10.0, "better"),
        ("mean_error", None, 0.2, ""),
    ],
)
def test_what_counts_as_worse(field, before, after, said):
    assert field in FIELDS and changed(field, [row(**{field: before})], [row(**{field: after})], COMPARED) == said


def test_what_repeats_differ_by_is_no_change():
    """Medians 1 and 1.5: of seeds that agree a change, of seeds that are 0.4 apart and more, none; and so of rounds."""
    of = lambda *values: [row(seed, microseconds=value) for seed, value in enumerate(values)]  # noqa: E731
    assert changed("microseconds", of(0.99, 1.0, 1.01), of(1.49, 1.5, 1.51), COMPARED) == "WORSE"
    assert changed("microseconds", of(0.6, 1.0, 1.6), of(0.9, 1.5, 2.1), COMPARED) == ""
    for spread, said in ((0.02, "WORSE"), (0.9, "")):
        before, after = ([row(microseconds=value, spread=spread, rounds=9)] for value in (1.0, 1.5))
        assert changed("microseconds", before, after, COMPARED) == said
    # What is counted has no spread of rounds.
    before, after = ([row(gradients=value, spread=0.9, rounds=9)] for value in (100, 150))
    assert changed("gradients", before, after, COMPARED) == "WORSE"


def test_two_files_side_by_side(tmp_path):
    old = store(tmp_path, [row(0, gradients=100, certified=True), row(1, gradients=100), row(5, gradients=1)], "old")
    new = store(tmp_path, [row(0, gradients=150, certified=False), row(1, gradients=150)], "new")
    text = compare(old, new, COMPARED)
    assert "| p | c | certified | 1 of 2 | 0 of 2 | WORSE |" in text and "| right |" not in text
    assert "| p | c | gradients | 100 | 150 | WORSE |" in text
    assert compare(old, old, COMPARED).startswith("Nothing got slower")
    other = COMPARED._replace(right=lambda row: row["gradients"] == 150)
    assert "| p | c | right | 0 of 2 | 2 of 2 | better |" in compare(old, new, other)


NEUTRAL = {
    "seed",
    "load",
    "quick",
    "certified",
    "steps",
    "rounds",
    "spread",
    "replicates",
    "estimates",
    "heavy",
    "withheld",
}
NEUTRAL |= {"hidden", "khat", "ess", "calibrated", "p_value", "peak_mb", "parameters", "rhat"}
NEUTRAL |= {"batch", "models", "known", "right", "lanes", "devices", "refused_right", "same_steps"}
"""Numbers of which less is neither better nor worse, or that say how much was done."""
OTHERWISE = {
    "certificate": {"moment_sd_error"},  # as sd_error, but where that is of quantiles
    "batch": {"ideal_gain", "scheduled_gain"},  # of the queue, not of the loop
    "kinds": {f"certified_{what}" for what in ("known", "wrong", "median_error", "worst_error")},  # `right`, and of all
    "vae": {"log_likelihood_se", "over_vae_se"},
    "chain_check": {"mean_error", "sd_error", "correlation_error"},  # of what is on trial, not of the check
    "cold": {"log_evidence_error", "log_evidence_se", "first_seconds"},  # the suite `evidence`; and by the clock
    "evidence": {"first_seconds", "import_cpu_seconds"},  # by the clock; of the rival alone
    "estimators": {"bias", "bias_by_chance", "signal_to_noise", "value"},  # of 2,048 estimates: noise
}


@pytest.mark.parametrize("name", suites.NAMES)
def test_every_suite_declares_what_is_compared(name):
    suite, file = suites.load(name), command.RESULTS / f"{name}.json"
    declared = [*suite.costs, *suite.errors, *suite.gains]
    assert declared and set(declared) <= set(FIELDS) and len(set(declared)) == len(declared)
    found = Store(file) if file.is_file() else None
    for one in found.rows if found else ():
        numbers = {field for field, value in one.items() if isinstance(value, int | float)}
        assert numbers <= NEUTRAL | OTHERWISE.get(name, set()) | set(declared), numbers
    if found is not None:
        assert compare(found, found, suite).startswith("Nothing got slower")


@pytest.mark.parametrize("name", ["certificate", "chain_check", "calibration"])
def test_verdicts_that_turn_wrong_are_seen(name, tmp_path):
    suite, found = suites.load(name), Store(command.RESULTS / f"{name}.json")
    worse = {"certificate": {"certified": True, "mean_error": 0.7}, "calibration": {"calibrated": False}}
    worse["chain_check"] = {"verdict": "shifted"}
    place, old = next((i, one) for i, one in enumerate(found.rows) if suite.right(one))
    if name == "calibration":
        place, old = next((i, one) for i, one in enumerate(found.rows) if one["calibrated"])
    if name == "chain_check":
        place, old = next((i, one) for i, one in enumerate(found.rows) if one["kind"] == "right" and suite.right(one))
    new = store(tmp_path, [{key: value for key, value in old.items() if key != "environment"} | worse[name]], "new")
    assert f"| {old['problem']} | {old['contender']} | right | 1 of 1 | 0 of 1 | WORSE |" in compare(found, new, suite)


def test_the_suite_of_a_file_is_in_its_name():
    assert name_of("a/step-jax-0.12.json", suites.NAMES) == "step" == name_of("step.json", suites.NAMES)
    assert (
        name_of("certificate-ENOUGH=200.json", suites.NAMES) == "certificate"
        and name_of("steps.json", ("step",)) is None
    )


def test_every_suite_has_jobs_that_can_be_run():
    for name in suites.NAMES:
        suite = suites.load(name)
        short, full = suite.jobs(True), suite.jobs(False)
        assert 0 < len(short) < len(full) and suite.question.endswith("?")
        assert len({(job.problem, one, job.seed) for job in full for one in job.contenders}) == sum(
            len(job.contenders) for job in full
        )
    with pytest.raises(ValueError, match="wanted one of certificate, cold, "):
        suites.load("nothing")


def test_the_suites_of_known_answers_name_what_there_is():
    jobs = [job for suite in (cold.SUITE, evidence.SUITE) for quick in (True, False) for job in suite.jobs(quick)]
    assert all(job.problem in PROBLEMS and set(job.contenders) <= set(CONTENDERS) for job in jobs)


def test_the_command_knows_its_suites(capsys):
    with pytest.raises(SystemExit):
        command.main(["nothing"])
    assert "no suite nothing; there are certificate, cold, " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["--compare", "a.json", "b.json"])
    assert "no such file: a.json, b.json" in capsys.readouterr().err


def test_two_files_are_compared_by_the_command(tmp_path, capsys):
    for name, count in (("old", 100), ("step-new", 100)):
        store(tmp_path, [row(microseconds=count * (1 + (name != "old")))], name)
    files = [str(tmp_path / f"{name}.json") for name in ("old", "step-new")]
    command.main(["--compare", *files])
    assert "| p | c | microseconds | 100 | 200 | WORSE |" in capsys.readouterr().out
    command.main(["evidence", "--compare", *files])
    assert "Nothing got slower" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["--compare", *reversed(files)])
    assert "of which suite are they?" in capsys.readouterr().err


@pytest.mark.parametrize("name", PROBLEMS)
def test_known_answers_agree_with_importance_sampling(name):
    """From a wide Student t around the stated moments, in NumPy: within four standard errors."""
    import jax

    one, rng, size = PROBLEMS[name](), np.random.default_rng(0), 200_000
    z = one.mean + 1.3 * one.sd * rng.standard_t(5, size=(size, one.size))
    from scipy import stats

    log_q = np.sum(stats.t.logpdf((z - one.mean) / (1.3 * one.sd), 5) - np.log(1.3 * one.sd), axis=1)
    log_p = np.asarray(jax.jit(jax.vmap(lambda z: one.log_density(z, one.data)))(z))
    ratio = np.exp(log_p - log_q - one.log_evidence)
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(size)
    for power, wanted in ((1, one.mean), (2, one.mean**2 + one.sd**2)):
        terms = ratio[:, None] * (z**power - wanted)
        assert np.all(np.abs(terms.mean(axis=0)) < 4.5 * terms.std(axis=0) / np.sqrt(size))


def measured(problem, contender, seed, **more):
    return row(seed, problem, contender, certified=True, mean_error=0.01, sd_error=0.01, **more)


def test_sections_of_cold_take_ratios_round_by_round():
    times = {f"{when}_cpu_seconds": 1.0 for when in cold.TIMES}
    rows = [measured("eight schools", name, seed, **times) for name in MOMENTS for seed in (0, 1)]
    for one in rows:
        if one["contender"] == "elbojax fit":
            one["first_cpu_seconds"] = 0.1 if one["seed"] else 0.3
    text = "\n".join(cold.sections(rows))
    assert "| eight schools | NumPyro NUTS, one scan | 1 | 0.2 | 1 | 1 |" in text


def test_sections_of_evidence_state_errors_in_stated_errors():
    rows = [
        measured("banana, two arms", EVIDENCE[0], seed, log_evidence_error=error, log_evidence_se=0.01)
        for seed, error in enumerate((0.01, -0.03))
    ]
    text = "\n".join(evidence.sections(rows))
    assert "| elbojax fit | -0.0100 | 0.0224 | 0.01 | 2.24 |" in text


@pytest.mark.slow
def test_a_suite_runs_from_its_command(tmp_path):
    command.main(["evidence", "--quick", "--only", "fit", "--output", str(tmp_path)])
    found = Store(tmp_path / "evidence.json").rows
    assert {r["contender"] for r in found} == {"elbojax fit"} and len(found) == 2
    for one in found:
        assert one["status"] == "done" and one["certified"] and one["mean_error"] < 0.1, one
        assert abs(one["log_evidence_error"]) < 4 * one["log_evidence_se"]
        assert one["import_cpu_seconds"] > 0.1 and one["peak_mb"] > 100
    assert "# Evidence" in (tmp_path / "evidence.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CONTENDERS if name != "elbojax fit"])
def test_every_contender_can_be_asked(name):
    pytest.importorskip(CONTENDERS[name].imports[0])
    import jax

    one = PROBLEMS["logistic regression"]()
    found = known.errors(CONTENDERS[name].make(one, 1.0)(jax.random.key(0)), one)
    assert found["mean_error"] < 0.4 and found["sd_error"] < 0.3, found
    assert abs(found.get("log_evidence_error", 0.0)) < 1.0


def test_a_step_is_timed_in_turns_and_at_the_same_bound(monkeypatch):
    monkeypatch.setattr(step, "QUICK_ROUNDS", (3, 0.0))
    (name,) = (name for name in step.CELLS if name.startswith("eight schools, mean-field, 1 draw"))
    job = Job(name, ("hand", "elbojax"), 0)
    first, second = step.rows(job, quick=True)
    assert (first["contender"], first["ratio"], first["cpu_ratio"]) == ("hand", 1.0, 1.0)
    assert second["status"] == "done" and second["ratio"] > 0 and second["rounds"] == 3
    assert abs(second["elbo"] - first["elbo"]) < 1.0
    assert step.bounds(step.eight_schools(), False, step.start_of(step.eight_schools())) < first["elbo"]
    text = "\n".join(step.sections([{"problem": name, "seed": 0} | one for one in (first, second)]))
    assert f"| {name} |" in text and text.count("## First call") == 1


def test_another_bound_is_told(monkeypatch):
    monkeypatch.setattr(step, "QUICK_ROUNDS", (3, 0.0))
    (name,) = (name for name in step.CELLS if name.startswith("logistic n=1,000 d=50, mean-field, 1 draw"))
    far = lambda problem, full, draws, steps: lambda key, data: step.start_of(problem)  # noqa: E731
    monkeypatch.setitem(step.SVI, "elbojax", far)
    assert [one["status"] for one in step.rows(Job(name, ("hand", "elbojax"), 0), quick=True)] == [
        "done",
        "another bound",
    ]


@pytest.mark.slow
def test_minibatches_are_compared_with_the_optimum_and_at_one_budget(monkeypatch):
    small = minibatch.PROBLEMS["logistic, mean-field"]._replace(num_data=600, size=2)
    monkeypatch.setitem(minibatch.PROBLEMS, "logistic, mean-field", small)
    labels = (minibatch.OURS, "Adam 0.01, last iterate", "Adam 0.01, tail average")
    found = list(minibatch.rows(Job("logistic, mean-field", labels, 0), quick=True))
    assert [(one["contender"], one["seed"]) for one in found] == [(label, 0) for label in labels]
    assert found[0]["mean_error"] < 0.05 and found[0]["ratio"] == 1.0 and found[0]["ended"]
    assert all(one["mean_error"] < 1.0 and one["mean_error_rms"] <= one["mean_error"] for one in found)
    assert 0 <= found[0]["gradients"] - found[1]["gradients"] < minibatch.STEPS_TOGETHER
    text = minibatch.sections([{"problem": "logistic, mean-field"} | one for one in found])[1]
    assert text.count("| fit_minibatches |") == 1 and "N = 600, D = 2" in text


def test_the_optimum_is_where_the_bound_has_no_slope():
    """By draws, in place of the quadrature that it was found with; and of one parameter the two families are one."""
    problem = minibatch.PROBLEMS["logistic, mean-field"]._replace(num_data=500, size=3)
    x, y = (np.asarray(part, float) for part in minibatch.make_data(problem))
    mean, sd = minibatch.optimum(problem, (x, y))
    z = mean + sd * np.random.default_rng(0).normal(size=(20_000, 3))
    p = 1 / (1 + np.exp(-z @ x.T))
    slopes = (y - p) @ x - z
    assert np.all(np.abs(slopes.mean(axis=0)) < 4 * slopes.std(axis=0) / np.sqrt(len(z)))
    np.testing.assert_allclose(sd**-2, 1 + ((p * (1 - p)) @ x**2).mean(axis=0), rtol=0.01)
    one = problem._replace(size=1)
    data = minibatch.make_data(one)
    np.testing.assert_allclose(minibatch.optimum(one, data), minibatch.optimum(one._replace(family="full_rank"), data))
