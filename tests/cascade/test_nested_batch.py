"""`fit_batch` over hierarchies: the structure is found once, and answers are exact or refused, whatever the neighbours are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status, thresholds
from elbojax.cascade import batch, nested_batch, single, thorough
from elbojax.cascade.evaluate_many import CompiledMany, drive_many
from elbojax.cascade.nested_answers import Many
from elbojax.cascade.nested_batch import Structures, Window
from elbojax.cascade.single import prepare
from elbojax.loops.compiling import compiled_so_far
from elbojax.results import Stage

GROUPS, ROWS, MODELS, LOST = 25, 3, 20, 7
INIT = {"mu": 0.0, "tau": 1.0, "sigma": 1.0, "effect": np.zeros(GROUPS)}
SUPPORT = {"tau": "positive", "sigma": "positive"}
KEY = jax.random.key(0)


def normal(x, loc, scale):
    return jnp.sum(-0.5 * ((x - loc) / scale) ** 2 - jnp.log(scale) + 0 * x)


def intercepts(z, y):
    """Normal rows around normal effects, of unknown scales: few rows and groups, so that a Gaussian does not do."""
    prior = normal(z["mu"], 0.0, 10.0) - z["tau"] - z["sigma"]
    return prior + normal(z["effect"], z["mu"], z["tau"]) + normal(y, z["effect"][:, None], z["sigma"])


@functools.cache
def observed():
    rng = np.random.default_rng(0)
    tau = np.linspace(0.2, 1.0, MODELS)[:, None, None]
    return 1 + tau * rng.normal(size=(MODELS, GROUPS, 1)) + rng.normal(size=(MODELS, GROUPS, ROWS))


def exact(y):
    """Means and sds of mu, tau, sigma and the first two effects, on a grid of the three."""
    grids = np.linspace(-7, 1.5, 150), np.linspace(-1, 0.8, 91), y.mean() + np.linspace(-1.5, 1.5, 91)
    log_tau, log_sigma, mu = np.meshgrid(*grids, indexing="ij")
    tau, sigma, means = np.exp(log_tau), np.exp(log_sigma), y.mean(axis=1)
    variance = tau**2 + sigma**2 / ROWS
    within, between = np.sum((y - means[:, None]) ** 2), np.sum((means - means.mean()) ** 2)
    log_p = log_tau + log_sigma - tau - sigma - 0.5 * (mu / 10) ** 2
    log_p += -GROUPS * (ROWS - 1) * log_sigma - within / (2 * sigma**2)
    log_p += -0.5 * GROUPS * np.log(variance) - 0.5 * (between + GROUPS * (means.mean() - mu) ** 2) / variance
    weights = np.exp(log_p - log_p.max())
    weights /= weights.sum()
    share = tau**2 / variance
    firsts, seconds = [mu, tau, sigma], [mu**2, tau**2, sigma**2]
    for mean in means[:2]:
        effect = mu + share * (mean - mu)
        firsts.append(effect)
        seconds.append(effect**2 + share * sigma**2 / ROWS)
    mean = np.array([np.sum(weights * x) for x in firsts])
    return mean, np.sqrt(np.array([np.sum(weights * x) for x in seconds]) - mean**2)


def numbers(fit):
    return tuple(np.r_[x["mu"], x["tau"], x["sigma"], x["effect"][:2]] for x in (fit.mean(), fit.sd()))


def assert_right(fit, y):
    mean, sd = exact(y)
    found, spread = numbers(fit)
    c = fit.certificate
    np.testing.assert_allclose((found - mean) / sd, 0, atol=4 * max(float(c.mean_error), 0.02))
    np.testing.assert_allclose(spread / sd, 1, atol=4 * max(float(c.sd_error), 0.02))


@pytest.fixture(autouse=True)
def by_structure_alone(monkeypatch):
    """Without the stages before and after, which certify many of these, too."""
    monkeypatch.setattr(thorough, "STAGES", ())
    monkeypatch.setattr(thorough, "OF_BATCHES", ())
    monkeypatch.setattr(single, "STAGES", ())
    monkeypatch.setattr(batch.handover, "available", lambda: False)
    monkeypatch.setitem(vars(thresholds), "FLOW_LARGEST", 0)


def fit(y, seed=0, **settings):
    return elbojax.fit_batch(jax.random.key(seed), intercepts, INIT, y, support=SUPPORT, **settings)


@pytest.fixture
def looks(monkeypatch):
    """The structures that are looked for."""
    found, real = [], nested_batch.structure_of
    monkeypatch.setattr(nested_batch, "structure_of", lambda *a: found.append(real(*a)) or found[-1])
    return found


@pytest.mark.long
def test_each_model_is_exact_beside_one_that_is_lost(looks):
    y = observed().copy()
    y[LOST, 3, 1] = np.nan
    fits = fit(y)
    assert len(looks) == 1
    c = fits.certificate
    assert c.status[LOST] == Status.NON_FINITE
    certified = np.flatnonzero(c.certified)
    assert len(certified) >= MODELS - 4, "one is lost, and some are refused"
    by_structure = np.flatnonzero(c.certified & (c.stage == Stage.NESTED))
    assert len(by_structure) >= MODELS // 2
    for i in certified:
        assert_right(fits[i], y[i])
    draws = fits.sample(jax.random.key(1), 200)
    assert draws["effect"].shape == (MODELS, 200, GROUPS)
    whole = np.delete(np.asarray(draws["effect"]), LOST, axis=0)
    assert np.all(np.isfinite(whole))
    # Draws are joint: effects lie around the mean of the same draw.
    within = np.std(whole - np.delete(np.asarray(draws["mu"]), LOST, axis=0)[..., None], axis=2)
    tau = np.delete(np.asarray(draws["tau"]), LOST, axis=0)
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(within, tau, strict=True)]
    assert np.min(correlation) > 0.5


@pytest.mark.slow
def test_fit_says_the_same():
    y = observed()[[3, 11]]
    fits = fit(y, seed=1)
    for i in range(2):
        alone = elbojax.fit(jax.random.key(i), intercepts, INIT, data=y[i], support=SUPPORT)
        for one in (alone, fits[i]):
            if one.certificate.certified:
                assert_right(one, y[i])
        assert alone.certificate.stage == fits[i].certificate.stage == Stage.NESTED
        ratio = alone.certificate.num_gradients / fits[i].certificate.num_gradients
        assert 0.1 < ratio < 10
    assert fits.certificate.certified.any()


@pytest.mark.long
def test_one_model_and_any_order():
    y = observed()[[3, 9, 12]]
    one, several = fit(y[:1]), fit(y[[1, 2, 0]])
    for fits, models in ((one, [0]), (several, [1, 2, 0])):
        for i, model in enumerate(models):
            if fits.certificate.certified[i]:
                assert_right(fits[i], y[model])
        assert fits.certificate.certified.any()


def test_programs_serve_all_models_and_other_batches():
    fit(observed()[:2])  # as many as above, whose programs serve
    before = compiled_so_far()
    fit(observed()[3:5], seed=2)
    again = compiled_so_far()
    assert again.programs - before.programs <= 2, "the structure is looked for with programs that are there, too"


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_the_same_answers(tmp_path, monkeypatch):
    monkeypatch.setattr("elbojax.loops.shards.SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr("elbojax.loops.shards.PART", 1e9)
    y, whole, answer = observed()[:3], fit(observed()[:3]), Many.answer

    def interrupted(self, asked):
        if interrupted.left == 0:
            raise KeyboardInterrupt
        interrupted.left -= 1
        return answer(self, asked)

    interrupted.left = 40
    with monkeypatch.context() as patched:
        patched.setattr(Many, "answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(y, checkpoint=tmp_path)
    for a, b in zip(jax.tree.leaves(fit(y, checkpoint=tmp_path)), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)


def test_models_of_other_components_are_told_apart(looks):
    """Classes within schools, of which each model has others: the pattern depends on the data."""
    schools, classes = 12, 24
    init = {"log_tau": np.zeros(2), "mu": 0.0, "school": np.zeros(schools), "class": np.zeros(classes)}

    def log_density(z, data):
        parent, y = data
        tau = jnp.exp(z["log_tau"])
        prior = -0.5 * jnp.sum(z["log_tau"] ** 2) - 0.5 * z["mu"] ** 2 + normal(z["school"], z["mu"], tau[0])
        return prior + normal(z["class"], z["school"][parent], tau[1]) + normal(y, z["class"], 0.3)

    rng = np.random.default_rng(1)
    parents = np.stack([np.arange(classes) % schools, np.arange(classes) // 2, np.arange(classes) % schools])
    data = parents, rng.normal(size=(3, classes))
    with jax.enable_x64(True):
        target, start = prepare(log_density, init, None, jax.tree.map(lambda x: x[0], data))
        structures = Structures(target, KEY)
        window = Window(structures, CompiledMany(target, data), data, np.arange(3, dtype=np.uint32))
        chosen = drive_many([window._chosen(i, start) for i in range(3)], window)
    assert len(looks) == len(structures.found) == 2
    plans = [nested.plan for nested, _ in chosen]
    assert plans[0] is plans[2] is not plans[1]
    assert all(group.real.max() == 3 for plan in plans for group in plan.groups)
    for plan, parent in zip(plans, parents, strict=True):
        for group in plan.groups:
            for places in group.places:
                own = [target.names[i] for i in places.ravel() if i < target.size]
                of = {parent[int(name[6:-1])] for name in own if name.startswith("class")}
                assert len(of) == 1 and sum(name.startswith("school") for name in own) == 1
