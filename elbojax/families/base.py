"""What a family is: a distribution `q` that is its own parameter pytree.

`grad` with respect to `q` gives a `q` of gradients, `vmap` over a stacked `q` gives a batch of models, an
optimiser updates `q` as it would any pytree. Methods describe one event; batches come from `vmap`.
"""

import abc
import dataclasses
import math
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import noise as noises
from elbojax import structures
from elbojax.calls import explained
from elbojax.inputs import as_array, check_count, check_key, what
from elbojax.types import Array, Event, Key, Scalar

C = TypeVar("C")


def static(**kwargs: Any) -> Any:
    """A dataclass field that is part of the type and not trained: a size, a flag, a name. Hashable, never an array.

    Example:
      >>> @family
      ... class Sized:
      ...     loc: object
      ...     size: int = static(default=3)
      >>> import jax
      >>> jax.tree.leaves(Sized(1.0))
      [1.0]
    """
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, static))
def family(cls: type[C]) -> type[C]:
    """Class decorator: a frozen dataclass registered as a pytree, whose array fields are what is trained.

    Checks belong in a constructor function beside the class, for JAX rebuilds the object with
    placeholders in its fields.

    Example:
      >>> @family
      ... class Point:
      ...     loc: object
      >>> import jax
      >>> jax.tree.map(lambda x: 2 * x, Point(1.5)).loc
      3.0
    """
    return structures.register(dataclasses.dataclass(frozen=True, eq=False)(cls))


class Family(abc.ABC):
    """A distribution over events that can be sampled and scored."""

    loc_ndim = 0
    """How many axes `loc` has in one model, for a family whose events are arrays like `loc`; 0 where nothing is known."""

    @abc.abstractmethod
    def sample_and_log_prob(self, key: Key) -> tuple[Event, Scalar]:
        """One event and its log-probability, which are often cheaper together."""

    @abc.abstractmethod
    def log_prob(self, event: Event) -> Scalar:
        """Normalised log-density (or log-mass) of one event."""

    @explained
    def sample(self, key: Key) -> Event:
        """One event."""
        check_key(key)
        return self.sample_and_log_prob(key)[0]

    def entropy(self) -> Scalar:
        r"""Closed form of :math:`\mathrm H[q] = -\mathrm E_q[\log q]`, where there is one."""
        raise TypeError(f"{type(self).__name__} has no closed-form entropy; use the Monte Carlo form, `elbo`")

    def kl(self, other: "Family") -> Scalar:
        r"""Closed form of :math:`\mathrm{KL}(q \| p) = \mathrm E_q[\log q - \log p]`, where there is one."""
        raise TypeError(
            f"no closed-form KL from {type(self).__name__} to {type(other).__name__}; elbo estimates it by draws, the"
            " log-density being that of prior and data together"
        )

    def kl_by_part(self, other: "Family") -> Array:
        """The terms [J] of `kl`, one for each independent part, where both are made of such parts."""
        raise TypeError(f"no closed-form KL by parts from {type(self).__name__} to {type(other).__name__}")


class Enumerable(Family):
    """A family over so few events that all of them can be listed: expectations under it are sums."""

    @abc.abstractmethod
    def enumerate(self) -> Event:
        """Every event, stacked on a leading axis."""


class Reparameterised(Family):
    """A family whose draws are a differentiable map of standard normal numbers."""

    @property
    @abc.abstractmethod
    def noise_size(self) -> int:
        """How many standard normal numbers one draw takes; static."""

    @property
    def dtype(self) -> Any:
        """The floating dtype of the parameters, which the noise follows."""
        return jnp.result_type(*jax.tree.leaves(self))

    @abc.abstractmethod
    def transport(self, noise: Array) -> Event:
        """The pathwise map: [noise_size] standard normal numbers to one event."""

    def noise_of(self, event: Event) -> Array:
        """The inverse of `transport`, [noise_size]."""
        raise TypeError(f"the pathwise map of {type(self).__name__} has no inverse")

    def transport_and_log_prob(self, noise: Array) -> tuple[Event, Scalar]:
        """The event and its log-probability."""
        event = self.transport(noise)
        return event, self.log_prob(event)

    def strata(self, noise: Array) -> tuple[Event, Array]:
        r"""Weighted events that stand for one draw: :math:`\mathrm E_q[f] = \mathrm E[\sum_k w_k f(z_k)]`.

        One event of weight one, but for families with a discrete part (a mixture gives one event per
        component), whose weights then get a pathwise gradient too.

        Returns:
          Events with a leading axis K, and weights [K] that sum to one.
        """
        return jax.tree.map(lambda x: x[None], self.transport(noise)), jnp.ones((1,), self.dtype)

    def strata_and_log_prob(self, noise: Array) -> tuple[Event, Array, Array]:
        """The events of `strata`, their log-probabilities [K], and their weights [K]."""
        event, log_prob = self.transport_and_log_prob(noise)
        return jax.tree.map(lambda x: x[None], event), log_prob[None], jnp.ones((1,), self.dtype)

    def sample_and_log_prob(self, key: Key) -> tuple[Event, Scalar]:
        """One event and its log-probability."""
        return self.transport_and_log_prob(noises.iid(key, 1, self.noise_size, self.dtype)[0])

    @explained
    def sample(self, key: Key) -> Event:
        """One event."""
        check_key(key)
        return self.transport(noises.iid(key, 1, self.noise_size, self.dtype)[0])


