"""PyMC models: their log-density as a JAX program, supports, start, and what they say of data that are not yet there."""

import contextlib
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import bijectors, linalg
from elbojax.bijectors import Bijector
from elbojax.bijectors.base import Shape, as_float, bijector
from elbojax.calls import explained
from elbojax.families.base import static
from elbojax.interop.base import Model
from elbojax.loops.indices import warn_outside
from elbojax.types import Array, Key, PyTree, Scalar

PROGRAMS: "weakref.WeakKeyDictionary[Any, tuple[Any, _Program]]" = weakref.WeakKeyDictionary()
"""The program made last of each PyMC model, which a second fit of the same model does not compile anew."""


MODE = "FAST_COMPILE"
"""How PyTensor's own programs run, in Python: for some thousand draws numba or a C compiler take longer than they save."""


@explained
def from_pymc(model: Any = None) -> Model:
    r"""A PyMC model, as a `Model` that `fit_model` takes.

    .. math:: \log p(x, z) = \textstyle\sum_{\text{variables}} \log p(\text{variable} \mid \text{its parents})
              + \sum \text{potentials}

    Free variables are the parameters, under their names and in their own space, with the maps onto it that PyMC uses; dims and
    coords go to `to_arviz`, `pm.Deterministic` are `derived`, observed variables are what is simulated and scored.
    `fit.predict(key, x=new)` predicts at another value of `pm.Data("x", ...)`. The model is taken as it stands: what
    `pm.set_data` changes later is not seen by the fit.

    PyTensor switches JAX to double precision when it first loads its JAX backend; this function leaves the setting as it was.
    Before PyMC's own samplers by JAX (`pm.sample(nuts_sampler="numpyro")`), set `jax_enable_x64` by hand then.

    Args:
      model: a `pymc.Model`; None for the one whose `with` block this is called in.

    Returns:
      A `Model`.

    Raises:
      ModuleNotFoundError: PyMC is not installed.
      TypeError: `model` is no PyMC model, or None outside of a `with` block.
      ValueError: it has a part that no log-density in JAX speaks of: discrete free variables, minibatches, simulators, bounds
        that depend on other variables, operations without a JAX version; nothing is observed; or there is nothing to infer.

    Example:
      >>> import pymc as pm
      >>> with pm.Model() as model:
      ...     mu = pm.Normal("mu", 0, 10)
      ...     tau = pm.HalfNormal("tau", 5)
      ...     y = pm.Normal("y", mu, tau, observed=[1.0, 2.0])
      >>> from_pymc(model)
      Model of PyMC: parameters mu, tau; observed y

    References:
      Abril-Pla et al. 2023, https://doi.org/10.7717/peerj-cs.1516
    """
    model = _given(model)
    _check(model)
    program = _program(model)
    free = [variable.name for variable in model.free_RVs]
    start = model.initial_point(random_seed=0)
    init, support = {}, {}
    for variable in model.free_RVs:
        name, begun = variable.name, np.asarray(start[model.rvs_to_values[variable].name], float)
        support[name] = _support(model, variable, begun.shape)
        with jax.enable_x64(True):
            init[name] = np.asarray(jax.jit(support[name].forward)(begun), np.float64)
    data = _data(model)
    with jax.enable_x64(True):
        warn_outside(_Density(program), init, data)
    observed = {
        variable.name: np.asarray(data.get(variable.name, None))
        if variable.name in data
        else _value(model.rvs_to_values[variable])
        for variable in model.observed_RVs
    }
    seen = {model.rvs_to_values[variable].name for variable in model.observed_RVs}
    constants = {name: np.array(data[name]) for name in _shared(model) if name not in seen}
    names = {*free, *observed, *constants, *(variable.name for variable in model.deterministics)}
    dims = {name: axes for name, axes in _dims(model).items() if name in names}
    used = {axis for axes in dims.values() for axis in axes}
    return Model(
        log_density=_Density(program),
        init={name: init[name] for name in free},
        support=support,
        data=data,
        simulate=_Simulate(program, tuple(observed)) if observed else None,
        log_likelihood=_Quantities(program, "likelihood") if observed else None,
        derived=_Quantities(program, "derived") if model.deterministics else None,
        prior=_Prior(program),
        unconstrain=_Unconstrain(program),
        rebind=_Rebind(program, tuple(observed), data),
        observed=observed,
        constants=constants,
        dims=dims,
        coords={axis: list(labels) for axis, labels in model.coords.items() if labels is not None and axis in used},
        library="PyMC",
    )


