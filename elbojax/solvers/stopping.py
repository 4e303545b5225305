"""Stop rules on quantities that neither a constant in the log-density nor a change of units can move."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from elbojax.calls import explained
from elbojax.numerics import tree_where
from elbojax.solvers.base import StopRule
from elbojax.types import Array, PyTree


def _check(window: int, tolerance: float) -> None:
    if window < 2:
        raise ValueError(f"window must be at least 2 steps, got {window}")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")


class _Windows(NamedTuple):
    """Sums over the current window, means over the last one."""

    steps: Array
    sums: PyTree
    last: PyTree
    done: Array


def _update(aux: _Windows, values: Any, window: int, settled: Any) -> tuple[_Windows, Array]:
    """Add the values of one step; at the end of a window compare it with the one before."""
    steps = aux.steps + 1
    sums = tuple(total + value for total, value in zip(aux.sums, values, strict=True))
    full = steps == window
    means = tuple(total / window for total in sums)
    done = aux.done | (full & settled(aux.last, means))
    zeros = tuple(jnp.zeros_like(total) for total in sums)
    sums, last = tree_where(full, (zeros, means), (sums, aux.last))
    return _Windows(jnp.where(full, 0, steps), sums, last, done), done


@explained
def moments_stable(*, window: int = 100, tolerance: float = 0.05) -> StopRule:
    r"""Done when the means and sds of `q`, averaged over two successive windows, agree.

    .. math:: \max_i \frac{|\bar\mu_i - \bar\mu_i'|}{\bar\sigma_i} < \tau
              \quad\text{and}\quad \max_i |\overline{\log\sigma_i} - \overline{\log\sigma_i}'| < \tau

    For a `q` with `mean()` and `variance()`. The differences are in posterior standard deviations, whatever the
    units of the parameters.

    Args:
      window: steps in a window.
      tolerance: tau, in posterior standard deviations.

    Returns:
      A `StopRule`.

    Raises:
      ValueError: a setting is out of range.
      TypeError: when a loop starts with a `q` that has no closed-form moments.

    Example:
      >>> rule = moments_stable(window=50, tolerance=0.1)

    References:
      Welandawe et al. 2024, https://jmlr.org/papers/v25/22-0327.html (windows in units of the posterior sd)
    """
    _check(window, tolerance)

    def moments(q: PyTree) -> tuple[Array, Array]:
        if not (hasattr(q, "mean") and hasattr(q, "variance")):
            raise TypeError(
                f"moments_stable needs a q with mean() and variance(), got {type(q).__name__}; use loss_plateau"
            )
        return q.mean(), 0.5 * jnp.log(q.variance())

    def settled(last, now):
        (mean, log_sd), (mean_now, log_sd_now) = last, now
        shift = jnp.abs(mean_now - mean) * jnp.exp(-log_sd_now)
        # Not of the maximum, which leaves NaN out (workaround "maxima").
        return jnp.all(shift < tolerance) & jnp.all(jnp.abs(log_sd_now - log_sd) < tolerance)

    def init(q: PyTree) -> _Windows:
        start = moments(q)
        zeros = tuple(jnp.zeros_like(value) for value in start)
        return _Windows(jnp.zeros((), int), zeros, tuple(jnp.full_like(x, jnp.nan) for x in start), jnp.array(False))

    def update(aux: _Windows, info: Any) -> tuple[_Windows, Array]:
        return _update(aux, moments(info.q), window, settled)

    return StopRule(init, update)


@explained
def loss_plateau(*, window: int = 100, tolerance: float = 0.01, num_errors: float = 1.0) -> StopRule:
    r"""Done when the mean loss of a window is no longer lower than that of the window before.

    .. math:: \bar\ell' - \bar\ell < \max(\tau,\; k \cdot \mathrm{se}(\bar\ell' - \bar\ell))

    A difference of losses, so an additive constant of the log-density cancels. For any `q`.

    Args:
      window: steps in a window.
      tolerance: tau, in nats.
      num_errors: k, standard errors of the difference below which a fall is taken for noise.

    Returns:
      A `StopRule`.

    Raises:
      ValueError: a setting is out of range.

    Example:
      >>> rule = loss_plateau(window=50, tolerance=0.1)
    """
    _check(window, tolerance)
    if num_errors < 0:
        raise ValueError(f"num_errors must not be negative, got {num_errors}")

    def settled(last, now):
        (shift, mean, square), (shift_now, mean_now, square_now) = last, now
        variance = jnp.maximum(square - mean**2, 0) + jnp.maximum(square_now - mean_now**2, 0)
        decrease = (shift + mean) - (shift_now + mean_now)
        return decrease < jnp.maximum(tolerance, num_errors * jnp.sqrt(variance / window))

    def init(q: PyTree) -> _Windows:
        del q
        zero, nan = jnp.zeros(()), jnp.full((), jnp.nan)
        return _Windows(jnp.zeros((), int), (zero,) * 3, (nan,) * 3, jnp.array(False))

    def update(aux: _Windows, info: Any) -> tuple[_Windows, Array]:
        # Squares are taken about the first loss of the window, or large losses would drown their variance.
        origin = jnp.where(aux.steps == 0, info.loss, aux.sums[0] / jnp.maximum(aux.steps, 1))
        deviation = info.loss - origin
        return _update(aux, (origin, deviation, deviation**2), window, settled)

    return StopRule(init, update)
