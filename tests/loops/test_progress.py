"""The bar: what it says, when it is shown, at a terminal, in a notebook, and into a file."""

import os
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import elbojax
from elbojax.loops import progress
from elbojax.loops.progress import Progress

SCRIPT = """
import time
from elbojax.loops.progress import Progress
with Progress(200, show=None) as bar:
    for done in (50, 150):
        time.sleep(0.15)
        bar.update(finished=done, failed=done // 50)
"""


def states(text):
    """(finished, total, failed) as the bar has shown them one after the other."""
    return [tuple(map(int, found)) for found in re.findall(r"(\d+)/(\d+) \[[^\r\n]*failed=(\d+)", text)]


def test_says_finished_failed_rate_and_time_left(capsys):
    with Progress(10, show=True) as bar:
        bar.update(finished=4, failed=1)
        bar._bar.refresh()
        shown = capsys.readouterr()
        assert states(shown.err)[-1] == (4, 10, 1) and shown.out == ""
        assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, *[\d.]+(model/s|s/model)", shown.err), "elapsed < left, rate"
        bar.update(finished=10, failed=2)
    assert states(capsys.readouterr().err)[-1] == (10, 10, 2)


def test_what_is_left_at_the_end_has_failed_but_not_after_an_error(capsys):
    with Progress(10, show=True) as bar:
        bar.update(finished=7, failed=1)
    assert states(capsys.readouterr().err)[-1] == (10, 10, 4)
    with pytest.raises(KeyboardInterrupt), Progress(10, show=True) as bar:
        bar.update(finished=7, failed=1)
        raise KeyboardInterrupt
    assert states(capsys.readouterr().err)[-1] == (7, 10, 1)


def test_parts_share_one_bar(capsys):
    with Progress(10, show=True) as whole:
        for total, finished in ((4, 4), (6, 5)):
            with Progress(total, show=whole.share()) as part:
                assert part.visible
                part.update(finished=finished - 1, failed=0)
                part.update(finished=finished, failed=1)
    shown = capsys.readouterr().err
    assert states(shown)[-1] == (10, 10, 3) and {total for _, total, _ in states(shown)} == {10}
    assert shown.count("\n") == 1, "one bar, closed once"
    with Progress(10, show=False) as whole:
        assert whole.share() is False


@pytest.mark.parametrize("show", [False, None])
def test_nothing_where_nobody_watches(show, capsys):
    with Progress(10, show=show) as bar:
        assert not bar.visible
        bar.update(finished=4, failed=1)
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""


def test_a_notebook_is_watched(monkeypatch):
    assert not progress.watched()
    for shell, watching in ((types.SimpleNamespace(kernel=1), True), (types.SimpleNamespace(), False), (None, False)):
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert progress.watched() is watching
    monkeypatch.setattr(sys, "stderr", None)  # as of a program without a console
    assert not progress.watched()


def test_only_the_first_of_several_processes_shows_it(monkeypatch):
    monkeypatch.setattr(progress.jax, "process_index", lambda: 1)
    with Progress(10, show=True) as bar:
        assert not bar.visible


def test_a_file_gets_few_lines(capsys):
    with Progress(1000, show=True) as bar:
        for done in range(1000):
            bar.update(finished=done, failed=0)
    assert len(states(capsys.readouterr().err)) <= 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_is_watched_and_a_pipe_is_not():
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    watched = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=theirs, stdout=subprocess.PIPE)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    assert watched.communicate()[0] == b"" and watched.returncode == 0
    assert {(50, 200, 1), (150, 200, 3), (200, 200, 53)} <= set(states(shown.decode()))
    piped = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    assert piped.stdout == piped.stderr == b""


class Moves:
    """A bar that notes where it was."""

    def __init__(self, total, unit):
        self.total, self.unit, self.places, self.notes = total, unit, [0], []

    def set_postfix(self, notes=None, refresh=True, **more):
        self.notes.append(notes or more)

    def update(self, more):
        self.places.append(self.places[-1] + more)

    def write(self, line, file):
        pass

    def close(self):
        self.closed = True