class Gaussian(Reparameterised):
    r"""What all Gaussians over flat vectors share: :math:`z = \mu + A \epsilon`, covariance :math:`A A^\top`."""

    loc_ndim = 1
    loc: Array

    @abc.abstractmethod
    def scale_matvec(self, noise: Array) -> Array:
        r""":math:`A \epsilon`, from [noise_size] to [D]."""

    @abc.abstractmethod
    def mahalanobis(self, deviation: Array) -> Scalar:
        r""":math:`d^\top \Sigma^{-1} d` of a deviation [D] from the mean."""

    @abc.abstractmethod
    def half_log_det(self) -> Scalar:
        r""":math:`\tfrac12 \log\det\Sigma`."""

    @abc.abstractmethod
    def variance(self) -> Array:
        """Marginal variances [D]."""

    def mean(self) -> Array:
        """[D]."""
        return self.loc

    def covariance(self) -> Array:
        r""":math:`A A^\top`, dense [D, D]."""
        columns = self._scale_columns()
        return columns.T @ columns

    def _scale_columns(self) -> Array:
        return jax.vmap(self.scale_matvec)(jnp.eye(self.noise_size, dtype=self.dtype))

    def transport(self, noise: Array) -> Array:
        r""":math:`\mu + A \epsilon`."""
        return self.loc + self.scale_matvec(noise)

    def transport_and_log_prob(self, noise: Array) -> tuple[Array, Scalar]:
        """The event and its log-probability; nothing is solved where the scale is square."""
        event = self.transport(noise)
        if self.noise_size != self.loc.shape[-1]:
            return event, self.log_prob(event)
        return event, self._log_prob(noise @ noise)

    def log_prob(self, event: Array) -> Scalar:
        r""":math:`-\tfrac12 d^\top\Sigma^{-1}d - \tfrac12\log\det\Sigma - \tfrac D2 \log 2\pi`."""
        check_event(self, event)
        return self._log_prob(self.mahalanobis(event - self.loc))

    def _log_prob(self, mahalanobis: Scalar) -> Scalar:
        return -0.5 * (mahalanobis + self.loc.shape[-1] * math.log(2 * math.pi)) - self.half_log_det()

    def entropy(self) -> Scalar:
        r""":math:`\tfrac12\log\det\Sigma + \tfrac D2 \log 2\pi e`."""
        return 0.5 * self.loc.shape[-1] * (1 + math.log(2 * math.pi)) + self.half_log_det()

    def kl(self, other: Family) -> Scalar:
        r"""In O(D) solves with the other's scale, d being the difference of the means.

        .. math:: \tfrac12 [\mathrm{tr}(\Sigma_p^{-1} \Sigma_q) + d^\top \Sigma_p^{-1} d - D]
                  + \tfrac12 \log \tfrac{\det \Sigma_p}{\det \Sigma_q}
        """
        if not isinstance(other, Gaussian):
            return super().kl(other)
        trace = jnp.sum(jax.vmap(other.mahalanobis)(self._scale_columns()))
        quadratic = other.mahalanobis(other.loc - self.loc)
        return 0.5 * (trace + quadratic - self.loc.shape[-1]) + other.half_log_det() - self.half_log_det()


@explained
def entropy(q: Family) -> Scalar:
    r"""Entropy of `q` in nats, where it has a closed form.

    .. math:: \mathrm H[q] = -\mathrm E_{q(z)}[\log q(z)]

    Args:
      q: a `Family`.

    Returns:
      Scalar.

    Raises:
      TypeError: `q` has no closed-form entropy.

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> round(float(entropy(elbojax.mean_field(jnp.zeros(1), jnp.ones(1)))), 3)
      1.419
    """
    return q.entropy()


