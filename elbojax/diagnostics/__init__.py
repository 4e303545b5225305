"""Diagnostics: from a log-density and a `q` to how far the `q` can be trusted."""

from elbojax.diagnostics.assessment import Assessment, assess
from elbojax.diagnostics.estimators import GradientNoise, gradient_noise
from elbojax.diagnostics.pareto import Psis, khat_threshold, psis

__all__ = ["Assessment", "GradientNoise", "Psis", "assess", "gradient_noise", "khat_threshold", "psis"]
