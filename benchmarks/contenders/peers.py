"""What a person would use instead: NumPyro's guides and NUTS, nutpie, BlackJAX's Pathfinder, on the same flat log-density."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import optax

import elbojax
from benchmarks.contenders.answers import NUM_DRAWS, Answer, from_family
from benchmarks.problems.posterior import Problem
from elbojax.diagnostics import psis

NUM_STEPS, RATE, INIT_SCALE = 10_000, 0.01, 0.1
NUM_WARMUP, NUM_SAMPLES = 500, 500
NUM_PATHS, SPREAD, PATH_DRAWS, PATH_STEPS = 4, 2.0, 200, 30
"""Ours for the starts of several paths; BlackJAX's own defaults for the rest."""


def optimizer() -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(RATE, NUM_STEPS))


def _guide(full: bool):
    def method(problem: Problem):
        import numpyro
        from numpyro.infer import SVI, Trace_ELBO, autoguide

        def model(data):
            support = numpyro.distributions.constraints.real_vector
            z = numpyro.sample("z", numpyro.distributions.ImproperUniform(support, (), (problem.size,)))
            numpyro.factor("log_density", problem.target.log_density(z, data))

        start = numpyro.infer.init_to_value(values={"z": problem.start})
        make = autoguide.AutoMultivariateNormal if full else autoguide.AutoNormal
        svi = SVI(model, make(model, init_loc_fn=start, init_scale=INIT_SCALE), optimizer(), Trace_ELBO())

        @jax.jit
        def train(key, data):
            # Its own svi.run would compile on each call.
            state, losses = jax.lax.scan(lambda s, _: svi.update(s, data), svi.init(key, data), length=NUM_STEPS)
            return svi.get_params(state), losses[-1]

        def answer(key, result):
            params, loss = result
            if full:
                q = elbojax.full_rank(params["auto_loc"], params["auto_scale_tril"])
            else:
                q = elbojax.mean_field(params["z_auto_loc"], params["z_auto_scale"])
            return from_family(key, problem, q, NUM_STEPS, "done" if jnp.isfinite(loss) else "non_finite")

        return lambda key: train(key, problem.model.data), answer

    return method


def nuts(problem: Problem):
    from numpyro.infer import NUTS

    @jax.jit
    def chain(key, data):
        # One program for adaptation and sampling, where MCMC.run compiles two, and it counts the leapfrogs of both.
        density = problem.density(data)
        kernel = NUTS(potential_fn=lambda z: -density(z))
        state = kernel.init(key, NUM_WARMUP, problem.start, (), {})

        def step(state, _):
            state = kernel.sample(state, (), {})
            return state, (state.z, state.num_steps, state.diverging)

        _, (draws, leapfrogs, diverging) = jax.lax.scan(step, state, length=NUM_WARMUP + NUM_SAMPLES)
        return draws[NUM_WARMUP:], jnp.sum(leapfrogs), jnp.sum(diverging[NUM_WARMUP:])

    def answer(key, result):
        del key
        draws, leapfrogs, diverging = result
        status = f"{int(diverging)} divergent" if diverging else "done"
        return Answer(draws, jnp.zeros(len(draws)), float(leapfrogs), status)

    return lambda key: chain(key, problem.model.data), answer


def mcmc(problem: Problem):
    """The same sampler by the call that NumPyro's pages show. Its leapfrogs in adaptation are not told, and not counted."""
    from numpyro.infer import MCMC, NUTS

    density = problem.density(problem.model.data)
    chain = MCMC(
        NUTS(potential_fn=lambda z: -density(z)),
        num_warmup=NUM_WARMUP,
        num_samples=NUM_SAMPLES,
        progress_bar=False,
    )

    def call(key):
        chain.run(key, init_params=problem.start, extra_fields=("num_steps", "diverging"))
        return chain.get_samples(), chain.get_extra_fields()

    def answer(key, result):
        del key
        draws, fields = result
        diverging = int(jnp.sum(fields["diverging"]))
        status = f"{diverging} divergent" if diverging else "done"
        return Answer(draws, jnp.zeros(len(draws)), float(jnp.sum(fields["num_steps"])), status)

    return call, answer


