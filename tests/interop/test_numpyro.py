"""NumPyro models as they are written there: log-densities, supports, answers, and what is said of those that do not fit."""

import functools
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

numpyro = pytest.importorskip("numpyro")
dist = numpyro.distributions

import elbojax  # noqa: E402
from elbojax import bijectors, targets  # noqa: E402
from elbojax.interop.numpyro_model import NumPyroSupport  # noqa: E402

KEY = jax.random.key(0)
ANGLES = pytest.mark.filterwarnings(
    "ignore:Continuous inference poorly handles circular", "ignore:site 'circular' is an angle"
)
Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools(num_schools, sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", num_schools):
        with numpyro.handlers.reparam(config={"theta": numpyro.infer.reparam.LocScaleReparam(0)}):
            theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def conjugate(y, scale=1.0):
    mu = numpyro.sample("mu", dist.Normal(0, 10))
    numpyro.deterministic("double", 2 * mu)
    numpyro.sample("y", dist.Normal(mu, scale), obs=y)


def every_support(y):
    numpyro.sample("real", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("positive", dist.Gamma(2, 1))
    numpyro.sample("above", dist.TruncatedNormal(0, 1, low=0.5))
    numpyro.sample("below", dist.TruncatedNormal(0, 1, high=0.5))
    numpyro.sample("between", dist.Uniform(-1, 3))
    numpyro.sample("unit", dist.Beta(2, 3))
    numpyro.sample("simplex", dist.Dirichlet(jnp.ones(3)))
    ordered = dist.TransformedDistribution(dist.Normal(jnp.zeros(3), 1).to_event(1), dist.transforms.OrderedTransform())
    numpyro.sample("ordered", ordered)
    numpyro.sample("cholesky", dist.LKJCholesky(3, 2.0))
    numpyro.sample("correlation", dist.LKJ(3, 2.0))
    numpyro.sample("circular", dist.VonMises(0.5, 2.0))
    numpyro.sample("zero_sum", dist.ZeroSumNormal(1.0, (4,)))
    numpyro.factor("data", jnp.sum(y) * 0.0)


@pytest.fixture(scope="module")
def schools():
    return elbojax.fit_model(KEY, eight_schools, 8, SIGMA, y=Y)


@ANGLES
def test_every_support_has_the_density_of_numpyro():
    model = elbojax.from_numpyro(every_support, np.ones(3))
    target = targets.unconstrain(model.log_density, model.init, model.support, data=model.data)
    started = numpyro.handlers.substitute(
        numpyro.handlers.seed(every_support, 1), substitute_fn=numpyro.infer.init_to_uniform
    )
    sites = numpyro.handlers.trace(started).get_trace(np.ones(3))
    transforms = {name: dist.biject_to(sites[name]["fn"].support) for name in model.init}

    @jax.jit
    @jax.vmap
    def both(flat):
        position = target.constrain(flat)
        theirs = {name: transforms[name]._inverse(value) for name, value in position.items()}
        jacobian = sum(jnp.sum(transforms[n].log_abs_det_jacobian(theirs[n], position[n])) for n in theirs)
        potential = numpyro.infer.util.potential_energy(every_support, (np.ones(3),), {}, theirs)
        # Of the same posterior in two unconstrained spaces: without their Jacobians they are equal.
        return model.log_density(position, model.data), -potential - jacobian, target.unconstrain(position)

    flat = jax.random.normal(KEY, (3, target.size))
    ours, theirs, back = both(flat)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    np.testing.assert_allclose(back, flat, atol=1e-6)
    kinds = {name: type(bijector).__name__ for name, bijector in model.support.items()}
    assert (
        kinds["positive"] == "Positive" and kinds["cholesky"] == "CorrelationCholesky" and kinds["unit"] == "Interval"
    )
    assert {name for name, kind in kinds.items() if kind == "NumPyroSupport"} == {"correlation", "circular", "zero_sum"}


@ANGLES
@pytest.mark.parametrize("name", ["correlation", "circular", "zero_sum"])
def test_supports_of_numpyro_are_bijectors(name):
    model = elbojax.from_numpyro(every_support, np.ones(3))
    bijector, y = model.support[name], model.init[name]
    assert isinstance(bijector, NumPyroSupport) and bijector.contains(y)
    x = bijector.inverse(y)
    assert x.shape == bijector.unconstrained_shape(y.shape) and bijector.constrained_shape(x.shape) == y.shape
    moved = x + 0.3 * jax.random.normal(KEY, x.shape)
    np.testing.assert_allclose(bijector.inverse(bijector.forward(moved)), moved, atol=1e-9)
    again = elbojax.from_numpyro(every_support, np.ones(3)).support[name]
    assert bijector == again and hash(bijector) == hash(again) and bijector != bijectors.real()


def test_angles_are_warned_of():
    with pytest.warns(UserWarning, match="'circular' is an angle"):
        elbojax.from_numpyro(every_support, np.ones(3))


def test_the_answer_has_the_names_and_space_of_the_model(schools):
    assert schools.certificate.certified
    assert set(schools.mean()) == {"mu", "tau", "theta_decentered"}
    # By long NUTS, and the same from three programs.
    assert float(schools.mean()["mu"]) == pytest.approx(4.4, abs=0.15)
    assert float(schools.mean()["tau"]) == pytest.approx(3.6, abs=0.15)
    theta = schools.evaluate()
    assert set(theta.mean()) == {"theta"} and theta.mean()["theta"].shape == (8,)
    assert theta.mean()["theta"][0] == pytest.approx(6.2, abs=0.25)
    low, high = theta.quantile([0.05, 0.95])["theta"][:, 0]
    assert low < -1 and high > 14 and "theta[0]" in str(theta)


def test_predictions(schools):
    new = schools.predict(jax.random.key(1))
    assert set(new) == {"y"} and new["y"].shape == (1000, 8)
    # y has the variance of theta and that of the noise.
    theta_sd = schools.evaluate().sd()["theta"]
    np.testing.assert_allclose(new["y"].std(0), np.hypot(theta_sd, SIGMA), rtol=0.12)
    wide = schools.predict(jax.random.key(1), 8, 3 * SIGMA, num_samples=500)
    assert set(wide) == {"y", "theta"} and wide["y"].shape == (500, 8)
    np.testing.assert_allclose(wide["y"].std(0), np.hypot(theta_sd, 3 * SIGMA), rtol=0.15)
    prior = schools.predict_prior(jax.random.key(2), 400)
    assert {"mu", "tau", "theta", "y"} <= set(prior) and prior["mu"].std() == pytest.approx(5, rel=0.2)


def test_log_likelihood_and_trees(schools):
    each = schools.log_likelihood()
    draws = schools._positions()
    theta = draws["mu"][:, None] + draws["tau"][:, None] * draws["theta_decentered"]
    exact = -0.5 * ((Y - theta) / SIGMA) ** 2 - np.log(SIGMA) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(each["y"], exact, atol=1e-5)
    pytest.importorskip("arviz_base")
    names = list("ABCDEFGH")
    tree = schools.to_arviz(num_samples=200, coords={"school": names})
    assert {"posterior", "log_likelihood", "posterior_predictive", "observed_data", "certificate"} <= set(tree.children)
    assert tree["posterior"]["theta"].dims == ("chain", "draw", "school")
    assert tree["posterior"]["school"].values.tolist() == names
    at = tree["posterior"]["theta"].values
    exact = -0.5 * ((Y - at) / SIGMA) ** 2 - np.log(SIGMA) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(tree["log_likelihood"]["y"], exact, atol=1e-4)
    np.testing.assert_array_equal(tree["observed_data"]["y"], Y)
    with pytest.raises(ValueError, match="2 labels for 'school'"):
        schools.to_arviz(coords={"school": [1, 2]})
    with pytest.raises(ValueError, match="'thet', which there is not"):
        schools.to_arviz(dims={"thet": ["a"]})


def test_another_fit_of_the_same_shapes_compiles_no_log_density():
    traces = []

    def model(y):
        traces.append(1)
        conjugate(y)

    elbojax.fit_model(KEY, model, Y)
    first = len(traces)
    fit = elbojax.fit_model(KEY, model, Y + 1)
    # Looking at the sites runs the model; the programs of the fit are those there are.
    assert len(traces) - first <= 6 < first
    assert float(fit.mean()["mu"]) == pytest.approx((np.sum(Y) + 8) / (8 + 1 / 100), abs=0.05)


def test_settings_are_part_of_the_model():
    one, two = (elbojax.fit_model(KEY, conjugate, Y, scale=scale) for scale in (1.0, 20.0))
    sds = [float(fit.sd()["mu"]) for fit in (one, two)]
    np.testing.assert_allclose(sds, [(8 + 0.01) ** -0.5, (8 / 400 + 0.01) ** -0.5], rtol=0.05)


def test_a_model_may_compute_with_the_values_of_its_arrays():
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3])

    def model(groups, y):
        count = len(np.unique(groups))  # would raise of a traced array
        with numpyro.plate("group", count):
            mu = numpyro.sample("mu", dist.Normal(0, 10))
        numpyro.sample("y", dist.Normal(mu[groups], 1), obs=y)

    fit = elbojax.fit_model(KEY, model, groups, Y)
    exact = np.array([Y[groups == g].sum() for g in range(4)]) / (2 + 0.01)
    np.testing.assert_allclose(fit.mean()["mu"], exact, atol=0.05)
    with pytest.raises(ValueError, match="sizes as Python ints"):
        elbojax.fit_model_batch(KEY, model, groups[None], Y[None])


