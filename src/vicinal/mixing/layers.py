"""Mixing at any place of a network."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def mixing_inside(module: nn.Module, mix: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Pass what ``module`` puts out through ``mix``, once, inside the ``with`` block.

    In eval mode the output passes untouched. ``Plan.inside`` says what is raised when.
    """
    runs = 0

    def hook(_module: nn.Module, _args: Any, output: Any) -> Tensor | None:
        nonlocal runs
        runs += 1
        if not module.training:
            return None
        name = type(module).__name__
        if runs > 1:
            raise RuntimeError(
                f"{name} ran a second time inside one block, but the loss knows of one mixing "
                "only; open a block for each forward pass, and mix at a module that runs once."
            )
        if not isinstance(output, Tensor):
            raise TypeError(
                f"mixing inside needs a module that puts out one tensor, {name} puts out a "
                f"{type(output).__name__}; choose a module before or after it."
            )
        return mix(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if runs == 0:
        raise RuntimeError(
            f"{type(module).__name__} did not run inside the block, so nothing was mixed; run the "
            "model there, and choose a module that its forward pass calls."
        )
