"""Draws in the user's space and their moments, on the host, as the target and the compiled moments have them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax import bijectors, targets
from elbojax.bijectors import Bijector
from elbojax.bijectors.base import bijector
from elbojax.results import moments, positions

LOWS = np.array([-1.0, 0.0, 5.0])
EYE = np.eye(3)
SUPPORTS = {
    "real": (bijectors.real(), np.zeros((2, 3))),
    "positive": (bijectors.positive(), np.ones(())),
    "lower_bounded": (bijectors.lower_bounded(2.5), np.full(3, 3.0)),
    "lower_bounded, single": (bijectors.lower_bounded(np.float32(2.5)), np.full(3, 3.0)),
    "lower_bounded each": (bijectors.lower_bounded(LOWS), LOWS + 1),
    "upper_bounded": (bijectors.upper_bounded(-0.3), np.full((1, 2), -1.0)),
    "interval": (bijectors.interval(-1, 3), np.zeros(4)),
    "interval each": (bijectors.interval(LOWS, LOWS + 2), LOWS + 1),
    "unit_interval": (bijectors.unit_interval(), np.full((2, 2), 0.5)),
    "affine": (bijectors.affine(LOWS, -2.0), np.zeros(3)),
    "simplex": (bijectors.simplex(), np.full(4, 0.25)),
    "simplex of one": (bijectors.simplex(), np.ones(1)),
    "simplexes": (bijectors.simplex(), np.full((2, 4), 0.25)),
    "ordered": (bijectors.ordered(), np.arange(4.0)),
    "positive_ordered": (bijectors.positive_ordered(), np.arange(1.0, 4.0)),
    "correlation": (bijectors.correlation_cholesky(), EYE),
    "correlations": (bijectors.correlation_cholesky(), np.stack([EYE, EYE])),
    "covariance": (bijectors.covariance_cholesky(), EYE),
    "chain": (bijectors.chain(bijectors.affine(0.5, 2.0), bijectors.positive()), np.ones(3)),
    "empty": (bijectors.positive(), np.zeros((0, 3))),
}


def target_of(*names):
    init = {name: SUPPORTS[name][1] for name in names}
    support = {name: SUPPORTS[name][0] for name in names}
    return targets.unconstrain(lambda z: 0.0 * sum(jnp.sum(x) for x in z.values()), init, support), init


def draws_of(size, count=500):
    draws = np.random.default_rng(0).standard_normal((count, size))
    log_weights = 0.5 * np.random.default_rng(1).standard_normal(count)
    return draws, log_weights - np.logaddexp.reduce(log_weights)


def test_every_bijector_has_a_row():
    kinds = {type(bijector) for bijector, _ in SUPPORTS.values()}
    public = [getattr(bijectors, name) for name in bijectors.__all__]
    assert {kind for kind in public if isinstance(kind, type) and issubclass(kind, Bijector)} - {Bijector} == kinds


def same(got, wanted, **close):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert np.shape(a) == np.shape(b) and np.asarray(a).dtype == np.float64
        np.testing.assert_allclose(a, b, **close)


def test_positions_moments_and_the_way_back_of_all_supports_at_once():
    target, init = target_of(*SUPPORTS)
    draws, log_weights = draws_of(target.size)
    found = positions.positions(target, draws)
    same(found, jax.jit(jax.vmap(target.constrain))(draws), rtol=1e-12, atol=1e-13)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))
    with np.errstate(divide="ignore"):
        mean, sd = positions.moments(target, draws, log_weights)
    wanted = jax.jit(lambda draws, log_weights: moments.moments(draws, log_weights, target))(draws, log_weights)
    same(mean, wanted[0], rtol=1e-10, atol=1e-12)
    same(sd, wanted[1], rtol=1e-7, atol=1e-8)
    wanted = jax.jit(lambda draws, log_weights: moments.examined(draws, log_weights, target)[2])(draws, log_weights)
    assert positions.rests_on_few(target, draws, log_weights) == bool(wanted)
    np.testing.assert_allclose(positions.flat(target, init), jax.jit(target.unconstrain)(init), rtol=1e-12, atol=1e-12)
    assert all(target.supports[i].contains(leaf[0]) for i, leaf in enumerate(jax.tree.leaves(found)))


@pytest.mark.parametrize("count", [1, 2, 4095, 4096, 4097, 9000])
def test_any_number_of_draws(count):
    target, _ = target_of("simplex", "real", "positive")
    draws, _ = draws_of(target.size, count)
    same(positions.positions(target, draws), jax.jit(jax.vmap(target.constrain))(draws), rtol=1e-12)


def test_draws_without_weight_may_be_anywhere():
    target, _ = target_of("real", "positive")
    draws, log_weights = draws_of(target.size)
    draws[3], draws[4], draws[5] = np.inf, np.nan, 1e300
    log_weights[3:6] = -np.inf
    with np.errstate(all="ignore"):
        mean, sd = positions.moments(target, draws, log_weights)
        keep = np.isfinite(log_weights)
        same((mean, sd), positions.moments(target, draws[keep], log_weights[keep]), rtol=1e-12)


@bijector
class Cube(Bijector):
    """A user's own."""

    def forward_and_log_det(self, x):
        """See `Bijector`."""
        return x**3 + x, jnp.sum(jnp.log(3 * x**2 + 1))

    def inverse(self, y):
        """See `Bijector`: Cardano."""
        root = jnp.sqrt(y**2 / 4 + 1 / 27)
        return jnp.cbrt(y / 2 + root) + jnp.cbrt(y / 2 - root)

    def contains(self, y):
        """See `Bijector`."""
        return True

    def __str__(self):
        return "a number"


def test_a_bijector_of_the_user():
    target = targets.unconstrain(lambda z: 0.0 * z, np.array(10.0), Cube())
    np.testing.assert_allclose(positions.flat(target, np.array(10.0)), [2.0])
    np.testing.assert_allclose(positions.positions(target, np.array([[2.0], [-1.0]])), [10.0, -2.0])


def test_a_bare_leaf_and_nested_ones():
    bare = targets.unconstrain(lambda z: 0.0 * jnp.sum(z), np.ones(2), "positive")
    np.testing.assert_allclose(positions.positions(bare, np.zeros((3, 2))), np.ones((3, 2)))
    nested = targets.unconstrain(lambda z: 0.0 * z[0] * z[1][0]["a"], (1.0, [{"a": 2.0}]), ("positive", None))
    same(positions.positions(nested, np.zeros((3, 2))), (np.ones(3), [{"a": np.zeros(3)}]))


def test_moments_that_do_not_exist_are_nan():
    target = targets.unconstrain(lambda z: 0.0 * jnp.sum(z["a"]), {"a": np.ones(2), "b": 1.0}, {"b": "positive"})
    rng = np.random.default_rng(2)
    draws = rng.standard_normal((4096, 3))
    draws[:, 1], draws[:, 2] = rng.standard_cauchy(4096) ** 3, rng.standard_cauchy(4096)
    with np.errstate(all="ignore"):
        mean, sd = positions.moments(target, draws, np.full(4096, -np.log(4096)))
    assert np.isnan(mean["a"]).tolist() == [False, True] and np.isnan(mean["b"])
    assert np.isnan(sd["a"]).tolist() == [False, True] and np.isnan(sd["b"])
