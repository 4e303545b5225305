"""Strict settings for every test: double precision on, typed keys only, repeatable examples; quick compilation; room."""

import collections
import ctypes
import gc
import hashlib
import importlib.metadata
import importlib.util
import os
import pathlib
import random
import signal
import time

# A shell starts what it puts into the background with Ctrl-C ignored, and Python takes that over: tests of interruption
# would wait for hours.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests compile thousands of programs and run each a few times: XLA's least effort takes a quarter of the time. Where
# XLA_FLAGS are given, if empty as for the slow tests, those count. One flag has gone from jaxlib 0.11, which stops at
# ones it does not know.
FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
QUICK = os.environ.setdefault("XLA_FLAGS", FLAGS) == FLAGS  # before the first import of jax

# What is imported stays: it is not looked through for garbage, neither now nor, frozen, between the tests.
gc.disable()

import hypothesis  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jax._src import compiler  # noqa: E402

from elbojax.workarounds import options  # noqa: E402

if QUICK:
    # Stages of batches, which ask for more than the least effort themselves, compile in half the time so (50 s to 26 for two).
    options.LIGHTER["xla_backend_optimization_level"] = 0

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_legacy_prng_key", "error")

# Once JAX has multiplied matrices on a processor with a matrix unit, stanli's compiler would end the process if it started.
if importlib.util.find_spec("stanli") and importlib.util.find_spec("bridgestan"):
    import elbojax

    elbojax.from_stan(stan_code="parameters { real m; } model { m ~ normal(0, 1); }")

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")


def installed():
    """Bytes of memory of the machine, or of the container, whichever are fewer."""
    limits = [float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        path = pathlib.Path("/sys/fs/cgroup") / name
        if path.exists() and path.read_text().strip().isdigit():
            limits.append(float(path.read_text()))
    return min(limits)


MAPS = pathlib.Path("/proc/self/maps")
MEMORY = pathlib.Path("/proc/self/statm")
MOST_MAPS = 30_000
"""Of the 65,530 areas of memory that Linux grants a process. A compiled program takes some; past the last XLA crashes."""
MOST_MEMORY = float(os.environ.get("ELBOJAX_TEST_MEMORY", np.clip(installed() / 6, 1.9e9, 4e9)))
"""Bytes in use by a worker. 1,000 compiled programs take 1.3e9 (measured on jax 0.10), all tests collected 1e9: with 2e9
there is little room, and what has been dropped is compiled again."""
BETWEEN_FILES = 0.8
"""Of them, after a file of tests: the next one has some room then."""


class Room:
    """Drops compiled programs, once there are many, and rather between two files; the cache on disk has the large ones."""

    def pytest_collection_finish(self, session):
        """Objects of modules and of collected tests are left out of garbage collection, which is rarer too."""
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        gc.enable()

    def pytest_runtest_teardown(self, item, nextitem):
        """After each test."""
        if nextitem is None or not MEMORY.exists():
            return
        if nextitem.path == item.path:
            full = resident() > MOST_MEMORY
        else:
            full = resident() > BETWEEN_FILES * MOST_MEMORY or MAPS.read_bytes().count(b"\n") > MOST_MAPS
        if full:
            jax.clear_caches()
            gc.collect()
            trim()


def resident():
    """Bytes of memory in use."""
    return int(MEMORY.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def trim():
    """Gives freed memory back to the system, where the C library can."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)


SHARED = collections.OrderedDict()
"""Compiled programs by their text, options and devices; the latest."""
MOST_SHARED = 200
"""Programs. What is written twice is mostly written in one file; each takes about 1e6 bytes."""
compile_anew = compiler.compile_or_get_cached


def compile_or_share(backend, computation, devices, options, host_callbacks, *others, **named):
    """JAX's compilation, but each program once: two tests that write the same closure have the same program."""
    if host_callbacks:
        return compile_anew(backend, computation, devices, options, host_callbacks, *others, **named)
    text = str(computation).encode() + options.SerializeAsString()
    key = hashlib.sha256(text).digest(), backend.platform, tuple(device.id for device in devices.flat)
    if key not in SHARED:
        SHARED[key] = compile_anew(backend, computation, devices, options, host_callbacks, *others, **named)
    SHARED.move_to_end(key)
    while len(SHARED) > MOST_SHARED:
        SHARED.popitem(last=False)
    return SHARED[key]


compiler.compile_or_get_cached = compile_or_share


MINUTES = os.environ.get("ELBOJAX_TEST_MINUTES", "")
"""After which no further test begins; no limit where it is empty. CI's time is limited, its machine's speed varies twofold."""
FILES_SEED = os.environ.get("ELBOJAX_TEST_SEED", "")
"""Of the order of the files; as collected where it is empty. With a limit, others are reached with another seed."""


class Limit:
    """Ends a run in time: tests that have not begun by then are skipped, and counted as that."""

    def __init__(self, minutes):
        self.end = time.monotonic() + 60.0 * minutes

    def pytest_runtest_setup(self, item):
        """Before each test."""
        if time.monotonic() > self.end:
            pytest.skip(f"not run: the {MINUTES} minutes of ELBOJAX_TEST_MINUTES were over")


class FilesInOrderOf:
    """Shuffles the files; tests of one file, which share compiled programs, stay together. The same for all workers."""

    def __init__(self, seed):
        self.seed = seed

    def pytest_collection_modifyitems(self, items):
        """All that was collected."""
        files = {}
        for item in items:
            files.setdefault(item.path, []).append(item)
        names = list(files)
        random.Random(self.seed).shuffle(names)
        items[:] = [item for name in names for item in files[name]]


class Absent:
    """Leaves out docstrings' examples of libraries that are not installed."""

    def pytest_collection_modifyitems(self, items):
        """Those of `from_pymc`, for PyMC 6 wants Python 3.12."""
        if importlib.util.find_spec("pymc") is None:
            absent = pytest.mark.skip(reason="needs pymc")
            for item in items:
                if item.name.startswith("elbojax.interop.pymc_model"):
                    item.add_marker(absent)


def pytest_configure(config):
    """For doctests too, which lie outside this folder."""
    config.pluginmanager.register(Room())
    config.pluginmanager.register(Absent())
    if MINUTES:
        config.pluginmanager.register(Limit(float(MINUTES)))
    if FILES_SEED:
        config.pluginmanager.register(FilesInOrderOf(FILES_SEED))