@pytest.mark.parametrize("kind", ["array", "series", "frame"])
def test_what_is_changed_in_place_is_seen(kind):
    pandas = pytest.importorskip("pandas")
    made = {"array": np.array, "series": pandas.Series, "frame": lambda y: pandas.DataFrame({"y": y})}[kind]
    y = made([1.0, 1.0, 5.0, 5.0])

    def model(y):
        values = np.asarray(y)[:, 0] if kind == "frame" else np.asarray(y)  # so that no array of it is data
        mu = numpyro.sample("mu", dist.Normal(0, 10))
        numpyro.sample("y", dist.Normal(mu, 1), obs=jnp.asarray(values))

    before = elbojax.fit_model(KEY, model, y).mean()["mu"]
    if kind == "frame":
        y["y"] = [2.0, 2.0, 7.0, 7.0]
    else:
        y[:] = [2.0, 2.0, 7.0, 7.0]
    after = elbojax.fit_model(KEY, model, y).mean()["mu"]
    np.testing.assert_allclose([before, after], np.array([12, 18]) / 4.01, atol=0.03)


def test_many_data_sets():
    y = np.random.default_rng(0).normal(size=(5, 8)) + np.arange(5)[:, None]
    fits = elbojax.fit_model_batch(KEY, conjugate, y, scale=2.0)
    exact = (y.sum(1) / 4) / (8 / 4 + 0.01)
    np.testing.assert_allclose(fits.mean()["mu"], exact, atol=0.05)
    one = fits[3]
    assert one.model.observed["y"].tolist() == y[3].tolist()
    np.testing.assert_allclose(one.evaluate().mean()["double"], 2 * exact[3], atol=0.1)
    assert one.predict(jax.random.key(1))["y"].mean() == pytest.approx(exact[3], abs=0.3)
    assert elbojax.loo(one).elpd == pytest.approx(elbojax.loo(fits[3]).elpd) and len(elbojax.loo(one).pointwise) == 8
    with pytest.raises(ValueError, match=r"same leading axis of models, got \{'y': 5, 'scale': 4\}"):
        elbojax.fit_model_batch(KEY, conjugate, y, np.ones(4))


