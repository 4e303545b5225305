"""The laws: right numbers in every order of calls, in default precision and in double, in one process, in shuffled order.

A law is a table of cases, each with its right value (closed form, quadrature, another library) or the error that it is
to raise. Every case runs twice: as in a user's default session (float32) and with `jax_enable_x64`. The order of the
laws is shuffled, for what one call leaves behind must not change what the next one answers; ELBOJAX_LAWS_SEED repeats an
order that failed.
"""

import os
import pathlib
import random

import jax
import pytest

SEED = int(os.environ.get("ELBOJAX_LAWS_SEED", "0"))
"""Of the order; the same for all workers of pytest-xdist, which have to collect alike."""


@pytest.fixture(params=[False, True], ids=["default", "x64"])
def precision(request):
    """A session as a user has it, in float32 (False) or in float64 (True)."""
    with jax.enable_x64(request.param):
        yield request.param


def pytest_report_header():
    """How to repeat the order."""
    return f"laws: shuffled with ELBOJAX_LAWS_SEED={SEED}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """The laws in shuffled order, each in a place where a law stood."""
    here = pathlib.Path(__file__).parent
    places = [place for place, item in enumerate(items) if here in item.path.parents]
    laws = [items[place] for place in places]
    random.Random(SEED).shuffle(laws)
    for place, law in zip(places, laws, strict=True):
        items[place] = law
