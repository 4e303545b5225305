"""The second look: more draws mend what is rough, and take back a certificate that was luck."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elbojax import full_rank
from elbojax.cascade import single
from elbojax.cascade.certificate import Stage
from elbojax.cascade.judge import Spent, envelope, judge
from elbojax.cascade.refit import ROUGH, is_rough, sharpen
from elbojax.types import Status

SIZE, DF = 2, 5
SD = np.sqrt(DF / (DF - 2))


def student(z):
    """Heavier tails than those of the envelope of a Gaussian."""
    return -0.5 * (DF + SIZE) * jnp.log1p(jnp.sum(z**2) / DF)


@jax.jit
def first_look(key):
    q = full_rank(jnp.array([0.5, -0.5], float), 0.8 * jnp.eye(SIZE, dtype=float))
    zero = jnp.zeros((), q.dtype)
    spent = Spent(zero, jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32), zero, zero)
    return judge(key, q, envelope(q), student, Stage.FULL_RANK, jnp.full((), Status.CONVERGED, jnp.int32), spent)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_more_draws_mend_a_rough_answer(seed):
    before = first_look(jax.random.key(seed))
    after = jax.jit(lambda key, outcome: sharpen(key, student, outcome))(jax.random.key(seed), before)
    old, new = before.certificate, after.certificate
    assert old.mean_error > ROUGH > 1.5 * new.mean_error and new.certified
    assert int(new.num_log_densities) == int(old.num_log_densities) + 4096 + 16384
    weights = np.exp(np.asarray(after.log_weights))
    np.testing.assert_allclose(weights @ after.draws / SD, 0, atol=4 * float(new.mean_error))
    np.testing.assert_allclose(np.sqrt(weights @ np.asarray(after.draws) ** 2) / SD, 1, atol=0.05)


@pytest.mark.parametrize("agrees", [True, False])
def test_a_second_look_can_withdraw_the_certificate(monkeypatch, agrees):
    rough = first_look(jax.random.key(0))
    certain = rough.certificate._replace(certified=jnp.ones((), bool), mean_error=jnp.asarray(2 * ROUGH))
    rough = rough._replace(certificate=certain)
    assert is_rough(rough)
    status = jnp.asarray(Status.CONVERGED if agrees else Status.UNRELIABLE, jnp.int32)
    verdict = certain._replace(
        certified=jnp.asarray(agrees), status=status, num_log_densities=certain.num_log_densities + 9
    )
    more = jax.tree.map(lambda x: jnp.concatenate([x, x]), (rough.draws, rough.log_weights))
    second = rough._replace(draws=more[0], log_weights=more[1], certificate=verdict)
    monkeypatch.setattr(single, "_sharpen_program", lambda *_: second)
    kept = single._second_look(None, None, rough, None, lambda _: None)
    assert bool(kept.certificate.certified) is agrees and int(kept.certificate.status) == status
    assert kept.certificate.num_log_densities == verdict.num_log_densities
    # Stages that may follow carry as many draws as theirs have.
    assert agrees or len(kept.draws) == len(kept.log_weights) == len(rough.draws)


def test_a_smooth_answer_is_left_alone(monkeypatch):
    rough = first_look(jax.random.key(0))
    smooth = rough._replace(certificate=rough.certificate._replace(mean_error=jnp.asarray(0.5 * ROUGH)))
    assert single._second_look(None, None, smooth, None, None) is smooth
