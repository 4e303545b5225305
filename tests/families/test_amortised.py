"""Mixtures over inputs, the KL by parts, and misuse of families that are answered by functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.tree_util import Partial

import elbojax
from elbojax import amortised, bernoulli, categorical, hierarchical, mean_field
from elbojax.families import aggregate, kl_by_part

INPUTS = jnp.array([[0.0, 1.0], [2.0, -1.0], [-0.5, 0.3]])
UNIT = mean_field(jnp.zeros(2), 1.0)


def encode(params, u):
    return mean_field(params["slope"] * u, jnp.exp(params["log_scale"]))


PARAMS = {"slope": jnp.array([1.0, -0.7]), "log_scale": jnp.array([-0.3, 0.2])}
LOGITS = jnp.array([0.2, -0.4, 0.1])


def test_the_aggregate_is_the_mixture_written_out():
    """And sends gradients to inputs, logits and encoder, those of the formula."""
    z = jnp.array([0.4, -0.1])

    def ours(params, inputs, logits):
        return aggregate(amortised(encode, params), inputs, logits).log_prob(z)

    def formula(params, inputs, logits):
        loc, scale = params["slope"] * inputs, jnp.exp(params["log_scale"])
        log_probs = jnp.sum(-0.5 * ((z - loc) / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi), axis=1)
        return jnp.log(jnp.sum(jnp.exp(logits) * jnp.exp(log_probs)) / jnp.sum(jnp.exp(logits)))

    both = [jax.value_and_grad(f, (0, 1, 2))(PARAMS, INPUTS, LOGITS) for f in (ours, formula)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), *both)

    scale = np.exp(PARAMS["log_scale"])
    by_scipy = [scipy.stats.norm(PARAMS["slope"] * u, scale).logpdf(z).sum() for u in INPUTS]
    even = aggregate(amortised(encode, PARAMS), INPUTS)
    np.testing.assert_allclose(even.log_prob(z), scipy.special.logsumexp(by_scipy) - np.log(3), rtol=1e-12)
    assert even.dtype == "float64"


def test_it_keeps_single_precision():
    params, inputs = jax.tree.map(lambda x: x.astype("float32"), (PARAMS, INPUTS))
    assert aggregate(amortised(encode, params), inputs).dtype == "float32"


PAIRS = {
    "mean_field": (mean_field(jnp.ones(3), 0.5), mean_field(jnp.zeros(3), jnp.arange(1.0, 4.0)), 3),
    "bernoulli": (bernoulli(jnp.array([0.3, -2.0])), bernoulli(jnp.array([1.0, 0.5])), 2),
    "categorical": (categorical(jnp.eye(3)[:2]), categorical(jnp.ones((2, 3))), 2),
    "product": (
        {"a": UNIT, "b": bernoulli(jnp.ones(3))},
        {"a": mean_field(jnp.ones(2), 2.0), "b": bernoulli(jnp.zeros(3))},
        2,
    ),
    "blocks": ([UNIT, mean_field(jnp.ones(1), 0.3)], [mean_field(jnp.ones(2), 2.0), mean_field(jnp.zeros(1), 1.0)], 2),
}


@pytest.mark.parametrize("name", PAIRS)
def test_parts_add_up_to_the_kl(name):
    q, p, count = PAIRS[name]
    if name == "product":
        q, p = elbojax.families.product(q), elbojax.families.product(p)
    if name == "blocks":
        q, p = elbojax.blocks(*q), elbojax.blocks(*p)
    by_part = kl_by_part(q, p)
    assert by_part.shape == (count,)
    assert np.all(by_part > 0)
    np.testing.assert_allclose(jnp.sum(by_part), q.kl(p), rtol=1e-12)
    if name == "mean_field":
        for j in range(3):
            one = [mean_field(f.loc[j : j + 1], jnp.exp(f.log_scale[j : j + 1])) for f in (q, p)]
            np.testing.assert_allclose(by_part[j], one[0].kl(one[1]), rtol=1e-12)


def test_parts_without_a_closed_form_say_so():
    for q, p in [(elbojax.full_rank(jnp.zeros(2), jnp.eye(2)), UNIT), (UNIT, bernoulli(jnp.zeros(2)))]:
        with pytest.raises(TypeError, match="no closed-form KL by parts"):
            kl_by_part(q, p)


MISUSES = {
    "amortised: no function": (lambda: amortised(PARAMS, encode), r"apply must be a function .* got dict"),
    "amortised: no family": (
        lambda: amortised(lambda params, x: x, {})(jnp.zeros(2)),
        "apply must return a Family.* returned a ",
    ),
    "aggregate: discrete": (
        lambda: aggregate(bernoulli, INPUTS),
        "components must be a Reparameterised family or a list, got Bernoulli",
    ),
    "hierarchical: first": (lambda: hierarchical(encode), "first must be a Family, got function"),
    "hierarchical: a closure": (
        lambda: hierarchical(UNIT, lambda z: mean_field(z, 1.0)),
        "layer 0 must be a pytree that can be called.*got function: the parameters of a closure are hidden",
    ),
    "hierarchical: a partial": (
        lambda: hierarchical(UNIT, functools.partial(encode, PARAMS)),
        "layer 0 must be a pytree that can be called.*got partial",
    ),
    "hierarchical: no family": (
        lambda: hierarchical(UNIT, Partial(encode, PARAMS), Partial(lambda x, *z: x, jnp.ones(2))),
        "layer 1 must give a Family, got ShapeDtypeStruct",
    ),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse(name):
    misuse, message = MISUSES[name]
    with pytest.raises(TypeError, match=message):
        misuse()
