from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives import cases
from objectives.cases import ESTIMATORS, PAIRS, PATHWISE, SEEDS, assert_mean, batch, draw, exact, exact_terms, flat, get

import elbojax
from elbojax import noise
from elbojax.objectives import elbo_at, elbo_entropy_at, elbo_kl_at, elbo_stl_at

AT_POSTERIOR = [(estimator, case) for estimator, case in PAIRS if case != "bernoulli, coupled"]
ONE_CASE_EACH = [(estimator, row.cases[-1]) for estimator, row in ESTIMATORS.items()]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("estimator", "case"), AT_POSTERIOR)
def test_is_the_log_evidence_at_the_posterior(estimator, case, seed):
    values, gradients = draw(estimator, case, seed, at="posterior")
    row = ESTIMATORS[estimator]
    if row.always:
        np.testing.assert_allclose(values, get(case).log_evidence, rtol=0, atol=1e-10)
    else:
        assert values.std() > 0.01
        assert_mean(values, get(case).log_evidence)
    if row.lands:
        np.testing.assert_allclose(gradients, 0, atol=1e-10)
    else:
        assert np.all(gradients.std(axis=0).max() > 0.01)
        assert_mean(gradients, 0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("estimator", "case"), PAIRS)
def test_mean_value_and_mean_gradient_are_exact(estimator, case, seed):
    values, gradients = draw(estimator, case, seed)
    value, gradient = exact(case)
    assert_mean(values, value)
    assert_mean(gradients, gradient)
    # With so many draws that a gradient of a wrong sign or size would show.
    assert gradients.std(axis=0).max() / np.sqrt(len(gradients)) < 0.1 * np.linalg.norm(gradient)


@pytest.mark.parametrize("case", cases.ENUMERABLE)
def test_the_baseline_takes_noise_and_leaves_the_mean(case):
    (values, score), (same_values, rloo) = (draw(name, case, 1) for name in ("elbo_score", "elbo_rloo"))
    np.testing.assert_allclose(values, same_values, rtol=1e-12)
    assert_mean(score - rloo, 0)
    # Where rewards are far from zero, as they are in all but toys like these.
    score, rloo = (draw(name, case, 1, shift=-40.0)[1] for name in ("elbo_score", "elbo_rloo"))
    assert rloo.var(axis=0).sum() < 0.01 * score.var(axis=0).sum()


def test_a_constant_baseline_takes_a_constant_away():
    case = "bernoulli, coupled"
    plain, shifted, mended = (
        draw("elbo_score", case, 1, **settings)[1]
        for settings in ({}, {"shift": 30.0}, {"shift": 30.0, "baseline": 30.0})
    )
    np.testing.assert_allclose(mended, plain, atol=1e-10)
    assert_mean(shifted, exact(case)[1])
    assert mended.var(axis=0).sum() < 0.01 * shifted.var(axis=0).sum()


@pytest.mark.parametrize(("estimator", "case"), ONE_CASE_EACH)
def test_an_additive_constant_passes_through(estimator, case):
    values, gradients = draw(estimator, case, 1)
    shifted, shifted_gradients = draw(estimator, case, 1, shift=40.0)
    np.testing.assert_allclose(shifted, values + 40, rtol=1e-12)
    if estimator == "elbo_score":  # which has nothing against a constant but its mean
        assert shifted_gradients.var(axis=0).sum() > 10 * gradients.var(axis=0).sum()
        assert_mean(shifted_gradients, exact(case)[1])
    else:
        np.testing.assert_allclose(shifted_gradients, gradients, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("estimator", "case"), ONE_CASE_EACH)
def test_a_batch_of_q_equals_each_alone(estimator, case):
    target, keys = get(case), jax.random.split(jax.random.key(0), 4096)
    other = jax.tree.map(lambda x: x + 0.1, target.q)
    qs = jax.tree.map(lambda *leaves: jnp.stack(leaves), target.q, other)
    both = jax.vmap(jax.value_and_grad(lambda key, q: ESTIMATORS[estimator](key, q, target), 1))
    together = jax.jit(both)(keys[:2], qs)
    for i, q in enumerate((target.q, other)):
        alone = batch(estimator, case)(keys, q, jnp.asarray(0.0))
        for x, y in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(x[i], y[i], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("estimator", "case"), [("elbo", "mean field"), ("elbo_rloo", "bernoulli")])
