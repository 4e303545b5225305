"""Types are part of what is equal: another support, another family, another program and another answer."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.stats

import elbojax
from elbojax import bijectors, targets
from elbojax.families import base
from elbojax.loops.shards import fingerprint

LOW, HIGH = np.array([-1.0, 0.0, 0.1]), np.array([1.0, 2.0, 3.0])
KINDS = {
    "real": bijectors.real(),
    "positive": bijectors.positive(),
    "lower_bounded": bijectors.lower_bounded(1.0),
    "lower_bounded_0": bijectors.lower_bounded(0.0),
    "lower_bounded_each": bijectors.lower_bounded(LOW),
    "upper_bounded": bijectors.upper_bounded(1.0),
    "upper_bounded_each": bijectors.upper_bounded(LOW),
    "interval": bijectors.interval(0.0, 2.0),
    "unit_interval": bijectors.unit_interval(),
    "interval_each": bijectors.interval(LOW, HIGH),
    "affine": bijectors.affine(0.0, 2.0),
    "affine_each": bijectors.affine(LOW, HIGH),
    "simplex": bijectors.simplex(),
    "ordered": bijectors.ordered(),
    "positive_ordered": bijectors.positive_ordered(),
    "correlation_cholesky": bijectors.correlation_cholesky(),
    "covariance_cholesky": bijectors.covariance_cholesky(),
    "positive, simplex": bijectors.chain(bijectors.positive(), bijectors.simplex()),
    "ordered, simplex": bijectors.chain(bijectors.ordered(), bijectors.simplex()),
    "simplex, ordered": bijectors.chain(bijectors.simplex(), bijectors.ordered()),
    "ordered, positive": bijectors.chain(bijectors.ordered(), bijectors.positive()),
    "three": bijectors.chain(bijectors.ordered(), bijectors.real(), bijectors.positive()),
    "nested": bijectors.chain(bijectors.chain(bijectors.ordered(), bijectors.real()), bijectors.positive()),
    "nested last": bijectors.chain(bijectors.ordered(), bijectors.chain(bijectors.real(), bijectors.positive())),
}
PAIRS = list(itertools.permutations(KINDS, 2))


def trees(bijector):
    return jax.tree.structure(bijector), jax.tree.structure({"a": (bijector, 1.0)})


@pytest.mark.parametrize(
    "wrap", [lambda b: b, lambda b: bijectors.chain(b, bijectors.real())], ids=["itself", "chained"]
)
def test_kinds_of_bijectors_differ(wrap):
    for a, b in PAIRS:
        one, other = wrap(KINDS[a]), wrap(KINDS[b])
        assert one != other and not one == other and hash(one) != hash(other), (a, b)
        if type(KINDS[a]) is not type(KINDS[b]):
            assert all(s != t for s, t in zip(trees(one), trees(other), strict=True)), (a, b)
    for bijector in map(wrap, KINDS.values()):
        again = jax.tree.map(lambda x: x + 0, bijector)
        assert again == bijector and hash(again) == hash(bijector)


VECTOR = np.array([0.2, 0.3, 0.5])  # positive, ordered and a simplex at once
SUPPORTS = ("real", "positive", "ordered", "positive_ordered", "simplex", "affine", "interval")


def normal(z):
    return -0.5 * jnp.sum(z**2)


def test_targets_that_differ_in_supports_only_differ():
    made = {name: targets.unconstrain(normal, VECTOR, KINDS[name]) for name in SUPPORTS}
    nested = {
        name: targets.unconstrain(lambda z: normal(z["a"][0]), {"a": (VECTOR,)}, KINDS[name]) for name in SUPPORTS
    }
    problems = {}
    for each in (made, nested):
        for a, b in itertools.permutations(SUPPORTS, 2):
            for field in ("log_density", "constrain", "unconstrain"):
                assert getattr(each[a], field) != getattr(each[b], field), (a, b, field)
            assert each[a] != each[b]
    for name, target in made.items():
        problems[name] = fingerprint(target.log_density, jnp.zeros(target.size))
        assert target == targets.unconstrain(normal, VECTOR, KINDS[name])
    assert len(set(problems.values())) == len(SUPPORTS)


@dataclasses.dataclass
class Plain:
    """A user's own position, registered by JAX."""

    z: object

    def density(self):
        return -0.5 * self.z**2


@dataclasses.dataclass
class Wide:
    z: object

    def density(self):
        return -0.125 * self.z**2


jax.tree_util.register_dataclass(Plain)
jax.tree_util.register_dataclass(Wide)


