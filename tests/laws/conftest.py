"""The laws: right numbers in every order of calls, in default precision and in double, in one process, in shuffled order.

A law is a table of cases, each with its right value (closed form, quadrature, another library) or the error that it is
to raise. Every case runs twice: as in a user's default session (float32) and with `jax_enable_x64`. The order of the
laws is shuffled, for what one call leaves behind must not change what the next one answers: that of the files, and that
of the laws within each. (Laws of one file share compiled programs. Shuffled one by one, so much had to be dropped for
want of memory and compiled again that the slow ones took 40 s each for 1 s.) ELBOJAX_LAWS_SEED repeats an order that
failed. ELBOJAX_LAWS_HALF takes one of two halves, each of files picked by that seed, so that two processes share the
work; which files meet in one of them changes with it.
"""

import os
import pathlib
import random

import jax
import pytest

from elbojax.cascade import batch
from elbojax.workarounds import options

options.LIGHTER["xla_backend_optimization_level"] = 1
"""Stages of batches compile as for users, which tests/conftest.py has changed."""

SEED = int(os.environ.get("ELBOJAX_LAWS_SEED", "0"))
"""Of the order; the same for all workers of pytest-xdist, which have to collect alike."""
HALF = os.environ.get("ELBOJAX_LAWS_HALF", "")
"""1 or 2; all laws where it is empty."""
if HALF not in ("", "1", "2"):
    raise pytest.UsageError(f"ELBOJAX_LAWS_HALF is 1 or 2, or empty for all laws; got {HALF!r}")


@pytest.fixture(params=[False, True], ids=["default", "x64"])
def precision(request, monkeypatch):
    """A session as a user has it, in float32 (False) or in float64 (True).

    Both ways of a batch of few models are taken, too, which computes in double precision in either: its compiled stages,
    as many models have them, in the first; in the second what a user gets, the stages of the host.
    """
    if not request.param:
        monkeypatch.setattr(batch, "FEW_MODELS", 0)
        monkeypatch.setattr(batch, "ADAPTED_LEAST", 1)
    with jax.enable_x64(request.param):
        yield request.param


def pytest_report_header():
    """How to repeat the order."""
    return f"laws: shuffled with ELBOJAX_LAWS_SEED={SEED}" + (f", half {HALF}" if HALF else "")


def others(laws):
    """The files of the other half: every second one in an order of the seed's."""
    files = sorted({law.path for law in laws})
    random.Random(SEED).shuffle(files)
    return set(files[int(HALF) % 2 :: 2])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """The laws in shuffled order, in the places where laws stood; of one half alone where that is asked for."""
    here = pathlib.Path(__file__).parent
    if HALF:
        left_out = others([item for item in items if here in item.path.parents])
        config.hook.pytest_deselected(items=[item for item in items if item.path in left_out])
        items[:] = [item for item in items if item.path not in left_out]
    places = [place for place, item in enumerate(items) if here in item.path.parents]
    laws = shuffled([items[place] for place in places])
    for place, law in zip(places, laws, strict=True):
        items[place] = law


def shuffled(laws):
    """File by file, in an order of the seed's, and so within each."""
    order, files = random.Random(SEED), {}
    for law in laws:
        files.setdefault(law.path, []).append(law)
    names = list(files)
    order.shuffle(names)
    for name in names:
        order.shuffle(files[name])
    return [law for name in names for law in files[name]]
