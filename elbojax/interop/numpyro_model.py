"""NumPyro models: their log-density, supports, start, and what they say of data that are not yet there."""

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import bijectors
from elbojax.bijectors import Bijector
from elbojax.bijectors.base import Shape, as_float, bijector
from elbojax.calls import explained
from elbojax.families.base import static
from elbojax.interop.base import Arguments, Model, Same, split
from elbojax.loops.indices import warn_outside
from elbojax.types import Array, Key, PyTree, Scalar

NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
"""What a model raises that computes in Python with the values of its arrays, such as `len(np.unique(groups))`."""


@explained
def from_numpyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> Model:
    r"""A NumPyro model with its arguments, as a `Model` that `fit_model` takes.

    .. math:: \log p(x, z) = \textstyle\sum_{\text{sites}} \log p(\text{site} \mid \text{sites before it})

    Latent sites are the parameters, under their names and in their own space; supports come from their distributions,
    plates name the axes, deterministic sites are `derived`, observed sites are what is simulated and scored. Discrete latent
    sites are summed out where funsor is installed. Arrays among the arguments may be replaced without compiling anew.

    Args:
      model: a function with NumPyro primitives.
      *args: what it is called with, the data among them.
      **kwargs: likewise.

    Returns:
      A `Model`.

    Raises:
      ModuleNotFoundError: NumPyro is not installed, or funsor, which discrete latents want.
      TypeError: the model cannot be called so.
      ValueError: it has a site that no log-density speaks of: `param` sites, plates of a subsample, supports that depend on
        other sites; nothing is observed; or there is nothing to infer.

    Example:
      >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
      >>> def model(y):
      ...     mu = numpyro.sample("mu", dist.Normal(0, 10))
      ...     tau = numpyro.sample("tau", dist.HalfNormal(5))
      ...     numpyro.sample("y", dist.Normal(mu, tau), obs=y)
      >>> from_numpyro(model, jnp.array([1.0, 2.0]))
      Model of NumPyro: parameters mu, tau; observed y

    References:
      Phan, Pradhan, Jankowiak 2019, https://arxiv.org/abs/1912.11554
    """
    return _made(model, args, kwargs, *_split(model, args, kwargs))


def from_numpyro_batch(model: Callable[..., Any], *args: Any, **kwargs: Any) -> Model:
    """A NumPyro model of many data sets: every array among the arguments has a leading axis of models.

    Args:
      model: a function with NumPyro primitives, of one data set.
      *args: what it is called with; arrays are stacked, all else is shared.
      **kwargs: likewise.

    Returns:
      A `Model` whose data have the leading axis; all else is that of the first of them.

    Raises:
      ValueError: no argument is an array, or their leading axes differ; and as `from_numpyro`.
    """
    arguments, data = split(model, args, kwargs)
    sizes = {name: np.shape(x)[0] if np.ndim(x) else 0 for name, x in data.items()}
    if not data or len(set(sizes.values())) > 1 or 0 in sizes.values():
        raise ValueError(f"every array needs the same leading axis of models, got {sizes or 'no array'}")
    first = {name: np.asarray(x)[0] for name, x in data.items()}
    one_args, one_kwargs = arguments.join(first)
    _, dynamic = _split(model, one_args, one_kwargs)
    if not dynamic:
        raise ValueError(
            "the model computes in Python with the values of its arrays (int(x.max()), np.unique(x), `if x > 0`), which differ"
            " from data set to data set: give what it computes as arguments, sizes as Python ints"
        )
    one = _made(model, one_args, one_kwargs, *split(model, one_args, one_kwargs))
    _check_bounds(model, one, arguments, data)
    warn_outside(one.log_density, one.init, data, stacked=True)
    return dataclasses.replace(one, data=data, observed=_observed_of_each(one, arguments, data))


def _observed_of_each(one: Model, arguments: Arguments, data: dict[str, Any]) -> dict[str, Any]:
    """Data by name, with the leading axis of models."""
    program: _Program = one.log_density.program  # type: ignore[attr-defined]

    def observed(data: Any) -> dict[str, Any]:
        sites = program.sites(jax.tree.map(jnp.asarray, one.init), data)
        return {name: jnp.asarray(sites[name]["value"]) for name in program.observed}

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(observed))(data))


