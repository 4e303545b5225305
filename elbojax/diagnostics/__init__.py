"""Diagnostics: from a log-density and a `q`, or from ranks, to how far a fit can be trusted."""

from elbojax.diagnostics.assessment import Assessment, assess
from elbojax.diagnostics.estimators import GradientNoise, gradient_noise
from elbojax.diagnostics.held_out import HeldOut, held_out
from elbojax.diagnostics.latents import KlDecomposition, LatentUse, decompose_kl, latent_use
from elbojax.diagnostics.pareto import Psis, khat_threshold, psis
from elbojax.diagnostics.ranks import Uniformity, uniformity

__all__ = [
    "Assessment",
    "GradientNoise",
    "HeldOut",
    "KlDecomposition",
    "LatentUse",
    "Psis",
    "Uniformity",
    "assess",
    "decompose_kl",
    "gradient_noise",
    "held_out",
    "khat_threshold",
    "latent_use",
    "psis",
    "uniformity",
]