def test_many_data_sets_with_groups():
    def model(group, y):
        with numpyro.plate("group", 3):
            mu = numpyro.sample("mu", dist.Normal(0, 10))
        numpyro.sample("y", dist.Normal(mu[group], 1), obs=y)  # an array of NumPy could not be indexed by a traced one

    group = np.array([[0, 0, 1, 1, 2, 2, 0, 1], [2, 2, 1, 1, 0, 0, 0, 1]])
    y = np.stack([Y, -Y])
    fits = elbojax.fit_model_batch(KEY, model, group, y)
    exact = [[y[m][group[m] == g].sum() / ((group[m] == g).sum() + 0.01) for g in range(3)] for m in range(2)]
    np.testing.assert_allclose(fits.mean()["mu"], exact, atol=0.06)


def test_supports_that_differ_among_data_sets_raise():
    def model(y):
        numpyro.sample("high", dist.Uniform(0, jnp.max(y) + 1))
        numpyro.sample("y", dist.Normal(0, 1), obs=y)

    assert elbojax.from_numpyro(model, Y).support["high"].contains(28.0)
    with pytest.raises(ValueError, match="'high' differs from data set to data set"):
        elbojax.fit_model_batch(KEY, model, np.stack([Y, 2 * Y]))


def test_discrete_latents_are_summed_out():
    pytest.importorskip("funsor")
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.normal(-2, 1, 30), rng.normal(2, 1, 50)])

    def model(y):
        w = numpyro.sample("w", dist.Beta(1, 1))
        with numpyro.plate("n", len(y)):
            z = numpyro.sample("z", dist.Bernoulli(w), infer={"enumerate": "parallel"})
            numpyro.sample("y", dist.Normal(4 * z - 2, 1), obs=y)

    fit = elbojax.fit_model(KEY, model, y)
    # The same sum by quadrature.
    w = (np.arange(2000) + 0.5) / 2000
    normal = lambda at: np.exp(-0.5 * (y[:, None] - at) ** 2)  # noqa: E731
    log_p = np.sum(np.log(w * normal(2) + (1 - w) * normal(-2)), axis=0)
    p = np.exp(log_p - log_p.max()) / np.sum(np.exp(log_p - log_p.max()))
    mean = np.sum(p * w)
    assert float(fit.mean()["w"]) == pytest.approx(mean, abs=0.1 * np.sqrt(np.sum(p * (w - mean) ** 2)))
    assert fit.predict(jax.random.key(1), num_samples=50)["y"].shape == (50, 80)
    # Each row given the parameters, its label summed out.
    w = fit.evaluate(lambda z: z["w"]).values[:3, None]
    labels = np.log(w) + stats.norm.logpdf(y, 2), np.log1p(-w) + stats.norm.logpdf(y, -2)
    np.testing.assert_allclose(fit.log_likelihood()["y"][:3], np.logaddexp(*labels), rtol=1e-6)
    assert elbojax.loo(fit).khat.max() < 0.7


