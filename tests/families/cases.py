"""The table of families. A new family adds one row, and `test_laws.py` holds it to every law."""

import dataclasses
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
BAND = np.array([[-0.6, 0.4, 0.8, 0.0], [0.3, -0.5, np.nan, 0.0]])  # the NaNs lie outside the matrix
WIDE_DIAGONAL = (1.0, 0.7, 1.3, 0.9, 1.1)
WIDE_BAND = np.array([[-0.6, 0.4, 0.8, 0.5, np.nan], [0.3, -0.5, 0.2, np.nan, np.nan]])
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
    make: Callable[[Any], elbojax.families.Family]
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


def band_covariance(diagonal=(1.0, 0.7, 1.3, 0.9), band=BAND):
    tril = np.diag(np.array(diagonal))
    for k in (1, 2):
        for i in range(len(diagonal) - k):
            tril[i + k, i] = band[k - 1, i]
    return np.linalg.inv(tril @ tril.T)


STATES = np.arange(6.0).reshape(3, 2) / 5
STATE_TRILS = np.array([[[0.8, 0.0], [0.5, 1.2]], [[1.1, 0.0], [-0.3, 0.6]], [[0.5, 0.0], [0.2, 0.9]]])
STATE_STEPS = np.array([[[0.9, 0.3], [-0.4, 0.7]], [[0.2, -0.5], [0.6, 1.1]]])


def gaussian_chain(dtype, parallel=False):
    return elbojax.gaussian_chain(*f(dtype, STATES, STATE_TRILS, STATE_STEPS), parallel=parallel)


def unchained(z):
    """Through the dense covariance, built up step by step."""
    factor = np.zeros((6, 6))
    for t, tril in enumerate(STATE_TRILS):
        if t:
            factor[2 * t : 2 * t + 2] = STATE_STEPS[t - 1] @ factor[2 * t - 2 : 2 * t]
        factor[2 * t : 2 * t + 2, 2 * t : 2 * t + 2] = tril
    return normal(STATES.ravel(), factor @ factor.T)(np.reshape(z, (-1, 6)))


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
    return elbojax.families.funnel(*f(dtype, KNOTS, HEIGHTS, BENDS, TRILS), basis=jnp.asarray(BASIS, dtype), df=df)


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


SKEW, TAIL = np.array([0.3, -0.2, 0.0]), np.array([0.2, 0.0, -0.1])


def skewed(dtype, df=0):
    return elbojax.sinh_arcsinh(*f(dtype, LOC, TRIL), skew=SKEW, tail=TAIL, df=df)


def standardised(h, df):
    """Log-density of the skewed and tailed noise h [S, 3]; derivatives by complex steps."""
    unskewed = np.sinh(np.arcsinh(h + 1e-30j) * np.exp(-TAIL) - SKEW)
    base = (
        scipy.stats.multivariate_t(np.zeros(3), np.eye(3), df=df)
        if df
        else scipy.stats.multivariate_normal(np.zeros(3))
    )
    return base.logpdf(unskewed.real) + np.log(unskewed.imag / 1e-30).sum(1) - np.log(np.diagonal(TRIL)).sum()


def unskewed(z, df=0):
    return standardised(np.linalg.solve(TRIL, np.asarray(z - LOC, "float64").T).T, df)


def flow(dtype, kind="rational_quadratic", df=0):
    q = elbojax.coupling_flow(
        jax.random.key(0), *f(dtype, LOC, TRIL), kind=kind, num_layers=4, hidden=(4,), num_bins=3, bound=2.5, df=df
    )
    rng = np.random.default_rng(0)
    layers = jax.tree.map(lambda x: jnp.asarray(0.1 * rng.normal(size=x.shape), dtype), q.layers)
    return dataclasses.replace(q, layers=layers, skew=jnp.asarray(SKEW, dtype), tail=jnp.asarray(TAIL, dtype))


def unflowed(z, kind="rational_quadratic", df=0):
    """Layer by layer in NumPy: splines knot by knot, inverted by bisection, derivatives by complex steps."""
    x = np.linalg.solve(TRIL, np.asarray(z - LOC, "float64").T).T
    weights = jax.tree.map(np.asarray, flow("float64", kind).layers["params"])
    log_slopes = 0.0
    # Which coordinate each layer moves, and what its network is given; the fourth begins a second round.
    for k, order in list(enumerate([(2, 1, 0), (1, 0, 2), (0, 2, 1), (2, 1, 0)]))[::-1]:
        first, last, beside = (weights[f"Dense_{i}"] for i in range(3))
        given = x[:, order[1:]]
        hidden = np.tanh(given @ first["kernel"][k] + first["bias"][k])
        raw = (
            hidden @ last["kernel"][k]
            + last["bias"][k]
            + np.hstack([given, 36 * np.tanh(given**2 / 36)]) @ beside["kernel"][k]
        )
        y = x[:, order[0]]
        if kind == "affine":
            log_scale = 3 * np.tanh(raw[:, 0] / 3)
            x[:, order[0]], log_slope = (y - raw[:, 1]) * np.exp(-log_scale), log_scale
        else:
            x[:, order[0]], log_slope = unbend(raw, y)
        log_slopes = log_slopes + log_slope
    return standardised(x, df) - log_slopes


