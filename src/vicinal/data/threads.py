"""The number of CPU threads."""

import contextlib
import os
from collections.abc import Iterator

import torch


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Run with ``count`` CPU threads, then restore the earlier number; None changes nothing.

    Small operations are faster in one thread, since several threads have to wait for each other.
    One thread is also faster if other processes keep the cores busy, since all threads then wait
    for the one that has to share its core.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
