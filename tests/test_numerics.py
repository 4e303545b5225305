import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from elbojax.numerics import linearized, log_mean_exp, magic_box, softplus, stop_gradient, tree_all_finite, tree_where

EDGES = np.array([-np.inf, -1e5, -800.0, -40.0, -1.0, -1e-9, 0.0, 1e-9, 1.0, 40.0, 800.0, 1e5, np.inf])
FINITE = EDGES[1:-1]
both_precisions = pytest.mark.parametrize("dtype", ("float32", "float64"))


@both_precisions
def test_log_mean_exp_is_scipys(dtype):
    x = 30 * np.random.default_rng(0).normal(size=(4, 3))
    x[1, 2] = -np.inf
    for axis, count in ((None, 12), (0, 4), (1, 3), (-1, 3)):
        result = log_mean_exp(jnp.asarray(x, dtype), axis)
        assert result.dtype == dtype
        expected = scipy.special.logsumexp(x, axis=axis) - np.log(count)
        np.testing.assert_allclose(result, expected, rtol=5 * jnp.finfo(dtype).eps)


def test_log_mean_exp_at_the_edges():
    assert log_mean_exp(jnp.full(3, -jnp.inf)) == -jnp.inf
    assert log_mean_exp(jnp.array([0.0, jnp.inf])) == jnp.inf
    assert jnp.isnan(log_mean_exp(jnp.array([0.0, jnp.nan])))
    np.testing.assert_allclose(jax.grad(log_mean_exp)(jnp.array([0.0, -jnp.inf])), [1.0, 0.0])


@both_precisions
def test_softplus_is_logaddexp(dtype):
    result = softplus(jnp.asarray(EDGES, dtype))
    assert result.dtype == dtype
    eps = jnp.finfo(dtype).eps
    np.testing.assert_allclose(result, np.logaddexp(0, EDGES), rtol=eps, atol=eps)


@both_precisions
def test_softplus_differentiates_to_the_sigmoid(dtype):
    x = jnp.asarray(FINITE, dtype)
    sigmoid = scipy.special.expit(FINITE)
    forwards = jax.jvp(softplus, (x,), (jnp.ones_like(x),))[1]
    backwards = jax.vmap(jax.grad(softplus))(x)
    assert forwards.dtype == backwards.dtype == dtype
    for result in (forwards, backwards):
        np.testing.assert_allclose(result, sigmoid, rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-30)


def test_softplus_has_a_right_second_derivative_at_zero_too():
    sigmoid = scipy.special.expit(FINITE)
    curvature = jax.vmap(jax.grad(jax.grad(softplus)))(jnp.asarray(FINITE))
    np.testing.assert_allclose(curvature, sigmoid * scipy.special.expit(-FINITE), rtol=1e-12, atol=1e-30)


def test_magic_box_is_one_and_its_derivatives_are_scores():
    def log_prob(theta):
        return -(theta**2)

    def boxed(theta):
        return 3.0 * magic_box(log_prob(theta))

    assert boxed(0.7) == 3.0
    np.testing.assert_allclose(jax.grad(boxed)(0.7), 3.0 * -1.4, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(jax.grad(boxed))(0.7), 3.0 * (1.4**2 - 2), rtol=1e-12)
    np.testing.assert_array_equal(magic_box(jnp.array([-1e6, 0.0, 5.0])), 1.0)


def test_tree_where_picks_whole_trees():
    a = {"x": jnp.ones(2), "n": 1, "key": jax.random.key(1)}
    b = {"x": jnp.full(2, jnp.nan), "n": 2, "key": jax.random.key(2)}
    for condition, wanted in ((True, a), (False, b)):
        picked = tree_where(jnp.array(condition), a, b)
        np.testing.assert_array_equal(picked["x"], wanted["x"])
        assert picked["n"] == wanted["n"]
        assert picked["key"] == wanted["key"]


@both_precisions
def test_tree_where_picks_models_of_a_batch(dtype):
    a = {"x": jnp.zeros((3, 2), dtype), "s": jnp.zeros(3, dtype), "key": jax.random.split(jax.random.key(0), 3)}
    b = {"x": jnp.ones((3, 2), dtype), "s": jnp.ones(3, dtype), "key": jax.random.split(jax.random.key(1), 3)}
    picked = tree_where(jnp.array([True, False, True]), a, b)
    np.testing.assert_array_equal(picked["x"], [[0, 0], [1, 1], [0, 0]])
    np.testing.assert_array_equal(picked["s"], [0, 1, 0])
    assert picked["x"].dtype == picked["s"].dtype == dtype
    for i, tree in enumerate((a, b, a)):
        assert picked["key"][i] == tree["key"][i]


@pytest.mark.parametrize(
    ("tree", "finite"),
    [
        ({"a": 1.0, "b": np.arange(3)}, True),
        ({"a": np.array([1.0, np.inf])}, False),
        ({"a": 1.0, "b": (np.nan,)}, False),
        ({"n": 3}, True),
        ((), True),
    ],
)
def test_tree_all_finite(tree, finite):
    assert bool(tree_all_finite(jax.tree.map(jnp.asarray, tree))) is finite
    assert bool(tree_all_finite(tree)) is finite


def test_tree_all_finite_passes_over_keys():
    assert tree_all_finite({"key": jax.random.key(0), "x": jnp.ones(2)})


def test_stop_gradient_keeps_values_and_stops_gradients():
    tree = {"x": jnp.array(2.0), "n": jnp.array(3)}
    stopped = stop_gradient(tree)
    assert stopped["x"] == 2.0 and stopped["n"] == 3 and stopped["n"].dtype == tree["n"].dtype
    assert jax.grad(lambda x: x * stop_gradient({"x": x})["x"])(3.0) == 3.0


def test_linearized_by_differences_is_as_linearised():
    cubes = lambda x: (x**3 + jnp.roll(x, 1) ** 2, jnp.sum(x))  # noqa: E731

    @jax.custom_vjp
    def blunt(x):
        return cubes(x)

    blunt.defvjp(lambda x: (blunt(x), x), lambda x, g: None)
    point, vectors = jnp.array([1.0, -2.0, 0.5]), jnp.array([[1.0, 2.0, -3.0], [1e-6, 0.0, 1e3], [0.0, 0.0, 0.0]])
    value, product, total = linearized(cubes, point)
    with pytest.warns(RuntimeWarning, match="no second derivatives"):
        same_value, difference, same_total = linearized(blunt, point)
    np.testing.assert_array_equal(value, same_value)
    assert total == same_total
    for vector in vectors:
        np.testing.assert_allclose(difference(vector), product(vector), rtol=1e-8, atol=1e-8 * np.abs(vector).max())
    with pytest.raises(TypeError, match="mine"):  # no matter of derivatives

        def broken(x):
            raise TypeError("mine")

        linearized(broken, point)
