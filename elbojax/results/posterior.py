"""What `fit` and `fit_batch` give back: a posterior in the user's own space, with its certificate."""

import contextlib
import functools
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds, xla
from elbojax.families import Family, FullRank, family, static
from elbojax.interop import arviz
from elbojax.loops.strict import relaxed
from elbojax.results import positions as host
from elbojax.results import storage, tails
from elbojax.results.certificate import Certificate, Stage, report
from elbojax.results.notes import LABELS, START
from elbojax.results.resolution import doubled, handed, holds, is_traced, narrowed
from elbojax.results.seconds import Seconds
from elbojax.results.summary import BatchSummary, PosteriorSummary, digits, of_batch, of_posterior
from elbojax.targets import Target
from elbojax.types import Array, Key, PyTree, Status
from elbojax.weights import pick
from elbojax.workarounds.transfers import on_device

LEAST = 4
"""Draws of a tree for ArviZ, at least: fewer it does not look at."""


@family
class Fit:
    """A fitted posterior; after `fit_batch` every array has a leading axis M, and `fits[i]` is one of them.

    Draws, weights, moments and certificate are held in double precision, as NumPy arrays, whatever the session's
    setting. `mean`, `sd` and `sample` give arrays of the session's dtype; a leaf that single precision cannot hold
    (1.7e9 +- 4, whose spacing of floats is 128; or numbers out of its range) stays a NumPy array in double precision,
    and takes part in JAX's computations under `jax.enable_x64(True)`.

    A fit is true, as any object is, whatever came of it: `fit or default` is `fit`; `fit.certificate.certified` says
    whether it can be used. A model whose log-density is nowhere finite (status NON_FINITE) has NaN for means, sds,
    draws and `q`.

    Attributes:
      q: the `Family` found, on flat unconstrained vectors; of the session's dtype, or NumPy arrays in double precision
        where that cannot hold them.
      certificate: what it is worth; `certificate.certified` says whether means and sds can be used.
      draws: [S, D] flat draws that the check took.
      log_weights: [S] that turn them into draws of the posterior.
      target: from flat vectors to the user's space.
      note: what to do next, where the fit failed and more is known than the status says; of an answer to a posterior
        with several labellings (exchangeable components, a free sign), whether it describes one of them or several; of a
        batch, the numbers of such models and of those that began from another start, which its parts keep as they are.
      moments: means and sds in the user's space, of a batch, which keeps them from more draws than it holds.
    """

    q: Family
    certificate: Certificate
    draws: Array
    log_weights: Array
    target: Target = static()
    note: str = static(default="")
    moments: tuple[PyTree, PyTree] | None = None

    @property
    def seconds(self) -> Seconds | None:
        """Where the time of one fit went, `Seconds`; None of a batch, and of a fit from a file."""
        return self.__dict__.get("_seconds")

    @property
    def batched(self) -> bool:
        """Whether this holds many models."""
        return jnp.ndim(self.log_weights) == 2

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
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        keys = jax.random.split(key, self.log_weights.shape[0]) if self.batched else key
        if is_traced(key, self):
            self._warn_if_narrowed()
            return _sample(keys, *narrowed((self.draws, self.log_weights)), self.target, num_samples)
        with jax.enable_x64(True):
            values = doubled(_sample(keys, self.draws, self.log_weights, self.target, num_samples))
        return handed(values, *self._exact)

    @property
    def num_distinct(self) -> int | np.ndarray:
        """How many different draws are held that have weight; [M] of a batch. `sample` of more repeats some."""
        draws, weights = np.asarray(self.draws), np.exp(np.asarray(self.log_weights))
        count = lambda x, w: len(np.unique(x[w > 0], axis=0))  # noqa: E731
        return (
            np.array([count(*pair) for pair in zip(draws, weights, strict=True)])
            if self.batched
            else count(draws, weights)
        )

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
            return self.moments or moments(self.draws, self.log_weights, self.target)
        if self.moments is not None:
            return doubled(self.moments)
        with _on_host():
            if self.batched:
                return doubled(moments(self.draws, self.log_weights, self.target))
            return host.moments(self.target, np.asarray(self.draws), np.asarray(self.log_weights))

    @relaxed
    def _positions(self) -> PyTree:
        """The draws of one fit in the user's space, in double precision."""
        with _on_host():
            return host.positions(self.target, np.asarray(self.draws))

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

    @relaxed
    def summary(self) -> PosteriorSummary | BatchSummary:
        """A table to print, whose entries are its fields.

        Returns:
          Of one fit, mean, sd and quantiles of each number of the user's pytree. Of a batch, counts of statuses and
          stages, quantiles over models of each field of the certificate, and the models to look at first.
        """
        if self.batched:
            return of_batch(self.certificate)
        values = _rows(self._positions(), len(self.draws))
        mean, sd = (_rows(part, 1)[0] for part in self._exact)
        weights = np.exp(np.asarray(self.log_weights))
        return of_posterior(tuple(_names(self.target)), mean, sd, values, weights, self.certificate)

    @relaxed
    def to_arviz(self, num_samples: int | None = None) -> Any:
        """The posterior as an ArviZ `DataTree`, with groups `posterior` and `certificate`.

        Draws are picked by weight from those of the check, the same on every call, and make one chain; where NUTS
        answered one model they are its chains as they ran, so that ArviZ can look at their mixing. ArviZ takes every
        draw for one of weight one and knows of no repeats, so that its effective sample sizes and Monte Carlo errors
        are right only for as many draws as the weights are worth: that many there are by default, of a batch as many
        as those of its certified model that has fewest. The tree's attributes `effective_draws` and `distinct_draws`
        say how many count where more are asked for.

        Args:
          num_samples: draws of each model; by default the effective ones, `certificate.ess`, but no fewer than 4.

        Returns:
          An `xarray.DataTree`: dimensions chain and draw, then model for a batch, then those of the variable. Codes of
          status and stage are variables of the group `certificate`, their names its attributes.

        Raises:
          ModuleNotFoundError: the `interop` extra is not installed.
          ValueError: `num_samples` is below 1.
        """
        c, num_chains = self.certificate, self._num_chains()
        if num_samples is None and num_chains > 1:
            chains = handed(self._positions(), *self._exact)
            draws = jax.tree.map(lambda x: x.reshape(num_chains, -1, *x.shape[1:]), chains)
        else:
            size = self._num_effective() if num_samples is None else num_samples
            models_first = self.sample(jax.random.key(0), size)
            draws = jax.tree.map(
                lambda x: (np.swapaxes(x, 0, 1) if self.batched else np.asarray(x))[None], models_first
            )
        attributes = {
            "inference_library": "elbojax",
            "note": self.note,
            "effective_draws": np.asarray(c.ess, float),
            "distinct_draws": np.asarray(self.num_distinct),
        }
        codes = {"status": Status, "stage": Stage}
        return arviz.to_arviz(draws, c._asdict(), codes=codes, batched=self.batched, attributes=attributes)

    def _num_effective(self) -> int:
        """Draws of equal weight that those held are worth; of a batch those of its certified models, the fewest."""
        with np.errstate(over="ignore", invalid="ignore"):
            worth = 1 / np.sum(np.exp(2 * np.asarray(self.log_weights, float)), axis=-1)
        worth = np.nan_to_num(np.minimum(worth, np.asarray(self.certificate.ess, float)))
        certified = np.asarray(self.certificate.certified)
        counted = worth[certified] if self.batched and certified.any() else worth
        return int(np.clip(np.min(counted), LEAST, self.draws.shape[-2]))

    def _num_chains(self) -> int:
        """How many chains of one length, one after the other, the draws are."""
        if self.batched or int(self.certificate.stage) != Stage.NUTS:
            return 1
        return thresholds.NUTS_CHAINS if len(self.draws) % thresholds.NUTS_CHAINS == 0 else 1

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a file, from which `elbojax.load` makes the same fit; no pickle.

        A crash on the way leaves what stood there. The log-density itself is not held, for it is code.

        Args:
          path: of the file; .npz by custom.

        Raises:
          TypeError: `q` is of a family that is not one of elbojax.
        """
        like = _like(self.target)
        leaves, structure = jax.tree_util.tree_flatten_with_path(like)
        space = {
            "tree": _stored(jax.tree.unflatten(structure, range(len(leaves)))),
            "paths": [jax.tree_util.keystr(path) for path, _ in leaves],
            "shapes": [leaf.shape for _, leaf in leaves],
            "supports": [_stored(bijector) for bijector in self.target.supports],
            "shown": [str(bijector) for bijector in self.target.supports],
        }
        if self.target.constrain.space.labels is not None:  # type: ignore[attr-defined]
            space["labels"] = list(self.target.constrain.space.labels)  # type: ignore[attr-defined]
        contents = {
            "space": space,
            "q": self.q,
            "certificate": {name: np.asarray(value) for name, value in self.certificate._asdict().items()},
            "draws": self.draws,
            "log_weights": self.log_weights,
            "note": self.note,
            "moments": None if self.moments is None else [jax.tree.leaves(part) for part in self.moments],
        }
        storage.write(path, contents)

    def __bool__(self) -> bool:
        """True, of a fit and of a batch alike."""
        return True

    def __len__(self) -> int:
        """M, of a batch."""
        if not self.batched:
            raise TypeError("one fit has no length; fits of fit_batch have")
        return self.log_weights.shape[0]

    def __getitem__(self, index: Any) -> "Fit":
        """One model of a batch; or several, still a batch, by a slice, a list or a mask."""
        if not self.batched:
            raise TypeError("one fit cannot be indexed; fits of fit_batch can")
        try:
            models = np.arange(len(self))[np.asarray(index) if isinstance(index, jax.Array) else index]
        except IndexError as error:
            raise IndexError(f"model {index} of {len(self)}: {error}") from None
        some = jax.tree.map(lambda x: x[models], self)
        return some if np.ndim(models) else some.settled()

    def settled(self) -> "Fit":
        """The same fit, with the certificate's codes as enums that print their names."""
        c = self.certificate
        named = c._replace(
            certified=bool(c.certified), status=Status(int(c.status)), stage=Stage(int(c.stage)), modes=int(c.modes)
        )
        return Fit(self.q, named, self.draws, self.log_weights, self.target, self.note, self.moments)

    def timed(self, seconds: Seconds) -> "Fit":
        """The same fit, which tells where its time went: no part of what it is, and lost where it is taken apart."""
        object.__setattr__(self, "_seconds", seconds)
        return self

    def __str__(self) -> str:
        """The report of one fit; of a batch, how many are certified."""
        if not self.batched:
            return report(self.certificate, self._title(), self.note)
        certified = np.asarray(self.certificate.certified)
        parts = self.note.split("\n") if self.note else []
        note = "".join(f"\n  {part.removeprefix(START).removeprefix(LABELS)}" for part in parts)
        return f"{certified.size:,} fits, {certified.sum():,} certified{note}"

    def _has_draws(self) -> bool:
        """Whether there is anything to take quantiles of."""
        return bool(np.isfinite(self.draws).all())

    def _title(self) -> str:
        """The numbers, mean ± sd; of those that have none, what they have and the quantiles."""
        lines = [f"posterior of {self.target.size} parameters"]
        mean, sd = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(part)]) for part in self._exact)
        names = _names(self.target)
        shown = min(len(mean), 12)
        lacking = np.isnan(sd) & self._has_draws()
        table: Any = self.summary() if lacking[:shown].any() else None
        for number, (name, m, s) in enumerate(list(zip(names, mean, sd, strict=False))[:shown]):
            if not lacking[number]:
                lines.append(f"  {name:<13} {m:12.{digits(m, s)}g} ± {s:.3g}")
                continue
            low, median, high = table.quantiles[number]
            none = "no finite mean or sd found" if np.isnan(m) else f"mean {m:.4g}, no finite sd found"
            lines.append(f"  {name:<13} {median:12.4g} median, 90 % from {low:.4g} to {high:.4g}; {none}")
        if len(mean) > shown:
            lines.append(f"  ... and {len(mean) - shown} more")
        return "\n".join(lines)


