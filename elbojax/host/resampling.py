"""Draws of equal weight from weighted draws, in NumPy: the twin of `elbojax.weights`, which has the equations."""

import numpy as np


def pick(rng: np.random.Generator, weights: np.ndarray, count: int) -> np.ndarray:
    """Indices of draws picked by weight, in random order: systematic resampling of a permutation.

    Args:
      rng: of order and offset.
      weights: [S], of sum one.
      count: n.

    Returns:
      [n]; a draw of weight w is there n w times, rounded up or down.

    Example:
      >>> sorted(pick(np.random.default_rng(0), np.array([0.5, 0.25, 0.25]), 4).tolist())
      [0, 0, 1, 2]
    """
    order = rng.permutation(len(weights))
    edges = np.cumsum(weights[order])
    places = (np.arange(count) + 1 - rng.random()) / count
    return order[np.minimum(np.searchsorted(edges, places * edges[-1]), len(weights) - 1)]
