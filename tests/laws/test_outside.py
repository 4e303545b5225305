"""What lies far outside of the draws of a check, and evidences that draws of chains contradict."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import elbojax
from elbojax.cascade.importance import Outcome
from elbojax.cascade.stages.chains import _with_sound_evidence
from elbojax.families import FullRank


def rare(z, data):
    """A standard Gaussian, and a wide one of little weight."""
    each = lambda sd: jnp.sum(-0.5 * (z / sd) ** 2 - jnp.log(sd))  # noqa: E731
    return jnp.logaddexp(jnp.log1p(-data["weight"]) + each(1.0), jnp.log(data["weight"]) + each(data["sd"]))


@pytest.mark.parametrize("weight, sd", [(0.02, 10.0), (0.05, 8.0)])
def test_a_rare_wide_component_is_weighed_or_there_is_no_sd(weight, sd):
    true = np.sqrt(1 - weight + weight * sd**2)
    for seed in (0, 1, 2):
        data = {"weight": jnp.asarray(weight), "sd": jnp.asarray(sd)}
        fit = elbojax.fit(jax.random.key(seed), rare, jnp.ones(5), data=data, max_gradients=30_000)
        if fit.certificate.certified:
            found = np.asarray(fit.sd())
            np.testing.assert_allclose(found[np.isfinite(found)] / true, 1, atol=0.1)


@pytest.mark.parametrize("df", (None, 8))
def test_where_there_is_nothing_outside_it_takes_64_log_densities(df):
    log_density = (lambda z: -0.5 * z @ z) if df is None else (lambda z: jnp.sum(jax.scipy.stats.t.logpdf(z, df)))
    counts = []
    for largest in (20, 0):
        with elbojax.thresholds.overridden(OUTER_LARGEST=largest):
            c = elbojax.fit(jax.random.key(0), log_density, jnp.ones(3)).certificate
        assert c.certified
        counts.append((int(c.num_gradients), int(c.num_log_densities)))
    assert counts[0][0] == counts[1][0]
    assert counts[0][1] - counts[1][1] in (64, 128)  # of the first answer, and of that of a later stage


@pytest.mark.parametrize("half", (False, True))
def test_evidence_that_draws_contradict_has_no_error(half):
    """Of two Gaussians, Z = 1, a q of one of them has an evidence of 1/2; a q of all has 1."""
    rng = np.random.default_rng(0)
    at = np.array([5.0, 0.0]) if half else np.zeros(2)
    draws = rng.standard_normal((200, 64, 2)) + np.where(rng.random((200, 64, 1)) < 0.5, at, -at)
    log_p = np.logaddexp(*[stats.norm.logpdf(draws - s * at).sum(axis=-1) for s in (1, -1)]) - np.log(2)
    outcome = elbojax.fit(jax.random.key(0), lambda z: -0.5 * z @ z, jnp.zeros(2))
    q = FullRank(at, np.zeros(2), np.zeros((2, 2)))
    certificate = outcome.certificate._replace(log_evidence=-np.log(2) if half else 0.0, log_evidence_se=0.005)
    found = _with_sound_evidence(Outcome(q, np.zeros((1, 2)), np.zeros(1), certificate), draws, log_p).certificate
    assert np.isinf(found.log_evidence_se) == half