def _check_bounds(model: Callable[..., Any], one: Model, arguments: Arguments, data: dict[str, Any]) -> None:
    """Raise ValueError where the support of a site is another for other data."""

    def bounds(data: Any) -> dict[str, Any]:
        args, kwargs = arguments.join(data)
        sites = _handlers().trace(_started(model)).get_trace(*args, **kwargs)
        return {name: [jnp.asarray(end) for end in _bounds(sites[name])] for name in one.init}

    for name, ends in jax.jit(jax.vmap(bounds))(data).items():
        if any(np.any(end != end[:1]) for end in map(np.asarray, ends)):
            raise ValueError(
                f"the support of site {name!r} differs from data set to data set, and a batch has one support: sample on a fixed"
                f" one and scale it, as u ~ Uniform(0, 1) and numpyro.deterministic({name!r}, low + u * (high - low))"
            )


def _split(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Arguments, dict[str, Any]]:
    """The arguments taken apart; arrays among what is fixed where the model computes with their values."""
    arguments, data = split(model, args, kwargs)

    def trace(data: Any) -> None:
        args, kwargs = arguments.join(data)
        with _quiet():
            _handlers().trace(_started(model)).get_trace(*args, **kwargs)

    try:
        jax.eval_shape(trace, data)
    except NEEDS_VALUES:
        return split(model, args, kwargs, dynamic=False)
    return arguments, data


def _made(
    model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], arguments: Arguments, data: dict[str, Any]
) -> Model:
    import numpyro

    with _quiet():
        sites = numpyro.handlers.trace(_started(model)).get_trace(*args, **kwargs)
    latent, observed, discrete, derived = _sorted(sites)
    values = {name: site["value"] for name, site in (latent | discrete).items()}
    held = _of_no_parameter(model, arguments, data, values, list(observed))
    observed = {name: site for name, site in observed.items() if name not in held}
    init, support = {}, {}
    moving = _moving(model, args, kwargs, latent)
    for name, site in latent.items():
        support[name] = _support(name, site, moving)
        init[name] = _start(support[name], np.shape(site["value"]))
    shapes = tuple((name, np.shape(site["value"])) for name, site in (latent | discrete).items())
    program = _Program(Same(model), arguments, tuple(observed), tuple(derived), tuple(discrete), held, shapes)
    warn_outside(program.log_density, init, data)
    proper = not any(_is_a(site["fn"], "ImproperUniform") for site in latent.values())
    return Model(
        log_density=_LogDensity(program),
        init=init,
        support=support,
        data=data,
        simulate=_Simulate(program),
        log_likelihood=_left_one_out(program, init, data) if discrete else _LogLikelihood(program),
        derived=_Derived(program) if derived and not discrete else None,
        prior=_Prior(program) if proper else None,
        unconstrain=_Unconstrain(program),
        completed=_Completed(program) if discrete else None,
        rebind=_Rebind(program),
        observed={name: np.asarray(site["value"]) for name, site in observed.items()},
        scaled=tuple(name for name, site in observed.items() if site["scale"] is not None),
        dims=_dims(model, args, kwargs),
        library="NumPyro",
    )


def _of_no_parameter(
    model: Any, arguments: Arguments, data: dict[str, Any], values: dict[str, Any], observed: list[str]
) -> tuple[str, ...]:
    """Observed sites whose density no parameter moves: values that were conditioned on, and covariates.

    They are no data of which the posterior could be asked: drawn anew, a scale that was fixed at 0.01 would be one of its prior.
    """
    from jax.interpreters import partial_eval
    from numpyro import handlers

    def densities(position: Any, data: Any) -> list[Any]:
        args, kwargs = arguments.join(data)
        substituted = handlers.substitute(handlers.seed(model, 0), data=position)
        found = handlers.trace(substituted).get_trace(*args, **kwargs)
        return [jnp.sum(found[name]["fn"].log_prob(found[name]["value"])) for name in observed]

    def moved(number: int) -> bool:
        wanted = [number == other for other in range(len(observed))]
        return any(partial_eval.dce_jaxpr(traced.jaxpr, wanted)[1][: len(values)])

    with _quiet():
        traced = jax.make_jaxpr(densities)(values, data)
    return tuple(name for number, name in enumerate(observed) if not moved(number))


def _is_a(distribution: Any, kind: str) -> bool:
    """Whether it, or what it is an expanded, masked or independent form of, is of this name."""
    while distribution is not None:
        if type(distribution).__name__ == kind:
            return True
        distribution = getattr(distribution, "base_dist", None)
    return False


