"""Optimisers made of the same parts with other numbers are others: each call takes the steps of its own."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import elbojax
from elbojax.closures import look

KINDS = {
    "sgd": lambda rate: optax.sgd(rate),
    "adam": lambda rate: optax.adam(rate),
    "adamw": lambda rate: optax.adamw(rate),
    "chain": lambda rate: optax.chain(optax.clip(1.0), optax.scale_by_adam(), optax.scale(-rate)),
    "schedule": lambda rate: optax.adam(optax.cosine_decay_schedule(rate, 100)),
    "clipped": lambda rate: optax.chain(optax.clip(rate), optax.sgd(0.1)),
    "with extra args": lambda rate: optax.with_extra_args_support(optax.sgd(rate)),
    "masked": lambda rate: optax.masked(optax.sgd(rate), lambda tree: jax.tree.map(lambda _: True, tree)),
    "several steps": lambda rate: optax.MultiSteps(optax.sgd(rate), 2),
    "schedule free": lambda rate: optax.contrib.schedule_free_adamw(rate),
}
RATES = (0.1, 0.01, 0.001)


def loss(key, q, data):
    return 0.5 * jnp.sum((q.loc - 3) ** 2) + 0.5 * jnp.sum(q.log_scale**2)


@pytest.mark.parametrize("name", KINDS)
def test_rates_tell_optimisers_apart(name):
    keys = [look(KINDS[name](rate)).key for rate in RATES]
    assert len({*keys}) == len(RATES)


@pytest.mark.parametrize("name", ["sgd", "adam", "chain", "clipped"])
def test_run_takes_the_steps_of_each_rate(precision, name):
    """In one process, in both orders; the right values are those of a loop by hand."""
    q = elbojax.mean_field(jnp.zeros(2), 0.1)
    for rate in (*RATES, *RATES[::-1]):
        optimizer = KINDS[name](rate)
        fit = elbojax.run(jax.random.key(0), elbojax.svi(loss, optimizer), q, num_steps=3)
        here, state = q, optimizer.init(q)
        for _ in range(3):
            slope = jax.grad(loss, argnums=1)(None, here, None)
            change, state = optimizer.update(slope, state, here)
            here = optax.apply_updates(here, change)
        np.testing.assert_allclose(fit.q.loc, here.loc, rtol=1e-4)


class Holder:
    def __init__(self, inside):
        self.inside = inside

    def __call__(self, z):
        return self.inside.update(z)


class Plus:
    def __init__(self, number):
        self.number = number

    def update(self, z):
        return z + self.number

    add = append = insert = update


READERS = {
    "a cell": lambda it: lambda z: it.update(z),
    "a cell, add": lambda it: lambda z: it.add(z),
    "a cell, append": lambda it: lambda z: it.append(z),
    "an attribute": Holder,
}


@pytest.mark.parametrize("name", READERS)
def test_methods_named_like_those_of_containers(name):
    one, two = READERS[name](Plus(1.0)), READERS[name](Plus(2.0))
    values = [float(elbojax.xla.jit(lambda f, z: f(z), static_argnames="f")(f, 1.0)) for f in (one, two)]
    assert values == [2.0, 3.0]
    holders = [Holder(Plus(1.0)), Holder(Plus(2.0))]
    assert look(holders[0]).key != look(holders[1]).key


@pytest.mark.parametrize("container", [[], {}, set(), collections.deque()], ids=lambda it: type(it).__name__)
def test_a_container_that_a_function_fills_does_not_count(container):
    """The other side: counting traces compiles nothing."""

    def function(z):
        getattr(container, "append", None) or container
        if isinstance(container, dict):
            container.update({len(container): 1})
        elif isinstance(container, set):
            container.add(len(container))
        else:
            container.append(1)
        return z

    before = look(function).key
    function(1.0)
    assert len(container) == 1 and look(function).key == before
