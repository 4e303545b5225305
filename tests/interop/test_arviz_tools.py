"""What a tree is for: ArviZ's tables and leave-one-out, and files, with what the `interop` extra brings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from scipy.special import logsumexp
from scipy.stats import norm

import elbojax

pytest.importorskip("xarray_einstats")
pytest.importorskip("h5netcdf")
stats = pytest.importorskip("arviz_stats")
y = np.random.default_rng(0).normal(size=(3, 20))


def log_density(z, data):
    return -0.5 * z["mu"] ** 2 - 0.5 * jnp.sum((data - z["mu"]) ** 2 / z["s"] ** 2) - 21 * jnp.log(z["s"]) - z["s"]


SETTINGS = dict(init={"mu": 0.0, "s": 1.0}, support={"s": "positive"})


@pytest.fixture(scope="module", params=["one", "batch"])
def fit(request):
    key = jax.random.key(0)
    if request.param == "one":
        return elbojax.fit(key, log_density, data=y[0], **SETTINGS)
    return elbojax.fit_batch(key, log_density, data=y, **SETTINGS)


def test_summary(fit):
    table = stats.summary(fit.to_arviz(), round_to="none")
    assert np.isfinite(np.asarray(table["mean"], float)).all() and len(table) == (6 if fit.batched else 2)
    means = np.concatenate([np.ravel(fit.mean()["mu"]), np.ravel(fit.mean()["s"])])
    sds = np.concatenate([np.ravel(fit.sd()["mu"]), np.ravel(fit.sd()["s"])])
    np.testing.assert_allclose((np.asarray(table["mean"], float) - means) / sds, 0, atol=0.3)


def test_files(fit, tmp_path):
    tree = fit.to_arviz()
    tree.to_netcdf(tmp_path / "fit.nc")
    with xarray.open_datatree(tmp_path / "fit.nc") as held:
        xarray.testing.assert_equal(held["posterior"].to_dataset(), tree["posterior"].to_dataset())
        assert held["certificate"].attrs["status"] == tree["certificate"].attrs["status"]
        np.testing.assert_array_equal(held.attrs["effective_draws"], tree.attrs["effective_draws"])


def exact_leave_one_out(y):
    """Sum of log p(y_i | the others), on a grid of mu and s."""
    mu, s = np.meshgrid(np.linspace(-3, 3, 601), np.linspace(0.1, 4, 401), indexing="ij")
    each = norm.logpdf(y[:, None, None], mu, s)
    log_p = -0.5 * mu**2 - s - np.log(s) + each.sum(axis=0)
    return sum(logsumexp(log_p) - logsumexp(log_p - one) for one in each)


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")
def test_leave_one_out():
    fit = elbojax.fit(jax.random.key(0), log_density, data=y[0], **SETTINGS)
    tree = fit.to_arviz()
    mu, s = tree["posterior"]["mu"], tree["posterior"]["s"]
    each = xarray.DataArray(y[0], dims="i")
    pointwise = -0.5 * ((each - mu) / s) ** 2 - np.log(s) - 0.5 * np.log(2 * np.pi)
    tree["log_likelihood"] = xarray.DataTree(xarray.Dataset({"y": pointwise.transpose("chain", "draw", "i")}))
    found = stats.loo(tree)
    np.testing.assert_allclose(found.elpd, exact_leave_one_out(y[0]), atol=0.15)
