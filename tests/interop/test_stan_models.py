"""Stan programs as models: names, shapes and space of the parameters, transformed and generated quantities, leave-one-out."""

import subprocess
import sys

import jax
import numpy as np
import pytest

import elbojax

pytest.importorskip("stanli")
pytest.importorskip("bridgestan")
KEY = jax.random.key(0)
SCHOOLS = {
    "J": 8,
    "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
}
EIGHT_SCHOOLS = """
data { int<lower=0> J; array[J] real y; array[J] real<lower=0> sigma; }
parameters { real mu; real<lower=0> tau; vector[J] z; }
transformed parameters { vector[J] theta = mu + tau * z; }
model { mu ~ normal(0, 5); tau ~ cauchy(0, 5); z ~ std_normal(); y ~ normal(theta, sigma); }
generated quantities {
  vector[J] log_lik; vector[J] y_rep;
  for (j in 1:J) { log_lik[j] = normal_lpdf(y[j] | theta[j], sigma[j]); y_rep[j] = normal_rng(theta[j], sigma[j]); }
}
"""
SHAPES = """
parameters { matrix[2, 3] A; simplex[3] w; cholesky_factor_corr[2] L; array[2] vector[3] b; }
model {
  for (i in 1:2) for (j in 1:3) A[i, j] ~ normal(10 * i + j, 0.1);
  for (i in 1:2) b[i] ~ normal(i, 0.1);
  w ~ dirichlet([5, 3, 2]'); L ~ lkj_corr_cholesky(2);
}
"""


@pytest.fixture(scope="module")
def schools():
    return elbojax.fit_model(KEY, elbojax.from_stan(stan_code=EIGHT_SCHOOLS, data=SCHOOLS))


def test_the_answer_is_in_the_space_of_the_parameters(schools):
    assert schools.certificate.certified and set(schools.mean()) == {"mu", "tau", "z"}
    assert float(schools.mean()["mu"]) == pytest.approx(4.4, abs=0.2)
    assert float(schools.mean()["tau"]) == pytest.approx(3.6, abs=0.2)
    assert schools.mean()["z"].shape == (8,) and "tau" in str(schools) and "unconstrained" not in str(schools)
    theta = schools.evaluate().mean()["theta"]
    draws = schools._positions()
    weights = np.exp(schools.log_weights)
    exact = weights @ (draws["mu"][:, None] + draws["tau"][:, None] * draws["z"])
    np.testing.assert_allclose(theta, exact, rtol=1e-6)


def test_generated_quantities(schools):
    new = schools.predict(jax.random.key(1), num_samples=500)
    assert set(new) == {"y_rep"} and new["y_rep"].shape == (500, 8)
    np.testing.assert_allclose(
        new["y_rep"].std(0), np.hypot(schools.evaluate().sd()["theta"], SCHOOLS["sigma"]), rtol=0.15
    )
    assert not np.array_equal(new["y_rep"], schools.predict(jax.random.key(2), num_samples=500)["y_rep"])
    found = elbojax.loo(schools)
    assert found.elpd == pytest.approx(-30.7, abs=0.3) and len(found.pointwise) == 8  # as of the same model in NumPyro
    pytest.importorskip("arviz_base")
    tree = schools.to_arviz(num_samples=100, dims={"theta": ["school"]}, coords={"school": list("ABCDEFGH")})
    assert tree["posterior"]["theta"].dims == ("chain", "draw", "school")
    assert tree["log_likelihood"]["log_lik"].shape == (1, 100, 8)


def test_shapes_of_all_kinds():
    fit = elbojax.fit_model(KEY, elbojax.from_stan(stan_code=SHAPES))
    mean = fit.mean()
    rows = 10 * np.arange(1, 3)[:, None] + np.arange(1, 4)
    np.testing.assert_allclose(mean["A"], rows, atol=0.02)
    np.testing.assert_allclose(mean["b"], np.arange(1, 3)[:, None] * np.ones(3), atol=0.02)
    np.testing.assert_allclose(mean["w"], [0.5, 0.3, 0.2], atol=0.02)
    assert mean["L"].shape == (2, 2) and mean["L"][0, 1] == 0 and mean["L"][0, 0] == 1
    # stanli leaves out the constants of sampling statements.
    assert np.isnan(fit.certificate.log_evidence) and "lacks its constants" in str(fit)
    written = fit.model.natural(np.zeros((2, fit.model.log_density.size)))
    assert written["A"].shape == (2, 2, 3) and written["b"].shape == (2, 2, 3)


def test_a_stan_model_is_taken_as_it_is_and_files_too(tmp_path):
    import stanli

    code = "data { int N; vector[N] y; } parameters { real m; } model { m ~ normal(0, 10); y ~ normal(m, 1); }"
    y = np.array([1.2, 0.4, 2.9])
    model = stanli.bridgestan_model(stan_code=code, data={"N": 3, "y": y.tolist()})
    (tmp_path / "model.stan").write_text(code)
    by_file = elbojax.from_stan(stan_file=tmp_path / "model.stan", data={"N": 3, "y": y})
    for fit in (elbojax.fit_model(KEY, model), elbojax.fit_model(KEY, by_file)):
        assert float(fit.mean()["m"]) == pytest.approx(y.sum() / 3.01, abs=0.02)
        fit.save(tmp_path / "fit.npz")
        assert elbojax.load(tmp_path / "fit.npz").mean()["m"] == fit.mean()["m"]
    with pytest.raises(ValueError, match="log-density is that of Stan"):
        fit.target.log_density(np.zeros(1), None)
    with pytest.raises(ValueError, match="log_likelihood needs 'log_likelihood' of the model"):
        elbojax.loo(fit)


def test_misuse(monkeypatch):
    with pytest.raises(TypeError, match="one of: a bridgestan.StanModel, stan_file=, stan_code="):
        elbojax.from_stan()
    with pytest.raises(TypeError, match="StanModel is wanted, got a dict"):
        elbojax.from_stan({})
    monkeypatch.setitem(sys.modules, "stanli", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'elbojax\[stan\]'"):
        elbojax.from_stan(stan_code=EIGHT_SCHOOLS)


AFTER_JAX = """
import jax, jax.numpy as jnp, elbojax
if {first}:
    elbojax.from_stan(stan_code="{code}")
x = jnp.ones((300, 300))
jax.block_until_ready(x @ x)
try:
    print(elbojax.from_stan(stan_code="{code}"))
except RuntimeError as error:
    assert not {first}
    print(error)
"""


@pytest.mark.parametrize("first", [False, True])
def test_after_matrix_products_of_jax_it_works_or_says_why_not(first):
    """Where the processor has a matrix unit, stanli's compiler would end the process."""
    program = AFTER_JAX.format(code="parameters { real m; } model { m ~ normal(0, 1); }", first=first)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "parameters m" in run.stdout or (not first and "before the first computation by JAX" in run.stdout)
