"""The seconds of a fit: who waits for something asks whether they are over."""

from collections.abc import Callable


class OutOfTime(Exception):
    """The seconds of a fit are over in the middle of a stage.

    Attributes:
      num_gradients: taken by a stage that counts them itself.
    """

    num_gradients: float = 0.0


def in_time(late: Callable[[], bool]) -> None:
    """Raise `OutOfTime` where the time is over."""
    if late():
        raise OutOfTime
