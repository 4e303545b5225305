"""The table of numbers that decide: complete, current, and heeded by what is compiled already."""

import ast
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import elbojax
from elbojax import thresholds
from elbojax.bijectors import Real
from elbojax.cascade.labels import tried
from elbojax.cascade.symmetries import Leaf

PACKAGE = pathlib.Path(elbojax.__file__).parent
DECIDING = ("host", "results", "minibatch", "cascade")
"""Folders whose numbers decide what an answer is and whether it is certified."""

ALLOWED = {
    "agreement.ROWS": "rows of a table",
    "approximation.CHUNK": "draws in one call",
    "approximation.FEWEST": "memory",
    "approximation.NUMBERS": "memory",
    "averaging.MOST_BLOCKS": "memory",
    "batch.ADAPTED_LEAST": "what is worth compiling; both ways have the same rules",
    "batch.CALLS": "calls of a program",
    "batch.FEW": "lanes",
    "batch.FEW_MODELS": "what is worth compiling; both ways have the same rules",
    "batch.GROUPS": "lanes",
    "batch.LANES": "lanes",
    "batch.LANES_ELSEWHERE": "lanes",
    "batch.MANY": "how well a program is compiled",
    "batch.MEMORY": "bytes",
    "batch.SIDE_BY_SIDE": "models in step",
    "batch.TRIED": "models in one call",
    "chains.COORDINATES": "coordinates in one call",
    "conditional.CLOSE": "where nodes of an interpolation lie; weights correct it",
    "conditional.DEEPEST": "nodes of an interpolation; weights correct it",
    "conditional.ENDED": "accuracy of modes between which is interpolated; weights correct it",
    "conditional.FLATTEST": "nodes of an interpolation; weights correct it",
    "conditional.HIGHEST": "nodes of an interpolation; weights correct it",
    "conditional.LIGHTEST_INTERPOLATED": "nodes of an interpolation; weights correct it",
    "conditional.LONGEST": "steps of an optimiser",
    "conditional.NUDGE": "step of a difference",
    "conditional.QUADRATIC": "accuracy of modes between which is interpolated; weights correct it",
    "conditional.ROUNDS": "steps of an optimiser",
    "conditional.WALK": "steps of an optimiser",
    "leaders.MOST_BATCHES": "how many draws tell coordinates apart; the certificate does not rest on it",
    "leaders.PER_BATCH": "likewise",
    "interpolated.BEYOND": "a proposal far from its nodes; weights correct it",
    "interpolated.SOME": "memory",
    "differences.STEPS": "a grid, of which the best step is taken",
    "diagnosis.BATCH": "axes in one call",
    "display.FEWEST": "rows of a report",
    "display.SHOWN": "rows of a report",
    "evaluate.CHUNK": "points in one call",
    "evaluate.WIDE_CHUNK": "points in one call",
    "evaluate.GRADIENT": "cost",
    "evaluate.ROOM": "points in one call",
    "evaluate.WORTH": "how well a program is compiled",
    "evaluate.WORTH_ALONE": "how well a program is compiled",
    "evaluate_many.CHUNK": "points in one call",
    "evaluate_many.WIDE_CHUNK": "points in one call",
    "evaluate_many.ROOM": "points in one call",
    "evaluate_many.WIDEST": "memory",
    "fit.RANK": "a default of an argument",
    "handover.COORDINATES": "coordinates in one call",
    "importance.SIDE_BY_SIDE": "memory",
    "importance.WIDTH": "draws in one call",
    "loading.FORMER_CHAINS": "what earlier versions had",
    "nuts_start.LENT": "a metric for samplers elsewhere, which tune it further",
    "nuts_start.MOST_DENSE": "cost of a leapfrog step elsewhere",
    "pictures.BENT": "words of a picture",
    "pictures.COLUMNS": "panels of a picture",
    "pictures.HIGHEST": "limit of an axis",
    "pictures.NO_NOISE": "rounding, in a picture",
    "pictures.PAIRED": "memory of a picture",
    "pictures.PANELS": "panels of a picture",
    "pictures.POINTS": "points of a picture",
    "labels.CHUNK": "points in one call",
    "labels.SHOWN": "words of a report",
    "labels_batch.NONE": "nothing",
    "labels_batch.LISTED": "words of a report",
    "labels_batch.ROOM": "memory",
    "labels_batch.TOGETHER": "models in one call",
    "low_rank.GAIN": "of an optimiser of its own",
    "low_rank.NARROW": "of an optimiser of its own",
    "low_rank.ROUNDS": "of an optimiser of its own",
    "low_rank.STEPS": "of an optimiser of its own",
    "low_rank.WIDE": "of an optimiser of its own",
    "mapped.PIECE": "draws in one call",
    "nested_answers.ROOM": "points in one call",
    "nested_batch.MOST": "programs that are compiled",
    "nested_batch.NUMBER": "a seed",
    "nested_batch.SPREADS": "points, of which any will do",
    "nested_model.EXPLAINED": "where Newton's method begins",
    "nested_model.MODES": "where Newton's method begins",
    "nested_model.SAME": "of rounding",
    "nested_programs.AGREE": "of rounding",
    "nested_programs.NEAR": "of the gradients of an approximation, which is corrected",
    "nested_programs.POINTS": "points in one call",
    "nested_programs.SIDE_BY_SIDE": "points in one call",
    "nested_programs.WIDE": "memory",
    "noise.CENTRE": "coefficients of a function",
    "noise.MIDDLE": "coefficients of a function",
    "noise.TAIL": "coefficients of a function",
    "noise.DIGITS": "digits of a Sobol point",
    "noise.CACHED": "memory",
    "objects.GRACE": "seconds",
    "objects.POLL": "seconds",
    "objects.ROOM": "points in one call",
    "positions.FEW": "draws in one call",
    "positions.ROOM": "points in one call",
    "posterior.LEAST": "of another library",
    "programs.SMALL": "how well a program is compiled",
    "programs.TRIPS": "how well a program is compiled",
    "psis.FEWEST": "of the method; no check has so few draws",
    "single.COMPILED": "at least two parameters",
    "thorough.STAGES": "seeds, and at least two parameters",
    "thorough.OF_BATCHES": "seeds, and at least two parameters",
    "fit_mixture.LEAST": "the shape of a proposal, which the check assesses",
    "fit_mixture.NARROW": "the shape of a proposal, which the check assesses",
    "fit_mixture.STEPS": "the shape of a proposal, which the check assesses",
    "fit_mixture.WORTH": "the shape of a proposal, which the check assesses",
    "evaluate_many.ROUGH_LEAST": "points in one call; what single precision gets wrong is held against COMPARED_ALIKE",
    "evaluate_many.TOGETHER": "points in one call",
    "stationarity.PASSES": "a schedule, which ends as soon as the test is precise",
    "search.CLIMB_MOST": "budget",
    "short_chains.FLAT": "rounding",
    "short_chains.ROOM": "draws in one call",
    "storage.FORMAT": "of files",
    "storage.SEAL": "of files",
    "display.COARSEST": "digits of a table",
    "summary.PROBABILITIES": "columns of a table",
    "summary.ROWS": "rows of a table",
    "summary.WORST": "rows of a table",
    "thinned.PROBABILITIES": "columns of a table",
    "triangular.FURTHEST": "the shape of a proposal, which the check assesses",
    "triangular.HALVINGS": "the shape of a proposal, which the check assesses",
    "triangular.HEAVIEST": "the shape of a proposal, which the check assesses",
    "triangular.LIGHTEST": "the shape of a proposal, which the check assesses",
    "triangular.QUANTILES": "the shape of a proposal, which the check assesses",
    "triangular.STEEPEST": "the shape of a proposal, which the check assesses",
    "triangular.STEPS": "the shape of a proposal, which the check assesses",
    "triangular.WIDEST": "the shape of a proposal, which the check assesses",
}
"""Numbers of modules that change no answer, or not which, each with its reason."""


