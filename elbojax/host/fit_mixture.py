"""A mixture of Gaussians fitted to draws by expectation maximisation, in NumPy."""

import numpy as np

from elbojax.host.distributions import Gaussian, Mixture

STEPS = 8
"""Steps from components put on draws: what is left then no proposal would show."""
NARROW = 0.5
"""Variance of a component at the start, and of what its covariance is drawn towards, in that of all draws."""
WORTH = 2.0
"""Draws for each coordinate that this is worth."""
LEAST = 1e-3
"""Share of a component, at least, so that none is lost."""


def fit_mixture(rng: np.random.Generator, draws: np.ndarray, frame: Gaussian, count: int) -> Mixture:
    r"""A mixture of K Gaussians, by expectation maximisation with covariances drawn towards a part of that of all draws.

    .. math:: r_{sk} \propto \pi_k \mathrm N(u_s \mid m_k, \Sigma_k), \qquad
              \Sigma_k = \frac{\sum_s r_{sk} (u_s - m_k)(u_s - m_k)^\top + c\, \sigma^2 I}{\sum_s r_{sk} + c}

    in coordinates u that `frame` whitens.

    Args:
      rng: of the draws at which the components start.
      draws: [S, D], S > K, of equal weight; some may be there several times.
      frame: whitens.
      count: K.

    Returns:
      A `Mixture` of K `Gaussian`s.

    References:
      Dempster, Laird, Rubin 1977, https://doi.org/10.1111/j.2517-6161.1977.tb01600.x
    """
    u = frame.standardised(draws)
    num_draws, size = u.shape
    locs = u[rng.choice(num_draws, count, replace=False)]
    factors = np.broadcast_to(np.sqrt(NARROW) * np.eye(size), (count, size, size))
    log_shares, prior = np.zeros(count), WORTH * size
    for _ in range(STEPS):
        log_probs = (
            np.stack([Gaussian(*each).log_prob(u) for each in zip(locs, factors, strict=True)]) + log_shares[:, None]
        )
        parts = np.exp(log_probs - np.max(log_probs, axis=0))
        parts /= np.sum(parts, axis=0)
        sums = np.sum(parts, axis=1)
        locs = (parts @ u + LEAST * locs) / (sums + LEAST)[:, None]
        deviations = np.sqrt(parts)[..., None] * (u - locs[:, None])
        scatter = np.swapaxes(deviations, 1, 2) @ deviations
        factors = np.linalg.cholesky((scatter + prior * NARROW * np.eye(size)) / (sums + prior)[:, None, None])
        log_shares = np.log(np.maximum(sums / num_draws, LEAST))
    whole = [
        Gaussian(frame.loc + frame.scale_tril @ m, frame.scale_tril @ L) for m, L in zip(locs, factors, strict=True)
    ]
    return Mixture(log_shares, tuple(whole))
