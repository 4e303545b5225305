"""What `import elbojax` may cost, seen from a fresh interpreter."""

import subprocess
import sys

SCRIPT = """
import sys
import jax, optax
from jax._src import xla_bridge

modules, settings = set(sys.modules), dict(jax.config.values)
import elbojax

loaded = {name.partition(".")[0] for name in set(sys.modules) - modules}
print(*loaded - {"elbojax", "jax", "optax"} - sys.stdlib_module_names)
print(*(name for name, value in jax.config.values.items() if settings.get(name, value) != value))
print(xla_bridge.backends_are_initialized())
"""


def test_import_is_light():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    third_party, settings, backend = run.stdout.splitlines()
    assert third_party == "", "loaded beside jax and optax"
    assert settings == "", "JAX settings changed"
    assert backend == "False", "an array was made on import, which starts the backend"
