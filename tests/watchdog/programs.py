"""Calls that have to end, one after the other, in a process that a user could have started; see `test_watchdog.py`.

    python programs.py NAME ...

A thread looks on: a process that uses no processor for `IDLE` seconds waits for nothing, and ends with code 3.
"""

import os
import sys
import threading
import time

IDLE = 20.0
"""Seconds without any use of a processor after which a program hangs. Those that hang use none at all."""


def _watch(doing):
    used, since = time.process_time(), time.monotonic()
    while True:
        time.sleep(1.0)
        if time.process_time() - used > 0.05:
            used, since = time.process_time(), time.monotonic()
        elif time.monotonic() - since > IDLE:
            print(f"hangs: {doing[-1]}", flush=True)
            os._exit(3)


def garch(limit):
    """The demo's windows, in float64: of 300 some reach every stage."""
    import jax
    import numpy as np

    import elbojax
    from elbojax.demo import volatility

    returns = np.asarray(volatility.sp500_windows(limit=limit).returns, np.float64)
    fits = elbojax.fit_batch(
        jax.random.key(0), volatility.log_joint, volatility.START, returns, support=volatility.SUPPORT, compiled=True
    )
    assert np.mean(fits.certificate.certified) > 0.95


def _processes(num_points, num_processes):
    """Gaussian processes with a length and a scale each: Cholesky factors side by side, as in a user's model."""
    import jax
    import jax.numpy as jnp

    x = jnp.linspace(0.0, 1.0, num_points)

    def one(log_length, log_scale, y):
        kernel = jnp.exp(2 * log_scale - 0.5 * ((x[:, None] - x) / jnp.exp(log_length)) ** 2)
        tril = jnp.linalg.cholesky(kernel + 0.1 * jnp.eye(num_points))
        return -0.5 * y @ jax.scipy.linalg.cho_solve((tril, True), y) - jnp.sum(jnp.log(jnp.diagonal(tril)))

    def log_density(z, ys):
        return sum(one(z[2 * i], z[2 * i + 1], y) for i, y in enumerate(ys)) - 0.5 * z @ z

    ys = [jnp.sin((i + 2.0) * x) for i in range(num_processes)]
    return log_density, jnp.zeros(2 * num_processes), ys


def processes(num_points):
    """One fit of them, and a batch."""
    import jax
    import jax.numpy as jnp

    import elbojax

    log_density, start, ys = _processes(num_points, 4)
    fit = elbojax.fit(jax.random.key(0), log_density, start, data=ys)
    assert fit.certificate.certified
    many = tuple(jnp.stack([y, 0.5 * y, y + 0.1, -y]) for y in ys)
    assert jnp.all(elbojax.fit_batch(jax.random.key(0), log_density, start, many, compiled=True).certificate.certified)


def loops(size):
    """`run` and `run_batch` with dense families whose log-density is asked for, on processes of their own."""
    import jax
    import jax.numpy as jnp
    import optax

    import elbojax

    log_density, start, ys = _processes(30, 4)
    solver = elbojax.svi(elbojax.as_loss(elbojax.elbo_stl, lambda z: log_density(z, ys)), optax.adam(0.05))
    q = elbojax.full_rank(start, jnp.eye(start.size))
    assert jnp.isfinite(elbojax.run(jax.random.key(0), solver, q, num_steps=50).loss)

    def dense(z, datum):
        return -0.5 * jnp.sum((z - datum) ** 2)

    solver = elbojax.svi(elbojax.as_loss(elbojax.elbo_stl, dense), optax.adam(0.05))
    qs = jax.vmap(lambda loc: elbojax.full_rank(loc, jnp.eye(size)))(jnp.zeros((40, size)))
    runs = elbojax.run_batch(jax.random.key(0), solver, qs, jnp.ones((40, size)), max_steps=50)
    assert jnp.all(jnp.isfinite(runs.loss))


