"""Whether the posterior goes on where a certified answer ends.

Importance weights cannot tell of mass that no draw has come near: half of a ring passes for a bow. Steps of MCMC can,
for they leave the posterior as it is: from draws of it they lead to draws of it, and not to where the proposal puts nothing.
"""

import jax
import jax.numpy as jnp

from elbojax.cascade.handover import from_moments
from elbojax.cascade.judge import Outcome
from elbojax.families import Family
from elbojax.numerics import tree_where
from elbojax.types import Array, Key, LogDensity, Status

NUM_CHAINS = 128
STEP_SIZES = (1.0, 0.5, 0.25, 0.125, 0.06, 0.03)
"""In standard deviations, tried one after the other: no warm-up, for one of them suits."""
TRIED = 3
"""Gradients of a trajectory that tries a step size."""
WALKS, WALKED = 3, 14
"""Trajectories of the step size that goes furthest, and gradients of each."""
BEYOND = 30.0
"""Nats by which the ends, all together, may exceed the highest start. Were starts and ends alike, and the tail of the
weights the heaviest that is certified, k-hat 0.7: their number is geometric, each exceeds by 0.7 / (1 - 0.7) nats on
average, and so much comes with a probability of one in a thousand."""
HARMLESS = 0.0
"""k-hat below which no chains are run: where an answer ends short of the posterior, its last draws are heavy."""


def confirmed(key: Key, log_density: LogDensity, outcome: Outcome, proposal: Family) -> Outcome:
    r"""The outcome, its certificate withdrawn where short chains from its draws leave what the proposal covers.

    Under a kernel that leaves p invariant, starts :math:`z \sim p` and ends :math:`z'` have one distribution, and so has
    :math:`\log p - \log r` at them, with r the proposal. The worse the leak, the higher that is at the ends.

    Args:
      key: consumed.
      log_density: [D] -> scalar.
      outcome: of a stage.
      proposal: which its draws are from.

    Returns:
      The `Outcome`; unchanged where it was not trusted, or its weights are light.
    """
    certificate = outcome.certificate
    # Light weights have no edge at which the posterior goes on.
    trusted = (certificate.certified | (certificate.status == Status.MULTIMODAL)) & (certificate.khat > HARMLESS)

    def look():
        starts, ends = _chains(key, log_density, outcome)
        ratio = jax.vmap(lambda z, value: value - proposal.log_prob(z))
        return jnp.sum(jnp.maximum(ratio(*ends) - jnp.max(ratio(*starts)), 0)) > BEYOND

    leaks = jax.lax.cond(trusted, look, lambda: jnp.zeros((), bool))
    spent = jnp.where(trusted, NUM_CHAINS * (1 + len(STEP_SIZES) * TRIED + WALKS * WALKED), 0)
    return outcome._replace(
        certificate=certificate._replace(
            certified=certificate.certified & ~leaks,
            status=jnp.where(leaks, Status.UNRELIABLE, certificate.status).astype(certificate.status.dtype),
            num_gradients=certificate.num_gradients + spent,
        )
    )


def _chains(key: Key, log_density: LogDensity, outcome: Outcome) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Starts and ends [C, D] of Hamiltonian trajectories with their Metropolis steps, and the log-densities there."""
    weights = jnp.exp(outcome.log_weights)
    whitening = from_moments(weights, outcome.draws)
    gradient = jax.value_and_grad(lambda u: log_density(whitening.forward(u)))
    step_sizes = jnp.asarray(STEP_SIZES, outcome.draws.dtype)

    def trajectory(key, here, size, num_steps):
        """The next state of a chain, and the probability with which the trajectory's end was accepted."""
        momentum_key, accept_key = jax.random.split(key)
        momentum = jax.random.normal(momentum_key, here[0].shape, here[0].dtype)

        def leapfrog(state, _):
            (u, _, slope), momentum = state
            momentum = momentum + 0.5 * size * slope
            u = u + size * momentum
            value, slope = gradient(u)
            return ((u, value, slope), momentum + 0.5 * size * slope), None

        (end, pushed), _ = jax.lax.scan(leapfrog, (here, momentum), None, num_steps)
        gain = end[1] - here[1] - 0.5 * (pushed @ pushed - momentum @ momentum)
        chance = jnp.where(jnp.isnan(gain), 0, jnp.exp(jnp.minimum(gain, 0)))
        accept = jax.random.uniform(accept_key, dtype=chance.dtype) < chance
        return tree_where(accept, end, here), chance

    def sweep(key, here, sizes, num_steps):
        """All chains, with one step size after the other; and the mean chance of each."""

        def together(here, step):
            size, key = step
            each = lambda key, here: trajectory(key, here, size, num_steps)  # noqa: E731
            here, chances = jax.vmap(each)(jax.random.split(key, NUM_CHAINS), here)
            return here, jnp.mean(chances)

        return jax.lax.scan(together, here, (sizes, jax.random.split(key, len(sizes))))

    start_key, try_key, walk_key = jax.random.split(key, 3)
    starts = outcome.draws[jax.random.choice(start_key, weights.size, (NUM_CHAINS,), p=weights)]
    u = jax.vmap(whitening.inverse)(starts)
    first = (u, *jax.vmap(gradient)(u))
    here, chances = sweep(try_key, first, step_sizes, TRIED)
    furthest = step_sizes[jnp.argmax(step_sizes * chances)]
    (u, at_ends, _), _ = sweep(walk_key, here, jnp.full(WALKS, furthest), WALKED)
    return (starts, first[1]), (jax.vmap(whitening.forward)(u), at_ends)
