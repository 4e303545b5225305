"""How noisy each gradient estimator is, and whether other libraries have the same numbers for the same bound.

    python benchmarks/estimators.py [--estimates 4096]

Three problems, each at a `q` far from the answer, on the way and at it. Nothing is timed: costs are counts of log-density
gradients. Peers are given the same q and the same draws, and must give the same value and the same gradient to
rounding. TensorFlow Probability runs on the newest jax in its nightly releases only.
"""

import argparse
import functools
import importlib.util
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import elbojax  # noqa: E402
from benchmarks import timing  # noqa: E402
from elbojax import csiszar, densities, noise  # noqa: E402

DRAWS = 8
"""Log-densities that one estimate may take, whichever way it spends them."""


def with_settings(objective, **settings):
    return functools.partial(objective, **settings)


PATHWISE = {
    "elbo": with_settings(elbojax.elbo, num_samples=DRAWS),
    "elbo_stl": with_settings(elbojax.elbo_stl, num_samples=DRAWS),
    "elbo_entropy": with_settings(elbojax.elbo_entropy, num_samples=DRAWS),
    **{
        f"elbo_stl, {draws.__name__}": with_settings(elbojax.elbo_stl, num_samples=DRAWS, draws=draws)
        for draws in (noise.antithetic, noise.whitened, noise.sobol)
    },
    "elbo_score": with_settings(elbojax.elbo_score, num_samples=3 * DRAWS),
    "elbo_rloo": with_settings(elbojax.elbo_rloo, num_samples=3 * DRAWS),
}
IMPORTANCE = {
    f"{name}, K = {k}": with_settings(getattr(elbojax, name), num_importance=k)
    for name in ("iw_elbo", "iw_elbo_dreg")
    for k in (DRAWS, 64)
}
DISCRETE = {
    "elbo_score": with_settings(elbojax.elbo_score, num_samples=DRAWS),
    "elbo_rloo": with_settings(elbojax.elbo_rloo, num_samples=DRAWS),
    "elbo_vargrad": with_settings(elbojax.elbo_vargrad, num_samples=DRAWS),
    "elbo_disarm": with_settings(elbojax.elbo_disarm, num_samples=DRAWS // 2),
    "elbo_gumbel_softmax, 0.5": with_settings(elbojax.elbo_gumbel_softmax, temperature=0.5, num_samples=DRAWS),
    "straight through, 0.5": with_settings(
        elbojax.elbo_gumbel_softmax, temperature=0.5, straight_through=True, num_samples=DRAWS
    ),
    "elbo_enumerated": elbojax.elbo_enumerated,
}

Y, SD = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def eight_schools(z):
    """Non-centred: z = (mu, log tau, the eight standardised effects)."""
    mu, log_tau, effects = z[0], z[1], z[2:]
    prior = densities.normal(mu, 0.0, 5.0) + densities.half_cauchy(jnp.exp(log_tau), 5.0) + log_tau
    prior += jnp.sum(densities.normal(effects, 0.0, 1.0))
    return prior + jnp.sum(densities.normal(Y, mu + jnp.exp(log_tau) * effects, SD))


def coupled_coins(z):
    """Eight coins in a ring that like to agree with their neighbours, some pulled to one side."""
    z = jnp.asarray(z, float)
    return 1.2 * jnp.sum((2 * z - 1) * (2 * jnp.roll(z, 1) - 1)) + jnp.asarray(np.linspace(-1.0, 1.5, 8)) @ z


def two_bumps(z):
    return jnp.logaddexp(
        jnp.log(0.35) + jnp.sum(densities.normal(z, -1.2, 0.7)), jnp.log(0.65) + jnp.sum(densities.normal(z, 1.2, 0.9))
    )


def on_the_way(log_density, start, objective, steps=2000):
    """The start, `q` after a twentieth of the steps, and after all of them."""
    solver = elbojax.svi(elbojax.as_loss(objective, log_density, num_samples=32), optax.adam(0.03))
    halfway = elbojax.run(jax.random.key(0), solver, start, num_steps=steps // 20)
    last = elbojax.run(jax.random.key(0), solver, start, num_steps=steps)
    return {"start": start, "on the way": halfway.q, "fitted": last.q}


def problems():
    return {
        "eight schools, D = 10": (
            eight_schools,
            on_the_way(eight_schools, elbojax.mean_field(jnp.zeros(10), 1.0), elbojax.elbo_stl),
            PATHWISE,
        ),
        "coupled coins, D = 8": (
            coupled_coins,
            on_the_way(coupled_coins, elbojax.bernoulli(jnp.zeros(8)), elbojax.elbo_rloo),
            DISCRETE,
        ),
        "two bumps, D = 2": (
            two_bumps,
            on_the_way(two_bumps, elbojax.mean_field(jnp.ones(2), 1.5), elbojax.elbo_stl),
            PATHWISE | IMPORTANCE,
        ),
    }


def exact_importance(q, k):
    """The gradient of the importance-weighted bound from many draws, for its estimators' bias."""
    draws = 64 if k < 64 else 16
    one = jax.grad(lambda key, q: elbojax.iw_elbo_dreg(key, q, two_bumps, num_samples=draws, num_importance=k), 1)
    gradients = jax.lax.map(lambda key: one(key, q), jax.random.split(jax.random.key(99), 1024), batch_size=16)
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), gradients)