def autoregressive(dtype, fast="sampling", df=0):
    """IAF: affine, with a context. MAF: splines, without."""
    settings = dict(kind="affine", num_context=2) if fast == "sampling" else dict(kind="rational_quadratic")
    q = elbojax.autoregressive_flow(
        jax.random.key(0),
        *f(dtype, LOC, TRIL),
        fast=fast,
        num_layers=2,
        hidden=(3, 4),
        num_bins=3,
        bound=2.5,
        df=df,
        **settings,
    )
    rng = np.random.default_rng(0)
    layers = jax.tree.map(lambda x: jnp.asarray(0.1 * rng.normal(size=x.shape), dtype), q.layers)
    q = dataclasses.replace(q, layers=layers, skew=jnp.asarray(SKEW, dtype), tail=jnp.asarray(TAIL, dtype))
    return q.given(jnp.array([0.7, -1.1], dtype)) if fast == "sampling" else q


def unmoved(z, fast="sampling", df=0):
    """Layer by layer and coordinate by coordinate in NumPy; each is given those before it and nothing else."""
    x = np.linalg.solve(TRIL, np.asarray(z - LOC, "float64").T).T
    weights = jax.tree.map(np.asarray, autoregressive("float64", fast).layers["networks"]["params"])
    context = [[0.7, -1.1]] if fast == "sampling" else [[]]
    log_slopes = 0.0
    for k in (1, 0):
        y = x[:, ::-1] if k == 1 else x
        x = np.zeros_like(y)
        for i in range(3):
            raw = row(weights, k, i, (x if fast == "sampling" else y)[:, :i], np.repeat(context, len(y), 0))
            if fast == "sampling":
                log_slope = 3 * np.tanh(raw[:, 0] / 3)
                x[:, i] = (y[:, i] - raw[:, 1]) * np.exp(-log_slope)
            else:
                x[:, i], log_slope = unbend(raw, y[:, i])
            log_slopes = log_slopes + log_slope
        x = x[:, ::-1] if k == 1 else x
    return standardised(x, df) - log_slopes


def row(weights, k, i, before, context):
    """What the network of layer k says of coordinate i, unit by unit along the paths that MADE leaves open."""
    first, second, last, beside = (weights[f"Masked_{j}"] for j in range(4))
    given = np.hstack([before, context])
    rows = [*range(i), *range(3, 3 + context.shape[1])]
    lowest = 0 if context.size else 1  # the least degree; units are dealt degrees in turns
    degrees = [[lowest + u % (3 - lowest) for u in range(width)] for width in (3, 4)]
    one = {}
    for u, degree in enumerate(degrees[0]):
        if degree <= i:
            seen = [r for r in rows if r >= 3 or r < degree]
            one[u] = np.tanh(
                first["bias"][k, u] + sum(given[:, rows.index(r)] * first["kernel"][k, r, u] for r in seen)
            )
    two = {}
    for v, degree in enumerate(degrees[1]):
        if degree <= i:
            below = [u for u in one if degrees[0][u] <= degree]
            two[v] = np.tanh(second["bias"][k, v] + sum(one[u] * second["kernel"][k, u, v] for u in below))
    each = last["bias"].shape[1] // 3
    columns = slice(each * i, each * (i + 1))
    raw = last["bias"][k, columns] + sum(two[v][:, None] * last["kernel"][k, v, columns] for v in two)
    square = 36 * np.tanh(given**2 / 36)
    size = 3 + context.shape[1]
    return (
        raw
        + given @ beside["kernel"][k, rows, columns]
        + square @ beside["kernel"][k, [size + r for r in rows], columns]
    )


def unbend(raw, y):
    """Its inverse by bisection, and the logarithm of its slope there by complex steps."""
    low, high = np.minimum(y, -2.5), np.maximum(y, 2.5)
    for _ in range(70):
        middle = 0.5 * (low + high)
        below = bend(raw, middle) < y
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low, np.log(bend(raw, low + 1e-30j).imag / 1e-30)


def bend(raw, x):
    """The spline of Durkan et al. with three bins on [-2.5, 2.5], for each row of raw."""
    shares = [1e-3 + (1 - 3e-3) * scipy.special.softmax(part, axis=1) for part in (raw[:, :3], raw[:, 3:6])]
    xs, ys = ([np.full(len(x), -2.5), *(-2.5 + 5 * np.cumsum(share, axis=1).T)] for share in shares)
    inner = 1e-3 + np.log1p(np.exp(raw[:, 6:] + np.log(np.expm1(1 - 1e-3))))
    slopes = [np.ones(len(x)), *inner.T, np.ones(len(x))]
    out = x
    for k in range(3):
        width, height = xs[k + 1] - xs[k], ys[k + 1] - ys[k]
        t, s = (x - xs[k]) / width, height / width
        top = height * (s * t**2 + slopes[k] * t * (1 - t))
        y = ys[k] + top / (s + (slopes[k + 1] + slopes[k] - 2 * s) * t * (1 - t))
        out = np.where((np.real(x) >= xs[k]) & (np.real(x) < xs[k + 1]), y, out)
    return out


