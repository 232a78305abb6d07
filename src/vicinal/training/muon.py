"""Muon for convolutions."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Muon


class FilterMuon(Muon):
    """``torch.optim.Muon`` for the filters of convolutions, which are seen as matrices.

    Jordan et al., "Muon: An optimizer for hidden layers" (https://kellerjordan.github.io/posts/muon).
    A row is a filter. Its entries may come in any order, since what makes a matrix orthogonal does
    not depend on it: so the view exists in each memory format, without a copy.

    Args:
        filters: parameters ``(out, in, height, width)``.
        lr: step size of the orthogonal update.
        momentum: with Nesterov.
        weight_decay: decoupled, multiplied by the learning rate.

    Example:
        >>> layer = nn.Conv2d(3, 8, 3, bias=False)
        >>> optimizer = FilterMuon([layer.weight], lr=0.1)
        >>> layer(torch.rand(1, 3, 8, 8)).square().sum().backward()
        >>> before = layer.weight.detach().clone()
        >>> optimizer.step()
        >>> update = ((layer.weight.detach() - before) / 0.1).flatten(1)
        >>> bool((torch.linalg.matrix_norm(update, 2) < 1.3).all())
        True
    """

    def __init__(
        self,
        filters: list[nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.6,
        weight_decay: float = 0.0,
    ) -> None:
        """Take views of the filters."""
        self._filters = filters
        matrices = [_matrix(one.detach()) for one in filters]
        super().__init__(
            matrices, lr=lr, momentum=momentum, nesterov=True, weight_decay=weight_decay
        )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the filters."""
        for one in self._filters:
            one.grad = None

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take a step along the gradients of the filters."""
        matrices: Iterator[Tensor] = iter(self.param_groups[0]["params"])
        for one, matrix in zip(self._filters, matrices, strict=True):
            matrix.grad = None if one.grad is None else _matrix(one.grad)
        return super().step(closure)  # type: ignore[no-untyped-call]


def _matrix(filters: Tensor) -> Tensor:
    """Return (out, in, height, width) as (out, everything else), sharing memory."""
    channels_last = filters.is_contiguous(memory_format=torch.channels_last)
    return (filters.permute(0, 2, 3, 1) if channels_last else filters).flatten(1)