def _handlers() -> Any:
    try:
        import numpyro
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a NumPyro model needs NumPyro, and {error.name} is not installed: pip install 'elbojax[interop]'",
            name=error.name,
        ) from error
    return numpyro.handlers


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _started(model: Any) -> Any:
    """The model with values for all sites, improper ones too."""
    from numpyro import handlers
    from numpyro.infer import init_to_uniform

    return handlers.substitute(handlers.seed(model, 0), substitute_fn=init_to_uniform)


def _sorted(sites: Any) -> Any:
    """Latent, observed, discrete and deterministic sites; raises for what no log-density speaks of."""
    latent, observed, discrete, derived, scored = {}, {}, {}, {}, False
    for name, site in sites.items():
        kind = site["type"]
        if kind == "param":
            raise ValueError(
                f"site {name!r} is a numpyro.param, a number without a prior: make it a numpyro.sample site, or learn it with"
                " numpyro's SVI or elbojax.run"
            )
        if kind == "plate" and site["args"][1] not in (None, site["args"][0]):
            size, subsample = site["args"]
            raise ValueError(
                f"plate {name!r} takes a subsample of {subsample} of {size}: fit on all data without subsample_size, or give"
                " prior and likelihood to elbojax.fit_minibatches"
            )
        if kind == "deterministic":
            derived[name] = site
        if kind != "sample":
            continue
        if site["is_observed"]:
            # numpyro.factor is an observed site of a distribution without parameters.
            if type(site["fn"]).__name__ == "Unit":
                scored = True
            else:
                observed[name] = site
        elif site["fn"].support.is_discrete:
            discrete[name] = site
        else:
            latent[name] = site
            _check_latent(name, site, sites)
    if not observed and not scored:
        raise ValueError(
            "no site of the model is observed and there is no numpyro.factor, so there is nothing to learn from: pass the"
            f" data, which go to obs=; the sites are {', '.join(sites) or 'none'}"
        )
    if not latent:
        raise ValueError("the model has no continuous latent site: there is nothing to infer")
    if discrete:
        _check_enumerable(discrete)
    return latent, observed, discrete, derived


def _check_latent(name: str, site: Any, sites: Any) -> None:
    if _is_a(site["fn"], "Delta"):
        raise ValueError(f"site {name!r} is a point (Delta), not a density: make it a numpyro.deterministic site")
    base, _, last = name.rpartition("_")
    if last == "unobserved" and f"{base}_observed" in sites:
        raise ValueError(
            f"obs_mask of site {base!r} makes parameters of all its entries, and those that are observed get no density: leave"
            f" out the entries that are missing, `with numpyro.handlers.mask(mask=...): numpyro.sample({base!r}, ..., obs=...)`;"
            f" fit.predict(key)[{base!r}] draws them"
        )


def _check_enumerable(discrete: dict[str, Any]) -> None:
    name, site = next(iter(discrete.items()))
    for other, at in discrete.items():
        if not at["fn"].has_enumerate_support:
            raise ValueError(
                f"discrete latent site {other!r} ({type(at['fn']).__name__}) has no finite support to sum over: give it a"
                " distribution with an upper bound, or integrate it out by hand"
            )
    try:
        import funsor  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"latent site {name!r} is discrete ({type(site['fn']).__name__}); NumPyro sums it out with funsor, which is not"
            " installed: pip install funsor, or write the sum as a mixture (numpyro.distributions.MixtureSameFamily)",
            name="funsor",
        ) from error


@bijector
class NumPyroSupport(Bijector):
    """A NumPyro transform as the bijector of a leaf.

    Attributes:
      transform: of NumPyro; static.
    """

    transform: Any = static()

    def forward_and_log_det(self, x: Array) -> tuple[Array, Scalar]:
        """By NumPyro."""
        x = as_float(x)
        y = self.transform(x)
        return y, jnp.sum(self.transform.log_abs_det_jacobian(x, y)).astype(x.dtype)

    def inverse(self, y: Array) -> Array:
        """By NumPyro."""
        return self.transform._inverse(as_float(y))

    def contains(self, y: Any) -> bool:
        """Where the way back and forth ends where it began."""
        x = jax.device_get(self.transform._inverse(jnp.asarray(y)))
        again = jax.device_get(self.transform(jnp.asarray(x)))
        return bool(np.all(np.isfinite(x)) and np.allclose(again, y, rtol=1e-4, atol=1e-5))

    def unconstrained_shape(self, shape: Shape) -> Shape:
        """As NumPyro has it."""
        return tuple(self.transform.inverse_shape(shape))

    def constrained_shape(self, shape: Shape) -> Shape:
        """As NumPyro has it."""
        return tuple(self.transform.forward_shape(shape))

    def __str__(self) -> str:
        return f"in the range of NumPyro's {type(self.transform).__name__}"