def layer(weights, x, *above):
    """A Gaussian about a line through the layers above and the data."""
    return elbojax.mean_field(weights[0] * sum(jnp.sum(z) for z in above) + weights[1] * x, jnp.exp(weights[2]))


def two_sided(weights, z):
    """Coins that a Gaussian weighs."""
    return elbojax.bernoulli(weights * jnp.sum(z))


WEIGHTS = np.array([[0.3, 1.0, -0.5], [-0.2, 0.5, 0.1]])


def layered(dtype, first=mean_field):
    weights, x = f(dtype, WEIGHTS, [1.0, -2.0])
    return elbojax.hierarchical(first(dtype), *(jax.tree_util.Partial(layer, w, x) for w in weights))


def below(z):
    """The second and the third layer, given those above."""
    total, above = 0.0, z[0].sum(-1)
    for (slope, bias, log_scale), z_j in zip(WEIGHTS, z[1:], strict=True):
        total += normal(np.zeros(2), np.exp(2 * log_scale) * np.eye(2))(
            z_j - slope * above[:, None] - bias * np.array([1.0, -2.0])
        )
        above = above + z_j.sum(-1)
    return total


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
    Case(
        "banded_precision_in_rounds",
        lambda t: elbojax.banded_precision(*f(t, np.arange(5.0) / 2, WIDE_DIAGONAL, WIDE_BAND), parallel=True),
        normal(np.arange(5.0) / 2, band_covariance(WIDE_DIAGONAL, WIDE_BAND)),
    ),
    Case("gaussian_chain", gaussian_chain, unchained),
    Case("gaussian_chain_in_rounds", lambda t: gaussian_chain(t, parallel=True), unchained),
    Case("funnel", funnel, bent, entropy=False, kl=False, moments=False),
    Case(
        "funnel_with_tails", lambda t: funnel(t, df=7), lambda z: bent(z, df=7), entropy=False, kl=False, moments=False
    ),
    Case("sinh_arcsinh", lambda t: skewed(t, 7), lambda z: unskewed(z, 7), False, False, False),
    Case("spline_flow", flow, unflowed, entropy=False, kl=False, moments=False),
    Case("affine_flow", lambda t: flow(t, "affine", 7), lambda z: unflowed(z, "affine", 7), False, False, False),
    Case("iaf", lambda t: autoregressive(t, df=7), lambda z: unmoved(z, df=7), entropy=False, kl=False, moments=False),
    Case(
        "maf",
        lambda t: autoregressive(t, "density"),
        lambda z: unmoved(z, "density"),
        entropy=False,
        kl=False,
        moments=False,
    ),
    Case("student_t", lambda t: elbojax.student_t(*f(t, LOC, TRIL), df=9), student_t, entropy=False, kl=False),
    Case(
        "tailed",
        lambda t: elbojax.families.with_student_t_tails(elbojax.low_rank(*f(t, LOC, FACTOR, SCALE)), df=9),
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
        lambda t: elbojax.families.product({"a": mean_field(t), "b": (full_rank(t),)}),
        lambda z: normal(LOC, INDEPENDENT)(z["a"]) + normal(LOC, DENSE)(z["b"][0]),
    ),
    Case(
        "product_of_mixtures",
        lambda t: elbojax.families.product([pair(t), pair(t)]),
        lambda z: PAIR(z[0]) + PAIR(z[1]),
        entropy=False,
        kl=False,
    ),
    Case(
        "product_with_discrete",
        lambda t: elbojax.families.product((mean_field(t), elbojax.bernoulli(*f(t, COINS)))),
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
    Case("hierarchical", layered, lambda z: normal(LOC, INDEPENDENT)(z[0]) + below(z), False, False, False),
    Case("hierarchical_mixture", lambda t: layered(t, pair), lambda z: PAIR(z[0]) + below(z), False, False, False),
    Case(
        "hierarchical_with_discrete",
        lambda t: elbojax.hierarchical(mean_field(t), elbojax.amortised(two_sided, *f(t, COINS))),
        lambda z: (
            normal(LOC, INDEPENDENT)(z[0])
            + scipy.stats.bernoulli.logpmf(z[1], scipy.special.expit(COINS * z[0].sum(-1)[:, None])).sum(-1)
        ),
        entropy=False,
        kl=False,
        moments=False,
    ),
    Case("bernoulli", lambda t: elbojax.bernoulli(*f(t, COINS)), coins),
    Case("categorical", lambda t: elbojax.categorical(*f(t, DICE)), dice, moments=False),
    Case("markov_chain", lambda t: elbojax.markov_chain(*f(t, *CHAIN)), chain, moments=False),
    Case(
        "particles",
        lambda t: elbojax.families.particles(*f(t, LOCATIONS, 0.6)),
        mixed(np.zeros(4), *[normal(x, 0.36 * np.eye(2)) for x in LOCATIONS]),
        entropy=False,
        kl=False,
    ),
]
