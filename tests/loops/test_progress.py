"""The bar: what it says, when it is shown, at a terminal, in a notebook, and into a file."""

import os
import re
import subprocess
import sys
import types

import pytest

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
