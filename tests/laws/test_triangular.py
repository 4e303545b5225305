"""The map that the second stage of a batch draws from has the density of its draws, and what is accepted from it is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import thresholds
from elbojax.cascade import batch, elsewhere
from elbojax.cascade.triangular import base, fit_triangular
from elbojax.families import FullRank


def draws_of(name, count):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(count, 3))
    if name == "bent":
        z[:, 1] += 0.5 * (z[:, 0] ** 2 - 1)
        z[:, 2] *= np.exp(0.4 * z[:, 0])
    if name == "skewed":
        z = np.log(rng.gamma([0.5, 1.0, 5.0], size=(count, 3)))
    return z @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -0.7], [0.0, 0.0, 2.0]])


@pytest.fixture(autouse=True)
def as_of_many_models(monkeypatch):
    monkeypatch.setattr(batch, "FEW_MODELS", 0)
    monkeypatch.setattr(batch, "ADAPTED_LEAST", 1)


@pytest.mark.parametrize("name", ["normal", "bent", "skewed"])
def test_the_density_of_a_map_is_that_of_its_draws(name):
    with jax.enable_x64(True):
        sample = draws_of(name, 2000)
        q = fit_triangular(jnp.asarray(sample), jnp.full(2000, 1 / 2000))
        for row in base(jax.random.key(1), 64, 3, jnp.dtype(float))[:16, :3]:
            event, jacobian = q.transport(row), jax.jacfwd(q.transport)(row)
            epsilon = jnp.sinh(row)
            of_epsilon = jnp.sum(jnp.log(3 / 8) - 2.5 * jnp.log1p(epsilon**2 / 4) + 0.5 * jnp.log1p(epsilon**2))
            expected = of_epsilon - jnp.linalg.slogdet(jacobian)[1]
            np.testing.assert_allclose(q.log_prob(event), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["normal", "bent", "skewed"])
def test_a_map_has_the_moments_of_what_it_was_fitted_to(name):
    with jax.enable_x64(True):
        sample = draws_of(name, 4000)
        q = fit_triangular(jnp.asarray(sample), jnp.full(4000, 1 / 4000))
        rows = base(jax.random.key(1), 4096, 3, jnp.dtype(float))[:3072, :3]
        drawn = np.asarray(jax.vmap(q.transport)(rows))
    center, sd = np.median(sample, axis=0), np.std(sample, axis=0)
    assert np.all(np.abs(np.median(drawn, axis=0) - center) < 0.1 * sd)  # its body; its tails are wider on purpose
    for p in (0.1, 0.9):
        np.testing.assert_allclose(np.quantile(drawn, p, axis=0), np.quantile(sample, p, axis=0), atol=0.2 * sd.max())


def log_gammas(z, shape):
    return jnp.sum(shape * z["a"] - jnp.exp(z["a"])) + shape * z["b"] - jnp.exp(z["b"])


def test_skewed_posteriors_are_answered_without_the_stages_on_the_host(monkeypatch):
    asked = []
    monkeypatch.setattr(batch, "_run_on_host", lambda *args: asked.append(args[7]))
    shapes = np.linspace(0.5, 2.0, 24)
    init = {"a": jnp.zeros(2), "b": 0.0}
    fits = elbojax.fit_batch(jax.random.key(0), log_gammas, init, jnp.asarray(shapes))
    c = fits.certificate
    done = c.certified & (c.mean_error < thresholds.QUICK_ROUGH) & (c.sd_error < thresholds.QUICK_ROUGH)
    assert np.sum(done) >= 20, (np.sum(done), asked)
    digamma = np.asarray(jax.scipy.special.digamma(shapes))
    sd = np.sqrt(np.asarray(jax.scipy.special.polygamma(1, shapes)))
    for mean, spread in ((fits.mean()["b"], fits.sd()["b"]), (fits.mean()["a"][:, 0], fits.sd()["a"][:, 0])):
        off = np.abs(np.asarray(mean) - digamma) / sd
        assert np.all(off[done] < 5 * np.asarray(c.mean_error)[done])
        wide = np.abs(np.asarray(spread) / sd - 1)
        assert np.all(wide[done] < 5 * np.asarray(c.sd_error)[done])


def two_modes(z, datum):
    """Of like width, and a third as heavy, at a place of its own for each model."""
    first = -0.5 * jnp.sum(z**2) - 0.3 * jnp.sum(jnp.exp(-z))  # skewed, so that the first look does not certify it
    return jnp.logaddexp(first, -1.0 - 0.5 * jnp.sum((z - datum) ** 2))


def test_what_a_map_does_not_cover_is_seen():
    """Log-ratios along rays and where gradients lead: large where there is another mode, small where the proposal is wider."""
    size, rng = 3, np.random.default_rng(0)
    with jax.enable_x64(True):
        q = FullRank(jnp.zeros(size), jnp.zeros(size), jnp.zeros((size, size)))
        noise = elsewhere.directions(jax.random.key(0), size, jnp.dtype(float))
        wide = lambda z: -0.5 * (3 + size) * jnp.log1p(jnp.sum(z**2) / 3)  # noqa: E731
        one = elsewhere.uncovered(noise, q, lambda z: -0.5 * jnp.sum(z**2), wide)
        assert 0.4 < one < 3 * np.log(2) - 1.5 + 1e-6  # the largest ratio of these two, three squared sds out
        for apart in (5.0, 7.0, 9.0):
            place = rng.normal(size=size)
            place *= apart / np.linalg.norm(place)
            found = elsewhere.uncovered(noise, q, lambda z, place=place: two_modes(z, place), wide)
            assert found > 2.5, apart
            assert found > one + 2.5


def test_models_with_a_hidden_mode_go_on_to_the_stages_that_look_for_it(monkeypatch):
    asked = []
    monkeypatch.setattr(batch, "_run_on_host", lambda *args: asked.append(args[7]))
    rng = np.random.default_rng(1)
    places = rng.normal(size=(12, 3))
    places *= 8 / np.linalg.norm(places, axis=1, keepdims=True)
    fits = elbojax.fit_batch(jax.random.key(0), two_modes, jnp.zeros(3), places)
    c = fits.certificate
    near = (
        np.linalg.norm(np.asarray(fits.mean()), axis=1) < 2.0
    )  # with a quarter of the mass at eight, the mean is beyond
    assert not np.any(c.certified & (c.stage == elbojax.Stage.STUDENT_T) & near)
