"""Answers of a `q` that nothing has compared with the posterior: its means, quantiles, draws, tables and trees."""

import abc
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds, xla
from elbojax.families import Reparameterised
from elbojax.inputs import check_count, check_key
from elbojax.interop import arviz
from elbojax.loops.strict import relaxed
from elbojax.results import display, pictures, predictive, quantities
from elbojax.results.resolution import handed, widened
from elbojax.results.summary import PosteriorSummary, of_posterior
from elbojax.types import Array, Key, PyTree

CHUNK = 256
"""Draws whose mean is taken at a time."""
NUMBERS = 2**26
"""Numbers in the draws that are held for quantiles, at most: half a gigabyte."""
FEWEST = 256
"""Draws for quantiles, at least."""


class Approximation(abc.ABC):
    """What is asked of one `q`: answers in the user's own space, and words that say that no certificate stands behind them."""

    @property
    @abc.abstractmethod
    def _q(self) -> Any:
        """The family, on what `_constrain` takes."""

    @property
    @abc.abstractmethod
    def _constrain(self) -> Callable[[Any], PyTree]:
        """From an event to the user's space."""

    @property
    @abc.abstractmethod
    def _verdict(self) -> str:
        """That it is not certified, and why, in one line that begins with NOT."""

    @abc.abstractmethod
    def _attributes(self) -> dict[str, Any]:
        """Numbers and words that a tree carries along."""

    @abc.abstractmethod
    def _heading(self) -> str:
        """What this is of, in a line."""

    @abc.abstractmethod
    def _lines(self) -> list[str]:
        """What is known of how it came about, one line each."""

    @relaxed
    def sample(self, key: Key, num_samples: int) -> PyTree:
        """Draws of `q` in the user's space.

        Args:
          key: consumed.
          num_samples: static.

        Returns:
          Pytree like `init`, leading axis num_samples; leaves that the session's dtype cannot hold are NumPy arrays of
          float64.

        Raises:
          ValueError: `num_samples` is below 1.
        """
        check_key(key)
        check_count("num_samples", num_samples)
        with jax.enable_x64(True):
            draws = jax.tree.map(np.asarray, drawn(key, in_double(self._q), self._constrain, num_samples))
        return self._handed(draws)

    @relaxed
    def mean(self) -> PyTree:
        """Means of `q`, a pytree like `init`."""
        return self._handed(self._moments[0])

    @relaxed
    def sd(self) -> PyTree:
        """Standard deviations of `q`, a pytree like `init`."""
        return self._handed(self._moments[1])

    def _handed(self, values: PyTree) -> PyTree:
        return handed(values, *self._moments)

    @functools.cached_property
    def _moments(self) -> tuple[PyTree, PyTree]:
        """Means and sds in float64."""
        with jax.enable_x64(True):
            return moments(self._q, self._constrain)

    @functools.cached_property
    @relaxed
    def _positions(self) -> PyTree:
        """Draws in the user's space in float64, leading axis S: the same at every call."""
        size = sum(np.size(x) for x in jax.tree.leaves(self._moments[0]))
        count = int(np.clip(NUMBERS // max(size, 1), FEWEST, thresholds.MINIBATCH_MOMENT_DRAWS))
        with jax.enable_x64(True):
            return held_draws(self._q, self._constrain, count - count % CHUNK)

    def _weights(self) -> np.ndarray:
        count = len(jax.tree.leaves(self._positions)[0])
        return np.full(count, 1 / count)

    def _names(self) -> tuple[str, ...]:
        return quantities.names(self._moments[0], "z")

    @relaxed
    def summary(self) -> PosteriorSummary:
        """A table to print, whose entries are its fields: mean, sd and quantiles of each number of the user's pytree."""
        weights = self._weights()
        values = _rows(self._positions, len(weights))
        mean, sd = (_rows(part, None)[0] for part in self._moments)
        return of_posterior(self._names(), mean, sd, values, weights, self._verdict)

    @relaxed
    def quantile(self, probability: float | Sequence[float]) -> PyTree:
        """Quantiles of `q`, a pytree like `init`; those of several probabilities lie along a leading axis.

        Args:
          probability: within [0, 1], or several.

        Raises:
          ValueError: a probability is not within [0, 1].
        """
        return quantities.quantiles(self._positions, self._weights(), probability)

    @relaxed
    def evaluate(self, function: Callable[..., PyTree], *args: PyTree) -> quantities.Quantities:
        """Quantities that follow from the parameters: their means, sds, quantiles and draws under `q`.

        Args:
          function: `(position, *args) -> pytree` of arrays.
          *args: pytrees of arrays that the function is given besides.

        Returns:
          `Quantities`, in double precision, which print as a table.
        """
        log_weights = np.log(self._weights())
        with jax.enable_x64(True):
            return quantities.evaluated(function, self._positions, widened(args), log_weights, self._verdict)

    def predict(
        self, key: Key, *args: Any, num_samples: int = 1000, simulate: Callable[..., PyTree] | None = None
    ) -> PyTree:
        """Data drawn at draws of `q`.

        Args:
          key: consumed.
          *args: what `simulate` is given besides.
          num_samples: S.
          simulate: `(key, position, *args) -> pytree`.

        Returns:
          Pytree of what is simulated, leading axis S, as NumPy arrays.

        Raises:
          ValueError: `simulate` is missing.
        """
        own, key = jax.random.split(key)
        return predictive.predicted(key, self.sample(own, num_samples), None, simulate, args, {})

    @relaxed
    def log_likelihood(self, function: Callable[..., PyTree], data: PyTree = None) -> PyTree:
        """How likely each observation is at each of the draws held, which are of equal weight.

        Args:
          function: `(position) -> pytree`, or `(position, data) -> pytree` where data is given, of arrays with one number
            for each observation.
          data: pytree of arrays.

        Returns:
          Pytree of NumPy arrays [S, ...] in double precision.
        """
        return predictive.log_likelihoods(self._positions, None, function, data)

    @relaxed
    def to_arviz(
        self,
        num_samples: int = 1000,
        *,
        dims: Mapping[str, Sequence[str]] | None = None,
        coords: Mapping[str, Any] | None = None,
        log_likelihood: Callable[[PyTree], dict[str, Any]] | None = None,
        simulate: Callable[[Key, PyTree], dict[str, Any]] | None = None,
        observed: dict[str, Any] | None = None,
    ) -> Any:
        """Draws of `q` as an ArviZ tree with the group `posterior`, and what is known of data.

        Its attribute `certified` says in words that nothing has compared them with the posterior.

        Args:
          num_samples: draws, the same on every call, in one chain.
          dims: name of a variable -> names of its axes.
          coords: name of an axis -> labels along it.
          log_likelihood: `(position) -> dict`, log p(x_n | z) of each observation by name, for ArviZ's `loo`.
          simulate: `(key, position) -> dict`, data drawn anew by name, for its predictive checks.
          observed: data by the same names.

        Returns:
          As `Fit.to_arviz`, without a group `certificate`.

        Raises:
          ModuleNotFoundError: the `interop` extra is not installed.
          ValueError: `num_samples` is below 1; `dims` or `coords` do not fit.
        """
        chains = jax.tree.map(lambda x: np.asarray(x)[None], self.sample(jax.random.key(0), num_samples))
        chains, groups = predictive.known_of_data(chains, None, log_likelihood, simulate, observed)
        return arviz.to_arviz(
            chains,
            {},
            codes={},
            batched=False,
            attributes={"inference_library": "elbojax", "certified": self._verdict, **self._attributes()},
            groups=groups,
            dims=dims,
            coords=coords,
        )

    def plot(self, *, most: int = 12, title: str = "") -> Any:
        """The marginal density of each number under `q`, with its 5, 50 and 95 per cent quantiles.

        Args:
          most: panels, but for a few of each leaf.
          title: over all panels; by default that nothing has certified them.

        Returns:
          A matplotlib `Figure`.
        """
        return pictures.marginals(self, most=most, title=title)

    def report(self) -> str:
        """The numbers, mean ± sd, and how they came about."""
        mean, sd = (_rows(part, None)[0] for part in self._moments)
        lines = [self._heading(), *display.numbers(self._names(), mean, sd), f"  {self._verdict}"]
        return "\n".join([*lines, *(f"  {line}" for line in self._lines())])

    def html(self) -> str:
        """The table for notebooks, with the report folded away."""
        return self.summary().html(self.report(), display.SHOWN, "report")


def in_double(q: Any) -> Any:
    """A family whose floating arrays are of double precision."""
    floats = lambda x: jnp.issubdtype(jnp.result_type(x), jnp.floating)  # noqa: E731
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64) if floats(x) else x, q)


