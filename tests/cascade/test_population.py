"""A mixture fitted to weighted draws: it follows a bend, and an end of a path that it does not cover stays a mode."""

import jax.numpy as jnp
import numpy as np
import pytest

from elbojax import targets, thresholds
from elbojax.cascade import thorough
from elbojax.cascade.check.importance import check, envelope
from elbojax.cascade.evaluate import drive
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.importance import Cost
from elbojax.cascade.stages import population
from elbojax.cascade.stages.student import refit
from elbojax.host.distributions import Gaussian
from elbojax.host.fit_mixture import fit_mixture
from elbojax.host.requests import Gradients, Values
from elbojax.results.certificate import Stage
from elbojax.types import Status

BEND = 0.5
"""z0 ~ N(0, 1), z1 given it ~ N(BEND z0^2, 0.5^2): means 0 and BEND, sds 1 and sqrt(2 BEND^2 + 0.25)."""


class Banana:
    def __init__(self, spike=0.0):
        self.spike = spike  # logarithm of the mass of a narrow mode at (8, 8)

    def answer(self, request):
        z, u = request.points.T, None
        miss = (z[1] - BEND * z[0] ** 2) / 0.5
        values = -0.5 * (z[0] ** 2 + miss**2) - np.log(np.pi)
        if self.spike:
            u = (request.points - 8.0) / 0.05
            values = np.logaddexp(values, self.spike - 0.5 * np.sum(u**2, axis=1) - np.log(2 * np.pi * 0.05**2))
        if not isinstance(request, Gradients):
            return values
        slopes = np.stack([-z[0] + miss * 2 * BEND * z[0] / 0.5, -miss / 0.5], axis=1)
        return values, slopes


def paths(*modes, model):
    modes = np.array(modes)
    status = np.full(len(modes), Status.CONVERGED)
    return Paths(None, np.zeros(len(modes)), modes, model.answer(Values(modes)), status, np.float64(0))


def adapted(seed, ends, model, modes=1):
    def stage():
        rng = np.random.default_rng(seed)
        q = Gaussian(np.array([0.0, BEND]), np.diag([1.0, 0.7]))
        first = yield from check(rng, q, envelope(q), Stage.FULL_RANK, Status.CONVERGED, Cost(0.0, 0, modes, 0.0, 0.0))
        uncertified = first._replace(certificate=first.certificate._replace(certified=np.bool_(False)))
        alone = yield from refit(rng, uncertified)
        return alone, (yield from population.adapt(rng, paths(*ends, model=model), uncertified))

    return drive(stage(), model)


TARGET = targets.unconstrain(lambda z: -0.5 * jnp.sum(z**2), np.zeros(2), None)


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_a_bend_is_followed_and_looked_at_again(seed):
    alone, found = adapted(seed, [[0.0, 0.0]], Banana())
    assert found.certificate.ess > 1.3 * alone.certificate.ess
    assert found.certificate.certified and not np.isfinite(found.certificate.sd_error)
    last = drive(thorough.second_look(np.random.default_rng(seed), found, TARGET), Banana())
    c = last.certificate
    assert c.certified and c.stage == Stage.MIXTURE and c.modes == 1
    assert c.num_log_densities >= found.certificate.num_log_densities + thresholds.SHARP_DRAWS
    weights = np.exp(last.log_weights)
    mean = weights @ last.draws
    sd = np.sqrt(weights @ (last.draws - mean) ** 2)
    exact = np.sqrt([1.0, 2 * BEND**2 + 0.25])
    np.testing.assert_array_less(np.abs(mean - [0, BEND]) / exact, 4 * c.mean_error)
    np.testing.assert_array_less(np.abs(sd / exact - 1), 4 * c.sd_error)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("mass", "status"), [(0.3, Status.MULTIMODAL), (1e-7, Status.CONVERGED)])
def test_an_end_that_the_draws_miss_is_a_mode_if_it_counts(seed, mass, status):
    """Two ends, of which one is a narrow mode that no draw comes near; and one on the bend, which is none of its own."""
    model = Banana(np.log(mass))
    _, found = adapted(seed, [[0.0, 0.0], [1.5, BEND * 1.5**2], [8.0, 8.0]], model, modes=3)
    c = found.certificate
    assert c.status == status and c.certified == (status == Status.CONVERGED)
    assert c.modes == (2 if status == Status.MULTIMODAL else 1)


def test_expectation_maximisation_finds_parts_that_are_apart():
    rng = np.random.default_rng(0)
    draws = np.concatenate([rng.normal(-4, 0.5, (300, 2)), rng.normal(4, 1.0, (700, 2))])
    frame = Gaussian(draws.mean(axis=0), np.linalg.cholesky(np.cov(draws.T)))
    q = fit_mixture(rng, draws, frame, 4)
    exact = np.logaddexp(
        np.log(0.3) + Gaussian(np.full(2, -4.0), 0.5 * np.eye(2)).log_prob(draws),
        np.log(0.7) + Gaussian(np.full(2, 4.0), np.eye(2)).log_prob(draws),
    )
    assert np.mean(exact - q.log_prob(draws)) < 0.1  # nats; one Gaussian lacks 1.2
    assert np.mean(exact - frame.log_prob(draws)) > 0.5
