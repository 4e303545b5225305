"""Density objects: log-densities in NumPy that JAX does not trace, in the same `fit`."""

import _thread
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import elbojax
from elbojax import Status
from elbojax.cascade import single
from elbojax.host.differences import gradients_checked
from elbojax.host.requests import Gradients

KEY = jax.random.key(0)


class Normal:
    """N(centre, sd^2) in each coordinate, up to a constant."""

    def __init__(self, centre=3.0, sd=1.0):
        self.centre, self.sd, self.calls = centre, sd, 0

    def value_and_gradient(self, points):
        self.calls += 1
        u = (points - self.centre) / self.sd
        return -0.5 * np.sum(u**2, axis=1), -u / self.sd


class Conjugate:
    """y_n ~ N(m, 1), m ~ N(0, 10^2): known mean, sd and evidence."""

    y = np.array([1.2, 0.4, 2.9, 1.1, 0.7])
    names = ("level",)
    precision = len(y) + 0.01
    mean, sd = np.sum(y) / precision, precision**-0.5
    log_evidence = scipy.stats.multivariate_normal(np.zeros(5), np.eye(5) + 100 * np.ones((5, 5))).logpdf(y)

    def value_and_gradient(self, points):
        m = points[:, 0]
        value = scipy.stats.norm.logpdf(m, 0, 10) + np.sum(scipy.stats.norm.logpdf(self.y[:, None], m), axis=0)
        return value, (np.sum(self.y) - self.precision * m)[:, None]


class Logistic:
    """Logistic regression with a N(0, 2^2) prior."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.x = np.concatenate([np.ones((60, 1)), rng.standard_normal((60, 2))], axis=1)
        self.y = (rng.random(60) < 1 / (1 + np.exp(-self.x @ np.array([0.5, 1.0, -1.5])))).astype(float)

    def value_and_gradient(self, points):
        logits = points @ self.x.T
        value = np.sum(self.y * logits - np.logaddexp(0, logits), axis=1) - np.sum(points**2, axis=1) / 8
        return value, (self.y - 1 / (1 + np.exp(-logits))) @ self.x - points / 4

    def traced(self, beta):
        logits = self.x @ beta
        return jnp.sum(self.y * logits - jnp.logaddexp(0, logits)) - jnp.sum(beta**2) / 8


class TwoModes:
    """Equal normals at 4 and at -4."""

    def value_and_gradient(self, points):
        a, b = (-0.5 * np.sum((points - c) ** 2, axis=1) for c in (4, -4))
        value = np.logaddexp(a, b)
        share = np.exp(a - value)[:, None]
        return value, -share * (points - 4) - (1 - share) * (points + 4)


class Funnel:
    """Neal's, of scale 3."""

    def value_and_gradient(self, points):
        v, x = points[:, :1], points[:, 1:]
        squares, size = np.sum(x**2, axis=1, keepdims=True) * np.exp(-v), x.shape[1]
        value = -0.5 * v**2 / 9 - 0.5 * squares - 0.5 * size * v
        return value[:, 0], np.concatenate([-v / 9 + 0.5 * squares - 0.5 * size, -x * np.exp(-v)], axis=1)


class Banana:
    """Curved so that it takes a flow, or chains."""

    def value_and_gradient(self, points):
        x, y = points.T
        r = y - 0.1 * x**2
        return -0.5 * x**2 / 25 - 0.5 * r**2, np.stack([-x / 25 + 0.2 * x * r, -r], axis=1)


@pytest.fixture(params=[False, True], ids=["default", "x64"])
def precision(request):
    with jax.enable_x64(request.param):
        yield request.param


def test_conjugate_normal(precision):
    fit = elbojax.fit(KEY, Conjugate(), np.zeros(1))
    c = fit.certificate
    assert c.certified
    np.testing.assert_allclose(fit.mean(), [Conjugate.mean], atol=0.02 * Conjugate.sd)
    np.testing.assert_allclose(fit.sd(), [Conjugate.sd], rtol=0.02)
    assert abs(c.log_evidence - Conjugate.log_evidence) < 4 * c.log_evidence_se + 1e-6
    assert "level" in str(fit) and "level" in str(fit.summary())


