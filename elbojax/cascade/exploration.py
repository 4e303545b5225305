"""The exploration check: a test for posterior mass outside the proposal, by short Hamiltonian chains.

Importance weights cannot tell of mass that no draw has come near, such as the other half of a ring. Steps of MCMC can,
for they leave the posterior as it is: from draws of it they lead to draws of it, and not to where the proposal puts nothing.
"""

import jax
import jax.numpy as jnp

from elbojax import thresholds
from elbojax.cascade.handover import from_moments
from elbojax.cascade.importance import Outcome
from elbojax.families import Family
from elbojax.numerics import tree_where
from elbojax.types import Array, Key, LogDensity, Status
from elbojax.weights import pick


def lengths() -> tuple[int, ...]:
    """Gradients of the trajectories: of a look at the start, of those that try a step, and of those with the best one."""
    tried = (thresholds.EXPLORATION_TRIED,) * len(thresholds.EXPLORATION_STEP_SIZES)
    return (1, *tried, *(thresholds.EXPLORATION_LONG,) * thresholds.EXPLORATION_TRAJECTORIES)


def chain_gradients() -> int:
    """Gradients of the chains."""
    return thresholds.EXPLORATION_CHAINS * sum(lengths())


def confirmed(key: Key, log_density: LogDensity, outcome: Outcome, proposal: Family) -> Outcome:
    r"""The outcome, its certificate withdrawn where short chains from its draws leave what the proposal covers.

    Under a kernel that leaves p invariant, starts :math:`z \sim p` and ends :math:`z'` have one distribution, and so has
    :math:`\log p - \log r` at them, with r the proposal. The more mass lies beyond, the higher that is at the ends.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      outcome: of a stage.
      proposal: which its draws are from.

    Returns:
      The `Outcome`; unchanged where it was not trusted, or its weights are light.
    """
    certificate = outcome.certificate
    trusted = (certificate.certified | (certificate.status == Status.MULTIMODAL)) & (
        certificate.khat > thresholds.EXPLORATION_HARMLESS
    )

    def look(_):
        starts, ends = _chains(key, log_density, outcome)
        ratio = jax.vmap(lambda z, value: value - proposal.log_prob(z))
        beyond = jnp.sum(jnp.maximum(ratio(*ends) - jnp.max(ratio(*starts)), 0))
        return jnp.zeros((), bool), beyond > thresholds.EXPLORATION_BEYOND

    # A loop of one turn: of models side by side, where none needs the look none takes it, as `cond` would have it.
    _, escaped = jax.lax.while_loop(lambda state: state[0], look, (trusted, jnp.zeros((), bool)))
    used = jnp.where(trusted, chain_gradients(), 0)
    return outcome._replace(
        certificate=certificate._replace(
            certified=certificate.certified & ~escaped,
            status=jnp.where(escaped, Status.UNRELIABLE, certificate.status).astype(jnp.int32),
            num_gradients=certificate.num_gradients + used,
        )
    )


def _chains(key: Key, log_density: LogDensity, outcome: Outcome) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Starts and ends [C, D] of Hamiltonian trajectories with their Metropolis steps, and the log-densities there."""
    start_key, run_key = jax.random.split(key)
    weights = jnp.exp(outcome.log_weights)
    whitening = from_moments(weights, outcome.draws)
    gradient = jax.value_and_grad(lambda u: log_density(whitening.forward(u)))
    dtype = outcome.draws.dtype

    def trajectory(key, here, size, length):
        """The next state of a chain, and the probability with which the trajectory's end was accepted."""
        momentum_key, accept_key = jax.random.split(key)
        momentum = jax.random.normal(momentum_key, here[0].shape, dtype)

        def leapfrog(_, state):
            (u, _, slope), momentum = state
            momentum = momentum + 0.5 * size * slope
            u = u + size * momentum
            value, slope = gradient(u)
            return (u, value.astype(dtype), slope), momentum + 0.5 * size * slope

        end, pushed = jax.lax.fori_loop(0, length, leapfrog, (here, momentum))
        gain = end[1] - here[1] - 0.5 * (pushed @ pushed - momentum @ momentum)
        chance = jnp.where(jnp.isnan(gain), 0, jnp.exp(jnp.minimum(gain, 0)))
        accept = jax.random.uniform(accept_key, dtype=dtype) < chance
        return tree_where(accept, end, here), chance

    def together(carry, step):
        """A trajectory of each chain: one body of the loop for all lengths, for the log-density is compiled in it."""
        here, furthest, most = carry
        key, given, length = step
        size = jnp.where(given >= 0, given, furthest)
        each = lambda key, here: trajectory(key, here, size, length)  # noqa: E731
        here, chances = jax.vmap(each)(jax.random.split(key, thresholds.EXPLORATION_CHAINS), here)
        far = size * jnp.mean(chances)
        return (here, jnp.where(far > most, size, furthest), jnp.maximum(far, most)), here[1]

    starts = outcome.draws[pick(start_key, outcome.log_weights, thresholds.EXPLORATION_CHAINS)]
    u = jax.vmap(whitening.inverse)(starts)
    # Below anything, so that the look at the start, a trajectory without motion, is accepted.
    unseen = (u, jnp.full(thresholds.EXPLORATION_CHAINS, -jnp.inf, dtype), jnp.zeros_like(u))
    sizes = jnp.asarray(
        (0.0, *thresholds.EXPLORATION_STEP_SIZES, *(-1.0 for _ in range(thresholds.EXPLORATION_TRAJECTORIES))), dtype
    )
    schedule = jax.random.split(run_key, len(lengths())), sizes, jnp.asarray(lengths())
    zero = jnp.zeros((), dtype)
    ((u, at_ends, _), _, _), values = jax.lax.scan(together, (unseen, zero, zero), schedule)
    return (starts, values[0]), (jax.vmap(whitening.forward)(u), at_ends)
