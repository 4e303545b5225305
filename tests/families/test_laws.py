"""The laws that every family keeps, for every row of `cases.py`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families.cases import BAND, CASES
from jax.flatten_util import ravel_pytree

import elbojax
from elbojax.families import Enumerable, Gaussian, Reparameterised

NUM_SAMPLES = 4096
SEEDS = (1, 2, 3)
STANDARD_ERRORS = 5

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_seed = pytest.mark.parametrize("seed", SEEDS)


def only(predicate):
    """The law for those rows of which the predicate holds."""
    return pytest.mark.parametrize("case", [c for c in CASES if predicate(c)], ids=lambda case: case.name)


@functools.cache
def make(case, dtype="float64"):
    return case.make(jnp.dtype(dtype))


def shifted(q, seed=0, by=0.2):
    """Another member of the same family."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.asarray(by * rng.normal(size=x.shape), x.dtype), q)


@functools.cache
def sources(case, seed=0, dtype="float64"):
    """What the draws are made from: noise [S, noise_size], or keys [S] where there is no pathwise map."""
    q = make(case)
    if not isinstance(q, Reparameterised):
        return jax.random.split(jax.random.key(seed), NUM_SAMPLES)
    return jnp.asarray(np.random.default_rng(seed).normal(size=(NUM_SAMPLES, q.noise_size)), dtype)


def one_draw(q, source):
    return q.transport_and_log_prob(source) if isinstance(q, Reparameterised) else q.sample_and_log_prob(source)


def everything(q, source):
    """All that a family says about one draw."""
    event, log_prob = one_draw(q, source)
    said = {"event": event, "log_prob": log_prob, "single": q.log_prob(event)}
    if not isinstance(q, Reparameterised):
        return said | {"again": q.sample(source)}
    events, log_probs, weights = q.strata_and_log_prob(source)
    return said | {
        "again": q.transport(source),
        "strata": (events, weights),
        "strata_again": q.strata(source),
        "strata_log_prob": log_probs,
        "strata_single": jax.vmap(q.log_prob)(events),
    }


def closed_forms(case, q, prior):
    """Whatever the row says that there is."""
    forms = {"entropy": q.entropy()} if case.entropy else {}
    forms |= {"kl": q.kl(prior)} if case.kl else {}
    return forms | ({"mean": q.mean(), "variance": q.variance()} if case.moments else {})


stated = jax.jit(closed_forms, static_argnums=0)


@functools.cache
def compiled(case):
    """`everything` for many draws under `jit`, and the list that grows with each trace."""
    traces = []

    def traced(q, sources):
        traces.append(case.name)
        return jax.vmap(everything, (None, 0))(q, sources)

    return jax.jit(traced), traces


@functools.cache
def draws(case, seed=0, of=make):
    return jax.tree.map(np.asarray, compiled(case)[0](of(case), sources(case, seed)))


@functools.cache
def neighbour(case):
    return shifted(make(case))


@jax.jit
def score(q, events):
    return jax.vmap(q.log_prob)(events)


@jax.jit
def kl(q, p):
    return q.kl(p)


def assert_close(actual, expected, **tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **(tolerance or {"rtol": 1e-9, "atol": 1e-10}))


def assert_mean(samples, expected):
    """The mean over the leading axis of each leaf is as expected, up to some standard errors."""
    for x, wanted in zip(jax.tree.leaves(samples), jax.tree.leaves(expected), strict=True):
        x = np.asarray(x, "float64")
        error = x.std(axis=0) / np.sqrt(len(x))
        assert np.all(np.abs(x.mean(axis=0) - wanted) <= STANDARD_ERRORS * error + 1e-9), (
            x.mean(axis=0),
            wanted,
            error,
        )


@every_case
def test_log_prob_is_the_independent_density(case):
    said = draws(case)
    expected = case.log_density(said["event"])
    np.testing.assert_allclose(said["log_prob"], expected, rtol=1e-9, atol=1e-9)


@every_case
def test_together_is_one_by_one(case):
    said = draws(case)
    assert_close(said["again"], said["event"])
    assert_close(said["single"], said["log_prob"])
    if isinstance(make(case), Reparameterised):
        assert_close(said["strata_again"], said["strata"])
        assert_close(said["strata_single"], said["strata_log_prob"])
        np.testing.assert_allclose(np.sum(said["strata"][1], axis=1), 1.0, rtol=1e-12)


@every_case
def test_jit_is_plain_and_traces_once(case):
    said = jax.tree.map(lambda x: x[0], draws(case))
    assert_close((said["event"], said["log_prob"]), one_draw(make(case), sources(case)[0]))
    function, traces = compiled(case)
    function(make(case), sources(case))
    before = len(traces)
    function(neighbour(case), sources(case, 1))
    assert len(traces) == before


