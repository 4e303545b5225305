"""What a function reads beside its arguments is part of it: another array, another answer; and nothing keeps it alive."""

import contextvars
import functools
import gc
import sys
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import elbojax
from elbojax import closures, xla

OLD, NEW = jnp.array([1.0, 2.0, 3.0]), jnp.array([101.0, 102.0, 103.0])
Y = OLD
SPACE = types.SimpleNamespace(y=OLD)
TABLE = {"data": [OLD]}
FOUND = {"y": OLD}


def gaussian(z, y):
    return -0.5 * jnp.sum((y - z) ** 2)


def of_a_global():
    def change(y):
        global Y
        Y = y

    return (lambda z: gaussian(z, Y)), change


def of_an_attribute():
    class Model:
        def __init__(self):
            self.y = OLD

        def log_density(self, z):
            return gaussian(z, self.y)

    model = Model()
    return model.log_density, lambda y: setattr(model, "y", y)


def of_an_attribute_of_a_captured_object():
    it = types.SimpleNamespace(deep=types.SimpleNamespace(y=OLD))
    return (lambda z: gaussian(z, it.deep.y)), lambda y: setattr(it.deep, "y", y)


def of_a_class():
    class Model:
        y = OLD

        def log_density(self, z):
            return self.inner(z)

        def inner(self, z):
            return gaussian(z, self.y)

    return Model().log_density, lambda y: setattr(Model, "y", y)


def of_a_property():
    class Model:
        __slots__ = ("_y",)

        @property
        def y(self):
            return self._y

        def __call__(self, z):
            return gaussian(z, self.y)

    model = Model()
    model._y = OLD
    return model, lambda y: setattr(model, "_y", y)


def of_a_cell():
    y = OLD

    def change(new):
        nonlocal y
        y = new

    return (lambda z: gaussian(z, y)), change


def of_a_nested_function():
    y = OLD

    def residual(z):
        return y - z

    def log_density(z):
        inner = lambda: -0.5 * jnp.sum(residual(z) ** 2)  # noqa: E731
        return inner()

    def change(new):
        nonlocal y
        y = new

    return log_density, change


def of_a_function_replaced():
    helpers = {"residual": lambda z: OLD - z}
    log_density = lambda z: -0.5 * jnp.sum(helpers["residual"](z) ** 2)  # noqa: E731
    return log_density, lambda y: helpers.update(residual=lambda z: y - z)


def of_a_partial():
    box = [OLD]
    return functools.partial(lambda box, z: gaussian(z, box[0]), box), lambda y: box.__setitem__(0, y)


def of_defaults():
    def log_density(z, y=OLD, *, shift=0.0):
        return gaussian(z + shift, y)

    return log_density, lambda y: setattr(log_density, "__defaults__", (y,))


def of_a_table():
    return (lambda z: gaussian(z, TABLE["data"][0])), lambda y: TABLE["data"].__setitem__(0, y)


def of_a_namespace():
    return (lambda z: gaussian(z, SPACE.y)), lambda y: setattr(SPACE, "y", y)


def of_a_module():
    module = types.ModuleType("settings_of_mine")
    module.y = OLD
    return (lambda z: gaussian(z, module.y)), lambda y: setattr(module, "y", y)


def of_a_number():
    it = types.SimpleNamespace(y=2.0)
    return (lambda z: -1.5 * (it.y - z) ** 2), lambda y: setattr(it, "y", float(jnp.mean(y)))


def of_numpy_in_place():
    y = np.array(OLD)
    return (lambda z: gaussian(z, y)), lambda new: y.__setitem__(slice(None), np.asarray(new))


def of_a_jitted_function():
    it = types.SimpleNamespace(y=OLD)
    return jax.jit(lambda z: gaussian(z, it.y)), lambda y: setattr(it, "y", y)


def of_a_jitted_helper():
    it = types.SimpleNamespace(y=OLD)
    helper = jax.jit(lambda z: gaussian(z, it.y))
    return (lambda z: 1.0 * helper(z)), lambda y: setattr(it, "y", y)


def of_the_body_of_a_scan():
    it = types.SimpleNamespace(y=OLD)

    def body(total, i):
        return total - 0.5 * (it.y[i] - total[1]) ** 2 * jnp.array([1.0, 0.0]), None

    return (lambda z: jax.lax.scan(body, jnp.stack([0.0 * z, z]), jnp.arange(3))[0][0]), lambda y: setattr(it, "y", y)


