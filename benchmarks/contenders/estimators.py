"""Gradient estimators, each of which may take as many log-densities for one estimate."""

import functools

import elbojax
from elbojax import noise

DRAWS = 8
"""Log-densities that one estimate may take, whichever way it spends them."""


PATHWISE = {
    "elbo": functools.partial(elbojax.elbo, num_samples=DRAWS),
    "elbo_stl": functools.partial(elbojax.elbo_stl, num_samples=DRAWS),
    "elbo_entropy": functools.partial(elbojax.elbo_entropy, num_samples=DRAWS),
    **{
        f"elbo_stl, {draws.__name__}": functools.partial(elbojax.elbo_stl, num_samples=DRAWS, draws=draws)
        for draws in (noise.antithetic, noise.whitened, noise.sobol)
    },
    "elbo_score": functools.partial(elbojax.objectives.elbo_score, num_samples=3 * DRAWS),
    "elbo_rloo": functools.partial(elbojax.elbo_rloo, num_samples=3 * DRAWS),
}
IMPORTANCE = {
    f"{name}, K = {k}": functools.partial(getattr(elbojax, name), num_importance=k)
    for name in ("iw_elbo", "iw_elbo_dreg")
    for k in (DRAWS, 64)
}
DISCRETE = {
    "elbo_score": functools.partial(elbojax.objectives.elbo_score, num_samples=DRAWS),
    "elbo_rloo": functools.partial(elbojax.elbo_rloo, num_samples=DRAWS),
    "elbo_vargrad": functools.partial(elbojax.objectives.elbo_vargrad, num_samples=DRAWS),
    "elbo_disarm": functools.partial(elbojax.objectives.elbo_disarm, num_samples=DRAWS // 2),
    "elbo_gumbel_softmax, 0.5": functools.partial(
        elbojax.objectives.elbo_gumbel_softmax, temperature=0.5, num_samples=DRAWS
    ),
    "straight through, 0.5": functools.partial(
        elbojax.objectives.elbo_gumbel_softmax, temperature=0.5, straight_through=True, num_samples=DRAWS
    ),
    "elbo_enumerated": elbojax.elbo_enumerated,
}
