"""Pictures of fits, of batches and of runs; matplotlib is imported on use."""

import functools
import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from elbojax import thresholds
from elbojax.loops.lane import LONGEST_BLOCK
from elbojax.results import display
from elbojax.results.certificate import Stage
from elbojax.results.quantities import quantiles
from elbojax.types import Status
from elbojax.weights import pick

if TYPE_CHECKING:
    from elbojax.loops.run import Run
    from elbojax.results.fit import Fit
    from elbojax.results.fits import Fits

INK, BAND, STRAY, FAINT = "#1f6f8b", "#d9e4e8", "#b5651d", "#9fb4bb"
COLUMNS = 4
NO_NOISE = 1e-12
"""Share of a number below which its spread is rounding."""
PANELS = 6
"""Marginal densities of an overview."""
POINTS = 600
"""Draws in a scatter plot."""
PAIRED = 200
"""Coordinates whose pairs are looked at, those whose draws and q differ most."""
BENT = 0.2
"""Correlation of a coordinate with the distance of another from its median above which the pair counts as bent."""
HIGHEST = 2.0
"""Largest k-hat that a picture tells from others."""


def new_figure(**settings: Any) -> Any:
    """A matplotlib `Figure` of no window, which a notebook shows where it is the last line of a cell.

    Args:
      **settings: of `Figure`.
    """
    return _kind()(**settings)


