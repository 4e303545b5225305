"""Stages on the host see the same model as compiled ones: leaves without numbers, any data, far scales, walls, threads."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status

KEY = jax.random.key(0)


def normal(z):
    return -0.5 * jnp.sum((z - 3.0) ** 2)


LEAVES = {
    "a simplex of one": (np.ones(1), "simplex", 1.0),
    "a simplex of one, three times": (np.ones((3, 1)), "simplex", 1.0),
    "none": (np.zeros(0), None, 0.0),
    "none of two positive": (np.zeros((0, 2)), "positive", 0.0),
    "two of none": (np.zeros((2, 0)), None, 0.0),
}


@pytest.mark.parametrize("name", LEAVES)
def test_leaves_without_free_numbers(name, precision):
    leaf, support, value = LEAVES[name]
    log_density = lambda z: normal(z["a"]) + jnp.sum(z["b"])  # noqa: E731
    fit = elbojax.fit(KEY, log_density, {"a": 0.0, "b": leaf}, support=support and {"b": support})
    assert fit.certificate.certified
    np.testing.assert_allclose(fit.mean()["b"], np.full(leaf.shape, value), atol=1e-6)
    np.testing.assert_allclose(fit.sd()["b"], np.zeros(leaf.shape), atol=1e-6)
    np.testing.assert_allclose(fit.mean()["a"], 3, atol=1e-3)
    assert fit.sample(KEY, 5)["b"].shape == (5, *leaf.shape)


def data_of():
    y = np.arange(1.0, 6.0)
    return {
        "double": y,
        "single": y.astype(np.float32),
        "half": y.astype(np.float16),
        "whole": y.astype(np.int64),
        "small whole": y.astype(np.uint8),
        "on the device": jnp.asarray(y),
        "brain float": jnp.asarray(y, jnp.bfloat16),
        "strided": np.repeat(y, 2)[::2],
        "backwards": y[::-1].copy()[::-1],
        "not to be written to": np.lib.stride_tricks.as_strided(y, writeable=False),
    }


@pytest.mark.parametrize("name", data_of())
def test_data_of_any_kind(name, precision):
    def log_density(z, d):
        return -0.5 * jnp.sum(jnp.where(d["use"], (z - d["y"]) ** 2, 0)) + jnp.sum(d["nothing"])

    data = {
        "y": data_of()[name],
        "use": np.array([True, False, True, False, True]),
        "none": None,
        "nothing": np.zeros(0),
    }
    fit = elbojax.fit(KEY, log_density, 0.0, data=data)
    assert fit.certificate.certified
    assert float(fit.mean()) == pytest.approx(3, abs=1e-3) and float(fit.sd()) == pytest.approx(3**-0.5, rel=1e-3)


RETURNS = {
    "single": lambda x: x.astype(jnp.float32),
    "double": lambda x: jnp.asarray(x, float),
    "half": lambda x: x.astype(jnp.float16),
}


@pytest.mark.parametrize("name", RETURNS)
def test_log_densities_of_any_dtype(name, precision):
    fit = elbojax.fit(KEY, lambda z: RETURNS[name](normal(z)), np.zeros(2))
    assert fit.certificate.certified
    np.testing.assert_allclose(fit.mean(), 3, atol=1e-3)
    np.testing.assert_allclose(fit.sd(), 1, atol=2e-3)


@pytest.mark.parametrize("location", [0.0, 1e9])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8, np.array([1e-8, 1e8])], ids=str)
@pytest.mark.parametrize("offset", [0.0, -1e6])
def test_scales_locations_and_constants(location, scale, offset, precision):
    scale = np.broadcast_to(scale, 2)
    mean = location * np.sqrt(scale)
    log_density = lambda z: -0.5 * jnp.sum(((z - mean) / scale) ** 2) + offset  # noqa: E731
    fit = elbojax.fit(KEY, log_density, np.zeros(2))
    assert fit.certificate.certified
    np.testing.assert_allclose((np.asarray(fit.mean(), float) - mean) / scale, 0, atol=1e-2)
    np.testing.assert_allclose(np.asarray(fit.sd(), float) / scale, 1, rtol=1e-2)


def test_half_of_all_starts_in_nan(precision):
    log_density = lambda z: jnp.where(z[0] > 0, jnp.log(jnp.abs(z[0])) - z[0], jnp.nan) - 0.5 * z[1] ** 2  # noqa: E731
    fit = elbojax.fit(KEY, log_density, np.array([0.1, 0.0]))
    assert fit.certificate.certified  # gamma(2)
    np.testing.assert_allclose(fit.mean(), [2, 0], atol=0.05)
    np.testing.assert_allclose(fit.sd(), [2**0.5, 1], rtol=0.05)


STEEP = {
    "a gradient that overflows when squared": lambda z: -1e200 * jnp.sum((z - 1) ** 2),
    "a value that overflows": lambda z: -1e300 * jnp.sum((1e10 * z - 1) ** 2),
    "an infinite slope": lambda z: -jnp.sum(jnp.sqrt(jnp.abs(z))),
    "no slope": lambda z: 0.0 * jnp.sum(z),
    "up without end": lambda z: jnp.sum(z),
    "up faster and faster": lambda z: jnp.sum(z**2),
    "up to infinity": lambda z: jnp.sum(jnp.exp(z)),
    "one draw in a thousand": lambda z: jnp.where(jnp.all(jnp.abs(z) < 1e-3), 0.0, -jnp.inf),
}


@pytest.mark.parametrize("name", STEEP)
def test_no_density_is_an_error(name, precision):
    fit = elbojax.fit(KEY, STEEP[name], np.zeros(2), max_gradients=3000)
    c = fit.certificate
    if name in ("an infinite slope", "one draw in a thousand"):
        assert isinstance(str(fit), str)
    else:
        assert not c.certified and Status(int(c.status)) != Status.CONVERGED


def test_containers_of_one_shape_are_told_apart(precision):
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
    for kind in (Plain, Shifted, Plain):
        fit = elbojax.fit(KEY, log_density, 0.0, data=kind(np.array(3.0)))
        assert float(fit.mean()) == pytest.approx(3 + kind.shift, abs=1e-3)


def test_threads_at_once(precision):
    """One function with several data, and several functions, from threads that have their own settings."""
    shared = lambda z, x: -0.5 * jnp.sum((z - x) ** 2)  # noqa: E731
    barrier = threading.Barrier(3)

    def work(i):
        barrier.wait()
        own = lambda z: -0.5 * jnp.sum((z + i) ** 2)  # noqa: E731
        with jax.enable_x64(bool(i % 2)):
            first = elbojax.fit(jax.random.key(i), shared, np.zeros(2), data=np.full(2, float(i)))
            second = elbojax.fit(jax.random.key(i), own, np.zeros(2))
            return first.mean(), second.mean()

    with ThreadPoolExecutor(3) as pool:
        for i, (first, second) in enumerate(pool.map(work, range(3))):
            np.testing.assert_allclose(first, i, atol=1e-3)
            np.testing.assert_allclose(second, -i, atol=1e-3)
            assert first.dtype == (np.float64 if i % 2 else np.float32)


SPAWNED = """
import multiprocessing, sys
def work(i):
    import elbojax, jax
    return float(elbojax.fit(jax.random.key(i), lambda z: -0.5 * (z - i) ** 2, 0.0).mean())
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print([round(x, 2) for x in pool.map(work, [1, 2])])
"""


def test_processes(tmp_path):
    path = tmp_path / "spawned.py"
    path.write_text(SPAWNED)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "[1.0, 2.0]", done.stderr