@explained
def kl_divergence(q: Family, p: Family) -> Scalar:
    r"""Kullback-Leibler divergence from `q` to `p` in nats, where it has a closed form.

    .. math:: \mathrm{KL}(q \| p) = \mathrm E_{q(z)}[\log q(z) - \log p(z)]

    Args:
      q: a `Family`.
      p: a `Family` over the same events; a prior, say.

    Returns:
      Scalar, zero only at q = p.

    Raises:
      TypeError: the pair has no closed form.

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.ones(1), jnp.ones(1))
      >>> float(kl_divergence(q, elbojax.mean_field(jnp.zeros(1), jnp.ones(1))))
      0.5
    """
    return q.kl(p)


@explained
def kl_by_part(q: Family, p: Family) -> Array:
    r"""The terms of a Kullback-Leibler divergence between families of independent parts, in nats.

    .. math:: \mathrm{KL}_j = \mathrm{KL}(q(z_j) \| p(z_j)), \qquad \mathrm{KL}(q \| p) = \sum_j \mathrm{KL}_j

    Args:
      q: mean-field, Bernoulli or categorical: a part is a dimension; a `product` or `blocks`: a part is a part.
      p: of the same kind; a prior, say.

    Returns:
      [J].

    Raises:
      TypeError: the pair has no closed form by parts.

    Example:
      >>> import elbojax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.array([0.0, 2.0]), jnp.ones(2))
      >>> kl_by_part(q, elbojax.mean_field(jnp.zeros(2), jnp.ones(2))).tolist()
      [0.0, 2.0]
    """
    return q.kl_by_part(p)


@explained
def sample_many(key: Key, q: Family, num_samples: int) -> tuple[Event, Array]:
    """Many events and their log-probabilities; noise is drawn flat where `q` is reparameterised.

    Args:
      key: consumed.
      q: any `Family`.
      num_samples: S, static.

    Returns:
      Events with a leading axis S, and [S].

    Raises:
      TypeError: `q` is no `Family`, or S no int.
      ValueError: S is below 1, or `q` a stack of models.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> events, log_q = sample_many(jax.random.key(0), elbojax.mean_field(jnp.zeros(2), 1.0), 5)
      >>> events.shape, log_q.shape
      ((5, 2), (5,))
    """
    check_key(key)
    check_family(q)
    check_one(q)
    check_count("num_samples", num_samples)
    if isinstance(q, Reparameterised):
        return jax.vmap(q.transport_and_log_prob)(noises.iid(key, num_samples, q.noise_size, q.dtype))
    return jax.vmap(q.sample_and_log_prob)(jax.random.split(key, num_samples))


def log_standard(squared: Scalar, size: int, df: int = 0) -> Scalar:
    r"""Log-density of the standard Gaussian over [D], or of the standard Student t, at a point of this squared length.

    Args:
      squared: :math:`\|\epsilon\|^2`.
      size: D.
      df: degrees of freedom, static; 0 for the Gaussian.

    Returns:
      Scalar.

    Example:
      >>> round(float(log_standard(0.0, 1)), 4)
      -0.9189
    """
    if not df:
        return -0.5 * (squared + size * math.log(2 * math.pi))
    constant = math.lgamma(0.5 * (df + size)) - math.lgamma(0.5 * df) - 0.5 * size * math.log(df * math.pi)
    return constant - 0.5 * (df + size) * jnp.log1p(squared / df)


def standard(noise: Array, size: int) -> Array:
    r"""A draw of the standard Gaussian, or of the standard Student t, :math:`\epsilon \sqrt{\nu / \|\eta\|^2}`.

    Args:
      noise: [D], or [D + df] where the last df make the tails.
      size: D.

    Returns:
      [D].

    Example:
      >>> import jax.numpy as jnp
      >>> standard(jnp.array([1.0, 3.0, 4.0]), 2).tolist()
      [0.25, 0.75]
    """
    df = noise.shape[-1] - size
    return noise[:size] * jnp.sqrt(df / jnp.sum(noise[size:] ** 2)) if df else noise


