"""Certified answers are right and regular posteriors are certified, by both calls; most of the targets are made to deceive.

Many more, over many seeds: `python -m benchmarks certificate`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from benchmarks.problems.deceptive import banana, funnel, gamma, independent, log_gamma, pair, ring, student
from elbojax import thresholds
from elbojax.cascade import outer_variance
from elbojax.families import full_rank

WRONG = 0.5
"""Posterior sds, or share of an sd, off by more than which a certified answer is wrong."""
GOOD = 0.1
"""Off by more than which it is not as the certificate says."""


def ellipses(z, data):
    """A Gaussian of strong correlation, and with a skew of its first coordinate where there is one."""
    y = data["whitener"] @ (z - data["loc"])
    return -0.5 * jnp.sum(y[1:] ** 2) + data["shape"] * y[0] - data["shape"] * jnp.exp(y[0])


def ellipse(correlation, shape, size=4):
    """Moments from those of the logarithm of a gamma variate over its shape."""
    from scipy import special

    covariance = correlation + (1 - correlation) * np.eye(size)
    scale = np.linalg.cholesky(covariance) * np.geomspace(0.01, 100, size)[:, None]
    loc = np.linspace(-3, 3, size)
    mean = np.zeros(size)
    mean[0] = special.digamma(shape) - np.log(shape)
    variances = np.ones(size)
    variances[0] = special.polygamma(1, shape)
    data = {"whitener": np.linalg.inv(scale), "loc": loc, "shape": shape}
    return ellipses, data, loc + scale @ mean, np.sqrt(scale**2 @ variances), None


def of(target):
    return target.log_density, target.data, target.mean, target.sd, target.support


def one_of_several(z, data):
    """All in the plane as one function, so that it compiles once."""
    return jnp.stack([function(z, data) for function in PLANE])[data["kind"].astype(int)]


PLANE = (funnel(0, 1, 1).log_density, student(5, 2).log_density, pair(0.3, 4, 1, 2).log_density)
FILLED = funnel(0, 1, 1).data | student(5, 2).data | pair(0.3, 4, 1, 2).data


def in_plane(target):
    data = FILLED | target.data | {"kind": np.asarray(float(PLANE.index(target.log_density)))}
    return one_of_several, data, target.mean, target.sd, None


QUICK = {
    "regular": [ellipse(0.9, 100.0), ellipse(-0.3, 30.0), ellipse(0.99, 50.0)],
    "wide beneath narrow": [of(pair(0.2, 0, 5, 5)), of(pair(0.1, 0, 4, 5)), of(pair(0.3, 0, 3, 5))],
    "in the plane": [
        *(in_plane(funnel(*each, 1)) for each in ((0, 1), (3, 0.7))),
        *(in_plane(student(df, 2)) for df in (5, 8, 30)),
        in_plane(pair(0.3, 4, 1, 2)),
    ],
}
LONG = {
    "wide, D = 8": [of(pair(0.3, 0, 4, 8))],
    "bananas": [of(banana(0.7, 0.3)), of(banana(2, 1)), of(banana(1, 0.1))],
    "rings": [of(ring(3, 0.5)), of(ring(5, 0.2))],
    "funnels, D = 10": [of(funnel(0, 3, 9)), of(funnel(-1, 1.5, 9))],
    "two funnels": [of(funnel((0, -2), (1, 1.5), 3))],
    "independent tails": [of(independent(5, 4))],
    "skew": [of(gamma(0.2, 3)), of(gamma(1, 3)), of(gamma(5, 3))],
    "skew of logarithms": [of(log_gamma(0.1, 3)), of(log_gamma(0.5, 3))],
}
ENOUGH = {"wide, D = 8": 0.0, "bananas": 0.3, "funnels, D = 10": 0.5}
"""Share of a kind that is certified, at least; 1 where there is none. Of these the benchmark has some refused, with some keys."""


CALLS = ("fit", "fit_batch")
COMPILES = (("in the plane", "fit_batch"),)
"""Of the quick kinds what takes half a minute to compile."""


@functools.cache
def answers(kind, call, seed=0):
    """For each target of a kind: whether it is certified, and its largest error."""
    targets = (QUICK | LONG)[kind]
    log_density, _, mean, _, support = targets[0]
    init = np.full(mean.size, 1.0 if support else 0.0)
    key = jax.random.key(seed)
    if call == "fit":
        fits = [elbojax.fit(key, log_density, init, data=data, support=support) for _, data, *_ in targets]
    else:
        data = jax.tree.map(lambda *each: np.stack([np.asarray(x, float) for x in each]), *(t[1] for t in targets))
        together = elbojax.fit_batch(key, log_density, init, data, support=support)
        fits = [together[i] for i in range(len(targets))]
    return [(bool(fit.certificate.certified), error(fit, *t[2:4])) for fit, t in zip(fits, targets, strict=True)]


def error(fit, mean, sd):
    """The largest; numbers whose sd is withheld, as that of heavy tails may be, are not assessed by it."""
    found_mean, found_sd = np.asarray(fit.mean(), float), np.asarray(fit.sd(), float)
    errors = np.concatenate([np.abs(found_mean - mean) / sd, np.abs(found_sd / sd - 1)])
    return float(np.max(np.where(np.isnan(errors), 0, errors)))


def check(kind, call):
    found = answers(kind, call)
    assert all(off < WRONG for certified, off in found if certified), found
    assert np.mean([certified for certified, _ in found]) >= ENOUGH.get(kind, 1), found


@pytest.mark.parametrize(
    "kind, call", [(kind, call) for kind in QUICK for call in CALLS if (kind, call) not in COMPILES]
)
def test_certified_is_right_and_the_right_is_certified(kind, call):
    check(kind, call)


@pytest.mark.long
@pytest.mark.parametrize("kind, call", [*COMPILES, *((kind, call) for kind in LONG for call in CALLS)])
def test_the_same_of_those_that_take_long(kind, call):
    check(kind, call)


@pytest.mark.parametrize("call", ["fit", "fit_batch"])
def test_what_is_regular_is_as_good_as_the_certificate_says(call):
    assert all(certified and off < GOOD for certified, off in answers("regular", call))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_wide_part_of_a_mixture_with_other_draws(seed):
    """The first look of the batch, of 512 draws, certified a third of these by the narrow part alone, sds off by 0.58."""
    found = answers("wide beneath narrow", "fit_batch", seed)
    assert all(certified and off < GOOD for certified, off in found), found


@pytest.mark.parametrize("size", [1, 2, 5, 20])
def test_the_variance_outside_of_a_gaussian_is_next_to_nothing_and_of_a_wide_mixture_is_not(size):
    with jax.enable_x64(True):
        noise = elbojax.noise.sobol(jax.random.key(0), thresholds.OUTER_PROBES, size, jnp.float64)
        factor = np.tril(np.random.default_rng(size).normal(size=(size, size)), -1) + 2 * np.eye(size)
        q = full_rank(jnp.ones(size), jnp.asarray(factor))
        wide = full_rank(jnp.ones(size), 5 * jnp.asarray(factor))
        outside = lambda f: outer_variance.variance_outside(noise, q, f, jnp.float64(0), 512)  # noqa: E731
        assert outside(q.log_prob) < 0.3 * thresholds.OUTER_SHARE
        mixed = lambda z: jnp.logaddexp(jnp.log(0.8) + q.log_prob(z), jnp.log(0.2) + wide.log_prob(z))  # noqa: E731
        assert outside(mixed) > thresholds.OUTER_SHARE
