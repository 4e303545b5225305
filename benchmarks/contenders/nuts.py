"""NUTS: NumPyro's own call, the same in one program written by hand, BlackJAX as its pages show it."""

import numpy as np

from benchmarks.contenders.base import Answer, Contender, density

WARMUP, DRAWS = 500, 500


def one_scan(known, power):
    import jax
    import jax.numpy as jnp
    from numpyro.infer import NUTS

    log_density = density(known, power)

    @jax.jit
    def chain(key, data):
        kernel = NUTS(potential_fn=lambda z: -log_density(z, data))
        state = kernel.init(key, WARMUP, jnp.zeros(known.size), (), {})

        def step(state, _):
            state = kernel.sample(state, (), {})
            return state, (state.z, state.num_steps)

        _, (draws, steps) = jax.lax.scan(step, state, length=WARMUP + DRAWS)
        return draws[WARMUP:], jnp.sum(steps)

    def call(key):
        draws, steps = chain(key, known.data)
        return of_draws(draws, float(steps))

    return call


def numpyro_run(known, power):
    import jax.numpy as jnp
    from numpyro.infer import MCMC, NUTS

    log_density = density(known, power)

    def call(key):
        kernel = NUTS(potential_fn=lambda z: -log_density(z, known.data))
        chain = MCMC(kernel, num_warmup=WARMUP, num_samples=DRAWS, progress_bar=False)
        chain.run(key, init_params=jnp.zeros(known.size), extra_fields=("num_steps",))
        return of_draws(chain.get_samples(), None)

    return call


def blackjax_windows(known, power):
    import blackjax
    import jax
    import jax.numpy as jnp

    log_density = density(known, power)

    @jax.jit
    def chain(key, data):
        posterior = lambda z: log_density(z, data)  # noqa: E731
        adapting, sampling = jax.random.split(key)
        warmup = blackjax.window_adaptation(blackjax.nuts, posterior)
        (state, parameters), adapted = warmup.run(adapting, jnp.zeros(known.size), num_steps=WARMUP)
        kernel = blackjax.nuts(posterior, **parameters).step

        def step(state, key):
            state, info = kernel(key, state)
            return state, (state.position, info.num_integration_steps)

        _, (draws, steps) = jax.lax.scan(step, state, jax.random.split(sampling, DRAWS))
        return draws, jnp.sum(steps) + jnp.sum(adapted.info.num_integration_steps)

    def call(key):
        draws, steps = chain(key, known.data)
        return of_draws(draws, float(steps))

    return call


def of_draws(draws, gradients) -> Answer:
    draws = np.asarray(draws, float)
    return Answer(draws.mean(axis=0), draws.std(axis=0, ddof=1), gradients=gradients)


ONE_SCAN = Contender(
    ("numpyro", "numpyro.infer"),
    one_scan,
    f"NUTS has one chain of {WARMUP} + {DRAWS}. `NumPyro NUTS, one scan` is NumPyro's kernel in a jitted scan written by hand.",
)
NUMPYRO = Contender(("numpyro", "numpyro.infer"), numpyro_run, "`NumPyro MCMC.run` is its own call.")
BLACKJAX = Contender(
    ("blackjax",), blackjax_windows, "`BlackJAX NUTS` is its window adaptation and a scan, jitted, as on its pages."
)