def test_positions_of_a_users_own_types_are_told_apart():
    log_density = lambda p: p.density()  # noqa: E731
    plain, wide = (targets.unconstrain(log_density, kind(1.0)) for kind in (Plain, Wide))
    assert plain.log_density != wide.log_density and plain.constrain != wide.constrain
    for kind, sd in ((Plain, 1.0), (Wide, 2.0), (Plain, 1.0)):
        fit = elbojax.fit(jax.random.key(0), log_density, kind(1.0))
        assert isinstance(fit.mean(), kind)
        np.testing.assert_allclose(fit.sd().z, sd, rtol=0.05)


def test_a_jit_of_a_users_own_tells_bijectors_apart():
    traced = jax.jit(lambda b: b.forward_and_log_det(jnp.array([0.3, -0.2, 0.7])))
    nested = jax.jit(lambda tree: tree["a"][0].forward_and_log_det(jnp.array([0.3, -0.2, 0.7])))
    static = jax.jit(lambda b: b.forward_and_log_det(jnp.array([0.3, -0.2, 0.7])), static_argnums=0)
    for name in [*KINDS, *reversed(KINDS)]:
        right = KINDS[name].forward_and_log_det(jnp.array([0.3, -0.2, 0.7]))
        for value, log_det in (traced(KINDS[name]), nested({"a": (KINDS[name],)}), static(KINDS[name])):
            np.testing.assert_allclose(value, right[0], rtol=1e-5, atol=1e-6, err_msg=name)
            np.testing.assert_allclose(log_det, right[1], rtol=1e-5, atol=1e-6, err_msg=name)


def family_number(number, fields=("loc",), static=False):
    """A user's own: a Gaussian of one coordinate with a mean that is shifted by its number."""

    def log_prob(self, event):
        return -0.5 * (event - self.loc - number) ** 2

    body = {"__annotations__": dict.fromkeys(fields, object), "log_prob": log_prob}
    body["sample_and_log_prob"] = lambda self, key: (self.loc + number, 0.0)
    if static:
        body["__annotations__"]["size"] = int
        body["size"] = base.static(default=3)
    return base.family(type("Mine", (base.Family,), body))


@pytest.mark.parametrize("fields", [("loc",), ("loc", "scale")])
@pytest.mark.parametrize("static", [False, True])
def test_sixty_families_under_one_jit(fields, static):
    made = [family_number(i, fields, static)(*[0.0] * len(fields)) for i in range(60)]
    assert all(jax.tree.structure(a) != jax.tree.structure(b) for a, b in itertools.permutations(made, 2))
    programs = (
        jax.jit(lambda q: q.log_prob(0.0)),
        jax.jit(lambda q: jax.value_and_grad(lambda q: q.log_prob(0.0))(q)[0]),
        jax.jit(lambda q: {"it": [q]}["it"][0].log_prob(0.0)),
    )
    for q, number in [*zip(made, range(60), strict=True)] * 2:
        for program in programs:
            assert float(program(q)) == -0.5 * number**2
    key, names = jax.tree_util.tree_flatten_with_path(made[0])[0][0][0], [field for field in fields]
    assert jax.tree_util.keystr((key[0],), simple=True) == names[0]


def test_static_fields_of_equal_value_and_another_type_differ():
    @base.family
    class Sized:
        loc: object
        size: object = base.static(default=1)

    structures = [jax.tree.structure(Sized(0.0, size)) for size in (1, 1.0, True)]
    assert all(a != b for a, b in itertools.permutations(structures, 2))
    assert jax.tree.structure(Sized(0.0, 1)) == structures[0] and hash(structures[0]) is not None


ONES, EYE = np.ones(2), np.eye(2)
FAMILIES = {
    "mean_field": elbojax.mean_field(ONES, ONES),
    "full_rank": elbojax.full_rank(ONES, EYE),
    "student_t": elbojax.student_t(ONES, EYE),
    "student_t_7": elbojax.student_t(ONES, EYE, df=7),
    "low_rank": elbojax.low_rank(ONES, np.ones((2, 1)), ONES),
    "sinh_arcsinh": elbojax.sinh_arcsinh(ONES, EYE),
    "bernoulli": elbojax.bernoulli(ONES),
    "categorical": elbojax.categorical(np.zeros((2, 2))),
    "particles": elbojax.families.particles(np.ones((1, 2)), 1.0),
    "tailed": elbojax.families.with_student_t_tails(elbojax.mean_field(ONES, ONES)),
    "mixture of mean_field": elbojax.mixture(np.zeros(2), [elbojax.mean_field(ONES, ONES)] * 2),
    "mixture of student_t": elbojax.mixture(np.zeros(2), [elbojax.student_t(ONES, EYE)] * 2),
    "mixture of full_rank": elbojax.mixture(np.zeros(2), [elbojax.full_rank(ONES, EYE)] * 2),
    "product": elbojax.families.product((elbojax.mean_field(ONES, ONES), elbojax.bernoulli(ONES))),
    "product, the other way": elbojax.families.product((elbojax.bernoulli(ONES), elbojax.mean_field(ONES, ONES))),
}


