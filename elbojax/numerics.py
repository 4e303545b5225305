"""Small numerical helpers that keep their promises at the edges and under `grad`."""

import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp

from elbojax.types import Array, PyTree, Scalar


def log_mean_exp(x: Array, axis: int | None = None) -> Array:
    r"""Logarithm of the mean of exponentials, without overflow.

    .. math:: \log \frac1n \sum_i e^{x_i}

    Args:
      x: [..., n, ...] logarithms; -inf counts as zero.
      axis: the axis to average over; all of them by default.

    Returns:
      The log-mean, without that axis.

    Example:
      >>> import jax.numpy as jnp
      >>> float(log_mean_exp(jnp.array([1000.0, 1000.0])))
      1000.0
    """
    count = x.size if axis is None else x.shape[axis]
    return jax.nn.logsumexp(x, axis=axis) - jnp.log(jnp.asarray(count, x.dtype))


@jax.custom_jvp
def softplus(x: Array) -> Array:
    r"""log(1 + e^x), about twice as fast forwards and backwards as `jax.nn.softplus` on CPU.

    .. math:: \max(x, 0) + \log(1 + e^{-|x|})

    Accurate to one rounding unit of 1 in absolute terms (not relative to a vanishing result),
    which is what a log-likelihood needs. The backward pass reuses the exponential.

    Args:
      x: any shape.

    Returns:
      An array like `x`.

    Example:
      >>> import jax.numpy as jnp
      >>> float(softplus(jnp.array(1000.0)))
      1000.0
    """
    return jnp.maximum(x, 0) + jnp.log(1 + jnp.exp(-jnp.abs(x)))


@softplus.defjvp
def _softplus_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    small = jnp.exp(-jnp.abs(x))
    value = jnp.maximum(x, 0) + jnp.log(1 + small)
    sigmoid = jnp.where(x >= 0, 1, small) / (1 + small)
    return value, sigmoid * x_dot


def magic_box(log_prob: Array) -> Array:
    r"""One, whose derivative is the score: multiply it with a reward to get the score-function gradient.

    .. math:: \exp(\log q - \mathrm{stop}(\log q)) = 1, \qquad \nabla \mathrm{box} = \nabla \log q

    Args:
      log_prob: any shape.

    Returns:
      Ones like `log_prob`.

    Example:
      >>> import jax
      >>> float(jax.grad(lambda l: 3.0 * magic_box(l))(-1.5))
      3.0

    References:
      Foerster et al. 2018, DiCE, https://arxiv.org/abs/1802.05098
    """
    return jnp.exp(log_prob - jax.lax.stop_gradient(log_prob))


def tree_where(condition: Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """Leaf by leaf `where`: all of one tree or all of the other.

    Args:
      condition: boolean scalar, or [M] where the leaves have a leading axis M.
      on_true: pytree.
      on_false: pytree of the same structure, shapes and dtypes.

    Returns:
      A pytree like both.

    Example:
      >>> import jax.numpy as jnp
      >>> tree_where(jnp.array(False), {"a": 1}, {"a": 2})["a"].item()
      2
    """

    def pick(a, b):
        if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(
                pick(jax.random.key_data(a), jax.random.key_data(b)), impl=jax.random.key_impl(a)
            )
        a, b = jnp.asarray(a), jnp.asarray(b)
        return jnp.where(jnp.reshape(condition, jnp.shape(condition) + (1,) * (a.ndim - jnp.ndim(condition))), a, b)

    return jax.tree.map(pick, on_true, on_false)


def tree_all_finite(tree: PyTree) -> Scalar:
    """Whether no floating-point leaf holds a NaN or an infinity.

    Args:
      tree: pytree; integer leaves and keys are passed over.

    Returns:
      Boolean scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> bool(tree_all_finite({"a": jnp.array([1.0, jnp.nan]), "n": 3}))
      False
    """
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in floats])) if floats else jnp.array(True)


def stop_gradient(tree: PyTree) -> PyTree:
    """A copy of `tree` through which no gradient flows, integers and all.

    Args:
      tree: pytree.

    Returns:
      The same pytree.

    Example:
      >>> import jax
      >>> float(jax.grad(lambda x: x * stop_gradient(x))(3.0))
      3.0
    """
    return jax.tree.map(jax.lax.stop_gradient, tree)


def strong(tree: PyTree) -> PyTree:
    """The same arrays without weak types, which would make the second call of a loop compile anew.

    Args:
      tree: pytree of arrays; keys are passed over.

    Returns:
      The same pytree.

    Example:
      >>> import jax.numpy as jnp
      >>> strong(jnp.asarray(1.0)).weak_type
      False
    """

    def settle(x):
        x = jnp.asarray(x)
        return x if jnp.issubdtype(x.dtype, jax.dtypes.extended) else jax.lax.convert_element_type(x, x.dtype)

    return jax.tree.map(settle, tree)


