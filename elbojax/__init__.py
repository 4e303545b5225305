"""elbojax: functional variational inference in JAX."""

from elbojax.cascade import *  # noqa: F403
from elbojax.diagnostics import *  # noqa: F403
from elbojax.families import *  # noqa: F403
from elbojax.loops import *  # noqa: F403
from elbojax.objectives import *  # noqa: F403
from elbojax.solvers import *  # noqa: F403
from elbojax.types import Status as Status

__version__ = "0.1.0"
