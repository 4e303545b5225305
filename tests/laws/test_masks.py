"""Masked and complex arrays are refused wherever a user hands arrays over: no mask is dropped, no imaginary part."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import elbojax

KEY = jax.random.key(0)
MASKED = np.ma.masked_array([1.0, 2.0, 999.0], [0, 0, 1])
ROWS = np.ma.masked_array([[1.0, 2.0, 999.0], [1.0, 1.0, 1.0]], [[0, 0, 1], [0, 0, 0]])
COMPLEX = np.array([1.0 + 1.0j, 2.0, 3.0])
PLAIN = np.array([1.0, 2.0, 3.0])
SCALAR = np.ma.masked_array(1.0, True)


def log_density(z, y):
    """Normal observations of one mean."""
    return -0.5 * jnp.sum((y - z) ** 2)


def log_prior(z):
    """Of one mean."""
    return -0.5 * z**2


def log_likelihood(z, y):
    """Of one observation."""
    return -0.5 * (y - z) ** 2


def vector_density(z):
    """A standard normal."""
    return -0.5 * z @ z


def loss(key, q, y):
    """A squared distance."""
    return jnp.sum((q["a"] - jnp.mean(y)) ** 2)


SOLVER = elbojax.svi(loss, optax.sgd(0.1))
ADAM = optax.adam(0.1)
START = {"a": np.zeros(3, np.float32)}


def of_family(make, *arguments):
    """A family's constructor called with the bad array in each of its places, the others as they should be."""
    return [
        lambda bad, i=i: make(*arguments[:i], bad(arguments[i]), *arguments[i + 1 :]) for i in range(len(arguments))
    ]


def damaged(kind):
    """From a good array to one of its shape that is masked, or complex."""

    def bad(good):
        good = np.asarray(good, float)
        if kind == "complex":
            return good + 1j
        return np.ma.masked_array(good, np.arange(good.size).reshape(good.shape) == good.size - 1)

    return bad


eye, zeros, ones = np.eye(3), np.zeros(3), np.ones(3)
FAMILIES = {
    "mean_field": of_family(elbojax.mean_field, zeros, ones),
    "full_rank": of_family(elbojax.full_rank, zeros, eye),
    "low_rank": of_family(elbojax.low_rank, zeros, np.ones((3, 1)), ones),
    "student_t": of_family(lambda loc, scale: elbojax.student_t(loc, scale, df=4), zeros, eye),
    "sinh_arcsinh": of_family(lambda a, b, c, d: elbojax.sinh_arcsinh(a, b, skew=c, tail=d), zeros, eye, zeros, zeros),
    "banded_precision": of_family(elbojax.banded_precision, zeros, ones, np.zeros((1, 3))),
    "gaussian_chain": of_family(elbojax.gaussian_chain, zeros[:, None], np.eye(1), np.eye(1)),
    "linear_dynamics": of_family(
        lambda m, s, a, n: elbojax.families.linear_dynamics(m, s, a, n, length=3),
        np.zeros(1),
        np.eye(1),
        np.eye(1),
        np.eye(1),
    ),
    "markov_chain": of_family(elbojax.markov_chain, np.zeros(2), np.zeros((2, 2, 2))),
    "smoother": of_family(elbojax.hmm_smoother, np.zeros(2), np.zeros((2, 2)), np.zeros((3, 2))),
    "particles": of_family(elbojax.families.particles, np.zeros((2, 3)), np.array(1.0)),
    "bernoulli": of_family(elbojax.bernoulli, zeros),
    "categorical": of_family(elbojax.categorical, zeros),
    "funnel": of_family(
        elbojax.families.funnel, zeros + np.arange(3), zeros, np.zeros((3, 2)), np.stack([np.eye(2)] * 3)
    ),
    "mixture": of_family(
        lambda logits: elbojax.mixture(logits, [elbojax.mean_field(jnp.zeros(1), 1.0)] * 3),
        zeros,
    ),
    "coupling_flow": of_family(lambda loc, scale: elbojax.coupling_flow(KEY, loc, scale), zeros, eye),
    "autoregressive_flow": of_family(lambda loc, scale: elbojax.autoregressive_flow(KEY, loc, scale), zeros, eye),
    "interval": of_family(elbojax.bijectors.interval, zeros, ones),
    "affine": of_family(elbojax.bijectors.affine, zeros, ones),
    "lower_bounded": of_family(elbojax.bijectors.lower_bounded, zeros),
    "kalman_smoother": of_family(
        lambda y: elbojax.kalman_smoother(
            elbojax.gaussian_chain(jnp.zeros((3, 1)), jnp.eye(1), jnp.eye(1)), y, jnp.eye(1), jnp.eye(1)
        ),
        np.zeros((3, 1)),
    ),
}
PLACES = [(f"{name}-{i}", call) for name, calls in FAMILIES.items() for i, call in enumerate(calls)]