@functools.cache
def _kind() -> Any:
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that shows itself: IPython knows those of pyplot only, once pyplot has drawn one."""

        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png", dpi=100)
            return stream.getvalue()

    return Picture


def marginals(fit: Any, *, most: int = 12, title: str = "") -> Any:
    """The marginal density of each number of a posterior, with its 5, 50 and 95 per cent quantiles.

    Leaves of few numbers come first, as in the report of the fit; constant entries are left out. Histograms are of the
    weighted draws; heavy tails are cut at the outermost 1 in 500 on either side.

    Args:
      fit: of one model: a `Fit`, a `MinibatchFit`, or what `run.approximation` gives.
      most: panels, but for a few of each leaf.
      title: over all panels; by default whether the fit is certified.

    Returns:
      A matplotlib `Figure`.

    Raises:
      ModuleNotFoundError: matplotlib is not installed.

    Example:
      >>> import elbojax, jax
      >>> figure = marginals(elbojax.fit(jax.random.key(0), lambda z: -0.5 * z["a"] ** 2, {"a": 0.0}))
      >>> figure.axes[0].get_title()
      'a'
    """
    table, values, weights = _numbers(fit)
    shown = _shown(table, most)
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(figsize=(2.6 * columns + 0.4, 1.9 * rows + 0.6), layout="constrained")
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, number in zip(panels[: len(shown)], shown, strict=True):
        axes.set_title(table.names[number], fontsize=9)
        _marginal(axes, values[:, number], weights, table.quantiles[number])
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    said = title or f"{table.verdict}; lines at 5, 50 and 95 %"
    figure.suptitle(textwrap.fill(said, 10 + 32 * columns), fontsize=10)
    return figure


def overview(fit: "Fit", *, most: int = PANELS, title: str = "") -> Any:
    """One fit in one picture: marginals with their quantiles, the pair that is hardest for a Gaussian, and the check.

    The pair is that of the coordinates, in the space of `q`, of which one is most correlated with the distance of the other
    from its median, as in a funnel or a banana, or whose correlation among the weighted draws differs most from that among
    the draws as they came; where no pair is bent, the most correlated one. The check is the tail of the importance ratios,
    with the slope that k-hat gives it and the one at which they are no longer trusted; of chains, the draws of
    the coordinate in which they differ most.

    Args:
      fit: of one model.
      most: marginal densities, but for a few of each leaf.
      title: over all; by default the verdict and the stage.

    Returns:
      A matplotlib `Figure`.

    Raises:
      ModuleNotFoundError: matplotlib is not installed.

    Example:
      >>> import elbojax, jax
      >>> fit = elbojax.fit(jax.random.key(0), lambda z: -0.5 * (z["a"] ** 2 + z["b"] ** 2), {"a": 0.0, "b": 0.0})
      >>> [axes.get_title().split(chr(10))[0] for axes in overview(fit).axes][:2]
      ['a', 'b']
    """
    table, values, weights = _numbers(fit)
    shown = _shown(table, most)
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(figsize=(8.4, 1.9 * rows + 3.9), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[1.9 * rows, 3.3])
    above, below = parts
    panels = np.ravel(above.subplots(rows, columns, squeeze=False))
    for axes, number in zip(panels[: len(shown)], shown, strict=True):
        axes.set_title(f"{table.names[number]}\n{_written(table.quantiles[number])}", fontsize=8.5)
        _marginal(axes, values[:, number], weights, table.quantiles[number])
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    left, right = below.subplots(1, 2)
    _pair(left, fit)
    _check(right, fit)
    rest = len(table.names) - len(shown)
    said = f"; {rest:,} more {'number is' if rest == 1 else 'numbers are'} not shown" if rest else ""
    stage = str(Stage(int(fit.certificate.stage)))
    figure.suptitle(title or f"{table.verdict}, stage {stage}; lines at 5 | 50 | 95 %{said}", fontsize=10)
    return figure


def khats(fits: "Fits", *, title: str = "") -> Any:
    """k-hat of every model of a batch, against the threshold, and how many models ended with each status.

    Args:
      fits: of `fit_batch`.
      title: over both panels; by default how many are certified.

    Returns:
      A matplotlib `Figure`. Values above 2 are drawn at 2.

    Raises:
      ModuleNotFoundError: matplotlib is not installed.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> fits = elbojax.fit_batch(jax.random.key(0), lambda z, y: -0.5 * (z - y) ** 2, 0.0, jnp.arange(3.0))
      >>> khats(fits).axes[0].get_xlabel()
      'model'
    """
    c = fits.certificate
    certified, status = np.asarray(c.certified, bool), np.asarray(c.status)
    khat = np.clip(np.nan_to_num(np.asarray(c.khat, float), nan=HIGHEST, posinf=HIGHEST), -0.5, HIGHEST)
    figure = new_figure(figsize=(8.4, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 1.4])
    for which, marker, colour, label in ((certified, "o", INK, "certified"), (~certified, "^", STRAY, "not certified")):
        if which.any():
            size = 14 if len(khat) < 300 else 5
            left.scatter(np.flatnonzero(which), khat[which], s=size, marker=marker, color=colour, label=label, lw=0)
    left.axhline(thresholds.KHAT, color="grey", linestyle="--", linewidth=1)
    left.annotate(f"{thresholds.KHAT:g}", (1, thresholds.KHAT), xycoords=("axes fraction", "data"), fontsize=8)
    left.set_xlabel("model", fontsize=9)
    left.set_ylabel("k-hat", fontsize=9)
    left.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, 1.16), ncols=2)
    codes, counts = np.unique(status, return_counts=True)
    bars = right.barh([str(Status(int(code))) for code in codes], counts, color=INK, height=0.6)
    right.bar_label(bars, labels=[f"{count:,}" for count in counts], padding=3, fontsize=8)
    right.set_ylim(-0.6, max(len(codes), 3) - 0.4)
    right.set_xlim(0, 1.25 * counts.max())
    right.set_xlabel("models", fontsize=9)
    for axes in (left, right):
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title or f"{certified.sum():,} of {certified.size:,} models are certified", fontsize=10)
    return figure


def trace(run: "Run", *, title: str = "") -> Any:
    """Mean loss of each block of steps, and where and why the run ended; of a batch, how the losses came down, and the ends.

    The axis of the losses leaves out the first ones where they are far above the rest.

    Args:
      run: of `run` or `run_batch`.
      title: over the picture; by default how it ended.

    Returns:
      A matplotlib `Figure`.

    Raises:
      ModuleNotFoundError: matplotlib is not installed.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp, optax
      >>> solver = elbojax.svi(elbojax.as_loss(elbojax.elbo_stl, lambda z: -0.5 * z @ z), optax.adam(0.1))
      >>> result = elbojax.run(jax.random.key(0), solver, elbojax.mean_field(jnp.ones(1), 1.0), num_steps=200)
      >>> trace(result).axes[0].get_title()
      'max_steps after 200 steps'
    """
    if np.ndim(run.status):
        return _traces(run, title)
    losses, steps = np.asarray(run.losses, float), int(run.num_steps)
    figure = new_figure(figsize=(6.4, 3.0), layout="constrained")
    axes = figure.subplots()
    ends = _ends(losses, steps)
    taken = losses[: len(ends)]
    axes.plot(ends, taken, color=INK, linewidth=1.2, marker="o" if len(ends) < 40 else None, markersize=3)
    low, high = _range(taken)
    if high > low:
        axes.set_ylim(low, high)
    axes.axvline(steps, color=STRAY, linestyle="--", linewidth=1)
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel("mean loss of a block of steps, nats", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title or f"{Status(int(run.status))} after {steps:,} steps", fontsize=10)
    above = int(np.sum(taken > high))
    if above:
        axes.annotate(
            f"{above:,} of {len(taken):,} blocks lie above",
            (0.02, 0.97),
            xycoords="axes fraction",
            va="top",
            fontsize=8,
        )
    return figure


def predictive_bands(
    draws: Any,
    observed: Any = None,
    x: Any = None,
    *,
    probabilities: Sequence[float] = (0.5, 0.9),
    title: str = "",
) -> Any:
    """Bands in which data drawn from the posterior predictive distribution lie, with the data that were seen.

    Args:
      draws: [S, N], as `fit.predict(key)` gives them for each observed variable.
      observed: [N]; those outside the widest band are marked, of which there should be as many as it leaves out.
      x: [N] along which to draw; by default the numbers of the observations.
      probabilities: of the bands, around the median.
      title: of the picture; by default how many data are outside.

    Returns:
      A matplotlib `Figure`.

    Raises:
      ModuleNotFoundError: matplotlib is not installed.
      ValueError: shapes do not fit, or a probability is not between 0 and 1.

    Example:
      >>> import numpy as np
      >>> draws = np.random.default_rng(0).normal(size=(400, 5))
      >>> predictive_bands(draws, np.array([0.0, 1.0, -1.0, 0.5, 9.0])).axes[0].get_title()
      '1 of 5 observations outside the 90 % band'
    """
    draws = np.asarray(draws, float)
    if draws.ndim != 2:
        raise ValueError(
            f"draws must be [S, N], one row for each draw of the data, got shape {draws.shape}; of a model"
            " fit.predict(key) is a dict of these"
        )
    count = draws.shape[1]
    for name, given in (("observed", observed), ("x", x)):
        if given is not None and np.shape(given) != (count,):
            raise ValueError(f"{name} must have shape [{count}], as draws have columns, got {np.shape(given)}")
    if not probabilities or not all(0 < p < 1 for p in probabilities):
        raise ValueError(f"probabilities must lie between 0 and 1, got {probabilities}")
    places = np.arange(count) if x is None else np.asarray(x, float)
    order = np.argsort(places, kind="stable")
    figure = new_figure(figsize=(6.8, 3.2), layout="constrained")
    axes = figure.subplots()
    widest = max(probabilities)
    for p in sorted(probabilities, reverse=True):
        low, high = np.quantile(draws, [(1 - p) / 2, (1 + p) / 2], axis=0)
        colour = BAND if p == widest else FAINT
        axes.fill_between(
            places[order], low[order], high[order], color=colour, lw=0, label=f"{100 * p:.0f} %", step=None
        )
    axes.plot(places[order], np.median(draws, axis=0)[order], color=INK, linewidth=1.2, label="median")
    if observed is not None:
        seen = np.asarray(observed, float)
        low, high = np.quantile(draws, [(1 - widest) / 2, (1 + widest) / 2], axis=0)
        outside = (seen < low) | (seen > high)
        axes.plot(places[~outside], seen[~outside], "o", color="black", markersize=3, label="observed")
        axes.plot(places[outside], seen[outside], "^", color=STRAY, markersize=5, label=f"outside {100 * widest:.0f} %")
        title = title or f"{outside.sum():,} of {count:,} observations outside the {100 * widest:.0f} % band"
    axes.set_title(title or "posterior predictive", fontsize=10)
    axes.set_xlabel("observation" if x is None else "x", fontsize=9)
    axes.set_ylabel("y", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _numbers(fit: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """The table of a fit, its draws [S, P] in the user's space, and their weights [S]; those without weight left out."""
    table = fit.summary()
    found = fit.evaluate(lambda position: position)
    weights = np.exp(np.asarray(found.log_weights, float))
    values = np.concatenate([np.reshape(x, (len(weights), -1)) for x in jax.tree.leaves(found.values)], axis=1)
    used = weights > 0
    return table, values[used], weights[used]


