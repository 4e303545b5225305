"""One window by NUTS: how close both variational answers are, and what each cost."""

import functools
import time

import jax
import numpy as np

from elbojax.demo.certified import NAMES, Certified, moments, natural
from elbojax.demo.volatility import Windows
from elbojax.diagnostics import Assessment
from elbojax.loops import Run
from elbojax.results import Stage
from elbojax.targets import Target
from elbojax.types import Key

NUM_DRAWS_A_STEP = 4


def report(
    key: Key, model: Target, windows: Windows, fits: Run, assessment: Assessment, some: Certified, place: int
) -> str:
    """The table that the demo prints.

    Args:
      key: consumed.
      model: from `volatility.target`.
      windows: the data.
      fits: of all windows, by stochastic VI.
      assessment: of all windows, by the same.
      some: of some windows, by `fit_batch`.
      place: which of those.

    Returns:
      Text; a sentence that says what to install where BlackJAX is missing.
    """
    try:
        import blackjax  # noqa: F401

        from elbojax.interop.blackjax_nuts import nuts
    except ModuleNotFoundError:
        return "NUTS comes with BlackJAX: pip install 'elbojax[interop]'."
    index = int(some.chosen[place])
    returns = windows.returns[index]
    log_density = functools.partial(_log_density, model, returns)
    q = jax.tree.map(lambda x: x[index], fits.q)
    start_key, run_key = jax.random.split(key)
    starts = jax.vmap(q.sample)(jax.random.split(start_key, 2))
    began = time.perf_counter()
    chains = jax.block_until_ready(jax.jit(lambda key, starts: nuts(key, log_density, starts))(run_key, starts))
    seconds = time.perf_counter() - began

    reference = natural(model, chains.draws.reshape(-1, model.size))
    raw = natural(model, jax.vmap(q.sample)(jax.random.split(start_key, 4000)))
    events = natural(model, assessment.events[index])
    weights = np.exp(np.asarray(assessment.log_weights[index]))
    mean = weights @ events
    sd = np.sqrt(weights @ (events - mean) ** 2)
    batch_mean, batch_sd = (x[place] for x in moments(some.fits))

    lines = [
        f"Window {index}, the two years to {windows.next_day[index]:%d %B %Y}: NUTS by BlackJAX, 2 chains of 500 + 500.",
        "",
        f"{'':8}{'NUTS':>20}{'stochastic VI':>20}{'error':>8}{'corrected':>18}{'fit_batch':>20}{'error':>8}",
        f"{'':8}{'mean':>11}{'sd':>9}{'mean':>11}{'sd':>9}{'in sds':>8}{'in sds':>18}{'mean':>11}{'sd':>9}{'in sds':>8}",
    ]
    for i, name in enumerate(NAMES):
        m, s = reference[:, i].mean(), reference[:, i].std()
        lines.append(
            f"{name:8}{m:11.4f}{s:9.4f}{raw[:, i].mean():11.4f}{raw[:, i].std():9.4f}{(raw[:, i].mean() - m) / s:8.2f}"
            + f"{(mean[i] - m) / s:.2f} (sd {sd[i] / s - 1:+.0%})".rjust(18)
            + f"{batch_mean[i]:11.4f}{batch_sd[i]:9.4f}{(batch_mean[i] - m) / s:8.2f}"
        )
    vi_gradients = int(fits.num_steps[index]) * NUM_DRAWS_A_STEP
    c = some.fits[place].certificate
    verdict = (
        f"{'certified' if c.certified else 'not certified'}, stage {Stage(int(c.stage))}, k-hat {float(c.khat):.2f}"
    )
    lines += [
        "",
        f"NUTS: {int(chains.num_gradients):,} gradients, {seconds:.1f} s with compilation for this one window,"
        f" {int(chains.num_divergent)} divergent;",
        f"stochastic VI: {vi_gradients:,} gradients and {assessment.log_weights.shape[1]:,} log-densities to check it, k-hat"
        f" {float(assessment.khat[index]):.2f};",
        f"fit_batch: {int(c.num_gradients):,} gradients and {int(c.num_log_densities):,} log-densities, {verdict}.",
        "On one small model NUTS is right and takes seconds; its own means are uncertain by some 0.04 sd.",
    ]
    return "\n".join(lines)


def _log_density(model, returns, z):
    return model.log_density(z, returns)
