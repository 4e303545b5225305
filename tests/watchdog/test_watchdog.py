"""Every call ends: in fresh processes, with no flag that a user would not have set, on one, two and four threads."""

import os
import pathlib
import subprocess
import sys

import pytest

from elbojax import xla

PROGRAMS = pathlib.Path(__file__).with_name("programs.py")
LIMIT = 1500.0
"""Seconds for a process, on a machine that does other things too. One that hangs is ended after twenty of idling."""
OURS = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "NPROC")
"""What the suite sets and a user does not."""


def ends(names, threads):
    """Runs programs in a fresh process whose XLA has so many threads; NPROC tells it, where there are fewer cores too."""
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
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize(
    "names",
    [
        ("processes-20", "processes-40"),
        ("loops-5", "loops-40", "studies"),
        ("solvers-3", "solvers-40"),
        ("stages",),
    ],
    ids="-".join,
)
def test_ends(names, threads):
    ends(names, threads)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "threads"), [("garch-60", 1), ("garch-300", 2), ("garch-60", 4)])
def test_the_demos_windows_end(name, threads):
    ends([name], threads)


def test_a_users_factors_run_one_after_the_other():
    """What hangs with jaxlib 0.10 at once, were the program compiled by `jax.jit`."""
    code = """
import os, threading, time
import jax, jax.numpy as jnp
from elbojax import xla

def watch():
    time.sleep(60)
    os._exit(3)

threading.Thread(target=watch, daemon=True).start()
a = [jnp.eye(40) * 2 + jnp.zeros((32, 1, 1)) + i for i in range(8)]
program = xla.jit(lambda *a: [jnp.linalg.cholesky(x) for x in a])
for _ in range(100):
    jax.block_until_ready(program(*a))
"""
    environment = {name: value for name, value in os.environ.items() if name not in OURS} | {"NPROC": "2"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=300).returncode == 0


def test_the_workaround_is_for_one_version():
    assert bool(xla.SEQUENTIAL) == xla.AFFECTED
