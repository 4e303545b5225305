"""Posteriors from minibatches: `fit_minibatches`, and the race of optimisers and the averaged chain that it is made of."""

from elbojax.minibatch.answer import MinibatchFit
from elbojax.minibatch.averaging import Settled, run_until_stationary
from elbojax.minibatch.fit import fit_minibatches
from elbojax.minibatch.halving import Race, default_optimizers, race

__all__ = ["MinibatchFit", "Race", "Settled", "fit_minibatches", "default_optimizers", "race", "run_until_stationary"]