def test_plain_equals_compiled(estimator, case):
    key = jax.random.split(jax.random.key(1), 4096)[0]
    value, gradient = jax.value_and_grad(ESTIMATORS[estimator], 1)(key, get(case).q, get(case))
    values, gradients = draw(estimator, case, 1)
    np.testing.assert_allclose(value, values[0], rtol=1e-12)
    np.testing.assert_allclose(flat(gradient), gradients[0], atol=1e-12)


@pytest.mark.parametrize(("estimator", "case"), ONE_CASE_EACH)
def test_float32_in_float32_out(estimator, case):
    at = "q" if case == "bernoulli, coupled" else "posterior"
    values, gradients = draw(estimator, case, 1, at=at, dtype="float32")
    assert values.dtype == gradients.dtype == np.float32
    if ESTIMATORS[estimator].always:
        np.testing.assert_allclose(values, get(case).log_evidence, atol=1e-4)
    else:
        assert_mean(values.astype(float), get(case).log_evidence, atol=1e-4)
    assert_mean(gradients.astype(float), 0, atol=1e-4)


AT = {  # the forms on given noise
    "elbo": lambda e, q, c: elbo_at(e, q, c.log_density),
    "elbo_stl": lambda e, q, c: elbo_stl_at(e, q, c.log_density),
    "elbo_entropy": lambda e, q, c: elbo_entropy_at(e, q, c.log_density),
    "elbo_kl": lambda e, q, c: elbo_kl_at(e, q, c.log_likelihood, prior=c.prior),
}


@pytest.mark.parametrize("estimator", PATHWISE)
def test_equals_itself_on_given_noise(estimator):
    for case in ESTIMATORS[estimator].cases:
        target, key = get(case), jax.random.split(jax.random.key(1), 4096)[7]
        given = noise.iid(key, 3, target.q.noise_size, target.q.dtype)
        at = jax.jit(lambda e, q, c=target: AT[estimator](e, q, c))(given, target.q)
        np.testing.assert_allclose(at, draw(estimator, case, 1)[0][7], rtol=1e-12)


@pytest.mark.parametrize("estimator", ("elbo", "elbo_entropy", "elbo_kl"))
def test_gradient_is_that_of_the_value_by_finite_differences(estimator):
    """On fixed noise; sticking the landing and the score function have other gradients than their values on purpose."""
    for case in ESTIMATORS[estimator].cases:
        target = get(case)
        given = noise.iid(jax.random.key(3), 3, target.q.noise_size, target.q.dtype)
        value = jax.jit(jax.value_and_grad(lambda q, e=given, c=target: AT[estimator](e, q, c)))
        direction = jax.tree.map(jnp.cos, target.q)
        step = 1e-5
        ahead, behind = (jax.tree.map(lambda x, d, h=h: x + h * d, target.q, direction) for h in (step, -step))
        slope = flat(value(target.q)[1]) @ flat(direction)
        np.testing.assert_allclose((value(ahead)[0] - value(behind)[0]) / (2 * step), slope, rtol=1e-7)


@pytest.mark.parametrize("case", cases.GAUSSIAN)
def test_all_forms_agree_in_expectation(case):
    bound = exact(case)[0]
    for estimator in PATHWISE:
        values = np.concatenate([draw(estimator, case, seed)[0] for seed in SEEDS])
        assert_mean(values, bound)
    # Where value is the same on the same noise, it is the same to rounding.
    np.testing.assert_allclose(draw("elbo", case, 1)[0], draw("elbo_stl", case, 1)[0], rtol=1e-10)


