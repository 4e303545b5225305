"""Answers of a `Run`: tables, files and trees of a `q` that a loop has found and that nothing has compared with the posterior."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import xla
from elbojax.families import Family
from elbojax.interop import arviz
from elbojax.loops.run import ANSWERS, Run
from elbojax.loops.strict import relaxed
from elbojax.results import space, storage
from elbojax.results.approximation import Approximation, drawn, in_double, same
from elbojax.results.pictures import trace
from elbojax.results.summary import PROBABILITIES, WORST
from elbojax.targets import Target
from elbojax.types import PyTree, Status

UNCHECKED = "NOT certified: nothing has compared this q with the posterior; elbojax.assess or elbojax.fit does"
"""What is said of every run."""


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class RunApproximation(Approximation):
    """The `q` of a `Run` with what is asked of it; `run.approximation(target)` makes one.

    Attributes:
      run: of one model.
      target: from what `q` is over to the user's space; None where that is one space.
    """

    run: Run
    target: Target | None = None

    @property
    def _q(self) -> Any:
        return self.run.q

    @property
    def _constrain(self) -> Callable[[Any], PyTree]:
        return constrain_of(self.target)

    @property
    def _verdict(self) -> str:
        return UNCHECKED

    def _attributes(self) -> dict[str, Any]:
        return {
            "status": str(Status(int(self.run.status))),
            "num_steps": int(self.run.num_steps),
            "loss": float(self.run.loss),
        }

    def _names(self) -> tuple[str, ...]:
        return super()._names() if self.target is None else tuple(space.names(self.target))

    def _heading(self) -> str:
        return f"{type(self.run.q).__name__} over {len(self._names()):,} numbers"

    def _lines(self) -> list[str]:
        return [ended(self.run)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the run to a file; see `Run.save`."""
        saved(self.run, path)

    def __str__(self) -> str:
        return self.report()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return self.html()


class RunsSummary(NamedTuple):
    """The runs of a batch; prints as a table.

    Attributes:
      num_models: M.
      statuses: how many models have each `Status`, the most frequent first.
      quantiles: of steps and loss [3], at 5, 50 and 95 per cent of the models, NaN left out.
      worst: indices of the models to look at first: those that did not converge, and of these the highest losses first.
      worst_statuses: of these.
      worst_losses: of these.
    """

    num_models: int
    statuses: dict[Status, int]
    quantiles: dict[str, np.ndarray]
    worst: np.ndarray
    worst_statuses: np.ndarray
    worst_losses: np.ndarray

    def __str__(self) -> str:
        counts = ", ".join(f"{status} {count:,}" for status, count in self.statuses.items())
        heads = "".join(f"{f'{p:.0%}'.replace('%', ' %'):>12}" for p in PROBABILITIES)
        lines = [f"{self.num_models:,} runs: {counts}", f"  {UNCHECKED}", f"{'':19}{heads}"]
        for name, values in self.quantiles.items():
            lines.append(f"  {name:<17}" + "".join(f"{value:>12.4g}" for value in values))
        lines.append(f"  worst models     {'index':>9}  {'status':<12}{'loss':>12}")
        for model, status, loss in zip(self.worst, self.worst_statuses, self.worst_losses, strict=True):
            lines.append(f"{'':19}{model:>7,}  {Status(int(status))!s:<12}{loss:>12.4g}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def approximation(run: Run, target: Target | None = None) -> RunApproximation:
    """What `Run.approximation` gives."""
    _check(run)
    if np.ndim(run.status):
        raise ValueError(
            f"this is a batch of {np.shape(run.status)[0]:,} runs: take one, jax.tree.map(lambda x: x[0], run), or call"
            " run.summary()"
        )
    return RunApproximation(run, target)


def summary(run: Run, target: Target | None = None) -> Any:
    """What `Run.summary` gives."""
    if not np.ndim(run.status):
        return approximation(run, target).summary()
    status, loss = np.asarray(run.status), np.asarray(run.loss, float)
    codes, counts = np.unique(status, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    quantiles = {}
    for name, values in (("steps", np.asarray(run.num_steps, float)), ("loss", loss)):
        known = values[~np.isnan(values)]
        quantiles[name] = np.quantile(known, PROBABILITIES, method="inverted_cdf") if len(known) else np.full(3, np.nan)
    worst = np.lexsort((-np.nan_to_num(loss, nan=np.inf), status == Status.CONVERGED))[:WORST]
    statuses = {Status(int(codes[i])): int(counts[i]) for i in order}
    return RunsSummary(status.size, statuses, quantiles, worst, status[worst], loss[worst])


@relaxed
def to_arviz(
    run: Run,
    target: Target | None = None,
    num_samples: int = 1000,
    *,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    **known: Any,
) -> Any:
    """What `Run.to_arviz` gives."""
    if not np.ndim(run.status):
        return approximation(run, target).to_arviz(num_samples, dims=dims, coords=coords, **known)
    _check(run)
    if known:
        raise ValueError(f"{', '.join(known)} are of one model: run.approximation(target).to_arviz(...) takes them")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    keys = jax.random.split(jax.random.key(0), len(run.status))
    constrain = constrain_of(target)
    with jax.enable_x64(True):
        draws = jax.tree.map(np.asarray, _drawn_of_each(keys, in_double(run.q), constrain, num_samples))
    chains = jax.tree.map(lambda x: np.swapaxes(x, 0, 1)[None], draws)
    attributes: dict[str, Any] = {"inference_library": "elbojax", "certified": UNCHECKED}
    attributes["status"] = [str(Status(int(code))) for code in np.asarray(run.status)]
    return arviz.to_arviz(chains, {}, codes={}, batched=True, attributes=attributes, dims=dims, coords=coords)


@functools.partial(xla.jit, static_argnames=("constrain", "num_samples"))
def _drawn_of_each(keys, qs, constrain, num_samples):
    return jax.vmap(lambda key, q: drawn(key, q, constrain, num_samples))(keys, qs)


def saved(run: Run, path: str | os.PathLike[str]) -> None:
    """What `Run.save` does."""
    contents = {"kind": "run", "q": run.q}
    contents |= {name: np.asarray(getattr(run, name)) for name in ("status", "num_steps", "loss", "losses")}
    storage.write(path, contents)


def html(run: Run) -> str | None:
    """A table for notebooks, of one run over not too many numbers."""
    one = isinstance(run.q, Family) and not np.ndim(run.status)
    return RunApproximation(run).html() if one else None


def ended(run: Run) -> str:
    """How one run ended, in a line."""
    return f"{Status(int(run.status))} after {int(run.num_steps):,} steps; mean loss of the last {float(run.loss):.4g}"


def constrain_of(target: Any) -> Any:
    """From an event to the user's space."""
    if target is None:
        return same
    found = getattr(target, "constrain", target)
    if not callable(found):
        raise TypeError(
            f"target must be a Target, of targets.unconstrain or targets.ravel, got a {type(target).__name__}"
        )
    return found


def _check(run: Run) -> None:
    if not isinstance(run.q, Family):
        raise TypeError(f"only a run whose q is a Family has draws and moments; this is of a {type(run.q).__name__}")
    if not all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(run.q)) and not np.ndim(run.status):
        raise ValueError(f"the q of this run is not finite ({Status(int(run.status))})")


ANSWERS.update(approximation=approximation, summary=summary, to_arviz=to_arviz, save=saved, html=html, trace=trace)
