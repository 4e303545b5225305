"""What one fit and many have in common: draws, moments, trees for ArviZ and files."""

import abc
import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import structures
from elbojax.families import Family, static
from elbojax.inputs import check_count, check_key
from elbojax.interop import arviz
from elbojax.interop.base import Model
from elbojax.loops.strict import relaxed
from elbojax.results import misnamed, space, storage
from elbojax.results.certificate import Certificate, Stage
from elbojax.results.resolution import doubled, handed, holds, is_traced, narrowed
from elbojax.targets import Target
from elbojax.types import Array, Key, PyTree, Status

LEAST = 4
"""Draws of a tree for ArviZ, at least: fewer it does not look at."""

P = TypeVar("P", bound="type[Posterior]")
KINDS: dict[int, Any] = {}
"""Axes of the log-weights -> the class whose objects have so many."""


@dataclasses.dataclass(frozen=True, eq=False)
class Posterior(abc.ABC):
    """Weighted draws with their certificate, of one model (`Fit`) or of many (`Fits`)."""

    q: Family
    certificate: Certificate
    draws: Array
    log_weights: Array
    target: Target = static()
    note: str = static(default="")
    moments: tuple[PyTree, PyTree] | None = None
    model: Model | None = static(default=None)
    chains: int = static(default=1)

    batched: ClassVar[bool]
    """Whether this holds many models."""

    def __post_init__(self) -> None:
        """Raise where the axes are those of the other class; what has none is a placeholder of JAX's."""
        kind = KINDS.get(getattr(self.log_weights, "ndim", -1))
        if kind is not None and not isinstance(self, kind):
            raise ValueError(
                f"log_weights of Fit are [S], of one model, and those of Fits [M, S]: got shape"
                f" {self.log_weights.shape} for {type(self).__name__}; make a {kind.__name__} of them"
            )

    @relaxed
    def sample(self, key: Key, num_samples: int) -> PyTree:
        """Draws of the posterior in the user's space.

        Importance-corrected: picked by weight, in random order, from the draws of the check, without repeats as far
        as the weights allow. A fit holds some thousand draws (4,096 where importance weights answered, 512 of each
        model of a batch), of which `num_distinct` differ and have weight: beyond that number draws are repeated, not
        new, and means of them are no better. What a mean of draws is worth is `certificate.ess` draws at most, however
        many are asked for. Where k-hat says that the weights cannot be trusted they are still the best there is; the
        certificate says so.

        Args:
          key: consumed.
          num_samples: static; any number, repeats included.

        Returns:
          Pytree like `init`, leading axis num_samples; for a batch [M, num_samples, ...].

        Raises:
          ValueError: `num_samples` is below 1.
        """
        check_key(key)
        check_count("num_samples", num_samples)
        if is_traced(key, self):
            self._warn_if_narrowed()
            draws, log_weights = narrowed((self.draws, self.log_weights))
            return self._resampled(key, draws, log_weights, num_samples)
        with jax.enable_x64(True):
            values = doubled(self._resampled(key, self.draws, self.log_weights, num_samples))
        return handed(values, *self._exact)

    @abc.abstractmethod
    def _resampled(self, key: Key, draws: Array, log_weights: Array, num_samples: int) -> PyTree:
        """Draws picked by weight, in the user's space."""

    @relaxed
    def mean(self) -> PyTree:
        """Posterior means, a pytree like `init`; NaN for a number that has none, such as a Cauchy variate."""
        return self._exact[0] if is_traced(self) else handed(self._exact[0], *self._exact)

    @relaxed
    def sd(self) -> PyTree:
        """Posterior standard deviations, a pytree like `init`; NaN for a number that has none: `summary` has its quantiles."""
        return self._exact[1] if is_traced(self) else handed(self._exact[1], *self._exact)

    @functools.cached_property
    @relaxed
    def _exact(self) -> tuple[PyTree, PyTree]:
        """Means and sds in double precision."""
        if is_traced(self):
            return self.moments or self._moments_compiled()
        if self.moments is not None:
            return doubled(self.moments)
        with space.on_host():
            return self._moments_on_host()

    @abc.abstractmethod
    def _moments_compiled(self) -> tuple[PyTree, PyTree]:
        """Means and sds as a part of a user's program."""

    @abc.abstractmethod
    def _moments_on_host(self) -> tuple[PyTree, PyTree]:
        """Means and sds in double precision, as NumPy arrays."""

    def _warn_if_narrowed(self) -> None:
        """Under `jit` and `vmap` there is but the session's precision."""
        dtype = jnp.result_type(float)
        if is_traced(self) or all(holds(dtype, *pair) for pair in zip(*map(jax.tree.leaves, self._exact), strict=True)):
            return
        warnings.warn(
            f"{dtype} cannot hold mean and sd of this fit together, and draws under jit or vmap are of the session's"
            " dtype: call sample outside, or set jax_enable_x64",
            RuntimeWarning,
            stacklevel=3,
        )

    @property
    @abc.abstractmethod
    def num_distinct(self) -> Any:
        """How many different draws are held that have weight. `sample` of more repeats some."""

    @abc.abstractmethod
    def summary(self) -> Any:
        """A table to print, whose entries are its fields."""

    @relaxed
    def to_arviz(
        self,
        num_samples: int | None = None,
        *,
        dims: Mapping[str, Sequence[str]] | None = None,
        coords: Mapping[str, Any] | None = None,
        log_likelihood: Callable[[PyTree], dict[str, Any]] | None = None,
        simulate: Callable[[Key, PyTree], dict[str, Any]] | None = None,
        observed: dict[str, Any] | None = None,
    ) -> Any:
        """The posterior as an ArviZ `DataTree`, with groups `posterior` and `certificate`, and what is known of data.

        A fit of `fit_model` knows all that follows the asterisk: its tree has the deterministic quantities among the
        posterior, the groups `log_likelihood`, `posterior_predictive`, `observed_data` and, of PyMC's `pm.Data`,
        `constant_data`, and axes named by plates.

        Draws are picked by weight from those of the check, the same on every call, and make one chain; where NUTS
        answered one model they are its chains as they ran, so that ArviZ can look at their mixing. ArviZ takes every
        draw for one of weight one and knows of no repeats, so that its effective sample sizes and Monte Carlo errors
        are right only for as many draws as the weights are worth: that many there are by default, of a batch as many
        as those of its certified model that has fewest. The tree's attributes `effective_draws` and `distinct_draws`
        say how many count where more are asked for.

        Args:
          num_samples: draws of each model; by default the effective ones, `certificate.ess`, but no fewer than 4.
          dims: name of a variable -> names of its axes, such as {"theta": ["school"]}.
          coords: name of an axis -> labels along it, such as {"school": ["Choate", "Deerfield"]}.
          log_likelihood: `(position) -> dict`, log p(x_n | z) of each observation by name, for ArviZ's `loo`.
          simulate: `(key, position) -> dict`, data drawn anew by name, for its predictive checks.
          observed: data by the same names.

        Returns:
          An `xarray.DataTree`, or an `InferenceData` where an ArviZ before 1.0 is installed: dimensions chain and draw,
          then model for a batch, then those of the variable. Codes of status and stage are variables of the group
          `certificate`, their names its attributes.

        Raises:
          ModuleNotFoundError: the `interop` extra is not installed.
          ValueError: `num_samples` is below 1; `dims` or `coords` do not fit; what is known of data is given for a batch.
        """
        c = self.certificate
        attributes = {
            "inference_library": "elbojax",
            "note": self.note,
            "effective_draws": np.asarray(c.ess, float),
            "distinct_draws": np.asarray(self.num_distinct),
        }
        codes = {"status": Status, "stage": Stage}
        chains = self._chains(num_samples)
        chains, groups = self._known_of_data(chains, log_likelihood, simulate, observed)
        return arviz.to_arviz(
            chains,
            c._asdict(),
            codes=codes,
            batched=self.batched,
            attributes=attributes,
            groups=groups,
            dims={**self._named_axes(chains, groups), **(dims or {})},
            coords={**(self.model.coords if self.model else {}), **(coords or {})},
        )

    def _named_axes(self, chains: PyTree, groups: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """The model's names of axes, of variables that there are."""
        held = {name for group in groups.values() for name in group} | (
            set(chains) if isinstance(chains, dict) else set()
        )
        return {name: axes for name, axes in (self.model.dims if self.model else {}).items() if name in held}

    @abc.abstractmethod
    def _known_of_data(
        self, chains: PyTree, log_likelihood: Any, simulate: Any, observed: Any
    ) -> tuple[PyTree, dict[str, dict[str, Any]]]:
        """The draws with what follows from them, and further groups of an ArviZ tree."""

    @abc.abstractmethod
    def _chains(self, num_samples: int | None) -> PyTree:
        """Draws as ArviZ has them: leaves [C, S, ...], or [C, S, M, ...] of many models."""

    def _worth(self) -> Any:
        """How many draws of equal weight those of each model are worth."""
        with np.errstate(over="ignore", invalid="ignore"):
            worth = 1 / np.sum(np.exp(2 * np.asarray(self.log_weights, float)), axis=-1)
        return np.nan_to_num(np.minimum(worth, np.asarray(self.certificate.ess, float)))

    def _num_effective(self, worth: Any) -> int:
        """So many, but no fewer than ArviZ looks at and no more than are held."""
        return int(np.clip(worth, LEAST, self.draws.shape[-2]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a file, from which `elbojax.load` makes the same fit; no pickle.

        A crash on the way leaves what stood there. The log-density itself is not held, for it is code.

        Args:
          path: of the file; .npz by custom.

        Raises:
          TypeError: `q` is of a family that is not one of elbojax.
        """
        contents = {
            "space": described(self.target),
            "q": self.q,
            "certificate": {name: np.asarray(value) for name, value in self.certificate._asdict().items()},
            "draws": self.draws,
            "log_weights": self.log_weights,
            "note": self.note,
            **({"chains": self.chains} if self.chains != 1 else {}),
            "moments": None if self.moments is None else [jax.tree.leaves(part) for part in self.moments],
        }
        storage.write(path, contents)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """From a pickle or a copy; a pickle of another version may lack something, or have what there is no more."""
        fields = {field.name: field for field in dataclasses.fields(self)}
        lacking = [name for name in fields if name not in state and fields[name].default is dataclasses.MISSING]
        strange = [name for name in state if name not in fields and not name.startswith("_")]
        if lacking or strange:
            what = f"it lacks {', '.join(lacking)}" if lacking else f"it has {', '.join(strange)}"
            raise ValueError(
                f"this pickle of a {type(self).__name__} is of another version of elbojax than {storage.version()}: {what}."
                " Fit again; files of fit.save, which elbojax.load reads, are for keeping"
            )
        self.__dict__.update(state)

    def __bool__(self) -> bool:
        """True, whatever came of it."""
        return True

    if not TYPE_CHECKING:  # to a type checker a class with this has any name

        def __getattr__(self, name: str) -> Any:
            """An error that says what may have been meant."""
            if hasattr(type(self), name):  # a property which itself raised: that error is the one to see
                return object.__getattribute__(self, name)
            words = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name.startswith("_"):
                raise AttributeError(words)
            if hasattr(KINDS[1], name):
                raise AttributeError(f"{words}; one model has it: fits[i].{name}")
            names = [other for other in dir(type(self)) if not other.startswith("_")]
            raise AttributeError(words + misnamed.hint(name, names, Certificate._fields))


def axes(number: int) -> Callable[[P], P]:
    """Class decorator: registered as a pytree, whose objects have log-weights of so many axes.

    Where a transformation of JAX gives a model of its own to each call of a function (`vmap`, `lax.map`), or stacks what
    many calls return, the object that comes out is of the class that its arrays are of: `vmap` over `Fits` gives the
    function a `Fit`.

    Args:
      number: of the axes.

    Returns:
      A decorator of dataclasses.
    """

    def register(cls: P) -> P:
        KINDS[number] = cls
        return structures.register(
            cls, lambda **parts: KINDS.get(getattr(parts["log_weights"], "ndim", -1), cls)(**parts)
        )

    return register


def described(target: Target) -> dict[str, Any]:
    """The user's space, as a file holds it."""
    like = space.shapes(target)
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    found = {
        "tree": _stored(jax.tree.unflatten(structure, range(len(leaves)))),
        "paths": [jax.tree_util.keystr(path) for path, _ in leaves],
        "shapes": [leaf.shape for _, leaf in leaves],
        "supports": [_stored(bijector) for bijector in target.supports],
        "shown": [str(bijector) for bijector in target.supports],
    }
    if target.constrain.space.labels is not None:  # type: ignore[attr-defined]
        found["labels"] = list(target.constrain.space.labels)  # type: ignore[attr-defined]
    return found


def _stored(value: Any) -> Any:
    """The value, or None where a file cannot hold it."""
    try:
        storage.encode(value, [])
    except TypeError:
        return None
    return value