def is_pymc(model: Any) -> bool:
    """Whether it is a model of PyMC, which is not imported for that.

    Args:
      model: any object.
    """
    pymc = sys.modules.get("pymc")
    return pymc is not None and isinstance(model, getattr(pymc, "Model", ()))


def _given(model: Any) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of ArviZ, on its plans
            import pymc
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a PyMC model needs PyMC, and {error.name} is not installed: pip install 'elbojax[pymc]'", name=error.name
        ) from error
    if model is None:
        try:
            return pymc.modelcontext(None)
        except TypeError:
            raise TypeError(
                "no model is given, and this is not called in the block of `with pymc.Model()`: give the model"
            ) from None
    if not isinstance(model, pymc.Model):
        kind = model.__name__ if isinstance(model, type) else type(model).__name__
        raise TypeError(f"a pymc.Model is wanted, got {kind}")
    return model


def _kind(variable: Any) -> str:
    """The name of a variable's distribution."""
    name = type(variable.owner.op).__name__ if variable.owner is not None else "constant"
    return name.removesuffix("RV")


def _check(model: Any) -> None:
    """Raise ValueError for what no log-density speaks of."""
    from pytensor.graph.traversal import ancestors

    if not model.observed_RVs and not model.potentials:
        names = ", ".join(variable.name for variable in model.free_RVs) or "none"
        raise ValueError(
            "no variable of the model is observed and there is no pm.Potential, so there is nothing to learn from: pass the"
            f" data to observed=; the free variables are {names}"
        )
    for variable in model.observed_RVs:
        above = {
            type(each.owner.op).__name__
            for each in ancestors([variable, model.rvs_to_values[variable]])
            if each.owner is not None
        }
        if above & {"MinibatchOp", "MinibatchRandomVariable", "MinibatchIndexRV"}:
            raise ValueError(
                f"observed variable {variable.name!r} is of a minibatch (pm.Minibatch, total_size): fit on all data without"
                " them, or give prior and likelihood to elbojax.fit_minibatches"
            )
        if "SimulatorRV" in above or _kind(variable).startswith("Simulator"):
            raise ValueError(
                f"observed variable {variable.name!r} is a pm.Simulator, which has no log-density: write its likelihood, or"
                " one of its summary statistics, as a distribution"
            )
    for variable in model.free_RVs:
        if np.dtype(variable.dtype).kind in "biu":
            missing = variable.name.removesuffix("_unobserved")
            if missing != variable.name and f"{missing}_observed" in model.named_vars:
                raise ValueError(
                    f"observed variable {missing!r} has missing entries and is discrete ({_kind(variable)}), so that these"
                    " are discrete unknowns: leave them out of the data, which does not change the posterior"
                )
            raise ValueError(
                f"free variable {variable.name!r} ({_kind(variable)}) is discrete, and PyMC does not sum it out: write the"
                " sum as a pm.Mixture, or have it by pymc_extras.marginalize"
            )
    if not model.free_RVs:
        raise ValueError("the model has no free variable: there is nothing to infer")


@contextlib.contextmanager
def _without_starts(model: Any) -> Iterator[None]:
    """The model without `initval`s, with which PyMC does not copy it."""
    held = dict(model.rvs_to_initial_values)
    try:
        model.rvs_to_initial_values.update(dict.fromkeys(held))
        yield
    finally:
        model.rvs_to_initial_values.update(held)


