"""A shared way to time rivals against each other on a machine that is never quite quiet.

All contenders take turns within a round, in an order that rotates, and ratios are taken round by round: a slow spell
of the machine then slows all of them. The first call, which compiles, is timed apart.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax


class Timing(NamedTuple):
    """What one contender took, in seconds.

    Attributes:
      first: the first call, compilation included.
      wall: one entry per round.
      cpu: processor time of all threads, one entry per round; other programs on the machine disturb it less.
    """

    first: float
    wall: list[float]
    cpu: list[float]


def measure(
    contenders: Mapping[str, Callable[[], Any]], *, repeats: int, budget: float
) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Time contenders in one interleaved run.

    Args:
      contenders: name -> a call without arguments whose result can be waited for.
      repeats: rounds at most.
      budget: seconds after which no round is begun, once there have been three.

    Returns:
      Name -> `Timing`, and name -> the result of the first call.
    """
    firsts, results = {}, {}
    for name, call in contenders.items():
        results[name], firsts[name], _ = clock(call)
    for call in contenders.values():
        clock(call)
    timings = {name: Timing(first, [], []) for name, first in firsts.items()}
    names, began = list(contenders), time.perf_counter()
    for turn in range(repeats):
        if turn >= 3 and time.perf_counter() - began > budget:
            break
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            _, wall, cpu = clock(contenders[name])
            timings[name].wall.append(wall)
            timings[name].cpu.append(cpu)
    return timings, results


def clock(call: Callable[[], Any]) -> tuple[Any, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(call())
    return result, time.perf_counter() - wall, time.process_time() - cpu


def ratio(times: list[float], base: list[float]) -> float:
    """Median over rounds of one contender's time over another's in the same round."""
    return statistics.median(a / b for a, b in zip(times, base, strict=True))


def spread(times: list[float]) -> float:
    """Width of the middle half of the rounds' times over their median."""
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / middle
