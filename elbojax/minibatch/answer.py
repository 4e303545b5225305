"""What `fit_minibatches` gives back: a distribution in the user's own space, and what the fit knows of itself."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds, xla
from elbojax.families import Family
from elbojax.loops.strict import relaxed
from elbojax.minibatch.halving import Race
from elbojax.targets import Target
from elbojax.types import Key, PyTree, Status

CHUNK = 256
"""Draws for means and sds that are looked at together."""


@dataclasses.dataclass(frozen=True)
class MinibatchFit:
    """A posterior fitted to minibatches.

    Attributes:
      q: the `Family` found, on flat unconstrained vectors.
      status: CONVERGED; MAX_STEPS; STALLED where no optimiser was better than the start; NON_FINITE; IMPRECISE where the
        gradient of the bound is too noisy to tell whether it is zero.
      winner: name of the optimiser that won the race, or of the next best where its chain was lost.
      rhat: of the iterates that were averaged, the largest over means and log-sds; at most 1.1 where their average is the
        answer.
      mcse: largest Monte Carlo standard error of the averaged means, in posterior sds, and log-sds; where Newton steps of
        the bound ended the fit, of these.
      moved: largest change of means and log-sds, in the same units, when the step size was last cut to a quarter.
      elbo: nats, on fresh minibatches and draws.
      elbo_se: its standard error, the rounding of so large a sum included.
      num_steps: of all optimisers.
      num_gradients: in gradients of one minibatch for one draw; a pass over all rows counts N / B, the control variate of
        a draw counts one.
      race: the `Race`; its losses are those of the standardised problem.
      target: from flat vectors to the user's space.
      step: largest change of means and log-sds, in the same units, that a Newton step of the bound would make at `q`; NaN
        where it was not tested, as where the status is MAX_STEPS.
      step_se: largest standard error of these changes.
      dtype: of what `sample`, `mean` and `sd` give, where it can hold mean and sd together.
    """

    q: Family
    status: Status
    winner: str
    rhat: float
    mcse: float
    moved: float
    elbo: float
    elbo_se: float
    num_steps: int
    num_gradients: int
    race: Race
    target: Target
    step: float = np.nan
    step_se: float = np.nan
    dtype: Any = np.float64

    @relaxed
    def sample(self, key: Key, num_samples: int) -> PyTree:
        """Draws of `q` in the user's space.

        Args:
          key: consumed.
          num_samples: static.

        Returns:
          Pytree like `init`, leading axis num_samples; leaves whose sd the dtype of the fit would lose are NumPy arrays
          of float64.
        """
        with jax.enable_x64(True):
            draws = jax.tree.map(np.asarray, _sample(key, _double(self.q), self.target.constrain, num_samples))
        return self._narrowed(draws)

    @relaxed
    def mean(self) -> PyTree:
        """Posterior means, a pytree like `init`; of float64 where the dtype of the fit would lose the sd."""
        return self._narrowed(self._moments[0])

    @relaxed
    def sd(self) -> PyTree:
        """Posterior standard deviations, a pytree like `init`."""
        return jax.tree.map(lambda x: jnp.asarray(x, self.dtype), self._moments[1])

    @functools.cached_property
    def _moments(self) -> tuple[PyTree, PyTree]:
        """Means and sds in float64."""
        with jax.enable_x64(True):
            q = _double(self.q)
            origin = jax.jit(self.target.constrain)(q.loc)
            sums = [
                jax.tree.map(np.asarray, _offsets(q, self.target.constrain, jnp.asarray(chunk), origin))
                for chunk in _noise_chunks(q.noise_size)
            ]
        first, second = jax.tree.map(lambda *x: sum(x) / len(x), *sums)
        mean = jax.tree.map(lambda x, m: np.asarray(x) + m, origin, first)
        return mean, jax.tree.map(lambda m, s: np.sqrt(np.maximum(s - m**2, 0)), first, second)

    def _narrowed(self, values: PyTree) -> PyTree:
        mean, sd = self._moments

        def narrow(x, m, s):
            coarse = np.any(np.abs(m) * jnp.finfo(self.dtype).eps > thresholds.MINIBATCH_RESOLUTION * s)
            return x if coarse else jnp.asarray(x, self.dtype)

        return jax.tree.map(narrow, values, mean, sd)

    def __str__(self) -> str:
        step = "" if np.isnan(self.step) else f", {self.step:.3f} sds from where the gradient vanishes"
        return (
            f"{self.status}: {self.winner} won; R-hat {self.rhat:.3f}, Monte Carlo error {self.mcse:.3f} sds, moved"
            f" {self.moved:.3f} sds when the step was cut{step}; ELBO {self.elbo:.2f} +- {self.elbo_se:.2f};"
            f" {self.num_steps:,} steps, {self.num_gradients:,} minibatch gradients"
        )


def _double(q: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), q)


@functools.partial(xla.jit, static_argnames=("constrain", "num_samples"))
def _sample(key, q, constrain, num_samples):
    return jax.vmap(lambda k: constrain(q.sample(k)))(jax.random.split(key, num_samples))


@functools.partial(xla.jit, static_argnames="constrain")
def _offsets(q, constrain, draws, origin):
    """Means of the differences to the origin, and of their squares."""
    values = jax.vmap(lambda e: constrain(q.transport(e)))(draws)
    off = jax.tree.map(lambda x, o: x - o, values, origin)
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), off), jax.tree.map(lambda x: jnp.mean(x**2, axis=0), off)


def _noise_chunks(size: int) -> Any:
    """Antithetic draws [CHUNK, size], always the same; whitened where they are not too many."""
    rng = np.random.default_rng(0)
    num_draws, few = thresholds.MINIBATCH_MOMENT_DRAWS, size <= thresholds.MINIBATCH_WHITENED
    half = num_draws // 2 if few else CHUNK // 2
    for _ in range(num_draws // (2 * half)):
        draws = rng.standard_normal((half, size))
        if few:
            draws = np.linalg.solve(np.linalg.cholesky(draws.T @ draws / half), draws.T).T
        for piece in np.split(draws, half // (CHUNK // 2)):
            yield np.concatenate([piece, -piece])
