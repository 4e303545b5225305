"""PyMC models as they are written there: log-densities, supports, answers, and what is said of those that do not fit."""

import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest
import scipy.stats

import elbojax
from elbojax import targets

pm = pytest.importorskip("pymc", reason="PyMC 6, which goes with ArviZ 1.x, wants Python 3.12")
pt = pytest.importorskip("pytensor.tensor")
KEY = jax.random.key(0)
Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
FEW = np.array([1.0, 2.0, 3.0, 2.5])
IMPUTED = pytest.mark.filterwarnings("ignore:Data in y contains missing values")


def eight_schools():
    with pm.Model(coords={"school": list("ABCDEFGH"), "unused": [1, 2]}) as model:
        mu = pm.Normal("mu", 0, 5)
        tau = pm.HalfCauchy("tau", 5)
        z = pm.Normal("z", dims="school")
        theta = pm.Deterministic("theta", mu + tau * z, dims="school")
        pm.Normal("y", theta, pm.Data("sigma", SIGMA, dims="school"), observed=Y, dims="school")
    return model


@pytest.fixture(scope="module")
def schools():
    return elbojax.fit_model(KEY, eight_schools())


def real_and_bounded():
    a = pm.HalfNormal("a", initval=0.3)
    b = pm.Uniform("b", -1, 4)
    c = pm.Truncated("c", pm.Normal.dist(0, 2), lower=0.5)
    d = pm.Truncated("d", pm.Normal.dist(0, 2), upper=np.array([1.0, 2.0]), shape=2)
    e = pm.Beta("e", 2, 3, shape=(2, 2))
    f = pm.Normal("f", 1, 2, dims=None)
    pm.StudentT("y", nu=4, mu=a + b + c + d.sum() + e.sum(), sigma=pm.math.exp(f), observed=FEW)


def simplex():
    pm.Multinomial("y", 10, pm.Dirichlet("w", np.array([1.0, 2.0, 3.0])), observed=np.array([3, 3, 4]))


def cholesky():
    factor, *_ = pm.LKJCholeskyCov("factor", n=2, eta=2.0, sd_dist=pm.Exponential.dist(1.0))
    pm.MvNormal("y", np.zeros(2), chol=factor, observed=np.random.default_rng(0).normal(size=(9, 2)))


def covariance():
    pm.MvNormal("y", np.zeros(2), cov=pm.HalfNormal("r") * np.eye(2) + 0.1, observed=np.ones((3, 2)))


def ordered():
    start = np.array([-1.0, 1.0])
    a = pm.Normal("a", 0, 2, shape=2, transform=pm.distributions.transforms.ordered, initval=start)
    pm.NormalMixture("y", w=[0.5, 0.5], mu=a, sigma=1, observed=FEW)


def zero_sum():
    pm.Normal("y", pm.ZeroSumNormal("a", shape=4), 1, observed=FEW)


def counts():
    pm.NegativeBinomial("y", mu=pm.Gamma("m", 2, 1), alpha=pm.Weibull("k", 2, 1), observed=[1, 2, 3])


def process():
    at = np.linspace(0, 1, 6)[:, None]
    process = pm.gp.Marginal(cov_func=pm.gp.cov.ExpQuad(1, pm.Gamma("length", 2, 1)))
    process.marginal_likelihood("y", X=at, y=np.sin(9 * at[:, 0]), sigma=pm.HalfNormal("noise"))


def imputed():
    pm.Normal("y", pm.Normal("m", 2, 1), observed=[1.0, np.nan, 3.0])


def potential():
    pm.Potential("p", -0.5 * (pm.Normal("a") - 2) ** 2)


