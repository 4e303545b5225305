"""elbojax: functional variational inference in JAX.

Everything that most people call is importable from here: `fit`, `run`, `run_batch`, `svi`, `newton`, the families and the
objectives. `densities`, `samplers`, `bijectors`, `targets` and `noise` are modules of functions.
"""

from elbojax import bijectors as bijectors
from elbojax import densities as densities
from elbojax import minibatches as minibatches
from elbojax import noise as noise
from elbojax import plots as plots
from elbojax import samplers as samplers
from elbojax import structure as structure
from elbojax import targets as targets
from elbojax import workarounds as _workarounds
from elbojax.cascade import *  # noqa: F403
from elbojax.diagnostics import *  # noqa: F403
from elbojax.families import *  # noqa: F403
from elbojax.interop.base import Model as Model
from elbojax.interop.numpyro_model import from_numpyro as from_numpyro
from elbojax.interop.numpyro_model import from_numpyro_batch as from_numpyro_batch
from elbojax.loops import *  # noqa: F403
from elbojax.minibatch import *  # noqa: F403
from elbojax.objectives import *  # noqa: F403
from elbojax.results import *  # noqa: F403
from elbojax.solvers import *  # noqa: F403
from elbojax.structure import Conditional as Conditional
from elbojax.structure import Corrected as Corrected
from elbojax.structure import Nested as Nested
from elbojax.structure import NestedStatus as NestedStatus
from elbojax.structure import find_structure as find_structure
from elbojax.structure import integrate_out as integrate_out
from elbojax.studies import *  # noqa: F403
from elbojax.types import Status as Status

_workarounds.install()

__version__ = "0.1.0"