def check_df(df: Any) -> int:
    """Degrees of freedom of a family whose base may be a Gaussian.

    Args:
      df: an integer of at least 1, or 0 for the Gaussian.

    Returns:
      The same.

    Raises:
      TypeError: not an integer.
      ValueError: negative.
    """
    if isinstance(df, bool) or not isinstance(df, int | np.integer):
        raise TypeError(f"df must be an int, got {type(df).__name__}")
    if df < 0:
        raise ValueError(f"df must be at least 1, or 0 for the Gaussian, got {df}")
    return int(df)


def check_vector(name: str, value: Any, size: int | None = None) -> Array:
    """The value as a floating-point array [D], or an error that says what was wanted and what was given.

    Args:
      name: of the argument, for the message.
      value: array-like.
      size: D, where it is known already.

    Returns:
      [D].

    Raises:
      TypeError: not floating point.
      ValueError: not a vector, empty, of another size, or with NaN; a traced one is taken at its word.
    """
    array = as_array(value, name)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating point, got {array.dtype}")
    if array.ndim != 1 or array.size == 0 or (size is not None and array.size != size):
        wanted = "[D] with D >= 1" if size is None else f"[{size}]"
        raise ValueError(f"{name} must be a vector {wanted}, got shape {array.shape}")
    if not isinstance(array, jax.core.Tracer) and np.isnan(array).any():
        places = np.flatnonzero(np.isnan(array))
        raise ValueError(
            f"{name} must be numbers, got NaN in {places.size} of {array.size} places, first at {places[0]}"
        )
    return array


def check_family(q: Any) -> None:
    """Raise TypeError unless it is a `Family`.

    Args:
      q: anything.
    """
    if isinstance(q, Family):
        return
    if hasattr(q, "log_prob") and not isinstance(q, type):
        more = "; elbojax.interop.distributions.distribution_family makes a family of a distribution of another library"
    elif isinstance(q, jax.Array):
        more = "; the order is key, q, log_density"
    else:
        more = ""
    raise TypeError(
        f"q must be a Family, such as elbojax.mean_field makes, got {what(q, call=isinstance(q, type))}{more}"
    )


def check_one(q: Family) -> None:
    """Raise ValueError for a stack of models where one is wanted, as far as the family says how many axes one has.

    Args:
      q: any `Family`.
    """
    if q.loc_ndim and jnp.ndim(q.loc) != q.loc_ndim:  # type: ignore[attr-defined]
        raise ValueError(
            f"q must be one model, whose loc has {q.loc_ndim} axes, got a {type(q).__name__} with loc of shape "
            f"{jnp.shape(q.loc)}; for a stack of models use jax.vmap over q"  # type: ignore[attr-defined]
        )


def check_event(q: Family, event: Any) -> None:
    """Raise ValueError unless `q` is one model, and the event has the shape of its `loc`.

    Args:
      q: a family with `loc_ndim`.
      event: of `log_prob`.
    """
    check_one(q)
    if jnp.shape(event) != jnp.shape(q.loc):  # type: ignore[attr-defined]
        raise ValueError(
            f"log_prob takes one event of shape {jnp.shape(q.loc)}, got shape {jnp.shape(event)}; "  # type: ignore[attr-defined]
            "for a batch of events use jax.vmap(q.log_prob)(events)"
        )


def check_tril(name: str, value: Array, diagonal: Array) -> None:
    """Raise where a concrete matrix is no Cholesky factor; a traced one is taken at its word.

    Args:
      name: of the argument, for the message.
      value: [..., D, D].
      diagonal: [..., D], that of `value`.

    Raises:
      ValueError: a number above the diagonal is not zero, or one on it is not positive.
    """
    if not isinstance(value, jax.core.Tracer):
        above = np.argwhere(np.triu(np.asarray(value), 1) != 0)
        if len(above):
            place = ", ".join(str(i) for i in above[0])
            raise ValueError(
                f"{name} must be lower triangular, the Cholesky factor L of the covariance L L^T, got "
                f"{np.asarray(value)[tuple(above[0])]} at [{place}], above the diagonal; of a covariance take "
                "jnp.linalg.cholesky, or full_rank(loc, covariance=...)"
            )
    check_positive(f"the diagonal of {name}", diagonal)


def check_positive(name: str, value: Array) -> None:
    """Raise where a concrete array holds a number that is not positive; a traced one is taken at its word.

    Args:
      name: of the argument, for the message.
      value: array.

    Raises:
      ValueError: some entry is zero, negative or NaN.
    """
    if not isinstance(value, jax.core.Tracer) and not np.all(np.asarray(value) > 0):
        raise ValueError(f"{name} must be positive everywhere, got {value}")