@pytest.mark.parametrize("seed", range(3))
def test_logistic_regression_is_that_of_jax(seed):
    model = Logistic(seed)
    a, b = (elbojax.fit(jax.random.key(seed), each, np.zeros(3)) for each in (model, model.traced))
    assert a.certificate.certified and b.certificate.certified
    np.testing.assert_allclose(a.mean(), b.mean(), atol=0.05 * np.min(b.sd()))
    np.testing.assert_allclose(a.sd(), b.sd(), rtol=0.05)
    errors = np.hypot(a.certificate.log_evidence_se, b.certificate.log_evidence_se)
    assert abs(a.certificate.log_evidence - b.certificate.log_evidence) < 4 * errors + 1e-6


def test_the_target_has_the_log_density(precision):
    model = Logistic(0)
    target = elbojax.fit(KEY, model, np.zeros(3)).target
    z = jnp.array([0.1, 0.2, -0.3])
    np.testing.assert_allclose(target.log_density(z), model.traced(z), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(target.log_density)(z), jax.grad(model.traced)(z), rtol=1e-3)


def test_support_and_pytrees():
    class Model:
        """Gamma(3, 2) of a rate, N(0, 1) of a shift, Dirichlet(2, 3, 4) of shares: in the space of these numbers."""

        def value_and_gradient(self, points):
            rate, shares, shift = points[:, 0], points[:, 1:4], points[:, 4]
            value = 2 * np.log(rate) - 2 * rate + np.log(shares) @ np.array([1.0, 2.0, 3.0]) - 0.5 * shift**2
            return value, np.concatenate(
                [(2 / rate - 2)[:, None], np.array([1.0, 2.0, 3.0]) / shares, -shift[:, None]], axis=1
            )

    init = {"a_rate": 1.0, "b_shares": np.ones(3) / 3, "c_shift": 0.5}
    fit = elbojax.fit(KEY, Model(), init, support={"a_rate": "positive", "b_shares": "simplex"})
    assert fit.certificate.certified
    log_z = np.log(2 / 8 * np.sqrt(2 * np.pi)) + np.sum([0, np.log(2), np.log(6)]) - np.log(40320)
    assert abs(fit.certificate.log_evidence - log_z) < 4 * fit.certificate.log_evidence_se
    np.testing.assert_allclose(fit.mean()["b_shares"], np.array([2, 3, 4]) / 9, atol=0.005)
    np.testing.assert_allclose(fit.mean()["a_rate"], 1.5, atol=0.04)
    np.testing.assert_allclose(fit.sd()["c_shift"], 1, atol=0.04)


def test_two_modes():
    fit = elbojax.fit(KEY, TwoModes(), np.zeros(2))
    assert fit.certificate.certified and fit.certificate.modes > 1
    np.testing.assert_allclose(fit.mean(), 0, atol=0.3)
    np.testing.assert_allclose(fit.sd(), np.sqrt(17), rtol=0.03)


def test_funnel():
    fit = elbojax.fit(KEY, Funnel(), np.zeros(6))
    assert fit.certificate.certified
    np.testing.assert_allclose(fit.mean()[0], 0, atol=0.3)
    np.testing.assert_allclose(fit.sd()[0], 3, rtol=0.1)


def only(monkeypatch, name):
    """After the first stage, the compiled one of this name."""
    monkeypatch.setattr(single, "STAGES", ())
    monkeypatch.setattr(single, "COMPILED", [stage for stage in single.COMPILED if stage.name == name])


@pytest.mark.slow
def test_flow(monkeypatch):
    only(monkeypatch, "flow")
    fit = elbojax.fit(KEY, Banana(), np.zeros(2))
    assert fit.certificate.certified and str(fit.certificate.stage) == "flow"
    np.testing.assert_allclose(fit.mean()[0], 0, atol=0.75)
    np.testing.assert_allclose(fit.sd()[0], 5, rtol=0.1)


class LogisticDistributions:
    """60 independent ones: too many for importance weights, and easy for chains."""

    def value_and_gradient(self, points):
        return -2 * np.sum(np.logaddexp(points / 2, -points / 2), axis=1), -np.tanh(points / 2)


