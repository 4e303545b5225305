"""One bar, moved by the host between chunks of compiled work."""

import sys
from types import TracebackType
from typing import Self


class Progress:
    """A progress bar over models, or nothing at all.

    Args:
      total: models in all.
      show: True, False, or None for "where a person is watching".

    Example:
      >>> with Progress(10, show=False) as bar:
      ...     bar.update(finished=4, failed=1)
    """

    def __init__(self, total: int, *, show: bool | None):
        self._bar = None
        if show or (show is None and sys.stderr.isatty()):
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, unit="model")

    @property
    def visible(self) -> bool:
        """Whether there is a bar to move."""
        return self._bar is not None

    def update(self, *, finished: int, failed: int) -> None:
        """Move the bar to so many models finished, of which so many failed."""
        if self._bar is not None:
            self._bar.set_postfix(failed=failed, refresh=False)
            self._bar.update(finished - self._bar.n)

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
