"""Latent variables integrated out: the log-density of the few coordinates that remain."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import targets
from elbojax.calls import explained
from elbojax.inputs import unmasked
from elbojax.numerics import stop_gradient
from elbojax.structure import correct, linear, newton, quadrature, said, split
from elbojax.structure.correct import Corrected
from elbojax.structure.linear import Factor, Plan
from elbojax.targets import Target
from elbojax.types import Array, Key, PyTree, Scalar, Status

MOST_JUMP = 0.5
"""Nats between values and gradients at a draw of all latents, above which corrections, made of gradients, are wrong; and rounding
of the log-density. A kink (a hinge, a Laplace prior) in each of 20 components leaves less."""
NUM_PROPOSALS = 16
"""Proposals of each component in `sample`."""
INNER = ("laplace", "quadrature")
"""How latents are integrated out."""


class Conditional(NamedTuple):
    """The Gaussian that stands for the latent coordinates given the outer ones, in unconstrained space.

    Attributes:
      loc: [D] flat; the outer coordinates as given, the latent ones at their mean.
      sd: [D] marginal standard deviations; zero for the outer coordinates.
      factors: of the precision, one `linear.Factor` for each group of components.
    """

    loc: Array
    sd: Array
    factors: list[Factor]


class NestedStatus(NamedTuple):
    """How far the Gaussian of the latents can be relied on at one theta; the codes that `Status` has.

    Attributes:
      status: CONVERGED; MAX_STEPS where Newton's steps ran out; STALLED where the density is not log-concave at the mode;
        IMPROPER where a component does not end, UNRELIABLE where values are not those that gradients say, NON_FINITE where the
        log-density or a derivative is not finite.
      decrement: nats that a further step promises, of the worst component; +inf where there is none.
      num_indefinite: components whose precision is not positive definite.
      num_improper: components whose density hardly falls over three of the Gaussian's sds.
      num_steps: Newton steps.
      num_gradients: gradients used, two for each Hessian-vector product.
      jump: nats by which the value at a draw of the latents differs from what gradients on the way there say.
    """

    status: Scalar
    decrement: Scalar
    num_indefinite: Scalar
    num_improper: Scalar
    num_steps: Scalar
    num_gradients: Scalar
    jump: Scalar


class _Solved(NamedTuple):
    """The conditional Gaussian and its evidence; differentiable."""

    flat: Array
    factors: list[Factor]
    value: Scalar
    mode: newton.Mode
    gradient: Array
    blocks: list[tuple[Array, Array]]


@dataclasses.dataclass(frozen=True, eq=False)
class Nested:
    r"""A model with its latent variables integrated out; made by `integrate_out`.

    Theta is the vector [P] of the outer coordinates, unconstrained, in the order of `names`; the logarithm of the Jacobian
    of their constraints is part of `log_density`, as in a `Target`.

    Attributes:
      target: the whole model over flat unconstrained vectors [D].
      plan: which coordinates are latent, and their components.
      start: [D] where Newton's method begins.
      max_steps: of Newton's method.
      inner: how `log_density` integrates: "laplace" or "quadrature".
    """

    target: Target
    plan: Plan
    start: np.ndarray
    max_steps: int = newton.MAX_STEPS
    inner: str = "laplace"

    def __post_init__(self) -> None:
        if self.inner not in INNER:
            raise ValueError(f"inner must be one of {', '.join(INNER)}, got {self.inner!r}")
        if self.inner == "quadrature" and not quadrature.is_for(self.plan):
            raise ValueError("inner='quadrature' is for components of one coordinate each, and some have more")

    @property
    def size(self) -> int:
        """P, the number of outer coordinates."""
        return len(self.plan.outer)

    @property
    def init(self) -> np.ndarray:
        """[P] the outer coordinates of the given init."""
        return self.start[self.plan.outer]

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each outer coordinate."""
        names = self.target.names
        return tuple(names[i] for i in self.plan.outer)

    @property
    def gradients_per_step(self) -> int:
        """Gradients of the log-density that one Newton step costs, a Hessian-vector product counted as two."""
        return 1 + 2 * self.plan.num_colours

    @property
    def gradients_to_differentiate(self) -> int:
        """Gradients that the derivative of `log_density` costs beside its value, about."""
        return 2 * quadrature.NUM_NODES + 1 if self.inner == "quadrature" else self.gradients_per_step

    def log_density(self, theta: Array, *data: PyTree) -> Scalar:
        r"""The log-density of theta with the latents integrated out: by their conditional Gaussian (Laplace), or by quadrature.

        .. math:: \ell(\theta) = \log p(m, \theta) + \tfrac d2 \log 2\pi - \tfrac12 \log|P(m, \theta)|

        with m the mode given theta and P minus the Hessian there, for "laplace". Composes with `jit`, `vmap` and `grad`
        (once): the derivative of m is that of one Newton step from where the others ended, and a quadrature needs none.

        Args:
          theta: [P].
          *data: as the user's log-density takes it.

        Returns:
          Scalar. Where a component's P is not positive definite it is damped, and `status` says so.
        """
        return self.from_start(jnp.asarray(self.start), theta, *data)[0]

    def conditional(self, theta: Array, *data: PyTree) -> Conditional:
        """The Gaussian of the latents given theta.

        Args:
          theta: [P].
          *data: as the user's log-density takes it.

        Returns:
          A `Conditional`.
        """
        solved = self._solve(theta, data)
        variances = [linear.variances(factor) for factor in solved.factors]
        sd = jnp.sqrt(linear.join(self.plan, jnp.zeros_like(solved.flat), variances))
        return Conditional(solved.flat, sd, solved.factors)

    def from_start(
        self, start: Array, theta: Array, *data: PyTree, enough: float | None = None
    ) -> tuple[Scalar, Array, Scalar]:
        """`log_density` by Newton's method from another start, which near the mode saves steps.

        Args:
          start: [D]; the outer coordinates are not read.
          theta: [P].
          *data: as the user's log-density takes it.
          enough: nats that the worst component may be from its mode before the last step; `newton.tolerance` by default.

        Returns:
          The log-density; [D] the latents' mode with theta; the gradients used, two for each Hessian-vector product.
        """
        if self.inner == "quadrature":
            _, mode = self._mode(theta, data, start, max(enough or 0.0, quadrature.NEAR))
            at, density = mode.flat.at[self.plan.outer].set(jnp.asarray(theta)), self._density(data)
            value = density(at) + quadrature.log_integrals(self.plan, density, at, mode.factors)
            return value, at, (mode.steps + 1) * self.gradients_per_step + quadrature.NUM_NODES
        solved = self._solve(theta, data, start, enough)
        return solved.value, solved.flat, self._cost(solved.mode)

    def correct(
        self,
        key: Key,
        theta: Array,
        *data: PyTree,
        num_proposals: int = NUM_PROPOSALS,
        num_draws: int | None = None,
        start: Array | None = None,
        enough: float | None = None,
        num_nodes: int = correct.NUM_NODES,
    ) -> Corrected:
        """A draw of all coordinates given theta, with the correction of `log_density`; see `correct`.

        Args:
          key: consumed.
          theta: [P].
          *data: as the user's log-density takes it.
          num_proposals: K for each component, static; each costs a gradient for each node, for all components together.
          num_draws: M draws of the latents, static, stratified within each component: `flat` is [M, D] then; None for one.
          start: [D] where Newton's method begins, by default where the user's init is.
          enough: nats at which it ends, static: what is corrected is the Gaussian of the step that is left then, which near the
            mode serves as well and costs half as much. None for the Gaussian at the mode, that of `log_density`.
          num_nodes: of the line integrals, static.

        Returns:
          `Corrected`: exp(log_density + log_correction) is unbiased for the integral, for any K.
        """
        if enough is None:
            shift: list[Array] | None = None
            solved = stop_gradient(self._solve(theta, data, start))
            at, factors, ends = solved.flat, solved.factors, (solved.gradient, solved.blocks)
            value, cost = solved.value, self._cost(solved.mode)
            density = self._given(at, data)
        else:
            density, mode = self._mode(theta, data, start, enough)
            at, factors, ends = mode.flat, mode.factors, (mode.gradient, mode.blocks)
            parts = linear.split(self.plan, mode.gradient)
            shift = [
                jnp.where((left <= enough)[:, None, None], linear.solve(factor, own), 0)
                for factor, own, left in zip(factors, parts, mode.decrement, strict=True)
            ]
            value = density(at) + 0.5 * len(self.plan.latent) * math.log(2 * math.pi)
            value = value - 0.5 * sum(jnp.sum(linear.log_det(factor)) for factor in factors)
            cost = (mode.steps + 1) * self.gradients_per_step + 1
        drawn = correct.correct(
            key, self.plan, density, at, factors, ends, num_proposals, num_draws, shift=shift, num_nodes=num_nodes
        )
        values = min(num_draws or 1, correct.CHECKED) // 2 + 1
        return drawn._replace(log_density=value, num_gradients=cost + num_nodes * num_proposals + values)

    def sample(self, key: Key, theta: Array, *data: PyTree, num_proposals: int = NUM_PROPOSALS) -> PyTree:
        """A draw of the latents given theta, picked by weight within each component.

        As K grows it is an exact draw; for a given K the draw with the weight `correct` gives is.

        Args:
          key: consumed.
          theta: [P].
          *data: as the user's log-density takes it.
          num_proposals: K, static.

        Returns:
          Pytree like the user's init, theta among it.
        """
        return self.target.constrain(self.correct(key, theta, *data, num_proposals=num_proposals).flat)

    def status(self, theta: Array, *data: PyTree, start: Array | None = None) -> NestedStatus:
        """How far the Gaussian of the latents can be relied on at theta.

        Args:
          theta: [P].
          *data: as the user's log-density takes it.
          start: [D] where Newton's method begins, by default where the user's init is.

        Returns:
          A `NestedStatus`.
        """
        solved = self._solve(theta, data, start)
        mode = solved.mode
        enough = newton.tolerance(solved.flat.dtype)
        ends = correct.endless(self.plan, self._given(solved.flat, data), solved.flat, solved.factors)
        arrived = [(left <= enough) | (bad > 0) for left, bad in zip(mode.decrement, mode.damping, strict=True)]
        endless = sum((jnp.sum(a & b) for a, b in zip(ends, arrived, strict=True)), jnp.zeros((), int))
        decrement = functools.reduce(jnp.maximum, [jnp.max(part) for part in mode.decrement])
        indefinite = sum((jnp.sum(part > 0) for part in mode.damping), jnp.zeros((), int))
        unfinished = decrement > enough
        status = jnp.where(unfinished, Status.MAX_STEPS, Status.CONVERGED)
        status = jnp.where(indefinite > 0, Status.STALLED, status)
        jump = correct.jump(self.plan, self._given(solved.flat, data), solved.flat, solved.factors)
        rounding = 64 * jnp.finfo(jump.dtype).eps * jnp.abs(self._density(data)(solved.flat))
        status = jnp.where((jump > MOST_JUMP + rounding) & (indefinite == 0), Status.UNRELIABLE, status)
        status = jnp.where(endless > 0, Status.IMPROPER, status)
        finite = jnp.isfinite(solved.value) & jnp.all(jnp.isfinite(solved.gradient))
        status = jnp.where(finite, status, Status.NON_FINITE)
        return NestedStatus(status, decrement, indefinite, endless, mode.steps, self._cost(mode), jump)

    def _cost(self, mode: newton.Mode) -> Scalar:
        return (mode.steps + 2) * self.gradients_per_step + 2

    def _density(self, data: tuple[PyTree, ...]) -> Callable[[Array], Scalar]:
        return lambda flat: self.target.log_density(flat, *data)

    def _given(self, fixed: Array, data: tuple[PyTree, ...]) -> Callable[[Array], Scalar]:
        """The density of latent coordinates. Leaves without any are read from `fixed`.

        What depends on these alone is computed once for many points, and is not differentiated: a third of the time of a
        logistic regression with group effects.
        """
        density: Any = self.target.log_density
        if not hasattr(density, "of_parts"):
            return self._density(data)
        latent = np.zeros(self.target.size, bool)
        latent[self.plan.latent] = True
        places = density.space.places
        moving = [bool(latent[start:stop].any()) for start, stop in places]

        def given(flat):
            parts = [(flat if go else fixed)[start:stop] for go, (start, stop) in zip(moving, places, strict=True)]
            return density.of_parts(parts, *data)

        return given

    def _mode(
        self, theta: Array, data: tuple[PyTree, ...], start: Array | None = None, enough: float | None = None
    ) -> tuple[Callable[[Array], Scalar], newton.Mode]:
        """The density of the latents given theta, and where Newton's method ends; without gradients."""
        theta = jnp.asarray(theta)
        if theta.shape != (self.size,):
            raise ValueError(f"theta must be a vector of shape {(self.size,)}, got {theta.shape}; batch with jax.vmap")
        start = jnp.asarray(self.start if start is None else stop_gradient(start), theta.dtype)
        start = start.at[self.plan.outer].set(stop_gradient(theta))
        density = self._given(start, stop_gradient(data))
        return density, stop_gradient(newton.find_mode(self.plan, density, start, self.max_steps, enough))

    def _solve(
        self, theta: Array, data: tuple[PyTree, ...], start: Array | None = None, enough: float | None = None
    ) -> _Solved:
        theta = jnp.asarray(theta)
        plan, density = self.plan, self._density(data)
        mode = self._mode(theta, data, start, enough)[1]
        at = mode.flat.at[plan.outer].set(theta)
        gradient = jax.grad(density)(at)
        steps = [
            linear.solve(factor, own) for factor, own in zip(mode.factors, linear.split(plan, gradient), strict=True)
        ]
        flat = linear.join(plan, at, [x + s for x, s in zip(linear.split(plan, at), steps, strict=True)])
        gradient, blocks = linear.precision(plan, density, flat)
        factors, value = [], density(flat) + 0.5 * len(plan.latent) * math.log(2 * math.pi)
        for part, damping in zip(blocks, mode.damping, strict=True):
            scale = stop_gradient(linear.diagonal_scale(part))
            factor = linear.factor(linear.damped(part, scale, damping))
            value = value - 0.5 * jnp.sum(linear.log_det(factor))
            factors.append(factor)
        return _Solved(flat, factors, value, mode, gradient, blocks)