def log_power_mean(x: Array, power: Array | float, weights: Array | float = 1.0) -> Scalar:
    r"""Logarithm of a weighted power mean of positive numbers that are given by their logarithms.

    .. math:: \frac1p \log \frac{\sum_i b_i e^{p x_i}}{\sum_i b_i}, \qquad
              p \to 0: \frac{\sum_i b_i x_i}{\sum_i b_i}, \qquad p \to \pm\infty: \max_i x_i,\ \min_i x_i

    Does not decrease in p. Accurate near p = 0, where the two lines meet.

    Args:
      x: [n] logarithms.
      power: p, scalar, traced; 0 and both infinities included.
      weights: [n] non-negative b, or one for all.

    Returns:
      Scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.log(jnp.array([1.0, 3.0]))
      >>> [round(float(jnp.exp(log_power_mean(x, p))), 4) for p in (-jnp.inf, 0.0, 1.0, jnp.inf)]
      [1.0, 1.7321, 2.0, 3.0]
    """
    power = jnp.asarray(power, x.dtype)
    share = jnp.broadcast_to(jnp.asarray(weights, x.dtype), x.shape)
    share = share / jnp.sum(share)
    ordinary = jnp.isfinite(power) & (power != 0)
    safe = jnp.where(ordinary, power, 1)
    mean = jnp.sum(jnp.where(share > 0, share * x, 0))
    centre = jax.lax.stop_gradient(jnp.where(jnp.isfinite(mean), mean, 0))
    scaled = safe * (x - centre)
    near = jnp.all(jnp.abs(scaled) < 0.5)  # small exponents: their mean without the rounding of 1 + x
    by_expm1 = jnp.log1p(jnp.sum(share * jnp.expm1(jnp.where(near, scaled, 0))))
    by_exp = jax.nn.logsumexp(jnp.where(near, 0, scaled), b=share)
    general = centre + jnp.where(near, by_expm1, by_exp) / safe
    counts = share > 0
    ends = jnp.where(power > 0, jnp.max(jnp.where(counts, x, -jnp.inf)), jnp.min(jnp.where(counts, x, jnp.inf)))
    return jnp.where(ordinary, general, jnp.where(power == 0, mean, ends))


@jax.custom_jvp
def scale_gradient(x: Array, factor: Array) -> Array:
    r"""The identity, whose derivative is multiplied by a factor.

    .. math:: y = x, \qquad \mathrm d y = c\, \mathrm d x

    Args:
      x: [..., n].
      factor: c, broadcast against x; no gradient flows into it.

    Returns:
      x.

    Example:
      >>> import jax
      >>> [float(x) for x in jax.value_and_grad(lambda x: scale_gradient(x, 0.5) ** 2)(3.0)]
      [9.0, 3.0]
    """
    del factor
    return x


@scale_gradient.defjvp
def _scale_gradient_jvp(primals, tangents):
    (x, factor), (x_dot, _) = primals, tangents
    return x, factor * x_dot


def linearized(gradient: Callable[[Array], tuple[Array, PyTree]], point: Array) -> tuple[Array, Callable, PyTree]:
    r"""A gradient and products with its Jacobian, linearised once for all of them.

    .. math:: v \mapsto \partial g(x)\, v, \qquad \text{or} \quad
              \frac{g(x + h v) - g(x - h v)}{2 h}, \quad h = \varepsilon^{1/3} / \max_i |v_i|

    where JAX cannot differentiate a second time: a `custom_vjp` within a `custom_vjp`, a callback. A warning says so.

    Args:
      gradient: [n] -> ([n], auxiliary output), in units in which a step of one is neither large nor small.
      point: [n].

    Returns:
      The gradient there, the product [n] -> [n], the auxiliary output.

    Example:
      >>> import jax.numpy as jnp
      >>> value, product, _ = linearized(lambda x: (x**3, None), jnp.array([1.0, 2.0]))
      >>> product(jnp.array([1.0, 1.0])).tolist()
      [3.0, 12.0]
    """
    jax.eval_shape(gradient, point)  # whatever is wrong with the function itself is not a matter of derivatives
    try:
        value, product, auxiliary = jax.linearize(gradient, point, has_aux=True)
        jax.eval_shape(jax.vmap(product), point[None])  # a custom_vjp complains when batched, and else when compiled
    except (TypeError, ValueError, NotImplementedError) as error:
        warnings.warn(
            f"the log-density has no second derivatives, so differences of gradients take their place ({error})",
            RuntimeWarning,
            stacklevel=2,
        )
    else:
        return value, product, auxiliary
    value, auxiliary = gradient(point)

    def difference(vector: Array) -> Array:
        length = jnp.max(jnp.abs(vector))
        step = jnp.cbrt(jnp.finfo(point.dtype).eps) / jnp.where(length > 0, length, 1)
        ahead, behind = (gradient(point + sign * step * vector)[0] for sign in (1, -1))
        return (ahead - behind) / (2 * step)

    return value, difference, auxiliary
