"""`fit`: its contract, its accuracy against closed forms and quadrature, and its honesty where there is no answer."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import elbojax
from elbojax import Status
from elbojax.results import Stage
from elbojax.results.certificate import report

KEY = 7
MOST, FAR = 200_000, 20_000_000
"""Gradients, of fits that end without an answer: the worst take 75,000; the second where there is none to follow (6,700,000)."""


# ---- contract


def model(position, data):
    """Three means, a scale, and a table of weights that data has nothing to say about."""
    resid = (data["y"] - position["mu"]) / position["tau"]
    likelihood = -0.5 * jnp.sum(resid**2) - data["y"].size * jnp.log(position["tau"])
    prior = -0.5 * jnp.sum(position["mu"] ** 2) / 100 - position["tau"] - 0.5 * jnp.sum(position["w"] ** 2)
    return likelihood + prior


TRACES = []


def counted_model(position, data):
    TRACES.append(1)
    return model(position, data)


INIT = {"mu": np.zeros(3), "tau": 1.0, "w": np.zeros((2, 2))}
SUPPORT = {"tau": "positive"}


def observations(seed):
    return {"y": np.random.default_rng(seed).normal(size=(8, 3)) * 2 + [1.0, 0, -5]}


@functools.cache
def contract_fit(seed=0):
    return elbojax.fit(jax.random.key(KEY), counted_model, INIT, data=observations(seed), support=SUPPORT)


def test_gives_back_pytrees_like_init():
    fit = contract_fit()
    draws, mean, sd = fit.sample(jax.random.key(1), 50), fit.mean(), fit.sd()
    shapes = {"mu": (3,), "tau": (), "w": (2, 2)}
    for name, shape in shapes.items():
        assert draws[name].shape == (50, *shape)
        assert mean[name].shape == sd[name].shape == shape
        assert draws[name].dtype == mean[name].dtype == sd[name].dtype == jnp.result_type(float)
        assert np.all(sd[name] > 0)
    assert draws.keys() == mean.keys() == sd.keys() == shapes.keys()
    assert np.all(draws["tau"] > 0), "draws are in the space of the user"
    assert 1 < mean["tau"] < 4


def test_draws_have_the_moments_that_are_stated():
    fit = contract_fit()
    draws = fit.sample(jax.random.key(1), 4000)
    for name in INIT:
        error = (np.mean(draws[name], axis=0) - fit.mean()[name]) / fit.sd()[name]
        np.testing.assert_allclose(error, 0, atol=0.05)
        np.testing.assert_allclose(np.std(draws[name], axis=0) / fit.sd()[name], 1, atol=0.05)


def test_q_is_a_family_on_flat_vectors():
    q = contract_fit().q
    assert isinstance(q, elbojax.families.Family)
    event, log_prob = q.sample_and_log_prob(jax.random.key(0))
    assert event.shape == (8,) and log_prob.shape == ()
    np.testing.assert_allclose(q.log_prob(event), log_prob, rtol=1e-6)


def test_certificate_is_a_record_of_scalars():
    c = contract_fit().certificate
    assert c.certified is True and c.khat < 0.7 and c.ess > 400
    assert c.status is Status.CONVERGED and str(c.status) == "converged"
    assert c.stage in (Stage.FULL_RANK, Stage.STUDENT_T) and str(c.stage) in ("full_rank", "student_t")
    for name, value in c._asdict().items():
        assert np.ndim(value) == 0, name
        assert np.isfinite(value), name
    assert c.elbo <= c.log_evidence + 3 * c.log_evidence_se <= c.upper_bound + 0.1
    assert c.num_gradients > 0 and c.num_log_densities >= 4096


def test_the_report_can_be_read():
    text = str(contract_fit())
    for words in ("8 parameters", "mu[0]", "tau ", "w[1,1]", "certified", "ELBO", "log p(x)", "k-hat", "gradients"):
        assert words in text, words
    assert "NOT" not in text and "next step" not in text and "nan" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_report_says_how_the_starts_agree():
    assert "no path ended in another mode" in str(contract_fit())
    trouble = dict(certified=False, status=Status.MULTIMODAL)
    for modes, words in (
        (2, ("1 of the paths ended in another mode", "two modes")),
        (4, ("3 of the paths ended in", "several modes")),
    ):
        text = report(contract_fit().certificate._replace(modes=modes, **trouble), "")
        assert all(word in text for word in words) and "NOT certified (multimodal)" in text


def test_same_key_same_answer():
    arguments = dict(data=observations(0), support=SUPPORT)
    same = elbojax.fit(jax.random.key(KEY), counted_model, INIT, **arguments)
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(contract_fit()), strict=True):
        np.testing.assert_array_equal(a, b)
    other = elbojax.fit(jax.random.key(KEY + 1), counted_model, INIT, **arguments)
    assert np.any(other.draws != same.draws)
    np.testing.assert_allclose(other.certificate.log_evidence, same.certificate.log_evidence, atol=0.05)


def test_new_data_of_the_same_shapes_compile_nothing():
    def everything(seed):
        fit = elbojax.fit(jax.random.key(seed), counted_model, INIT, data=observations(seed), support=SUPPORT)
        fit.sample(jax.random.key(1), 50)
        return fit.mean(), fit.sd(), str(fit)

    everything(0)
    traces, compiled = len(TRACES), []
    listener = lambda event, seconds, **_: compiled.append(event)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        everything(1)
        assert not [event for event in compiled if "backend_compile" in event]
        assert len(TRACES) - traces <= 1, "one look at what the function returns, for which nothing is compiled"
        jax.jit(lambda x: x + len(compiled))(1.0)
        assert [event for event in compiled if "backend_compile" in event], "the listener is deaf"
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)


def test_progress_tells_each_stage(capsys):
    elbojax.fit(jax.random.key(KEY), counted_model, INIT, data=observations(0), support=SUPPORT, progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) in (2, 3) and "seconds: " in lines[-1]  # with a second look or without
    assert "full_rank: certified" in lines[0] and "k-hat" in lines[0]
    elbojax.fit(jax.random.key(KEY), counted_model, INIT, data=observations(0), support=SUPPORT)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("x64", (False, True))
def test_leaves_the_precision_setting_alone(x64):
    with jax.enable_x64(x64), warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = elbojax.fit(jax.random.key(KEY), counted_model, INIT, data=observations(0), support=SUPPORT)
        assert jax.config.jax_enable_x64 == x64 and jnp.ones(1).dtype == ("float64" if x64 else "float32")
        draws = fit.sample(jax.random.key(1), 10)
        given = jax.tree.leaves((draws, fit.mean(), fit.sd(), fit.q))
        assert {leaf.dtype for leaf in given} == {jnp.result_type(float)}
        assert jnp.isfinite(fit.q.log_prob(fit.q.sample(jax.random.key(2))))
        assert "certified" in str(fit)
    # float64 inside, whatever is outside: the answers differ by rounding alone.
    np.testing.assert_allclose(fit.mean()["mu"], contract_fit().mean()["mu"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fit.certificate.elbo, contract_fit().certificate.elbo, rtol=1e-5)


# ---- accuracy


def gamma():
    shape, rate = 3.5, 2.0
    exact = scipy.stats.gamma(shape, scale=1 / rate)
    evidence = scipy.special.gammaln(shape) - shape * np.log(rate)
    return (lambda z: (shape - 1) * jnp.log(z) - rate * z), 1.0, "positive", exact.mean(), exact.std(), evidence


def beta():
    exact = scipy.stats.beta(2.5, 4.0)
    log_density = lambda z: 1.5 * jnp.log(z["p"]) + 3.0 * jnp.log1p(-z["p"])  # noqa: E731
    mean, sd = {"p": exact.mean()}, {"p": exact.std()}
    return log_density, {"p": 0.5}, "unit_interval", mean, sd, scipy.special.betaln(2.5, 4.0)


def dirichlet():
    counts = np.array([1.5, 2.0, 4.0])
    exact = scipy.stats.dirichlet(counts)
    evidence = np.sum(scipy.special.gammaln(counts)) - scipy.special.gammaln(counts.sum())
    log_density = lambda z: jnp.sum((counts - 1) * jnp.log(z))  # noqa: E731
    return log_density, np.full(3, 1 / 3), "simplex", exact.mean(), np.sqrt(exact.var()), evidence


def logistic():
    """Intercept and slope, on a grid."""
    x, y = np.array([-2.0, -1.0, -0.5, 0.3, 1.0, 2.5]), np.array([-1.0, -1, 1, -1, 1, 1])

    def log_density(z):
        return jnp.sum(jax.nn.log_sigmoid(y * (z["a"] + z["b"] * x))) - 0.5 * (z["a"] ** 2 + z["b"] ** 2) / 9

    a, b = np.meshgrid(np.linspace(-15, 15, 601), np.linspace(-15, 20, 701), indexing="ij")
    logits = y * (a[..., None] + b[..., None] * x)
    log_p = -np.sum(np.logaddexp(0, -logits), axis=-1) - 0.5 * (a**2 + b**2) / 9
    evidence = scipy.special.logsumexp(log_p) + np.log(30 / 600 * 35 / 700)
    weights = scipy.special.softmax(log_p)
    mean = {"a": np.sum(weights * a), "b": np.sum(weights * b)}
    sd = {name: np.sqrt(np.sum(weights * (grid - mean[name]) ** 2)) for name, grid in (("a", a), ("b", b))}
    return log_density, {"a": 0.0, "b": 0.0}, None, mean, sd, evidence


@pytest.mark.parametrize("case", (gamma, beta, dirichlet, logistic), ids=lambda case: case.__name__)
def test_moments_and_evidence(case):
    log_density, init, support, mean, sd, evidence = case()
    fit = elbojax.fit(jax.random.key(KEY), log_density, init, support=support)
    c = fit.certificate
    assert c.certified, str(fit)
    for found, found_sd, m, s in zip(*map(jax.tree.leaves, (fit.mean(), fit.sd(), mean, sd)), strict=True):
        np.testing.assert_allclose((found - m) / s, 0, atol=0.05)
        np.testing.assert_allclose(found_sd / s, 1, atol=0.05)
    assert c.log_evidence_se < 0.03
    assert abs(c.log_evidence - evidence) < 4 * c.log_evidence_se
    assert c.elbo < evidence + 4 * c.elbo_se


SCALES = np.array([1e-3, 1.0, 1e3])
PRIOR_SHAPE, PRIOR_RATE, PRIOR_SD = 2.0, 1.0, 30.0


def regression(position, data):
    """Coefficients of columns a million apart, and an unknown noise sd, with the conjugate prior."""
    sigma, coefficients = position["sigma"], position["coefficients"]
    n, p = data["x"].shape
    resid = (data["y"] - data["x"] @ coefficients) / sigma
    log_p = -0.5 * jnp.sum(resid**2) - n * jnp.log(sigma)
    log_p += -0.5 * jnp.sum((coefficients * SCALES / (PRIOR_SD * sigma)) ** 2) - p * jnp.log(sigma)
    return log_p - (2 * PRIOR_SHAPE + 1) * jnp.log(sigma) - PRIOR_RATE / sigma**2


def regression_data(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    x[:, 1] += 0.9 * x[:, 0]
    return {"x": x * SCALES, "y": x @ np.array([2.0, -1.5, 1.0]) + 0.7 * rng.normal(size=n)}


def exact_regression(data):
    """Means and sds of the coefficients and of sigma by the normal-inverse-gamma posterior, and log p(y)."""
    x, y, n = data["x"] / SCALES, data["y"], len(data["y"])
    precision = x.T @ x + np.eye(3) / PRIOR_SD**2
    loc = np.linalg.solve(precision, x.T @ y)
    shape = PRIOR_SHAPE + n / 2
    rate = PRIOR_RATE + 0.5 * (y @ y - loc @ precision @ loc)
    sd = np.sqrt(rate / (shape - 1) * np.diag(np.linalg.inv(precision)))
    variance = scipy.stats.invgamma(shape, scale=rate)
    sigma = np.exp(scipy.special.gammaln(shape - 0.5) - scipy.special.gammaln(shape)) * np.sqrt(rate)
    # Of the density as written above, whose constants are left out.
    evidence = scipy.special.gammaln(shape) - shape * np.log(rate) - np.log(2)
    evidence += 1.5 * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(precision)[1] - np.sum(np.log(SCALES))
    return loc / SCALES, sd / SCALES, sigma, np.sqrt(variance.mean() - sigma**2), evidence


@pytest.mark.parametrize(("n", "seed"), [(5, 2), (7, 0), (7, 1), (7, 2), (30, 0), (30, 1)])
def test_small_badly_scaled_regressions(n, seed):
    data = regression_data(n, seed)
    loc, sd, sigma, sigma_sd, evidence = exact_regression(data)
    fit = elbojax.fit(
        jax.random.key(seed),
        regression,
        {"coefficients": np.zeros(3), "sigma": 1.0},
        data=data,
        support={"sigma": "positive"},
    )
    c, mean, found_sd = fit.certificate, fit.mean(), fit.sd()
    assert c.certified, str(fit)
    clear = np.abs(loc) > 0.5 * sd
    assert np.all(np.sign(mean["coefficients"]) == np.sign(loc), where=clear)
    np.testing.assert_allclose((mean["coefficients"] - loc) / sd, 0, atol=0.1)
    np.testing.assert_allclose(found_sd["coefficients"] / sd, 1, atol=0.1)
    np.testing.assert_allclose((mean["sigma"] - sigma) / sigma_sd, 0, atol=0.1)
    np.testing.assert_allclose(found_sd["sigma"] / sigma_sd, 1, atol=0.1)
    assert abs(c.log_evidence - evidence) < 4 * c.log_evidence_se


# ---- honesty


def normal(x, loc, scale):
    return -0.5 * ((x - loc) / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)


def two_modes(z):
    return jnp.logaddexp(
        jnp.log(0.3) + jnp.sum(normal(z, 6.0, 1.0)), jnp.log(0.7) + jnp.sum(normal(z, -4.0, jnp.asarray(0.5)))
    )


def test_two_modes_are_weighed_or_reported():
    """Where paths have ended in both: a mode that none has met stays unseen."""
    seen = 0
    for seed in range(8):
        fit = elbojax.fit(jax.random.key(seed), two_modes, np.zeros(2))
        c = fit.certificate
        if not c.certified:
            assert c.status in (Status.MULTIMODAL, Status.UNRELIABLE)
        if not c.certified or c.modes == 1:
            continue
        seen += 1
        assert c.stage is Stage.MIXTURE
        draws = fit.sample(jax.random.key(0), 4000)
        np.testing.assert_allclose(np.mean(draws[:, 0] > 0), 0.3, atol=0.05)
        np.testing.assert_allclose(fit.mean(), -1.0, atol=0.3)
        assert abs(c.log_evidence) < 4 * c.log_evidence_se
    assert seen >= 2


def funnel(z):
    return normal(z[0], 0.0, 3.0) + jnp.sum(normal(z[1:], 0.0, jnp.exp(z[0] / 2)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", (1, 2))
def test_the_funnel_is_not_certified_wrong(seed):
    fit = elbojax.fit(jax.random.key(seed), funnel, np.zeros(10))
    if fit.certificate.certified:
        assert abs(fit.mean()[0]) < 0.5 * 3 and 0.5 < fit.sd()[0] / 3 < 1.5, str(fit)
    else:
        assert fit.certificate.status is Status.UNRELIABLE and "next step" in str(fit)


def kinked(z):
    return jnp.where(z["sigma"] > 0, -z["sigma"] - 0.5 * z["mu"] ** 2, -jnp.inf)


NO_ANSWER = {
    # name: (log-density, init, the status, words of the report)
    "-inf at the start": (kinked, {"mu": 0.0, "sigma": -1.0}, "non_finite", "-inf at the start: leaf sigma"),
    "NaN everywhere": (lambda z: jnp.nan * jnp.sum(z), np.zeros(2), "non_finite", "NaN at the start"),
    "NaN for a leaf": (
        lambda z: -0.5 * z["a"] ** 2 - 0.5 * jnp.log(z["b"] - 100) ** 2,  # no start that is drawn is above 100
        {"a": 0.0, "b": -9.0},
        "non_finite",
        "NaN at the start",
    ),
    "overflow": (
        lambda z: -0.5 * jnp.sum(z**2) + jnp.float32(1e30) * jnp.float32(1e9),
        np.zeros(2),
        "non_finite",
        "inf at the start",
    ),
    "absorbed": (
        lambda z: jnp.float32(3e38) - 0.5 * jnp.sum(z**2).astype("float32"),
        np.zeros(2),
        "imprecise",
        "drop its constant",
    ),
    "flat": (lambda z: -0.5 * z[1] ** 2, np.zeros(2), "improper", "proper prior"),
    "ridge": (lambda z: -0.5 * (z[0] - z[1]) ** 2, np.zeros(2), "improper", "proper prior"),
    "flat on one side": (
        lambda z: -elbojax.numerics.softplus(z[0]) - 0.5 * z[1] ** 2,
        np.zeros(2),
        "improper",
        "proper prior",
    ),
    "rising": (lambda z: z[0] - 0.5 * z[1] ** 2, np.zeros(2), "improper", "proper prior"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NO_ANSWER)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_says_why_there_is_no_answer(name):
    log_density, init, status, words = NO_ANSWER[name]
    fit = elbojax.fit(jax.random.key(KEY), log_density, init)
    assert fit.certificate.num_gradients < MOST
    assert not fit.certificate.certified
    assert str(fit.certificate.status) == status, str(fit)
    assert f"NOT certified ({status})" in str(fit) and words in str(fit)


def jump(z):
    return -0.5 * jnp.sum(z**2) - 3.0 * (z[0] > 0.3)


def box(z):
    return jnp.where(jnp.abs(z[0]) < 1, 0.0, -jnp.inf) - 0.5 * z[1] ** 2


def jump_moments():
    left, right, density = scipy.stats.norm.cdf(0.3), np.exp(-3) * scipy.stats.norm.sf(0.3), scipy.stats.norm.pdf(0.3)
    mean = -density * (1 - np.exp(-3)) / (left + right)
    return mean, np.sqrt(1 - 0.3 * density * (1 - np.exp(-3)) / (left + right) - mean**2)


AWKWARD = {
    # name: (log-density, init, mean and sd of the first coordinate)
    "a jump": (jump, np.zeros(2), *jump_moments()),
    "a box": (box, np.zeros(2), 0.0, 3**-0.5),
    "steps": (lambda z: -0.5 * jnp.sum(jnp.round(z) ** 2), np.full(2, 3.0), 0.0, (1 + 1 / 12) ** 0.5),
    "no gradient": (lambda z: -0.5 * jnp.sum(jax.lax.stop_gradient(z) ** 2), np.full(2, 3.0), 0.0, 1.0),
    "half a gradient": (
        lambda z: -0.5 * jax.lax.stop_gradient(z[0]) ** 2 - 0.5 * z[1] ** 2,
        np.full(2, 3.0),
        0.0,
        1.0,
    ),
    "a wrong gradient": (
        lambda z: -0.5 * jnp.sum((z - 1) ** 2) - jnp.sum(z**2 - jax.lax.stop_gradient(z) ** 2),
        np.full(2, 3.0),
        1.0,
        1.0,
    ),
    "far and no gradient": (lambda z: -0.5 * jnp.sum(jax.lax.stop_gradient(z - 50) ** 2), np.zeros(2), 50.0, 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name == "far and no gradient" else name for name in AWKWARD]
)
def test_without_usable_derivatives_right_or_not_certified(name):
    log_density, init, mean, sd = AWKWARD[name]
    fit = elbojax.fit(jax.random.key(KEY), log_density, init)
    assert fit.certificate.num_gradients < (FAR if name.startswith("far") else MOST)
    if fit.certificate.certified:
        np.testing.assert_allclose((fit.mean()[0] - mean) / sd, 0, atol=0.15)
        np.testing.assert_allclose(fit.sd()[0] / sd, 1, atol=0.15)
    else:
        assert fit.certificate.status is not Status.CONVERGED and "next step" in str(fit)


# ---- misuse


def good(z):
    return -0.5 * jnp.sum(z["b"] ** 2)


@pytest.mark.parametrize(
    ("log_density", "init", "support", "error", "words"),
    [
        (good, {"a": np.zeros(2), "b": np.arange(3)}, None, TypeError, r"'b'.*floating.point"),
        (lambda z: -(z["b"] ** 2), {"b": np.zeros(2)}, None, TypeError, r"scalar.*\(2,\)"),
        (lambda z: z, {"b": 0.0}, None, TypeError, "scalar"),
        (good, {"b": 1.0}, {"b": "negative"}, ValueError, "negative"),
        (good, {"b": 1.0}, {"c": "positive"}, ValueError, "c"),
        (good, {"b": np.array([1.0, -1.0])}, {"b": "positive"}, ValueError, r"'b'.*-1"),
        (good, {"b": np.array([1.0, np.nan])}, None, ValueError, r"'b'.*nan"),
        (3.0, {"b": 1.0}, None, TypeError, "callable|function"),
        (good, {}, None, ValueError, "no .*lea"),
    ],
    ids=("integer", "vector", "pytree", "unknown name", "unknown leaf", "outside", "nan", "no function", "empty"),
)
def test_misuse_raises_at_once(log_density, init, support, error, words):
    with pytest.raises(error, match=words):
        elbojax.fit(jax.random.key(0), log_density, init, support=support)


@pytest.mark.parametrize(
    ("key", "data", "words"),
    [
        (0, None, r"key must be one random key, such as jax.random.key\(0\), got int"),
        (good, None, "key must be .* got function"),  # the first two arguments exchanged
        (jax.random.split(jax.random.key(0)), None, r"got keys of shape \(2,\)"),
        (
            None,
            {"x": np.ones(2), "name": np.array(["a", "b"])},
            r"data\['name'\] must be an array of numbers, got dtype",
        ),
        (None, {"x": range(2)}, r"data\['x'\] must be an array of numbers, got a range; try np.asarray"),
    ],
)
@pytest.mark.parametrize("call", (elbojax.fit, elbojax.fit_batch), ids=lambda f: f.__name__)
def test_misuse_of_keys_and_data(call, key, data, words):
    with pytest.raises(TypeError, match=words):
        call(jax.random.key(0) if key is None else key, lambda z, d: 0.0, {"b": 0.0}, data=data)


def test_what_the_log_density_raises_comes_with_what_it_was_given():
    with pytest.raises(KeyError, match="tau") as raised:
        elbojax.fit(jax.random.key(0), lambda z, d: z["tau"] * d, {"mu": np.zeros(3)}, data=np.ones(4))
    note = "\n".join(raised.value.__notes__)
    assert "log_density(position, data)" in note and "{'mu': 'float64[3]'}" in note and "data: float64[4]" in note


def test_a_hole_in_the_data_is_named():
    data = {"x": np.ones(3), "y": np.array([1.0, np.nan, 2.0])}
    fit = elbojax.fit(jax.random.key(0), lambda z, d: -0.5 * jnp.sum((d["y"] - z * d["x"]) ** 2), 0.0, data=data)
    assert fit.certificate.status is Status.NON_FINITE and fit.certificate.ess == 0
    assert fit.certificate.mean_error == np.inf
    assert "there is NaN in data['y']" in str(fit) and "no draw has a finite log-density" in str(fit)


def test_a_sample_needs_a_number():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        contract_fit().sample(jax.random.key(0), 0)
