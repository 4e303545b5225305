"""Results: what `fit` and `fit_batch` give back. Posterior, certificate, summary, files."""

from elbojax.results.certificate import Certificate, Stage
from elbojax.results.loading import load
from elbojax.results.posterior import Fit

__all__ = ["Certificate", "Fit", "Stage", "load"]
