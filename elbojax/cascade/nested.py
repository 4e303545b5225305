"""A posterior by its structure: the cascade on the outer coordinates, the latents drawn and corrected component by component."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import thresholds, xla
from elbojax.cascade.check.importance import check, envelope
from elbojax.cascade.evaluate import drive
from elbojax.cascade.importance import Cost, Outcome
from elbojax.cascade.programs import work_of
from elbojax.cascade.stages.paths import best_of, count_modes, run_paths
from elbojax.cascade.thorough import HOPELESS, STAGES, Held, better
from elbojax.families import mean_field
from elbojax.host.newton import newton
from elbojax.host.requests import Gradients, Stage
from elbojax.inputs import unmasked
from elbojax.loops.checks import check_host, check_key
from elbojax.loops.strict import relaxed
from elbojax.results import certificate
from elbojax.results.fit import Fit
from elbojax.results.handing import handed_over
from elbojax.results.resolution import widened
from elbojax.structure import Nested
from elbojax.types import Key, PyTree, Status

POINTS, SIDE_BY_SIDE = 64, 8
"""Outer points of a call, and how many of them are computed side by side."""
WIDE = 4e6
"""Numbers that log-densities compute side by side; of larger ones fewer points are."""


class Model:
    """A nested model as the stages on the host see it.

    Gradients are those of the Gaussian approximation. Values, once the checks have begun, are corrected: the approximation
    times an unbiased estimate of what it lacks, so that the importance weights of a check are those of the posterior itself
    (pseudo-marginal), and their verdict is about it. The draws of the latents that come with them are kept.

    Attributes:
      correcting: whether values are corrected.
      num_gradients: of the user's log-density, a Hessian-vector product counted as two.
    """

    def __init__(self, nested: Nested, data: PyTree, key: Key) -> None:
        self.correcting, self.num_gradients, self.num_proposals = False, 0, thresholds.NESTED_PROPOSALS
        self._nested, self._key, self._count = nested, key, 0
        self._data = () if data is None else (jax.tree.map(jax.device_put, data),)
        self._start, self._slope = jnp.asarray(nested.start), jnp.zeros((nested.target.size, nested.size))
        self._centre = jnp.asarray(nested.init)
        self.drawn: dict[bytes, np.ndarray] = {}
        work = work_of(nested.target, data) + nested.target.size
        self._chunk = 2 ** int(math.log2(np.clip(WIDE / work, 1, SIDE_BY_SIDE)))

    def answer(self, request: Any) -> Any:
        """Values [B] and gradients [B, P] for `Gradients`; for `Values`, values [B]."""
        wanted = isinstance(request, Gradients)
        if not wanted and self.correcting:
            return self.corrected(request.points)
        values, gradients, _ = self._evaluated(request.points)
        return (values, gradients) if wanted else values

    def _evaluated(self, points: np.ndarray) -> list[np.ndarray]:
        """Values, gradients and modes of the Gaussian approximation."""
        results = []
        for some, count in _portions(points):
            *found, cost = jax.device_get(
                _evaluated(self._nested, self._chunk, some, count, self._linear(), self._data)
            )
            # The reverse pass through C Hessian-vector products costs about as much again as they do.
            self.num_gradients += int(np.sum(cost[:count])) + count * self._nested.gradients_per_step
            results.append([part[:count] for part in found])
        return [np.concatenate(parts) for parts in zip(*results, strict=True)]

    def corrected(self, points: np.ndarray) -> np.ndarray:
        """[B] corrected log-densities; the draws are kept in `drawn`."""
        values = []
        for some, count in _portions(points):
            keys = jax.random.split(jax.random.fold_in(self._key, self._count), POINTS)
            self._count += 1
            found = _corrected(
                self._nested, self._chunk, self.num_proposals, keys, some, count, self._linear(), self._data
            )
            value, flat, cost = (part[:count] for part in jax.device_get(found))
            self.num_gradients += int(np.sum(cost))
            self.drawn.update(zip((point.tobytes() for point in some[:count]), flat, strict=True))
            values.append(value)
        return np.concatenate(values)

    def settle(self, centre: np.ndarray, sd: np.ndarray) -> None:
        """Let Newton's method begin from the mode as it moves with the outer coordinates, to first order, from here on."""
        points = np.concatenate([centre[None], centre + 0.5 * np.diag(sd), centre - 0.5 * np.diag(sd)])
        mode, ahead, behind = np.split(self._evaluated(points)[2], [1, 1 + len(centre)])
        slope = (ahead - behind).T / sd
        if np.all(np.isfinite(slope)) and np.all(np.isfinite(mode)):
            self._start, self._slope, self._centre = (jax.device_put(x) for x in (mode[0], slope, centre))

    def noise(self, centre: np.ndarray) -> float:
        """Standard deviation of the log of the correction, over eight at one place."""
        values = self.corrected(np.repeat(centre[None], 8, axis=0))
        return float(np.std(values)) if np.all(np.isfinite(values)) else math.inf

    def _linear(self) -> Any:
        return self._start, self._slope, self._centre


