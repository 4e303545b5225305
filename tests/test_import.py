"""What `import elbojax` may cost, seen from a fresh interpreter."""

import subprocess
import sys

import pytest

import elbojax

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


def test_the_front_lists_what_most_people_call():
    names = elbojax.__all__
    assert len(names) == len(set(names)) and 60 <= len(names) <= 110
    assert dir(elbojax) == sorted([*names, "__version__"])
    assert {"fit", "fit_batch", "fit_model", "loo", "elbo", "svi", "assess"} <= set(names)
    assert all(hasattr(elbojax, name) for name in names)


@pytest.mark.parametrize(
    ("name", "meant"), [("meanfield", "mean_field"), ("fit_bacth", "fit_batch"), ("elbo_dreg", "iw_elbo_dreg")]
)
def test_a_misspelt_name_gets_a_suggestion(name, meant):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; did you mean '{meant}"):
        getattr(elbojax, name)
    assert not hasattr(elbojax, "qqqqqqqq")


@pytest.mark.parametrize(("name", "now"), elbojax.RENAMED.items())
def test_former_names_work_with_a_warning(name, now):
    with pytest.warns(DeprecationWarning, match=f"elbojax.{name} has become elbojax.{now}"):
        assert getattr(elbojax, name) is getattr(elbojax, now)
    assert name not in vars(elbojax)
