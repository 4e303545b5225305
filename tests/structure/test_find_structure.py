"""`find_structure`: what is found of the models that people write, what is said of it, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax.bijectors import interval

KEY = jax.random.key(0)
POSITIVE = ("tau", "sigma", "t1", "t2", "q", "s", "eta", "ell")


def normal(x, mean, sd):
    return -0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd)


def softplus(x):
    return jnp.logaddexp(0.0, x)


def find(log_density, init, data=None, seed=0, **more):
    support = {name: "positive" for name in POSITIVE if isinstance(init, dict) and name in init} | more.pop(
        "support", {}
    )
    return elbojax.find_structure(jax.random.key(seed), log_density, init, data=data, support=support or None, **more)


def words(structure, part):
    return {structure.names[i] for i in part}


def groups(number=85, rows=8, seed=0):
    """Group of each row, regressor, a Gaussian and a Poisson response, with group means."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(number), rows)
    effect = 1 + 0.3 * rng.standard_normal(number)
    x = rng.standard_normal(len(group))
    y = effect[group] + 0.75 * rng.standard_normal(len(group))
    return group, x, y, rng.poisson(np.exp(effect[group])).astype(float)


def intercepts(z, data):
    group, x, y, _ = data
    prior = jnp.sum(normal(z["alpha"], z["mu"], z["tau"])) + normal(z["mu"], 0.0, 10.0) - z["tau"] - z["sigma"]
    return prior + normal(z["beta"], 0.0, 10.0) + jnp.sum(normal(y, z["alpha"][group] + z["beta"] * x, z["sigma"]))


def intercepts_start(number):
    return {"mu": 0.0, "tau": 1.0, "sigma": 1.0, "beta": 0.0, "alpha": jnp.zeros(number)}


def test_random_intercepts():
    found = find(intercepts, intercepts_start(85), groups())
    assert words(found, found.leading) == {"tau", "sigma"}
    assert words(found, found.border) == {"mu", "beta"}
    assert found.kind == "single" and len(found.components) == 85
    assert repr(found) == ("2 leading: sigma, tau; 2 border: beta, mu; 85 independent components of size 1: alpha")
    assert found.size == 89 and found.pattern.shape == (89, 89) and not found.varies
    assert found.num_gradients < 4 * 89 + 500


def slopes(z, data):
    group, x, y, _ = data
    u, v = ((z["ab"] - z["mu"]) / z["tau"]).T
    rho = z["rho"]
    each = -0.5 * (u * u - 2 * rho * u * v + v * v) / (1 - rho**2) - 0.5 * jnp.log(1 - rho**2)
    prior = jnp.sum(each) - len(u) * jnp.sum(jnp.log(z["tau"])) - jnp.sum(z["tau"]) - z["sigma"]
    a, b = z["ab"].T
    return prior + jnp.sum(normal(z["mu"], 0.0, 10.0)) + jnp.sum(normal(y, a[group] + b[group] * x, z["sigma"]))


def test_growth_curves_have_blocks_of_two():
    init = {"mu": jnp.zeros(2), "tau": jnp.ones(2), "rho": 0.0, "sigma": 1.0, "ab": jnp.zeros((30, 2))}
    found = find(slopes, init, groups(30), support={"rho": interval(-1.0, 1.0)})
    assert words(found, found.leading) == {"tau[0]", "tau[1]", "rho", "sigma"}
    assert words(found, found.border) == {"mu[0]", "mu[1]"}
    assert found.kind == "block" and len(found.components) == 30
    assert {words(found, part) == {f"ab[{i},0]", f"ab[{i},1]"} for i, part in enumerate(found.components)} == {True}
    assert found.bandwidths.tolist() == [1] * 30


def poisson(z, data):
    group, _, _, counts = data
    eta = z["alpha"][group]
    prior = jnp.sum(normal(z["alpha"], z["mu"], z["tau"])) + normal(z["mu"], 0.0, 10.0) - z["tau"]
    return prior + jnp.sum(counts * eta - jnp.exp(eta))


def test_poisson_with_group_effects():
    found = find(poisson, {"mu": 0.0, "tau": 1.0, "alpha": jnp.zeros(40)}, groups(40))
    assert words(found, found.leading) == {"tau"} and words(found, found.border) == {"mu"}
    assert found.kind == "single" and len(found.components) == 40


def crossed(z, data):
    row, column, y = data
    mean = z["mu"] + z["row"][row] + z["column"][column]
    effects = jnp.sum(normal(z["row"], 0.0, z["t1"])) + jnp.sum(normal(z["column"], 0.0, z["t2"]))
    prior = normal(z["mu"], 0.0, 10.0) - z["t1"] - z["t2"]
    if "s" in z:
        return effects + prior - z["s"] + jnp.sum(normal(y, mean, z["s"]))
    return effects + prior + jnp.sum((y > 0) * mean - softplus(mean))


