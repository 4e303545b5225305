"""The suite `vae`: its numbers and its page, not its times."""

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks.harness.record import FIELDS, Store
from benchmarks.harness.suite import Job
from benchmarks.suites import vae


def assessed(method, seed, by_datum, **more):
    row = {
        "problem": vae.DIGITS,
        "contender": method,
        "seed": seed,
        "status": "done",
        "by_datum": by_datum,
        "active": 10,
    }
    row |= {
        "log_likelihood": float(np.mean(by_datum)),
        "log_likelihood_se": 0.2,
        "elbo": -24.0,
        "first_cpu_seconds": 12.0,
    }
    return row | more


ROWS = [
    assessed(vae.VAE, 0, [-20.0, -26.0, -24.0]),
    assessed(vae.VAE, 1, [-22.0, -28.0, -26.0]),
    assessed("IWAE k=50", 0, [-20.0, -26.0, -23.0]),
    assessed("IWAE k=50", 1, [-21.0, -27.0, -26.0]),
]


def test_the_difference_is_taken_image_by_image():
    """Seeds' means: -21, -27, -25 and -20.5, -26.5, -24.5: above by 0.5 on every image."""
    assert vae.over_vae(ROWS[2:], ROWS[:2]) == (0.5, 0.0)
    assert vae.over_vae([ROWS[2] | {"by_datum": [-19.0, -26.0, -25.0]}], ROWS[:1]) == pytest.approx((0.0, 3**-0.5))
    stored = [{key: value for key, value in row.items() if key != "by_datum"} for row in ROWS]
    assert vae.over_vae(stored[2:], stored[:2]) is None
    assert vae.over_vae([stored[2] | {"over_vae": 0.4, "over_vae_se": 0.1}], stored[:2]) == (0.4, 0.1)


def test_the_page_has_both_parts(tmp_path):
    pytest.importorskip("matplotlib")
    size = next(iter(vae.STEPS))
    timed = [
        {"problem": size, "contender": name, "seed": 0, "status": "done", "loss": 38.9, "microseconds": 800.0 * ratio}
        | {"ratio": ratio, "cpu_ratio": ratio}
        for name, ratio in ((vae.HAND, 1.0), (vae.OURS, 1.11))
    ]
    text = "\n".join(vae.sections([*timed, *ROWS]))
    assert "| 800 | 1.11 (1.11) |" in text and "| no | 38.9 / 38.9 / - / - / - |" in text
    assert "| IWAE k=50 | -23.83 ± 0.20 | +0.50 ± 0.00 | -23.00 -24.67 |" in text and "The order of Burda" not in text
    ordered = "\n".join(vae.sections([*ROWS, assessed("VAE k=50", 0, [-21.0, -26.5, -25.0])]))
    assert "(IWAE k=50 > VAE k=50 > VAE k=1): yes." in ordered
    (file,) = vae.picture(ROWS, tmp_path / "vae.png")
    assert file.stat().st_size > 5_000 and vae.picture(timed, tmp_path / "none.png") == []


def test_images_that_are_not_here_are_a_row(monkeypatch):
    monkeypatch.delenv(vae.VARIABLE, raising=False)
    (row,) = vae.rows(Job(vae.MNIST, (vae.VAE,), 0), quick=False)
    assert row == {"contender": vae.VAE, "status": "no images: ELBOJAX_MNIST is not set"}


@pytest.mark.slow
def test_all_loops_train_the_same_autoencoder(monkeypatch):
    """The mean loss of the last of two epochs, from starts and with draws of their own, is alike."""
    monkeypatch.setattr(vae, "QUICK_ROUNDS", (3, 0.0))
    monkeypatch.setattr(vae, "QUICK_EPOCHS", (2, 1))
    name = next(iter(vae.STEPS))
    found = list(vae.timed(Job(name, tuple(vae.LOOPS), 0), quick=True))
    assert [row["contender"] for row in found] == list(vae.LOOPS) and found[0]["ratio"] == 1.0
    losses = [row["loss"] for row in found if "loss" in row]
    assert len(losses) >= 4 and max(losses) - min(losses) < 0.5, losses
    assert all(set(row) <= set(FIELDS) for row in found)


@pytest.mark.slow
def test_the_short_form_runs(tmp_path):
    command.main(["vae", "--quick", "--only", f"digits,{vae.VAE}", "--output", str(tmp_path)])
    (row,) = Store(tmp_path / "vae.json").rows
    assert row["status"] == "done" and -60 < row["log_likelihood"] < -20 and len(row["by_datum"]) == 100, row
    assert "## Test log-likelihood: digits" in (tmp_path / "vae.md").read_text()
