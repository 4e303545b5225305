"""Log-densities of sequences with latents that are summed out."""

import jax
import jax.numpy as jnp

from elbojax.densities.base import floats
from elbojax.types import Array, Scalar


def hidden_markov(
    log_likelihood: Array, log_initial: Array, log_transition: Array, *, parallel: bool = False
) -> Scalar:
    r"""Log evidence of a hidden Markov model: the forward algorithm, which sums over K^T paths in O(T K^2).

    .. math:: \alpha_1(j) = \pi_j\, p(x_1 \mid j), \qquad
              \alpha_t(j) = p(x_t \mid j) \sum_i \alpha_{t-1}(i) A_{ij}, \qquad \log p(x) = \log \sum_j \alpha_T(j)

    Its gradient in `log_likelihood` is the posterior probability of each state at each time.

    Args:
      log_likelihood: [T, K] log p(x_t | z_t = k).
      log_initial: [K] log pi.
      log_transition: [K, K] log A from row to column, or [T - 1, K, K].
      parallel: True for an associative scan: O(T K^3) work in O(log T) rounds, for GPUs; static.

    Returns:
      Scalar, in nats.

    Raises:
      ValueError: shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> seen = jnp.log(jnp.array([[0.9, 0.1], [0.2, 0.8]]))
      >>> value = hidden_markov(seen, jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.full((2, 2), 0.5)))
      >>> round(float(jnp.exp(value)), 6)  # independent: 0.5 * 0.5
      0.25

    References:
      Rabiner 1989, https://doi.org/10.1109/5.18626;
      Särkkä, García-Fernández 2021, https://arxiv.org/abs/1905.13002
    """
    log_likelihood, log_initial, log_transition = floats(log_likelihood, log_initial, log_transition)
    if log_likelihood.ndim != 2:
        raise ValueError(f"log_likelihood must have shape [T, K], got {log_likelihood.shape}; batch with jax.vmap")
    length, sides = log_likelihood.shape
    if log_transition.ndim == 2:
        log_transition = jnp.broadcast_to(log_transition, (length - 1, *log_transition.shape))
    if log_initial.shape != (sides,) or log_transition.shape != (length - 1, sides, sides):
        raise ValueError(
            f"log_initial and log_transition must have shapes {(sides,)} and {(sides, sides)} or"
            f" {(length - 1, sides, sides)}, got {log_initial.shape} and {log_transition.shape}"
        )
    first = log_initial + log_likelihood[0]
    steps = log_transition + log_likelihood[1:, None, :]
    if parallel and length > 1:
        return jax.nn.logsumexp(first[:, None] + jax.lax.associative_scan(_log_matmul, steps)[-1])
    last, _ = jax.lax.scan(lambda alpha, step: (jax.nn.logsumexp(alpha[:, None] + step, axis=0), None), first, steps)
    return jax.nn.logsumexp(last)


def _log_matmul(a: Array, b: Array) -> Array:
    """Logarithm of the product of [..., K, K] matrices given by their logarithms."""
    return jax.nn.logsumexp(a[..., :, :, None] + b[..., None, :, :], axis=-2)
