"""Strict settings for every test: double precision on, typed keys only, repeatable examples; and room for programs."""

import gc
import pathlib

import hypothesis
import jax

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