@pytest.mark.parametrize("kind", ["masked", "complex"])
@pytest.mark.parametrize(("name", "call"), PLACES, ids=[name for name, _ in PLACES])
def test_constructors_refuse(name, call, kind, precision):
    with pytest.raises((ValueError, TypeError), match=r"masked entries|entries masked|real|floating|number"):
        call(damaged(kind))


@pytest.mark.parametrize(("name", "call"), PLACES, ids=[name for name, _ in PLACES])
def test_constructors_take_what_masks_nothing(name, call, precision):
    call(lambda good: np.ma.masked_array(np.asarray(good, float)))


def batches(rows):
    """A stream of batches."""
    yield PLAIN
    yield rows


MASKS = {
    "fit, data": lambda: elbojax.fit(KEY, log_density, 0.0, data=MASKED),
    "fit, a leaf of data": lambda: elbojax.fit(KEY, lambda z, d: log_density(z, d["y"]), 0.0, data={"y": MASKED, "n": 3}),
    "fit, np.ma.masked in data": lambda: elbojax.fit(KEY, lambda z, d: log_density(z, d[0]), 0.0, data=[1.0, np.ma.masked]),
    "fit, init": lambda: elbojax.fit(KEY, vector_density, MASKED),
    "fit, a leaf of init": lambda: elbojax.fit(KEY, lambda z: -0.5 * z["a"] @ z["a"], {"a": MASKED}),
    "fit, a scalar init": lambda: elbojax.fit(KEY, log_prior, SCALAR),
    "fit_batch, data": lambda: elbojax.fit_batch(KEY, log_density, 0.0, ROWS),
    "fit_batch, a leaf of data": lambda: elbojax.fit_batch(KEY, lambda z, d: log_density(z, d["y"]), 0.0, {"y": ROWS}),
    "fit_batch, init": lambda: elbojax.fit_batch(KEY, log_density, SCALAR, np.ones((2, 3))),
    "fit_batch, starts": lambda: elbojax.fit_batch(KEY, log_density, 0.0, np.ones((3, 3)), starts=MASKED),
    "fit_ragged, one data set": lambda: elbojax.fit_ragged(KEY, log_density, 0.0, [PLAIN, MASKED]),
    "fit_ragged, a leaf": lambda: elbojax.fit_ragged(KEY, log_density, 0.0, [{"y": PLAIN}, {"y": MASKED}]),
    "pad_ragged": lambda: elbojax.pad_ragged([MASKED]),
    "fit_minibatches, data": lambda: elbojax.fit_minibatches(KEY, log_prior, log_likelihood, 0.0, MASKED),
    "fit_minibatches, init": lambda: elbojax.fit_minibatches(KEY, log_prior, log_likelihood, SCALAR, PLAIN),
    "run, q": lambda: elbojax.run(KEY, SOLVER, {"a": MASKED}, PLAIN, num_steps=2),
    "run, data": lambda: elbojax.run(KEY, SOLVER, START, MASKED, num_steps=2),
    "run_batch, qs": lambda: elbojax.run_batch(KEY, SOLVER, {"a": ROWS}, np.ones(2), max_steps=2),
    "run_batch, data": lambda: elbojax.run_batch(KEY, SOLVER, {"a": jnp.zeros((2, 3))}, ROWS, max_steps=2),
    "run_stream, q": lambda: elbojax.run_stream(KEY, SOLVER, {"a": MASKED}, batches(PLAIN), num_steps=2),
    "run_stream, a batch": lambda: elbojax.run_stream(KEY, SOLVER, START, batches(MASKED), num_steps=2),
    "train, data": lambda: elbojax.train(KEY, loss, START, MASKED, optimizer=ADAM, batch_size=1, num_epochs=1),
    "train, validation": lambda: elbojax.train(
        KEY, loss, START, PLAIN, optimizer=ADAM, batch_size=1, num_epochs=1, validation=MASKED
    ),
    "train, params": lambda: elbojax.train(KEY, loss, {"a": MASKED}, PLAIN, optimizer=ADAM, batch_size=1, num_epochs=1),
    "race, data": lambda: elbojax.minibatch.successive_halving(KEY, loss, START, MASKED, batch_size=1),
    "targets.unconstrain": lambda: elbojax.targets.unconstrain(vector_density, MASKED),
    "target.unconstrain": lambda: elbojax.targets.unconstrain(vector_density, PLAIN).unconstrain(MASKED),
    "pathfinder": lambda: elbojax.pathfinder(KEY, vector_density, MASKED),
    "multipathfinder": lambda: elbojax.solvers.multipathfinder(KEY, vector_density, ROWS),
    "dadvi": lambda: elbojax.solvers.dadvi(KEY, vector_density, MASKED),
    "laplace": lambda: elbojax.laplace(KEY, vector_density, MASKED),
    "lbfgs": lambda: elbojax.solvers.lbfgs(vector_density, MASKED),
    "bfgs": lambda: elbojax.solvers.bfgs(vector_density, MASKED),
    "gsm": lambda: elbojax.solvers.gsm(KEY, vector_density, MASKED),
    "batch_and_match": lambda: elbojax.solvers.batch_and_match(KEY, vector_density, MASKED),
    "newton_low_rank": lambda: elbojax.solvers.newton_low_rank(KEY, vector_density, MASKED),
    "k_fold, data": lambda: elbojax.studies.k_fold(KEY, log_prior, log_likelihood, 0.0, MASKED, folds=2),
    "k_fold, folds": lambda: elbojax.studies.k_fold(
        KEY, log_prior, log_likelihood, 0.0, PLAIN, folds=np.ma.masked_array([0, 1, 1], [0, 0, 1])
    ),
    "leave_one_out": lambda: elbojax.studies.leave_one_out(KEY, log_prior, log_likelihood, 0.0, MASKED),
    "bootstrap": lambda: elbojax.studies.bootstrap(KEY, log_prior, log_likelihood, 0.0, MASKED, num_replicates=2),
    "backtest": lambda: elbojax.studies.backtest(KEY, log_density, log_density, 0.0, MASKED, window=1),
    "prior_sensitivity, data": lambda: elbojax.studies.prior_sensitivity(
        KEY, lambda z, y, h: log_density(z, y) - h * z**2, 0.0, MASKED, np.ones(2)
    ),
    "prior_sensitivity, grid": lambda: elbojax.studies.prior_sensitivity(
        KEY, lambda z, y, h: log_density(z, y) - h * z**2, 0.0, PLAIN, MASKED
    ),
    "empirical_bayes, data": lambda: elbojax.studies.empirical_bayes(
        KEY, lambda z, h: log_prior(z - h), log_likelihood, 0.0, MASKED, 0.0
    ),
    "empirical_bayes, hyper": lambda: elbojax.studies.empirical_bayes(
        KEY, lambda z, h: log_prior(z - h), log_likelihood, 0.0, PLAIN, SCALAR
    ),
    "a density": lambda: elbojax.densities.normal(MASKED, 0.0, 1.0),
    "a density's parameter": lambda: elbojax.densities.normal(0.0, MASKED, 1.0),
    "a sampler's parameter": lambda: elbojax.samplers.normal(KEY, MASKED, 1.0),
    "masked_sum": lambda: elbojax.masked_sum(MASKED, np.array([True, True, True])),
    "fit, closed over in a density": lambda: elbojax.fit(
        KEY, lambda z: jnp.sum(elbojax.densities.normal(MASKED, z, 1.0)), 0.0
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_masks_are_refused_with_advice(name, precision):
    with pytest.raises(ValueError, match="Drop or impute") as raised:
        MASKS[name]()
    assert "of" in str(raised.value) and "entries masked" in str(raised.value)


COMPLEXES = {
    "fit, init": lambda: elbojax.fit(KEY, vector_density, COMPLEX),
    "fit, a scalar init": lambda: elbojax.fit(KEY, log_prior, 1.0 + 1.0j),
    "fit, data that make the density complex": lambda: elbojax.fit(KEY, log_density, 0.0, data=COMPLEX),
    "fit_batch, data": lambda: elbojax.fit_batch(KEY, log_density, 0.0, np.stack([COMPLEX, COMPLEX])),
    "fit_batch, init": lambda: elbojax.fit_batch(KEY, log_density, 1j, np.ones((2, 3))),
    "fit_batch, starts": lambda: elbojax.fit_batch(KEY, log_density, 0.0, np.ones((3, 3)), starts=COMPLEX),
    "fit_ragged, init": lambda: elbojax.fit_ragged(KEY, lambda z, d: log_density(z, d.data), 1j, [PLAIN]),
    "fit_ragged, data": lambda: elbojax.fit_ragged(KEY, lambda z, d: log_density(z, d.data), 0.0, [COMPLEX, PLAIN]),
    "fit_minibatches, init": lambda: elbojax.fit_minibatches(KEY, log_prior, log_likelihood, 1j, PLAIN),
    "fit_minibatches, data": lambda: elbojax.fit_minibatches(KEY, log_prior, log_likelihood, 0.0, COMPLEX),
    "run, q": lambda: elbojax.run(KEY, SOLVER, {"a": COMPLEX}, PLAIN, num_steps=2),
    "run_batch, qs": lambda: elbojax.run_batch(KEY, SOLVER, {"a": np.stack([COMPLEX])}, np.ones(1), max_steps=2),
    "run_stream, q": lambda: elbojax.run_stream(KEY, SOLVER, {"a": COMPLEX}, batches(PLAIN), num_steps=2),
    "run, a loss": lambda: elbojax.run(KEY, SOLVER, START, COMPLEX, num_steps=2),
    "train, params": lambda: elbojax.train(
        KEY, loss, {"a": COMPLEX}, PLAIN, optimizer=ADAM, batch_size=1, num_epochs=1
    ),
    "elbo": lambda: elbojax.elbo(KEY, elbojax.mean_field(zeros, ones), lambda z: jnp.sum(z * 1j), num_samples=2),
    "target.unconstrain": lambda: elbojax.targets.unconstrain(vector_density, PLAIN).unconstrain(COMPLEX),
    "target.log_density": lambda: elbojax.targets.unconstrain(lambda z, y: log_density(z, y), 0.0).log_density(
        zeros[:1], COMPLEX
    ),
    "pathfinder": lambda: elbojax.pathfinder(KEY, vector_density, COMPLEX),
    "multipathfinder": lambda: elbojax.solvers.multipathfinder(KEY, vector_density, np.stack([COMPLEX, COMPLEX])),
    "dadvi": lambda: elbojax.solvers.dadvi(KEY, vector_density, COMPLEX),
    "laplace": lambda: elbojax.laplace(KEY, vector_density, COMPLEX),
    "empirical_bayes, hyper": lambda: elbojax.studies.empirical_bayes(
        KEY, lambda z, h: log_prior(z - h), log_likelihood, 0.0, PLAIN, 1j
    ),
}


@pytest.mark.parametrize("name", COMPLEXES)
def test_complex_values_are_refused(name, precision):
    with warnings.catch_warnings(), pytest.raises((TypeError, ValueError), match=r"real|floating|complex"):
        warnings.simplefilter("error")
        COMPLEXES[name]()


def test_what_masks_nothing_is_taken_for_its_data(precision):
    data = np.ma.masked_array([[1.0, 2.0, 3.0], [4.0, 4.0, 7.0]])
    init = np.ma.masked_array(0.0)
    with_prior = lambda z, y: log_prior(z) + log_density(z, y)  # noqa: E731
    one = elbojax.fit(KEY, with_prior, init, data=data[0])
    both = elbojax.fit_batch(KEY, with_prior, init, data)
    plain = elbojax.fit_batch(KEY, with_prior, 0.0, np.asarray(data))
    np.testing.assert_allclose(one.mean(), 6 / 4, atol=0.01)
    np.testing.assert_allclose(both.mean(), [6 / 4, 15 / 4], atol=0.01)
    np.testing.assert_array_equal(both.mean(), plain.mean())
    run = elbojax.run(KEY, SOLVER, {"a": np.ma.masked_array(zeros)}, data[0], num_steps=200)
    np.testing.assert_allclose(run.q["a"], 2.0, atol=1e-3)


def test_complex_data_are_no_trouble_where_the_density_is_real(precision):
    fit = elbojax.fit(KEY, lambda z, y: -0.5 * jnp.sum(jnp.abs(y - z) ** 2), 0.0, data=COMPLEX)
    np.testing.assert_allclose(fit.mean(), 2.0, atol=0.01)
