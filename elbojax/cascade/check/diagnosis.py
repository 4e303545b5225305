"""What went wrong, on the host: whether a density does not end (see `cascade.diagnosis`)."""

import math

import numpy as np

from elbojax import thresholds
from elbojax.host.distributions import Gaussian
from elbojax.host.requests import Stage, Values


def endless(q: Gaussian, start: Gaussian) -> Stage[bool]:
    r"""Whether a fit that did not converge shows a direction in which the density does not end.

    Either its scale has run away, or along one of its axes the density falls no faster than the reciprocal of the
    distance, whose integral is infinite. (A long tail of one axis that other coordinates bend away from can be
    mistaken for one: this names the trouble of a fit that has failed, and does not make it fail.)

    Args:
      q: the fit.
      start: where it began.

    Yields:
      `Values` at 8 D points.

    Returns:
      True or False.
    """
    if np.max(np.log(np.diagonal(q.scale_tril) / np.diagonal(start.scale_tril))) > math.log(thresholds.GROWN):
        return True
    # Of the parameters, for some may lack a prior, and of the fit.
    axes = np.concatenate([np.diag(q.sd()), q.scale_tril.T])
    axes = np.concatenate([axes, -axes])
    values = yield Values(np.concatenate([q.loc + thresholds.END_NEAR * axes, q.loc + thresholds.END_FAR * axes]))
    near, far = np.split(values, 2)
    return bool(
        np.any(near - far < math.log(thresholds.END_FAR / thresholds.END_NEAR))
    )  # a NaN is no sign of a long tail
