"""What was called otherwise, stood elsewhere, or took its arguments in another order, and works for one release."""

import functools
import importlib
import sys
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

RENAMED = {
    "LatentUse": "ActiveUnits",
    "Race": "SuccessiveHalving",
    "SharedAndLocal": "GlobalAndLocal",
    "Tailed": "StudentTTails",
    "averaged": "polynomial_averaging",
    "held_out": "held_out_log_likelihood",
    "latent_use": "active_units",
    "loss_settles": "loss_plateau",
    "moments_settle": "moments_stable",
    "never": "no_stop",
    "portfolio": "default_optimizers",
    "race": "successive_halving",
    "refine": "semi_amortised_steps",
    "settle": "run_until_stationary",
    "share": "process_slice",
    "smoother": "hmm_smoother",
    "tailed": "with_student_t_tails",
}
"""Former names and what took their place."""

MOVED = {
    name: module
    for module, names in {
        "diagnostics": """
            ActiveUnits Assessment GradientNoise HeldOut KlDecomposition Psis Uniformity khat_threshold
            uniformity
        """,
        "families": """
            Amortised BandedPrecision Bernoulli Blocks Categorical Enumerable Family Flow FullRank Funnel
            Gaussian GaussianBlocks GaussianChain Hierarchical LowRank MarkovChain MeanField Mixture Particles
            Product Reparameterised ReparameterisedHierarchical ReparameterisedProduct SinhArcsinh StudentT
            StudentTTails aggregate entropy family funnel kl_by_part kl_divergence linear_dynamics particles
            product sample_many static with_student_t_tails
        """,
        "interop.base": "Model",
        "interop.numpyro_model": "from_numpyro_batch",
        "loops": "Bucket Padded Run Stream Training gather no_stop process_slice",
        "minibatch": "MinibatchFit Settled SuccessiveHalving default_optimizers run_until_stationary successive_halving",
        "objectives": """
            Decomposition GlobalAndLocal csiszar cubo_at decompose elbo_at elbo_beta elbo_disarm elbo_entropy_at
            elbo_gumbel_softmax elbo_kl_at elbo_local elbo_score elbo_stl_at elbo_vargrad eubo f_divergence
            f_divergence_at free_bits iw_elbo_at iw_elbo_dreg_at iw_elbo_gdreg renyi_bound_at rws_sleep rws_wake
            switch_marginals vimco
        """,
        "results": "Agreement ChainCheck RunApproximation",
        "solvers": """
            AveragedState BfgsPath DadviInfo FlowInfo FunnelInfo LaplaceInfo LbfgsPath LinearResponseInfo
            MinibatchedState MultiPathfinderInfo NewtonInfo NewtonLowRankInfo PathfinderInfo ScoreInfo Solver
            StopRule SvgdInfo SvgdState SviInfo SviState annealed_svi batch_and_match bfgs dadvi ema fit_funnel
            gsm lbfgs linear_response linear_response_of loss_plateau multipathfinder newton_low_rank
            polynomial_averaging svgd
        """,
        "structure": "Conditional Corrected Nested NestedStatus",
        "studies": """
            Backtest Bootstrap Calibration Comparison CrossValidation EmpiricalBayes Loo Sensitivity backtest
            bootstrap empirical_bayes k_fold leave_one_out prior_sensitivity simulation_based_calibration
        """,
    }.items()
    for name in names.split()
}
"""Names that `elbojax` itself had, and the modules where they are."""


def likelihood_first(hmm_smoother: Callable[[Any, Any, Any], R]) -> Callable[[Any, Any, Any], R]:
    """`hmm_smoother` with the arguments of `smoother`, whose data came before the model.

    Args:
      hmm_smoother: to be called.

    Returns:
      A function of the former order.
    """

    def smoother(log_likelihood: Any, log_initial: Any, log_transition: Any) -> R:
        return hmm_smoother(log_initial, log_transition, log_likelihood)

    return smoother


REORDERED = {"smoother": likelihood_first}
"""Former names whose arguments came in another order, and what makes them of what took their place."""


CASCADE = ("certificate", "posterior")
"""Modules that stood in `elbojax.cascade`, and are in `elbojax.results` now."""


def know_modules() -> None:
    """Let pickles find `Fit`, `Certificate` and the like by the names of the modules where they stood.

    What a pickle of an earlier version lacks is told when it is opened: see `Fit.__setstate__`.
    """
    results = sys.modules["elbojax.results"]
    for name in CASCADE:
        sys.modules.setdefault(f"elbojax.cascade.{name}", results)


def place(name: str) -> str | None:
    """Where to find what `elbojax.NAME` was, below `elbojax`; None where there was no such name.

    Args:
      name: a former one.
    """
    now = RENAMED.get(name, name)
    if now in MOVED:
        return f"{MOVED[now]}.{now}"
    return now if name in RENAMED else None


def found(name: str) -> Any:
    """What `elbojax.NAME` was.

    Args:
      name: a former one, for which there is a `place`.
    """
    module, _, now = f"elbojax.{place(name)}".rpartition(".")
    value = getattr(importlib.import_module(module), now)
    return REORDERED[name](value) if name in REORDERED else value


def optimizer_was_third(function: Callable[P, R]) -> Callable[P, R]:
    """Let `f(key, loss, optimizer, start, data)` do for `f(key, loss, start, data, optimizer=optimizer)`.

    Args:
      function: of the present form.

    Returns:
      The same, which takes the former one with a DeprecationWarning.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> R:
        third = args[2] if len(args) > 2 else None
        if callable(getattr(third, "init", None)) and callable(getattr(third, "update", None)):
            name = function.__name__
            said = f"{name}(key, loss, optimizer, start, data) has become {name}(key, loss, start, data, optimizer=...)"
            warnings.warn(f"{said}; the former order goes with the next release", DeprecationWarning, stacklevel=2)
            args, kwargs = (*args[:2], *args[3:]), {**kwargs, "optimizer": third}
        return function(*args, **kwargs)  # type: ignore[arg-type]

    return call  # type: ignore[return-value]
