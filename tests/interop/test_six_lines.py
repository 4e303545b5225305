"""NumPyro models as their users write them: in a few lines to a forest plot, a predictive check and LOO, equal to NUTS."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

numpyro = pytest.importorskip("numpyro")
arviz_stats = pytest.importorskip("arviz_stats")
pytest.importorskip("matplotlib").use("Agg")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # ArviZ's plots for Python 3.11, 0.8, reach for it without importing it; Matplotlib 3.13 will have it no more.
    pytest.importorskip("matplotlib.style.core")
    arviz_plots = pytest.importorskip("arviz_plots")
from arviz_base import from_numpyro  # noqa: E402

import elbojax  # noqa: E402

dist = numpyro.distributions


def eight_schools():
    def model(sigma, y=None):
        mu = numpyro.sample("mu", dist.Normal(0, 5))
        tau = numpyro.sample("tau", dist.HalfCauchy(5))
        with numpyro.plate("school", 8):
            theta = numpyro.sample("theta", dist.Normal(mu, tau))
            numpyro.sample("y", dist.Normal(theta, sigma), obs=y)

    sigma = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    # NUTS misses the neck of the centred form: the reference is by a reparameterisation of NumPyro.
    reference = numpyro.handlers.reparam(model, config={"theta": numpyro.infer.reparam.LocScaleReparam(0)})
    return model, (sigma,), {"y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])}, reference


def hierarchical_logistic():
    """Predictors on scales of 1, 1,000 and 0.001."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)) * np.array([1.0, 1000.0, 0.001])
    group = rng.integers(0, 8, 200)
    logits = x @ np.array([1.0, 0.001, -500.0]) + rng.normal(size=8)[group]

    def model(x, group, y=None):
        scale = numpyro.sample("scale", dist.HalfNormal(1))
        slope = numpyro.sample("slope", dist.Normal(jnp.zeros(3), jnp.array([2.0, 0.002, 2000.0])).to_event(1))
        with numpyro.plate("group", 8):
            level = numpyro.sample("level", dist.Normal(0, scale))
        with numpyro.plate("row", x.shape[0]):
            numpyro.sample("y", dist.Bernoulli(logits=level[group] + x @ slope), obs=y)

    return model, (x, group), {"y": (rng.random(200) < 1 / (1 + np.exp(-logits))).astype(float)}, model


def gaussian_process():
    rng = np.random.default_rng(1)
    t = np.linspace(0, 4, 20)

    def model(t, y=None):
        length = numpyro.sample("length", dist.InverseGamma(5, 5))
        height = numpyro.sample("height", dist.HalfNormal(1))
        noise = numpyro.sample("noise", dist.HalfNormal(0.5))
        kernel = height**2 * jnp.exp(-0.5 * ((t[:, None] - t) / length) ** 2) + 1e-6 * jnp.eye(t.size)
        white = numpyro.sample("white", dist.Normal(0, 1).expand([t.size]).to_event(1))
        f = numpyro.deterministic("f", jnp.linalg.cholesky(kernel) @ white)
        with numpyro.plate("time", t.size):
            numpyro.sample("y", dist.Normal(f, noise), obs=y)

    return model, (t,), {"y": np.sin(2 * t) + 0.3 * rng.normal(size=20)}, model


def mixture():
    rng = np.random.default_rng(2)
    y = np.concatenate([rng.normal(-1.5, 0.7, size=60), rng.normal(1.5, 1.0, size=90)])

    def model(size, y=None):
        share = numpyro.sample("share", dist.Dirichlet(jnp.ones(2)))
        transform = dist.transforms.OrderedTransform()
        centre = numpyro.sample(
            "centre", dist.TransformedDistribution(dist.Normal(jnp.zeros(2), 2).to_event(1), transform)
        )
        width = numpyro.sample("width", dist.HalfNormal(2).expand([2]).to_event(1))
        with numpyro.plate("row", size):
            parts = dist.Normal(centre, width)
            numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(share), parts), obs=y)

    return model, (150,), {"y": y}, model


def correlated():
    rng = np.random.default_rng(3)
    y = rng.normal(size=(60, 3)) @ np.linalg.cholesky([[1, 0.6, 0.2], [0.6, 2, -0.3], [0.2, -0.3, 0.5]]).T

    def model(size, y=None):
        mean = numpyro.sample("mean", dist.Normal(0, 2).expand([3]).to_event(1))
        scale = numpyro.sample("scale", dist.HalfNormal(2).expand([3]).to_event(1))
        factor = numpyro.sample("factor", dist.LKJCholesky(3, 2.0))
        with numpyro.plate("row", size):
            numpyro.sample("y", dist.MultivariateNormal(mean, scale_tril=scale[:, None] * factor), obs=y)

    return model, (60,), {"y": y}, model


def by_nuts(model, args, data):
    kernel = numpyro.infer.NUTS(model, target_accept_prob=0.95)
    chains = numpyro.infer.MCMC(
        kernel, num_warmup=600, num_samples=1000, num_chains=4, chain_method="vectorized", progress_bar=False
    )
    chains.run(jax.random.key(7), *args, **data)
    with jax.legacy_prng_key("allow"):  # which ArviZ makes
        return from_numpyro(chains, log_likelihood=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of plots
@pytest.mark.parametrize("write", [eight_schools, hierarchical_logistic, gaussian_process, mixture, correlated])
def test_in_six_lines_and_equal_to_nuts(write):
    model, args, data, reference = write()

    fit = elbojax.fit_model(jax.random.key(0), model, *args, **data)
    tree = fit.to_arviz()
    arviz_plots.plot_forest(tree)
    arviz_plots.plot_ppc_dist(tree)
    loo = elbojax.loo(fit)

    assert fit.certificate.certified, fit
    nuts = by_nuts(reference, args, data)
    quantities = fit.evaluate() if "f" in nuts["posterior"] else None
    for name, draws in nuts["posterior"].items():
        if name.endswith("_decentered"):
            continue
        source = fit if name in fit.mean() else quantities
        mean, sd, draws = np.asarray(source.mean()[name]), np.asarray(source.sd()[name]), np.asarray(draws)
        moving = draws.std((0, 1)) > 0  # not the zeros of a factor
        draws, mean, sd = draws[..., moving], mean[moving], sd[moving]
        ess = np.maximum(arviz_stats.base.array_stats.ess(draws, chain_axis=0, draw_axis=1), 1.0)
        spread = draws.std((0, 1))
        error = spread * np.sqrt(1 / ess + 1 / float(fit.certificate.ess))
        assert np.all(np.abs(mean - draws.mean((0, 1))) < 4.5 * error), name
        np.testing.assert_allclose(sd, spread, rtol=0.1, err_msg=name)
    theirs = arviz_stats.loo(nuts, pointwise=True)
    good = (loo.khat < loo.threshold) & (np.asarray(theirs.pareto_k) < theirs.good_k)
    assert good.mean() > 0.7, loo
    np.testing.assert_allclose(loo.pointwise[good], np.asarray(theirs.elpd_i)[good], atol=0.15)
    assert loo.pointwise[good].sum() == pytest.approx(float(np.asarray(theirs.elpd_i)[good].sum()), abs=0.3)