def of_an_import_inside():
    module = sys.modules["kept_elsewhere"] = types.ModuleType("kept_elsewhere")
    module.y = OLD

    def log_density(z):
        import kept_elsewhere

        return gaussian(z, kept_elsewhere.y)

    return log_density, lambda y: setattr(module, "y", y)


def of_a_name_imported_inside():
    module = sys.modules["kept_elsewhere"] = types.ModuleType("kept_elsewhere")
    module.y = OLD

    def log_density(z):
        from kept_elsewhere import y

        return gaussian(z, y)

    return log_density, lambda y: setattr(module, "y", y)


def of_a_context():
    it = contextvars.ContextVar("it")
    it.set(OLD)
    return lambda z: gaussian(z, it.get()), it.set


def of_all_globals():
    return lambda z: gaussian(z, globals()["FOUND"]["y"]), lambda y: FOUND.update(y=y)


def of_numbers_beside_what_is_stored_into():
    config, calls = {"shift": 0.0}, {"number": 0, "last": None}

    def log_density(z):
        parts = [0.0, 0.0]
        parts[0] = z
        calls["number"] += 1
        calls["last"] = "here"
        return gaussian(parts[0] - config["shift"], OLD)

    return log_density, lambda y: config.update(shift=float(y[0]) - 1.0)


def of_a_wrapped_function():
    it = types.SimpleNamespace(y=OLD)

    @functools.wraps(gaussian)
    def log_density(z):
        return jax.checkpoint(lambda z: gaussian(z, it.y))(z)

    return log_density, lambda y: setattr(it, "y", y)


KINDS = [value for name, value in list(globals().items()) if name.startswith("of_")]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def mean_of_fit(log_density):
    fit = elbojax.fit(jax.random.key(0), log_density, 0.0)
    return fit.mean(), fit.sample(jax.random.key(1), 2000).mean()


QUICK = (of_a_global, of_an_attribute, of_a_jitted_helper, of_the_body_of_a_scan)
"""The others compile as long, and `run` sees them all."""


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow, id=kind.__name__) for kind in KINDS]
)
def test_fit_reads_what_is_there_now(kind):
    log_density, change = kind()
    for y, mean in ((OLD, 2.0), (NEW, 102.0), (OLD, 2.0)):
        change(y)
        np.testing.assert_allclose(mean_of_fit(log_density), mean, atol=0.06)


@every_kind
def test_run_reads_what_is_there_now(kind):
    """`run` with a solver made once: the gradient of the bound at q = N(2, 1/3) is zero or points at 102."""
    log_density, change = kind()
    solver = elbojax.svi(elbojax.as_loss(elbojax.elbo, log_density, num_samples=8), optax.sgd(1e-2))
    q = elbojax.mean_field(jnp.array([2.0]), jnp.array([3**-0.5]))

    if kind is of_the_body_of_a_scan or kind is of_a_number:
        return  # their positions are scalars
    for y, moved in ((OLD, 0.0), (NEW, 3.0), (OLD, 0.0)):
        change(y)
        run = elbojax.run(jax.random.key(0), solver, q, num_steps=1)
        np.testing.assert_allclose(run.q.loc[0] - 2, moved, atol=0.1)


@pytest.mark.parametrize("kind", [of_a_global, of_an_attribute, of_a_jitted_helper, of_numpy_in_place])
def test_run_batch_reads_what_is_there_now(kind):
    log_density, change = kind()
    solver = elbojax.svi(elbojax.as_loss(elbojax.elbo, log_density, num_samples=8), optax.sgd(1e-2))
    q = elbojax.mean_field(jnp.array([2.0]), jnp.array([3**-0.5]))
    qs = jax.tree.map(lambda x: jnp.stack([x] * 2), q)
    for y, moved in ((OLD, 0.0), (NEW, 3.0), (OLD, 0.0)):
        change(y)
        run = elbojax.run_batch(jax.random.split(jax.random.key(0), 2), solver, qs, max_steps=1)
        np.testing.assert_allclose(run.q.loc[:, 0] - 2, moved, atol=0.15)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(of_a_global, marks=pytest.mark.slow), pytest.param(of_an_attribute, marks=pytest.mark.long)],
)
def test_the_rest_read_what_is_there_now(kind):
    log_density, change = kind()
    prior = lambda z: log_density(z)  # noqa: E731
    nothing = lambda z, row: 0.0 * jnp.sum(row) * z  # noqa: E731
    for y, mean in ((OLD, 2.0), (NEW, 102.0), (OLD, 2.0)):
        change(y)
        fits = elbojax.fit_batch(jax.random.key(0), lambda_of(log_density), 0.0, np.zeros(2))
        np.testing.assert_allclose(fits.mean(), mean, atol=0.1)
        fits = elbojax.fit_ragged(jax.random.key(0), lambda_of(log_density), 0.0, [np.zeros(1), np.zeros(3)])
        np.testing.assert_allclose(fits.mean(), mean, atol=0.1)
        fit = elbojax.fit_minibatches(jax.random.key(0), prior, nothing, 0.0, np.zeros(1000))
        np.testing.assert_allclose(fit.mean(), mean, atol=0.1)


