"""The Muon optimizer for convolutions."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Muon


class FilterMuon(Muon):
    """``torch.optim.Muon`` for the filters of convolutions, viewed as matrices.

    Jordan et al., "Muon: An optimizer for hidden layers" (https://kellerjordan.github.io/posts/muon).
    Each row is a filter. The order of its entries does not matter for orthogonalization, so the
    matrices are views in both memory formats.

    There is no weight decay: before each step the filters of a layer are divided by the root mean
    square of their L2 norms, as in Jordan's program for CIFAR-10
    (github.com/KellerJordan/cifar10-airbench). A normalization layer after the convolution cancels
    this scale, which only decides how far a step turns the filters.

    Args:
        filters: parameters ``(out, in, height, width)``.
        lr: step size of the orthogonal update.
        momentum: Nesterov momentum.

    Example:
        >>> layer = nn.Conv2d(3, 8, 3, bias=False)
        >>> optimizer = FilterMuon([layer.weight], lr=0.1)
        >>> layer(torch.rand(1, 3, 8, 8)).square().sum().backward()
        >>> before = layer.weight.detach().flatten(1)
        >>> before = before * (8**0.5 / before.norm())
        >>> optimizer.step()
        >>> update = (layer.weight.detach().flatten(1) - before) / 0.1
        >>> bool((torch.linalg.matrix_norm(update, 2) < 1.3).all())
        True
    """

    def __init__(self, filters: list[nn.Parameter], *, lr: float, momentum: float = 0.6) -> None:
        """Make views of the filters."""
        self._filters = filters
        matrices = [_matrix(one.detach()) for one in filters]
        super().__init__(matrices, lr=lr, momentum=momentum, nesterov=True, weight_decay=0.0)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients of the filters."""
        for one in self._filters:
            one.grad = None

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Perform a step with the gradients of the filters."""
        matrices: Iterator[Tensor] = iter(self.param_groups[0]["params"])
        for one, matrix in zip(self._filters, matrices, strict=True):
            matrix.grad = None if one.grad is None else _matrix(one.grad)
            if one.grad is not None:
                matrix.mul_(len(matrix) ** 0.5 / matrix.norm().clamp(min=1e-12))
        return super().step(closure)  # type: ignore[no-untyped-call]


def _matrix(filters: Tensor) -> Tensor:
    """Return (out, in, height, width) as a view (out, rest)."""
    channels_last = filters.is_contiguous(memory_format=torch.channels_last)
    return (filters.permute(0, 2, 3, 1) if channels_last else filters).flatten(1)