@functools.partial(xla.jit, static_argnames=("constrain", "num_samples"))
def drawn(key: Key, q: Any, constrain: Any, num_samples: int) -> PyTree:
    """Draws in the user's space, leading axis num_samples.

    Args:
      key: consumed.
      q: a family.
      constrain: from its events to the user's space, static.
      num_samples: static.
    """
    return jax.vmap(lambda k: constrain(q.sample(k)))(jax.random.split(key, num_samples))


def moments(q: Any, constrain: Any) -> tuple[PyTree, PyTree]:
    """Means and sds in the user's space, in double precision; called under it.

    Args:
      q: a family; of a reparameterised one the draws are antithetic, and whitened where it takes few numbers.
      constrain: from its events to the user's space.

    Returns:
      Two pytrees of NumPy arrays.
    """
    q = in_double(q)
    if not isinstance(q, Reparameterised):
        draws = held_draws(q, constrain, thresholds.MINIBATCH_MOMENT_DRAWS)
        return jax.tree.map(lambda x: np.mean(x, axis=0), draws), jax.tree.map(lambda x: np.std(x, axis=0), draws)
    origin = _mapped(q, constrain, jnp.zeros(q.noise_size))
    sums = [
        jax.tree.map(np.asarray, _offsets(q, constrain, jnp.asarray(chunk), origin))
        for chunk in noise_chunks(q.noise_size)
    ]
    first, second = jax.tree.map(lambda *x: sum(x) / len(x), *sums)
    mean = jax.tree.map(lambda x, m: np.asarray(x) + m, origin, first)
    return mean, jax.tree.map(lambda m, s: np.sqrt(np.maximum(s - m**2, 0)), first, second)


