"""The Gaussian with a banded precision: neighbours in time or space depend on each other directly."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import recursions
from elbojax.calls import explained
from elbojax.families.base import Family, Gaussian, check_positive, check_vector, family, static
from elbojax.inputs import as_real
from elbojax.types import Array, Scalar


@family
class BandedPrecision(Gaussian):
    r"""Gaussian with precision :math:`B B^\top`, :math:`z = \mu + B^{-\top} \epsilon`, B lower of bandwidth b.

    B is stored by columns, as in LAPACK's lower band storage:

    .. math:: B_{ii} = e^{\lambda_i}, \qquad B_{i+k,\,i} = \texttt{off\_diagonals}[k - 1,\, i], \quad k = 1, \dots, b

    Entries with i + k >= D lie outside the matrix and are never read. b = 1 is a first-order Markov chain.
    A draw takes O(D b), one after the other, or O(D b^2) in O(log D) rounds; scoring O(D b) in parallel; marginal
    variances O(D b^2), one after the other.

    Attributes:
      loc: [D] mean.
      log_diagonal: [D] logarithms of the diagonal of B.
      off_diagonals: [b, D] the diagonals below, the nearest first.
      parallel: whether draws are made by an associative scan, for GPUs; static.
    """

    loc: Array
    log_diagonal: Array
    off_diagonals: Array
    parallel: bool = static(default=False)

    @property
    def noise_size(self) -> int:
        """D."""
        return self.loc.shape[-1]

    def _band(self) -> Array:
        """[b, D], with zeros outside the matrix."""
        bandwidth, size = self.off_diagonals.shape
        inside = np.arange(1, bandwidth + 1)[:, None] + np.arange(size) < size
        return jnp.where(inside, self.off_diagonals, 0)

    def scale_matvec(self, noise: Array) -> Array:
        r""":math:`B^{-\top} \epsilon`, by substitution from the last coordinate to the first."""
        if self.parallel:
            return self._scale_matvec_in_rounds(noise)

        def step(following, column):
            entry, inverse, below = column
            value = (entry - below @ following) * inverse
            return jnp.concatenate([value[None], following[:-1]]), value

        band = self._band()
        columns = noise, jnp.exp(-self.log_diagonal), band.T
        return jax.lax.scan(step, jnp.zeros(band.shape[0], band.dtype), columns, reverse=True)[1]

    def _scale_matvec_in_rounds(self, noise: Array) -> Array:
        r"""The same with B in blocks of b, for which it is bidiagonal: :math:`L_n^\top z_n + C_n^\top z_{n+1} = \epsilon_n`."""
        bandwidth, size = self.off_diagonals.shape
        count = -(-size // bandwidth)
        missing = count * bandwidth - size  # filled up with a unit matrix
        columns = jnp.concatenate([jnp.exp(self.log_diagonal)[None], self._band()])
        columns = jnp.pad(columns, ((0, 0), (0, missing))).at[0, size:].set(1)
        columns = columns.T.reshape(count, bandwidth, bandwidth + 1)  # of each block, B downwards from its diagonal
        column, row = np.indices((bandwidth, bandwidth))
        inside, beyond = row - column, bandwidth + row - column
        upper = jnp.where(inside >= 0, columns[:, column, np.maximum(inside, 0)], 0)  # of L, transposed
        coupling = jnp.where(beyond <= bandwidth, columns[:, column, np.minimum(beyond, bandwidth)], 0)
        right = jnp.concatenate([-coupling, jnp.pad(noise, (0, missing)).reshape(count, bandwidth, 1)], axis=-1)
        solved = recursions.solve_lower(upper[:, ::-1, ::-1], right[:, ::-1])[:, ::-1]
        steps = solved[:-1, :, :-1], solved[:, :, -1]
        return recursions.affine(*steps, reverse=True, parallel=True).ravel()[:size]

    def mahalanobis(self, deviation: Array) -> Scalar:
        r""":math:`\|B^\top d\|^2`."""
        band = self._band()
        bandwidth, size = band.shape
        padded = jnp.pad(deviation, (0, bandwidth))
        following = jnp.stack([padded[k : k + size] for k in range(1, bandwidth + 1)])
        return jnp.sum((jnp.exp(self.log_diagonal) * deviation + jnp.sum(band * following, axis=0)) ** 2)

    def half_log_det(self) -> Scalar:
        """Minus the sum of the log-diagonal."""
        return -jnp.sum(self.log_diagonal)

    def _windows(self) -> Array:
        r"""Covariances of each coordinate and the b that follow it, [D, b + 1, b + 1], by Takahashi's recursion.

        With W the window of the coordinates after i and :math:`a = B_{i+1:i+b,\,i} / B_{ii}`:
        :math:`\Sigma_{i,\,i+1:i+b} = -W a` and :math:`\Sigma_{ii} = B_{ii}^{-2} + a^\top W a`.
        """

        def step(window, column):
            inverse, below = column
            ratio = below * inverse
            row = -window @ ratio
            corner = inverse**2 - ratio @ row
            full = jnp.block([[corner[None, None], row[None]], [row[:, None], window]])
            return full[:-1, :-1], full

        band = self._band()
        start = jnp.zeros((band.shape[0],) * 2, band.dtype)
        return jax.lax.scan(step, start, (jnp.exp(-self.log_diagonal), band.T), reverse=True)[1]

    def variance(self) -> Array:
        """[D], by Takahashi's recursion."""
        return self._windows()[:, 0, 0]

    def kl(self, other: Family) -> Scalar:
        """In O(D b^2) where the other is banded too, and no wider."""
        bandwidth = self.off_diagonals.shape[0]
        if not isinstance(other, BandedPrecision) or other.off_diagonals.shape[0] > bandwidth:
            return super().kl(other)
        columns = jnp.concatenate([jnp.exp(other.log_diagonal)[None], other._band()])
        columns = jnp.pad(columns, ((0, bandwidth + 1 - columns.shape[0]), (0, 0)))
        trace = jnp.einsum("ki,ikl,li->", columns, self._windows(), columns)
        quadratic = other.mahalanobis(other.loc - self.loc)
        return 0.5 * (trace + quadratic - self.loc.shape[-1]) + other.half_log_det() - self.half_log_det()


