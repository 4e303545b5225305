"""A normalising flow on top of a Gaussian: coupling layers that bend it."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from elbojax.bijectors.autoregressive import Autoregressive
from elbojax.bijectors.couplings import Coupling
from elbojax.bijectors.tails import sinh_arcsinh_and_log_det, sinh_arcsinh_inverse
from elbojax.calls import explained
from elbojax.families.base import (
    Reparameterised,
    check_df,
    check_event,
    check_tril,
    check_vector,
    family,
    log_standard,
    standard,
    static,
)
from elbojax.inputs import as_real
from elbojax.linalg import solve_lower
from elbojax.types import Array, Key, PyTree, Scalar

KINDS = ("affine", "rational_quadratic")
FAST = ("density", "sampling")


@family
class Flow(Reparameterised):
    r"""Standard normal numbers, tails for each, layers that bend them, and the scale and place of a Gaussian.

    .. math:: z = \mu + L f(h), \qquad h_i = \sinh\big((\operatorname{arcsinh} \epsilon_i + \varepsilon_i)\, e^{\delta_i}\big)

    The tails stand before the layers, for layers that are the identity far out cannot make them.

    Attributes:
      loc: [D].
      log_diagonal: [D] logarithms of the diagonal of L.
      lower: [D, D] whose strict lower triangle is that of L; the rest is never read.
      skew: [D], epsilon.
      tail: [D], delta.
      layers: weights of f.
      map: what f does with them, static: an object with `forward_and_log_det(layers, x)` and `inverse_and_log_det`,
        hashable, such as a `Coupling` or an `Autoregressive`.
      df: degrees of freedom of a Student t in place of the Gaussian, static; 0 for the Gaussian.
    """

    loc_ndim = 1
    loc: Array
    log_diagonal: Array
    lower: Array
    skew: Array
    tail: Array
    layers: PyTree
    map: Any = static()
    df: int = static(default=0)

    @property
    def noise_size(self) -> int:
        """D, and df more for the tails."""
        return self.loc.shape[-1] + self.df

    @property
    def scale_tril(self) -> Array:
        """L, [D, D]."""
        return jnp.tril(self.lower, -1) + jnp.diag(jnp.exp(self.log_diagonal))

    def transport(self, noise: Array) -> Array:
        """[noise_size] to [D]."""
        return self.transport_and_log_prob(noise)[0]

    def transport_and_log_prob(self, noise: Array) -> tuple[Array, Scalar]:
        """The event and its log-probability, by one way through the layers."""
        epsilon = standard(noise, self.loc.shape[-1])
        h, log_dets = sinh_arcsinh_and_log_det(epsilon, self.skew, self.tail)
        x, log_det = self.map.forward_and_log_det(self.layers, h)
        return self.loc + self.scale_tril @ x, self._log_prob(epsilon, jnp.sum(log_dets) + log_det)

    def log_prob(self, event: Array) -> Scalar:
        """By one way back through the layers."""
        check_event(self, event)
        return self._log_prob(*self._backward(event))

    def standardised(self, event: Array) -> Array:
        """The standard numbers epsilon [D] that an event is made from."""
        return self._backward(event)[0]

    def given(self, context: Any) -> "Flow":
        """The same flow at another context [C], of which gradients flow to whatever made it: an encoder, say."""
        held = self.layers.get("context") if isinstance(self.map, Autoregressive) else None
        if held is None:
            raise TypeError("this flow takes no context; autoregressive_flow(..., num_context=C) makes one that does")
        context = jnp.asarray(context, held.dtype)
        if context.shape != held.shape:
            raise ValueError(f"context must have shape {held.shape}, got {context.shape}; batch with jax.vmap")
        return dataclasses.replace(self, layers=self.layers | {"context": context})

    def _backward(self, event):
        x = solve_lower(self.scale_tril, event - self.loc)
        h, log_det = self.map.inverse_and_log_det(self.layers, x)
        epsilon = sinh_arcsinh_inverse(h, self.skew, self.tail)
        log_dets = sinh_arcsinh_and_log_det(epsilon, self.skew, self.tail)[1]
        return epsilon, jnp.sum(log_dets) + log_det

    def _log_prob(self, epsilon, log_det):
        base = log_standard(epsilon @ epsilon, self.loc.shape[-1], self.df)
        return base - log_det - jnp.sum(self.log_diagonal)


@explained
def coupling_flow(
    key: Key,
    loc: Any,
    scale_tril: Any,
    *,
    kind: str = "rational_quadratic",
    num_layers: int = 4,
    hidden: tuple[int, ...] = (32,),
    num_bins: int = 8,
    bound: float = 6.0,
    df: int = 0,
) -> Flow:
    r"""A flow of coupling layers on top of a Gaussian, which it is before it is trained.

    .. math:: z = \mu + L f(h), \qquad y_A = x_A, \quad y_B = g(x_B;\, \mathrm{network}(x_A)) \text{ in each layer of } f

    Both ways are exact and cost the same. Affine layers move and scale, splines can bend; neither changes tails, for
    which each coordinate has a skew and a tail of its own, zero to begin with.

    Args:
      key: consumed; for the networks' first weights.
      loc: [D] mean of the Gaussian, D >= 2.
      scale_tril: [D, D] Cholesky factor of its covariance; only its lower triangle is read.
      kind: "rational_quadratic" or "affine".
      num_layers: two are needed to move every coordinate, three where D is odd; static.
      hidden: widths of the hidden layers of the networks; static.
      num_bins: of a spline; static.
      bound: in standard deviations of the Gaussian, where a spline ends; static.
      df: 0, or the degrees of freedom of a Student t in place of the Gaussian; static.

    Returns:
      A `Flow`.

    Raises:
      TypeError: not floating point, or a size is not an integer.
      ValueError: an unknown kind, D below 2, sizes below 1, shapes that do not fit, or a diagonal that is not positive.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> q = coupling_flow(jax.random.key(0), jnp.ones(2), jnp.eye(2))
      >>> q.transport(jnp.array([0.5, -1.0])).round(3).tolist()  # the Gaussian, until it is trained
      [1.5, 0.0]

    References:
      Dinh, Sohl-Dickstein, Bengio 2017, https://arxiv.org/abs/1605.08803;
      Durkan, Bekasov, Murray, Papamakarios 2019, https://arxiv.org/abs/1906.04032;
      Jaini, Kobyzev, Yu, Brubaker 2020 (tails), https://arxiv.org/abs/1907.04481
    """
    loc, scale_tril = _check(loc, scale_tril, kind, num_layers, hidden, num_bins, bound)
    coupling = Coupling(kind, tuple(hidden), num_bins, float(bound))
    layers = coupling.init(key, num_layers, loc.size, loc.dtype)
    return _on_gaussian(loc, scale_tril, layers, coupling, df)


@explained
def autoregressive_flow(
    key: Key,
    loc: Any,
    scale_tril: Any,
    *,
    fast: str = "sampling",
    kind: str = "affine",
    num_layers: int = 4,
    hidden: tuple[int, ...] = (32,),
    num_bins: int = 8,
    bound: float = 6.0,
    df: int = 0,
    num_context: int = 0,
) -> Flow:
    r"""A flow of autoregressive layers on top of a Gaussian, which it is before it is trained.

    .. math:: z = \mu + L f(h), \qquad y_i = g(x_i;\, \mathrm{network}_i(x_{<i}, c)) \text{ in each layer of } f

    or the inverse of such a layer. Both ways are exact, but one takes D passes through each network where the other takes
    one. `fast="sampling"` (IAF) is for a `q` by `elbo`, which draws and scores in one pass; `elbo_stl` scores the draw
    anew, by D passes. `fast="density"` (MAF) is for learnt priors and `forward_kl`, where given points are scored; there
    drawing takes D. Where both are wanted often, `coupling_flow` has neither cost.

    Args:
      key: consumed; for the networks' first weights.
      loc: [D] mean of the Gaussian, D >= 2.
      scale_tril: [D, D] Cholesky factor of its covariance; only its lower triangle is read.
      fast: "sampling" or "density", what takes one pass.
      kind: "affine" or "rational_quadratic".
      num_layers: static.
      hidden: widths of the hidden layers of the networks; static.
      num_bins: of a spline; static.
      bound: in standard deviations of the Gaussian, where a spline ends; static.
      df: 0, or the degrees of freedom of a Student t in place of the Gaussian; static.
      num_context: C, for a conditional flow q(z | c): zeros until `q.given(context)`; static.

    Returns:
      A `Flow`.

    Raises:
      TypeError: not floating point, or a size is not an integer.
      ValueError: an unknown kind, D below 2, sizes below 1, shapes that do not fit, or a diagonal that is not positive.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> q = autoregressive_flow(jax.random.key(0), jnp.ones(2), jnp.eye(2), num_context=3)
      >>> q.given(jnp.ones(3)).transport(jnp.array([0.5, -1.0])).round(3).tolist()  # the Gaussian, until it is trained
      [1.5, 0.0]

    References:
      Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling 2016 (IAF), https://arxiv.org/abs/1606.04934;
      Papamakarios, Pavlakou, Murray 2017 (MAF), https://arxiv.org/abs/1705.07057
    """
    loc, scale_tril = _check(loc, scale_tril, kind, num_layers, hidden, num_bins, bound)
    if fast not in FAST:
        raise ValueError(f"fast must be one of {', '.join(FAST)}, got {fast!r}")
    if isinstance(num_context, bool) or not isinstance(num_context, int):
        raise TypeError(f"num_context must be an int, got {type(num_context).__name__}")
    if num_context < 0:
        raise ValueError(f"num_context must be at least 0, got {num_context}")
    stack = Autoregressive(kind, tuple(hidden), num_bins, float(bound), fast)
    layers = stack.init(key, num_layers, loc.size, loc.dtype, num_context)
    return _on_gaussian(loc, scale_tril, layers, stack, df)


def _check(
    loc: Any, scale_tril: Any, kind: str, num_layers: int, hidden: tuple[int, ...], num_bins: int, bound: float
) -> tuple[Array, Array]:
    """Place and scale as arrays, once all settings are known to be possible."""
    loc = check_vector("loc", loc)
    if loc.size < 2:
        raise ValueError("a flow needs D >= 2, got 1")
    scale_tril = as_real("scale_tril", scale_tril, loc.dtype)
    if scale_tril.shape != (loc.size, loc.size):
        raise ValueError(f"scale_tril must have shape {(loc.size, loc.size)}, got {scale_tril.shape}")
    check_tril("scale_tril", scale_tril, jnp.diagonal(scale_tril))
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    for name, value in (("num_layers", num_layers), ("num_bins", num_bins), *(("hidden", width) for width in hidden)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an int, got {type(value).__name__}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not bound > 0:
        raise ValueError(f"bound must be positive, got {bound}")
    return loc, scale_tril


def _on_gaussian(loc: Array, scale_tril: Array, layers: PyTree, stack: Any, df: int) -> Flow:
    zeros = jnp.zeros_like(loc)
    log_diagonal, lower = jnp.log(jnp.diagonal(scale_tril)), jnp.tril(scale_tril, -1)
    return Flow(loc, log_diagonal, lower, zeros, zeros, layers, stack, check_df(df))
