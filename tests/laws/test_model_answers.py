"""What fits of NumPyro models say of data: predictions and leave-one-out against closed forms."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

numpyro = pytest.importorskip("numpyro")
dist = numpyro.distributions

import elbojax  # noqa: E402
from elbojax.interop.numpyro_model import from_numpyro_batch  # noqa: E402

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
Y = RNG.normal(2, 1, 10)
X = RNG.normal(size=10)


def scaled(y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 10))
    tau = numpyro.sample("tau", dist.HalfNormal(10))
    numpyro.sample("y", dist.Normal(mu, tau), obs=y)


def regression(x, y=None):
    a = numpyro.sample("a", dist.Normal(0, 10))
    x = numpyro.sample("x", dist.Normal(0, 1), obs=x)
    numpyro.sample("y", dist.Normal(a * x, 0.1), obs=y)


def switched(y=None):
    z = numpyro.sample("z", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("n", 10):
        numpyro.sample("y", dist.Normal(mu + 20 * z, 1), obs=y)


def labelled(count, y=None):
    w = numpyro.sample("w", dist.Beta(1, 1))
    with numpyro.plate("n", count):
        z = numpyro.sample("z", dist.Bernoulli(w), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(8 * z - 4, 1), obs=y)


def grouped(group, y=None, levels=5):
    mu = numpyro.sample("mu", dist.Normal(0, 10))
    with numpyro.plate("group", levels):
        theta = numpyro.sample("theta", dist.Normal(mu, 1))
    numpyro.sample("y", dist.Normal(theta[group], 1), obs=y)


def units(count, y=None):
    with numpyro.plate("unit", count):
        theta = numpyro.sample("theta", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(theta, 1), obs=y)


def masked(y):
    mu = numpyro.sample("mu", dist.Normal(0, 10))
    with numpyro.handlers.mask(mask=jnp.isfinite(y)):
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)


def improper(y, waits):
    mu = numpyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
    rate = numpyro.sample("rate", dist.ImproperUniform(dist.constraints.positive, (), (2,)))
    numpyro.sample("y", dist.Normal(mu, 1), obs=y)
    numpyro.sample("waits", dist.Exponential(rate), obs=waits)


def test_what_was_conditioned_on_stays():
    model = numpyro.handlers.condition(scaled, data={"tau": jnp.array(0.01)})
    fit = elbojax.fit_model(KEY, model, Y)
    drawn = fit.predict(KEY)
    assert set(drawn) == {"y"} and drawn["y"].shape == (1000, 10)
    # The variance of an observation is that of the noise and that of the mean, 1e-4 (1 + 1/10).
    np.testing.assert_allclose(drawn["y"].std(0), 0.01 * np.sqrt(1.1), rtol=0.12)
    prior = fit.predict_prior(KEY)
    assert set(prior) == {"mu", "y"} and np.std(prior["y"] - prior["mu"][:, None]) < 0.02
    assert len(elbojax.loo(fit).pointwise) == 10


def test_covariates_with_a_distribution_stay():
    fit = elbojax.fit_model(KEY, regression, X, 3 * X)
    at = np.array([10.0, -20.0])
    for drawn in (fit.predict(KEY, at), fit.predict(KEY, at, None)):
        assert set(drawn) == {"y"}
        np.testing.assert_allclose(drawn["y"].mean(0), 3 * at, rtol=0.02)
    # Where no data are None all that depend on a parameter are drawn: those given are there for their shape.
    np.testing.assert_allclose(fit.predict(KEY, at, np.zeros(2))["y"].mean(0), 3 * at, rtol=0.02)
    np.testing.assert_allclose(fit.predict(KEY)["y"].mean(0), 3 * X, atol=0.05)
    assert len(elbojax.loo(fit).pointwise) == 10


@pytest.mark.slow
def test_discrete_latents_are_drawn_given_the_data():
    pytest.importorskip("funsor")
    fit = elbojax.fit_model(KEY, switched, Y)
    mean = Y.sum() / 11  # with the switch at zero, which is certain
    for drawn in (fit.predict(KEY), fit.predict(KEY, None)):
        assert drawn["y"].mean() == pytest.approx(mean, abs=4 / np.sqrt(11 * 1000) + 0.1)
    signs = np.repeat([-1.0, 1.0], [3, 9])
    fit = elbojax.fit_model(KEY, labelled, 12, 4 * signs)
    np.testing.assert_allclose(fit.predict(KEY)["y"].mean(0), 4 * signs, atol=0.2)
    # Others than those seen are of the prior given the share, Beta(10, 4).
    new = fit.predict(KEY, 3, num_samples=4000)
    np.testing.assert_allclose(new["y"].mean(0), 8 * 10 / 14 - 4, atol=5 * 4 / np.sqrt(4000))


@pytest.mark.slow
def test_discrete_latents_of_a_scan_raise():
    pytest.importorskip("funsor")
    scan = pytest.importorskip("numpyro.contrib.control_flow").scan

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 3))

        def step(before, y):
            z = numpyro.sample("z", dist.Bernoulli(0.1 + 0.8 * before), infer={"enumerate": "parallel"})
            numpyro.sample("y", dist.Normal(mu * z, 0.3), obs=y)
            return z, None

        scan(step, 0, y)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = elbojax.fit_model(KEY, model, jnp.repeat(jnp.array([0.0, 3.0]), 5))
        with pytest.raises(ValueError, match="cannot draw the discrete sites z given the data"):
            fit.predict(KEY)


@pytest.mark.parametrize("count", [1, 3, 12])
def test_latents_of_another_shape_raise(count):
    fit = elbojax.fit_model(KEY, units, 10, Y)
    assert fit.predict(KEY, 10, num_samples=5)["y"].shape == (5, 10)
    with pytest.raises(ValueError, match=rf"'theta' has shape \(10,\) in the fit and \({count},\) at these"):
        fit.predict(KEY, count)


def test_groups_that_are_not_there_are_warned_of():
    group = np.arange(10) // 2
    with pytest.warns(UserWarning, match="reads beyond the end .* index 5 is out of bounds .* numbered from 0"):
        elbojax.from_numpyro(grouped, group + 1, Y)
    with pytest.warns(UserWarning, match="reads beyond the end"):
        from_numpyro_batch(grouped, np.stack([group, group + 1]), np.stack([Y, Y]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = elbojax.fit_model(KEY, grouped, group, Y)
        fit.predict(KEY, np.array([0, 4]))
    with pytest.warns(UserWarning, match="index 100 is out of bounds"):
        fit.predict(KEY, np.array([0, 100]))


def test_masked_entries_are_no_observations():
    y = Y.copy()
    y[3] = np.nan
    fit = elbojax.fit_model(KEY, masked, y)
    found = elbojax.loo(fit)
    rest = np.delete(Y, 3)
    exact = []
    for n in range(9):
        others = np.delete(rest, n)
        variance = 1 / (0.01 + 8)
        exact.append(
            -0.5 * (rest[n] - variance * others.sum()) ** 2 / (1 + variance) - 0.5 * np.log(2 * np.pi * (1 + variance))
        )
    np.testing.assert_allclose(found.pointwise, exact, atol=0.02)
    assert found.se == pytest.approx(np.sqrt(9 * np.var(exact)), rel=0.05) and found.names[3] == "y[4]"


def test_improper_priors():
    fit = elbojax.fit_model(KEY, improper, Y, np.array([1.0, 2.0]))
    assert fit.certificate.certified
    assert float(fit.mean()["mu"]) == pytest.approx(Y.mean(), abs=0.03)
    # One wait w and a flat prior: Gamma(2, w).
    np.testing.assert_allclose(fit.mean()["rate"], [2.0, 1.0], rtol=0.06)
    np.testing.assert_allclose(fit.sd()["rate"], [2**0.5, 2**-0.5], rtol=0.08)
    with pytest.raises(ValueError, match="predict_prior needs 'prior'"):
        fit.predict_prior(KEY)


def of_entries_missing(y, seen):
    mu = numpyro.sample("mu", dist.Normal(0, 10))
    numpyro.sample("y", dist.Normal(mu, 1), obs=y, obs_mask=seen)


def of_a_point(y):
    shift = numpyro.sample("shift", dist.Delta(3.0).expand([2]))
    numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0, 1)) + shift[0], 1), obs=y)


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        (of_entries_missing, (Y, Y > 2), r"obs_mask of site 'y'.*handlers.mask\(mask=...\)"),
        (of_a_point, (Y,), "'shift' is a point .*numpyro.deterministic"),
    ],
)
def test_sites_without_a_density_raise(model, args, message):
    with pytest.raises(ValueError, match=message):
        elbojax.from_numpyro(model, *args)


def test_models_of_other_data_are_not_compared():
    def model(y, scale):
        mu = numpyro.sample("mu", dist.Normal(0, scale))
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)

    one, same, other = (elbojax.fit_model(KEY, model, *args) for args in ((Y, 1.0), (Y, 2.0), (np.exp(Y), 1.0)))
    assert elbojax.compare({"one": one, "same": same}).certified.all()
    with pytest.raises(ValueError, match="same observations, and number 0 is .* for 'one' and .* for 'other'"):
        elbojax.compare({"one": one, "other": other})


def test_leave_one_out_of_a_fit_that_is_not_certified_says_so():
    def each(z, y):
        return -0.5 * (y - z["a"]) ** 2

    def log_density(z, y):  # flat in b
        return jnp.sum(each(z, y)) + 0 * z["b"]

    fit = elbojax.fit(KEY, log_density, {"a": 0.0, "b": 0.0}, data=Y, max_gradients=2000)
    assert not fit.certificate.certified
    found = elbojax.loo(fit, each, Y)
    assert not found.certified and "NOT certified" in str(found)
    assert not elbojax.compare({"one": found, "two": found}).certified.any()


def test_one_observation_has_no_standard_error():
    each = lambda z, y: -0.5 * (y - z) ** 2 - 0.5 * jnp.log(2 * jnp.pi)  # noqa: E731
    fit = elbojax.fit(KEY, lambda z, y: jnp.sum(each(z, y)) - 0.5 * z**2, 0.0, data=np.array([3.0]))
    assert np.isnan(elbojax.loo(fit, each, np.array([3.0])).se)