def _shared(model: Any) -> dict[str, Any]:
    """What may change from fit to fit, by name: `pm.Data`."""
    return {variable.name: variable for variable in model.data_vars}


def _data(model: Any) -> dict[str, np.ndarray]:
    """`pm.Data` by name; and constants that are observed, by the name of their variable."""
    from pytensor.graph.basic import Constant

    found = {name: np.array(variable.get_value()) for name, variable in _shared(model).items()}
    for variable in model.observed_RVs:
        value = model.rvs_to_values[variable]
        if isinstance(value, Constant):
            found[variable.name] = np.array(value.data)
    return found


def _value(variable: Any) -> np.ndarray:
    """What a graph of constants and of data comes to."""
    return np.asarray(variable.eval(mode=MODE))


def _dims(model: Any) -> dict[str, list[str]]:
    named = lambda name, axes: [axis or f"{name}_dim_{at}" for at, axis in enumerate(axes)]  # noqa: E731
    return {name: named(name, axes) for name, axes in model.named_vars_to_dims.items() if axes is not None}


def _program(model: Any) -> "_Program":
    """The program of a model: that of the last call where nothing but values of data has changed."""
    lengths = tuple((axis, int(_value(length))) for axis, length in model.dim_lengths.items())
    variables = tuple((name, id(variable)) for name, variable in model.named_vars.items())
    potentials = tuple(map(id, model.potentials))
    shapes = tuple((name, array.shape, array.dtype.str) for name, array in _data(model).items())
    signature = lengths, variables, potentials, shapes, _others(model)
    known = PROGRAMS.get(model)
    if known is None or known[0] != signature:
        known = signature, _Program(model)
        PROGRAMS[model] = known
    return known[1]


def _others(model: Any) -> tuple[bytes, ...]:
    """Values of shared variables that are not `pm.Data`, which a program holds as constants."""
    from pytensor.compile.sharedvalue import SharedVariable
    from pytensor.graph.traversal import graph_inputs
    from pytensor.tensor.random.type import RandomType

    named = {*model.data_vars, *model.dim_lengths.values()}
    graphs = [*model.basic_RVs, *model.deterministics, *model.potentials, *model.rvs_to_values.values()]
    return tuple(
        np.asarray(each.get_value()).tobytes()
        for each in graph_inputs(graphs)
        if isinstance(each, SharedVariable) and not isinstance(each.type, RandomType) and each not in named
    )


class _Program:
    """A copy of the model on the space of its parameters, and its graphs as functions of JAX.

    Attributes:
      natural: the copy, whose values are not transformed.
      free: names of the parameters.
      data: names of what the functions are given besides.
    """

    def __init__(self, model: Any) -> None:
        from pymc.model.transform.conditioning import remove_value_transforms

        with _without_starts(model):
            self.natural = remove_value_transforms(model)
            self._transformed = {
                variable.name: (model.rvs_to_values[variable].name, model.rvs_to_transforms[variable])
                for variable in model.free_RVs
            }
        self.free = [variable.name for variable in model.free_RVs]
        self.data = list(_data(model))
        self._functions: dict[str, Any] = {}
        self.function("density")

    @property
    def identified_by(self) -> "_Program":
        """For the keys of compiled programs."""
        return self

    def function(self, what: str) -> tuple[Any, list[str]]:
        """A function of free values and data, and the names of what it returns.

        Args:
          what: "density", "likelihood", "derived" or "unconstrained".
        """
        if what not in self._functions:
            model = self.natural
            if what == "density":
                outputs, names = [model.logp()], ["density"]
            elif what == "unconstrained":
                outputs, names = self._unconstrained()
            elif what == "likelihood":
                outputs = model.logp(vars=model.observed_RVs, sum=False)
                names = [variable.name for variable in model.observed_RVs]
            else:
                outputs = model.replace_rvs_by_values(model.deterministics)
                names = [variable.name for variable in model.deterministics]
            self._functions[what] = jax_function(self._inputs(), outputs, self._given()), names
        return self._functions[what]

    def _inputs(self) -> list[Any]:
        return [self.natural.rvs_to_values[self.natural[name]] for name in self.free]

    def _unconstrained(self) -> tuple[list[Any], list[str]]:
        """Values in PyMC's own unconstrained space, and their names."""
        outputs, names = [], []
        for name, (transformed, transform) in self._transformed.items():
            variable = self.natural[name]
            value = self.natural.rvs_to_values[variable]
            parents = self.natural.replace_rvs_by_values(list(variable.owner.inputs))
            outputs.append(value if transform is None else transform.forward(value, *parents))
            names.append(transformed)
        return outputs, names

    def _given(self) -> dict[str, Any]:
        """The variables that stand for data, by name."""
        shared = _shared(self.natural)
        return {
            name: shared[name] if name in shared else self.natural.rvs_to_values[self.natural[name]]
            for name in self.data
        }

    def __call__(self, what: str, position: PyTree, data: PyTree) -> dict[str, Any]:
        function, names = self.function(what)
        found = function(*[position[name] for name in self.free], *[data[name] for name in self.data])
        return dict(zip(names, found, strict=True))


