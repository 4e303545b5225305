"""Kinds of posteriors of which the suite `kinds` fits many in one call, with the truth of each.

Funnels and bananas have moments in closed form; hierarchies by quadrature over their one scale, all else being Gaussian given
it; volatility windows by long chains, of a sample of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

CHAINS, WARMUP, SAMPLES = 2, 500, 2000
"""Of the long chains: means known to about 0.03 sd."""


class Kind(NamedTuple):
    """Many posteriors of one log-density.

    Attributes:
      name: of the section.
      log_density: (z [D], datum) -> scalar.
      init: [D].
      data: pytree with leading axis M.
      known: which models have a truth, [K] places.
      mean: [K, D].
      sd: [K, D].
    """

    name: str
    log_density: Callable[[Any, Any], Any]
    init: Any
    data: Any
    known: np.ndarray
    mean: np.ndarray
    sd: np.ndarray


def _f32(data: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float32), data)


def _funnel(z, datum):
    head = -0.5 * ((z[0] - datum["mu"]) / datum["s"]) ** 2 - jnp.log(datum["s"])
    return head - 0.5 * z[1] ** 2 * jnp.exp(-z[0]) - 0.5 * z[0]


def funnels(models: int) -> Kind:
    """v ~ N(mu, s^2), x ~ N(0, e^v): mu within -2 to 2, s within 0.3 to 1.5 (the excess kurtosis of x up to 25)."""
    rng = np.random.default_rng(11)
    data = _f32({"mu": rng.uniform(-2, 2, models), "s": rng.uniform(0.3, 1.5, models)})
    mu, s = data["mu"].astype(float), data["s"].astype(float)
    mean = np.stack([mu, np.zeros(models)], axis=1)
    sd = np.stack([s, np.exp(0.5 * mu + 0.25 * s**2)], axis=1)
    return Kind("two-dimensional funnels", _funnel, np.zeros(2, np.float32), data, np.arange(models), mean, sd)


def _banana(z, datum):
    return (
        -0.5 * (z[0] / datum["s"]) ** 2
        - 0.5 * ((z[1] - z[0] ** 2) / datum["noise"]) ** 2
        - jnp.log(datum["s"] * datum["noise"])
    )


def bananas(models: int) -> Kind:
    """x ~ N(0, s^2), y ~ N(x^2, noise^2): s within 0.5 to 2, noise within 0.2 to 1."""
    rng = np.random.default_rng(12)
    data = _f32({"s": rng.uniform(0.5, 2, models), "noise": np.exp(rng.uniform(np.log(0.2), 0, models))})
    s, noise = data["s"].astype(float), data["noise"].astype(float)
    mean = np.stack([np.zeros(models), s**2], axis=1)
    sd = np.stack([s, np.sqrt(2 * s**4 + noise**2)], axis=1)
    return Kind("two-dimensional bananas", _banana, np.zeros(2, np.float32), data, np.arange(models), mean, sd)


GROUPS = 8


def _hierarchy(z, datum):
    mu, log_tau, eta = z[0], z[1], z[2:]
    tau = jnp.exp(log_tau)
    prior = -0.5 * (mu / 5) ** 2 - jnp.log1p((tau / 5) ** 2) + log_tau - 0.5 * eta @ eta
    return prior - 0.5 * jnp.sum(((datum["y"] - mu - tau * eta) / datum["sd"]) ** 2)


def hierarchies(models: int) -> Kind:
    """Eight schools, not centred, with data of their own: true tau within 0.5 to 20, standard errors within 5 to 18."""
    rng = np.random.default_rng(13)
    tau = np.exp(rng.uniform(np.log(0.5), np.log(20), (models, 1)))
    errors = rng.uniform(5, 18, (models, GROUPS))
    y = (
        5 * rng.normal(size=(models, 1))
        + tau * rng.normal(size=(models, GROUPS))
        + errors * rng.normal(size=errors.shape)
    )
    data = _f32({"y": y, "sd": errors})
    moments = [hierarchy_moments(y, sd) for y, sd in zip(*(data[x].astype(float) for x in ("y", "sd")), strict=True)]
    mean, sd = (np.stack(part) for part in zip(*moments, strict=True))
    init = np.zeros(2 + GROUPS, np.float32)
    return Kind("hierarchies of eight groups, not centred", _hierarchy, init, data, np.arange(models), mean, sd)


def hierarchy_moments(y: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds of (mu, log tau, eta [J]): Gaussian given tau, which a sum over a grid of its logarithm integrates out."""
    log_tau = np.linspace(-16, 8, 6001)[:, None]
    tau = np.exp(log_tau)
    variance = tau**2 + errors**2  # [grid, J], of y given mu and tau
    precision = 1 / 25 + (1 / variance).sum(axis=1)
    mu = (y / variance).sum(axis=1) / precision
    log_w = -0.5 * (np.log(variance) + y**2 / variance).sum(axis=1) + 0.5 * precision * mu**2 - 0.5 * np.log(precision)
    log_w += log_tau[:, 0] - np.log1p((tau[:, 0] / 5) ** 2)
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    slope = -tau / variance  # of the mean of eta given mu
    eta = slope * (mu[:, None] - y)
    means = np.concatenate([mu[:, None], log_tau, eta], axis=1)
    within = np.concatenate(
        [1 / precision[:, None], np.zeros_like(log_tau), errors**2 / variance + slope**2 / precision[:, None]], axis=1
    )
    mean = w @ means
    return mean, np.sqrt(w @ (within + (means - mean) ** 2))


def windows(models: int, sample: int = 4) -> Kind:
    """Student-t GARCH(1,1) on windows of the S&P 500 spread over all years; long chains for a sample of them."""
    from elbojax.demo import volatility

    every = volatility.sp500_windows()
    chosen = np.linspace(0, len(every.returns) - 1, models).astype(int)
    returns = np.asarray(every.returns)[chosen]
    target = volatility.target()
    init = np.asarray(target.unconstrain(jax.tree.map(jnp.asarray, volatility.START)), np.float32)
    known = np.linspace(0, models - 1, min(sample, models)).astype(int)
    mean, sd = long_chains(target.log_density, init, returns[known])
    return Kind("GARCH windows of 500 days", target.log_density, init, returns, known, mean, sd)


def long_chains(log_density: Callable, init: Any, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds [K, D] by NumPyro's NUTS, the chains of all models in turn."""
    from numpyro.infer import NUTS

    def chain(arguments):
        key, datum = arguments
        kernel = NUTS(potential_fn=lambda z: -log_density(z, datum), dense_mass=True, target_accept_prob=0.9)
        state = kernel.init(key, WARMUP, jnp.asarray(init), (), {})

        def step(state, _):
            state = kernel.sample(state, (), {})
            return state, state.z

        _, draws = jax.lax.scan(step, state, length=WARMUP + SAMPLES)
        return draws[WARMUP:]

    count = len(jax.tree.leaves(data)[0])
    keys = jax.random.split(jax.random.key(5), CHAINS * count)
    repeated = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x), CHAINS, axis=0), data)
    draws = np.asarray(jax.jit(lambda *args: jax.lax.map(chain, args))(keys, repeated), float)
    draws = draws.reshape(count, CHAINS * SAMPLES, -1)
    return draws.mean(axis=1), draws.std(axis=1)


KINDS: dict[str, Callable[[int], Kind]] = {
    "funnels": funnels,
    "bananas": bananas,
    "hierarchies": hierarchies,
    "windows": windows,
}
