"""Attributes that an answer does not have: the error says where to look."""

import copy
import pickle

import jax
import jax.numpy as jnp
import pytest

import elbojax
from elbojax.results import misnamed


@pytest.fixture(scope="module")
def fit():
    return elbojax.fit(jax.random.key(0), lambda z: -0.5 * jnp.sum(z**2), jnp.zeros(2))


@pytest.fixture(scope="module")
def fits():
    return elbojax.fit_batch(
        jax.random.key(0), lambda z, y: -0.5 * jnp.sum((z - y) ** 2), jnp.zeros(2), jnp.zeros((3, 2))
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("samples", r"sample\(key, num_samples\) gives draws"),
        ("std", r"standard deviations are sd\(\)"),
        ("khat", r"certificate\.khat"),
        ("maen", "did you mean 'mean'"),
        ("posterior", r"to_arviz\(\)"),
        ("nothing_like_it", "has no attribute 'nothing_like_it'$"),
    ],
)
def test_of_one_and_of_many(fit, fits, name, words):
    for answer in (fit, fits):
        with pytest.raises(AttributeError, match=words):
            getattr(answer, name)


def test_what_one_model_has(fits):
    with pytest.raises(AttributeError, match=r"one model has it: fits\[i\]\.quantile"):
        fits.quantile  # noqa: B018


@pytest.mark.parametrize("name", sorted(misnamed.ELSEWHERE))
def test_none_of_the_names_is_there(fit, name):
    """A hint for what there is would never be seen."""
    assert not hasattr(fit, name)


def test_copies_and_private_names(fit):
    assert copy.deepcopy(fit).note == copy.copy(fit).note == fit.note
    for name in ("__array__", "_repr_png_"):
        with pytest.raises(AttributeError, match=f"'{name}'$"):
            getattr(fit, name)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(fit)
