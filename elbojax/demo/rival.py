"""One window by NUTS: how close the variational answer is, and what each cost."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from elbojax.demo.volatility import Windows
from elbojax.diagnostics import Assessment
from elbojax.loops import Run
from elbojax.targets import Target
from elbojax.types import Key

NUM_DRAWS_A_STEP = 4
NAMES = ("mu", "omega", "alpha", "beta", "nu")


def report(key: Key, model: Target, windows: Windows, fits: Run, assessment: Assessment, index: int) -> str:
    """The table that the demo prints.

    Args:
      key: consumed.
      model: from `volatility.target`.
      windows: the data.
      fits: of all windows.
      assessment: of all windows.
      index: which window.

    Returns:
      Text; a sentence that says what to install where BlackJAX is missing.
    """
    try:
        import blackjax  # noqa: F401

        from elbojax.interop.blackjax_nuts import nuts
    except ModuleNotFoundError:
        return "NUTS comes with BlackJAX: pip install 'elbojax[interop]'."
    returns = windows.returns[index]
    log_density = functools.partial(_log_density, model, returns)
    q = jax.tree.map(lambda x: x[index], fits.q)
    start_key, run_key = jax.random.split(key)
    starts = jax.vmap(q.sample)(jax.random.split(start_key, 2))
    began = time.perf_counter()
    chains = jax.block_until_ready(jax.jit(lambda key, starts: nuts(key, log_density, starts))(run_key, starts))
    seconds = time.perf_counter() - began

    reference = _natural(model, chains.draws.reshape(-1, model.size))
    raw = _natural(model, jax.vmap(q.sample)(jax.random.split(start_key, 4000)))
    events = _natural(model, assessment.events[index])
    weights = np.exp(np.asarray(assessment.log_weights[index]))
    mean = weights @ events
    sd = np.sqrt(weights @ (events - mean) ** 2)

    lines = [
        f"Window {index}, the two years to {windows.next_day[index]:%d %B %Y}: NUTS by BlackJAX, 2 chains of 500 + 500.",
        "",
        f"{'':8}{'NUTS mean':>11}{'sd':>9}{'VI mean':>11}{'sd':>9}{'error in sds':>14}{'  after correction':>18}",
    ]
    for i, name in enumerate(NAMES):
        m, s = reference[:, i].mean(), reference[:, i].std()
        lines.append(
            f"{name:8}{m:11.4f}{s:9.4f}{raw[:, i].mean():11.4f}{raw[:, i].std():9.4f}"
            f"{(raw[:, i].mean() - m) / s:14.2f}{(mean[i] - m) / s:10.2f} (sd {sd[i] / s - 1:+.0%})"
        )
    vi_gradients = int(fits.num_steps[index]) * NUM_DRAWS_A_STEP
    lines += [
        "",
        f"NUTS: {int(chains.num_gradients):,} gradients, {seconds:.1f} s with compilation for this one window,"
        f" {int(chains.num_divergent)} divergent. VI: {vi_gradients:,} gradients for it"
        f" and {assessment.log_weights.shape[1]:,} log-densities to check it; k-hat {float(assessment.khat[index]):.2f}.",
        "On one small model NUTS is right and takes seconds. The batch is where VI earns its keep.",
    ]
    return "\n".join(lines)


def _log_density(model, returns, z):
    return model.log_density(z, returns)


def _natural(model: Target, flat: jax.Array) -> np.ndarray:
    """[S, 5] draws of mu, omega, alpha, beta, nu."""
    position = jax.vmap(model.constrain)(flat)
    columns = [position["mu"], position["omega"], *position["persistence"].T[:2], position["nu"]]
    return np.asarray(jnp.stack(columns, axis=-1))
