"""ArviZ trees: dimensions, names, values, and what is said where ArviZ is missing."""

import importlib.metadata
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from results import made

import elbojax
from elbojax import Stage, Status, thresholds

D = made.SIZE
arviz_base = pytest.importorskip("arviz_base")


def q(models=None):
    one = elbojax.mean_field(jnp.zeros(D), 1.0)
    return one if models is None else jax.tree.map(lambda x: jnp.broadcast_to(x, (models, *x.shape)), one)


def test_one_fit():
    fit = made.fit(q(), certified=False, status=Status.UNRELIABLE, note="try again")
    tree = fit.to_arviz()
    posterior, held = tree["posterior"], tree["certificate"]
    assert set(posterior.data_vars) == {"a", "b.tau", "w"}
    assert posterior["a"].dims == ("chain", "draw", "a_dim_0", "a_dim_1")
    # As many draws as their weights are worth.
    effective = int(1 / np.sum(np.exp(2 * fit.log_weights)))
    assert effective < made.DRAWS == fit.num_distinct == tree.attrs["distinct_draws"]
    assert posterior["a"].shape == (1, effective, 2, 2) and posterior["b.tau"].shape == (1, effective)
    np.testing.assert_allclose(posterior["w"].sum("w_dim_0"), 1, atol=1e-12)
    assert held["status"].item() == Status.UNRELIABLE and held["stage"].item() == Stage.FULL_RANK
    assert held.attrs["status"] == "unreliable" and held.attrs["stage"] == "full_rank"
    assert held["status"].attrs["flag_meanings"].split()[Status.UNRELIABLE] == "unreliable"
    assert all(values.dtype.kind in "bif" for values in held.data_vars.values())
    assert held["khat"].item() == 0.25 and not held["certified"].item()
    assert tree.attrs["note"] == "try again" and posterior.attrs["inference_library"] == "elbojax"


def test_a_batch_has_a_dimension_of_models():
    fits = made.fit(q(3), models=3, khat=np.array([0.1, 0.2, 0.3]), stage=np.array([1, 1, Stage.MIXTURE]))
    tree = fits.to_arviz(num_samples=10)
    assert tree["posterior"]["a"].dims == ("chain", "draw", "model", "a_dim_0", "a_dim_1")
    assert tree["posterior"]["b.tau"].shape == (1, 10, 3)
    assert tree["posterior"]["model"].values.tolist() == [0, 1, 2] == tree["certificate"]["model"].values.tolist()
    assert tree["certificate"]["khat"].dims == ("model",)
    np.testing.assert_array_equal(tree["certificate"]["khat"], [0.1, 0.2, 0.3])
    assert tree["certificate"]["stage"].values.tolist() == [1, 1, Stage.MIXTURE]
    assert tree["certificate"].attrs["stage"] == ["full_rank", "full_rank", "mixture"]
    # Each model's column holds its own draws.
    for model in range(3):
        held = np.asarray(fits.draws[model, :, 4])
        found = np.log(tree["posterior"]["b.tau"].values[0, :, model])
        np.testing.assert_allclose(np.abs(found[:, None] - held).min(1), 0, atol=1e-12)


def test_moments_are_those_of_the_fit():
    fit = made.fit(q())
    tree = fit.to_arviz(num_samples=4000)
    for name, mean in (("a", fit.mean()["a"]), ("b.tau", fit.mean()["b"]["tau"])):
        # Systematic picking rounds each weight to a multiple of 1 / 4,000.
        np.testing.assert_allclose(tree["posterior"][name].mean(("chain", "draw")), mean, atol=made.DRAWS * 5 / 4000)
    assert tree["posterior"].equals(fit.to_arviz(num_samples=4000)["posterior"])


