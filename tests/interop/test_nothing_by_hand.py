"""What a person who wrote a density had to write besides, for predictions, leave-one-out and tables: each is one call.

Models of NumPyro, PyMC and Stan are in test_six_lines.py, test_pymc.py and test_six_lines_stan.py.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("arviz_base")

RNG = np.random.default_rng(0)
X = np.linspace(-1, 1, 24)
Y = 1 + 2 * X + 0.5 * RNG.normal(size=24)


def mean(z, x):
    return z["a"] + z["b"] * x


def log_likelihood(z, data):
    x, y = data
    return jax.scipy.stats.norm.logpdf(y, mean(z, x), z["noise"])


def log_density(z, data):
    return jnp.sum(log_likelihood(z, data)) - 0.5 * (z["a"] ** 2 + z["b"] ** 2) - z["noise"]


def simulate(key, z, x):
    return mean(z, x) + z["noise"] * jax.random.normal(key, x.shape)


@pytest.fixture(scope="module")
def fit():
    start = {"a": 0.0, "b": 0.0, "noise": 1.0}
    return elbojax.fit(jax.random.key(0), log_density, start, data=(X, Y), support={"noise": "positive"})


def deterministic_quantities(fit):
    found = fit.evaluate(lambda z: {"ratio": z["b"] / z["a"]})
    return 1 < found.mean()["ratio"] < 3 and "ratio" in str(found)


def posterior_predictive(fit):
    new = fit.predict(jax.random.key(1), X, simulate=simulate)
    return new.shape == (1000, 24) and np.abs(new.mean(axis=0) - (1 + 2 * X)).max() < 0.5


def pointwise_log_likelihood(fit):
    return fit.log_likelihood(log_likelihood, (X, Y)).shape[1:] == (24,)


def leave_one_out(fit):
    found = elbojax.loo(fit, log_likelihood, (X, Y))
    return np.isfinite(found.elpd) and len(found.pointwise) == 24


def comparison_by_loo(fit):
    found = elbojax.compare({name: elbojax.loo(fit, log_likelihood, (X, Y)) for name in ("one", "same")})
    return np.allclose(found.difference, 0)


def all_groups_with_dims_and_coords(fit):
    tree = fit.to_arviz(
        log_likelihood=lambda z: {"y": log_likelihood(z, (X, Y))},
        simulate=lambda key, z: {"y": simulate(key, z, X)},
        observed={"y": Y},
        dims={"y": ["row"]},
        coords={"row": X},
    )
    groups = {"posterior", "log_likelihood", "posterior_predictive", "observed_data"}
    return groups <= set(tree.children) and tree["log_likelihood"]["y"].dims[-1] == "row"


def quantiles(fit):
    return fit.quantile([0.05, 0.95])["b"].shape == (2,)


def data_frame(fit):
    pytest.importorskip("pandas")
    return len(fit.summary().to_dataframe()) == 3


def start_of_nuts(fit):
    return fit.nuts_start(4).positions["a"].shape == (4,)


def table_in_a_notebook(fit):
    return "<table" in fit._repr_html_() and len(repr(fit)) < 2000


STEPS = (
    deterministic_quantities,
    posterior_predictive,
    pointwise_log_likelihood,
    leave_one_out,
    comparison_by_loo,
    all_groups_with_dims_and_coords,
    quantiles,
    data_frame,
    start_of_nuts,
    table_in_a_notebook,
)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_is_one_call(step, fit):
    assert fit.certificate.certified and step(fit)
