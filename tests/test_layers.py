"""The layer table: who may import whom, who may `jit`, and what may be loaded on import."""

import ast
import graphlib
import pathlib
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "elbojax"
LAYERS = (
    (
        "types",
        "structures",
        "calls",
        "closures",
        "former",
        "inputs",
        "numerics",
        "linalg",
        "workarounds",
        "xla",
        "thresholds",
        "noise",
        "recursions",
        "weights",
        "signs",
    ),
    ("densities", "samplers", "bijectors", "minibatches", "targets"),
    ("families",),
    ("objectives",),
    ("diagnostics",),
    ("solvers",),
    ("host",),
    ("loops",),
    ("interop", "objects"),
    ("results",),
    ("structure",),
    ("minibatch", "cascade"),
    ("studies",),
    ("plots",),
    ("demo",),
    ("commands",),
    ("__main__",),
)
LAYER = {place: layer for layer, places in enumerate(LAYERS) for place in places}
MACHINES = {
    "workarounds",
    "diagnostics",
    "solvers",
    "host",
    "loops",
    "results",
    "minibatch",
    "cascade",
    "studies",
    "bijectors",
    "structure",
    "demo",
}  # made of parts that use one another, where other folders are collections of equals
DRIVERS = {
    "workarounds",
    "xla",
    "loops",
    "objects",
    "results",
    "structure",
    "minibatch",
    "cascade",
    "studies",
    "interop",
    "plots",
    "demo",
    "commands",
    "__main__",
}
LIGHT = {"elbojax", "jax", "numpy", "optax"} | sys.stdlib_module_names
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports(node):
    """Dotted names imported anywhere below `node`; `from a import b` counts as `a.b`."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are written in full"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)


def loaded_on_import(node):
    """Dotted names imported outside functions, and so whenever the module is."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from imports(node)
    elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for child in ast.iter_child_nodes(node):
            yield from loaded_on_import(child)


def may_import(place, leaf, target):
    """Whether `elbojax/<place>[/<leaf>].py` may import the dotted name `target` of this package."""
    other, *rest = target.split(".")[1:] or [""]
    if other not in LAYER:  # a public name of elbojax itself, whose __init__ imports all the rest
        return LAYER[place] > LAYER["cascade"]
    if other == place:
        return leaf == "__init__" or place in MACHINES or rest[:1] == ["base"]
    same_layer = LAYERS[LAYER[place]]
    if LAYER[other] == LAYER[place]:
        if {other, place} <= MACHINES:  # side by side: neither knows the other
            return False
        return same_layer.index(other) < same_layer.index(place)  # other places of one layer build on those before
    return LAYER[other] < LAYER[place]


def place_and_leaf(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0], parts[-1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_stays_in_its_layer(path):
    tree = ast.parse(path.read_text())
    place, leaf = place_and_leaf(path)
    assert place in LAYER, f"{place} is not in the layer table"

    own = [name for name in imports(tree) if name.split(".")[0] == "elbojax"]
    assert not [name for name in own if not may_import(place, leaf, name)], "imports from its own or a higher layer"

    if place != "interop":
        heavy = {name for name in loaded_on_import(tree) if name.split(".")[0] not in LIGHT}
        assert not heavy, "import this on use, inside the function"

    if place not in DRIVERS:
        named = {getattr(node, "attr", getattr(node, "id", None)) for node in ast.walk(tree)}
        assert not named & {"jit", "pjit", "pmap"}, "leaves do not jit; the drivers do"


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_parts_of_a_machine_form_no_circle(machine):
    graph = {}
    for path in (PACKAGE / machine).glob("*.py"):
        names = (name.split(".") for name in imports(ast.parse(path.read_text())))
        graph[path.stem] = {name[2] for name in names if name[:2] == ["elbojax", machine] and len(name) > 3}
    list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("place", "leaf", "target", "allowed"),
    [
        ("noise", "", "elbojax.numerics.log_mean_exp", True),
        ("numerics", "", "elbojax.noise.iid", False),
        ("families", "mean_field", "elbojax.families.base.Family", True),
        ("families", "mean_field", "elbojax.families.full_rank.FullRank", False),
        ("families", "__init__", "elbojax.families.full_rank.FullRank", True),
        ("families", "mean_field", "elbojax.objectives.elbo", False),
        ("objectives", "elbo", "elbojax.families.mean_field", True),
        ("diagnostics", "pareto", "elbojax.solvers.svi", False),
        ("solvers", "svi", "elbojax", False),
        ("solvers", "svi", "elbojax.fit", False),
        ("loops", "run", "elbojax.loops.lane", True),
        ("loops", "run", "elbojax.results.certificate", False),
        ("results", "summary", "elbojax.loops.strict", True),
        ("results", "summary", "elbojax.cascade.single", False),
        ("cascade", "single", "elbojax.results.certificate", True),
        ("cascade", "single", "elbojax.minibatch.fit", False),
        ("minibatch", "fit", "elbojax.cascade.single", False),
        ("minibatch", "fit", "elbojax.results.resolution", True),
        ("targets", "", "elbojax.minibatches.take", True),
        ("__main__", "", "elbojax", True),
    ],
)
def test_the_table_itself(place, leaf, target, allowed):
    assert may_import(place, leaf, target) == allowed
