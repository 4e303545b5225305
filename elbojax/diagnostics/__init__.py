"""Diagnostics: from a log-density and a `q` to how far the `q` can be trusted."""

from elbojax.diagnostics.assessment import Assessment, assess
from elbojax.diagnostics.pareto import Psis, khat_threshold, psis

__all__ = ["Assessment", "Psis", "assess", "khat_threshold", "psis"]
