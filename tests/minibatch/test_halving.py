import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elbojax import Status, as_loss, elbo_entropy, mean_field, svi, targets, thresholds
from elbojax.minibatch import SuccessiveHalving, default_optimizers, halving, successive_halving
from elbojax.minibatches import reshuffle, take
from elbojax.solvers.svi import SviState

X = 3.0 + np.random.default_rng(0).normal(size=400)
LOG_JOINT = targets.subsample(lambda z: -0.5 * z[0] ** 2, lambda z, x: -0.5 * (x - z[0]) ** 2, 400)
LOSS = as_loss(elbo_entropy, LOG_JOINT, num_samples=2)
MEAN, SD = X.sum() / 401, 401**-0.5
START = mean_field(jnp.zeros(1), 0.2)
BROKEN = optax.stateless(lambda updates, params: jax.tree.map(lambda g: g * jnp.nan, updates))
SIX = {
    "slow": optax.adam(1e-4),
    "slower": optax.adam(1e-5),
    "right": optax.adam(0.1),
    "broken": BROKEN,
    "schedule free": optax.contrib.schedule_free_adamw(1e-3),
    "sgd": optax.sgd(1e-7),
}


def run_race(seed, optimizers=SIX, start=START):
    return successive_halving(jax.random.key(seed), LOSS, start, X, batch_size=40, optimizers=optimizers, num_steps=30)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_right_one_wins(seed):
    won = run_race(seed)
    assert won.winner == "right" and won.status == Status.CONVERGED
    assert won.num_steps == 6 * 30 + 2 * 90
    ran = dict(zip(won.names, won.rounds, strict=True))
    assert ran["right"] == 2 and sorted(won.rounds) == [1, 1, 1, 1, 2, 2]
    losses = dict(zip(won.names, won.losses, strict=True))
    assert np.isnan(losses["broken"]) and losses["slow"] < losses["slower"]
    assert np.abs(won.q.loc[0] - MEAN) < 2 * SD
    assert "right" in str(won)


def test_scores_are_the_exact_bound():
    """Minus the ELBO of three distributions in closed form, and errors that are those of the difference."""
    qs = [mean_field(jnp.array([m]), s) for m, s in ((2.9, 0.05), (2.0, 0.2), (MEAN, SD))]
    scores = np.asarray(halving.check(jax.random.key(3), qs, jnp.asarray(X), None, LOSS, 40, thresholds.RACE_CHECKS))
    for score, q in zip(scores.T, qs, strict=True):
        mean, variance = float(q.loc[0]), float(jnp.exp(2 * q.log_scale[0]))
        energy = 0.5 * (mean**2 + variance) + 0.5 * np.sum((X - mean) ** 2 + variance)
        exact = energy - float(q.entropy())
        assert abs(score.mean() - exact) < 4 * score.std() / np.sqrt(thresholds.RACE_CHECKS)
    assert np.std(scores[:, 0] - scores[:, 2]) < np.std(scores[:, 0])


def test_a_lane_takes_the_steps_of_svi():
    """Of three optimisers two are active: their states are those of steps by hand, the third's is untouched."""
    optimizers = (optax.adam(0.1), optax.sgd(1e-3), optax.contrib.schedule_free_adamw(0.05))
    states = tuple(SviState(START, optimizer.init(START)) for optimizer in optimizers)
    key, done, steps = jax.random.key(5), 7, 4
    key_noise, key_rows = jax.random.split(key)
    ended, averages = halving._round(
        key_noise, key_rows, done, states, jnp.array([0, 2]), jnp.asarray(X), None, LOSS, optimizers, 40, steps
    )
    jax.tree.map(np.testing.assert_array_equal, ended[1], states[1])
    for k in (0, 2):
        solver = svi(LOSS, optimizers[k])
        state, path, step = solver.init(START), [], jax.jit(solver.step)
        for t in range(done, done + steps):
            minibatch = take(jnp.asarray(X), reshuffle(key_rows, t, 400, 40))
            state, info = step(jax.random.fold_in(key_noise, t), state, minibatch)
            path.append(info.q)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8), ended[k], state)
        np.testing.assert_allclose(averages[k].loc, (path[2].loc + path[3].loc) / 2, rtol=1e-10)


def test_nobody_may_be_worse_than_the_start():
    best = mean_field(jnp.array([MEAN]), SD)
    won = run_race(0, {"wild": optax.adam(3.0)}, best)
    assert won.status == Status.STALLED
    np.testing.assert_array_equal(won.q.loc, best.loc)


def test_where_all_break_down_the_start_comes_back():
    won = run_race(0, {"broken": BROKEN})
    assert won.status == Status.NON_FINITE and np.isnan(won.losses).all()
    np.testing.assert_array_equal(won.q.loc, START.loc)


def test_the_portfolio_is_the_same_at_every_call():
    one, other = default_optimizers(), default_optimizers()
    assert len(one) == 10 and all(one[name] is other[name] for name in one)


def test_misuse():
    with pytest.raises(ValueError, match="at least one optimiser, got none"):
        run_race(0, {})
    with pytest.raises(TypeError, match=r"optimizers\['a'\] must be a GradientTransformation, got float"):
        run_race(0, {"a": 0.1})
    with pytest.raises(ValueError, match="batch_size must be between 1 and the number of rows 400, got 401"):
        successive_halving(jax.random.key(0), LOSS, START, X, batch_size=401)
    with pytest.raises(ValueError, match="num_steps must be at least 2, got 1"):
        successive_halving(jax.random.key(0), LOSS, START, X, batch_size=4, num_steps=1)


def test_the_former_name_of_rounds_warns():
    won = SuccessiveHalving(None, 0, "a", ("a",), np.zeros(1), np.zeros(1), np.array([2]), 2, None)
    with pytest.warns(DeprecationWarning, match="rounds"):
        assert won.heats is won.rounds