def numbers(tree):
    """Names that are given a number, or numbers, where the module begins."""
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        inside = [each for each in ast.walk(node.value) if isinstance(each, ast.Constant)]
        if not any(isinstance(each.value, int | float) and not isinstance(each.value, bool) for each in inside):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (
            each.id
            for target in targets
            for each in ast.walk(target)
            if isinstance(each, ast.Name) and each.id.isupper()
        )


def read(node, inside=False):
    """Names of thresholds below a node, and whether each is read when a function runs."""
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        arguments = node.args.defaults + [each for each in node.args.kw_defaults if each is not None]
        at_once = arguments + getattr(node, "decorator_list", [])
        later = node.body if isinstance(node.body, list) else [node.body]
        for each in at_once:
            yield from read(each, inside)
        for each in later:
            yield from read(each, True)
        return
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "thresholds":
        yield node.attr, inside
    for each in ast.iter_child_nodes(node):
        yield from read(each, inside)


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "thresholds.py")
TREES = {path: ast.parse(path.read_text()) for path in FILES}


@pytest.mark.parametrize("folder", DECIDING)
def test_every_number_that_decides_is_in_the_table(folder):
    found = {
        f"{path.stem}.{name}"
        for path, tree in TREES.items()
        if folder in path.relative_to(PACKAGE).parts
        for name in numbers(tree)
    }
    unknown = sorted(found - ALLOWED.keys())
    assert not unknown, "put it into elbojax/thresholds.py, or say in ALLOWED why it decides nothing about an answer"


