"""Log-densities that call Python on the host (`jax.pure_callback`): right in a float32 session as in double precision."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax

KEY = jax.random.key(0)


@pytest.fixture(params=[False, True], ids=["default", "x64"])
def precision(request):
    """The setting of the whole process, for XLA's threads see no other."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", request.param)
    yield request.param
    jax.config.update("jax_enable_x64", before)


def on_host(dtype_of, give):
    """A normal log-density with centre y on the host; its gradient there too."""

    @jax.custom_vjp
    def log_density(z, y):
        shape = jax.ShapeDtypeStruct((), dtype_of(z))
        return jax.pure_callback(
            lambda z, y: give(-0.5 * np.sum((np.asarray(z) - np.asarray(y)) ** 2)),
            shape,
            z,
            y,
            vmap_method="sequential",
        )

    def forward(z, y):
        return log_density(z, y), (z, y)

    def backward(residuals, c):
        z, y = residuals
        gradient = jax.pure_callback(
            lambda z, y: np.asarray(z) - np.asarray(y),
            jax.ShapeDtypeStruct(z.shape, z.dtype),
            z,
            y,
            vmap_method="sequential",
        )
        return -c * gradient.astype(z.dtype), jnp.zeros_like(y)

    log_density.defvjp(forward, backward)
    return log_density


KINDS = {
    "of the dtype of z": on_host(lambda z: z.dtype, lambda x: x),
    "a float": on_host(lambda z: z.dtype, float),
    "of the dtype of z, cast": on_host(lambda z: jnp.result_type(float), np.float64),
}


@pytest.mark.parametrize("kind", KINDS)
def test_fit(kind, precision):
    y = np.array([1.0, -2.0])
    fit = elbojax.fit(KEY, KINDS[kind], np.zeros(2), data=y)
    assert fit.certificate.certified
    np.testing.assert_allclose(fit.mean(), y, atol=0.05)
    np.testing.assert_allclose(fit.sd(), 1.0, atol=0.05)
    assert jnp.zeros(()).dtype == (jnp.float64 if precision else jnp.float32)


def test_fit_batch(precision):
    y = np.array([[1.0, -2.0], [3.0, 4.0], [0.0, 0.0]])
    fits = elbojax.fit_batch(KEY, KINDS["of the dtype of z"], np.zeros(2), y)
    assert fits.certificate.certified.all()
    np.testing.assert_allclose(fits.mean(), y, atol=0.1)
    np.testing.assert_allclose(fits.sd(), 1.0, atol=0.1)


def test_the_setting_of_the_process_is_as_it_was(precision):
    seen = []

    def look():
        seen.append(jax.config.jax_enable_x64)

    def in_thread():
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    in_thread()
    elbojax.fit(KEY, KINDS["a float"], np.zeros(2), data=np.zeros(2))
    in_thread()

    def fails(z):
        raise ZeroDivisionError

    failing = lambda z: jax.pure_callback(fails, jax.ShapeDtypeStruct((), z.dtype), z, vmap_method="sequential")  # noqa: E731
    with pytest.raises(Exception):  # noqa: B017
        elbojax.fit(KEY, failing, np.zeros(2))
    in_thread()
    assert len(set(seen)) == 1


SEEN = set()


def banana(z, bend):
    """Values of -z_0^2 / 2 - (z_1 - b z_0^2)^2 / 2, and their gradients, on the host."""

    def value(z, bend):
        SEEN.add((z.dtype, bend.dtype))
        return -0.5 * z[..., 0] ** 2 - 0.5 * (z[..., 1] - bend * z[..., 0] ** 2) ** 2

    def slope(z, bend):
        miss = z[..., 1] - bend * z[..., 0] ** 2
        return np.stack([-z[..., 0] + 2 * bend * z[..., 0] * miss, -miss], axis=-1)

    @jax.custom_vjp
    def log_density(z, bend):
        shape = jax.ShapeDtypeStruct((), z.dtype)
        return jax.pure_callback(value, shape, z, bend, vmap_method="broadcast_all")

    def forward(z, bend):
        gradient = jax.pure_callback(
            slope, jax.ShapeDtypeStruct(z.shape, z.dtype), z, bend, vmap_method="broadcast_all"
        )
        return log_density(z, bend), gradient

    log_density.defvjp(forward, lambda gradient, c: (c * gradient, jnp.zeros(())))
    return log_density(z, bend)


def test_stages_on_the_host_of_many_models(precision, monkeypatch):
    """Their draws are computed in several threads, each of which sees double precision."""
    monkeypatch.setattr(elbojax.cascade.batch.handover, "available", lambda: False)
    monkeypatch.setitem(vars(elbojax.thresholds), "FLOW_LARGEST", 0)
    bends = np.linspace(0.5, 0.7, 4)
    SEEN.clear()
    fits = elbojax.fit_batch(KEY, banana, np.zeros(2), bends)
    assert fits.certificate.certified.all() and (fits.certificate.num_log_densities > 4096).all()
    np.testing.assert_allclose(fits.mean()[:, 1], bends, atol=0.08)
    np.testing.assert_allclose(fits.sd()[:, 1], np.sqrt(1 + 2 * bends**2), rtol=0.08)
    assert {dtype for both in SEEN for dtype in both} == {np.dtype(np.float64)}
    assert jnp.zeros(()).dtype == (jnp.float64 if precision else jnp.float32)
