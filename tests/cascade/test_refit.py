"""The second look: more draws mend what is rough, and take back a certificate that was luck."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax import full_rank, mixture, targets, thresholds
from elbojax.cascade import thorough
from elbojax.cascade.check.importance import Drawn, check
from elbojax.cascade.check.importance import envelope as host_envelope
from elbojax.cascade.evaluate import drive
from elbojax.cascade.importance import Cost, check_importance, envelope, largest_sd_error
from elbojax.cascade.refit import is_rough, recheck
from elbojax.cascade.stages.student import refit
from elbojax.host.distributions import Gaussian
from elbojax.results.certificate import Stage
from elbojax.types import Status

SIZE, DF = 2, 5
SD = np.sqrt(DF / (DF - 2))


def cover(q):
    """A mixture of Student t, equally weighted."""
    return mixture(jnp.zeros_like(q.logits), jax.vmap(envelope)(q.components))


def student(z):
    """Heavier tails than those of the envelope of a Gaussian."""
    return -0.5 * (DF + SIZE) * jnp.log1p(jnp.sum(z**2) / DF)


@jax.jit
def first_look(key):
    q = full_rank(jnp.array([0.5, -0.5], float), 0.8 * jnp.eye(SIZE, dtype=float))
    zero = jnp.zeros((), q.dtype)
    cost = Cost(zero, jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32), zero, zero)
    return check_importance(
        key, q, envelope(q), student, Stage.FULL_RANK, jnp.full((), Status.CONVERGED, jnp.int32), cost
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_more_draws_mend_a_rough_answer(seed):
    before = first_look(jax.random.key(seed))
    after = jax.jit(lambda key, outcome: recheck(key, student, outcome))(jax.random.key(seed), before)
    old, new = before.certificate, after.certificate
    assert old.mean_error > thresholds.ROUGH > 1.5 * new.mean_error and new.certified
    assert int(new.num_log_densities) == int(old.num_log_densities) + 4096 + 16384
    weights = np.exp(np.asarray(after.log_weights))
    np.testing.assert_allclose(weights @ after.draws / SD, 0, atol=4 * float(new.mean_error))
    np.testing.assert_allclose(np.sqrt(weights @ np.asarray(after.draws) ** 2) / SD, 1, atol=0.05)


def returned(value):
    """A stage that asks for nothing."""
    yield from ()
    return value


@pytest.mark.parametrize("agrees", [True, False])
def test_a_second_look_can_withdraw_the_certificate(monkeypatch, agrees):
    rough = first_look(jax.random.key(0))
    certain = rough.certificate._replace(certified=jnp.ones((), bool), mean_error=jnp.asarray(2 * thresholds.ROUGH))
    rough = rough._replace(certificate=certain)
    assert is_rough(certain)
    status = jnp.asarray(Status.CONVERGED if agrees else Status.UNRELIABLE, jnp.int32)
    verdict = certain._replace(
        certified=jnp.asarray(agrees), status=status, num_log_densities=certain.num_log_densities + 9
    )
    rough = jax.tree.map(np.asarray, rough)
    more = jax.tree.map(lambda x: np.concatenate([x, x]), (rough.draws, rough.log_weights))
    second = rough._replace(draws=more[0], log_weights=more[1], certificate=verdict)
    monkeypatch.setattr(thorough.student.Again, "look", lambda *_: returned(second))
    chosen = drive(thorough.second_look(np.random.default_rng(0), rough, None), None)
    assert bool(chosen.certificate.certified) is agrees and int(chosen.certificate.status) == status
    assert chosen.certificate.num_log_densities == verdict.num_log_densities
    # Stages that may follow carry as many draws as theirs have.
    assert agrees or len(chosen.draws) == len(chosen.log_weights) == len(rough.draws)


def test_a_smooth_answer_is_left_alone():
    rough = first_look(jax.random.key(0))
    verdict = dict(
        mean_error=0.5 * thresholds.ROUGH, sd_error=0.5 * thresholds.ROUGH_SD, khat=0.5 * thresholds.ROUGH_KHAT
    )
    draws = jax.random.normal(jax.random.key(1), rough.draws.shape, float)
    equal = jnp.full(len(draws), -np.log(len(draws)))
    certificate = rough.certificate._replace(certified=jnp.ones((), bool), **jax.tree.map(jnp.asarray, verdict))
    smooth = rough._replace(draws=np.asarray(draws), log_weights=np.asarray(equal), certificate=certificate)
    target = targets.unconstrain(student, jnp.zeros(SIZE))
    assert drive(thorough.second_look(None, smooth, target), None) is smooth


def asked(stage, log_density):
    """What a stage returns, and the points of each of its requests."""
    points, answer = [], None
    while True:
        try:
            request = stage.send(answer)
        except StopIteration as end:
            return end.value, points
        points.append(request.points)
        answer = np.asarray(jax.vmap(log_density)(request.points))


@pytest.mark.parametrize(
    ("effective", "lasts", "looks"),
    [
        (0.6, 0, (8192,)),
        (0.6, np.inf, (8192, 8192)),
        (0.4, 0, (4096, 8192)),
        (0.4, np.inf, (4096, 8192, 8192)),
    ],
)
def test_the_last_look_goes_on_with_the_draws_it_has(monkeypatch, effective, lasts, looks):
    before = first_look(jax.random.key(0))
    certain = before.certificate._replace(
        certified=np.bool_(True), mean_error=2 * thresholds.ROUGH, ess=effective * len(before.draws)
    )
    before = jax.tree.map(np.asarray, before._replace(certificate=certain))
    monkeypatch.setattr(thorough, "rests_on_few", lambda target, draws, log_weights, share: len(draws) < lasts)
    found, points = asked(thorough.second_look(np.random.default_rng(0), before, None), student)
    assert tuple(map(len, points)) == looks
    last = sum(looks[1:] if looks[0] == 4096 else looks)
    assert len(found.draws) == last and len(np.unique(found.draws, axis=0)) == last
    np.testing.assert_array_equal(found.draws, np.concatenate(points)[-last:])
    assert int(found.certificate.num_log_densities) == int(certain.num_log_densities) + sum(looks)
    weights = np.exp(found.log_weights)
    np.testing.assert_allclose(weights @ found.draws / SD, 0, atol=4 * float(found.certificate.mean_error))
    np.testing.assert_allclose(np.sqrt(weights @ found.draws**2) / SD, 1, atol=0.05)


def test_a_refit_begins_no_round_that_is_not_to_be():
    before = first_look(jax.random.key(0))
    before = jax.tree.map(
        np.asarray, before._replace(certificate=before.certificate._replace(certified=np.bool_(False)))
    )
    rounds = iter([False, True])
    enough = float(before.draws.size)  # never
    for over, number in ((lambda: True, 0), (lambda: next(rounds), 1)):
        _, points = asked(refit(np.random.default_rng(0), before, 256, enough, over), student)
        assert list(map(len, points)) == number * [256]


def test_a_check_that_goes_on_is_one_with_as_many_draws():
    q = Gaussian(np.zeros(SIZE), np.eye(SIZE))
    wide, zero = host_envelope(q), np.float64(0)
    cost = Cost(zero, 0, 1, zero, zero)
    options = dict(stage=Stage.FULL_RANK, optimiser_status=Status.CONVERGED, cost=cost)

    def checked(drawn, num_draws):
        return asked(check(None, q, wide, **options, num_draws=num_draws, drawn=drawn), student)

    several, once = (Drawn(np.random.default_rng(5), wide) for _ in range(2))
    numbers = (256, 1024, 4096)
    parts = [checked(several, number) for number in numbers]
    assert [sum(map(len, points)) for _, points in parts] == [256, 768, 3072]
    whole, points = checked(once, numbers[-1])
    np.testing.assert_allclose(np.concatenate(points), whole.draws)
    np.testing.assert_allclose(parts[-1][0].draws, whole.draws)
    np.testing.assert_allclose(parts[-1][0].log_weights, whole.log_weights)
    assert parts[-1][0].certificate.num_log_densities == numbers[-1]
    first, points = checked(several, 256)
    assert not points and np.array_equal(first.draws, parts[0][0].draws)


@pytest.mark.parametrize("trouble", ["mean", "sd", "khat"])
def test_any_error_that_shows_or_cannot_be_known_is_rough(trouble):
    errors = dict(mean_error=thresholds.ROUGH, sd_error=thresholds.ROUGH_SD, khat=thresholds.ROUGH_KHAT)
    factor = {"mean": "mean_error", "sd": "sd_error", "khat": "khat"}
    verdict = {name: jnp.asarray(limit * (1.2 if name == factor[trouble] else 0.8)) for name, limit in errors.items()}
    certificate = first_look(jax.random.key(0)).certificate._replace(certified=jnp.ones((), bool), **verdict)
    assert is_rough(certificate)
    assert not is_rough(certificate._replace(certified=jnp.zeros((), bool))), "a second look is at certified answers"


def sd_error(draws, weights):
    squares = (draws - weights @ draws) ** 2
    return float(largest_sd_error(squares / (weights @ squares), weights))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_error_of_sds_is_that_of_repeated_looks(seed):
    """Against the spread of a hundred estimates, themselves known to 7 per cent; of a skewed and a normal coordinate."""
    rng = np.random.default_rng(seed)
    draws = rng.standard_t(9, size=(100, 4000, 2))
    draws[..., 1] = rng.gamma(4.0, size=(100, 4000))
    weights = rng.gamma(2.0, size=(100, 4000))
    weights /= weights.sum(axis=1, keepdims=True)
    mean = np.einsum("rs,rsd->rd", weights, draws)
    sds = np.sqrt(np.einsum("rs,rsd->rd", weights, (draws - mean[:, None]) ** 2))
    spread = np.max(np.std(sds, axis=0) / np.mean(sds, axis=0))
    found = np.mean([sd_error(z, w) for z, w in zip(draws, weights, strict=True)])
    np.testing.assert_allclose(found, spread, rtol=4 * 0.07)


def crescent(z):
    """Mean (0, 0.5) and variances 1 and 0.5 + 0.49."""
    return -0.5 * z[0] ** 2 - 0.5 * ((z[1] - 0.5 * z[0] ** 2) / 0.7) ** 2


@jax.jit
def looks_at_one_arm(key):
    """The first look and the second at a mixture of one Gaussian, which lies on one arm of the crescent."""
    arm = full_rank(jnp.array([0.8, 0.6], float), jnp.array([[0.6, 0.0], [0.5, 0.7]], float))
    q = mixture(jnp.zeros(1), jax.tree.map(lambda x: x[None], arm))
    zero = jnp.zeros((), q.dtype)
    cost = Cost(zero, jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32), zero, zero)
    converged = jnp.full((), Status.CONVERGED, jnp.int32)
    before = check_importance(key, q, cover(q), crescent, Stage.MIXTURE, converged, cost)
    return before, recheck(key, crescent, before, cover(q))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_guard_finds_what_a_richer_family_has_missed(seed):
    before, after = looks_at_one_arm(jax.random.key(seed))
    mean, sd = np.array([0.0, 0.5]), np.sqrt([1.0, 0.99])

    def errors(outcome):
        weights, draws = np.exp(np.asarray(outcome.log_weights)), np.asarray(outcome.draws)
        found = weights @ draws
        return (found - mean) / sd, np.sqrt(weights @ (draws - found) ** 2) / sd - 1, sd_error(draws, weights)

    c = after.certificate
    assert int(c.stage) == Stage.MIXTURE and len(after.draws) == 16384 and c.certified
    missed, found = errors(before), errors(after)
    assert max(np.abs(missed[:2]).ravel()) > 0.1
    np.testing.assert_allclose(found[0], 0, atol=4 * float(c.mean_error))
    np.testing.assert_allclose(found[1], 0, atol=4 * found[2])
