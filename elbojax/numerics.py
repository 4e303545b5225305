"""Small numerical helpers that keep their promises at the edges and under `grad`."""

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
