"""Autoregressive flows: dense Jacobians, FlowJAX with the same weights, the bound without the score, priors, contexts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import elbojax

FASTS = ("sampling", "density")
each_way = pytest.mark.parametrize("fast", FASTS)


@functools.cache
def made(fast, size=4, seed=0, **settings):
    settings = dict(num_layers=2, hidden=(6,), num_context=2) | settings
    key = jax.random.key(seed)
    q = elbojax.autoregressive_flow(
        key, jnp.linspace(-1, 1, size), jnp.tril(jnp.eye(size) + 0.3), fast=fast, **settings
    )
    rng = np.random.default_rng(seed)
    q = dataclasses.replace(q, layers=jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape), q.layers))
    return q.given(jnp.array([0.4, -0.9])) if settings["num_context"] else q


@each_way
@pytest.mark.parametrize("kind", ("affine", "rational_quadratic"))
def test_log_prob_is_the_change_of_variables_with_a_dense_jacobian(fast, kind):
    q = made(fast, kind=kind)
    noise = jax.random.normal(jax.random.key(1), (20, 4))

    @jax.jit
    @jax.vmap
    def both(noise):
        jacobian = jax.jacfwd(q.transport)(noise)
        base = jnp.sum(jax.scipy.stats.norm.logpdf(noise))
        z = q.transport(noise)
        return q.log_prob(z), base - jnp.linalg.slogdet(jacobian)[1], q.standardised(z)

    said, expected, back = both(noise)
    np.testing.assert_allclose(said, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(back, noise, rtol=1e-8, atol=1e-8)


@each_way
def test_each_coordinate_depends_on_those_before_it_alone(fast):
    q = made(fast, num_layers=1)
    jacobian = jax.jacfwd(lambda x: q.map.forward_and_log_det(q.layers, x)[0])(jnp.linspace(-1, 1, 4))
    assert np.all(np.triu(jacobian, 1) == 0) and np.all(jacobian[np.tril_indices(4)] != 0)


@pytest.mark.parametrize("num_context", (0, 2))
def test_is_flowjax_with_the_same_weights(num_context):
    pytest.importorskip("flowjax")
    import equinox
    import paramax
    from flowjax.bijections import Affine, MaskedAutoregressive

    scale = paramax.Parameterize(lambda raw: jnp.exp(3 * jnp.tanh(raw / 3)), jnp.zeros(()))
    theirs = MaskedAutoregressive(
        jax.random.key(0),
        transformer=equinox.tree_at(lambda affine: affine.scale, Affine(), scale),
        dim=4,
        cond_dim=num_context or None,
        nn_width=6,
        nn_depth=2,
        nn_activation=jnp.tanh,
    )
    q = made("sampling", num_layers=1, hidden=(6, 6), num_context=num_context)
    layers = q.layers["networks"]["params"]
    turn = np.arange(8).reshape(4, 2)[:, ::-1].ravel()  # their affine map names the shift first
    for i, layer in enumerate(paramax.unwrap(theirs).masked_autoregressive_mlp.layers):
        columns = turn if i == 2 else slice(None)
        layers[f"Masked_{i}"] = {"kernel": layer.weight.T[None, :, columns], "bias": layer.bias[None, columns]}
    layers["Masked_3"] = jax.tree.map(jnp.zeros_like, layers["Masked_3"])  # the quadratic, which FlowJAX has not
    condition = q.layers["context"]
    points = jax.random.normal(jax.random.key(2), (5, 4))
    for way, back in ((theirs.transform_and_log_det, False), (theirs.inverse_and_log_det, True)):
        ours = q.map.inverse_and_log_det if back else q.map.forward_and_log_det
        y, log_det = jax.jit(jax.vmap(lambda x, f=ours: f(q.layers, x)))(points)
        expected, their_log_det = jax.jit(jax.vmap(lambda x, f=way: f(x, condition)))(points)
        np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(-log_det if back else log_det, their_log_det, rtol=1e-10, atol=1e-12)


@functools.cache
def gradients(fast):
    """Of `elbo` and of `elbo_stl`, draw by draw, towards a flow a little aside and towards itself: [2, 2, S, n]."""
    q = elbojax.coupling_flow(jax.random.key(0), jnp.zeros(2), jnp.eye(2), kind="affine", num_layers=2, hidden=(4,))
    if fast != "coupling":
        q = made(fast, size=2, hidden=(4,), num_context=0)
    rng = np.random.default_rng(1)
    aside = jax.tree.map(lambda x: x + 0.003 * rng.normal(size=x.shape), q)
    noise = jax.random.normal(jax.random.key(3), (4000, 1, 2))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def of(target, noise):
        return [
            jax.flatten_util.ravel_pytree(jax.grad(bound, 1)(noise, q, target.log_prob))[0]
            for bound in (elbojax.objectives.elbo_at, elbojax.objectives.elbo_stl_at)
        ]

    return np.array([of(target, noise) for target in (aside, q)])


@pytest.mark.parametrize("fast", ("coupling", *FASTS))
def test_the_bound_without_the_score_is_unbiased_and_quiet(fast):
    (plain, quiet), (at_itself, still) = gradients(fast)
    difference = plain - quiet
    error = difference.std(0) / np.sqrt(len(difference))
    assert np.all(np.abs(difference.mean(0)) <= 5 * error + 1e-12)
    moving = plain.var(0) > 0
    assert np.median(quiet.var(0)[moving] / plain.var(0)[moving]) < 0.1
    assert np.abs(still).max() < 1e-9 < at_itself.var(0).sum()


def test_a_flow_that_draws_fast_is_trained_and_goes_on():
    start = elbojax.autoregressive_flow(jax.random.key(0), jnp.array([0.0, 1.0]), jnp.eye(2), num_layers=2, hidden=(8,))
    log_density = lambda z: -0.5 * z[0] ** 2 - 0.5 * (z[1] - z[0] ** 2) ** 2  # noqa: E731
    q, info = jax.jit(lambda key: elbojax.fit_flow(key, log_density, start, num_steps=400))(jax.random.key(1))
    assert info.status == elbojax.Status.MAX_STEPS
    check = jax.jit(lambda q: elbojax.assess(jax.random.key(2), q, log_density, num_samples=1000))(q)
    assert np.log(2 * np.pi) - 0.1 < check.elbo < np.log(2 * np.pi) + 0.01


SPREAD = 0.3
CENTRES = np.array([[-1.5, -1.0], [1.5, 1.0]])


def clouds():
    """512 places around two centres, seen with noise; and the mean log evidence of the model that made them."""
    rng = np.random.default_rng(0)
    z = CENTRES[rng.integers(2, size=512)] + SPREAD * rng.normal(size=(512, 2))
    x = z + SPREAD * rng.normal(size=z.shape)
    squared = ((x[:, None] - CENTRES) ** 2).sum(-1) / (2 * SPREAD**2)
    return jnp.asarray(x), np.mean(np.logaddexp(*(-0.5 * squared - np.log(4 * np.pi * SPREAD**2) - np.log(2)).T))


def trained(prior, x):
    """The mean bound of an autoencoder with a fixed decoder, a linear encoder and this prior, trained together."""

    def bound(key, params, x):
        encoder, prior = params["encoder"], params["prior"]
        q = elbojax.mean_field(encoder["scale"] * x + encoder["shift"], jnp.exp(encoder["log_sd"]))

        def log_joint(z):
            return prior.log_prob(z) + jnp.sum(jax.scipy.stats.norm.logpdf(x, z, SPREAD))

        return elbojax.elbo(key, q, log_joint)

    def loss(key, params, x):
        return -jnp.mean(jax.vmap(bound, (0, None, 0))(jax.random.split(key, len(x)), params, x))

    params = {"encoder": {"scale": 0.7, "shift": jnp.zeros(2), "log_sd": jnp.full(2, -1.0)}, "prior": prior}
    steps = optax.adam(optax.cosine_decay_schedule(0.03, 400))
    fit = elbojax.run(jax.random.key(0), elbojax.svi(loss, steps), params, x, num_steps=400)
    return -np.mean([jax.jit(loss)(jax.random.key(i), fit.q, x) for i in range(20)])


@pytest.mark.slow
def test_as_a_prior_it_learns_two_clouds_and_a_gaussian_does_not():
    x, log_evidence = clouds()
    unit = jnp.zeros(2), 1.5 * jnp.eye(2)
    gaussian = trained(elbojax.full_rank(*unit), x)
    settings = dict(fast="density", kind="rational_quadratic", num_layers=2, hidden=(16,))
    flow = trained(elbojax.autoregressive_flow(jax.random.key(1), *unit, **settings), x)
    best = np.mean(jax.scipy.stats.multivariate_normal.logpdf(x, x.mean(0), np.cov(x.T)))
    assert gaussian < best + 0.01  # no Gaussian prior can do better
    assert gaussian + 0.3 < flow < log_evidence + 0.05  # 512 data points let it overfit by as much


@pytest.mark.slow
def test_with_a_context_one_flow_serves_all_data_points():
    """z ~ N(0, I), x ~ N(z_1 + z_0^2, 0.5^2): the posterior of z is bent otherwise for each x."""
    x = jnp.linspace(-2, 1, 32)
    grid = np.linspace(-6, 6, 601)

    def log_joint(z, x):
        return jnp.sum(jax.scipy.stats.norm.logpdf(z)) + jax.scipy.stats.norm.logpdf(x, z[1] + z[0] ** 2, 0.5)

    # z_1 summed out by hand, z_0 on a grid.
    log_evidence = jnp.mean(
        jax.scipy.special.logsumexp(
            jax.scipy.stats.norm.logpdf(grid)
            + jax.scipy.stats.norm.logpdf(x[:, None] - grid**2, 0.0, np.sqrt(1.25))
            + np.log(grid[1] - grid[0]),
            axis=1,
        )
    )

    def encode(params, x):
        features = jnp.array([1.0, x, x**2 / 4]) / 2
        loc, log_sd = (params["head"] @ features).reshape(2, 2)
        q = params["flow"].given(features)
        return dataclasses.replace(q, loc=loc, log_diagonal=log_sd - 0.5)

    def bound(key, params, x):
        return elbojax.elbo(key, encode(params, x), lambda z: log_joint(z, x), num_samples=4)

    def gap(num_layers, hidden):
        flow = elbojax.autoregressive_flow(
            jax.random.key(0), jnp.zeros(2), jnp.eye(2), num_layers=num_layers, hidden=hidden, num_context=3
        )
        trains = num_layers > 1

        def loss(key, params, x):
            params = params if trains else params | {"flow": jax.lax.stop_gradient(params["flow"])}
            return -jnp.mean(jax.vmap(bound, (0, None, 0))(jax.random.split(key, len(x)), params, x))

        params = {"head": jnp.zeros((4, 3)), "flow": flow}
        steps = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(0.01, 800)))
        fit = elbojax.run(jax.random.key(1), elbojax.svi(loss, steps), params, x, num_steps=800)
        return log_evidence + np.mean([jax.jit(loss)(jax.random.key(i), fit.q, x) for i in range(20)])

    gaussian, iaf = gap(1, (1,)), gap(3, (16,))
    assert -0.01 < iaf < 0.5 * gaussian