def test_kinds_of_families_differ():
    for a, b in itertools.permutations(FAMILIES, 2):
        assert jax.tree.structure(FAMILIES[a]) != jax.tree.structure(FAMILIES[b]), (a, b)
    by_type = {name: q for name, q in FAMILIES.items() if name != "student_t_7"}  # sizes and flags show in the trace
    shown = [fingerprint(lambda: 0, values=q) for q in by_type.values()]
    assert len(set(shown)) == len(shown)


def order_statistics(distribution):
    """Means and sds of the ordered draws of three, by quadrature."""
    grid = np.linspace(*distribution.ppf([1e-12, 1 - 1e-12]), 20001)
    moments = []
    for rank in (1, 2, 3):
        beta = scipy.stats.beta(rank, 4 - rank)
        density = beta.pdf(distribution.cdf(grid)) * distribution.pdf(grid)
        mean = scipy.integrate.simpson(grid * density, x=grid)
        moments.append((mean, np.sqrt(scipy.integrate.simpson((grid - mean) ** 2 * density, x=grid))))
    return tuple(np.array(moment) for moment in zip(*moments, strict=True))


def on_the_simplex():
    """Of exp(-|y|^2 / 2) on a triangle, by quadrature."""
    weight = lambda k: scipy.integrate.dblquad(  # noqa: E731
        lambda y, x: x**k * np.exp(-0.5 * (x**2 + y**2 + (1 - x - y) ** 2)), 0, 1, 0, lambda x: 1 - x
    )[0]
    mean = weight(1) / weight(0)
    return np.full(3, mean), np.full(3, np.sqrt(weight(2) / weight(0) - mean**2))


def right(name):
    """Means and sds [3] of a standard Gaussian held to a support."""
    each = lambda d: (np.full(3, d.mean()), np.full(3, d.std()))  # noqa: E731
    match name:
        case "real" | "affine":
            return each(scipy.stats.norm())
        case "positive":
            return each(scipy.stats.halfnorm())
        case "interval":
            return each(scipy.stats.truncnorm(0, 2))
        case "ordered":
            return order_statistics(scipy.stats.norm())
        case "positive_ordered":
            return order_statistics(scipy.stats.halfnorm())
        case "simplex":
            return on_the_simplex()


def forth_and_back(names):
    return [*names, *reversed(names)]


def assert_right(name, mean, sd, tolerance=0.06):
    """Within so many sds: the error of 4,000 draws is 0.016 sds, four of which are 0.06."""
    wanted = right(name)
    np.testing.assert_allclose(mean, wanted[0], atol=tolerance * wanted[1].max(), err_msg=name)
    np.testing.assert_allclose(sd, wanted[1], rtol=tolerance, err_msg=name)


def test_fit_answers_for_its_support(precision):
    del precision
    for name in forth_and_back(SUPPORTS):
        fit = elbojax.fit(jax.random.key(0), normal, VECTOR, support=KINDS[name])
        assert fit.certificate.certified, name
        assert fit.target.supports == (KINDS[name],)
        assert_right(name, fit.mean(), fit.sd())
        draws = np.asarray(fit.sample(jax.random.key(1), 4000))
        assert_right(name, draws.mean(axis=0), draws.std(axis=0), 0.1)


def test_fit_batch_answers_for_its_support():
    weighted = lambda z, w: w * normal(z)  # noqa: E731
    for name in forth_and_back(("real", "positive")):
        fits = elbojax.fit_batch(jax.random.key(0), weighted, VECTOR, np.ones(2), support=KINDS[name])
        assert fits.certificate.certified.all(), name
        for model in range(2):
            assert_right(name, fits.mean()[model], fits.sd()[model], 0.1)


