"""Results: what `fit` and `fit_batch` give back. Posterior, certificate, summary, files."""

from elbojax.results.agreement import Agreement, ChainCheck
from elbojax.results.certificate import Certificate, Stage
from elbojax.results.fit import Fit
from elbojax.results.fits import Fits
from elbojax.results.loading import load
from elbojax.results.runs import RunApproximation

__all__ = ["Agreement", "Certificate", "ChainCheck", "Fit", "Fits", "RunApproximation", "Stage", "load"]
