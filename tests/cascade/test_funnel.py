"""`fit` on funnels: right where a Gaussian is not, honest about modes, and a word on what to do where it fails."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import elbojax
from elbojax import Status, targets
from elbojax.cascade import funnel as in_batches
from elbojax.cascade.check.families import as_family
from elbojax.cascade.evaluate import Compiled, drive
from elbojax.cascade.exploration import chain_gradients
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.importance import Outcome
from elbojax.cascade.stages.funnel import cover, fit_along, least, recount, sentence
from elbojax.host import noise as noises
from elbojax.host.distributions import Gaussian
from elbojax.host.fit_funnel import fit_funnel
from elbojax.results import Stage
from elbojax.results.certificate import Certificate
from elbojax.solvers.newton import MAX_STEPS, draws_for

SEEDS = (1, 2, 3)


def normal(x, loc, scale):
    return -0.5 * ((x - loc) / scale) ** 2 - jnp.log(scale)


# ---- hierarchical models, against quadrature over the group mean and the group scale


def hierarchy(log_likelihood, mu_sd, log_prior_tau, z, data):
    """Groups b_j ~ normal(mu, tau), each with its own likelihood."""
    prior = normal(z["mu"], 0.0, mu_sd) + log_prior_tau(z["tau"])
    return prior + jnp.sum(normal(z["b"], z["mu"], z["tau"])) + jnp.sum(log_likelihood(z["b"], data))


def exact(log_likelihood, mu_sd, log_prior_tau, data, mus, log_taus):
    """Means and sds of mu, tau and b, for likelihoods and priors that NumPy understands."""
    nodes, log_w = np.linspace(-6, 6, 241), -0.5 * np.linspace(-6, 6, 241) ** 2
    log_tau, mu = np.meshgrid(np.linspace(*log_taus, 121), np.linspace(*mus, 91), indexing="ij")
    tau = np.exp(log_tau)
    log_p = -0.5 * (mu / mu_sd) ** 2 + log_prior_tau(tau) + log_tau
    b = mu[..., None] + tau[..., None] * nodes
    first, second = [], []
    for group in zip(*data, strict=True):
        log_values = log_w + log_likelihood(b, group)
        total = scipy.special.logsumexp(log_values, axis=-1)
        weights = np.exp(log_values - total[..., None])
        log_p = log_p + total
        first.append(np.sum(weights * b, axis=-1))
        second.append(np.sum(weights * b**2, axis=-1))
    weights = scipy.special.softmax(log_p)
    average = lambda x: np.sum(weights * x)  # noqa: E731
    mean = {"mu": average(mu), "tau": average(tau), "b": np.array([average(x) for x in first])}
    square = {"mu": average(mu**2), "tau": average(tau**2), "b": np.array([average(x) for x in second])}
    return mean, {name: np.sqrt(square[name] - mean[name] ** 2) for name in mean}


def schools():
    y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    return schools_likelihood, 5.0, half_cauchy, y, (-18, 26), (-9, 5)


def schools_likelihood(b, data):
    return -0.5 * ((data[0] - b) / data[1]) ** 2


def half_cauchy(tau):
    return -np.log1p((tau / 5) ** 2) if isinstance(tau, np.ndarray) else -jnp.log1p((tau / 5) ** 2)


def half_normal(tau):
    return -0.5 * tau**2


def counts():
    rng = np.random.default_rng(1)
    y = (rng.poisson(np.exp(0.3 + 0.5 * rng.normal(size=20))).astype(float),)
    return poisson_likelihood, 3.0, half_normal, y, (-2.5, 2.5), (-9, 2)


def poisson_likelihood(b, data):
    return data[0] * b - (np.exp(np.minimum(b, 50)) if isinstance(b, np.ndarray) else jnp.exp(b))


def proportions():
    rng = np.random.default_rng(2)
    trials = rng.integers(1, 6, 40).astype(float)
    y = rng.binomial(trials.astype(int), scipy.special.expit(1 + 0.4 * rng.normal(size=40))).astype(float)
    return binomial_likelihood, 2.5, half_normal, (y, trials), (-2, 4), (-9, 2)


def binomial_likelihood(b, data):
    return data[0] * b - data[1] * (np.logaddexp(0, b) if isinstance(b, np.ndarray) else jnp.logaddexp(0, b))


@functools.cache
def answers(case):
    return exact(*case())


@functools.cache
def density(case):
    return functools.partial(hierarchy, *case()[:3])


def fit(case, seed):
    data = case()[3]
    init = {"mu": 0.0, "tau": 1.0, "b": np.zeros(data[0].size)}
    return elbojax.fit(jax.random.key(seed), density(case), init, data=data, support={"tau": "positive"})


ONCE = [(schools, 1)]
OFTEN = [(case, seed) for case in (schools, counts, proportions) for seed in SEEDS if (case, seed) not in ONCE]


@pytest.mark.parametrize(
    ("case", "seed"),
    ONCE + [pytest.param(*row, marks=pytest.mark.slow) for row in OFTEN],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_group_scales(case, seed):
    found, (mean, sd) = fit(case, seed), answers(case)
    c = found.certificate
    assert c.certified and c.stage is Stage.FUNNEL, str(found)
    for name in mean:
        np.testing.assert_allclose((found.mean()[name] - mean[name]) / sd[name], 0, atol=0.1)
        np.testing.assert_allclose(found.sd()[name] / sd[name], 1, atol=0.1)
    assert c.num_gradients < 30_000 and c.ess > 1000
    assert "NOT" not in str(found) and "next step" not in str(found)


def neal(z):
    """Neal's funnel, normalised. The fourth moments of x are so large that no sample of this size tells its sd well,
    and where the check sees that, it refuses; where one draw makes much of a variance, there is NaN for the sd."""
    constant = 0.5 * (1 + z["x"].size) * jnp.log(2 * jnp.pi)
    return normal(z["v"], 0.0, 3.0) + jnp.sum(normal(z["x"], 0.0, jnp.exp(z["v"] / 2))) - constant


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_neals_funnel(seed):
    found = elbojax.fit(jax.random.key(seed), neal, {"v": 0.0, "x": np.zeros(9)})
    c = found.certificate
    assert c.stage is Stage.FUNNEL and c.khat < 0.5 and c.ess > 1000, str(found)
    assert abs(found.mean()["v"]) / 3 < 0.05 and abs(found.sd()["v"] / 3 - 1) < 0.05
    np.testing.assert_allclose(found.mean()["x"] / np.exp(9 / 4), 0, atol=0.1)
    if c.certified:
        assert c.modes == 1
        sd = found.sd()["x"] / np.exp(9 / 4)
        # Of nine, 4 to 9 by the seed and by how a processor rounds.
        assert np.mean(np.isfinite(sd)) >= 0.3
        np.testing.assert_allclose(sd[np.isfinite(sd)], 1, atol=0.25)
    assert abs(c.log_evidence) < 4 * c.log_evidence_se + 1e-3


def banana(z):
    """Given z[1], far up, z[0] has two modes, of which a walk along z[1] sees one."""
    return normal(z[0], 0.0, 2.0) + normal(z[1], z[0] ** 2, 1.0) + jnp.sum(normal(z[2:], 0.0, 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", (0, 1))
def test_a_hole_in_the_funnel_is_seen(seed):
    found = elbojax.fit(jax.random.key(seed), banana, np.zeros(4))
    if found.certificate.certified:
        np.testing.assert_allclose(found.mean()[:2] / np.array([2.0, 33**0.5]), [0, 4 / 33**0.5], atol=0.25)
    else:
        assert "next step" in str(found)


# ---- modes


def one_or_two(weight, z):
    """A funnel along z[0], and with weight another mode far along it."""
    one = normal(z[0], 0.0, 1.0) + jnp.sum(normal(z[1:], 0.0, jnp.exp(0.5 * z[0])))
    other = normal(z[0], 20.0, 0.5) + jnp.sum(normal(z[1:], 3.0, 1.0))
    return jnp.logaddexp(one, jnp.log(weight) + other)


ENDS = np.array([[0.0, 0.0, 0.0], [20.0, 3.0, 3.0], [-30.0, 0.0, 0.0]])
"""Of paths. The third ended in the neck, at a density far above the funnel's own and with no mass around it."""
WEIGHTS = (0.5, 1e-12)
"""Of the other mode."""