@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(80, 16), (30, 12)])
def test_the_smaller_of_crossed_factors_is_the_border(gaussian, rows, columns):
    rng = np.random.default_rng(1)
    row, column = np.repeat(np.arange(rows), columns), np.tile(np.arange(columns), rows)
    y = rng.standard_normal(rows)[row] + rng.standard_normal(columns)[column] + rng.standard_normal(rows * columns)
    init = {"mu": 0.0, "t1": 1.0, "t2": 1.0, "row": jnp.zeros(rows), "column": jnp.zeros(columns)}
    found = find(crossed, init | ({"s": 1.0} if gaussian else {}), (row, column, y))
    wanted = {"t1", "t2"} | ({"s"} if gaussian else set())
    assert wanted <= words(found, found.leading) <= wanted | {"mu"}
    assert {f"column[{i}]" for i in range(columns)} <= words(found, found.border)
    assert found.kind == "single" and len(found.components) == rows


def walk(z, y):
    x = z["x"]
    prior = jnp.sum(normal(x[1:], x[:-1], z["q"])) + normal(x[0], 0.0, 10.0) - z["q"] - z["s"]
    return prior + jnp.sum(normal(y, x, z["s"]))


def summed(z, y):
    return -0.5 * jnp.sum(z["e"] ** 2) - z["q"] - z["s"] + jnp.sum(normal(y, z["q"] * jnp.cumsum(z["e"]), z["s"]))


def test_a_random_walk_is_a_band_where_it_is_centred():
    rng = np.random.default_rng(2)
    y = np.cumsum(0.3 * rng.standard_normal(60)) + rng.standard_normal(60)
    found = find(walk, {"x": jnp.zeros(60), "q": 1.0, "s": 1.0}, y)
    assert words(found, found.leading) == {"q", "s"} and found.kind == "band" and found.bandwidths.tolist() == [1]
    assert "half bandwidth 1" in repr(found) and not found.note

    other = find(summed, {"e": jnp.zeros(60), "q": 1.0, "s": 1.0}, y)
    assert other.kind == "dense" and "centred" in repr(other)


def test_an_order_that_is_not_the_users():
    rng = np.random.default_rng(3)
    place = rng.permutation(50)
    log_density = lambda z, y: walk(z | {"x": z["x"][place]}, y)  # noqa: E731
    found = find(log_density, {"x": jnp.zeros(50), "q": 1.0, "s": 1.0}, rng.standard_normal(50))
    assert found.kind == "band" and found.bandwidths.tolist() == [1]
    (part,) = found.components
    inside = np.array([int(found.names[i][2:-1]) for i in part])
    assert inside.tolist() in (place.tolist(), place[::-1].tolist())


def test_a_gaussian_process_is_dense_and_its_hyperparameters_lead():
    x = np.linspace(0, 1, 25)
    counts = np.random.default_rng(4).poisson(np.exp(1 + np.sin(6 * x)))

    def log_density(z, data):
        x, counts = data
        kernel = z["eta"] ** 2 * jnp.exp(-0.5 * ((x[:, None] - x) / z["ell"]) ** 2) + 1e-4 * jnp.eye(25)
        factor = jnp.linalg.cholesky(kernel)
        u = jax.scipy.linalg.solve_triangular(factor, z["f"], lower=True)
        eta = z["f"] + z["mu"]
        prior = -0.5 * u @ u - jnp.sum(jnp.log(jnp.diag(factor))) - z["eta"] - z["ell"] - 0.5 / z["ell"]
        return prior + normal(z["mu"], 0.0, 3.0) + jnp.sum(counts * eta - jnp.exp(eta))

    found = find(log_density, {"f": jnp.zeros(25), "mu": 0.0, "eta": 1.0, "ell": 0.3}, (x, counts))
    assert words(found, found.leading) == {"eta", "ell"}
    assert found.kind == "dense" and [len(part) for part in found.components] == [26]


def test_a_regression_has_no_structure():
    rng = np.random.default_rng(5)
    design = rng.standard_normal((200, 12))
    y = (design @ rng.standard_normal(12) + rng.logistic(size=200) > 0).astype(float)

    def log_density(z, data):
        eta = data[0] @ z["b"] + z["a"]
        return jnp.sum(data[1] * eta - softplus(eta)) - 0.5 * jnp.sum(z["b"] ** 2) - 0.5 * z["a"] ** 2

    found = find(log_density, {"a": 0.0, "b": jnp.zeros(12)}, (design, y))
    assert not len(found.leading) and not len(found.border) and found.kind == "dense"
    assert repr(found) == "no structure: dense, 13 coordinates"


def funnel(z):
    return -(z[0] ** 2) / 18 - 0.5 * jnp.sum(z[1:] ** 2) * jnp.exp(-z[0]) - 0.5 * (len(z) - 1) * z[0]


