"""Student-t GARCH(1,1): the volatility of daily returns, one posterior for each of many windows."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import gammaln

from elbojax import densities, noise, samplers, targets
from elbojax.bijectors import lower_bounded
from elbojax.diagnostics import Assessment, assess
from elbojax.families import FullRank, full_rank
from elbojax.loops import Run, run_batch
from elbojax.objectives import elbo_entropy
from elbojax.solvers import Solver, as_loss, moments_stable, polynomial_averaging, svi
from elbojax.targets import Target
from elbojax.types import Array, Key, Scalar
from elbojax.weights import pick

WINDOW = 500
"""Days that one model sees: two years."""
STRIDE = 4
"""Days between the starts of two windows."""

START = {"mu": 0.05, "omega": 0.05, "persistence": np.array([0.1, 0.8, 0.1]), "nu": 8.0}
"""A generic start for returns in per cent a day."""
SUPPORT = {"omega": "positive", "persistence": "simplex", "nu": lower_bounded(2.0)}
"""`persistence` is (alpha, beta, 1 - alpha - beta): the variance is stationary wherever it is a simplex."""


class Windows(NamedTuple):
    """Rolling windows of returns, and the day after each.

    Attributes:
      returns: [M, T] per cent.
      next_return: [M] per cent, not seen by the fit.
      next_day: [M] dates.
    """

    returns: Array
    next_return: Array
    next_day: Any


def sp500_windows(window: int = WINDOW, stride: int = STRIDE, limit: int | None = None) -> Windows:
    """Windows of daily S&P 500 returns, 1999 to 2018, as the `arch` package bundles them.

    Args:
      window: T, days in a window.
      stride: days between the starts of two windows.
      limit: at most so many windows.

    Returns:
      `Windows` in float32.

    Raises:
      ModuleNotFoundError: the `examples` extra is not installed.
    """
    from arch.data import sp500

    prices = sp500.load()["Adj Close"]
    returns = 100 * np.diff(np.log(prices.to_numpy()))
    starts = np.arange(0, len(returns) - window, stride)[:limit]
    rows = np.stack([returns[s : s + window] for s in starts])
    return Windows(
        jnp.asarray(rows, jnp.float32),
        jnp.asarray(returns[starts + window], jnp.float32),
        prices.index[starts + window + 1],
    )


def conditional_variances(position: dict[str, Array], returns: Array) -> Array:
    r"""The variance of each day given the days before it, and of the day after the last.

    .. math:: h_1 = \mathrm{var}(r), \qquad h_{t+1} = \omega + \alpha (r_t - \mu)^2 + \beta h_t

    Args:
      position: a point in the natural space.
      returns: [T].

    Returns:
      [T + 1].

    References:
      Bollerslev 1986, https://doi.org/10.1016/0304-4076(86)90063-1
    """
    alpha, beta, _ = position["persistence"]

    def day(h, squared):
        following = position["omega"] + alpha * squared + beta * h
        return following, following

    first = jnp.var(returns)
    _, following = jax.lax.scan(day, first, (returns - position["mu"]) ** 2)
    return jnp.concatenate([first[None], following])


def log_joint(position: dict[str, Array], returns: Array) -> Scalar:
    r"""Log prior plus log likelihood of one window.

    .. math:: r_t \mid \text{past} \sim t_\nu\big(\mu, h_t\big) \text{ with variance } h_t, \quad
              \mu \sim \mathrm N(0, 1), \; \omega \sim \mathrm{Exp}(1), \;
              (\alpha, \beta, \cdot) \sim \mathrm{Dir}(1, 1, 1), \; \nu - 2 \sim \mathrm{Gamma}(2, 0.1)

    Args:
      position: a point in the natural space: mu, omega, persistence [3], nu.
      returns: [T].

    Returns:
      Scalar.
    """
    nu = position["nu"]
    squared_scale = conditional_variances(position, returns)[:-1] * (nu - 2) / nu
    squared = (returns - position["mu"]) ** 2
    log_likelihood = jnp.sum(
        -0.5 * jnp.log(squared_scale) - 0.5 * (nu + 1) * jnp.log1p(squared / (nu * squared_scale))
    ) + returns.size * (gammaln(0.5 * (nu + 1)) - gammaln(0.5 * nu) - 0.5 * jnp.log(nu * jnp.pi))
    log_prior = (
        densities.normal(position["mu"], 0.0, 1.0)
        + densities.exponential(position["omega"], 1.0)
        + densities.dirichlet(position["persistence"], jnp.ones(3, returns.dtype))
        + densities.gamma(nu - 2, 2.0, 0.1)
    )
    return log_likelihood + log_prior


def target(dtype: Any = jnp.float32) -> Target:
    """The posterior on flat unconstrained vectors [5]; `log_density(z, returns)`."""
    start = jax.tree.map(lambda x: jnp.asarray(x, dtype), START)
    return targets.unconstrain(log_joint, start, SUPPORT, data=jnp.zeros(WINDOW, dtype))


def solver(model: Target, *, num_samples: int = 4, learning_rate: float = 0.03) -> Solver:
    """Full-rank stochastic VI: antithetic draws, Adam, averaged iterates."""
    loss = as_loss(elbo_entropy, model.log_density, num_samples=num_samples, draws=noise.antithetic)
    return polynomial_averaging(svi(loss, optax.adam(learning_rate)))


def starts(model: Target, num_models: int) -> FullRank:
    """The same start for every model: the generic point, with a standard deviation of 0.1 each way."""
    loc = model.unconstrain(jax.tree.map(jnp.asarray, START))
    q = full_rank(loc, 0.1 * jnp.eye(model.size, dtype=loc.dtype))
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_models, *x.shape)), q)


def fit_windows(key: Key, model: Target, returns: Array, *, progress: bool | None = None, max_steps: int = 1500) -> Run:
    """One posterior for each window, in one call.

    Args:
      key: consumed.
      model: from `target`.
      returns: [M, T].
      progress: as in `run_batch`.
      max_steps: for a model.

    Returns:
      A `Run` with leading axis M.
    """
    return run_batch(
        key,
        solver(model),
        starts(model, returns.shape[0]),
        returns,
        max_steps=max_steps,
        stop=moments_stable(window=100, tolerance=0.1),
        progress=progress,
    )


def assess_windows(key: Key, model: Target, q: FullRank, returns: Array, *, num_samples: int = 1000) -> Assessment:
    """The bound, the evidence and k-hat of every window.

    Args:
      key: consumed.
      model: from `target`.
      q: leading axis M.
      returns: [M, T].
      num_samples: S, static.

    Returns:
      An `Assessment` with leading axis M.
    """

    def one(args):
        key, q, returns = args
        return assess(key, q, lambda z: model.log_density(z, returns), num_samples=num_samples)

    keys = jax.random.split(key, returns.shape[0])
    return jax.jit(lambda *args: jax.lax.map(one, args, batch_size=4))(keys, q, returns)


def forecast(
    key: Key, model: Target, draws: Array, log_weights: Array, returns: Array, *, num_draws: int = 500
) -> Array:
    """Draws of tomorrow's return, from the importance-corrected posterior of every window.

    Args:
      key: consumed.
      model: from `target`.
      draws: [M, S, 5] flat draws of each posterior, and
      log_weights: [M, S] what they count.
      returns: [M, T].
      num_draws: static.

    Returns:
      [M, num_draws] per cent.
    """

    def one(args):
        key, events, log_weights, returns = args
        choice, shock = jax.random.split(key)
        chosen = events[pick(choice, log_weights, num_draws)]

        def tomorrow(key, z):
            position = model.constrain(z)
            nu, h = position["nu"], conditional_variances(position, returns)[-1]
            return samplers.student_t(key, nu, position["mu"], jnp.sqrt(h * (nu - 2) / nu))

        return jax.vmap(tomorrow)(jax.random.split(shock, num_draws), chosen)

    keys = jax.random.split(key, returns.shape[0])
    arguments = (keys, draws, log_weights, returns)
    return jax.jit(lambda *args: jax.lax.map(one, args, batch_size=8))(*arguments)
