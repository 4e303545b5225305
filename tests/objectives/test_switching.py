"""Models that switch: the chain of switches summed out, against all paths and the exact evidence of each."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import elbojax

LENGTH, SIDES = 5, 2
X = np.array([0.3, 1.1, -2.5, -1.4, 0.6])
SLOPES, STEP, NOISE = np.array([0.9, -0.5]), 0.7, np.array([0.4, 1.5])
INITIAL, STEPS = np.log([0.6, 0.4]), np.log([[0.8, 0.2], [0.3, 0.7]])
PATHS = np.array(list(itertools.product(range(SIDES), repeat=LENGTH)))


def factors(z):
    """A first-order autoregression z [T, 1] seen through noise; the switch sets its slope and the noise."""
    z = z[:, 0]
    seen = jax.scipy.stats.norm.logpdf(X[:, None], z[:, None], NOISE)
    before = jnp.concatenate([jnp.zeros(1), z[:-1]])
    moved = jax.scipy.stats.norm.logpdf(z[:, None], SLOPES * before[:, None], STEP)
    return (seen + moved).at[0].add(INITIAL), jnp.asarray(STEPS)


def log_joint(event):
    z, s = event
    unary, pairwise = factors(z)
    return jnp.sum(unary[np.arange(LENGTH), s]) + jnp.sum(pairwise[s[:-1], s[1:]])


def evidences():
    """log p(x, s) of each path: z is Gaussian given s."""
    log_p = []
    for path in PATHS:
        tril = np.zeros((LENGTH, LENGTH))
        for t in range(LENGTH):
            tril[t] = SLOPES[path[t]] * tril[t - 1] if t else 0
            tril[t, t] = STEP
        marginal = scipy.stats.multivariate_normal(np.zeros(LENGTH), tril @ tril.T + np.diag(NOISE[path] ** 2))
        log_p.append(marginal.logpdf(X) + INITIAL[path[0]] + STEPS[path[:-1], path[1:]].sum())
    return np.array(log_p)


def summed(z):
    """The sum over all paths, written out."""
    unary, pairwise = factors(z)
    log_p = unary[np.arange(LENGTH), PATHS].sum(-1) + pairwise[PATHS[:, :-1], PATHS[:, 1:]].sum(-1)
    return jax.nn.logsumexp(log_p)


Q = elbojax.gaussian_chain(0.5 * X[:, None], 0.6 * jnp.eye(1), 0.2 * jnp.eye(1))


@jax.jit
@functools.partial(jax.value_and_grad, argnums=1)
def bound(key, q):
    return elbojax.elbo_switching(key, q, factors, num_samples=8)


def test_the_bound_is_that_over_all_paths():
    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=1)
    def by_hand(key, q):
        return elbojax.elbo_stl(key, q, summed, num_samples=8)

    for a, b in zip(
        jax.tree.leaves(bound(jax.random.key(0), Q)), jax.tree.leaves(by_hand(jax.random.key(0), Q)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_the_marginals_are_those_over_all_paths():
    z = Q.sample(jax.random.key(3))
    point = elbojax.gaussian_chain(z, 1e-9 * jnp.eye(1), jnp.zeros((1, 1)))
    log_p = np.asarray(jax.jit(jax.vmap(lambda path: log_joint((z, path))))(PATHS))
    probability = np.exp(log_p - np.logaddexp.reduce(log_p))
    ones = [probability[PATHS[:, t] == 1].sum() for t in range(LENGTH)]
    marginals = jax.jit(lambda q: elbojax.objectives.switch_marginals(jax.random.key(0), q, factors, num_samples=2))(
        point
    )
    np.testing.assert_allclose(marginals[:, 1], ones, atol=1e-6)
    np.testing.assert_allclose(marginals.sum(1), 1, rtol=1e-12)


@pytest.fixture(scope="module")
def trained():
    solver = elbojax.svi(elbojax.as_loss(elbojax.elbo_switching, factors, num_samples=8), optax.adam(0.02))
    return elbojax.run(jax.random.key(1), solver, Q, num_steps=1500).q


@jax.jit
def both_bounds(key, q):
    """Log ratios of 2,000 draws, with the switches summed out and with independent ones."""
    z = jax.vmap(q.sample)(jax.random.split(key, 2000))
    log_q = jax.vmap(q.log_prob)(z)
    unary, pairwise = jax.vmap(factors)(z)
    switches = elbojax.hmm_smoother(jnp.zeros(SIDES), pairwise.mean(0), unary.mean(0))
    expected = jax.vmap(lambda u, v: elbojax.elbo_chain(None, switches, (u, v)))(unary, pairwise) - log_q
    return jax.vmap(summed)(z) - log_q, expected


@pytest.mark.parametrize("seed", (1, 2, 3))
def test_the_bound_lies_between_that_with_independent_switches_and_the_evidence(trained, seed):
    """On the same draws of z, the best q(s) that does not look at z against p(s | z, x)."""
    summed_out, expected = map(np.asarray, both_bounds(jax.random.key(seed), trained))
    exact = np.logaddexp.reduce(evidences())
    ratios = np.exp(summed_out - exact)  # importance ratios: their mean is one
    assert abs(ratios.mean() - 1) < 5 * ratios.std() / np.sqrt(len(ratios))
    assert exact - 0.5 < summed_out.mean() < exact
    gain = summed_out - expected
    assert gain.mean() > 0.02 + 5 * gain.std() / np.sqrt(len(gain))


def test_the_switches_are_nearly_those_of_the_exact_posterior(trained):
    """Up to what a Gaussian q(z) leaves out: half a nat at most, as above."""
    log_p = evidences()
    probability = np.exp(log_p - np.logaddexp.reduce(log_p))
    ones = [probability[PATHS[:, t] == 1].sum() for t in range(LENGTH)]
    many = jax.jit(lambda q: elbojax.objectives.switch_marginals(jax.random.key(0), q, factors, num_samples=2000))
    marginals = many(trained)
    np.testing.assert_allclose(marginals[:, 1], ones, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", (1, 2, 3))
def test_summing_out_is_quieter_than_drawing_switches(trained, seed):
    """The variance of the gradient in q(z), both with four draws: pathwise, and leave-one-out where switches are drawn."""
    unary, pairwise = jax.vmap(factors)(jax.vmap(trained.sample)(jax.random.split(jax.random.key(9), 500)))
    switches = elbojax.hmm_smoother(jnp.zeros(SIDES), pairwise.mean(0), unary.mean(0))
    both = elbojax.families.product((trained, switches))

    @jax.jit
    def variances(keys):
        quiet = jax.vmap(jax.grad(lambda q, key: elbojax.elbo_switching(key, q, factors, num_samples=4)), (None, 0))
        drawn = jax.vmap(jax.grad(lambda q, key: elbojax.elbo_rloo(key, q, log_joint, num_samples=4)), (None, 0))
        spread = lambda tree: sum(jnp.sum(jnp.var(x, axis=0)) for x in jax.tree.leaves(tree))  # noqa: E731
        return spread(quiet(trained, keys)), spread(drawn(both, keys).parts[0])

    quiet, drawn = variances(jax.random.split(jax.random.key(seed), 300))
    assert 3 * quiet < drawn
