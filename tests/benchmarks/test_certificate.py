"""The targets of the certificate's trial are what they say: densities, draws and moments against each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks.harness import process, settings
from benchmarks.harness import suite as running
from benchmarks.harness.record import Store
from benchmarks.harness.suite import Job, chosen
from benchmarks.problems.deceptive import TARGETS, kinds
from benchmarks.suites import certificate

DRAWS = 20_000
STANDARD_ERRORS = 5
"""Of some hundreds of comparisons."""


@functools.cache
def products(log_density):
    return jax.jit(jax.vmap(lambda z, data: z * jax.grad(log_density)(z, data), in_axes=(0, None)))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_draws_are_of_the_density(target):
    """By integration by parts, the mean of z times the score is minus one in each coordinate."""
    draws = target.sample(np.random.default_rng(1), DRAWS)
    values = np.asarray(products(target.log_density)(jnp.asarray(draws, float), target.data))
    error = np.std(values, axis=0) / DRAWS**0.5
    assert np.all(np.abs(np.mean(values, axis=0) + 1) < STANDARD_ERRORS * error + 1e-4)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_moments_are_those_of_the_draws(target):
    draws = target.sample(np.random.default_rng(2), DRAWS)
    error = np.std(draws, axis=0) / DRAWS**0.5
    assert np.all(np.abs(np.mean(draws, axis=0) - target.mean) < STANDARD_ERRORS * error)
    # Winsorised, or the rare large draws of a funnel would decide: a sample sd falls short of them.
    squares = (draws - target.mean) ** 2
    error = np.std(squares, axis=0) / DRAWS**0.5
    light = np.mean(squares**2, axis=0) < 100 * np.mean(squares, axis=0) ** 2
    assert np.all(np.abs(np.mean(squares, axis=0) - target.sd**2)[light] < STANDARD_ERRORS * error[light])


NAME = "Student t(5), D = 2"


def test_a_run_ends_as_a_page():
    (row,) = certificate.rows(Job(NAME, ("fit",), 0), quick=False)
    assert row["certified"] and certificate.worst(row) < certificate.GOOD
    text = "\n".join(certificate.sections([row]))
    assert "1 fits, 1 certified, 0 of these wrong" in text and f"| {NAME} | 1 | 1 |" in text


def fit(seed=0, problem=NAME, **more):
    found = {"certified": True, "mean_error": 0.01, "sd_error": 0.01, "moment_sd_error": 0.01, "stage": "full_rank"}
    found |= {
        "heavy": 0,
        "withheld": 0,
        "hidden": False,
        "gradients": 100,
        "values": 50,
        "cpu_seconds": 1.0,
        "khat": 0.1,
    }
    return found | {"problem": problem, "contender": "fit", "seed": seed, "status": "done"} | more


def test_both_error_rates_are_counted():
    """Certified and off, certified and not finite, refused though right, refused and off."""
    rows = [fit(0), fit(1, mean_error=0.6), fit(2, sd_error=None), fit(3, certified=False)]
    rows += [fit(4, certified=False, mean_error=3.0), fit(5, sd_error=0.2)]
    text = "\n".join(certificate.sections(rows))
    assert "6 fits, 4 certified, 2 of these wrong (off by more than 0.5), 3 off by more than 0.1" in text
    assert "refused though within 0.1: 1 of 2" in text and text.count("| **no** |") == 3
    hidden = "\n".join(certificate.sections([fit(0), fit(0, TARGETS[-1].name, hidden=True, mean_error=0.9)]))
    assert "**1 fits, 1 certified, 0 of these wrong" in hidden and "1 fits, 1 certified, 1 of these wrong" in hidden


def test_a_sweep_says_what_differs():
    tried = [(0.8, [fit(0), fit(1)]), (0.0, [fit(0), fit(1, certified=False)])]
    table = [line for line in certificate.sweep("TAIL_SHARE_AGAIN", tried).splitlines() if line.startswith("|")]
    assert table[2] == "| 0.8 (default) | 2 | 2 | 0 (0.0%) | 0 (0.0%) | 0 of 2 (0.0%) | 100 | 50 | 2 | 0 |"
    assert table[3] == "| 0.0 | 2 | 1 | 0 (0.0%) | 0 (0.0%) | 1 of 2 (50.0%) | 100 | 50 | 2 | 1 |"


@pytest.fixture
def fake(monkeypatch):
    """Processes are not started: the jobs and settings that they would have been given."""
    ran = []

    def rows(name, suite, job, quick, settings):
        ran.append((job, settings))
        for seed in range(job.seed, job.seed + job.seeds):
            yield fit(seed, job.problem, contender=job.contenders[0])

    monkeypatch.setattr(process, "rows", rows)
    return ran


def test_another_threshold(fake, capsys, tmp_path):
    """Its page says so, and rows of the defaults stay as they are."""
    common = ["certificate", "--only", "fit,Student t(5)", "--seeds", "2", "--output", str(tmp_path)]
    command.main([*common, "--set", "ENOUGH=401", "--set", "UNKNOWN_ERROR=1"])
    assert "With ENOUGH = 401, UNKNOWN_ERROR = 1.0, not the defaults." in capsys.readouterr().out
    stem = "certificate-ENOUGH=401-UNKNOWN_ERROR=1.0"
    assert {path.name for path in tmp_path.iterdir()} == {f"{stem}.{end}" for end in ("json", "md")}
    assert {(job.problem, job.contenders, job.seeds) for job, _ in fake} == {
        (target.name, ("fit",), 2) for target in TARGETS if "Student t(5)" in target.name
    }
    assert all(given == {"ENOUGH": 401, "UNKNOWN_ERROR": 1.0} for _, given in fake)
    assert settings.stem("certificate", {"ENOUGH": 400}) == "certificate"


def test_what_sweeps_have_in_common_is_run_once(fake, capsys, tmp_path):
    common = ["certificate", "--only", "together,Student t(3)", "--output", str(tmp_path)]
    command.main([*common, "--sweep", "ENOUGH=400,100", "--sweep", "TAIL_SHARE_AGAIN=0.8,0.0"])
    assert [given for _, given in fake] == [{}] * 2 + [{"ENOUGH": 100}] * 2 + [{"TAIL_SHARE_AGAIN": 0.0}] * 2
    assert {job.contenders for job, _ in fake} == {(certificate.TOGETHER,)}
    text = (tmp_path / "certificate-sweeps.md").read_text()
    assert text.count("(default)") == 2 and "ENOUGH (effective draws)" in text


def test_a_crash_costs_one_seed_and_the_others_go_on(monkeypatch, tmp_path):
    ran = []

    def rows(name, suite, job, quick, settings):
        ran.append((job.seed, job.seeds))
        for seed in range(job.seed, job.seed + job.seeds):
            if seed == 3:
                yield {"problem": job.problem, "contender": "fit", "seed": 3, "status": "crashed"}
                return
            yield fit(seed)

    monkeypatch.setattr(process, "rows", rows)
    store = Store(tmp_path / "rows.json")
    for seeds in (6, 8):
        running.run("certificate", certificate.SUITE, store, only=f"fit,{NAME}", seeds=seeds, say=str)
    assert ran == [(0, 6), (4, 2), (6, 2)]
    assert [row["status"] for row in store.rows][:6] == ["done"] * 3 + ["crashed"] + ["done"] * 2


def test_names_choose():
    """Whole names alone, parts of names all that have them; what is on request only where it is asked for."""
    fits = chosen(certificate.SUITE, False, "fit")
    assert {job.contenders for job in fits} == {("fit",)} and len(fits) == len(TARGETS)
    assert {job.contenders for job in chosen(certificate.SUITE, False, "fit_batch")} == {("fit_batch",)}
    assert {job.contenders for job in chosen(certificate.SUITE, False, "together")} == {(certificate.TOGETHER,)}
    assert {job.problem[:4] for job in chosen(certificate.SUITE, False, "ring,gamma")} == {"ring", "gamm", "log "}
    with pytest.raises(
        ValueError, match="Student t.5. and together have nothing in common; there are 'fit_batch, together' on 'funnel"
    ):
        chosen(certificate.SUITE, False, "Student t(5),together")
    with pytest.raises(ValueError, match="no problem or contender rnig; there are funnel"):
        chosen(certificate.SUITE, False, "rnig")


def test_kinds_can_be_batches():
    found = kinds(list(TARGETS))
    assert sum(map(len, found)) == len(TARGETS) > 2 * len(found)
    for kind in found:
        assert len({(each.log_density, each.mean.size, each.support) for each in kind}) == 1


@pytest.mark.slow
def test_a_threshold_is_in_force_in_the_process_of_a_job():
    """Where more effective draws are wanted than any stage makes, nothing is certified."""
    (row,) = process.rows("certificate", certificate.SUITE, Job(NAME, ("fit",), 0), False, {"ENOUGH": 10**6})
    assert row["status"] == "done" and row["certified"] is False, row


@pytest.mark.long
def test_targets_of_a_kind_are_models_of_one_batch():
    (kind,) = (kind for kind in kinds(list(TARGETS)) if any(each.name == NAME for each in kind))
    found = list(certificate.rows(Job(kind[0].name, (certificate.TOGETHER,), 0), False))
    assert [row["problem"] for row in found] == [each.name for each in kind]
    assert all(row["certified"] and certificate.worst(row) < certificate.GOOD for row in found)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--set", "ENUOGH=3"), "nearest name is 'ENOUGH'"),
        (("--set", "ENOUGH"), "write NAME=VALUE"),
        (("--set", "ENOUGH="), "write NAME=VALUE"),
        (("--set", "ENOUGH=1,2"), "write NAME=VALUE"),
        (("--set", "ENOUGH=many"), "write NAME=VALUE"),
        (("--set", "ENOUGH=0.5"), "an integer"),
        (("--sweep", "ENOUGH=100,-1"), "lies from"),
        (("--sweep", "EXPLORATION_STEP_SIZES=1.0,0.5"), "a tuple"),
    ],
)
def test_misuse(capsys, given, words):
    with pytest.raises(SystemExit):
        command.main(["certificate", *given])
    assert words in capsys.readouterr().err