def held_draws(q: Any, constrain: Any, count: int) -> PyTree:
    """So many draws in the user's space, the same at every call, as NumPy arrays in double precision; called under it.

    Args:
      q: a family.
      constrain: from its events to the user's space.
      count: of the draws, a multiple of `CHUNK`.
    """
    q = in_double(q)
    if not isinstance(q, Reparameterised):
        draws = jax.tree.map(np.asarray, drawn(jax.random.key(0), q, constrain, count))
        return jax.tree.map(lambda x: x.astype(float), draws)
    chunks = noise_chunks(q.noise_size)
    parts = [
        jax.tree.map(np.asarray, _each_mapped(q, constrain, jnp.asarray(next(chunks)))) for _ in range(count // CHUNK)
    ]
    return jax.tree.map(lambda *each: np.concatenate(each), *parts)


@functools.partial(xla.jit, static_argnames="constrain")
def _mapped(q, constrain, noise):
    return constrain(q.transport(noise))


@functools.partial(xla.jit, static_argnames="constrain")
def _each_mapped(q, constrain, noise):
    return jax.vmap(lambda e: constrain(q.transport(e)))(noise)


@functools.partial(xla.jit, static_argnames="constrain")
def _offsets(q, constrain, draws, origin):
    """Means of the differences to the origin, and of their squares."""
    values = jax.vmap(lambda e: constrain(q.transport(e)))(draws)
    off = jax.tree.map(lambda x, o: x - o, values, origin)
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), off), jax.tree.map(lambda x: jnp.mean(x**2, axis=0), off)


def noise_chunks(size: int) -> Iterator[np.ndarray]:
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


def _rows(tree: PyTree, count: int | None) -> np.ndarray:
    """[count, P] numbers of a pytree side by side; [1, P] of one without a leading axis."""
    shape: Any = (1, -1) if count is None else (count, -1)
    return np.concatenate([np.reshape(np.asarray(leaf, float), shape) for leaf in jax.tree.leaves(tree)], axis=1)


def event_of(q: Any) -> Any:
    """The shapes of one event of a family."""
    return jax.eval_shape(lambda q: q.sample(jax.random.key(0)), q)


def same(event: Array) -> Array:
    """The map of a `q` that is over the user's own space."""
    return event