def _portions(points):
    """Portions of `POINTS` points, the last one filled up, and how many of them count."""
    for at in range(0, len(points), POINTS):
        some = points[at : at + POINTS]
        yield np.concatenate([some, np.repeat(some[:1], POINTS - len(some), axis=0)]), len(some)


def _starts(linear, theta):
    start, slope, centre = linear
    return start + slope @ (theta - centre)


def _mapped(one, inputs, count, chunk):
    """One function of the first `count` rows of all inputs, some of them side by side; the rest is zero."""
    part = lambda i: jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i * chunk, chunk), inputs)  # noqa: E731
    shapes = jax.eval_shape(jax.vmap(one), inputs)

    def body(i, results):
        found = jax.vmap(one)(part(i))
        put = lambda all_, some: jax.lax.dynamic_update_slice_in_dim(all_, some, i * chunk, 0)  # noqa: E731
        return jax.tree.map(put, results, found)

    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.fori_loop(0, (count + chunk - 1) // chunk, body, nothing)


@functools.partial(xla.jit, static_argnames=("nested", "chunk"))
def _evaluated(nested, chunk, points, count, linear, data):
    def one(theta):
        def value(theta):
            found, *rest = nested.from_start(_starts(linear, theta), theta, *data)
            return found, rest

        (found, (flat, cost)), gradient = jax.value_and_grad(value, has_aux=True)(theta)
        return found, gradient, flat, cost

    return _mapped(one, points, count, chunk)


@functools.partial(xla.jit, static_argnames=("nested", "chunk", "num_proposals"))
def _corrected(nested, chunk, num_proposals, keys, points, count, linear, data):
    def one(pair):
        key, theta = pair
        found = nested.correct(key, theta, *data, num_proposals=num_proposals, start=_starts(linear, theta))
        return found.log_density + found.log_correction, found.flat, found.num_gradients

    return _mapped(one, (keys, points), count, chunk)


@relaxed
def solve(key: Key, nested: Nested, *, data: PyTree = None) -> Fit:
    """The posterior of all coordinates of a nested model: outer ones by the stages of `fit`, latent ones by component.

    Args:
      key: consumed.
      nested: as `integrate_out` makes it.
      data: pytree of arrays passed to the log-density.

    Returns:
      A `Fit` over the user's pytree. Its certificate is about the corrected draws of all coordinates; gradients are those of
      the user's log-density, a Hessian-vector product counted as two, inner work and checks included.

    Raises:
      TypeError: `key` is no key.
    """
    check_host("solve", key=key, data=data)
    check_key(key)
    with jax.enable_x64(True), np.errstate(all="ignore"):
        data = widened(unmasked(data))
        rng_key, draw_key = jax.random.split(key)
        model = Model(nested, data, draw_key)
        seed = np.ravel(jax.random.key_data(rng_key)).tolist()
        outcome = drive(_stages(seed, model, np.asarray(nested.init, np.float64)), model)
        outcome, note = _whole(model, outcome)
        if int(outcome.certificate.status) not in HOPELESS:
            outcome, note = _inspected(nested, data, outcome, note)
    return handed_over(
        outcome.q, outcome.certificate, outcome.draws, outcome.log_weights, nested.target, note
    ).settled()


def _stages(seed: list[int], model: Model, start: np.ndarray) -> Stage[Outcome]:
    """A Gaussian and its check; then, where it is not certified, a mixture, Student t and funnel, as in `fit`."""
    rng = lambda number: np.random.default_rng([*seed, number])  # noqa: E731
    first_rng = rng(0)
    found = yield from run_paths(first_rng, start)
    q, info = yield from newton(first_rng, best_of(found).narrowed(thresholds.NARROWED))
    modes = yield from count_modes(q, found)
    if np.all(np.isfinite(q.loc)) and np.all(np.isfinite(q.sd())):
        model.settle(q.loc, q.sd())
        while model.num_proposals < thresholds.NESTED_MOST_PROPOSALS and model.noise(q.loc) > thresholds.NESTED_NOISE:
            model.num_proposals *= 2
    model.correcting = True
    cost = Cost(found.num_gradients + info.num_gradients, 0, modes, info.decrement, info.fisher_divergence)
    stage = certificate.Stage.FULL_RANK
    first = yield from check(first_rng, q, envelope(q), stage, info.status, cost, num_draws=thresholds.NESTED_DRAWS)
    held = Held(first, found, first)
    for richer in STAGES:
        verdict = held.best.certificate
        if verdict.certified or int(verdict.status) in HOPELESS or richer.name == "chains":
            break
        if richer.least(len(start), held) is not None:
            candidate = yield from richer.run(rng(richer.number), held, math.inf)
            held = held._replace(best=better(held.best, candidate))
    return held.best


def _whole(model: Model, outcome: Outcome) -> tuple[Outcome, str]:
    """The outcome with the draws of all coordinates in place of the outer ones."""
    draws = np.asarray(outcome.draws)
    keep = np.arange(len(draws))
    if len(draws) > thresholds.NESTED_DRAWS:
        keep = np.sort(np.argsort(-np.asarray(outcome.log_weights), kind="stable")[: 4 * thresholds.NESTED_DRAWS])
    flat = np.stack([model.drawn[draws[i].tobytes()] for i in keep])
    log_weights = np.asarray(outcome.log_weights)[keep]
    log_weights = log_weights - np.log(np.sum(np.exp(log_weights)))
    weights = np.exp(log_weights)
    mean = weights @ flat
    variance = np.maximum(weights @ (flat - mean) ** 2, np.finfo(float).tiny)
    squares = (flat - mean) ** 2 / variance
    c = outcome.certificate
    c = c._replace(
        num_gradients=np.float64(model.num_gradients),
        num_log_densities=np.int64(0),
        mean_error=np.float64(np.sqrt(np.max((weights**2) @ squares))),
        sd_error=np.float64(0.5 * np.sqrt(np.max((weights**2) @ (squares - 1) ** 2))),
    )
    q = mean_field(mean, np.sqrt(variance))
    return Outcome(q, flat, log_weights, c), ""


def _inspected(nested: Nested, data: PyTree, outcome: Outcome, note: str) -> tuple[Outcome, str]:
    """IMPROPER where the latents have no end at draws that carry the weight."""
    best = np.argsort(-np.asarray(outcome.log_weights))[:4]
    arguments = () if data is None else (data,)
    points = np.asarray(outcome.draws)[best][:, nested.plan.outer]
    status = np.asarray(jax.device_get(_statuses(nested, points, arguments)))
    if np.sum(status == Status.IMPROPER) < 2:
        return outcome, note
    c = outcome.certificate._replace(certified=np.bool_(False), status=np.int32(Status.IMPROPER))
    return outcome._replace(certificate=c), "some latents have no end given the rest: give each a proper prior"


@functools.partial(xla.jit, static_argnames=("nested",))
def _statuses(nested, points, data):
    return jax.lax.map(lambda theta: nested.status(theta, *data).status, points)
