"""Posteriors of posteriordb as JAX log-densities in the user's own (constrained) space.

`load(name)` gives one of `NAMES` as a `Model`. The models are written here; data and reference draws are read from a
posteriordb on disk (see `benchmarks.problems.reference`). Double precision is wanted throughout.
"""

import os
from collections.abc import Callable

from benchmarks.models import (
    differential_equations,
    gaussian_process,
    hidden_markov,
    hierarchical,
    mixture,
    regression,
    time_series,
)
from benchmarks.models.base import Model, Raw
from benchmarks.problems import reference

BUILDERS: dict[str, Callable[[Raw], Model]] = {
    "arK-arK": time_series.ark,
    "arma-arma11": time_series.arma11,
    "bball_drive_event_0-hmm_drive_0": hidden_markov.hmm_drive_0,
    "diamonds-diamonds": regression.diamonds,
    "earnings-earn_height": regression.earn_height,
    "earnings-logearn_interaction": regression.logearn_interaction,
    "eight_schools-eight_schools_centered": hierarchical.eight_schools_centered,
    "eight_schools-eight_schools_noncentered": hierarchical.eight_schools_noncentered,
    "garch-garch11": time_series.garch11,
    "gp_pois_regr-gp_pois_regr": gaussian_process.gp_pois_regr,
    "gp_pois_regr-gp_regr": gaussian_process.gp_regr,
    "hmm_example-hmm_example": hidden_markov.hmm_example,
    "hudson_lynx_hare-lotka_volterra": differential_equations.lotka_volterra,
    "kidiq-kidscore_interaction": regression.kidscore_interaction,
    "kidiq-kidscore_momiq": regression.kidscore_momiq,
    "kidiq_with_mom_work-kidscore_interaction_c": regression.kidscore_interaction_c,
    "kilpisjarvi_mod-kilpisjarvi": regression.kilpisjarvi,
    "low_dim_gauss_mix-low_dim_gauss_mix": mixture.low_dim_gauss_mix,
    "mesquite-logmesquite": regression.logmesquite,
    "mesquite-mesquite": regression.mesquite,
    "nes1980-nes": regression.nes1980,
    "nes2000-nes": regression.nes2000,
    "one_comp_mm_elim_abs-one_comp_mm_elim_abs": differential_equations.one_comp_mm_elim_abs,
    "sblrc-blr": regression.blr,
}
NAMES = tuple(BUILDERS)


def load(name: str, path: str | os.PathLike | None = None) -> Model:
    """One posterior with its data.

    Args:
      name: one of `NAMES`.
      path: where the posteriordb is; see `benchmarks.problems.reference.find`.

    Returns:
      The `Model`.

    Raises:
      ValueError: no such model is written here.
      FileNotFoundError: no posteriordb, or the data are not in it.
    """
    if name not in BUILDERS:
        raise ValueError(f"wanted one of {', '.join(NAMES)}; given {name!r}")
    return BUILDERS[name](reference.load_data(name, path))


__all__ = ["NAMES", "Model", "load", "reference"]
