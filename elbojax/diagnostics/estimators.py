"""A comparison of gradient estimators by their noise, on a problem of one's own."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import noise
from elbojax.calls import explained
from elbojax.families import Enumerable, Family, Reparameterised
from elbojax.objectives import elbo_enumerated, elbo_rloo, elbo_stl
from elbojax.types import Array, Event, Key, LogDensity, PyTree, Scalar

Objective = Callable[[Key, Family, LogDensity], Scalar]

VALUE = 1 / 3
"""What a log-density costs without its gradient, in gradients: reverse mode takes about three times as long."""
SIDE_BY_SIDE = 64
"""Estimates that are made at once."""
EXACT_DRAWS = 2**16
"""Draws of the reference gradient where there is no exact one."""


class GradientNoise(NamedTuple):
    """What is known of each estimator at one `q`; `print` it as a table.

    Attributes:
      names: of the E estimators.
      bias: [E] Euclidean norm of the difference between their mean gradient and the reference.
      bias_error: [E] what that norm would be about without any bias, by chance.
      variance: [E] of one estimate, summed over the parameters of `q`.
      signal_to_noise: [E] norm of the mean gradient over the root of that variance.
      cost: [E] log-density gradients that one estimate takes, a value alone counted as a third.
      value: [E] mean of the objective itself.
      value_sd: [E] its standard deviation.
    """

    names: tuple[str, ...]
    bias: Array
    bias_error: Array
    variance: Array
    signal_to_noise: Array
    cost: Array
    value: Array
    value_sd: Array

    @property
    def variance_at_equal_cost(self) -> Array:
        """[E] variance times cost: that of as many estimates, averaged, as one gradient pays for."""
        return self.variance * self.cost

    def __str__(self) -> str:
        """One line for each estimator, the least noisy at equal cost first."""
        width = max(len("estimator"), *map(len, self.names))
        lines = [
            f"{'estimator':<{width}}  {'variance':>9}  {'x cost':>9}  {'cost':>6}  {'signal/noise':>12}  {'bias':>18}"
            f"  {'value':>18}"
        ]
        for i in np.argsort(self.variance_at_equal_cost, kind="stable"):
            lines.append(
                f"{self.names[i]:<{width}}  {self.variance[i]:9.3g}  {self.variance_at_equal_cost[i]:9.3g}"
                f"  {self.cost[i]:6.3g}  {self.signal_to_noise[i]:12.3g}"
                f"  {self.bias[i]:8.2g} ± {self.bias_error[i]:<7.2g}  {self.value[i]:8.3f} ± {self.value_sd[i]:<7.2g}"
            )
        return "\n".join(lines)


@explained
def gradient_noise(
    key: Key,
    objectives: Mapping[str, Objective],
    q: Family,
    log_density: LogDensity,
    *,
    exact: PyTree | Mapping[str, PyTree] | None = None,
    num_estimates: int = 1024,
) -> GradientNoise:
    r"""Bias, variance, signal-to-noise ratio and cost of gradient estimators at one `q`.

    .. math:: \mathrm{bias} = \|\bar g - g\|, \quad \mathrm{variance} = \sum_j \operatorname{Var}[\hat g_j], \quad
              \mathrm{SNR} = \frac{\|\bar g\|}{\sqrt{\mathrm{variance}}}

    Args:
      key: consumed.
      objectives: `(key, q, log_density) -> scalar` by name; settings are bound with `functools.partial`.
      q: where to look. Noise near the answer is another than far from it: try several.
      log_density: event -> scalar.
      exact: the gradient that they should have, a pytree like `q`, or one by name for those that have another (every
        bound has its own). By default that of the ELBO: exact where `q` can be listed, else from 65,536 draws of its own.
      num_estimates: of each; standard errors fall with its root.

    Returns:
      A `GradientNoise`.

    Raises:
      ValueError: there are no objectives, or fewer than 2 estimates.

    Example:
      >>> import elbojax, functools, jax, jax.numpy as jnp
      >>> p = elbojax.full_rank(jnp.zeros(2), jnp.array([[1.0, 0.0], [0.9, 0.5]]))
      >>> q = elbojax.mean_field(jnp.ones(2), 0.5)
      >>> table = gradient_noise(jax.random.key(0), {"elbo": elbojax.elbo, "stl": elbojax.elbo_stl}, q, p.log_prob)
      >>> table.names, table.cost.tolist()
      (('elbo', 'stl'), [1.0, 1.0])
    """
    if not objectives:
        raise ValueError('objectives must name at least one, such as {"elbo": elbojax.elbo}')
    if num_estimates < 2:
        raise ValueError(f"a variance needs num_estimates >= 2, got {num_estimates}")
    reference_key, *keys = jax.random.split(key, 1 + len(objectives))
    common = None
    rows = []
    for own, (name, objective) in zip(keys, objectives.items(), strict=True):
        if isinstance(exact, Mapping) and name in exact:
            reference = exact[name]
        elif exact is not None and not isinstance(exact, Mapping):
            reference = exact
        else:
            common = reference = _reference(reference_key, q, log_density) if common is None else common
        values, gradients = _estimates(own, objective, q, log_density, num_estimates)
        mean, variance = gradients.mean(axis=0), gradients.var(axis=0, ddof=1).sum()
        difference = mean - np.asarray(_flat(reference), float)
        rows.append(
            (
                np.linalg.norm(difference),
                np.sqrt(variance / num_estimates),
                variance,
                np.linalg.norm(mean) / np.sqrt(variance) if variance > 0 else np.inf,
                cost(own, objective, q, log_density),
                values.mean(),
                values.std(ddof=1),
            )
        )
    return GradientNoise(tuple(objectives), *map(np.array, zip(*rows, strict=True)))  # type: ignore[arg-type]


def cost(key: Key, objective: Objective, q: Family, log_density: LogDensity) -> float:
    """Log-density gradients that one estimate of the gradient takes, counted while it is made.

    Args:
      key: of the estimate.
      objective: `(key, q, log_density) -> scalar`.
      q: where.
      log_density: event -> scalar.

    Returns:
      Gradients, plus a third of the values without one.

    Example:
      >>> import elbojax, functools, jax, jax.numpy as jnp
      >>> q = elbojax.mean_field(jnp.zeros(2), 1.0)
      >>> cost(jax.random.key(0), functools.partial(elbojax.elbo, num_samples=5), q, q.log_prob)
      5.0
      >>> cost(jax.random.key(0), functools.partial(elbojax.elbo_rloo, num_samples=6), q, q.log_prob)
      2.0
    """
    counts = {"values": 0, "gradients": 0}
    counted = _counted(log_density, counts)
    jax.block_until_ready(_estimates(key, objective, q, counted, 1))
    jax.effects_barrier()
    return counts["gradients"] + VALUE * max(counts["values"] - counts["gradients"], 0)


def _estimates(key, objective, q, log_density, num_estimates):
    """Values [n] and flat gradients [n, P]; `map` compiles what it maps."""

    def one(key):
        value, gradient = jax.value_and_grad(lambda q: objective(key, q, log_density))(q)
        return value, _flat(gradient)

    keys = jax.random.split(key, num_estimates)
    values, gradients = jax.lax.map(one, keys, batch_size=min(SIDE_BY_SIDE, num_estimates))
    return np.asarray(values, float), np.asarray(gradients, float)


def _reference(key, q, log_density):
    """The gradient of the ELBO, as well as it can be had."""
    if isinstance(q, Enumerable):
        return jax.grad(lambda q: elbo_enumerated(None, q, log_density))(q)
    one = (
        (lambda key, q: elbo_stl(key, q, log_density, num_samples=256, draws=noise.antithetic))
        if isinstance(q, Reparameterised)
        else (lambda key, q: elbo_rloo(key, q, log_density, num_samples=256))
    )
    gradients = jax.lax.map(lambda key: jax.grad(one, 1)(key, q), jax.random.split(key, EXACT_DRAWS // 256))
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), gradients)


def _counted(log_density: LogDensity, counts: dict[str, int]) -> LogDensity:
    """The same log-density, which counts at how many events its value and its gradient are taken."""

    def tick(what: str, event: Event) -> Scalar:
        """Zero; the host sees one element for each event of a batch."""

        def count(token):
            counts[what] += np.size(token)
            return np.zeros_like(token)

        token = jnp.zeros((), "float32") * jnp.ravel(jax.lax.stop_gradient(jax.tree.leaves(event)[0]))[0].astype(
            "float32"
        )
        return jax.pure_callback(count, jax.ShapeDtypeStruct((), "float32"), token, vmap_method="expand_dims")

    @jax.custom_vjp
    def density(event):
        value = jnp.asarray(log_density(event))
        return value + tick("values", event).astype(value.dtype)

    def forward(event):
        value, pull = jax.vjp(lambda z: jnp.asarray(log_density(z)), event)
        return value + tick("values", event).astype(value.dtype), (pull, event)

    def backward(residuals, slope):
        pull, event = residuals
        return pull(slope + tick("gradients", event).astype(slope.dtype))

    density.defvjp(forward, backward)
    return density


def _flat(tree: Any) -> Array:
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])
