"""The bound of a model with a latent variable of its own for every row of the data, from some of the rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from elbojax import minibatches
from elbojax.calls import explained
from elbojax.families import Amortised, Family
from elbojax.signs import raised
from elbojax.types import Array, Event, Key, PyTree, Scalar


class GlobalAndLocal(NamedTuple):
    r"""The `q` of global and local latents, :math:`q(\theta) \prod_n q_n(z_n)`; either may be None.

    Attributes:
      shared: a `Family` over theta.
      local: a stacked `Family`, leading axis N on every leaf; or an `Amortised`, which gives :math:`q_n = q(z \mid x_n)`.
    """

    shared: Family | None
    local: Family | Amortised | None


@raised
@explained
def elbo_local(
    key: Key,
    q: GlobalAndLocal,
    log_prior: Callable[[Event], Scalar],
    log_joint: Callable[[Event, Event, PyTree], Scalar],
    data: PyTree,
    rows: Array,
    *,
    num_samples: int = 1,
) -> Scalar:
    r"""Unbiased estimate of the bound of global and local latents from B of N rows.

    .. math:: \mathrm E\big[\log p(\theta) - \log q(\theta)\big]
              + \frac NB \sum_{b=1}^B \mathrm E\big[\log p(x_b, z_b \mid \theta) - \log q_b(z_b)\big]

    The factor N / B belongs to all that there is once a row, the entropy of the local `q` included, and to nothing
    else; N is read off the data. With `local=None` it is `elbo` of a subsampled log-joint, with `shared=None` there is no
    global part. A row's noise depends on key and row alone, whoever else is in the minibatch.

    Args:
      key: consumed.
      q: a `GlobalAndLocal`. A stacked local part of rows that are not in the minibatch gets a gradient of zero.
      log_prior: `(theta) -> scalar`; not called without a global part.
      log_joint: `(theta, z, datum) -> scalar`, log p(x_n, z_n | theta) of one row; theta or z is None where there is none.
      data: leaves [N, ...].
      rows: [B] integers, drawn uniformly; `minibatches.reshuffle` say.
      num_samples: S, static.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      TypeError: there is neither a global nor a local part.
      ValueError: S is below 1, or the leading axis of `q.local` is not N.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> x = jnp.array([1.0, 2.0, 4.0])
      >>> local = jax.vmap(lambda x: elbojax.mean_field(x[None], 0.5))(x)
      >>> q = GlobalAndLocal(elbojax.mean_field(jnp.zeros(1), 1.0), local)
      >>> log_joint = lambda theta, z, x: -0.5 * (z[0] - theta[0]) ** 2 - 0.5 * (x - z[0]) ** 2
      >>> bound = lambda q, rows: elbo_local(jax.random.key(0), q, lambda theta: 0.0, log_joint, x, rows)
      >>> jax.grad(bound)(q, jnp.array([1])).local.loc.ravel()[::2].tolist()
      [0.0, 0.0]

    References:
      Hoffman et al. 2013, https://jmlr.org/papers/v14/hoffman13a.html
    """
    if q.shared is None and q.local is None:
        raise TypeError("q has neither a shared nor a local part")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    num_data, rows = minibatches.count_rows(data), jnp.asarray(rows)
    if isinstance(q.local, Family) and minibatches.count_rows(q.local, "q.local") != num_data:
        raise ValueError(f"q.local must have a leading axis of {num_data} like the data, got {_leading(q.local)}")
    batch = minibatches.take(data, rows)
    local = jax.vmap(q.local)(batch) if isinstance(q.local, Amortised) else minibatches.take(q.local, rows)

    def one(key: Key) -> Scalar:
        key_shared, key_local = jax.random.split(key)
        theta: Event = None
        of_shared: Any = 0.0
        if q.shared is not None:
            theta, log_q = q.shared.sample_and_log_prob(key_shared)
            of_shared = log_prior(theta) - log_q

        def of_row(row, part, datum):
            if part is None:
                return log_joint(theta, None, datum)
            z, log_q = part.sample_and_log_prob(jax.random.fold_in(key_local, row))
            return log_joint(theta, z, datum) - log_q

        return of_shared + num_data * jnp.mean(jax.vmap(of_row)(rows, local, batch))

    return jnp.mean(jax.vmap(one)(jax.random.split(key, num_samples)))


def _leading(tree: Any) -> int:
    return jax.tree.leaves(tree)[0].shape[0]