def with_ends(q, zero, dtype):
    """Paths of which only where they ended counts, and the outcome of a funnel that is to be counted anew."""
    paths = Paths(None, None, ENDS, np.zeros(3), np.full((3,), Status.CONVERGED, np.int32), zero)
    several = Certificate(*[zero] * len(Certificate._fields))._replace(
        modes=dtype(3), status=dtype(Status.MULTIMODAL), num_gradients=100.0 + zero
    )
    return paths, Outcome(q, zero, zero, several)


@functools.cache
def recounted_in_batches():
    def one(key, weight):
        log_density = functools.partial(one_or_two, weight)
        q, info = elbojax.solvers.fit_funnel(key, log_density, elbojax.full_rank(jnp.zeros(3), jnp.eye(3)), lead=0)
        paths, outcome = with_ends(q, jnp.zeros(()), jnp.int32)
        paths = jax.tree.map(jnp.asarray, paths)
        return in_batches.recount(key, log_density, paths, outcome).certificate, info.status

    certificates, status = jax.jit(jax.vmap(one, in_axes=(None, 0)))(jax.random.key(0), jnp.array(WEIGHTS))
    return [Certificate(*row) for row in zip(*map(np.asarray, certificates), strict=True)], status


@functools.cache
def found_alone(weight):
    model = Compiled(targets.unconstrain(functools.partial(one_or_two, weight), np.zeros(3)), None)
    walk = fit_funnel(np.random.default_rng(0), Gaussian(np.zeros(3), np.eye(3)), lead=0)
    return model, *drive(walk, model)