def _written(lines: np.ndarray) -> str:
    """Quantiles with as many digits as their distance is worth."""
    distance = float(lines[-1] - lines[0])
    places = 2 - int(np.floor(np.log10(distance))) if np.isfinite(distance) and distance > 0 else 9
    return " | ".join(f"{x:.{max(places, 0)}f}" if -3 < places < 7 else f"{x:.4g}" for x in lines)


def _shown(table: Any, most: int) -> list[int]:
    return [n for part in display.parts(table.names, table.mean, table.sd, most) for n in part.rows]


def _marginal(axes: Any, column: np.ndarray, weights: np.ndarray, lines: np.ndarray) -> None:
    axes.set_yticks([])
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if not np.all(np.isfinite(column)):
        axes.text(0.5, 0.5, "no finite draws", ha="center", transform=axes.transAxes, fontsize=8)
        return
    low, high = (quantiles(column, weights, p) for p in (0.002, 0.998))
    if high - low <= NO_NOISE * abs(high):
        axes.text(0.5, 0.5, f"{high:.4g}, no spread", ha="center", transform=axes.transAxes, fontsize=8)
        return
    inside = (column >= low) & (column <= high)
    axes.hist(column[inside], bins=40, weights=weights[inside], density=True, color=BAND, edgecolor=INK, linewidth=0.3)
    for place, style in zip(lines, (":", "-", ":"), strict=True):
        axes.axvline(place, color=INK, linestyle=style, linewidth=1)


