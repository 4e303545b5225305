"""Minibatch VI: `fit_minibatches`, Adam at a fixed step size, NumPyro's SVI."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.problems.many_rows import ManyRows, log_likelihood, log_prior

BATCH = 256
SCALE = 0.1
"""Of the start of plain SVI, NumPyro's default."""


def fit_minibatches(problem: ManyRows, data: Any, control_variate: bool) -> Any:
    """(seed) -> `MinibatchFit`."""
    import elbojax

    model = (log_prior, log_likelihood, jnp.zeros(problem.size, jnp.float32), data)
    settings: dict[str, Any] = {"family": problem.family, "batch_size": BATCH, "control_variate": control_variate}
    return lambda seed: elbojax.fit_minibatches(jax.random.key(seed), *model, **settings)


def start(problem: ManyRows) -> Any:
    import elbojax

    zeros = jnp.zeros(problem.size, jnp.float32)
    if problem.family == "mean_field":
        return elbojax.mean_field(zeros, SCALE)
    return elbojax.full_rank(zeros, SCALE * jnp.eye(problem.size, dtype=jnp.float32))


def plain(problem: ManyRows, data: Any, rate: float, num_steps: int) -> Any:
    """Adam on the plain estimate: (key) -> q, the last iterate and the tail average."""
    import elbojax

    log_joint = elbojax.targets.subsample(log_prior, log_likelihood, problem.num_data)
    loss = elbojax.as_loss(elbojax.elbo_entropy, log_joint)
    solver = elbojax.solvers.polynomial_averaging(elbojax.minibatched(elbojax.svi(loss, optax.adam(rate)), BATCH))

    def fit(seed):
        run = elbojax.run(jax.random.key(seed), solver, start(problem), data, num_steps=num_steps)
        return run.lane.state.inner.q, run.q

    return fit


def numpyro_svi(problem: ManyRows, data: Any, rate: float, num_steps: int) -> Any:
    """NumPyro's SVI as documented, its updates in one scan: (seed) -> guide's means and sds."""
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import SVI, Trace_ELBO, autoguide

    def model(x, y):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([problem.size]).to_event(1))
        with numpyro.plate("rows", problem.num_data, subsample_size=BATCH):
            rows = numpyro.subsample(x, event_dim=1)
            numpyro.sample("y", dist.Bernoulli(logits=rows @ z), obs=numpyro.subsample(y, event_dim=0))

    kind = autoguide.AutoNormal if problem.family == "mean_field" else autoguide.AutoMultivariateNormal
    guide = kind(
        model, init_loc_fn=numpyro.infer.init_to_value(values={"z": jnp.zeros(problem.size)}), init_scale=SCALE
    )
    svi = SVI(model, guide, numpyro.optim.Adam(rate), Trace_ELBO())
    svi.init(jax.random.key(0), x=data[0], y=data[1])  # the guide learns the shapes of the model

    @jax.jit
    def fit(key, x, y):
        state = svi.init(key, x=x, y=y)
        state, _ = jax.lax.scan(lambda s, _: (svi.update(s, x=x, y=y)[0], None), state, None, length=num_steps)
        params = svi.get_params(state)
        if problem.family == "mean_field":
            return params["z_auto_loc"], params["z_auto_scale"]
        return params["auto_loc"], jnp.sqrt(jnp.sum(jnp.tril(params["auto_scale_tril"]) ** 2, axis=1))

    compiled = fit.lower(jax.random.key(0), *data).compile()
    return lambda seed: (compiled(jax.random.key(seed), *data),)
