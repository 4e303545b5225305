"""FlowJAX objects as families: FlowJAX's own numbers, gradients, training, batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import elbojax

flowjax = pytest.importorskip("flowjax")

from flowjax import bijections, distributions, flows  # noqa: E402

from elbojax.interop.flowjax import FlowJAX, Transformed, from_flowjax, transformed  # noqa: E402

KEY = jax.random.key(0)
LOC = jnp.array([0.3, -1.2, 0.7])
TRIL = jnp.array([[0.9, 0.0, 0.0], [0.4, 0.6, 0.0], [-0.7, 0.3, 1.2]])
CONDITION = jnp.array([0.4, -0.8])
START = distributions.Normal(LOC, jnp.array([0.5, 1.5, 0.8]))
coupling = functools.partial(flows.coupling_flow, KEY, base_dist=START, flow_layers=2, nn_width=4)
CASES = {
    "normal": (lambda: START, None),
    "multivariate_normal": (lambda: distributions.MultivariateNormal(LOC, TRIL @ TRIL.T), None),
    "log_normal": (lambda: distributions.LogNormal(LOC, 0.5), None),
    "coupling_flow": (coupling, None),
    "conditional_flow": (lambda: coupling(cond_dim=2), CONDITION),
    "student_t": (lambda: distributions.StudentT(jnp.full(3, 5.0), LOC, 0.5), None),
    "gamma": (lambda: distributions.Gamma(jnp.array([2.0, 3.0]), 1.5), None),
}
PATHWISE = {"normal", "multivariate_normal", "log_normal", "coupling_flow", "conditional_flow"}


@functools.cache
def made(name):
    make, condition = CASES[name]
    distribution = make()
    return distribution, condition, from_flowjax(distribution, condition=condition)


@pytest.mark.parametrize("name", CASES)
def test_its_own_log_prob_of_its_own_draws(name):
    distribution, condition, q = made(name)
    theirs = jax.jit(lambda events: distribution.log_prob(events, condition))
    events = jax.jit(lambda: distribution.sample(KEY, (50,), condition))()
    expected = theirs(events)
    ours = jax.jit(lambda q, events: (jax.vmap(q.log_prob)(events), q.distribution.log_prob(events, condition)))
    for found in ours(q, events):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    draws, log_q = jax.jit(lambda q: elbojax.families.sample_many(KEY, q, 50))(q)
    np.testing.assert_allclose(log_q, theirs(draws), rtol=1e-8, atol=1e-8)
    assert isinstance(q, Transformed if name in PATHWISE else FlowJAX)


@pytest.mark.parametrize("seed", (1, 2, 3))
def test_draws_are_those_of_the_distribution(seed):
    distribution, _, q = made("coupling_flow")
    key = jax.random.key(seed)
    ours, theirs = jax.jit(
        lambda q, key: (elbojax.families.sample_many(key, q, 4000)[0], distribution.sample(key, (4000,)))
    )(q, key)
    for f in (lambda z: z, np.square):
        a, b = f(np.asarray(ours)), f(np.asarray(theirs))
        error = np.sqrt((a.var(0) + b.var(0)) / 4000)
        assert np.all(np.abs(a.mean(0) - b.mean(0)) < 5 * error)


def test_the_gradient_of_the_bound_is_that_of_finite_differences():
    _, condition, q = made("conditional_flow")
    flat, unravel = jax.flatten_util.ravel_pytree(q.params)
    noise = jax.random.normal(KEY, (4, 3))

    @jax.jit
    @jax.value_and_grad
    def bound(flat):
        moved = Transformed(None, unravel(flat), condition, q.rest)
        return elbojax.objectives.elbo_at(noise, moved, lambda z: -0.5 * z @ z)

    gradient = bound(flat)[1]
    for i in range(0, flat.size, 7):
        step = 1e-5 * jnp.eye(flat.size)[i]
        slope = (bound(flat + step)[0] - bound(flat - step)[0]) / 2e-5
        np.testing.assert_allclose(gradient[i], slope, rtol=1e-5, atol=1e-7)


def test_what_is_not_to_be_trained_is_no_leaf():
    import equinox
    import paramax

    fixed = equinox.tree_at(lambda d: d.bijection.loc, START, replace_fn=paramax.non_trainable)
    assert len(jax.tree.leaves(from_flowjax(fixed))) == 1 < len(jax.tree.leaves(from_flowjax(START)))
    assert from_flowjax(fixed).rest == from_flowjax(fixed).rest != from_flowjax(START).rest


TARGETS = jnp.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])


def log_density(z, loc):
    deviation = jax.scipy.linalg.solve_triangular(TRIL, z - loc, lower=True)
    return -0.5 * deviation @ deviation + 2.0


LOG_EVIDENCE = 2.0 + 1.5 * np.log(2 * np.pi) + np.log(np.diagonal(TRIL)).sum()
solver = elbojax.svi(elbojax.as_loss(elbojax.elbo_stl, log_density, num_samples=4), optax.adam(0.05))


@jax.jit
def assessed(q, loc):
    return elbojax.assess(KEY, q, functools.partial(log_density, loc=loc), num_samples=500)


def test_a_batch_is_trained_to_a_known_target_and_each_alone_alike():
    q = from_flowjax(distributions.MultivariateNormal(jnp.zeros(3), jnp.eye(3)))
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), q)
    keys = jax.random.split(KEY, 2)
    fits = elbojax.run_batch(keys, solver, stacked, TARGETS, max_steps=600)
    for i, loc in enumerate(TARGETS):
        fit = jax.tree.map(lambda x, i=i: x[i], fits.q)
        np.testing.assert_allclose(fit.transport(jnp.zeros(3)), loc, atol=0.01)
        check = assessed(fit, loc)
        np.testing.assert_allclose([check.elbo, check.log_evidence], LOG_EVIDENCE, atol=2e-3)
    alone = elbojax.run(keys[1], solver, q, TARGETS[1], num_steps=600).q
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(fit), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_a_bijection_around_a_family():
    base = elbojax.full_rank(LOC, TRIL)
    q = transformed(base, bijections.Vmap(bijections.Exp(), axis_size=3))

    @jax.jit
    def of(q, base):
        z = q.transport(jnp.array([0.2, -0.3, 1.1]))
        by_hand = base.log_prob(jnp.log(z)) - jnp.log(z).sum()
        return q.log_prob(z), by_hand, elbojax.elbo(KEY, q, lambda z: q.log_prob(z) + 1.5, num_samples=3)

    found, by_hand, bound = of(q, base)
    np.testing.assert_allclose(found, by_hand, rtol=1e-12)
    np.testing.assert_allclose(bound, 1.5, rtol=1e-9)
    affine = transformed(base, bijections.Affine(jnp.ones(3), 2.0))
    gradient = jax.jit(jax.grad(lambda q: elbojax.elbo(KEY, q, lambda z: -0.5 * z @ z)))(affine)
    np.testing.assert_allclose(gradient.base.loc, 2 * gradient.params.loc, rtol=1e-9)  # d z / d mu is the outer scale


def test_misuse_says_what_is_wrong():
    with pytest.raises(TypeError, match="must be a FlowJAX distribution, got MeanField"):
        from_flowjax(elbojax.mean_field(LOC, 1.0))
    with pytest.raises(ValueError, match=r"condition must have shape \(2,\), got None"):
        from_flowjax(coupling(cond_dim=2))
    with pytest.raises(ValueError, match="nothing to condition"):
        from_flowjax(START, condition=CONDITION)
    with pytest.raises(ValueError, match="StandardNormal has no array of floats"):
        from_flowjax(distributions.StandardNormal((2,)))
    with pytest.raises(TypeError, match="must be a Reparameterised family, got Bernoulli"):
        transformed(elbojax.bernoulli(LOC), bijections.Affine(LOC, 1.0))
    with pytest.raises(TypeError, match="must be a FlowJAX bijection, got Normal"):
        transformed(elbojax.mean_field(LOC, 1.0), START)
    with pytest.raises(ValueError, match=r"bijection's shape \(2,\), got .*\(3,\)"):
        transformed(elbojax.mean_field(LOC, 1.0), bijections.Affine(jnp.zeros(2), 1.0))
    with pytest.raises(TypeError, match="make the FlowJAX object outside of jit"):
        jax.jit(lambda x: from_flowjax(flows.masked_autoregressive_flow(KEY, base_dist=START)).log_prob(x))(LOC)


def test_where_it_is_missing(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "flowjax", None)
    with pytest.raises(ModuleNotFoundError, match=r"from_flowjax needs FlowJAX.*pip install 'elbojax\[interop\]'"):
        from_flowjax(START)
