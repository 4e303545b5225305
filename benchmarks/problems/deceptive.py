"""Targets made to deceive, of known moments: funnels of all kinds, heavy tails, skew, bananas, rings, modes of unequal weight.

To add one: a function that gives a `Target`, and an entry in `TARGETS`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from benchmarks.harness.errors import HEAVY

EXACT = 400_000
"""Draws of the target itself, for quantiles and for which columns are heavy: their own error is 0.003 sd."""


class Target(NamedTuple):
    """A density of known moments.

    Attributes:
      name: of the row.
      log_density: `(position [D], data) -> scalar`, one function for all targets of a kind, so that it compiles once.
      data: what makes this target of its kind.
      sample: `(rng, S) -> [S, D]` independent draws.
      mean: [D].
      sd: [D]; infinite where there is none.
      support: of all coordinates.
      hidden: whether it has a mode in which no start ends, and none is meant to.
    """

    name: str
    log_density: Callable
    data: Any
    sample: Callable
    mean: np.ndarray
    sd: np.ndarray
    support: Any = None
    hidden: bool = False


def normal(x, loc, scale):
    return -0.5 * ((x - loc) / scale) ** 2 - jnp.log(scale)


# ---- funnels: heads v ~ N(mu, s^2), and x given its head ~ N(0, e^{power v})


def funnels(z, data):
    """Heads first, then as many for each head; all turned by a rotation."""
    y = data["turn"].T @ z
    heads, rest = y[: data["mu"].size], y[data["mu"].size :].reshape(data["mu"].size, -1)
    scales = jnp.exp(0.5 * data["power"] * heads)[:, None]
    return jnp.sum(normal(heads, data["mu"], data["s"])) + jnp.sum(normal(rest, 0.0, scales))


def funnel(mu: Any, s: Any, per_head: int, power: float = 1.0, turned: bool = False) -> Target:
    mu, s = np.atleast_1d(np.asarray(mu, float)), np.atleast_1d(np.asarray(s, float))
    size = mu.size * (1 + per_head)
    turn = stats.ortho_group.rvs(size, random_state=np.random.default_rng(size)) if turned else np.eye(size)

    def sample(rng, count):
        heads = mu + s * rng.normal(size=(count, mu.size))
        rest = np.exp(0.5 * power * heads)[..., None] * rng.normal(size=(count, mu.size, per_head))
        return np.concatenate([heads, rest.reshape(count, -1)], axis=1) @ turn.T

    spread = np.exp(power * mu + 0.5 * (power * s) ** 2)
    mean = turn @ np.concatenate([mu, np.zeros(size - mu.size)])
    sd = np.sqrt(turn**2 @ np.concatenate([s**2, np.repeat(spread, per_head)]))
    heads = ", ".join(f"({m:g}, {d:g})" for m, d in zip(mu, s, strict=True))
    words = f"funnel {heads}, D = {size}" + (f", power {power:g}" if power != 1 else "") + ", turned" * turned
    return Target(words, funnels, {"mu": mu, "s": s, "power": power, "turn": turn}, sample, mean, sd)


# ---- tails and skew


def students(z, data):
    """Of one radius: multivariate."""
    return -0.5 * (data["df"] + z.size) * jnp.log1p(jnp.sum(z**2) / data["df"])


def student(df: float, size: int) -> Target:
    def sample(rng, count):
        return rng.normal(size=(count, size)) / np.sqrt(rng.chisquare(df, size=(count, 1)) / df)

    sd = np.full(size, np.sqrt(df / (df - 2)) if df > 2 else np.inf)
    return Target(f"Student t({df:g}), D = {size}", students, {"df": df}, sample, np.zeros(size), sd)


def independents(z, data):
    return -0.5 * (data["df"] + 1) * jnp.sum(jnp.log1p(z**2 / data["df"]))


def independent(df: float, size: int) -> Target:
    sd = np.full(size, np.sqrt(df / (df - 2)))
    sample = lambda rng, count: rng.standard_t(df, size=(count, size))  # noqa: E731
    return Target(f"{size} independent t({df:g})", independents, {"df": df}, sample, np.zeros(size), sd)


def gammas(z, data):
    return jnp.sum((data["shape"] - 1) * jnp.log(z) - z)


def gamma(shape: float, size: int) -> Target:
    sample = lambda rng, count: rng.gamma(shape, size=(count, size))  # noqa: E731
    mean, sd = np.full(size, shape), np.full(size, np.sqrt(shape))
    return Target(f"gamma({shape:g}), D = {size}", gammas, {"shape": shape}, sample, mean, sd, "positive")


def log_gammas(z, data):
    return jnp.sum(data["shape"] * z - jnp.exp(z))


def log_gamma(shape: float, size: int) -> Target:
    sample = lambda rng, count: np.log(rng.gamma(shape, size=(count, size)))  # noqa: E731
    mean, sd = special.digamma(shape), np.sqrt(special.polygamma(1, shape))
    return Target(
        f"log gamma({shape:g}), D = {size}",
        log_gammas,
        {"shape": shape},
        sample,
        np.full(size, mean),
        np.full(size, sd),
    )


# ---- bananas: z0 ~ N(0, s^2), z1 given it ~ N(z0^2, noise^2)


def bananas(z, data):
    return normal(z[0], 0.0, data["s"]) + normal(z[1], z[0] ** 2, data["noise"])


def banana(s: float, noise: float) -> Target:
    def sample(rng, count):
        z = s * rng.normal(size=count)
        return np.stack([z, z**2 + noise * rng.normal(size=count)], axis=1)

    mean, sd = np.array([0, s**2]), np.array([s, np.sqrt(2 * s**4 + noise**2)])
    return Target(f"banana {s:g}, {noise:g}", bananas, {"s": s, "noise": noise}, sample, mean, sd)


# ---- rings: |z| around a radius, in the plane


def rings(z, data):
    return normal(jnp.sqrt(z @ z + 1e-12), data["radius"], data["width"])


def ring(radius: float, width: float) -> Target:
    def sample(rng, count):
        """The distance has a density in proportion to r N(r | radius, width^2)."""
        most = radius + 6 * width
        tried = radius + width * rng.normal(size=3 * count)
        chosen = tried[rng.random(tried.size) < tried / most][:count]
        angle = rng.uniform(-np.pi, np.pi, count)
        return chosen[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    sd = np.full(2, np.sqrt((radius**2 + 3 * width**2) / 2))
    return Target(f"ring {radius:g}, {width:g}", rings, {"radius": radius, "width": width}, sample, np.zeros(2), sd)


# ---- two Gaussians


def pairs(z, data):
    first = jnp.log1p(-data["weight"]) + jnp.sum(normal(z, 0.0, 1.0))
    second = jnp.log(data["weight"]) + jnp.sum(normal(z, data["place"], data["width"]))
    return jnp.logaddexp(first, second)


def pair(weight: float, apart: float, width: float, size: int, hidden: bool = False) -> Target:
    place = np.zeros(size)
    place[0] = apart

    def sample(rng, count):
        second = rng.random((count, 1)) < weight
        noise = rng.normal(size=(count, size))
        return np.where(second, place + width * noise, noise)

    mean = weight * place
    sd = np.sqrt((1 - weight) + weight * (width**2 + place**2) - mean**2)
    name = f"modes {1 - weight:g} and {weight:g}, {apart:g} apart, width {width:g}, D = {size}"
    return Target(name, pairs, {"weight": weight, "place": place, "width": width}, sample, mean, sd, hidden=hidden)


TARGETS = (
    *(funnel(mu, s, 1) for mu, s in ((-2.1, 1.46), (0, 1), (0, 1.5), (1, 2), (-4, 2.5), (3, 0.7))),
    *(funnel(mu, s, 1, power=2) for mu, s in ((0, 0.7), (-2.1, 1.0), (-2.1, 1.46))),
    funnel(0, 3, 9),
    funnel(-1, 1.5, 9),
    funnel(0, 1, 4, turned=True),
    funnel(-2.1, 1.46, 4, turned=True),
    funnel((0, -2), (1, 1.5), 3),
    funnel((-2.1, 1), (1.46, 1), 1),
    *(student(df, size) for size in (2, 10) for df in (3, 4, 5)),
    *(independent(df, 4) for df in (3, 5)),
    *(gamma(shape, 3) for shape in (0.2, 1)),
    *(log_gamma(shape, 3) for shape in (0.1, 0.5)),
    banana(1, 0.1),
    banana(2, 1),
    banana(0.7, 0.3),
    ring(5, 0.2),
    ring(3, 0.5),
    pair(0.3, 4, 1, 2),
    pair(0.2, 0, 5, 5),
    pair(0.1, 6, 1, 2, hidden=True),
    pair(0.05, 10, 3, 2, hidden=True),
    pair(0.1, 8, 0.3, 5, hidden=True),
)


class Truth(NamedTuple):
    """What answers are compared with.

    Attributes:
      quantiles: [D, 3].
      heavy: [D] which columns are assessed by them.
    """

    quantiles: np.ndarray
    heavy: np.ndarray


@functools.cache
def truth(target: str) -> Truth:
    """Of a target by its name."""
    (one,) = (each for each in TARGETS if each.name == target)
    exact = one.sample(np.random.default_rng(0), EXACT)
    quantiles = np.quantile(exact, (0.05, 0.5, 0.95), axis=0).T
    return Truth(quantiles, (stats.kurtosis(exact, axis=0) > HEAVY) | ~np.isfinite(one.sd))


def start(target: Target) -> np.ndarray:
    return np.full(target.mean.size, 1.0 if target.support else 0.0)


def kinds(targets: list[Target]) -> list[list[Target]]:
    """Targets that can be models of one batch."""
    found: dict[Any, list[Target]] = {}
    for each in targets:
        shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(each.data))
        found.setdefault((each.log_density, each.mean.size, shapes, each.support), []).append(each)
    return list(found.values())
