"""Targets of known moments of any size, with a `q` that is right and with `q` made wrong on purpose.

A `q` is right where each mean is within 0.05 sds, each sd within 5 % and each correlation within 0.1 of the target's, and wrong
where one of them is off by more than the tolerance of the check: 0.1, 10 %, 0.2. How far each is off is computed from 50,000
draws of either.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import elbojax

TOLERANCE, RIGHT = 0.1, 0.05
EXACT = 50_000
"""Draws for what is off by how much: their own error is 0.0045 sd."""
PHI = 0.6
"""Correlation of neighbours."""
DF = 10.0
"""Degrees of freedom of the heavy tails."""
PER_HEAD = 4
"""Coordinates to a scale of the hierarchy."""
HEAD_SD = 0.7
"""Standard deviation of a log-variance there."""


class Target(NamedTuple):
    """A density that is a map of latent numbers.

    Attributes:
      name: of the row.
      log_density: `(position, data) -> scalar`.
      data: for it, of a size D.
      latent: `(key, D) -> [D]` numbers of unit scale.
      through: `(latents [D], data) -> position`.
      correlated: whether the latents are.
      support: of the positions.
    """

    name: str
    log_density: Callable
    data: Callable
    latent: Callable
    through: Callable
    correlated: bool = True
    support: Any = None


def chain(key, size):
    """Gaussian numbers of unit variance, each correlated with the next."""
    noise = jax.random.normal(key, (size,))
    step = lambda x, e: ((y := PHI * x + jnp.sqrt(1 - PHI**2) * e), y)  # noqa: E731
    _, rest = jax.lax.scan(step, noise[0], noise[1:])
    return jnp.concatenate([noise[:1], rest])


def chain_log_density(x):
    return -0.5 * x[0] ** 2 - 0.5 * jnp.sum((x[1:] - PHI * x[:-1]) ** 2) / (1 - PHI**2)


def scales(size):
    return np.logspace(-2, 2, size)


def gaussian(z, scale):
    return chain_log_density(z / scale)


def skewed(z, scale):
    """z = s sinh(asinh(x) + 0.3)."""
    y = z / scale
    x = jnp.sinh(jnp.arcsinh(y) - 0.3)
    return chain_log_density(x) + jnp.sum(0.5 * jnp.log1p(x**2) - 0.5 * jnp.log1p(y**2))


def logistic(p, scale):
    """p = sigmoid(x)."""
    x = jnp.log(p) - jnp.log1p(-p)
    return chain_log_density(x) - jnp.sum(jnp.log(p) + jnp.log1p(-p))


def tails(z, scale):
    return -0.5 * (DF + 1) * jnp.sum(jnp.log1p((z / scale) ** 2 / DF))


def hierarchy(z, scale):
    heads, rest = jnp.split(z, [z.size // (1 + PER_HEAD)])
    rest = rest.reshape(heads.size, PER_HEAD)
    return jnp.sum(-0.5 * (heads / HEAD_SD) ** 2 - 0.5 * PER_HEAD * heads) - 0.5 * jnp.sum(
        rest**2 * jnp.exp(-heads)[:, None]
    )


def hierarchical(x, scale):
    heads, rest = jnp.split(x, [x.size // (1 + PER_HEAD)])
    heads = HEAD_SD * heads
    return jnp.concatenate([heads, (rest.reshape(heads.size, PER_HEAD) * jnp.exp(0.5 * heads)[:, None]).ravel()])


def independent(key, size):
    return jax.random.normal(key, (size,))


TARGETS = (
    Target("Gaussian, sds 0.01 to 100", gaussian, scales, chain, lambda x, s: s * x),
    Target("skewed (sinh-arcsinh)", skewed, scales, chain, lambda x, s: s * jnp.sinh(jnp.arcsinh(x) + 0.3)),
    Target(
        "logistic, in the unit interval",
        logistic,
        np.ones,
        chain,
        lambda x, s: jax.nn.sigmoid(x),
        support="unit_interval",
    ),
    Target(
        "independent t(10)", tails, scales, lambda key, size: jax.random.t(key, DF, (size,)), lambda x, s: s * x, False
    ),
    Target("hierarchy of funnels", hierarchy, np.ones, independent, hierarchical, False),
)


class Wrong(NamedTuple):
    """What is done to the latent numbers of a `q`.

    Attributes:
      name: of the row.
      shift: added.
      factor: by which they are multiplied.
      all: whether of all coordinates, or of one.
      mixed: share of the first one that is replaced by what depends on none.
      mean_field: whether all depend on none, with the sds of the Gaussian of best bound.
    """

    name: str
    shift: float = 0.0
    factor: float = 1.0
    all: bool = False
    mixed: float = 0.0
    mean_field: bool = False


RIGHT_ONE = Wrong("right")
WRONG = (
    *(Wrong(f"mean + {s:g} sd, one", shift=s) for s in (0.15, 0.3, 0.5)),
    *(Wrong(f"mean + {s:g} sd, all", shift=s, all=True) for s in (0.15, 0.3)),
    *(Wrong(f"sd x {f:g}, {'all' if a else 'one'}", factor=f, all=a) for f in (0.8, 1.25) for a in (False, True)),
    Wrong("a correlation of 0.6 is 0.3", mixed=0.5),
    Wrong("mean-field", mean_field=True),
)


@elbojax.families.base.family
class Made(elbojax.families.Family):
    """A `q` of draws of a target's latents with something done to them; its density is not needed."""

    data: Any
    shift: Any
    factor: Any
    mixed: Any
    mean_field: Any
    target: Any = elbojax.families.base.static()

    def sample(self, key):
        first, second = jax.random.split(key)
        size = self.shift.size
        x, other = self.target.latent(first, size), jax.random.normal(second, (size,))
        x = jnp.where(self.mean_field, jnp.sqrt((1 - PHI**2) / (1 + PHI**2)) * other, x)
        x = x.at[0].set((1 - self.mixed) * x[0] + jnp.sqrt(1 - (1 - self.mixed) ** 2) * other[0])
        return self.target.through(self.factor * x + self.shift, self.data)

    def log_prob(self, event):
        raise NotImplementedError

    def sample_and_log_prob(self, key):
        raise NotImplementedError


