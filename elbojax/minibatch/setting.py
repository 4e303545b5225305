"""What the parts of a fit from minibatches hand each other: the setting, the start, and how far the winner has come."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import optax

from elbojax import minibatches, noise, thresholds, xla
from elbojax.minibatch import stationarity
from elbojax.minibatch.standardised import Model, Units
from elbojax.minibatches import Expansion
from elbojax.objectives import elbo_entropy, elbo_stl
from elbojax.solvers import as_loss
from elbojax.solvers.svi import Loss, SviState
from elbojax.types import Array, PyTree, Status


class Setting(NamedTuple):
    """What stays as it is from the start to the end."""

    model: Model
    data: PyTree
    batch_size: int
    control_variate: bool
    optimizers: Mapping[str, optax.GradientTransformation]
    tolerance: float
    max_steps: int
    bar: Any = None
    """That steps move, or None."""

    @property
    def pass_cost(self) -> float:
        """The cost of one expansion, in gradients of a minibatch."""
        return self.model.num_data / self.batch_size

    @property
    def step_cost(self) -> int:
        """The cost of one step, in gradients of a minibatch for one draw."""
        return thresholds.MINIBATCH_DRAWS * (2 if self.control_variate else 1)

    @property
    def allowed(self) -> float:
        """The Newton step that the bound may promise at the end."""
        least, most = thresholds.MINIBATCH_ALLOWED_LEAST, thresholds.MINIBATCH_ALLOWED_MOST
        return min(max(thresholds.MINIBATCH_ALLOWED * self.tolerance, least), most)

    def about(self, q: Any, units: Units) -> tuple[Units, Expansion | None]:
        """What all steps share: the units, and the expansion about the mean of `q` where there is a control variate."""
        return units, expanded(q.mean(), units, self.data, self.model) if self.control_variate else None


class Begun(NamedTuple):
    """The start, in its units, and what it has cost."""

    q: Any
    units: Units
    cost: float


@dataclasses.dataclass
class Progress:
    """How far the winner of the race has come."""

    state: SviState
    units: Units
    expansion: Expansion | None
    status: Status
    cost: float
    leg: int
    names: list[str] = dataclasses.field(default_factory=list)  # of optimisers, the one in use first
    steps: int = 0
    rate: float = 1.0
    failures: int = 0
    rhat: float = np.nan
    mcse: float = np.nan
    moved: float = np.nan
    last: np.ndarray | None = None
    tested: stationarity.Step | None = None


def losses(model: Model) -> tuple[Loss, Loss]:
    """One for the race, one that sticks the landing.

    The second scores draws by the density of `q`, which for a scale matrix that some optimiser has ruined is rounding,
    and may be rounding in its favour: who wins is assessed by the first, whose entropy is exact.
    """
    settings: dict[str, Any] = {"num_samples": thresholds.MINIBATCH_DRAWS, "draws": noise.antithetic}
    return tuple(as_loss(form, model.standardised, **settings) for form in (elbo_entropy, elbo_stl))  # type: ignore[return-value]


@functools.partial(xla.jit, static_argnames="model")
def expanded(w: Array, units: Units, data: PyTree, model: Model) -> Expansion:
    """The log-likelihood of all rows to first order about a place in standardised coordinates; `model` is static."""
    return minibatches.expand(model.likelihood, units.place(w), data)