def test_chains_stay_chains():
    chained = made.fit(q(), stage=Stage.NUTS, chains=4)
    tree = chained.to_arviz()
    assert tree["posterior"].sizes["chain"] == 4 and tree["posterior"].sizes["draw"] == made.DRAWS // 4
    first = chained.draws[: made.DRAWS // 4, 4]
    np.testing.assert_allclose(tree["posterior"]["b.tau"][0], np.exp(first), rtol=1e-12)
    with thresholds.overridden(NUTS_CHAINS=2):  # another number than when it was fitted
        assert chained.to_arviz()["posterior"].sizes["chain"] == 4
    assert chained.to_arviz(num_samples=7)["posterior"].sizes["chain"] == 1


def test_a_bare_array_is_z_and_misuse_raises():
    fit = made.fit(elbojax.mean_field(jnp.zeros(2), 1.0), init=np.zeros(2), support=None)
    assert fit.to_arviz()["posterior"]["z"].dims == ("chain", "draw", "z_dim_0")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        fit.to_arviz(num_samples=0)


def test_arviz_reads_it():
    fits = made.fit(q(3), models=3)
    found = arviz_base.extract(fits.to_arviz(), var_names="b.tau", combined=True)
    assert found.dims == ("model", "sample") and 4 <= found.shape[1] < made.DRAWS


@pytest.mark.parametrize("missing", ["arviz_base", "xarray"])
def test_without_arviz_the_extra_is_named(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'elbojax\[interop\]'"):
        made.fit(q()).to_arviz()


@pytest.mark.parametrize(
    ("dims", "coords", "match"),
    [
        ({"a": "row"}, {}, r"must be a list of names of axes, got the word 'row': write \['row'\]"),
        ({"w": ["i", "j"]}, {}, r"dims of 'w' has 2 names, \['i', 'j'\], for axes of lengths \[3\]"),
        ({"a": ["row", "row"]}, {}, "names an axis twice"),
        ({"w": ["draw"]}, {}, "names an axis 'draw', which the tree has already"),
        ({"w": ["a"]}, {}, "names an axis 'a', and so is a variable"),
        ({"w": ["side"]}, {"side": ["x", "y"]}, "coords has 2 labels for 'side', along which 'w' has 3 numbers"),
        (
            {"a": ["side", "other"], "w": ["side"]},
            {},
            "one axis 'side' for 'a', along which that has 2 numbers, and for 'w'",
        ),
        ({}, {"side": ["x", "y"]}, "coords names the axis 'side', which no variable has: give dims too"),
        ({"v": ["side"]}, {}, "dims names the variable 'v', which there is not; there are a, b.tau, w"),
    ],
)
def test_axes_that_do_not_fit(dims, coords, match):
    with pytest.raises(ValueError, match=match):
        made.fit(q()).to_arviz(dims=dims, coords=coords)


def test_fewer_names_are_of_the_first_axes():
    assert made.fit(q()).to_arviz(dims={"a": ["row"]})["posterior"]["a"].dims[2] == "row"


def test_names_that_collide():
    for init, match in (
        ({"draw": np.zeros(2)}, "a variable is named 'draw', as an axis of every tree is"),
        ({"a": {"b": np.zeros(1)}, "a.b": np.zeros(1)}, "two variables of the tree have the name 'a.b'"),
    ):
        fit = made.fit(elbojax.mean_field(jnp.zeros(2), 1.0), init=init, support=None)
        with pytest.raises(ValueError, match=match):
            fit.to_arviz()
    fit = made.fit(q())
    assert fit.to_arviz(coords={"w_dim_0": ["x", "y", "z"]})["posterior"]["w_dim_0"].values.tolist() == ["x", "y", "z"]


class Old:
    """What `arviz` before 1.0 gives."""

    def __init__(self, **given):
        self.given = given

    def add_groups(self, groups):
        self.given |= groups


@pytest.mark.parametrize("version", ["0.23.4", "0.20.0", "0.19.0", "0.9.0"])
def test_arviz_before_1(version, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    monkeypatch.setitem(sys.modules, "arviz", types.SimpleNamespace(from_dict=Old))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    if version in ("0.19.0", "0.9.0"):  # and no arviz_base
        with pytest.raises(ImportError, match=f"needs arviz 0.20 or newer, and {version} is installed: pip install"):
            made.fit(q()).to_arviz()
        return
    found = made.fit(q()).to_arviz(observed={"y": np.zeros(3)}).given
    assert set(found) == {"posterior", "observed_data", "dims", "coords", "attrs", "certificate"}
    assert found["certificate"].attrs["status"] == "converged" and found["posterior"]["w"].shape[2:] == (3,)
