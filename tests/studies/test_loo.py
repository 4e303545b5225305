"""Leave-one-out from one fit: against closed forms, ArviZ and exact refits; outliers; models compared."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from results import made

import elbojax
from elbojax.studies.psis_loo import _left_out

RNG = np.random.default_rng(0)
X = np.linspace(-1, 1, 24)
Y = 1 + 2 * X + 0.5 * RNG.normal(size=24)


def each(z, data):
    x, y = data
    return -0.5 * ((y - z["a"] - z["b"] * x) / 0.5) ** 2 - jnp.log(0.5) - 0.5 * jnp.log(2 * jnp.pi)


def log_density(z, data):
    return jnp.sum(each(z, data)) - 0.5 * (z["a"] ** 2 + z["b"] ** 2) - jnp.log(2 * jnp.pi)


def exact(x, y):
    """Log predictive density of each observation given the others, of a normal regression with unit priors."""
    found = np.empty(len(y))
    design = np.stack([np.ones_like(x), x], axis=1)
    for n in range(len(y)):
        rest = np.arange(len(y)) != n
        precision = np.eye(2) + design[rest].T @ design[rest] / 0.25
        mean = np.linalg.solve(precision, design[rest].T @ y[rest] / 0.25)
        variance = 0.25 + design[n] @ np.linalg.solve(precision, design[n])
        found[n] = -0.5 * (y[n] - design[n] @ mean) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)
    return found


def fitted(y, seed=0):
    return elbojax.fit(jax.random.key(seed), log_density, {"a": 0.0, "b": 0.0}, data=(X, y))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_the_closed_form(seed):
    found = elbojax.loo(fitted(Y, seed), each, (X, Y))
    np.testing.assert_allclose(found.pointwise, exact(X, Y), atol=0.03)
    assert found.elpd == pytest.approx(exact(X, Y).sum(), abs=0.1) and 1 < found.p_loo < 3
    assert found.se == pytest.approx(np.sqrt(24 * np.var(exact(X, Y))), rel=0.05)
    assert not len(found.bad) and "none above" in str(found) and len(found.names) == 24


def test_an_outlier_is_found_and_refitted():
    y = Y.copy()
    y[-1] += 8.0
    fit = fitted(y)
    found = elbojax.loo(fit, each, (X, y))
    assert found.bad.tolist() == [23] and "value[23]" in str(found) and "give key=" in str(found)
    again = elbojax.loo(fit, each, (X, y), key=jax.random.key(1))
    assert again.refitted.tolist() == [23] and not len(again.bad) and np.isnan(again.khat[23])
    assert abs(found.pointwise[23] - exact(X, y)[23]) > 0.3  # what the refit is for
    np.testing.assert_allclose(again.pointwise, exact(X, y), atol=0.05)


def test_equals_arviz_on_the_same_draws():
    stats = pytest.importorskip("arviz_stats")
    fit = fitted(Y)
    tree = fit.to_arviz(log_likelihood=lambda z: {"y": each(z, (X, Y))}, observed={"y": Y})
    theirs = stats.loo(tree, pointwise=True)
    draws = {name: values.values[0] for name, values in tree["posterior"].data_vars.items()}
    log_likelihood = np.asarray(jax.vmap(lambda z: each(z, (X, Y)))(draws))
    ours, khat = _left_out(log_likelihood, np.full(len(log_likelihood), -np.log(len(log_likelihood))))
    np.testing.assert_allclose(ours, theirs.elpd_i, atol=1e-3)
    np.testing.assert_allclose(khat, theirs.pareto_k, atol=0.02)


def test_models_are_compared():
    line = elbojax.loo(fitted(Y), each, (X, Y))
    flat = elbojax.fit(jax.random.key(0), lambda z, d: log_density(z | {"b": 0.0}, d), {"a": 0.0}, data=(X, Y))
    level = elbojax.loo(flat, lambda z, d: each(z | {"b": 0.0}, d), (X, Y))
    found = elbojax.compare({"level": level, "line": line})
    assert found.names == ("line", "level") and found.difference[0] == 0
    assert found.difference[1] == pytest.approx(level.elpd - line.elpd)
    difference = level.pointwise - line.pointwise
    assert found.difference_se[1] == pytest.approx(np.sqrt(24 * np.var(difference)))
    assert "line" in str(found) and "± se" in str(found)


def test_misuse():
    fit = fitted(Y)
    with pytest.raises(ValueError, match="at least two models, got 1"):
        elbojax.compare({"one": fit})
    few = elbojax.loo(fitted(Y), lambda z, d: each(z, d)[:5], (X, Y))
    with pytest.raises(ValueError, match="same observations, got {'all': 24, 'few': 5}"):
        elbojax.compare({"all": elbojax.loo(fit, each, (X, Y)), "few": few})
    q = elbojax.mean_field(jnp.zeros(made.SIZE), 1.0)
    many = made.fit(jax.tree.map(lambda x: jnp.stack([x, x]), q), models=2)
    with pytest.raises(TypeError, match="one model, got Fits"):
        elbojax.loo(many, each, (X, Y))
    with pytest.raises(ValueError, match="give a function"):
        elbojax.loo(fit)