def jax_function(inputs: list[Any], outputs: list[Any], data: dict[str, Any]) -> Callable[..., Any]:
    """A graph of PyTensor as a function of JAX.

    Args:
      inputs: variables without owners.
      outputs: what is computed of them.
      data: shared variables and constants that are arguments too, after the inputs.

    Returns:
      `(*inputs, *data) -> tuple` of arrays.

    Raises:
      ValueError: an operation has no JAX version; or the graph draws random numbers.
    """
    from pytensor.compile.mode import get_mode
    from pytensor.compile.sharedvalue import SharedVariable
    from pytensor.graph.fg import FunctionGraph
    from pytensor.graph.replace import clone_replace
    from pytensor.graph.traversal import graph_inputs
    from pytensor.tensor import constant
    from pytensor.tensor.random.type import RandomType

    dispatch = _dispatch()
    replaced = {}
    for name, variable in data.items():
        value = variable.get_value() if isinstance(variable, SharedVariable) else variable.data
        # Sizes are known: a program is of data of one shape.
        replaced[variable] = variable.type.clone(shape=np.shape(value))(name)
    for variable in graph_inputs(outputs):
        if isinstance(variable, SharedVariable) and variable not in replaced:
            if isinstance(variable.type, RandomType):
                raise ValueError(
                    "the log-density of the model draws random numbers, as a simulator's or a minibatch's does: give it"
                    " distributions with a log-density"
                )
            replaced[variable] = constant(variable.get_value())
    outputs = clone_replace(outputs, replace=replaced, rebuild_strict=False)
    arguments = [*inputs, *(replaced[variable] for variable in data.values())]
    graph = FunctionGraph(inputs=arguments, outputs=outputs, clone=True)
    # Parameters out of bounds have no density, as with PyMC's own samplers; what else is asserted JAX cannot check.
    get_mode("JAX").including("local_check_parameter_to_ninf_switch", "local_remove_all_assert").optimizer.rewrite(
        graph
    )
    try:
        # Constants are made here, and would else be of single precision in a session of that.
        # Nor may they be part of a program that is being traced.
        with jax.enable_x64(True), jax.ensure_compile_time_eval(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Skipping")
            return dispatch(graph)
    except NotImplementedError as error:
        raise ValueError(
            f"PyTensor has no JAX version of an operation in the model ({error}): register one with"
            " pytensor.link.jax.dispatch.jax_funcify, or give elbojax.fit a density object that calls the model's own"
            " compiled log-density (model.logp_dlogp_function)"
        ) from error


def _dispatch() -> Any:
    """PyTensor's translation into JAX, loaded without a change of the session's precision."""
    loaded: list[Any] = []

    def load() -> None:
        before = jax.config.jax_enable_x64  # type: ignore[attr-defined]
        try:
            from pytensor.link.jax.dispatch import jax_funcify

            loaded.append(jax_funcify)
        except BaseException as error:
            loaded.append(error)
        finally:
            jax.config.update("jax_enable_x64", before)

    if "pytensor.link.jax.dispatch" in sys.modules:
        load()
    else:
        # Of a thread of its own, where the setting is that of the process, and not of a `with` block around this call.
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
    found = loaded[0]
    if isinstance(found, BaseException):
        raise found
    _register(found)
    return found


def _register(dispatch: Any) -> None:
    """The check of a covariance matrix, whose JAX version PyMC has in a module that changes JAX's devices on import."""
    import pymc.distributions.multivariate
    import pymc.logprob.utils

    places = pymc.distributions.multivariate, pymc.logprob.utils
    check = next((place.PosDefMatrix for place in places if hasattr(place, "PosDefMatrix")), None)
    if check is None or dispatch.dispatch(check) is not dispatch.dispatch(object):
        return

    @dispatch.register(check)
    def positive_definite(op, **kwargs):
        return lambda matrix: jnp.all(jnp.isfinite(linalg.each(linalg.cholesky)(matrix)))


@bijector
class PyMCSupport(Bijector):
    """A transform of PyMC as the bijector of a leaf of one shape.

    Attributes:
      maps: forward with its log-determinant, and inverse, as functions of JAX; static.
      free: shape of the unconstrained value; static.
      natural: shape in the parameter's own space; static.
      word: name of the transform; static.
    """

    maps: Any = static()
    free: Shape = static()
    natural: Shape = static()
    word: str = static()

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        """By PyMC."""
        x = as_float(x)
        y, log_det = _each(self.maps.forward, x, self.free)
        return jnp.reshape(y, self.constrained_shape(x.shape)).astype(x.dtype), jnp.sum(log_det).astype(x.dtype)

    def inverse(self, y: Array) -> Array:
        """By PyMC."""
        y = as_float(y)
        (x,) = _each(self.maps.inverse, y, self.natural)
        return jnp.reshape(x, self.unconstrained_shape(y.shape)).astype(y.dtype)

    def contains(self, y: Any) -> bool:
        """Where the way back and forth ends where it began."""
        x = jax.device_get(self.inverse(jnp.asarray(y)))
        again = jax.device_get(self.forward(jnp.asarray(x)))
        return bool(np.all(np.isfinite(x)) and np.allclose(again, y, rtol=1e-4, atol=1e-5))

    def unconstrained_shape(self, shape: Shape) -> Shape:
        """That of the model's variable, behind leading axes."""
        return (*_leading(shape, self.natural), *self.free)

    def constrained_shape(self, shape: Shape) -> Shape:
        """That of the model's variable, behind leading axes."""
        return (*_leading(shape, self.free), *self.natural)

    def __str__(self) -> str:
        return f"in the range of PyMC's transform {self.word!r}"


def _leading(shape: Shape, own: Shape) -> Shape:
    """Axes before those of a variable."""
    lead = len(shape) - len(own)
    if lead < 0 or tuple(shape[lead:]) != own:
        raise ValueError(f"the variable has shape {own}, got {tuple(shape)}")
    return tuple(shape[:lead])


def _each(function: Any, x: Array, own: Shape) -> Any:
    """A function of arrays of one shape, over leading axes."""
    for _ in _leading(x.shape, own):
        function = jax.vmap(function)
    return function(x)


class _Maps:
    """A transform in JAX; equal to itself alone."""

    def __init__(self, transform: Any, variable: Any, value: Any) -> None:
        inputs = variable.owner.inputs
        x = value.type()
        y = variable.type()
        back = transform.backward(x, *inputs)
        self.forward = jax_function([x], [back, transform.log_jac_det(x, *inputs)], {})
        self.inverse = jax_function([y], [transform.forward(y, *inputs)], {})

    @property
    def identified_by(self) -> "_Maps":
        """For the keys of compiled programs."""
        return self


MAPS: "weakref.WeakKeyDictionary[Any, _Maps]" = weakref.WeakKeyDictionary()
"""Maps by transformed value, so that a second fit of the same model finds the same bijectors."""


def _support(model: Any, variable: Any, free: Shape) -> Bijector:
    """The bijector of a free variable: one of elbojax where there is the same, else PyMC's."""
    from pymc.logprob import transforms

    transform, value = model.rvs_to_transforms[variable], model.rvs_to_values[variable]
    if transform is None:
        return bijectors.real()
    if type(transform) is transforms.LogTransform:
        return bijectors.positive()
    if type(transform) is transforms.LogOddsTransform:
        return bijectors.unit_interval()
    if type(transform) is transforms.CircularTransform:
        warnings.warn(
            f"variable {variable.name!r} is an angle, whose posterior is cut at -pi and pi: where it has mass there, write it"
            " as the direction of a vector of two normal variables",
            UserWarning,
            stacklevel=4,
        )
        return bijectors.interval(-np.pi, np.pi)
    if isinstance(transform, transforms.IntervalTransform):
        low, high = (_bound(model, variable, end) for end in transform.args_fn(*variable.owner.inputs))
        if low is None and high is None:
            return bijectors.real()
        if low is None:
            return bijectors.upper_bounded(high)
        if high is None:
            return bijectors.lower_bounded(low)
        if np.all(np.isfinite(low)) and np.all(np.isfinite(high)):
            return bijectors.interval(low, high)
    if value not in MAPS:
        _check_still(model, variable, transform.backward(value, *variable.owner.inputs))
        MAPS[value] = _Maps(transform, variable, value)
    with jax.enable_x64(True):
        natural = jax.eval_shape(MAPS[value].forward, jax.ShapeDtypeStruct(free, np.float64))[0].shape
    return PyMCSupport(MAPS[value], free, tuple(natural), getattr(transform, "name", type(transform).__name__))


def _bound(model: Any, variable: Any, end: Any) -> Any:
    """An end of an interval as numbers, or None where there is none."""
    from pytensor.graph.basic import Variable

    if end is None:
        return None
    if isinstance(end, Variable):
        _check_still(model, variable, end)
        end = _value(end)
    end = np.asarray(end, float)
    return None if np.all(np.isinf(end)) else end


def _check_still(model: Any, variable: Any, graph: Any) -> None:
    """Raise ValueError where a support depends on other variables."""
    from pytensor.graph.traversal import ancestors

    others = {each.name for each in ancestors([graph]) if each in model.basic_RVs}
    if others:
        name = variable.name
        raise ValueError(
            f"the support of variable {name!r} ({_kind(variable)}) depends on {', '.join(sorted(others))}: sample on a fixed"
            f" support and scale it, as u = pm.Uniform('u', 0, 1) and pm.Deterministic({name!r}, low + u * (high - low))"
        )


class _Density:
    """Log p(x, z); equal to another of the same program."""

    def __init__(self, program: _Program) -> None:
        self.program = program

    def __call__(self, position: PyTree, data: PyTree) -> Scalar:
        return self.program("density", position, data)["density"]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Density) and self.program is other.program

    def __hash__(self) -> int:
        return hash(self.program)


