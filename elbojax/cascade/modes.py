"""Several modes: one Gaussian in each, weighed against each other."""

import jax
import jax.numpy as jnp

from elbojax.cascade.certificate import Stage
from elbojax.cascade.gaussian import Scouts, affordable, narrowed
from elbojax.cascade.judge import Outcome, Spent, envelope, judge
from elbojax.cascade.leaks import COST, confirmed
from elbojax.families import FullRank, Mixture
from elbojax.solvers.newton import MAX_STEPS, draws_for, newton
from elbojax.types import Key, LogDensity, Scalar, Status


def fit_modes(
    key: Key, log_density: LogDensity, scouts: Scouts, outcome: Outcome, limit: Scalar | None = None
) -> Outcome:
    r"""A mixture of Gaussians, one fitted from the end of each scout.

    .. math:: q(z) = \sum_k \pi_k \mathrm N(z \mid m_k, \Sigma_k), \qquad \pi_k \propto e^{\mathrm{ELBO}_k}

    Scouts that end in one mode give it equal components, which do no harm. The importance weights correct what the
    pi_k get wrong. A mode that no scout has seen stays unseen.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      scouts: their ends.
      outcome: of the stage before, for its cost.
      limit: gradients of all stages, traced, that are not to be exceeded.

    Returns:
      An `Outcome`.
    """
    fit_key, check_key, leak_key = jax.random.split(key, 3)
    assert isinstance(scouts.q, FullRank), "a mixture is for few parameters"
    # From where the paths end: the best bound along a path may lie between the modes.
    ends = FullRank(scouts.modes, scouts.q.log_diagonal, scouts.q.lower)
    max_steps: int | Scalar = MAX_STEPS
    if limit is not None:
        num_paths, size = scouts.modes.shape
        max_steps = affordable(limit - outcome.certificate.num_gradients - COST, num_paths * draws_for(size))
    components, info = jax.vmap(lambda start: newton(fit_key, log_density, narrowed(start), max_steps=max_steps))(ends)
    usable = (info.status != Status.NON_FINITE) & (info.status != Status.STALLED)
    logits = jax.nn.log_softmax(jnp.where(usable, info.elbo, -jnp.inf))
    logits = jnp.maximum(logits, -30)  # a component without weight still has a finite gradient
    q = Mixture(logits, components)
    old = outcome.certificate
    spent = Spent(
        num_gradients=old.num_gradients + jnp.sum(info.num_gradients),
        num_log_densities=old.num_log_densities,
        modes=jnp.ones_like(old.modes),
        decrement=jnp.max(jnp.where(usable, info.decrement, 0)),
        fisher_divergence=old.fisher_divergence,
    )
    converged = jnp.full((), Status.CONVERGED, jnp.int32)
    proposal = cover(q)
    new = judge(check_key, q, proposal, log_density, Stage.MIXTURE, converged, spent)
    new = confirmed(leak_key, log_density, new, proposal)
    return new._replace(certificate=new.certificate._replace(modes=old.modes))


def least(num_paths: int, size: int) -> int:
    """Gradients without which there is no mixture: two looks at each Gaussian, and the short chains.

    Args:
      num_paths: P.
      size: D.

    Returns:
      Their number.
    """
    return 2 * num_paths * draws_for(size) + COST


def cover(q: Mixture) -> Mixture:
    """The same with Student t for Gaussian, and as many draws from each mode that is not negligible."""
    return Mixture(jnp.where(q.logits > -15, 0.0, q.logits), jax.vmap(envelope)(q.components))