@pytest.mark.long
def test_nuts_and_what_ends_it(monkeypatch):
    only(monkeypatch, "nuts")
    model, start = LogisticDistributions(), np.full(60, 0.5)
    fit = elbojax.fit(KEY, model, start)
    assert fit.certificate.certified and str(fit.certificate.stage) == "nuts"
    np.testing.assert_allclose(fit.mean(), 0, atol=0.2)
    np.testing.assert_allclose(fit.sd(), np.pi / np.sqrt(3), rtol=0.1)

    slow = slow_after(model, 0, 0.0)
    elbojax.fit(KEY, slow, start, max_seconds=1e-9)
    first = slow.calls
    for error in (ZeroDivisionError("stop"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            elbojax.fit(KEY, Breaks(model, first + 100, error), start)
        assert caught.value is error and error.fit.certificate.status == Status.OUT_OF_BUDGET
    # Ctrl-C reaches the main thread alone, which waits for the one that the chains run in.
    with pytest.raises(KeyboardInterrupt) as caught:
        elbojax.fit(KEY, slow_after(model, first + 100, 0.1, _thread.interrupt_main), start)
    assert caught.value.fit.certificate.status == Status.OUT_OF_BUDGET
    assert threading.active_count() == 1 or not any("work" in thread.name for thread in threading.enumerate())
    slow = slow_after(model, first + 100, 0.1)
    fit = elbojax.fit(KEY, slow, start, max_seconds=1.5)
    assert slow.calls - (first + 100) < 30  # fifteen calls take as long, and the chains want ten thousand
    assert fit.certificate.status == Status.OUT_OF_BUDGET and "cut short: nuts" in fit.note
    assert np.isfinite(fit.draws).all()


@pytest.mark.slow
def test_many_parameters():
    fit = elbojax.fit(KEY, Normal(centre=np.arange(400.0), sd=np.linspace(0.5, 2, 400)), np.zeros(400))
    assert np.max(np.abs(fit.mean() - np.arange(400.0)) / np.linspace(0.5, 2, 400)) < 0.1
    np.testing.assert_allclose(fit.sd(), np.linspace(0.5, 2, 400), rtol=0.1)


def test_a_list_is_an_array_and_a_number_a_number():
    assert elbojax.fit(KEY, Normal(), [0.0, 1.0]).mean().shape == (2,)
    assert elbojax.fit(KEY, Normal(), 0.0).mean().shape == ()


def test_objects_are_told_apart_and_another_compiles_nothing():
    from elbojax.loops.compiling import compiled_so_far

    elbojax.fit(KEY, TwoModes(), np.zeros(2))
    elbojax.fit(KEY, Normal(1.0), np.zeros(2)).mean()
    before = compiled_so_far().programs
    other = elbojax.fit(KEY, Normal(-7.0), np.zeros(2))
    assert compiled_so_far().programs == before
    np.testing.assert_allclose(other.mean(), -7, atol=0.01)


def test_values_alone_are_asked_for_where_they_are_offered():
    class Offers(Normal):
        asked = 0

        def value(self, points):
            self.asked += len(points)
            return -0.5 * np.sum((points - 3.0) ** 2, axis=1)

    model = Offers()
    assert elbojax.fit(KEY, model, np.zeros(2)).certificate.certified
    assert model.asked >= 4096 and model.calls < 200


def test_what_is_handed_out_may_be_used_again_and_what_is_given_may_be_changed():
    class Careless(Normal):
        values, gradients = np.empty(64), np.empty((64, 2))

        def value_and_gradient(self, points):
            some, slopes = self.values[: len(points)], self.gradients[: len(points)]
            some[:], slopes[:] = super().value_and_gradient(points)
            points[:] = np.nan
            return some, slopes

    plain, careless = (elbojax.fit(KEY, each(), np.zeros(2)) for each in (Normal, Careless))
    np.testing.assert_array_equal(plain.draws, careless.draws)
    np.testing.assert_array_equal(plain.log_weights, careless.log_weights)


class Gives:
    """A standard normal that changes what it returns."""

    def __init__(self, change):
        self.change = change

    def value_and_gradient(self, points):
        return self.change(-0.5 * np.sum(points**2, axis=1), -points)


WRONG = {
    "one value": (lambda v, g: (np.sum(v), g), ValueError, r"values of shape \(3,\) for points \(3, 2\), got \(\)"),
    "columns": (lambda v, g: (v[:, None], g), ValueError, r"values of shape \(3,\)"),
    "gradient of one": (lambda v, g: (v, g[0]), ValueError, r"gradients of shape \(3, 2\) .* got \(2,\)"),
    "transposed": (lambda v, g: (v, g.T), ValueError, r"got \(2, 3\)"),
    "complex": (lambda v, g: (v + 0j, g), TypeError, "values that are floating point, got complex128"),
    "complex gradients": (lambda v, g: (v, g + 0j), TypeError, "gradients that are floating point"),
    "ints": (lambda v, g: (v.astype(int), g), TypeError, "got int64"),
    "objects": (lambda v, g: (v.astype(object), g), TypeError, "got object"),
    "words": (lambda v, g: ("a", g), TypeError, "floating point"),
    "no gradient": (lambda v, g: v, TypeError, "must return two arrays"),
    "None": (lambda v, g: None, TypeError, "two arrays, values and gradients, got a NoneType"),
    "masked": (lambda v, g: (np.ma.masked_array(v, v == v), g), ValueError, "masked"),
    "sign": (lambda v, g: (v, -g), ValueError, "the gradient is not that of the values"),
    "half": (lambda v, g: (v, g / 2), ValueError, "differences of the values give"),
    "one coordinate": (lambda v, g: (v, g * [1, 3]), ValueError, r"of coordinate 1 \(z\[1\]\) it is"),
    "zero": (lambda v, g: (v, 0 * g), ValueError, "it is 0, and differences"),
    "an offset": (lambda v, g: (v, g + 0.1), ValueError, "the gradient is not that"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    change, error, words = WRONG[name]
    with pytest.raises(error, match=words):
        elbojax.fit(KEY, Gives(change), np.zeros(2))


def test_wrong_calls():
    with pytest.raises(TypeError, match="holds its own"):
        elbojax.fit(KEY, Normal(), np.zeros(2), data=np.zeros(3))
    with pytest.raises(TypeError, match="got the class Normal itself"):
        elbojax.fit(KEY, Normal, np.zeros(2))
    with pytest.raises(TypeError, match="must be floating point"):
        elbojax.fit(KEY, Normal(), [0, 0])
    with pytest.raises(ValueError, match="finite"):
        elbojax.fit(KEY, Normal(), [0.0, np.nan])
    with pytest.raises(TypeError, match="taken by `fit` alone"):
        elbojax.fit_batch(KEY, Normal(), np.zeros(2), np.zeros((3, 2)))
    for names, error in ((("a",), ValueError), (("a", "a"), ValueError), ("ab", TypeError), ((1, 2), TypeError)):
        model = Normal()
        model.names = names
        with pytest.raises(error, match="2 different words"):
            elbojax.fit(KEY, model, np.zeros(2))
    model = Normal()
    model.value_and_gradient = 3
    with pytest.raises(TypeError, match="must be a method"):
        elbojax.fit(KEY, model, np.zeros(2))


def test_values_that_come_alone_are_those_that_come_with_gradients():
    class Two(Normal):
        def value(self, points):
            return self.value_and_gradient(points)[0] + 1.0

    with pytest.raises(ValueError, match="value gives .* value_and_gradient"):
        elbojax.fit(KEY, Two(), np.zeros(2))


def test_kinks_noise_and_flat_places_are_no_wrong_gradients():
    rng = np.random.default_rng(0)
    laplace = Gives(lambda v, g: (-np.sum(np.abs(g), axis=1), np.where(-g >= 0, -1.0, 1.0)))  # 1 at the kink itself
    noisy = Gives(lambda v, g: (v + 1e-6 * rng.standard_normal(v.shape), g * (1 + 1e-4)))
    for model in (laplace, noisy):
        elbojax.fit(KEY, model, np.zeros(2))
    big = Gives(lambda v, g: (v * 1e8, g * 1e8))
    small = Gives(lambda v, g: (v * 1e-8, g * 1e-8))
    for model in (big, small, laplace, noisy):
        assert checked(model, np.zeros(3)).wrong is None
        assert checked(model, np.full(3, 1e3)).wrong is None


@pytest.mark.parametrize("size", [1, 64, 65, 500])
def test_the_worst_coordinate_is_found(size):
    last = np.ones(size)
    last[-1] = 1.5
    found = checked(Gives(lambda v, g: (v, g * last)), np.linspace(0.5, 2, size)).wrong
    assert found.coordinate == size - 1
    np.testing.assert_allclose(found.gradient / found.difference, 1.5, rtol=1e-3)


def checked(model, start):
    """What the check of gradients finds."""
    stage = gradients_checked(np.random.default_rng(1), start)
    answer = None
    while True:
        try:
            request = stage.send(answer)
        except StopIteration as end:
            return end.value
        values, gradients = model.value_and_gradient(request.points)
        answer = (values, gradients) if isinstance(request, Gradients) else values


def test_single_precision_is_widened_and_known_for_what_it_is():
    single = lambda v, g: (v.astype(np.float32), g.astype(np.float32))  # noqa: E731
    fit = elbojax.fit(KEY, Gives(single), np.zeros(2))
    assert fit.certificate.certified and fit.draws.dtype == np.float64
    np.testing.assert_allclose(fit.sd(), 1, atol=0.02)
    # Differences of 1e7 + x are lost in single precision, and not in double.
    far = lambda v, g: single(v - 1e7, g)  # noqa: E731
    assert elbojax.fit(KEY, Gives(far), np.ones(2)).certificate.status == Status.IMPRECISE
    assert elbojax.fit(KEY, Gives(lambda v, g: (v - 1e7, g)), np.ones(2)).certificate.certified


def test_single_precision_with_a_support():
    class Rate:
        def value_and_gradient(self, points):
            value = 2 * np.log(points) - 2 * points - 1e7
            return value[:, 0].astype(np.float32), (2 / points - 2).astype(np.float32)

    assert elbojax.fit(KEY, Rate(), [1.0], support="positive").certificate.status == Status.IMPRECISE


def test_what_is_not_finite_means_what_it_means_in_jax():
    nowhere = elbojax.fit(KEY, Gives(lambda v, g: (v * np.nan, g)), np.zeros(2))
    assert nowhere.certificate.status == Status.NON_FINITE and "the log-density is NaN" in nowhere.note

    class Beyond(Normal):  # -inf at the start, and finite from 1 on
        def value_and_gradient(self, points):
            value, gradient = super().value_and_gradient(points)
            inside = np.all(points > 1, axis=1)
            return np.where(inside, value, -np.inf), gradient

    fit = elbojax.fit(KEY, Beyond(centre=8.0), np.full(1, -1.0))
    assert fit.certificate.certified and "start" in fit.note
    np.testing.assert_allclose(fit.mean(), 8, atol=0.05)


class Breaks:
    """A model that raises at its k-th call."""

    def __init__(self, model, k, error):
        self.model, self.left, self.error = model, k, error

    def value_and_gradient(self, points):
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.model.value_and_gradient(points)


CALLS = [1, 2, 30, 100, 150, 400, 1_000, 2_000, 5_000]
"""From the check of gradients to the funnel."""


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ZeroDivisionError])
def test_the_best_answer_is_kept_whenever_it_ends(kind):
    seen = []
    for k in CALLS:
        model = Breaks(Funnel(), k, kind("stop"))
        try:
            fit = elbojax.fit(KEY, model, np.zeros(6))
        except kind as error:
            seen.append(error.fit is not None)
            if error.fit is None:
                assert k == 1 or "the highest log-density so far" in "".join(error.__notes__)
            else:
                c = error.fit.certificate
                assert c.status == Status.OUT_OF_BUDGET and not c.certified
                assert np.isfinite(error.fit.mean()).all() and kind.__name__ in error.fit.note
                str(error.fit), error.fit.sample(KEY, 10)
            if kind is ZeroDivisionError:
                assert any("raised by value_and_gradient of Breaks at" in note for note in error.__notes__)
        else:
            assert model.left > 0 and fit.certificate.certified
    assert seen[0] is False and seen[-1] is True and sum(seen) >= len(seen) - 4
    assert elbojax.fit(KEY, Funnel(), np.zeros(6)).certificate.certified  # nothing is left behind


def test_the_point_that_raises_is_named():
    class Fragile(Normal):
        def value_and_gradient(self, points):
            if np.any(points[:, 0] > 2.5):
                raise np.linalg.LinAlgError("not positive definite")
            return super().value_and_gradient(points)

    with pytest.raises(np.linalg.LinAlgError) as caught:
        elbojax.fit(KEY, Fragile(), np.zeros(2))
    note = next(note for note in caught.value.__notes__ if "raised by" in note)
    assert float(note.split("[")[1].split(",")[0]) > 2.5


def test_interrupt_in_a_function_of_jax(monkeypatch):
    from elbojax.cascade.stages import mixture

    def stop(*unused):
        raise KeyboardInterrupt

    two_modes = lambda z: jnp.logaddexp(-0.5 * jnp.sum((z - 4) ** 2), -0.5 * jnp.sum((z + 4) ** 2))  # noqa: E731
    monkeypatch.setattr(mixture, "fit_modes", stop)
    with pytest.raises(KeyboardInterrupt) as caught:
        elbojax.fit(KEY, two_modes, np.zeros(2))
    assert caught.value.fit.certificate.status == Status.OUT_OF_BUDGET


def slow_after(model, calls, seconds, then=lambda: None):
    """The model, which takes its time from some call on, the first of which does something else too."""

    class Slow:
        def __init__(self):
            self.calls = 0

        def value_and_gradient(self, points):
            self.calls += 1
            time.sleep(seconds if self.calls > calls else 0)
            if self.calls == calls + 1:
                then()
            return model.value_and_gradient(points)

    return Slow()


def test_the_clock_ends_a_stage_on_the_host():
    elbojax.fit(KEY, TwoModes(), np.zeros(2))
    # Without rays, which the clock leaves out: the first stage has as many calls with a second as with none.
    with elbojax.thresholds.overridden(RAYS_LARGEST=0):
        first = counted(TwoModes(), max_seconds=1e-9)
        slow = slow_after(TwoModes(), first, 0.1)
        fit = elbojax.fit(KEY, slow, np.zeros(2), max_seconds=1.0)
        assert slow.calls - first < 20 < counted(TwoModes()) - first  # ten calls take as long
    assert fit.certificate.status == Status.OUT_OF_BUDGET and "max_seconds=1 ended" in fit.note
    assert "cut short: mixture" in fit.note and "not tried: " in fit.note
    assert (
        fit.certificate.num_gradients
        > elbojax.fit(KEY, TwoModes(), np.zeros(2), max_gradients=1).certificate.num_gradients
    )


def test_the_clock_ends_the_first_gaussian():
    fit = elbojax.fit(KEY, Funnel(), np.full(30, 1.0), max_seconds=1e-9)
    assert fit.certificate.status == Status.OUT_OF_BUDGET and np.isfinite(fit.mean()).all()


def counted(model, **budget):
    """Calls that a fit takes."""
    slow = slow_after(model, 0, 0.0)
    elbojax.fit(KEY, slow, np.zeros(6 if isinstance(model, Funnel) else 2), **budget)
    return slow.calls


def test_seconds_are_told(capsys):
    fit = elbojax.fit(KEY, Normal(), np.zeros(2), progress=True)
    assert fit.seconds.evaluating > 0 and fit.seconds.host > 0
    assert "seconds: " in capsys.readouterr().out.splitlines()[-1]
    assert jax.tree.map(lambda x: x, fit).seconds is None


def test_names_are_stored(tmp_path):
    fit = elbojax.fit(KEY, Conjugate(), np.zeros(1))
    fit.save(tmp_path / "fit.npz")
    assert "level" in str(elbojax.load(tmp_path / "fit.npz"))
    z = np.array([0.3])
    loaded = elbojax.load(tmp_path / "fit.npz", Conjugate())
    np.testing.assert_allclose(loaded.target.log_density(z), Conjugate().value_and_gradient(z[None])[0][0])
