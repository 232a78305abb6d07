"""Time functions against each other in interleaved rounds, so that noise hits all of them."""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

Run = Callable[[], object]

_MOST_CALLS = 100


class Timing(NamedTuple):
    """Seconds per call: the median and the quartiles over the rounds."""

    median: float
    low: float
    high: float


class Budget(NamedTuple):
    """How long to measure.

    Args:
        seconds: start no further round after this time.
        least: run at least this many rounds.
        most: run at most this many rounds.
        turn: repeat calls until a turn takes this many seconds.
    """

    seconds: float
    least: int = 5
    most: int = 200
    turn: float = 2e-3


def interleave(contenders: Mapping[str, Run], budget: Budget) -> dict[str, Timing]:
    """Time contenders in rounds: in each round, every contender has one turn, in changing order.

    A turn is one call. If that is shorter than ``budget.turn``, the turn is one call that is not
    timed, so that the contender finds the caches as it leaves them itself, and then as many as
    fill the turn. Two warm-up calls of each contender are not counted.
    """
    for run in contenders.values():
        run()
    calls = {
        name: min(_MOST_CALLS, math.ceil(budget.turn / max(seconds_of(run, 1), 1e-9)))
        for name, run in contenders.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    began, done = time.perf_counter(), 0
    while done < budget.least or (
        done < budget.most and time.perf_counter() - began < budget.seconds
    ):
        for name in order_of_round(list(contenders), done):
            if calls[name] > 1:
                contenders[name]()
            seconds[name].append(seconds_of(contenders[name], calls[name]) / calls[name])
        done += 1
    quartiles = {n: statistics.quantiles(v, n=4, method="inclusive") for n, v in seconds.items()}
    return {name: Timing(median, low, high) for name, (low, median, high) in quartiles.items()}


def order_of_round(names: Sequence[str], done: int) -> list[str]:
    """Return the order of a round: forward, backward, then both from the next name on.

    Example:
        >>> [order_of_round("abc", done) for done in range(3)]
        [['a', 'b', 'c'], ['c', 'b', 'a'], ['b', 'c', 'a']]
    """
    first = done // 2 % len(names)
    order = [*names[first:], *names[:first]]
    return order[::-1] if done % 2 else order


def seconds_of(run: Run, calls: int) -> float:
    """Return the seconds that several calls take, until the GPU has finished them too."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    began = time.perf_counter()
    for _ in range(calls):
        run()
    wait()
    return time.perf_counter() - began


def cpu_seconds_of_others() -> float | None:
    """Return the CPU seconds since boot that this process did not use; None if unknown.

    They include those that a virtual machine's host gave to its neighbors.
    """
    try:
        words = Path("/proc/stat").read_text().split()[1:9]
    except OSError:
        return None
    user, nice, system, _, _, interrupts, soft, stolen = map(int, words)
    own = os.times()
    ticks = user + nice + system + interrupts + soft + stolen
    return ticks / os.sysconf("SC_CLK_TCK") - own.user - own.system