VERDICTS = (
    "check/*",
    "stages/*",
    "thorough",
    "importance",
    "refit",
    "exploration",
    "outer_variance",
    "handover",
    "precision",
)


@pytest.mark.parametrize(
    "path", sorted(path for name in VERDICTS for path in (PACKAGE / "cascade").glob(f"{name}.py")), ids=str
)
def test_nothing_is_compared_with_a_number_in_passing(path):
    for node in ast.walk(TREES[path]):
        sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        for side in sides:
            assert not (isinstance(side, ast.Constant) and isinstance(side.value, float)), (
                path,
                side.lineno,
                side.value,
            )


def test_no_entry_is_idle():
    names = {name for tree in TREES.values() for name, _ in read(tree) if name.isupper()}
    assert names - {"UNMEASURED", "TABLE"} == thresholds.TABLE.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_is_read_when_it_is_used(path):
    """A default, or a constant of a module, would keep the value of the day of import."""
    at_once = [name for name, inside in read(TREES[path]) if not inside and name.isupper()]
    assert not at_once
    for node in ast.walk(TREES[path]):
        assert not (isinstance(node, ast.ImportFrom) and node.module == "elbojax.thresholds"), "import the module"


@pytest.mark.parametrize("name", thresholds.TABLE)
def test_record(name):
    record = thresholds.TABLE[name]
    assert vars(thresholds)[name] == record.value == thresholds.validated(name, record.value)
    assert record.unit and record.decides.endswith(".") and record.decides[0].isupper()
    assert record.evidence and not record.evidence.endswith(".")
    assert name.isupper() and record.group


def test_page_is_current():
    page = PACKAGE.parent / "docs" / "thresholds.md"
    assert page.read_text() == thresholds.page(), "run `make thresholds`"


