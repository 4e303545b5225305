"""What `fit` gives back: the posterior of one model in the user's own space, with its certificate."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

import jax
import numpy as np

from elbojax.inputs import check_key
from elbojax.loops.strict import relaxed
from elbojax.results import display, pictures, positions, predictive, quantities, space
from elbojax.results.certificate import Stage, report
from elbojax.results.moments import moments, resampled
from elbojax.results.nuts_start import NutsStart, nuts_start
from elbojax.results.posterior import Posterior, axes
from elbojax.results.resolution import handed, widened
from elbojax.results.seconds import Seconds
from elbojax.results.summary import PosteriorSummary, of_posterior
from elbojax.types import Array, Key, PyTree, Status


@axes(1)
@dataclasses.dataclass(frozen=True, eq=False)
class Fit(Posterior):
    """A fitted posterior of one model; those of many, of `fit_batch`, are `Fits`.

    Draws, weights, moments and certificate are held in double precision, as NumPy arrays, whatever the session's
    setting. `mean`, `sd` and `sample` give arrays of the session's dtype; a leaf that single precision cannot hold
    (1.7e9 +- 4, whose spacing of floats is 128; or numbers out of its range) stays a NumPy array in double precision,
    and takes part in JAX's computations under `jax.enable_x64(True)`.

    A fit is true, as any object is, whatever came of it: `fit or default` is `fit`; `fit.certificate.certified` says
    whether it can be used. A model whose log-density is nowhere finite (status NON_FINITE) has NaN for means, sds,
    draws and `q`.

    Attributes:
      q: the `Family` found, on flat unconstrained vectors; of the session's dtype, or NumPy arrays in double precision
        where that cannot hold them.
      certificate: what it is worth; `certificate.certified` says whether means and sds can be used.
      draws: [S, D] flat draws that the check took.
      log_weights: [S] that turn them into draws of the posterior.
      target: from flat vectors to the user's space.
      note: what to do next, where the fit failed and more is known than the status says; of an answer to a posterior
        with several labellings (exchangeable components, a free sign), whether it describes one of them or several.
      moments: means and sds in the user's space, of one model of a batch, which keeps them from more draws than it
        holds; else None.
      model: the `Model` that `fit_model` was given, which knows how data come about; None of a log-density. Not held in
        files.
      chains: C, where the draws are those of C chains of one length, one after the other; else 1.
    """

    batched: ClassVar[bool] = False

    @property
    def seconds(self) -> Seconds | None:
        """Where the time went, `Seconds`; None of a model of a batch, and of a fit from a file."""
        return self.__dict__.get("_seconds")

    @property
    def num_distinct(self) -> int:
        """How many different draws are held that have weight. `sample` of more repeats some."""
        return distinct(np.asarray(self.draws), np.asarray(self.log_weights))

    def _resampled(self, key: Key, draws: Array, log_weights: Array, num_samples: int) -> PyTree:
        return resampled(key, draws, log_weights, self.target, num_samples)

    def _moments_compiled(self) -> tuple[PyTree, PyTree]:
        return moments(self.draws, self.log_weights, self.target)

    def _moments_on_host(self) -> tuple[PyTree, PyTree]:
        return positions.moments(self.target, np.asarray(self.draws), np.asarray(self.log_weights))

    @relaxed
    def _positions(self) -> PyTree:
        """The draws in the user's space, in double precision."""
        with space.on_host():
            return positions.positions(self.target, np.asarray(self.draws))

    @relaxed
    def summary(self) -> PosteriorSummary:
        """A table to print, whose entries are its fields: mean, sd and quantiles of each number of the user's pytree."""
        values = space.rows(self._positions(), len(self.draws))
        mean, sd = (space.rows(part, 1)[0] for part in self._exact)
        weights = np.exp(np.asarray(self.log_weights))
        return of_posterior(tuple(space.names(self.target)), mean, sd, values, weights, self.certificate)

    @relaxed
    def quantile(self, probability: float | Sequence[float]) -> PyTree:
        """Posterior quantiles, a pytree like `init`; those of several probabilities lie along a leading axis.

        Args:
          probability: within [0, 1], or several.

        Raises:
          ValueError: a probability is not within [0, 1].
        """
        return quantities.quantiles(self._positions(), np.exp(np.asarray(self.log_weights)), probability)

    @relaxed
    def evaluate(self, function: Callable[..., PyTree] | None = None, *args: PyTree) -> quantities.Quantities:
        r"""Quantities that follow from the parameters: their means, sds, quantiles and draws.

        .. math:: \mathrm{E}[f(z)] \approx \textstyle\sum_s w_s f(z_s)

        Args:
          function: `(position, *args) -> pytree` of arrays. None for the deterministic quantities of the model that
            `fit_model` was given.
          *args: pytrees of arrays that the function is given besides.

        Returns:
          `Quantities`, in double precision, which print as a table.

        Raises:
          ValueError: no function is given and the model has no deterministic quantities.

        Example:
          >>> import elbojax, jax
          >>> fit = elbojax.fit(jax.random.key(0), lambda z: -0.5 * z["a"] ** 2, {"a": 0.0})
          >>> square = fit.evaluate(lambda z: {"square": z["a"] ** 2})
          >>> round(float(square.mean()["square"]), 1)
          1.0
        """
        if function is None:
            function = predictive.needed(self.model, "derived", "evaluate", "a function (position) -> quantities")
            args = (self.model.data,)  # type: ignore[union-attr]
        with jax.enable_x64(True):
            return quantities.evaluated(function, self._positions(), widened(args), self.log_weights, self.certificate)

    def predict(
        self,
        key: Key,
        *args: Any,
        num_samples: int = 1000,
        simulate: Callable[..., PyTree] | None = None,
        **kwargs: Any,
    ) -> PyTree:
        r"""Data drawn from the posterior predictive distribution.

        .. math:: \tilde x \sim \int p(\tilde x \mid z) \, p(z \mid x) \, dz

        Args:
          key: consumed.
          *args: arguments of the model that `fit_model` was given, at which to predict, with None for what is observed;
            none for data like those seen. Of `simulate`, what it is given besides.
          num_samples: S.
          simulate: `(key, position, *args) -> pytree`, of a fit of a log-density.
          **kwargs: arguments of the model by name.

        Returns:
          Pytree of what is simulated, leading axis S, as NumPy arrays; of a model a dict by name.

        Raises:
          ValueError: neither model nor `simulate` says how data come about.

        Example:
          >>> import elbojax, jax
          >>> fit = elbojax.fit(jax.random.key(0), lambda z: -0.5 * z["a"] ** 2, {"a": 0.0})
          >>> draws = fit.predict(jax.random.key(1), simulate=lambda key, z: z["a"] + jax.random.normal(key, (3,)))
          >>> draws.shape
          (1000, 3)
        """
        own, key = jax.random.split(key)
        draws = self.sample(own, num_samples)
        return predictive.predicted(key, draws, self.model, simulate, args, kwargs)

    def predict_prior(self, key: Key, num_samples: int = 1000) -> dict[str, Any]:
        """Parameters, deterministic quantities and data drawn from the prior of the model that `fit_model` was given.

        Args:
          key: consumed.
          num_samples: S.

        Returns:
          Dict by name, leading axis S, as NumPy arrays.

        Raises:
          ValueError: the fit is of a log-density, which does not tell prior and likelihood apart.
        """
        return predictive.prior_predicted(key, self.model, num_samples)

    @relaxed
    def log_likelihood(self, function: Callable[..., PyTree] | None = None, data: PyTree = None) -> PyTree:
        r"""How likely each observation is at each of the draws held, :math:`\log p(x_n \mid z_s)`.

        What leave-one-out cross-validation takes (`loo`). Draws have weights, `log_weights`.

        Args:
          function: `(position) -> pytree`, or `(position, data) -> pytree` where data is given, of arrays with one number
            for each observation. None for that of the model that `fit_model` was given.
          data: pytree of arrays.

        Returns:
          Pytree of NumPy arrays [S, ...] in double precision; of a model a dict by name of the observed sites.

        Raises:
          ValueError: neither model nor `function` says how likely an observation is.
        """
        return predictive.log_likelihoods(self._positions(), self.model, function, data)

    @relaxed
    def nuts_start(self, num_chains: int = 4, *, key: Key | None = None, dense: bool | None = None) -> NutsStart:
        r"""Starts and an inverse mass matrix for NUTS elsewhere: BlackJAX, NumPyro, PyMC, nutpie.

        .. math:: u_c \sim \textstyle\sum_s w_s \delta_{u_s}, \qquad M^{-1} = \widehat{\mathrm{Cov}}[u]

        Draws picked by weight, in the model's own space and in the unconstrained one of its library, where NUTS moves, and the
        covariance there. Chains that begin so need no search for the mass and no adaptation of their masses; the
        step size is theirs to find. They are as good as the fit: of one that is not certified, look at what the chains say.

        Args:
          num_chains: C.
          key: consumed; None for the same draws at every call.
          dense: whether the matrix has correlations; None for up to 500 numbers.

        Returns:
          `NutsStart`: `positions`, `unconstrained` and `inverse_mass_matrix`.

        Raises:
          ValueError: `num_chains` is below 1, or the fit has no finite draws.

        Example:
          >>> import elbojax, jax
          >>> fit = elbojax.fit(jax.random.key(0), lambda z: -0.5 * z["a"] ** 2 / 9, {"a": 0.0})
          >>> start = fit.nuts_start()
          >>> start.positions["a"].shape, round(float(start.inverse_mass_matrix[0, 0]))
          ((4,), 9)

        References:
          Zhang, Carpenter, Gelman, Vehtari 2022 (variational starts), https://jmlr.org/papers/v23/21-0889.html
        """
        key = jax.random.key(2) if key is None else key
        check_key(key)
        return nuts_start(
            key, np.asarray(self.draws), self._positions(), np.asarray(self.log_weights), self.model, num_chains, dense
        )

    def _chains(self, num_samples: int | None) -> PyTree:
        num_chains = self._num_chains()
        if num_samples is None and num_chains > 1:
            chains = handed(self._positions(), *self._exact)
            return jax.tree.map(lambda x: x.reshape(num_chains, -1, *x.shape[1:]), chains)
        size = self._num_effective(self._worth()) if num_samples is None else num_samples
        return jax.tree.map(lambda x: np.asarray(x)[None], self.sample(jax.random.key(0), size))

    def _known_of_data(self, chains: PyTree, log_likelihood: Any, simulate: Any, observed: Any) -> Any:
        return predictive.known_of_data(chains, self.model, log_likelihood, simulate, observed)

    def _num_chains(self) -> int:
        """How many chains of one length, one after the other, the draws are."""
        return self.chains if len(self.draws) % self.chains == 0 else 1

    def __len__(self) -> NoReturn:
        """Not of one model."""
        raise TypeError("one fit has no length, for it is one model; fits of fit_batch have")

    def __getitem__(self, index: Any) -> NoReturn:
        """Not of one model."""
        raise TypeError("one fit cannot be indexed, for it is one model; fits of fit_batch can")

    def plot(self, *, most: int = pictures.PANELS, title: str = "") -> Any:
        """The fit in one picture: marginals with their quantiles, the pair that is hardest for a Gaussian, and the check.

        Args:
          most: marginal densities, but for a few of each leaf.
          title: over all; by default the verdict.

        Returns:
          A matplotlib `Figure`: `figure.savefig(...)`, or the last line of a notebook's cell.

        Raises:
          ModuleNotFoundError: matplotlib is not installed.

        Example:
          >>> import elbojax, jax
          >>> fit = elbojax.fit(jax.random.key(0), lambda z: -0.5 * (z["a"] ** 2 + z["b"] ** 2), {"a": 0.0, "b": 0.0})
          >>> len(fit.plot().axes)
          4
        """
        return pictures.overview(self, most=most, title=title)

    def settled(self) -> "Fit":
        """The same fit, with the certificate's codes as enums that print their names."""
        c = self.certificate
        named = c._replace(
            certified=bool(c.certified), status=Status(int(c.status)), stage=Stage(int(c.stage)), modes=int(c.modes)
        )
        return dataclasses.replace(self, certificate=named)

    def timed(self, seconds: Seconds) -> "Fit":
        """The same fit, which tells where its time went: no part of what it is, and lost where it is taken apart."""
        object.__setattr__(self, "_seconds", seconds)
        return self

    def __str__(self) -> str:
        """The report."""
        return report(self.certificate, self._title(), self.note)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return self.summary().html(report(self.certificate, self._heading(), self.note), display.SHOWN)

    def _heading(self) -> str:
        return f"posterior of {self.target.size} parameters"

    def _title(self) -> str:
        """The numbers, mean ± sd; of those that have none, what they have and the quantiles."""
        lines = [self._heading()]
        mean, sd = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(part)]) for part in self._exact)
        names, has_draws = space.names(self.target), bool(np.isfinite(self.draws).all())
        lacking = np.isnan(sd) & has_draws
        shown = display.parts(names, mean, sd)
        table: Any = self.summary() if any(lacking[number] for part in shown for number in part.rows) else None
        wide = max([13, *(len(names[number]) for part in shown for number in part.rows)])
        for part in shown:
            for number in part.rows:
                name, m, s = names[number], mean[number], sd[number]
                if not lacking[number]:
                    lines.append(f"  {name:<{wide}} {m:12.{display.digits(m, s)}g} ± {s:.3g}")
                    continue
                low, median, high = table.quantiles[number]
                none = "no finite mean or sd found" if np.isnan(m) else f"mean {m:.4g}, no finite sd found"
                lines.append(f"  {name:<{wide}} {median:12.4g} median, 90 % from {low:.4g} to {high:.4g}; {none}")
            if part.rest:
                lines.append(f"  {part.rest}")
        if self.model is not None and self.model.derived is not None:
            lines.append("  ... and what follows from them: fit.evaluate()")
        return "\n".join(lines)


def distinct(draws: np.ndarray, log_weights: np.ndarray) -> int:
    """How many draws [S, D] of one model differ and have weight."""
    return len(np.unique(draws[np.exp(log_weights) > 0], axis=0))