def _support(name: str, site: Any, moving: set[str]) -> Bijector:
    """The bijector of a site: one of elbojax where there is the same, else NumPyro's."""
    from numpyro.distributions import biject_to, constraints

    support = site["fn"].support
    while hasattr(support, "base_constraint"):  # of `to_event`
        support = support.base_constraint
    plain = (
        (constraints.real, bijectors.real),
        (constraints.real_vector, bijectors.real),
        (constraints.real_matrix, bijectors.real),
        (constraints.positive, bijectors.positive),
        (constraints.softplus_positive, bijectors.positive),
        (constraints.nonnegative, bijectors.positive),
        (constraints.unit_interval, bijectors.unit_interval),
        (constraints.simplex, bijectors.simplex),
        (constraints.ordered_vector, bijectors.ordered),
        (constraints.positive_ordered_vector, bijectors.positive_ordered),
        (constraints.corr_cholesky, bijectors.correlation_cholesky),
        (constraints.lower_cholesky, bijectors.covariance_cholesky),
    )
    for constraint, make in plain:
        if support is constraint:
            return make()
    if name in moving:
        raise ValueError(
            f"the support of site {name!r} ({type(site['fn']).__name__}) depends on other sites: sample on a fixed support and"
            f" scale it, as u ~ Uniform(0, 1) and numpyro.deterministic({name!r}, low + u * (high - low))"
        )
    low, high = (getattr(support, bound, None) for bound in ("lower_bound", "upper_bound"))
    kind = type(support).__name__
    if kind in ("_Interval", "_OpenInterval"):
        return bijectors.interval(np.asarray(low), np.asarray(high))
    if kind in ("_GreaterThan", "_GreaterThanEq"):
        return bijectors.lower_bounded(np.asarray(low))
    if kind in ("_LessThan", "_LessThanEq"):
        return bijectors.upper_bounded(np.asarray(high))
    if support is constraints.circular:
        warnings.warn(
            f"site {name!r} is an angle, whose posterior is cut at -pi and pi: where it has mass there, use numpyro's"
            " CircularReparam",
            UserWarning,
            stacklevel=2,
        )
    try:
        return NumPyroSupport(biject_to(support))
    except NotImplementedError:
        raise ValueError(
            f"site {name!r} ({type(site['fn']).__name__}) has the support {support}, onto which NumPyro has no map from"
            " unconstrained numbers: parameterise it by numbers that have one"
        ) from None


def _bounds(site: Any) -> list[Any]:
    """Ends of the support of a site that are not written into it as plain numbers."""
    support = site["fn"].support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    ends = [getattr(support, bound, None) for bound in ("lower_bound", "upper_bound")]
    return [end for end in ends if end is not None and not isinstance(end, int | float)]


def _moving(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], latent: dict[str, Any]) -> set[str]:
    """Sites whose support is another where other sites have other values."""
    from numpyro import handlers
    from numpyro.infer import init_to_uniform

    if not any(_bounds(site) for site in latent.values()):
        return set()
    other = handlers.substitute(handlers.seed(model, 1), substitute_fn=init_to_uniform)
    sites = handlers.trace(other).get_trace(*args, **kwargs)
    differ = lambda name: any(  # noqa: E731
        not np.array_equal(*pair) for pair in zip(_bounds(latent[name]), _bounds(sites[name]), strict=True)
    )
    return {name for name in latent if differ(name)}


def _start(support: Bijector, shape: Shape) -> np.ndarray:
    """The middle of NumPyro's own `init_to_uniform`: zero where all is unconstrained."""
    with jax.enable_x64(True):
        return np.asarray(support.forward(jnp.zeros(support.unconstrained_shape(shape))), np.float64)


def _dims(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, list[str]]:
    """Names of axes from the plates, by ArviZ where it is installed."""
    try:
        from arviz_base.io_numpyro import infer_dims
    except ModuleNotFoundError:
        return {}
    with _quiet():
        return infer_dims(model, args, kwargs)