@IMPUTED
@pytest.mark.parametrize(
    "write",
    [
        simplex,
        zero_sum,
        counts,
        imputed,
        potential,
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in (real_and_bounded, cholesky, covariance, ordered, process)
        ),
    ],
)
def test_the_density_is_that_of_pymc(write):
    with pm.Model() as model:
        write()
    ours = elbojax.from_pymc(model)
    assert list(model.rvs_to_initial_values) == list(model.free_RVs)  # starts are still there
    target = targets.unconstrain(ours.log_density, ours.init, ours.support, data=ours.data)
    theirs = model.compile_logp(mode="FAST_COMPILE")
    flat = 0.5 * jax.random.normal(KEY, (4, target.size))

    @jax.jit
    @jax.vmap
    def natural(x):
        position = target.constrain(x)
        log_dets = {n: b.forward_and_log_det(b.inverse(position[n]))[1] for n, b in ours.support.items()}
        return (
            position,
            ours.log_density(position, ours.data),
            log_dets,
            target.log_density(x, ours.data),
            target.unconstrain(position),
        )

    positions, values, log_dets, whole, back = natural(flat)
    np.testing.assert_allclose(back, flat, atol=1e-6)
    np.testing.assert_allclose(values + sum(log_dets.values()), whole, rtol=1e-9)
    for row in range(len(flat)):
        point, jacobians = {}, 0.0
        for variable in model.free_RVs:
            value, transform = model.rvs_to_values[variable], model.rvs_to_transforms[variable]
            position = positions[variable.name][row]
            if transform is None:
                point[value.name] = position
                continue
            free = transform.forward(pt.constant(np.asarray(position)), *variable.owner.inputs)
            point[value.name] = free.eval(mode="FAST_COMPILE")
            jacobians += (
                transform.log_jac_det(pt.constant(point[value.name]), *variable.owner.inputs)
                .eval(mode="FAST_COMPILE")
                .sum()
            )
        assert float(values[row]) == pytest.approx(float(theirs(point)) - float(jacobians), rel=1e-8, abs=1e-8)


def test_starts_are_those_of_pymc_and_supports_ours_where_there_are():
    with pm.Model() as model:
        real_and_bounded()
    ours = elbojax.from_pymc(model)
    assert ours.init["a"] == pytest.approx(0.3)
    kinds = {name: type(bijector).__name__ for name, bijector in ours.support.items()}
    assert kinds == {
        "a": "Positive", "b": "Interval", "c": "LowerBounded", "d": "UpperBounded", "e": "Interval", "f": "Real"
    }  # fmt: skip
    with pm.Model() as model:
        simplex()
    first, second = (elbojax.from_pymc(model) for _ in range(2))
    assert first.support["w"] == second.support["w"] and first.log_density == second.log_density
    bijector = first.support["w"]
    assert bijector.contains(np.array([0.2, 0.3, 0.5])) and not bijector.contains(np.array([0.2, 0.3, 0.6]))
    assert bijector.unconstrained_shape((5, 3)) == (5, 2) and bijector.constrained_shape((5, 2)) == (5, 3)
    with pytest.raises(ValueError, match=r"has shape \(3,\), got \(4,\)"):
        bijector.unconstrained_shape((4,))


def test_the_answer_has_names_space_dims_and_coords(schools):
    assert schools.certificate.certified and set(schools.mean()) == {"mu", "tau", "z"}
    # By long NUTS, and the same from three programs.
    assert float(schools.mean()["mu"]) == pytest.approx(4.4, abs=0.15)
    assert float(schools.mean()["tau"]) == pytest.approx(3.6, abs=0.15)
    assert schools.evaluate().mean()["theta"][0] == pytest.approx(6.2, abs=0.25)
    assert elbojax.loo(schools).elpd == pytest.approx(-30.7, abs=0.3)  # as of the same model in NumPyro and Stan
    tree = schools.to_arviz(num_samples=100)
    for group, name in [
        ("posterior", "theta"),
        ("posterior", "z"),
        ("log_likelihood", "y"),
        ("posterior_predictive", "y"),
    ]:
        assert tree[group][name].dims == ("chain", "draw", "school") and tree[group][name].shape == (1, 100, 8)
    assert list(tree["observed_data"]["y"].coords["school"].values) == list("ABCDEFGH")
    assert set(tree["constant_data"]) == {"sigma"} and tree["constant_data"]["sigma"].dims == ("school",)
    np.testing.assert_array_equal(tree["constant_data"]["sigma"], SIGMA)


