"""Several modes, on the host: one Gaussian in each, weighed against each other."""

import math

import numpy as np

from elbojax import thresholds
from elbojax.cascade.check.chains import chain_gradients, confirmed
from elbojax.cascade.check.importance import check, envelope
from elbojax.cascade.gaussian import Paths
from elbojax.cascade.importance import Cost, Outcome
from elbojax.cascade.stages.gaussian import affordable
from elbojax.cascade.stages.paths import gaussians
from elbojax.host import noise as noises
from elbojax.host.distributions import Gaussian, Mixture
from elbojax.host.newton import newton
from elbojax.host.requests import Stage, side_by_side
from elbojax.results import certificate
from elbojax.solvers.newton import draws_for
from elbojax.types import Status


def fit_modes(rng: np.random.Generator, paths: Paths, outcome: Outcome, limit: float = math.inf) -> Stage[Outcome]:
    r"""A mixture of Gaussians, one fitted from the end of each path.

    .. math:: q(z) = \sum_k \pi_k \mathrm N(z \mid m_k, \Sigma_k), \qquad \pi_k \propto e^{\mathrm{ELBO}_k}

    Paths that end in one mode give it equal components, which do no harm. The importance weights correct what the
    pi_k get wrong. A mode that no path has seen stays unseen.

    Args:
      rng: of all draws.
      paths: the paths.
      outcome: of the stage before, for its cost.
      limit: gradients of all stages that are not to be exceeded.

    Yields:
      Requests.

    Returns:
      An `Outcome`.
    """
    old = outcome.certificate
    num_paths, size = paths.modes.shape
    max_steps = affordable(limit - old.num_gradients - chain_gradients(), num_paths * draws_for(size))
    draws = noises.whitened(rng, draws_for(size), size)  # the same for all, so that their bounds can be compared
    # From where the paths end: the best bound along a path may lie between the modes.
    ends = [Gaussian(end, q.scale_tril) for end, q in zip(paths.modes, gaussians(paths), strict=True)]
    fits = yield from side_by_side(
        [newton(rng, end.narrowed(thresholds.NARROWED), draws=draws, max_steps=max_steps) for end in ends]
    )
    infos = [info for _, info in fits]
    usable = np.array([info.status not in (Status.NON_FINITE, Status.STALLED) for info in infos])
    elbos = np.where(usable, [info.elbo for info in infos], -np.inf)
    logits = np.maximum(
        elbos - np.logaddexp.reduce(elbos) if usable.any() else np.zeros(num_paths), thresholds.MIXTURE_UNSEEN
    )
    # One that is not a number anywhere would make the density of all that: of a path that began at its mode, say.
    there = np.array([np.all(np.isfinite(c.loc)) and np.all(np.isfinite(c.scale_tril)) for c, _ in fits])
    sound = np.flatnonzero(there) if there.any() else np.arange(num_paths)
    q = Mixture(logits[sound], tuple(fits[k][0] for k in sound))
    cost = Cost(
        num_gradients=old.num_gradients + sum(info.num_gradients for info in infos),
        num_log_densities=old.num_log_densities,
        modes=1,
        decrement=max([info.decrement for info, good in zip(infos, usable, strict=True) if good], default=0.0),
        fisher_divergence=old.fisher_divergence,
    )
    proposal = cover(q)
    stage = certificate.Stage.MIXTURE
    new = yield from check(rng, q, proposal, stage, Status.CONVERGED, cost)
    new = yield from confirmed(rng, new, proposal)
    return new._replace(certificate=new.certificate._replace(modes=old.modes))


def least(num_paths: int, size: int) -> int:
    """Gradients without which there is no mixture: two looks at each Gaussian, and the short chains.

    Args:
      num_paths: P.
      size: D.

    Returns:
      Their number.
    """
    return 2 * num_paths * draws_for(size) + chain_gradients()


def cover(q: Mixture) -> Mixture:
    """The same with Student t for Gaussian, and as many draws from each mode that is not negligible."""
    return Mixture(
        np.where(q.log_weights > thresholds.MIXTURE_LIGHT, 0.0, q.log_weights), tuple(map(envelope, q.components))
    )
