import functools
import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from benchmarks import models
from benchmarks.models.differential_equations import log_concentration, log_populations
from benchmarks.problems import reference

# Here the published values come from a solver with an error of its own, or through an ill-conditioned map.
TOLERANCE = {
    "hudson_lynx_hare-lotka_volterra": {"rtol": 0, "atol": 1e-4},
    "one_comp_mm_elim_abs-one_comp_mm_elim_abs": {"rtol": 0, "atol": 1e-4},
    "gp_pois_regr-gp_pois_regr": {"rtol": 1e-6},
}
INSIDE = {
    "real": lambda x: np.isfinite(x),
    "positive": lambda x: x > 0,
    "unit_interval": lambda x: (x > 0) & (x < 1),
    "simplex": lambda x: (x > 0) & np.isclose(x.sum(), 1, atol=1e-12),
    "ordered": lambda x: np.diff(x) > 0,
    "positive_ordered": lambda x: np.diff(x, prepend=0) > 0,
}


def or_skip(load, *args, **kwargs):
    """What `load` finds on disk; skips the test where it is not there."""
    try:
        return load(*args, **kwargs)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


@functools.cache
def evaluate(name):
    """Value, gradient, Hessian-vector product and columns at the checked draws and, last, at the start."""
    model = models.load(name)
    rows, published = reference.load_check(name)
    draws = reference.load(name).draws[rows]

    def derivatives(position):
        objective = jax.value_and_grad(lambda p: model.log_density(p, model.data))
        (value, gradient), (_, curvature) = jax.jvp(objective, (position,), (jax.tree.map(jnp.ones_like, position),))
        return value, gradient, curvature, model.columns(position)

    positions = jax.jit(jax.vmap(model.position))(draws)
    positions = jax.tree.map(lambda leaf, start: jnp.concatenate([leaf, start[None]]), positions, model.init)
    return model, draws, published, positions, jax.jit(jax.vmap(derivatives))(positions)


@pytest.mark.parametrize("name", models.NAMES)
def test_log_joint_is_the_published_one(name):
    model, draws, published, _, (values, *_) = or_skip(evaluate, name)
    if (
        name == "garch-garch11"
    ):  # published for beta1, written for its share of the range: d beta1 / d share = 1 - alpha1
        published = published + np.log1p(-draws[:, model.column_names.index("alpha1")])
    np.testing.assert_allclose(values[:-1], published, **TOLERANCE.get(name, {"rtol": 1e-12}))


@pytest.mark.parametrize("name", models.NAMES)
def test_is_twice_differentiable_at_the_draws_and_the_start(name):
    _, _, _, positions, (values, gradient, curvature, _) = or_skip(evaluate, name)
    assert np.isfinite(values).all()
    for tree in (gradient, curvature):
        for path, leaf in jax.tree.leaves_with_path(tree):
            assert np.isfinite(leaf).all(), path
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, positions)
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(curvature))


@pytest.mark.parametrize("name", models.NAMES)
def test_columns_are_those_of_the_reference(name):
    model, draws, _, _, (*_, columns) = or_skip(evaluate, name)
    assert model.column_names == reference.load(name).names
    np.testing.assert_allclose(columns[:-1], draws, rtol=1e-10)


@pytest.mark.parametrize("name", models.NAMES)
def test_positions_lie_in_the_support(name):
    model, _, _, positions, _ = or_skip(evaluate, name)
    assert model.name == name
    assert model.support.keys() == model.init.keys()
    for parameter, constraint in model.support.items():
        for point in np.asarray(positions[parameter]):
            assert np.all(INSIDE[constraint](point)), parameter


@pytest.mark.parametrize("K_m", [0.002, 1.0, 50.0])
def test_concentration_against_an_adaptive_solver(K_m):
    k_a, V_m, dose, volume, times = 0.75, 0.9, 30.0, 2.0, np.arange(1, 21) / 2

    def slope(t, c):
        return dose * k_a / volume * np.exp(-k_a * t) - V_m / volume * c / (K_m + c)

    exact = solve_ivp(slope, (0, times[-1]), [0.0], "Radau", times, rtol=1e-9, atol=1e-12).y[0]
    log_c = _log_concentration()(k_a, K_m, V_m, dose, volume, times)
    np.testing.assert_allclose(log_c, np.log(exact), atol=1e-6)


@functools.cache
def _log_concentration():
    return jax.jit(log_concentration)


