"""The command line, as a shell calls it: verbs, reports, exit codes."""

import json
import subprocess
import sys

import numpy as np
import pytest

import elbojax
from elbojax.__main__ import main

MODEL = """
import jax.numpy as jnp

init = {"mu": 0.0, "sigma": 1.0}
support = {"sigma": "positive"}


def log_density(z, data):
    y = data["y"]
    return -0.5 * jnp.sum(((y - z["mu"]) / z["sigma"]) ** 2) - (y.size + 1) * jnp.log(z["sigma"])


def flat(z, data):
    return 0.0 * z["mu"]
"""
Y = np.random.default_rng(0).normal(3, 2, 40)


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path / "model.py"


def test_verbs_are_shown():
    run = subprocess.run([sys.executable, "-m", "elbojax"], capture_output=True, text=True)
    assert run.returncode == 2 and all(verb in run.stdout for verb in ("demo", "fit", "doctor"))


@pytest.mark.parametrize("kind", ["npz", "json", "csv"])
def test_a_fit_from_files(model, kind, tmp_path, capsys):
    data, out = tmp_path / f"data.{kind}", tmp_path / "out"
    if kind == "npz":
        np.savez(data, y=Y)
    elif kind == "json":
        data.write_text(json.dumps({"y": Y.tolist()}))
    else:
        np.savetxt(data, Y, header="y", comments="")
    assert main(["fit", f"{model}:log_density", "--data", str(data), "--out", str(out)]) == 0
    assert "certified" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert report["certificate"]["certified"] is True and report["certificate"]["status"] == "converged"
    assert report["posterior"]["mu"]["mean"] == pytest.approx(Y.mean(), abs=0.1 * Y.std() / 40**0.5)
    assert elbojax.load(out / "fit.npz").certificate.certified
    page = (out / "report.html").read_text()
    assert "<table>" in page and "src='data:image/png;base64," in page and "<script" not in page and "http" not in page
    assert "sigma" in (out / "report.txt").read_text()


def test_a_refused_fit_ends_with_one(model, tmp_path):
    np.save(tmp_path / "data.npy", Y)
    arguments = [
        "fit",
        f"{model}:flat",
        "--data",
        str(tmp_path / "data.npy"),
        "--out",
        str(tmp_path),
        "--max-seconds",
        "20",
    ]
    assert main(arguments) == 1
    assert json.loads((tmp_path / "report.json").read_text())["certificate"]["certified"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{dir}/model.py"], "wanted FILE.py:NAME"),
        (["{dir}/none.py:log_density"], "is no Python file"),
        (["{dir}/model.py:density"], "has no 'density'"),
        (["{dir}/model.py:log_density", "--data", "{dir}/data.xls"], "have to be .npz, .npy, .json or .csv"),
    ],
)
def test_misuse_ends_with_two(model, words, message, capsys):
    assert main(["fit", *(word.format(dir=model.parent) for word in words)]) == 2
    assert message in capsys.readouterr().err


def test_the_doctor(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "self-test  right" in text and "jaxlib" in text and "cpu:0" in text


def test_the_doctor_tells_what_is_wrong(monkeypatch, capsys):
    from elbojax.commands import doctor

    monkeypatch.setattr(doctor, "self_test", lambda: 0.3)
    assert main(["doctor"]) == 1
    assert "WRONG" in capsys.readouterr().out
