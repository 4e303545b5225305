"""Any Gaussian with the tails of a Student t, at the price of that Gaussian."""

import math

import jax.numpy as jnp
from jax.scipy.special import gammaln

from elbojax.calls import explained
from elbojax.families.base import Gaussian, Reparameterised, family, static
from elbojax.types import Array, Scalar


@family
class StudentTTails(Reparameterised):
    r"""The multivariate Student t of a Gaussian's location and scale, :math:`z = \mu + A \epsilon / \sqrt{\|\eta\|^2 / \nu}`.

    Where `StudentT` holds a matrix [D, D], this takes whatever form the Gaussian has.

    Attributes:
      base: the `Gaussian`, N(mu, A A').
      df: nu, static.
    """

    base: Gaussian
    df: int = static(default=5)

    @property
    def noise_size(self) -> int:
        """The noise of the base, and nu numbers for the tails."""
        return self.base.noise_size + self.df

    def transport(self, noise: Array) -> Array:
        """First the noise of the base."""
        size = self.base.noise_size
        stretch = jnp.sqrt(self.df / jnp.sum(noise[size:] ** 2))
        return self.base.loc + stretch * self.base.scale_matvec(noise[:size])

    def log_prob(self, event: Array) -> Scalar:
        """From the base's distance and determinant."""
        size, df = self.base.loc.shape[-1], self.df
        constant = gammaln(0.5 * (df + size)) - gammaln(0.5 * df) - 0.5 * size * math.log(df * math.pi)
        squared = self.base.mahalanobis(event - self.base.loc)
        return constant - self.base.half_log_det() - 0.5 * (df + size) * jnp.log1p(squared / df)

    def mean(self) -> Array:
        """[D]; exists for df > 1."""
        return self.base.mean()

    def variance(self) -> Array:
        """[D]; infinite up to df = 2."""
        return (self.df / (self.df - 2) if self.df > 2 else math.inf) * self.base.variance()


@explained
def with_student_t_tails(base: Gaussian, *, df: int = 5) -> StudentTTails:
    r"""Any Gaussian with the tails of a Student t.

    .. math:: q(z) \propto \Big(1 + \tfrac1\nu (z - \mu)^\top \Sigma^{-1} (z - \mu)\Big)^{-(\nu + D)/2}

    Args:
      base: N(mu, Sigma), of any form.
      df: nu, an integer of at least 1, static. Beside a Gaussian of size D a tenth of D is heavy: fewer degrees of
        freedom spread the radius over more than the Gaussian's own.

    Returns:
      A `StudentTTails`.

    Raises:
      TypeError: base is not a `Gaussian`, or df not an integer.
      ValueError: df is below 1.

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> q = with_student_t_tails(elbojax.mean_field(jnp.zeros(2), 1.0), df=4)
      >>> q.variance().tolist()
      [2.0, 2.0]
    """
    if not isinstance(base, Gaussian):
        raise TypeError(f"base must be a Gaussian, got {type(base).__name__}")
    if isinstance(df, bool) or not isinstance(df, int):
        raise TypeError(f"df must be an int, got {type(df).__name__}")
    if df < 1:
        raise ValueError(f"df must be at least 1, got {df}")
    return StudentTTails(base, df)