def chain_of_labels(y):
    stay = numpyro.sample("stay", dist.Beta(2, 2))
    z = 0
    for t, each in enumerate(y):
        p = jnp.where(z == 1, stay, 1 - stay)
        z = numpyro.sample(f"z{t}", dist.Bernoulli(p), infer={"enumerate": "parallel"})
        numpyro.sample(f"y{t}", dist.Normal(2.0 * z - 1, 0.7), obs=each)


@pytest.mark.slow
def test_observations_of_a_chain_of_labels_are_left_out_given_the_others():
    """By enumeration of all 64 paths; one observation is 245 nats less likely under one label."""
    pytest.importorskip("funsor")
    y = np.array([-0.8, 0.3, 1.4, 0.2, -60.0, 1.0])
    paths = np.array(list(itertools.product([0, 1], repeat=6)))
    move = paths != np.concatenate([np.zeros((64, 1), int), paths[:, :-1]], axis=1)
    moved = np.where(paths == 1, np.where(move, 0.2, 0.8), np.where(move, 0.2, 0.8))
    each = stats.norm.logpdf(y, 2 * paths - 1, 0.7)

    def log_p(out):
        return logsumexp(np.sum(np.log(moved), axis=1) + np.sum(np.delete(each, out, axis=1), axis=1))

    with jax.enable_x64(True):
        model = elbojax.from_numpyro(chain_of_labels, y)
        found = model.log_likelihood({"stay": jnp.asarray(0.8)}, model.data)
    for t in range(6):
        assert float(found[f"y{t}"]) == pytest.approx(log_p([]) - log_p([t]), rel=1e-9)


def test_what_cannot_be_left_out_one_by_one_says_so():
    pytest.importorskip("funsor")
    from numpyro.contrib.control_flow import scan

    def model(y):
        stay = numpyro.sample("stay", dist.Beta(2, 2))

        def step(z, y):
            z = numpyro.sample("z", dist.Bernoulli(jnp.where(z == 1, stay, 1 - stay)), infer={"enumerate": "parallel"})
            numpyro.sample("y", dist.Normal(2.0 * z - 1, 0.7), obs=y)
            return z, None

        scan(step, 0, y)

    one = elbojax.from_numpyro(model, np.array([-0.8, 0.3, 1.4]))
    assert one.log_likelihood is None


def test_an_observation_of_scale_two_is_left_out_as_two():
    """Against the normal predictive density of both copies given the others."""

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 2))
        with numpyro.plate("n", len(y)), numpyro.handlers.scale(scale=2.0):
            numpyro.sample("y", dist.Normal(mu, 1), obs=y)

    y = np.array([0.3, -0.4, 1.2, 2.0])
    fit = elbojax.fit_model(KEY, model, y)
    with pytest.warns(UserWarning, match=r"y is scaled in the model \(numpyro.handlers.scale\).*as s copies"):
        found = elbojax.loo(fit)
    for n in range(4):
        precision = 0.25 + 6
        mean, cover = 2 * np.delete(y, n).sum() / precision, np.eye(2) + 1 / precision
        exact = stats.multivariate_normal(np.full(2, mean), cover).logpdf([y[n], y[n]])
        assert found.pointwise[n] == pytest.approx(exact, abs=0.05)


def unobserved(y=None):
    numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0, 1)), 1), obs=y)


def with_param(y):
    numpyro.sample("y", dist.Normal(numpyro.param("mu", 0.0), 1), obs=y)


