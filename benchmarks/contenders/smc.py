"""Adaptive tempered sequential Monte Carlo from BlackJAX: evidence as a product of increments."""

import numpy as np

from benchmarks.contenders.base import Answer, Contender
from benchmarks.problems.known import log_prior

PARTICLES, MOVES, LEAPFROGS, STEP, ESS = 1000, 5, 10, 0.3, 0.5
"""The step is one of standardised coordinates: it goes with the mass matrix, which follows the particles."""


def make(known, power):
    import blackjax
    import blackjax.smc.resampling as resampling
    import jax
    import jax.numpy as jnp
    from blackjax.smc import extend_params
    from blackjax.smc.inner_kernel_tuning import as_top_level_api as tuned

    def parameters(inverse_mass):
        one = {"step_size": STEP, "inverse_mass_matrix": inverse_mass, "num_integration_steps": LEAPFROGS}
        return extend_params(one)

    @jax.jit
    def run(key, data):
        likelihood = lambda z: power * known.log_likelihood(z, data)  # noqa: E731
        algorithm = tuned(
            blackjax.adaptive_tempered_smc,
            log_prior,
            likelihood,
            blackjax.hmc.build_kernel(),
            blackjax.hmc.init,
            resampling.systematic,
            lambda key, state, info: parameters(jnp.var(state.particles, axis=0)),
            parameters(jnp.ones(known.size)),
            num_mcmc_steps=MOVES,
            target_ess=ESS,
        )
        start_key, key = jax.random.split(key)
        state = algorithm.init(jax.random.normal(start_key, (PARTICLES, known.size)))

        def step(carry):
            state, key, total, steps = carry
            key, sub = jax.random.split(key)
            state, info = algorithm.step(sub, state)
            return state, key, total + info.log_likelihood_increment, steps + 1

        state, _, total, steps = jax.lax.while_loop(
            lambda carry: carry[0].sampler_state.tempering_param < 1, step, (state, key, jnp.zeros(()), 0)
        )
        return state.sampler_state.particles, total, steps

    def call(key):
        particles, total, steps = run(key, known.data)
        particles = np.asarray(particles)
        used = float(steps) * PARTICLES * MOVES * LEAPFROGS
        return Answer(particles.mean(axis=0), particles.std(axis=0, ddof=1), float(total), gradients=used)

    return call


CONTENDER = Contender(
    ("blackjax",),
    make,
    f"`BlackJAX SMC` is adaptive tempering with {PARTICLES:,} particles, each step {MOVES} moves of Hamiltonian"
    f" Monte Carlo of {LEAPFROGS} leapfrogs of {STEP} in units of the particles' sds, a target of {ESS:g} for the"
    " effective share; it states no error.",
)
