"""Misuse raises at once, and says which argument, what was wanted and what was given."""

import jax
import jax.numpy as jnp
import pytest

from elbojax import (
    autoregressive_flow,
    banded_precision,
    bernoulli,
    blocks,
    categorical,
    coupling_flow,
    full_rank,
    gaussian_chain,
    hmm_smoother,
    low_rank,
    markov_chain,
    mean_field,
    mixture,
    sinh_arcsinh,
    student_t,
)
from elbojax.families import funnel, linear_dynamics, particles, product, sample_many, with_student_t_tails

ZEROS = jnp.zeros(3)
EYE = jnp.eye(3)
UNIT = mean_field(ZEROS, 1.0)
SINGLE = mean_field(jnp.zeros(3, "float32"), 1.0)
COINS = bernoulli(ZEROS)
RISING = jnp.arange(3.0)
STACK = jnp.stack([EYE] * 3)
STACKED = jax.vmap(mean_field)(jnp.zeros((2, 3)), jnp.ones((2, 3)))


def flow(*args, **settings):
    return coupling_flow(jax.random.key(0), *args, **settings)


def iaf(**settings):
    return autoregressive_flow(jax.random.key(0), ZEROS, EYE, **settings)


MISUSES = {
    "mean_field: integers": (
        lambda: mean_field(jnp.arange(3), 1.0),
        TypeError,
        "loc must be floating point, got int64",
    ),
    "mean_field: matrix": (lambda: mean_field(EYE, 1.0), ValueError, r"loc must be a vector .* got shape \(3, 3\)"),
    "mean_field: empty": (lambda: mean_field(jnp.zeros(0), 1.0), ValueError, r"D >= 1, got shape \(0,\)"),
    "mean_field: scale": (lambda: mean_field(ZEROS, [1.0, 0.0, 1.0]), ValueError, "scale must be positive"),
    "mean_field: NaN scale": (
        lambda: mean_field(ZEROS, jnp.nan),
        ValueError,
        "scale must be numbers, got NaN in 3 of 3",
    ),
    "mean_field: NaN loc": (lambda: mean_field([0.0, jnp.nan], 1.0), ValueError, "loc must be numbers, .* first at 1"),
    "full_rank: shape": (lambda: full_rank(ZEROS, jnp.eye(2)), ValueError, r"scale_tril .*\(3, 3\), got \(2, 2\)"),
    "full_rank: diagonal": (lambda: full_rank(ZEROS, -EYE), ValueError, "diagonal of scale_tril must be positive"),
    "low_rank: factor": (lambda: low_rank(ZEROS, EYE[:2], 1.0), ValueError, r"factor .*\[3, R\].* got \(2, 3\)"),
    "low_rank: rank 0": (lambda: low_rank(ZEROS, EYE[:, :0], 1.0), ValueError, r"R >= 1, got \(3, 0\)"),
    "low_rank: scale": (lambda: low_rank(ZEROS, EYE, [1.0, 2.0]), ValueError, r"scale .*\(3,\), got \(2,\)"),
    "low_rank: negative": (lambda: low_rank(ZEROS, EYE, -1.0), ValueError, "scale must be positive"),
    "banded: shape": (lambda: banded_precision(ZEROS, 1.0, EYE[:, :2]), ValueError, r"\[b, 3\].* got \(3, 2\)"),
    "banded: too wide": (lambda: banded_precision(ZEROS, 1.0, EYE), ValueError, r"1 <= b < 3, got \(3, 3\)"),
    "banded: diagonal": (lambda: banded_precision(ZEROS, [1.0], EYE[:1]), ValueError, r"diagonal .*\(3,\), got \(1,\)"),
    "banded: negative": (lambda: banded_precision(ZEROS, -1.0, EYE[:1]), ValueError, "diagonal must be positive"),
    "gaussian_chain: integers": (lambda: gaussian_chain(EYE.astype(int), EYE, EYE), TypeError, "loc .* got int64"),
    "gaussian_chain: vector": (lambda: gaussian_chain(ZEROS, EYE, EYE), ValueError, r"\[T, d\] .* got \(3,\)"),
    "gaussian_chain: scales": (lambda: gaussian_chain(EYE, EYE[:2], EYE), ValueError, r"\(3, 3, 3\), got \(2, 3\)"),
    "gaussian_chain: steps": (lambda: gaussian_chain(EYE, EYE, STACK), ValueError, r"\(2, 3, 3\), got \(3, 3, 3\)"),
    "gaussian_chain: negative": (lambda: gaussian_chain(EYE, -EYE, EYE), ValueError, "diagonal of scale_tril must be"),
    "dynamics: length": (lambda: linear_dynamics(ZEROS, EYE, EYE, EYE, length=0), ValueError, "at least 1, got 0"),
    "dynamics: start": (lambda: linear_dynamics(EYE, EYE, EYE, EYE, length=2), ValueError, r"\[d\], got \(3, 3\)"),
    "dynamics: offset": (
        lambda: linear_dynamics(ZEROS, EYE, EYE, EYE, length=2, offset=[1.0]),
        ValueError,
        r"offset .* \(3,\) or \(1, 3\), got \(1,\)",
    ),
    "markov_chain: start": (lambda: markov_chain(EYE, STACK), ValueError, r"initial_logits .*\[K\].* got \(3, 3\)"),
    "markov_chain: steps": (lambda: markov_chain(ZEROS, EYE), ValueError, r"\[T - 1, 3, 3\], got \(3, 3\)"),
    "markov_chain: integers": (lambda: markov_chain(jnp.arange(3), STACK), TypeError, "initial_logits .*got int64"),
    "markov_chain: events": (lambda: markov_chain(ZEROS, jnp.stack([EYE] * 14)).enumerate(), ValueError, r"got 3\^15"),
    "hmm_smoother: shapes": (
        lambda: hmm_smoother(ZEROS, STACK, EYE),
        ValueError,
        r"\(2, 3, 3\), got \(3,\) and \(3, 3, 3\)",
    ),
    "flow: D": (lambda: flow(jnp.zeros(1), jnp.eye(1)), ValueError, "needs D >= 2, got 1"),
    "flow: shape": (lambda: flow(ZEROS, jnp.eye(2)), ValueError, r"scale_tril .*\(3, 3\), got \(2, 2\)"),
    "flow: diagonal": (lambda: flow(ZEROS, -EYE), ValueError, "diagonal of scale_tril must be positive"),
    "flow: kind": (lambda: flow(ZEROS, EYE, kind="cubic"), ValueError, "affine, rational_quadratic, got 'cubic'"),
    "flow: layers": (lambda: flow(ZEROS, EYE, num_layers=0), ValueError, "num_layers must be at least 1, got 0"),
    "flow: hidden": (lambda: flow(ZEROS, EYE, hidden=(8, 2.0)), TypeError, "hidden must be an int, got float"),
    "flow: bins": (lambda: flow(ZEROS, EYE, num_bins=-1), ValueError, "num_bins must be at least 1, got -1"),
    "flow: bound": (lambda: flow(ZEROS, EYE, bound=0.0), ValueError, "bound must be positive, got 0.0"),
    "flow: df": (lambda: flow(ZEROS, EYE, df=-1), ValueError, "df must be at least 1, or 0 for the Gaussian, got -1"),
    "autoregressive: fast": (lambda: iaf(fast="both"), ValueError, "fast must be one of density, sampling, got 'both'"),
    "autoregressive: D": (
        lambda: autoregressive_flow(jax.random.key(0), jnp.zeros(1), jnp.eye(1)),
        ValueError,
        "needs D >= 2, got 1",
    ),
    "autoregressive: context": (lambda: iaf(num_context=-1), ValueError, "num_context must be at least 0, got -1"),
    "autoregressive: half": (lambda: iaf(num_context=0.5), TypeError, "num_context must be an int, got float"),
    "flow: no context": (lambda: flow(ZEROS, EYE).given(ZEROS), TypeError, "takes no context"),
    "iaf: no context": (lambda: iaf().given(ZEROS), TypeError, "takes no context"),
    "iaf: contexts": (lambda: iaf(num_context=3).given(EYE), ValueError, r"must have shape \(3,\), got \(3, 3\)"),
    "sinh_arcsinh: shape": (lambda: sinh_arcsinh(ZEROS, EYE[:2]), ValueError, r"scale_tril .*\(3, 3\), got \(2, 3\)"),
    "sinh_arcsinh: diagonal": (
        lambda: sinh_arcsinh(ZEROS, -EYE),
        ValueError,
        "diagonal of scale_tril must be positive",
    ),
    "sinh_arcsinh: skew": (lambda: sinh_arcsinh(ZEROS, EYE, skew=[1.0]), ValueError, r"skew .*\(3,\), got \(1,\)"),
    "sinh_arcsinh: df": (lambda: sinh_arcsinh(ZEROS, EYE, df=2.5), TypeError, "df must be an int, got float"),
    "student_t: df": (lambda: student_t(ZEROS, EYE, df=2.5), TypeError, "df must be an int, got float"),
    "funnel: knots": (
        lambda: funnel([0.0, 0.0, 1.0], ZEROS, EYE, STACK),
        ValueError,
        "differences of knots must be pos",
    ),
    "funnel: one knot": (lambda: funnel([0.0], [0.0], EYE[:1], STACK[:1]), ValueError, "at least 2 knots, got 1"),
    "funnel: locs": (lambda: funnel(RISING, ZEROS, ZEROS, STACK), ValueError, r"\[3, D - 1\].*, got \(3,\)"),
    "funnel: scales": (lambda: funnel(RISING, ZEROS, EYE, EYE), ValueError, r"\(3, 3, 3\), got \(3, 3\)"),
    "funnel: diagonal": (
        lambda: funnel(RISING, ZEROS, EYE, -STACK),
        ValueError,
        "diagonal of scale_trils must be pos",
    ),
    "funnel: basis": (lambda: funnel(RISING, ZEROS, EYE, STACK, basis=EYE), ValueError, r"\(4, 4\), got \(3, 3\)"),
    "funnel: df": (lambda: funnel(RISING, ZEROS, EYE, STACK, df=2.5), TypeError, "df must be an int, got float"),
    "funnel: negative df": (lambda: funnel(RISING, ZEROS, EYE, STACK, df=-1), ValueError, "0 for the Gaussian, got -1"),
    "blocks: none": (lambda: blocks(), ValueError, "at least one part"),
    "with_student_t_tails: no Gaussian": (
        lambda: with_student_t_tails(COINS),
        TypeError,
        "base must be a Gaussian, got Bernoulli",
    ),
    "with_student_t_tails: df": (lambda: with_student_t_tails(UNIT, df=0), ValueError, "df must be at least 1, got 0"),
    "with_student_t_tails: half df": (
        lambda: with_student_t_tails(UNIT, df=2.5),
        TypeError,
        "df must be an int, got float",
    ),
    "blocks: discrete": (lambda: blocks(UNIT, COINS), TypeError, "part 1 must be a Reparameterised .* got Bernoulli"),
    "blocks: dtypes": (lambda: blocks(UNIT, SINGLE), TypeError, "part 0 has float64, part 1 float32"),
    "blocks: pytree": (lambda: blocks(UNIT, product([UNIT])), ValueError, "part 1 must be flat vectors"),
    "product: none": (lambda: product({}), ValueError, "at least one part, got {}"),
    "product: array": (lambda: product({"a": [UNIT, ZEROS]}), TypeError, r"parts\['a'\]\[1\] must be a Family, got "),
    "product: dtypes": (lambda: product([UNIT, SINGLE]), TypeError, r"parts\[0\]: float64, parts\[1\]: float32"),
    "mixture: none": (lambda: mixture(ZEROS, []), ValueError, "at least one"),
    "mixture: array": (lambda: mixture(ZEROS, ZEROS), TypeError, "components must be a Reparameterised .* got "),
    "mixture: discrete": (lambda: mixture(ZEROS, [COINS] * 3), TypeError, r"components\[0\] .* got Bernoulli"),
    "mixture: types": (lambda: mixture(ZEROS, [UNIT, full_rank(ZEROS, EYE)]), TypeError, r"components\[1\] a FullRank"),
    "mixture: settings": (
        lambda: mixture(ZEROS, [student_t(ZEROS, EYE, df=3), student_t(ZEROS, EYE, df=4)]),
        TypeError,
        "same settings",
    ),
    "mixture: shapes": (
        lambda: mixture(ZEROS, [UNIT, mean_field(jnp.zeros(2), 1.0)]),
        ValueError,
        r"leaves of \[0\]: \[\(3,\), \(3,\)\], of \[1\]: \[\(2,\), \(2,\)\]",
    ),
    "mixture: count": (lambda: mixture(ZEROS, STACKED), ValueError, r"leading axis 3 like logits, got .*\(2, 3\)"),
    "mixture: not stacked": (lambda: mixture(ZEROS, UNIT), ValueError, r"stacked on a leading axis, got .*\(3,\)"),
    "mixture: logits": (lambda: mixture(EYE, [UNIT] * 3), ValueError, "logits must be a vector"),
    "bernoulli: matrix": (lambda: bernoulli(EYE), ValueError, "logits must be a vector"),
    "bernoulli: integers": (lambda: bernoulli(jnp.arange(3)), TypeError, "logits must be floating point"),
    "bernoulli: too many": (lambda: bernoulli(jnp.zeros(21)).enumerate(), ValueError, r"at most 2\^20 .* 2\^21"),
    "categorical: scalar": (lambda: categorical(1.0), ValueError, r"\[\.\.\., K\] with K >= 1, got \(\)"),
    "categorical: integers": (lambda: categorical(jnp.arange(3)), TypeError, "logits must be floating point"),
    "categorical: too many": (lambda: categorical(jnp.zeros((7, 8))).enumerate(), ValueError, r"2\^20 .* 2\^21"),
    "particles: vector": (lambda: particles(ZEROS, 1.0), ValueError, r"locations .*\[K, D\].* got \(3,\)"),
    "particles: integers": (lambda: particles(jnp.eye(3, dtype=int), 1.0), TypeError, "locations must be floating"),
    "particles: bandwidths": (
        lambda: particles(EYE, ZEROS),
        ValueError,
        r"bandwidth must be a scalar, got shape \(3,\)",
    ),
    "particles: zero": (lambda: particles(EYE, 0.0), ValueError, "bandwidth must be positive"),
    "sample_many: none": (lambda: sample_many(jax.random.key(0), UNIT, 0), ValueError, "num_samples .* got 0"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_says_what_is_wrong(misuse):
    call, error, message = MISUSES[misuse]
    with pytest.raises(error, match=message):
        call()


def test_the_largest_enumeration_still_works():
    assert jax.eval_shape(lambda q: q.enumerate(), bernoulli(jnp.zeros(20))).shape == (2**20, 20)


def test_constructors_take_tracers():
    stacked = jax.jit(jax.vmap(mean_field))(jnp.zeros((2, 3)), -jnp.ones((2, 3)))
    assert jnp.all(jnp.isnan(stacked.log_scale))  # a traced scale is taken at its word