class _Quantities:
    """Log-likelihoods of observations, or deterministic quantities, by name; equal to another of the same program."""

    def __init__(self, program: _Program, what: str) -> None:
        self.program, self.what = program, what

    def __call__(self, position: PyTree, data: PyTree) -> dict[str, Any]:
        return self.program(self.what, position, data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Quantities) and (self.program, self.what) == (other.program, other.what)

    def __hash__(self) -> int:
        return hash((self.program, self.what))


class _Unconstrain(_Quantities):
    """The parameters in PyMC's own unconstrained space, by value variable."""

    def __init__(self, program: _Program) -> None:
        super().__init__(program, "unconstrained")


def _seed(key: Key) -> int:
    return int(np.ravel(jax.random.key_data(key))[-1]) % (2**31)


def _copied(model: Any, data: Any) -> Any:
    """A copy of a model with other data."""
    from pymc.model.fgraph import clone_model

    copy = clone_model(model)
    for name, variable in _shared(copy).items():
        variable.set_value(np.asarray(data[name], variable.type.dtype))
    return copy


def _drawn(model: Any, names: tuple[str, ...], key: Key, positions: PyTree) -> dict[str, np.ndarray]:
    """Variables of a model drawn anew at draws of the free ones, by PyMC's own compiled program.

    Not by `pm.sample_posterior_predictive`, which draws a parameter from its prior where it takes coords for changed.
    """
    from pymc.pytensorf import compile as compiled
    from pytensor.graph.replace import clone_replace

    free = {variable: variable.type() for variable in model.free_RVs}
    outputs = clone_replace([model[name] for name in names], replace=free, rebuild_strict=False)
    function = compiled(list(free.values()), outputs, random_seed=_seed(key), mode=MODE, on_unused_input="ignore")
    columns = [np.asarray(positions[variable.name], variable.dtype) for variable in free]
    rows = [function(*row) for row in zip(*columns, strict=True)]
    return {name: np.stack([row[at] for row in rows]) for at, name in enumerate(names)}