def subsampled(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("n", 8, subsample_size=4) as i:
        numpyro.sample("y", dist.Normal(mu, 1), obs=y[i])


def moving(y):
    high = numpyro.sample("high", dist.HalfNormal(1))
    numpyro.sample("x", dist.Uniform(0, high))
    numpyro.sample("y", dist.Normal(0, 1), obs=y)


def counted(y):
    numpyro.sample("count", dist.Poisson(3.0))
    numpyro.sample("mu", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(0, 1), obs=y)


def nothing_latent(y):
    numpyro.sample("y", dist.Normal(0, 1), obs=y)


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        (unobserved, (), "no site of the model is observed.*pass the data, which go to obs=; the sites are mu, y"),
        (with_param, (Y,), "'mu' is a numpyro.param.*numpyro.sample"),
        (subsampled, (Y,), "plate 'n' takes a subsample of 4 of 8.*fit_minibatches"),
        (moving, (Y,), r"support of site 'x' \(Uniform\) depends on other sites.*u ~ Uniform"),
        (counted, (Y,), r"'count' \(Poisson\) has no finite support"),
        (nothing_latent, (Y,), "no continuous latent site"),
    ],
)
def test_models_that_do_not_fit(model, args, message):
    with pytest.raises(ValueError, match=message):
        elbojax.fit_model(KEY, model, *args)


def test_misuse():
    with pytest.raises(TypeError, match="must be a NumPyro model .* got ndarray"):
        elbojax.fit_model(KEY, Y)
    with pytest.raises(TypeError, match="got Normal"):
        elbojax.fit_model(KEY, dist.Normal)
    bound = elbojax.from_numpyro(conjugate, Y)
    assert elbojax.fit_model(KEY, bound, max_seconds=100.0).certificate.certified
    with pytest.raises(TypeError, match="got the argument 'scale'; settings that go with it are max_gradients"):
        elbojax.fit_model(KEY, bound, scale=1.0)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
        elbojax.fit_model(KEY, conjugate)


def test_without_numpyro_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpyro", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'elbojax\[interop\]'"):
        elbojax.from_numpyro(conjugate, Y)


def test_a_fit_of_a_log_density_says_what_it_lacks():
    fit = elbojax.fit(KEY, lambda z: -0.5 * z["a"] ** 2, {"a": 0.0})
    with pytest.raises(ValueError, match="predict needs to know how data come about.*simulate="):
        fit.predict(KEY)
    with pytest.raises(ValueError, match="a function"):
        fit.evaluate()
    with pytest.raises(ValueError, match="log_likelihood needs to know"):
        elbojax.loo(fit)
    assert fit.predict(KEY, 2.0, simulate=lambda key, z, by: by * z["a"], num_samples=7).shape == (7,)


def test_files_and_trees_leave_the_model_out(schools, tmp_path):
    schools.save(tmp_path / "fit.npz")
    loaded = elbojax.load(tmp_path / "fit.npz")
    assert loaded.model is None and loaded.mean()["mu"] == schools.mean()["mu"]
    again = jax.tree.map(lambda x: x, schools)
    assert again.model is schools.model


def levels_and_slopes(x, group, y=None):
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    with numpyro.plate("group", 8):
        a = numpyro.sample("a", dist.Normal(0, scale))
    b = numpyro.sample("b", dist.Normal(jnp.zeros(3), jnp.array([2.0, 0.002, 2000.0])).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=a[group] + x @ b), obs=y)


@functools.cache
def nuts_of_levels_and_slopes():
    """Compiled once for the data of all seeds."""
    kernel = numpyro.infer.NUTS(levels_and_slopes)
    return numpyro.infer.MCMC(kernel, num_warmup=1000, num_samples=8000, progress_bar=False, jit_model_args=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_hierarchical_logistic_equals_nuts(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 3)) * np.array([1.0, 1000.0, 0.001])
    group = rng.integers(0, 8, 200)
    y = rng.random(200) < 1 / (1 + np.exp(-(x @ np.array([1.0, 0.001, -500.0]) + rng.normal(size=8)[group])))

    fit = elbojax.fit_model(jax.random.key(seed), levels_and_slopes, x, group, y=y.astype(float))
    mcmc = nuts_of_levels_and_slopes()
    mcmc.run(jax.random.key(100 + seed), x, group, y=y.astype(float))
    assert fit.certificate.certified
    for name, draws in mcmc.get_samples().items():
        error = (np.asarray(fit.mean()[name]) - np.mean(draws, 0)) / np.std(draws, 0)
        np.testing.assert_allclose(error, 0, atol=0.12)
