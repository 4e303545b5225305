"""Draws of equal weight from weighted draws: the one resampler of the package."""

import jax
import jax.numpy as jnp

from elbojax.types import Array, Key


def pick(key: Key, log_weights: Array, num_samples: int) -> Array:
    r"""Indices of draws picked by weight in random order, each as few times as its weight allows.

    Systematic resampling of a random permutation :math:`\pi` of the draws: with one uniform u,

    .. math:: i_k = \pi\Big(\min \Big\{ j : \textstyle\sum_{l \le j} w_{\pi(l)} \ge \frac{k + u}{n} \Big\}\Big)

    The order is random because neighbours of a Sobol net are alike (every second point lies in one half of the space),
    and so are neighbours in a chain. Where the weights are equal and n is at most S it is a choice without repeats, so
    that the picked draws are as independent as all of them are.

    Args:
      key: consumed.
      log_weights: [S]; need not be normalised.
      num_samples: n, static.

    Returns:
      [n] indices; a draw of weight w is there n w times, rounded up or down.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> sorted(pick(jax.random.key(0), jnp.log(jnp.array([0.5, 0.25, 0.25])), 4).tolist())
      [0, 0, 1, 2]

    References:
      Douc, Cappé, Moulines 2005 (resampling schemes), https://arxiv.org/abs/cs/0507025
    """
    order_key, place_key = jax.random.split(key)
    order = jax.random.permutation(order_key, log_weights.size)
    edges = jnp.cumsum(jnp.exp(log_weights - jax.nn.logsumexp(log_weights))[order])
    # Drawn in single precision whatever the weights' own, so that one key picks the same draws in every session.
    # In (0, 1]: at zero stands the first draw, whatever its weight.
    offset = 1 - jax.random.uniform(place_key, dtype="float32").astype(edges.dtype)
    places = (jnp.arange(num_samples) + offset) / num_samples
    return order[jnp.minimum(jnp.searchsorted(edges, places * edges[-1]), log_weights.size - 1)]
