"""Every call ends: in fresh processes, with no flag that a user would not have set, on one, two and four threads."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax.workarounds import lapack

PROGRAMS = pathlib.Path(__file__).with_name("programs.py")
LIMIT = 1500.0
"""Seconds for a process, on a machine that does other things too. One that hangs is ended after twenty of idling."""
OURS = ("XLA_FLAGS", "NPROC")
"""What the suite sets and a user does not."""


def ends(names, threads):
    """Runs programs in a fresh process whose XLA has so many threads; NPROC tells it, where there are fewer cores too.

    Programs that have been compiled before are read from the suite's cache, for what hangs does so as it runs.
    """
    environment = {name: value for name, value in os.environ.items() if name not in OURS} | {"NPROC": str(threads)}
    cores = os.cpu_count() or 1
    pinned = ["taskset", "--cpu-list", f"0-{threads - 1}"] if threads <= cores else []
    done = subprocess.run(
        [*pinned, sys.executable, str(PROGRAMS), *names],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ("processes-20", "processes-40"),
        ("loops-5", "loops-40", "studies"),
        ("solvers-3", "solvers-40"),
        ("mixtures-40", "stages"),
    ],
    ids="-".join,
)
def test_ends(names):
    for threads in (2, 1, 4):
        ends(names, threads)


@pytest.mark.slow
def test_the_demos_windows_end():
    for name, threads in (("garch-300", 2), ("garch-60", 1), ("garch-60", 4)):
        ends([name], threads)


@pytest.mark.parametrize("function", ["cholesky", "solve"])
def test_a_users_factors_do_not_wait_for_each_other(function):
    """What hangs with jaxlib 0.10 at once, were it LAPACK's."""
    code = f"""
import sys, threading
sys.path.insert(0, {str(PROGRAMS.parent)!r})
import programs
threading.Thread(target=programs._watch, args=(["{function}"],), daemon=True).start()
import elbojax, jax, jax.numpy as jnp

a = [jnp.eye(64) * 2 + jnp.zeros((64, 1, 1)) + i for i in range(16)]
solve = lambda x: jax.scipy.linalg.solve_triangular(x, x, lower=True)
program = jax.jit(lambda *a: [{"jnp.linalg.cholesky" if function == "cholesky" else "solve"}(x) for x in a])
for _ in range(30):
    jax.block_until_ready(program(*a))
"""
    environment = {name: value for name, value in os.environ.items() if name not in OURS} | {"NPROC": "2"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=LIMIT).returncode == 0


@pytest.mark.skipif(not lapack.AFFECTED, reason="JAX's own are used with this jaxlib")
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("left_side", [False, True])
@pytest.mark.parametrize("unit_diagonal", [False, True])
def test_all_settings_of_a_solve(left_side, lower, transpose_a, unit_diagonal):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 5, 5)) + 4 * np.eye(5)
    b = rng.normal(size=(3, 5, 2) if left_side else (3, 2, 5))
    settings = dict(left_side=left_side, lower=lower, transpose_a=transpose_a, unit_diagonal=unit_diagonal)
    x = np.asarray(jax.lax.linalg.triangular_solve(jnp.asarray(a), jnp.asarray(b), **settings))
    used = np.tril(a) if lower else np.triu(a)
    if unit_diagonal:
        used = used - used * np.eye(5) + np.eye(5)
    used = used.swapaxes(-1, -2) if transpose_a else used
    np.testing.assert_allclose(used @ x if left_side else x @ used, b, atol=1e-10)
    text = jax.jit(lambda a, b: jax.lax.linalg.triangular_solve(a, b, **settings)).lower(a, b).as_text()
    assert "trsm" not in text


@pytest.mark.skipif(not lapack.AFFECTED, reason="JAX's own are used with this jaxlib")
def test_nothing_but_the_two_real_operations_is_replaced():
    a = jnp.eye(3)
    assert "potrf" not in jax.jit(jnp.linalg.cholesky).lower(a).as_text()
    assert "potrf" in jax.jit(jnp.linalg.cholesky).lower(a.astype(complex)).as_text()
    assert np.all(np.isnan(np.diagonal(jnp.linalg.cholesky(-a))))


def test_an_off_switch():
    code = "from elbojax.workarounds import lapack; print(lapack.replace_lapack())"
    environment = dict(os.environ) | {"ELBOJAX_WORKAROUNDS": "-lapack"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "False"
