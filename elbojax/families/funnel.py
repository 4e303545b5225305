"""A Gaussian whose mean and covariance bend along one leading coordinate: it fits funnels."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr

from elbojax import linalg
from elbojax.calls import explained
from elbojax.families.base import (
    Reparameterised,
    check_df,
    check_positive,
    check_tril,
    check_vector,
    family,
    log_standard,
    standard,
    static,
)
from elbojax.inputs import as_real
from elbojax.types import Array, Scalar

FLAT = 1e-6
"""A change of the log-density across a cell below which the cell is taken for flat to first order."""


@family
class Funnel(Reparameterised):
    r"""One coordinate of any density, and all the others Gaussian given it.

    .. math:: z = B \begin{pmatrix} a \\ b \end{pmatrix}, \qquad
              b \mid a = m(a) + U(a) \big(d(a) \circ \epsilon\big), \qquad
              \{m, \log d, U\}(a) = \sum_k \phi_k(a) \{m_k, \log d_k, U_k\}

    with phi_k the weights of cubic convolution between the K knots, U unit lower triangular, and log q(a) linear
    between the knots and beyond. In the neck of a funnel the scales d fall and the regressions U stay.

    Attributes:
      knots: [K] values of the leading coordinate a, increasing.
      log_marginal: [K] log-densities of a at the knots, up to a constant.
      locs: [K, D - 1], m_k.
      log_scales: [K, D - 1], log d_k.
      lowers: [K, D - 1, D - 1] whose strict lower triangles are those of U_k; the rest is never read.
      basis: [D, D], B; a permutation puts the leading coordinate in its place.
      df: degrees of freedom of a Student t in place of the Gaussian, static; 0 for the Gaussian.
    """

    knots: Array
    log_marginal: Array
    locs: Array
    log_scales: Array
    lowers: Array
    basis: Array
    df: int = static(default=0)

    @property
    def noise_size(self) -> int:
        """D, and df more for the tails."""
        return self.basis.shape[-1] + self.df

    def transport(self, noise: Array) -> Array:
        """[noise_size] to [D]."""
        return self._forward(noise)[0]

    def transport_and_log_prob(self, noise: Array) -> tuple[Array, Scalar]:
        """The event and its log-probability, without a solve."""
        return self._forward(noise)

    def _forward(self, noise):
        a, epsilon = self._quantile(noise[0]), standard(noise[1:], self.locs.shape[-1])
        near, weights = self._blend(a)
        log_scale = weights @ self.log_scales[near]
        x = jnp.exp(log_scale) * epsilon
        regress = lambda lower: (weights @ lower[near]) @ x  # noqa: E731
        b = weights @ self.locs[near] + x + jax.lax.map(regress, self._rows())
        log_prob = (
            self._log_marginal_at(a) + log_standard(epsilon @ epsilon, epsilon.size, self.df) - jnp.sum(log_scale)
        )
        return self.basis @ jnp.concatenate([a[None], b]), log_prob - jnp.linalg.slogdet(self.basis)[1]

    def log_prob(self, event: Array) -> Scalar:
        """By forward substitution once B is undone."""
        a, epsilon, log_scale = self._backward(event)
        log_prob = (
            self._log_marginal_at(a) + log_standard(epsilon @ epsilon, epsilon.size, self.df) - jnp.sum(log_scale)
        )
        return log_prob - jnp.linalg.slogdet(self.basis)[1]

    def standardised(self, event: Array) -> tuple[Scalar, Array]:
        """The leading coordinate a, and epsilon [D - 1]: the others in standard deviations from their mean given a."""
        return self._backward(event)[:2]

    def _backward(self, event):
        y = linalg.inverse(self.basis) @ event  # inverted once for all events of a batch
        near, weights = self._blend(y[0])
        log_scale = weights @ self.log_scales[near]
        deviation = y[1:] - weights @ self.locs[near]

        def substitute(x, row):
            i, lower = row
            return x.at[i].set(deviation[i] - (weights @ lower[near]) @ x), None

        x, _ = jax.lax.scan(substitute, jnp.zeros_like(deviation), (jnp.arange(deviation.size), self._rows()))
        return y[0], x * jnp.exp(-log_scale), log_scale

    def _rows(self) -> Array:
        """Rows of the U_k less the identity, [D - 1, K, D - 1].

        One after the other: the matrix U(a) of each event would fill the memory of a large batch.
        """
        return jnp.moveaxis(jnp.tril(self.lowers, -1), 1, 0)

    def log_normaliser(self) -> Scalar:
        r""":math:`\log \int \exp(\text{log\_marginal}(a))\, da`."""
        return jax.nn.logsumexp(self._log_masses())

    def _slopes(self) -> tuple[Scalar, Scalar]:
        """How fast the log-density falls beyond the first knot and the last; at least by one over the last cell."""
        width, rise = jnp.diff(self.knots), jnp.diff(self.log_marginal)
        return jnp.maximum(rise[0], 1) / width[0], jnp.maximum(-rise[-1], 1) / width[-1]

    def _log_masses(self) -> Array:
        """[K + 1], of the left tail, the cells, the right tail, before normalisation."""
        before, after = self._slopes()
        rise = jnp.diff(self.log_marginal)
        flat = jnp.abs(rise) < FLAT
        safe = jnp.where(flat, 1, rise)
        mean = jnp.where(flat, 0.5 * rise, jnp.log(jnp.expm1(safe) / safe))
        cells = self.log_marginal[:-1] + jnp.log(jnp.diff(self.knots)) + mean
        ends = self.log_marginal[:1] - jnp.log(before), self.log_marginal[-1:] - jnp.log(after)
        return jnp.concatenate([ends[0], cells, ends[1]])

    def _quantile(self, noise: Scalar) -> Scalar:
        """The leading coordinate whose cumulative probability is that of a standard normal number."""
        mass = jax.nn.softmax(self._log_masses())
        below = jnp.cumsum(mass) - mass
        above = jnp.cumsum(mass[::-1])[::-1] - mass
        i = jnp.searchsorted(below[1:], ndtr(noise), side="right")
        # The share of the cell that is passed, and that is left: each from the side where few digits cancel.
        passed, left = (ndtr(noise) - below[i]) / mass[i], (ndtr(-noise) - above[i]) / mass[i]
        tiny = jnp.finfo(mass.dtype).tiny
        passed, left = (
            jnp.clip(jnp.where(noise < 0, passed, 1 - left), tiny, 1),
            jnp.clip(jnp.where(noise < 0, 1 - passed, left), tiny, 1),
        )
        j = jnp.clip(i - 1, 0, self.knots.size - 2)
        rise = self.log_marginal[j + 1] - self.log_marginal[j]
        flat = jnp.abs(rise) < FLAT
        safe = jnp.where(flat, 1, rise)
        share = jnp.where(flat, passed + 0.5 * rise * passed * left, jnp.log1p(passed * jnp.expm1(safe)) / safe)
        before, after = self._slopes()
        inside = self.knots[j] + (self.knots[j + 1] - self.knots[j]) * share
        outside = jnp.where(i == 0, self.knots[0] + jnp.log(passed) / before, self.knots[-1] - jnp.log(left) / after)
        return jnp.where((i == 0) | (i == self.knots.size), outside, inside)

    def _log_marginal_at(self, a: Scalar) -> Scalar:
        before, after = self._slopes()
        short, beyond = jnp.minimum(a - self.knots[0], 0), jnp.maximum(a - self.knots[-1], 0)
        return jnp.interp(a, self.knots, self.log_marginal) + before * short - after * beyond - self.log_normaliser()

    def _blend(self, a: Scalar) -> tuple[Array, Array]:
        """The four knots around a, and their phi_k; beyond the knots that of the last alone."""
        last = self.knots.size - 1
        place = jnp.interp(a, self.knots, jnp.arange(last + 1, dtype=self.knots.dtype))
        near = jnp.clip(place.astype(jnp.int32), 0, last - 1) + jnp.arange(-1, 3)
        r = jnp.abs(place - near)
        inner, outer = 1.5 * r**3 - 2.5 * r**2 + 1, -0.5 * r**3 + 2.5 * r**2 - 4 * r + 2
        weights = jnp.where((near >= 0) & (near <= last), jnp.where(r < 1, inner, outer), 0)
        return jnp.clip(near, 0, last), weights / jnp.sum(weights)


@explained
def funnel(knots: Any, log_marginal: Any, locs: Any, scale_trils: Any, *, basis: Any = None, df: int = 0) -> Funnel:
    r"""One coordinate of any density, and all the others Gaussian given it, from Gaussians at K of its values.

    .. math:: a \sim q(a), \qquad b \mid a = a_k \sim \mathrm N(m_k, L_k L_k^\top), \qquad z = B (a, b)

    Args:
      knots: [K] increasing values a_k of the leading coordinate, K >= 2.
      log_marginal: [K] log-densities there, up to a constant.
      locs: [K, D - 1] means of the others.
      scale_trils: [K, D - 1, D - 1] Cholesky factors of their covariances.
      basis: [D, D], B; the identity by default, for which z starts with the leading coordinate.
      df: 0, or the degrees of freedom of a Student t in place of the Gaussian; static.

    Returns:
      A `Funnel`.

    Raises:
      TypeError: not floating point, or df not an integer.
      ValueError: shapes do not fit, the knots do not increase, or a diagonal is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> q = funnel([0.0, 2.0], [0.0, 0.0], jnp.zeros((2, 1)), jnp.array([[[1.0]], [[9.0]]]))
      >>> [round(x, 2) for x in q.transport(jnp.array([0.0, 1.0])).tolist()]  # halfway between 1 and 9 in logarithms
      [1.0, 3.0]

    References:
      Neal 2003 (the funnel), https://doi.org/10.1214/aos/1056562461;
      Rue, Martino, Chopin 2009 (Gaussians nested in a grid), https://doi.org/10.1111/j.1467-9868.2008.00700.x;
      Keys 1981 (cubic convolution), https://doi.org/10.1109/TASSP.1981.1163711
    """
    knots = check_vector("knots", knots)
    if knots.size < 2:
        raise ValueError("there must be at least 2 knots, got 1")
    check_positive("the differences of knots", jnp.diff(knots))
    log_marginal = check_vector("log_marginal", log_marginal, knots.size)
    locs, scale_trils = as_real("locs", locs, knots.dtype), as_real("scale_trils", scale_trils, knots.dtype)
    if locs.ndim != 2 or locs.shape[0] != knots.size or locs.shape[1] == 0:
        raise ValueError(f"locs must have shape [{knots.size}, D - 1] with D >= 2, got {locs.shape}")
    if scale_trils.shape != (*locs.shape, locs.shape[1]):
        raise ValueError(f"scale_trils must have shape {(*locs.shape, locs.shape[1])}, got {scale_trils.shape}")
    size = locs.shape[1] + 1
    basis = jnp.eye(size, dtype=knots.dtype) if basis is None else as_real("basis", basis, knots.dtype)
    if basis.shape != (size, size):
        raise ValueError(f"basis must have shape {(size, size)}, got {basis.shape}")
    df = check_df(df)
    diagonal = jnp.diagonal(scale_trils, axis1=-2, axis2=-1)
    check_tril("scale_trils", scale_trils, diagonal)
    lowers = jnp.tril(scale_trils / diagonal[:, None, :], -1)
    return Funnel(knots, log_marginal.astype(knots.dtype), locs, jnp.log(diagonal), lowers, basis, df)
