"""elbojax: functional variational inference in JAX.

The names that most people call are importable from here: `fit`, `fit_batch`, `run`, `svi`, the usual families and
bounds. `dir(elbojax)` lists them beside the modules that hold all others: `elbojax.families.sample_many`,
`elbojax.studies.bootstrap`, `elbojax.bijectors.positive`.
"""

from typing import TYPE_CHECKING

from elbojax import bijectors as bijectors
from elbojax import densities as densities
from elbojax import diagnostics as diagnostics
from elbojax import families as families
from elbojax import former as _former
from elbojax import interop as interop
from elbojax import loops as loops
from elbojax import minibatch as minibatch
from elbojax import minibatches as minibatches
from elbojax import noise as noise
from elbojax import objectives as objectives
from elbojax import plots as plots
from elbojax import results as results
from elbojax import samplers as samplers
from elbojax import solvers as solvers
from elbojax import structure as structure
from elbojax import studies as studies
from elbojax import targets as targets
from elbojax import thresholds as thresholds
from elbojax import workarounds as _workarounds
from elbojax.cascade import chain_check as chain_check
from elbojax.cascade import fit as fit
from elbojax.cascade import fit_batch as fit_batch
from elbojax.cascade import fit_model as fit_model
from elbojax.cascade import fit_model_batch as fit_model_batch
from elbojax.cascade import fit_ragged as fit_ragged
from elbojax.diagnostics import active_units as active_units
from elbojax.diagnostics import assess as assess
from elbojax.diagnostics import decompose_kl as decompose_kl
from elbojax.diagnostics import gradient_noise as gradient_noise
from elbojax.diagnostics import held_out_log_likelihood as held_out_log_likelihood
from elbojax.diagnostics import psis as psis
from elbojax.families import amortised as amortised
from elbojax.families import autoregressive_flow as autoregressive_flow
from elbojax.families import banded_precision as banded_precision
from elbojax.families import bernoulli as bernoulli
from elbojax.families import blocks as blocks
from elbojax.families import categorical as categorical
from elbojax.families import coupling_flow as coupling_flow
from elbojax.families import full_rank as full_rank
from elbojax.families import gaussian_chain as gaussian_chain
from elbojax.families import hierarchical as hierarchical
from elbojax.families import hmm_smoother as hmm_smoother
from elbojax.families import low_rank as low_rank
from elbojax.families import markov_chain as markov_chain
from elbojax.families import mean_field as mean_field
from elbojax.families import mixture as mixture
from elbojax.families import sinh_arcsinh as sinh_arcsinh
from elbojax.families import student_t as student_t
from elbojax.interop.numpyro_model import from_numpyro as from_numpyro
from elbojax.interop.pymc_model import from_pymc as from_pymc
from elbojax.interop.stan_model import from_stan as from_stan
from elbojax.loops import masked_sum as masked_sum
from elbojax.loops import pad_ragged as pad_ragged
from elbojax.loops import run as run
from elbojax.loops import run_batch as run_batch
from elbojax.loops import run_stream as run_stream
from elbojax.loops import train as train
from elbojax.minibatch import fit_minibatches as fit_minibatches
from elbojax.objectives import cubo as cubo
from elbojax.objectives import elbo as elbo
from elbojax.objectives import elbo_chain as elbo_chain
from elbojax.objectives import elbo_entropy as elbo_entropy
from elbojax.objectives import elbo_enumerated as elbo_enumerated
from elbojax.objectives import elbo_free_bits as elbo_free_bits
from elbojax.objectives import elbo_kl as elbo_kl
from elbojax.objectives import elbo_rloo as elbo_rloo
from elbojax.objectives import elbo_stl as elbo_stl
from elbojax.objectives import elbo_switching as elbo_switching
from elbojax.objectives import forward_kl as forward_kl
from elbojax.objectives import iw_elbo as iw_elbo
from elbojax.objectives import iw_elbo_dreg as iw_elbo_dreg
from elbojax.objectives import mean_over_data as mean_over_data
from elbojax.objectives import renyi_bound as renyi_bound
from elbojax.results import Certificate as Certificate
from elbojax.results import Fit as Fit
from elbojax.results import Fits as Fits
from elbojax.results import Stage as Stage
from elbojax.results import load as load
from elbojax.solvers import as_loss as as_loss
from elbojax.solvers import fit_flow as fit_flow
from elbojax.solvers import gaussian_smoother as gaussian_smoother
from elbojax.solvers import kalman_smoother as kalman_smoother
from elbojax.solvers import laplace as laplace
from elbojax.solvers import minibatched as minibatched
from elbojax.solvers import moments_stable as moments_stable
from elbojax.solvers import newton as newton
from elbojax.solvers import pathfinder as pathfinder
from elbojax.solvers import semi_amortised_steps as semi_amortised_steps
from elbojax.solvers import svi as svi
from elbojax.structure import find_structure as find_structure
from elbojax.structure import integrate_out as integrate_out
from elbojax.studies import compare as compare
from elbojax.studies import loo as loo
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
    "from_pymc",
    "from_stan",
    "load",
    "Fit",
    "Fits",
    "Certificate",
    "Stage",
    "Status",
    # structure
    "find_structure",
    "integrate_out",
    # loops and solvers of your own
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
    # families
    "mean_field",
    "full_rank",
    "low_rank",
    "student_t",
    "mixture",
    "blocks",
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
    "iw_elbo",
    "iw_elbo_dreg",
    "renyi_bound",
    "cubo",
    "forward_kl",
    "mean_over_data",
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
    # data of unequal length
    "masked_sum",
    "pad_ragged",
]

_MODULES = (
    "bijectors",
    "densities",
    "diagnostics",
    "families",
    "interop",
    "loops",
    "minibatch",
    "minibatches",
    "noise",
    "objectives",
    "plots",
    "results",
    "samplers",
    "solvers",
    "structure",
    "studies",
    "targets",
    "thresholds",
)


def __dir__() -> list[str]:
    """The names that most people call, and the modules that hold all others."""
    return sorted([*__all__, *_MODULES, "__version__"])


if not TYPE_CHECKING:  # to a type checker a module with this has any name

    def __getattr__(name: str) -> object:
        """What stood here, or was called so, before, with a warning; else an error that says which name may have been meant."""
        import difflib
        import warnings

        now = _former.place(name)
        if now is not None:
            warnings.warn(
                f"elbojax.{name} has become elbojax.{now}; the old name goes with the next release",
                DeprecationWarning,
                stacklevel=2,
            )
            return _former.found(name)

        near = difflib.get_close_matches(name, [*__all__, *_MODULES, *_former.MOVED], n=1)
        hint = f"; did you mean {_former.place(near[0]) or near[0]!r}?" if near else "; dir(elbojax) lists the names"
        raise AttributeError(f"module 'elbojax' has no attribute {name!r}{hint}")


_former.know_modules()
_workarounds.install()

__version__ = "0.1.0"
