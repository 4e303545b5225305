"""elbojax: functional variational inference in JAX.

Everything that most people call is importable from here, and `dir(elbojax)` lists it: `fit`, `run`, `run_batch`, `svi`, `newton`,
the families and the objectives. `densities`, `samplers`, `bijectors`, `targets` and `noise` are modules of functions.
"""

from typing import TYPE_CHECKING

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
from elbojax.former import RENAMED as RENAMED
from elbojax.interop.base import Model as Model
from elbojax.interop.numpyro_model import from_numpyro as from_numpyro
from elbojax.interop.numpyro_model import from_numpyro_batch as from_numpyro_batch
from elbojax.interop.pymc_model import from_pymc as from_pymc
from elbojax.interop.stan_model import from_stan as from_stan
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

__all__ = [
    # posteriors without tuning
    "fit",
    "fit_batch",
    "fit_ragged",
    "fit_minibatches",
    "fit_model",
    "fit_model_batch",
    "from_numpyro",
    "from_numpyro_batch",
    "from_pymc",
    "from_stan",
    "Model",
    "load",
    "Fit",
    "Fits",
    "Certificate",
    "Stage",
    "Status",
    # structure
    "find_structure",
    "integrate_out",
    # loops and solvers of one's own
    "run",
    "run_batch",
    "run_stream",
    "train",
    "svi",
    "as_loss",
    "minibatched",
    "newton",
    "pathfinder",
    "laplace",
    "moments_stable",
    "loss_plateau",
    # families
    "Family",
    "family",
    "static",
    "mean_field",
    "full_rank",
    "low_rank",
    "student_t",
    "mixture",
    "blocks",
    "product",
    "banded_precision",
    "gaussian_chain",
    "sinh_arcsinh",
    "coupling_flow",
    "autoregressive_flow",
    "fit_flow",
    "hierarchical",
    "bernoulli",
    "categorical",
    "markov_chain",
    "amortised",
    "semi_amortised_steps",
    "sample_many",
    # bounds
    "elbo",
    "elbo_stl",
    "elbo_entropy",
    "elbo_kl",
    "elbo_free_bits",
    "elbo_rloo",
    "elbo_enumerated",
    "elbo_chain",
    "elbo_switching",
    "elbo_local",
    "iw_elbo",
    "iw_elbo_dreg",
    "vimco",
    "renyi_bound",
    "cubo",
    "forward_kl",
    "mean_over_data",
    "kl_divergence",
    # how good it is
    "assess",
    "chain_check",
    "psis",
    "loo",
    "compare",
    "held_out_log_likelihood",
    "active_units",
    "decompose_kl",
    "gradient_noise",
    # sequences
    "hmm_smoother",
    "kalman_smoother",
    "gaussian_smoother",
    # studies
    "simulation_based_calibration",
    "leave_one_out",
    "k_fold",
    "bootstrap",
    "prior_sensitivity",
    "backtest",
    "empirical_bayes",
    # data of unequal length
    "masked_sum",
    "pad_ragged",
    # modules
    "bijectors",
    "densities",
    "minibatches",
    "noise",
    "plots",
    "samplers",
    "structure",
    "targets",
    "thresholds",
]


def __dir__() -> list[str]:
    """The names that most people call; all others are there too, and live in their modules."""
    return sorted([*__all__, "__version__"])


if not TYPE_CHECKING:  # to a type checker a module with this has any name

    def __getattr__(name: str) -> object:
        """What had this name before, with a warning; else an error that says which name may have been meant."""
        import difflib
        import warnings

        from elbojax import former

        if name in RENAMED:
            said = f"elbojax.{name} has become elbojax.{RENAMED[name]}; the old name goes with the next release"
            warnings.warn(said, DeprecationWarning, stacklevel=2)
            found = globals()[RENAMED[name]]
            return former.REORDERED[name](found) if name in former.REORDERED else found

        near = difflib.get_close_matches(name, [*globals(), *__all__], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; dir(elbojax) lists the names"
        raise AttributeError(f"module 'elbojax' has no attribute {name!r}{hint}")


_workarounds.install()

__version__ = "0.1.0"
