"""One model is a `Fit`, many are `Fits`: by index, file, pickle, and through the transformations of JAX."""

import copy
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from results import made

import elbojax
from elbojax import Fit, Fits, Stage, Status

FILES = pathlib.Path(__file__).parent / "files"
"""Of a version in which one class was both, and stood in `elbojax.cascade.posterior`."""
M = 3
KEY = jax.random.key(0)


def q(models=None):
    one = elbojax.full_rank(jnp.arange(float(made.SIZE)), jnp.eye(made.SIZE))
    return one if models is None else jax.tree.map(lambda x: jnp.stack([x + i for i in range(models)]), one)


@pytest.fixture(params=[False, True], ids=["moments of draws", "moments of more"])
def fits(request):
    return made.fit(q(M), models=M, moments=request.param, ess=np.arange(10.0, 10 + M))


@pytest.fixture
def fit():
    return made.fit(q())


def same(a, b):
    assert type(a) is type(b) and jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_what_the_calls_give_back():
    log_density = lambda z, y: -0.5 * (z - y) ** 2  # noqa: E731
    one = elbojax.fit(KEY, log_density, 0.0, data=1.0)
    many = elbojax.fit_batch(KEY, log_density, 0.0, jnp.arange(2.0))
    ragged = elbojax.fit_ragged(
        KEY, lambda z, d: elbojax.masked_sum(-0.5 * (d.data - z) ** 2, d.mask) - 0.5 * z**2, 0.0, [[1.0], [1.0, 2.0]]
    )
    assert (type(one), type(many), type(ragged)) == (Fit, Fits, Fits)
    assert len(many) == len(ragged) == 2 and many.certificate.certified.all() and one.certificate.certified
    assert elbojax.results.Fit is Fit and elbojax.results.Fits is Fits


def test_an_index_gives_one_and_a_slice_many(fits):
    for index in (0, -1, np.int64(1), np.array(1), jnp.array(1)):
        one, place = fits[index], np.arange(M)[np.asarray(index)]
        assert type(one) is Fit and one.draws.shape == (made.DRAWS, made.SIZE)
        assert one.certificate.ess == 10 + place and one.q.loc[0] == place
        assert one.certificate.stage is Stage.FULL_RANK and one.certificate.status is Status.CONVERGED
    for index in (slice(0), slice(1), slice(None), [2, 0], np.arange(M) > 0, jnp.array([1])):
        some, places = fits[index], np.arange(M)[np.asarray(index) if isinstance(index, jax.Array) else index]
        assert type(some) is Fits and len(some) == len(places)
        np.testing.assert_array_equal(some.certificate.ess, 10 + places)
    assert [type(one) for one in fits] == [Fit] * M
    assert [float(one.certificate.ess) for one in fits] == [10, 11, 12]


def test_what_is_said_of_each_of_many_is_said_of_one(fits):
    for place, one in enumerate(fits):
        jax.tree.map(
            lambda each, own, at=place: np.testing.assert_allclose(each[at], own, rtol=1e-6),
            (fits.mean(), fits.sd(), fits.num_distinct),
            (one.mean(), one.sd(), one.num_distinct),
        )
    assert type(fits.summary()).__name__ == "BatchSummary" and type(fits[0].summary()).__name__ == "PosteriorSummary"
    assert str(fits).startswith("3 fits") and str(fits[0]).startswith("posterior of 7")
    assert repr(fits) == str(fits) and repr(fits[0]) == str(fits[0])
    assert bool(fits) and bool(fits[:0]) and bool(fits[0])


def test_what_makes_no_sense_of_one_says_so(fit, fits):
    with pytest.raises(TypeError, match="one fit has no length, for it is one model; fits of fit_batch have"):
        len(fit)
    for use in (lambda: fit[0], lambda: list(fit), lambda: fits[0][0]):
        with pytest.raises(TypeError, match="one fit cannot be indexed, for it is one model; fits of fit_batch can"):
            use()
    assert fit.seconds is None and fits[0].seconds is None
    assert not hasattr(fits, "seconds")
    with pytest.raises(AttributeError, match="'Fits' has no attribute 'seconds', which is of one fit: call fit_batch"):
        _ = fits.seconds


def test_arrays_of_the_other_class_are_refused(fit, fits):
    with pytest.raises(ValueError, match=r"got shape \(3, 64\) for Fit; make a Fits"):
        Fit(fits.q, fits.certificate, fits.draws, fits.log_weights, fits.target)
    with pytest.raises(ValueError, match=r"got shape \(64,\) for Fits; make a Fit"):
        Fits(fit.q, fit.certificate, fit.draws, fit.log_weights, fit.target)


def test_a_tree_without_an_axis_of_models_is_of_one(fits):
    one = jax.tree.map(lambda x: x[1], fits)
    assert type(one) is Fit
    same(one, jax.tree.map(np.asarray, one))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(jax.tree.map(lambda x, i=i: x[i], fits) for i in range(M)))
    assert type(stacked) is Fits
    same(jax.tree.map(np.asarray, stacked), jax.tree.map(np.asarray, fits))
    assert type(jax.tree.unflatten(jax.tree.structure(fits), [None] * len(jax.tree.leaves(fits)))) is Fits


def test_transformations_give_each_call_one(fits, fit):
    seen = []

    def draws(one, key):
        seen.append(type(one))
        return one.sample(key, 5), one.mean()

    keys = jax.random.split(KEY, M)
    each = [draws(one, key) for one, key in zip(fits, keys, strict=True)]
    wanted = jax.tree.map(lambda *x: np.stack(x), *each)
    for got in (jax.vmap(draws)(fits, keys), jax.lax.map(lambda pair: draws(*pair), (fits, keys))):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, wanted)
    assert set(seen) == {Fit}
    assert type(jax.jit(lambda one: one)(fit)) is Fit
    assert type(jax.vmap(lambda one: one)(fits)) is type(jax.jit(lambda many: many)(fits)) is Fits
    assert jax.jit(lambda many: many.sample(KEY, 4))(fits)["a"].shape == (M, 4, 2, 2)


@pytest.mark.parametrize("name", ["fit", "fits"])
def test_files_and_copies(name, request, tmp_path):
    held = request.getfixturevalue(name) if name == "fit" else made.fit(q(M), models=M, moments=True)
    held.save(tmp_path / "it.npz")
    assert type(elbojax.load(tmp_path / "it.npz")) is type(held)
    for other in (copy.deepcopy(held), copy.copy(held), pickle.loads(pickle.dumps(held))):
        assert type(other) is type(held) and other.note == held.note
        jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(other), jax.tree.leaves(held))


def test_files_from_before_there_were_two_classes():
    one, many = elbojax.load(FILES / "fit.npz"), elbojax.load(FILES / "fits.npz")
    assert type(one) is Fit and one.note == "of one" and one.moments is None
    assert one.certificate.stage is Stage.FULL_RANK and one.certificate.ess == 300
    assert type(many) is Fits and many.note == "of many" and len(many) == 2 and type(many[1]) is Fit
    wanted = made.fit(q(), dtype=np.float32)
    np.testing.assert_array_equal(one.draws, wanted.draws)
    np.testing.assert_allclose(one.mean()["b"]["tau"], wanted.mean()["b"]["tau"], rtol=1e-6)
    wanted = made.fit(q(2), models=2, dtype=np.float32, moments=True)
    np.testing.assert_array_equal(many.draws, wanted.draws)
    np.testing.assert_allclose(many.sd()["b"]["tau"], wanted.sd()["b"]["tau"], rtol=1e-5)