def test_predictions(schools):
    new = schools.predict(jax.random.key(1))
    assert set(new) == {"y"} and new["y"].shape == (1000, 8)
    theta_sd = schools.evaluate().sd()["theta"]
    np.testing.assert_allclose(new["y"].std(0), np.hypot(theta_sd, SIGMA), rtol=0.12)
    assert not np.array_equal(new["y"], schools.predict(jax.random.key(2))["y"])
    # At other data the draws of the parameters stay.
    exact = schools.predict(jax.random.key(1), sigma=1e-6 * SIGMA)
    np.testing.assert_allclose(exact["y"], exact["theta"], atol=1e-3)
    np.testing.assert_allclose(exact["theta"].std(0), theta_sd, rtol=0.12)
    prior = schools.predict_prior(jax.random.key(2), 400)
    assert {"mu", "tau", "theta", "y"} <= set(prior) and prior["mu"].std() == pytest.approx(5, rel=0.2)
    with pytest.raises(TypeError, match=r"got the argument 'x'; its pm.Data are sigma"):
        schools.predict(KEY, x=SIGMA)
    with pytest.raises(TypeError, match="got 1 positional arguments"):
        schools.predict(KEY, SIGMA)


@pytest.mark.slow
def test_other_data_compile_nothing_and_other_lengths_are_predicted():
    x = np.linspace(-1, 1, 30)
    counts = np.random.default_rng(0).poisson(np.exp(1 + x))
    with pm.Model(coords={"place": np.arange(30)}) as model:
        at = pm.Data("x", x, dims="place")
        seen = pm.Data("seen", counts, dims="place")
        rate = pm.Deterministic("rate", pm.math.exp(pm.Normal("a", 0, 2) + pm.Normal("b", 0, 2) * at), dims="place")
        pm.Poisson("y", rate, observed=seen, dims="place")
        fit = elbojax.fit_model(KEY)
    new = fit.predict(KEY, x=np.array([1.5, 2.0]))
    assert new["y"].shape == new["rate"].shape == (1000, 2)
    np.testing.assert_allclose(new["y"].mean(0), new["rate"].mean(0), rtol=0.1)
    before = float(fit.mean()["a"])
    with model:
        pm.set_data({"seen": 2 * counts})
    again = elbojax.fit_model(KEY, model)
    assert again.model.log_density is not fit.model.log_density and again.model.log_density == fit.model.log_density
    assert float(again.mean()["a"]) == pytest.approx(before + np.log(2), abs=0.1)
    assert again.seconds.compiling < 0.05
    # What was fitted first still knows its own data.
    np.testing.assert_array_equal(fit.to_arviz(num_samples=10)["observed_data"]["y"], counts)
    assert float(fit.predict(KEY, num_samples=500)["y"].mean()) == pytest.approx(counts.mean(), rel=0.1)


def test_evidence_of_a_conjugate_model_and_constants_are_there():
    with pm.Model() as model:
        simplex()
    fit = elbojax.fit_model(KEY, model, max_seconds=100.0)
    np.testing.assert_allclose(fit.mean()["w"], np.array([4, 5, 7]) / 16, atol=0.01)
    exact = scipy.stats.dirichlet_multinomial([1, 2, 3], 10).logpmf([3, 3, 4])
    assert fit.certificate.log_evidence == pytest.approx(exact, abs=0.05)
    with pytest.raises(TypeError, match="a model of PyMC has its data, and got 1 more arguments"):
        elbojax.fit_model(KEY, model, FEW)
    with pytest.raises(TypeError, match="got the argument 'y'; settings that go with it are max_gradients"):
        elbojax.fit_model(KEY, model, y=FEW)
    with pytest.raises(TypeError, match="a model of PyMC is of one data set"):
        elbojax.fit_model_batch(KEY, model)


@IMPUTED
def test_missing_entries_are_inferred_and_potentials_counted():
    with pm.Model() as model:
        imputed()
    fit = elbojax.fit_model(KEY, model)
    assert float(fit.mean()["m"]) == pytest.approx(2.0, abs=0.02)
    assert float(fit.sd()["y_unobserved"][0]) == pytest.approx(np.sqrt(1 + 1 / 3), abs=0.03)
    with pm.Model() as model:
        potential()
    fit = elbojax.fit_model(KEY, model)
    assert float(fit.mean()["a"]) == pytest.approx(1.0, abs=0.02)
    with pytest.raises(ValueError, match="predict needs 'simulate' of the model"):
        fit.predict(KEY)


