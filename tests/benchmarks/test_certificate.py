"""The targets of the certificate's trial are what they say: densities, draws and moments against each other."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import certificate

DRAWS = 20_000
STANDARD_ERRORS = 5
"""Of some hundreds of comparisons."""


@functools.cache
def products(log_density):
    return jax.jit(jax.vmap(lambda z, data: z * jax.grad(log_density)(z, data), in_axes=(0, None)))


@pytest.mark.parametrize("target", certificate.TARGETS, ids=lambda target: target.name)
def test_draws_are_of_the_density(target):
    """By integration by parts, the mean of z times the score is minus one in each coordinate."""
    draws = target.sample(np.random.default_rng(1), DRAWS)
    values = np.asarray(products(target.log_density)(jnp.asarray(draws, float), target.data))
    error = np.std(values, axis=0) / DRAWS**0.5
    assert np.all(np.abs(np.mean(values, axis=0) + 1) < STANDARD_ERRORS * error + 1e-4)


@pytest.mark.parametrize("target", certificate.TARGETS, ids=lambda target: target.name)
def test_moments_are_those_of_the_draws(target):
    draws = target.sample(np.random.default_rng(2), DRAWS)
    error = np.std(draws, axis=0) / DRAWS**0.5
    assert np.all(np.abs(np.mean(draws, axis=0) - target.mean) < STANDARD_ERRORS * error)
    # Winsorised, or the rare large draws of a funnel would decide: a sample sd falls short of them.
    squares = (draws - target.mean) ** 2
    error = np.std(squares, axis=0) / DRAWS**0.5
    light = np.mean(squares**2, axis=0) < 100 * np.mean(squares, axis=0) ** 2
    assert np.all(np.abs(np.mean(squares, axis=0) - target.sd**2)[light] < STANDARD_ERRORS * error[light])


def test_a_run_ends_as_a_page():
    (target,) = (target for target in certificate.TARGETS if target.name == "Student t(5), D = 2")
    rows = certificate.run(target, 1)
    page = certificate.markdown({"environment": certificate.timing.environment(), "rows": rows})
    assert rows[0]["certified"] and max(rows[0]["mean_error"], rows[0]["sd_error"]) < certificate.GOOD
    assert "1 fits, 1 certified, 0 of these wrong" in page and "| Student t(5), D = 2 | 1 | 1 |" in page


def run(monkeypatch, *arguments):
    monkeypatch.setattr(
        "sys.argv", ["certificate.py", "--call", "fit", "--seeds", "1", "--only", "Student t(5), D = 2", *arguments]
    )
    before = jax.config.jax_enable_x64
    try:
        certificate.main()
    finally:
        jax.config.update("jax_enable_x64", before)


def test_another_threshold(monkeypatch, capsys, tmp_path):
    """Its page says so, and those of the defaults stay as they are."""
    folder = pathlib.Path(certificate.__file__).parent / "results"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    run(monkeypatch, "--set", "ENOUGH=401", "--set", "UNKNOWN_ERROR=1")
    assert "With ENOUGH = 401, UNKNOWN_ERROR = 1.0, not the defaults." in capsys.readouterr().out
    run(monkeypatch, "--set", "ENOUGH=401", "--output", str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {f"certificate-ENOUGH=401.{end}" for end in ("json", "md")}
    (row,) = json.loads((tmp_path / "certificate-ENOUGH=401.json").read_text())["rows"]
    assert row["settings"] == {"ENOUGH": 401}
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_sweep(monkeypatch, capsys):
    run(monkeypatch, "--sweep", "TAIL_SHARE_AGAIN=0.8,0.0")
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert table[0].startswith("| TAIL_SHARE_AGAIN | fits | certified |")
    assert table[2].startswith("| 0.8 (default) | 1 | 1 | 0 (0.0%) | 0 (0.0%) | 0 of 1 (0.0%) |") and table[2].endswith(
        "| 0 |"
    )
    assert table[3].startswith("| 0.0 | 1 | 1 |")


def test_kinds_can_be_batches():
    found = certificate.kinds(list(certificate.TARGETS))
    assert sum(map(len, found)) == len(certificate.TARGETS) > 2 * len(found)
    for kind in found:
        assert len({(each.log_density, each.mean.size, each.support) for each in kind}) == 1


@pytest.mark.slow
def test_a_sweep_of_batches(monkeypatch, capsys):
    """Targets of a kind are models of one batch, and the threshold is in force."""
    monkeypatch.setattr(
        "sys.argv",
        ["certificate.py", "--call", "fit_batch", "--together", "--seeds", "2", "--only", "Student t(5), D = 2"]
        + ["--sweep", "OUTER_SHARE=0.1,1"],
    )
    before = jax.config.jax_enable_x64
    try:
        certificate.main()
    finally:
        jax.config.update("jax_enable_x64", before)
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert table[2].startswith("| 0.1 (default) | 2 | 2 | 0 (0.0%) |") and table[3].startswith("| 1.0 | 2 | 2 |")
    # Without the probes the first look keeps one of them, and no later stage is asked.
    assert int(table[3].split("|")[-2]) >= 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--set", "ENUOGH=3"), "nearest name is 'ENOUGH'"),
        (("--set", "ENOUGH"), "write NAME=VALUE"),
        (("--set", "ENOUGH="), "write NAME=VALUE"),
        (("--set", "ENOUGH=many"), "write NAME=VALUE"),
        (("--set", "ENOUGH=0.5"), "an integer"),
        (("--sweep", "ENOUGH=100,-1"), "lies from"),
        (("--sweep", "EXPLORATION_STEP_SIZES=1.0,0.5"), "a tuple"),
    ],
)
def test_misuse(monkeypatch, capsys, given, words):
    with pytest.raises(SystemExit):
        run(monkeypatch, *given)
    assert words in capsys.readouterr().err
