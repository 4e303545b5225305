"""`fit_batch`: many posteriors, each with its own certificate, and none that harms another.

By compiled stages, as of more models than these; `test_few_models` has what few models get.
"""

import functools
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Stage, Status, thresholds
from elbojax.cascade import batch
from elbojax.cascade.gaussian import optimise_paths
from elbojax.loops.compiling import compiled_so_far
from elbojax.weights import pick

KEY = jax.random.key(7)
M = 11
PICK = jax.jit(pick, static_argnums=2)


def log_density(position, datum):
    """Normal data of known sd 1 with a normal prior on the mean, and a rate: conjugate both; masked data points."""
    y, mask, count = datum
    likelihood = jnp.sum(jnp.where(mask, -0.5 * (y - position["mean"]) ** 2, 0))
    prior = -0.5 * (position["mean"] / 10) ** 2
    rate = position["rate"]
    return likelihood + prior + (count + 1) * jnp.log(rate) - 2 * rate  # Gamma(count + 2, 2)


INIT, SUPPORT = {"mean": 0.0, "rate": 1.0}, {"rate": "positive"}


def data(num_models=M):
    rng = np.random.default_rng(3)
    y = rng.normal(size=(num_models, 6)) * 10.0 ** rng.integers(-3, 3, size=(num_models, 1))  # scales wildly different
    return y, rng.random((num_models, 6)) < 0.7, rng.integers(3, 40, size=num_models).astype(float)


def exact(datum):
    y, mask, count = datum
    precision = mask.sum(1) + 0.01
    return {"mean": (y * mask).sum(1) / precision, "rate": (count + 2) / 2}, {
        "mean": precision**-0.5,
        "rate": (count + 2) ** 0.5 / 2,
    }


def fit(datum, **settings):
    return elbojax.fit_batch(KEY, log_density, INIT, datum, support=SUPPORT, **settings)


@pytest.fixture(autouse=True)
def few_lanes(monkeypatch):
    monkeypatch.setattr(batch, "FEW_MODELS", 0)
    monkeypatch.setattr(batch, "ADAPTED_LEAST", 1)
    monkeypatch.setattr(batch, "LANES", {"cpu": 4})  # so that eleven models are three chunks, the last not full
    monkeypatch.setattr(batch.handover, "available", lambda: False)


@functools.cache
def reference():
    return fit(data())


def at_every_chunk(monkeypatch):
    """Checkpoints without the pause between them."""
    monkeypatch.setattr("elbojax.loops.shards.SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr("elbojax.loops.shards.PART", 1e9)


def same(a, b, models=slice(None)):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x)[models], np.asarray(y)[models])


def test_exact_answers_whatever_the_scales():
    fits, (mean, sd) = reference(), exact(data())
    assert len(fits) == M and fits.certificate.certified.all()
    for name in INIT:
        np.testing.assert_allclose((fits.mean()[name] - mean[name]) / sd[name], 0, atol=0.02)
        np.testing.assert_allclose(fits.sd()[name] / sd[name], 1, atol=0.02)
    draws = fits.sample(jax.random.key(1), 100)
    assert draws["rate"].shape == (M, 100) and (draws["rate"] > 0).all()


def test_one_of_a_batch_is_a_fit():
    one = reference()[3]
    assert one.certificate.status is Status.CONVERGED and one.certificate.stage is Stage.FULL_RANK
    assert "certified" in str(one)
    np.testing.assert_array_equal(one.mean()["rate"], reference().mean()["rate"][3])


def test_a_bad_model_harms_no_neighbour():
    y, mask, count = data()
    y[2, :] = np.nan
    mask[2, :] = True
    mask[5, :] = False  # no data: its prior
    count[8] = -1.0  # Gamma(1, 2) still
    fits = fit((y, mask, count))
    assert int(fits.certificate.status[2]) == Status.NON_FINITE and not fits.certificate.certified[2]
    assert fits.certificate.certified[5]
    np.testing.assert_allclose(fits.sd()["mean"][5], 10, rtol=0.02)
    same(fits, reference(), [0, 1, 3, 4, 6, 7, 9, 10])


def test_resumes_where_it_was(tmp_path, monkeypatch):
    at_every_chunk(monkeypatch)
    fits = fit(data(), checkpoint=str(tmp_path / "run"))
    same(fits, reference())
    pieces = sorted(path for path in (tmp_path / "run").iterdir() if path.is_dir())
    assert len(pieces) == 3
    shutil.rmtree(pieces[2])
    computed = []
    program = batch._program

    def counted(*args):
        return lambda *call: computed.append(1) or program(*args)(*call)

    monkeypatch.setattr(batch, "_program", counted)
    same(fit(data(), checkpoint=str(tmp_path / "run")), fits)
    assert len(computed) == 1


def test_a_torn_checkpoint_is_computed_again(tmp_path, monkeypatch):
    at_every_chunk(monkeypatch)
    fits = fit(data(), checkpoint=str(tmp_path))
    piece = sorted(path for path in tmp_path.iterdir() if path.is_dir())[1]
    for file in piece.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.warns(RuntimeWarning, match="damaged"):
        same(fit(data(), checkpoint=str(tmp_path)), fits)


