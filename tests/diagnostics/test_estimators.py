import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives.cases import exact, get

import elbojax
from elbojax.diagnostics.estimators import cost

KEY = jax.random.key(0)


def with_draws(objective, **settings):
    return functools.partial(objective, **settings)


def test_bias_variance_and_order():
    case = get("full rank")
    table = elbojax.gradient_noise(
        KEY,
        {
            "elbo": with_draws(elbojax.elbo, num_samples=4),
            "twice as steep": lambda key, q, p: 2 * elbojax.elbo(key, q, p, num_samples=4),
            "exact": with_draws(elbojax.elbo, num_samples=8, draws=elbojax.noise.whitened),
            "score": with_draws(elbojax.objectives.elbo_score, num_samples=4),
        },
        case.q,
        case.log_density,
        exact=jax.grad(case.exact)(case.q),
    )
    value, gradient = exact("full rank")
    elbo, steep, none, score = range(4)
    assert table.bias[elbo] < 3 * table.bias_error[elbo]
    np.testing.assert_allclose(table.bias[steep], np.linalg.norm(gradient), rtol=0.2)
    assert table.bias[steep] > 5 * table.bias_error[steep]
    np.testing.assert_allclose(table.variance[steep] / table.variance[elbo], 4, rtol=0.3)
    np.testing.assert_allclose(table.signal_to_noise[steep], table.signal_to_noise[elbo], rtol=0.3)
    assert table.variance[none] < 1e-20 and table.bias[none] < 1e-8
    assert table.variance[score] > 10 * table.variance[elbo]
    np.testing.assert_allclose(table.value[[elbo, none]], value, atol=4 * table.value_sd[elbo] / 32)
    np.testing.assert_allclose(table.cost, [4, 4, 8, 4 / 3])
    axes = elbojax.plots.gradient_noise(table).axes[0]
    apart = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
    assert apart["biased"] == [1.0]  # the steep one, above the score function, below the unbiased
    assert [label.get_text() for label in axes.get_yticklabels()] == ["score", "twice as steep", "elbo", "exact"]
    lines = str(table).splitlines()
    assert lines[0].split()[:3] == ["estimator", "variance", "x"]
    assert lines[1].startswith("exact") and lines[-1].startswith("score")


def test_the_variance_is_that_of_one_estimate():
    """E of z = m + s e on -z^2/2: the gradient in m is -(m + s e), of variance s^2; in log s another, by hand."""
    q = elbojax.mean_field(jnp.array([0.3]), jnp.array([0.5]))
    table = elbojax.gradient_noise(
        KEY, {"entropy": elbojax.elbo_entropy}, q, lambda z: -0.5 * z @ z, num_estimates=20_000
    )
    # d/dlog s = -(m + s e) s e + 1: variance s^2 m^2 + 2 s^4.
    wanted = 0.25 + 0.25 * 0.09 + 2 * 0.0625
    np.testing.assert_allclose(table.variance[0], wanted, rtol=0.05)
    assert table.bias[0] < 3 * table.bias_error[0] + 0.01


@pytest.mark.parametrize(
    ("objective", "settings", "wanted"),
    [
        ("elbo_stl", dict(num_samples=3), 3.0),
        ("iw_elbo", dict(num_samples=2, num_importance=5), 10.0),
        ("elbo_rloo", dict(num_samples=3), 1.0),
        ("vimco", dict(num_importance=6), 2.0),
        ("cubo", dict(num_samples=7), 7.0),
    ],
)
def test_cost_counts_events(objective, settings, wanted):
    q = elbojax.mean_field(jnp.zeros(2), 1.0)
    np.testing.assert_allclose(
        cost(KEY, with_draws(getattr(elbojax.objectives, objective), **settings), q, q.log_prob), wanted
    )


def test_cost_of_pairs_and_of_a_list():
    case = get("bernoulli, coupled")
    np.testing.assert_allclose(
        cost(KEY, with_draws(elbojax.objectives.elbo_disarm, num_samples=3), case.q, case.log_density), 2.0
    )
    np.testing.assert_allclose(cost(KEY, elbojax.elbo_enumerated, case.q, case.log_density), 8 / 3)


def test_the_reference_of_a_discrete_q_is_exact():
    case = get("categorical")
    table = elbojax.gradient_noise(
        KEY, {"list": elbojax.elbo_enumerated, "rloo": elbojax.elbo_rloo}, case.q, case.log_density, num_estimates=64
    )
    assert table.bias[0] < 1e-12 and table.variance[0] < 1e-24
    assert np.isinf(table.signal_to_noise[0]) or table.signal_to_noise[0] > 1e8


def test_misuse():
    q = elbojax.mean_field(jnp.zeros(2), 1.0)
    with pytest.raises(ValueError, match="objectives must name at least one"):
        elbojax.gradient_noise(KEY, {}, q, q.log_prob)
    with pytest.raises(ValueError, match="num_estimates >= 2, got 1"):
        elbojax.gradient_noise(KEY, {"elbo": elbojax.elbo}, q, q.log_prob, num_estimates=1)