@pytest.mark.parametrize(
    ("name", "value", "error", "words"),
    [
        ("ENUOGH", 3, ValueError, "nearest name is 'ENOUGH'"),
        ("khat", 0.5, ValueError, "nearest name is 'KHAT'"),
        ("TABLE", 3, ValueError, "there is no threshold 'TABLE'"),
        ("validated", 3, ValueError, "there is no threshold"),
        ("CHECK_DRAWS", 4096.0, TypeError, "an integer"),
        ("CHECK_DRAWS", True, TypeError, "an integer"),
        ("UNKNOWN_ERROR", "0.2", TypeError, "a number"),
        ("UNKNOWN_ERROR", None, TypeError, "a number"),
        ("UNKNOWN_ERROR", (0.2,), TypeError, "a number"),
        ("EXPLORATION_STEP_SIZES", 0.5, TypeError, "a tuple"),
        ("EXPLORATION_STEP_SIZES", (), TypeError, "a tuple"),
        ("EXPLORATION_STEP_SIZES", (1.0, "2"), TypeError, "a tuple"),
        ("EXPLORATION_STEP_SIZES", (1.0, 0.0), ValueError, "lies from"),
        ("CHECK_DRAWS", 0, ValueError, "lies from 64 to inf"),
        ("ENSEMBLE_JOINED", 1.5, ValueError, "lies from 0 to 1"),
        ("UNKNOWN_ERROR", float("nan"), ValueError, "lies from"),
        ("UNKNOWN_ERROR", -1.0, ValueError, "lies from"),
    ],
)
def test_misuse(name, value, error, words):
    before = dict(vars(thresholds))
    with pytest.raises(error, match=words), thresholds.overridden(ENOUGH=1, **{name: value}):
        pass
    assert vars(thresholds) == before


def test_nested_and_after_an_error():
    with thresholds.overridden(ENOUGH=1):
        with pytest.raises(ZeroDivisionError), thresholds.overridden(ENOUGH=2, UNKNOWN_ERROR=1):
            assert (thresholds.ENOUGH, thresholds.UNKNOWN_ERROR) == (2, 1.0) and isinstance(
                thresholds.UNKNOWN_ERROR, float
            )
            raise ZeroDivisionError
        assert (thresholds.ENOUGH, thresholds.UNKNOWN_ERROR) == (1, 0.25)
    assert thresholds.ENOUGH == 400
    with pytest.raises(AttributeError, match="overridden"):
        thresholds.ENOUGH = 200


def log_density(z, scale=1.0):
    return -0.5 * jnp.sum((z / scale) ** 2)


def test_one_fit_heeds_it():
    fit = lambda: elbojax.fit(jax.random.key(0), log_density, np.zeros(2), max_gradients=900).certificate  # noqa: E731
    before = fit()
    with thresholds.overridden(ENOUGH=100_000, CHECK_DRAWS=1024, PATHS=4, TAIL_SHARE_AGAIN=0.0):
        during = fit()
    after = fit()
    assert before.certified and not during.certified and after.certified
    assert after.num_log_densities == before.num_log_densities
    assert after.num_gradients == before.num_gradients


@pytest.mark.slow
def test_compiled_programs_heed_it():
    """The first stage of a batch, and the values that it holds, are constants of a program."""

    def fit():
        return elbojax.fit_batch(jax.random.key(0), log_density, np.zeros(2), np.array([1.0, 2.0]), compiled=True)

    before = fit()
    with thresholds.overridden(QUICK_DRAWS_FEW=256, STORED_DRAWS=128, QUICK_ENOUGH=10.0, ENOUGH=10):
        during = fit()
    after = fit()
    assert before.draws.shape[1] == after.draws.shape[1] == 512 and during.draws.shape[1] == 128
    assert (during.certificate.num_log_densities < before.certificate.num_log_densities).all()
    np.testing.assert_array_equal(before.draws, after.draws)


def test_lists_of_maps_are_made_anew():
    leaves = (Leaf("mu", (5,), Real()),)
    before = len(tried(leaves))
    with thresholds.overridden(LABEL_MAPS=3):
        assert len(tried(leaves)) == 3 < before
    assert len(tried(leaves)) == before