def test_concentration_stays_positive_when_the_drug_is_used_up():
    log_c = _log_concentration()(2.0, 1e-3, 50.0, 30.0, 2.0, np.arange(1, 21) / 2)
    assert np.isfinite(log_c).all()
    assert np.all(np.diff(log_c) < 0)


def test_populations_against_an_adaptive_solver():
    theta, z_init, times = np.array([0.55, 0.028, 0.8, 0.024]), np.array([33.8, 5.9]), np.arange(1.0, 21.0)

    def slope(t, z):
        a, b, c, d = theta
        return [(a - b * z[1]) * z[0], (-c + d * z[0]) * z[1]]

    exact = solve_ivp(slope, (0, 20), z_init, "DOP853", times, rtol=1e-10, atol=1e-10).y.T
    np.testing.assert_allclose(jax.jit(log_populations)(theta, z_init, times), np.log(exact), atol=2e-6)


def test_unknown_model_is_refused():
    with pytest.raises(ValueError, match="wanted one of arK-arK, .* given 'arK'"):
        models.load("arK")


CHAINS = [{"mu": [0.0, 1.0, 2.0], "x[1]": [5.0, 5.0, 8.0]}, {"mu": [3.0, 4.0, 5.0], "x[1]": [6.0, 7.0, 5.0]}]
DRAWS = np.array([[0, 5], [1, 5], [2, 8], [3, 6], [4, 7], [5, 5]], float)


def write_zip(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file.with_name(file.name + ".zip"), "w") as archive:
        archive.writestr(file.name, json.dumps(content))


def checkout(root):
    """A posteriordb checkout with one posterior "d-m"."""
    database = root / "posterior_database"
    (database / "posteriors").mkdir(parents=True)
    record = {"name": "d-m", "data_name": "d", "reference_posterior_name": "d-n"}
    (database / "posteriors" / "d-m.json").write_text(json.dumps(record))
    write_zip(database / "data" / "data" / "d.json", {"N": 2, "y": [1, 2]})
    write_zip(database / "reference_posteriors" / "draws" / "draws" / "d-n.json", CHAINS)


def pack(root):
    """A pack with the same posterior, the columns of its draws in another order than those of its summary."""
    folder = root / "d-m"
    folder.mkdir()
    (folder / "data.json").write_text(json.dumps({"N": 2, "y": [1, 2]}))
    rows = [
        {"name": name, "mean": x.mean(), "sd": x.std(ddof=1)}
        | {key: np.quantile(x, q) for key, q in (("q05", 0.05), ("q50", 0.5), ("q95", 0.95))}
        for name, x in zip(("mu", "x[1]"), DRAWS.T, strict=True)
    ]
    (folder / "reference.json").write_text(json.dumps({"columns": rows}))
    np.savez(folder / "draws.npz", draws=DRAWS[:, ::-1], names=np.array(["x[1]", "mu"]))


@pytest.mark.parametrize("layout", [checkout, pack])
@pytest.mark.parametrize("way", ["argument", "variable"])
def test_both_layouts_are_read(layout, way, tmp_path, monkeypatch):
    layout(tmp_path)
    monkeypatch.setenv(reference.VARIABLE, str(tmp_path if way == "variable" else tmp_path / "nothing"))
    path = tmp_path if way == "argument" else None
    assert reference.names(path) == ("d-m",)
    assert reference.load_data("d-m", path) == {"N": 2, "y": [1, 2]}
    found = reference.load("d-m", path, columns=("x[1]", "mu"))
    assert found.names == ("x[1]", "mu")
    np.testing.assert_array_equal(found.draws, DRAWS[:, ::-1])
    np.testing.assert_allclose(found.mean, [6.0, 2.5])
    np.testing.assert_allclose(found.sd, [np.sqrt(1.6), np.sqrt(3.5)])
    np.testing.assert_allclose(found.q50, [5.5, 2.5])
    with pytest.raises(ValueError, match=r"wanted columns \['tau'\] of d-m, the reference has \['mu', 'x\[1\]'\]"):
        reference.load("d-m", path, columns=("mu", "tau"))
    with pytest.raises(FileNotFoundError, match=r"d-m.*check\.json"):
        reference.load_check("d-m", path)


def test_says_what_to_do_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv(reference.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"nowhere.*git clone .* and set ELBOJAX_POSTERIORDB"):
        reference.find()
