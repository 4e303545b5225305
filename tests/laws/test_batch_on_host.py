"""What `fit_batch` does on the host: the same answers however it is interrupted, divided, begun, watched or stored."""

import concurrent.futures
import os
import re
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import Stage, Status, thresholds
from elbojax.cascade import batch

KEY = jax.random.key(5)
BENDS = np.array([0.5, 0.0, 0.6, 0.7, 0.55, 0.65, 0.01, 0.52, 0.62])
HARD = BENDS > 0.1


def bent(z, bend):
    """A banana, which only the stages on the host certify, but for the two that are straight."""
    return -0.5 * z[0] ** 2 - 0.5 * (z[1] - bend * z[0] ** 2) ** 2


def fit(**settings):
    return elbojax.fit_batch(KEY, bent, np.zeros(2), BENDS, **settings)


@pytest.fixture(autouse=True)
def windows_of_two(monkeypatch):
    monkeypatch.setattr(batch, "FEW_MODELS", 0)  # as many have it: the compiled stage first
    monkeypatch.setattr(batch, "FEW", 2)
    monkeypatch.setattr(batch, "SIDE_BY_SIDE", 2)
    monkeypatch.setattr(batch.handover, "available", lambda: False)
    monkeypatch.setitem(vars(thresholds), "FLOW_LARGEST", 0)
    # Most of these models would leave with the second compiled stage.
    monkeypatch.setitem(vars(thresholds), "TRIANGULAR_LARGEST", 0)


@pytest.fixture
def at_every_model(monkeypatch):
    """Checkpoints without the pause between them."""
    monkeypatch.setattr("elbojax.loops.shards.SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr("elbojax.loops.shards.PART", 1e9)


def right(fits, bends=BENDS):
    assert fits.certificate.certified.all()
    mean, sd = np.stack([0 * bends, bends], axis=1), np.sqrt(np.stack([0 * bends + 1, 1 + 2 * bends**2], axis=1))
    np.testing.assert_allclose((fits.mean() - mean) / sd, 0, atol=0.08)
    np.testing.assert_allclose(fits.sd() / sd, 1, rtol=0.08)


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_windows_of_any_size(monkeypatch, precision):
    fits = fit()
    right(fits)
    assert (fits.certificate.stage[HARD] != Stage.FULL_RANK).all()
    monkeypatch.setattr(batch, "SIDE_BY_SIDE", 64)
    again = fit()
    for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(fits), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)  # another program, which may round otherwise


@pytest.mark.parametrize("calls", [0, 1, 60])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_is_done_when_a_run_is_interrupted_is_kept(error, calls, tmp_path, monkeypatch, at_every_model):
    whole = fit()
    answer, driven = batch.CompiledMany.answer, []
    made = batch.thorough

    def interrupted(self, asked):
        if interrupted.left == 0:
            raise error
        interrupted.left -= 1
        return answer(self, asked)

    def counted(*args):
        driven.append(args)
        return made(*args)

    interrupted.left = calls
    with monkeypatch.context() as patched:
        patched.setattr(batch.CompiledMany, "answer", interrupted)
        with pytest.raises(error):
            fit(checkpoint=tmp_path)
    pieces = [path.name.split("-") for path in tmp_path.iterdir() if path.name.startswith("thorough-")]
    stored = sum(1 if first == last else 2 for _, first, last, _ in pieces)
    assert (stored > 0) == (calls >= 60)
    monkeypatch.setattr(batch, "thorough", counted)
    same(fit(checkpoint=tmp_path), whole)
    assert len(driven) == HARD.sum() - stored > 0
    driven.clear()
    same(fit(checkpoint=tmp_path), whole)
    assert not driven


def test_models_that_have_ended_are_kept_before_their_window_has(tmp_path, monkeypatch, at_every_model):
    monkeypatch.setattr(batch, "SIDE_BY_SIDE", 64)
    added = []
    add = batch.Shards.add

    def noted(self, stage, models, piece):
        added.append((stage, len(models)))
        add(self, stage, models, piece)

    monkeypatch.setattr(batch.Shards, "add", noted)
    fit(checkpoint=tmp_path)
    thorough = [count for stage, count in added if stage == "thorough"]
    assert sum(thorough) == HARD.sum() and len(thorough) > 1


def test_calls_in_several_threads():
    one = lambda seed: elbojax.fit_batch(jax.random.key(seed), bent, np.zeros(2), BENDS)  # noqa: E731
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        together = list(pool.map(one, range(3)))
    for seed, fits in enumerate(together):
        assert fits.certificate.certified.all()
        same(fits, one(seed))


def two(z, width):
    pair = jnp.logaddexp(-0.5 * ((z[0] - width) / 0.3) ** 2, -0.5 * ((z[0] + width) / 0.3) ** 2 - 1)
    return pair - 0.5 * z[1] ** 2