@pytest.mark.slow
def test_fit_ragged_answers_for_its_support():
    """Rows of zeros from N(z, 1) under a flat prior: n of them give a Gaussian of sd n**-0.5, held to the support."""
    rows = [np.zeros(n) for n in (1, 1, 4)]
    log_density = lambda z, rows: jnp.sum(rows.mask) * normal(z)  # noqa: E731
    for name in forth_and_back(("positive", "real", "ordered")):
        fits = elbojax.fit_ragged(jax.random.key(0), log_density, VECTOR, rows, support=KINDS[name])
        assert_right(name, fits.mean()[0], fits.sd()[0], 0.1)
        assert_right(name, 2 * np.asarray(fits.mean()[2]), 2 * np.asarray(fits.sd()[2]), 0.1)


@pytest.mark.slow
def test_fit_minibatches_answers_for_its_support():
    """1,000 rows about 3: nothing of the posterior is near a bound, so only how `q` is placed may differ."""
    rows = 3 + np.random.default_rng(0).normal(size=1000)
    prior, likelihood = (lambda z: 0.0 * z), (lambda z, row: -0.5 * (row - z) ** 2)
    for name in forth_and_back(("positive", "real", "lower_bounded")):
        fit = elbojax.fit_minibatches(jax.random.key(0), prior, likelihood, 2.0, rows, support=KINDS[name])
        np.testing.assert_allclose(fit.mean(), rows.mean(), atol=0.2 * 1000**-0.5, err_msg=name)
        np.testing.assert_allclose(fit.sd(), 1000**-0.5, rtol=0.15, err_msg=name)
        constrained = fit.target.constrain(jnp.array([0.7]))
        np.testing.assert_allclose(constrained, KINDS[name].forward(jnp.array(0.7)), rtol=1e-5, err_msg=name)


def test_run_answers_for_its_support(precision):
    """The best mean-field q of a normal: itself; of one that is positive: location -1/2, scale 2**-0.5 of log z."""
    del precision
    wanted = {
        "real": (0.0, 1.0),
        "positive": (-0.5, 0.5**0.5),
        "affine": (0.0, 0.5),
        "lower_bounded_0": (-0.5, 0.5**0.5),
    }
    for name in forth_and_back(wanted):
        target = targets.unconstrain(normal, VECTOR, KINDS[name])
        loss = elbojax.as_loss(elbojax.elbo, target.log_density, num_samples=64)
        solver = elbojax.svi(loss, optax.adam(optax.exponential_decay(0.1, 100, 0.3)))
        run = elbojax.run(jax.random.key(0), solver, elbojax.mean_field(jnp.zeros(3), jnp.ones(3)), num_steps=400)
        np.testing.assert_allclose(run.q.loc, wanted[name][0], atol=0.05, err_msg=name)
        np.testing.assert_allclose(jnp.sqrt(run.q.variance()), wanted[name][1], rtol=0.1, err_msg=name)


@pytest.mark.slow
def test_the_studies_answer_for_their_support():
    density = lambda z, data, scale: -0.5 * jnp.sum((z / scale) ** 2) + 0 * jnp.sum(data)  # noqa: E731
    for name in forth_and_back(("positive", "real", "ordered")):
        study = elbojax.studies.prior_sensitivity(
            jax.random.key(0), density, VECTOR, np.zeros(1), np.array([1.0, 3.0]), support=KINDS[name]
        )
        assert_right(name, study.fits.mean()[0], study.fits.sd()[0], 0.1)
        assert_right(name, study.fits.mean()[1] / 3, study.fits.sd()[1] / 3, 0.1)


def test_a_user_of_static_targets_gets_his_own():
    value = jax.jit(lambda target, z: target.log_density(z), static_argnums=0)
    for name in forth_and_back(SUPPORTS):
        target = targets.unconstrain(normal, VECTOR, KINDS[name])
        np.testing.assert_allclose(
            value(target, jnp.full(target.size, 0.4)), target.log_density(jnp.full(target.size, 0.4))
        )


def test_flattening_is_quick():
    """What a driver pays at each call: some microseconds, for types that are told apart."""
    import timeit

    q = elbojax.full_rank(jnp.zeros(2), jnp.eye(2))
    seconds = min(
        timeit.repeat(lambda: jax.tree.unflatten(jax.tree.structure(q), jax.tree.leaves(q)), number=1000, repeat=5)
    )
    assert seconds / 1000 < 50e-6  # 4 on a machine with nothing else to do


def test_names_of_fields_stay():
    q = elbojax.full_rank(jnp.zeros(2), jnp.eye(2))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(q)[0]]
    assert paths == [f".{field.name}" for field in dataclasses.fields(q)]
    target = targets.unconstrain(lambda p: -jnp.sum(p.z**2), Plain(jnp.zeros(2)))
    assert target.names == ("z[0]", "z[1]")
