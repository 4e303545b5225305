"""Short chains on the host: they correct a Gaussian that is off, and say where they cannot."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from elbojax import targets, thresholds
from elbojax.cascade import thorough
from elbojax.cascade.check.importance import check, envelope
from elbojax.cascade.evaluate import drive
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.importance import Cost
from elbojax.cascade.stages import chains
from elbojax.host.distributions import Gaussian
from elbojax.host.requests import Gradients
from elbojax.results.certificate import Stage as Code
from elbojax.types import Status


class Counted:
    """A model in NumPy that counts what it is asked."""

    def __init__(self, value_and_gradient):
        self.value_and_gradient, self.gradients, self.values = value_and_gradient, 0, 0

    def answer(self, request):
        values, gradients = self.value_and_gradient(request.points)
        if isinstance(request, Gradients):
            self.gradients += len(request.points)
            return values, gradients
        self.values += len(request.points)
        return values


SIZE = 12
PRECISION = np.diag(np.arange(1.0, SIZE + 1)) + 0.5


def normal(points):
    pushed = points @ PRECISION
    return -0.5 * np.sum(points * pushed, axis=1), -pushed


def skewed(points):
    """Independent logarithms of gamma(2) variates."""
    return np.sum(2 * points - np.exp(points), axis=1), 2 - np.exp(points)


def funnel(points):
    head, rest = points[:, :1], points[:, 1:]
    squares = np.sum(rest**2, axis=1, keepdims=True) * np.exp(-head)
    value = -0.5 * head**2 / 9 - 0.5 * squares - 0.5 * rest.shape[1] * head
    slope = -head / 9 + 0.5 * squares - 0.5 * rest.shape[1]
    return value[:, 0], np.concatenate([slope, -rest * np.exp(-head)], axis=1)


def two(points):
    """Two Gaussians eight sds apart."""
    apart = np.zeros(points.shape[1])
    apart[0] = 8.0
    logs = np.stack([-0.5 * np.sum((points - c) ** 2, axis=1) for c in (0 * apart, apart)])
    shares = np.exp(logs - np.logaddexp(*logs))
    return np.logaddexp(*logs), -points + shares[1][:, None] * apart


def begun(model, q, ends=None, modes=1):
    """The outcome of a stage that found q, and paths that ended at some points."""
    cost = Cost(num_gradients=0, num_log_densities=0, modes=modes, decrement=0.0, fisher_divergence=0.0)
    rng = np.random.default_rng(7)
    outcome = drive(check(rng, q, envelope(q), Code.FULL_RANK, Status.CONVERGED, cost), model)
    ends = q.loc[None] if ends is None else ends
    values = model.value_and_gradient(ends)[0]
    none = np.zeros(len(ends))
    return outcome, Paths(None, none, ends, values, none + Status.CONVERGED, 0)


def run(model, outcome, paths, seed=0, limit=math.inf):
    before = model.gradients
    found = drive(chains.ensemble(np.random.default_rng(seed), paths, outcome, limit), model)
    cost = found.certificate.num_gradients - outcome.certificate.num_gradients
    assert cost == model.gradients - before, "every gradient is accounted for"
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_gaussian_that_is_off_is_corrected(seed):
    model = Counted(normal)
    covariance = np.linalg.inv(PRECISION)
    sd = np.sqrt(np.diagonal(covariance))
    off = Gaussian(0.7 * sd, 0.8 * np.linalg.cholesky(covariance))
    outcome, paths = begun(model, off)
    found = run(model, outcome, paths, seed)
    assert found.certificate.certified and found.certificate.stage == Code.CHAINS
    assert np.max(np.abs(found.draws.mean(axis=0)) / sd) < 0.1
    assert np.max(np.abs(found.draws.std(axis=0) / sd - 1)) < 0.1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_skew_is_followed(seed):
    """Against the digamma and trigamma functions at two."""
    model = Counted(skewed)
    outcome, paths = begun(model, Gaussian(np.full(4, 0.5), 0.6 * np.eye(4)))
    found = run(model, outcome, paths, seed)
    assert found.certificate.certified
    mean, sd = 0.42278433509846713, math.sqrt(0.6449340668482264)
    assert np.max(np.abs(found.draws.mean(axis=0) - mean)) / sd < 0.1
    assert np.max(np.abs(found.draws.std(axis=0) / sd - 1)) < 0.1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_funnel_is_refused_or_right(seed):
    model = Counted(funnel)
    outcome, paths = begun(model, Gaussian(np.zeros(6), np.diag([1.5, 1, 1, 1, 1, 1])))
    found = run(model, outcome, paths, seed)
    if found.certificate.certified:
        assert abs(found.draws[:, 0].std() / 3 - 1) < 0.1 and abs(found.draws[:, 0].mean()) < 0.3
    else:
        assert found.certificate.status == Status.UNRELIABLE


def test_a_mode_of_its_own_is_not_forgotten():
    model = Counted(two)
    ends = np.zeros((2, 3))
    ends[1, 0] = 8.0
    outcome, paths = begun(model, Gaussian(np.zeros(3), np.eye(3)), ends, modes=2)
    found = run(model, outcome, paths)
    assert not found.certificate.certified and found.certificate.status != Status.CONVERGED
    assert found.certificate.modes == 2


def test_an_end_that_is_no_mode_is_forgotten():
    """A path that stopped on a slope was counted for a mode."""
    model = Counted(skewed)
    ends = np.full((2, 4), 0.69)
    ends[1] = -5.05, 0.69, 0.69, 0.69
    outcome, paths = begun(model, Gaussian(np.full(4, 0.5), 0.6 * np.eye(4)), ends, modes=2)
    assert len(chains._ends(paths, Gaussian(np.full(4, 0.5), 0.6 * np.eye(4)))) == 2
    found = run(model, outcome, paths)
    assert found.certificate.certified and found.certificate.modes == 1


@pytest.mark.parametrize("limit", [1, 60_000])
def test_gradients_are_kept_within_the_limit(limit):
    model = Counted(normal)
    covariance = np.linalg.inv(PRECISION)
    outcome, paths = begun(model, Gaussian(np.zeros(SIZE), np.linalg.cholesky(covariance)))
    found = run(model, outcome, paths, limit=limit)
    assert found.certificate.num_gradients <= max(limit, chains.least(SIZE))


@pytest.mark.parametrize("num_steps", [12, 24, 72])
@pytest.mark.parametrize("correlation", [0.55, 0.7, 0.9, 1.0])
def test_chains_that_have_not_left_their_starts_are_not_certified(num_steps, correlation):
    """Their means differ by more than the error that is allowed, too."""
    rng = np.random.default_rng(num_steps)
    outcome, _ = begun(Counted(normal), Gaussian(np.zeros(SIZE), np.linalg.cholesky(np.linalg.inv(PRECISION))))
    rho = correlation ** (3 / num_steps)
    path = [rng.standard_normal((256, 2))]
    for _ in range(num_steps - 1):
        path.append(rho * path[-1] + math.sqrt(1 - rho**2) * rng.standard_normal((256, 2)))
    found, moved = chains._assessed(outcome, Gaussian(np.zeros(2), np.eye(2)), np.stack(path), 0, False)
    assert moved.correlation > 0.45 and not found.certificate.certified


@pytest.mark.parametrize("rho", [0.5, 0.9, 0.97])
def test_the_bias_is_what_the_change_tells(rho):
    """Autoregressive chains, with a start that is two sds off: the estimate is the bias of all draws, or somewhat more."""
    rng = np.random.default_rng(0)
    num_steps, num_chains = 30, 4000
    state, path = 2.0 + rng.standard_normal(num_chains), []
    for _ in range(num_steps):
        state = rho * state + math.sqrt(1 - rho**2) * rng.standard_normal(num_chains)
        path.append(state)
    bias = 2.0 * np.mean(rho ** np.arange(1, num_steps + 1))
    moved = chains._moved(np.stack(path)[:, :, None])
    assert bias < moved.bias < 1.6 * bias + 0.1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_chains_of_a_bounded_number_of_gradients_certify_what_needs_no_more(seed):
    """A bound above what they take changes nothing; a bound below it is kept, and what is not certified says so."""
    covariance = np.linalg.inv(PRECISION)
    outcome, paths = begun(Counted(normal), Gaussian(np.zeros(SIZE), 0.9 * np.linalg.cholesky(covariance)))
    withdrawn = outcome.certificate._replace(certified=np.bool_(False), status=np.int32(Status.UNRELIABLE))
    outcome = outcome._replace(certificate=withdrawn)
    ensemble = lambda most: drive(  # noqa: E731
        chains.ensemble(np.random.default_rng(seed), paths, outcome, most=most), Counted(normal)
    )
    free = ensemble(math.inf)
    assert free.certificate.certified
    used = free.certificate.num_gradients - outcome.certificate.num_gradients
    same, short = ensemble(used), ensemble(used - 1)
    assert same.certificate.certified and np.array_equal(same.draws, free.draws)
    assert short.certificate.num_gradients - outcome.certificate.num_gradients < used
    assert not short.certificate.certified and short.certificate.status != Status.CONVERGED


@pytest.mark.parametrize(
    ("block", "blocks", "error", "bias", "given_up"),
    [
        (1, 6, 1.0, 1.0, False),  # all blocks are to come: nothing is told by the first
        (1, 2, 0.05, 1.0, False),
        (1, 2, 0.07, 0.0, True),
        (2, 4, 0.055, 0.15, False),
        (2, 4, 0.065, 0.15, True),
        (2, 4, 0.055, 0.18, True),
        (2, 6, 0.065, 0.18, False),
        (2, 2, 0.045, 0.0, True),
    ],
)
def test_chains_are_given_up_where_the_blocks_that_are_left_will_not_do(block, blocks, error, bias, given_up):
    """Errors and bias may be 0.035 and 0.1 times 1.2 once they have fallen by the root of the number of blocks."""
    outcome, _ = begun(Counted(normal), Gaussian(np.zeros(SIZE), np.linalg.cholesky(np.linalg.inv(PRECISION))))
    c = outcome.certificate._replace(mean_error=np.float64(0.5 * error), sd_error=np.float64(error))
    assert chains._too_slow(c, chains.Moved(bias, 0.3), block, blocks) == given_up


def test_chains_of_a_model_of_a_batch_are_bounded(monkeypatch):
    *_, stage = thorough.STAGES
    outcome, paths = begun(Counted(funnel), Gaussian(np.zeros(6), np.diag([1.5, 1, 1, 1, 1, 1])))
    held = thorough.Held(outcome, paths, outcome, chains_most=1)
    found = drive(stage.run(np.random.default_rng(0), held, math.inf), Counted(funnel))
    free = drive(stage.run(np.random.default_rng(0), held._replace(chains_most=math.inf), math.inf), Counted(funnel))
    assert found.certificate.num_gradients < thresholds.ENSEMBLE_CHAINS * 2 < free.certificate.num_gradients
    seen = []

    def run(rng, held, limit):
        seen.append(held.chains_most)
        return held.best
        yield

    monkeypatch.setattr(thorough, "OF_BATCHES", ())
    monkeypatch.setattr(thorough, "STAGES", (stage._replace(least=lambda size, held: 0, run=run),))
    target = targets.unconstrain(lambda z: -0.5 * jnp.sum(z**2), np.zeros(6), None)
    drive(thorough.thorough([0], target, np.zeros(6)), Counted(funnel))
    assert seen == [thresholds.BATCH_CHAINS]