@dataclasses.dataclass(frozen=True)
class _Program:
    """The model with its arguments, and what of its sites is asked for.

    Attributes:
      model: as the user wrote it; compared by identity.
      arguments: all but arrays.
      observed: names.
      derived: names.
      discrete: names of latent sites that are summed out.
      held: names of observed sites that depend on no parameter.
      shapes: of latent sites, by name.
    """

    model: Same
    arguments: Arguments
    observed: tuple[str, ...]
    derived: tuple[str, ...]
    discrete: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    shapes: tuple[tuple[str, Shape], ...] = ()

    def sites(self, position: Any, data: Any, wrap: Callable[[Any], Any] = lambda model: model, key: Any = 0) -> Any:
        """The trace at a position."""
        from numpyro import handlers

        args, kwargs = self.arguments.join(data)
        substituted = handlers.substitute(wrap(self.model.it), data=position)
        return handlers.trace(handlers.seed(substituted, key)).get_trace(*args, **kwargs)

    def log_density(self, position: Any, data: Any, wrap: Callable[[Any], Any] = lambda model: model) -> Scalar:
        """Log p(x, z)."""
        from numpyro import handlers
        from numpyro.infer.util import log_density

        args, kwargs = self.arguments.join(data)
        model = handlers.seed(wrap(self.model.it), 0)
        if not self.discrete:
            return log_density(model, args, kwargs, position)[0]
        from numpyro.contrib.funsor import config_enumerate, enum
        from numpyro.contrib.funsor import log_density as summed

        first = -_deepest_plate(self.sites(position, data)) - 1
        with _quiet():
            return summed(enum(config_enumerate(model), first_available_dim=first), args, kwargs, position)[0]

    def anew(self, key: Key, position: Any, data: Any) -> Any:
        """The trace at a position with data drawn anew; observed sites that depend on no parameter are as they were."""
        if self.held:
            known = self.sites(position, data)
            position = {**position, **{name: known[name]["value"] for name in self.held}}
        return self.sites(position, data, _unconditioned(), key)

    def labels(self, key: Key, position: Any, data: Any) -> dict[str, Any]:
        """Discrete latent sites drawn given parameters and data."""
        from numpyro import handlers
        from numpyro.contrib.funsor import config_enumerate, infer_discrete

        args, kwargs = self.arguments.join(data)
        first = -_deepest_plate(self.sites(position, data)) - 1
        infer_key, key = jax.random.split(key)
        model = config_enumerate(handlers.substitute(handlers.seed(self.model.it, key), data=position))
        with _quiet():
            inferred = infer_discrete(model, first_available_dim=first, rng_key=infer_key)
            try:
                sites = handlers.trace(inferred).get_trace(*args, **kwargs)
            except (AssertionError, NotImplementedError) as error:
                raise ValueError(
                    f"NumPyro cannot draw the discrete sites {', '.join(self.discrete)} given the data, as it cannot within"
                    " numpyro.contrib.control_flow.scan: give simulate=, a function (key, position) -> data"
                ) from error
        return {name: sites[name]["value"] for name in self.discrete}


@functools.cache
def _unconditioned() -> Any:
    """`numpyro.handlers.uncondition`, but that what is drawn has the shape of what was observed, without plates too."""
    from numpyro import handlers

    class Unconditioned(handlers.uncondition):  # type: ignore[misc, name-defined]
        def process_message(self, msg: Any) -> None:
            shape = np.shape(msg["value"]) if msg["type"] == "sample" and msg["is_observed"] else None
            super().process_message(msg)
            if shape is not None and not _is_a(msg["fn"], "Unit"):
                batch = np.broadcast_shapes(shape[: len(shape) - msg["fn"].event_dim], msg["fn"].batch_shape)
                msg["fn"] = msg["fn"].expand(batch) if batch != msg["fn"].batch_shape else msg["fn"]

    return Unconditioned


def _deepest_plate(sites: Any) -> int:
    """How many axes from the right the plates take."""
    dims = [frame.dim for site in sites.values() if site["type"] == "sample" for frame in site["cond_indep_stack"]]
    return -min(dims, default=0)


@dataclasses.dataclass(frozen=True)
class _LogDensity:
    program: _Program
    indices_checked: ClassVar[bool] = True

    def __call__(self, position: PyTree, data: PyTree) -> Scalar:
        return self.program.log_density(position, data)


