"""The low-rank Gaussian that is closest to one of a given precision."""

import numpy as np

GAIN = 0.05
"""Nats by which another optimum has to be better than the one next to where the search begins: there may be many alike."""
ROUNDS = 5
"""Rounds of factors for a diagonal and a diagonal for factors, before the search for both."""
STEPS = 500
"""Steps of that search."""
NARROW, WIDE = 1e-3, 1e3
"""A share of the sd that a parameter has where the others are fixed: no diagonal below, no factor beyond."""


def best(
    precision: np.ndarray, factor: np.ndarray, scale: np.ndarray, again: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    r"""Factors and diagonal of the covariance closest to a precision, in the divergence that the bound lowers.

    .. math:: \min_{F, s}\; \tfrac12 \mathrm{tr}(\Lambda \Sigma) - \tfrac12 \log |\Sigma|,
              \qquad \Sigma = F F^\top + \mathrm{diag}(s^2)

    Args:
      precision: [D, D], positive definite.
      factor: [D, R] where the search begins.
      scale: [D] likewise.
      again: whether to begin from the best factors for the diagonal as well, for at a factor of zeros the slope is zero.

    Returns:
      F [D, R] and s [D].

    References:
      Tipping, Bishop 1999, https://doi.org/10.1111/1467-9868.00196, of the factors for a diagonal.
    """
    found = _descended(precision, factor, scale)
    if again:
        other = _descended(precision, *_alternated(precision, factor, scale))
        if other[0] < found[0] - GAIN:
            found = other
    return found[1], found[2]


def _value(precision, factor, log_scale):
    """What is to be lowered, and its gradients."""
    variance = np.exp(2 * log_scale)
    inside = factor / variance[:, None]
    inner = np.eye(factor.shape[1]) + factor.T @ inside
    inverse = np.diag(1 / variance) - inside @ np.linalg.solve(inner, inside.T)
    product = precision @ factor
    trace = np.sum(product * factor) + np.diagonal(precision) @ variance
    value = 0.5 * trace - 0.5 * np.linalg.slogdet(inner)[1] - np.sum(log_scale)
    slope = product - inverse @ factor
    return value, slope, (np.diagonal(precision) - np.diagonal(inverse)) * variance


def _alternated(precision, factor, scale):
    rank = min(factor.shape[1], len(scale))
    for _ in range(ROUNDS):
        values, vectors = np.linalg.eigh(precision * np.outer(scale, scale))
        gains = np.sqrt(np.maximum(1 / np.maximum(values[:rank], 1e-12) - 1, 0))
        factor = np.zeros_like(factor)
        factor[:, :rank] = scale[:, None] * vectors[:, :rank] * gains
        covariance = factor @ factor.T + np.diag(scale**2)
        scale = scale * np.sqrt(np.diagonal(np.linalg.inv(covariance)) / np.diagonal(precision))
    return factor, scale


def _descended(precision, factor, scale):
    """By quasi-Newton steps, in units of the sds that each has where the others are fixed: none in the diagonal is larger."""
    from scipy.optimize import minimize

    unit = np.diagonal(precision) ** -0.5
    shape, count = factor.shape, factor.size
    precision = precision * np.outer(unit, unit)

    def both(point):
        value, slope, log_slope = _value(precision, point[:count].reshape(shape), point[count:])
        return value, np.concatenate([slope.ravel(), log_slope])

    start = np.concatenate([(factor / unit[:, None]).ravel(), np.clip(np.log(scale / unit), np.log(NARROW), 0)])
    bounds = [(-WIDE, WIDE)] * count + [(np.log(NARROW), 0.0)] * len(unit)
    options = dict(maxiter=STEPS, maxfun=2 * STEPS, maxcor=30, ftol=1e-11, gtol=1e-6)
    end = minimize(both, np.clip(start, -WIDE, WIDE), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return (
        end.fun + np.sum(np.log(1 / unit)),
        unit[:, None] * end.x[:count].reshape(shape),
        unit * np.exp(end.x[count:]),
    )