class Agreement:
    """A peer's value and gradient (in loc and log-scale) beside ours, on one q and one set of draws."""

    def __init__(self, peer, bound, ours, theirs):
        self.peer, self.bound = peer, bound
        (ours, our_gradient), (theirs, their_gradient) = ours, theirs
        self.value, self.difference = float(ours), abs(float(ours) - float(theirs))
        self.gradient_difference = float(jnp.max(jnp.abs(flat(our_gradient) - flat(their_gradient))))

    def row(self):
        return (self.peer, self.bound, f"{self.value:.6f}", f"{self.difference:.1e}", f"{self.gradient_difference:.1e}")


def flat(tree):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


Q = elbojax.mean_field(jnp.array([0.4, -0.3]), jnp.array([1.6, 1.3]))
KEY, SIZE = jax.random.key(7), 16


def numpyro_agrees(alpha):
    """Draws by seeding its guide with its own keys; its loss is minus the bound."""
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

    params = {"loc": Q.loc, "log_scale": Q.log_scale}
    loss = RenyiELBO(alpha=alpha, num_particles=SIZE)
    value, gradient = jax.value_and_grad(lambda p: -loss.loss(KEY, p, model, guide))(params)

    def draw(key):
        seeded = numpyro.handlers.seed(numpyro.handlers.substitute(guide, data=params), jax.random.split(key)[1])
        return numpyro.handlers.trace(seeded).get_trace()["z"]["value"]

    keys = jax.random.split(jax.random.split(KEY)[1], SIZE)
    z = jnp.stack([draw(key) for key in keys])
    ours = jax.value_and_grad(lambda q: elbojax.renyi_bound_at(noise_of(z), q, two_bumps, alpha=alpha))(Q)
    return Agreement(
        "NumPyro RenyiELBO", f"renyi_bound, alpha = {alpha}", ours, (value, (gradient["loc"], gradient["log_scale"]))
    )


def noise_of(z):
    return jax.vmap(Q.noise_of)(z)[None]


def blackjax_agrees(alpha):
    """One step of gradient descent at rate 1 tells its gradient, its own sampler the draws."""
    from blackjax.vi import meanfield_vi

    state = meanfield_vi.MFVIState(Q.loc, Q.log_scale, optax.sgd(1.0).init((Q.loc, Q.log_scale)))
    new, info = meanfield_vi.step(
        KEY,
        state,
        two_bumps,
        optax.sgd(1.0),
        num_samples=SIZE,
        objective=meanfield_vi.RenyiAlpha(alpha),
        stl_estimator=False,
    )
    z = meanfield_vi.sample(KEY, state, SIZE)
    ours = jax.value_and_grad(lambda q: elbojax.renyi_bound_at(noise_of(z), q, two_bumps, alpha=alpha))(Q)
    return Agreement(
        "BlackJAX RenyiAlpha",
        f"renyi_bound, alpha = {alpha}",
        ours,
        (-info.elbo, (new.mu - Q.loc, new.rho - Q.log_scale)),
    )


