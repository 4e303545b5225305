"""One program serves a model: right for any number of points, in any thread, kept as long as its function and no longer."""

import gc
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax.cascade import evaluate
from elbojax.cascade.evaluate import Compiled
from elbojax.cascade.single import prepare
from elbojax.host.requests import Gradients, Values
from elbojax.workarounds import blas

KEY = jax.random.key(0)
SIZES = (1, 7, 8, 9, 63, 64, 65, 512, 513, 1000)
DESIGN = np.random.default_rng(0).standard_normal((50, 4))


def plain(z):
    return -0.5 * jnp.sum((z["a"] - 1) ** 2) + z["b"] - jnp.exp(z["b"])


def with_supports(z):
    return jnp.sum(jnp.log(z["p"]) * jnp.arange(1.0, 4.0)) - z["s"] * jnp.sum((z["a"] - 1) ** 2) + jnp.log(z["s"])


def regression(z, data):
    logits = data["x"] @ z
    return jnp.sum(jnp.where(data["y"], logits, 0) - jax.nn.softplus(logits)) - 0.5 * jnp.sum(z**2)


def large(z):
    """More than `programs.SMALL` numbers: compiled better from the start."""
    return -0.5 * jnp.sum((z - jnp.ones((600, 600)) @ jnp.full(600, 1e-3) @ jnp.ones(600) / 1e3) ** 2)


def looping(z):
    """A loop that takes more turns for some points than for others."""
    return -0.5 * jnp.sum(z**2) - jax.lax.fori_loop(0, 3, lambda i, x: x * 0.5, jnp.sum(z**4))


DATA = {"x": DESIGN, "y": DESIGN[:, 0] > 0, "none": None}
MODELS = {
    "plain": (plain, {"a": np.zeros(3), "b": 0.0}, None, None),
    "with supports": (
        with_supports,
        {"p": np.full(3, 1 / 3), "s": 1.0, "a": np.zeros(2)},
        {"p": "simplex", "s": "positive"},
        None,
    ),
    "regression": (regression, np.zeros(4), None, DATA),
    "data on the device": (regression, np.zeros(4), None, jax.tree.map(jnp.asarray, DATA)),
    "large": (large, np.zeros(5), None, None),
    "looping": (looping, np.zeros(2), None, None),
    "a number": (lambda z: -0.5 * z**2, 0.0, None, None),
    "single precision within": (lambda z: -0.5 * jnp.sum(z.astype("float32") ** 2), np.zeros(2), None, None),
    "a constant": (lambda z: 1.0, 0.0, None, None),
}


def compiled(name):
    log_density, init, support, data = MODELS[name]
    target, _ = prepare(log_density, init, support, data)
    arguments = () if data is None else (data,)
    log_density_of = lambda z: jnp.asarray(target.log_density(z, *arguments), float)  # noqa: E731
    return Compiled(target, data), jax.jit(jax.vmap(jax.value_and_grad(log_density_of))), target.size


def check(model, reference, size, seed=0, sizes=SIZES, rtol=1e-10):
    rng = np.random.default_rng(seed)
    for count in sizes:
        points = rng.standard_normal((count, size))
        before = points.copy()
        values, gradients = model.answer(Gradients(points))
        alone = model.answer(Values(points))
        wanted = reference(np.resize(points, (1024, size)))  # one shape, one program
        assert values.shape == alone.shape == (count,) and gradients.shape == (count, size)
        assert values.dtype == alone.dtype == gradients.dtype == np.float64
        np.testing.assert_allclose(values, wanted[0][:count], rtol=rtol, atol=rtol)
        np.testing.assert_allclose(alone, wanted[0][:count], rtol=rtol, atol=rtol)
        np.testing.assert_allclose(gradients, wanted[1][:count], rtol=rtol, atol=10 * rtol)
        np.testing.assert_array_equal(points, before)


@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients(name):
    rtol = 1e-5 if name == "single precision within" else 1e-10
    check(*compiled(name), rtol=rtol)