def solvers(size):
    """Those that end in one go, side by side in a user's own `jit`."""
    import jax
    import jax.numpy as jnp

    import elbojax

    scales = jnp.linspace(0.5, 2.0, size)

    def density(shift):
        return lambda z: -0.5 * jnp.sum(((z - shift) / scales) ** 2) - 0.01 * jnp.sum(z**4)

    shifts = jnp.linspace(-1.0, 1.0, 16)
    keys = jax.random.split(jax.random.key(0), 16)
    for name in ("newton", "pathfinder", "multipathfinder", "dadvi", "batch_and_match", "gsm", "laplace"):
        solver = getattr(elbojax.solvers, name)

        def one(key, shift, name=name, solver=solver):
            start = elbojax.full_rank(jnp.zeros(size), jnp.eye(size)) if name == "newton" else jnp.zeros(size)
            return solver(key, density(shift), start)

        result = jax.jit(jax.vmap(one))(keys, shifts)
        assert jax.tree.all(jax.tree.map(lambda x: jnp.all(jnp.isfinite(x) | jnp.isinf(x)), result[0])), name


def stages():
    """Posteriors that need the later stages of `fit` and `fit_batch`: two modes, a funnel, a ring."""
    import jax
    import jax.numpy as jnp

    import elbojax

    def modes(z, d):
        return jnp.logaddexp(-0.5 * jnp.sum((z - d) ** 2), -0.5 * jnp.sum((z + d) ** 2))

    def funnel(z, d):
        return -0.5 * (z[0] / d) ** 2 - 0.5 * jnp.sum(z[1:] ** 2) * jnp.exp(-z[0]) - 0.5 * (z.size - 1) * z[0]

    def ring(z, d):
        return -0.5 * ((jnp.sum(z**2) ** 0.5 - 4.0) / (0.3 * d)) ** 2

    for log_density, size in ((modes, 3), (funnel, 5), (ring, 2)):
        elbojax.fit(jax.random.key(0), log_density, 0.5 * jnp.ones(size), data=jnp.asarray(2.0))
        elbojax.fit_batch(
            jax.random.key(0), log_density, 0.5 * jnp.ones(size), jnp.linspace(1.5, 2.5, 12), compiled=True
        )


def mixtures(num_points):
    """Two modes of Gaussian processes, which need the stage of mixtures: two batched factors side by side, one per mode."""
    import jax
    import jax.numpy as jnp

    import elbojax

    log_density, start, ys = _processes(num_points, 2)

    def modes(z, ys):
        return jnp.logaddexp(log_density(z - 2.0, ys), log_density(-z - 2.0, ys))

    many = tuple(jnp.stack([y, 0.5 * y, y + 0.1, -y]) for y in ys)
    fits = elbojax.fit_batch(jax.random.key(0), modes, start + 0.5, many, compiled=True)
    assert jnp.all(jnp.isfinite(fits.certificate.khat))


def studies():
    """Refits, simulation-based calibration, and rows in minibatches."""
    import jax
    import jax.numpy as jnp

    import elbojax

    y = jnp.sin(jnp.arange(24.0))

    def log_density(z, rows):
        return -0.5 * jnp.sum((rows - z["mu"]) ** 2) / z["s"] ** 2 - rows.size * jnp.log(z["s"]) - 0.5 * z["mu"] ** 2

    init, support = {"mu": 0.0, "s": 1.0}, {"s": "positive"}
    elbojax.fit_batch(
        jax.random.key(0), log_density, init, jnp.stack([y + i for i in range(8)]), support=support, compiled=True
    )

    def ragged(z, rows):
        return -0.5 * jnp.sum(jnp.where(rows.mask, (rows.data - z) ** 2, 0)) - 0.5 * z**2

    elbojax.fit_ragged(jax.random.key(0), ragged, 0.0, [y, y[:9]])
    elbojax.fit_minibatches(
        jax.random.key(0), lambda z: -0.5 * z @ z, lambda z, row: -0.5 * (row - z[0]) ** 2, jnp.zeros(2), y
    )


PROGRAMS = {
    "garch-300": lambda: garch(300),
    "garch-60": lambda: garch(60),
    "processes-20": lambda: processes(20),
    "processes-40": lambda: processes(40),
    "loops-5": lambda: loops(5),
    "loops-40": lambda: loops(40),
    "solvers-3": lambda: solvers(3),
    "solvers-40": lambda: solvers(40),
    "mixtures-40": lambda: mixtures(40),
    "stages": stages,
    "studies": studies,
}

if __name__ == "__main__":
    doing = ["import"]
    threading.Thread(target=_watch, args=(doing,), daemon=True).start()
    for name in sys.argv[1:]:
        doing.append(name)
        began = time.process_time()
        PROGRAMS[name]()
        print(f"{name}: ended, {time.process_time() - began:.0f} s of a processor", flush=True)
