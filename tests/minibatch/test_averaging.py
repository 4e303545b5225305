import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbojax import Status, as_loss, elbo_entropy, mean_field, svi, targets, thresholds
from elbojax.minibatch import averaging, run_until_stationary

X = 3.0 + np.random.default_rng(0).normal(size=400)
LOG_JOINT = targets.subsample(lambda z: -0.5 * z[0] ** 2, lambda z, x: -0.5 * (x - z[0]) ** 2, 400)
LOSS = as_loss(elbo_entropy, LOG_JOINT, num_samples=2)
MEAN, SD = X.sum() / 401, 401**-0.5
ADAM = optax.adam(0.01)


def start(loc=0.0):
    return svi(LOSS, ADAM).init(mean_field(jnp.array([loc]), 0.2))


def run_settle(seed=0, state=None, loss=LOSS, **settings):
    settings = {"batch_size": 40, "tolerance": 0.05} | settings
    return run_until_stationary(
        jax.random.key(seed), loss, start() if state is None else state, X, optimizer=ADAM, **settings
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_finds_the_posterior_and_knows_how_well(seed):
    found = run_settle(seed)
    assert found.status == Status.CONVERGED and found.rhat <= thresholds.AVERAGE_RHAT and found.mcse < 0.05
    assert abs(found.q.loc[0] - MEAN) / SD < 4 * 0.05
    assert abs(found.q.log_scale[0] - np.log(SD)) < 4 * 0.05
    np.testing.assert_allclose(found.moments[:, 0], [found.q.loc[0], found.q.log_scale[0]], rtol=1e-6)
    assert 0 < found.window <= found.num_steps


def test_too_few_steps():
    found = run_settle(max_steps=300)
    assert found.status == Status.MAX_STEPS and found.num_steps == 200
    assert found.rhat > thresholds.AVERAGE_RHAT  # it has come from far away


def test_at_rate_zero_nothing_moves():
    found = run_settle(rate=0.0)
    assert found.status == Status.CONVERGED and found.num_steps == 200 and found.mcse == 0
    np.testing.assert_allclose(found.q.loc, 0.0)


def test_a_chain_that_breaks_down_gives_back_what_it_had():
    def breaks(key, q, data):
        return jnp.where(q.loc[0] > 1.0, jnp.nan, 1.0) * LOSS(key, q, data)

    found = run_settle(loss=breaks, state=start(0.9))
    assert found.status == Status.NON_FINITE and found.num_steps == 0
    np.testing.assert_allclose(found.q.loc, 0.9)


def blocks(chain, length):
    """Means and mean squares [blocks, 2, D] of a chain [T, 2, D]."""
    pieces = chain.reshape(-1, length, *chain.shape[1:])
    return pieces.mean(1), (pieces**2).mean(1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_error_of_an_autoregressive_chain(seed):
    """x' = a x + e: the standard error of the mean of T is 1 / ((1 - a) sqrt(T)) for unit noise."""
    rng = np.random.default_rng(seed)
    noise, chain, a = rng.normal(size=(32_000, 2, 50)), [], 0.9
    state = np.zeros((2, 50))
    for e in noise:
        state = a * state + e
        chain.append(state)
    window = averaging._window(*blocks(np.stack(chain), 500), np.log(np.full(50, 1e3)), 1e-9)
    # The means are in sds of 1000, which makes their error vanish beside that of the log-sds.
    exact = 1 / ((1 - a) * np.sqrt(32_000))
    assert window.rhat < 1.02
    assert 0.8 * exact < window.mcse < 2.0 * exact  # the largest of 50, from eight pieces each


def test_rhat_is_that_of_split_chains():
    rng = np.random.default_rng(0)
    chain = rng.normal(size=(800, 2, 3)) + np.linspace(0, 2, 800)[:, None, None]
    window = averaging._window(*blocks(chain, 25), np.zeros(3), 1e-9)
    quarters = chain.reshape(4, 200, 2, 3)
    rhat = np.sqrt(1 + quarters.mean(1).var(0, ddof=1) / quarters.var(1).mean(0))
    np.testing.assert_allclose(window.rhat, rhat.max(), rtol=1e-6)
    assert window.rhat > 1.2


def test_drifts_below_the_tolerance_count_as_still():
    chain = np.broadcast_to(np.linspace(0, 1e-3, 800)[:, None, None], (800, 2, 3))
    for tolerance, still in ((0.01, True), (1e-6, False)):
        window = averaging._window(*blocks(chain, 25), np.zeros(3), tolerance)
        assert (window.rhat < thresholds.AVERAGE_RHAT) == still


def test_memory_does_not_grow_with_the_steps():
    """A chain that never is precise enough: its blocks are merged, and it still averages a tail of it."""
    found = run_settle(tolerance=1e-6, max_steps=8_000)
    assert found.status == Status.MAX_STEPS and 4_000 <= found.num_steps <= 8_000
    assert found.window >= found.num_steps // 5


def test_needs_moments():
    with pytest.raises(TypeError, match=r"q with mean\(\) and variance\(\), got dict"):
        run_until_stationary(jax.random.key(0), LOSS, start()._replace(q={"a": 1.0}), X, optimizer=ADAM, batch_size=4)
