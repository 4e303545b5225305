"""`fit`, `fit_batch` and `fit_ragged`: posteriors without tuning, each with a certificate."""

from elbojax.cascade.batch import fit_batch
from elbojax.cascade.certificate import Certificate, Stage
from elbojax.cascade.loading import load
from elbojax.cascade.posterior import Fit
from elbojax.cascade.ragged import fit_ragged
from elbojax.cascade.single import fit

__all__ = ["Certificate", "Fit", "Stage", "fit", "fit_batch", "fit_ragged", "load"]
