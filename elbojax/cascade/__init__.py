"""`fit`, `fit_batch` and `fit_ragged`: posteriors without tuning, each with a certificate."""

from elbojax.cascade.batch import fit_batch
from elbojax.cascade.models import fit_model, fit_model_batch
from elbojax.cascade.ragged import fit_ragged
from elbojax.cascade.short_chains import chain_check
from elbojax.cascade.single import fit

__all__ = [
    "chain_check",
    "fit",
    "fit_batch",
    "fit_model",
    "fit_model_batch",
    "fit_ragged",
]
