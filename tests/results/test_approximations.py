"""Fits from minibatches and runs: tables, files and trees of a `q` that has no certificate, and words that say so."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import elbojax
from elbojax import Status, targets
from elbojax.minibatch.halving import SuccessiveHalving

INIT = {"w": jnp.zeros(2), "tau": jnp.array(1.0)}
TARGET = targets.unconstrain(lambda z: -jnp.sum(z["w"] ** 2) - z["tau"], INIT, {"tau": "positive"})
MEAN, SD = np.array([0.3, 1.0, -2.0]), np.array([0.2, 0.5, 2.0])  # of log(tau), w[0], w[1]
WANTED = {"tau": (np.exp(0.3 + 0.02), np.exp(0.32) * np.sqrt(np.expm1(0.04))), "w": (MEAN[1:], SD[1:])}


def minibatch_fit(**given):
    race = SuccessiveHalving(
        None, Status.CONVERGED, "adam", ("adam", "dowg"), np.array([1.0, 2.0]), np.zeros(2), np.ones(2, int), 400, None
    )
    settings = dict(rhat=1.01, mcse=0.01, moved=0.02, elbo=-3.5, elbo_se=0.1, num_steps=900, num_gradients=1200)
    q = elbojax.mean_field(jnp.asarray(MEAN), jnp.asarray(SD))
    return elbojax.minibatch.MinibatchFit(
        q, Status.CONVERGED, "adam", **settings, race=race, target=TARGET, **({"step": 0.01, "step_se": 0.005} | given)
    )


def run_of(q, **given):
    fields = dict(status=jnp.int32(2), num_steps=jnp.int32(150), loss=jnp.array(1.25), losses=jnp.array([3.0, 2, 1.25]))
    return elbojax.loops.Run(q, **(fields | given), lane=None)


RUN = run_of(elbojax.mean_field(jnp.asarray(MEAN), jnp.asarray(SD)))
BOTH = [minibatch_fit(), RUN.approximation(TARGET)]


@pytest.mark.parametrize("fit", BOTH, ids=["minibatches", "run"])
def test_numbers_are_those_of_q(fit):
    table = fit.summary()
    assert table.names == ("tau", "w[0]", "w[1]")
    for name, (mean, sd) in WANTED.items():
        np.testing.assert_allclose(fit.mean()[name], mean, rtol=1e-3)
        np.testing.assert_allclose(fit.sd()[name], sd, rtol=2e-2)
    normal = np.array([-1.6448536, 0, 1.6448536])
    wanted = [np.exp(0.3 + 0.2 * normal), 1 + 0.5 * normal, -2 + 2 * normal]
    # Standard error of a 5 per cent quantile of 4,096 draws: 0.033 sds.
    np.testing.assert_allclose(table.quantiles, wanted, atol=4 * 0.033 * 2, rtol=0.03)
    np.testing.assert_allclose(fit.quantile(0.5)["w"], MEAN[1:], atol=4 * 0.02 * 2)
    square = fit.evaluate(lambda z: {"square": z["w"] ** 2})
    np.testing.assert_allclose(square.mean()["square"], MEAN[1:] ** 2 + SD[1:] ** 2, rtol=0.02)
    assert "NOT certified" in str(square) and table.to_dataframe().index[0] == "tau"
    found = fit.predict(jax.random.key(1), simulate=lambda key, z: z["w"], num_samples=5)
    assert found.shape == (5, 2)
    assert fit.log_likelihood(lambda z: {"y": z["w"]})["y"].shape[1] == 2


@pytest.mark.parametrize("fit", BOTH, ids=["minibatches", "run"])
def test_words_say_that_nothing_was_certified(fit):
    assert repr(fit) == str(fit) and len(repr(fit).splitlines()) < 12
    assert "NOT certified" in repr(fit) and "tau" in repr(fit)
    page = fit._repr_html_()
    assert "NOT certified" in page and "<table>" in page and "<summary>report</summary>" in page
    assert str(fit.summary()).startswith("posterior of 3 numbers, NOT certified")
    with pytest.raises(ValueError, match="at least 1"):
        fit.sample(jax.random.key(0), 0)
    with pytest.raises(ValueError, match="give simulate="):
        fit.predict(jax.random.key(0))


@pytest.mark.parametrize("fit", BOTH, ids=["minibatches", "run"])
def test_trees(fit):
    pytest.importorskip("arviz_base")
    tree = fit.to_arviz(
        50,
        dims={"w": ["side"]},
        coords={"side": ["left", "right"]},
        log_likelihood=lambda z: {"y": z["w"]},
        simulate=lambda key, z: {"y": z["w"] + jax.random.normal(key, (2,))},
        observed={"y": np.zeros(2)},
    )
    assert tree["posterior"]["w"].shape == (1, 50, 2) and tree["posterior"]["side"].values.tolist() == ["left", "right"]
    assert tree.attrs["certified"].startswith("NOT certified") and "certificate" not in tree.children
    assert set(tree.children) == {"posterior", "log_likelihood", "posterior_predictive", "observed_data"}
    assert bool(
        tree["posterior"].equals(
            fit.to_arviz(50, dims={"w": ["side"]}, coords={"side": ["left", "right"]})["posterior"]
        )
    )


def test_a_fit_from_minibatches_comes_back(tmp_path):
    fit, path = minibatch_fit(), tmp_path / "fit.npz"
    fit.save(path)
    again = elbojax.load(path)
    assert type(again) is elbojax.minibatch.MinibatchFit and str(again) == str(fit) and str(again.race) == str(fit.race)
    for field in dataclasses.fields(fit):
        if field.name not in ("race", "target", "q"):
            assert getattr(again, field.name) == getattr(fit, field.name), field.name
    np.testing.assert_array_equal(again.mean()["w"], fit.mean()["w"])
    assert again.target.constrain == fit.target.constrain
    untested = minibatch_fit(step=np.nan, step_se=np.nan)
    untested.save(path)
    assert np.isnan(elbojax.load(path).step)


@pytest.mark.parametrize("models", [None, 3])
def test_a_run_comes_back(models, tmp_path):
    run = RUN if models is None else jax.tree.map(lambda x: jnp.stack([x] * models), RUN)
    run.save(tmp_path / "run.npz")
    again = elbojax.load(tmp_path / "run.npz")
    assert type(again) is elbojax.loops.Run and again.lane is None
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(run), strict=True):
        np.testing.assert_array_equal(a, b)
    solver = elbojax.svi(elbojax.as_loss(elbojax.elbo_stl, TARGET.log_density), optax.adam(0.1))
    with pytest.raises(ValueError, match="from a file"):
        elbojax.run(jax.random.key(0), solver, RUN.q, num_steps=300, resume=again)


def test_a_run_is_short_and_traced_runs_print():
    assert repr(RUN) == "run: max_steps after 150 steps, mean loss of the last 1.25; q: MeanField of 6 numbers"
    shown = []
    jax.vmap(lambda x: shown.append(repr(RUN._replace(loss=x))))(jnp.zeros(2))
    assert shown == ["Run(q=MeanField, traced)"]
    other = run_of({"weights": jnp.zeros(3)})
    assert (
        other._repr_html_()
        == "<pre>run: max_steps after 150 steps, mean loss of the last 1.25; q: dict of 3 numbers</pre>"
    )
    assert "<table>" in RUN._repr_html_() and RUN.summary().names == ("z[0]", "z[1]", "z[2]")
    with pytest.raises(TypeError, match="is of a dict"):
        other.summary()
    with pytest.raises(TypeError, match="must be a Target"):
        RUN.summary("tau")
    with pytest.raises(ValueError, match="not finite"):
        run_of(dataclasses.replace(RUN.q, loc=jnp.array([jnp.nan]))).summary()


def test_a_batch_of_runs():
    status = jnp.array([1, 1, 3, 2])
    runs = jax.tree.map(lambda x: jnp.stack([x] * 4), RUN)._replace(status=status, loss=jnp.array([1.0, 2, jnp.nan, 5]))
    assert repr(runs).startswith("4 runs: 2 converged, 1 max_steps, 1 non_finite; q: MeanField")
    table = runs.summary()
    assert table.worst.tolist() == [2, 3, 1, 0] and table.statuses[Status.CONVERGED] == 2
    assert "NOT certified" in str(table) and table.quantiles["loss"][1] == 2
    with pytest.raises(ValueError, match="batch of 4 runs"):
        runs.approximation(TARGET)
    pytest.importorskip("arviz_base")
    tree = runs.to_arviz(TARGET, 20)
    assert tree["posterior"]["w"].dims == ("chain", "draw", "model", "w_dim_0")
    assert tree.attrs["status"] == ["converged", "converged", "non_finite", "max_steps"]
    with pytest.raises(ValueError, match="observed are of one model"):
        runs.to_arviz(TARGET, 20, observed={})


def test_discrete_families_have_answers_too():
    found = run_of(elbojax.bernoulli(jnp.array([0.0, 3.0]))).summary()
    np.testing.assert_allclose(found.mean, [0.5, 1 / (1 + np.exp(-3))], atol=4 * 0.5 / 64)