@explained
def banded_precision(loc: Any, diagonal: Any, off_diagonals: Any, *, parallel: bool = False) -> BandedPrecision:
    r"""Gaussian with a banded precision, given by its banded Cholesky factor B.

    .. math:: q(z) = \mathrm N\big(z \mid \mu, (B B^\top)^{-1}\big), \qquad
              B_{ii} = \texttt{diagonal}[i], \quad B_{i+k,\,i} = \texttt{off\_diagonals}[k - 1,\, i]

    Args:
      loc: [D] mean.
      diagonal: [D] diagonal of B, positive; or one number for all.
      off_diagonals: [b, D] the b diagonals below it, 1 <= b < D, the nearest first; row k - 1 is read up to D - k.
      parallel: True for draws by an associative scan: O(log D) rounds, for GPUs; static.

    Returns:
      A `BandedPrecision`, which stores the logarithm of the diagonal.

    Raises:
      TypeError: not floating point.
      ValueError: shapes do not fit, or the diagonal is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> q = banded_precision(jnp.zeros(2), 1.0, jnp.array([[-2.0, 0.0]]))
      >>> q.covariance().tolist()
      [[5.0, 2.0], [2.0, 1.0]]

    References:
      Takahashi, Fagan, Chen 1973; Rue, Held 2005, Gaussian Markov Random Fields, section 2.4
      Archer et al. 2015, https://arxiv.org/abs/1511.07367
    """
    loc = check_vector("loc", loc)
    diagonal = as_real("diagonal", diagonal, loc.dtype)
    if diagonal.shape not in ((), loc.shape):
        raise ValueError(f"diagonal must be a scalar or have shape {loc.shape}, got {diagonal.shape}")
    check_positive("diagonal", diagonal)
    off_diagonals = as_real("off_diagonals", off_diagonals, loc.dtype)
    if off_diagonals.ndim != 2 or off_diagonals.shape[1] != loc.size or not 1 <= off_diagonals.shape[0] < loc.size:
        wanted = f"[b, {loc.size}] with 1 <= b < {loc.size}"
        raise ValueError(f"off_diagonals must have shape {wanted}, got {off_diagonals.shape}")
    return BandedPrecision(loc, jnp.log(jnp.broadcast_to(diagonal, loc.shape)), off_diagonals, bool(parallel))
