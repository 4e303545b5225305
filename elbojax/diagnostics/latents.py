"""What the latents of a variational autoencoder are used for: KL by dimension, active units, the aggregate posterior."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from elbojax import minibatches
from elbojax.calls import explained
from elbojax.families import Family, aggregate, kl_by_part, sample_many
from elbojax.types import Array, Key, PyTree, Scalar


class ActiveUnits(NamedTuple):
    """What each latent dimension tells of the data.

    Attributes:
      kl: [D] mean over data points of KL(q(z_d|x) || p(z_d)), nats.
      activity: [D] variance over data points of E_q[z_d|x].
      active: [D] booleans, activity above the threshold.
    """

    kl: Array
    activity: Array
    active: Array


@explained
def active_units(
    encode: Callable[[PyTree], Family], data: PyTree, prior: Family, *, threshold: Scalar | float = 0.01
) -> ActiveUnits:
    r"""The KL to the prior and the activity of each latent dimension.

    .. math:: A_d = \operatorname{Var}_x\big(\mathrm E_{q(z \mid x)}[z_d]\big), \qquad
              d \text{ is active where } A_d > 0.01

    Args:
      encode: x -> `Family` of independent dimensions: mean-field, or Bernoulli.
      data: leaves [N, ...].
      prior: p(z), of the same kind.
      threshold: of the activity, traced.

    Returns:
      A `ActiveUnits`.

    Raises:
      TypeError: the families have no closed-form KL by dimension.
      ValueError: N is below 2.

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> encode = lambda x: elbojax.mean_field(jnp.array([2.0, 0.0]) * x, jnp.array([0.5, 1.0]))
      >>> use = active_units(encode, jnp.array([[-1.0], [1.0]]), elbojax.mean_field(jnp.zeros(2), 1.0))
      >>> [round(float(kl), 3) for kl in use.kl], use.activity.tolist(), use.active.tolist()
      ([2.318, 0.0], [4.0, 0.0], [True, False])

    References:
      Burda, Grosse, Salakhutdinov 2016, section 5.2, https://arxiv.org/abs/1509.00519
    """
    num_data = minibatches.count_rows(data)
    if num_data < 2:
        raise ValueError(f"a variance over data points needs 2 of them, got {num_data}")

    def one(x):
        q: Any = encode(x)
        return kl_by_part(q, prior), q.mean()

    kl, means = jax.vmap(one)(data)
    activity = jnp.var(means, axis=0)
    return ActiveUnits(jnp.mean(kl, axis=0), activity, activity > threshold)


class KlDecomposition(NamedTuple):
    """Where the KL to the prior goes: kl_to_prior = mutual_information + aggregate_kl, in these estimates too.

    Attributes:
      kl_to_prior: mean over data points of KL(q(z|x) || p(z)), nats.
      mutual_information: between the number of a data point and z; log N at most.
      aggregate_kl: KL of the aggregate posterior to the prior: what a better prior could save.
      mutual_information_se: standard error over data points.
      aggregate_kl_se: likewise.
    """

    kl_to_prior: Scalar
    mutual_information: Scalar
    aggregate_kl: Scalar
    mutual_information_se: Scalar
    aggregate_kl_se: Scalar


@explained
def decompose_kl(
    key: Key,
    encode: Callable[[PyTree], Family],
    data: PyTree,
    prior: Family,
    *,
    num_samples: int = 1,
    batch_size: int = 64,
) -> KlDecomposition:
    r"""The mean KL to the prior as mutual information and the KL of the aggregate posterior.

    .. math:: \frac1N \sum_n \mathrm{KL}(q(z \mid x_n) \| p(z)) = I_q(n; z) + \mathrm{KL}(\bar q(z) \| p(z)), \qquad
              \bar q(z) = \frac1N \sum_n q(z \mid x_n)

    By Monte Carlo, with S draws for each data point. Time grows with N^2; of very many data points take some thousands,
    for N bounds what the mutual information can be.

    Args:
      key: consumed.
      encode: x -> a reparameterised `Family`.
      data: leaves [N, ...].
      prior: p(z), any `Family`.
      num_samples: S, static.
      batch_size: data points at a time, static.

    Returns:
      A `KlDecomposition`.

    Raises:
      TypeError: `encode` gives no reparameterised family.
      ValueError: N is below 2, S or the batch size below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> encode = lambda x: elbojax.mean_field(x, 0.1)  # which tells all data points apart
      >>> parts = decompose_kl(jax.random.key(0), encode, jnp.arange(4.0)[:, None], elbojax.mean_field(jnp.zeros(1), 2.0))
      >>> bool(jnp.isclose(parts.mutual_information, jnp.log(4.0), rtol=1e-4))
      True

    References:
      Hoffman, Johnson 2016, http://approximateinference.org/2016/accepted/HoffmanJohnson2016.pdf
    """
    num_data = minibatches.count_rows(data)
    if num_data < 2:
        raise ValueError(f"a standard error over data points needs 2 of them, got {num_data}")
    if min(num_samples, batch_size) < 1:
        raise ValueError(f"num_samples and batch_size must be at least 1, got {num_samples} and {batch_size}")
    marginal = aggregate(encode, data)

    def one(row):
        events, log_q = sample_many(row[0], encode(row[1]), num_samples)
        log_marginal = jax.vmap(marginal.log_prob)(events)
        return jnp.mean(log_q - log_marginal), jnp.mean(log_marginal - jax.vmap(prior.log_prob)(events))

    rows = (jax.random.split(key, num_data), data)
    information, gap = jax.lax.map(one, rows, batch_size=min(batch_size, num_data))
    errors = [jnp.std(x, ddof=1) / num_data**0.5 for x in (information, gap)]
    means = jnp.mean(information), jnp.mean(gap)
    return KlDecomposition(means[0] + means[1], *means, *errors)