def test_as_many_as_a_check_has():
    check(*compiled("regression"), sizes=(4096 // 4, 1))
    model, _, size = compiled("regression")
    points = np.random.default_rng(1).standard_normal((4096, size))
    parts = np.concatenate([model.answer(Values(points[at : at + 100])) for at in range(0, 4096, 100)])
    np.testing.assert_allclose(model.answer(Values(points)), parts, rtol=1e-12)


@pytest.mark.parametrize("name", ["plain", "regression", "a number", "looping"])
def test_better_programs_say_the_same(name, monkeypatch):
    monkeypatch.setattr(evaluate, "WORTH", 1.0)
    model, reference, size = compiled(name)
    check(model, reference, size)
    assert model._options == ()


def test_values_alone_say_the_same(monkeypatch):
    monkeypatch.setattr(evaluate, "WORTH_ALONE", 1.0)
    model, reference, size = compiled("regression")
    check(model, reference, size)
    assert model._choice(False)[0] is False and model._choice(True)[0] is True
    assert {gradients for gradients, _ in model._programs._compiled} == {True, False}


def test_a_fit_chooses_as_the_one_before_it(monkeypatch):
    """Whatever programs there are by then: one key, one answer to the last bit."""
    monkeypatch.setattr(evaluate, "WORTH", 3e4)
    log_density = lambda z: jnp.sum(2 * z - jnp.exp(z))  # noqa: E731
    first, second = (elbojax.fit(jax.random.key(0), log_density, jnp.zeros(4)) for _ in range(2))
    np.testing.assert_array_equal(first.draws, second.draws)
    np.testing.assert_array_equal(first.log_weights, second.log_weights)


def test_what_is_not_finite_comes_back_as_it_is():
    target, _ = prepare(lambda z: jnp.where(z > 1, jnp.inf, jnp.log(z)), 0.5, None, None)
    values, gradients = Compiled(target, None).answer(Gradients(np.array([[0.5], [-1.0], [0.0], [2.0], [np.nan]])))
    np.testing.assert_array_equal(values[1:], [np.nan, -np.inf, np.inf, np.nan])
    assert values[0] == np.log(0.5) and gradients[0] == 2 and not np.isfinite(gradients[2])


def test_points_beyond_those_asked_for_are_not_looked_at():
    """Those that fill a chunk are copies of the first: a log-density that fails elsewhere does not fail."""
    seen = []

    @jax.custom_jvp
    def log_density(z):
        jax.debug.callback(lambda z: seen.append(float(z)), z)
        return -0.5 * z**2

    log_density.defjvp(lambda primals, tangents: (log_density(*primals), -primals[0] * tangents[0]))
    target, _ = prepare(log_density, 0.5, None, None)
    Compiled(target, None).answer(Gradients(np.array([[0.25], [0.75]])))
    jax.effects_barrier()
    assert set(seen) <= {0.25, 0.75}


class Compilations:
    """Names of the programs compiled while it lasts."""

    def __enter__(self):
        self.names = []
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self.names

    def _listen(self, event, duration, **details):
        if event.endswith("backend_compile_duration"):
            self.names.append(details.get("fun_name"))

    def __exit__(self, *unused):
        unregister = getattr(jax.monitoring, "unregister_event_duration_listener", None)
        if unregister is None:
            from jax._src import monitoring

            unregister = monitoring.unregister_event_duration_listener
        unregister(self._listen)


def test_a_fit_compiles_one_program_for_the_model_and_one_for_each_kind_of_support():
    init, support = {"a": np.zeros(2), "s": 1.0}, {"s": "positive"}
    fit = lambda log_density: elbojax.fit(KEY, log_density, init, support=support)  # noqa: E731

    def model(shift):
        return lambda z: -0.5 * jnp.sum((z["a"] - shift) ** 2) - z["s"]

    first, second = model(1.0), model(2.0)
    fit(first).mean()
    with Compilations() as names:
        answer = fit(second)
        answer.mean(), answer.sd(), str(answer)
    assert sorted(names) == ["jit(_values_program)", "jit(log_densities)"]  # the former looks for labellings
    with Compilations() as names:
        fit(second).mean()
        fit(first).mean()
    assert names == []


def test_another_shape_of_data_is_another_program_and_other_data_are_none():
    log_density = lambda z, x: -0.5 * jnp.sum((z - x) ** 2)  # noqa: E731
    fit = lambda x: float(elbojax.fit(KEY, log_density, 0.0, data=x).mean())  # noqa: E731
    assert fit(np.full(3, 2.0)) == pytest.approx(2, abs=1e-3)
    with Compilations() as names:
        assert fit(np.full(3, 5.0)) == pytest.approx(5, abs=1e-3)
    assert names == []
    assert fit(np.full(4, 7.0)) == pytest.approx(7, abs=1e-3)


def test_containers_of_other_types_are_other_programs():
    @jax.tree_util.register_pytree_node_class
    class Plain:
        shift = 0.0

        def __init__(self, x):
            self.x = x

        def tree_flatten(self):
            return (self.x,), None

        @classmethod
        def tree_unflatten(cls, _, leaves):
            return cls(*leaves)

    @jax.tree_util.register_pytree_node_class
    class Shifted(Plain):
        shift = 2.0

    log_density = lambda z, d: -0.5 * (z - d.x - d.shift) ** 2  # noqa: E731
    found = [float(elbojax.fit(KEY, log_density, 0.0, data=kind(np.array(3.0))).mean()) for kind in (Plain, Shifted)]
    assert found == [pytest.approx(3, abs=1e-3), pytest.approx(5, abs=1e-3)]


def test_a_function_that_is_gone_is_kept_by_nothing():
    def make():
        shift = np.arange(3.0)

        def log_density(z):
            return -0.5 * jnp.sum(jax.lax.fori_loop(0, 2, lambda i, x: x - 0.5 * shift, z) ** 2)

        return log_density

    log_density = make()
    fit = elbojax.fit(KEY, log_density, np.zeros(3))
    np.testing.assert_allclose(fit.mean(), np.arange(3.0), atol=1e-2)
    programs = weakref.ref(Compiled(fit.target, None)._programs)
    seen = weakref.ref(log_density)
    gc.collect()
    assert programs() is not None  # as long as the function is there
    del log_density, fit
    gc.collect()
    assert seen() is None
    elbojax.fit(KEY, plain, {"a": np.zeros(3), "b": 0.0})  # buries
    gc.collect()
    assert programs() is None


def test_threads_at_once_in_one_program():
    log_density = lambda z, x: -0.5 * jnp.sum((z - x) ** 2)  # noqa: E731
    found, wrong = {}, []

    def work(i):
        try:
            for turn in range(3):
                x = np.full(2, 10.0 * i + turn)
                found[i, turn] = (x, elbojax.fit(jax.random.key(i), log_density, np.zeros(2), data=x).mean())
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong and len(found) == 9
    for x, mean in found.values():
        np.testing.assert_allclose(mean, x, atol=1e-3)


def blas_threads():
    return [library["num_threads"] for library in blas._libraries().info() if library["user_api"] == "blas"]


def test_threads_of_blas_are_given_back_whoever_ends_first():
    before = blas_threads()
    first, second = blas.one_blas_thread(), blas.one_blas_thread()
    first.__enter__()
    second.__enter__()
    assert set(blas_threads()) <= {1}
    first.__exit__(None, None, None)
    assert set(blas_threads()) <= {1}
    second.__exit__(None, None, None)
    assert blas_threads() == before
    with pytest.raises(KeyError), blas.one_blas_thread():
        raise KeyError
    assert blas_threads() == before


def test_an_error_of_the_log_density_leaves_nothing_behind():
    allowed = [False]

    def log_density(z):
        if not allowed[0]:
            raise RuntimeError("not yet")
        return -0.5 * z**2

    target, _ = prepare(lambda z: log_density(z) if allowed[0] else -0.5 * z**2, 0.0, None, None)
    model = Compiled(target, None)
    assert model.answer(Values(np.ones((1, 1)))) == -0.5
    with pytest.raises(RuntimeError, match="not yet"):
        elbojax.fit(KEY, log_density, 0.0)
    allowed[0] = True
    assert elbojax.fit(KEY, log_density, 0.0).certificate.certified


def test_data_are_held_on_the_device():
    target, _ = prepare(regression, np.zeros(4), None, DATA)
    model = Compiled(target, DATA)
    leaves = jax.tree.leaves(model._data)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert [leaf.dtype for leaf in leaves] == [leaf.dtype for leaf in jax.tree.leaves(DATA)]