@dataclasses.dataclass(frozen=True)
class _LogLikelihood:
    program: _Program

    def __call__(self, position: PyTree, data: PyTree) -> dict[str, Any]:
        sites = self.program.sites(position, data)
        return {name: _log_prob(sites[name]) for name in self.program.observed}


@dataclasses.dataclass(frozen=True)
class _LeftOneOut:
    r"""The log-likelihood of each observation given the others, where discrete latent sites k are summed out.

    .. math:: \frac{p(x_{-n} \mid z)}{p(x \mid z)} = \mathrm E\left[\frac{1}{p(x_n \mid z, k)} \,\middle|\, x, z\right]
              = \frac{\partial}{\partial \varepsilon_n} \log \sum_k p(k \mid z) \prod_m (p(x_m \mid z, k) + \varepsilon_m)

    at zero: one gradient for all n. Where rows are independent given z, it is log p(x_n | z) summed over the labels; in a
    chain of labels it is what leaving an observation out asks for. Levels keep the ratios finite: over 700 nats in double
    precision.
    """

    program: _Program

    def __call__(self, position: PyTree, data: PyTree) -> dict[str, Any]:
        sites = self.program.sites(position, data)
        shapes = {name: jnp.shape(_log_prob(sites[name])) for name in self.program.observed}

        def log_density(extra: dict[str, Array]) -> tuple[Scalar, dict[str, Array]]:
            levels: dict[str, Array] = {}
            value = self.program.log_density(position, data, lambda model: _more_likely()(model, extra, levels))
            return value, levels

        slopes, levels = jax.grad(log_density, has_aux=True)({name: jnp.zeros(shape) for name, shape in shapes.items()})
        if missing := [name for name in shapes if name not in levels]:
            raise ValueError(f"{', '.join(missing)} cannot be left out one by one: of a scale, or within a scan")
        return {name: levels[name] - jnp.log(slopes[name]) for name in shapes}


def _left_one_out(program: _Program, init: dict[str, Any], data: Any) -> _LeftOneOut | None:
    """What leaves observations out one by one; None for a site with a scale, or within a `scan`."""
    one = _LeftOneOut(program)
    try:
        jax.eval_shape(one, init, data)
    except Exception:  # the log-density itself raises what there is to be said
        return None
    return one


@functools.cache
def _more_likely() -> Any:
    """A handler that adds numbers to the densities of observations, in units of `exp(level)`; it notes the levels."""
    from numpyro import distributions
    from numpyro.primitives import Messenger

    class Plus(distributions.Distribution):  # type: ignore[misc, name-defined]
        def __init__(self, base: Any, extra: Array, levels: dict[str, Array], name: str) -> None:
            self.base, self.extra, self.levels, self.name = base, extra, levels, name
            super().__init__(base.batch_shape, base.event_shape)

        @property
        def support(self) -> Any:
            return self.base.support

        def log_prob(self, value: Any, *intermediates: Any) -> Array:
            found = self.base.log_prob(value, *intermediates)
            # Axes of labels stand before those of the observations.
            labels = tuple(range(found.ndim - self.extra.ndim))
            among = jnp.max(found, axis=labels, keepdims=True)
            level = jax.lax.stop_gradient(jnp.broadcast_to(among[(0,) * len(labels)], self.extra.shape))
            self.levels[self.name] = level
            return found + jnp.log1p(self.extra * jnp.exp(level - jax.lax.stop_gradient(found)))

    class MoreLikely(Messenger):  # type: ignore[misc]
        def __init__(self, fn: Any, extra: dict[str, Array], levels: dict[str, Array]) -> None:
            super().__init__(fn)
            self.extra, self.levels = extra, levels

        def process_message(self, msg: Any) -> None:
            if msg["type"] == "sample" and msg["is_observed"] and msg["name"] in self.extra and msg["scale"] is None:
                msg["fn"] = Plus(msg["fn"], self.extra[msg["name"]], self.levels, msg["name"])

    return MoreLikely


def _log_prob(site: Any) -> Array:
    """Log-densities of an observed site, one for each observation; those that are masked count nothing, as in the model."""
    return (
        site["fn"].log_prob(site["value"])
        if site["scale"] is None
        else site["scale"] * site["fn"].log_prob(site["value"])
    )


@dataclasses.dataclass(frozen=True)
class _Unconstrain:
    """The parameters in NumPyro's own unconstrained space, by site."""

    program: _Program

    def __call__(self, position: PyTree, data: PyTree) -> dict[str, Any]:
        from numpyro.distributions import biject_to

        sites = self.program.sites(position, data)
        return {name: biject_to(sites[name]["fn"].support).inv(value) for name, value in position.items()}