@pytest.fixture
def moves(monkeypatch):
    """The bars that were shown."""
    made = []
    monkeypatch.setattr("elbojax.loops.progress._tqdm", lambda total, unit: made.append(Moves(total, unit)) or made[-1])
    return made


@pytest.mark.parametrize("stop", [None, "moments"])
def test_a_run_with_a_bar_is_the_same(moves, stop):
    solver = elbojax.svi(elbojax.as_loss(elbojax.elbo_stl, lambda z: -0.5 * z @ z), optax.adam(0.05))
    start, rule = elbojax.mean_field(jnp.ones(2), 2.0), elbojax.moments_stable() if stop else None
    settings = dict(num_steps=1010, stop=rule)
    plain = elbojax.run(jax.random.key(0), solver, start, **settings)
    shown = elbojax.run(jax.random.key(0), solver, start, **settings, progress=True)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(shown), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    (bar,) = moves
    assert bar.total == 1010 and bar.unit == " steps" and bar.places[-1] == int(plain.num_steps) and bar.closed
    assert len(bar.places) > 3 and bar.notes[-1]["loss"] == f"{float(plain.loss):.6g}"
    elbojax.run(jax.random.key(0), solver, start, **settings, progress=None)  # nobody is watching
    keys = jax.random.split(jax.random.key(0), 2)
    jax.vmap(lambda key: elbojax.run(key, solver, start, num_steps=50, progress=True).loss)(keys)
    assert len(moves) == 1
    half = elbojax.run(jax.random.key(0), solver, start, num_steps=300)
    again = elbojax.run(jax.random.key(0), solver, start, num_steps=1010, resume=half, progress=True)
    if stop is None:
        np.testing.assert_allclose(again.q.loc, plain.q.loc, rtol=1e-9)


def test_gradients_of_fits_and_checks_are_counted(moves, capsys):
    q = elbojax.mean_field(jnp.zeros(2), 1.0)
    fit = elbojax.fit(jax.random.key(0), q.log_prob, jnp.zeros(2), progress=True, max_gradients=10_000)
    assert moves[0].total == 10_000 and moves[0].unit == " gradients" and moves[0].closed
    assert 0 < moves[0].places[-1] <= fit.certificate.num_gradients and "certified" in capsys.readouterr().out
    found = elbojax.chain_check(jax.random.key(0), q, q.log_prob, progress=True)
    assert found and moves[1].total is None and moves[1].places[-1] >= found.num_gradients
    elbojax.fit(jax.random.key(0), q.log_prob, jnp.zeros(2), progress=None)
    assert len(moves) == 2 and not capsys.readouterr().out


@pytest.mark.slow
def test_refits_of_loo(moves):
    y = jnp.array([0.3, -0.2, 1.1, 12.0])
    each = lambda z, y: -0.5 * (y - z) ** 2 - 0.5 * jnp.log(2 * jnp.pi)  # noqa: E731
    fit = elbojax.fit(jax.random.key(0), lambda z, y: jnp.sum(each(z, y)) - 0.5 * z**2, 0.0, data=y)
    found = elbojax.loo(fit, each, y, key=jax.random.key(1), progress=True)
    assert len(found.refitted) and moves[0].total == len(found.refitted) == moves[0].places[-1]


@pytest.mark.slow
def test_steps_of_minibatches(moves):
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (2000,))
    fit = elbojax.fit_minibatches(
        jax.random.key(1),
        lambda p: -0.5 * p**2,
        lambda p, x: -0.5 * (x - p) ** 2,
        0.0,
        x,
        optimizers={"adam": optax.adam(0.1)},
        progress=True,
    )
    (bar,) = moves
    assert bar.total == 20_000 and 0 < bar.places[-1] <= fit.num_steps and bar.notes[-1]["optimiser"] == "adam"
