"""Leave-one-out cross-validation from one fit, with exact refits where it cannot be trusted; models compared by it."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.calls import explained
from elbojax.cascade import fit_batch
from elbojax.diagnostics import khat_threshold
from elbojax.host import psis
from elbojax.results import Fit
from elbojax.results.quantities import names
from elbojax.types import Array, Key, PyTree, Scalar

SHOWN = 10
"""Observations that a report names."""


class Loo(NamedTuple):
    r"""Leave-one-out cross-validation; prints as a report.

    Attributes:
      elpd: expected log pointwise predictive density, :math:`\sum_n \log p(x_n \mid x_{-n})`, in nats.
      se: its standard error over observations; NaN of a single one.
      p_loo: effective number of parameters, the log-density of data seen less that of data left out.
      pointwise: [N] :math:`\log p(x_n \mid x_{-n})`.
      khat: [N] Pareto k-hat of the weights that leave each out; NaN where a refit answered.
      threshold: of k-hat.
      refitted: numbers of the observations that were left out by a fit of their own.
      failed: of these, those whose fit is not certified.
      names: N.
      certified: whether the fit is.
      observed: the data by name, where the fit knows its model; `compare` looks that they are the same.
    """

    elpd: float
    se: float
    p_loo: float
    pointwise: np.ndarray
    khat: np.ndarray
    threshold: float
    refitted: np.ndarray
    failed: np.ndarray
    names: tuple[str, ...]
    certified: bool = True
    observed: Mapping[str, np.ndarray] | None = None

    @property
    def bad(self) -> np.ndarray:
        """Numbers of the observations whose contribution is not to be trusted."""
        smoothed = np.flatnonzero(~(self.khat <= self.threshold))
        return np.union1d(np.setdiff1d(smoothed, self.refitted), self.failed).astype(int)

    def __str__(self) -> str:
        count = len(self.pointwise)
        lines = [
            f"leave-one-out over {count:,} observations",
            f"  elpd          {self.elpd:.2f} ± {self.se:.2f} nats",
            f"  p_loo         {self.p_loo:.2f}",
        ]
        if len(self.refitted):
            lines.append(f"  refits        {len(self.refitted):,} exact, {len(self.failed):,} of them not certified")
        bad = self.bad
        if len(bad):
            some = ", ".join(f"{self.names[n]}" for n in bad[:SHOWN]) + (", ..." if len(bad) > SHOWN else "")
            lines.append(f"  not trusted   {len(bad):,} of k-hat above {self.threshold:.2f}: {some}")
            if not len(self.refitted):
                lines.append("  next step     give key= to leave these out by fits of their own")
        else:
            lines.append(f"  k-hat         none above {self.threshold:.2f}")
        if not self.certified:
            lines.append("  verdict       the fit is NOT certified, and what stands above rests on its draws")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


@explained
def loo(
    fit: Fit,
    log_likelihood: Callable[..., PyTree] | None = None,
    data: PyTree = None,
    *,
    key: Key | None = None,
    progress: bool | None = False,
) -> Loo:
    r"""Leave-one-out cross-validation by Pareto-smoothed importance sampling from the draws of one fit.

    .. math:: \log p(x_n \mid x_{-n}) \approx \log \frac{\sum_s r_{sn} \, p(x_n \mid z_s)}{\sum_s r_{sn}}, \qquad
              r_{sn} = \frac{w_s}{p(x_n \mid z_s)}

    with the weights :math:`w_s` of the draws, and the largest ratios of each observation smoothed. Where k-hat says that
    they cannot be trusted, and `key` is given, the observation is left out by a fit of its own, all of these in one call of
    `fit_batch`, and the evidences are compared:

    .. math:: \log p(x_n \mid x_{-n}) = \log p(x) - \log p(x_{-n})

    Args:
      fit: of one model.
      log_likelihood: `(position) -> pytree`, or `(position, data) -> pytree` where data is given, of log p(x_n | z) for each
        observation. None for that of the model that `fit_model` was given; where the model scales it
        (`numpyro.handlers.scale`), an observation of scale s is s copies, left out and scored together, with a warning.
      data: pytree of arrays; the same that the log-density was given.
      key: consumed; None for no refits.
      progress: of the refits: True for a bar, None for one where a person is watching.

    Returns:
      A `Loo`.

    Raises:
      ValueError: neither model nor `log_likelihood` says how likely an observation is; or refits are wanted of a fit whose
        log-density is not there: one loaded from a file, or of a density object.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> y = jnp.array([0.3, -0.2, 1.1, 0.4])
      >>> each = lambda z, y: -0.5 * (y - z) ** 2 - 0.5 * jnp.log(2 * jnp.pi)
      >>> fit = elbojax.fit(jax.random.key(0), lambda z, y: jnp.sum(each(z, y)) - 0.5 * z**2, 0.0, data=y)
      >>> round(elbojax.loo(fit, each, y).elpd, 1)
      -4.7

    References:
      Vehtari, Gelman, Gabry 2017, https://arxiv.org/abs/1507.04544
      Vehtari, Simpson, Gelman, Yao, Gabry 2024, https://jmlr.org/papers/v25/19-556.html
    """
    if not isinstance(fit, Fit):
        raise TypeError(
            f"loo takes a fit of one model, got {type(fit).__name__}; of a batch: [loo(one) for one in fits]"
        )
    found = fit.log_likelihood(log_likelihood, data)
    if log_likelihood is None and fit.model is not None and fit.model.scaled:
        warnings.warn(
            f"{', '.join(fit.model.scaled)} is scaled in the model (numpyro.handlers.scale): loo leaves out, and scores, an"
            " observation of scale s as s copies of it, which for weights that are no counts is the score of no density",
            stacklevel=2,
        )
    one = jax.tree.map(lambda x: x[0], found)
    each = np.concatenate([np.reshape(x, (len(x), -1)) for x in jax.tree.leaves(found)] or [np.zeros((1, 0))], axis=1)
    # A density of one at every draw is that of an entry that is masked, which is no observation.
    seen_at = np.flatnonzero(np.any(each != 0, axis=0))
    if not len(seen_at):
        raise ValueError("loo found no observation: the log-likelihood has no number that the parameters move")
    each = each[:, seen_at]
    all_names = names(one)
    log_weights = np.asarray(fit.log_weights, float)
    pointwise, khat = _left_out(each, log_weights)
    seen = np.array([psis.log_sum_exp(column) for column in (each + log_weights[:, None]).T])
    count = int(np.sum(log_weights > -np.inf))
    threshold = khat_threshold(count)
    bad = np.flatnonzero(~(khat <= threshold))
    refitted = failed = np.zeros(0, int)
    if key is not None and len(bad):
        refitted = bad
        pointwise[bad], certified = _refitted(key, fit, log_likelihood, data, seen_at[bad], progress)
        khat[bad] = np.nan
        failed = bad[~certified]
    return Loo(
        elpd=float(np.sum(pointwise)),
        se=_se_of_sum(pointwise),
        p_loo=float(np.sum(seen - pointwise)),
        pointwise=pointwise,
        khat=khat,
        threshold=threshold,
        refitted=refitted,
        failed=failed,
        names=tuple(all_names[n] for n in seen_at),
        certified=bool(fit.certificate.certified),
        observed=dict(fit.model.observed) if fit.model is not None and log_likelihood is None else None,
    )


def _se_of_sum(pointwise: np.ndarray) -> float:
    """Standard error of a sum over observations; NaN of one, which does not tell how much others differ."""
    return float(np.sqrt(len(pointwise) * np.var(pointwise))) if len(pointwise) > 1 else np.nan


def _left_out(each: np.ndarray, log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log predictive density of each observation given the others, and k-hat, from log-likelihoods [S, N]."""
    used = log_weights > -np.inf
    each, log_weights = each[used], log_weights[used]
    pointwise, khat = np.empty(each.shape[1]), np.empty(each.shape[1])
    for n, column in enumerate(each.T):
        smoothed = psis.smooth(log_weights - column)
        pointwise[n] = psis.log_sum_exp(smoothed.log_weights + column)
        khat[n] = smoothed.khat
    return pointwise, khat


