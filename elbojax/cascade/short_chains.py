"""`chain_check`: whether the numbers that a `q`, or draws from elsewhere, report are those of the posterior."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import targets, thresholds, xla
from elbojax.bijectors import Real
from elbojax.cascade.check.shifts import Looked, Reported, looked
from elbojax.cascade.evaluate import Compiled, drive
from elbojax.families import Family, Reparameterised
from elbojax.families.base import check_one
from elbojax.host.distributions import Gaussian, from_root
from elbojax.host.requests import Values
from elbojax.inputs import check_real, unmasked
from elbojax.loops.checks import check_data, check_host, check_key, check_log_density
from elbojax.loops.progress import Progress, Watched
from elbojax.loops.strict import relaxed
from elbojax.noise import iid
from elbojax.results import space
from elbojax.results.agreement import Agreement, ChainCheck
from elbojax.results.resolution import widened
from elbojax.targets import Target
from elbojax.types import Array, Key, PyTree, Scalar
from elbojax.workarounds.blas import one_blas_thread

ROOM = 4096
"""Draws whose numbers are computed side by side."""
FLAT = 1e-12
"""Share of the largest eigenvalue of a covariance below which there is rounding alone."""


@relaxed
def chain_check(
    key: Key,
    q: Family | PyTree,
    log_density: Callable[..., Scalar],
    *,
    data: PyTree = None,
    support: PyTree = None,
    functions: Mapping[str, Callable[[PyTree], Array]] | None = None,
    tolerance: float = 0.1,
    num_chains: int = 256,
    max_gradients: int | None = None,
    progress: bool | None = False,
) -> ChainCheck:
    r"""Check the means, sds and correlations of a `q`, or of draws from elsewhere, by short chains that start from it.

    Hamiltonian chains leave the posterior as it is. Started from draws of `q` they stay in place where `q` is right, and leave
    where it is not, with the number :math:`\mathrm E_q f` shifted to the posterior's. Of each number

    .. math:: \delta_f = \frac{\bar f - \mathrm E_q f}{(1 - \rho_f)\,\mathrm{sd}_f}, \qquad
              |\delta_f| + 2.6\,\mathrm{se}(\delta_f) < \text{tolerance}

    with :math:`\bar f` the mean over all chains, their first part left out, and :math:`\rho_f` the share of their starts that
    they still remember. It AGREES where this holds; it is SHIFTED where :math:`|\delta_f|` exceeds the tolerance by what no
    chance explains, all numbers taken together; else it is UNDECIDED. Chains run on until all numbers agree or one is
    shifted, for 128 trajectories at most. `q` as a whole agrees where all its numbers do, and is shifted where
    one is. No density of `q` is needed, nor importance weights, so the number of parameters hardly counts: for a right `q`
    the chains took 30,000 (D = 50, Gaussian) to 400,000 gradients (D = 1,000, a hierarchy), in wide batches, and half as many or
    fewer for one that is wrong.

    A quarter of the chains starts from `q` widened by 1.5 and has to come to where the others are. Chains begun at `q` do not
    find other modes, nor tails that take longer to reach than they run: what is said is about the mass that `q` and its
    surroundings lead to.

    Args:
      key: consumed.
      q: any `Family`, or draws: a pytree like the position whose leaves have a leading axis S, taken as what is reported.
        Draws of `Fit.sample`, of NUTS, of another library will do.
      log_density: `(position) -> scalar`, or `(position, data) -> scalar` where data is given, unnormalised, over what `q` draws.
      data: pytree of arrays passed to the log-density.
      support: as for `fit`, where positions are constrained: None, or a pytree or prefix of bijectors or their names. Chains run
        in the unconstrained space; numbers are those of the space of `q`.
      functions: name -> function of one position that returns a scalar or an array, whose means and sds are numbers as well:
        probabilities, predictions, products.
      tolerance: up to which a mean may be off in posterior sds, an sd relative, and a correlation by twice as much.
      num_chains: C.
      max_gradients: not to be exceeded, but by the first look, which is had at any price.
      progress: True for a bar of gradients; None for one where a person is watching.

    Returns:
      A `ChainCheck`, which prints as a table and is true where `q` agrees.

    Raises:
      TypeError: `q` is neither a family nor draws, a leaf is not floating point, the log-density does not return a scalar.
      ValueError: `q` is a stack of models; leaves of the draws differ in S, or S is below 100; draws are not finite, outside
        their support, or one number of them never varies; `log_density` is finite at none; above 3,000 parameters; an
        argument is out of range.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> p = elbojax.mean_field(jnp.array([1.0, -2.0]), jnp.array([1.0, 0.1]))
      >>> q = elbojax.mean_field(jnp.array([1.0, -1.9]), jnp.array([1.0, 0.1]))
      >>> print(elbojax.chain_check(jax.random.key(0), p, p.log_prob).agreement)
      agrees
      >>> result = elbojax.chain_check(jax.random.key(0), q, p.log_prob)
      >>> verdict = elbojax.results.Agreement(result.agreements[1])
      >>> print(result.agreement, result.names[1], verdict, round(float(result.shifts[1])))
      shifted mean z[1] shifted -1

    References:
      Modi et al. 2023 (targeted accuracy diagnostic by short chains), https://arxiv.org/abs/2302.12419;
      Margossian et al. 2024 (many short chains), https://arxiv.org/abs/2110.13017
    """
    check_host("chain_check", key=key, q=q, data=data)
    check_key(key)
    check_log_density(log_density)
    check_data(data)
    chosen = _chosen(tolerance, num_chains, max_gradients, functions)
    draw_key, more_key, seed_key = jax.random.split(key, 3)
    rng = np.random.default_rng(np.ravel(jax.random.key_data(seed_key)))
    with jax.enable_x64(True), one_blas_thread(), np.errstate(all="ignore"):
        data = widened(unmasked(data))
        if isinstance(q, Family):
            check_one(q)
        first = _drawn(draw_key, q, ROOM) if isinstance(q, Family) else _given(q)
        first = jax.tree.map(lambda x: np.asarray(x, np.float64), first)
        target = _target(log_density, first, support, data)
        free = _unconstrained(target, first)
        model = Compiled(target, data)
        starts, outside = _starts(rng, model, free, num_chains)
        numbers = _Numbers(target, chosen)
        names = [*space.names(target), *numbers.names]
        sums = _Sums(numbers(free), free)
        if isinstance(q, Family):
            for more in jax.random.split(more_key, thresholds.CHAIN_CHECK_DRAWS // ROOM - 1):
                free = _unconstrained(target, _drawn(more, q, ROOM))
                sums.add(numbers(free), free)
        reported, whitening = sums.reported(exact=not isinstance(q, Family)), sums.whitening()
        _check_varies(names, reported.sd)
        num_widened = int(thresholds.CHAIN_CHECK_WIDENED * num_chains)
        starts = _with_widened(model, whitening, starts, num_widened)
        limit = math.inf if max_gradients is None else float(max_gradients)
        with Progress(max_gradients, show=progress, unit=" gradients") as bar:
            seen: Any = Watched(model, bar) if bar.visible else model
            found = drive(looked(rng, whitening, starts, num_widened, numbers, reported, tolerance, limit), seen)
    return _result(found, names, reported, num_chains, outside)


def _result(found: Looked, names: list[str], reported: Reported, num_chains: int, share: float) -> ChainCheck:
    agreement, reasons = found.agreement, found.reasons
    if share > thresholds.CHAIN_CHECK_OUTSIDE:
        agreement = Agreement.SHIFTED
        reasons = (f"{share:.1%} of the draws of q have no finite log-density".replace("%", " %"), *reasons)
    i, j = found.pairs.T
    pairs = [] if reported.correlation is None else reported.correlation[i, j]
    return ChainCheck(
        agreement=agreement,
        reasons=reasons,
        names=(
            *(f"mean {name}" for name in names),
            *(f"sd {name}" for name in names),
            *(f"correlation {names[a]}, {names[b]}" for a, b in found.pairs),
        ),
        reported=np.concatenate([reported.mean, reported.sd, pairs]),
        found=np.concatenate([found.moments.found, found.of_pairs.found]),
        shifts=np.concatenate([found.moments.shifts, found.of_pairs.shifts]),
        errors=np.concatenate([found.moments.errors, found.of_pairs.errors]),
        allowed=found.allowed,
        agreements=found.agreements,
        num_gradients=found.num_gradients,
        num_chains=num_chains,
        acceptance=found.acceptance,
        outside=share,
    )


def _chosen(
    tolerance: float,
    num_chains: int,
    max_gradients: int | None,
    functions: Mapping[str, Callable[[PyTree], Array]] | None,
) -> tuple[tuple[str, Callable[[PyTree], Array]], ...]:
    """The functions with their names, once all options are known to be in range."""
    if not (isinstance(tolerance, int | float) and 0 < tolerance < 1):
        raise ValueError(f"tolerance must lie between 0 and 1 (posterior sds), got {tolerance!r}")
    if not (isinstance(num_chains, int) and num_chains >= 16):
        raise ValueError(
            f"num_chains must be an integer of at least 16, whose spread gives the errors, got {num_chains!r}"
        )
    if max_gradients is not None and not max_gradients > 0:
        raise ValueError(f"max_gradients must be positive or None, got {max_gradients!r}")
    functions = {} if functions is None else functions
    if not isinstance(functions, Mapping) or not all(callable(fn) for fn in functions.values()):
        raise TypeError(
            f'functions must be a dict of names and functions of a position, {{"name": fn}}, got {functions!r}'
        )
    return tuple((str(name), fn) for name, fn in functions.items())


def _given(draws: PyTree) -> PyTree:
    """Draws as they were given, once they are known to be that: arrays of numbers with one leading axis."""
    wanted = "q must be a Family, or draws: a pytree of floating-point arrays with a leading axis S"
    draws = unmasked(draws, "q")
    check_real(draws, "q")
    leaves, _ = jax.tree_util.tree_flatten_with_path(draws)
    if not leaves:
        raise TypeError(f"{wanted}; got {draws!r}, which has no leaves")
    rows = {}
    for path, leaf in leaves:
        name = "q" + jax.tree_util.keystr(path)
        if not (hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)):
            raise TypeError(f"{wanted}; {name} is {getattr(leaf, 'dtype', type(leaf).__name__)}")
        if np.ndim(leaf) == 0:
            raise ValueError(f"{wanted}; {name} is one number")
        if not np.all(np.isfinite(np.asarray(leaf))):
            raise ValueError(f"{name} has draws that are not finite; leave them out")
        rows[name] = len(leaf)
    if len(set(rows.values())) > 1:
        raise ValueError(f"leaves of the draws differ in their leading axis S: {rows}; chains go one after the other")
    count = next(iter(rows.values()))
    if count < thresholds.CHAIN_CHECK_LEAST:
        raise ValueError(
            f"{thresholds.CHAIN_CHECK_LEAST} draws or more are wanted, got {count}: the leading axis of each leaf is that of"
            " draws, and the chains whiten by their covariance"
        )
    return draws


def _target(log_density: Callable[..., Scalar], first: PyTree, support: PyTree, data: PyTree) -> Target:
    target = targets.unconstrain(log_density, jax.tree.map(lambda x: x[0], first), support, data=data)
    if target.size > thresholds.LARGE:
        raise ValueError(
            f"chain_check takes up to {thresholds.LARGE:,} parameters, whose covariance it needs, got {target.size:,}"
        )
    return target


def _unconstrained(target: Target, positions: PyTree) -> np.ndarray:
    """[S, D] of positions with a leading axis S."""
    if all(type(support) is Real for support in target.supports):
        return space.rows(positions, len(jax.tree.leaves(positions)[0])).astype(np.float64)
    free = np.asarray(_inverse(target, positions), np.float64)
    if not np.all(np.isfinite(free)):
        bad = int(np.sum(~np.all(np.isfinite(free), axis=1)))
        raise ValueError(
            f"{bad} of {len(free)} draws of q lie outside their support, or on its edge: {target.supports}"
        )
    return free


@functools.partial(xla.jit, static_argnames="target")
def _inverse(target, positions):
    return jax.vmap(target.unconstrain)(positions)


@functools.partial(xla.jit, static_argnames="count")
def _drawn(key, q, count):
    """Positions with a leading axis of that length."""
    if isinstance(q, Reparameterised):
        return jax.vmap(q.transport)(iid(key, count, q.noise_size, q.dtype))
    return jax.vmap(q.sample)(jax.random.split(key, count))


def _starts(rng: np.random.Generator, model: Compiled, free: np.ndarray, num_chains: int) -> tuple[np.ndarray, float]:
    """Starts [C, D] where the log-density is finite, and the share of those drawn where it is not."""
    rounds = -(-num_chains // len(free))
    picked = np.concatenate([rng.permutation(len(free)) for _ in range(rounds)])[:num_chains]
    finite = np.isfinite(drive(_values(free[picked]), model))
    if not np.any(finite):
        raise ValueError(
            f"log_density is finite at none of {num_chains} draws of q: they lie outside the posterior, or in another space"
            " than that of the log-density (see support)"
        )
    inside = free[picked][finite]
    return inside[np.arange(num_chains) % len(inside)], float(np.mean(~finite))


def _with_widened(model: Compiled, whitening: Gaussian, starts: np.ndarray, num_widened: int) -> np.ndarray:
    """The starts, the last of them moved away from the mean, where the log-density is finite there."""
    plain, last = np.split(starts, [len(starts) - num_widened])
    if not num_widened:
        return plain
    wide = whitening.loc + thresholds.CHAIN_CHECK_WIDER * (last - whitening.loc)
    finite = np.isfinite(drive(_values(wide), model))
    return np.concatenate([plain, np.where(finite[:, None], wide, last)])


def _values(points: np.ndarray) -> Any:
    return (yield Values(points))


def _check_varies(names: list[str], sd: np.ndarray) -> None:
    still = [name for name, own in zip(names, sd, strict=True) if not 0 < own < math.inf]
    if still:
        raise ValueError(
            f"{', '.join(still[:3])}: no finite sd above zero over the draws of q; leave out what does not vary"
        )


class _Numbers:
    """The numbers that are reported, of points in the unconstrained space."""

    def __init__(self, target: Target, functions: tuple[tuple[str, Callable[[PyTree], Array]], ...]) -> None:
        self._target, self._functions = target, functions
        self._plain = not functions and all(type(support) is Real for support in target.supports)
        self.names: list[str] = []
        like = jax.ShapeDtypeStruct((target.size,), np.float64)
        for name, fn in functions:
            found = jax.eval_shape(lambda z, fn=fn: fn(target.constrain(z)), like)
            if not (hasattr(found, "shape") and jnp.issubdtype(found.dtype, jnp.number)):
                raise TypeError(f"functions[{name!r}] must return a scalar or an array of numbers, got {found}")
            index = [f"[{','.join(map(str, i))}]" for i in np.ndindex(found.shape)] if found.shape else [""]
            self.names += [name + i for i in index]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """[S, P] of points [S, D]."""
        if self._plain:
            return points
        parts = []
        for at in range(0, len(points), ROOM):
            parts.append(np.asarray(_numbers_program(self._target, self._functions, points[at : at + ROOM])))
        return np.concatenate(parts)


@functools.partial(xla.jit, static_argnames=("target", "functions"))
def _numbers_program(target, functions, points):
    def one(z):
        position = target.constrain(z)
        leaves = [*jax.tree.leaves(position), *(fn(position) for _, fn in functions)]
        return jnp.concatenate([jnp.ravel(jnp.asarray(leaf, z.dtype)) for leaf in leaves])

    return jax.vmap(one)(points)


class _Sums:
    """Moments of numbers [S, P] and of points [S, D], batch by batch; in units of the first, so that nothing cancels."""

    def __init__(self, numbers: np.ndarray, points: np.ndarray) -> None:
        self._same = numbers is points
        self._loc, self._scale = numbers.mean(axis=0), _or_one(numbers.std(axis=0))
        self._at, self._unit = points.mean(axis=0), _or_one(points.std(axis=0))
        self._count, size = 0, numbers.shape[1]
        self._powers = np.zeros((4, size))
        self._paired = size <= thresholds.CHAIN_CHECK_CORRELATED
        self._products = np.zeros((size, size)) if self._paired and not self._same else None
        self._sum, self._outer = np.zeros(points.shape[1]), np.zeros((points.shape[1],) * 2)
        self.add(numbers, points)

    def add(self, numbers: np.ndarray, points: np.ndarray) -> None:
        """Take in another batch."""
        z, u = (numbers - self._loc) / self._scale, (points - self._at) / self._unit
        power = np.ones_like(z)
        for total in self._powers:  # NumPy's own powers take ten times as long
            power *= z
            total += power.sum(axis=0)
        self._sum += u.sum(axis=0)
        self._outer += u.T @ u
        if self._products is not None:
            self._products += z.T @ z
        self._count += len(z)

    def reported(self, exact: bool) -> Reported:
        """What they report; exact where the draws themselves do."""
        m, second, third, fourth = self._powers / self._count
        variance = second - m**2
        kurtosis = (fourth - 4 * m * third + 6 * m**2 * second - 3 * m**4) / variance**2
        correlation = None
        if self._paired:
            products = (self._outer if self._products is None else self._products) / self._count
            sd = np.sqrt(variance)
            correlation = (products - np.outer(m, m)) / np.outer(sd, sd)
        blank, rate = np.zeros_like(m), 1 / math.sqrt(self._count)
        return Reported(
            mean=self._loc + self._scale * m,
            sd=self._scale * np.sqrt(variance),
            correlation=correlation,
            mean_error=blank if exact else np.full_like(m, rate),
            sd_error=blank if exact else 0.5 * np.sqrt(np.maximum(kurtosis - 1, 0)) * rate,
            num_draws=math.inf if exact else self._count,
        )

    def whitening(self) -> Gaussian:
        """A Gaussian of their mean and covariance; where they are few it is drawn to its diagonal."""
        size, m = len(self._sum), self._sum / self._count
        covariance = self._outer / self._count - np.outer(m, m)
        if self._count < thresholds.CHAIN_CHECK_SHRUNK * size:
            share = size / (size + self._count)
            covariance = (1 - share) * covariance + share * np.diag(np.diagonal(covariance))
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, values[-1] * FLAT))
        return from_root(self._at + self._unit * m, self._unit[:, None] * root)


def _or_one(scale: np.ndarray) -> np.ndarray:
    return np.where(scale > 0, scale, 1.0)