def nutpie(problem: Problem):
    """nutpie on the same log-density, from its own start."""
    from benchmarks.contenders.nutpie_nuts import draws_of

    value_and_gradient = jax.jit(lambda z, data: jax.value_and_grad(problem.density(data))(z))

    def call(key):
        return draws_of(key, problem.size, lambda z: value_and_gradient(z, problem.model.data), NUM_WARMUP, NUM_SAMPLES)

    def answer(key, result):
        del key
        draws, gradients, diverging = result
        return Answer(draws, np.zeros(len(draws)), gradients, f"{diverging} divergent" if diverging else "done")

    return call, answer


def _paths(num_paths: int):
    """BlackJAX's Pathfinder: draws of the best Gaussian of one path, or those of several, weighted."""

    def method(problem: Problem):
        from blackjax.vi.multipathfinder import multi_approximate
        from blackjax.vi.pathfinder import approximate, sample

        def run(key, density):
            fit_key, start_key, draw_key = jax.random.split(key, 3)
            box = jax.random.uniform(start_key, (num_paths, problem.size), problem.start.dtype, -SPREAD, SPREAD)
            starts = problem.start + box.at[0].set(0)
            if num_paths == 1:
                state, _ = approximate(fit_key, density, starts[0], PATH_DRAWS)
                draws, log_q = sample(draw_key, state, NUM_DRAWS)
                return starts, draws, jax.vmap(density)(draws), log_q
            state, _ = multi_approximate(fit_key, density, starts, PATH_DRAWS)
            return starts, state.samples.reshape(-1, problem.size), state.logp.ravel(), state.logq.ravel()

        timed = jax.jit(lambda key, data: run(key, problem.density(data)))
        counted = jax.jit(lambda starts, data: _path_gradients(problem.density(data), starts))

        def answer(key, result):
            del key
            starts, draws, log_p, log_q = result
            usable = jnp.isfinite(log_p) & jnp.isfinite(log_q)
            smoothed = psis(jnp.where(usable, log_p - log_q, -jnp.inf))
            # The draws of one path are assessed by themselves; their k-hat is the benchmark's look, not the method's.
            weights, checks = (jnp.zeros(NUM_DRAWS), 0) if num_paths == 1 else (smoothed.log_weights, len(draws))
            used = counted(starts, problem.model.data) + 0.5 * (num_paths * PATH_DRAWS * (PATH_STEPS + 1) + checks)
            status = "done" if usable.any() else "non_finite"
            return Answer(draws, weights, float(used), status, khat=float(smoothed.khat))

        return lambda key: timed(key, problem.model.data), answer

    return method


def _path_gradients(density, starts):
    """Gradients that BlackJAX's path takes, which it does not tell: the same steps of optax's L-BFGS, with a counter."""
    value = lambda z: -density(z)  # noqa: E731
    solver = optax.lbfgs(memory_size=10, linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=1000))
    cached = optax.value_and_grad_from_state(value)

    def unfinished(carry):
        _, _, steps, _, running = carry
        return running & (steps < PATH_STEPS)

    def step(carry):
        z, state, steps, used, _ = carry
        before, gradient = cached(z, state=state)
        updates, state = solver.update(gradient, state, z, value=before, grad=gradient, value_fn=value)
        z = optax.apply_updates(z, updates)
        after = value(z)
        change = jnp.abs(before - after) / jnp.maximum(jnp.maximum(jnp.abs(before), jnp.abs(after)), 1)
        running = (jnp.linalg.norm(gradient) > 1e-8) & (change > 1e-5)
        # One more at the new point, outside of the line search.
        return z, state, steps + 1, used + state[-1].info.num_linesearch_steps + 1, running

    def path(start):
        return jax.lax.while_loop(unfinished, step, (start, solver.init(start), 0, 1, True))[3]

    return jnp.sum(jax.vmap(path)(starts))


METHODS = {
    "numpyro_autonormal": _guide(False),
    "numpyro_automultivariatenormal": _guide(True),
    "blackjax_pathfinder": _paths(1),
    "blackjax_multipathfinder": _paths(NUM_PATHS),
    "numpyro_nuts": nuts,
    "numpyro_mcmc": mcmc,
    "nutpie": nutpie,
}


def absent() -> tuple[str, ...]:
    """Methods whose package is not installed."""
    return tuple(name for name in METHODS if importlib.util.find_spec(name.partition("_")[0]) is None)
