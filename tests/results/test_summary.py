"""Tables of fits: their numbers against NumPy's, their order, and that they print."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from results import made

import elbojax
from elbojax import Stage, Status
from elbojax.results import summary

M = 40


def q(models=None):
    one = elbojax.mean_field(jnp.zeros(made.SIZE), 1.0)
    return one if models is None else jax.tree.map(lambda x: jnp.broadcast_to(x, (models, *x.shape)), one)


def batch(**given):
    return made.fit(q(M), models=M, **given)


def test_quantiles_by_weight_are_those_of_as_many_copies():
    rng = np.random.default_rng(1)
    values, copies = rng.normal(size=(50, 4)), rng.integers(1, 9, size=50)
    wanted = np.quantile(np.repeat(values, copies, axis=0), summary.PROBABILITIES, axis=0, method="inverted_cdf").T
    for scale in (1, 1 / 7):
        np.testing.assert_array_equal(summary.weighted_quantiles(values, copies * scale), wanted)
    assert np.isnan(summary.weighted_quantiles(np.zeros((0, 2)), np.zeros(0))).all()


def test_one_posterior_number_by_number():
    fit = made.fit(q())
    table = fit.summary()
    assert table.names == ("a[0,0]", "a[0,1]", "a[1,0]", "a[1,1]", "b.tau", "w[0]", "w[1]", "w[2]")
    np.testing.assert_array_equal(table.mean[4], fit.mean()["b"]["tau"])
    np.testing.assert_array_equal(table.sd[5:], fit.sd()["w"])
    # tau is the exponential of its flat coordinate, and monotone maps move quantiles along.
    weights = np.exp(np.asarray(fit.log_weights))
    flat = summary.weighted_quantiles(np.asarray(fit.draws), weights)
    np.testing.assert_allclose(table.quantiles[:5], np.concatenate([flat[:4], np.exp(flat[4:5])]), rtol=1e-12)
    text = str(table)
    assert "posterior of 8 numbers, certified" in text and repr(table) == text
    row = next(line for line in text.splitlines() if "b.tau" in line).split()
    np.testing.assert_allclose(
        [float(x) for x in row[1:]], [table.mean[4], table.sd[4], *table.quantiles[4]], rtol=1e-3
    )


def test_draws_without_weight_do_not_count():
    fit = made.fit(q())
    spoilt = fit.draws.at[:32].set(1e300)
    weights = fit.log_weights.at[:32].set(-jnp.inf)
    half = elbojax.Fit(fit.q, fit.certificate, spoilt, weights - jax.nn.logsumexp(weights), fit.target)
    assert np.isfinite(half.summary().quantiles).all()
    nothing = elbojax.Fit(fit.q, fit.certificate, fit.draws, jnp.full_like(weights, jnp.nan), fit.target)
    assert np.isnan(nothing.summary().quantiles).all()


def test_long_tables_end_in_how_many_more():
    init = {"z": np.zeros(summary.ROWS + 3)}
    text = str(made.fit(elbojax.mean_field(jnp.zeros(43), 1.0), init=init, support=None).summary())
    assert "z[39]" in text and "z[40]" not in text and "... and 3 more" in text


def test_what_is_not_certified_says_so():
    table = made.fit(q(), certified=False, status=Status.UNRELIABLE).summary()
    assert "NOT certified (unreliable)" in str(table)


def test_a_batch_is_counted():
    status = np.full(M, Status.CONVERGED)
    status[:3], status[3] = Status.UNRELIABLE, Status.NON_FINITE
    stage = np.where(np.arange(M) < 15, Stage.MIXTURE, Stage.FULL_RANK)
    table = batch(certified=status == Status.CONVERGED, status=status, stage=stage).summary()
    assert (table.num_models, table.num_certified) == (M, M - 4)
    assert list(table.statuses.items()) == [(Status.CONVERGED, 36), (Status.UNRELIABLE, 3), (Status.NON_FINITE, 1)]
    assert list(table.stages.items()) == [(Stage.FULL_RANK, 25), (Stage.MIXTURE, 15)]
    text = str(table)
    assert "40 fits, 36 certified (90.0 %)" in text and repr(table) == text
    assert "converged 36, unreliable 3, non_finite 1" in text and "full_rank 25, mixture 15" in text


def test_quantiles_of_every_field():
    rng = np.random.default_rng(2)
    khat = rng.permutation(np.linspace(0, 1, M))
    khat[:4] = np.nan, np.inf, np.inf, np.nan
    given = dict(khat=khat, elbo=np.full(M, np.nan), num_gradients=rng.permutation(M), modes=rng.integers(1, 3, size=M))
    table = batch(**given).summary()
    counted = {"certified", "status", "stage"}
    assert set(table.quantiles) == set(elbojax.Certificate._fields) - counted
    np.testing.assert_array_equal(table.quantiles["num_gradients"], [1, 19, 37])
    np.testing.assert_array_equal(table.quantiles["khat"], np.sort(khat)[[1, 18, 36]])
    assert np.isnan(table.quantiles["elbo"]).all() and (table.quantiles["ess"] == 300).all()
    assert all(f"  {name} " in str(table) for name in table.quantiles)


def test_the_worst_are_shown_first():
    ess, khat, certified = np.linspace(900, 500, M), np.full(M, 0.2), np.full(M, True)
    certified[[5, 6, 7]] = False
    ess[5], ess[6], ess[7] = 800, 4096, np.nan
    khat[6] = np.inf  # weights that are all alike for want of any: not worth 4,096 draws
    status = np.where(certified, Status.CONVERGED, Status.UNRELIABLE)
    table = batch(ess=ess, khat=khat, certified=certified, status=status).summary()
    assert set(table.worst[:2]) == {6, 7} and table.worst[2] == 5
    np.testing.assert_array_equal(table.worst[3:], np.arange(M - 1, M - 8, -1))
    np.testing.assert_array_equal(table.worst_certificates.ess, ess[table.worst])
    rows = [line.split() for line in str(table).splitlines()[-10:]]
    assert [int(row[0]) for row in rows] == table.worst.tolist()
    assert rows[2][1:] == ["unreliable", "full_rank", "0.2", "800"]


@pytest.mark.parametrize("models", [1, 3])
def test_small_batches(models):
    table = made.fit(q(models), models=models).summary()
    assert len(table.worst) == models and str(table).startswith(f"{models} fits, {models} certified (100.0 %)")


def test_several_of_a_batch_are_a_batch():
    fits = batch(ess=np.arange(M, dtype=float), certified=np.arange(M) % 2 == 0)
    for index in (slice(3, 9, 2), [7, -1], fits.summary().worst, np.asarray(fits.certificate.certified)):
        wanted = np.arange(M)[index]
        for some in (fits[index], fits[jnp.asarray(index)] if not isinstance(index, slice) else fits[index]):
            assert some.batched and len(some) == len(wanted)
            np.testing.assert_array_equal(some.certificate.ess, wanted)
            np.testing.assert_array_equal(some.draws, np.asarray(fits.draws)[wanted])
    assert fits[-1].certificate.ess == M - 1 and not fits[np.int64(3)].batched
    assert [one.certificate.ess.item() for one in fits[:2]] == [0, 1]
    for index in (M, -M - 1, [0, M]):
        with pytest.raises(IndexError, match=f"of {M}"):
            fits[index]
    with pytest.raises(TypeError, match="one fit cannot be indexed"):
        fits[0][0]
