"""Posteriors from minibatches: `fit_minibatches`, and the race of optimisers and the averaged chain that it is made of."""

from elbojax.minibatch.answer import MinibatchFit
from elbojax.minibatch.averaging import Settled, run_until_stationary
from elbojax.minibatch.fit import fit_minibatches
from elbojax.minibatch.halving import SuccessiveHalving, default_optimizers, successive_halving

__all__ = [
    "MinibatchFit",
    "SuccessiveHalving",
    "Settled",
    "fit_minibatches",
    "default_optimizers",
    "successive_halving",
    "run_until_stationary",
]
