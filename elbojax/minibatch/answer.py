"""What `fit_minibatches` gives back: a distribution in the user's own space, and what the fit knows of itself."""

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds
from elbojax.families import Family
from elbojax.loops.strict import relaxed
from elbojax.minibatch.halving import SuccessiveHalving
from elbojax.results import held, loading, space, storage
from elbojax.results.approximation import Approximation
from elbojax.results.posterior import described
from elbojax.targets import Target
from elbojax.types import PyTree, Status


@dataclasses.dataclass(frozen=True, repr=False)
class MinibatchFit(Approximation):
    """A posterior fitted to minibatches: the best `q` of its family, without a certificate.

    `summary`, `quantile`, `evaluate`, `predict`, `to_arviz`, `save` and the table in notebooks are those of a `Fit`; what
    they say is of `q`.

    Attributes:
      q: the `Family` found, on flat unconstrained vectors.
      status: CONVERGED; MAX_STEPS; STALLED where no optimiser was better than the start; NON_FINITE; IMPRECISE where the
        gradient of the bound is too noisy to tell whether it is zero.
      winner: name of the optimiser that won the race, or of the next best where its chain was lost.
      rhat: of the iterates that were averaged, the largest over means and log-sds; at most 1.1 where their average is the
        answer.
      mcse: largest Monte Carlo standard error of the averaged means, in posterior sds, and log-sds; where Newton steps of
        the bound ended the fit, of these.
      moved: largest change of means and log-sds, in the same units, when the step size was last cut to a quarter.
      elbo: nats, on fresh minibatches and draws.
      elbo_se: its standard error, the rounding of so large a sum included.
      num_steps: of all optimisers.
      num_gradients: in gradients of one minibatch for one draw; a pass over all rows counts N / B, the control variate of
        a draw counts one.
      race: the `SuccessiveHalving`; its losses are those of the standardised problem.
      target: from flat vectors to the user's space.
      step: largest change of means and log-sds, in the same units, that a Newton step of the bound would make at `q`; NaN
        where it was not tested, as where the status is MAX_STEPS.
      step_se: largest standard error of these changes.
      dtype: of what `sample`, `mean` and `sd` give, where it can hold mean and sd together.
    """

    q: Family
    status: Status
    winner: str
    rhat: float
    mcse: float
    moved: float
    elbo: float
    elbo_se: float
    num_steps: int
    num_gradients: int
    race: SuccessiveHalving
    target: Target
    step: float = np.nan
    step_se: float = np.nan
    dtype: Any = np.float64

    @property
    def _q(self) -> Family:
        return self.q

    @property
    def _constrain(self) -> Any:
        return self.target.constrain

    def _names(self) -> tuple[str, ...]:
        return tuple(space.names(self.target))

    def _handed(self, values: PyTree) -> PyTree:
        mean, sd = self._moments

        def narrow(x, m, s):
            coarse = np.any(np.abs(m) * jnp.finfo(self.dtype).eps > thresholds.MINIBATCH_RESOLUTION * s)
            return x if coarse else jnp.asarray(x, self.dtype)

        return jax.tree.map(narrow, values, mean, sd)

    @relaxed
    def sd(self) -> PyTree:
        """Standard deviations of `q`, a pytree like `init`."""
        return jax.tree.map(lambda x: jnp.asarray(x, self.dtype), self._moments[1])

    @property
    def _verdict(self) -> str:
        kind = type(self.q).__name__
        return f"NOT certified: {kind} from minibatches ({self.status}), whose shape nothing has compared with the posterior"

    def _attributes(self) -> dict[str, Any]:
        return {
            "status": str(self.status),
            "optimizer": self.winner,
            "elbo": self.elbo,
            "elbo_se": self.elbo_se,
            "rhat": self.rhat,
            "mcse": self.mcse,
        }

    def _heading(self) -> str:
        return f"fit of {self.target.size:,} parameters to minibatches"

    def _lines(self) -> list[str]:
        step = "" if np.isnan(self.step) else f", {self.step:.3f} sds from where the gradient vanishes"
        return [
            f"{self.status}: {self.winner} won; R-hat {self.rhat:.3f}, Monte Carlo error {self.mcse:.3f} sds, moved"
            f" {self.moved:.3f} sds when the step was cut{step}",
            f"ELBO {self.elbo:.2f} ± {self.elbo_se:.2f} nats",
            f"{self.num_steps:,} steps, {self.num_gradients:,} minibatch gradients",
        ]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a file, from which `elbojax.load` makes the same fit; no pickle.

        The model is not held, for it is code; nor are the states of the optimisers of the race.

        Args:
          path: of the file; .npz by custom.
        """
        numbers = {name: getattr(self, name) for name in held.NUMBERS}
        race: dict[str, Any] = {name: np.asarray(getattr(self.race, name)) for name in ("losses", "errors", "rounds")}
        race |= {"names": list(self.race.names), "winner": self.race.winner}
        race |= {"status": int(self.race.status), "num_steps": int(self.race.num_steps)}
        contents = {
            "kind": "minibatches",
            "space": described(self.target),
            "q": self.q,
            "winner": self.winner,
            "status": int(self.status),
            "dtype": np.dtype(self.dtype).name,
            "numbers": {name: float(value) for name, value in numbers.items()},
            "race": race,
        }
        storage.write(path, contents)

    def __str__(self) -> str:
        return self.report()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return self.html()


def loaded(contents: dict[str, Any], target: Target) -> MinibatchFit:
    """The fit that a file holds, whose race has neither distributions nor states."""
    race, numbers = contents["race"], contents["numbers"]
    won = SuccessiveHalving(
        q=None,
        status=Status(race["status"]),
        winner=race["winner"],
        names=tuple(race["names"]),
        losses=race["losses"],
        errors=race["errors"],
        rounds=race["rounds"],
        num_steps=race["num_steps"],
        state=None,  # type: ignore[arg-type]
    )
    counts = {name: int(numbers[name]) for name in ("num_steps", "num_gradients")}
    return MinibatchFit(
        q=jax.tree.map(np.asarray, contents["q"]),
        status=Status(contents["status"]),
        winner=contents["winner"],
        race=won,
        target=target,
        dtype=np.dtype(contents["dtype"]),
        **{**numbers, **counts},
    )


loading.BUILDERS["minibatches"] = loaded
