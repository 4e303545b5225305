"""Strict settings for every test: double precision on, typed keys only, repeatable examples; quick compilation; room."""

import gc
import importlib.metadata
import os
import pathlib
import signal

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
os.environ.setdefault("XLA_FLAGS", FLAGS)  # before the first import of jax

import hypothesis  # noqa: E402
import jax  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_legacy_prng_key", "error")

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")

MAPS = pathlib.Path("/proc/self/maps")
MOST_MAPS = 30_000
"""Of the 65,530 areas of memory that Linux grants a process. A compiled program takes some; past the last XLA crashes."""


class Room:
    """Drops compiled programs between the tests of two files, once there are many; the cache on disk has them."""

    def pytest_runtest_teardown(self, item, nextitem):
        """After the last test of a file."""
        if nextitem is not None and nextitem.path == item.path:
            return
        if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
            jax.clear_caches()
            gc.collect()


def pytest_configure(config):
    """For doctests too, which lie outside this folder."""
    config.pluginmanager.register(Room())
