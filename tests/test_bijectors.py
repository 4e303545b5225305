"""The laws of every bijector, for every row of a table; and what `support` may say."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from elbojax import bijectors
from elbojax.bijectors import Real, Simplex

EPS = {"float32": 1.2e-7, "float64": 2.3e-16}
LOWS = np.array([-1.0, 0.0, 5.0])


def flat(y):
    return y.reshape(-1)


class Case(NamedTuple):
    """A bijector, the shapes of one x and its y, and which entries of y are the coordinates of its determinant."""

    bijector: object
    x_shape: tuple
    y_shape: tuple
    coordinates: object = flat
    sums: bool = False  # y comes from running sums, whose rounding is that of the largest


def head(y):
    return y[..., :-1].reshape(-1)


def below(y):
    return y[..., *np.tril_indices(y.shape[-1], -1)].reshape(-1)


def lower(y):
    return y[..., *np.tril_indices(y.shape[-1])].reshape(-1)


CASES = {
    "real": Case(bijectors.real(), (3,), (3,)),
    "positive": Case(bijectors.positive(), (3,), (3,)),
    "lower_bounded": Case(bijectors.lower_bounded(2.5), (3,), (3,)),
    "lower_bounded_each": Case(bijectors.lower_bounded(LOWS), (2, 3), (2, 3)),
    "upper_bounded": Case(bijectors.upper_bounded(-0.3), (3,), (3,)),
    "interval": Case(bijectors.interval(-1.0, 3.0), (3,), (3,)),
    "interval_each": Case(bijectors.interval(LOWS, LOWS + 2), (3,), (3,)),
    "unit_interval": Case(bijectors.unit_interval(), (2, 2), (2, 2)),
    "affine": Case(bijectors.affine(LOWS, -2.0), (3,), (3,)),
    "simplex": Case(bijectors.simplex(), (3,), (4,), head),
    "simplexes": Case(bijectors.simplex(), (2, 2), (2, 3), head),
    "ordered": Case(bijectors.ordered(), (4,), (4,), sums=True),
    "ordereds": Case(bijectors.ordered(), (2, 2), (2, 2), sums=True),
    "positive_ordered": Case(bijectors.positive_ordered(), (3,), (3,), sums=True),
    "correlation": Case(bijectors.correlation_cholesky(), (6,), (4, 4), below),
    "correlations": Case(bijectors.correlation_cholesky(), (2, 3), (2, 3, 3), below),
    "covariance": Case(bijectors.covariance_cholesky(), (6,), (3, 3), lower),
    "covariances": Case(bijectors.covariance_cholesky(), (2, 3), (2, 2, 2), lower),
    "chain": Case(bijectors.chain(bijectors.affine(0.5, 2.0), bijectors.positive()), (3,), (3,)),
    "chain_to_simplex": Case(bijectors.chain(bijectors.affine(0.5, 2.0), bijectors.simplex()), (2,), (3,), head),
}
every_case = pytest.mark.parametrize("name", CASES)
every_dtype = pytest.mark.parametrize("dtype", EPS)


@functools.cache
def compiled(name):
    """All that is known of a case at points [points, *x_shape], in one program; one more for each dtype."""
    case = CASES[name]
    b = case.bijector

    def log_abs_det(x):
        free = lambda z: case.coordinates(b.forward(z.reshape(case.x_shape)))  # noqa: E731
        return jnp.linalg.slogdet(jax.jacobian(free)(x.reshape(-1)))[1]

    def at(x):
        y, log_det = b.forward_and_log_det(x)
        weights = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        gradients = [jax.grad(lambda x: jnp.sum(weights * b.forward(x)))(x)]
        gradients.append(jax.grad(lambda x: b.forward_and_log_det(x)[1])(x))
        return {
            "y": y,
            "again": b.forward(x),
            "back": b.inverse(y),
            "log_det": log_det,
            "reference": log_abs_det(x),
            "gradients": jnp.stack(gradients),
        }

    return jax.jit(jax.vmap(at))


def points(name, dtype, scale, count=16, seed=0):
    rng = np.random.default_rng(seed)
    return (scale * rng.uniform(-1, 1, (count, *CASES[name].x_shape))).astype(dtype)


@every_dtype
@every_case
def test_round_trip_and_log_det(name, dtype):
    case, x = CASES[name], points(name, dtype, 3.0)
    x[0] = 0
    found = compiled(name)(x)
    assert all(value.dtype == dtype for value in jax.tree.leaves(found))
    assert found["y"].shape == (len(x), *case.y_shape)
    np.testing.assert_array_equal(found["y"], found["again"])
    np.testing.assert_allclose(found["back"], x, atol=4e3 * EPS[dtype])
    np.testing.assert_allclose(found["log_det"], found["reference"], atol=2e3 * EPS[dtype])
    assert all(case.bijector.contains(y) for y in np.asarray(found["y"]))


@every_case
def test_precisions_agree(name):
    x = points(name, "float32", 6.0)
    single, double = compiled(name)(x), compiled(name)(x.astype("float64"))
    np.testing.assert_allclose(single["y"], double["y"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(single["log_det"], double["log_det"], rtol=1e-5, atol=1e-4)


@every_dtype
@every_case
def test_far_out(name, dtype):
    corners = np.sign(points(name, dtype, 1.0, count=8)) * np.array([30, 30, 80, 80, 1e3, 1e3, 1e6, 1e6]).reshape(
        -1, *(1,) * len(CASES[name].x_shape)
    )
    found = compiled(name)(corners.astype(dtype))
    for part in ("y", "log_det", "gradients"):
        assert np.all(np.isfinite(found[part][:2])), part
    for part in ("log_det", "gradients"):
        assert not np.any(np.isnan(found[part])), part
    if not CASES[name].sums:
        assert np.all(np.isfinite(found["y"]))
        assert all(CASES[name].bijector.contains(y) for y in np.asarray(found["y"]))


@every_case
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-3, 1.0, 8.0]))
def test_round_trip_anywhere(name, seed, scale):
    x = points(name, "float64", scale, seed=seed)
    found = compiled(name)(x)
    np.testing.assert_allclose(found["back"], x, atol=1e-6)


@pytest.mark.parametrize("name", ["positive", "unit_interval", "simplex", "correlation", "covariance"])
def test_small_values_come_back_in_single_precision(name):
    """The tails of these stand near zero, where floating point is dense: 20 sds out nothing is lost."""
    x = -np.abs(points(name, "float32", 20.0)) if name != "correlation" else points(name, "float32", 6.0)
    np.testing.assert_allclose(compiled(name)(x)["back"], x, rtol=2e-5, atol=2e-5)


@every_case
def test_shapes_are_foretold(name):
    case = CASES[name]
    assert case.bijector.unconstrained_shape(case.y_shape) == case.x_shape
    assert case.bijector.constrained_shape(case.x_shape) == case.y_shape


@every_case
def test_is_a_pytree_equal_by_value(name):
    bijector = CASES[name].bijector
    leaves, structure = jax.tree.flatten(bijector)
    again = jax.tree.unflatten(structure, [np.array(leaf) for leaf in leaves])
    assert again == bijector and hash(again) == hash(bijector)
    if leaves:
        moved = jax.tree.unflatten(structure, [np.asarray(leaf) + 1 for leaf in leaves])
        assert moved != bijector


def test_kinds_differ():
    assert len({CASES[name].bijector for name in CASES}) == 16  # some rows share their bijector


@pytest.mark.parametrize(
    "name", ["positive", "interval", "simplex", "ordered", "correlation", "covariance", "chain_to_simplex"]
)
def test_hessian_of_the_log_det_at_zero(name):
    """Zero is where fits start, and where a kink in `abs` would hide; finite differences step over it."""
    case = CASES[name]
    log_det = lambda x: case.bijector.forward_and_log_det(x.reshape(case.x_shape))[1]  # noqa: E731
    size, step = np.prod(case.x_shape), 1e-5
    steps = step * np.stack([np.eye(size), -np.eye(size)])
    gradients, hessian = jax.jit(
        lambda x: (jax.vmap(jax.vmap(jax.grad(log_det)))(x), jax.hessian(log_det)(0 * x[0, 0]))
    )(steps)
    np.testing.assert_allclose(hessian, (gradients[0] - gradients[1]) / (2 * step), atol=1e-8)


def test_bounds_are_traced():
    traces = []

    @jax.jit
    def forward(bijector, x):
        traces.append(1)
        return bijector.forward(x)

    for low in (0.0, 1.0, 2.0):
        assert forward(bijectors.lower_bounded(low), jnp.zeros(())) == low + 1
    assert len(traces) == 1
    slope = jax.grad(lambda low: bijectors.interval(low, 1.0).forward(jnp.float32(0.0)))(jnp.float32(0.0))
    assert slope == 0.5 and slope.dtype == jnp.float32


def test_known_values():
    x = np.array([-3.0, 0.4, 2.0])
    y = bijectors.interval(-1.0, 3.0).forward(x)
    np.testing.assert_allclose(y, -1 + 4 * scipy.special.expit(x), rtol=1e-14)
    np.testing.assert_allclose(bijectors.simplex().forward(np.zeros(6)), np.full(7, 1 / 7), rtol=1e-14)
    np.testing.assert_allclose(bijectors.upper_bounded(1.0).forward(x), 1 - np.exp(x), rtol=1e-14)


def test_agrees_with_another_library():
    from numpyro.distributions import transforms

    x = np.random.default_rng(1).normal(size=4)
    for ours, theirs in (
        (bijectors.simplex(), transforms.StickBreakingTransform()),
        (bijectors.ordered(), transforms.OrderedTransform()),
    ):
        y, log_det = ours.forward_and_log_det(x)
        np.testing.assert_allclose(y, theirs(x), rtol=1e-12)
        np.testing.assert_allclose(log_det, theirs.log_abs_det_jacobian(x, theirs(x)), rtol=1e-12)


def test_correlation_of_three_by_hand():
    x = np.array([0.3, -1.2, 0.8])
    a, b, c = np.tanh(x)
    left = np.sqrt(1 - b**2)
    wanted = [[1, 0, 0], [a, np.sqrt(1 - a**2), 0], [b, c * left, left * np.sqrt(1 - c**2)]]
    np.testing.assert_allclose(bijectors.correlation_cholesky().forward(x), wanted, rtol=1e-13)


def test_correlation_rows_have_norm_one():
    y = compiled("correlations")(points("correlations", "float32", 20.0))["y"]
    np.testing.assert_allclose(np.sum(np.square(y), -1), 1, atol=1e-6)
    assert np.all(np.triu(y, 1) == 0)


OUTSIDE = [
    (bijectors.real(), [1.0, np.inf]),
    (bijectors.positive(), [1.0, 0.0]),
    (bijectors.positive(), np.nan),
    (bijectors.lower_bounded(2.0), 2.0),
    (bijectors.upper_bounded(2.0), 2.5),
    (bijectors.unit_interval(), 1.0),
    (bijectors.interval(1.0, 2.0), np.nan),
    (bijectors.affine(1.0, 2.0), np.inf),
    (bijectors.simplex(), [0.5, 0.6]),
    (bijectors.simplex(), [1.0, 0.0]),
    (bijectors.ordered(), [0.0, 0.0]),
    (bijectors.positive_ordered(), [-1.0, 0.0]),
    (bijectors.correlation_cholesky(), [[1.0, 0.0], [0.6, 0.7]]),
    (bijectors.correlation_cholesky(), [[1.0, 0.6], [0.0, 0.8]]),
    (bijectors.covariance_cholesky(), [[1.0, 0.0], [0.6, -0.8]]),
    (bijectors.chain(bijectors.positive(), bijectors.affine(1.0, 1.0)), 0.5),
    (bijectors.chain(bijectors.affine(1.0, 1.0), bijectors.positive()), -0.5),
]


@pytest.mark.parametrize(("bijector", "y"), OUTSIDE, ids=lambda x: str(x).replace(" ", ""))
def test_outside(bijector, y):
    assert not bijector.contains(np.array(y))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bijectors.interval(1.0, 1.0), ValueError, "low must be below high"),
        (lambda: bijectors.interval(LOWS, [0.0, 1.0, 5.0]), ValueError, "low must be below high"),
        (lambda: bijectors.lower_bounded(-np.inf), ValueError, "low must be finite"),
        (lambda: bijectors.upper_bounded("1"), TypeError, "high must be a number"),
        (lambda: bijectors.affine(0.0, 0.0), ValueError, "scale must not be zero"),
        (lambda: bijectors.chain(), ValueError, "at least one"),
        (lambda: bijectors.chain(bijectors.real(), "positive"), TypeError, "'positive' as argument 1"),
        (lambda: bijectors.simplex().unconstrained_shape(()), ValueError, "got a scalar"),
        (lambda: bijectors.ordered().unconstrained_shape(()), ValueError, "got a scalar"),
        (lambda: bijectors.correlation_cholesky().unconstrained_shape((3, 2)), ValueError, r"got shape \(3, 2\)"),
        (lambda: bijectors.covariance_cholesky().constrained_shape((4,)), ValueError, "do not fill a triangle"),
        (lambda: bijectors.lower_bounded(LOWS).unconstrained_shape((2,)), ValueError, r"low of shape \(3,\)"),
        (lambda: bijectors.affine(0.0, LOWS + 2).unconstrained_shape(()), ValueError, r"scale of shape \(3,\)"),
    ],
)
def test_misuse(make, error, message):
    with pytest.raises(error, match=message):
        make()


LIKE = {"mu": jnp.zeros(2), "group": {"tau": 1.0, "w": (jnp.ones(3), 2.0)}}
LOW = bijectors.lower_bounded(1.0)


@pytest.mark.parametrize(
    ("support", "kinds"),
    [  # leaves in the order tau, w[0], w[1], mu
        (None, "Real Real Real Real"),
        ("positive", "Positive Positive Positive Positive"),
        ({"mu": "simplex"}, "Real Real Real Simplex"),
        ({"group": {"tau": LOW}}, "LowerBounded Real Real Real"),
        ({"group": "positive", "mu": None}, "Positive Positive Positive Real"),
        ({"group": {"w": (None, "unit_interval")}}, "Real Real Interval Real"),
        ({"group": {"w": ("simplex", LOW)}, "mu": "ordered"}, "Real Simplex LowerBounded Ordered"),
        ({}, "Real Real Real Real"),
    ],
)
def test_support_is_a_prefix(support, kinds):
    assert [type(b).__name__ for b in bijectors.resolve(support, LIKE)] == kinds.split()


def test_support_of_a_single_leaf():
    assert bijectors.resolve("simplex", jnp.ones(3)) == (Simplex(),)
    assert bijectors.resolve(None, {"a": None, "b": 1.0}) == (Real(),)


@pytest.mark.parametrize("name", bijectors.NAMES)
def test_names(name):
    (found,) = bijectors.resolve({"a": name}, {"a": 1.0})
    assert found == getattr(bijectors, name)()


@pytest.mark.parametrize(
    ("support", "error", "message"),
    [
        ({"mu": "postive"}, ValueError, r"'postive' of init\['mu'\]; the names are real, positive, "),
        ("postive", ValueError, "'postive' of init;"),
        ({"sigma": "positive"}, ValueError, r"names 'sigma', which init lacks; it has \['mu', 'group'\]"),
        ({"group": {"nu": "positive"}}, ValueError, r"names 'nu', which init\['group'\] lacks"),
        (
            {"mu": {"a": "positive"}},
            TypeError,
            r"init\['mu'\] must be one bijector or name, for it is a leaf, got a dict",
        ),
        ({"mu": 3}, TypeError, r"init\['mu'\] must be a bijector or the name of one, got 3; the names are real"),
        ({"mu": bijectors.positive}, TypeError, r"init\['mu'\] must be .*call it to make one"),
        ({"group": ("positive",)}, TypeError, r"init\['group'\] must be a dict like it.*got a tuple"),
        ({"group": {"w": ("real",)}}, ValueError, r"init\['group'\]\['w'\] has 1 entries where init has 2"),
        ({"group": {"w": ["real", "real"]}}, TypeError, r"init\['group'\]\['w'\] must be a tuple like it.*a list"),
    ],
)
def test_support_that_does_not_fit(support, error, message):
    with pytest.raises(error, match=message):
        bijectors.resolve(support, LIKE)
