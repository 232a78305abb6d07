"""How many CPU threads PyTorch works with."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Run with ``count`` CPU threads, or with as many as there were if None; then as before.

    Small operations, and those beside busy processes, are quicker in one: several wait for each
    other, and the slowest may have to share its core.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