@functools.cache
def lambda_of(log_density):
    return lambda z, w: log_density(z) + 0.0 * jnp.sum(jax.tree.leaves(w)[0])


def test_the_same_reads_compile_nothing(caplog):
    """A second call with the same function, also one that counts its traces, and of a solver made anew."""
    counted, total = [], types.SimpleNamespace(calls=0)

    def log_density(z):
        counted.append(1)
        total.calls += 1
        return gaussian(z, Y)

    def run():
        solver = elbojax.svi(elbojax.as_loss(elbojax.elbo, lambda z: log_density(z[0])), optax.sgd(1e-2))
        elbojax.run(jax.random.key(0), solver, elbojax.mean_field(jnp.zeros(1), jnp.ones(1)), num_steps=1)

    mean_of_fit(log_density)
    before = len(counted)
    with jax.log_compiles():
        caplog.clear()
        mean_of_fit(log_density)
    assert len(counted) - before <= 1  # the check of its shape
    assert not [record for record in caplog.records if record.message.startswith("Compiling")]
    run()


def exotic():
    class Raises:
        def __getattr__(self, name):
            raise RuntimeError(name)

        def __call__(self, z):
            return -(z**2)

    class Unhashable(dict):
        __hash__ = None

        def __call__(self, z):
            return -(z**2)

    loop = []
    loop.append(loop)
    circle = types.SimpleNamespace()
    circle.it = circle
    many = list(range(100_000))
    generator = (i for i in range(3))
    yield from (
        Raises(),
        Unhashable(),
        np.sin,
        jnp.sin,
        len,
        print,
        str.upper,
        loop,
        circle,
        generator,
        object(),
        type,
        dis_,
    )
    yield lambda z: (loop, circle, many, generator)
    yield functools.partial(functools.partial(max, 1), 2)
    yield np.array([object(), None], dtype=object)
    yield jax.random.key(0)
    yield jax.jit(lambda z: -z)


dis_ = types.MethodType(lambda self, z: z, np.zeros(2))


def test_looking_never_raises():
    for it in exotic():
        assert closures.look(it).key == closures.look(it).key, it


def test_a_look_is_quick():
    import timeit

    log_density, _ = of_an_attribute()
    target = elbojax.targets.unconstrain(log_density, jnp.zeros(3))
    seconds = min(timeit.repeat(lambda: closures.look(target), number=20, repeat=5)) / 20
    assert seconds < 3e-3  # 0.1 to 0.3 ms on a machine with nothing else to do


def test_nothing_keeps_a_function_or_its_data_alive():
    """Three calls with functions that are made for them; the arrays that they close over go too."""

    class Array(np.ndarray):
        pass

    def once(i):
        y = (i + np.zeros(3)).view(Array)
        log_density = lambda z: -0.5 * jnp.sum((np.asarray(y) - z) ** 2)  # noqa: E731
        fit = elbojax.fit(jax.random.key(0), log_density, 0.0)
        assert abs(float(fit.mean()) - i) < 0.1
        fit.sample(jax.random.key(0), 10)
        return weakref.ref(log_density), weakref.ref(y)

    gc.collect()
    cached = len(xla._cache)
    references = [once(i) for i in range(3)]
    gc.collect()
    alive = [[reference() is not None for reference in each] for each in references]
    assert not np.any(alive[:2]), alive
    elbojax.fit(jax.random.key(0), of_a_cell()[0], 0.0)
    assert len(xla._cache) <= cached + 40


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


@pytest.mark.slow
def test_fits_of_fresh_functions_do_not_grow():
    """MB a fit, once the first ones have brought in what is shared; 21 before."""

    def once(i):
        elbojax.fit(jax.random.key(0), lambda z: -0.5 * (z - i) ** 2, 0.0)

    for i in range(8):
        once(float(i))
    gc.collect()
    before = resident()
    for i in range(24):
        once(100.0 + i)
    gc.collect()
    assert (resident() - before) / 24 < 5
