"""Diagnostics: from a log-density and a `q`, or from ranks, to how far a fit can be trusted."""

from elbojax.diagnostics.assessment import Assessment, assess
from elbojax.diagnostics.estimators import GradientNoise, gradient_noise
from elbojax.diagnostics.held_out import HeldOut, held_out_log_likelihood
from elbojax.diagnostics.latents import ActiveUnits, KlDecomposition, active_units, decompose_kl
from elbojax.diagnostics.pareto import Psis, khat_threshold, psis
from elbojax.diagnostics.ranks import Uniformity, uniformity

__all__ = [
    "Assessment",
    "GradientNoise",
    "HeldOut",
    "KlDecomposition",
    "ActiveUnits",
    "Psis",
    "Uniformity",
    "assess",
    "decompose_kl",
    "gradient_noise",
    "held_out_log_likelihood",
    "khat_threshold",
    "active_units",
    "psis",
    "uniformity",
]
