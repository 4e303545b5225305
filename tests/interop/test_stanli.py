"""Stan models by stanli, an interpreter without a C++ compiler, as density objects."""

import jax
import numpy as np
import pytest
import scipy.stats

import elbojax

stanli = pytest.importorskip("stanli")

EIGHT_SCHOOLS = """
data { int<lower=0> J; array[J] real y; array[J] real<lower=0> sigma; }
parameters { real mu; real<lower=0> tau; vector[J] z; }
transformed parameters { vector[J] theta = mu + tau * z; }
model { mu ~ normal(0, 5); tau ~ cauchy(0, 5); z ~ std_normal(); y ~ normal(theta, sigma); }
"""
SCHOOLS = {
    "J": 8,
    "y": [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0],
    "sigma": [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0],
}
CONJUGATE = """
data { int N; vector[N] y; }
parameters { real m; }
model { target += normal_lpdf(m | 0, 10) + normal_lpdf(y | m, 1); }
"""


class Stan:
    """A model of Stan: its log-density on the unconstrained space, one point after the other."""

    def __init__(self, code, data):
        self.model = stanli.Model(stan_code=code, data=data)
        self.size = self.model.n_unconstrained

    def value_and_gradient(self, points):
        found = [self._at(point) for point in points]
        return np.array([value for value, _ in found]), np.stack([gradient for _, gradient in found])

    def _at(self, point):
        try:
            return self.model.log_prob_grad(point)
        except RuntimeError:  # where the density is zero
            return -np.inf, np.zeros(self.size)


def test_conjugate_normal():
    y = np.array([1.2, 0.4, 2.9, 1.1, 0.7])
    fit = elbojax.fit(jax.random.key(0), Stan(CONJUGATE, {"N": 5, "y": y.tolist()}), np.zeros(1))
    precision = 5 + 0.01
    assert fit.certificate.certified
    np.testing.assert_allclose(fit.mean(), y.sum() / precision, atol=0.02 * precision**-0.5)
    np.testing.assert_allclose(fit.sd(), precision**-0.5, rtol=0.02)
    log_evidence = scipy.stats.multivariate_normal(np.zeros(5), np.eye(5) + 100).logpdf(y)
    assert abs(fit.certificate.log_evidence - log_evidence) < 4 * fit.certificate.log_evidence_se + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_eight_schools_are_those_of_its_own_chains(seed):
    model = Stan(EIGHT_SCHOOLS, SCHOOLS)
    fit = elbojax.fit(jax.random.key(seed), model, np.zeros(model.size))
    assert fit.certificate.certified
    chains = model.model.sample(seed=seed + 1, samples=2000, refresh=0)
    mu, log_tau = np.ravel(chains["mu"]), np.log(np.ravel(chains["tau"]))
    for i, draws in enumerate([mu, log_tau]):
        assert abs(fit.mean()[i] - draws.mean()) < 0.15 * draws.std()
        assert abs(fit.sd()[i] / draws.std() - 1) < 0.15