@every_case
def test_vmap_over_models_is_a_loop(case):
    models = [make(case), neighbour(case)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *models)
    events, log_probs = jax.jit(jax.vmap(one_draw))(stacked, sources(case)[:2])
    for i, of in enumerate((make, neighbour)):
        alone = jax.tree.map(lambda x, i=i: x[i], draws(case, of=of))
        assert_close(jax.tree.map(lambda x, i=i: x[i], (events, log_probs)), (alone["event"], alone["log_prob"]))


@every_case
def test_gradient_is_that_of_finite_differences(case):
    source = sources(case)[0]
    event = jax.tree.map(lambda x: x[1], draws(case)["event"])
    start, unravel = ravel_pytree(make(case))
    prior = neighbour(case)  # made here: a cache that is filled inside a trace would keep tracers

    @jax.jit
    @jax.value_and_grad
    def value(flat):
        q = unravel(flat)
        total = q.log_prob(event)
        if isinstance(q, Reparameterised):
            point = ravel_pytree(q.transport(source))[0]
            total += jnp.cos(jnp.arange(point.size)) @ point
        return total + sum(jnp.sum(x) for x in jax.tree.leaves(closed_forms(case, q, prior)))

    steps = 3e-6 * np.eye(start.size)
    difference = [(value(start + step)[0] - value(start - step)[0]) / 6e-6 for step in steps]
    np.testing.assert_allclose(value(start)[1], difference, rtol=1e-6, atol=1e-6)


