"""Bounds and divergences of several draws, against quadrature and enumeration.

One target: two bumps on a line, of known evidence; `q` is a Gaussian wider than both, so that all moments of the ratios exist.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from objectives.cases import SEEDS, assert_mean, flat, get

import elbojax
from elbojax.objectives import csiszar

TARGET = get("mixture")
Q = elbojax.mean_field(jnp.array([1.2]), jnp.array([2.2]))
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
GRID = np.linspace(-16, 16, 6401)[:, None]
CELL = GRID[1, 0] - GRID[0, 0]


def log_w(q, noise):
    """The definition, on given standard normal numbers."""
    z = q.loc + jnp.exp(q.log_scale) * noise[..., None]
    return jnp.vectorize(lambda z: TARGET.log_density(z) - q.log_prob(z), signature="(d)->()")(z)


def over_pairs(bound):
    """The expectation of a bound of two draws, by quadrature: a function of q."""
    pairs = np.stack(np.meshgrid(NODES, NODES, indexing="ij"), -1)
    return lambda q: jnp.sum(np.outer(WEIGHTS, WEIGHTS) * bound(log_w(q, pairs)))


def divergence(integrand):
    """An integral over z of q and the normalised posterior p."""

    def value(q):
        log_q = jax.vmap(q.log_prob)(GRID)
        log_p = jax.vmap(TARGET.log_density)(GRID) - TARGET.log_evidence
        return CELL * jnp.sum(integrand(jnp.exp(log_p), jnp.exp(log_q)))

    return value


def log_mean(power):
    return lambda w: (jnp.logaddexp(power * w[..., 0], power * w[..., 1]) - jnp.log(2.0)) / power


def xlogy(x, y):
    return jnp.where(x > 0, x * jnp.log(jnp.where(x > 0, y, 1)), 0)


def f(generator):
    return functools.partial(
        elbojax.objectives.f_divergence, generator=generator, log_evidence=TARGET.log_evidence, num_samples=4
    )


PAIR = dict(num_importance=2)
EXACT = {  # objective, what its mean value is, and its mean gradient
    "iw_elbo": (functools.partial(elbojax.iw_elbo, **PAIR), over_pairs(log_mean(1.0))),
    "iw_elbo_dreg": (functools.partial(elbojax.iw_elbo_dreg, **PAIR), over_pairs(log_mean(1.0))),
    "renyi, 0.5": (functools.partial(elbojax.renyi_bound, alpha=0.5, **PAIR), over_pairs(log_mean(0.5))),
    "renyi, 2": (functools.partial(elbojax.renyi_bound, alpha=2.0, **PAIR), over_pairs(log_mean(-1.0))),
    "renyi, -inf": (
        functools.partial(elbojax.renyi_bound, alpha=-jnp.inf, **PAIR),
        over_pairs(lambda w: jnp.max(w, axis=-1)),
    ),
    "cubo": (functools.partial(elbojax.cubo, num_samples=2), over_pairs(log_mean(2.0))),
    "cubo, 3": (functools.partial(elbojax.cubo, order=3.0, num_samples=2), over_pairs(log_mean(3.0))),
    "vimco": (functools.partial(elbojax.objectives.vimco, **PAIR), over_pairs(log_mean(1.0))),
    "reverse_kl": (f(csiszar.reverse_kl), divergence(lambda p, q: xlogy(q, q / p))),
    "inclusive_kl": (f(csiszar.inclusive_kl), divergence(lambda p, q: xlogy(p, p / q))),
    "chi_square": (f(csiszar.chi_square), divergence(lambda p, q: p**2 / q - q)),
    "squared_hellinger": (f(csiszar.squared_hellinger), divergence(lambda p, q: (jnp.sqrt(p) - jnp.sqrt(q)) ** 2)),
    "jensen_shannon": (
        f(csiszar.jensen_shannon),
        divergence(lambda p, q: 0.5 * (xlogy(p, 2 * p / (p + q)) + xlogy(q, 2 * q / (p + q)))),
    ),
    "total_variation": (f(csiszar.total_variation), divergence(lambda p, q: 0.5 * jnp.abs(p - q))),
}
SMOOTH = [name for name in EXACT if name != "renyi, -inf"]  # whose quadrature converges


@functools.cache
def exact_of(name):
    value, gradient = jax.jit(jax.value_and_grad(EXACT[name][1]))(Q)
    return float(value), np.asarray(flat(gradient))


@functools.cache
def compiled(objective):
    return jax.jit(
        jax.vmap(jax.value_and_grad(lambda key, q: objective(key, q, TARGET.log_density), 1), in_axes=(0, None))
    )


def draw(objective, seed, q=Q, num_keys=8192):
    values, gradients = compiled(objective)(jax.random.split(jax.random.key(seed), num_keys), q)
    return np.asarray(values), np.concatenate([np.reshape(x, (num_keys, -1)) for x in jax.tree.leaves(gradients)], 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SMOOTH)
def test_mean_value_and_mean_gradient_are_exact(name, seed):
    value, gradient = exact_of(name)
    values, gradients = draw(EXACT[name][0], seed)
    assert_mean(values, value, errors=4.5)
    assert_mean(gradients, gradient, errors=4.5)
    # With so many draws that a gradient of a wrong sign or size would show.
    assert gradients.std(axis=0).max() / np.sqrt(len(gradients)) < 0.1 * np.linalg.norm(gradient)


@pytest.mark.parametrize("name", [name for name in EXACT if name != "iw_elbo_dreg"])  # which takes no mixture
def test_at_the_posterior_every_draw_gives_the_evidence(name):
    values, _ = draw(EXACT[name][0], 1, q=TARGET.posterior, num_keys=16)
    np.testing.assert_allclose(values, 0.0 if hasattr(csiszar, name) else TARGET.log_evidence, atol=1e-10)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_one_draw_and_the_ends_of_the_line(dtype):
    q, noise = jax.tree.map(lambda x: x.astype(dtype), (Q, jnp.asarray(NODES[20:44].reshape(4, 6, 1))))
    target, singles = get("mixture", dtype).log_density, noise.reshape(24, 1)
    renyi = lambda alpha: lambda q: elbojax.objectives.renyi_bound_at(noise, q, target, alpha=alpha)  # noqa: E731
    cubo = lambda n: lambda q: jnp.mean(jax.vmap(lambda e: elbojax.objectives.cubo_at(e, q, target, order=n))(noise))  # noqa: E731
    forms = {
        "elbo": lambda q: elbojax.objectives.elbo_at(singles, q, target),
        "stl": lambda q: elbojax.objectives.elbo_stl_at(singles, q, target),
        "iw": lambda q: elbojax.objectives.iw_elbo_at(noise, q, target),
        "iw of one": lambda q: elbojax.objectives.iw_elbo_at(singles[:, None], q, target),
        "dreg of one": lambda q: elbojax.objectives.iw_elbo_dreg_at(singles[:, None], q, target),
        **{f"renyi {alpha}": renyi(alpha) for alpha in (1.0, 1.0 + 1e-7, 0.0, -1.0, -2.5, -jnp.inf, jnp.inf)},
        **{f"cubo {n}": cubo(n) for n in (2.0, 3.5)},
        "largest": lambda q: jnp.mean(jnp.max(log_w_of(q, noise, target), axis=1)),
        "smallest": lambda q: jnp.mean(jnp.min(log_w_of(q, noise, target), axis=1)),
    }
    found = jax.jit(lambda q: {name: jax.value_and_grad(form)(q) for name, form in forms.items()})(q)
    assert {value.dtype for value, _ in found.values()} == {jnp.dtype(dtype)}
    rounding = {"float32": 2e-5, "float64": 1e-11}[dtype]
    for one, other, tolerance in (
        ("iw of one", "elbo", rounding),
        ("dreg of one", "stl", rounding),
        ("renyi 1.0", "elbo", rounding),
        ("renyi 1.0000001", "elbo", 1e-4),  # the two sides of alpha = 1 meet there
        ("renyi 0.0", "iw", rounding),
        ("renyi -1.0", "cubo 2.0", rounding),
        ("renyi -2.5", "cubo 3.5", rounding),
        ("renyi -inf", "largest", rounding),
        ("renyi inf", "smallest", rounding),
    ):
        for x, y in zip(jax.tree.leaves(found[one]), jax.tree.leaves(found[other]), strict=True):
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=one)


AT_NOTHING = {  # f(0): what the divergence pays for draws where p is nothing
    "reverse_kl": np.inf,
    "inclusive_kl": 0.0,
    "chi_square": -1.0,
    "squared_hellinger": 1.0,
    "jensen_shannon": 0.5 * np.log(2),
    "total_variation": 0.5,
}


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("name", AT_NOTHING)
def test_generators_at_the_ends_and_in_the_middle(name, dtype):
    """Convex in the ratio, zero at one, and no NaN where p is nothing."""
    f = getattr(csiszar, name)
    at = jnp.array([-jnp.inf, -200.0, -1e-3, 0.0, 1e-3, 80.0], dtype)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(f)))(at)
    assert values.dtype == slopes.dtype == at.dtype and values[3] == 0
    assert not np.any(np.isnan(values)) and not np.any(np.isnan(slopes))
    np.testing.assert_allclose(values[0], AT_NOTHING[name], rtol=1e-6)
    chords = np.diff(f(jnp.linspace(-3, 3, 13, dtype=dtype))) / np.diff(np.exp(np.linspace(-3, 3, 13)))
    assert np.all(np.diff(chords) > -1e-6)


def test_a_density_that_ends_has_a_divergence():
    """The exponential distribution seen from a Gaussian: half of the draws lie where there is none of it."""
    target = lambda z: jnp.where(z[0] > 0, -z[0], -jnp.inf)  # noqa: E731
    q = elbojax.mean_field(jnp.zeros(1), 1.0)
    for name in AT_NOTHING:
        one = functools.partial(elbojax.objectives.f_divergence, generator=getattr(csiszar, name), num_samples=8192)
        value, gradient = jax.jit(jax.value_and_grad(lambda q, f=one: f(jax.random.key(0), q, target)))(q)
        assert np.isfinite(value) == (name != "reverse_kl"), name
        assert np.all(np.isfinite(flat(gradient))), name
        if name == "inclusive_kl":  # E_p[-z + z^2 / 2] + log(2 pi) / 2
            np.testing.assert_allclose(value, 0.5 * np.log(2 * np.pi), atol=0.1)


def log_w_of(q, noise, target):
    return jax.vmap(jax.vmap(lambda e: target(q.transport(e)) - q.log_prob(q.transport(e))))(noise)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mixture_averages_its_strata_too(seed):
    """One draw of every component: without bias for the evidence, and so a bound, above the ELBO."""
    q = elbojax.mixture(jnp.array([0.2, -0.4]), [elbojax.mean_field(jnp.array([m]), 1.6) for m in (-1.0, 1.5)])
    values, _ = draw(ONE, seed, q=q)
    assert_mean(np.exp(values), np.exp(TARGET.log_evidence))
    error = values.std() / np.sqrt(len(values))
    assert TARGET.exact(q) + 4 * error < values.mean() < TARGET.log_evidence


ONE = functools.partial(elbojax.iw_elbo, num_importance=1)


@pytest.mark.parametrize("seed", SEEDS)
def test_renyi_does_not_increase_in_alpha_draw_by_draw(seed):
    alphas = jnp.array([-jnp.inf, -30.0, -1.0, 0.0, 0.5, 0.99, 1.0, 1.01, 2.0, 30.0, jnp.inf])
    noise = jax.random.normal(jax.random.key(seed), (1, 7, 1))
    bounds = jax.jit(
        jax.vmap(lambda alpha: elbojax.objectives.renyi_bound_at(noise, Q, TARGET.log_density, alpha=alpha))
    )(alphas)
    assert np.all(np.diff(bounds) < 0)


def test_the_bounds_stand_in_order():
    """ELBO < importance-weighted, rising in K < log evidence < EUBO and CUBO, the latter as quadrature has it."""
    exact = {name: exact_of(name)[0] for name in ("iw_elbo", "reverse_kl", "inclusive_kl", "chi_square")}
    elbo = TARGET.log_evidence - exact["reverse_kl"]
    cubo = TARGET.log_evidence + 0.5 * np.log1p(exact["chi_square"])
    rising = [elbo, exact["iw_elbo"]]
    for k in (4, 16, 64):
        values = draw(functools.partial(elbojax.iw_elbo, num_importance=k), 1, num_keys=4096)[0]
        error = values.std() / np.sqrt(len(values))
        assert values.mean() - rising[-1] > 5 * error
        rising.append(values.mean())
    assert TARGET.log_evidence - rising[-1] > 0
    assert 0 < exact["inclusive_kl"] < np.log1p(exact["chi_square"])  # evidence < EUBO, and Jensen
    many = jax.jit(lambda key: elbojax.cubo(key, Q, TARGET.log_density, num_samples=200_000))(jax.random.key(0))
    np.testing.assert_allclose(many, cubo, atol=0.01)


@pytest.mark.parametrize("seed", SEEDS)
def test_eubo_is_the_evidence_plus_the_forward_kl(seed):
    events, _ = elbojax.families.sample_many(jax.random.key(seed), TARGET.posterior, 20_000)
    one = jax.jit(
        jax.vmap(jax.value_and_grad(lambda q, z: elbojax.objectives.eubo(z[None], q, TARGET.log_density)), (None, 0))
    )
    values, gradients = one(Q, events)
    value, gradient = exact_of("inclusive_kl")
    assert_mean(np.asarray(values), TARGET.log_evidence + value)
    assert_mean(np.asarray(jax.vmap(flat)(gradients)), gradient)


FORWARD, WAKE = functools.partial(elbojax.forward_kl, **PAIR), functools.partial(elbojax.objectives.rws_wake, **PAIR)
MANY = functools.partial(elbojax.forward_kl, num_importance=4096)


@functools.cache
def self_normalised():
    """The mean of the value, and of the gradient of log q at the draws, both by quadrature."""
    pairs = np.stack(np.meshgrid(NODES, NODES, indexing="ij"), -1)
    both = np.outer(WEIGHTS, WEIGHTS)

    @jax.jit
    def value_and_gradient(at):
        w = log_w(at, pairs)
        share = jax.nn.softmax(w, axis=-1)

        def shared_log_q(q):  # at fixed draws and shares
            z = at.loc + jnp.exp(at.log_scale) * pairs[..., None]
            return jnp.sum(both[..., None] * share * jnp.vectorize(q.log_prob, signature="(d)->()")(z))

        return jnp.sum(both * (jnp.sum(share * w, -1) - log_mean(1.0)(w))), flat(jax.grad(shared_log_q)(at))

    value, gradient = value_and_gradient(Q)
    return float(value), np.asarray(gradient)


@pytest.mark.parametrize("seed", SEEDS)
def test_self_normalised_weights_follow_their_formula_and_come_near_the_forward_kl(seed):
    value, gradient = self_normalised()
    values, gradients = draw(FORWARD, seed)
    assert values.min() >= 0
    assert_mean(values, value)
    assert_mean(gradients, -gradient)
    waking = draw(WAKE, seed)
    assert_mean(waking[0], exact_of("iw_elbo")[0])
    assert_mean(waking[1], gradient)
    values, gradients = draw(MANY, seed, num_keys=32)
    exact, slope = exact_of("inclusive_kl")
    np.testing.assert_allclose(values.mean(), exact, atol=0.02)
    np.testing.assert_allclose(gradients.mean(axis=0), slope, atol=0.05 * np.linalg.norm(slope))


@pytest.mark.parametrize(
    "objective",
    (elbojax.iw_elbo, elbojax.iw_elbo_dreg, elbojax.objectives.rws_wake, elbojax.objectives.vimco),
    ids=lambda f: f.__name__,
)
def test_the_model_climbs_the_importance_weighted_bound(objective):
    """The gradient in a parameter of the model, each draw by its share, whatever the gradient in q."""

    def bound(theta, key):
        return objective(key, Q, lambda z: TARGET.log_density(z - theta), num_importance=2)

    def ratios(theta):
        pairs = np.stack(np.meshgrid(NODES, NODES, indexing="ij"), -1)
        z = Q.loc + jnp.exp(Q.log_scale) * pairs[..., None]
        w = jnp.vectorize(lambda z: TARGET.log_density(z - theta) - Q.log_prob(z), signature="(d)->()")(z)
        return jnp.sum(np.outer(WEIGHTS, WEIGHTS) * log_mean(1.0)(w))

    slopes = jax.jit(jax.vmap(jax.grad(bound), (None, 0)))(0.0, jax.random.split(jax.random.key(1), 8192))
    assert_mean(np.asarray(slopes), float(jax.grad(ratios)(0.0)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", ("mean field", "full rank"))
def test_generalised_dreg_differentiates_the_prior_too(family, seed):
    """Same mean as the plain gradient of the same bound, in q and in the prior; less noise in the prior near q = p."""
    case = get(family)
    tril = jnp.diag(jnp.exp(case.prior.log_scale))
    prior = case.prior if family == "mean field" else elbojax.full_rank(case.prior.loc, tril)

    def plain(key, q, prior):
        joint = lambda z: case.log_likelihood(z) + prior.log_prob(z)  # noqa: E731
        return elbojax.iw_elbo(key, q, joint, num_importance=4)

    def doubly(key, q, prior):
        return elbojax.objectives.iw_elbo_gdreg(key, q, case.log_likelihood, prior=prior, num_importance=4)

    keys = jax.random.split(jax.random.key(seed), 8192)
    (value, q_plain, prior_plain), (same, q_doubly, prior_doubly) = (
        [np.asarray(x) for x in gradients_of(objective, family)(keys, case.q, prior)] for objective in (plain, doubly)
    )
    np.testing.assert_allclose(value, same, rtol=1e-10)
    for a, b in ((q_plain, q_doubly), (prior_plain, prior_doubly)):
        assert_mean(a - b, 0, errors=4.5)
        assert np.abs(a.mean(axis=0)).max() > 0.1


_COMPILED = {}


def gradients_of(objective, family):
    """Compiled once for all seeds; the functions of a test are made anew for each."""
    name = (objective.__name__, family)
    if name not in _COMPILED:

        def all_of_it(key, q, prior):
            value, (in_q, in_prior) = jax.value_and_grad(objective, (1, 2))(key, q, prior)
            return value, flat(in_q), flat(in_prior)

        _COMPILED[name] = jax.jit(jax.vmap(all_of_it, (0, None, None)))
    return _COMPILED[name]


def test_the_signal_of_dreg_does_not_fade():
    """Tucker et al. 2019: at K = 64 the plain gradient is noise, the doubly reparameterised one is not."""
    ratios = {}
    for name in ("iw_elbo", "iw_elbo_dreg"):
        for k in (1, 64):
            objective = functools.partial(getattr(elbojax, name), num_importance=k)
            gradients = draw(objective, 1, num_keys=2048)[1]
            ratios[name, k] = np.linalg.norm(gradients.mean(axis=0)) / np.sqrt(gradients.var(axis=0).sum())
    assert ratios["iw_elbo", 64] < 0.5 * ratios["iw_elbo", 1]
    assert ratios["iw_elbo_dreg", 64] > 5 * ratios["iw_elbo", 64]
    assert ratios["iw_elbo_dreg", 64] > ratios["iw_elbo_dreg", 1]


@pytest.mark.parametrize("case", ("bernoulli, coupled", "categorical"))
def test_vimco_on_discrete_latents_by_enumeration(case):
    target = get(case)

    def exact(q):
        events = q.enumerate()
        log_q = jax.vmap(q.log_prob)(events)
        w = jax.vmap(target.log_density)(events) - log_q
        bound = jnp.logaddexp(w[:, None], w[None, :]) - jnp.log(2.0)
        return jnp.sum(jnp.exp(log_q[:, None] + log_q[None, :]) * bound)

    value, gradient = jax.jit(jax.value_and_grad(exact))(target.q)
    one = jax.value_and_grad(lambda key, q: elbojax.objectives.vimco(key, q, target.log_density, num_importance=2), 1)
    many = jax.jit(jax.vmap(one, (0, None)))
    for seed in SEEDS:
        values, gradients = many(jax.random.split(jax.random.key(seed), 8192), target.q)
        assert_mean(np.asarray(values), float(value))
        assert_mean(np.asarray(jax.vmap(flat)(gradients)), np.asarray(flat(gradient)))


def test_vimco_passes_over_draws_where_there_is_no_density():
    """Their share is nothing, and a baseline of them alone is none."""
    q = elbojax.bernoulli(jnp.array([0.3, -0.2]))
    allowed = lambda z: jnp.where(z[0] == z[1], 1.0 * z[0], -jnp.inf)  # noqa: E731
    keys = jax.random.split(jax.random.key(0), 64)
    value_and_grad = jax.value_and_grad(lambda q, key: elbojax.objectives.vimco(key, q, allowed, num_importance=3))
    values, gradients = jax.jit(jax.vmap(value_and_grad, (None, 0)))(q, keys)
    some = np.isfinite(values)
    assert 32 < some.sum() < 64  # three draws of none are no bound
    assert np.all(np.isfinite(gradients.logits[some]))


@pytest.mark.parametrize("case", ("bernoulli", "bernoulli, coupled", "categorical"))
def test_listing_all_events_is_exact(case):
    target = get(case)
    bound = jax.value_and_grad(lambda q: elbojax.elbo_enumerated(None, q, target.log_density))
    value, gradient = jax.jit(bound)(target.q)
    wanted, slope = jax.value_and_grad(target.exact)(target.q)
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    np.testing.assert_allclose(flat(gradient), flat(slope), atol=1e-12)


@pytest.mark.parametrize("case", ("mean field", "bernoulli, coupled"))
def test_the_gradient_of_the_log_variance_is_that_of_leave_one_out(case):
    target, keys = get(case), jax.random.split(jax.random.key(0), 64)
    a, b = (
        jax.jit(
            jax.vmap(jax.value_and_grad(lambda key, q, o=o: o(key, q, target.log_density, num_samples=5), 1), (0, None))
        )(keys, target.q)
        for o in (elbojax.elbo_rloo, elbojax.objectives.elbo_vargrad)
    )
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)


def test_antithetic_coins_are_less_noisy_than_leaving_one_out():
    target, keys = get("bernoulli, coupled"), jax.random.split(jax.random.key(0), 8192)
    noise = {}
    for name, objective in (("disarm", elbojax.objectives.elbo_disarm), ("rloo", elbojax.elbo_rloo)):
        draws = {"disarm": 1, "rloo": 2}[name]  # two log-densities each
        gradient = jax.grad(lambda key, q, o=objective, s=draws: o(key, q, target.log_density, num_samples=s), 1)
        noise[name] = np.asarray(jax.jit(jax.vmap(gradient, (0, None)))(keys, target.q).logits).var(axis=0).sum()
    assert noise["disarm"] < noise["rloo"]


def relaxable(y):
    """The log-joint of three coupled coins, made sense of between 0 and 1."""
    return 1.5 * y[0] * y[1] - 2.0 * y[1] * y[2] + 0.8 * y[0] - 0.4 * y[0] * y[1] * y[2]


@pytest.mark.parametrize("straight_through", (False, True))
def test_a_relaxed_gradient_is_biased_less_at_a_lower_temperature(straight_through):
    q = elbojax.bernoulli(jnp.array([-0.6, 0.5, 1.0]))
    value, exact = jax.value_and_grad(lambda q: elbojax.elbo_enumerated(None, q, lambda z: relaxable(1.0 * z)))(q)

    @jax.jit
    def many(keys, temperature):
        def one(key, q):
            return elbojax.objectives.elbo_gumbel_softmax(
                key, q, relaxable, temperature=temperature, straight_through=straight_through
            )

        return jax.vmap(jax.value_and_grad(one, 1), (0, None))(keys, q)

    keys = jax.random.split(jax.random.key(0), 100_000)
    bias = {}
    for temperature in (0.1, 2.0):
        values, gradients = many(keys, temperature)
        bias[temperature] = np.abs(np.asarray(gradients.logits).mean(axis=0) - exact.logits).max()
        if straight_through:
            assert_mean(np.asarray(values), float(value))
    assert bias[0.1] < 0.05 < 2 * bias[0.1] + bias[2.0]
    assert bias[0.1] < 0.5 * bias[2.0]


def test_relaxed_dice_are_points_of_the_simplex_and_hard_ones_its_corners():
    q = get("categorical").q
    seen = []

    def look(y):
        seen.append(y)
        return jnp.sum(y)

    with jax.disable_jit():
        for hard in (False, True):
            elbojax.objectives.elbo_gumbel_softmax(jax.random.key(0), q, look, temperature=0.3, straight_through=hard)
    relaxed = q.relax(jax.random.key(1), 0.3)
    np.testing.assert_allclose(relaxed.sum(-1), 1)
    assert set(np.unique(q.harden(relaxed))) == {0.0, 1.0}
    np.testing.assert_array_equal(q.harden(relaxed).argmax(-1), relaxed.argmax(-1))
    assert seen[0].shape == q.logits.shape


@pytest.mark.parametrize("beta", (0.0, 0.5, 3.0))
def test_beta_weighs_the_kl_to_the_prior(beta):
    case = get("full rank")
    terms = case.exact_terms(case.q)
    settings = dict(num_samples=8, draws=elbojax.noise.whitened)
    value = jax.jit(
        lambda q, prior, beta: elbojax.objectives.elbo_beta(
            jax.random.key(0), q, case.log_likelihood, prior=prior, beta=beta, **settings
        )
    )(case.q, case.prior, beta)
    np.testing.assert_allclose(value, terms["expected_log_likelihood"] - beta * terms["kl_to_prior"], rtol=1e-10)


def test_dreams_teach_the_posterior():
    """The sleep phase on a linear Gaussian model: zero gradient at the posterior, in the mean, and not elsewhere."""

    def simulate(key):
        z, e = jax.random.normal(key, (2, 1))
        return z, 2.0 * z + e

    def gradient(key, slope, log_scale):
        def bound(slope, log_scale):
            return elbojax.objectives.rws_sleep(
                key, lambda x: elbojax.families.MeanField(slope * x, log_scale), simulate
            )

        return jnp.stack([jnp.sum(part) for part in jax.grad(bound, (0, 1))(slope, log_scale)])

    many = jax.jit(jax.vmap(gradient, (0, None, None)))
    keys = jax.random.split(jax.random.key(0), 8192)
    assert_mean(np.asarray(many(keys, 0.4, 0.5 * jnp.log(jnp.array([0.2])))), 0)
    assert np.abs(many(keys, 0.2, 0.5 * jnp.log(jnp.array([0.2]))).mean(axis=0)[0]) > 1


@pytest.mark.slow
def test_reverse_kl_picks_one_mode_and_forward_kl_covers_both():
    apart = elbojax.mixture(jnp.zeros(2), [elbojax.mean_field(jnp.array([m]), 0.7) for m in (-3.0, 3.0)])
    start = elbojax.mean_field(jnp.array([1.0]), jnp.array([1.0]))
    answers = {}
    for objective in (elbojax.elbo_stl, elbojax.forward_kl):
        loss = elbojax.as_loss(objective, apart.log_prob, num_samples=8)
        solver = elbojax.svi(loss, optax.adam(0.02))
        answers[objective] = elbojax.run(jax.random.key(1), solver, start, num_steps=1500).q
    one, both = answers[elbojax.elbo_stl], answers[elbojax.forward_kl]
    assert abs(abs(one.loc[0]) - 3) < 0.2 and abs(jnp.exp(one.log_scale[0]) - 0.7) < 0.1
    # The Gaussian with the moments of both: mean 0, variance 9 + 0.49.
    assert abs(both.loc[0]) < 0.4 and abs(jnp.exp(both.log_scale[0]) - np.sqrt(9.49)) < 0.4


def test_what_is_to_be_lowered_keeps_its_sign():
    key = jax.random.key(0)
    for objective, sign in (
        (elbojax.elbo, -1),
        (elbojax.iw_elbo, -1),
        (elbojax.objectives.rws_wake, -1),
        (elbojax.cubo, 1),
        (elbojax.forward_kl, 1),
        (functools.partial(elbojax.objectives.f_divergence, generator=csiszar.chi_square), 1),
    ):
        loss = elbojax.as_loss(objective, TARGET.log_density)
        pair = jax.jit(lambda key, q, o=objective, f=loss: (f(key, q, None), o(key, q, TARGET.log_density)))(key, Q)
        np.testing.assert_allclose(pair[0], sign * pair[1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda key: elbojax.iw_elbo(key, Q, jnp.sum, num_importance=0),
            ValueError,
            "num_importance must be at least 1",
        ),
        (lambda key: elbojax.renyi_bound(key, Q, jnp.sum, alpha=0.5, num_samples=0), ValueError, "num_samples must be"),
        (
            lambda key: elbojax.objectives.vimco(key, Q, jnp.sum, num_importance=1),
            ValueError,
            "num_importance must be at least 2",
        ),
        (lambda key: elbojax.forward_kl(key, Q, jnp.sum, num_importance=1), ValueError, "at least 2, got 1"),
        (lambda key: elbojax.objectives.rws_wake(key, Q, jnp.sum, num_importance=1), ValueError, "at least 2, got 1"),
        (
            lambda key: elbojax.objectives.rws_sleep(key, None, None, num_samples=0),
            ValueError,
            "num_samples must be at least 1",
        ),
        (lambda key: elbojax.iw_elbo_dreg(key, TARGET.posterior, jnp.sum), TypeError, "without strata, got Mixture"),
        (lambda key: elbojax.objectives.elbo_disarm(key, Q, jnp.sum), TypeError, "needs a Bernoulli q, got MeanField"),
        (
            lambda key: elbojax.objectives.elbo_gumbel_softmax(key, Q, jnp.sum, temperature=1.0),
            TypeError,
            "Bernoulli or Categorical",
        ),
        (lambda key: elbojax.elbo_enumerated(key, Q, jnp.sum), TypeError, "Enumerable q can be listed, got MeanField"),
        (lambda key: elbojax.elbo_chain(key, Q, jnp.sum), TypeError, "needs a MarkovChain q, got MeanField"),
        (lambda key: elbojax.iw_elbo(key, get("bernoulli").q, jnp.sum), TypeError, "needs a Reparameterised q"),
        (
            lambda key: elbojax.objectives.iw_elbo_gdreg(key, Q, jnp.sum, prior=TARGET.posterior),
            TypeError,
            "pathwise map of Mixture has no inverse",
        ),
    ],
)
def test_errors_say_what_was_wanted_and_given(call, error, message):
    with pytest.raises(error, match=message):
        call(jax.random.key(0))
