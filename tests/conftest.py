"""Strict settings for every test: double precision on, typed keys only, repeatable examples."""

import hypothesis
import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_legacy_prng_key", "error")

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")
