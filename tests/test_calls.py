"""Calls with other arguments than a function takes: each public function says how it is called."""

import importlib
import inspect

import pytest

import elbojax

MODULES = ("families", "solvers", "objectives", "studies", "loops", "minibatch", "diagnostics", "structure", "results")
FOR_AUTHORS = {"family", "static"}
"""Decorators and fields of dataclasses, which take what `dataclasses` takes."""


def public():
    """Functions at the front and in the modules, each once."""
    found = {}
    for module in (elbojax, *(importlib.import_module(f"elbojax.{name}") for name in MODULES)):
        for name in getattr(module, "__all__", dir(module)):
            value = getattr(module, name)
            if inspect.isfunction(value) and value.__module__.startswith("elbojax.") and not name.startswith("_"):
                found[value.__name__] = value
    return {name: value for name, value in found.items() if name not in FOR_AUTHORS}


FUNCTIONS = public()


def test_there_are_many():
    assert len(FUNCTIONS) > 100 and {"fit", "fit_batch", "svi", "as_loss", "mean_field", "k_fold"} <= set(FUNCTIONS)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_each_says_how_it_is_called(name):
    with pytest.raises(TypeError, match=rf"it is called {name}\("):
        FUNCTIONS[name](**{"no_such_argument": 1})


def test_arguments_are_seen_without_following_the_wrapping():
    assert list(inspect.signature(elbojax.elbo, follow_wrapped=False).parameters)[:3] == ["key", "q", "log_density"]
