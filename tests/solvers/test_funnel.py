"""Walks along funnels: exact where the posterior is Gaussian given the leading coordinate, from anywhere, in any lane."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Status

SIZE, LEAD, SD = 5, 2, 3.0
TIGHT = 1e-6
"""Nats, so that what is exact at the optimum is seen to be."""


def normal(x, loc, scale):
    return -0.5 * ((x - loc) / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)


def funnel(slope, z):
    """Normalised: the scales of all the others are exp(slope * leading / 2), with a regression on it."""
    lead, others = z[LEAD], jnp.delete(z, LEAD)
    return normal(lead, 1.0, SD) + jnp.sum(normal(others, 0.5 * lead, jnp.exp(0.5 * slope * lead)))


def fit(key, slope, loc, scale_tril):
    return elbojax.solvers.fit_funnel(
        key, functools.partial(funnel, slope), elbojax.full_rank(loc, scale_tril), tolerance=TIGHT
    )


def in_the_neck(lead, sd):
    """What a Gaussian fit finds where it falls into the trap."""
    regression = np.where(np.arange(SIZE) == LEAD, 1.0, 0.5)
    covariance = sd**2 * np.outer(regression, regression) + np.diag((regression == 0.5) * np.exp(lead))
    return lead * regression, np.linalg.cholesky(covariance)


ZERO, EYE = np.zeros(SIZE), np.eye(SIZE)
START = elbojax.full_rank(jnp.asarray(ZERO, float), EYE)
LANES = {
    # name: (slope, mean and Cholesky factor of the Gaussian to start from)
    "funnel": (1.0, ZERO, EYE),
    "near a gaussian": (0.1, ZERO, EYE),
    "nan": (np.nan, ZERO, EYE),
    "from the neck": (1.0, *in_the_neck(-16.0, 0.5)),
    "upside down": (-0.7, ZERO, 3.0 * EYE),
}
GOOD = [name for name in LANES if name != "nan"]


@functools.cache
def program():
    return jax.jit(jax.vmap(fit))


@functools.cache
def batch():
    keys = jax.random.split(jax.random.key(0), len(LANES))
    arguments = (keys, *(jnp.asarray(np.stack(column), float) for column in zip(*LANES.values(), strict=True)))
    return arguments, program()(*arguments)


def lane(tree, name):
    return jax.tree.map(lambda x: x[list(LANES).index(name)], tree)


@pytest.mark.parametrize("name", GOOD)
def test_the_gaussians_at_the_knots_are_exact(name):
    slope = LANES[name][0]
    q, info = lane(batch()[1], name)
    assert info.status == Status.CONVERGED, Status(int(info.status))
    near = np.abs(q.knots - 1.0) < 4 * SD
    assert near.sum() > 5 and np.all(np.diff(q.knots) > 0)
    np.testing.assert_allclose(q.locs[near], np.repeat(0.5 * q.knots[near, None], SIZE - 1, 1), atol=1e-3)
    np.testing.assert_allclose(q.log_scales[near], np.repeat(0.5 * slope * q.knots[near, None], SIZE - 1, 1), atol=1e-3)
    np.testing.assert_allclose(q.lowers[near], 0, atol=1e-3)


@pytest.mark.parametrize("name", GOOD)
def test_the_bound_is_tight(name):
    q, info = lane(batch()[1], name)
    # What is left is the curvature of log q(a) between knots.
    assert -0.3 < info.elbo < 0.01
    events, log_q = jax.jit(lambda key, q: elbojax.families.sample_many(key, q, 4000))(jax.random.key(1), q)
    gap = jax.vmap(functools.partial(funnel, LANES[name][0]))(events) - log_q
    assert np.std(gap) < 0.3 and abs(np.log(np.mean(np.exp(gap)))) < 0.03
    weights = jax.nn.softmax(gap)
    mean = weights @ events[:, LEAD]
    np.testing.assert_allclose(mean, 1.0, atol=0.2)
    np.testing.assert_allclose(jnp.sqrt(weights @ (events[:, LEAD] - mean) ** 2), SD, rtol=0.06)


@pytest.mark.parametrize("name", ("funnel", "near a gaussian", "upside down"))
def test_curvature_tells_the_leading_coordinate(name):
    _, info = lane(batch()[1], name)
    assert info.lead == LEAD
    assert info.scores[LEAD] > 3 * np.max(
        np.delete(info.scores, LEAD)
    )  # each of the four others has a part in a quarter


def test_a_bad_lane_harms_no_neighbour_and_batch_is_each_alone():
    arguments, (qs, infos) = batch()
    assert lane(infos, "nan").status == Status.NON_FINITE
    # The same model in every lane: neighbours that end later, or at once, change nothing.
    alone = jax.tree.map(lambda x: jnp.stack([x[-1]] * len(LANES)), arguments)
    same, info = program()(*alone)
    assert np.all(info.num_gradients == lane(infos, "upside down").num_gradients)
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(lane(qs, "upside down")), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=1e-9, atol=1e-9)


def test_a_correlated_gaussian_along_a_given_coordinate():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(SIZE, SIZE))
    covariance, loc = factor @ factor.T, rng.normal(size=SIZE)
    q = elbojax.full_rank(loc, np.linalg.cholesky(covariance))
    walk = jax.jit(lambda key: elbojax.solvers.fit_funnel(key, q.log_prob, START, lead=LEAD, tolerance=TIGHT))
    found, info = walk(jax.random.key(3))
    others = np.delete(np.arange(SIZE), LEAD)
    slope = covariance[others, LEAD] / covariance[LEAD, LEAD]
    given = covariance[np.ix_(others, others)] - np.outer(slope, covariance[LEAD, others])
    for k in np.flatnonzero(np.abs(found.knots - loc[LEAD]) < 4 * np.sqrt(covariance[LEAD, LEAD])):
        tril = (np.tril(found.lowers[k], -1) + np.eye(SIZE - 1)) * np.exp(found.log_scales[k])
        np.testing.assert_allclose(tril @ tril.T, given, rtol=1e-3, atol=1e-3 * np.diag(given).max())
        np.testing.assert_allclose(found.locs[k], loc[others] + slope * (found.knots[k] - loc[LEAD]), atol=5e-3)
    assert info.lead == LEAD and info.status == Status.CONVERGED and -0.1 < info.elbo < 0.01


def test_knots_that_run_out_are_a_status_and_single_precision_stays():
    def walk(key, slope):
        start = jax.tree.map(lambda x: x.astype("float32"), START)
        q, info = elbojax.solvers.fit_funnel(key, functools.partial(funnel, slope), start, lead=LEAD, max_steps=2)
        return q, info, q.log_prob(start.loc)

    q, info, log_prob = jax.jit(walk)(jax.random.key(0), jnp.float32(1.0))
    assert info.status == Status.MAX_STEPS and q.knots.size == 5
    assert {leaf.dtype.name for leaf in jax.tree.leaves((q, info, log_prob))} == {"float32", "int32"}
    assert np.isfinite(log_prob)


def test_misuse_raises():
    key, log_density = jax.random.key(0), functools.partial(funnel, 1.0)
    with pytest.raises(TypeError, match="FullRank, got MeanField"):
        elbojax.solvers.fit_funnel(key, log_density, elbojax.mean_field(jnp.zeros(SIZE), 1.0))
    with pytest.raises(ValueError, match="at least two coordinates"):
        elbojax.solvers.fit_funnel(key, log_density, elbojax.full_rank(jnp.zeros(1), jnp.eye(1)))
    with pytest.raises(ValueError, match="max_steps must be at least 1, got 0"):
        elbojax.solvers.fit_funnel(key, log_density, START, max_steps=0)
    with pytest.raises(ValueError, match="lead must be below 5, got 5"):
        elbojax.solvers.fit_funnel(key, log_density, START, lead=5)
