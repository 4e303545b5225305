"""The log-likelihood of data that a model with a latent for every data point has not seen."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from elbojax import minibatches, structures
from elbojax.calls import explained
from elbojax.families import Family, sample_many
from elbojax.types import Array, Event, Key, PyTree, Scalar


class HeldOut(NamedTuple):
    """What importance sampling says of data that were held out.

    Attributes:
      log_likelihood: mean of log p(x_n), nats per data point.
      se: its standard error over data points, which is most of the error there is.
      by_datum: [N] log p(x_n); on average each lies below the truth, by less the more draws count.
      ess: [N] effective sample sizes of the weights; near 1, one draw is all that counts and the estimate is too low.
    """

    log_likelihood: Scalar
    se: Scalar
    by_datum: Array
    ess: Array

    def __repr__(self) -> str:
        return structures.short(self)


@explained
def held_out_log_likelihood(
    key: Key,
    encode: Callable[[PyTree], Family],
    log_joint: Callable[[Event, PyTree], Scalar],
    data: PyTree,
    *,
    num_samples: int = 5000,
    chunk_size: int = 500,
    batch_size: int = 8,
) -> HeldOut:
    r"""The log-likelihood of each data point by importance sampling from its `q`, and the mean with its standard error.

    .. math:: \log p(x_n) \approx \log \frac1S \sum_s \frac{p(x_n, z_s)}{q(z_s \mid x_n)}, \qquad z_s \sim q(z \mid x_n)

    Memory is that of `batch_size` times `chunk_size` events, however many data points and draws there are. The noise of
    a data point depends on the key and its place alone. A lower bound in expectation, so no model looks better than it is.

    Args:
      key: consumed.
      encode: x -> `Family`, reparameterised or not; an `Amortised`, say.
      log_joint: `(z, x) -> scalar`, log p(x, z) of one data point.
      data: leaves [N, ...].
      num_samples: S, draws for each data point, static.
      chunk_size: draws at a time, static.
      batch_size: data points at a time, static.

    Returns:
      A `HeldOut`.

    Raises:
      ValueError: N is below 2, a number is below 1, or S is no multiple of `chunk_size`.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> encode = lambda x: elbojax.mean_field(0.5 * x, 0.5**0.5)  # the exact posterior, whose weights are all alike
      >>> normal = elbojax.densities.normal
      >>> log_joint = lambda z, x: normal(z[0], 0.0, 1.0) + normal(x[0], z[0], 1.0)
      >>> result = held_out_log_likelihood(jax.random.key(0), encode, log_joint, jnp.zeros((3, 1)), num_samples=20, chunk_size=10)
      >>> round(float(result.log_likelihood), 3), result.ess.round(1).tolist()  # log N(0 | 0, 2)
      (-1.266, [20.0, 20.0, 20.0])

    References:
      Burda, Grosse, Salakhutdinov 2016, https://arxiv.org/abs/1509.00519;
      Wu et al. 2017, https://arxiv.org/abs/1611.04273
    """
    num_data = minibatches.count_rows(data)
    if num_data < 2:
        raise ValueError(f"a standard error over data points needs 2 of them, got {num_data}")
    if min(num_samples, chunk_size, batch_size) < 1:
        given = f"{num_samples}, {chunk_size} and {batch_size}"
        raise ValueError(f"num_samples, chunk_size and batch_size must be at least 1, got {given}")
    chunk_size = min(chunk_size, num_samples)
    if num_samples % chunk_size:
        raise ValueError(f"num_samples must be a multiple of chunk_size, got {num_samples} and {chunk_size}")

    def one(row):
        key, x = row
        q = encode(x)

        def chunk(key):
            events, log_q = sample_many(key, q, chunk_size)
            log_w = jax.vmap(lambda z: log_joint(z, x))(events) - log_q
            return jax.nn.logsumexp(log_w), jax.nn.logsumexp(2 * log_w)

        sums = jax.lax.map(chunk, jax.random.split(key, num_samples // chunk_size))
        log_sum, log_squares = (jax.nn.logsumexp(x) for x in sums)
        return log_sum - jnp.log(jnp.asarray(num_samples, log_sum.dtype)), jnp.exp(2 * log_sum - log_squares)

    rows = (jax.random.split(key, num_data), data)
    by_datum, ess = jax.lax.map(one, rows, batch_size=min(batch_size, num_data))
    return HeldOut(jnp.mean(by_datum), jnp.std(by_datum, ddof=1) / num_data**0.5, by_datum, ess)
