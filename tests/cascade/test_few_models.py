"""`fit_batch` of few models: the stages of the host come first, and no stage is compiled for the batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status
from elbojax.cascade import batch
from elbojax.host.requests import Gradients
from elbojax.loops.compiling import compiled_so_far

KEY = jax.random.key(3)
M = 5
INIT, SUPPORT = {"mean": 0.0, "rate": 1.0}, {"rate": "positive"}


def log_density(position, datum):
    """Normal data of known sd 1 with a prior of sd 10 on the mean, and counts of a rate: conjugate both."""
    y, count = datum
    rate = position["rate"]
    mean = -0.5 * jnp.sum((y - position["mean"]) ** 2) - 0.5 * (position["mean"] / 10) ** 2
    return mean + (count + 1) * jnp.log(rate) - 2 * rate  # Gamma(count + 2, 2)


def data(num_models=M):
    rng = np.random.default_rng(3)
    y = rng.normal(size=(num_models, 6)) * 10.0 ** rng.integers(-3, 3, size=(num_models, 1))
    return y, rng.integers(3, 40, size=num_models).astype(float)


def fit(datum, **settings):
    return elbojax.fit_batch(KEY, log_density, INIT, datum, support=SUPPORT, **settings)


@pytest.fixture(autouse=True)
def without_nuts(monkeypatch):
    monkeypatch.setattr(batch.handover, "available", lambda: False)


@functools.cache
def reference():
    return fit(data())


def same(a, b, models=slice(None)):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x)[models], np.asarray(y)[models])


def is_right(fits, datum):
    y, count = datum
    precision = y.shape[1] + 0.01
    mean = {"mean": y.sum(1) / precision, "rate": (count + 2) / 2}
    sd = {"mean": np.full(len(y), precision**-0.5), "rate": (count + 2) ** 0.5 / 2}
    for name in INIT:
        np.testing.assert_allclose((np.asarray(fits.mean()[name]) - mean[name]) / sd[name], 0, atol=0.05)
        np.testing.assert_allclose(np.asarray(fits.sd()[name]) / sd[name], 1, atol=0.05)


@pytest.mark.parametrize("compiled", [None, True, False])
def test_answers_are_right_either_way(compiled):
    fits = reference() if compiled is None else fit(data(), compiled=compiled)
    assert fits.certificate.certified.all()
    is_right(fits, data())
    if compiled is False:
        same(fits, reference())


def test_no_stage_is_compiled(monkeypatch, capsys):
    monkeypatch.setattr(batch, "_program", lambda *_: pytest.fail("a stage was compiled"))
    fit(data(), progress=True)
    assert "thorough: 5 models on the host" in capsys.readouterr().err
    y, count = data()
    before = compiled_so_far().programs
    fit((y + 1.0, count))
    assert compiled_so_far().programs == before, "other data of the same shapes"


def test_how_many_are_few(monkeypatch, capsys):
    """One more than FEW_MODELS, models on a mesh, and what is asked for: by compiled stages."""
    fit(data(), progress=True, compiled=True)
    assert "quick: 5 models" in capsys.readouterr().err
    monkeypatch.setattr(batch, "FEW_MODELS", M - 1)
    fit(data(), progress=True)
    assert "quick: 5 models" in capsys.readouterr().err
    monkeypatch.undo()
    fit(data(), progress=True, mesh=jax.make_mesh((1,), ("models",), axis_types=(jax.sharding.AxisType.Auto,)))
    assert "quick: 5 models" in capsys.readouterr().err


def test_the_adapted_proposal_is_compiled_for_many(monkeypatch, capsys):
    """Three of four are bent: they go to the host, unless so many are enough to compile it for."""

    def bent(z, bend):
        return -0.5 * z[0] ** 2 - 0.5 * (z[1] - bend * z[0] ** 2) ** 2

    found = []
    for least in (4, 3):
        monkeypatch.setattr(batch, "ADAPTED_LEAST", least)
        fits = elbojax.fit_batch(KEY, bent, jnp.zeros(2), np.array([0.0, 1.0, 1.0, 0.8]), compiled=True, progress=True)
        assert fits.certificate.certified.all()
        np.testing.assert_allclose(fits.mean()[:, 1], [0.0, 1.0, 1.0, 0.8], atol=0.1)
        found.append("adapted: 3 models" in capsys.readouterr().err)
    assert found == [False, True]


def test_a_bad_model_harms_no_neighbour():
    y, count = data()
    y[2] = np.nan
    fits = fit((y, count))
    assert fits.certificate.status[2] == Status.NON_FINITE
    assert fits.certificate.certified.tolist() == [True, True, False, True, True]
    same(fits, reference(), [0, 1, 3, 4])


def test_other_starts_where_the_given_one_is_impossible():
    def inside(z, at):
        return jnp.where(jnp.abs(z - at) < 3, -0.5 * (z - at) ** 2, -jnp.inf)

    fits = elbojax.fit_batch(KEY, inside, 30.0, jnp.array([0.0, 1.0, 30.0]))
    assert fits.certificate.certified.all()
    np.testing.assert_allclose(fits.mean(), [0.0, 1.0, 30.0], atol=0.05)
    assert "2 models (0, 1)" in fits.note


def test_a_model_whose_host_stages_raise_goes_to_a_compiled_one(monkeypatch):
    """A fault of the host's stages, of linear algebra say, costs a warning and some seconds, and no answer."""
    thorough, count = batch.thorough, iter(range(100))

    def sometimes(*args):
        if next(count) == 1:
            yield Gradients(np.zeros((1, 2)))
            raise np.linalg.LinAlgError("Eigenvalues did not converge")
        return (yield from thorough(*args))

    monkeypatch.setattr(batch, "thorough", sometimes)
    with pytest.warns(RuntimeWarning, match=r"1 models .* model 1: LinAlgError"):
        fits = fit(data())
    assert fits.certificate.certified.all()
    is_right(fits, data())
    same(fits, reference(), [0, 2, 3, 4])


def test_resumes_where_it_was(tmp_path, monkeypatch):
    same(fit(data(), checkpoint=str(tmp_path)), reference())
    monkeypatch.setattr(batch, "drive_many", lambda *_: pytest.fail("computed again"))
    same(fit(data(), checkpoint=str(tmp_path)), reference())


def test_models_of_much_work_are_compiled(capsys):
    """The host asks for thousands of log-densities, one model after the other; a compiled stage for hundreds."""
    x = np.random.default_rng(0).normal(size=(2, 60_000))

    def mean(z, x):
        return -0.5 * jnp.sum((x - z) ** 2) / 100

    fits = elbojax.fit_batch(KEY, mean, 0.0, x, progress=True)
    assert "quick: 2 models" in capsys.readouterr().err and fits.certificate.certified.all()


@pytest.mark.parametrize("compiled", ["yes", 1, 0.5])
def test_misuse(compiled):
    with pytest.raises(TypeError, match="compiled must be True, False or None"):
        fit(data(), compiled=compiled)