def test_starts_of_their_own(precision):
    """One of each model, and several: modes that no path from `init` sees; more than there are paths."""
    right(fit(starts=np.stack([np.full(9, 1.0), BENDS], axis=1)))
    far = np.linspace(20, 30, 5)
    ones = np.stack([far, np.zeros(5)], axis=1)
    share = 1 / (1 + np.exp(-1))
    for starts in (np.stack([ones, -ones], axis=1), np.stack([ones, -ones] * 6, axis=1)):
        fits = elbojax.fit_batch(KEY, two, np.zeros(2), far, starts=starts)
        assert fits.certificate.certified.all() and (fits.certificate.stage == Stage.MIXTURE).all()
        np.testing.assert_allclose(fits.mean()[:, 0] / far, 2 * share - 1, atol=0.03)
        np.testing.assert_allclose(fits.sd()[:, 0] / far, 2 * np.sqrt(share * (1 - share)), rtol=0.03)


def test_one_model_alone():
    one = elbojax.fit_batch(KEY, bent, np.zeros(2), BENDS[:1])
    right(one, BENDS[:1])
    assert "certified" in str(one[0])


def test_the_bar_and_its_lines(capsys):
    right(fit(progress=True))
    said = capsys.readouterr().err
    line = r"thorough: 7 models on the host, 2 side by side; \d+ programs compiled in \d+\.\d s, run in \d+\.\d s"
    assert re.search(line, said)


def test_tails():
    fits, plain = fit(tails=True), fit()
    assert fits.certificate.certified.all()
    even = np.asarray(plain.certificate.khat < thresholds.TAILED)
    np.testing.assert_array_equal(fits.mean()[even], plain.mean()[even])


def test_large_data_of_each_model(monkeypatch):
    """Windows hold as many models as have room, one at the least."""
    monkeypatch.setattr(batch, "SIDE_BY_SIDE", 64)
    windows = []
    made = batch.CompiledMany

    def noted(target, data, device):
        windows.append(len(jax.tree.leaves(data)[0]))
        return made(target, data, device)

    monkeypatch.setattr(batch, "CompiledMany", noted)
    data = {"bend": BENDS, "ballast": np.ones((9, 1000))}
    density = lambda z, d: bent(z, d["bend"]) + 0 * d["ballast"][0]  # noqa: E731
    for room, expected in [(1, {1}), (3 * 8008, {3})]:
        monkeypatch.setattr(batch, "MEMORY", room)
        windows.clear()
        right(elbojax.fit_batch(KEY, density, np.zeros(2), data))
        assert set(windows) == expected


HOPELESS = {
    "easy": (lambda z, y: -0.5 * jnp.sum((z - y) ** 2), Status.CONVERGED),
    "without an end": (lambda z, y: -0.5 * (z[0] - y) ** 2, Status.IMPROPER),
    "flat": (lambda z, y: 0.0 * jnp.sum(z), Status.IMPROPER),
    "NaN": (lambda z, y: jnp.sum(z) + jnp.nan, Status.NON_FINITE),
    "nowhere": (lambda z, y: 0 * jnp.sum(z) - jnp.inf, Status.NON_FINITE),
    "lost in rounding": (lambda z, y: -0.5 * jnp.sum((z - y) ** 2) - 1e18, Status.IMPRECISE),
}


def test_hopeless_models_among_others():
    """Of 140 models five sixths have no posterior: each gets its status, and the others get their answers."""
    densities = [density for density, _ in HOPELESS.values()]

    def density(z, datum):
        kind, y = datum
        return jax.lax.select_n(kind, *(each(z, y) for each in densities))

    kinds, y = np.arange(140) % len(HOPELESS), np.linspace(-3, 3, 140)
    fits = elbojax.fit_batch(KEY, density, np.zeros(2), (kinds, y))
    for kind, (name, (_, status)) in enumerate(HOPELESS.items()):
        of_it = fits.certificate.status[kinds == kind]
        assert {str(Status(int(each))) for each in of_it} == {str(status)}, name
    good = kinds == 0
    assert (fits.certificate.certified == good).all()
    np.testing.assert_allclose(fits.mean()[good], np.stack([y[good]] * 2, axis=1), atol=0.05)
    assert isinstance(fits.note, str) and isinstance(str(fits), str)


def test_two_devices():
    """A mesh spreads the compiled stages; the host's give the same answers."""
    code = """
        import jax, jax.numpy as jnp, numpy as np, elbojax
        from elbojax.cascade import batch
        batch.handover.available = lambda: False
        vars(elbojax.thresholds)["FLOW_LARGEST"] = 0
        bends = np.array([0.5, 0.0, 0.6, 0.7, 0.55])
        def bent(z, bend):
            return -0.5 * z[0] ** 2 - 0.5 * (z[1] - bend * z[0] ** 2) ** 2
        for devices in (jax.devices(), jax.devices()[1:]):
            mesh = jax.make_mesh((len(devices),), ("m",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
            fits = elbojax.fit_batch(jax.random.key(0), bent, np.zeros(2), bends, mesh=mesh)
            assert fits.certificate.certified.all()
            np.testing.assert_allclose(fits.sd()[:, 1], np.sqrt(1 + 2 * bends**2), rtol=0.08)
        print("done", len(jax.devices()))
    """
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "done 2\n", done.stderr