@pytest.mark.parametrize("estimator", PATHWISE)
def test_whitened_draws_are_exact_on_a_gaussian(estimator):
    """A quadratic log-density is averaged without error, and so is its gradient: every answer is the closed form."""
    values, gradients = draw(estimator, "full rank", 1, at="q", num_keys=16, num_samples=8, draws=noise.whitened)
    value, gradient = exact("full rank")
    np.testing.assert_allclose(values, value, rtol=1e-10)
    np.testing.assert_allclose(gradients, np.broadcast_to(gradient, gradients.shape), atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("draws", (noise.iid, noise.antithetic, noise.sobol), ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", ("full rank", "mixture"))
def test_every_way_to_draw_is_unbiased(case, draws, seed):
    values, gradients = draw("elbo", case, seed, num_samples=4, draws=draws)
    value, gradient = exact(case)
    assert_mean(values, value)
    assert_mean(gradients, gradient)
    if draws is not noise.iid:  # and better than independent draws, at the same price
        independent = draw("elbo", case, seed, num_samples=4, draws=noise.iid)[0]
        assert values.std() < independent.std()


WITH_DRAWS = {  # every pathwise objective, and its form on given noise [S, noise_size] or [S, K, noise_size]
    **{name: (getattr(elbojax.objectives, name), form, ()) for name, form in AT.items()},
    "elbo_beta": (partial(elbojax.objectives.elbo_beta, beta=0.5), None, ()),
    "iw_elbo": (elbojax.iw_elbo, lambda e, q, c: elbojax.objectives.iw_elbo_at(e, q, c.log_density), (4,)),
    "iw_elbo_dreg": (
        elbojax.iw_elbo_dreg,
        lambda e, q, c: elbojax.objectives.iw_elbo_dreg_at(e, q, c.log_density),
        (4,),
    ),
    "iw_elbo_gdreg": (elbojax.objectives.iw_elbo_gdreg, None, (4,)),
    "renyi_bound": (
        partial(elbojax.renyi_bound, alpha=0.5),
        lambda e, q, c: elbojax.objectives.renyi_bound_at(e, q, c.log_density, alpha=0.5),
        (4,),
    ),
    "cubo": (elbojax.cubo, lambda e, q, c: elbojax.objectives.cubo_at(e, q, c.log_density), ()),
    "f_divergence": (
        partial(elbojax.objectives.f_divergence, generator=elbojax.objectives.csiszar.squared_hellinger),
        lambda e, q, c: elbojax.objectives.csiszar.f_divergence_at(
            e, q, c.log_density, generator=elbojax.objectives.csiszar.squared_hellinger
        ),
        (),
    ),
}


@pytest.mark.slow
def test_every_pathwise_objective_takes_every_kind_of_draws():
    """As many as it says, and no others: the value is that on the noise which the sampler gives for the same key."""
    target, key = get("mean field"), jax.random.key(5)
    parts = ("elbo_kl", "elbo_beta", "iw_elbo_gdreg")  # of a likelihood and a prior
    for name, (objective, at, groups) in WITH_DRAWS.items():
        density = target.log_likelihood if name in parts else target.log_density
        more = {"prior": target.prior} if name in parts else {}
        more |= {"num_importance": groups[0]} if groups else {}
        values = {}
        for draws in (noise.iid, noise.antithetic, noise.whitened, noise.sobol):
            count = 4 * groups[0] if groups else 4
            given = draws(key, count, 2, "float64")
            values[draws.__name__] = objective(key, target.q, density, num_samples=4, draws=draws, **more)
            if at is not None:
                wanted = at(given.reshape(4, *groups, 2), target.q, target)
                np.testing.assert_allclose(values[draws.__name__], wanted, rtol=1e-12, err_msg=name)
        assert len({float(value) for value in values.values()}) == 4, name


@pytest.mark.parametrize("name", ("mean field", *cases.ENUMERABLE))
def test_the_prior_is_a_q_whose_bound_is_the_mean_log_likelihood(name):
    """Jensen: a bound it is, for the logarithm of a mean is above the mean of the logarithm."""
    terms = exact_terms(name, "prior")
    values, _ = draw("elbo_kl" if name == "mean field" else "elbo_rloo", name, 1, at="prior")
    assert_mean(values, terms["expected_log_likelihood"])
    assert values.mean() < get(name).log_evidence