class _Simulate:
    """Observed variables drawn anew, all draws at once, on the host."""

    on_host = True

    def __init__(self, program: _Program, names: tuple[str, ...]) -> None:
        self.program, self.names = program, names

    def __call__(self, key: Key, positions: PyTree, data: PyTree) -> dict[str, np.ndarray]:
        return _drawn(_copied(self.program.natural, data), self.names, key, positions)


class _Elsewhere:
    """Observed variables and deterministic quantities at other data."""

    on_host = True

    def __init__(self, model: Any, names: tuple[str, ...]) -> None:
        self.model, self.names = model, names

    def __call__(self, key: Key, positions: PyTree, data: PyTree) -> dict[str, np.ndarray]:
        names = (*self.names, *(variable.name for variable in self.model.deterministics))
        return _drawn(self.model, names, key, positions)


class _Rebind:
    """Other values of `pm.Data`, with their labels where an axis has another length."""

    def __init__(self, program: _Program, names: tuple[str, ...], data: dict[str, np.ndarray]) -> None:
        self.program, self.names, self.data = program, names, data

    def __call__(self, *args: Any, coords: Any = None, **data: Any) -> Any:
        import pymc

        model = _copied(self.program.natural, self.data)
        unknown = [name for name in data if name not in _shared(model)]
        if args or unknown:
            what = f"{len(args)} positional arguments" if args else f"the argument {unknown[0]!r}"
            there = ", ".join(_shared(model)) or "none; write pm.Data('x', x) for x in the model"
            raise TypeError(
                f"predict at other data takes those of the model by name, got {what}; its pm.Data are {there}"
            )
        labels = dict(coords or {})
        for name, value in data.items():
            for axis, length in zip(model.named_vars_to_dims.get(name, ()), np.shape(value), strict=False):
                known = model.coords.get(axis)
                if axis not in labels and known is not None and len(known) != length:
                    labels[axis] = list(range(length))
        with model:
            pymc.set_data(data, coords=labels or None)
        return {}, _Elsewhere(model, self.names)


class _Prior:
    """Free, deterministic and observed variables drawn from the prior, by PyMC, on the host."""

    on_host = True

    def __init__(self, program: _Program) -> None:
        self.program = program

    def __call__(self, keys: Any, data: PyTree) -> dict[str, np.ndarray]:
        import pymc

        numbers = jax.random.key_data(keys)
        model = _copied(self.program.natural, data)
        seed = _seed(keys[-1])
        drawn = pymc.sample_prior_predictive(
            len(numbers), model=model, random_seed=seed, return_inferencedata=False, compile_kwargs={"mode": MODE}
        )
        return {name: np.asarray(values) for name, values in drawn.items()}