def tfp_agrees(name, generator):
    """Its functions of log u under its surrogate loss, reparameterised, on its own draws."""
    import tensorflow_probability.substrates.jax as tfp

    def distribution(q):
        return tfp.distributions.MultivariateNormalDiag(q.loc, jnp.exp(q.log_scale))

    def theirs(q):
        return tfp.vi.monte_carlo_variational_loss(
            two_bumps_of_many, distribution(q), sample_size=SIZE, discrepancy_fn=getattr(tfp.vi, name), seed=KEY
        )

    seen = []
    tfp.vi.monte_carlo_variational_loss(
        lambda z: seen.append(z) or two_bumps_of_many(z), distribution(Q), sample_size=SIZE, seed=KEY
    )
    (z,) = seen

    def ours(q):
        return elbojax.csiszar.f_divergence_at(noise_of(z)[0], q, two_bumps, generator=generator)

    both = (jax.value_and_grad(f)(Q) for f in (ours, theirs))
    return Agreement("TFP monte_carlo_variational_loss", f"f_divergence, {generator.__name__}", *both)


def two_bumps_of_many(z):
    return jax.vmap(two_bumps)(z)


def absent(*modules):
    return [module for module in modules if importlib.util.find_spec(module) is None]


def agreements():
    """Rows, and the peers that are not there."""
    missing = absent("numpyro", "blackjax", "tensorflow_probability")
    rows = []
    for alpha in (0.0, 0.5, 2.0, -1.0):
        rows += [] if "numpyro" in missing else [numpyro_agrees(alpha)]
        rows += [] if "blackjax" in missing else [blackjax_agrees(alpha)]
    if "tensorflow_probability" not in missing:
        pairs = {
            "kl_reverse": csiszar.reverse_kl,
            "kl_forward": csiszar.inclusive_kl,
            "squared_hellinger": csiszar.squared_hellinger,
            "total_variation": csiszar.total_variation,
            "pearson": pearson,
        }
        rows += [tfp_agrees(name, generator) for name, generator in pairs.items()]
    return rows, missing


def pearson(log_ratio):
    """(u - 1)^2, which differs from `chi_square` by a multiple of u - 1."""
    return jnp.expm1(log_ratio) ** 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--estimates", type=int, default=4096, help="of each gradient")
    parser.add_argument(
        "--output", type=pathlib.Path, default=ROOT / "benchmarks" / "results", help="folder of the page"
    )
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    environment = timing.environment()
    record = {"environment": environment, "estimates": args.estimates, "problems": {}}
    page = [
        "# Noise of gradient estimators\n",
        f"jax {environment['versions']['jax']}, float64; {args.estimates:,} estimates of each. Sorted by variance times cost: the"
        " variance of as many estimates, averaged, as one log-density gradient pays for. Bias is the norm of the"
        " difference from the gradient of the estimator's own bound, beside what chance alone would make it.\n",
    ]
    for name, (log_density, qs, objectives) in problems().items():
        for where, q in qs.items():
            exact = {key: exact_importance(q, int(key.split("= ")[1])) for key in objectives if key.startswith("iw")}
            table = elbojax.gradient_noise(
                jax.random.key(1), objectives, q, log_density, exact=exact, num_estimates=args.estimates
            )
            print(f"\n{name}: {where}\n{table}", flush=True)
            page += [f"## {name}: {where}\n", f"```\n{table}\n```\n"]
            record["problems"][f"{name}: {where}"] = {
                field: list(value) if field == "names" else [float(f"{x:.5g}") for x in value]
                for field, value in table._asdict().items()
            }
    rows, missing = agreements()
    header = ("peer", "bound", "value", "difference of values", "of gradients")
    page += [
        "## The same bound elsewhere\n",
        "One q, one set of draws.\n",
        timing.table(header, [r.row() for r in rows]),
    ]
    if missing:
        page.append("Not installed, so not compared: " + ", ".join(missing) + ".\n")
    print("\n" + "\n".join("  ".join(row.row()) for row in rows))
    print("not installed, so not compared:", ", ".join(missing) or "none")
    worst = max((max(row.difference, row.gradient_difference) for row in rows), default=0.0)
    record["agreements"] = [row.row() for row in rows]
    timing.write(args.output, "estimators", record, "\n".join(page))
    if worst > 1e-9:
        raise SystemExit(f"a peer has other numbers for the same bound: {worst:.1e} apart")


if __name__ == "__main__":
    main()