def recounted_alone(limit=np.inf):
    certificates, states = [], []
    for weight in WEIGHTS:
        model, q, info = found_alone(weight)
        paths, outcome = with_ends(as_family(q), np.float64(0), np.int32)
        certificates.append(drive(recount(np.random.default_rng(1), paths, outcome, limit), model).certificate)
        states.append(info.status)
    return certificates, states


@pytest.mark.parametrize("call", (recounted_in_batches, recounted_alone))
def test_a_mode_beyond_the_walk_stays_a_mode_unless_it_holds_nothing(call):
    certificates, status = call()
    assert np.all(np.array(status) == Status.CONVERGED)
    assert [int(c.modes) for c in certificates] == [2, 1]
    assert [bool(c.certified) for c in certificates] == [False, True]
    assert [int(c.status) for c in certificates] == [Status.MULTIMODAL, Status.CONVERGED]


def test_a_recount_costs_what_it_says():
    certificates, _ = recounted_alone()
    for c in certificates:
        used = c.num_gradients - 100
        assert 0 < used <= 3 * MAX_STEPS * draws_for(2) and used % draws_for(2) == 0


def test_no_recount_without_the_gradients():
    """It could take more than are left: what the paths say stands."""
    most = 100 + 3 * MAX_STEPS * draws_for(2)
    before, _ = recounted_alone(limit=most - 1)
    assert [(int(c.modes), bool(c.certified), float(c.num_gradients)) for c in before] == [(3, False, 100.0)] * 2
    assert [int(c.modes) for c in recounted_alone(limit=most)[0]] == [2, 1]


def test_ends_that_the_funnel_covers_cost_nothing():
    model, q, _ = found_alone(WEIGHTS[0])
    paths, outcome = with_ends(as_family(q), np.float64(0), np.int32)
    paths = paths._replace(modes=q.draw(np.random.default_rng(0).standard_normal((3, q.noise_size)))[0])
    c = drive(recount(np.random.default_rng(1), paths, outcome), model).certificate
    assert c.certified and c.modes == 1 and c.num_gradients == 100
    # Those of paths that have not converged are no modes either.
    paths = paths._replace(modes=ENDS, status=np.full(3, Status.MAX_STEPS, np.int32))
    assert drive(recount(np.random.default_rng(1), paths, outcome), model).certificate.certified


# ---- the stage by itself


def before(size, rng):
    """An outcome to begin with: draws of a Gaussian, of equal weights."""
    zero = np.float64(0)
    certificate = Certificate(*[zero] * len(Certificate._fields))._replace(
        modes=np.int64(1), num_log_densities=np.int64(7), num_gradients=np.float64(50)
    )
    draws = rng.standard_normal((1024, size))
    return Outcome(None, draws, np.full(1024, -np.log(1024)), certificate)