def discrete():
    pm.Normal("y", pm.Poisson("k", 3), 1, observed=FEW)


def discrete_missing():
    pm.Poisson("y", pm.Gamma("m", 2, 1), observed=np.ma.masked_values([1, -1, 3], -1))


def unobserved():
    pm.Normal("a")


def without_latents():
    pm.Normal("y", 0, 1, observed=FEW)


def moving():
    pm.Normal("y", pm.Uniform("x", 0, pm.HalfNormal("high")), 1, observed=FEW)


def minibatch():
    pm.Normal("y", pm.Normal("a"), 1, observed=pm.Minibatch(FEW, batch_size=2), total_size=4)


def simulator():
    pm.Simulator("y", lambda rng, a, size=None: rng.normal(a, size=size), pm.Normal("a"), observed=FEW)


def without_jax():
    from pytensor.graph.op import Op
    from pytensor.tensor import dscalar

    class Odd(Op):
        itypes = otypes = (dscalar,)

        def perform(self, node, inputs, outputs):
            outputs[0][0] = 2 * inputs[0]

    pm.Normal("y", Odd()(pm.Normal("a")), 1, observed=FEW)


@IMPUTED
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (discrete, r"free variable 'k' \(Poisson\) is discrete.*pm.Mixture"),
        (discrete_missing, r"'y' has missing entries and is discrete \(Poisson\).*leave them out"),
        (unobserved, "no variable of the model is observed.*observed=; the free variables are a"),
        (without_latents, "no free variable"),
        (moving, r"support of variable 'x' \(Uniform\) depends on high: .*u = pm.Uniform"),
        (minibatch, "'y' is of a minibatch.*fit_minibatches"),
        (simulator, "'y' is a pm.Simulator, which has no log-density"),
        (without_jax, "no JAX version of an operation in the model .*Odd.*jax_funcify"),
    ],
)
def test_models_that_do_not_fit(write, message):
    with pm.Model() as model:
        write()
    with pytest.raises(ValueError, match=message):
        elbojax.fit_model(KEY, model)


