"""Two ordinary differential equations seen through log-normal errors, solved with a fixed number of steps.

A fixed number of steps runs under `vmap` and `scan` and can be differentiated twice; each solver is accurate to about
1e-5 in the log density over the reference draws.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.models.base import Data, Model, Position, Raw, build, half_cauchy, log_normal, positive_normal
from elbojax.types import Array, Scalar

RUNGE_KUTTA_STEPS = 16
REFINEMENTS = np.arange(1, 5)
FIRST_STEPS, STEPS = 20, 2


def log_populations(theta: Array, z_init: Array, times: Array) -> Array:
    r"""Prey and predators at given times, by the classical Runge-Kutta method on the logarithms.

    .. math:: \dot u = (a - b v) u, \qquad \dot v = (-c + d u) v, \qquad (u, v)(0) = z_{init}

    On the logarithms no step, however far off, makes a population negative.

    Args:
      theta: [4] a, b, c, d.
      z_init: [2] at time 0.
      times: [T], increasing and positive.

    Returns:
      [T, 2] log u, log v.
    """
    a, b, c, d = theta

    def slope(z):
        growth = jnp.exp(z)
        return jnp.stack([a - b * growth[1], d * growth[0] - c])

    def step(z, h):
        k1 = slope(z)
        k2 = slope(z + h / 2 * k1)
        k3 = slope(z + h / 2 * k2)
        k4 = slope(z + h * k3)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return z, z

    steps = jnp.repeat(jnp.diff(times, prepend=0) / RUNGE_KUTTA_STEPS, RUNGE_KUTTA_STEPS)
    _, path = jax.lax.scan(step, jnp.log(z_init), steps)
    return path[RUNGE_KUTTA_STEPS - 1 :: RUNGE_KUTTA_STEPS]


def predator_prey(position: Position, data: Data) -> Scalar:
    """Log-normal errors with scales sigma; priors as published with the Canadian hare and lynx pelts, all positive.

    theta_1, theta_3 ~ normal(1, 0.5) and theta_2, theta_4 ~ normal(0.05, 0.05), both cut off at 0;
    sigma_k ~ lognormal(-1, 1); z_init_k ~ lognormal(log 10, 1).
    """
    theta, z_init, sigma = position["theta"], position["z_init"], position["sigma"]
    prior = positive_normal(theta[::2], 1.0, 0.5).sum() + positive_normal(theta[1::2], 0.05, 0.05).sum()
    prior += log_normal(sigma, -1.0, 1.0).sum() + log_normal(z_init, math.log(10), 1.0).sum()
    likelihood = log_normal(data["y_init"], jnp.log(z_init), sigma).sum()
    return prior + likelihood + log_normal(data["y"], log_populations(theta, z_init, data["times"]), sigma).sum()


def _refined(start: Scalar, end: Scalar, count: int, power: int) -> Array:
    """Ends of the steps [4 count, 4] from `start` to `end` on four grids, the k-th with k times as many steps.

    Grids with fewer steps than four to a cell repeat the end of the cell, which makes steps of length 0.
    """
    substeps = np.minimum(np.arange(1, len(REFINEMENTS) + 1)[:, None], REFINEMENTS) / REFINEMENTS
    cells = np.arange(count)[:, None, None] + substeps
    fractions = (cells.reshape(-1, len(REFINEMENTS)) / count) ** power
    return start + (end - start) * fractions.astype(end.dtype)


def log_concentration(k_a: Scalar, K_m: Scalar, V_m: Scalar, dose: Scalar, volume: Scalar, times: Array) -> Array:
    r"""Concentration of a drug that is absorbed by first order and eliminated by Michaelis and Menten's law.

    .. math:: \dot C = \frac{D k_a}{V} e^{-k_a t} - \frac{V_m}{V} \frac{C}{K_m + C}, \qquad C(0) = 0

    The equation is stiff where K_m is small (the reference has draws at 0.001). A step of implicit Euler, with the
    absorption integrated exactly, is a quadratic equation with one positive root, so C stays positive at any
    parameters. Four grids of 1 to 4 steps a cell, extrapolated on the logarithm, give order 4. The cells before the
    first observation shrink towards 0, where C changes fastest.

    Args:
      k_a: rate of absorption.
      K_m: concentration at half the highest speed of elimination.
      V_m: highest speed of elimination.
      dose: D.
      volume: V.
      times: [T], increasing and positive.

    Returns:
      [T] log C.

    References:
      Hairer, Wanner 1996, Solving Ordinary Differential Equations II, section IV.9,
      https://doi.org/10.1007/978-3-642-05221-7
    """
    first = _refined(jnp.zeros_like(times[0]), times[0], FIRST_STEPS, 4)
    later = jax.vmap(lambda start, end: _refined(start, end, STEPS, 1))(times[:-1], times[1:])
    ends = jnp.concatenate([first, later.reshape(-1, len(REFINEMENTS))])
    starts = jnp.concatenate([jnp.zeros_like(ends[:1]), ends[:-1]])
    absorbed = dose / volume * jnp.exp(-k_a * starts) * -jnp.expm1(-k_a * (ends - starts))
    eliminable = V_m / volume * (ends - starts)

    def step(c, amounts):
        inflow, outflow = amounts
        total = c + inflow
        linear = total - K_m - outflow
        size = jnp.abs(linear) + jnp.sqrt(linear**2 + 4 * total * K_m)
        c = jnp.where(linear > 0, size / 2, 2 * total * K_m / size)
        return c, c

    _, path = jax.lax.scan(step, jnp.zeros_like(absorbed[0]), (absorbed, eliminable))
    width = len(REFINEMENTS)
    at_times = path[width * FIRST_STEPS - 1 :: width * STEPS]
    weights = np.array([np.prod([k / (k - other) for other in REFINEMENTS if other != k]) for k in REFINEMENTS])
    return jnp.log(at_times) @ weights.astype(at_times.dtype)


def absorption(position: Position, data: Data) -> Scalar:
    """C_hat_n ~ lognormal(log C(t_n), sigma), all four parameters ~ half-Cauchy(0, 1)."""
    k_a, K_m, V_m, sigma = (position[name] for name in ("k_a", "K_m", "V_m", "sigma"))
    expected = log_concentration(k_a, K_m, V_m, data["dose"], data["volume"], data["times"])
    prior = sum(half_cauchy(parameter, 1.0) for parameter in (k_a, K_m, V_m, sigma))
    return prior + log_normal(data["concentration"], expected, sigma).sum()


def lotka_volterra(raw: Raw) -> Model:
    parameters = {
        "theta": ("positive", np.ones(4)),
        "z_init": ("positive", np.ones(2)),
        "sigma": ("positive", np.ones(2)),
    }
    data = {"times": raw["ts"], "y_init": raw["y_init"], "y": raw["y"]}
    return build("hudson_lynx_hare-lotka_volterra", predator_prey, parameters, data)


def one_comp_mm_elim_abs(raw: Raw) -> Model:
    parameters = {name: ("positive", 1.0) for name in ("k_a", "K_m", "V_m", "sigma")}
    data = {"times": raw["times"], "concentration": raw["C_hat"], "dose": raw["D"], "volume": raw["V"]}
    return build("one_comp_mm_elim_abs-one_comp_mm_elim_abs", absorption, parameters, data)