@dataclasses.dataclass(frozen=True)
class _Derived:
    program: _Program

    def __call__(self, position: PyTree, data: PyTree) -> dict[str, Any]:
        sites = self.program.sites(position, data)
        return {name: sites[name]["value"] for name in self.program.derived}


@dataclasses.dataclass(frozen=True)
class _Completed:
    program: _Program

    def __call__(self, key: Key, position: PyTree, data: PyTree) -> dict[str, Any]:
        return {**position, **self.program.labels(key, position, data)}


@dataclasses.dataclass(frozen=True)
class _Simulate:
    program: _Program

    def __call__(self, key: Key, position: PyTree, data: PyTree) -> dict[str, Any]:
        sites = self.program.anew(key, position, data)
        names = [name for name in self.program.observed if name in sites]
        return {name: sites[name]["value"] for name in names}


@dataclasses.dataclass(frozen=True)
class _Prior:
    program: _Program

    def __call__(self, key: Key, data: PyTree) -> dict[str, Any]:
        held = dataclasses.replace(self.program, shapes=())
        known = _started_sites(held, data) if held.held else {}
        sites = held.anew(key, {name: known[name]["value"] for name in held.held}, data)
        return {
            name: site["value"] for name, site in sites.items() if name not in self.program.held and _is_variable(site)
        }


def _is_variable(site: Any) -> bool:
    return site["type"] == "deterministic" or (site["type"] == "sample" and type(site["fn"]).__name__ != "Unit")


def _started_sites(program: _Program, data: Any) -> Any:
    args, kwargs = program.arguments.join(data)
    return _handlers().trace(_started(program.model.it)).get_trace(*args, **kwargs)


@dataclasses.dataclass(frozen=True)
class _Elsewhere:
    """All that is not known at other arguments: observed sites whose data are None, and all of them where none is.

    Attributes:
      program: at these arguments.
      anew: whether no data are None.
      dropped: discrete sites of other shapes there.
    """

    program: _Program
    anew: bool
    dropped: tuple[str, ...]

    def __call__(self, key: Key, position: PyTree, data: PyTree) -> dict[str, Any]:
        position = {name: value for name, value in position.items() if name not in self.dropped}
        draw = self.program.anew if self.anew else self._given
        return {
            name: site["value"]
            for name, site in draw(key, position, data).items()
            if _is_variable(site)
            and name not in position
            and name not in self.program.held
            and not site.get("is_observed", False)
        }

    def _given(self, key: Key, position: PyTree, data: PyTree) -> Any:
        return self.program.sites(position, data, key=key)


@dataclasses.dataclass(frozen=True)
class _Rebind:
    program: _Program

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        model = self.program.model.it
        arguments, data = _split(model, args, kwargs)
        there = dataclasses.replace(self.program, arguments=arguments)
        with _quiet():
            sites = _started_sites(there, data)
        dropped = []
        for name, shape in there.shapes:
            now = np.shape(sites[name]["value"]) if name in sites else shape
            if now != shape and name in there.discrete:
                dropped.append(name)
            elif now != shape:
                raise ValueError(
                    f"site {name!r} has shape {shape} in the fit and {now} at these arguments: what was learnt of each of its"
                    " entries cannot be told of others; keep its size as it was, or draw new entries by simulate=, a function"
                    " (key, position) -> data"
                )
        given = tuple(
            name
            for name, site in sites.items()
            if site["type"] == "sample" and site["is_observed"] and _is_variable(site)
        )
        values = {name: sites[name]["value"] for name, _ in there.shapes if name in sites}
        held = _of_no_parameter(model, arguments, data, values, list(given))
        anew = not any(name in sites and name not in given for name in there.observed)
        there = dataclasses.replace(there, held=held, observed=tuple(name for name in given if name not in held))
        warn_outside(lambda position, data: _numbers(there.sites(position, data)), values, data)
        return data, _Elsewhere(there, anew, tuple(dropped))


def _numbers(sites: Any) -> list[Any]:
    """All that a trace says, for whoever looks at how it is computed."""
    scored = [site for site in sites.values() if site["type"] == "sample"]
    return [*(site["value"] for site in scored), *(site["fn"].log_prob(site["value"]) for site in scored)]
