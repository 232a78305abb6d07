"""The plan of RegMixUp: a batch and its blends."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from vicinal.mixing.losses import Criterion, Side, mixed_accuracy, mixed_loss, mixed_targets
from vicinal.mixing.operator import check_batch
from vicinal.mixing.passes import mixing_inside
from vicinal.mixing.plan import Plan


class CleanAndMixed:
    """A batch and, below it, its blends: the plan that ``RegMixUp`` draws.

    It has the methods of a plan except ``mix_`` and slicing. Their results have twice as many rows:
    first the clean rows, then the blends.

    Args:
        plan: the plan of the blends.
        weight: the weight of the loss of the blends; the clean rows have weight 1.

    Example:
        >>> both = CleanAndMixed(Plan(torch.tensor([1, 0]), torch.tensor([0.75, 0.5])), 1.0)
        >>> both.mix(torch.tensor([0.0, 8.0])).tolist()
        [0.0, 8.0, 2.0, 4.0]
    """

    def __init__(self, plan: Plan, weight: float) -> None:
        """Keep the plan of the blends and their weight."""
        if isinstance(plan, CleanAndMixed):
            raise TypeError(
                "CleanAndMixed: expected a plan of blends alone, got one that has the clean rows "
                "too. Do not put RegMixUp into RegMixUp."
            )
        self.plan = plan
        self.weight = weight

    def __repr__(self) -> str:
        return f"CleanAndMixed(plan={self.plan!r}, weight={self.weight!r})"

    def __len__(self) -> int:
        """Return the number of examples of the batch, half of the number of rows after mixing."""
        return len(self.plan)

    @property
    def lam(self) -> Tensor:
        """The share that each row keeps after mixing, ``(2 * batch,)``."""
        return torch.cat([torch.ones_like(self.plan.lam), self.plan.lam])

    def mix(
        self, x: Tensor, other: Tensor | None = None, *, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the batch and its blends, ``(2 * batch, ...)``; see ``Plan.mix``."""
        blends = self.plan.mix(x, other, dtype=dtype)
        return torch.cat([x.to(dtype or x.dtype), blends])

    def targets(
        self, y: Tensor, num_classes: int | None = None, *, other: Tensor | None = None
    ) -> Tensor:
        """Return soft targets of both, ``(2 * batch, ...)``; see ``Plan.targets``."""
        mixed = self.plan.targets(y, num_classes, other=other)
        return torch.cat([mixed_targets([self._clean(y)], num_classes), mixed])

    def loss(
        self, criterion: Criterion, output: Tensor, y: Tensor, *, other: Tensor | None = None
    ) -> Tensor:
        """Return the loss of the clean rows plus ``weight`` times that of the blends.

        Args:
            criterion: as for ``Plan.loss``.
            output: ``(2 * batch, ...)``, the output of the network for the result of ``mix``.
            y: ``(batch, ...)``, targets of the batch before mixing.
            other: as for ``Plan.loss``.
        """
        clean, mixed = self._halves(output)
        loss = mixed_loss(criterion, clean, [self._clean(y)])
        return loss + self.weight * self.plan.loss(criterion, mixed, y, other=other)

    def accuracy(
        self,
        output: Tensor,
        y: Tensor,
        *,
        other: Tensor | None = None,
        ignore_index: int = -100,
    ) -> Tensor:
        """Return the mean accuracy of clean rows and blends; see ``Plan.accuracy``."""
        clean, mixed = self._halves(output)
        whole = mixed_accuracy(clean, [self._clean(y)], ignore_index=ignore_index)
        blends = self.plan.accuracy(mixed, y, other=other, ignore_index=ignore_index)
        return (whole + blends) / 2

    def inside(
        self, module: nn.Module, *, entry: int | str | None = None
    ) -> AbstractContextManager[None]:
        """Add the blends below the output of ``module``; see ``Plan.inside``."""
        return mixing_inside(module, self.mix, entry)

    def to(self, device: torch.device | str) -> "CleanAndMixed":
        """Return this plan on ``device``."""
        return CleanAndMixed(self.plan.to(device), self.weight)

    def _clean(self, y: Tensor) -> Side:
        check_batch("y", y, None, len(self), None)
        return Side(y, torch.ones(len(self), dtype=torch.float32, device=y.device))

    def _halves(self, output: Tensor) -> tuple[Tensor, Tensor]:
        if output.shape[:1] != (2 * len(self),):
            raise ValueError(
                f"output: expected {2 * len(self)} rows, for clean rows and blends, got shape "
                f"{tuple(output.shape)}. Pass the output for plan.mix(x)."
            )
        return output[: len(self)], output[len(self) :]
