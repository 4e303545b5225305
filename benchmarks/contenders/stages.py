"""Stages of `fit` alone, each as one compiled program: what it plans of memory, and what it takes."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness.clock import clock
from benchmarks.harness.record import Row
from benchmarks.problems.growing import Growing
from elbojax.cascade import handover
from elbojax.cascade.gaussian import fit_gaussian
from elbojax.cascade.large import fit_large
from elbojax.cascade.single import density_of, prepare

LOW_RANK, FULL_RANK, CHAINS = "low rank", "full rank", "NUTS from there"
STAGES: dict[str, Callable] = {LOW_RANK: fit_large, FULL_RANK: fit_gaussian}


def stage(name: str, problem: Growing, size: int, data: Any, repeats: int) -> tuple[Row, Any]:
    """Compile once, run often: what it took, and the first outcome. Without repeats, what it would take of memory."""
    target, start = prepare(problem.log_density, np.zeros(size), None, data)
    program = jax.jit(lambda key, start, data: STAGES[name](key, density_of(target, data), start)[0])
    began = time.perf_counter()
    compiled = program.lower(jax.random.key(0), start, data).compile()
    compiling = time.perf_counter() - began
    memory = compiled.memory_analysis()
    planned = None if memory is None else (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 1e6
    row: Row = {"compile_seconds": compiling, "planned_mb": planned}
    if not repeats:
        return row, None
    clocked = [clock(lambda seed=seed: compiled(jax.random.key(seed), start, data)) for seed in range(repeats + 1)]
    outcomes, walls, cpus = zip(*clocked, strict=True)
    certificate = outcomes[0].certificate
    return (
        row
        | {
            "first_seconds": compiling + walls[0],
            "warm_seconds": min(walls[1:]),  # whatever else the machine does only adds to them
            "warm_cpu_seconds": min(cpus[1:]),
            "gradients": float(np.median([float(one.certificate.num_gradients) for one in outcomes])),
            "khat": float(certificate.khat),
            "ess": float(certificate.ess),
            "certified": bool(certificate.certified),
        },
        outcomes[0],
    )


def chains(problem: Growing, size: int, data: Any, outcome: Any) -> tuple[Row, tuple[Any, Any]]:
    """NUTS from the outcome, which is also what `fit` does next; its means and sds."""
    target, _ = prepare(problem.log_density, np.zeros(size), None, data)
    program = jax.jit(lambda key, outcome, data: handover.hand_over(key, density_of(target, data), outcome))
    found, seconds, _ = clock(lambda: program(jax.random.key(1), outcome, data))
    used = found.certificate.num_gradients - outcome.certificate.num_gradients
    row = {
        "first_seconds": seconds,
        "gradients": float(used),
        "ess": float(found.certificate.ess),
        "certified": bool(found.certificate.certified),
    }
    return row, (jnp.mean(found.draws, axis=0), jnp.std(found.draws, axis=0))


def errors(outcome: Any, truth: tuple[Any, Any]) -> Row:
    """Of means in reference sds, of sds relative."""
    weights = jnp.exp(outcome.log_weights)
    mean = weights @ outcome.draws
    sd = jnp.sqrt(weights @ (outcome.draws - mean) ** 2)
    off = np.asarray((mean - truth[0]) / truth[1]), np.asarray(sd / truth[1] - 1)
    return {
        "mean_error": float(np.max(np.abs(off[0]))),
        "mean_error_rms": float(np.sqrt(np.mean(off[0] ** 2))),
        "sd_error": float(np.max(np.abs(off[1]))),
        "sd_error_rms": float(np.sqrt(np.mean(off[1] ** 2))),
    }
