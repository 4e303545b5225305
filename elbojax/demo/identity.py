"""The identity on the smallest example there is: a picture that is a cat (z = 1) or not (z = 0)."""

import jax
import jax.numpy as jnp

from elbojax.families import Bernoulli, bernoulli
from elbojax.objectives import Decomposition, decompose
from elbojax.types import Array, Scalar

PRIOR_CAT = 0.2
POINTED_EARS = {"cat": 0.9, "no cat": 0.15}
WHISKERS = {"cat": 0.8, "no cat": 0.05}


def log_joint(z: Array) -> Scalar:
    """Log p(x, z): pointed ears and whiskers were seen, z [1] says whether it is a cat.

    Args:
      z: [1] 0 or 1.

    Returns:
      Scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> round(float(jnp.exp(log_joint(jnp.array([1])))), 3)
      0.144
    """
    cat = PRIOR_CAT * POINTED_EARS["cat"] * WHISKERS["cat"]
    no_cat = (1 - PRIOR_CAT) * POINTED_EARS["no cat"] * WHISKERS["no cat"]
    return jnp.where(z[0] == 1, jnp.log(cat), jnp.log(no_cat))


def terms(probability: float) -> Decomposition:
    """The bound of q(z = 1) = probability, term by term; exact, for the latent is enumerated.

    Args:
      probability: of a cat, between 0 and 1.

    Returns:
      A `Decomposition`.

    Example:
      >>> t = terms(0.5)
      >>> bool(abs(t.elbo + t.kl_to_posterior - log_evidence()) < 1e-6)
      True
    """
    q = _bernoulli(probability)
    return decompose(jax.random.key(0), q, log_joint, log_evidence=log_evidence())


def log_evidence() -> Scalar:
    """Log p(x), by adding up both values of the latent."""
    return jax.nn.logsumexp(jnp.stack([log_joint(jnp.array([z])) for z in (0, 1)]))


def posterior() -> float:
    """p(z = 1 | x), by Bayes."""
    return float(jnp.exp(log_joint(jnp.array([1])) - log_evidence()))


def _bernoulli(probability: float) -> Bernoulli:
    return bernoulli(jnp.log(jnp.array([probability])) - jnp.log1p(-jnp.array([probability])))


def report() -> str:
    """The table that the demo prints.

    Example:
      >>> print(report().splitlines()[0])
      Is it a cat? Pointed ears and whiskers were seen: x. The latent z = 1 says: a cat.
    """
    rows = [("poor q", 0.5), ("better q", 0.9), ("best q, the posterior", posterior())]
    lines = [
        "Is it a cat? Pointed ears and whiskers were seen: x. The latent z = 1 says: a cat.",
        "",
        f"{'':24}{'q(z=1)':>9}{'ELBO(q)':>12}{'KL(q || p(z|x))':>18}{'sum = log p(x)':>17}",
    ]
    for name, probability in rows:
        t = terms(probability)
        bound, gap = float(t.elbo), float(jnp.asarray(t.kl_to_posterior))
        lines.append(f"{name:24}{probability:9.4f}{bound:12.6f}{gap:18.6f}{bound + gap:17.6f}")
    lines += [
        "",
        f"log p(x) by adding up both latents: {float(log_evidence()):.6f}. The bound touches it at the posterior.",
    ]
    return "\n".join(lines)
