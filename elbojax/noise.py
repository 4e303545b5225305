"""Base draws: standard normal numbers [S, size] that a family's `transport` turns into events.

Every sampler has the shape `draw(key, num_samples, size, dtype) -> [S, size]`, so one can be put in
the place of another wherever an objective takes `draws=`.
"""

import functools
import importlib.resources
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import linalg
from elbojax.types import Array, Key

Draws: TypeAlias = Callable[..., Array]


def _check(num_samples: int, size: int) -> None:
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    if size < 1:
        raise ValueError(f"the size of a draw must be at least 1, got {size}")


def iid(key: Key, num_samples: int, size: int, dtype: Any = float) -> Array:
    r"""Independent standard normal draws.

    .. math:: \epsilon_s \sim \mathrm{N}(0, I)

    They are drawn as one flat vector behind a barrier: fused into what uses them, small draws cost
    50 ns a number on CPU; flat they cost 10 (workaround "fused draws").

    Args:
      key: consumed.
      num_samples: S, static.
      size: static.
      dtype: of the result.

    Returns:
      [S, size].

    Example:
      >>> import jax
      >>> iid(jax.random.key(0), 3, 2).shape
      (3, 2)
    """
    _check(num_samples, size)
    flat = jax.random.normal(key, (num_samples * size,), dtype)
    return jax.lax.optimization_barrier(flat).reshape(num_samples, size)


def antithetic(key: Key, num_samples: int, size: int, dtype: Any = float) -> Array:
    r"""Draws in pairs of opposite sign: their mean is exactly zero.

    .. math:: \epsilon_{s + S/2} = -\epsilon_s

    Estimates of odd functions have no error at all; on a Gaussian target a fixed-draw fit finds the exact mean.

    Args:
      key: consumed.
      num_samples: S, static, even.
      size: static.
      dtype: of the result.

    Returns:
      [S, size].

    Raises:
      ValueError: S is odd.

    Example:
      >>> import jax
      >>> e = antithetic(jax.random.key(0), 4, 2)
      >>> bool((e[2:] == -e[:2]).all())
      True
    """
    _check(num_samples, size)
    if num_samples % 2:
        raise ValueError(f"antithetic draws come in pairs: num_samples must be even, got {num_samples}")
    half = iid(key, num_samples // 2, size, dtype)
    return jnp.concatenate([half, -half])


def whitened(key: Key, num_samples: int, size: int, dtype: Any = float) -> Array:
    r"""Antithetic draws whose second moment is the identity: mean and covariance carry no sampling error.

    .. math:: \frac1S \sum_s \epsilon_s = 0, \qquad \frac1S \sum_s \epsilon_s \epsilon_s^\top = I

    With fewer than `size` pairs the full second moment cannot be the identity; its diagonal still is.
    Fixed-draw fits (`newton`, `dadvi`) use these: they remove the 1 / sqrt(S) error that published
    fixed-draw inference leaves in its means.

    Args:
      key: consumed.
      num_samples: S, static, even.
      size: static.
      dtype: of the result.

    Returns:
      [S, size].

    Raises:
      ValueError: S is odd.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> e = whitened(jax.random.key(0), 8, 2)
      >>> bool(jnp.allclose(e.T @ e / 8, jnp.eye(2), atol=1e-5))
      True
    """
    draws = antithetic(key, num_samples, size, dtype)
    if num_samples // 2 < size:
        return draws / jnp.sqrt(jnp.mean(draws**2, axis=0))
    second_moment = draws.T @ draws / num_samples
    return linalg.solve_lower(linalg.cholesky(second_moment), draws.T).T


def sobol(key: Key, num_samples: int, size: int, dtype: Any = float) -> Array:
    r"""Randomised quasi-Monte Carlo: a Sobol net, Owen-scrambled by hashing, through the normal quantile function.

    .. math:: \epsilon_s = \Phi^{-1}(u_s), \qquad u_s \text{ uniform for each } s, \text{ the set evenly spread}

    Unbiased for every S; for smooth integrands the error falls almost as 1 / S where S is a power of two.

    Args:
      key: consumed.
      num_samples: S, static; a power of two spreads best.
      size: static, at most 21201.
      dtype: of the result.

    Returns:
      [S, size].

    Example:
      >>> import jax
      >>> sobol(jax.random.key(0), 8, 3).shape
      (8, 3)

    References:
      Burley 2020, Practical Hash-based Owen Scrambling, https://jcgt.org/published/0009/04/01/
    """
    _check(num_samples, size)
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    directions = jnp.asarray(sobol_directions(size, max(num_samples - 1, 1).bit_length()))
    place = jnp.arange(directions.shape[0], dtype="uint32")
    binary_digits = jnp.arange(num_samples, dtype="uint32")[:, None] >> place[None] & 1
    chosen = binary_digits[:, :, None] * directions[None]
    points = jax.lax.reduce(chosen, np.uint32(0), jax.lax.bitwise_xor, (1,))
    seeds = jax.random.bits(key, (size,), "uint32")
    scrambled = reverse_bits(laine_karras(points, seeds[None]))
    # The top bits that the dtype can hold, at the middle of their cell: never 0 or 1.
    digits = min(int(jnp.finfo(dtype).nmant), 32)
    uniform = ((scrambled >> (32 - digits)).astype(dtype) + 0.5) / 2.0**digits
    # Behind a barrier, for what is fused into several uses is computed once for each.
    return jax.lax.optimization_barrier(jax.scipy.special.ndtri(uniform))


@functools.cache
def sobol_directions(size: int, num_bits: int) -> np.ndarray:
    """Joe and Kuo's direction numbers [num_bits, size], the digits of each reversed, from the table that SciPy has.

    Read from its file: to import scipy.stats takes longer than a fit.
    """
    table = np.load(str(importlib.resources.files("scipy") / "stats" / "_sobol_direction_numbers.npz"))
    if size > len(table["poly"]):
        raise ValueError(f"a Sobol net has at most {len(table['poly'])} dimensions, got {size}")
    odd = np.zeros((num_bits, size), np.uint64)
    polynomials, firsts = table["poly"][:size].tolist(), table["vinit"][:size].tolist()
    for j, (polynomial, first) in enumerate(zip(polynomials, firsts, strict=True)):
        degree = polynomial.bit_length() - 1
        m = first[:degree] if j else [1] * num_bits
        while len(m) < num_bits:
            new = m[-degree]
            for i in range(1, degree + 1):
                new ^= (polynomial >> (degree - i) & 1) * m[-i] << i
            m.append(new)
        odd[:, j] = m[:num_bits]
    # The k-th number is a fraction of k + 1 binary digits.
    return reverse_bits((odd << (31 - np.arange(num_bits, dtype=np.uint64)[:, None])).astype(np.uint32))


def laine_karras(bits: Any, seed: Any) -> Any:
    """Hash in which a bit depends on lower bits only: on reversed bits, a nested uniform scramble."""
    bits = bits + seed
    for constant in (0x6C50B47C, 0xB82F1E52, 0xC7AFE638, 0x8D22F6E6):
        bits = bits ^ (bits * np.uint32(constant))
    return bits


def reverse_bits(bits: Any) -> Any:
    """Reverse the bits of 32-bit words, NumPy's or JAX's."""
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF), (16, 0x0000FFFF)):
        odd = np.uint32(mask)
        bits = ((bits >> shift) & odd) | ((bits & odd) << shift)
    return bits
