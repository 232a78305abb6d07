"""Timing of contenders in one interleaved run, so that what slows the machine slows them all."""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

Run = Callable[[], object]
Stopwatch = Callable[[Run, int], float]
"""Calls a function some times in a row and answers with the seconds that all of them took."""

_MOST_CALLS = 100


class Timing(NamedTuple):
    """Seconds per call: the median and the quartiles over the rounds."""

    median: float
    low: float
    high: float


class Pace(NamedTuple):
    """How long to go on: until ``seconds`` are over, but from ``least`` to ``most`` rounds.

    A turn lasts ``turn`` seconds at least: what is shorter is called again and again.
    """

    seconds: float
    least: int = 5
    most: int = 200
    turn: float = 2e-3


def interleave(
    contenders: Mapping[str, Run],
    *,
    pace: Pace,
    stopwatch: Stopwatch,
    now: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time contenders against each other: in each round each has one turn, in changing order.

    A turn is one call or, where that is too short, one call that is not timed, so that the
    contender finds the caches as it leaves them itself, and then as many as fill the turn. Two
    rounds before the first one count nowhere.

    Args:
        contenders: what to call, by name.
        pace: when to stop.
        stopwatch: ``wall_clock()``, or ``cuda_events`` for what runs on a GPU.
        now: the clock that ``pace.seconds`` are read from.
    """
    for run in contenders.values():
        run()
    calls = {name: _calls(stopwatch(run, 1), pace.turn) for name, run in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    began, done = now(), 0
    while done < pace.least or (done < pace.most and now() - began < pace.seconds):
        for name in in_turn(list(contenders), done):
            if calls[name] > 1:
                contenders[name]()
            seconds[name].append(stopwatch(contenders[name], calls[name]) / calls[name])
        done += 1
    return {name: _timing(values) for name, values in seconds.items()}


def in_turn(names: Sequence[str], done: int) -> list[str]:
    """Return the order of a round: forwards, backwards, then both from the next name on.

    Example:
        >>> [in_turn("abc", done) for done in range(3)]
        [['a', 'b', 'c'], ['c', 'b', 'a'], ['b', 'c', 'a']]
    """
    first = done // 2 % len(names)
    order = [*names[first:], *names[:first]]
    return order[::-1] if done % 2 else order


def wall_clock(now: Callable[[], float] = time.perf_counter) -> Stopwatch:
    """Return the stopwatch of what is over when the call is over."""

    def seconds(run: Run, calls: int) -> float:
        began = now()
        for _ in range(calls):
            run()
        return now() - began

    return seconds


def cuda_events(run: Run, calls: int) -> float:
    """Return the seconds that the GPU was busy with some calls, from events in its own stream."""
    began = torch.cuda.Event(enable_timing=True)
    ended = torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    began.record()
    for _ in range(calls):
        run()
    ended.record()
    ended.synchronize()
    milliseconds: float = began.elapsed_time(ended)
    return milliseconds / 1000


def others_seconds() -> float | None:
    """Return the CPU seconds that went elsewhere since the machine started; None if unknown.

    Elsewhere is every process but this one, and on a virtual machine its neighbors.
    """
    try:
        words = Path("/proc/stat").read_text().split()[1:9]
    except OSError:
        return None
    user, nice, system, _, _, interrupts, soft, stolen = map(int, words)
    own = os.times()
    ticks = user + nice + system + interrupts + soft + stolen
    return ticks / os.sysconf("SC_CLK_TCK") - own.user - own.system


def _calls(seconds: float, turn: float) -> int:
    return min(_MOST_CALLS, math.ceil(turn / seconds)) if seconds > 0 else _MOST_CALLS


def _timing(values: list[float]) -> Timing:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Timing(median, low, high)
