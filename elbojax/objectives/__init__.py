"""Objectives: functions `objective(key, q, log_density, *, num_samples) -> scalar` that score a `q`.

The value is the bound; the gradient in `q` is the estimator the name stands for. Lower bounds are to be raised;
divergences and upper bounds are to be lowered, and marked so: `as_loss` minds the sign.
"""

from elbojax.objectives import csiszar
from elbojax.objectives.csiszar import f_divergence, f_divergence_at
from elbojax.objectives.decompose import Decomposition, decompose
from elbojax.objectives.disarm import elbo_disarm
from elbojax.objectives.dreg import iw_elbo_dreg, iw_elbo_dreg_at, iw_elbo_gdreg
from elbojax.objectives.elbo import elbo, elbo_at, elbo_entropy, elbo_entropy_at, elbo_kl, elbo_kl_at
from elbojax.objectives.enumeration import elbo_chain, elbo_enumerated
from elbojax.objectives.free_bits import elbo_free_bits, free_bits
from elbojax.objectives.importance import iw_elbo, iw_elbo_at
from elbojax.objectives.local import GlobalAndLocal, elbo_local
from elbojax.objectives.multi_sample_score import vimco
from elbojax.objectives.over_data import mean_over_data
from elbojax.objectives.relaxed import elbo_gumbel_softmax
from elbojax.objectives.renyi import renyi_bound, renyi_bound_at
from elbojax.objectives.score import elbo_rloo, elbo_score
from elbojax.objectives.self_normalised import forward_kl
from elbojax.objectives.stl import elbo_stl, elbo_stl_at
from elbojax.objectives.switching import elbo_switching, switch_marginals
from elbojax.objectives.tempered import elbo_beta
from elbojax.objectives.upper import cubo, cubo_at, eubo
from elbojax.objectives.vargrad import elbo_vargrad
from elbojax.objectives.wake_sleep import rws_sleep, rws_wake

__all__ = [
    "Decomposition",
    "csiszar",
    "cubo",
    "cubo_at",
    "GlobalAndLocal",
    "decompose",
    "elbo",
    "elbo_at",
    "elbo_beta",
    "elbo_chain",
    "elbo_disarm",
    "elbo_entropy",
    "elbo_entropy_at",
    "elbo_enumerated",
    "elbo_free_bits",
    "elbo_gumbel_softmax",
    "elbo_kl",
    "elbo_kl_at",
    "elbo_local",
    "elbo_rloo",
    "elbo_score",
    "elbo_stl",
    "elbo_stl_at",
    "elbo_switching",
    "elbo_vargrad",
    "eubo",
    "f_divergence",
    "f_divergence_at",
    "forward_kl",
    "free_bits",
    "iw_elbo",
    "iw_elbo_at",
    "iw_elbo_dreg",
    "iw_elbo_dreg_at",
    "iw_elbo_gdreg",
    "mean_over_data",
    "renyi_bound",
    "renyi_bound_at",
    "rws_sleep",
    "rws_wake",
    "switch_marginals",
    "vimco",
]