def test_another_problem_is_refused(tmp_path):
    fit(data(), checkpoint=str(tmp_path))
    y, mask, count = data()
    with pytest.raises(ValueError, match="another problem"):
        fit((y + 1, mask, count), checkpoint=str(tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(ValueError, match="something else"):
        fit(data(), checkpoint=str(tmp_path / "other"))


def test_nothing_is_lost_where_nothing_can_be_written(tmp_path, monkeypatch):
    class Full:
        def save(self, *args, **kwargs):
            raise OSError("no space left on device")

    monkeypatch.setattr("elbojax.loops.shards._checkpointer", Full)
    with pytest.warns(RuntimeWarning, match="no space left"):
        same(fit(data(), checkpoint=str(tmp_path)), reference())


def test_the_same_on_a_mesh():
    mesh = jax.make_mesh((1,), ("models",), axis_types=(jax.sharding.AxisType.Auto,))
    for a, b in zip(jax.tree.leaves(fit(data(), mesh=mesh)), jax.tree.leaves(reference()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_kept_draws_stand_for_the_posterior():
    fits, (mean, sd) = reference(), exact(data())
    values = jax.vmap(jax.vmap(fits.target.constrain))(fits.draws)
    weights = np.exp(np.asarray(fits.log_weights))
    off = {name: ((weights * values[name]).sum(1) - mean[name]) / sd[name] for name in INIT}
    # Every second point of a Sobol net, of which the draws are picked, lies in one half: that gave 0.1.
    assert np.sqrt(np.mean([off[name] ** 2 for name in INIT])) < 512**-0.5


def test_starts_of_their_own():
    means, _ = exact(data())
    warm = fit(data(), starts=means)
    assert warm.certificate.certified.all()
    np.testing.assert_allclose(warm.mean()["mean"], means["mean"], atol=0.01 * 10)
    np.testing.assert_allclose(warm.sd()["rate"], reference().sd()["rate"], rtol=0.01)
    assert warm.certificate.num_gradients.mean() < reference().certificate.num_gradients.mean()
    same(fit(data(), starts=jax.tree.map(lambda x: np.full(M, x), INIT)), reference())


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ({"mean": np.zeros(M)}, "pytree like init"),
        ({"mean": np.zeros(M), "rate": np.ones(M - 1)}, "rate.*10"),
        ({"mean": np.zeros(M), "rate": np.ones((M, 2))}, "share"),
        ({"mean": np.zeros(M), "rate": np.ones((M, 2, 2))}, "rate"),
        ({"mean": np.zeros(M), "rate": np.where(np.arange(M) == 4, -1.0, 1.0)}, "model 4"),
    ],
)
def test_misuse_of_starts(starts, said):
    with pytest.raises(ValueError, match=said):
        fit(data(), starts=starts)


def test_paths_climb_from_all_starts():
    def target(z):
        return jnp.logaddexp(-0.5 * jnp.sum((z - 50) ** 2), -0.5 * jnp.sum((z + 50) ** 2))

    starts = jnp.array([[40.0, 40.0], [-40.0, -40.0], [49.0, 51.0]])
    ends = jax.jit(lambda key: optimise_paths(key, target, starts, num_paths=6).modes)(KEY)
    np.testing.assert_allclose(ends[:, 0], [50, -50, 50, 50, -50, 50], atol=0.5)


def test_one_model_and_none():
    one = fit(jax.tree.map(lambda x: x[:1], data()))
    assert len(one) == 1 and one.certificate.certified.all()
    with pytest.raises(ValueError, match="empty"):
        fit(jax.tree.map(lambda x: x[:0], data()))
    y, mask, count = data()
    with pytest.raises(ValueError, match="11.*10|10.*11"):
        fit((y, mask, count[:-1]))
    with pytest.raises(ValueError, match="fit_ragged"):
        fit([np.zeros(7), np.zeros(8)])


def test_more_models_are_no_more_programs():
    small, large = data(9), data(37)
    fit(small)
    before = compiled_so_far()
    fits = fit(large)
    # The stages are compiled, and nothing else depends on M.
    assert compiled_so_far().programs - before.programs == 0
    assert len(fits) == 37 and fits.certificate.certified.all()


def test_a_later_stage_serves_another_number_of_models():
    """Five and seven of nine are bent, and go on to an adapted proposal."""

    def target(z, bend):
        return -0.5 * z[0] ** 2 - 0.5 * (z[1] - bend * z[0] ** 2) ** 2

    counts = []
    for number in (5, 7):
        before = compiled_so_far().programs
        fits = elbojax.fit_batch(KEY, target, jnp.zeros(2), np.where(np.arange(9) < number, 1.0, 0.0))
        assert fits.certificate.certified.all()
        assert np.sum(fits.certificate.stage == Stage.STUDENT_T) == number
        counts.append(compiled_so_far().programs - before)
    assert counts[0] > 0 and counts[1] == 0


def test_compile_time_and_run_time_are_told_apart(capsys):
    fit(data(), progress=True)
    said = capsys.readouterr().err
    assert re.search(r"quick: 11 models, 4 side by side .* \d+ programs compiled in \d+\.\d s, run in \d+\.\d s", said)


@pytest.mark.slow
def test_a_funnel_needs_no_chains():
    def target(z, y):
        """Centred effects of a group scale that the data leave open."""
        effects = -0.5 * jnp.sum((z[1:] * jnp.exp(-z[0])) ** 2) - 5 * z[0]
        return -0.5 * z[0] ** 2 + effects - 0.5 * jnp.sum((y - z[1:]) ** 2 / 100)

    fits = elbojax.fit_batch(KEY, target, jnp.zeros(6), jnp.array([[0.0] * 5, [3.0, -8.0, 5.0, 0.0, 1.0]]))
    assert fits.certificate.certified.all()
    assert (fits.certificate.stage == Stage.FUNNEL).any()
    grid = jnp.linspace(-6, 6, 4001)
    for y, mean, sd in zip([[0.0] * 5, [3.0, -8.0, 5.0, 0.0, 1.0]], fits.mean()[:, 0], fits.sd()[:, 0], strict=True):
        variance = jnp.exp(2 * grid)[:, None] + 100  # the effects integrate out
        log_p = -0.5 * grid**2 - 0.5 * jnp.sum(jnp.array(y) ** 2 / variance + jnp.log(variance), axis=1)
        weights = jax.nn.softmax(log_p)
        exact = weights @ grid
        exact_sd = jnp.sqrt(weights @ (grid - exact) ** 2)
        np.testing.assert_allclose((mean - exact) / exact_sd, 0, atol=0.1)
        np.testing.assert_allclose(sd / exact_sd, 1, atol=0.1)


@pytest.mark.long
def test_tails_cost_a_richer_stage_where_the_weights_are_uneven():
    def hierarchy(z, y):
        tau = jnp.exp(z[1])
        prior = -0.5 * (z[0] / 2) ** 2 - 0.5 * tau**2 + z[1] - 0.5 * jnp.sum(z[2:] ** 2)
        return prior - 2.5 * jnp.sum((y - z[0] - tau * z[2:]) ** 2)

    rng = np.random.default_rng(5)
    y = (
        rng.normal(size=(12, 1))
        + np.abs(rng.normal(size=(12, 1))) * rng.normal(size=(12, 4))
        + rng.normal(size=(12, 4)) / 5**0.5
    )
    plain, fits = (elbojax.fit_batch(KEY, hierarchy, jnp.zeros(6), y, tails=tails) for tails in (False, True))
    uneven = np.asarray(plain.certificate.certified & (plain.certificate.khat >= thresholds.TAILED))
    assert 0 < uneven.sum() < 12
    for a, b in zip(jax.tree.leaves(fits.moments), jax.tree.leaves(plain.moments), strict=True):
        np.testing.assert_allclose(a[~uneven], b[~uneven], rtol=1e-5)  # other lanes round otherwise
    assert fits.certificate.certified[uneven].all()
    assert (fits.certificate.khat < thresholds.TAILED)[uneven].all()
    assert (fits.certificate.num_gradients > plain.certificate.num_gradients)[uneven].all()


@pytest.mark.parametrize("seed", range(3))
def test_draws_are_picked_by_weight_and_no_more_often(seed):
    log_weights = jnp.log(jnp.array([0.0, 0.5, 0.26, 0.24] + [0.0] * 4))
    times = np.bincount(PICK(jax.random.key(seed), log_weights, 100), minlength=8)
    np.testing.assert_allclose(times, 100 * np.exp(log_weights), atol=1)
    picked = np.asarray(PICK(jax.random.key(seed), jnp.zeros(512), 99))
    assert len(set(picked.tolist())) == 99
    assert np.std(np.diff(picked)) > 100  # in random order: neighbours of the net do not stay neighbours


@pytest.mark.slow
def test_what_is_not_gaussian_goes_further():
    def target(z, width):
        two = jnp.logaddexp(-0.5 * ((z[0] - width) / 0.3) ** 2, -0.5 * ((z[0] + width) / 0.3) ** 2)
        return two - 0.5 * z[1] ** 2

    fits = elbojax.fit_batch(KEY, target, jnp.zeros(2), jnp.array([0.0, 4.0, 0.1]))
    assert fits.certificate.certified.tolist() == [True, True, True]
    assert int(fits.certificate.stage[1]) == Stage.MIXTURE
    np.testing.assert_allclose(fits.sd()[:, 0], np.sqrt(0.09 + np.array([0.0, 4.0, 0.1]) ** 2), rtol=0.05)

    # Modes too far apart for paths around one start.
    widths = jnp.array([30.0, 20.0])
    starts = jnp.stack([widths, -widths], axis=1)[..., None] * jnp.array([1.0, 0.0])
    fits = elbojax.fit_batch(KEY, target, jnp.zeros(2), widths, starts=starts)
    assert fits.certificate.certified.all() and (fits.certificate.stage == Stage.MIXTURE).all()
    np.testing.assert_allclose(fits.sd()[:, 0], widths, rtol=0.05)
