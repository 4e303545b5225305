"""nutpie: NUTS in Rust, with an adaptation of its own, on a log-density compiled by JAX and called once for each gradient."""

import jax
import numpy as np

from benchmarks.contenders.base import Contender, density
from benchmarks.contenders.nuts import DRAWS, WARMUP, of_draws


def draws_of(key, size, value_and_gradient, tune, draws):
    """One chain by `nutpie.compiled_pyfunc.from_pyfunc`, from nutpie's own start.

    Args:
      key: of the seed.
      size: D.
      value_and_gradient: `[D] -> (scalar, [D])`, compiled.
      tune: draws of the adaptation, which are not kept.
      draws: S.

    Returns:
      [S, D], the gradients of all of it, and how many draws diverged.
    """
    import nutpie

    used = 0

    def make_log_density():
        def log_density(z):
            nonlocal used
            used += 1
            value, gradient = value_and_gradient(z)
            return float(value), np.asarray(gradient, float)

        return log_density

    def make_expansion(*seeds):
        return lambda z: {"z": np.asarray(z)}

    model = nutpie.compiled_pyfunc.from_pyfunc(
        size, make_log_density, make_expansion, [np.dtype(float)], [(size,)], ["z"]
    )
    seed = int(jax.random.bits(key) >> 1)
    found = nutpie.sample(
        model, tune=tune, draws=draws, chains=1, cores=1, seed=seed, progress_bar=False, save_warmup=False
    )
    return np.asarray(found.posterior["z"])[0], float(used), int(found.sample_stats["diverging"].sum())


def make(known, power):
    value_and_gradient = jax.jit(jax.value_and_grad(density(known, power)))

    def call(key):
        draws, gradients, _ = draws_of(key, known.size, lambda z: value_and_gradient(z, known.data), WARMUP, DRAWS)
        return of_draws(draws, gradients)

    return call


CONTENDER = Contender(
    ("nutpie",),
    make,
    "`nutpie` is its sampler in Rust on the log-density compiled by JAX (`compiled_pyfunc.from_pyfunc`).",
)