@explained
def integrate_out(
    log_density: Callable[..., Scalar],
    init: PyTree,
    latent: PyTree,
    *,
    data: PyTree = None,
    support: PyTree = None,
    max_steps: int = newton.MAX_STEPS,
    inner: str = "laplace",
) -> Nested:
    r"""Integrate latent variables out of a log-joint: by conditional Gaussians (Laplace's method), or by quadrature.

    .. math:: \ell(\theta) \approx \log \int p(x, \theta)\, \mathrm dx

    The latents fall into components that are independent given theta (groups of a hierarchy) or coupled to their
    neighbours alone (a time series). Which they are is found from the log-density, and costs grow linearly with the number of
    components.

    Args:
      log_density: `(position) -> scalar`, or `(position, data) -> scalar` where data is given.
      init: pytree of floats; a start, in the space that `support` says.
      latent: what is integrated out: a pytree prefix of `init` of booleans (leaves of a dict that it does not name are
        False), the name or names of leaves of a dict, or an object with `components` and `bandwidths`: integer arrays of
        flat coordinates, each in an order in which coupled ones are near, and how far coupled ones are apart.
      data: pytree of arrays passed to the log-density, an example; `nested.log_density(theta, data)` takes its like.
      support: as `fit` takes it.
      max_steps: Newton steps at most.
      inner: "laplace", or "quadrature" for components of one coordinate each that are far from Gaussian: some 60
        gradients for a value with its derivative, three times those of Laplace's method; it is off by 2e-4 to 5e-3 nats a
        component where that is off by 4e-3 to 0.17 (docs/nested.md).

    Returns:
      A `Nested`.

    Raises:
      TypeError: `latent` is no prefix of `init`; see `targets.unconstrain` for the rest.
      ValueError: `latent` names no leaf of `init`, or nothing, or everything.

    Example:
      >>> import jax.numpy as jnp
      >>> def log_density(z):
      ...     return -0.5 * jnp.sum((z["x"] - z["mu"]) ** 2 + z["x"] ** 2) - 0.5 * z["mu"] ** 2
      >>> nested = integrate_out(log_density, {"mu": 0.0, "x": jnp.zeros(5)}, latent="x")
      >>> nested.names, nested.plan.num_components
      (('mu',), 5)
      >>> round(float(nested.log_density(jnp.ones(1)) - nested.log_density(jnp.zeros(1))), 4)  # -5/4 - 1/2
      -1.75

    References:
      Tierney, Kadane 1986, https://doi.org/10.1080/01621459.1986.10478240;
      Kristensen et al. 2016 (TMB), https://arxiv.org/abs/1509.00660
    """
    target = targets.unconstrain(log_density, init, support, data=data)
    start = np.asarray(target.unconstrain(unmasked(init, "init")))
    arguments = () if data is None else (data,)
    density = lambda flat: target.log_density(flat, *arguments)  # noqa: E731
    if hasattr(latent, "components"):
        components, bandwidths = latent.components, latent.bandwidths
    else:
        where = said.chosen(latent, init, target)
        if not where.any() or where.all():
            what = "everything" if where.any() else "nothing"
            raise ValueError(f"latent says that {what} is latent; some leaves of init have to be, and some not")
        components, bandwidths = split.components(target, where, density, start)
    parts = linear.plan(target.size, components, bandwidths, getattr(latent, "pattern", None))
    return Nested(target, parts, start, max_steps, inner)
