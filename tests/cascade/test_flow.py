"""The flow of `fit`: right on bent posteriors against quadrature, honest about modes, never worse than what was before."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status, thresholds
from elbojax.cascade import handover, single
from elbojax.cascade.exploration import chain_gradients
from elbojax.cascade.flow import bend
from elbojax.cascade.gaussian import fit_gaussian
from elbojax.results import Stage
from elbojax.workarounds.options import accepted

SEEDS = (1, 2, 3)
AWAY = np.array([60.0, 0.0])
KEYS = jnp.stack([jax.random.key(seed) for seed in SEEDS])


light = functools.partial(
    jax.jit, compiler_options=dict(accepted(jax.default_backend()))
)  # as `fit` compiles small models


def banana(z):
    """A ridge along a parabola."""
    return -0.5 * z[0] ** 2 - 0.5 * (z[1] - 3 * z[0] ** 2) ** 2


def skewed(z):
    """Logarithms of Gamma variables with shapes 0.3 and 2, turned by 30 degrees."""
    a, b = jnp.cos(jnp.pi / 6) * z[0] + 0.5 * z[1], -0.5 * z[0] + jnp.cos(jnp.pi / 6) * z[1]
    return 0.3 * a - jnp.exp(a) + 2 * b - jnp.exp(b)


def two(z):
    """A banana, and another far away."""
    return jnp.logaddexp(banana(z), banana(z - AWAY))


CASES = {banana: ((-6, 6), (-6, 110)), skewed: ((-45, 8), (-30, 8))}


def exact(log_density):
    """Log evidence, means and sds by quadrature on a grid."""
    axes = [np.linspace(*ends, 1201) for ends in CASES[log_density]]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    log_p = np.asarray(jax.vmap(jax.vmap(log_density))(jnp.asarray(grid)))
    weights = np.exp(log_p - log_p.max())
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    weights /= weights.sum()
    mean = np.einsum("ij,ijk->k", weights, grid)
    sd = np.sqrt(np.einsum("ij,ijk->k", weights, (grid - mean) ** 2))
    return np.log(np.exp(log_p - log_p.max()).sum() * cell) + log_p.max(), mean, sd


@functools.cache
def bent(log_density):
    """The stage straight after the Gaussian, one for each seed."""

    @light
    @jax.vmap
    def program(key):
        before, paths = fit_gaussian(key, log_density, jnp.zeros(2))
        return before, bend(key, log_density, before.q, paths, before, num_rounds=3)

    return program(KEYS)


@pytest.mark.slow
@pytest.mark.parametrize("log_density", CASES, ids=lambda f: f.__name__)
def test_right_on_bent_posteriors(log_density):
    before, after = bent(log_density)
    log_evidence, mean, sd = exact(log_density)
    c = after.certificate
    assert np.all(c.certified) and np.all(c.stage == Stage.FLOW) and np.all(c.modes == 1)
    assert np.all(c.ess > 1000)
    assert np.all(np.abs(c.log_evidence - log_evidence) < 5 * c.log_evidence_se)
    assert np.all(c.elbo < log_evidence + 4 * c.elbo_se)
    weights = np.exp(after.log_weights)
    means = np.einsum("ms,msd->md", weights, after.draws)
    sds = np.sqrt(np.einsum("ms,msd->md", weights, (after.draws - means[:, None]) ** 2))
    np.testing.assert_allclose(means, np.broadcast_to(mean, means.shape), atol=5 * np.max(c.mean_error) * sd.max())
    np.testing.assert_allclose(sds / sd, 1, atol=0.15)
    # What was used is counted: the rounds of training, the exploration checks, and the draws of the checks.
    used = c.num_gradients - before.certificate.num_gradients
    look = chain_gradients()
    assert np.all(
        np.isin(
            used, [64 * thresholds.FLOW_STEPS * rounds + look * n for rounds in (1, 2, 3) for n in range(rounds + 1)]
        )
    )
    checks = (c.num_log_densities - before.certificate.num_log_densities) / 4096
    np.testing.assert_array_equal(checks, used // (64 * thresholds.FLOW_STEPS))


@pytest.mark.slow
def test_a_mode_that_the_flow_does_not_know_of_forbids_a_certificate():
    @light
    @jax.vmap
    def program(key):
        before, paths = fit_gaussian(key, banana, jnp.zeros(2))
        elsewhere = paths._replace(modes=paths.modes.at[0].set(AWAY))
        return bend(key, two, before.q, elsewhere, before, num_rounds=1).certificate

    c = program(KEYS)
    assert np.all(c.modes == 2) and not np.any(c.certified)
    assert np.all((c.status == Status.MULTIMODAL) | (c.khat > 0.7))


@pytest.mark.slow
@pytest.mark.parametrize("worse", (True, False))
def test_never_worse_than_before(monkeypatch, worse):
    """`fit` whose stages between the Gaussian and the flow find nothing, without NUTS."""
    monkeypatch.setattr(handover, "available", lambda: False)
    (stage,) = (stage for stage in single.COMPILED if stage.name == "flow")

    def answer(*args):
        found = stage.run(*args)
        spoilt = found.certificate._replace(certified=jnp.array(False), ess=jnp.array(1.0))
        return found._replace(certificate=spoilt) if worse else found

    monkeypatch.setattr(single, "STAGES", ())
    monkeypatch.setattr(single, "COMPILED", [stage._replace(run=answer)])
    c = elbojax.fit(KEYS[0], banana, np.zeros(2)).certificate
    assert c.stage is (Stage.FULL_RANK if worse else Stage.FLOW) and c.certified is not worse
    assert c.num_gradients > 64 * thresholds.FLOW_STEPS  # used all the same


def test_only_where_a_flow_can_be():
    """Of one parameter there is nothing to bend, and of many the weights do not hold."""
    for size in (1, 51):
        (stage,) = (stage for stage in single.COMPILED if stage.name == "flow")
        assert stage.least(size, None) is None
