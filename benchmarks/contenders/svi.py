"""Stochastic VI by `optax.adam` from N(0, I), as a fit of a number of steps in one compiled program.

All maximise the same bound. The hand-written loop is the obvious one: `jit(scan(value_and_grad + adam))`,
`random.normal(key, (S, D))`, `vmap` over the draws, the entropy in closed form. NumPyro and BlackJAX estimate the entropy
from the draws, having no other form of the bound for a Gaussian; both run inside one jitted `scan`, which is kinder to
NumPyro than its own `svi.run`, that compiles on each call.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from benchmarks.problems.regressions import Density

LEARNING_RATE = 0.01
Fit = Callable
"""`(key, data) -> (loc, scale)`, the scale [D] or [D, D]; with a leading axis of keys, data and results for a batch."""


def hand(problem: Density, full: bool, num_samples: int, steps: int) -> Fit:
    """A loop as a person writes it who knows JAX."""
    size, optimizer = problem.size, optax.adam(LEARNING_RATE)

    def scale(params):
        if full:
            return jnp.tril(params["lower"], -1) + jnp.diag(jnp.exp(params["log_scale"]))
        return jnp.exp(params["log_scale"])

    def loss(params, key, data):
        noise = jax.random.normal(key, (num_samples, size))
        z = params["loc"] + (noise @ scale(params).T if full else noise * scale(params))
        energy = jnp.mean(jax.vmap(lambda z: problem.log_density(z, data))(z))
        return -(energy + jnp.sum(params["log_scale"]))

    def fit(key, data):
        params = {"loc": jnp.zeros(size), "log_scale": jnp.zeros(size)}
        if full:
            params["lower"] = jnp.zeros((size, size))

        def step(carry, key):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, key, data)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), value

        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, steps))
        return (params["loc"], scale(params)), losses

    return _jitted(fit, problem)


def elbojax(problem: Density, full: bool, num_samples: int, steps: int) -> Fit:
    """`svi` in `run`, or in `run_batch`."""
    import elbojax

    loss = elbojax.as_loss(elbojax.elbo_entropy, problem.log_density, num_samples=num_samples)
    solver = elbojax.svi(loss, optax.adam(LEARNING_RATE))
    zeros = jnp.zeros(problem.size)
    q = elbojax.full_rank(zeros, jnp.eye(problem.size)) if full else elbojax.mean_field(zeros, 1.0)
    if problem.models is None:
        return lambda key, data: elbojax.run(key, solver, q, data, num_steps=steps).q
    qs = jax.tree.map(lambda x: jnp.broadcast_to(x, (problem.models, *x.shape)), q)
    return lambda keys, data: elbojax.run_batch(keys, solver, qs, data, max_steps=steps).q


def numpyro(problem: Density, full: bool, num_samples: int, steps: int) -> Fit:
    """Its `SVI` with an automatic guide."""
    import numpyro
    from numpyro.infer import SVI, Trace_ELBO, autoguide

    def model(data):
        support = numpyro.distributions.constraints.real_vector
        z = numpyro.sample("z", numpyro.distributions.ImproperUniform(support, (), (problem.size,)))
        numpyro.factor("log_density", problem.log_density(z, data))

    start = numpyro.infer.init_to_value(values={"z": jnp.zeros(problem.size)})
    make = autoguide.AutoMultivariateNormal if full else autoguide.AutoDiagonalNormal
    guide = make(model, init_loc_fn=start, init_scale=1.0)
    # Logarithms of scales as everyone else, not its softplus, lest Adam take another path.
    guide.scale_constraint = numpyro.distributions.constraints.positive
    guide.scale_tril_constraint = numpyro.distributions.constraints.lower_cholesky
    svi = SVI(model, guide, optax.adam(LEARNING_RATE), Trace_ELBO(num_particles=num_samples))

    def fit(key, data):
        state, losses = jax.lax.scan(lambda s, _: svi.update(s, data), svi.init(key, data), length=steps)
        params = svi.get_params(state)
        return (params["auto_loc"], params["auto_scale_tril" if full else "auto_scale"]), losses

    return _jitted(fit, problem)


def blackjax(problem: Density, full: bool, num_samples: int, steps: int) -> Fit:
    """Its `meanfield_vi` or `fullrank_vi`."""
    import blackjax

    size, optimizer = problem.size, optax.adam(LEARNING_RATE)
    method = blackjax.fullrank_vi if full else blackjax.meanfield_vi

    def fit(key, data):
        # Its default, sticking the landing, is another estimator, and dearer.
        algorithm = method(lambda z: problem.log_density(z, data), optimizer, num_samples, stl_estimator=False)
        state = algorithm.init(jnp.zeros(size))
        if not full:
            state = state._replace(rho=jnp.zeros(size))
        state, infos = jax.lax.scan(lambda s, key: algorithm.step(key, s), state, jax.random.split(key, steps))
        if not full:
            return (state.mu, jnp.exp(state.rho)), infos
        lower = jnp.zeros((size, size)).at[jnp.tril_indices(size, -1)].set(state.chol_params[size:])
        return (state.mu, lower + jnp.diag(jnp.exp(state.chol_params[:size]))), infos

    return _jitted(fit, problem)


def _jitted(fit: Callable, problem: Density) -> Callable:
    return jax.jit(fit if problem.models is None else jax.vmap(fit))


SVI: dict[str, Callable[[Density, bool, int, int], Fit]] = {
    "hand": hand,
    "elbojax": elbojax,
    "NumPyro": numpyro,
    "BlackJAX": blackjax,
}
