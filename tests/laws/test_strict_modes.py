"""Sessions with JAX's strict modes on: fits and loops run through, with the numbers of any other session."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import elbojax
from elbojax import noise

MODES = {
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "dtype promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "key reuse": lambda: jax.debug_key_reuse(True),
    "NaN": lambda: jax.debug_nans(True),
}


@pytest.fixture(params=MODES)
def strict(request):
    """A session with one of them on."""
    with MODES[request.param]():
        yield request.param


def key():
    """A fresh one, not yet consumed."""
    return jax.random.key(0)


def float_of(precision):
    """Of the session."""
    return np.float64 if precision else np.float32


def unimodal(z, y):
    """A normal mean."""
    return -0.5 * jnp.sum((y - z) ** 2)


def bimodal(z, y):
    """Two modes six sds apart."""
    return jnp.logaddexp(-0.5 * jnp.sum((z - 3) ** 2), -0.5 * jnp.sum((z + 3) ** 2)) + 0 * jnp.sum(y)


def neal(z, y):
    """A funnel."""
    return -0.5 * (z[0] / 3) ** 2 - 0.5 * jnp.sum(z[1:] ** 2) * jnp.exp(-z[0]) - 2 * z[0] + 0 * jnp.sum(y)


def schools(p, y):
    """Eight schools, not centred."""
    effects, sds = y
    theta = p["mu"] + p["tau"] * p["z"]
    prior = -0.5 * jnp.sum(p["z"] ** 2) - 0.5 * (p["mu"] / 5) ** 2 - jnp.log1p((p["tau"] / 5) ** 2)
    return prior - 0.5 * jnp.sum(((effects - theta) / sds) ** 2)


EFFECTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12], np.float32), np.array([15.0, 10, 16, 11, 9, 11, 10, 18], np.float32)
MODELS = {
    "unimodal": (unimodal, np.zeros(2), np.array([1.0, 3.0], np.float32), None, ([1.0, 3.0], [1.0, 1.0])),
    "bimodal": (bimodal, np.zeros(2), np.zeros(2, np.float32), None, ([0.0, 0.0], [10**0.5] * 2)),
    "schools": (schools, {"mu": 0.0, "tau": 1.0, "z": np.zeros(8)}, EFFECTS, {"tau": "positive"}, None),
    "funnel": (neal, np.zeros(5), np.zeros(2, np.float32), None, ([0.0] * 5, None)),
}


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("bimodal", "schools", "funnel")]


def look_at(fit, wanted):
    """All that a person asks of a fit, and whether it is right."""
    assert np.all(fit.certificate.certified)
    fit.sample(key(), 100)
    str(fit), fit.summary(), repr(fit)
    for found, right in zip((fit.mean(), fit.sd()), wanted or (), strict=False):
        if right is not None:
            np.testing.assert_allclose(found, np.broadcast_to(right, np.shape(found)), atol=0.15)


@pytest.mark.parametrize("name", ["unimodal", "bimodal", *SLOW[1:]])
def test_fit(name, strict):
    log_density, init, data, support, wanted = MODELS[name]
    with jax.enable_x64(False):
        look_at(elbojax.fit(key(), log_density, init, data=data, support=support), wanted)


@pytest.mark.parametrize(
    "name", ["unimodal", *(pytest.param(n, marks=pytest.mark.long) for n in ("bimodal", "schools", "funnel"))]
)
def test_fit_batch(name, strict):
    log_density, init, data, support, wanted = MODELS[name]
    stacked = jax.tree.map(lambda x: np.stack([x, x, x]), data)
    with jax.enable_x64(False):
        fits = elbojax.fit_batch(key(), log_density, init, stacked, support=support)
        look_at(fits, wanted)
        str(fits[0])


LOSS = elbojax.as_loss(elbojax.elbo_stl, unimodal, num_samples=8)
SOLVERS = {
    "sgd": elbojax.svi(LOSS, optax.sgd(0.1)),
    "adam": elbojax.svi(LOSS, optax.adam(0.1)),
    "averaged": elbojax.solvers.ema(elbojax.svi(LOSS, optax.adam(0.1)), decay=0.9),
}
STOPS = {
    "never": None,
    "moments": elbojax.moments_stable(window=25),
    "loss": elbojax.solvers.loss_plateau(window=25),
}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_run_and_run_batch(solver, stop, strict, precision):
    dtype = float_of(precision)
    q = elbojax.families.MeanField(np.zeros(2, dtype), np.zeros(2, dtype))
    y = np.array([1.0, 3.0], np.float32)  # beside float64 positions, too
    one = elbojax.run(key(), SOLVERS[solver], q, y, num_steps=300, stop=STOPS[stop])
    np.testing.assert_allclose(one.q.loc, y, atol=0.3)
    for keys in (key(), jax.random.split(key(), 2)):
        many = elbojax.run_batch(
            keys,
            SOLVERS[solver],
            jax.tree.map(lambda x: np.stack([x, x]), q),
            np.stack([y, y]),
            max_steps=300,
            stop=STOPS[stop],
        )
        np.testing.assert_allclose(many.q.loc, [y, y], atol=0.3)


def test_train_and_streams(strict, precision):
    dtype = float_of(precision)
    loss = lambda key, q, y: jnp.mean((y - q) ** 2)  # noqa: E731
    y = np.full(8, 2.0, np.float32)
    settings = dict(batch_size=4, num_epochs=200, validation=y)
    trained = elbojax.train(key(), loss, dtype(0), y, optimizer=optax.adam(0.1), **settings)
    np.testing.assert_allclose(trained.params, 2.0, atol=0.1)
    solver = elbojax.svi(loss, optax.sgd(0.1))
    streamed = elbojax.run_stream(key(), solver, dtype(0), iter([y] * 50), num_steps=50)
    np.testing.assert_allclose(streamed.q, 2.0, atol=0.1)


def test_the_modes_are_on_again_afterwards(strict):
    names = ("jax_numpy_rank_promotion", "jax_numpy_dtype_promotion", "jax_debug_key_reuse", "jax_debug_nans")
    state = lambda: [getattr(jax.config, name) for name in names]  # noqa: E731
    before = state()
    elbojax.run(key(), SOLVERS["sgd"], elbojax.families.MeanField(np.zeros(2), np.zeros(2)), np.zeros(2), num_steps=3)
    with contextlib.suppress(TypeError):
        elbojax.run(key(), None, 0, num_steps=3)
    assert state() == before


@pytest.mark.parametrize("draw", [noise.iid, noise.antithetic, noise.sobol])
def test_noise(draw, strict, precision):
    assert draw(key(), 8, 2).shape == (8, 2)
