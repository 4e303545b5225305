"""From the bound of one data point to that of a minibatch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from elbojax import minibatches
from elbojax.calls import explained
from elbojax.types import Key, PyTree


@explained
def mean_over_data(key: Key, bound: Callable[[Key, PyTree], Any], data: PyTree) -> Any:
    r"""The mean over data points of what is computed for one, each with noise of its own.

    .. math:: \frac1B \sum_{b=1}^B \mathrm{bound}(\mathrm{key}_b, x_b)

    Minus it is the loss of a variational autoencoder: `bound` encodes x, and hands the `q` to any objective. What it closes
    over is trained by differentiating the whole. Every objective gives parameters of the log-density the plain gradient
    of its value, whichever estimator it gives those of `q`. Per data point, without the mean, it is
    `jax.vmap(bound)(jax.random.split(key, B), data)`.

    Args:
      key: consumed.
      bound: `(key, x) -> scalar`, or a pytree of arrays, each of which is averaged.
      data: leaves [B, ...].

    Returns:
      What `bound` returns; nats per data point.

    Raises:
      ValueError: leaves of the data differ in B, or there are none.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> encode = elbojax.amortised(lambda w, x: elbojax.mean_field(w * x, 0.5**0.5), jnp.array(0.5))
      >>> log_joint = lambda z, x: -0.5 * (z @ z + (x - z) @ (x - z)) - jnp.log(2 * jnp.pi)
      >>> bound = lambda key, x: elbojax.elbo(key, encode(x), lambda z: log_joint(z, x))
      >>> round(float(mean_over_data(jax.random.key(0), bound, jnp.zeros((3, 1)))), 3)  # log N(0 | 0, 2)
      -1.266

    References:
      Kingma, Welling 2014, https://arxiv.org/abs/1312.6114
    """
    keys = jax.random.split(key, minibatches.count_rows(data))
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), jax.vmap(bound)(keys, data))
