"""Control variates of the importance check in NumPy: the twin of `elbojax.cascade.control`, which has the equations."""

from typing import NamedTuple

import numpy as np

from elbojax import thresholds


class Controlled(NamedTuple):
    """What control variates leave.

    Attributes:
      weights: [S], normalised.
      mean_error: Monte Carlo error of the means under these weights, in sds, the largest coordinate.
      sd_error: of the standard deviations, relative, likewise.
    """

    weights: np.ndarray
    mean_error: float
    sd_error: float


def controlled(weights: np.ndarray, share: np.ndarray, standard: np.ndarray) -> Controlled:
    """Weights under which mass, means and variances of q come out as they are known to be, and the errors that are left.

    Args:
      weights: [S], normalised.
      share: [S], q / r at the draws of r.
      standard: [S, D] draws, standardised by the means and sds of q.

    Returns:
      `Controlled`; weights and their plain errors where there are too few draws or something is not finite.
    """
    num_draws, size = standard.shape
    deviations = standard - weights @ standard
    squares = deviations**2
    variance = weights @ squares
    influences = weights[:, None] * np.concatenate([deviations, squares - variance], axis=1)
    plain = Controlled(weights, *_errors(influences, variance))
    if num_draws < thresholds.CONTROL_DRAWS * (2 * size + 1):
        return plain
    controls = share[:, None] * np.concatenate([np.ones((num_draws, 1)), standard, standard**2 - 1], axis=1)
    controls[:, 0] -= 1
    gram = controls.T @ controls
    ridge = np.finfo(float).eps * np.trace(gram) * np.eye(2 * size + 1)
    targets = np.concatenate([np.mean(controls, axis=0)[:, None], controls.T @ influences], axis=1)
    try:
        inverse = np.linalg.inv(np.linalg.cholesky(gram + ridge))
    except np.linalg.LinAlgError:
        return plain
    solved = inverse.T @ (inverse @ targets)
    gamma = controls @ solved[:, 0]
    new = weights * np.clip(1 - num_draws * (gamma - weights @ gamma), 0, thresholds.CONTROL_MOST)
    new = new / np.sum(new)
    unexplained = (influences - controls @ solved[:, 1:]) * (num_draws / (num_draws - 2 * size - 1)) ** 0.5
    if not (np.all(np.isfinite(new)) and np.all(np.isfinite(unexplained))):
        return plain
    return Controlled(new, *_errors(unexplained, new @ (standard - new @ standard) ** 2))


def _errors(influences: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """The largest errors of means, in sds, and of sds, relative, from influences [S, 2 D] and variances [D]."""
    size = len(variance)
    errors = np.sqrt(np.sum(influences**2, axis=0))
    positive = np.where(variance > 0, variance, 1)
    return float(np.max(errors[:size] / np.sqrt(positive))), float(0.5 * np.max(errors[size:] / positive))