def test_misuse(monkeypatch):
    with pytest.raises(TypeError, match="not called in the block of"):
        elbojax.fit_model(KEY)
    with pytest.raises(TypeError, match="a pymc.Model is wanted, got ndarray"):
        elbojax.from_pymc(FEW)
    with pytest.raises(TypeError, match="a pymc.Model, a StanModel or a Model, got Normal"):
        elbojax.fit_model(KEY, pm.Normal)
    with pm.Model() as model, pytest.warns(UserWarning, match="'a' is an angle"):
        pm.Normal("y", pm.VonMises("a", 0, 1), observed=FEW)
        assert type(elbojax.from_pymc(model).support["a"]).__name__ == "Interval"
    with pm.Model() as model, pytest.warns(UserWarning, match="reads beyond the end of an array.*numbered from 0"):
        pm.Normal("y", pm.Normal("a", shape=3)[np.array([1, 2, 3, 3])], observed=FEW)
        elbojax.from_pymc(model)
    monkeypatch.setitem(sys.modules, "pymc", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'elbojax\[pymc\]'"):
        elbojax.from_pymc(None)


@pytest.mark.slow
@pytest.mark.parametrize("double", [False, True])
def test_the_precision_of_the_session_stays(double):
    program = f"""
import warnings
warnings.simplefilter("ignore")
import pymc as pm, jax, elbojax
jax.config.update("jax_enable_x64", {double})
with pm.Model() as model:
    pm.Normal("y", pm.Normal("a"), observed=[1.0, 2.0])
with jax.enable_x64({not double}):
    elbojax.from_pymc(model)
fit = elbojax.fit_model(jax.random.key(0), model)
assert jax.config.jax_enable_x64 is {double} and len(jax.devices()) == 1, jax.devices()
assert fit.mean()["a"].dtype == ("float64" if {double} else "float32")
assert abs(fit.certificate.log_evidence + 3.3878) < 0.01, fit.certificate
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def poisson_groups():
    rng = np.random.default_rng(4)
    group, x = rng.integers(0, 6, 90), rng.normal(size=90)
    y = rng.poisson(np.exp(0.7 + 0.4 * x + 0.5 * rng.normal(size=6)[group]))
    with pm.Model(coords={"group": list("uvwxyz"), "row": np.arange(90)}) as model:
        spread = pm.HalfNormal("spread", 1)
        level = pm.Normal("level", pm.Normal("mean", 0, 2), spread, dims="group")
        pm.Poisson("y", pm.math.exp(level[group] + pm.Normal("slope", 0, 1) * x), observed=y, dims="row")
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Passing a dict or None as alias_mapping")  # of ArviZ 0.23, by Matplotlib
@pytest.mark.parametrize(
    ("write", "checks"), [(eight_schools, "plot_ppc_dist"), (poisson_groups, "plot_ppc_rootogram")]
)
def test_in_six_lines_and_equal_to_nuts(write, checks):
    arviz = pytest.importorskip("arviz")
    array_stats = pytest.importorskip("arviz_stats.base").array_stats
    if not hasattr(arviz, checks):
        checks = "plot_ppc"  # before ArviZ 1.0
    pytest.importorskip("matplotlib").use("Agg")
    model = write()

    fit = elbojax.fit_model(jax.random.key(0), model)
    tree = fit.to_arviz()
    arviz.plot_forest(tree)
    getattr(arviz, checks)(tree)
    loo = elbojax.loo(fit)

    assert fit.certificate.certified
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        idata = pm.sample(
            4000, tune=1500, chains=4, cores=1, random_seed=1, target_accept=0.95, progressbar=False, model=model
        )
        pm.compute_log_likelihood(idata, model=model, progressbar=False)
    for name, mean in {**fit.mean(), **(fit.evaluate().mean() if model.deterministics else {})}.items():
        draws = np.asarray(idata["posterior"][name])
        effective = array_stats.ess(draws, chain_axis=0, draw_axis=1)
        error = np.hypot(draws.std((0, 1)) / np.sqrt(effective), draws.std((0, 1)) / np.sqrt(fit.certificate.ess))
        assert np.all(np.abs(np.asarray(mean) - draws.mean((0, 1))) < 4.5 * error), name
        fitted_sd = fit.sd()[name] if name in fit.sd() else fit.evaluate().sd()[name]
        np.testing.assert_allclose(fitted_sd, draws.std((0, 1)), rtol=0.06)
    theirs = arviz.loo(idata)
    assert loo.elpd == pytest.approx(float(theirs.elpd if hasattr(theirs, "elpd") else theirs.elpd_loo), abs=0.15)


def test_starts_in_the_space_of_pymc(schools):
    start = schools.nuts_start(num_chains=3)
    assert set(start.unconstrained) == {"mu", "tau_log__", "z"} and start.positions["z"].shape == (3, 8)
    np.testing.assert_allclose(start.unconstrained["tau_log__"], np.log(start.positions["tau"]))
    assert start.inverse_mass_matrix.shape == (10, 10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_chains_of_pymc_and_nutpie_begin_there(schools):
    model = eight_schools()
    start = schools.nuts_start(num_chains=2)
    begun = [{name: x[chain] for name, x in start.positions.items()} for chain in range(2)]
    idata = pm.sample(200, tune=200, chains=2, cores=1, initvals=begun, progressbar=False, random_seed=0, model=model)
    assert abs(float(idata["posterior"]["mu"].mean()) - schools.mean()["mu"]) < 1.5
    nutpie = pytest.importorskip("nutpie")
    compiled = nutpie.compile_pymc_model(model, initial_points=begun[0])
    idata = nutpie.sample(compiled, draws=500, tune=200, chains=2, cores=1, seed=0, progress_bar=False)
    assert abs(float(idata["posterior"]["mu"].mean()) - schools.mean()["mu"]) < 1.0