def _pair(axes: Any, fit: Any) -> None:
    """The draws of the worst pair, those of q behind those that their weights pick."""
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    draws, weights = np.asarray(fit.draws, float), np.exp(np.asarray(fit.log_weights, float))
    if draws.shape[1] < 2 or not np.isfinite(draws[weights > 0]).all() or len(draws) < 8:
        axes.set_axis_off()
        said = "one parameter: no pair" if draws.shape[1] < 2 else "no finite draws"
        axes.text(0.5, 0.5, said, ha="center", transform=axes.transAxes, fontsize=9)
        return
    i, j, said = worst_pair(draws, weights)
    names = _labels(fit.target)
    even = np.ptp(weights) <= 1e-6 * weights.max()
    rng = np.random.default_rng(0)
    if not even:
        some = rng.choice(len(draws), min(POINTS, len(draws)), replace=False)
        axes.plot(*draws[some][:, [i, j]].T, ".", color=FAINT, markersize=3, label="as drawn")
    log_weights = jax.device_put(np.asarray(fit.log_weights))
    chosen = np.asarray(pick(jax.random.key(0), log_weights, min(POINTS, len(draws))))
    picked = draws[np.unique(chosen)]
    axes.plot(*picked[:, [i, j]].T, ".", color=INK, markersize=3, label="draws" if even else "weighted")
    for which, column in (("x", i), ("y", j)):
        low, high = np.quantile(picked[:, column], [0.005, 0.995])
        room = 0.25 * (high - low) or 1
        getattr(axes, f"set_{which}lim")(low - room, high + room)
        getattr(axes, f"set_{which}label")(names[column], fontsize=9)
    axes.set_title(f"worst pair: {said}", fontsize=9)
    axes.legend(frameon=False, fontsize=8, markerscale=3, loc="best")