def flat_neal(z):
    return neal({"v": z[0], "x": z[1:]})


@functools.cache
def along(limit=np.inf, size=6):
    model = Compiled(targets.unconstrain(flat_neal, np.zeros(size)), None)
    rng = np.random.default_rng(0)
    start, paths = Gaussian(np.zeros(size), np.eye(size)), Paths(*[None] * len(Paths._fields))
    return drive(fit_along(rng, start, paths, before(size, rng), limit), model)


def test_the_check_of_a_funnel():
    """Neal's, which is one: the bound is tight, the weights light, and what was used is added to what had been."""
    outcome = along()
    c = outcome.certificate
    assert c.certified and int(c.stage) == Stage.FUNNEL and int(c.status) == Status.CONVERGED
    assert abs(c.log_evidence) < 4 * c.log_evidence_se + 1e-3 and -0.1 < c.elbo < 4 * c.elbo_se
    assert c.num_log_densities == 7 + len(outcome.draws) and c.num_gradients > 50
    np.testing.assert_allclose(np.sum(np.exp(outcome.log_weights)), 1)


@pytest.mark.parametrize("extra", (0, 1_000, 2_000))
def test_the_stage_keeps_to_its_gradients(extra):
    """With the short chains, should it come to them."""
    limit = 50 + least(6) + extra
    used = along(limit).certificate.num_gradients
    assert used <= limit - chain_gradients() and used < along().certificate.num_gradients


def test_the_cover_has_heavier_tails():
    q = found_alone(WEIGHTS[1])[1]
    covering = cover(q)
    draws, log_probs = q.draw(noises.sobol(np.random.default_rng(0), 4096, q.noise_size))
    assert covering.df == 10 and np.max(log_probs - covering.log_prob(draws)) < 5
    far = np.array([[q.knots[0] - 3, 0.0, 0.0], [0.0, 30.0, 0.0]])
    assert np.all(covering.log_prob(far) > q.log_prob(far) + 1)


def test_the_log_density_is_all_that_is_compiled(caplog):
    """For the funnel, its check, the short chains, the second look."""

    def shifted(z):
        return flat_neal(z - 0.1)

    with jax.log_compiles():
        found = elbojax.fit(jax.random.key(0), shifted, np.zeros(6))
    names = {r.getMessage().split()[1] for r in caplog.records if r.getMessage().startswith("Compiling")}
    assert found.certificate.stage is Stage.FUNNEL and found.certificate.num_log_densities > 20_000, str(found)
    assert "jit(log_densities)" in names
    assert not [name for name in names if "program" in name or "stage" in name or "recheck" in name], names


# ---- words

NAMES = ("theta[0]", "theta[1]", "tau", "mu")


def learnt(log_scales):
    """A funnel led by tau."""
    order = np.array([2, 0, 1, 3])
    trils = np.exp(np.asarray(log_scales))[:, :, None] * np.eye(3)
    basis = np.eye(4)[:, order]
    return elbojax.families.funnel(
        np.arange(4.0) - 2, np.array([-1.0, 0, -1, -9]), np.zeros((4, 3)), trils, basis=basis
    )


@pytest.mark.parametrize(
    ("log_scales", "words"),
    [
        ([[-2.0, -2, 0], [-1.0, -1, 0], [0.0, 0, 0], [1.0, 1, 5]], "funnel between tau and theta: try non-centring"),
        ([[-2.0, 0, 0], [-1.0, 0, 0], [0.0, 0, 2], [1.0, 1, 5]], "funnel between tau and theta, mu: try non-centring"),
        (
            [[2.0, 0, 0], [1.0, 0, 0], [0.0, 0, 0], [9.0, 1, 5]],
            "funnel between tau and theta: try the other of centred and non-centred",
        ),
        ([[0.0, 0, 0]] * 3 + [[5.0, 5, 5]], ""),
        ([[np.nan, 0, 0]] * 4, ""),
    ],
    ids=("theta", "theta and mu", "upside down", "no funnel", "nan"),
)
def test_says_what_moves_what(log_scales, words):
    q = learnt(np.nan_to_num(log_scales))
    q = jax.tree.map(lambda x: x + jnp.nan, q) if np.isnan(log_scales).any() else q
    assert sentence(q, NAMES) == words
