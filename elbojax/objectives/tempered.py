"""The bound with its KL to the prior weighed by beta."""

from elbojax import noise as noises
from elbojax.calls import explained
from elbojax.families import Family, Reparameterised
from elbojax.noise import Draws
from elbojax.objectives.base import average, draw_noise, evaluate
from elbojax.signs import raised
from elbojax.types import Key, LogDensity, Scalar


@raised
@explained
def elbo_beta(
    key: Key,
    q: Reparameterised,
    log_likelihood: LogDensity,
    *,
    prior: Family,
    beta: Scalar | float,
    num_samples: int = 1,
    draws: Draws = noises.iid,
) -> Scalar:
    r"""The reconstruction form of the bound with a weight on the KL to the prior.

    .. math:: \frac1S \sum_s \log p(x \mid z_s) - \beta\, \mathrm{KL}(q(z) \| p(z))

    beta = 1 is `elbo_kl`; from 0 to 1 over the first steps it keeps a VAE's latents from collapsing onto the prior
    (`annealed_svi` runs such a schedule); above 1 it asks for a simpler `q`. For beta >= 1 it is a lower bound of log p(x).
    A tempered likelihood instead of a tempered KL is `targets.temper`.

    Args:
      key: consumed.
      q: a `Reparameterised` family.
      log_likelihood: event -> scalar, log p(x | z) as a function of z, without the prior.
      prior: p(z), a `Family` to which `q` has a closed-form KL.
      beta: traced.
      num_samples: S, static.
      draws: where the noise comes from, one of `elbojax.noise`.

    Returns:
      Scalar, in nats; to be raised.

    Raises:
      TypeError: `q` has no pathwise map or no closed-form KL to the prior, or the log-likelihood is not a scalar.
      ValueError: S is below 1.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> prior = elbojax.mean_field(jnp.zeros(2), jnp.ones(2))
      >>> q = elbojax.mean_field(jnp.ones(2), jnp.ones(2))
      >>> float(elbo_beta(jax.random.key(0), q, lambda z: 0.0 * z.sum(), prior=prior, beta=2.0))
      -2.0

    References:
      Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl;
      Bowman et al. 2016, https://arxiv.org/abs/1511.06349
    """
    reconstruction = average(lambda z: evaluate(log_likelihood, z), draw_noise(key, q, num_samples, draws), q)
    return reconstruction - beta * q.kl(prior)
