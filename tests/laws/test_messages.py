"""What misuse is told: what was wanted, what was given, what to do instead."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import elbojax

KEY = jax.random.key(0)
TWO, EYE = np.zeros(2, np.float32), np.eye(2, dtype=np.float32)
Q = elbojax.mean_field(TWO, 1.0)
STACK = jax.tree.map(lambda x: jnp.stack([x, x, x]), Q)
LOSS = elbojax.as_loss(elbojax.elbo, lambda z, data=0.0: -0.5 * jnp.sum((z - data) ** 2))
SVI = elbojax.svi(LOSS, optax.adam(0.1))
UPPER = np.array([[1, 0.8], [0.8, 1]], np.float32)


def log_density(z, data=0.0):
    return -0.5 * jnp.sum((z - data) ** 2)


def model():
    raise AssertionError("never run")


FAMILIES = {
    "mean_field": Q,
    "full_rank": elbojax.full_rank(TWO, EYE),
    "student_t": elbojax.student_t(TWO, EYE),
    "sinh_arcsinh": elbojax.sinh_arcsinh(TWO, EYE),
    "low_rank": elbojax.low_rank(TWO, np.ones((2, 1), np.float32), np.ones(2, np.float32)),
    "mixture": elbojax.mixture(jnp.zeros(2), [Q, Q]),
    "flow": elbojax.coupling_flow(KEY, TWO, EYE),
}
CASES = {
    "factor": (lambda: elbojax.full_rank(TWO, UPPER), ValueError, ["scale_tril", "lower triangular", "covariance="]),
    "ones": (lambda: elbojax.full_rank(TWO, np.ones((2, 2))), ValueError, ["above the diagonal"]),
    "student": (lambda: elbojax.student_t(TWO, UPPER), ValueError, ["scale_tril", "cholesky"]),
    "skewed": (lambda: elbojax.sinh_arcsinh(TWO, UPPER), ValueError, ["scale_tril", "cholesky"]),
    "flow": (lambda: elbojax.coupling_flow(KEY, TWO, UPPER), ValueError, ["scale_tril", "cholesky"]),
    "diagonal": (lambda: elbojax.full_rank(TWO, -EYE), ValueError, ["diagonal of scale_tril", "positive"]),
    "both": (lambda: elbojax.full_rank(TWO, EYE, covariance=EYE), TypeError, ["one of scale_tril", "covariance="]),
    "neither": (lambda: elbojax.full_rank(TWO), TypeError, ["one of scale_tril", "covariance="]),
    "indefinite": (
        lambda: elbojax.full_rank(TWO, covariance=np.array([[1.0, 2.0], [2.0, 1.0]])),
        ValueError,
        ["covariance must be positive definite"],
    ),
    "lopsided": (
        lambda: elbojax.full_rank(TWO, covariance=np.array([[1.0, 0.5], [0.0, 1.0]])),
        ValueError,
        ["symmetric"],
    ),
    "elbo of a stack": (lambda: elbojax.elbo(KEY, STACK, log_density), ValueError, ["vmap", "(3, 2)"]),
    "score of a stack": (lambda: elbojax.elbo_rloo(KEY, STACK, log_density), ValueError, ["vmap", "(3, 2)"]),
    "cubo of a stack": (lambda: elbojax.cubo(KEY, STACK, log_density), ValueError, ["vmap", "(3, 2)"]),
    "float": (lambda: elbojax.elbo(KEY, Q, log_density, num_samples=8.0), TypeError, ["num_samples", "int", "8.0"]),
    "traced": (
        lambda: jax.jit(lambda n: elbojax.elbo(KEY, Q, log_density, num_samples=n))(3),
        TypeError,
        ["num_samples", "static_argnames"],
    ),
    "score, float": (
        lambda: elbojax.objectives.elbo_score(KEY, Q, log_density, num_samples=1.5),
        TypeError,
        ["num_samples", "1.5"],
    ),
    "no q": (lambda: elbojax.forward_kl(KEY, None, log_density), TypeError, ["Family", "None"]),
    "no density": (lambda: elbojax.elbo(KEY, Q, None), TypeError, ["log_density", "as_loss"]),
    "bare objective": (lambda: elbojax.svi(elbojax.elbo, optax.adam(0.1)), TypeError, ["as_loss(elbo, log_density)"]),
    "no loss": (lambda: elbojax.svi(None, optax.adam(0.1)), TypeError, ["as_loss", "None"]),
    "fit in jit": (
        lambda: jax.jit(lambda y: elbojax.fit(KEY, log_density, 0.0, data=y).mean())(jnp.ones(2)),
        TypeError,
        ["runs on the host", "data is traced", "fit_batch", "newton"],
    ),
    "fit in jit, of constants": (
        lambda: jax.jit(lambda y: y + elbojax.fit(KEY, log_density, 0.0).mean())(1.0),
        TypeError,
        ["runs on the host", "fit_batch"],
    ),
    "fit in vmap": (
        lambda: jax.vmap(lambda y: elbojax.fit(KEY, log_density, 0.0, data=y).mean())(jnp.ones(2)),
        TypeError,
        ["runs on the host", "fit_batch"],
    ),
    "fit in grad": (
        lambda: jax.grad(lambda y: elbojax.fit(KEY, log_density, y).mean())(1.0),
        TypeError,
        ["runs on the host", "init is traced"],
    ),
    "fit_batch in jit": (
        lambda: jax.jit(lambda y: elbojax.fit_batch(KEY, log_density, 0.0, y).mean())(jnp.ones((2, 2))),
        TypeError,
        ["fit_batch runs on the host"],
    ),
    "fit of nothing": (lambda: elbojax.fit(KEY, None, 0.0), TypeError, ["log_density must be a function", "NoneType"]),
    "fit of a distribution": (lambda: elbojax.fit(KEY, Q, 0.0), TypeError, ["distribution MeanField", "log_prob"]),
    "fit of a model": (lambda: elbojax.fit(KEY, model, 0.0), TypeError, ["takes no position", "NumPyro"]),
    "list": (lambda: elbojax.fit(KEY, log_density, 0.0, data=[1.0, 2.0]), TypeError, ["2 numbers", "np.asarray(data)"]),
    "list of lists": (
        lambda: elbojax.fit(KEY, log_density, 0.0, data=[[1, 2], [3, 4]]),
        TypeError,
        ["np.asarray(data)"],
    ),
    "list in a dict": (
        lambda: elbojax.fit(KEY, lambda z, d: log_density(z, d["y"]), 0.0, data={"n": 2, "y": [1.0, 2.0]}),
        TypeError,
        ["np.asarray(data['y'])"],
    ),
    "list in a list": (
        lambda: elbojax.fit(KEY, log_density, 0.0, data=[TWO, [1, 2]]),
        TypeError,
        ["np.asarray(data[1])"],
    ),
    "list of NumPy's numbers": (
        lambda: elbojax.fit(KEY, log_density, 0.0, data=list(np.arange(3.0))),
        TypeError,
        ["np.asarray(data)"],
    ),
    "list of scalar arrays": (
        lambda: elbojax.fit(KEY, log_density, 0.0, data=[jnp.zeros(()), jnp.ones(())]),
        TypeError,
        ["np.asarray(data)"],
    ),
    "list with a hole": (lambda: elbojax.fit(KEY, log_density, 0.0, data=[1.0, None]), TypeError, ["NaN", "mask"]),
    "empty list": (lambda: elbojax.fit(KEY, log_density, 0.0, data=[]), TypeError, ["empty list"]),
    "ragged list": (lambda: elbojax.fit_batch(KEY, log_density, 0.0, [[1.0, 2.0], [3.0]]), TypeError, ["fit_ragged"]),
    "list of arrays": (
        lambda: elbojax.fit(KEY, log_density, 0.0, data=[TWO, TWO]),
        TypeError,
        [],  # of the user's own code; the note says np.stack
    ),
    "list to fit_batch": (
        lambda: elbojax.fit_batch(KEY, log_density, 0.0, [1.0, 2.0, 3.0]),
        TypeError,
        ["np.asarray(data)"],
    ),
    "lists to fit_batch": (
        lambda: elbojax.fit_batch(KEY, log_density, 0.0, [[1.0, 2.0], [3.0, 4.0]]),
        TypeError,
        ["np.asarray(data)"],
    ),
    "list of data sets": (
        lambda: elbojax.fit_batch(KEY, log_density, 0.0, [np.ones(7), np.zeros(7), np.ones(7)]),
        TypeError,
        ["3 arrays of shape (7,)", "jnp.stack(data)", "tuple(data)"],
    ),
    "list of one data set": (
        lambda: elbojax.fit_batch(KEY, log_density, 0.0, [np.ones(7)]),
        TypeError,
        ["jnp.stack(data)", "tuple(data)"],
    ),
    "list of dicts": (
        lambda: elbojax.fit_batch(KEY, log_density, 0.0, [{"x": np.ones(7), "n": np.ones(7)}] * 2),
        TypeError,
        ["2 pytrees of shapes (7,), (7,)", "jax.tree.map(lambda *x: jnp.stack(x), *data)"],
    ),
    "list of unequal data sets": (
        lambda: elbojax.fit_batch(KEY, log_density, 0.0, [np.ones(7), np.ones(8)]),
        ValueError,
        ["share their leading axis"],  # the note says fit_ragged
    ),
    "list to run": (
        lambda: elbojax.run(KEY, elbojax.svi(LOSS, optax.adam(0.1)), Q, [1.0, 2.0], num_steps=2),
        TypeError,
        ["np.asarray(data)"],
    ),
    "list to run_batch": (
        lambda: elbojax.run_batch(KEY, elbojax.svi(LOSS, optax.adam(0.1)), STACK, [1.0, 2.0, 3.0], max_steps=2),
        TypeError,
        ["np.asarray(data)"],
    ),
    "no key": (lambda: elbojax.elbo(None, Q, log_density), TypeError, ["key must be", "jax.random.key(0)", "NoneType"]),
    "seed for key": (lambda: elbojax.elbo_stl(0, Q, log_density), TypeError, ["jax.random.key(0)", "int"]),
    "score without key": (lambda: elbojax.elbo_rloo(None, Q, log_density), TypeError, ["jax.random.key(0)"]),
    "run_batch without keys": (
        lambda: elbojax.run_batch(None, SVI, STACK, max_steps=2),
        TypeError,
        ["keys must be", "jax.random.key(0)", "NoneType"],
    ),
    "run_batch of a seed": (lambda: elbojax.run_batch(0, SVI, STACK, max_steps=2), TypeError, ["keys must be", "int"]),
    "run of no q": (lambda: elbojax.run(KEY, SVI, None, num_steps=2), ValueError, ["q has no array leaf", "None"]),
    "run_batch of no q": (lambda: elbojax.run_batch(KEY, SVI, None, max_steps=2), ValueError, ["q has no array leaf"]),
    "one q to run_batch": (
        lambda: elbojax.run_batch(KEY, SVI, Q, np.zeros((5, 2)), max_steps=2),
        ValueError,
        ["leading axis of models", "qs.loc has 2", "data has 5"],
    ),
    "scalar q to run_batch": (
        lambda: elbojax.run_batch(KEY, SVI, {"a": 1.0}, np.zeros(5), max_steps=2),
        ValueError,
        ["leading axis of models", "scalar"],
    ),
    "lanes": (lambda: elbojax.run_batch(KEY, SVI, STACK, max_steps=2, lanes=2.5), TypeError, ["lanes", "int", "2.5"]),
    "lanes of text": (lambda: elbojax.run_batch(KEY, SVI, STACK, max_steps=2, lanes="a"), TypeError, ["lanes", "'a'"]),
    "mesh of run_batch": (
        lambda: elbojax.run_batch(KEY, SVI, STACK, max_steps=2, mesh=1),
        TypeError,
        ["jax.sharding.Mesh", "got 1"],
    ),
    "mesh of fit_batch": (
        lambda: elbojax.fit_batch(KEY, log_density, 0.0, np.ones((3, 2)), mesh=3),
        TypeError,
        ["jax.sharding.Mesh", "got 3"],
    ),
    "tails": (
        lambda: elbojax.fit_batch(KEY, log_density, 0.0, np.ones((3, 2)), tails="yes"),
        TypeError,
        ["tails must be True or False", "'yes'"],
    ),
    "no tails": (
        lambda: elbojax.fit_batch(KEY, log_density, 0.0, np.ones((3, 2)), tails=None),
        TypeError,
        ["tails must be True or False"],
    ),
    "starts of another tree": (
        lambda: elbojax.fit_batch(KEY, log_density, 0.0, np.ones((3, 2)), starts={"a": np.ones(3)}),
        ValueError,
        ["starts must be a pytree like init"],
    ),
    "starts of text": (
        lambda: elbojax.fit_batch(KEY, log_density, 0.0, np.ones((3, 2)), starts="near"),
        ValueError,
        ["starts"],
    ),
    "no starts": (
        lambda: elbojax.fit_batch(KEY, log_density, 0.0, np.ones((3, 2)), starts=np.ones((3, 0))),
        ValueError,
        ["starts of shape (3, 0) holds no start"],
    ),
    "data for none": (
        lambda: elbojax.run(
            KEY, elbojax.svi(elbojax.as_loss(elbojax.elbo, lambda z: -z @ z), optax.adam(0.1)), Q, TWO, num_steps=2
        ),
        TypeError,
        ["the log-density takes none"],
    ),
    "too many steps": (lambda: elbojax.run(KEY, SVI, Q, num_steps=10**10), ValueError, ["at most 2,147,483,647"]),
    "too large an int": (lambda: elbojax.fit(KEY, log_density, 0.0, data=10**30), TypeError, ["64 bits", "float"]),
    "NumPyro's optimiser": (
        lambda: elbojax.svi(LOSS, pytest.importorskip("numpyro").optim.Adam(0.1)),
        TypeError,
        ["NumPyro's Adam", "optax.adam"],
    ),
    # Calls with other arguments.
    "no key to fit": (
        lambda: elbojax.fit(log_density, 0.0),
        TypeError,
        ["'init'", "the key comes first", "fit(key, log"],
    ),
    "init left out": (lambda: elbojax.fit(KEY, log_density), TypeError, ["'init'", "fit(key, log_density, init, *"]),
    "key last": (lambda: elbojax.fit(log_density, KEY, 0.0), TypeError, ["the key comes first"]),
    "key left out of fit_model": (lambda: elbojax.fit_model(model), TypeError, ["key must be", "the key comes first"]),
    "data by place": (lambda: elbojax.fit(KEY, log_density, 0.0, TWO), TypeError, ["by name", "data="]),
    "a word of others": (
        lambda: elbojax.fit(KEY, log_density, 0.0, progress_bar=True),
        TypeError,
        ["'progress_bar'", "did you mean 'progress'?"],
    ),
    "draws of fit": (
        lambda: elbojax.fit(KEY, log_density, 0.0, num_samples=9),
        TypeError,
        ["fit.sample(key, num_samples)"],
    ),
    "a rate for fit": (lambda: elbojax.fit(KEY, log_density, 0.0, learning_rate=0.1), TypeError, ["nothing to tune"]),
    "num_steps of run_batch": (
        lambda: elbojax.run_batch(KEY, SVI, STACK, num_steps=2),
        TypeError,
        ["did you mean 'max_steps'?"],
    ),
    "no likelihood": (
        lambda: elbojax.fit_minibatches(KEY, log_density, 0.0, TWO),
        TypeError,
        ["log_prior, log_likelihood"],
    ),
    "data forgotten": (
        lambda: elbojax.fit(KEY, lambda z, rows: log_density(z, rows), 0.0),
        TypeError,
        ["(z, rows)", "none were given", "data="],
    ),
    "sizes of q.sample": (lambda: Q.sample(KEY, (10,)), TypeError, ["sample_many(key, q, num_samples)"]),
    "seed of q.sample": (lambda: Q.sample(seed=0), TypeError, ["jax.random.key(0)"]),
    "key of q.sample": (lambda: Q.sample(0), TypeError, ["jax.random.key(0)", "int"]),
    "sample_many of a stack": (lambda: elbojax.families.sample_many(KEY, STACK, 5), ValueError, ["vmap", "(3, 2)"]),
    # What is no array.
    "dict for loc": (lambda: elbojax.mean_field({"a": 0.0}, 1.0), TypeError, ["loc must be an array", "dict"]),
    "text for loc": (lambda: elbojax.full_rank("ab", EYE), TypeError, ["loc must be an array", "'ab'"]),
    "nothing for loc": (lambda: elbojax.mean_field(None, 1.0), TypeError, ["loc must be an array", "None"]),
    "dict for scale": (lambda: elbojax.mean_field(TWO, {"a": 1.0}), TypeError, ["scale must be an array", "dict"]),
    "text for logits": (lambda: elbojax.bernoulli("a"), TypeError, ["logits must be an array", "'a'"]),
    "dict for a start": (lambda: elbojax.laplace(KEY, log_density, {"a": 0.0}), TypeError, ["start must be an array"]),
    "q for a start": (
        lambda: elbojax.pathfinder(KEY, log_density, Q),
        TypeError,
        ["start must be an array", "MeanField"],
    ),
    "class for q": (
        lambda: elbojax.run(KEY, SVI, elbojax.mean_field, num_steps=2),
        TypeError,
        ["q must be an array", "mean_field", "call it"],
    ),
    "objects for init": (
        lambda: elbojax.fit(KEY, log_density, {"a": np.array([1, None])}),
        TypeError,
        ["init['a']", "dtype object"],
    ),
    # Of another kind.
    "key for q": (lambda: elbojax.elbo(Q, KEY, log_density), TypeError, ["must be a Family", "key, q, log_density"]),
    "dict for q": (lambda: elbojax.elbo(KEY, {"loc": TWO}, log_density), TypeError, ["must be a Family", "dict"]),
    "NumPyro's distribution for q": (
        lambda: elbojax.elbo(KEY, pytest.importorskip("numpyro").distributions.Normal(0, 1), log_density),
        TypeError,
        ["Normal", "distribution_family"],
    ),
    "distribution for a density": (lambda: elbojax.elbo(KEY, Q, Q), TypeError, ["distribution MeanField", "log_prob"]),
    "distribution as_loss": (
        lambda: elbojax.as_loss(elbojax.elbo, Q),
        TypeError,
        ["distribution MeanField", "log_prob"],
    ),
    "as_loss the other way": (
        lambda: elbojax.as_loss(log_density, elbojax.elbo),
        TypeError,
        ["objective elbo", "as_loss(objective, log_density)"],
    ),
    "assess the other way": (
        lambda: elbojax.assess(KEY, log_density, Q),
        TypeError,
        ["must be a Family", "log_density"],
    ),
    "assess a stack": (lambda: elbojax.assess(KEY, STACK, log_density), ValueError, ["vmap", "(3, 2)"]),
    "no closed form": (
        lambda: elbojax.families.kl_divergence(Q, elbojax.bernoulli(TWO)),
        TypeError,
        ["MeanField", "Bernoulli", "elbo"],
    ),
    "optimiser not made": (lambda: elbojax.svi(LOSS, optax.adam), TypeError, ["optax.adam(0.01)", "call it"]),
    "rate for an optimiser": (lambda: elbojax.svi(LOSS, 0.01), TypeError, ["optax.adam(0.01)", "float"]),
    "stop rule not made": (
        lambda: elbojax.run(KEY, SVI, Q, num_steps=2, stop=elbojax.moments_stable),
        TypeError,
        ["moments_stable", "call it"],
    ),
    "optimiser for a solver": (
        lambda: elbojax.run(KEY, optax.adam(0.1), Q, num_steps=2),
        TypeError,
        ["svi(loss, optimizer)", "GradientTransformation"],
    ),
    "tuple for a support": (
        lambda: elbojax.fit(KEY, log_density, 1.0, support=(0, None)),
        TypeError,
        ["support of init", "tuple", "interval(low, high)"],
    ),
    "number for a support": (
        lambda: elbojax.fit(KEY, log_density, 1.0, support=0),
        TypeError,
        ["names are", "positive"],
    ),
    "None returned": (lambda: elbojax.fit(KEY, lambda z: None, 0.0), TypeError, ["returns None", "Has it a return?"]),
    "pair returned": (lambda: elbojax.fit(KEY, lambda z: (z, z), 0.0), TypeError, ["a tuple", "log-density alone"]),
    "vector returned": (lambda: elbojax.fit(KEY, lambda z: -(z**2), TWO), TypeError, ["shape (2,)", "Sum over data."]),
    "file name for a Stan model": (lambda: elbojax.from_stan("a.stan"), TypeError, ["'a.stan'", "stan_file="]),
    "batch of a model": (lambda: elbojax.fit_batch(KEY, model, 0.0, np.ones(2)), TypeError, ["takes no position"]),
}


@pytest.mark.parametrize("name", CASES)
def test_misuse_is_told(name):
    call, error, words = CASES[name]
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(5, 2), (), (3,), (1,), (1, 2)])
def test_log_prob_takes_one_event(name, shape):
    with pytest.raises(ValueError, match="vmap"):
        FAMILIES[name].log_prob(jnp.zeros(shape))
    assert jax.jit(jax.vmap(FAMILIES[name].log_prob))(jnp.zeros((5, 2))).shape == (5,)


def test_full_rank_of_a_covariance(precision):
    q = elbojax.full_rank(jnp.zeros(2), covariance=jnp.asarray(UPPER, jnp.float32))
    np.testing.assert_allclose(q.covariance(), UPPER, rtol=1e-6)
    traced = jax.jit(lambda c: elbojax.full_rank(jnp.zeros(2, c.dtype), covariance=c).covariance())(jnp.asarray(UPPER))
    np.testing.assert_allclose(traced, UPPER, rtol=1e-6)


TREES = {
    "tuple of numbers": ((1.0, 3.0), lambda d: jnp.stack([jnp.asarray(x) for x in d])),
    "list of arrays": ([np.ones(2), np.full(2, 3.0)], jnp.concatenate),
    "array and number": ([np.ones(2), 3.0], lambda d: jnp.stack([d[0][0], jnp.asarray(d[1])])),
    "dict of numbers": ({"a": 1.0, "b": 3.0}, lambda d: jnp.stack([jnp.asarray(d["a"]), jnp.asarray(d["b"])])),
    "no arrays in a list": ({"y": np.array([1.0, 3.0]), "more": []}, lambda d: d["y"]),
}


@pytest.mark.parametrize("name", TREES)
def test_pytrees_of_data_stay_allowed(name, precision):
    data, flat = TREES[name]
    fit = elbojax.fit(KEY, lambda z, d: log_density(z, flat(d)), 0.0, data=data)
    assert fit.certificate.certified and abs(fit.mean() - 2) < 0.02


BATCHES = {
    "tuple": ((np.array([1.0, 3.0, 5.0]), np.array([3.0, 5.0, 7.0])), jnp.stack),
    "list of unequal arrays": (
        [np.array([1.0, 3.0, 5.0]), np.array([[3.0], [5.0], [7.0]])],
        lambda d: jnp.append(d[1], d[0]),
    ),
    "list in a dict": ({"y": [np.array([1.0, 3.0, 5.0]), np.array([3.0, 5.0, 7.0])]}, lambda d: jnp.stack(d["y"])),
}


@pytest.mark.parametrize("name", BATCHES)
def test_pytrees_of_batches_stay_allowed(name, precision):
    data, flat = BATCHES[name]
    fits = elbojax.fit_batch(KEY, lambda z, d: log_density(z, flat(d)), 0.0, data)
    np.testing.assert_allclose(fits.mean(), [2.0, 4.0, 6.0], atol=0.05)


def test_a_list_in_arithmetic_is_told_of_stack():
    with pytest.raises(TypeError) as caught:
        elbojax.fit(KEY, log_density, 0.0, data=[TWO, TWO])
    assert any("np.stack" in note for note in caught.value.__notes__)


def branches(z):
    return -z if z > 0 else z


def unseeded(z):
    numpyro = pytest.importorskip("numpyro")
    return numpyro.sample("a", numpyro.distributions.Normal(0.0, 1.0)) + z


NOTES = {
    "None in init": (lambda z: -(z["a"] ** 2), {"a": None, "b": 0.0}, None, "init['a'] is None"),
    "None in data": (lambda z, d: log_density(z, d["y"]), 0.0, {"y": None}, "data['y'] is None"),
    "NumPy": (lambda z: -np.sum(np.asarray(z) ** 2), TWO, None, "jnp in place of np"),
    "if": (branches, 0.0, None, "jnp.where in place of if"),
    "float": (lambda z: -(float(z) ** 2), 0.0, None, "no float()"),
    "a NumPyro model with an argument": (unseeded, 0.0, None, "fit_model(key, model"),
}


@pytest.mark.parametrize("name", NOTES)
def test_errors_of_a_log_density_are_noted(name):
    function, init, data, words = NOTES[name]
    with pytest.raises(Exception) as caught:
        elbojax.fit(KEY, function, init, data=data)
    assert any(words in note for note in caught.value.__notes__), caught.value.__notes__


FIT = elbojax.fit(KEY, log_density, TWO)
RUN = elbojax.run(KEY, SVI, Q, num_steps=2).approximation()
ANSWERS = {"fit": FIT, "run": RUN, "quantities": FIT.evaluate(lambda z: z[0])}


@pytest.mark.parametrize("name", ANSWERS)
def test_misuse_of_draws_is_told(name):
    answer = ANSWERS[name]
    assert len(answer.sample(KEY, np.int64(3))) == 3
    for arguments, words in (
        ((0, 5), "jax.random.key(0)"),
        ((KEY, (5,)), "must be an int"),
        ((KEY, 5.0), "must be an int"),
    ):
        with pytest.raises(TypeError) as caught:
            answer.sample(*arguments)
        assert words in str(caught.value)
    with pytest.raises(ValueError, match="at least 1"):
        answer.sample(KEY, 0)
    with pytest.raises(TypeError, match="function"):
        FIT.evaluate(3)
    with pytest.raises(TypeError, match="the key comes first.*sample\\(key, num_samples\\)"):
        FIT.sample(5)


def hierarchy(z, data):
    group, y = data
    group = group.astype(int)
    return -0.5 * jnp.sum((y - z[group]) ** 2) - 0.5 * jnp.sum(z**2)


@pytest.mark.parametrize("kind", [int, float])
def test_groups_numbered_from_one_are_warned_of(precision, kind):
    group, y = np.arange(10) // 2, np.arange(10.0)
    with pytest.warns(UserWarning, match="index 5 is out of bounds for axis 0 with size 5.*numbered from 0"):
        elbojax.fit(KEY, hierarchy, np.zeros(5), data=((group + 1).astype(kind), y))
    with pytest.warns(UserWarning, match="numbered from 0"):
        stacked = np.stack([group, group + 1]).astype(kind), np.stack([y, y])
        elbojax.fit_batch(KEY, hierarchy, np.zeros(5), stacked)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = elbojax.fit(KEY, hierarchy, np.zeros(5), data=((group - 5).astype(kind), y))  # as indices of Python
    np.testing.assert_allclose(fit.mean(), (y[::2] + y[1::2]) / 3, atol=0.05)