@contextlib.contextmanager
def _on_host() -> Iterator[None]:
    """Double precision, also where a user's `jit` is at work; what overflows is looked for."""
    # Only where it is needed, for programs compiled within are others than those without.
    tracing = isinstance(jnp.zeros(()), jax.core.Tracer)
    eager = jax.ensure_compile_time_eval() if tracing else contextlib.nullcontext()
    with eager, jax.enable_x64(True), np.errstate(all="ignore"):
        yield


def _like(target: Target) -> PyTree:
    """The shapes of the user's pytree."""
    return jax.eval_shape(target.constrain, jax.ShapeDtypeStruct((target.size,), jnp.result_type(float)))


def _stored(value: Any) -> Any:
    """The value, or None where a file cannot hold it."""
    try:
        storage.encode(value, [])
    except TypeError:
        return None
    return value


def _rows(tree: PyTree, count: int) -> np.ndarray:
    """[count, P] the numbers of the user's pytree side by side, from leaves that hold `count` of each."""
    return np.concatenate([np.reshape(leaf, (count, -1)) for leaf in jax.tree.leaves(tree)], axis=1)


def _names(target: Target) -> list[str]:
    """One name per number of the user's pytree."""
    labels = getattr(getattr(target.constrain, "space", None), "labels", None)
    if labels is not None:
        return list(labels)
    names = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(_like(target))[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "z"
        index = [f"[{','.join(map(str, i))}]" for i in np.ndindex(leaf.shape)] if leaf.shape else [""]
        names += [name + i for i in index]
    return names


def handed_over(
    q: Any,
    certificate: Certificate,
    draws: Any,
    log_weights: Any,
    target: Target,
    note: str = "",
    moments: tuple[PyTree, PyTree] | None = None,
) -> Fit:
    """A `Fit` of what a cascade has found, in double precision; called in the session's own precision.

    Args:
      q: the `Family` found.
      certificate: of one fit, or of M.
      draws: [S, D], or [M, S, D] of a batch.
      log_weights: [S] or [M, S].
      target: from flat vectors to the user's space.
      note: what to do next.
      moments: means and sds in the user's space, of a batch.

    Returns:
      A `Fit`, with NaN for whatever is said of a model of status NON_FINITE.
    """
    q, certificate, draws, log_weights, moments = doubled((q, certificate, draws, log_weights, moments))
    lost = np.asarray(certificate.status) == Status.NON_FINITE
    if np.any(lost):
        none = lambda x: np.where(np.reshape(lost, np.shape(lost) + (1,) * (np.ndim(x) - np.ndim(lost))), np.nan, x)  # noqa: E731
        q = jax.tree.map(lambda x: none(x) if np.asarray(x).dtype.kind == "f" else x, q)
        draws, moments = none(draws), jax.tree.map(none, moments)
        log_weights = np.where(lost[..., None], -np.log(log_weights.shape[-1]), log_weights)
    return Fit(handed_q(q, draws, log_weights), certificate, draws, log_weights, target, note, moments)


def handed_q(q: Any, draws: Any, log_weights: Any) -> Family:
    """A family of the session's dtype, or in double precision where that cannot hold its location and scale together.

    Args:
      q: of NumPy arrays in double precision.
      draws: [S, D], or [M, S, D] of a batch.
      log_weights: [S] or [M, S].

    Returns:
      The `Family`.
    """
    if isinstance(q, FullRank):
        loc = q.loc
        with np.errstate(over="ignore", invalid="ignore"):
            sd = np.sqrt(np.exp(2 * q.log_diagonal) + np.sum(np.tril(q.lower, -1) ** 2, axis=-1))
    else:
        weights = np.exp(log_weights)[..., None, :]
        loc = (weights @ draws)[..., 0, :]
        sd = np.sqrt((weights @ (draws - loc[..., None, :]) ** 2)[..., 0, :])
    dtype = jnp.result_type(float)
    if not all(holds(dtype, loc, sd, x) for x in jax.tree.leaves(q) if np.asarray(x).dtype == np.float64):
        return q
    narrow = lambda x: np.asarray(x, dtype) if np.asarray(x).dtype == np.float64 else x  # noqa: E731
    return jax.tree.map(lambda x: on_device(narrow(x)), q)


def joined(fits: Sequence[Fit], places: Any, note: str = "") -> Fit:
    """The models of several batches as one.

    Args:
      fits: batches of one target.
      places: where each model of the batch to come stands in those given, one after the other.
      note: of all, whose numbers of models are those of the batch to come.

    Returns:
      A `Fit`.
    """
    parts = [doubled((fit.q, fit.certificate, fit.draws, fit.log_weights, fit.moments)) for fit in fits]
    q, certificate, draws, log_weights, moments = jax.tree.map(lambda *each: np.concatenate(each)[places], *parts)
    return Fit(handed_q(q, draws, log_weights), certificate, draws, log_weights, fits[0].target, note, moments)


@functools.partial(xla.jit, static_argnames=("target", "num_samples"))
def _sample(keys: Key, draws: Array, log_weights: Array, target: Any, num_samples: int) -> PyTree:
    def one(key, draws, log_weights):
        return jax.vmap(target.constrain)(draws[pick(key, log_weights, num_samples)])

    return jax.vmap(one)(keys, draws, log_weights) if log_weights.ndim == 2 else one(keys, draws, log_weights)


def moments(draws: Array, log_weights: Array, target: Any) -> tuple[PyTree, PyTree]:
    """Weighted means and standard deviations in the user's space, NaN for numbers that have none (`tails`).

    Args:
      draws: [S, D], or [M, S, D] of a batch.
      log_weights: [S] or [M, S], normalised.
      target: from flat vectors to the user's space, static.

    Returns:
      Two pytrees like `init`.
    """
    return examined(draws, log_weights, target)[:2]


@functools.partial(xla.jit, static_argnames=("target", "thorough"))
def examined(draws: Array, log_weights: Array, target: Any, thorough: bool = True) -> tuple[PyTree, PyTree, Array]:
    """`moments`, and whether any of them rests on single draws, so that it wants more of them.

    Args:
      draws: [S, D], or [M, S, D] of a batch.
      log_weights: [S] or [M, S], normalised.
      target: from flat vectors to the user's space, static.
      thorough: static; False where the numbers are not looked at one by one, and none is NaN for want of a moment.

    Returns:
      Two pytrees like `init`, and a boolean for each model.
    """

    def one(draws, log_weights):
        weights = jnp.exp(log_weights)
        values = jax.vmap(target.constrain)(draws)
        # A draw without weight may lie where the map overflows.
        average = lambda x: jnp.tensordot(weights, jnp.where(_column(weights, x) > 0, x, 0), axes=1)  # noqa: E731
        mean = jax.tree.map(average, values)
        variance = jax.tree.map(lambda x, m: average((x - m) ** 2), values, mean)
        sd = jax.tree.map(jnp.sqrt, variance)
        rows = jnp.concatenate([jnp.reshape(leaf, (len(weights), -1)) for leaf in jax.tree.leaves(values)], axis=1)
        flat = [jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(part)]) for part in (mean, variance)]
        if thorough:
            no_mean, no_sd = (_like_leaves(each, mean) for each in tails.lacking(rows, log_weights, *flat))
            mean, sd = (jax.tree.map(_or_nan, part, none) for part, none in ((mean, no_mean), (sd, no_sd)))
        return mean, sd, jnp.any(tails.doubtful(rows, weights, *flat))

    return jax.vmap(one)(draws, log_weights) if log_weights.ndim == 2 else one(draws, log_weights)


def _or_nan(x: Array, none: Array) -> Array:
    return jnp.where(none, jnp.nan, x)


def _like_leaves(flat: Array, like: PyTree) -> PyTree:
    """A vector cut into the leaves of a pytree, whatever their dtypes."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1].tolist()
    return jax.tree.unflatten(
        structure, [part.reshape(leaf.shape) for part, leaf in zip(jnp.split(flat, ends), leaves, strict=True)]
    )


def _column(weights: Array, like: Array) -> Array:
    return jnp.reshape(weights, (-1,) + (1,) * (like.ndim - 1))