def worst_pair(draws: np.ndarray, weights: np.ndarray) -> tuple[int, int, str]:
    """The two coordinates that are hardest for a Gaussian, and why; see `overview`.

    Args:
      draws: [S, D], D at least 2.
      weights: [S], positive or zero, of sum one.

    Returns:
      Two numbers below D, and words.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> scale = rng.normal(size=2000)
      >>> draws = np.stack([rng.normal(size=2000), scale, np.exp(scale) * rng.normal(size=2000)], axis=1)
      >>> worst_pair(draws, np.full(2000, 1 / 2000))[:2]
      (1, 2)
    """
    used = weights > 0
    draws, weights = draws[used], weights[used] / weights[used].sum()
    size = draws.shape[1]
    centre = np.array([quantiles(column, weights, 0.5) for column in draws.T])
    spread = np.sqrt(np.maximum(weights @ (draws - centre) ** 2, np.finfo(float).tiny))
    z = np.clip((draws - centre) / spread, -8, 8)
    even = np.full(len(draws), 1 / len(draws))
    few = np.arange(size)
    if size > PAIRED:
        moved = np.abs(weights @ z - even @ z) + np.abs(np.log((weights @ z**2) / np.maximum(even @ z**2, 1e-300)))
        few = np.sort(np.argsort(-moved)[:PAIRED])
    z = z[:, few]
    straight = _correlation(z, z, weights)
    differs = np.abs(straight - _correlation(z, z, even)) if np.ptp(weights) > 1e-6 * weights.max() else 0 * straight
    bent = np.abs(_correlation(z, np.abs(z), weights))
    differs, bent = (np.where(np.eye(len(few), dtype=bool), 0, x) for x in (differs, bent))
    score = np.maximum(differs, bent)
    if score.max() > BENT:
        i, j = np.unravel_index(np.argmax(score), score.shape)
        said = "one scales with the other" if bent[i, j] >= differs[i, j] else "correlated otherwise than q is"
    else:
        score = np.abs(np.where(np.eye(len(few), dtype=bool), 0, straight))
        i, j = np.unravel_index(np.argmax(score), score.shape)
        said = f"correlation {straight[i, j]:.2f}"
    return int(few[i]), int(few[j]), said


def _correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    x, y = x - weights @ x, y - weights @ y
    sds = np.sqrt(np.maximum(np.outer(weights @ x**2, weights @ y**2), np.finfo(float).tiny))
    return (x * weights[:, None]).T @ y / sds


def _labels(target: Any) -> list[str]:
    """Names of the coordinates of q, with a word where they are not the user's numbers."""
    names = list(target.names)
    space = getattr(target.constrain, "space", None)
    if space is None:
        return names
    said: list[str] = []
    for support, shape in zip(space.supports, space.free_shapes, strict=True):
        said += [{"finite": "", "positive": ", log scale"}.get(str(support), ", unconstrained")] * int(np.prod(shape))
    return [name + word for name, word in zip(names, said, strict=True)] if len(said) == len(names) else names


