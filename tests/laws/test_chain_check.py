"""`chain_check` passes what is right and refuses what is wrong, from a family and from draws, and raises on misuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from benchmarks.problems import made_wrong as suite
from elbojax.results import Agreement

D = 20
SEEDS = (0, 1, 2)


def of(name):
    return next(target for target in suite.TARGETS if name in target.name)


def checked(target, wrong, seed, **options):
    data = target.data(D)
    q = suite.made(target, wrong, D)
    return elbojax.chain_check(
        jax.random.key(seed), q, target.log_density, data=data, support=target.support, **options
    )


@pytest.mark.parametrize("name", ("Gaussian", "skewed", "logistic", "t(10)", "hierarchy"))
def test_what_is_right_agrees(name):
    found = [checked(of(name), suite.RIGHT_ONE, seed) for seed in SEEDS]
    assert not any(one.agreement == Agreement.SHIFTED for one in found)
    assert sum(bool(one) for one in found) >= 2, found


def test_precision_of_the_session_changes_no_verdict(precision):
    assert checked(of("logistic"), suite.RIGHT_ONE, 0).agreement == Agreement.AGREES
    assert checked(of("logistic"), suite.WRONG[2], 0).agreement == Agreement.SHIFTED


@pytest.mark.parametrize("wrong", suite.WRONG, ids=lambda wrong: wrong.name)
def test_what_is_wrong_is_called_shifted(wrong):
    near = wrong.name == "mean + 0.15 sd, one"
    for seed in SEEDS:
        found = checked(of("skewed"), wrong, seed)
        assert found.agreement == Agreement.SHIFTED or near and not found, found


def test_what_is_wrong_by_little_never_passes():
    wrong = suite.Wrong("mean + 0.13 sd, one", shift=0.13)
    assert not any(checked(of("Gaussian"), wrong, seed) for seed in SEEDS)


@pytest.mark.parametrize("shift", (0.0, 0.4))
def test_shifts_are_those_that_were_made(shift):
    """Errors are honest: standardised by them, what is measured less what was made is standard normal."""
    target, scores = of("Gaussian"), []
    for seed in SEEDS:
        found = checked(target, suite.Wrong("", shift=shift, all=True), seed)
        means = found.shifts[:D]
        scores.append((means + shift) / found.errors[:D])
    scores = np.concatenate(scores)
    assert abs(np.mean(scores)) < 4 * np.sqrt((1 + 2 * suite.PHI / (1 - suite.PHI)) / scores.size)
    assert 0.7 < np.std(scores) < 1.3
    assert np.max(np.abs(scores)) < 5


def test_draws_from_elsewhere_are_what_is_reported():
    """Means and sds are those of the very draws; half of a chain that has drifted is shifted."""
    rng = np.random.default_rng(0)
    z = {"a": rng.normal(size=(4000, 3)), "tau": rng.gamma(3.0, size=4000)}
    log_density = lambda p: -0.5 * jnp.sum(p["a"] ** 2) + 2 * jnp.log(p["tau"]) - p["tau"]  # noqa: E731
    support = {"tau": "positive"}
    found = elbojax.chain_check(jax.random.key(0), z, log_density, support=support)
    assert found.agreement == Agreement.AGREES, found
    at = found.names.index("mean tau")
    np.testing.assert_allclose(found.reported[at], z["tau"].mean())
    np.testing.assert_allclose(found.found[at], 3.0, atol=0.15)
    off = {"a": z["a"], "tau": z["tau"] * 1.2}
    assert elbojax.chain_check(jax.random.key(0), off, log_density, support=support).agreement == Agreement.SHIFTED


def test_functions_are_numbers_too():
    """A q with right margins that are wrongly independent: a product of coordinates has another mean, a difference another sd."""
    p = elbojax.full_rank(jnp.zeros(2), jnp.linalg.cholesky(jnp.array([[1.0, 0.5], [0.5, 1.0]])))
    q = elbojax.mean_field(jnp.zeros(2), jnp.ones(2))
    functions = {"product": lambda z: z[0] * z[1], "pair": lambda z: jnp.stack([z[0] - z[1], z[0] + z[1]])}
    found = elbojax.chain_check(jax.random.key(0), q, p.log_prob, functions=functions)
    code = dict(zip(found.names, found.agreements, strict=True))
    assert found.agreement == Agreement.SHIFTED
    assert code["sd pair[0]"] == code["correlation z[0], z[1]"] == Agreement.SHIFTED
    assert code["mean z[0]"] != Agreement.SHIFTED
    assert "mean product" in found.names


def test_a_widened_start_finds_what_lies_beyond():
    """Of two modes within reach of the widened q, chains begun at q alone know one."""
    log_density = lambda z: jnp.logaddexp(-0.5 * z[0] ** 2, -0.5 * (z[0] - 6.0) ** 2) - 0.5 * z[1] ** 2  # noqa: E731
    q = elbojax.mixture(
        jnp.zeros(2), jax.vmap(lambda m: elbojax.mean_field(m, jnp.ones(2)))(jnp.array([[0.0, 0], [6, 0]]))
    )
    assert elbojax.chain_check(jax.random.key(0), q, log_density).agreement != Agreement.SHIFTED
    lopsided = elbojax.mean_field(jnp.array([4.0, 0.0]), jnp.array([2.0, 1.0]))
    assert not elbojax.chain_check(jax.random.key(0), lopsided, log_density)


def test_what_is_slow_to_explore_is_not_called_right():
    """A multivariate Student t keeps its scale: no coordinate shows it."""
    log_density = lambda z: -0.5 * (5 + D) * jnp.log1p(jnp.sum(z**2) / 5)  # noqa: E731
    rng = np.random.default_rng(1)
    z = rng.normal(size=(20000, D)) * np.sqrt(0.6)  # as if 5 degrees of freedom had no tails
    assert not elbojax.chain_check(jax.random.key(0), z, log_density, max_gradients=20_000)


def test_a_q_outside_of_the_posterior_is_shifted_or_raises():
    inside = lambda z: jnp.where(z[0] > 0, -0.5 * jnp.sum(z**2), -jnp.inf)  # noqa: E731
    q = elbojax.mean_field(jnp.zeros(2), jnp.ones(2))
    found = elbojax.chain_check(jax.random.key(0), q, inside)
    assert found.agreement == Agreement.SHIFTED and 0.3 < found.outside < 0.7
    with pytest.raises(ValueError, match="finite at none of 256 draws"):
        elbojax.chain_check(jax.random.key(0), elbojax.mean_field(jnp.full(2, -30.0), jnp.ones(2)), inside)


def test_budget_and_repetition():
    q = elbojax.mean_field(jnp.zeros(3), jnp.ones(3))
    one, two = (elbojax.chain_check(jax.random.key(3), q, q.log_prob) for _ in range(2))
    np.testing.assert_array_equal(one.shifts, two.shifts)
    short = elbojax.chain_check(jax.random.key(3), q, q.log_prob, max_gradients=1)
    assert short.num_gradients <= one.num_gradients
    assert str(one) == one.summary() == repr(one)
    assert one.names[0] in str(one) and "more" in one.summary(2)


LOG_DENSITY = lambda z: -0.5 * jnp.sum(z**2)  # noqa: E731
MISUSE = {
    "a string": ("z", {}, TypeError, "Family, or draws"),
    "draws of integers": (np.zeros((200, 2), int), {}, TypeError, "floating-point"),
    "one draw": (np.ones(2), {}, ValueError, "100 draws or more"),
    "axes exchanged": (np.random.default_rng(0).normal(size=(2, 200)), {}, ValueError, "100 draws or more"),
    "leaves that differ": ({"a": np.ones((200, 1)), "b": np.ones((100, 1))}, {}, ValueError, "differ in their leading axis"),
    "NaN": (np.full((200, 2), np.nan), {}, ValueError, "not finite"),
    "constant": (np.ones((200, 2)), {}, ValueError, "no finite sd above zero"),
    "outside the support": (np.random.default_rng(0).normal(size=(200, 2)) + 2, {"support": "positive"}, ValueError, "support"),
    "tolerance": (np.ones((200, 2)), {"tolerance": 0}, ValueError, "tolerance"),
    "chains": (np.ones((200, 2)), {"num_chains": 2}, ValueError, "num_chains"),
    "budget": (np.ones((200, 2)), {"max_gradients": -1}, ValueError, "max_gradients"),
    "functions": (np.ones((200, 2)), {"functions": [jnp.sum]}, TypeError, "functions must be a dict"),
    "a function of trees": (
        np.random.default_rng(0).normal(size=(200, 2)), {"functions": {"f": lambda z: (z, z)}}, TypeError, "must return"
    ),
    "data that is not taken": (np.random.default_rng(0).normal(size=(200, 2)), {"data": np.ones(3)}, TypeError, "argument"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISUSE, ids=str)
def test_misuse_raises(case):
    q, options, error, words = MISUSE[case]
    with pytest.raises(error, match=words):
        elbojax.chain_check(jax.random.key(0), q, LOG_DENSITY, **options)


def test_a_stacked_q_raises():
    q = jax.vmap(lambda m: elbojax.mean_field(m, jnp.ones(2)))(jnp.zeros((3, 2)))
    with pytest.raises((TypeError, ValueError)):
        elbojax.chain_check(jax.random.key(0), q, LOG_DENSITY)


def test_a_key_that_is_none_raises():
    with pytest.raises(TypeError, match="key"):
        elbojax.chain_check(0, elbojax.mean_field(jnp.zeros(2), 1.0), LOG_DENSITY)
