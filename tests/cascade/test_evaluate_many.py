"""Many models side by side: each is answered, and driven, as if it were alone, and none harms another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status, targets, thresholds
from elbojax.cascade import batch, evaluate_many
from elbojax.cascade.evaluate import Compiled, drive
from elbojax.cascade.evaluate_many import CHUNK, ROOM, CompiledMany, Failed, drive_many
from elbojax.host.requests import Gradients, Values
from elbojax.loops.compiling import compiled_so_far

KEY = jax.random.key(0)
M, D = 5, 3


def log_density(z, datum):
    """Leaves of several dtypes and shapes, all of which count."""
    miss = jnp.where(datum["use"], (datum["y"] - z["a"] * datum["x"][0]) ** 2, 0)
    return -0.5 * jnp.sum(miss) - jnp.sum(z["b"] ** 4) / datum["count"] + jnp.sum(jnp.sin(z["b"])) * datum["nested"][0]


def data_of(num_models, dtype=np.float64):
    rng = np.random.default_rng(num_models)
    return {
        "y": rng.normal(size=(num_models, 4)).astype(dtype),
        "x": rng.normal(size=(num_models, 1, 4)).astype(dtype),
        "use": rng.random((num_models, 4)) < 0.5,
        "count": rng.integers(1, 9, num_models).astype(np.int32),
        "nested": (rng.normal(size=num_models), None, np.zeros((num_models, 0))),
    }


def exact(points, data, i):
    """Values and gradients in NumPy."""
    a, b = points[:, 0], points[:, 1:]
    y, x, use = (np.asarray(data[name][i], float) for name in ("y", "x", "use"))
    miss = y - a[:, None] * x[0]
    values = -0.5 * np.sum(use * miss**2, axis=1) - np.sum(b**4, axis=1) / data["count"][i]
    values += np.sum(np.sin(b), axis=1) * data["nested"][0][i]
    slopes = -4 * b**3 / data["count"][i] + np.cos(b) * data["nested"][0][i]
    return values, np.concatenate([np.sum(use * miss * x[0], axis=1)[:, None], slopes], axis=1)


def target_of(function=log_density, data=None, init=None):
    init = {"a": 0.0, "b": np.zeros(D - 1)} if init is None else init
    datum = jax.tree.map(lambda x: x[0], data_of(1) if data is None else data)
    return targets.unconstrain(function, init, None, data=datum)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def check(models, data, requests):
    answers = models.answer(requests)
    assert sorted(answers) == sorted(requests)
    for i, request in requests.items():
        values, slopes = exact(request.points, data, i)
        found = answers[i] if isinstance(request, Gradients) else (answers[i], slopes)
        assert found[0].dtype == found[1].dtype == np.float64
        np.testing.assert_allclose(found[0], values, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found[1], slopes, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "sizes",
    [
        {0: 1},
        {4: CHUNK, 1: 1},
        {i: CHUNK * i + 1 for i in range(M)},
        {2: 37, 0: -8, 3: -1, 1: 100},
        {0: -31, 1: -32, 2: -63, 3: -64, 4: -65},
        {3: -ROOM, 0: 1},
        {1: -(ROOM + 1), 0: 5, 4: -3},
        {0: 3 * ROOM - 7, 1: 5},
        {i: -800 for i in range(M)},
    ],
    ids=str,
)
def test_answers_are_those_of_each_model_alone(sizes, dtype):
    """Sizes below zero ask for values alone; models are asked in any order."""
    rng = np.random.default_rng(0)
    data = data_of(M, dtype)
    kind = {True: Gradients, False: Values}
    requests = {i: kind[size > 0](rng.normal(size=(abs(size), D))) for i, size in sizes.items()}
    check(CompiledMany(target_of(data=data), data), data, requests)


def test_draws_of_a_proposal_are_weighed_in_single_precision_where_that_does():
    """Of the model whose log-density is a small difference of large numbers it does not: that one is answered in double."""
    rng, size = np.random.default_rng(0), 2 * evaluate_many.ROUGH_LEAST
    offsets = np.array([0.0, 3e6, 0.0])
    target = targets.unconstrain(
        lambda z, offset: -0.5 * jnp.sum(z**2) + offset - offset * (1 + 1e-9 * z[0]), np.zeros(D), None, data=offsets[0]
    )
    models = CompiledMany(target, offsets)
    points = rng.normal(size=(size, D))
    whole = -0.5 * np.sum(points**2, axis=1)
    proposal = -0.5 * np.sum(points**2 / 4, axis=1)
    asked = {0: Values(points, proposal), 1: Values(points, proposal), 2: Values(points)}
    answers = models.answer(asked)
    assert sorted(answers) == [0, 1, 2]
    np.testing.assert_allclose(answers[2], whole, rtol=1e-12)
    np.testing.assert_allclose(answers[1], whole - 3e-3 * points[:, 0], atol=1e-8)
    gaps = answers[0] - whole
    assert 0 < np.max(np.abs(gaps)) < 1e-5  # single precision, its rounding seen


def test_large_models_are_computed_few_at_a_time(monkeypatch):
    monkeypatch.setattr(evaluate_many, "WIDEST", 1)
    monkeypatch.setattr(evaluate_many, "SMALL", 1)
    data, rng = data_of(M), np.random.default_rng(0)
    another = lambda *args: log_density(*args)  # noqa: E731  # whose programs are made anew
    requests = {
        0: Values(rng.normal(size=(100, D))),
        2: Gradients(rng.normal(size=(9, D))),
        3: Values(np.zeros((3, D))),
    }
    check(CompiledMany(target_of(another), data), data, requests)


def test_other_data_of_the_same_shapes_compile_nothing():
    rng = np.random.default_rng(1)
    target = target_of()
    ask = lambda count: {i: Gradients(rng.normal(size=(count, D))) for i in range(M)}  # noqa: E731
    data = data_of(M)
    check(CompiledMany(target, data), data, ask(ROOM))
    before = compiled_so_far().programs
    data = data_of(M)
    data["y"] = data["y"] + 1
    for count in (1, 3 * CHUNK, ROOM, 2 * ROOM + 1):
        check(CompiledMany(target, data), data, ask(count))
    assert compiled_so_far().programs == before


def test_settings_of_the_callers_thread_are_those_of_all():
    """Calls of more chunks than fit are spread over threads, for which what a `with` says does not count."""
    seen = []

    def function(z, y):
        seen.append((jax.config.jax_default_matmul_precision, jax.config.jax_numpy_rank_promotion))
        return -jnp.sum((z - y) ** 2)

    target = target_of(function, np.zeros((2, 3)), np.zeros(3))
    points = np.random.default_rng(0).normal(size=(3 * ROOM, 3))
    seen.clear()
    with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("raise"):
        found = CompiledMany(target, np.zeros((2, 3))).answer({0: Values(points), 1: Gradients(points[:100])})
    np.testing.assert_allclose(found[0], -np.sum(points**2, axis=1))
    assert set(seen) == {("highest", "raise")}


def climb(steps, step=0.1, then=None):
    """A stage: gradient ascent, and the values of its path."""
    points = np.zeros((3, D)) + np.arange(3.0)[:, None]
    path = []
    for _ in range(steps):
        values, gradients = yield Gradients(points)
        path.append(values)
        points = points + step * gradients
    if then is not None:
        then()
    path.append((yield Values(points)))
    return np.array(path)


def test_stages_in_step_are_those_of_each_alone():
    data, target = data_of(M), target_of()
    steps = [3, 0, 7, 1, 3]
    ended = []
    found = drive_many([climb(n) for n in steps], CompiledMany(target, data), lambda some: ended.append(sorted(some)))
    assert ended == [[1], [3], [0, 4], [2]]  # as soon as it has
    for i, n in enumerate(steps):
        alone = drive(climb(n), Compiled(target, jax.tree.map(lambda x, i=i: x[i], data)))
        assert len(found[i]) == n + 1
        np.testing.assert_allclose(found[i], alone, rtol=1e-12)
    assert drive_many([], CompiledMany(target, data)) == []


def stops_at_once():
    """A stage that asks for nothing."""
    return "nothing"
    yield


def raises(error):
    def act():
        raise error

    return act


@pytest.mark.parametrize(
    "error", [np.linalg.LinAlgError("Singular matrix"), ValueError("math domain error"), OverflowError(), IndexError()]
)
def test_an_exception_in_one_stage_ends_that_stage_alone(error):
    data, target = data_of(M), target_of()
    stages = [climb(2), climb(1, then=raises(error)), stops_at_once(), climb(0, then=raises(error)), climb(3)]
    found = drive_many(stages, CompiledMany(target, data))
    assert found[1] == found[3] == Failed(error) and found[2] == "nothing"
    for i in (0, 4):
        alone = drive(climb(2 if i == 0 else 3), Compiled(target, jax.tree.map(lambda x, i=i: x[i], data)))
        np.testing.assert_allclose(found[i], alone, rtol=1e-12)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_ctrl_c_passes(error):
    with pytest.raises(type(error)):
        drive_many([climb(2), climb(1, then=raises(error))], CompiledMany(target_of(), data_of(M)))


def test_what_a_model_raises_passes():
    class Gone:
        def answer(self, asked):
            raise OSError("the device is gone")

    with pytest.raises(OSError, match="gone"):
        drive_many([climb(2), climb(1)], Gone())


def test_models_of_nan_harm_no_neighbour():
    data, target = data_of(M), target_of()
    bad = jax.tree.map(np.array, data)
    bad["y"][2], bad["use"][2] = np.nan, True
    found = drive_many([climb(4)] + [climb(4) for _ in range(4)], CompiledMany(target, bad))
    good = drive_many([climb(4) for _ in range(M)], CompiledMany(target, data))
    assert np.isnan(found[2]).all()
    for i in (0, 1, 3, 4):
        np.testing.assert_array_equal(found[i], good[i])


def two(z, width):
    pair = jnp.logaddexp(-0.5 * ((z[0] - width) / 0.3) ** 2, -0.5 * ((z[0] + width) / 0.3) ** 2)
    return pair - 0.5 * z[1] ** 2


WIDTHS = np.linspace(3, 5, 4)


def fit(**settings):
    return elbojax.fit_batch(KEY, two, np.zeros(2), WIDTHS, compiled=True, **settings)


def test_an_exception_in_one_model_of_a_batch(monkeypatch):
    """Status UNRELIABLE, a warning, and its neighbours as they were."""
    monkeypatch.setattr(batch.handover, "available", lambda: False)
    monkeypatch.setitem(vars(thresholds), "FLOW_LARGEST", 0)
    good = fit()
    assert good.certificate.certified.all()
    count = iter(range(100))
    thorough = batch.thorough

    def sometimes(*args):
        if next(count) == 1:
            yield Gradients(np.zeros((1, 2)))
            raise np.linalg.LinAlgError("Eigenvalues did not converge")
        return (yield from thorough(*args))

    def fails(rng, outcome, target):
        raise ZeroDivisionError

    monkeypatch.setattr(batch, "thorough", sometimes)
    with pytest.warns(RuntimeWarning, match=r"1 models .* model 1: LinAlgError: Eigenvalues"):
        fits = fit()
    assert fits.certificate.certified.tolist() == [True, False, True, True]
    assert fits.certificate.status[1] == Status.UNRELIABLE
    for a, b in zip(jax.tree.leaves(fits), jax.tree.leaves(good), strict=True):
        np.testing.assert_array_equal(np.asarray(a)[[0, 2, 3]], np.asarray(b)[[0, 2, 3]])
    assert isinstance(str(fits[1]), str)

    monkeypatch.setattr(batch, "thorough", thorough)
    monkeypatch.setattr(batch, "keep", fails)
    with pytest.warns(RuntimeWarning, match="4 models .* ZeroDivisionError"):
        assert not fit().certificate.certified.any()