@every_case
def test_single_precision_stays_single_and_agrees(case):
    q = make(case, "float32")
    some = sources(case, 0, "float32")[:4]
    given = (q, some[0], jax.random.key(0))
    shapes = jax.eval_shape(lambda q, s, key: (everything(q, s), closed_forms(case, q, q), q.sample(key)), *given)
    assert {x.dtype.name for x in jax.tree.leaves((q, shapes))} <= {"float32", "int32"}

    events, log_probs = jax.jit(jax.vmap(one_draw, (None, 0)))(q, some)
    if isinstance(q, Reparameterised):
        double = jax.tree.map(lambda x: x[:4], draws(case))
        assert_close(events, double["event"], rtol=1e-5, atol=1e-5)
        assert_close(log_probs, double["log_prob"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_probs, case.log_density(jax.tree.map(np.asarray, events)), rtol=1e-5, atol=1e-5)


@only(lambda case: case.entropy)
@every_seed
def test_entropy_is_the_mean_of_minus_log_q(case, seed):
    assert_mean(-draws(case, seed)["log_prob"], stated(case, make(case), neighbour(case))["entropy"])


@only(lambda case: case.kl)
@every_seed
def test_kl_is_the_mean_log_ratio(case, seed):
    said = draws(case, seed, of=neighbour)
    log_ratio = said["log_prob"] - case.log_density(said["event"])
    assert_mean(log_ratio, stated(case, neighbour(case), make(case))["kl"])


@only(lambda case: case.kl)
def test_kl_is_zero_at_itself_alone(case):
    q = make(case)
    np.testing.assert_allclose(stated(case, q, q)["kl"], 0.0, atol=1e-12)
    assert stated(case, q, neighbour(case))["kl"] > 1e-3


@only(lambda case: not (case.entropy and case.kl and case.moments))
def test_what_has_no_closed_form_says_so(case):
    q = make(case)
    if not case.entropy:
        with pytest.raises(TypeError, match="no closed-form entropy"):
            q.entropy()
    if not case.kl:
        with pytest.raises(TypeError, match="no closed-form KL"):
            q.kl(q)
    if not case.moments:
        assert not hasattr(q, "mean")


@only(lambda case: case.moments)
@every_seed
def test_sample_moments_are_those_that_it_states(case, seed):
    q, events = make(case), draws(case, seed)["event"]
    moments = jax.tree.map(np.asarray, stated(case, q, neighbour(case)))
    deviation = jax.tree.map(np.subtract, events, moments["mean"])
    assert_mean(events, moments["mean"])
    assert_mean(jax.tree.map(np.square, deviation), moments["variance"])
    if isinstance(q, Gaussian):
        covariance = q.covariance()
        assert_mean(deviation[:, :, None] * deviation[:, None, :], covariance)
        np.testing.assert_allclose(np.diagonal(covariance), moments["variance"], rtol=1e-12)


@jax.jit
def strata_against_moments(q, noise):
    """Estimates of E[z + z^2] and its gradient in q, one for each draw of noise; and the exact ones."""

    def one(q, e):
        events, weights = q.strata(e)
        return sum(jnp.sum(jnp.tensordot(weights, z + z**2, axes=1)) for z in jax.tree.leaves(events))

    def exact(q):
        return sum(jax.tree.leaves(jax.tree.map(lambda m, v: jnp.sum(m + m**2 + v), q.mean(), q.variance())))

    return jax.vmap(jax.value_and_grad(one), (None, 0))(q, noise), jax.value_and_grad(exact)(q)


@only(lambda case: case.moments and isinstance(make(case), Reparameterised) and not isinstance(make(case), Gaussian))
@every_seed
def test_strata_are_unbiased_in_value_and_gradient(case, seed):
    estimates, exact = strata_against_moments(make(case), sources(case, seed))
    assert_mean(estimates, exact)


GAUSSIANS = [case for case in CASES if isinstance(make(case), Gaussian)]
PAIRS = [(a, b) for a in GAUSSIANS for b in GAUSSIANS if make(a).loc.shape == make(b).loc.shape and a is not b]


@pytest.mark.parametrize(("case", "other"), PAIRS, ids=lambda case: case.name)
def test_kl_between_unlike_gaussians_is_the_dense_formula(case, other):
    q, p = make(case), shifted(make(other))
    cov_q, cov_p = np.asarray(q.covariance()), np.asarray(p.covariance())
    gap = np.asarray(p.loc - q.loc)
    log_dets = np.linalg.slogdet(cov_p)[1] - np.linalg.slogdet(cov_q)[1]
    quadratic = gap @ np.linalg.solve(cov_p, gap)
    expected = 0.5 * (np.trace(np.linalg.solve(cov_p, cov_q)) + quadratic - gap.size + log_dets)
    np.testing.assert_allclose(kl(q, p), expected, rtol=1e-10)


def test_kl_between_bands_of_unlike_width():
    wide = elbojax.banded_precision(jnp.zeros(4), 1.3, jnp.asarray(BAND))
    narrow = elbojax.banded_precision(jnp.ones(4), 0.8, jnp.asarray(BAND[:1]))
    for q, p in ((wide, narrow), (narrow, wide)):
        dense = elbojax.full_rank(p.loc, jnp.linalg.cholesky(p.covariance()))
        np.testing.assert_allclose(kl(q, p), kl(q, dense), rtol=1e-10)


def test_kl_between_blocks_of_unlike_sizes():
    q = elbojax.blocks(elbojax.mean_field(jnp.zeros(1), 1.5), elbojax.full_rank(jnp.ones(2), jnp.eye(2)))
    p = elbojax.blocks(elbojax.full_rank(jnp.ones(2), 2 * jnp.eye(2)), elbojax.mean_field(jnp.zeros(1), 1.0))
    np.testing.assert_allclose(kl(q, p), kl(q, elbojax.mean_field(p.loc, jnp.sqrt(p.variance()))), rtol=1e-12)


def test_kl_to_an_unlike_family_says_so():
    unlike = [elbojax.mean_field(jnp.zeros(2), 1.0), elbojax.bernoulli(jnp.zeros(2)), elbojax.categorical(jnp.zeros(2))]
    unlike += [elbojax.families.product(unlike[0]), elbojax.families.product((unlike[0], unlike[0]))]
    for q in unlike:
        for p in unlike:
            if q is not p:
                with pytest.raises(TypeError, match="no closed-form KL"):
                    q.kl(p)


ENUMERABLE = only(lambda case: isinstance(make(case), Enumerable))


@ENUMERABLE
def test_enumeration_is_complete(case):
    q, p = make(case), shifted(make(case))
    events = q.enumerate()
    log_q, log_p = score(q, events), score(p, events)
    assert events.dtype == "int32"
    assert len(np.unique(events.reshape(len(events), -1), axis=0)) == len(events)
    np.testing.assert_allclose(jnp.sum(jnp.exp(log_q)), 1.0, rtol=1e-12)
    np.testing.assert_allclose(jnp.exp(log_q) @ -log_q, q.entropy(), rtol=1e-12)
    np.testing.assert_allclose(jnp.exp(log_q) @ (log_q - log_p), q.kl(p), rtol=1e-12)


@pytest.mark.parametrize("make_sure", (elbojax.bernoulli, elbojax.categorical))
def test_certainty_is_finite_where_it_can_be(make_sure):
    logits = jnp.array([jnp.inf, 0.3]) if make_sure is elbojax.bernoulli else jnp.array([-jnp.inf, 0.3])
    q = make_sure(logits)
    event = q.sample(jax.random.key(0))
    value, gradient = jax.jit(jax.value_and_grad(lambda q: q.log_prob(event) + q.entropy() + q.kl(q)))(q)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient.logits))
    assert kl(q, q) == 0
    assert kl(make_sure(jnp.zeros(2)), q) == jnp.inf


def test_low_rank_keeps_its_digits_where_the_factor_dwarfs_the_scale():
    factor = 300.0 * np.random.default_rng(0).normal(size=(6, 2))
    q64, q32 = (elbojax.low_rank(jnp.zeros(6, t), factor, 1.0) for t in ("float64", "float32"))
    events = jnp.asarray(np.random.default_rng(1).normal(size=(5, 8)) @ np.vstack([np.eye(6), factor.T]), "float32")
    np.testing.assert_allclose(score(q32, events), score(q64, events.astype("float64")), atol=1e-2)
