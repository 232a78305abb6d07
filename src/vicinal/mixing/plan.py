"""The plan: who meets whom, and how much each keeps. It mixes anything."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vicinal.mixing.layers import mixing_inside
from vicinal.mixing.losses import Criterion, mixed_accuracy, mixed_loss, mixed_targets
from vicinal.mixing.operator import check_shares, mix


@dataclass(frozen=True, eq=False)
class Plan:
    """A frozen plan for one batch, as a policy's ``draw`` makes it.

    Every method is plain arithmetic without chance: row ``i`` becomes
    ``lam[i] * own + (1 - lam[i]) * partner``. The plan follows the device of what it is given.

    Args:
        partner: ``(batch,)`` int64, the row that each row meets.
        lam: ``(batch,)`` floating point in ``[0, 1]``, the share that each row keeps.

    Raises:
        TypeError, ValueError: if ``partner`` and ``lam`` do not fit together.

    Example:
        >>> plan = Plan(partner=torch.tensor([1, 0]), lam=torch.tensor([0.75, 1.0]))
        >>> plan.mix(torch.tensor([[0.0], [8.0]])).tolist()
        [[2.0], [8.0]]
        >>> plan.targets(torch.tensor([0, 1]), num_classes=2).tolist()
        [[0.75, 0.25], [0.0, 1.0]]
    """

    partner: Tensor
    lam: Tensor

    def __post_init__(self) -> None:
        """Refuse partners and shares that do not fit together."""
        check_shares(self.partner, self.lam)

    def __len__(self) -> int:
        """Return the number of examples that the plan was drawn for."""
        return len(self.partner)

    def mix(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Return a new batch of blends; ``x`` is not modified.

        Args:
            x: ``(batch, ...)`` floating point or uint8 (rounded back).
            other: ``(rows, ...)``, the batch that the partners come from, if it is not ``x``.

        Raises:
            TypeError, ValueError: as ``vicinal.mix``, and if ``x`` has another batch size.
        """
        self._check_size("x", x)
        here = self.to(x.device)
        return mix(x, partner=here.partner, lam=here.lam, other=other)

    def mix_(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Write the blends into ``x`` and return it; otherwise as ``mix``.

        Example:
            >>> x = torch.tensor([[0.0], [8.0]])
            >>> _ = Plan(torch.tensor([1, 0]), torch.tensor([0.75, 1.0])).mix_(x)
            >>> x.tolist()
            [[2.0], [8.0]]
        """
        return x.copy_(self.mix(x, other))

    def targets(self, y: Tensor, num_classes: int | None = None) -> Tensor:
        """Return soft targets: each row's own target and its partner's, by their shares.

        Args:
            y: integer classes ``(batch, ...)``, such as labels or masks: turned into shares of
                ``num_classes`` along a new dimension 1, as PyTorch's cross-entropy wants them; or
                soft, multi-label or real-valued targets ``(batch, ...)`` of a floating-point type
                (booleans count as 0 and 1): blended as they are.
            num_classes: for integer classes, their number; to be left out otherwise.

        Returns:
            float32 for integer and boolean ``y``, otherwise the type of ``y``.

        Raises:
            ValueError: if ``num_classes`` is missing or out of place, or a class is outside it.
        """
        self._check_size("y", y)
        here = self.to(y.device)
        return mixed_targets(y, num_classes, partner=here.partner, lam=here.lam)

    def loss(self, criterion: Criterion, output: Tensor, y: Tensor) -> Tensor:
        """Return the loss of a blended batch: ``lam * own + (1 - lam) * partner``, averaged.

        For plain cross-entropy this equals the loss against soft targets, without making them.
        See ``vicinal.mixing.losses.mixed_loss`` for class weights and ignored classes.

        Args:
            criterion: ``F.cross_entropy``, ``nn.CrossEntropyLoss(...)``, or any criterion, function
                or module, that can answer with one loss per example by ``reduction="none"``.
            output: what the network answered to the blended batch, ``(batch, ...)``.
            y: targets of the batch as it was before mixing, in the form that ``criterion`` takes.

        Raises:
            TypeError: if ``criterion`` knows no ``reduction="none"``.
            ValueError: if the sizes do not fit or the losses are not one per example.

        Example:
            >>> import torch.nn.functional as F
            >>> plan = Plan(torch.tensor([1, 0]), torch.tensor([0.5, 0.5]))
            >>> plan.loss(F.cross_entropy, torch.zeros(2, 4), torch.tensor([0, 3])).item()
            1.3862943649291992
        """
        self._check_size("output", output)
        self._check_size("y", y)
        here = self.to(output.device)
        return mixed_loss(criterion, output, y, partner=here.partner, lam=here.lam)

    def accuracy(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the accuracy under mixing, a fraction: each row counts lam if the answer is its
        own class and ``1 - lam`` if it is its partner's.

        Comparable between blended batches, not with the accuracy on whole examples: a perfect
        network, which answers with the larger share, reaches the mean of ``max(lam, 1 - lam)``.

        Args:
            output: ``(batch, classes)`` or ``(batch, classes, ...)``: scores.
            y: ``(batch,)`` or ``(batch, ...)`` int64: classes before mixing.

        Example:
            >>> plan = Plan(torch.tensor([1, 0]), torch.tensor([0.75, 0.75]))
            >>> plan.accuracy(torch.eye(2), torch.tensor([0, 1])).item()
            0.75
        """
        self._check_size("output", output)
        self._check_size("y", y)
        here = self.to(output.device)
        return mixed_accuracy(output, y, partner=here.partner, lam=here.lam)

    def inside(self, module: nn.Module) -> AbstractContextManager[None]:
        """Mix what ``module`` puts out, for the one forward pass inside the ``with`` block.

        Any module of any model will do, and nothing of the model is rewritten. It mixes in train
        mode only: in eval mode the output passes untouched.

        Raises:
            TypeError: if the module puts out something else than a tensor.
            RuntimeError: if the module runs twice inside the block (the loss knows of one mixing
                only), or, at the end of the block, if it did not run at all.

        Example:
            >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
            >>> plan = Plan(torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))
            >>> with plan.inside(model[0]):
            ...     output = model(torch.rand(2, 4))
        """
        return mixing_inside(module, self.mix)

    def to(self, device: torch.device | str) -> "Plan":
        """Return this plan on ``device``: itself where it is there already."""
        target = torch.device(device)
        if self.lam.device == target:
            return self
        return Plan(
            self.partner.to(target, non_blocking=True), self.lam.to(target, non_blocking=True)
        )

    def _check_size(self, name: str, value: Tensor) -> None:
        if value.dim() == 0 or len(value) != len(self):
            raise ValueError(
                f"this plan was drawn for a batch of {len(self)}, {name} has shape "
                f"{tuple(value.shape)}; draw one plan per batch: policy.draw(len(x))."
            )
