"""Labellings of one posterior are recognised and said, of one and of many; what is not apart, or told apart by data, is not."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import elbojax
from elbojax import thresholds
from elbojax.cascade import labels, labels_batch
from elbojax.cascade.symmetries import Leaf, candidates
from elbojax.results import notes

RNG = np.random.default_rng(0)
TWO = np.concatenate([RNG.normal(-3, 1, 30), RNG.normal(2, 1, 50)])
THREE = np.concatenate([RNG.normal(-6, 1, 25), RNG.normal(0, 1, 30), RNG.normal(6, 1, 35)])
PLANE = np.concatenate([RNG.normal(0, 1, (20, 2)) + place for place in ([-5, -5], [5, -5], [0, 6])])
LINE = 1.5 * RNG.normal(size=(25, 1)) @ np.array([[1.0, 0.8, -1.2, 0.7]]) + 0.3 * RNG.normal(size=(25, 4))
PLANES = RNG.normal(size=(25, 2)) @ np.array([[2.0, 1.5, 0, 0.3], [0, 0.4, 1.2, -1.5]]) + 0.2 * RNG.normal(size=(25, 4))
X = RNG.normal(size=(60, 4))
Y = X @ np.array([1.0, 2.0, -1.0, 0.5]) + 0.3 * RNG.normal(size=60)
WORDS = np.array([[30, 25, 1, 0], [28, 33, 0, 2], [1, 0, 31, 29], [0, 2, 27, 30], [14, 16, 15, 15.0]])


def mixture(p, y):
    each = norm.logpdf(y[:, None], p["mu"], p.get("s", 1.0)) + jnp.log(p["w"])
    return jnp.sum(jax.nn.logsumexp(each, axis=1)) + jnp.sum(norm.logpdf(p["mu"], 0, 5)) - jnp.sum(p.get("s", 0.0))


def plain(p, y):
    """Means alone; weights and widths are known and equal."""
    each = norm.logpdf(y[:, None], p["mu"], 1.0)
    return (
        jnp.sum(jax.nn.logsumexp(each, axis=1)) - len(y) * jnp.log(p["mu"].size) + jnp.sum(norm.logpdf(p["mu"], 0, 5))
    )


def in_plane(p, y):
    each = jnp.sum(norm.logpdf(y[:, None], p["mu"], 1.0), axis=-1)
    return jnp.sum(jax.nn.logsumexp(each, axis=1)) + jnp.sum(norm.logpdf(p["mu"], 0, 8))


def of_scalars(p, y):
    each = jnp.stack([norm.logpdf(y, p["a"]) + jnp.log(p["w"]), norm.logpdf(y, p["b"]) + jnp.log1p(-p["w"])])
    return jnp.sum(jax.nn.logsumexp(each, axis=0)) + norm.logpdf(p["a"], 0, 5) + norm.logpdf(p["b"], 0, 5)


def unequal(p, y):
    """Weights are known and differ: no exchange."""
    each = norm.logpdf(y[:, None], p["mu"], 1.0) + jnp.log(jnp.array([3 / 8, 5 / 8]))
    return jnp.sum(jax.nn.logsumexp(each, axis=1)) + jnp.sum(norm.logpdf(p["mu"], 0, 5))


def factor(p, y):
    fitted = jnp.outer(p["f"], p["l"]) if p["l"].ndim == 1 else p["f"] @ p["l"]
    return jnp.sum(norm.logpdf(y, fitted, 0.3)) + jnp.sum(norm.logpdf(p["f"])) + jnp.sum(norm.logpdf(p["l"]))


def of_known_length(p, y):
    """A factor whose loadings have a length that is known: it leaves the sign alone free, and a posterior nearly Gaussian."""
    return factor(p, y) - 5 * (jnp.sum(p["l"] ** 2) - 3.6) ** 2


def topics(p, counts):
    prior = jnp.sum(jnp.log(p["users"])) + jnp.sum(jnp.log(p["topics"]))
    return jnp.sum(counts * jnp.log(p["users"] @ p["topics"])) + 2 * prior


def regression(p, data):
    return jnp.sum(norm.logpdf(data[1], data[0] @ p["beta"], 0.3)) + jnp.sum(norm.logpdf(p["beta"]))


def groups(p, y):
    around = jnp.sum(norm.logpdf(p["theta"], p["mu"], jnp.exp(p["log_tau"])))
    return around + jnp.sum(norm.logpdf(y, p["theta"], 0.5)) + norm.logpdf(p["mu"], 0, 5) + norm.logpdf(p["log_tau"])


def two_bumps(z, apart):
    return jnp.logaddexp(jnp.sum(norm.logpdf(z, apart)), jnp.sum(norm.logpdf(z, -apart)))


UNIT = elbojax.bijectors.interval(0.0, 1.0)
HALF = np.array([0.5, 0.5])
START = np.array([[1.0, 0.8, -1.2, 0.7]])
ONE, SEVERAL = "describes one of", "covers several of"
LABELLED = {
    "mixture, from one": (
        mixture,
        {"mu": np.array([-3.0, 2.0]), "s": np.ones(2), "w": HALF},
        TWO,
        {"s": "positive", "w": "simplex"},
        (ONE, 2, "components 0 and 1 of mu, s, w are exchanged"),
    ),
    "mixture, from between": (plain, {"mu": np.zeros(2)}, TWO, None, (SEVERAL, 2, "components 0 and 1 of mu")),
    "scalars": (
        of_scalars,
        {"a": -3.0, "b": 2.0, "w": 0.4},
        TWO,
        {"w": UNIT},
        (ONE, 2, "a and b, w and 1 - w are exchanged"),
    ),
    "three": (plain, {"mu": np.array([-6.0, 0.0, 6.0])}, THREE, None, (ONE, 6, "components 0, 1 and 2 of mu")),
    "three, in the plane": (
        in_plane,
        {"mu": np.array([[-5.0, -5.0], [5.0, -5.0], [0.0, 6.0]])},
        PLANE,
        None,
        (ONE, 6, "components 0, 1 and 2 of mu"),
    ),
    "factor": (
        factor,
        {"f": LINE @ START[0] / np.sum(START**2), "l": START[0]},
        LINE,
        None,
        (None, 2, "f and l change sign"),
    ),
    "topics": (
        topics,
        {"users": np.full((5, 2), 0.5), "topics": np.array([[0.4, 0.4, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4]])},
        WORDS,
        "simplex",
        (None, 2, "components 0 and 1 of topics, users are exchanged"),
    ),
    "sign": (two_bumps, np.zeros(2), np.array([4.0, -5.0]), None, (SEVERAL, 2, "z changes sign")),
}
UNLABELLED = {
    "normal": (lambda z, y: jnp.sum(norm.logpdf(z)), np.zeros(4), None),
    "student": (lambda z, y: jnp.sum(jax.scipy.stats.t.logpdf(z, 4)), np.zeros(3), None),
    "near": (two_bumps, np.zeros(2), np.array([0.8, 0.8])),
    "regression": (regression, {"beta": np.zeros(4)}, (X, Y)),
    "known weights": (unequal, {"mu": np.array([-3.0, 2.0])}, TWO),
    "groups": (groups, {"theta": np.zeros(5), "mu": 0.0, "log_tau": 0.0}, np.array([-1.0, 0.2, 0.8, 2.0, 4.0])),
}


@functools.cache
def fitted(name):
    log_density, init, data, support, _ = LABELLED[name]
    return elbojax.fit(jax.random.key(0), log_density, init, data=data, support=support)


@pytest.mark.parametrize("name", LABELLED)
def test_labellings_are_said(name):
    how, number, words = LABELLED[name][-1]
    fit = fitted(name)
    assert words in fit.note and f"{number} labellings" in fit.note, fit.note
    assert ("labels  " if fit.certificate.certified else "next step") in str(fit) and fit.note in str(fit)
    if how is not None:
        c = fit.certificate
        assert how in fit.note
        assert c.status == (elbojax.Status.MULTIMODAL if how == ONE else elbojax.Status.CONVERGED)
        assert c.certified == (how == SEVERAL)


def test_of_one_labelling_the_evidence_lacks_the_logarithm_of_their_number():
    """Against quadrature over both means."""
    grid = jnp.linspace(-6.0, 6.0, 601)
    with jax.enable_x64(True):
        values = jax.vmap(lambda a: jax.vmap(lambda b: plain({"mu": jnp.stack([a, b])}, TWO))(grid))(grid)
        exact = float(jax.nn.logsumexp(values)) + 2 * math.log(12 / 600)
    both = fitted("mixture, from between")
    one = elbojax.fit(jax.random.key(0), plain, {"mu": np.array([-3.0, 2.0])}, data=TWO)
    assert ONE in one.note and "add log 2 = 0.693" in one.note
    np.testing.assert_allclose(both.certificate.log_evidence, exact, atol=0.02)
    np.testing.assert_allclose(one.certificate.log_evidence, exact - math.log(2), atol=0.02)


def test_means_over_labellings_are_said_to_be():
    fit = fitted("mixture, from between")
    assert "averages" in fit.note
    np.testing.assert_allclose(fit.mean()["mu"][0], fit.mean()["mu"][1], atol=0.3)


@pytest.mark.parametrize("name", UNLABELLED)
def test_nothing_is_said_of_what_is_not_apart(name):
    log_density, init, data = UNLABELLED[name]
    data = np.zeros(1) if data is None else data
    fit = elbojax.fit(jax.random.key(0), log_density, init, data=data)
    assert fit.certificate.certified and fit.note == "" and "labels" not in str(fit)


def test_an_order_names_a_labelling():
    fit = elbojax.fit(jax.random.key(0), plain, {"mu": np.array([-1.0, 1.0])}, data=TWO, support="ordered")
    assert fit.certificate.certified and fit.note == ""


def test_a_stored_fit_knows_its_labelling(tmp_path):
    fit = fitted("three")
    fit.save(tmp_path / "fit.npz")
    assert elbojax.load(tmp_path / "fit.npz").note == fit.note


def test_in_the_dtype_of_the_session(precision):
    fit = elbojax.fit(jax.random.key(1), plain, {"mu": jnp.array([-3.0, 2.0])}, data=jnp.asarray(TWO))
    assert ONE in fit.note


def test_draws_of_all_labellings_in_the_plane():
    """Three directions between three places: no single one of them separates all draws."""
    rng = np.random.default_rng(1)
    places = np.array([[1.0, 6.0], [5.0, -4.0], [-5.0, -3.0]])
    draws = np.stack([places[rng.permutation(3)] for _ in range(2000)]).reshape(-1, 6) + 0.3 * rng.normal(
        size=(2000, 6)
    )
    data = jnp.asarray(places)
    target = elbojax.targets.unconstrain(in_plane, {"mu": np.zeros((3, 2))}, data=data)
    with jax.enable_x64(True):
        found = labels.look(target, data, draws, np.full(2000, -np.log(2000)), True)
    assert "several of 6 labellings" in found.sentence, found.sentence


def test_many_components():
    leaves = [Leaf("mu", (10,), elbojax.bijectors.real()), Leaf("w", (10,), elbojax.bijectors.simplex())]
    maps = candidates(leaves)
    assert len(maps) <= thresholds.LABEL_MAPS and sum(each.family == "mu, w" for each in maps) == 45
    x = np.random.default_rng(0).normal(size=20)
    for each in maps:
        np.testing.assert_array_equal(each(each(x)), x)
        assert not np.array_equal(each(x), x)


def pairs_of_clouds(models, seed=2):
    rng = np.random.default_rng(seed)
    low, high = rng.uniform(-4, -3, models), rng.uniform(2, 3, models)
    return np.stack(
        [np.concatenate([rng.normal(a, 1, 30), rng.normal(b, 1, 50)]) for a, b in zip(low, high, strict=True)]
    )


CLOUDS = pairs_of_clouds(6)
LINES = LINE[:6] * np.array([1.0, 0.9, -1.2])[:, None, None]
FULL = {"mu": np.array([-3.0, 2.0]), "s": np.ones(2), "w": HALF}
PARTS = {"s": "positive", "w": "simplex"}
MANY = {
    "means": (plain, {"mu": np.array([-3.0, 2.0])}, CLOUDS, None, "components 0 and 1 of mu"),
    "all of a mixture": (mixture, FULL, CLOUDS, PARTS, "components 0 and 1 of mu, s, w are exchanged"),
    "scalars": (of_scalars, {"a": -3.0, "b": 2.0, "w": 0.4}, CLOUDS, {"w": UNIT}, "a and b, w and 1 - w are exchanged"),
    "factors": (of_known_length, {"f": LINE[:6] @ START[0] / 3.6, "l": START[0]}, LINES, None, "f and l change sign"),
}


@functools.cache
def batch_of(name):
    log_density, init, data, support, _ = MANY[name]
    return elbojax.fit_batch(jax.random.key(0), log_density, init, data, support=support)


SIDES = {
    "mu": lambda d: d["mu"][..., 0] - d["mu"][..., 1],
    "a": lambda d: d["a"] - d["b"],
    "l": lambda d: d["l"][..., 0],
}


def one_labelling(fits):
    """Which models have an answer of one labelling, by counting: their draws lie on one side."""
    draws = fits.sample(jax.random.key(1), 512)
    side = next(of(draws) for name, of in SIDES.items() if name in draws)
    return np.minimum(np.mean(side > 0, axis=1), np.mean(side < 0, axis=1)) < 0.02


@pytest.mark.parametrize("name", MANY)
def test_labellings_of_a_batch_are_said(name):
    fits, words = batch_of(name), MANY[name][-1]
    c, one = fits.certificate, one_labelling(batch_of(name))
    assert not np.any(c.certified & one)
    assert np.all(c.status[one] == elbojax.Status.MULTIMODAL)
    assert words in fits.note and "2 labellings" in fits.note and fits.note.startswith(notes.LABELS), fits.note
    if name != "factors":
        assert one.all() and "the answers are of one of 2 labellings" in fits.note
    assert words in str(fits) and f"labels        {len(one)} models (0, 1, 2" in str(fits[1])


def alone(name):
    log_density, init, data, support, _ = MANY[name]
    return [elbojax.fit(jax.random.key(0), log_density, init, data=one, support=support) for one in data]


@pytest.mark.parametrize("name", ["means", "scalars"])
def test_a_batch_has_the_verdicts_of_its_models_alone(name):
    """One exception, for the stages of `fit` and `fit_batch` differ, and an answer may be at the edge of a certificate."""
    together, c = alone(name), batch_of(name).certificate
    same = [(a.certificate.certified, a.certificate.status) for a in together]
    assert sum(pair == (c.certified[i], c.status[i]) for i, pair in enumerate(same)) >= len(same) - 1


def test_an_order_names_the_labellings_of_a_batch():
    fits = elbojax.fit_batch(jax.random.key(0), plain, {"mu": np.array([-1.0, 1.0])}, CLOUDS, support="ordered")
    assert fits.certificate.certified.sum() >= 5 and fits.note == ""


@pytest.mark.slow
def test_a_batch_that_covers_both_labellings_stays_certified():
    data = pairs_of_clouds(3, seed=3)[:, [0, 1, 2, 30, 31, 32]] / 1.5
    fits = elbojax.fit_batch(jax.random.key(0), plain, {"mu": np.zeros(2)}, data)
    c, one = fits.certificate, one_labelling(fits)
    assert not np.any(c.certified & one)
    both = np.flatnonzero(c.certified & ~one)
    assert both.size and "are of several of 2 labellings" in fits.note


REGRESSIONS = np.random.default_rng(4).normal(size=(7, 60, 4))
OUTCOMES = REGRESSIONS @ np.array([1.0, 2.0, -1.0, 0.5]) + 0.3 * np.random.default_rng(5).normal(size=(7, 60))


def test_plain_regressions_of_a_batch_stay_as_they_are(monkeypatch):
    call = lambda: elbojax.fit_batch(jax.random.key(0), regression, {"beta": np.zeros(4)}, (REGRESSIONS, OUTCOMES))  # noqa: E731
    fits = call()
    assert fits.certificate.certified.all() and fits.note == ""
    monkeypatch.setattr(labels_batch, "look", lambda *a: (labels_batch.NONE, np.zeros(len(REGRESSIONS), int)))
    without = call()
    c, d = fits.certificate, without.certificate
    np.testing.assert_array_equal(fits.draws, without.draws)
    jax.tree.map(np.testing.assert_array_equal, c._replace(num_log_densities=0), d._replace(num_log_densities=0))
    assert (
        np.all(c.num_log_densities >= d.num_log_densities) and np.sum(c.num_log_densities - d.num_log_densities) < 200
    )


def only_some(p, datum):
    """Exchangeable where `tilt` is zero."""
    y, tilt = datum
    return plain(p, y) + tilt * jnp.tanh(p["mu"][0])


def test_a_model_without_the_symmetry_keeps_its_certificate():
    tilt = np.array([0.0, 0.5, 0.0, 0.0, -0.5, 0.0])
    fits = elbojax.fit_batch(jax.random.key(0), only_some, {"mu": np.array([-3.0, 2.0])}, (CLOUDS, tilt))
    assert fits.certificate.certified.tolist() == (tilt != 0).tolist()
    assert "4 models (0, 2, 3, 5)" in fits.note


def test_a_failing_model_of_a_batch_is_left_out():
    data = np.array(CLOUDS)
    data[0] = np.nan
    fits = elbojax.fit_batch(jax.random.key(0), plain, {"mu": np.array([-3.0, 2.0])}, data)
    assert fits.certificate.status.tolist() == [elbojax.Status.NON_FINITE] + 5 * [elbojax.Status.MULTIMODAL]
    assert "5 models (1, 2, 3, 4, 5)" in fits.note


def test_a_stored_batch_has_the_same_verdicts(tmp_path):
    call = lambda: elbojax.fit_batch(  # noqa: E731
        jax.random.key(0), plain, {"mu": np.array([-3.0, 2.0])}, CLOUDS, checkpoint=str(tmp_path / "batch")
    )
    first, again, memory = call(), call(), batch_of("means")
    for fits in (first, again):
        jax.tree.map(np.testing.assert_array_equal, fits.certificate, memory.certificate)
        assert fits.note == memory.note
    again.save(tmp_path / "fits.npz")
    assert elbojax.load(tmp_path / "fits.npz").note == memory.note


def ragged_plain(p, datum):
    each = jax.nn.logsumexp(norm.logpdf(datum.data[:, None], p["mu"], 1.0), axis=1) - jnp.log(2.0)
    return elbojax.masked_sum(each, datum.mask) + jnp.sum(norm.logpdf(p["mu"], 0, 5))


def test_a_ragged_batch_names_the_models_of_the_list():
    sets = [CLOUDS[0], CLOUDS[1][10:60], CLOUDS[2], np.full(9, np.nan), CLOUDS[3][20:70]]
    fits = elbojax.fit_ragged(jax.random.key(0), ragged_plain, {"mu": np.array([-3.0, 2.0])}, sets, num_buckets=2)
    c = fits.certificate
    assert c.status[3] == elbojax.Status.NON_FINITE and not c.certified.any()
    assert np.all(c.status[[0, 1, 2, 4]] == elbojax.Status.MULTIMODAL)
    assert "4 models (0, 1, 2, 4)" in fits.note and fits.note.count("labellings") == 1


def test_in_the_dtype_of_the_session_batches_are_alike(precision):
    data = jnp.asarray(CLOUDS[:2])
    fits = elbojax.fit_batch(jax.random.key(1), plain, {"mu": jnp.array([-3.0, 2.0])}, data)
    assert "one of 2 labellings" in fits.note and not fits.certificate.certified.any()


ORDERS = {
    "all": ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]),
    "two opposite": ([0, 1, 2], [2, 1, 0]),
    "three": ([0, 1, 2], [1, 2, 0], [2, 0, 1]),
    "four, even in every pair": ([0, 1, 2], [2, 1, 0], [0, 2, 1], [1, 2, 0]),
}


@pytest.mark.parametrize("name", ORDERS)
def test_half_on_each_side_of_every_gap_is_not_all_labellings(name):
    """Of three components in opposite orders each is above each other in half of the draws; one answer and many."""
    rng = np.random.default_rng(3)
    orders = np.array(ORDERS[name])[rng.permutation(4096) % len(ORDERS[name])]
    draws = np.array([-6.0, 0.0, 6.0])[orders] + 0.3 * rng.normal(size=(4096, 3))
    target = elbojax.targets.unconstrain(plain, {"mu": np.zeros(3)}, data=THREE)
    log_weights = np.full(4096, -np.log(4096))
    with jax.enable_x64(True):
        found = labels.look(target, THREE, draws, log_weights, True)
        many, _ = labels_batch.look(target, THREE[None], draws[None], log_weights[None], np.ones(1, bool), np.arange(1))
    assert found.partial == (name != "all") and many.partial.tolist() == [name != "all"]
    words = "averages" if name == "all" else labels.UNEVENLY
    assert words in found.sentence and words in labels_batch.sentence(many)


def test_two_modes_on_two_sides_are_not_one_on_both():
    """Modes a and b, each with its mirror image; an answer of a and the image of b has half of its draws on either side."""

    def four(z, y):
        a, b = jnp.array([0.0, 8.0]), jnp.array([9.0, 20.0])
        each = [jnp.sum(norm.logpdf(z, place)) for place in (a, a[::-1], b, b[::-1])]
        return jax.nn.logsumexp(jnp.stack(each)) + 0 * y

    rng = np.random.default_rng(4)
    half = np.array([[0.0, 8.0], [20.0, 9.0]])[rng.permutation(4096) % 2] + rng.normal(size=(4096, 2))
    target = elbojax.targets.unconstrain(four, np.zeros(2), data=0.0)
    log_weights = np.full(4096, -np.log(4096))
    with jax.enable_x64(True):
        one = labels.look(target, 0.0, half, log_weights, True)
        turned = np.where(rng.random((4096, 1)) < 0.5, half, half[:, ::-1])
        both = labels.look(target, 0.0, turned, log_weights, True)
    assert one.partial and labels.UNEVENLY in one.sentence
    assert not both.partial and "averages" in both.sentence