def test_a_funnel_in_one_vector():
    found = find(funnel, jnp.zeros(10))
    assert found.leading.tolist() == [0] and len(found.components) == 9 and found.kind == "single"
    assert "z[0]" in repr(found) and "z (9 of 10)" in repr(found)


def test_independent_coordinates():
    found = find(lambda z: -jnp.sum(z["a"] ** 4 + z["a"] ** 2), {"a": jnp.ones(5)})
    assert found.kind == "single" and not len(found.leading) and len(found.components) == 5
    assert repr(found) == "nothing leading; 5 independent components of size 1: a"


def test_one_coordinate():
    found = find(lambda z: -(z**2), 1.0)
    assert found.size == 1 and [part.tolist() for part in found.components] == [[0]]


def test_what_is_neither_curved_nor_coupled():
    found = find(lambda z: -jnp.sum(z["a"]) - z["b"] ** 2, {"a": jnp.ones(3), "b": 0.0}, support={"a": "positive"})
    assert found.kind == "single" and len(found.components) == 4


@pytest.mark.parametrize("seed", range(3))
def test_every_key_and_start_finds_the_same(seed):
    init = intercepts_start(20) | {
        "mu": 3.0,
        "tau": 0.1,
        "alpha": 3 + 0.1 * np.random.default_rng(seed).standard_normal(20),
    }
    found = find(intercepts, init, groups(20), seed=seed)
    assert words(found, found.leading) == {"tau", "sigma"} and words(found, found.border) == {"mu", "beta"}


@pytest.mark.parametrize("latent", [{"alpha": True}, {"alpha": True, "mu": False}, "alpha", ["alpha"], ("alpha",)])
def test_the_user_says_what_is_latent(latent):
    found = find(intercepts, intercepts_start(12), groups(12), latent=latent)
    assert words(found, found.leading) == {"mu", "tau", "sigma", "beta"} and not len(found.border)
    assert len(found.components) == 12


def test_what_is_said_to_be_latent_may_have_a_border():
    found = find(intercepts, intercepts_start(30), groups(30), latent=["alpha", "mu"])
    assert words(found, found.border) == {"mu"} and words(found, found.leading) == {"tau", "sigma", "beta"}


