"""The same bound in other libraries, on one q and one set of draws: its value and its gradient beside ours."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

import elbojax
from benchmarks.problems.noisy import two_bumps
from elbojax.objectives import csiszar


class Agreement(NamedTuple):
    """A peer's value and gradient (in loc and log-scale) beside ours.

    Attributes:
      value: ours.
      difference: of the values.
      gradient_difference: the largest.
    """

    value: float
    difference: float
    gradient_difference: float


def agreement(ours, theirs) -> Agreement:
    (ours, our_gradient), (theirs, their_gradient) = ours, theirs
    off = jnp.max(jnp.abs(flat(our_gradient) - flat(their_gradient)))
    return Agreement(float(ours), abs(float(ours) - float(theirs)), float(off))


def flat(tree):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


SIZE = 16


def made():
    """q and the key of the draws."""
    return elbojax.mean_field(jnp.array([0.4, -0.3]), jnp.array([1.6, 1.3])), jax.random.key(7)


def noise_of(q, z):
    return jax.vmap(q.noise_of)(z)[None]


def renyi(q, z, alpha):
    """Value and gradient of our bound with the noise held that gives these draws."""
    noise = noise_of(q, z)
    return jax.value_and_grad(lambda q: elbojax.objectives.renyi_bound_at(noise, q, two_bumps, alpha=alpha))(q)


def numpyro_agrees(alpha):
    """Draws by seeding its guide with its own keys; its loss is minus the bound."""
    q, key = made()
    import numpyro
    from numpyro.infer import RenyiELBO

    def model():
        z = numpyro.sample(
            "z", numpyro.distributions.ImproperUniform(numpyro.distributions.constraints.real_vector, (), (2,))
        )
        numpyro.factor("log_density", two_bumps(z))

    def guide():
        loc, log_scale = (numpyro.param(name, jnp.zeros(2)) for name in ("loc", "log_scale"))
        numpyro.sample("z", numpyro.distributions.Normal(loc, jnp.exp(log_scale)).to_event(1))

    params = {"loc": q.loc, "log_scale": q.log_scale}
    loss = RenyiELBO(alpha=alpha, num_particles=SIZE)
    value, gradient = jax.value_and_grad(lambda p: -loss.loss(key, p, model, guide))(params)

    def draw(key):
        seeded = numpyro.handlers.seed(numpyro.handlers.substitute(guide, data=params), jax.random.split(key)[1])
        return numpyro.handlers.trace(seeded).get_trace()["z"]["value"]

    keys = jax.random.split(jax.random.split(key)[1], SIZE)
    z = jnp.stack([draw(key) for key in keys])
    return agreement(renyi(q, z, alpha), (value, (gradient["loc"], gradient["log_scale"])))


def blackjax_agrees(alpha):
    """One step of gradient descent at rate 1 tells its gradient, its own sampler the draws."""
    q, key = made()
    from blackjax.vi import meanfield_vi

    state = meanfield_vi.MFVIState(q.loc, q.log_scale, optax.sgd(1.0).init((q.loc, q.log_scale)))
    new, info = meanfield_vi.step(
        key,
        state,
        two_bumps,
        optax.sgd(1.0),
        num_samples=SIZE,
        objective=meanfield_vi.RenyiAlpha(alpha),
        stl_estimator=False,
    )
    z = meanfield_vi.sample(key, state, SIZE)
    return agreement(renyi(q, z, alpha), (-info.elbo, (new.mu - q.loc, new.rho - q.log_scale)))


def tfp_agrees(name, generator):
    """Its functions of log u under its surrogate loss, reparameterised, on its own draws."""
    q, key = made()
    import tensorflow_probability.substrates.jax as tfp

    def distribution(q):
        return tfp.distributions.MultivariateNormalDiag(q.loc, jnp.exp(q.log_scale))

    def theirs(q):
        return tfp.vi.monte_carlo_variational_loss(
            two_bumps_of_many, distribution(q), sample_size=SIZE, discrepancy_fn=getattr(tfp.vi, name), seed=key
        )

    seen = []
    tfp.vi.monte_carlo_variational_loss(
        lambda z: seen.append(z) or two_bumps_of_many(z), distribution(q), sample_size=SIZE, seed=key
    )
    (z,) = seen

    noise = noise_of(q, z)[0]

    def ours(q):
        return elbojax.objectives.csiszar.f_divergence_at(noise, q, two_bumps, generator=generator)

    return agreement(*(jax.value_and_grad(f)(q) for f in (ours, theirs)))


def two_bumps_of_many(z):
    return jax.vmap(two_bumps)(z)


def pearson(log_ratio):
    """(u - 1)^2, which differs from `chi_square` by a multiple of u - 1."""
    return jnp.expm1(log_ratio) ** 2


ALPHAS = (0.0, 0.5, 2.0, -1.0)
GENERATORS = {
    "kl_reverse": csiszar.reverse_kl,
    "kl_forward": csiszar.inclusive_kl,
    "squared_hellinger": csiszar.squared_hellinger,
    "total_variation": csiszar.total_variation,
    "pearson": pearson,
}
"""By their names in TensorFlow Probability."""
BOUNDS: dict[str, dict[str, Callable[[], Agreement]]] = {
    f"renyi_bound, alpha = {alpha}": {
        "NumPyro RenyiELBO": lambda alpha=alpha: numpyro_agrees(alpha),
        "BlackJAX RenyiAlpha": lambda alpha=alpha: blackjax_agrees(alpha),
    }
    for alpha in ALPHAS
} | {
    f"f_divergence, {generator.__name__}": {
        "TFP monte_carlo_variational_loss": lambda name=name, generator=generator: tfp_agrees(name, generator)
    }
    for name, generator in GENERATORS.items()
}
"""Bound -> peers that have it."""
