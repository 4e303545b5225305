"""Gaussians given leading coordinates at many nodes, and the proposal and the mixture made of them."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from elbojax import targets
from elbojax.cascade.evaluate import Compiled, drive
from elbojax.host.conditional import Nodes, split
from elbojax.host.distributions import Gaussian, StudentT
from elbojax.host.interpolated import interpolate

LEAD, SIZE = (4, 1), 6
OTHERS = np.array([0, 2, 3, 5])
CORRELATED = 0.3 * np.ones((4, 4)) + 0.7 * np.eye(4)
PRECISION = np.linalg.inv(CORRELATED)


def centre(a):
    """[..., 4] mean of the others given both leading coordinates [..., 2]."""
    return jnp.stack([a[..., 0], a[..., 1] ** 2, a[..., 0] * a[..., 1], jnp.sin(a[..., 0])], axis=-1)


def log_scale(a):
    return 0.5 * a[..., 1]


def log_density(z):
    """a ~ N(0, I); the others, given it, of mean `centre(a)` and covariance `exp(2 log_scale(a)) CORRELATED`."""
    a, b = z[np.array(LEAD)], z[OTHERS]
    x = (b - centre(a)) * jnp.exp(-log_scale(a))
    return -0.5 * a @ a - 0.5 * x @ PRECISION @ x - 4 * log_scale(a)


def model(log_density, size=SIZE):
    return Compiled(targets.unconstrain(log_density, np.zeros(size)), None)


def counting(stage, host):
    counted, answer = 0, None
    while True:
        try:
            request = stage.send(answer)
        except StopIteration as end:
            return end.value, counted
        counted += len(request.points)
        answer = host.answer(request)


def nodes_of(count=64, seed=0, density=log_density, limit=math.inf):
    nodes = Nodes(np.random.default_rng(seed), split(Gaussian(np.zeros(SIZE), np.eye(SIZE)), LEAD))
    _, counted = counting(nodes.add(count, 5, limit), model(density))
    assert counted == nodes.num_gradients
    return nodes


def test_modes_slopes_covariances_and_marginals_are_exact_where_the_others_are_gaussian():
    found = nodes_of().found
    assert len(found.nodes) >= 60
    np.testing.assert_allclose(found.modes, centre(found.nodes), atol=1e-5)
    covariances = found.roots @ np.swapaxes(found.roots, 1, 2)
    expected = np.exp(2 * log_scale(found.nodes))[:, None, None] * CORRELATED
    np.testing.assert_allclose(covariances, expected, rtol=1e-5)
    marginal = -0.5 * np.sum(found.nodes**2, axis=1) + 2 * math.log(2 * math.pi)
    np.testing.assert_allclose(found.log_marginals, marginal + 0.5 * np.linalg.slogdet(CORRELATED)[1], atol=1e-5)


def test_slopes_are_exact_where_newtons_method_begins_at_the_mode():
    nodes = nodes_of()
    a = nodes.found.nodes
    found, _ = counting(nodes._at(a, np.asarray(centre(a))), model(log_density))
    slopes = np.zeros((len(a), 4, 2))
    slopes[:, 0, 0], slopes[:, 1, 1] = 1, 2 * a[:, 1]
    slopes[:, 2, 0], slopes[:, 2, 1], slopes[:, 3, 0] = a[:, 1], a[:, 0], np.cos(a[:, 0])
    np.testing.assert_allclose(found.slopes, slopes, atol=2e-2)


def test_a_gaussian_conditional_takes_few_gradients():
    """n + 1 for each second derivative and one for each step; steps are of 10 sds at most."""
    near = lambda z: -0.5 * z @ (np.eye(SIZE) + 0.1) @ z  # noqa: E731
    assert nodes_of(32, density=near).num_gradients <= 32 * (4 + 2)


def test_weights_are_those_of_the_marginal():
    """Of N(0, I): weighted nodes have its moments, as far as 256 of a Student t can."""
    nodes = nodes_of(256)
    weights = np.exp(nodes.log_weights)
    np.testing.assert_allclose(weights @ nodes.found.nodes, 0, atol=0.15)
    np.testing.assert_allclose(weights @ nodes.found.nodes**2, 1, atol=0.3)
    assert nodes.effective() > 100


def test_nodes_without_a_mode_are_left_out():
    """Where a[0] > 0 the log-density of the others curves upwards."""

    def saddle(z):
        a = z[np.array(LEAD)]
        return -0.5 * a @ a - jnp.sum(z[OTHERS] ** 2) * jnp.where(a[0] > 0, -1.0, 1.0)

    nodes = nodes_of(density=saddle)
    assert 20 < len(nodes.found.nodes) < 44 and np.all(nodes.found.nodes[:, 0] <= 0)


def test_limits_are_kept():
    for limit in (0, 100, 500):
        assert nodes_of(64, limit=limit).num_gradients <= limit


def test_slices_tell_one_mode_from_two():
    """Given the leading coordinates there are two modes, at -3 and 3 in one of the others, the second one lighter."""
    light = 2.0

    def two(z):
        b = z[OTHERS]
        first, second = -0.5 * (b[0] + 3) ** 2, -0.5 * (b[0] - 3) ** 2 - light
        return -0.5 * jnp.sum(z[np.array(LEAD)] ** 2) - 0.5 * jnp.sum(b[1:] ** 2) + jnp.logaddexp(first, second)

    start = Gaussian(np.where(np.arange(SIZE) == 0, -3.0, 0.0), np.eye(SIZE))
    nodes = Nodes(np.random.default_rng(0), split(start, LEAD))
    host = model(two)
    counting(nodes.add(32, 5), host)
    ends = np.array([[-3.0, 0.1, 0, 0, 0.2, 0], [3.0, 0.1, 0, 0, 0.2, 0], [-2.9, 1.9, 0, 0, -2.1, 0.1]])
    slices, _ = counting(nodes.slices(ends), host)
    assert slices.same.tolist() == [True, False, True]
    np.testing.assert_allclose((slices.masses - slices.masses_near)[:2], [0, -light], atol=1e-3)


def test_chosen_nodes_next_to_another_are_not_taken_again():
    nodes, host = nodes_of(), model(log_density)
    before = nodes.num_gradients
    counting(nodes.place(np.repeat(nodes.found.nodes[:8], 2, axis=0)), host)
    assert nodes.num_gradients == before and len(nodes.placed.nodes) == 0
    counting(nodes.place(np.array([[3.0, 2.0], [3.01, 2.0]])), host)
    assert len(nodes.placed.nodes) == 1


@pytest.mark.parametrize("df", (0, 12))
def test_the_proposal_draws_from_the_density_it_states(df):
    nodes = nodes_of()
    proposal = nodes.proposal(StudentT(np.zeros(2), np.eye(2), 8), df)
    noise = np.random.default_rng(1).normal(size=(4000, proposal.noise_size))
    draws, log_probs = proposal.draw(noise)
    np.testing.assert_allclose(proposal.log_prob(draws), log_probs, atol=1e-8)
    # E_r[N / r] = 1 for a Gaussian within it, whose support is all.
    inside = Gaussian(draws.mean(axis=0), 0.3 * np.eye(SIZE))
    ratios = np.exp(inside.log_prob(draws) - log_probs)
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / math.sqrt(len(ratios))


def test_the_proposal_is_the_posterior_where_the_others_are_gaussian():
    """But for the leading coordinates, whose density is their own."""
    nodes = nodes_of(128)
    leading = StudentT(np.zeros(2), np.eye(2), 8)
    proposal = nodes.proposal(leading, 0)
    draws, log_probs = proposal.draw(np.random.default_rng(1).normal(size=(500, proposal.noise_size)))
    inner = np.linalg.norm(draws[:, LEAD], axis=1) < 2
    a = draws[:, LEAD]
    gaps = drive_values(draws) + 0.5 * np.sum(a**2, axis=1) - (log_probs - leading.log_prob(a))
    assert np.std(gaps[inner]) < 0.1


def drive_values(points):
    from elbojax.host.requests import Values

    def ask():
        return (yield Values(points))

    return drive(ask(), model(log_density))


def test_the_interpolation_goes_through_its_nodes():
    rng = np.random.default_rng(0)
    at, modes = rng.normal(size=(12, 2)), rng.normal(size=(12, 3))
    factors = np.tril(rng.normal(size=(12, 3, 3)), -1) + np.eye(3) * rng.uniform(0.5, 2, size=(12, 3, 1))
    proposal = interpolate(np.arange(5), StudentT(np.zeros(2), np.eye(2), 5), np.eye(2), at, modes, factors, 0)
    loc, log_scale, lower = proposal._given(at)
    np.testing.assert_allclose(loc, modes, atol=1e-8)
    np.testing.assert_allclose((lower + np.eye(3)) * np.exp(log_scale)[:, None, :], factors, atol=1e-8)


def test_far_from_all_nodes_there_is_a_density_still():
    nodes = nodes_of()
    proposal = nodes.proposal(StudentT(np.zeros(2), np.eye(2), 1), 12)
    points = 1e4 * np.random.default_rng(0).normal(size=(200, SIZE))
    assert np.all(np.isfinite(proposal.log_prob(points)))
    draws, log_probs = proposal.draw(np.random.default_rng(0).normal(size=(2000, proposal.noise_size)))
    assert np.max(np.abs(draws[:, LEAD])) > 50 and np.all(np.isfinite(draws)) and np.all(np.isfinite(log_probs))
    np.testing.assert_allclose(proposal.log_prob(draws), log_probs, rtol=1e-6)


def test_the_surrogate_is_the_marginal_between_the_nodes():
    nodes = nodes_of(128)
    a = np.random.default_rng(2).uniform(-1.5, 1.5, size=(50, 2))
    found = nodes.surrogate()(a)
    np.testing.assert_allclose(np.diff(found), np.diff(-0.5 * np.sum(a**2, axis=1)), atol=0.02)


def test_the_mixture_has_the_moments_of_the_posterior():
    """b[0] is a[0] + exp(a[1] / 2) epsilon: of variance 1 + e^(1/2); a bandwidth widens it a little."""
    mixture = nodes_of(1024).mixture(128)
    assert len(mixture.components) <= 128
    weights = np.exp(mixture.log_weights)
    assert weights.sum() == pytest.approx(1)
    mean = weights @ np.stack([c.loc for c in mixture.components])
    second = sum(
        w * (c.scale_tril @ c.scale_tril.T + np.outer(c.loc, c.loc))
        for w, c in zip(weights, mixture.components, strict=True)
    )
    np.testing.assert_allclose(mean[[0, 1, 3, 4, 5]], 0, atol=0.25)
    assert second[0, 0] == pytest.approx(1 + math.exp(0.5), rel=0.35)
    assert second[4, 4] == pytest.approx(1, rel=0.35)