@pytest.mark.parametrize(
    ("latent", "error", "says"),
    [
        ({"gamma": True}, ValueError, "gamma"),
        (["gamma"], ValueError, "alpha"),
        ({"alpha": 3}, TypeError, "True and False"),
        ([True, False], TypeError, "True and False"),
        (1.0, TypeError, "True and False"),
    ],
)
def test_what_cannot_be_latent(latent, error, says):
    with pytest.raises(error, match=says):
        find(intercepts, intercepts_start(5), groups(5), latent=latent)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: elbojax.find_structure(0, funnel, jnp.zeros(3)), TypeError, "key"),
        (lambda: elbojax.find_structure(KEY, 3, jnp.zeros(3)), TypeError, "log_density"),
        (lambda: elbojax.find_structure(KEY, funnel, jnp.zeros(3, int)), TypeError, "floating"),
        (lambda: elbojax.find_structure(KEY, lambda z, d: z, 0.0, data=[1.0, 2.0]), TypeError, "np.asarray"),
        (lambda: elbojax.find_structure(KEY, lambda z: jnp.log(z), -1.0), ValueError, "another start"),
        (lambda: elbojax.find_structure(KEY, lambda z: -z, -1.0, support="positive"), ValueError, "support"),
        (lambda: jax.jit(lambda z: elbojax.find_structure(KEY, funnel, z).size)(jnp.zeros(3)), TypeError, "host"),
    ],
)
def test_misuse(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_data_and_closures_count_at_every_call():
    seen = {}

    def log_density(z):
        seen["traces"] = seen.get("traces", 0) + 1
        return -jnp.sum(z**2) - jnp.sum((weights @ z) ** 2)

    weights = np.zeros((1, 4))
    assert len(find(log_density, jnp.zeros(4)).components) == 4
    weights = np.array([[1.0, 1.0, 0.0, 0.0]])
    assert [len(part) for part in find(log_density, jnp.zeros(4)).components] == [2, 1, 1]

    of_data = lambda z, data: -jnp.sum(z**2) - jnp.sum((data @ z) ** 2)  # noqa: E731
    for matrix, sizes in ((np.zeros((1, 3)), [1, 1, 1]), (np.array([[1.0, 0.0, 1.0]]), [2, 1])):
        assert [len(part) for part in find(of_data, jnp.zeros(3), matrix).components] == sizes


def test_in_single_precision():
    with jax.enable_x64(False):
        found = find(poisson, {"mu": 0.0, "tau": 1.0, "alpha": jnp.zeros(20)}, groups(20))
    assert words(found, found.leading) == {"tau"} and len(found.components) == 20


def test_a_branch_that_adds_entries():
    def log_density(z):
        return -jnp.sum(z**2) - jnp.where(z[0] > 0.2, (z[1] * z[2]) ** 2, 0.0)

    found = [elbojax.find_structure(jax.random.key(seed), log_density, jnp.zeros(4)) for seed in range(40)]
    entries = {int(structure.pattern.nnz) for structure in found}
    assert 6 in entries and any(structure.varies for structure in found)
    assert not any(structure.varies and structure.pattern.nnz == 4 for structure in found)


def items(z, data):
    """Hierarchical two-parameter logistic model, with correlated items: persons and items are crossed."""
    item, person, y = data
    eta = jnp.exp(z["a"])[item] * (z["theta"][person] - z["b"][item])
    u, v = (z["a"] - z["mu"][0]) / z["tau"][0], (z["b"] - z["mu"][1]) / z["tau"][1]
    rest = 1 - z["rho"] ** 2
    each = -0.5 * (u * u - 2 * z["rho"] * u * v + v * v) / rest - 0.5 * jnp.log(rest) - jnp.sum(jnp.log(z["tau"]))
    prior = jnp.sum(each) - 0.5 * jnp.sum(z["theta"] ** 2) - 0.5 * jnp.sum(z["mu"] ** 2) - jnp.sum(z["tau"])
    return prior + 3 * jnp.log(rest) + jnp.sum(y * eta - softplus(eta))


def test_item_response():
    rng = np.random.default_rng(6)
    persons, number = 120, 22
    person, item = np.repeat(np.arange(persons), number), np.tile(np.arange(number), persons)
    theta, a, b = rng.standard_normal(persons), 0.3 * rng.standard_normal(number), rng.standard_normal(number)
    y = (rng.logistic(size=len(item)) < np.exp(a)[item] * (theta[person] - b[item])).astype(float)
    init = {"theta": jnp.zeros(persons), "a": jnp.zeros(number), "b": jnp.zeros(number)}
    init |= {"mu": jnp.zeros(2), "tau": jnp.ones(2), "rho": 0.0}
    found = find(items, init, (item, person, y), support={"rho": interval(-1.0, 1.0)})
    assert words(found, found.leading) == {"rho", "tau[0]", "tau[1]"}
    assert {f"{leaf}[{i}]" for leaf in "ab" for i in range(number)} | {"mu[0]", "mu[1]"} == words(found, found.border)
    assert found.kind == "single" and len(found.components) == persons


def test_robust_effects_stay_latent():
    def log_density(z, y):
        prior = jnp.sum(-2.5 * jnp.log1p(((z["theta"] - z["mu"]) / z["tau"]) ** 2 / 4) - jnp.log(z["tau"]))
        return prior + jnp.sum(normal(y, z["theta"], 10.0)) + normal(z["mu"], 0.0, 10.0) - 0.1 * z["tau"]

    y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    found = find(log_density, {"mu": 0.0, "tau": 5.0, "theta": jnp.zeros(8)}, y)
    assert len(found.components) == 8 and found.kind == "single"
    assert "tau" in words(found, found.leading)


def test_large_ones_take_few_gradients():
    rng = np.random.default_rng(7)
    found = find(walk, {"x": jnp.zeros(5000), "q": 1.0, "s": 1.0}, rng.standard_normal(5000))
    assert words(found, found.leading) == {"q", "s"} and found.kind == "band" and found.num_gradients < 300
    found = find(poisson, {"mu": 0.0, "tau": 1.0, "alpha": jnp.zeros(3000)}, groups(3000, 3))
    assert words(found, found.leading) == {"tau"} and len(found.components) == 3000 and found.num_gradients < 300


def test_too_large_without_a_sparse_pattern():
    with pytest.raises(ValueError, match="20,001 numbers.*centred"):
        find(lambda z: -jnp.sum(jnp.cumsum(z) ** 2), jnp.zeros(20_001))


def test_large_and_dense_takes_no_products():
    found = find(lambda z: -jnp.sum(jnp.cumsum(z["x"]) ** 2) - jnp.sum(z["x"] ** 4), {"x": jnp.zeros(600)})
    assert found.kind == "dense" and found.num_gradients < 100 and "latent=" in repr(found)


def test_a_pattern_that_lacks_entries_is_found_out(monkeypatch):
    import scipy.sparse as sp

    from elbojax.structure import find as module

    monkeypatch.setattr(
        module, "traced", lambda target, data: (sp.csr_array(sp.eye_array(target.size, dtype=bool)), True)
    )
    found = find(walk, {"x": jnp.zeros(50), "q": 1.0, "s": 1.0}, np.random.default_rng(8).standard_normal(50))
    assert found.kind == "band" and words(found, found.leading) == {"q", "s"}