class _WithoutOne:
    """The log-density of a fit, on flat vectors, without one observation."""

    def __init__(self, fit: Fit, log_likelihood: Any, data: PyTree) -> None:
        self.target, self.log_likelihood, self.data = fit.target, log_likelihood, data

    def each(self, flat: Array) -> Array:
        """[N] log-likelihoods."""
        rest = () if self.data is None else (self.data,)
        return jnp.concatenate(
            [jnp.ravel(x) for x in jax.tree.leaves(self.log_likelihood(self.target.constrain(flat), *rest))]
        )

    def __call__(self, flat: Array, which: Array) -> Scalar:
        rest = () if self.data is None else (self.data,)
        return self.target.log_density(flat, *rest) - self.each(flat)[which]


def _refitted(
    key: Key, fit: Fit, log_likelihood: Any, data: PyTree, which: np.ndarray, progress: bool | None
) -> tuple[np.ndarray, np.ndarray]:
    """Exact leave-one-out of some observations, and which of their fits are certified."""
    if fit.model is not None and log_likelihood is None:
        log_likelihood, data = fit.model.log_likelihood, fit.model.data if data is None else data
    without = _WithoutOne(fit, log_likelihood, data)
    weights = np.exp(np.asarray(fit.log_weights, float))
    start = np.tensordot(weights, np.where(weights[:, None] > 0, fit.draws, 0), axes=1)
    fits = fit_batch(key, without, start, which, progress=progress)
    # Of an outlier the mean of p(x_n | z) rests on draws that are not there; the two evidences do not.
    evidence = float(fit.certificate.log_evidence) - np.asarray(fits.certificate.log_evidence, float)
    return evidence, np.asarray(fits.certificate.certified, bool) & bool(fit.certificate.certified)


