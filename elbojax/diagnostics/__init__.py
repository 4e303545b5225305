"""Diagnostics: from a log-density and a `q`, or from ranks, to how far a fit can be trusted."""

from elbojax.diagnostics.assessment import Assessment, assess
from elbojax.diagnostics.estimators import GradientNoise, gradient_noise
from elbojax.diagnostics.pareto import Psis, khat_threshold, psis
from elbojax.diagnostics.ranks import Uniformity, uniformity

__all__ = [
    "Assessment",
    "GradientNoise",
    "Psis",
    "Uniformity",
    "assess",
    "gradient_noise",
    "khat_threshold",
    "psis",
    "uniformity",
]
