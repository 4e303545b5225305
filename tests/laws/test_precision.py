"""Numbers far from zero, very large and very small: mean, sd, quantiles and draws in every session, by every way out."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax

KEY = jax.random.key(0)
COUNT = 1000
FAR = {  # mean, sd
    "POSIX seconds": (1.7e9, 4.0),
    "Julian days": (2.45e6, 0.002),
    "1e6 to a hundredth": (1e6, 0.01),
    "2e4 to a thousandth": (2e4, 0.001),
    "1e4": (1e4, 1e-3),
    "2000": (2000.0, 1e-4),
    "below zero": (-3e7, 0.5),
    "a price": (100.0, 0.1),
    "Planck's constant": (6.62607015e-34, 1e-40),
    "beyond single precision": (1e60, 1e57),
    "ordinary": (3.0, 1.0),
}
HELD = ("a price", "ordinary")
"""What single precision can hold."""


def log_density(position, datum):
    return -0.5 * ((position["mu"] - datum[0]) / datum[1]) ** 2


def close(values, mean, sd, count=None):
    """A mean, or draws of some effective number, in sds."""
    z = (np.asarray(values, np.float64) - mean) / sd
    if count is None:
        np.testing.assert_allclose(z, 0, atol=0.01)
    else:
        np.testing.assert_allclose(z.mean(), 0, atol=5 / math.sqrt(count))
        np.testing.assert_allclose(z.std(), 1, atol=5 / math.sqrt(2 * count))


def all_right(fit, mean, sd, name):
    """Every number that leaves a fit of one parameter."""
    assert fit.certificate.certified
    close(fit.mean()["mu"], mean, sd)
    np.testing.assert_allclose(float(fit.sd()["mu"]) / sd, 1, atol=0.02)
    draws = fit.sample(jax.random.key(1), COUNT)["mu"]
    close(draws, mean, sd, COUNT)
    summary = fit.summary()
    close(summary.mean, mean, sd)
    np.testing.assert_allclose(summary.sd / sd, 1, atol=0.02)
    np.testing.assert_allclose(
        (summary.quantiles[0] - mean) / sd, [-1.645, 0, 1.645], atol=10 / math.sqrt(len(fit.draws))
    )  # five standard errors
    close(float(str(summary).splitlines()[2].split()[1]), mean, sd * 10)
    _, shown, _, spread = str(fit).splitlines()[1].split()
    np.testing.assert_allclose([(float(shown) - mean) / sd, float(spread) / sd], [0, 1], atol=0.02)
    if isinstance(fit.target.supports[0], elbojax.bijectors.Real):
        weights = np.exp(np.asarray(fit.log_weights, float))
        close(weights @ np.asarray(fit.draws, np.float64)[:, 0] / weights.sum(), mean, sd * 10)
        close(fit.q.mean()[0], mean, sd * 2)
    single = jnp.result_type(float) == jnp.float32
    in_double = name not in HELD if single else True
    assert np.asarray(draws).dtype == (np.float64 if in_double else np.float32)
    assert isinstance(draws, np.ndarray) == (in_double and single)


@pytest.mark.parametrize("name", FAR)
def test_one_fit(name, precision, tmp_path):
    mean, sd = FAR[name]
    fit = elbojax.fit(KEY, log_density, {"mu": mean + 3 * sd}, data=np.array([mean, sd]))
    all_right(fit, mean, sd, name)
    fit.save(tmp_path / "fit.npz")
    held = elbojax.load(tmp_path / "fit.npz")
    all_right(held, mean, sd, name)
    np.testing.assert_array_equal(held.mean()["mu"], fit.mean()["mu"])


@pytest.mark.parametrize("start", [float, np.float64, np.array], ids=["float", "float64", "array"])
def test_the_start_keeps_its_digits(start, precision):
    """A posterior so narrow that a start rounded to single precision is 1e10 sds away."""
    mean, sd = 1.7e9 + 40.0, 1e-3
    support = elbojax.bijectors.interval(1.7e9, np.float64(1.7e9 + 100))
    fit = elbojax.fit(KEY, log_density, {"mu": start(mean + 1e-3)}, data=np.array([mean, sd]), support={"mu": support})
    all_right(fit, mean, sd, "start")


def test_a_batch(precision, tmp_path):
    table = np.array(list(FAR.values()))
    data, starts = table, {"mu": table[:, 0] + 2 * table[:, 1]}
    fits = elbojax.fit_batch(KEY, log_density, {"mu": 0.0}, data, starts=starts)
    fits.save(tmp_path / "fits.npz")
    for batch in (fits, elbojax.load(tmp_path / "fits.npz")):
        draws = np.asarray(batch.sample(jax.random.key(1), 256)["mu"], float)
        for place, (name, (mean, sd)) in enumerate(FAR.items()):
            all_right(batch[place], mean, sd, name)
            close(batch.mean()["mu"][place], mean, sd)
            np.testing.assert_allclose(float(batch.sd()["mu"][place]) / sd, 1, atol=0.02)
            close(draws[place], mean, sd, 256)
        some = batch[np.array([0, 10])]
        close(some.mean()["mu"][0], *FAR["POSIX seconds"])
        close(batch[10:].mean()["mu"], *FAR["ordinary"])


def test_a_ragged_batch(precision):
    rng = np.random.default_rng(0)
    datasets = [1.7e9 + 30 * rng.normal(size=size) for size in (3, 50, 7)] + [rng.normal(size=20)]

    def ragged(z, datum):
        return elbojax.masked_sum(-0.5 * ((datum.data - z) / 30) ** 2, datum.mask)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = elbojax.fit_ragged(KEY, ragged, 1.7e9, datasets[:3])
    sds = np.array([30 / math.sqrt(len(data)) for data in datasets])[:3]
    means = np.array([data.mean() for data in datasets])[:3]
    close(fits.mean(), means, sds)
    np.testing.assert_allclose(np.asarray(fits.sd(), float) / sds, 1, atol=0.02)
    for model in range(3):
        close(fits[model].sample(KEY, 256), means[model], sds[model], 256)


def test_leaves_of_their_own(precision):
    """One leaf out of reach of single precision leaves the others as they are."""

    def model(position):
        t, x = position["t"], position["x"]
        return -0.5 * ((t - 1.7e9) / 4) ** 2 - 0.5 * jnp.sum(x**2) + 3 * jnp.log(position["s"]) - position["s"]

    fit = elbojax.fit(KEY, model, {"t": 1.7e9, "x": np.zeros(2), "s": 1.0}, support={"s": "positive"})
    assert fit.certificate.certified
    for tree in (fit.mean(), fit.sd(), fit.sample(KEY, 100)):
        assert isinstance(tree["x"], jax.Array) and isinstance(tree["s"], jax.Array)
        assert np.asarray(tree["t"]).dtype == np.float64
    np.testing.assert_allclose([fit.sd()["t"] / 4, fit.mean()["s"] / 4, fit.sd()["s"] / 2], 1, atol=0.03)


def test_under_a_transformation_it_is_said(precision):
    far = elbojax.fit(KEY, log_density, {"mu": 1.7e9}, data=np.array([1.7e9, 4.0]))
    near = elbojax.fit(KEY, log_density, {"mu": 1.0}, data=np.array([1.0, 4.0]))
    close(jax.jit(lambda key: near.sample(key, COUNT))(KEY)["mu"], 1.0, 4.0, COUNT)
    assert jax.vmap(lambda key: near.sample(key, 5))(jax.random.split(KEY, 3))["mu"].shape == (3, 5)
    close(jax.jit(lambda fit, key: fit.sample(key, COUNT))(near, KEY)["mu"], 1.0, 4.0, COUNT)
    close(jax.jit(lambda fit: fit.mean())(near)["mu"], 1.0, 4.0)
    if precision:
        close(jax.jit(lambda key: far.sample(key, COUNT))(KEY)["mu"], 1.7e9, 4.0, COUNT)
    else:
        with pytest.warns(RuntimeWarning, match="float32 cannot hold mean and sd"):
            jax.jit(lambda key: far.sample(key, 5))(KEY)


def test_evidence_keeps_its_digits(precision):
    """A constant of 1e8 nats: single precision would round the evidence to 8."""
    fits = [elbojax.fit(KEY, lambda z, c=c: c - 0.5 * z**2, 0.0) for c in (1e8, 1e8 + 3)]
    difference = float(fits[1].certificate.log_evidence) - float(fits[0].certificate.log_evidence)
    np.testing.assert_allclose(difference, 3, atol=0.01)
    assert fits[0].certificate.log_evidence.dtype == np.float64


def holed(z, data):
    return -0.5 * jnp.sum((data - z["a"]) ** 2) - z["tau"]


HOLED = {"a": np.zeros(2), "tau": 1.0}


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_a_model_without_a_number_answers_none(hole, precision):
    fit = elbojax.fit(KEY, holed, HOLED, data=np.array([1.0, hole]), support={"tau": "positive"})
    assert fit.certificate.status == elbojax.Status.NON_FINITE and not fit.certificate.certified
    trees = (fit.mean(), fit.sd(), fit.sample(KEY, 7), fit.q.loc, fit.draws)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(trees))
    assert fit.sample(KEY, 7)["a"].shape == (7, 2)
    summary = fit.summary()
    assert np.isnan(summary.quantiles).all() and np.isnan(summary.mean).all() and np.isnan(summary.sd).all()
    assert "nan" in str(fit) and "stands above is the start" not in str(fit)


def test_models_without_a_number_harm_no_other(precision):
    data = np.random.default_rng(0).normal(size=(6, 2))
    well = elbojax.fit_batch(KEY, holed, HOLED, data, support={"tau": "positive"})
    bad = np.array([1, 4])
    data[bad, 0] = np.nan
    fits = elbojax.fit_batch(KEY, holed, HOLED, data, support={"tau": "positive"})
    lost = np.isin(np.arange(6), bad)
    np.testing.assert_array_equal(fits.certificate.status == elbojax.Status.NON_FINITE, lost)
    for ours, theirs in zip(
        *(jax.tree.leaves((x.mean(), x.sd(), x.sample(KEY, 9))) for x in (fits, well)), strict=True
    ):
        assert np.isnan(ours[bad]).all()
        np.testing.assert_array_equal(np.asarray(ours)[~lost], np.asarray(theirs)[~lost])
    assert np.isnan(fits[1].mean()["tau"]) and np.isnan(fits[1].summary().quantiles).all()
    assert np.isfinite(fits[0].summary().quantiles).all()


def test_other_statuses_keep_their_numbers(precision):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        improper = elbojax.fit(KEY, lambda z: 0.0 * z, 0.0)
        batch = elbojax.fit_batch(KEY, lambda z, d: -0.5 * d * z**2, 0.0, np.array([0.0, 1.0]))
        str(improper), improper.summary(), improper.sample(KEY, 3), batch.mean(), batch.sample(KEY, 3)
    assert improper.certificate.status == elbojax.Status.IMPROPER
    assert batch.certificate.status.tolist() == [elbojax.Status.IMPROPER, elbojax.Status.CONVERGED]
    close(batch.mean()[1], 0, 1)


def test_a_fit_is_true(precision):
    fit = elbojax.fit(KEY, lambda z: -0.5 * z**2, 0.0)
    fits = elbojax.fit_batch(KEY, lambda z, d: -0.5 * (z - d) ** 2, 0.0, np.zeros(2))
    failed = elbojax.fit(KEY, holed, HOLED, data=np.full(2, np.nan), support={"tau": "positive"})
    for each in (fit, fits, failed, fits[:1]):
        assert bool(each) is True and (each or None) is each
