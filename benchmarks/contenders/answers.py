"""What a method ends with, in one form for all: weighted draws and what they cost."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

import elbojax
from benchmarks.problems.posterior import Problem
from elbojax import noise
from elbojax.types import Array, Key

NUM_DRAWS = 4096


class Answer(NamedTuple):
    """Weighted draws of an approximate posterior.

    Attributes:
      draws: [S, D] flat.
      log_weights: [S], zeros where all count alike.
      num_gradients: log-density-gradient equivalents: 1 a gradient, 2 a Hessian-vector product, 1/2 a value.
      status: how the method says that it ended.
      num_log_densities: values that a check took, not in `num_gradients`.
      khat: Pareto shape of the importance ratios; NaN where there is no q to take them from.
      certified: whether the method vouches for the answer; None where it never does.
      stage: of the cascade.
    """

    draws: Array
    log_weights: Array
    num_gradients: float
    status: str = "done"
    num_log_densities: int = 0
    khat: float = float("nan")
    certified: bool | None = None
    stage: str = ""


def from_family(key: Key, problem: Problem, q: elbojax.families.Family, num_gradients, status="done") -> Answer:
    """The answer of a `q` by itself, importance weights not used: Sobol draws, that their noise hides no error.

    Its k-hat is that of fresh draws, which the benchmark takes for the table and charges to nobody.
    """
    draws, khat = _look(key, q, problem.model.data, problem.density)
    return Answer(draws, jnp.zeros(len(draws)), float(num_gradients), name_of(status), khat=float(khat))


def _look(key, q, data, density):
    def look(key, q, data):
        draws = jax.vmap(q.transport)(noise.sobol(key, NUM_DRAWS, q.noise_size, q.dtype))
        return draws, elbojax.assess(jax.random.fold_in(key, 1), q, density(data)).khat

    return jax.jit(look)(key, q, data)


def name_of(status) -> str:
    """The name of a `Status`, or the word itself."""
    return status if isinstance(status, str) else str(elbojax.Status(int(status)))
