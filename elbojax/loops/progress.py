"""One bar, moved by the host between chunks of compiled work."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import jax

from elbojax.host.requests import Gradients

SECONDS_BETWEEN_LINES = 10.0
"""Where the bar goes to a file, in which each state is one more line."""


class Progress:
    """A bar of models finished and failed, the rate and the time left; or nothing at all.

    Args:
      total: models in all; None where nobody knows, of other things: then the bar counts, with the rate and the time so far.
      show: True; False; None for "where a person is watching", at a terminal or in a notebook; or the share of another
        bar. Of several processes only the first shows a bar.
      unit: what is counted; of other things than models none fail, and what is left at the end stays so.

    Example:
      >>> with Progress(10, show=False) as bar:
      ...     bar.update(finished=4, failed=1)
    """

    def __init__(self, total: int | None, *, show: "bool | Share | None", unit: str = "model"):
        self._bar: Any = None
        self._unit = unit
        self._total, self._finished, self._failed = total or 0, 0, 0
        if isinstance(show, Share):
            self._bar = show
        elif (show or (show is None and watched())) and jax.process_index() == 0:
            self._bar = _tqdm(total, unit)

    @property
    def visible(self) -> bool:
        """Whether there is a bar to move."""
        return self._bar is not None

    def update(self, *, finished: int, failed: int) -> None:
        """Move the bar to so many models finished, of which so many failed."""
        more, self._finished, self._failed = finished - self._finished, finished, failed
        if isinstance(self._bar, Share):
            self._bar.update(finished=finished, failed=failed)
        elif self._bar is not None:
            self._bar.set_postfix(failed=failed, refresh=False)
            self._bar.update(more)

    def move(self, finished: int, **notes: str) -> None:
        """Move a bar of other things than models, with words beside it."""
        more, self._finished = finished - self._finished, finished
        if self._bar is not None:
            self._bar.set_postfix(notes, refresh=False)
            self._bar.update(more)

    def advance(self, more: int, **notes: str) -> None:
        """Move a bar of other things than models by so many."""
        self.move(self._finished + more, **notes)

    def share(self) -> Any:
        """What the next part of the work moves, as the `show` of a `Progress` of its own.

        Returns:
          A `Share` that begins where this bar stands, or False where there is no bar.
        """
        return Share(self, self._finished, self._failed) if self.visible else False

    def say(self, line: str) -> None:
        """A line above the bar."""
        if isinstance(self._bar, Share):
            self._bar.say(line)
        elif self._bar is not None:
            self._bar.write(line, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is None:
            return
        if kind is None and self._unit == "model":  # what is not finished when all work is done will never be
            self.update(finished=self._total, failed=self._failed + self._total - self._finished)
        self._bar.close()


class Watched:
    """A model whose gradients move a bar."""

    def __init__(self, model: Any, bar: Progress):
        self._model, self._bar = model, bar

    def answer(self, request: Any) -> Any:
        """The model's answer."""
        found = self._model.answer(request)
        if isinstance(request, Gradients):
            self._bar.advance(len(request.points))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """While it lasts, a line may be printed above the bars that there are."""
    if "tqdm" not in sys.modules:
        yield
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stdout):
        yield


class Share:
    """A stretch of a bar: what one of several calls in turn moves."""

    def __init__(self, whole: Progress, finished: int, failed: int):
        self._whole, self._before = whole, (finished, failed)

    def update(self, *, finished: int, failed: int) -> None:
        """Move the whole bar to so many models of this stretch finished, of which so many failed."""
        self._whole.update(finished=self._before[0] + finished, failed=self._before[1] + failed)

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._whole.say(line)

    def close(self) -> None:
        """The bar goes on."""


def watched() -> bool:
    """Whether a person is watching: standard error is a terminal, or this is a notebook."""
    if sys.stderr is not None and sys.stderr.isatty():
        return True
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def _tqdm(total: int | None, unit: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a notebook without ipywidgets gets a bar of text
        from tqdm.auto import tqdm
    pause = 0.1 if watched() else SECONDS_BETWEEN_LINES
    return tqdm(total=total, unit=unit, mininterval=pause, miniters=0, dynamic_ncols=True, maxinterval=60)
