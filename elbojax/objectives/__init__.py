"""Objectives: functions `objective(key, q, log_density, *, num_samples) -> scalar` that score a `q`.

The value is the bound; the gradient in `q` is the estimator the name stands for.
"""

from elbojax.objectives.decompose import Decomposition, decompose
from elbojax.objectives.elbo import elbo, elbo_at, elbo_entropy, elbo_entropy_at, elbo_kl, elbo_kl_at
from elbojax.objectives.local import SharedAndLocal, elbo_local
from elbojax.objectives.score import elbo_rloo, elbo_score
from elbojax.objectives.stl import elbo_stl, elbo_stl_at

__all__ = [
    "Decomposition",
    "SharedAndLocal",
    "decompose",
    "elbo",
    "elbo_at",
    "elbo_entropy",
    "elbo_entropy_at",
    "elbo_kl",
    "elbo_kl_at",
    "elbo_local",
    "elbo_rloo",
    "elbo_score",
    "elbo_stl",
    "elbo_stl_at",
]
