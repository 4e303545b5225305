"""Records of arrays are short in a cell or a terminal, and never fail while they are traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax.structures import short


@pytest.fixture(scope="module")
def assessment():
    return elbojax.assess(jax.random.key(0), elbojax.mean_field(jnp.zeros(2), 1.0), lambda z: -0.5 * jnp.sum(z**2))


def test_numbers_are_written_and_arrays_named(assessment):
    text = repr(assessment)
    assert text.startswith("Assessment(elbo=1.8379, ") and text.endswith("log_weights=float64[4000])")
    assert "events=float64[4000, 2]" in text and len(text) < 250


def test_a_batch_names_its_arrays(assessment):
    many = jax.tree.map(lambda x: jnp.stack([x] * 5), assessment)
    assert "elbo=float64[5], " in repr(many) and "log_weights=float64[5, 4000]" in repr(many)
    few = jax.tree.map(lambda x: jnp.stack([x] * 2), assessment)
    assert "elbo=[1.8379, 1.8379], " in repr(few)


def test_traced_values(assessment):
    texts = []
    jax.jit(lambda a: texts.append(repr(a)) or a.elbo)(assessment)
    assert "Tracer" in texts[0] and len(texts[0]) < 400


def test_every_kind_of_entry():
    from typing import Any, NamedTuple

    class Found(NamedTuple):
        a: Any = None
        b: Any = elbojax.Status.CONVERGED
        c: Any = np.bool_(True)
        d: Any = 3
        e: Any = float("nan")
        f: Any = ("x", "y")
        g: Any = jax.random.key(0)
        h: Any = np.zeros((0, 3))
        i: Any = np.arange(3)

    assert short(Found()) == "Found(a=None, b=converged, c=True, d=3, e=nan, f=tuple, g=key<fry>[], h=[], i=[0, 1, 2])"


def test_what_loo_alone_compares_has_no_column_of_evidence():
    y = jnp.array([2.3, 1.8, 3.1])

    def each(z, y):
        return -0.5 * (y - z) ** 2

    def fit(scale):
        return elbojax.fit(
            jax.random.key(0), lambda z, y: jnp.sum(each(z, y)) - 0.5 * (z / scale) ** 2 - jnp.log(scale), 0.0, data=y
        )

    found = elbojax.compare({"a": elbojax.loo(fit(1.0), each, y), "b": elbojax.loo(fit(3.0), each, y)})
    assert "log p(x)" not in str(found) and "nan" not in str(found) and "not trusted" in str(found)
