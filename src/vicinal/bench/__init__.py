"""The benchmark: the mixing operator beside its peers and beside a plain copy."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from vicinal.bench.cases import FULL, QUICK, Case, Target, build_cases, build_scaling
from vicinal.bench.peers import find_peers
from vicinal.bench.timing import Timing, interleave, others_seconds
from vicinal.errors import UserError
from vicinal.mixing.kernels import kernel_for
from vicinal.training import environment

__all__ = ["measure", "measured_on"]

_BUSY = 0.1
"""The cores taken by other processes from which on a note says so."""


def measured_on(device: str | None) -> torch.device:
    """Return the device to measure on: the one of that name, or a GPU where there is one.

    Raises:
        UserError: if the machine does not have it, or nobody has.
    """
    if device not in {None, "cpu", "cuda"}:
        raise UserError(
            f"--device should be cpu or cuda, but is {device!r}; leave it out to choose"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "--device cuda needs a GPU that PyTorch can use, and there is none here; try --device "
            "cpu, or install a PyTorch with CUDA"
        )
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def measure(
    device: torch.device,
    *,
    quick: bool = False,
    tell: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Any]:
    """Measure every case; return the result as what can be written as JSON.

    Args:
        device: from ``measured_on``.
        quick: fewer rounds and smaller batches: shows that it works, and no more.
        tell: is told what is measured next.

    Returns:
        ``device``, ``quick``, ``hardware``, ``versions``, ``threads``; ``kernel``, the module of
        ``vicinal.mixing.kernels`` that mixes on the device; ``others_cores``, how many cores other
        processes used meanwhile (None if unknown); ``peers`` with name and version; ``cases``, a
        row for each contender; ``targets``, a row for each; ``scaling``, a row for each contender
        and batch size; ``notes``, sentences on what was left out or in the way.
    """
    effort = QUICK if quick else FULL
    peers, absent = find_peers()
    stand_ins = {peer.key for peer in peers}
    notes = [
        f"{key} is {'measured by a stand-in' if key in stand_ins else 'not measured'} ({why})"
        for key, why in absent
    ]
    began, others = time.perf_counter(), others_seconds()
    _settle_memory()
    rows, judged, points = [], [], []
    for case, timings in _timed(build_cases(device, effort, peers), tell):
        rows += _rows(case, timings)
        judged += [judge(case, target, timings) for target in case.targets]
        notes += case.notes
    for case, timings in _timed(build_scaling(device, effort, peers), tell):
        points += _points(case, timings)
        notes += case.notes
    cores = _cores_between(others, others_seconds(), time.perf_counter() - began)
    if cores is not None and cores > _BUSY:
        notes.append(
            f"other processes used {cores:.1f} cores meanwhile, so that times are too long and "
            "ratios uncertain"
        )
    return {
        "device": device.type,
        "quick": quick,
        "hardware": environment.hardware(),
        "versions": environment.versions(),
        "threads": torch.get_num_threads(),
        "kernel": kernel_for(device).__name__.rpartition(".")[2],
        "others_cores": cores,
        "peers": [{"name": peer.name, "version": peer.version} for peer in peers],
        "cases": rows,
        "targets": judged,
        "scaling": points,
        "notes": list(dict.fromkeys(notes)),
    }


def judge(case: Case, target: Target, timings: dict[str, Timing]) -> dict[str, Any]:
    """Return what was wanted and what was measured, from medians of the same run."""
    ours = timings[target.contender].median
    rival = min(target.against, key=lambda name: timings[name].median, default=None)
    if rival is None:
        measured = 1e6 * ours
    elif target.limit == "at most":
        measured = ours / timings[rival].median
    else:
        measured = timings[rival].median / ours
    met = measured <= target.wanted if target.limit == "at most" else measured >= target.wanted
    return {
        "name": f"{case.name}, {shape_name(case.shape)} {_name(case.dtype)}: {target.contender}",
        "wanted": f"{target.limit} {target.wanted:g} {target.words}",
        "against": rival,
        "measured": measured,
        "met": met,
    }


def shape_name(shape: tuple[int, ...] | list[int]) -> str:
    """Return a shape in words.

    Example:
        >>> shape_name((256, 3, 32, 32))
        '256x3x32x32'
    """
    return "x".join(map(str, shape))


def _cores_between(before: float | None, after: float | None, seconds: float) -> float | None:
    return None if before is None or after is None else (after - before) / seconds


def _settle_memory() -> None:
    """Free one block of nearly 32 MiB, as a network soon does that is trained.

    From then on glibc hands out freed blocks up to that size again, without page faults. Before,
    it does not, so that what a peer takes would depend on which case came first: 512x3x32x32 took
    the textbook expression 14 copies after, 36 before.
    """
    torch.empty(31 * 1024 * 1024, dtype=torch.uint8).fill_(0)


def _timed(
    found: Iterator[Case], tell: Callable[[str], None]
) -> Iterator[tuple[Case, dict[str, Timing]]]:
    for case in found:
        tell(f"{case.name}, {shape_name(case.shape)} {_name(case.dtype)}")
        runs = {contender.name: contender.run for contender in case.contenders}
        yield case, interleave(runs, pace=case.pace, stopwatch=case.stopwatch)


def _rows(case: Case, timings: dict[str, Timing]) -> list[dict[str, Any]]:
    base = timings[case.contenders[0].name].median
    return [
        {
            "case": case.name,
            "shape": list(case.shape),
            "dtype": _name(case.dtype),
            "contender": contender.name,
            "version": contender.version,
            **_milliseconds(timings[contender.name]),
            "ratio": timings[contender.name].median / base,
            "unit": case.unit,
        }
        for contender in case.contenders
    ]


def _points(case: Case, timings: dict[str, Timing]) -> list[dict[str, Any]]:
    return [
        {
            "row": list(case.shape[1:]),
            "batch": case.shape[0],
            "dtype": _name(case.dtype),
            "contender": contender.name,
            "version": contender.version,
            **_milliseconds(timings[contender.name]),
        }
        for contender in case.contenders
    ]


def _milliseconds(timing: Timing) -> dict[str, float]:
    return {f"{name}_ms": 1000 * seconds for name, seconds in timing._asdict().items()}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
