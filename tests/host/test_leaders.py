"""Which coordinates lead the others, by third derivatives."""

import jax.numpy as jnp
import numpy as np
import pytest

from elbojax import targets
from elbojax.cascade.evaluate import Compiled, drive
from elbojax.host.distributions import Gaussian
from elbojax.host.leaders import _parts, _symmetric, cost, leaders

SIZE = 9


def model(log_density, size=SIZE):
    return Compiled(targets.unconstrain(log_density, np.zeros(size)), None)


def found(log_density, seed=0, most=4, enough=0.25, size=SIZE):
    start = Gaussian(np.zeros(size), np.eye(size))
    return drive(leaders(np.random.default_rng(seed), start, most, enough), model(log_density, size))


def given(*lead):
    """Log-density of coordinates whose scales and centres the leading ones set, each of its own."""
    places = np.array(lead)

    def log_density(z):
        a, b = z[places], jnp.delete(z, places)
        scales = jnp.stack([a[i % len(lead)] for i in range(len(b))])
        return -0.5 * a @ a - jnp.sum(0.5 * ((b - 0.3 * scales**2) * jnp.exp(-0.6 * scales)) ** 2 + 0.6 * scales)

    return log_density


@pytest.mark.parametrize("lead", ((0, 1), (8, 3), (2, 5, 7)))
@pytest.mark.parametrize("seed", range(3))
def test_finds_those_that_lead_and_no_others(lead, seed):
    fewest, one_more = found(given(*lead), seed)
    assert sorted(fewest) == sorted(lead) and one_more[:-1] == fewest


def test_none_lead_where_too_many_would_have_to():
    assert found(given(0, 2, 4), most=2) == []


def test_none_lead_a_gaussian():
    assert found(lambda z: -0.5 * jnp.sum(z**2 * jnp.arange(1.0, SIZE + 1))) == []


def test_takes_the_gradients_it_says():
    counted = 0
    host, stage = model(given(0, 1)), leaders(np.random.default_rng(0), Gaussian(np.zeros(SIZE), np.eye(SIZE)), 4, 0.25)
    answer = None
    try:
        while True:
            request = stage.send(answer)
            counted += len(request.points)
            answer = host.answer(request)
    except StopIteration:
        pass
    assert counted == cost(SIZE)


def test_parts_are_sums_over_triples_with_an_index():
    cube = np.random.default_rng(0).normal(size=(5, 5, 5))
    cube = _symmetric(cube + np.swapaxes(cube, 1, 2))
    np.testing.assert_allclose(cube, np.transpose(cube, (2, 0, 1)))
    without = [np.delete(np.delete(np.delete(cube, i, 0), i, 1), i, 2).sum() for i in range(5)]
    np.testing.assert_allclose(_parts(cube), cube.sum() - without)