def made(target: Target, wrong: Wrong, size: int) -> Made:
    """The `q`; all of one target and size are one program."""
    where = np.ones(size) if wrong.all else np.eye(size)[0]
    factor = 1 + (wrong.factor - 1) * where
    return Made(target.data(size), wrong.shift * where, factor, float(wrong.mixed), wrong.mean_field, target)


@functools.partial(jax.jit, static_argnames="count")
def draws(key, q, count):
    return jax.vmap(q.sample)(jax.random.split(key, count))


@functools.lru_cache(maxsize=2)
def moments(target: Target, wrong: Wrong, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, sds and correlations of a `q`."""
    q = made(target, wrong, size)
    batches = (np.asarray(draws(key, q, EXACT // 10), np.float64) for key in jax.random.split(jax.random.key(seed), 10))
    first = next(batches)
    centre, unit = first.mean(axis=0), first.std(axis=0)
    total, outer = 0.0, 0.0
    for z in (first, *batches):
        z = (z - centre) / unit
        total, outer = total + z.sum(axis=0), outer + z.T @ z
    mean = total / EXACT
    covariance = outer / EXACT - np.outer(mean, mean)
    sd = np.sqrt(np.diagonal(covariance))
    return centre + unit * mean, unit * sd, covariance / np.outer(sd, sd)


def off(target: Target, wrong: Wrong, size: int) -> tuple[float, float, float]:
    """By how much the worst mean (in sds), sd (relative) and correlation of a `q` are off."""
    if wrong is RIGHT_ONE:
        return 0.0, 0.0, 0.0
    p, q = _right(target, size), moments(target, wrong, size, 1)
    return (
        float(np.max(np.abs(q[0] - p[0]) / p[1])),
        float(np.max(np.abs(q[1] / p[1] - 1))),
        float(np.max(np.abs(q[2] - p[2]))),
    )


@functools.lru_cache(maxsize=1)
def _right(target: Target, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return moments(target, RIGHT_ONE, size, 0)


def kind_of(wrong: Wrong, errors: tuple[float, float, float]) -> str:
    """`right`, `wrong`, or `between`."""
    largest = max(errors[0], errors[1], errors[2] / 2)
    return "wrong" if largest > TOLERANCE else "right" if wrong is RIGHT_ONE or largest < RIGHT else "between"
