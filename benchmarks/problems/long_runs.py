"""References for posteriors that no database has: long chains of NumPyro's NUTS, or exact draws, kept on disk.

python -m benchmarks.problems.long_runs [POSTERIOR ...]
"""

import os
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.models import unseen
from benchmarks.problems.reference import Reference

VARIABLE = "ELBOJAX_LONG_RUNS"
NUM_CHAINS, NUM_WARMUP, NUM_SAMPLES, THIN = 4, 2000, 5000, 2
EXACT_SAMPLES = 100_000
RHAT, DIVERGENT = 1.01, 0.001


def folder() -> pathlib.Path:
    """Where references are kept: the environment variable ELBOJAX_LONG_RUNS, or build/long_runs of the checkout."""
    return pathlib.Path(os.environ.get(VARIABLE) or pathlib.Path(__file__).resolve().parents[2] / "build" / "long_runs")


def reference(name: str, problem: Any) -> Reference:
    """The reference of an unseen posterior; made, which takes minutes, where it is not there.

    Args:
      name: of `unseen.NAMES`.
      problem: the `Problem` to sample.

    Returns:
      The `Reference`.

    Raises:
      RuntimeError: the chains do not agree, or diverge: no truth to compare with.
    """
    file = folder() / f"{name}.npz"
    if not file.is_file():
        exact = unseen.EXACT.get(name)
        with jax.enable_x64(True):
            key = jax.random.key(2024)
            draws = exact(key, problem.model, EXACT_SAMPLES) if exact else _chains(key, name, problem)
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".part.npz")
        np.savez_compressed(aside, draws=draws)
        aside.replace(file)
    with np.load(file) as stored:
        draws = stored["draws"]
    quantiles = np.quantile(draws, (0.05, 0.5, 0.95), axis=0)
    return Reference(problem.model.column_names, draws.mean(axis=0), draws.std(axis=0, ddof=1), *quantiles, draws)


def _chains(key: Any, name: str, problem: Any) -> np.ndarray:
    """Columns [S, C] of all chains, with a dense metric and short steps."""
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
    from numpyro.infer import MCMC, NUTS

    density = problem.density(problem.model.data)
    kernel = NUTS(potential_fn=lambda z: -density(z), dense_mass=True, target_accept_prob=0.95)
    mcmc = MCMC(
        kernel,
        num_warmup=NUM_WARMUP,
        num_samples=NUM_SAMPLES,
        num_chains=NUM_CHAINS,
        chain_method="sequential",
        progress_bar=False,
    )
    around = 0.1 * jax.random.normal(key, (NUM_CHAINS, problem.size))
    mcmc.run(key, init_params=jnp.asarray(problem.start + around), extra_fields=("diverging",))
    flat = np.asarray(mcmc.get_samples(group_by_chain=True))
    columns = np.stack([np.asarray(problem.columns(chain)) for chain in flat])
    moving = columns.std(axis=(0, 1)) > 0
    rhat = float(np.max(split_gelman_rubin(columns[..., moving])))
    ess = float(np.min(effective_sample_size(columns[..., moving])))
    divergent = float(np.mean(mcmc.get_extra_fields()["diverging"]))
    said = f"{name}: R-hat {rhat:.4f}, {ess:,.0f} effective draws, {divergent:.3%} divergent"
    if not (rhat < RHAT and divergent <= DIVERGENT):
        raise RuntimeError(f"no reference for {said}")
    print(said, flush=True)
    return columns[:, ::THIN].reshape(-1, columns.shape[-1])


def main() -> None:
    """References of the posteriors named, or of all."""
    from benchmarks.problems.posterior import load_problem

    jax.config.update("jax_enable_x64", True)
    for name in sys.argv[1:] or unseen.NAMES:
        load_problem(name)


if __name__ == "__main__":
    main()
