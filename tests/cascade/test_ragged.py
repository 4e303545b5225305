"""`fit_ragged`: data sets of unequal length, and bad ones among them, in one call."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status
from elbojax.cascade import batch

KEY = jax.random.key(11)
INIT, SUPPORT = {"mean": 0.0, "rate": 1.0}, {"rate": "positive"}
SIZES = (3, 0, 1, 40, 3, 35, 2, 0, 4)
NAN, IMPROPER, SMALL, LARGE = 4, 7, 2, 3
SHAPES = []


def log_density(position, datum):
    """Normal data with a normal prior of the model's own precision, counts with a Gamma prior: conjugate both."""
    y, counts, precision, unit = datum.data
    SHAPES.append(y.shape)
    mean, rate = position["mean"], position["rate"]
    row = -0.5 * ((y - mean) / unit) ** 2 + counts * jnp.log(rate) - rate
    prior = -0.5 * precision * (mean / unit) ** 2 + jnp.log(rate) - 2 * rate
    return elbojax.masked_sum(row, datum.mask) + prior


def datasets():
    """Lengths from 0 to 40, scales from 1e-4 to 1e5; NaN in one, a flat prior on the mean of one without data."""
    rng = np.random.default_rng(5)
    units = np.ones(len(SIZES))
    units[SMALL], units[LARGE] = 1e-4, 1e5
    made = [(u * rng.normal(size=n), rng.poisson(4, size=n), 0.1, u) for n, u in zip(SIZES, units, strict=True)]
    made[NAN][0][1] = np.nan
    made[IMPROPER] = (made[IMPROPER][0], made[IMPROPER][1], 0.0, 1.0)
    return made


def exact(dataset):
    y, counts, precision, unit = dataset
    total = precision + len(y)
    shape, rate = 2 + counts.sum(), 2 + len(y)
    return {"mean": y.sum() / total, "rate": shape / rate}, {"mean": unit * total**-0.5, "rate": shape**0.5 / rate}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(batch, "LANES", {"cpu": 4})
    monkeypatch.setattr(batch.handover, "available", lambda: False)


def fit(data, **settings):
    return elbojax.fit_ragged(KEY, log_density, INIT, data, support=SUPPORT, num_buckets=2, **settings)


@functools.cache
def reference():
    SHAPES.clear()
    fits = fit(datasets())
    return fits, {shape for shape in SHAPES}


@pytest.mark.long
def test_each_gets_its_own_exact_posterior():
    fits, _ = reference()
    assert len(fits) == len(SIZES)
    for model, dataset in enumerate(datasets()):
        if model in (NAN, IMPROPER):
            continue
        assert fits.certificate.certified[model], model
        mean, sd = exact(dataset)
        for name in INIT:
            assert abs(fits.mean()[name][model] - mean[name]) < 0.03 * sd[name], (model, name)
            assert abs(fits.sd()[name][model] / sd[name] - 1) < 0.03, (model, name)
    # The log evidence is exact only where nothing of the padding has slipped in: of no data, that of the prior.
    prior = 0.5 * np.log(2 * np.pi / 0.1) - np.log(4)
    np.testing.assert_allclose(fits.certificate.log_evidence[1], prior, atol=0.02)


def test_bad_models_are_named_and_harm_no_neighbour():
    fits, _ = reference()
    assert [Status(int(fits.certificate.status[model])) for model in (NAN, IMPROPER)] == [
        Status.NON_FINITE,
        Status.IMPROPER,
    ]
    assert np.flatnonzero(~fits.certificate.certified).tolist() == [NAN, IMPROPER]


def test_no_more_programs_than_buckets():
    _, shapes = reference()
    assert shapes == {(4,), (40,)} or shapes == {(4,), (48,)}


def test_the_same_as_without_padding():
    fits, data = reference()[0], datasets()
    alone = elbojax.fit(
        jax.random.key(1),
        log_density,
        INIT,
        data=elbojax.loops.Padded(data[5], np.ones(SIZES[5], bool)),
        support=SUPPORT,
    )
    assert alone.certificate.certified
    for name in INIT:
        error = np.hypot(alone.certificate.mean_error, fits.certificate.mean_error[5]) * alone.sd()[name]
        assert abs(fits.mean()[name][5] - alone.mean()[name]) < 4 * error
    error = np.hypot(alone.certificate.log_evidence_se, fits.certificate.log_evidence_se[5])
    assert abs(fits.certificate.log_evidence[5] - alone.certificate.log_evidence) < 4 * error


def test_one_bar_and_a_checkpoint_for_all(tmp_path, capsys, monkeypatch):
    told = fit(datasets(), checkpoint=str(tmp_path), progress=True)
    shown = capsys.readouterr()
    assert "9/9" in shown.err and "failed=" in shown.err and shown.out == ""
    assert set(re.findall(r"/(\d+) ", shown.err)) == {"9"}, "one bar"
    monkeypatch.setattr(batch, "drive_many", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(batch, "_program", lambda *_: lambda *_: pytest.fail("computed again"))
    resumed = fit(datasets(), checkpoint=str(tmp_path))
    for a, b, c in zip(*map(jax.tree.leaves, (reference()[0], told, resumed)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_several_processes_are_sent_elsewhere(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="one process.*pad_ragged"):
        fit(datasets())
