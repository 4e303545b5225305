"""The table of families. A new family adds one row, and `test_laws.py` holds it to every law."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
import scipy.special
import scipy.stats

import elbojax

LOC = np.array([0.3, -1.2, 0.7])
SCALE = np.array([0.5, 1.5, 0.8])
TRIL = np.array([[0.9, 0.0, 0.0], [0.4, 0.6, 0.0], [-0.7, 0.3, 1.2]])
FACTOR = np.array([[0.5, -0.3], [1.1, 0.4], [-0.6, 0.9]])
BAND = np.array([[-0.6, 0.4, 0.8, np.nan], [0.3, -0.5, np.nan, np.nan]])  # the NaNs lie outside the matrix
LOCATIONS = np.array([[0.0, 1.0], [2.0, -1.0], [-0.5, 0.3], [0.4, 0.4]])
LOGITS = np.array([0.3, -0.8])
COINS = np.array([0.5, -1.5, 0.0])
DICE = np.array([[0.1, 0.9, -0.4], [2.0, 0.0, 0.3]])


class Case(NamedTuple):
    """One row.

    Attributes:
      name: of the test.
      make: dtype -> q, small (D about 3).
      log_density: events with a leading axis S, as NumPy arrays -> [S], by SciPy or dense linear algebra.
      entropy, kl: whether there is a closed form; where there is none, asking for it must raise a TypeError.
      moments: whether there are `mean()` and `variance()`.
    """

    name: str
    make: Callable[[Any], elbojax.Family]
    log_density: Callable[[Any], np.ndarray]
    entropy: bool = True
    kl: bool = True
    moments: bool = True


def normal(loc, covariance):
    return scipy.stats.multivariate_normal(loc, covariance).logpdf


def mixed(log_weights, *log_densities):
    log_weights = scipy.special.log_softmax(log_weights)
    return lambda z: scipy.special.logsumexp(
        [w + f(z) for w, f in zip(log_weights, log_densities, strict=True)], axis=0
    )


def student_t(z):
    return scipy.stats.multivariate_t(LOC, TRIL @ TRIL.T, df=9).logpdf(z)


def coins(z):
    return scipy.stats.bernoulli.logpmf(z, scipy.special.expit(COINS)).sum(-1)


def dice(z):
    table = scipy.special.log_softmax(DICE, axis=-1)
    return table[0, z[:, 0]] + table[1, z[:, 1]]


CHAIN = (
    np.array([0.4, -0.3, 0.1]),
    np.array([[[0.2, 1.0, -0.5], [0.0, 0.3, 0.8], [-1.0, 0.5, 0.5]]] * 2) * [[[1.0]], [[-0.6]]],
)


def chain(z):
    first, steps = scipy.special.log_softmax(CHAIN[0]), scipy.special.log_softmax(CHAIN[1], axis=-1)
    return first[z[:, 0]] + steps[0, z[:, 0], z[:, 1]] + steps[1, z[:, 1], z[:, 2]]


def band_covariance():
    tril = np.diag(np.array([1.0, 0.7, 1.3, 0.9]))
    for k in (1, 2):
        for i in range(4 - k):
            tril[i + k, i] = BAND[k - 1, i]
    return np.linalg.inv(tril @ tril.T)


def f(dtype, *arrays):
    return [jnp.asarray(x, dtype) for x in arrays]


def mean_field(dtype):
    return elbojax.mean_field(*f(dtype, LOC, SCALE))


def full_rank(dtype):
    return elbojax.full_rank(*f(dtype, LOC, TRIL))


def pair(dtype):
    """A mixture of two independent Gaussians."""
    return elbojax.mixture(*f(dtype, LOGITS), [elbojax.mean_field(*f(dtype, x, SCALE)) for x in (LOC, -LOC)])


def stacked(dtype):
    """Two full-rank Gaussians, stacked by hand."""
    return jax.vmap(elbojax.full_rank)(*f(dtype, np.stack([LOC, -LOC]), np.stack([TRIL, 0.5 * TRIL])))


KNOTS = np.array([-3.0, -1.0, 0.5, 2.0, 4.0])
HEIGHTS = np.array([-1.5, 0.0, 0.0, -1.0, -4.0])
BENDS = np.array([[0.0, 1.0], [0.5, -0.4], [0.3, 0.3], [-1.0, 0.2], [0.0, 2.0]])
TRILS = np.exp(0.5 * KNOTS)[:, None, None] * np.array([[0.5, 0.0], [0.3, 0.8]])
BASIS = np.array([[0.0, 1.0, 0.2], [1.0, 0.0, 0.0], [0.0, -0.3, 1.0]])


def funnel(dtype, df=0):
    return elbojax.funnel(*f(dtype, KNOTS, HEIGHTS, BENDS, TRILS), basis=jnp.asarray(BASIS, dtype), df=df)


def bent(z, df=0):
    """The marginal by quadrature, the others with scales blended by four-point interpolation written out."""
    slopes = [max(HEIGHTS[1] - HEIGHTS[0], 1) / 2.0, -max(HEIGHTS[-2] - HEIGHTS[-1], 1) / 2.0]
    ends = [HEIGHTS[0] - 60 * slopes[0], *HEIGHTS, HEIGHTS[-1] + 60 * slopes[1]]
    height = lambda a: np.interp(a, [KNOTS[0] - 60, *KNOTS, KNOTS[-1] + 60], ends)  # noqa: E731
    pieces = [(KNOTS[0] - 60, KNOTS[0]), *zip(KNOTS[:-1], KNOTS[1:], strict=True), (KNOTS[-1], KNOTS[-1] + 60)]
    total = sum(scipy.integrate.quad(lambda a: np.exp(height(a)), *piece, epsabs=1e-13)[0] for piece in pieces)
    tables = BENDS, np.log(np.diagonal(TRILS, axis1=1, axis2=2)), TRILS[:, 1, :1] / TRILS[:, :1, 0]
    log_p = []
    for a, *b in np.linalg.solve(BASIS, np.asarray(z, "float64").T).T:
        loc, log_scale, (slope,) = (blend(np.interp(a, KNOTS, np.arange(5)), table) for table in tables)
        tril = np.array([[1.0, 0.0], [slope, 1.0]]) * np.exp(log_scale)
        shape = tril @ tril.T
        others = scipy.stats.multivariate_t(loc, shape, df=df) if df else scipy.stats.multivariate_normal(loc, shape)
        log_p.append(height(a) - np.log(total) + others.logpdf(b) - np.linalg.slogdet(BASIS)[1])
    return np.array(log_p)


def blend(place, table):
    """Catmull-Rom, without the points that lie outside."""
    i = min(int(place), len(table) - 2)
    t = place - i
    weights = 0.5 * np.array([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3])
    there = [k for k in range(4) if 0 <= i - 1 + k < len(table)]
    return sum(weights[k] * table[i - 1 + k] for k in there) / weights[there].sum()


INDEPENDENT, DENSE = np.diag(SCALE**2), TRIL @ TRIL.T
LOW_RANK = FACTOR @ FACTOR.T + INDEPENDENT
PAIR = mixed(LOGITS, normal(LOC, INDEPENDENT), normal(-LOC, INDEPENDENT))

CASES = [
    Case("mean_field", mean_field, normal(LOC, INDEPENDENT)),
    Case("full_rank", full_rank, normal(LOC, DENSE)),
    Case("low_rank", lambda t: elbojax.low_rank(*f(t, LOC, FACTOR, SCALE)), normal(LOC, LOW_RANK)),
    Case(
        "banded_precision",
        lambda t: elbojax.banded_precision(*f(t, np.arange(4.0), [1.0, 0.7, 1.3, 0.9], BAND)),
        normal(np.arange(4.0), band_covariance()),
    ),
    Case("funnel", funnel, bent, entropy=False, kl=False, moments=False),
    Case(
        "funnel_with_tails", lambda t: funnel(t, df=7), lambda z: bent(z, df=7), entropy=False, kl=False, moments=False
    ),
    Case("student_t", lambda t: elbojax.student_t(*f(t, LOC, TRIL), df=9), student_t, entropy=False, kl=False),
    Case(
        "tailed",
        lambda t: elbojax.tailed(elbojax.low_rank(*f(t, LOC, FACTOR, SCALE)), df=9),
        scipy.stats.multivariate_t(LOC, LOW_RANK, df=9).logpdf,
        entropy=False,
        kl=False,
    ),
    Case(
        "gaussian_blocks",
        lambda t: elbojax.blocks(full_rank(t), elbojax.low_rank(*f(t, LOC, FACTOR, SCALE))),
        normal(np.concatenate([LOC, LOC]), scipy.linalg.block_diag(DENSE, LOW_RANK)),
    ),
    Case(
        "blocks",
        lambda t: elbojax.blocks(mean_field(t), pair(t)),
        lambda z: normal(LOC, INDEPENDENT)(z[:, :3]) + PAIR(z[:, 3:]),
        entropy=False,
        kl=False,
    ),
    Case(
        "product",
        lambda t: elbojax.product({"a": mean_field(t), "b": (full_rank(t),)}),
        lambda z: normal(LOC, INDEPENDENT)(z["a"]) + normal(LOC, DENSE)(z["b"][0]),
    ),
    Case(
        "product_of_mixtures",
        lambda t: elbojax.product([pair(t), pair(t)]),
        lambda z: PAIR(z[0]) + PAIR(z[1]),
        entropy=False,
        kl=False,
    ),
    Case(
        "product_with_discrete",
        lambda t: elbojax.product((mean_field(t), elbojax.bernoulli(*f(t, COINS)))),
        lambda z: normal(LOC, INDEPENDENT)(z[0]) + coins(z[1]),
    ),
    Case(
        "mixture",
        lambda t: elbojax.mixture(*f(t, LOGITS), stacked(t)),
        mixed(LOGITS, normal(LOC, DENSE), normal(-LOC, 0.25 * DENSE)),
        entropy=False,
        kl=False,
    ),
    Case(
        "mixture_of_mixtures",
        lambda t: elbojax.mixture(*f(t, LOGITS), [pair(t), elbojax.mixture(*f(t, -LOGITS), pair(t).components)]),
        mixed(LOGITS, PAIR, mixed(-LOGITS, normal(LOC, INDEPENDENT), normal(-LOC, INDEPENDENT))),
        entropy=False,
        kl=False,
    ),
    Case("bernoulli", lambda t: elbojax.bernoulli(*f(t, COINS)), coins),
    Case("categorical", lambda t: elbojax.categorical(*f(t, DICE)), dice, moments=False),
    Case("markov_chain", lambda t: elbojax.markov_chain(*f(t, *CHAIN)), chain, moments=False),
    Case(
        "particles",
        lambda t: elbojax.particles(*f(t, LOCATIONS, 0.6)),
        mixed(np.zeros(4), *[normal(x, 0.36 * np.eye(2)) for x in LOCATIONS]),
        entropy=False,
        kl=False,
    ),
]
