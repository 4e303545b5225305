"""Simulation-based calibration: does a fit recover what was simulated, as often as it says?"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax import noise as noises
from elbojax import thresholds, xla
from elbojax.calls import explained
from elbojax.cascade import fit_batch
from elbojax.cascade.importance import envelope
from elbojax.diagnostics import Uniformity, psis, uniformity
from elbojax.results import Certificate, Stage
from elbojax.results.resolution import doubled, handed, widened
from elbojax.studies.base import names_of
from elbojax.types import Array, Key, LogDensity, PyTree, Scalar
from elbojax.weights import pick

SIDE_BY_SIDE = 8
"""Replicates worked on at once."""


class Calibration(NamedTuple):
    """Ranks of what was simulated among posterior draws, and whether they are uniform.

    Attributes:
      names: Q names: one for each number of a position, "log density", and "quantity" where one was given.
      ranks: [M, Q] how many of the draws lie below the true value; uniform on 0..num_draws if all is right.
      num_draws: L.
      certificate: of the M fits.
      positions: pytree with a leading axis M, what was drawn from the prior.
      verdicts: one `Uniformity` for each name.
    """

    names: tuple[str, ...]
    ranks: np.ndarray
    num_draws: int
    certificate: Certificate
    positions: PyTree
    verdicts: tuple[Uniformity, ...]

    @property
    def certified(self) -> float:
        """Share of the fits that are certified."""
        return float(np.mean(np.asarray(self.certificate.certified)))

    @property
    def p_value(self) -> float:
        """Probability that the worst of Q calibrated ECDFs strays as far: Q times the smallest of theirs (Bonferroni)."""
        return min(1.0, len(self.verdicts) * min(verdict.p_value for verdict in self.verdicts))

    @property
    def calibrated(self) -> bool:
        """Whether nothing speaks against it at the level of 5 per cent, all Q ECDFs taken together."""
        return self.p_value > 0.05

    def __str__(self) -> str:
        """A line for each number, with the place where its ECDF strays most."""
        lines = [
            f"{len(self.ranks):,} replicates, {100 * self.certified:.1f} % certified,"
            f" {'calibrated' if self.calibrated else 'NOT calibrated'} (p = {self.p_value:.3g})"
        ]
        for name, verdict in zip(self.names, self.verdicts, strict=True):
            off = verdict.ecdf - verdict.places
            worst = int(np.argmax(np.abs(off)))
            lines.append(
                f"  {name:<16} {'inside' if verdict.inside else 'OUTSIDE'} the 95 % band, p = {verdict.p_value:.3f},"
                f" ECDF off by {off[worst]:+.3f} at {verdict.places[worst]:.2f}"
            )
        return "\n".join(lines)


@explained
def simulation_based_calibration(
    key: Key,
    sample_prior: Callable[[Key], PyTree],
    simulate: Callable[[Key, PyTree], PyTree],
    log_density: Callable[[PyTree, PyTree], Scalar],
    init: PyTree,
    *,
    num_replicates: int = 1000,
    num_draws: int = 99,
    support: PyTree = None,
    quantity: Callable[[PyTree, PyTree], Scalar] | None = None,
    **settings: Any,
) -> Calibration:
    r"""Calibration of a model and of its fit, over simulated data: one call of `fit_batch`.

    .. math:: z^* \sim p(z), \quad y \sim p(y \mid z^*), \quad z_1 \dots z_L \sim q(z \mid y), \qquad
              r = \#\{l : f(z_l) < f(z^*)\}

    Where q is the posterior, the rank r is uniform on 0..L. It is taken for every number of a position, and for
    f(z) = log p(z, y), because ranks of parameters alone are also uniform where a fit ignores the data and returns the
    prior. A log-density that forgets some of the data itself shows in neither; the log-likelihood of the simulator, as
    a further `quantity`, sees it. All fits count, whatever their certificate says; what fails to give draws at all has
    rank 0.

    Ranks look at tails more closely than a certificate does, so `tails` of `fit_batch` is True here by default. The L
    draws of a rank are independent, as its uniformity needs: picked by weight from 4,096 draws that every replicate
    takes for itself from the envelope of its q (from what a richer stage has left, where one answered), none twice
    where its weight does not ask for it.

    Args:
      key: consumed.
      sample_prior: `(key) -> position`, a pytree like `init`.
      simulate: `(key, position) -> datum`, what the log-density is given.
      log_density: `(position, datum) -> scalar`, as in `fit_batch`; its prior is that of `sample_prior`.
      init: as in `fit_batch`.
      num_replicates: M; with 1,000 the 95 % band is 0.05 wide each way.
      num_draws: L; 99 divides (0, 1) into hundredths.
      support: as in `fit_batch`.
      quantity: `(position, datum) -> scalar`, something else to rank.
      **settings: of `fit_batch`: tails, compiled, mesh, checkpoint, progress.

    Returns:
      A `Calibration`; `print` it, or `elbojax.plots.calibration` for a picture.

    Raises:
      ValueError: `num_replicates` or `num_draws` is below 1, or `sample_prior` does not return a pytree like `init`.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> result = elbojax.studies.simulation_based_calibration(
      ...     jax.random.key(0),
      ...     lambda key: jax.random.normal(key),
      ...     lambda key, z: z + jax.random.normal(key, (4,)),
      ...     lambda z, y: -0.5 * z**2 - 0.5 * jnp.sum((y - z) ** 2),
      ...     0.0,
      ...     num_replicates=50,
      ... )
      >>> result.names, result.calibrated, result.certified
      (('z', 'log density'), True, 1.0)

    References:
      Talts, Betancourt, Simpson, Vehtari, Gelman 2018, https://arxiv.org/abs/1804.06788;
      Modrák, Moon, Kim, Bürkner, Huurre, Faltejsková, Gelman, Vehtari 2025 (which quantities to rank),
      https://doi.org/10.1214/23-BA1404
    """
    for name, value in (("num_replicates", num_replicates), ("num_draws", num_draws)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    simulate_key, fit_key, rank_key = jax.random.split(key, 3)
    with jax.enable_x64(True):
        keys = jax.random.split(simulate_key, num_replicates)
        positions, data = jax.tree.map(np.asarray, _simulate(keys, sample_prior, simulate))
    wanted, given = jax.tree.map(jnp.shape, init), jax.tree.map(lambda x: x.shape[1:], positions)
    if wanted != given:
        raise ValueError(f"sample_prior must return a pytree like init: wanted shapes {wanted}, got {given}")
    fits = fit_batch(fit_key, log_density, init, data, support=support, **{"tails": True} | settings)
    fresh = fits.certificate.certified & (fits.certificate.stage == Stage.FULL_RANK)
    with jax.enable_x64(True):
        ranks = _ranks(
            jax.random.split(rank_key, num_replicates),
            (doubled(fits.q), fits.draws, fits.log_weights, fresh),
            positions,
            widened(data),
            (log_density,) if quantity is None else (log_density, quantity),
            fits.target,
            num_draws,
        )
    ranks = np.asarray(ranks)
    mean, sd = (jax.tree.map(lambda x, f=f: f(x, axis=0), positions) for f in (np.mean, np.std))
    positions = handed(doubled(positions), mean, sd)
    verdicts = tuple(uniformity(column, num_draws) for column in ranks.T)
    names = (*names_of(positions, leading=1), "log density", "quantity")[: len(verdicts)]
    return Calibration(names, ranks, num_draws, fits.certificate, positions, verdicts)


@functools.partial(xla.jit, static_argnums=(1, 2))
def _simulate(keys: Key, sample_prior: Callable, simulate: Callable) -> tuple[PyTree, PyTree]:
    def one(key):
        prior_key, data_key = jax.random.split(key)
        position = sample_prior(prior_key)
        return position, simulate(data_key, position)

    return jax.vmap(one)(keys)


@functools.partial(xla.jit, static_argnums=(4, 5, 6))
def _ranks(
    keys: Key, fits: tuple, positions: PyTree, data: PyTree, quantities: tuple, target: Any, num_draws: int
) -> Array:
    """[M, Q], one model after the other but for a few side by side."""

    def one(arguments):
        key, (q, draws, log_weights, fresh), truth, datum = arguments
        noise_key, pick_key = jax.random.split(key)
        picked = draws[pick(pick_key, log_weights, num_draws)]
        own = _posterior_draws(noise_key, pick_key, q, lambda z: target.log_density(z, datum), num_draws)
        values = jax.vmap(target.constrain)(jnp.where(fresh, own, picked))
        below = [
            jnp.sum(each < value, axis=0).ravel()
            for each, value in zip(jax.tree.leaves(values), jax.tree.leaves(truth), strict=True)
        ]
        for quantity in quantities:
            heights = jax.vmap(lambda position, f=quantity: f(position, datum))(values)
            below.append(jnp.sum(heights < quantity(truth, datum))[None])
        return jnp.concatenate(below)

    return jax.lax.map(one, (keys, fits, positions, data), batch_size=SIDE_BY_SIDE)


def _posterior_draws(noise_key: Key, pick_key: Key, q: Any, log_density: LogDensity, num_draws: int) -> Array:
    """Independent draws [L, D] of the posterior, by weights on fresh draws of the envelope of q."""
    proposal = envelope(q)
    # Fresh draws per replicate, as many as the certificate's check takes. The fits' own draws come from noise that all
    # models share, whose error is the same in all replicates: with them one ECDF in six left its 95 % band (measured on a
    # Gaussian, 1,000 replicates).
    noise = noises.iid(noise_key, thresholds.CHECK_DRAWS, proposal.noise_size, proposal.dtype)
    draws, log_proposal = jax.vmap(proposal.transport_and_log_prob)(noise)
    ratios = jax.vmap(log_density)(draws) - log_proposal
    log_weights = psis(jnp.where(jnp.isnan(ratios), -jnp.inf, ratios)).log_weights
    return draws[pick(pick_key, log_weights, num_draws)]