class Comparison(NamedTuple):
    """Models side by side, the best first; prints as a table.

    Attributes:
      names: of the models.
      elpd: by `loo`, in nats.
      difference: in elpd to the first.
      difference_se: standard error of that difference over observations.
      p_loo: effective numbers of parameters.
      num_bad: how many observations of each are not to be trusted.
      log_evidence: log p(x); NaN where a `Loo` was given.
      log_evidence_se: its standard error.
      certified: whether each fit is.
    """

    names: tuple[str, ...]
    elpd: np.ndarray
    difference: np.ndarray
    difference_se: np.ndarray
    p_loo: np.ndarray
    num_bad: np.ndarray
    log_evidence: np.ndarray
    log_evidence_se: np.ndarray
    certified: np.ndarray

    def __str__(self) -> str:
        wide = max(12, *(len(name) + 2 for name in self.names))
        head = ["elpd", "difference", "± se", "p_loo", "not trusted", "log p(x)", "± se"]
        if np.all(np.isnan(self.log_evidence)):
            head = head[:-2]  # of what `loo` gave, no evidence is known
        lines = [" " * wide + "".join(f"{word:>13}" for word in head)]
        for number, name in enumerate(self.names):
            shown = (
                f"{self.elpd[number]:.2f}",
                f"{self.difference[number]:.2f}",
                f"{self.difference_se[number]:.2f}",
                f"{self.p_loo[number]:.2f}",
                f"{self.num_bad[number]}",
                f"{self.log_evidence[number]:.2f}",
                f"{self.log_evidence_se[number]:.2f}",
            )
            mark = "" if self.certified[number] else "  NOT certified"
            lines.append(f"{name:<{wide}}" + "".join(f"{entry:>13}" for entry in shown[: len(head)]) + mark)
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


@explained
def compare(models: Mapping[str, Fit | Loo]) -> Comparison:
    r"""Models of the same observations, compared by leave-one-out and by evidence.

    .. math:: \Delta = \textstyle\sum_n (e_n - e^*_n), \qquad \mathrm{se} = \sqrt{N \, \mathrm{var}_n (e_n - e^*_n)}

    where :math:`e_n` is log p(x_n | x_-n) and a star marks the best model. Evidence compares the models with their priors,
    and wants proper ones and normalised log-densities; leave-one-out compares predictions.

    Args:
      models: name -> a fit of `fit_model`, or what `loo` gave.

    Returns:
      A `Comparison`.

    Raises:
      ValueError: there are fewer than two, or their observations differ: in number or, where the fits know their models, in
        value.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> y = jnp.array([2.3, 1.8, 3.1, 2.4])
      >>> def loo_at(scale):
      ...     each = lambda z, y: -0.5 * (y - z) ** 2 - 0.5 * jnp.log(2 * jnp.pi)
      ...     density = lambda z, y: jnp.sum(each(z, y)) - 0.5 * (z / scale) ** 2 - jnp.log(scale)
      ...     return elbojax.loo(elbojax.fit(jax.random.key(0), density, 0.0, data=y), each, y)
      >>> elbojax.compare({"narrow": loo_at(0.1), "wide": loo_at(10.0)}).names
      ('wide', 'narrow')

    References:
      Vehtari, Gelman, Gabry 2017, https://arxiv.org/abs/1507.04544
    """
    if len(models) < 2:
        raise ValueError(f"compare needs at least two models, got {len(models)}")
    found = {name: loo(one) if isinstance(one, Fit) else one for name, one in models.items()}
    counts = {name: len(one.pointwise) for name, one in found.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"models have to be of the same observations, got {counts}")
    _check_same(found)
    order = sorted(found, key=lambda name: -found[name].elpd)
    best = found[order[0]].pointwise
    differences = [found[name].pointwise - best for name in order]
    fits: list[Any] = [models[name] if isinstance(models[name], Fit) else None for name in order]
    of = lambda get, none: np.array([none if fit is None else get(fit.certificate) for fit in fits])  # noqa: E731
    return Comparison(
        names=tuple(order),
        elpd=np.array([found[name].elpd for name in order]),
        difference=np.array([np.sum(d) for d in differences]),
        difference_se=np.array([_se_of_sum(d) if number else 0.0 for number, d in enumerate(differences)]),
        p_loo=np.array([found[name].p_loo for name in order]),
        num_bad=np.array([len(found[name].bad) for name in order]),
        log_evidence=of(lambda c: float(c.log_evidence), np.nan),
        log_evidence_se=of(lambda c: float(c.log_evidence_se), np.nan),
        certified=np.array([found[name].certified for name in order]),
    )


def _check_same(found: Mapping[str, Loo]) -> None:
    """Raise ValueError where models are of other data: log-densities of y and of log y have no common unit."""
    known = {name: one.observed for name, one in found.items() if one.observed}
    for name, observed in known.items():
        first, other = next(iter(known.items()))
        one, two = (np.concatenate([np.ravel(x).astype(float) for x in of.values()]) for of in (other, observed))
        if len(one) == len(two) and not np.allclose(one, two, rtol=1e-5, atol=0, equal_nan=True):
            where = int(np.argmax(~np.isclose(one, two, rtol=1e-5, atol=0, equal_nan=True)))
            raise ValueError(
                f"models have to be of the same observations, and number {where} is {one[where]:.6g} for {first!r} and"
                f" {two[where]:.6g} for {name!r}"
            )