def _check(axes: Any, fit: Any) -> None:
    """The tail of the importance ratios; of chains, their draws; else words."""
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    c, weights = fit.certificate, np.exp(np.asarray(fit.log_weights, float))
    if np.ptp(weights) <= 1e-6 * weights.max():
        return _chains(axes, fit)
    ratios = np.sort(weights[weights > 0] * len(weights))[::-1]
    share = np.arange(1, len(ratios) + 1) / len(weights)
    axes.loglog(ratios, share, color=INK, linewidth=1.5, label="draws")
    tail = max(5, min(len(ratios) // 5, int(3 * np.sqrt(len(ratios)))))
    start, end = ratios[min(tail, len(ratios) - 1)], ratios[0]
    along = np.geomspace(max(start, ratios[0] * 1e-3), max(end, 3 * start) * 3, 30)
    base = share[min(tail, len(ratios) - 1)]
    # Beyond the cutoff u a Pareto tail of shape k falls like (1 + k (x - u) / sigma)^(-1/k), of slope -1/k in the end.
    axes.plot(
        along, base * (along / along[0]) ** (-1 / thresholds.KHAT), "--", color=STRAY, label=f"k = {thresholds.KHAT:g}"
    )
    axes.set_ylim(0.5 / len(weights), 1.5)
    axes.set_xlim(max(ratios[-1], 1e-3), along[-1])
    axes.set_xlabel("importance ratio over its mean (log)", fontsize=9)
    axes.set_ylabel("share of draws above (log)", fontsize=9)
    axes.legend(
        frameon=False,
        fontsize=8,
        title="a tail that falls more slowly\nthan the dashed line is refused",
        title_fontsize=7,
    )
    good = "trusted" if c.khat < thresholds.KHAT else "too heavy"
    axes.set_title(f"check: k-hat {float(c.khat):.2f} ({good}), {float(c.ess):,.0f} effective draws", fontsize=9)


def _chains(axes: Any, fit: Any) -> None:
    c, draws = fit.certificate, np.asarray(fit.draws, float)
    count = fit.chains if len(draws) % fit.chains == 0 else 1
    if count == 1 or not np.isfinite(draws).all():
        axes.set_axis_off()
        lines = [
            f"check of the {Stage(int(c.stage))} stage",
            f"{float(c.ess):,.0f} effective draws",
            f"means within {float(c.mean_error):.3f} sd",
            f"sds within {100 * float(c.sd_error):.1f} %",
            f"k-hat {float(c.khat):.2f}",
        ]
        axes.text(0.5, 0.5, "\n".join(lines), ha="center", va="center", transform=axes.transAxes, fontsize=9)
        return
    chains = draws.reshape(count, -1, draws.shape[1])
    within = np.maximum(np.mean(np.var(chains, axis=1), axis=0), np.finfo(float).tiny)
    worst = int(np.argmax(np.var(np.mean(chains, axis=1), axis=0) / within))
    for chain, colour in zip(chains, np.tile([INK, STRAY, FAINT, "#555555"], count)[:count], strict=False):
        axes.plot(chain[:, worst], color=colour, linewidth=0.4)
    axes.set_xlabel("draw", fontsize=9)
    axes.set_ylabel(_labels(fit.target)[worst], fontsize=9)
    axes.set_title(f"check: {count} chains, {float(c.ess):,.0f} effective draws", fontsize=9)


def _ends(losses: np.ndarray, steps: int) -> np.ndarray:
    """The step at which each block that was taken ends."""
    blocks = int(np.max(np.flatnonzero(~np.isnan(losses)), initial=-1)) + 1
    if blocks == 0:
        return np.zeros(0)
    length = steps // blocks if steps % blocks == 0 else LONGEST_BLOCK
    if -(-steps // length) != blocks:
        length = -(-steps // blocks)
    return np.minimum(length * np.arange(1, blocks + 1), steps)


def _range(losses: np.ndarray) -> tuple[float, float]:
    """Limits of an axis: ten times the spread of the second half, but two nats at least."""
    known = losses[np.isfinite(losses)]
    if not len(known):
        return 0.0, 0.0
    low, spread = float(known.min()), float(np.ptp(known[len(known) // 2 :]))
    high = min(float(known.max()), low + max(10 * spread, 2.0))
    return low - 0.08 * (high - low), high + 0.08 * (high - low)


def _traces(run: Any, title: str) -> Any:
    losses, steps = np.asarray(run.losses, float), np.asarray(run.num_steps, int)
    status = np.asarray(run.status)
    longest = int(np.argmax(steps))
    ends = _ends(losses[longest], int(steps[longest]))
    last = np.array([row[~np.isnan(row)][-1] if (~np.isnan(row)).any() else np.nan for row in losses])
    above = losses[:, : len(ends)] - last[:, None]
    above = np.where(np.isnan(above), 0.0, above)[np.isfinite(last)]
    figure = new_figure(figsize=(6.8, 4.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    if len(above):
        for low, high, colour in ((0.05, 0.95, BAND), (0.25, 0.75, FAINT)):
            edges = np.quantile(above, [low, high], axis=0)
            upper.fill_between(ends, *edges, color=colour, lw=0, label=f"{100 * (high - low):.0f} % of the models")
        upper.plot(ends, np.median(above, axis=0), color=INK, linewidth=1.2, label="median")
        upper.set_yscale("symlog", linthresh=max(0.1, float(np.quantile(np.abs(above), 0.5))))
    upper.set_ylabel("loss above the last, nats", fontsize=9)
    upper.legend(frameon=False, fontsize=8)
    styles = ["-", "--", ":", "-."]
    for place, code in enumerate(np.unique(status)):
        own = np.sort(steps[status == code])
        x = np.concatenate([[0], own, [steps.max()]])
        y = np.concatenate([[0], np.arange(1, len(own) + 1), [len(own)]])
        style = styles[place % len(styles)]
        lower.step(
            x,
            y,
            where="post",
            linestyle=style,
            color=STRAY if code == Status.NON_FINITE else INK,
            label=str(Status(int(code))),
        )
    lower.set_xlabel("step", fontsize=9)
    lower.set_ylabel("models ended", fontsize=9)
    lower.legend(frameon=False, fontsize=8)
    for axes in (upper, lower):
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    counts = ", ".join(f"{np.sum(status == code):,} {Status(int(code))}" for code in np.unique(status))
    figure.suptitle(title or f"{len(status):,} runs: {counts}", fontsize=10)
    return figure
