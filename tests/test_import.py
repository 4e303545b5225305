"""What `import elbojax` may cost, seen from a fresh interpreter."""

import importlib
import operator
import pathlib
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import elbojax
from elbojax import former

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
    assert len(names) == len(set(names)) and 60 <= len(names) <= 80
    assert dir(elbojax) == sorted([*names, *elbojax._MODULES, "__version__"])
    assert {"fit", "fit_batch", "fit_model", "loo", "elbo", "svi", "assess"} <= set(names)
    modules = {name for name in dir(elbojax) if isinstance(getattr(elbojax, name), types.ModuleType)}
    assert modules == set(elbojax._MODULES) and not modules & set(names)


def test_nothing_else_stands_at_the_front():
    """What is neither listed, nor a module, nor private would be public by an oversight."""
    there = {name for name, value in vars(elbojax).items() if not isinstance(value, types.ModuleType)}
    assert {name for name in there if not name.startswith("_")} == {*elbojax.__all__, "TYPE_CHECKING"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("meanfield", "mean_field"),
        ("fit_bacth", "fit_batch"),
        ("elbo_dreg", "iw_elbo_dreg"),
        ("MeanFeild", "families.MeanField"),
        ("bootstap", "studies.bootstrap"),
        ("objektives", "objectives"),
    ],
)
def test_a_misspelt_name_gets_a_suggestion(name, meant):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; did you mean '{meant}'"):
        getattr(elbojax, name)
    assert not hasattr(elbojax, "qqqqqqqq")


@pytest.mark.parametrize(("name", "now"), former.RENAMED.items())
def test_former_names_work_with_a_warning(name, now):
    place = f"{former.MOVED[now]}.{now}" if now in former.MOVED else now
    with pytest.warns(DeprecationWarning, match=f"elbojax.{name} has become elbojax.{place};"):
        found = getattr(elbojax, name)
    assert found is operator.attrgetter(place)(elbojax) or name in former.REORDERED
    assert name not in vars(elbojax)


@pytest.mark.parametrize(("name", "module"), former.MOVED.items())
def test_what_moved_works_with_a_warning_that_says_where_it_is(name, module):
    with pytest.warns(DeprecationWarning, match=f"elbojax.{name} has become elbojax.{module}.{name};") as caught:
        found = getattr(elbojax, name)
    assert caught[0].filename == __file__  # the line of whoever wrote the name
    assert found is getattr(importlib.import_module(f"elbojax.{module}"), name)
    assert name not in vars(elbojax) and name not in elbojax.__all__


OLD = re.compile(
    rf"\belbojax\.({'|'.join([*former.MOVED, *former.RENAMED])})\b|from elbojax import [^\n]*\b({'|'.join(former.MOVED)})\b"
)


def test_no_page_example_or_program_has_a_former_name():
    """A reader would meet a warning. The changelog and this file tell of them."""
    root = pathlib.Path(__file__).parents[1]
    folders = ("elbojax", "docs", "benchmarks", "notebooks", "tests")
    files = [path for folder in folders for path in (root / folder).rglob("*.*")] + [*root.glob("*.md")]
    found = []
    for path in files:
        if path.suffix in (".py", ".md", ".ipynb") and path.name not in ("former.py", "CHANGELOG.md", "test_import.py"):
            found += [f"{path.relative_to(root)}: {match[0]}" for match in OLD.finditer(path.read_text())]
    assert len(files) > 300 and not found, found
    assert OLD.search("elbojax.Tailed") and OLD.search("from elbojax import fit, gather")


def test_smoother_takes_the_likelihood_first_and_hmm_smoother_last():
    initial, transition = jnp.log(jnp.array([0.9, 0.1])), jnp.log(jnp.array([[0.7, 0.3], [0.2, 0.8]]))
    seen = jnp.log(jnp.array([[0.9, 0.2], [0.4, 0.6]]))  # of the transition's shape
    with pytest.warns(DeprecationWarning, match="hmm_smoother"):
        old = elbojax.smoother(seen, initial, transition)
    np.testing.assert_array_equal(old.marginals(), elbojax.hmm_smoother(initial, transition, seen).marginals())
    joint = np.exp(initial[:, None] + seen[0][:, None] + transition + seen[1])
    np.testing.assert_allclose(old.marginals()[1], joint.sum(0) / joint.sum(), rtol=1e-6)
    with pytest.raises(ValueError, match="log_likelihood must have shape"):
        elbojax.hmm_smoother(seen, transition, initial)
    with pytest.raises(ValueError, match="must have shapes"):
        elbojax.hmm_smoother(seen, initial, transition)


def test_an_optimizer_before_the_start_works_with_a_warning():
    loss, adam, x = lambda key, p, rows: jnp.mean((rows - p) ** 2), optax.adam(0.1), jnp.ones(8)
    settings = dict(batch_size=4, num_epochs=2)
    new = elbojax.train(jax.random.key(0), loss, 0.0, x, optimizer=adam, **settings)
    with pytest.warns(DeprecationWarning, match="has become train"):
        old = elbojax.train(jax.random.key(0), loss, adam, 0.0, x, **settings)
    assert old.params == new.params
    with (
        pytest.warns(DeprecationWarning, match="has become run_until_stationary"),
        pytest.raises(ValueError, match="batch"),
    ):
        elbojax.minibatch.run_until_stationary(
            jax.random.key(0), loss, adam, elbojax.svi(loss, adam).init(elbojax.mean_field(x, 1.0)), x, batch_size=9
        )
