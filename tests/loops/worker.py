"""Two small batches, one of `run_batch` and one of `fit_batch`, in this process or in one of their own.

python worker.py RESULTS [--mesh] [--checkpoint FOLDER] [--process I --port PORT]
"""

import argparse
import functools
import os
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import elbojax
from elbojax.cascade import batch
from elbojax.loops import run_batch as _  # noqa: F401  the module, below, not the function
from elbojax.loops import shards

walks = sys.modules["elbojax.loops.run_batch"]
ROOT = pathlib.Path(__file__).parents[2]
PROCESSES = 2
M = 13


class Info(NamedTuple):
    q: Any
    loss: Any


class State(NamedTuple):
    q: Any


def _step(key, state, target):
    q = state.q - 0.02 * (state.q - target) + 0.001 * jax.random.normal(key, state.q.shape, state.q.dtype)
    return State(q), Info(q, jnp.sum((q - target) ** 2))


WALK = elbojax.solvers.Solver(State, _step)
CLOSE = elbojax.solvers.StopRule(lambda q: jnp.array(False), lambda aux, info: ((aux | (info.loss < 0.01)),) * 2)


def walk(num_models=M, **settings):
    """Models that take between 1 and 20 blocks of steps."""
    targets = jnp.logspace(-2, 8, num_models)[jnp.argsort(jnp.arange(num_models) * 7 % num_models)]
    key = jax.random.key(3)
    qs = jnp.zeros((num_models, 2))
    return elbojax.run_batch(key, WALK, qs, targets, max_steps=1000, stop=CLOSE, lanes=2, **settings)


def log_density(z, y):
    return -0.5 * jnp.sum((y - z) ** 2) - 0.005 * jnp.sum(z**2)


def posteriors(num_models=M, **settings):
    y = np.random.default_rng(0).normal(size=(num_models, 3))
    with mock.patch.object(batch, "LANES", {"cpu": 2}):  # as many side by side on one device as on each of eight
        return elbojax.fit_batch(jax.random.key(0), log_density, 0.0, y, compiled=True, **settings)


def both(folder=None, **settings):
    """The two batches, with a checkpoint of each below the folder."""
    where = lambda name: None if folder is None else f"{folder}/{name}"  # noqa: E731
    return walk(checkpoint=where("walk"), **settings), posteriors(checkpoint=where("posteriors"), **settings)


def answers(run, fits):
    """What two runs must agree on: all but the count of gradients, which follows the rounding of a line search."""
    verdict = fits.certificate
    return run, verdict.certified, verdict.status, verdict.stage, verdict.elbo, fits.mean(), fits.sd(), fits.draws


@functools.cache
def reference(num_models=M):
    """The answers of one process with one device that nobody disturbs."""
    return jax.tree.leaves(answers(walk(num_models), posteriors(num_models)))


def often(setattr):
    """Every block of steps is a chunk, and every chunk is written."""
    setattr(walks, "SECONDS_BETWEEN_UPDATES", 0.0)
    setattr(shards, "SECONDS_BETWEEN", 0.0)
    setattr(shards, "PART", 1e9)


def start(*args, devices=1, **environment):
    """This file in a process of its own."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    settings = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | environment
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, args)],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    """Wait for processes that are to end well."""
    try:
        for process in processes:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def save(path, **trees):
    np.savez(path, **{f"{name}{i}": x for name, tree in trees.items() for i, x in enumerate(jax.tree.leaves(tree))})


def leaves(path, name):
    with np.load(path) as file:
        return [file[key] for key in file.files if key.rstrip("0123456789") == name]


def _main():
    parser = argparse.ArgumentParser()
    parser.add_argument("results")
    parser.add_argument("--mesh", action="store_true")
    parser.add_argument("--checkpoint")
    parser.add_argument("--process", type=int)
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if options.process is not None:
        jax.distributed.initialize(f"localhost:{options.port}", PROCESSES, options.process)
    if options.checkpoint is not None:
        often(setattr)
    work = {}
    if options.mesh:
        collect = walks.Places.collect

        def noted(places, tree):
            filled = places.filled.addressable_shards
            for shard, mine in zip(tree.num_steps.addressable_shards, filled, strict=True):
                work[shard.device.id] = int(np.sum(np.where(mine.data, shard.data, 0)))
            return collect(places, tree)

        walks.Places.collect = noted
    mesh = jax.make_mesh((jax.device_count(),), ("models",)) if options.mesh else None
    run, fits = both(options.checkpoint, mesh=mesh)
    one = walk(1, mesh=mesh), posteriors(1, mesh=mesh)  # of two processes one has nothing to do
    if options.mesh and options.process is None:
        walk(1000, mesh=mesh)
    everything = answers(*elbojax.loops.gather((run, fits)))
    save(
        options.results,
        share=answers(run, fits),
        all=everything,
        one=answers(*elbojax.loops.gather(one)),
        work=np.array(list(work.values())),
    )


if __name__ == "__main__":
    import faulthandler

    faulthandler.dump_traceback_later(280, exit=True)
    _main()
