"""Stan programs as their users write them: in a few lines to a forest plot, a predictive check and LOO, equal to Stan's NUTS."""

import warnings

import jax
import numpy as np
import pytest

import elbojax

stanli = pytest.importorskip("stanli")
pytest.importorskip("bridgestan")
arviz_base = pytest.importorskip("arviz_base")
arviz_stats = pytest.importorskip("arviz_stats")
pytest.importorskip("matplotlib").use("Agg")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("matplotlib.style.core")
    arviz_plots = pytest.importorskip("arviz_plots")

EIGHT_SCHOOLS = """
data { int<lower=0> J; array[J] real y; array[J] real<lower=0> sigma; }
parameters { real mu; real<lower=0> tau; vector[J] z; }
transformed parameters { vector[J] theta = mu + tau * z; }
model { mu ~ normal(0, 5); tau ~ cauchy(0, 5); z ~ std_normal(); y ~ normal(theta, sigma); }
generated quantities {
  vector[J] log_lik; vector[J] y_rep;
  for (j in 1:J) { log_lik[j] = normal_lpdf(y[j] | theta[j], sigma[j]); y_rep[j] = normal_rng(theta[j], sigma[j]); }
}
"""
ROBUST_REGRESSION = """
data { int N; int K; matrix[N, K] x; vector[N] y; }
parameters { real alpha; vector[K] beta; real<lower=0> sigma; real<lower=1> nu; }
model {
  alpha ~ normal(0, 5); beta ~ normal(0, 2); sigma ~ normal(0, 2); nu ~ gamma(2, 0.1);
  y ~ student_t(nu, alpha + x * beta, sigma);
}
generated quantities {
  vector[N] log_lik; vector[N] y_rep;
  for (n in 1:N) {
    log_lik[n] = student_t_lpdf(y[n] | nu, alpha + x[n] * beta, sigma);
    y_rep[n] = student_t_rng(nu, alpha + x[n] * beta, sigma);
  }
}
"""


def schools():
    y, sigma = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    return (
        EIGHT_SCHOOLS,
        {"J": 8, "y": y, "sigma": sigma},
        {"dims": {"theta": ["school"]}, "coords": {"school": list("ABCDEFGH")}},
    )


def regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    y = 1 + x @ np.array([2.0, -0.5]) + 0.7 * rng.standard_t(4, size=80)
    return ROBUST_REGRESSION, {"N": 80, "K": 2, "x": x, "y": y}, {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of plots
@pytest.mark.parametrize("write", [schools, regression])
def test_in_six_lines_and_equal_to_nuts(write):
    code, data, axes = write()

    fit = elbojax.fit_model(jax.random.key(0), elbojax.from_stan(stan_code=code, data=data))
    tree = fit.to_arviz(observed={"y_rep": data["y"]}, **axes)
    arviz_plots.plot_forest(tree)
    arviz_plots.plot_ppc_dist(tree, var_names="y_rep")
    loo = elbojax.loo(fit)

    assert fit.certificate.certified, fit
    given = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in data.items()}
    chains = stanli.Model(stan_code=code, data=given).sample(seed=1, samples=4000, chains=4, refresh=0)
    shaped = {
        name: np.reshape(chains[name], (4, 4000, *np.shape(chains[name])[1:])) for name in (*fit.mean(), "log_lik")
    }
    for name, mean in fit.mean().items():
        draws, spread = shaped[name], shaped[name].std((0, 1))
        effective = arviz_stats.base.array_stats.ess(draws, chain_axis=0, draw_axis=1)
        error = spread * np.sqrt(1 / effective + 1 / float(fit.certificate.ess))
        assert np.all(np.abs(np.asarray(mean) - draws.mean((0, 1))) < 4.5 * error), name
        np.testing.assert_allclose(fit.sd()[name], spread, rtol=0.08, err_msg=name)
    held = {"posterior": {"mu": shaped[next(iter(fit.mean()))]}, "log_likelihood": {"y": shaped["log_lik"]}}
    theirs = arviz_stats.loo(arviz_base.from_dict(held), pointwise=True)
    good = (loo.khat < loo.threshold) & (np.asarray(theirs.pareto_k) < theirs.good_k)
    assert good.mean() > 0.7, loo
    np.testing.assert_allclose(loo.pointwise[good], np.asarray(theirs.elpd_i)[good], atol=0.15)
    assert loo.pointwise[good].sum() == pytest.approx(float(np.asarray(theirs.elpd_i)[good].sum()), abs=0.3)
