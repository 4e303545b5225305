"""The certificate says what its docstring says, in words that hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax.cascade.importance import check_importance
from elbojax.diagnostics import khat_threshold
from elbojax.diagnostics.pareto import smooth
from elbojax.results import certificate as certificates
from elbojax.types import Status


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("shift", [0.0, 700.0, -1e4])
@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_the_mean_of_smoothed_ratios_is_that_of_arviz(spread, shift, seed):
    array_stats = pytest.importorskip("arviz_stats.base").array_stats
    raw = np.random.default_rng(seed).normal(size=1000) * spread
    weights, _ = array_stats.psislw(-raw)
    # Smoothing leaves all but the tail alone, so that any ratio below it gives the normaliser away.
    middle = np.argsort(raw)[500]
    wanted = raw[middle] - weights[middle] - np.log(1000) + shift
    with jax.enable_x64(True):
        np.testing.assert_allclose(float(smooth(jnp.asarray(raw + shift))[1]), wanted, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("df", [3, 5])
def test_fit_and_assess_agree_on_the_evidence(df, precision):
    """One name, one number: against the closed form, zero, within the errors that both state."""
    log_density = lambda z: jnp.sum(jax.scipy.stats.t.logpdf(z, df))  # noqa: E731
    fit = elbojax.fit(jax.random.key(0), log_density, jnp.zeros(2))
    assessed = elbojax.assess(jax.random.key(1), elbojax.full_rank(jnp.zeros(2), 1.5 * jnp.eye(2)), log_density)
    for found in (fit.certificate, assessed):
        assert abs(float(found.log_evidence)) < 4 * float(found.log_evidence_se) + 1e-3


def test_the_evidence_of_a_check_is_that_of_smoothed_weights():
    """Heavy ratios, where raw and smoothed differ."""
    from elbojax.cascade.importance import Cost, envelope
    from elbojax.results.certificate import Stage

    with jax.enable_x64(True):
        q = elbojax.full_rank(jnp.zeros(1), jnp.eye(1))
        log_density = lambda z: scipy_t(z[0], 3.0)  # noqa: E731
        cost = Cost(*jnp.zeros((2,), jnp.int32), jnp.ones((), jnp.int32), *jnp.zeros((2,)))
        found = check_importance(
            jax.random.key(0), q, envelope(q), log_density, Stage.FULL_RANK, jnp.int32(Status.CONVERGED), cost
        )
        ratios = jax.vmap(log_density)(found.draws) - jax.vmap(envelope(q).log_prob)(found.draws)
        wanted, raw = smooth(ratios)[1], jax.nn.logsumexp(ratios) - np.log(len(ratios))
        assert abs(wanted - raw) > 1e-4, "raw and smoothed are alike: nothing is tested"
        np.testing.assert_allclose(found.certificate.log_evidence, wanted, rtol=1e-10)


def scipy_t(x, df):
    return jax.scipy.stats.t.logpdf(x, df)


@pytest.mark.parametrize("num_draws", [512, 1024, 4096])
def test_the_threshold_is_that_for_the_number_of_draws(num_draws):
    """k-hat between the threshold for few draws and 0.7: refused with few."""
    from elbojax.cascade.importance import Cost, envelope
    from elbojax.results.certificate import Stage

    with jax.enable_x64(True):
        q = elbojax.full_rank(jnp.zeros(1), jnp.eye(1))
        log_density = lambda z: scipy_t(z[0] / 1.2, 3.0)  # noqa: E731
        cost = Cost(*jnp.zeros((2,), jnp.int32), jnp.ones((), jnp.int32), *jnp.zeros((2,)))
        converged = jnp.int32(Status.CONVERGED)

        def look(key):
            return check_importance(
                key, q, envelope(q), log_density, Stage.FULL_RANK, converged, cost, num_draws=num_draws, enough=1
            ).certificate

        many = jax.jit(jax.vmap(look))(jax.random.split(jax.random.key(0), 64))
        assert not np.any(many.certified & (many.khat >= khat_threshold(num_draws)))
        np.testing.assert_array_equal(np.isfinite(many.log_evidence_se), many.khat < khat_threshold(num_draws))


def test_an_estimate_is_not_called_a_bound():
    fit = elbojax.fit(jax.random.key(0), lambda z: -0.5 * jnp.sum(z**2), jnp.zeros(2))
    text = str(fit)
    assert "at most" not in text and "chi-square estimate" in text
    assert "agree" not in text and "stay unseen" in text
    c = fit.certificate._replace(modes=3)
    assert "2 of the paths ended in another mode" in certificates.report(c, "")
