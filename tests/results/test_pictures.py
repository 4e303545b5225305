"""Pictures: what is drawn of fits, batches and runs, the worst pair, and where a trace ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from results import made

import elbojax
from elbojax import Stage, Status, plots
from elbojax.results import pictures

pytest.importorskip("matplotlib")
D = made.SIZE


def q(models=None):
    one = elbojax.mean_field(jnp.zeros(D), 1.0)
    return one if models is None else jax.tree.map(lambda x: jnp.broadcast_to(x, (models, *x.shape)), one)


def drawn(figure):
    """What a file of it takes: text that does not fit its font or axes without an end would raise."""
    figure.canvas.draw()
    return [axes.get_title() for axes in figure.axes], figure.get_suptitle()


def test_a_fit():
    titles, over = drawn(made.fit(q()).plot())
    assert titles[0].startswith("b.tau\n") and titles[-2].startswith("worst pair: ")
    assert titles[-1] == "check: k-hat 0.25 (trusted), 300 effective draws"
    assert over.startswith("certified, stage full_rank") and over.endswith("1 more number is not shown")
    titles, over = drawn(made.fit(q(), certified=False, status=Status.UNRELIABLE, khat=1.2).plot(most=1, title="mine"))
    assert "too heavy" in titles[-1] and over == "mine"


def test_a_notebook_shows_a_figure_that_pyplot_has_not_made():
    assert made.fit(q()).plot()._repr_png_().startswith(b"\x89PNG")


def test_chains_are_drawn_as_they_ran():
    fit = made.fit(q(), stage=Stage.NUTS, chains=4)
    even = elbojax.Fit(
        fit.q, fit.certificate, fit.draws, np.full(made.DRAWS, -np.log(made.DRAWS)), fit.target, chains=4
    )
    figure = even.plot()
    assert drawn(figure)[0][-1] == "check: 4 chains, 300 effective draws" and len(figure.axes[-1].lines) == 4
    alone = elbojax.Fit(fit.q, fit.certificate, fit.draws, even.log_weights, fit.target)
    assert "means within 0.030 sd" in alone.plot().axes[-1].texts[0].get_text()


def test_one_parameter_and_no_draws():
    one = made.fit(elbojax.mean_field(jnp.zeros(1), 1.0), init=np.zeros(1), support=None)
    assert "no pair" in one.plot().axes[-2].texts[0].get_text()
    nothing = elbojax.Fit(
        one.q, one.certificate._replace(certified=False), np.full((64, 1), np.nan), one.log_weights, one.target
    )
    drawn(nothing.plot())


@pytest.mark.parametrize(
    ("kind", "said"),
    [("funnel", "scales"), ("line", "correlation -0.9"), ("weighted", "otherwise than q"), ("far", "corr")],
)
def test_the_worst_pair(kind, said):
    rng = np.random.default_rng(1)
    draws, weights = rng.normal(size=(2000, 5)), np.full(2000, 1 / 2000)
    if kind == "funnel":
        draws[:, 1] *= np.exp(draws[:, 3])
    elif kind == "line":
        draws[:, 1] = -draws[:, 3] + 0.3 * draws[:, 1]
    elif kind == "weighted":
        weights = np.exp(-2 * (draws[:, 1] - draws[:, 3]) ** 2)
        weights /= weights.sum()
    else:  # among many coordinates too
        draws = np.concatenate([draws, rng.normal(size=(2000, 400))], axis=1)
        weights = np.exp(-2 * (draws[:, 1] - draws[:, 3]) ** 2)
        weights /= weights.sum()
    i, j, words = pictures.worst_pair(draws, weights)
    assert {i, j} == {1, 3} and said in words


def test_a_batch():
    fits = made.fit(q(3), models=3, khat=np.array([0.1, np.inf, np.nan]), certified=np.array([True, False, False]))
    titles, over = drawn(fits.plot())
    assert over == "1 of 3 models are certified"
    points = [collection.get_offsets()[:, 1].tolist() for collection in fits.plot().axes[0].collections]
    assert points == [[0.1], [2.0, 2.0]]


@pytest.mark.parametrize(
    ("num_steps", "stopped"), [(200, None), (997, None), (53, None), (30, None), (200, 150), (997, 400)]
)
def test_blocks_end_where_the_run_looked(num_steps, stopped):
    from elbojax.loops.lane import block_length

    length = block_length(num_steps)
    steps = num_steps if stopped is None else stopped
    losses = np.full(-(-num_steps // length), np.nan)
    losses[: -(-steps // length)] = 1.0
    ends = pictures._ends(losses, steps)
    wanted = [min(length * (i + 1), steps) for i in range(-(-steps // length))]
    assert ends.tolist() == wanted


def test_traces():
    losses = jnp.array([1e6, 30.0, 3.0, 2.5, 2.0, jnp.nan])
    run = elbojax.loops.Run(q(), jnp.int32(1), jnp.int32(250), jnp.array(2.0), losses, None)
    figure = run.plot_trace()
    assert drawn(figure)[0] == ["converged after 250 steps"]
    axes = figure.axes[0]
    assert axes.lines[0].get_xdata().tolist() == [50, 100, 150, 200, 250] and axes.get_ylim()[1] < 1000
    assert axes.lines[1].get_xdata() == [250, 250] and axes.texts[0].get_text() == "2 of 5 blocks lie above"
    runs = jax.tree.map(lambda *x: jnp.stack(x), run, run._replace(status=jnp.int32(3), losses=jnp.full(6, jnp.nan)))
    assert drawn(runs.plot_trace())[1] == "2 runs: 1 converged, 1 non_finite"
    lost = elbojax.loops.Run(q(), jnp.int32(3), jnp.int32(50), jnp.array(jnp.nan), jnp.full(6, jnp.nan), None)
    drawn(lost.plot_trace())
    drawn(run.approximation().plot())


def test_predictive_bands():
    rng = np.random.default_rng(0)
    figure = plots.predictive_bands(
        rng.normal(size=(500, 4)), np.array([0.0, 5.0, -5.0, 0.1]), np.array([3.0, 1, 2, 0])
    )
    assert drawn(figure)[0] == ["2 of 4 observations outside the 90 % band"]
    drawn(plots.predictive_bands(rng.normal(size=(50, 4)), probabilities=(0.8,)))
    for settings, match in (
        (dict(draws=np.zeros(3)), r"draws must be \[S, N\]"),
        (dict(draws=np.zeros((3, 2)), observed=np.zeros(3)), r"observed must have shape \[2\]"),
        (dict(draws=np.zeros((3, 2)), x=np.zeros((2, 1))), r"x must have shape \[2\]"),
        (dict(draws=np.zeros((3, 2)), probabilities=(0.5, 1.5)), "between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=match):
            plots.predictive_bands(**settings)
